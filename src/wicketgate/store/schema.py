"""The database file: its tables, how it is made, how it is opened, and SQLite's errors in words."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from wicketgate.store.errors import StoreError
from wicketgate.store.files import private_file, put_in_place

APPLICATION_ID: Final = 0x57474154
"""`WGAT`: tells our files from other programs' SQLite files (SQLite, PRAGMA application_id)."""

LAYOUT: Final = 1
"""Number of this arrangement of tables (PRAGMA user_version). Resources have schema numbers of their own."""

_TABLES: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE journal (
    revision INTEGER PRIMARY KEY,
    time REAL NOT NULL,
    caller TEXT NOT NULL,
    request_id TEXT NOT NULL,
    puts TEXT NOT NULL,     -- JSON list of [kind, id, schema, body]
    deletes TEXT NOT NULL   -- JSON list of [kind, id]
);
CREATE TABLE current (
    position INTEGER PRIMARY KEY,   -- order of creation; an update keeps it
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    revision INTEGER NOT NULL,      -- of the last Change that put it
    schema INTEGER NOT NULL,
    body TEXT NOT NULL,
    UNIQUE (kind, id)
);
CREATE TABLE token (
    caller TEXT NOT NULL,
    action TEXT NOT NULL,
    token TEXT NOT NULL,
    parameter_hash TEXT NOT NULL,
    answer TEXT NOT NULL,           -- sealed
    time REAL NOT NULL,
    PRIMARY KEY (caller, action, token)
) WITHOUT ROWID;
CREATE INDEX token_time ON token (time);
CREATE TABLE note (revision INTEGER PRIMARY KEY, line TEXT NOT NULL);
CREATE TABLE secret (name TEXT PRIMARY KEY, sealed TEXT NOT NULL) WITHOUT ROWID;
"""


def create(path: Path, meta: dict[str, str]) -> None:
    """Make a database with this metadata and no resources; it gets its name when it is complete and on disk."""
    if path.with_name(path.name + "-wal").exists():
        raise StoreError(
            f"{path} is missing, but {path.name}-wal is there and holds committed changes: put {path.name} back"
        )
    temporary = path.with_name(path.name + ".new")
    for left in (temporary, temporary.with_name(temporary.name + "-journal")):
        left.unlink(missing_ok=True)  # of a first start that was cut off
    os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with worded(path), contextlib.closing(sqlite3.connect(temporary, isolation_level=None)) as database:
        database.execute(f"PRAGMA application_id={APPLICATION_ID}")
        database.execute(f"PRAGMA user_version={LAYOUT}")
        database.executescript(f"BEGIN;{_TABLES}")
        database.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
        database.execute("COMMIT")
    put_in_place(temporary, path)


def connect(path: Path) -> sqlite3.Connection:
    """Open a database that `create` made, for this process alone, checked page by page; raises StoreError."""
    private_file(path)
    if path.stat().st_size == 0:
        raise StoreError(f"{path} is empty, which wicketgate never leaves it: restore it from a backup")
    try:
        os.close(os.open(path, os.O_RDWR))  # SQLite would open it for reading only and fail later, in worse words
    except OSError as error:
        raise StoreError(
            f"store {path} cannot be written: {error.strerror}; give file and directory to the user that the API runs "
            "as, on a file system mounted for writing"
        ) from error
    with worded(path):
        database = sqlite3.connect(path, isolation_level=None, timeout=1.0, check_same_thread=False)
        try:
            _prepare(database, path)
        except BaseException:
            database.close()
            raise
    return database


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    # Exclusive: the write-ahead index lives in our memory, so there is no shared-memory file to be torn by a full disk.
    database.execute("PRAGMA locking_mode=EXCLUSIVE")
    (application_id,) = database.execute("PRAGMA application_id").fetchone()
    if application_id != APPLICATION_ID:
        raise StoreError(f"{path} is an SQLite file of another program; wicketgate leaves it alone: move it away")
    (layout,) = database.execute("PRAGMA user_version").fetchone()
    if layout > LAYOUT:
        raise StoreError(
            f"{path} has layout {layout}, this wicketgate knows layouts up to {LAYOUT}: "
            "it was written by a newer one; run that"
        )
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")  # in WAL mode: fsync at every commit
    (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise StoreError(f"{path} is damaged ({verdict}): {_RESTORE}")


_RESTORE: Final = "restore it from a backup, and keep this copy and its -wal file"

_WORDS: Final = {
    "SQLITE_FULL": "the disk is full; nothing of this was kept. Free some space and try again",
    "SQLITE_IOERR_WRITE": "the disk refused a write; nothing of this was kept. Look into the kernel's log, "
    "the quota and the file size limit, and try again",
    "SQLITE_READONLY": "it may not be written; nothing of this was kept. Give file and directory to the user that the "
    "API runs as, on a file system mounted for writing",
    "SQLITE_CANTOPEN": "it cannot be opened or made; give file and directory to the user that the API runs as, on a "
    "file system mounted for writing",
    "SQLITE_BUSY": "another program has it open; stop that and try again",
    "SQLITE_NOTADB": f"it is damaged: not a database any more; {_RESTORE}",
    "SQLITE_CORRUPT": f"it is damaged; {_RESTORE}",
}

HARMLESS: Final = ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_BUSY", "SQLITE_READONLY", "SQLITE_CONSTRAINT")
"""Errors after which it is certain that nothing was kept, so that trying again is safe."""


def error_name(error: sqlite3.Error) -> str:
    """SQLite's name of an error, e.g. `SQLITE_FULL`; empty for the Python module's own."""
    return getattr(error, "sqlite_errorname", None) or ""


@contextlib.contextmanager
def worded(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into StoreErrors with the file and what would be right."""
    try:
        yield
    except sqlite3.Error as error:
        name = error_name(error)
        words = next((text for start, text in _WORDS.items() if name.startswith(start)), f"{error}; look into its disk")
        raise StoreError(f"store {path}: {words} ({name or type(error).__name__})") from error
