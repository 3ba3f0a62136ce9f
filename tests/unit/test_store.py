"""The store: what was acknowledged is there, whatever happens; what was not is not there by half."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from wicketgate.model import AccessKey, Change, Settings, User, Vpc, World, WorldError, apply_change
from wicketgate.model.change import inverse
from wicketgate.seal import SealError
from wicketgate.store import (
    Identity,
    RevisionConflict,
    RootCredential,
    SqliteStore,
    Store,
    StoreError,
    TokenUse,
    open_store,
    root_credential,
    root_credential_shown,
)

ANNA = User(name="anna", id="AIDA0000000000000ANNA")
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
SESSION = "FwoGZXIvYXdzEXAMPLETOKEN"
KEY = AccessKey(id="AKIAIOSFODNN7EXAMPLE", secret=SECRET, user_name="anna", session_token=SESSION)


def vpc(number: int, name: str = "") -> Vpc:
    """A VPC with an id of its own."""
    return Vpc(id=f"vpc-{number:017x}", cidr_block="10.0.0.0/16", name=name)


def use(token: str = "t-1", caller: str = "arn:aws:iam::123456789012:user/anna", at: float = 1000.0) -> TokenUse:
    """A ClientToken used."""
    return TokenUse(
        caller=caller, action="CreateVpc", token=token, parameter_hash="abc", answer='{"VpcId": "vpc-1"}', time=at
    )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where a store is to be."""
    return tmp_path / "state"


@pytest.fixture
def store(directory: Path) -> Iterator[SqliteStore]:
    """A new store."""
    with contextlib.closing(open_store(directory)) as made:
        yield made


def reopened(store: SqliteStore) -> SqliteStore:
    """The store as the next process finds it."""
    store.close()
    return open_store(store.path.parent)


@contextlib.contextmanager
def raw(directory: Path) -> Iterator[sqlite3.Connection]:
    """The database file of a closed store, to put in what a store never would."""
    with contextlib.closing(sqlite3.connect(directory / "store.db")) as database:
        yield database
        database.commit()


