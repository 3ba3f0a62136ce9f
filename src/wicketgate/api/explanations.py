"""The service `wicketgate`: questions about this installation, answered by the API process, which alone has its past.

An answer can take a while, so questions wait in a queue of their own, beside the loop that answers calls. They change
nothing. The model of the service lies in `models/`; an operation is one function in OPERATIONS.

    call ──> queue ──> thread: World of the moment ──> authorise ──> explain ──> answer
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from wicketgate.api.attempts import explain_attempt, find_attempt
from wicketgate.api.reach import reach_world
from wicketgate.api.reports import check_world, lint_world
from wicketgate.audit import AuditError
from wicketgate.control.call import Caller
from wicketgate.explain import Language, Question, Unanswerable, as_data, explain, principal_arn
from wicketgate.model import ApiError, World
from wicketgate.store import Store, StoreError

SERVICE: Final = "wicketgate"
WAITING: Final = 16
"""Questions that may wait while one is answered."""
SECONDS: Final = 60.0
"""How long a caller is let wait."""


@dataclass(frozen=True)
class Asking:
    """One question, by a caller who is proven."""

    parameters: Mapping[str, Any]
    """Validated, by the model's member names."""
    caller: Caller
    now: float
    """Seconds since the epoch."""
    world: World
    """In force when it was asked."""
    store: Store
    audit_paths: Iterable[Path]
    authorize: Callable[[str], None]
    """Raises ApiError unless the caller may ask this about a resource (an ARN, or `*`). To be called before anything
    is told."""
    limits: Sequence[Any] = ()
    """The installation's quotas, each kind of them of its own type."""

    @property
    def language(self) -> Language:
        """Of the answer."""
        given: Language = self.parameters.get("Language", "en")
        return given

    def world_then(self) -> World:
        """The World of the moment that is asked about: of the past if `Time` is, else the one in force."""
        moment = self.parameters.get("Time")
        if moment is None or moment.timestamp() >= self.now:
            return self.world
        world = self.store.at(time=moment.timestamp())
        if world.revision == 0:
            raise Unanswerable("Time", "ask-time", given=moment.strftime("%Y-%m-%dT%H:%M:%SZ"))
        return world


def explain_question(asking: Asking) -> dict[str, Any]:
    """Explain. About whom is the resource that IAM is asked about: who may ask about oneself may not about others."""
    if "RequestId" in asking.parameters:
        return _explain_recorded(asking)
    given = asking.parameters
    who = given.get("Principal", asking.caller.access_key_id)
    asking.authorize(principal_arn(asking.world, who) or "*")
    if not given.get("Target"):
        raise Unanswerable("Target", "ask-target-missing")
    moment = given.get("Time")
    question = Question(
        principal=who,
        source_ip=given.get("SourceIp", asking.caller.source_ip),
        target=given["Target"],
        endpoint_id=given.get("EndpointId", ""),
        port=given.get("Port", 22),
        duration=given.get("MaxTunnelDuration"),
        ssh=given.get("Ssh", False),
        os_user=given.get("InstanceOSUser", "ec2-user"),
        at=asking.now if moment is None else moment.timestamp(),
    )
    return {"Explanation": as_data(explain(asking.world_then(), question), asking.language)}


def _explain_recorded(asking: Asking) -> dict[str, Any]:
    request_id = asking.parameters["RequestId"]
    if set(asking.parameters) - {"RequestId", "Language"}:
        asking.authorize("*")
        raise Unanswerable("RequestId", "ask-with-request")
    attempt = find_attempt(asking.audit_paths, request_id, asking.now)
    asking.authorize("*" if attempt is None else attempt.principal_arn or "*")
    if attempt is None:
        raise Unanswerable("RequestId", "ask-request", given=request_id)
    revision = attempt.revision
    world = asking.store.at(time=attempt.until) if revision is None else asking.store.at(revision=revision)
    return {"Explanation": as_data(explain_attempt(world, attempt), asking.language)}


Operation = Callable[[Asking], dict[str, Any]]
OPERATIONS: Final[dict[str, Operation]] = {
    "Explain": explain_question,
    "Reach": reach_world,
    "Lint": lint_world,
    "Check": check_world,
}
"""Action -> how it is answered; each calls `authorize` before it tells anything."""


class Reasoning:
    """The queue, and the one thread that answers."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "reasoning")
        self._waiting = 0

    async def answer(self, action: str, asking: Asking) -> dict[str, Any]:
        """Answer one question. Raises ApiError."""
        if self._waiting >= WAITING:
            raise ApiError("ThrottlingException", f"{self._waiting} questions are waiting for their answers already.")
        self._waiting += 1
        answering = asyncio.get_running_loop().run_in_executor(self._thread, _answer, action, asking)
        answering.add_done_callback(self._done)
        try:
            async with asyncio.timeout(SECONDS):
                return await asyncio.shield(answering)
        except TimeoutError:
            raise ApiError("ServiceException", f"There is no answer within {SECONDS:.0f} seconds.", 503) from None

    def _done(self, answered: asyncio.Future[dict[str, Any]]) -> None:
        self._waiting -= 1
        if not answered.cancelled():
            answered.exception()  # nobody may be waiting for it any more


def _answer(action: str, asking: Asking) -> dict[str, Any]:
    try:
        return OPERATIONS[action](asking)
    except Unanswerable as error:
        raise ApiError("UnanswerableException", error.worded(asking.language)) from error
    except (StoreError, AuditError) as error:
        raise ApiError("ServiceException", f"What was cannot be read: {error}", 503) from error
