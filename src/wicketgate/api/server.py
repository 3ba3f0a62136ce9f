"""The AWS APIs: from one HTTP request to one answer.

    identify ── authenticate ── parse ── authorise ── run ── commit ── audit ── answer
                                              ^         |
                                              +-- decided again, when something else was committed first

An action that changes nothing is answered from the World in force. One that does is decided again under the writer's
lock if need be, so that nothing is ever committed on a World that was not the last. Every call, refused or not, has
its audit line on disk before its answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import logging
import os
import re
import secrets
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from wicketgate import iam
from wicketgate.api import authority, explanations, idempotency
from wicketgate.api.cloudtrail import lookup_events
from wicketgate.api.http import Request
from wicketgate.api.machines import PREFIX, Machines
from wicketgate.api.offers import offered
from wicketgate.api.service import Call as WireCall
from wicketgate.api.service import Catalogue, Message, Reply, Service
from wicketgate.api.writer import Writer
from wicketgate.audit import AuditLog
from wicketgate.audit.api_events import ApiCall, api_event
from wicketgate.audit.events import Event, line
from wicketgate.control.call import Ask, Call, Caller, Operation, Outcome
from wicketgate.model import AccessKey, ApiError, AuthFailure, Principal, World
from wicketgate.store import StoreError, TokenUse

_logger = logging.getLogger("wicketgate.api")

_LOOKUP: Final = ("cloudtrail", "LookupEvents")
"""The one action of AWS's that reads the audit trail and not the World."""
_DRY_RUN: Final = "Request would have succeeded, but DryRun flag is set."


@dataclass
class _Trail:
    """What is known of a call so far: what its audit line will say."""

    request_id: str
    service: Service
    action: str = ""
    access_key_id: str = ""
    principal: Principal | None = None
    parameters: dict[str, Any] | None = None
    answer: Mapping[str, Any] | None = None
    error: ApiError | None = None
    event: Event | None = None
    """The audit line, once it is kept with a Change."""
    revision: int = 0
    """Of that Change."""


@dataclass(frozen=True)
class _Asked:
    """A call whose caller is proven and whose parameters are read."""

    operation: Operation
    parameters: dict[str, Any]
    caller: Caller
    context: Mapping[str, str]
    trail: _Trail
    now: float