def in_child(act: Callable[[], str]) -> str:
    """What a function returns, or the words it raises, in a process of its own."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reading)
            try:
                text = act()
            except BaseException as error:  # noqa: BLE001 - the parent is to see whatever it was
                text = f"{type(error).__name__}: {error}"
            os.write(writing, text.encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read().decode()
    os.waitpid(pid, 0)
    return text


# -- history -----------------------------------------------------------------------------------------------------------

NUMBERS = st.integers(1, 4)
RESOURCES = st.one_of(
    st.builds(vpc, NUMBERS, st.sampled_from(["", "a", "b'\"\\é\n"])),
    st.builds(lambda n: User(name=f"user{n}", id=f"AIDA{n}"), NUMBERS),
    st.builds(lambda n, m, s: AccessKey(id=f"AKIA{n}", secret=s, user_name=f"user{m}"), NUMBERS, NUMBERS, st.text()),
    st.builds(lambda n: Settings(max_tunnels_per_endpoint=n), NUMBERS),
)
DELETES = st.one_of(
    NUMBERS.map(lambda n: ("vpc", vpc(n).id)),
    NUMBERS.map(lambda n: ("user", f"user{n}")),
    NUMBERS.map(lambda n: ("access-key", f"AKIA{n}")),
)
CHANGES = st.builds(
    Change,
    puts=st.lists(RESOURCES, max_size=3).map(tuple),
    deletes=st.lists(DELETES, max_size=2).map(tuple),
    caller=st.text(max_size=5),
    request_id=st.text(max_size=5),
    time=st.floats(0, 2e9),
)


@pytest.mark.slow
@hypothesis_settings(max_examples=40, deadline=None)
@given(changes=st.lists(CHANGES, max_size=12), undo=st.sets(st.integers(0, 11)))
def test_the_store_agrees_with_the_model_at_every_revision(changes: list[Change], undo: set[int]) -> None:
    """Whatever is committed, inverses included: load, at and changes give what apply_change gives, in its order."""
    with tempfile.TemporaryDirectory() as place:
        store = open_store(Path(place) / "s")
        worlds = [store.load()]
        for index, change in enumerate(changes):
            try:
                after = apply_change(worlds[-1], change)
            except WorldError:
                continue
            assert store.commit(change, worlds[-1].revision) == after.revision
            worlds.append(after)
            if index in undo:
                back = inverse(worlds[-2], change)
                store.commit(back, after.revision)
                worlds.append(apply_change(after, back))
        store = reopened(store)
        assert store.load() == worlds[-1]
        assert [store.at(revision=number) for number in range(len(worlds))] == worlds
        assert [one.revision for one in store.changes()] == list(range(1, len(worlds)))
        replayed = worlds[0]
        for recorded in store.changes():
            replayed = apply_change(replayed, recorded.change)
        assert replayed == worlds[-1]
        store.close()


def test_the_journal_keeps_who_when_and_why(store: SqliteStore) -> None:
    """A Change comes back from the journal as it was committed, and only those after the given revision do."""
    first = Change(puts=(vpc(1),), caller="arn:aws:iam::123456789012:root", request_id="r-1", time=1700000000.25)
    second = Change(deletes=(("vpc", vpc(1).id),), caller="arn:b", request_id="r-2", time=1700000001.5)
    store.commit(first, 0)
    store.commit(second, 1)
    assert [(one.revision, one.change) for one in store.changes()] == [(1, first), (2, second)]
    assert [one.revision for one in store.changes(since=1)] == [2]


def test_the_world_of_a_time_is_that_of_the_last_change_until_then(store: SqliteStore) -> None:
    """`at(time=...)` includes a Change of that very time; before the first there is nothing."""
    for number in (1, 2, 3):
        store.commit(Change(puts=(vpc(number),), time=number * 100.0), number - 1)
    assert [len(store.at(time=when).vpcs) for when in (99.0, 100.0, 299.9, 300.0, 1e12)] == [0, 1, 2, 3, 3]


@pytest.mark.parametrize(
    ("moment", "words"),
    [({"revision": 2}, "there is no revision 2"), ({"revision": -1}, "no revision -1"), ({}, "give exactly one")],
)
def test_a_moment_that_never_was_is_refused(store: SqliteStore, moment: dict[str, int], words: str) -> None:
    """A revision beyond the journal is an error, not the nearest World."""
    store.commit(Change(puts=(vpc(1),)), 0)
    with pytest.raises(StoreError, match=words):
        store.at(**moment)


def test_replay_reads_a_long_journal_in_pieces(store: SqliteStore) -> None:
    """More revisions than are read at a time come back complete and in order."""
    for number in range(600):
        store.commit(Change(puts=(vpc(number % 7, str(number)),)), number)
    assert [one.revision for one in store.changes()] == list(range(1, 601))
    assert store.at(revision=600) == store.load()


# -- commits -----------------------------------------------------------------------------------------------------------


def test_a_commit_on_an_old_revision_is_refused_in_words(store: SqliteStore) -> None:
    """Two who decided on the same World: the second is told, and nothing of its Change or token is kept."""
    store.commit(Change(puts=(vpc(1),)), 0)
    with pytest.raises(
        RevisionConflict, match=r"decided on revision 0, but the store is at revision 1.*again"
    ) as caught:
        store.commit(Change(puts=(vpc(2),)), 0, token=use())
    assert (caught.value.expected, caught.value.actual) == (0, 1)
    assert [one.id for one in store.load().vpcs] == [vpc(1).id]
    assert store.token_use(use().caller, "CreateVpc", "t-1", 1000.0) is None


def test_threads_that_decide_at_the_same_time_lose_nothing(store: SqliteStore) -> None:
    """Four threads count up one number, each trying again on a conflict: no count is lost, none is made twice."""

    def count_up() -> None:
        for _ in range(25):
            while True:
                seen = store.load()
                number = int(seen.vpcs[0].name) if seen.vpcs else 0
                try:
                    store.commit(Change(puts=(vpc(1, str(number + 1)),)), seen.revision)
                except RevisionConflict:
                    continue
                break

    threads = [threading.Thread(target=count_up) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert (store.load().vpcs[0].name, store.revision) == ("100", 100)


def test_a_change_that_deletes_what_is_not_there_leaves_nothing(store: SqliteStore) -> None:
    """The puts before a delete that fails are taken back with it, and the store goes on."""
    with pytest.raises(StoreError, match=r"vpc vpc-9 does not exist.*nothing was kept"):
        store.commit(Change(puts=(vpc(1),), deletes=(("vpc", "vpc-9"),)), 0)
    assert store.load() == World()
    assert list(store.changes()) == []
    assert store.commit(Change(puts=(vpc(1),)), 0) == 1


def test_an_error_that_leaves_the_outcome_open_ends_writing(store: SqliteStore) -> None:
    """After a failed fsync nobody knows what is on disk: no further commit is accepted until the store is reopened."""

    class FailingDisk(sqlite3.Connection):
        def execute(self, sql: str, *parameters: object) -> sqlite3.Cursor:  # type: ignore[override]
            if sql == "COMMIT":
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
                raise error
            return super().execute(sql, *parameters)

    store.commit(Change(puts=(vpc(1),)), 0)
    store._database.close()
    store._database = sqlite3.connect(store.path, isolation_level=None, factory=FailingDisk)
    with pytest.raises(StoreError, match="SQLITE_IOERR_FSYNC"):
        store.commit(Change(puts=(vpc(2),)), 1)
    with pytest.raises(StoreError, match=r"takes no more changes.*start again"):
        store.commit(Change(puts=(vpc(3),)), 1)
    again = reopened(store)
    assert [one.id for one in again.load().vpcs] == [vpc(1).id]
    again.close()


# -- ClientTokens ------------------------------------------------------------------------------------------------------


def test_a_token_is_remembered_with_its_answer(store: SqliteStore) -> None:
    """What was answered under a token comes back after a restart, to this caller, action and token only."""
    store.commit(Change(puts=(vpc(1),)), 0, token=use())
    store = reopened(store)
    assert store.token_use(use().caller, "CreateVpc", "t-1", 1001.0) == use()
    assert store.token_use("arn:other", "CreateVpc", "t-1", 1001.0) is None
    assert store.token_use(use().caller, "CreateSubnet", "t-1", 1001.0) is None
    assert store.token_use(use().caller, "CreateVpc", "t-2", 1001.0) is None
    store.close()


def test_a_token_lives_24_hours(store: SqliteStore) -> None:
    """One second before the end it is known, at the end it is not, and then it can be used anew."""
    day = 24 * 3600.0
    store.commit(Change(), 0, token=use(at=1000.0))
    assert store.token_use(use().caller, "CreateVpc", "t-1", 1000.0 + day - 1) is not None
    assert store.token_use(use().caller, "CreateVpc", "t-1", 1000.0 + day) is None
    with pytest.raises(StoreError, match=r"used ClientToken 't-1' for CreateVpc already.*nothing was kept"):
        store.commit(Change(puts=(vpc(1),)), 1, token=use(at=1000.0 + day - 1))
    assert store.commit(Change(), 1, token=use(at=1000.0 + day)) == 2
    store.close()
    with raw(store.path.parent) as database:
        assert database.execute("SELECT time FROM token").fetchall() == [(1000.0 + day,)]


def test_an_undone_change_takes_its_token_along(store: SqliteStore) -> None:
    """When the kernel cannot follow, the caller's next try under the same token is a new call."""
    before = store.load()
    change = Change(puts=(vpc(1),))
    store.commit(change, 0, token=use())
    store.commit(inverse(before, change), 1, forget=use())
    assert store.token_use(use().caller, "CreateVpc", "t-1", 1001.0) is None
    assert store.load().vpcs == ()


