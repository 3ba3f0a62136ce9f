"""The words a tunnel ends with."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wicketgate.tunnel import UNABLE, cut, dial_failure


@given(st.text())
def test_cut_fits_a_close_frame(reason: str):
    """Whatever the text, the reason is valid UTF-8 of at most 123 bytes, on one line, and short ones are kept whole."""
    short = cut(reason)
    assert len(short.encode()) <= 123
    assert short.splitlines() in ([short], [])
    whole = " ".join(reason.split())
    assert short == whole or (short.endswith("...") and len(whole.encode()) > 123)


@pytest.mark.parametrize("letter", ["a", "é", "日", "😀"])
def test_cut_ends_on_a_character_border(letter: str):
    """A cut falls between characters of every width."""
    short = cut(letter * 200)
    assert short.removesuffix("...") == letter * ((123 - 3) // len(letter.encode()))


def words(error: int, *, may_see_rules: bool, failed_step: str, request_id: str = "") -> str:
    """The reason for a dial to 10.0.1.11 port 22."""
    return dial_failure(
        error,
        address="10.0.1.11",
        port=22,
        timeout=5.0,
        may_see_rules=may_see_rules,
        failed_step=failed_step,
        request_id=request_id,
    )


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errno.ECONNREFUSED, "connection refused"),
        (errno.ETIMEDOUT, "timed out"),
        (errno.EHOSTUNREACH, "no route"),
        (errno.ENETUNREACH, "no route"),
        (errno.EINVAL, "connection failed"),
    ],
)
def test_a_caller_who_may_not_see_the_rules(error: int, kind: str):
    """Gets AWS's words and the kind of failure, whatever step failed: no rule, no address."""
    assert words(error, may_see_rules=False, failed_step="sg-1 has no outbound rule") == f"{UNABLE}: {kind}"


def test_a_caller_who_may_see_the_rules():
    """Gets the step that failed."""
    reason = words(errno.EHOSTUNREACH, may_see_rules=True, failed_step="sg-1 has no outbound rule")
    assert reason == f"{UNABLE}: sg-1 has no outbound rule"


@pytest.mark.parametrize("error", [errno.ECONNREFUSED, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH])
def test_when_the_rules_pass_the_error_speaks(error: int):
    """When paths says the flow passes, each kind of failure has words of its own, all within a close frame."""
    reason = words(error, may_see_rules=True, failed_step="")
    assert reason.startswith(f"{UNABLE}: ") and "10.0.1.11" in reason
    assert not reason.endswith("...")


def test_an_error_without_words_is_named():
    """An errno nobody thought of is shown by name."""
    assert "EINVAL" in words(errno.EINVAL, may_see_rules=True, failed_step="")


@pytest.mark.parametrize(("step", "fits"), [("x" * 44, True), ("x" * 45, False), ("日" * 14, True), ("日" * 15, False)])
def test_the_request_id_stands_at_the_end_if_there_is_room(step: str, fits: bool):
    """Whole or not at all, counted in bytes: it is what `wicketgate explain --request-id` takes."""
    request_id = "6f7d6a2e-5a0e-4a6f-9b0b-8f0e2d1c3b4a"
    reason = words(errno.EHOSTUNREACH, may_see_rules=True, failed_step=step, request_id=request_id)
    assert reason == f"{UNABLE}: {step}" + (f" (request id {request_id})" if fits else "")
    assert len(reason.encode()) <= 123