@dataclass
class Api:
    """All services over one World."""

    writer: Writer
    audit: AuditLog
    audit_paths: Iterable[Path]
    """Every process's audit file, for LookupEvents."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """What actions take beside the call, by parameter name: `quotas` of their type, `domain`."""
    sign: Callable[[bytes], bytes] | None = None
    machines: Machines | None = None
    """Who answers machines; None: nobody."""
    catalogue: Catalogue = field(default_factory=Catalogue.load)
    _offers: dict[str, set[str]] = field(default_factory=dict)
    _operations: dict[tuple[str, str], Operation] = field(default_factory=dict)
    _reasoning: explanations.Reasoning = field(default_factory=explanations.Reasoning)

    def __post_init__(self) -> None:
        for key, operation in offered().items():
            self._operations[key] = replace(operation, run=self._bound(operation.run))
        self._operations[_LOOKUP] = Operation(
            *_LOOKUP, _reads_elsewhere, lambda _call: (Ask("cloudtrail:LookupEvents"),)
        )
        for name in explanations.OPERATIONS:
            self._operations[explanations.SERVICE, name] = Operation(
                explanations.SERVICE,
                name,
                _reads_elsewhere,
                lambda call: (Ask(f"{explanations.SERVICE}:{call.action}"),),
            )
        for service, action in self._operations:
            self._offers.setdefault(service, set()).add(action)

    def _bound(self, run: Callable[..., Outcome]) -> Callable[[Call], Outcome]:
        """The action with this installation's quotas and domain in place of AWS's."""
        taken = {}
        for name, parameter in inspect.signature(run).parameters.items():
            for value in self.values.get(name, ()):
                if isinstance(parameter.default, type(value)):
                    taken[name] = value
        return partial(run, **taken) if taken else run

    def warm(self) -> None:
        """Compile the codec of everything offered, so that no first call waits for it."""
        for service, actions in self._offers.items():
            self.catalogue.services[service].warm(actions)

    # -- one request ---------------------------------------------------------------------------------------------------

    async def handle(self, request: Request) -> Reply:
        """Answer one request; never raises."""
        if self.machines is not None and request.path.startswith(PREFIX):
            return self.machines.answer(self.writer.world, request, time.time())
        message = Message(headers=request.headers, query=request.query, body=request.body)
        trail = _Trail(str(uuid.uuid4()), self.catalogue.speaker(message), access_key_id=authority.claimed_key(request))
        try:
            reply = await self._answer(request, message, trail)
        except ApiError as error:
            trail.error = error
            reply = trail.service.error(error, trail.request_id)
        except Exception:  # a request that breaks us must still be answered, and break no other
            _logger.exception("request %s: no answer", trail.request_id)
            trail.error = ApiError("InternalFailure", "The request failed inside the service; it is in its log.", 500)
            reply = trail.service.error(trail.error, trail.request_id)
        failed = await self._record(request, trail)
        if failed is None:
            return reply
        _logger.error("request %s: no audit line: %s", trail.request_id, failed)
        unrecorded = ApiError(
            "ServiceUnavailable",
            "The audit record of this call cannot be written. If it changes something, it may have been carried out: "
            "look before you call again.",
            503,
        )
        return trail.service.error(unrecorded, trail.request_id)

    async def _answer(self, request: Request, message: Message, trail: _Trail) -> Reply:
        if request.path != "/":
            raise ApiError("InvalidAction", f"There is nothing at {request.path[:64]!r}: the APIs are at /.", 404)
        wire = self.catalogue.identify(message, self._offers)
        trail.service, trail.action = wire.service, wire.operation
        asked = self._asked(request, wire, trail)
        if (wire.service.name, wire.operation) == _LOOKUP:
            answer = await self._lookup(asked)
        elif wire.service.name == explanations.SERVICE and wire.operation in explanations.OPERATIONS:
            answer = await self._reasoning.answer(wire.operation, self._asking(asked))
        else:
            answer = await self._run(asked, request)
        trail.answer = answer
        return wire.answer(dict(answer), trail.request_id)

    def _asked(self, request: Request, wire: WireCall, trail: _Trail) -> _Asked:
        now = time.time()
        key, principal = self._proven(request, trail.service, now)
        trail.principal, trail.access_key_id = principal, key.id
        self.writer.used(key.id, wire.service.name, now)
        trail.parameters = parameters = wire.parse()
        caller, context = self._known(request, key, principal, now)
        operation = self._operations[wire.service.name, wire.operation]
        return _Asked(operation, parameters, caller, context, trail, now)

    def _proven(self, request: Request, service: Service, now: float) -> tuple[AccessKey, Principal]:
        """Whose signature it is, by the World in force. Raises ApiError in the service's words."""
        try:
            return authority.authenticate(self.writer.world, request, service.name, now)
        except AuthFailure as failure:
            raise authority.worded(failure, service.name, json=service.protocol == "json") from failure

    def _known(
        self, request: Request, key: AccessKey, principal: Principal, now: float
    ) -> tuple[Caller, Mapping[str, str]]:
        """The caller as actions see it, and the condition keys that all its requests have."""
        world, source_ip = self.writer.world, request.peer.source_ip
        user_agent = request.headers.get("user-agent", "")
        caller = _caller(world, principal, key, source_ip, user_agent)
        return caller, iam.caller_context(world, principal, source_ip, user_agent, now)

    def _asked_again(self, asked: _Asked, request: Request) -> _Asked:
        """The same call in the World in force: key, policies or user may have been taken away while it waited."""
        key, principal = self._proven(request, asked.trail.service, asked.now)
        caller, context = self._known(request, key, principal, asked.now)
        return replace(asked, caller=caller, context=context)

    # -- deciding and committing ---------------------------------------------------------------------------------------

    async def _run(self, asked: _Asked, request: Request) -> Mapping[str, Any]:
        world = self.writer.world
        replayed, token = self._decided_before(asked, world)
        if replayed is not None:
            return replayed
        outcome = self._decide(asked, world)
        if outcome.change.empty:
            return outcome.answer
        async with self.writer.lock:
            if self.writer.world is not world:
                world, asked = self.writer.world, self._asked_again(asked, request)
                replayed, token = self._decided_before(asked, world)
                if replayed is not None:
                    return replayed
                outcome = self._decide(asked, world)
            if outcome.change.empty:
                return outcome.answer
            used = None if token is None else msgspec.structs.replace(token, answer=idempotency.kept(outcome.answer))
            trail = asked.trail
            trail.answer = outcome.answer
            event = self._event(request, trail)
            trail.revision = await self.writer.commit(outcome.change, used, line(event).decode())
            trail.event = event
        return outcome.answer

    def _decide(self, asked: _Asked, world: World) -> Outcome:
        """Authorise and run on one World; nothing is committed. Raises ApiError."""
        call = self._call(asked, world)
        self._authorize(asked, call)
        outcome = asked.operation.run(call)
        if asked.parameters.get("DryRun"):
            raise ApiError("DryRunOperation", _DRY_RUN, 412)
        return outcome

    def _authorize(self, asked: _Asked, call: Call) -> None:
        principal = asked.caller.principal
        assert principal is not None, "authenticated"
        service = asked.trail.service
        asks = asked.operation.asks(call)
        authority.authorize(asks, principal, asked.context, service.name, json=service.protocol == "json")

    def _call(self, asked: _Asked, world: World) -> Call:
        return Call(
            world=world,
            action=asked.operation.name,
            parameters=asked.parameters,
            caller=asked.caller,
            now=asked.now,
            request_id=asked.trail.request_id,
            new_id=_new_id,
            random=os.urandom,
            sign=self.sign,
        )

    def _decided_before(self, asked: _Asked, world: World) -> tuple[Mapping[str, Any] | None, TokenUse | None]:
        """What a call with this ClientToken was answered, or how its answer is to be remembered.

        Raises ApiError as authorisation does, and IdempotentParameterMismatch.
        """
        token = asked.parameters.get("ClientToken")
        if not token or asked.parameters.get("DryRun"):
            return None, None
        self._authorize(asked, self._call(asked, world))
        idempotency.check_token(token)
        use = TokenUse(
            caller=asked.caller.arn,
            action=f"{asked.operation.service}:{asked.operation.name}",
            token=token,
            parameter_hash=_hash(asked.parameters),
            answer="",
            time=asked.now,
        )
        try:
            before = self.writer.store.token_use(use.caller, use.action, token, asked.now)
        except StoreError as error:
            raise ApiError(
                "ServiceUnavailable", f"Whether this ClientToken was used cannot be read: {error}", 503
            ) from error
        if before is None:
            return None, use
        if before.parameter_hash != use.parameter_hash:
            raise ApiError(
                "IdempotentParameterMismatch",
                f"The client token '{token}' was used before with other parameters. Use a new one for another request.",
            )
        return idempotency.given(before.answer), None

    async def _lookup(self, asked: _Asked) -> Mapping[str, Any]:
        self._authorize(asked, self._call(asked, self.writer.world))
        loop = asyncio.get_running_loop()
        answer: dict[str, Any] = await loop.run_in_executor(
            None, lookup_events, asked.parameters, self.audit_paths, asked.now
        )
        return answer

    def _asking(self, asked: _Asked) -> explanations.Asking:
        principal, action = asked.caller.principal, f"{explanations.SERVICE}:{asked.operation.name}"
        assert principal is not None, "authenticated"
        return explanations.Asking(
            parameters=asked.parameters,
            caller=asked.caller,
            now=asked.now,
            world=self.writer.world,
            store=self.writer.store,
            audit_paths=self.audit_paths,
            limits=self.values.get("quotas", ()),
            authorize=lambda resource: authority.authorize(
                (Ask(action, resource),), principal, asked.context, explanations.SERVICE, json=True
            ),
        )

    # -- audit ---------------------------------------------------------------------------------------------------------

    async def _record(self, request: Request, trail: _Trail) -> Exception | None:
        """Bring the call's audit line to the disk; returns what went wrong."""
        try:
            event = trail.event or self._event(request, trail)
        except (TypeError, ValueError, RecursionError) as error:  # without a line there is no answer either
            _logger.exception("request %s: no audit line can be made of it", trail.request_id)
            return error
        loop = asyncio.get_running_loop()
        written: asyncio.Future[Exception | None] = loop.create_future()
        self.audit.append(event, lambda failed: _tell(loop, written, failed))
        failed = await written
        if failed is None and trail.event is not None:
            self.writer.noted(trail.revision)
        return failed

    def _event(self, request: Request, trail: _Trail) -> Event:
        """The call's audit line, by what is known of it."""
        service = trail.service
        shape = service.model.operation_model(trail.action).output_shape if trail.action else None
        tls = {"clientProvidedHostHeader": request.headers.get("host", "")}
        if request.peer.tls_version:
            tls["tlsVersion"] = request.peer.tls_version
        call = ApiCall(
            service=service.name,
            action=trail.action or _claimed_action(request),
            request_id=trail.request_id,
            source_ip=request.peer.source_ip,
            user_agent=request.headers.get("user-agent", ""),
            access_key_id=trail.access_key_id,
            principal=trail.principal,
            parameters=trail.parameters,
            answer=trail.answer if trail.error is None else None,
            error=trail.error,
            output_shape=shape,
            api_version=service.version,
            tls=tls,
        )
        return api_event(self.writer.world, call, event_id=str(uuid.uuid4()), now=time.time())