# -- secrets -----------------------------------------------------------------------------------------------------------


def test_no_secret_stands_in_clear_in_any_file(store: SqliteStore) -> None:
    """Access key secret, session token, blob and a token's answer are found in no file, journal included."""
    store.commit(Change(puts=(ANNA, KEY)), 0, token=msgspec.structs.replace(use(), answer=f'"{SECRET}"'))
    store.put_secret("ca-key", b"-----BEGIN PRIVATE KEY-----")
    everything = b"".join(path.read_bytes() for path in store.path.parent.iterdir())
    assert KEY.id.encode() in everything
    for secret in (SECRET.encode(), SESSION.encode(), b"PRIVATE KEY"):
        assert secret not in everything
    store = reopened(store)
    everything = b"".join(path.read_bytes() for path in store.path.parent.iterdir())
    assert SECRET.encode() not in everything
    assert store.load().access_keys == (KEY,)
    assert store.secret("ca-key") == b"-----BEGIN PRIVATE KEY-----"
    assert store.secret("other") is None
    store.close()


def test_a_blob_is_replaced_whole(store: SqliteStore) -> None:
    """The second blob of a name is the one that is read."""
    store.put_secret("ca-key", b"old")
    store.put_secret("ca-key", b"new")
    assert store.secret("ca-key") == b"new"


