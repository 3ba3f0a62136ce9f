"""Several audit files as one sequence, forwards and backwards, while they grow and rotate."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wicketgate.audit import AuditError
from wicketgate.audit.chain import chain_of
from wicketgate.audit.reading import (
    BLOCK,
    SLACK,
    AuditDirectories,
    audit_files,
    events,
    follow,
    seconds_of,
    sizes_of,
    text_in,
)

START = 1_769_903_999


def stamp(seconds: int) -> str:
    """The eventTime of a second after START."""
    from wicketgate.audit.events import event_time

    return event_time(START + seconds)


def write(path: Path, *entries: tuple[int, str], size: int = 0, tail: bytes = b"") -> None:
    """Append events (second, id), each padded to at least `size` bytes."""
    with path.open("ab") as file:
        for second, name in entries:
            line = {"eventTime": stamp(second), "eventID": name, "pad": "x" * size}
            file.write(json.dumps(line).encode() + b"\n")
        file.write(tail)


def ids(found) -> list[str]:
    """The ids of events, in order."""
    return [event["eventID"] for event in found]


def test_files_are_merged_by_time(tmp_path):
    """Oldest first and newest first; a rotated file comes before the one that continues it."""
    write(tmp_path / "a.jsonl.2", (1, "a1"))
    write(tmp_path / "a.jsonl.1", (2, "a2"), (5, "a5"))
    write(tmp_path / "a.jsonl", (7, "a7"))
    write(tmp_path / "b.jsonl", (3, "b3"), (6, "b6"))
    (tmp_path / "notes.txt").write_text("{}\n")
    files = audit_files(tmp_path)
    assert ids(events(files)) == ["a1", "a2", "b3", "a5", "b6", "a7"]
    assert ids(events(files, newest=True)) == ["a7", "b6", "a5", "b3", "a2", "a1"]
    assert ids(events(files, since=START + 2, until=START + 5.9)) == ["a2", "b3", "a5"]
    assert ids(events(files, match=lambda event: event["eventID"] > "a7")) == ["b3", "b6"]


def test_each_kind_of_process_has_its_directory(tmp_path):
    """Files directly below are the trail's as well; files further down are not."""
    for place, name in enumerate(("", "api", "gateway", "api/old")):
        (tmp_path / name).mkdir(exist_ok=True)
        write(tmp_path / name / "x.jsonl", (place, name or "top"))
    assert ids(events(audit_files(tmp_path))) == ["top", "api", "gateway"]


def test_what_is_no_whole_event_is_passed_over(tmp_path):
    """Half a line at the end, lines of something else, empty lines."""
    write(tmp_path / "a.jsonl", (1, "one"), tail=b'\n[1]\nnot json\n{"eventTime": "yesterday"}\n')
    write(tmp_path / "a.jsonl", (2, "two"), tail=b'{"eventTime": "2026')
    files = audit_files(tmp_path)
    assert ids(events(files)) == ["one", "two"]
    assert ids(events(files, newest=True)) == ["two", "one"]


@settings(max_examples=30)
@given(
    seconds=st.lists(st.lists(st.integers(0, 400), max_size=60).map(sorted), min_size=1, max_size=3),
    size=st.sampled_from([0, 300, 5000]),
    bounds=st.tuples(st.integers(-5, 405), st.integers(-5, 405)).map(sorted),
)
def test_both_directions_and_any_bounds_agree(tmp_path_factory, seconds, size, bounds):
    """What is found is what a reader of everything would pick, in order, whatever blocks the lines fall into."""
    directory = tmp_path_factory.mktemp("audit")
    everything = []
    for number, times in enumerate(seconds):
        entries = [(second, f"{number}-{place}") for place, second in enumerate(times)]
        write(directory / f"{number}.jsonl", *entries, size=size)
        everything += entries
    since, until = bounds
    expected = {name for second, name in everything if since <= second <= until}
    for newest in (False, True):
        found = list(events(audit_files(directory), since=START + since, until=START + until, newest=newest))
        assert set(ids(found)) == expected
        assert len(found) == len(expected)
        times = [seconds_of(event) for event in found]
        assert times == sorted(times, reverse=newest)


