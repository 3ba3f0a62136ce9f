"""Everything about a tunnel that is decided before dialling. The gateway asks it, and so does every explanation.

Order, and why: credentials first, so that nothing is told to strangers; then the parameters, which cost nothing; then
IAM, before the endpoint's existence is told; then endpoint, port and target. Whether packets pass is not asked here:
the gateway always dials, the kernel judges.

`review` asks again of a tunnel that stands, where revocation is immediate; there the groups are read as well, because
no dial would tell.
"""

from __future__ import annotations

import re
from typing import Final, NoReturn

import msgspec

from wicketgate import iam
from wicketgate.iam import caller_context
from wicketgate.model import (
    CONNECTABLE_STATES,
    AccessDenied,
    AccessKey,
    AuthFailure,
    CallerError,
    Endpoint,
    EndpointNotFound,
    EndpointNotReady,
    InvalidParameter,
    Principal,
    Settings,
    Step,
    Verdict,
    World,
)
from wicketgate.paths.standing import standing_tunnel
from wicketgate.sigv4.canonical import TUNNEL_PARAMETERS, TUNNEL_PATH, TUNNEL_SERVICE
from wicketgate.sigv4.verify import Expected, Proof, SignedRequest, parse_query, quoted, verify_presigned
from wicketgate.tunnel.names import public_names
from wicketgate.tunnel.targets import parse_address, target_refusal

__all__ = [
    "Admission",
    "Grant",
    "Opened",
    "Review",
    "TunnelCall",
    "admit",
    "caller_context",
    "review",
    "tunnel_context",
]

OPEN_TUNNEL: Final = "ec2-instance-connect:OpenTunnel"
DESCRIBE_RULES: Final = "ec2:DescribeSecurityGroupRules"

_SIGNATURE_PARAMETERS: Final = frozenset(
    f"X-Amz-{name}"
    for name in ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Security-Token", "Signature")
)

_is_endpoint_id = re.compile(r"eice-[0-9a-zA-Z_]{1,64}").fullmatch  # the AWS CLI's own check
_is_positive = re.compile(r"[1-9][0-9]{0,8}").fullmatch


class TunnelCall(msgspec.Struct, frozen=True, kw_only=True):
    """One GET of /openTunnel."""

    query: str
    """The raw query string."""
    host: str
    """The Host header as sent."""
    source_ip: str
    user_agent: str = ""
    headers: dict[str, str] = {}
    """Other headers by name; needed only for signatures that cover more than `host`."""


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway may do for an admitted call."""

    endpoint_id: str
    address: str
    """The target in canonical text."""
    port: int
    duration: int
    """Seconds."""
    may_see_rules: bool
    """Whether IAM lets this caller read security group rules, so that close reasons may name them."""
    signature: str
    signature_expires: float
    """Seconds since the epoch."""


class Admission(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided. Either `grant` or `error` is set."""

    verdict: Verdict
    grant: Grant | None = None
    error: CallerError | None = None
    principal: Principal | None = None
    """Who signed, once that is proven."""
    access_key_id: str = ""
    """The access key the call claims, proven or not; at most 128 characters."""
    parameters: dict[str, str] = {}
    """The tunnel's parameters as sent (decoded), as far as they could be read: CloudTrail's requestParameters."""


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """A tunnel that stands, or is being opened: what it was admitted by."""

    access_key_id: str
    source_ip: str
    user_agent: str
    grant: Grant
    source_address: str = ""
    """The address that the target sees; empty while nothing is dialled."""


