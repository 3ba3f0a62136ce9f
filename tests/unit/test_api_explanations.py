"""The service `wicketgate` inside the API process: its queue, and attempts of the past as the audit trail has them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_explain import EICE, IN, OUT, allow, world
from wicketgate.api import explanations
from wicketgate.api.attempts import Attempt, explain_attempt, find_attempt
from wicketgate.api.explanations import WAITING, Asking, Reasoning
from wicketgate.audit import Attempt as Attempted
from wicketgate.audit import Outcome, close_event, open_event
from wicketgate.audit.events import Event, line
from wicketgate.control.call import Caller
from wicketgate.explain import Unanswerable, text
from wicketgate.model import ApiError, World
from wicketgate.store import open_store

NOW = 1_700_000_000.5
PARAMETERS = {"instanceConnectEndpointId": EICE, "remotePort": "22", "privateIpAddress": "10.0.0.11"}
PASSING = world(door=[OUT], web=[IN], policy=allow())
SHUT = world(door=[OUT], policy=allow())


# -- the queue ---------------------------------------------------------------------------------------------------------


def asking(directory: Path, authorize: Callable[[str], None], **parameters: Any) -> Asking:
    """A question of alice's about herself."""
    return Asking(
        parameters={"Target": "i-web", **parameters},
        caller=Caller("arn", "123456789012", access_key_id="AKIAALICE0000001", source_ip="203.0.113.10"),
        now=NOW,
        world=PASSING,
        store=open_store(directory / "store"),
        audit_paths=[],
        authorize=authorize,
    )