def test_a_secret_moved_to_another_key_does_not_open(store: SqliteStore) -> None:
    """Who can write the file cannot give a key the secret of one whose secret they know."""
    mine = AccessKey(id="AKIAMINE", secret="known", user_name="anna")
    store.commit(Change(puts=(ANNA, KEY, mine)), 0)
    store.close()
    with raw(store.path.parent) as database:
        (body,) = database.execute("SELECT body FROM current WHERE id = 'AKIAMINE'").fetchone()
        moved = body.replace("AKIAMINE", KEY.id)
        database.execute("UPDATE current SET body = ? WHERE id = ?", (moved, KEY.id))
    with (
        contextlib.closing(open_store(store.path.parent)) as found,
        pytest.raises(StoreError, match=rf"access-key {KEY.id} cannot be read.*copied here from another place"),
    ):
        found.load()


def test_the_wrong_key_file_is_named_and_destroys_nothing(store: SqliteStore, directory: Path) -> None:
    """With another key, or none, the store does not open, stays as it is, and opens when the right one is back."""
    store.commit(Change(puts=(ANNA, KEY)), 0)
    store.close()
    before = (directory / "store.db").read_bytes()
    key_file = directory / "seal.key"
    right = key_file.rename(directory / "kept.key")
    with pytest.raises(SealError, match=r"seal\.key does not exist, but there are secrets sealed with it"):
        open_store(directory)
    assert not key_file.exists()
    open_store(directory.with_name("other"), key_file=key_file).close()
    with pytest.raises(StoreError, match=r"was sealed with key [0-9a-f]{16}, but .*seal\.key holds key [0-9a-f]{16}"):
        open_store(directory)
    assert (directory / "store.db").read_bytes() == before
    right.rename(key_file)
    with contextlib.closing(open_store(directory)) as found:
        assert found.load().access_keys == (KEY,)


def test_a_made_root_credential_is_shown_until_seen(store: SqliteStore) -> None:
    """It is made once, survives a crash before it was shown, and is not shown again afterwards."""
    made = root_credential(store)
    assert made.to_be_shown
    assert made.access_key_id.startswith("AKIA")
    assert (len(made.access_key_id), len(made.secret_access_key)) == (20, 40)
    assert made.secret_access_key not in repr(made)
    store = reopened(store)
    assert root_credential(store) == made
    root_credential_shown(store)
    store = reopened(store)
    assert root_credential(store) == msgspec.structs.replace(made, to_be_shown=False)
    store.close()


def test_a_given_root_credential_is_used_as_it_is(store: SqliteStore) -> None:
    """The operator's own wins over a kept one and is not kept."""
    made = root_credential(store)
    given = RootCredential(access_key_id="AKIAOPERATOR0000", secret_access_key="s" * 40)
    assert root_credential(store, given) is given
    assert root_credential(store) == made


# -- files -------------------------------------------------------------------------------------------------------------


def test_nobody_else_may_read_the_files(store: SqliteStore, directory: Path) -> None:
    """The directory has mode 0700 and every file in it 0600, the write-ahead log included."""
    store.commit(Change(puts=(vpc(1),)), 0)
    assert directory.stat().st_mode & 0o777 == 0o700
    modes = {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()}
    assert modes == dict.fromkeys(("lock", "seal.key", "store.db", "store.db-wal"), 0o600)


@pytest.mark.parametrize(
    ("name", "mode", "words"),
    [
        (".", 0o750, "has mode 0750: others may enter it; run: chmod 700"),
        ("store.db", 0o640, "has mode 0640: others may read or write it; run: chmod 600"),
        ("seal.key", 0o644, "has mode 0644: others may read it; run: chmod 600"),
    ],
)
def test_looser_modes_are_refused(store: SqliteStore, directory: Path, name: str, mode: int, words: str) -> None:
    """What others may read is not trusted, and the message says how to put it right."""
    store.close()
    (directory / name).chmod(mode)
    with pytest.raises((StoreError, SealError), match=words):
        open_store(directory)


def test_a_second_process_is_told_who_has_the_store(store: SqliteStore, directory: Path) -> None:
    """The refusal names the process to stop; when that is gone, the store opens."""
    words = in_child(lambda: str(open_store(directory).revision))
    assert f"in use by process {os.getpid()}: one process at a time" in words
    store.close()
    assert in_child(lambda: str(open_store(directory).revision)) == "0"