class Review(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an admission."""

    verdict: Verdict
    told: str = ""
    """Why it would not be given any more, in one line that its holder may know."""


class _Wish(msgspec.Struct, frozen=True):
    """The parameters, well-formed."""

    endpoint_id: str
    address: str
    port: int
    duration: int


class _Trail:
    """What is known so far; becomes the Admission."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.stage = "parameters"
        self.principal: Principal | None = None
        self.access_key_id = ""
        self.parameters: dict[str, str] = {}

    def passed(self, reason: str, decided_by: str = "") -> None:
        self.steps.append(Step(self.stage, True, reason, decided_by))

    def refuse(self, error: CallerError, reason: str = "", decided_by: str = "") -> NoReturn:
        """Stop here. `reason` is for the record where it may say more than the caller is told."""
        self.steps.append(Step(self.stage, False, reason or str(error), decided_by))
        raise error

    def admission(self, grant: Grant | None = None, error: CallerError | None = None) -> Admission:
        return Admission(
            verdict=Verdict(tuple(self.steps)),
            grant=grant,
            error=error,
            principal=self.principal,
            access_key_id=self.access_key_id,
            parameters=self.parameters,
        )


def admit(world: World, call: TunnelCall, now: float) -> Admission:
    """Decide a call at `now`, seconds since the epoch. Bad input never raises: it is `Admission.error`."""
    trail = _Trail()
    try:
        return trail.admission(grant=_decide(world, call, now, trail))
    except CallerError as error:
        if not trail.steps or trail.steps[-1].passed:
            trail.steps.append(Step(trail.stage, False, str(error)))
        return trail.admission(error=error)


def _decide(world: World, call: TunnelCall, now: float, trail: _Trail) -> Grant:
    query = parse_query(call.query)
    trail.parameters = {name: query[name] for name in TUNNEL_PARAMETERS if name in query}
    trail.access_key_id = query.get("X-Amz-Credential", "").partition("/")[0][:128]

    trail.stage = "credentials"
    proof, principal = _authenticate(world, call, query, now)
    trail.principal = principal
    trail.passed(f"signed with access key {proof.key.id} of {_named(principal)}", proof.key.id)

    trail.stage = "parameters"
    wish = _read_parameters(query, world.settings)
    trail.passed(f"{wish.endpoint_id} to {wish.address} port {wish.port} for at most {wish.duration} s")

    trail.stage = "iam"
    endpoint = world.endpoint(wish.endpoint_id)
    caller = caller_context(world, principal, call.source_ip, call.user_agent, now)
    asked = iam.Request(
        principal_arn=principal.arn,
        action=OPEN_TUNNEL,
        resource=world.endpoint_arn(wish.endpoint_id),
        context=caller | tunnel_context(wish.port, wish.address, wish.duration, endpoint),
    )
    _authorize(asked, principal, trail)

    trail.stage = "endpoint"
    endpoint = _connectable(wish.endpoint_id, endpoint)
    trail.passed(f"{endpoint.id} is in state {endpoint.state}", endpoint.id)
    _check_host(call.host, endpoint, trail)

    trail.stage = "port"
    _check_port(wish.port, world.settings, trail)

    trail.stage = "target"
    if refusal := target_refusal(world, endpoint, wish.address):
        trail.refuse(InvalidParameter(f"The specified PrivateIpAddress is not valid: {refusal}."))
    trail.passed(f"{endpoint.id} may dial {wish.address}")
    return Grant(
        endpoint_id=endpoint.id,
        address=wish.address,
        port=wish.port,
        duration=wish.duration,
        may_see_rules=_may_see_rules(principal, caller),
        signature=proof.signature,
        signature_expires=proof.expires,
    )


# -- credentials -------------------------------------------------------------------------------------------------------


def _authenticate(world: World, call: TunnelCall, query: dict[str, str], now: float) -> tuple[Proof, Principal]:
    settings = world.settings
    headers = {name.lower(): value for name, value in call.headers.items()} if call.headers else {}
    headers["host"] = call.host
    request = SignedRequest(method="GET", path=TUNNEL_PATH, query=query, headers=headers)
    expected = Expected(
        region=world.region,
        service=TUNNEL_SERVICE,
        window=settings.presign_window,
        clock_skew=settings.clock_skew,
    )
    proof = verify_presigned(request, expected, world.access_key, now)
    return proof, _owner(world, proof.key)


def _owner(world: World, key: AccessKey) -> Principal:
    principal = world.principal(key)
    if principal is None:
        kind = "role" if key.role_name else "user"
        raise AuthFailure("InvalidClientTokenId", f"The access key {key.id} belongs to no {kind} that exists.")
    return principal


def _named(principal: Principal) -> str:
    """A principal in words: `user alice`, `session ops/alice`, `root`."""
    kind = {"Root": "root", "IAMUser": "user", "AssumedRole": "session"}[principal.type]
    return f"{kind} {principal.name}" if principal.name else kind


# -- parameters --------------------------------------------------------------------------------------------------------


def _read_parameters(query: dict[str, str], settings: Settings) -> _Wish:
    """Raises InvalidParameter for the first parameter that is missing, unknown or malformed."""
    for name in query:
        if name not in _SIGNATURE_PARAMETERS and name not in TUNNEL_PARAMETERS:
            raise InvalidParameter(
                f"The query parameter {quoted(name)} is unknown; openTunnel takes {', '.join(TUNNEL_PARAMETERS)}."
            )
    for name in ("instanceConnectEndpointId", "remotePort", "privateIpAddress"):
        if not query.get(name):
            raise InvalidParameter(f"The query parameter {name} is missing.")
    return _Wish(
        endpoint_id=_endpoint_id(query["instanceConnectEndpointId"]),
        address=_address(query["privateIpAddress"]),
        port=_port(query["remotePort"]),
        duration=_duration(query.get("maxTunnelDuration"), settings.max_tunnel_duration),
    )


def _endpoint_id(text: str) -> str:
    if not _is_endpoint_id(text):
        raise InvalidParameter(
            f"The instanceConnectEndpointId {quoted(text)} is malformed; one looks like eice-0123456789abcdef0."
        )
    return text


def _port(text: str) -> int:
    if not _is_positive(text) or int(text) > 65535:
        raise InvalidParameter(f"The remotePort {quoted(text)} must be a decimal number from 1 to 65535.")
    return int(text)


def _duration(text: str | None, longest: int) -> int:
    if text is None:
        return longest
    if not _is_positive(text) or int(text) > longest:
        raise InvalidParameter(
            f"The maxTunnelDuration {quoted(text)} must be a whole number of seconds from 1 to {longest}."
        )
    return int(text)


def _address(text: str) -> str:
    """Names are refused: a name could mean one address to IAM and another to the dial."""
    address = parse_address(text)
    if address is None:
        raise InvalidParameter(
            f"The privateIpAddress {quoted(text)} must be an IP address such as 10.0.1.11; host names are not resolved."
        )
    return str(address)


# -- IAM ---------------------------------------------------------------------------------------------------------------


def _authorize(asked: iam.Request, principal: Principal, trail: _Trail) -> None:
    decision = iam.decide(asked, principal)
    if not decision.allowed:
        trail.refuse(AccessDenied(decision.message), decision.reason, decision.statement)
    trail.passed(decision.reason, decision.statement)


def _may_see_rules(principal: Principal, caller: iam.Context) -> bool:
    describe = iam.Request(principal_arn=principal.arn, action=DESCRIBE_RULES, resource="*", context=caller)
    return iam.allows(describe, principal)


def tunnel_context(port: int, address: str, duration: int, endpoint: Endpoint | None) -> dict[str, str]:
    """The condition keys of OpenTunnel (EC2 User Guide, permissions-for-ec2-instance-connect-endpoint).

    An omitted duration is here as the one that would be granted: a policy that caps it denies callers who leave it out.
    """
    context = {
        "ec2-instance-connect:remoteport": str(port),
        "ec2-instance-connect:privateipaddress": address,
        "ec2-instance-connect:maxtunnelduration": str(duration),
    }
    if endpoint is not None and endpoint.tags:
        iam.add_tags(context, "aws:resourcetag", endpoint.tags)
        iam.add_tags(context, "ec2:resourcetag", endpoint.tags)
    return context


# -- endpoint and port -------------------------------------------------------------------------------------------------


def _connectable(endpoint_id: str, endpoint: Endpoint | None) -> Endpoint:
    if endpoint is None:
        raise EndpointNotFound(f"The instance connect endpoint ID '{endpoint_id}' does not exist")
    if endpoint.state not in CONNECTABLE_STATES:
        raise EndpointNotReady(
            f"The instance connect endpoint '{endpoint_id}' is in state {endpoint.state}; "
            f"tunnels open in {', '.join(sorted(CONNECTABLE_STATES))}."
        )
    return endpoint


def _check_host(host: str, endpoint: Endpoint, trail: _Trail) -> None:
    """The URL was made for one of this endpoint's names: else a signature for one host would open tunnels at another.

    Letter case, a port and the root's dot are no part of a name.
    """
    name = host.lower().partition(":")[0].removesuffix(".")
    if name not in public_names(endpoint.dns_name.lower()):
        trail.refuse(InvalidParameter(f"The Host {quoted(host)} is not the name of {endpoint.id}: {endpoint.dns_name}"))


def _check_port(port: int, settings: Settings, trail: _Trail) -> None:
    offered = settings.allowed_ports
    if offered and port not in offered:
        # with AWS's two ports this is AWS's sentence, letter by letter
        choice = f"either {' or '.join(map(str, offered))}" if len(offered) == 2 else _listed(offered)
        trail.refuse(
            InvalidParameter(
                f"The specified RemotePort is not valid. Specify {choice} as the RemotePort and retry your request."
            ),
            f"port {port} is not offered: allowed_ports is {', '.join(map(str, offered))}",
            "allowed_ports",
        )
    trail.passed(f"port {port} is offered", "allowed_ports")


def _listed(ports: tuple[int, ...]) -> str:
    return f"one of {', '.join(map(str, ports))}" if len(ports) > 1 else str(ports[0])


# -- tunnels that stand ------------------------------------------------------------------------------------------------


def review(world: World, opened: Opened, now: float) -> Review:
    """Would a tunnel be admitted at `now`, seconds since the epoch? Steps stop at the first that fails.

    The signature is not looked at again: it was good for one opening. Routes and groups are asked about the packets
    that are sent, once there are any.
    """
    key_id, grant = opened.access_key_id, opened.grant
    principal, trouble = _still_valid(world, key_id, now)
    if principal is None:
        return Review(verdict=Verdict((Step("credentials", False, trouble, key_id),)), told=trouble)
    steps = [Step("credentials", True, f"access key {key_id} of {_named(principal)}", key_id)]
    endpoint = world.endpoint(grant.endpoint_id)
    caller = caller_context(world, principal, opened.source_ip, opened.user_agent, now)
    asked = iam.Request(
        principal_arn=principal.arn,
        action=OPEN_TUNNEL,
        resource=world.endpoint_arn(grant.endpoint_id),
        context=caller | tunnel_context(grant.port, grant.address, grant.duration, endpoint),
    )
    decision = iam.decide(asked, principal)
    steps.append(Step("iam", decision.allowed, decision.reason, decision.statement))
    if not decision.allowed:
        told = f"a policy denies {OPEN_TUNNEL}" if decision.explicit else f"no policy allows {OPEN_TUNNEL} any more"
        return Review(verdict=Verdict(tuple(steps)), told=told)
    verdict = Verdict(tuple(steps))
    if opened.source_address:
        verdict += standing_tunnel(
            world,
            endpoint_id=grant.endpoint_id,
            address=grant.address,
            port=grant.port,
            source_address=opened.source_address,
        )
    if verdict.failure is None:
        return Review(verdict=verdict)
    knows = _may_see_rules(principal, caller)
    return Review(verdict=verdict, told=verdict.failure.reason if knows else "it may not pass the network any more")


def _still_valid(world: World, key_id: str, now: float) -> tuple[Principal | None, str]:
    """The owner of an access key that may be used at `now`; or None and why not."""
    key = world.access_key(key_id)
    if key is None:
        return None, f"access key {key_id} is deleted, or its session has ended"
    if not key.active:
        return None, f"access key {key_id} is inactive"
    if key.expires is not None and now >= key.expires:
        return None, f"the session of access key {key_id} has expired"
    principal = world.principal(key)
    return principal, "" if principal is not None else f"the owner of access key {key_id} is deleted"
