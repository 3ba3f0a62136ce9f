"""How long a client may take over what is left for it."""

from __future__ import annotations

import pytest

from wicketgate.gateway.drain import ANSWER_SECONDS, GRACE_SECONDS, SLOWEST, STALLED_SECONDS, Patience


def gave_up(owed: int, rate: float) -> tuple[float, int]:
    """Second at which a client that takes `rate` bytes a second is given up, and the bytes still owed to it then."""
    patience, seconds, left = Patience(owed, 1000.0), 0.0, owed
    while not patience.over(left, 1000.0 + seconds):
        seconds += 1
        left = max(0, int(owed - rate * seconds))
    return seconds, left


@pytest.mark.parametrize("owed", [1, 300_000, 10_000_000])
def test_client_that_takes_nothing(owed: int):
    """It is given up after a while that does not depend on how much there is for it."""
    assert gave_up(owed, 0) == (STALLED_SECONDS, owed)


def test_client_that_answers_no_close_frame():
    """With everything delivered it only has the close frame left to answer."""
    assert gave_up(0, 0) == (ANSWER_SECONDS, 0)
    seconds, left = gave_up(10_000, 5_000)
    assert (seconds, left) == (2 + ANSWER_SECONDS, 0)


@pytest.mark.parametrize("owed", [100_000, 5_000_000])
def test_slow_client(owed: int):
    """At the slowest rate it gets everything; at a trickle it is given up at a time known before."""
    assert gave_up(owed, SLOWEST)[1] == 0
    seconds, left = gave_up(owed, 10)
    assert left > 0
    assert GRACE_SECONDS + owed / SLOWEST <= seconds <= GRACE_SECONDS + owed / SLOWEST + 1