def test_a_late_line_is_put_in_its_place(tmp_path):
    """Lines within SLACK of the wrong order are told in order."""
    late = int(SLACK) - 1
    write(tmp_path / "a.jsonl", (late, "second"), (0, "first"), (200, "third"))
    assert ids(events(audit_files(tmp_path))) == ["first", "second", "third"]
    assert ids(events(audit_files(tmp_path), newest=True)) == ["third", "second", "first"]
    assert ids(events(audit_files(tmp_path), since=START, until=START)) == ["first"]


def test_a_large_file_is_entered_in_the_middle(tmp_path):
    """With bounds, only what lies near them is read: the rest may even be unreadable."""
    path = tmp_path / "a.jsonl"
    write(path, *((second, str(second)) for second in range(2000)), size=1000)
    with path.open("r+b") as file:
        file.write(b"#" * BLOCK)  # the first lines are lines no longer
    assert ids(events([path], since=START + 1500, until=START + 1502)) == ["1500", "1501", "1502"]
    newest = events([path], until=START + 1000, newest=True)
    assert [next(newest)["eventID"] for _ in range(3)] == ["1000", "999", "998"]


def test_reading_stops_at_the_sizes_given(tmp_path):
    """What is appended after a look at the sizes belongs to whoever follows from there."""
    write(tmp_path / "a.jsonl", (1, "old"))
    sizes = sizes_of(audit_files(tmp_path))
    write(tmp_path / "a.jsonl", (2, "new"))
    assert ids(events(sizes, sizes=sizes)) == ["old"]
    assert ids(events(sizes, sizes=sizes, newest=True)) == ["old"]
    assert ids(follow(tmp_path, sizes, pause=lambda: False)) == ["new"]


def test_following_across_rotation_and_new_files(tmp_path):
    """Each event once: lines before and after a rename, of files that appear, and halves when they are whole."""
    path = tmp_path / "a.jsonl"
    write(path, (1, "one"), tail=b'{"eventTime": "2026-02-01T00:00:01Z", ')
    steps = iter(
        [
            lambda: path.open("ab").write(b'"eventID": "two"}\n'),
            lambda: (write(path, (3, "three")), path.rename(tmp_path / "a.jsonl.1"), write(path, (4, "four"))),
            lambda: write(tmp_path / "b.jsonl", (5, "five")),
            lambda: None,
        ]
    )

    def pause() -> bool:
        step = next(steps, None)
        if step is not None:
            step()
        return step is not None

    assert ids(follow(tmp_path, pause=pause)) == ["one", "two", "three", "four", "five"]


def test_a_descriptor_is_read_without_a_permission_of_ones_own(tmp_path):
    """The API's process reads the gateways' files by descriptors that it was given, several at once by the same one."""
    path = tmp_path / "gateway.jsonl"
    write(path, *((second, str(second)) for second in range(300)), size=1000)
    file = os.open(path, os.O_RDONLY)
    path.chmod(0)
    child = os.fork()
    if child == 0:  # not pytest's: it must not return
        code = 1
        try:
            if os.geteuid() == 0:
                os.setresuid(65534, 65534, 65534)
            given = Path(f"/proc/self/fd/{file}")
            forwards, backwards = events([given]), events([given], newest=True)
            both = [(next(forwards)["eventID"], next(backwards)["eventID"]) for _ in range(150)]
            refused = not os.access(path, os.R_OK)
            code = 0 if refused and both == [(str(one), str(299 - one)) for one in range(150)] else 2
        finally:
            os._exit(code)
    os.close(file)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_missing_directory_is_named(tmp_path):
    """The error says which directory and why."""
    with pytest.raises(AuditError, match=r"audit directory .*/none: No such file or directory"):
        audit_files(tmp_path / "none")


def test_text_in_finds_ids_and_arns():
    """An id is found alone and at the end of an ARN, but not within another."""
    value = {"a": [{"b": "arn:aws:ec2:us-east-1:1:instance/i-1"}], "c": "sg-1"}
    assert text_in(value, "i-1")
    assert text_in(value, "sg-1")
    assert text_in(value, "arn:aws:ec2:us-east-1:1:instance/i-1")
    assert not text_in(value, "g-1")


