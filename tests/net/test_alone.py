"""One netd in a network namespace: who else has its name keeps it from starting only by being a netd."""

import subprocess
import sys
import threading
import time

import pytest

from wicketgate.kernel.socket_owners import owner_of
from wicketgate.model import FabricError
from wicketgate.netd.alone import NAME, stand_alone

NOBODY = 65534
HOLD = f"""
import os, socket, sys
os.setgid({NOBODY})
os.setuid({NOBODY})  # only now: he need not be able to read this interpreter
held = socket.socket(socket.AF_UNIX)
held.bind({NAME!r})
waiting = []
if sys.argv[1] != "bound":
    held.listen(0)
while sys.argv[1] == "full":
    one = socket.socket(socket.AF_UNIX)
    one.setblocking(False)
    try:
        one.connect({NAME!r})
    except BlockingIOError:
        break
    waiting.append(one)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=["bound", "listening", "full"])
def squatter(request):
    """Another user's process that has taken the name, in each way that one can be met."""
    command = [sys.executable, "-c", HOLD, request.param]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        yield process
        process.stdin.close()
        process.wait()


@pytest.mark.root
@pytest.mark.usefixtures("squatter")
def test_a_squatter_keeps_no_netd_from_starting():
    """Any user of the host may take the name, and can fill its queue: netd starts all the same."""
    assert owner_of(NAME) == NOBODY
    assert stand_alone() is None


def test_another_netd_does():
    """However many have asked it before: nobody takes their connections out of its queue."""
    held = stand_alone()
    try:
        assert owner_of(NAME) == 0
        for _ in range(4):
            with pytest.raises(FabricError, match="another netd runs in this network namespace"):
                stand_alone(0)
    finally:
        held.close()
    assert owner_of(NAME) is None
    again = stand_alone()
    assert again is not None
    again.close()


def test_the_netd_before_may_still_be_ending():
    """Who was started again at once waits for it."""
    held = stand_alone()
    ending = threading.Timer(0.3, held.close)
    ending.start()
    began = time.monotonic()
    stand_alone().close()
    assert 0.2 < time.monotonic() - began < 2
    ending.join()