def test_a_full_queue_refuses(tmp_path: Path) -> None:
    """As many as may wait do; the next one is told at once, and everybody else gets an answer."""
    go = threading.Event()
    question = asking(tmp_path, lambda resource: go.wait(10) and None)

    async def many() -> None:
        reasoning = Reasoning()
        waiting = [asyncio.ensure_future(reasoning.answer("Explain", question)) for _ in range(WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(ApiError, match="16 questions are waiting") as refused:
            await reasoning.answer("Explain", question)
        assert refused.value.code == "ThrottlingException"
        go.set()
        assert {one["Explanation"]["outcome"] for one in await asyncio.gather(*waiting)} == {"pass"}
        assert (await reasoning.answer("Explain", question))["Explanation"]["outcome"] == "pass", "there is room again"

    asyncio.run(many())


def test_nobody_waits_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After SECONDS the caller is told; the next question is answered all the same."""
    monkeypatch.setattr(explanations, "SECONDS", 0.05)
    go = threading.Event()
    question = asking(tmp_path, lambda resource: go.wait(10) and None)

    async def late() -> None:
        reasoning = Reasoning()
        with pytest.raises(ApiError, match="no answer within") as failed:
            await reasoning.answer("Explain", question)
        assert (failed.value.code, failed.value.http_status) == ("ServiceException", 503)
        go.set()
        await asyncio.sleep(0.2)
        assert (await reasoning.answer("Explain", question))["Explanation"]["outcome"] == "pass"

    asyncio.run(late())


def test_iam_is_asked_about_whom_it_is(tmp_path: Path) -> None:
    """The caller's own ARN, another's, or everybody's where there is no such principal."""
    asked: list[str] = []
    question = asking(tmp_path, asked.append)

    async def about() -> None:
        reasoning = Reasoning()
        await reasoning.answer("Explain", question)
        for who in ("role/ops", "nobody"):
            about_another = Asking(**{**vars(question), "parameters": {"Target": "i-web", "Principal": who}})
            try:
                await reasoning.answer("Explain", about_another)
            except ApiError as error:
                assert error.code == "UnanswerableException"

    asyncio.run(about())
    arn = "arn:aws:iam::123456789012:user/alice"
    assert asked == [arn, "arn:aws:iam::123456789012:role/ops", "*"]


# -- attempts ----------------------------------------------------------------------------------------------------------


def opened(made: World = PASSING, key: str = "AKIAALICE0000001", **more: Any) -> Event:
    """An OpenTunnel line."""
    owner = made.access_key(key)
    values = {"request_id": "r-1", "source_ip": "203.0.113.10", "access_key_id": key, "parameters": PARAMETERS}
    values |= {"principal": None if owner is None else made.principal(owner)}
    return open_event(made, Attempted(**(values | more)), event_id="e", now=NOW)


def closed(event: Event, code: int) -> Event:
    """The CloseTunnel line to it, a minute later."""
    outcome = Outcome(
        close_code=code,
        close_reason="why",
        bytes_from_client=1,
        bytes_to_client=1,
        duration=60.0,
        world_revision=9,
    )
    return close_event(event, outcome, event_id="f", now=NOW + 60)


def failed(made: World, attempt: Attempt) -> list[tuple[str, str]]:
    """What fails in its explanation."""
    return [(one.step, one.say.key) for one in explain_attempt(made, attempt).lines if one.outcome == "fail"]


def test_the_world_of_its_moment() -> None:
    """By the revision in the line; of a line without one, by the end of its second."""
    attempt = Attempt(opened=opened())
    assert attempt.revision == 7
    old = {name: value for name, value in opened().items() if name != "additionalEventData"}
    assert Attempt(opened=old).revision is None
    assert 1_700_000_000.9 < Attempt(opened=old).until < 1_700_000_001


@pytest.mark.parametrize(("code", "revision"), [(1000, 7), (4408, 7), (4403, 9), (4404, 9)])
def test_which_moment_of_a_tunnel(code: int, revision: int) -> None:
    """One that was ended because it was no longer allowed: its end; any other its beginning."""
    event = opened()
    attempt = Attempt(opened=event, closed=closed(event, code))
    assert attempt.revision == revision
    assert (attempt.shown()["closeCode"], attempt.shown()["closeReason"]) == (str(code), "why")


def test_a_revoked_tunnel_is_explained_by_what_took_it_away() -> None:
    """By the World in which it ended."""
    event = opened()
    assert failed(SHUT, Attempt(opened=event, closed=closed(event, 4403))) == [("target-inbound", "inbound-nothing")]


def test_callers_who_proved_nothing() -> None:
    """With a key that exists the rest is explained as well; with one that never did there is nothing more to say."""
    known = opened(principal=None, error_code="SignatureDoesNotMatch", error_message="no")
    explanation = explain_attempt(PASSING, Attempt(opened=known))
    assert [one.step for one in explanation.lines][:3] == ["credentials", "iam", "endpoint"]
    assert text(explanation.lines[0].say) == (
        "whoever it was did not prove to hold access key AKIAALICE0000001: SignatureDoesNotMatch"
    )
    assert (explanation.outcome, explanation.remedies) == ("fail", ())
    unknown = opened(key="AKIANOBODY000001", error_code="InvalidClientTokenId", error_message="no")
    assert failed(PASSING, Attempt(opened=unknown)) == [("credentials", "key-unproven")]


def test_an_endpoint_that_never_was() -> None:
    """The step that failed by it, and which there are."""
    parameters = PARAMETERS | {"instanceConnectEndpointId": "eice-9"}
    event = opened(parameters=parameters, error_code="InvalidInstanceConnectEndpointId.NotFound", error_message="no")
    assert failed(PASSING, Attempt(opened=event)) == [("endpoint", "ask-endpoint")]


@pytest.mark.parametrize(
    "parameters",
    [{}, PARAMETERS | {"remotePort": "ssh"}, {"remotePort": "22"}, PARAMETERS | {"maxTunnelDuration": "long"}],
)
def test_parameters_that_cannot_be_read(parameters: dict[str, str]) -> None:
    """What it was answered at the time is all there is."""
    event = opened(parameters=parameters, error_code="InvalidParameter", error_message="The remotePort is no number")
    with pytest.raises(Unanswerable, match="its answer was: InvalidParameter: The remotePort is no number"):
        explain_attempt(PASSING, Attempt(opened=event))


def test_what_was_beyond_the_world() -> None:
    """Everything passes, and yet it failed."""
    event = opened(error_code="TargetUnreachable", error_message="Unable to connect to target: connection refused")
    explanation = explain_attempt(PASSING, Attempt(opened=event))
    assert (explanation.outcome, explanation.lines[-1].say.key) == ("unknown", "recorded-beyond")


def test_finding_an_attempt(tmp_path: Path) -> None:
    """Both lines of a tunnel; the one of a call; nothing."""
    trail = tmp_path / "gateway.jsonl"
    event = opened()
    call = {"eventTime": event["eventTime"], "eventName": "CreateVpc", "requestID": "r-2", "errorCode": "Client.X"}
    trail.write_bytes(line(event) + json.dumps(call).encode() + b"\n" + line(closed(event, 1000)))
    found = find_attempt([trail], "r-1", NOW + 3600)
    assert found is not None and found.closed is not None
    assert (found.opened["eventName"], found.closed["eventName"]) == ("OpenTunnel", "CloseTunnel")
    other = find_attempt([trail], "r-2", NOW + 3600)
    assert other is not None
    with pytest.raises(Unanswerable, match="request r-2 is a call of CreateVpc, not an attempt to open a tunnel"):
        explain_attempt(PASSING, other)
    assert find_attempt([trail], "r-3", NOW + 3600) is None
