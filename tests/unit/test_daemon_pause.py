"""How soon a process that ended is started again."""

import sys

from wicketgate import daemon
from wicketgate.daemon import Child


def test_what_does_not_work_waits_longer_each_time(tmp_path, monkeypatch):
    """A process that ends at once is started at growing intervals, five seconds at most; one that worked, at once."""
    now = [100.0]
    monkeypatch.setattr(daemon.time, "monotonic", lambda: now[0])
    child = Child("child", lambda _feed: [sys.executable, "-c", ""], [], tmp_path / "log")
    pauses = []
    for _ in range(8):
        child.launch().close()
        child.process.wait()
        begun = now[0]
        while not child.may_start(now[0]):
            now[0] += 0.05
        pauses.append(round(now[0] - begun, 1))
    assert pauses == [0.0, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    now[0] += 60
    child.launch().close()
    child.process.wait()
    assert child.may_start(now[0])