def test_a_store_belongs_to_one_account_and_region(directory: Path) -> None:
    """ARNs contain both, so another configuration is refused, and the World carries what the store says."""
    mine = Identity(account_id="999999999999", region="eu-west-1")
    open_store(directory, identity=mine).close()
    with contextlib.closing(open_store(directory)) as store:
        assert (store.load().account_id, store.at(revision=0).region) == ("999999999999", "eu-west-1")
    with pytest.raises(
        StoreError,
        match=r"belongs to account 999999999999, region eu-west-1, partition aws, but the configuration .*us-east-1",
    ):
        open_store(directory, identity=Identity(account_id="999999999999"))


def test_a_first_start_that_was_cut_off_leaves_no_half_store(directory: Path) -> None:
    """A database without its final name is of no account: the next start makes it anew."""
    directory.mkdir(mode=0o700)
    (directory / "store.db.new").write_bytes(b"half")
    with contextlib.closing(open_store(directory)) as store:
        assert store.load() == World()


def as_somebody(path: Path, act: Callable[[], str]) -> str:
    """Run in a child that is not root, so that permissions hold."""
    if os.getuid() != 0:
        return in_child(act)

    def dropped() -> str:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        return act()

    for one in (path, *path.rglob("*")):
        os.chown(one, 65534, 65534)
    return in_child(dropped)


def test_a_directory_that_cannot_be_written_is_refused_in_words() -> None:
    """A first start in a read-only directory, and a later one on a read-only database, say what is needed."""
    parent = Path(tempfile.mkdtemp())  # pytest's own directories let only their owner pass
    try:
        parent.chmod(0o755)
        directory = parent / "state"
        directory.mkdir(mode=0o700)
        directory.chmod(0o500)
        words = as_somebody(directory, lambda: str(open_store(directory).revision))
        assert f"StoreError: state directory {directory} cannot be written: Permission denied" in words
        directory.chmod(0o700)
        assert as_somebody(directory, lambda: str(open_store(directory).commit(Change(puts=(vpc(1),)), 0))) == "1"
        (directory / "store.db").chmod(0o400)
        words = as_somebody(directory, lambda: str(open_store(directory).commit(Change(puts=(vpc(2),)), 1)))
        assert f"StoreError: store {directory / 'store.db'} cannot be written: Permission denied; give file" in words
        (directory / "store.db").chmod(0o600)
        assert as_somebody(directory, lambda: str(open_store(directory).revision)) == "1"
    finally:
        shutil.rmtree(parent)


# -- what cannot be read -----------------------------------------------------------------------------------------------


def damage(words: str, act: Callable[[Path], object]) -> object:
    """A case of the test below."""
    return pytest.param(act, words, id=words)


def sql(statement: str) -> Callable[[Path], object]:
    """A statement run on the database file behind the store's back."""

    def act(directory: Path) -> None:
        with raw(directory) as database:
            database.execute(statement)

    return act


