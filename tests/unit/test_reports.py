"""The file that tells what was found outside, and the bucket that lines in the log come from."""

import logging

import msgspec

from wicketgate.model.observed import Machine, Observations
from wicketgate.model.resources import AttachedNetwork
from wicketgate.netd.reports import AGAIN_SECONDS, AT_ONCE, TROUBLE_SECONDS, WRITE_SECONDS, Limited, Report

HERE = Machine(reachable=True, since=1.0)


def read(file):
    """What a file says."""
    return msgspec.json.decode(file.read_bytes(), type=Observations)


def test_it_is_written_when_something_is_another_and_not_too_often(tmp_path):
    """Once at the start, then only changes: two within half a second make one more file."""
    file = tmp_path / "observations.json"
    report = Report(file)
    report.follow(1, {})
    report.write(100.0)
    assert (read(file), report.due) == (Observations(revision=1), None)
    first = file.stat().st_ino
    report.follow(2, {})
    report.note("i-1", None)
    report.write(101.0)
    assert file.stat().st_ino == first, "another revision alone is nothing"
    report.note("i-1", HERE)
    report.write(102.0)
    report.follow(3, {"subnet-1": AttachedNetwork(mode="own")})
    report.note("i-2", HERE)
    report.write(102.1)
    assert (read(file).machines, report.due) == ({"i-1": HERE}, 102.0 + WRITE_SECONDS)
    report.write(102.0 + WRITE_SECONDS)
    assert read(file) == Observations(
        revision=3, subnets={"subnet-1": AttachedNetwork(mode="own")}, machines={"i-1": HERE, "i-2": HERE}
    )
    report.keep(["i-2"])
    report.write(200.0)
    assert read(file).machines == {"i-2": HERE}


def test_an_earlier_file_is_taken_up_and_rubbish_is_not(tmp_path, caplog):
    """What an earlier netd found goes on; a file that cannot be read is said and written anew."""
    file = tmp_path / "observations.json"
    file.write_bytes(msgspec.json.encode(Observations(machines={"i-1": HERE})))
    assert Report(file).machines == {"i-1": HERE}
    file.write_text("rubbish")
    report = Report(file)
    assert (report.machines, "cannot be read" in caplog.text) == ({}, True)
    report.write(1.0)
    assert read(file) == Observations()


def test_what_cannot_be_written_is_said_once_and_tried_again(tmp_path, caplog):
    """And then it is all there."""
    file = tmp_path / "later" / "observations.json"
    report = Report(file)
    report.note("i-1", HERE)
    for n in range(5):
        report.write(100.0 + n * TROUBLE_SECONDS)
    assert len(caplog.records) == 1
    file.parent.mkdir()
    assert report.due == 100.0 + 5 * TROUBLE_SECONDS
    report.write(report.due)
    assert (read(file).machines, file.stat().st_mode & 0o777) == ({"i-1": HERE}, 0o644)


def test_without_a_file_nothing_is_ever_due():
    """Where nobody is told."""
    report = Report(None)
    report.note("i-1", HERE)
    report.write(1.0)
    assert report.due is None


def test_a_bucket_of_lines(caplog):
    """Some at once, one more each time, and what was left out is said with the next."""
    limited = Limited()
    for n in range(1000):
        limited.say(logging.WARNING, f"line {n}", 5000.0)
    assert len(caplog.records) == AT_ONCE
    limited.say(logging.WARNING, "another", 5000.0 + AGAIN_SECONDS + 0.01)
    assert caplog.records[-1].getMessage() == f"another ({1000 - AT_ONCE} lines like this are left out)"
    limited.say(logging.WARNING, "too soon", 5000.0 + AGAIN_SECONDS + 1)
    assert len(caplog.records) == AT_ONCE + 1
