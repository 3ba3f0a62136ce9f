"""netd's copy of the World: it is what was acknowledged last, or there is none."""

from __future__ import annotations

import os
import stat
import zlib

import msgspec
import pytest

from wicketgate import ipc
from wicketgate.model import Change, FabricError, Vpc, World, apply_change
from wicketgate.netd.bootcopy import FORMAT, BootCopy

FIRST = World(revision=3, vpcs=(Vpc(id="vpc-1", cidr_block="10.0.0.0/16"),))


def put(world, number, size=0):
    """The next World, and the Update that leads there."""
    tags = {"t": "x" * size} if size else {}
    made = Change(puts=(Vpc(id=f"vpc-{number}", cidr_block="10.9.0.0/16", tags=tags),), time=1.0)
    after = apply_change(world, made)
    return after, ipc.step(after.revision, made)


def record(update):
    return len(update).to_bytes(4, "big") + zlib.crc32(update).to_bytes(4, "big") + update


@pytest.fixture
def path(tmp_path):
    return tmp_path / "world"


def kept(path, changes=3):
    """A copy with so many Changes; the World after each."""
    copy, world = BootCopy(path), FIRST
    copy.keep(world, ipc.whole(world))
    worlds = [world]
    for number in range(10, 10 + changes):
        world, update = put(world, number)
        copy.keep(world, update)
        worlds.append(world)
    copy.close()
    return worlds


def test_nothing_is_there_first(path):
    """Before the first World there is no copy."""
    assert BootCopy(path).load() is None


def test_what_was_kept_is_loaded(path):
    """World and Changes are read back, by root alone; a start goes on from there, with a new file."""
    worlds = kept(path)
    assert BootCopy(path).load() == worlds[-1]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    copy = BootCopy(path)
    copy.load()
    after, update = put(worlds[-1], 99)
    copy.keep(after, update)  # the first one after a start: the file holds it whole
    assert BootCopy(path).load() == after
    assert path.read_bytes().startswith(FORMAT + record(ipc.whole(after)))


def test_cut_at_every_byte(path):
    """Power lost at any moment of the last write: the Worlds acknowledged before it are there, none is half there."""
    worlds = kept(path, changes=2)
    data = path.read_bytes().rstrip(b"\0")
    ends = [len(FORMAT)]
    for update in (ipc.whole(FIRST), *(put(before, 10 + number)[1] for number, before in enumerate(worlds[:-1]))):
        ends.append(ends[-1] + len(record(update)))
    assert ends[-1] == len(data)
    for size in range(ends[1], len(data) + 1):
        path.write_bytes(data[:size])
        whole = sum(end <= size for end in ends) - 2
        assert BootCopy(path).load() == worlds[whole], size
        path.write_bytes(data[:size] + bytes(ends[-1] - size))  # the file had its size already, the data not
        assert BootCopy(path).load() == worlds[whole], size
    path.write_bytes(data[: ends[2]] + bytes(20) + data[ends[2] + 20 :])  # its rest was written before its beginning
    assert BootCopy(path).load() == worlds[1]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "another version"),
        (b"wicketgate world 2\nwhatever", "another version"),
        (FORMAT + record(b'W{"revision":1,"colour":"red"}'), "colour"),
        (FORMAT + record(b"nonsense"), "neither a World nor a Change"),
        (FORMAT + record(ipc.whole(FIRST)) + record(put(put(FIRST, 10)[0], 11)[1]), "revision 5 came while revision 3"),
    ],
)
def test_what_cannot_be_read_is_moved_aside(path, caplog, data, words):
    """A newer wicketgate's or a damaged copy opens nothing, is said in words and kept for whoever wants to look."""
    path.write_bytes(data)
    assert BootCopy(path).load() is None
    assert words in caplog.text
    assert not path.exists()
    assert path.with_name("world.unreadable").read_bytes() == data


def test_damaged_in_its_middle(path):
    """A flipped bit before the last record is no torn write: nothing is enforced by such a copy."""
    kept(path)
    data = bytearray(path.read_bytes())
    data[len(FORMAT) + 40] ^= 1
    path.write_bytes(data)
    assert BootCopy(path).load() is None


def test_bounded(path):
    """Changes without end do not make a file without end."""
    copy, world = BootCopy(path), FIRST
    copy.keep(world, ipc.whole(world))
    largest = 0
    for _ in range(60):
        world, update = put(world, 10, size=100_000)
        copy.keep(world, update)
        largest = max(largest, path.stat().st_size)
    assert largest < 1_700_000
    assert BootCopy(path).load() == world


def test_full_disk(path, caplog, monkeypatch):
    """What cannot be written leaves no copy, rather than an old one; with room again there is one."""
    worlds = kept(path)
    copy = BootCopy(path)
    copy.keep(worlds[-1], ipc.whole(worlds[-1]))
    after, update = put(worlds[-1], 50)
    write = os.pwrite

    def full(_descriptor, _data, _place):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    copy.keep(after, update)
    assert BootCopy(path).load() is None
    assert "cannot be kept: No space left on device" in caplog.text
    monkeypatch.setattr(os, "pwrite", write)
    more, update = put(after, 51)
    copy.keep(more, update)
    assert BootCopy(path).load() == more


def test_neither_written_nor_removed(path, monkeypatch):
    """An old copy that cannot be removed either is an error: the Change is refused."""
    kept(path)
    copy = BootCopy(path)

    def broken(*_arguments, **_more):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "open", broken)
    monkeypatch.setattr(type(path), "unlink", broken)
    with pytest.raises(FabricError, match="out of date: Read-only file system"):
        copy.keep(FIRST, ipc.whole(msgspec.structs.replace(FIRST, revision=9)))