def overwrite(directory: Path, offset: int, data: bytes) -> None:
    """Bytes written over the database file."""
    with (directory / "store.db").open("r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        damage("is empty, which wicketgate never leaves it", lambda d: (d / "store.db").write_bytes(b"")),
        damage("not a database any more", lambda d: (d / "store.db").write_bytes(b"garbage " * 1000)),
        damage("not a database any more", lambda d: overwrite(d, 0, b"\0" * 100)),
        damage("is damaged", lambda d: overwrite(d, 4096, b"\xff" * 4096)),
        damage("is damaged", lambda d: os.truncate(d / "store.db", 3 * 4096)),
        damage("is an SQLite file of another program", sql("PRAGMA application_id=1")),
        damage("has layout 99, this wicketgate knows layouts up to 1", sql("PRAGMA user_version=99")),
        damage("the journal has 2 changes up to revision 3", sql("DELETE FROM journal WHERE revision = 2")),
        damage("the journal has 2 changes up to revision 2", sql("DELETE FROM journal WHERE revision = 3")),
        damage("current resources are of revision 7", sql("UPDATE current SET revision = 7")),
        damage("it lacks its region", sql("DELETE FROM meta WHERE name = 'region'")),
        damage(
            r"\(ghost\) in a form that a newer wicketgate wrote",
            sql("""UPDATE meta SET value = '{"vpc":1,"ghost":1}' WHERE name = 'schemas'"""),
        ),
        damage("user anna has schema 2, this wicketgate knows schemas 1 to 1", sql("UPDATE current SET schema = 2")),
        damage(
            "ghost vpc-.* has schema 1, this wicketgate knows no ghost",
            sql("UPDATE current SET kind = 'ghost' WHERE kind = 'vpc'"),
        ),
        damage("vpc vpc-.* cannot be read: .*field `id`", sql("UPDATE current SET body = '{}' WHERE kind = 'vpc'")),
        damage("vpc vpc-9 cannot be read: .*calls itself", sql("UPDATE current SET id = 'vpc-9' WHERE kind = 'vpc'")),
        damage("revision 3: access key .*: user anna does not exist", sql("DELETE FROM current WHERE kind = 'user'")),
        damage(
            "store.db is missing, but store.db-wal is there",
            lambda d: (d / "store.db").rename(d / "store.db-wal"),
        ),
    ],
)
def test_what_cannot_be_read_is_said_and_left_alone(
    store: SqliteStore, directory: Path, act: Callable[[Path], object], words: str
) -> None:
    """Damage and newer forms give a line that says so; the file stays as it was found, for whoever repairs it."""
    store.commit(Change(puts=(ANNA,)), 0)
    store.commit(Change(puts=(KEY,)), 1)
    store.commit(Change(puts=(vpc(1),)), 2)
    store.close()
    act(directory)
    before = {path.name: path.read_bytes() for path in directory.iterdir() if path.name.startswith("store.db")}
    with pytest.raises((StoreError, SealError), match=words):  # noqa: SIM117 - either of the two may be the one
        with contextlib.closing(open_store(directory)) as found:
            found.load()
    after = {path.name: path.read_bytes() for path in directory.iterdir() if path.name.startswith("store.db")}
    assert after.keys() == before.keys()
    assert after["store.db"] == before["store.db"] if "store.db" in before else after == before


def test_a_damaged_journal_line_is_named(store: SqliteStore, directory: Path) -> None:
    """The present can be read although the past cannot, and the line of the past is named."""
    store.commit(Change(puts=(vpc(1),)), 0)
    store.close()
    sql("UPDATE journal SET puts = '[oops' WHERE revision = 1")(directory)
    with contextlib.closing(open_store(directory)) as found:
        assert len(found.load().vpcs) == 1
        with pytest.raises(StoreError, match="revision 1 of the journal"):
            found.at(revision=1)


# -- schemas -----------------------------------------------------------------------------------------------------------


def test_old_resources_are_read_through_their_upgraders(store: SqliteStore, directory: Path) -> None:
    """Old JSON goes through every upgrader from its number on, current and journal, secrets and the rest untouched."""
    store.commit(Change(puts=(ANNA, vpc(1, "old"), KEY)), 0)
    store.close()
    sql("UPDATE current SET body = replace(body, 'cidr_block', 'range') WHERE kind = 'vpc'")(directory)
    sql("UPDATE journal SET puts = replace(puts, 'cidr_block', 'range')")(directory)
    upgraders = {
        "vpc": (
            lambda old: {**{k: v for k, v in old.items() if k != "range"}, "cidr": old["range"]},
            lambda old: {**{k: v for k, v in old.items() if k != "cidr"}, "cidr_block": old["cidr"]},
        ),
        "access-key": (lambda old: {**old, "active": False},),
    }
    store = open_store(directory, upgraders=upgraders)
    inactive = msgspec.structs.replace(KEY, active=False)
    assert (store.load().vpcs, store.load().access_keys) == ((vpc(1, "old"),), (inactive,))
    assert store.at(revision=1) == store.load()
    store.commit(Change(puts=(vpc(2),)), 1)
    store.close()
    with raw(directory) as database:
        assert database.execute("SELECT schema FROM current WHERE kind = 'vpc' ORDER BY id").fetchall() == [(1,), (3,)]
    with pytest.raises(StoreError, match=r"\(vpc, access-key\) in a form that a newer wicketgate wrote"):
        open_store(directory)


# -- disks and processes that end --------------------------------------------------------------------------------------


def fill(store: Store) -> str:
    """Commit until the disk is full; afterwards what was acknowledged is there, and nothing else."""
    revision = 0
    try:
        while True:
            # A Change too large for the page cache spills to disk before its commit: the hardest half to take back.
            puts = tuple(
                vpc(number, f"{revision} " + "x" * 3000) for number in range(revision * 20, revision * 20 + 20)
            )
            store.commit(Change(puts=puts), revision, token=use(str(revision)))
            revision += 1
    except StoreError as error:
        words = str(error)
    world = store.load()
    assert (world.revision, len(world.vpcs)) == (revision, 20 * revision)
    assert store.at(revision=revision) == world
    assert store.token_use(use().caller, "CreateVpc", str(revision), 1000.0) is None
    return f"{revision} {words}"