def test_rotated_by_date_and_packed(tmp_path):
    """Files that logrotate dated and packed are one sequence with the present one, both ways and within bounds."""
    for day, name in enumerate(("a.jsonl-20260131", "a.jsonl-20260201", "a.jsonl")):
        write(tmp_path / name, (day * 86_400, f"{day} early"), (day * 86_400 + 60, f"{day} late"))
        os.utime(tmp_path / name, (START + day * 86_400 + 60,) * 2)
    first = tmp_path / "a.jsonl-20260131"
    packed = tmp_path / "a.jsonl-20260131.gz"
    packed.write_bytes(gzip.compress(first.read_bytes()))
    first.unlink()
    files = audit_files(tmp_path)
    assert len(files) == 3
    everything = [f"{day} {when}" for day in range(3) for when in ("early", "late")]
    assert ids(events(files)) == everything
    assert ids(events(files, newest=True)) == everything[::-1]
    assert ids(events(files, sizes=sizes_of(files))) == everything
    assert ids(events(files, since=START + 86_400, until=START + 86_500)) == everything[2:4]
    packed.write_bytes(packed.read_bytes()[:-5])
    with pytest.raises(AuditError, match="Not a whole gzip file"):
        list(events(files))


def test_while_a_file_is_packed(tmp_path):
    """logrotate removes a file when its packed one is whole; interrupted, it leaves both. Nothing is shown twice."""
    plain = tmp_path / "a.jsonl-20260131"
    write(plain, (0, "first"), (60, "second"))
    write(tmp_path / "a.jsonl", (86_400, "third"))
    whole = gzip.compress(plain.read_bytes())
    for there in (b"", whole[:-5], whole):
        plain.with_name(f"{plain.name}.gz").write_bytes(there)
        assert ids(events(audit_files(tmp_path))) == ["first", "second", "third"]
        assert ids(events(audit_files(tmp_path), newest=True)) == ["third", "second", "first"]
        assert chain_of(tmp_path / "a.jsonl") == [plain, tmp_path / "a.jsonl"]
    listed = audit_files(tmp_path)
    plain.unlink()
    assert ids(events(listed)) == ["first", "second", "third"]


def test_a_file_without_lines_is_given_up(tmp_path):
    """A gateway in wrong hands can make a file of any size that takes no room: who reads it keeps to some memory."""
    write(tmp_path / "a.jsonl", (0, "first"), (60, "last"))
    write(tmp_path / "b.jsonl", (30, "middle"))
    os.truncate(tmp_path / "b.jsonl", 1 << 40)
    script = (
        "import resource, sys; from pathlib import Path; from wicketgate.audit.reading import events, audit_files;"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30));"
        "files = audit_files(Path(sys.argv[1]));"
        f"bounds = dict(since={START}, until={START + 100});"
        "[print(*[one['eventID'] for one in events(files, **how)]) for how in ({}, bounds, {'newest': True})]"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=20)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["first middle last", "first middle last", "last first"]


def test_only_own_files_of_a_directory(tmp_path):
    """Of what stands in another process's directory its own files are shown: no link, no pipe, no second name."""
    good, other = tmp_path / "gateway-a0.jsonl", tmp_path / "secret"
    good.write_bytes(b"")
    other.write_bytes(b"")
    (tmp_path / "link.jsonl").symlink_to(other)
    (tmp_path / "second.jsonl").hardlink_to(other)
    os.mkfifo(tmp_path / "pipe.jsonl")
    found = AuditDirectories(tmp_path)
    assert list(found) == [good]
    rotated = good.rename(tmp_path / "gateway-a0.jsonl-20261126")
    assert list(found) == [rotated]
    for name in ("link.jsonl", "pipe.jsonl"):
        with pytest.raises(AuditError, match=name):
            list(events([tmp_path / name]))
        (tmp_path / name).rename(tmp_path / "first.jsonl")  # followed in the order of names
        with pytest.raises(AuditError, match=r"first\.jsonl"):
            next(follow(tmp_path))
