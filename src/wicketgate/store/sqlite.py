"""The store in one SQLite file (stdlib sqlite3; WAL, synchronous=FULL).

One transaction holds a journal row, the current rows it leads to, the revision and the ClientToken: all or none. A
commit that failed in a way that leaves open whether the disk has it (an fsync error) ends all writing: only opening the
store again reads what is true.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from wicketgate.model import Change, World, WorldError, apply_change
from wicketgate.model.change import id_of, kind_of
from wicketgate.seal import Seal, SealError, ensure_key
from wicketgate.store.contract import TOKEN_LIFE, Identity, Recorded, TokenUse
from wicketgate.store.errors import RevisionConflict, StoreError
from wicketgate.store.files import lock, private_directory
from wicketgate.store.records import UPGRADERS, Codec, Record, Upgrader
from wicketgate.store.schema import HARMLESS, connect, create, error_name, worded

FILE_NAME: Final = "store.db"
_KEY_CHECK: Final = ("meta", "key-check")
_CHUNK: Final = 256
"""Journal rows read at a time: between chunks, commits get their turn."""

_Row = tuple[int, float, str, str, str, str]
_Records = tuple[list[Record], list[tuple[str, str]]]


def open_store(
    directory: Path,
    *,
    key_file: Path | None = None,
    identity: Identity | None = None,
    upgraders: Mapping[str, tuple[Upgrader, ...]] = UPGRADERS,
) -> SqliteStore:
    """Open the store in a directory, made with its key file on first start.

    `key_file` None is `seal.key` in the directory; keep a copy of it elsewhere. `identity` None takes the store's own
    (the default one for a new store). Raises StoreError when it is not there to be used, SealError for the key file.
    """
    private_directory(directory)
    path = directory / FILE_NAME
    with contextlib.ExitStack() as undo:
        held = lock(directory)
        undo.callback(os.close, held)
        try:
            seal = ensure_key(key_file or directory / "seal.key", may_create=not path.exists())
            if not path.exists():
                create(path, _first_meta(identity or Identity(), seal))
            database = connect(path)
        except OSError as error:
            raise StoreError(f"store {path}: {error.strerror}") from error
        undo.callback(database.close)
        with worded(path):
            store = SqliteStore(path, database, Codec(seal, upgraders), seal, held)
            store.check(identity)
        undo.pop_all()
        return store


def _first_meta(identity: Identity, seal: Seal) -> dict[str, str]:
    return {
        "revision": "0",
        "key-check": seal.seal(_KEY_CHECK, b"wicketgate"),
        "schemas": "{}",
        **msgspec.structs.asdict(identity),
    }


class SqliteStore:
    """A `Store` in an open SQLite file. Made by `open_store`."""

    def __init__(self, path: Path, database: sqlite3.Connection, codec: Codec, seal: Seal, held: int) -> None:
        """Use an open database; `held` is the descriptor that locks the directory."""
        self.path = path
        self._database = database
        self._codec = codec
        self._seal = seal
        self._held = held
        self._mutex = threading.Lock()
        self._uncertain = ""
        self._meta = dict(database.execute("SELECT name, value FROM meta"))

    @property
    def revision(self) -> int:
        """The last committed revision; 0 when nothing ever was."""
        return int(self._meta["revision"])

    @property
    def identity(self) -> Identity:
        """Account, region and partition."""
        return Identity(**{name: self._meta[name] for name in Identity.__struct_fields__})

    def check(self, identity: Identity | None) -> None:
        """Raise StoreError when key, account or schemas are not those the store was written with."""
        absent = {"revision", "key-check", "schemas", *Identity.__struct_fields__} - self._meta.keys()
        if absent:
            raise StoreError(
                f"store {self.path} is damaged: it lacks its {', '.join(sorted(absent))}; restore it from a backup"
            )
        try:
            self._seal.unseal(_KEY_CHECK, self._meta["key-check"])
        except SealError as error:
            raise StoreError(f"store {self.path} cannot be used with this key file: {error}") from error
        if identity is not None and identity != self.identity:
            raise StoreError(
                f"store {self.path} belongs to {_worded(self.identity)}, but the configuration says "
                f"{_worded(identity)}: these cannot change, because ARNs contain them; "
                "set them back, or choose another state directory"
            )
        known = self._codec.schemas()
        newer = [kind for kind, number in self._schemas().items() if number > known.get(kind, 0)]
        if newer:
            raise StoreError(
                f"store {self.path} holds resources ({', '.join(newer)}) in a form that a newer wicketgate wrote; "
                "run that one"
            )
        self._check_journal()

    def _check_journal(self) -> None:
        count, last = self._database.execute("SELECT count(*), coalesce(max(revision), 0) FROM journal").fetchone()
        (latest,) = self._database.execute("SELECT coalesce(max(revision), 0) FROM current").fetchone()
        if not count == last == self.revision >= latest:
            raise StoreError(
                f"store {self.path} is damaged: its revision is {self.revision}, but the journal has {count} changes "
                f"up to revision {last} and the current resources are of revision {latest}; restore it from a backup"
            )

    def _schemas(self) -> dict[str, int]:
        return msgspec.json.decode(self._meta["schemas"], type=dict[str, int])

    def close(self) -> None:
        """Let go of the files. What was committed is on disk already."""
        with self._mutex:
            self._database.close()
            if self._held >= 0:
                os.close(self._held)
                self._held = -1

    # -- the World -----------------------------------------------------------------------------------------------------

    def load(self) -> World:
        """The World at the last revision, checked."""
        with self._mutex, worded(self.path):
            rows = self._database.execute("SELECT kind, id, schema, body FROM current ORDER BY position").fetchall()
            revision = self.revision
        return self._world((Record(kind, one, schema, msgspec.Raw(body)) for kind, one, schema, body in rows), revision)

    def at(self, *, revision: int | None = None, time: float | None = None) -> World:
        """The World as it was at a revision, or after the last Change of at most `time` (seconds since the epoch)."""
        if (revision is None) == (time is None):
            raise StoreError("a moment of the past is either a revision or a time: give exactly one")
        if revision is None:
            revision = self._revision_at(time or 0.0)
        if not 0 <= revision <= self.revision:
            raise StoreError(f"there is no revision {revision}: the journal goes from 0 to {self.revision}")
        records: dict[tuple[str, str], Record] = {}
        for row in self._journal(0, revision):
            puts, deletes = self._records(row)
            records.update({(one.kind, one.id): one for one in puts})  # what is there keeps its place
            for key in deletes:
                records.pop(key, None)
        return self._world(records.values(), revision)

    def _revision_at(self, time: float) -> int:
        with self._mutex, worded(self.path):
            query = "SELECT coalesce(max(revision), 0) FROM journal WHERE time <= ?"
            (revision,) = self._database.execute(query, (time,)).fetchone()
        return int(revision)

    def _world(self, records: Iterable[Record], revision: int) -> World:
        try:
            puts = tuple(self._codec.resource(record) for record in records)
            empty = World(revision=revision - 1, **msgspec.structs.asdict(self.identity))
            return apply_change(empty, Change(puts=puts))
        except (StoreError, WorldError) as error:
            raise StoreError(f"store {self.path}, revision {revision}: {error}") from error

    # -- the journal ---------------------------------------------------------------------------------------------------

    def changes(self, since: int = 0) -> Iterator[Recorded]:
        """The journal after revision `since`, in order."""
        for row in self._journal(since, self.revision):
            revision, time, caller, request_id = row[:4]
            puts, deletes = self._records(row)
            change = Change(
                puts=tuple(map(self._codec.resource, puts)),
                deletes=tuple(deletes),
                caller=caller,
                request_id=request_id,
                time=time,
            )
            yield Recorded(revision, change)

    def _journal(self, after: int, until: int) -> Iterator[_Row]:
        query = "SELECT * FROM journal WHERE revision > ? AND revision <= ? ORDER BY revision LIMIT ?"
        while after < until:
            with self._mutex, worded(self.path):
                rows: list[_Row] = self._database.execute(query, (after, until, _CHUNK)).fetchall()
            if [row[0] for row in rows] != list(range(after + 1, after + 1 + len(rows))) or not rows:
                raise StoreError(f"store {self.path} is damaged: the journal lacks a revision after {after}")
            yield from rows
            after += len(rows)

    def _records(self, row: _Row) -> _Records:
        try:
            puts = msgspec.json.decode(row[4], type=list[tuple[str, str, int, msgspec.Raw]])
            return [Record(*one) for one in puts], msgspec.json.decode(row[5], type=list[tuple[str, str]])
        except msgspec.DecodeError as error:
            raise StoreError(
                f"store {self.path} is damaged: revision {row[0]} of the journal: {error}; restore it from a backup"
            ) from error

    # -- writing -------------------------------------------------------------------------------------------------------

    def commit(
        self,
        change: Change,
        expected_revision: int,
        *,
        token: TokenUse | None = None,
        forget: TokenUse | None = None,
        note: str = "",
        noted: Sequence[int] = (),
    ) -> int:
        """Keep a Change that `apply_change` accepted on the World of `expected_revision`; returns the new revision.

        When it returns, the Change is on disk, and with it `token`; when it raises, none of it is kept. `forget` takes
        a token out again, together with the inverse Change of what it stood for. `note` is a line that has to be
        written elsewhere because of this Change; it is kept with it until a later commit names its revision in `noted`.
        Raises RevisionConflict when `expected_revision` is not the last one.
        """
        gone = set(change.deletes)
        puts = [self._codec.record(one) for one in change.puts if (kind_of(one), id_of(one)) not in gone]
        with self._transaction():
            if expected_revision != self.revision:
                raise RevisionConflict(expected_revision, self.revision)
            meta = {"revision": str(expected_revision + 1)}
            self._write_journal(expected_revision + 1, change, puts)
            self._write_current(expected_revision + 1, puts, change.deletes)
            if forget is not None:
                self._drop_token(forget)
            if token is not None:
                self._write_token(token)
            if note:
                self._database.execute("INSERT INTO note VALUES (?, ?)", (expected_revision + 1, note))
            self._database.executemany("DELETE FROM note WHERE revision = ?", [(one,) for one in noted])
            if self._schemas() != self._codec.schemas():
                meta["schemas"] = msgspec.json.encode(self._codec.schemas()).decode()
            self._database.executemany("UPDATE meta SET value = ? WHERE name = ?", [(v, k) for k, v in meta.items()])
            self._commit()
            self._meta |= meta
        return expected_revision + 1

    def _write_journal(self, revision: int, change: Change, puts: list[Record]) -> None:
        rows = msgspec.json.encode([(one.kind, one.id, one.schema, one.body) for one in puts]).decode()
        deletes = msgspec.json.encode(change.deletes).decode()
        self._database.execute(
            "INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?)",
            (revision, change.time, change.caller, change.request_id, rows, deletes),
        )

    def _write_current(self, revision: int, puts: list[Record], deletes: Iterable[tuple[str, str]]) -> None:
        for kind, resource_id in dict.fromkeys(deletes):
            done = self._database.execute("DELETE FROM current WHERE kind = ? AND id = ?", (kind, resource_id))
            if done.rowcount != 1:
                raise StoreError(f"{kind} {resource_id} does not exist, so it cannot be deleted; nothing was kept")
        self._database.executemany(
            "INSERT INTO current (kind, id, revision, schema, body) VALUES (?, ?, ?, ?, ?) ON CONFLICT (kind, id) "
            "DO UPDATE SET revision = excluded.revision, schema = excluded.schema, body = excluded.body",
            [(one.kind, one.id, revision, one.schema, bytes(one.body).decode()) for one in puts],
        )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All that is done inside, ended by `_commit`, or nothing."""
        with self._mutex, worded(self.path):
            if self._uncertain:
                raise StoreError(
                    f"store {self.path} takes no more changes, because an earlier one failed in a way that leaves open "
                    f"whether it is on disk ({self._uncertain}): look into the disk, then start again"
                )
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
            finally:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")

    def _commit(self) -> None:
        try:
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            if not error_name(error).startswith(HARMLESS):
                self._uncertain = error_name(error) or str(error)
            raise

    def notes(self) -> list[str]:
        """The notes that no commit has called written yet, in order."""
        with self._mutex, worded(self.path):
            return [line for (line,) in self._database.execute("SELECT line FROM note ORDER BY revision")]

    # -- ClientTokens --------------------------------------------------------------------------------------------------

    def token_use(self, caller: str, action: str, token: str, now: float) -> TokenUse | None:
        """What this caller was answered under this ClientToken in the last 24 hours before `now`."""
        query = "SELECT * FROM token WHERE caller = ? AND action = ? AND token = ? AND time > ?"
        with self._mutex, worded(self.path):
            row = self._database.execute(query, (caller, action, token, now - TOKEN_LIFE)).fetchone()
        if row is None:
            return None
        found = TokenUse(**dict(zip(TokenUse.__struct_fields__, row, strict=True)))
        try:
            answer = self._seal.unseal(_token_context(found), found.answer).decode()
        except SealError as error:
            raise StoreError(f"store {self.path} is damaged: {error}") from error
        return msgspec.structs.replace(found, answer=answer)

    def _write_token(self, token: TokenUse) -> None:
        self._database.execute("DELETE FROM token WHERE time <= ?", (token.time - TOKEN_LIFE,))
        sealed = self._seal.seal(_token_context(token), token.answer.encode())
        row = msgspec.structs.astuple(msgspec.structs.replace(token, answer=sealed))
        try:
            self._database.execute("INSERT INTO token VALUES (?, ?, ?, ?, ?, ?)", row)
        except sqlite3.IntegrityError:
            raise StoreError(
                f"{token.caller} used ClientToken {token.token!r} for {token.action} already: "
                "answer from `token_use`; nothing was kept"
            ) from None

    def _drop_token(self, token: TokenUse) -> None:
        key = (token.caller, token.action, token.token)
        self._database.execute("DELETE FROM token WHERE caller = ? AND action = ? AND token = ?", key)

    # -- secrets -------------------------------------------------------------------------------------------------------

    def secret(self, name: str) -> bytes | None:
        """A sealed blob by name, e.g. the CA's private key; None when there is none."""
        with self._mutex, worded(self.path):
            row = self._database.execute("SELECT sealed FROM secret WHERE name = ?", (name,)).fetchone()
        if row is None:
            return None
        try:
            return self._seal.unseal(("secret", name), row[0])
        except SealError as error:
            raise StoreError(f"store {self.path}: {error}") from error

    def put_secret(self, name: str, data: bytes) -> None:
        """Keep a blob, sealed, in place of any other of that name; on disk when it returns."""
        with self._transaction():
            self._database.execute(
                "INSERT INTO secret VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET sealed = excluded.sealed",
                (name, self._seal.seal(("secret", name), data)),
            )
            self._commit()


def _token_context(token: TokenUse) -> tuple[str, ...]:
    return ("token", token.caller, token.action, token.token)


def _worded(identity: Identity) -> str:
    return f"account {identity.account_id}, region {identity.region}, partition {identity.partition}"