def test_a_refused_write_leaves_no_half_change(directory: Path) -> None:
    """At the file size limit a commit fails in words; the store goes on reading, and writing once there is room."""

    def act() -> str:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, hard))
        store = open_store(directory)
        result = fill(store)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        revision = store.revision
        assert store.commit(Change(puts=(vpc(10**6),)), revision) == revision + 1
        store.close()
        return result

    revision, _, words = in_child(act).partition(" ")
    assert int(revision) >= 2, words
    assert "nothing of this was kept" in words
    with contextlib.closing(open_store(directory)) as store:
        assert (store.revision, len(store.load().vpcs)) == (int(revision) + 1, 20 * int(revision) + 1)


FULL_DISK = """
import sys
from pathlib import Path
from tests.unit.test_store import fill
from wicketgate.store import open_store
state = Path(sys.argv[1]) / "state"
store = open_store(state)
print(fill(store))
revision = store.revision
(Path(sys.argv[1]) / "ballast").unlink()
store.commit(__import__("wicketgate.model").model.Change(), revision)
store.close()
again = open_store(state)
assert again.load().revision == revision + 1
"""


def test_a_full_disk_leaves_no_half_change(tmp_path: Path) -> None:
    """On a real file system without space a commit fails in words; with space again the store goes on."""
    script = (
        'mount -t tmpfs -o size=1500k none "$1" && dd if=/dev/zero of="$1/ballast" bs=1k count=500 status=none'
        ' && exec "$2" -c "$3" "$1"'
    )
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", script, "sh"]
    done = subprocess.run(
        [*command, str(tmp_path), sys.executable, FULL_DISK],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    revision, _, words = done.stdout.partition(" ")
    assert int(revision) >= 1
    assert "the disk is full; nothing of this was kept. Free some space" in words


def storm(directory: Path, acknowledge: int) -> None:
    """Commit for ever, each Change in two places and with a token; report each acknowledged revision."""
    store = open_store(directory)
    revision = store.revision
    while True:
        mark = str(revision + 1)
        puts = (vpc(1, mark), vpc(2 + revision % 50, mark + " " + "x" * (revision * 997 % 9000)), vpc(99, mark))
        revision = store.commit(Change(puts=puts, request_id=mark), revision, token=use(mark))
        os.write(acknowledge, f"{mark}\n".encode())


def acknowledged_until_killed(directory: Path, commits: int, delay: float) -> int:
    """The last revision that a storm acknowledged before SIGKILL, `delay` seconds after `commits` of them; or 0."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            storm(directory, writing)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        seen = [pipe.readline() for _ in range(commits)]
        end = time.perf_counter() + delay
        while time.perf_counter() < end:
            pass  # a moment of a commit, not of the scheduler
        os.kill(pid, signal.SIGKILL)
        seen += pipe.readlines()
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), "the storm ended by itself"
    return int((["0"] + [line for line in seen if line])[-1])


@pytest.mark.slow
def test_sigkill_loses_no_acknowledged_commit_and_keeps_no_half(directory: Path) -> None:
    """Twenty kills at random moments of a storm: what was acknowledged is there, at most one more, and all whole."""
    chance = random.Random()
    last = 0
    counts = [0] * 7 + [1] * 4 + [5] * 5 + [30] * 4
    chance.shuffle(counts)
    for commits in counts:
        acknowledged = acknowledged_until_killed(directory, commits, chance.uniform(0, 0.004 if commits else 0.03))
        with contextlib.closing(open_store(directory)) as store:
            world = store.load()
            assert max(last, acknowledged) <= world.revision <= max(last, acknowledged) + 1
            assert {one.name.split()[0] for one in (world.vpc(vpc(1).id), world.vpc(vpc(99).id)) if one} in (
                set(),
                {str(world.revision)},
            )
            assert world == store.at(revision=world.revision)
            known = [
                store.token_use(use().caller, "CreateVpc", str(n), 1000.0) for n in (world.revision, world.revision + 1)
            ]
            assert [one is not None for one in known] == [world.revision > 0, False]
            last = world.revision
    assert last >= sum(counts)