def _tell(loop: asyncio.AbstractEventLoop, written: asyncio.Future[Exception | None], failed: Exception | None) -> None:
    """From the audit thread into the loop."""

    def tell() -> None:
        if not written.done():
            written.set_result(failed)

    loop.call_soon_threadsafe(tell)


def _caller(world: World, principal: Principal, key: AccessKey, source_ip: str, user_agent: str) -> Caller:
    return Caller(
        arn=principal.arn,
        account_id=world.account_id,
        user_name=principal.name if principal.type == "IAMUser" else "",
        principal=principal,
        access_key_id=key.id,
        source_ip=source_ip,
        user_agent=user_agent,
    )


def _new_id(prefix: str) -> str:
    return f"{prefix}-{secrets.token_hex(9)[:17]}"


def _hash(parameters: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in parameters.items() if name not in ("ClientToken", "DryRun")}
    return hashlib.sha256(msgspec.json.encode(rest, order="deterministic")).hexdigest()


def _claimed_action(request: Request) -> str:
    """What a request that was not understood calls itself, as far as that can be seen; for the record."""
    target = request.headers.get("x-amz-target", "").rpartition(".")[2]
    named = target or authority.query_parameters(request.query).get("Action", "")
    if not named and (found := _action_in_form(request.body)):
        named = found[1].decode()
    return named or "Unknown"


_action_in_form = re.compile(rb"(?:^|&)Action=([A-Za-z0-9]{1,128})(?:&|\Z)").search


def _reads_elsewhere(_call: Call) -> Outcome:
    raise AssertionError("answered from the audit trail")
