"""The steps of a connection in the order in which it meets them, each with what decided it.

Every step that can be judged is, also behind one that fails: who mends the first failure should not find the next one
by trying. What decides is asked of the very functions that enforce: `admit`, `iam`, `targets`, `paths`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from wicketgate import iam, paths
from wicketgate.admit import OPEN_TUNNEL, caller_context, tunnel_context
from wicketgate.explain import misses
from wicketgate.explain.answer import Line, Say
from wicketgate.explain.question import Asked
from wicketgate.model import (
    CONNECTABLE_STATES,
    PROTOCOL_NUMBERS,
    Endpoint,
    NetworkInterface,
    Principal,
    SecurityGroupRule,
    World,
)
from wicketgate.tunnel.targets import client_refusal, target_refusal

TCP: Final = PROTOCOL_NUMBERS["tcp"]
SEND_KEY: Final = "ec2-instance-connect:SendSSHPublicKey"
LOOK_UPS: Final = ("ec2:DescribeInstances", "ec2:DescribeInstanceConnectEndpoints")
"""What the AWS CLI asks before `ssh` (EC2 User Guide, permissions-for-ec2-instance-connect-endpoint)."""


def steps(world: World, asked: Asked, open_tunnels: int | None = None) -> Iterator[Line]:
    """All steps. `open_tunnels`: how many the endpoint has open, if that was found out."""
    yield _credentials(asked)
    yield from _iam(world, asked)
    yield _endpoint(world, asked)
    endpoint = asked.endpoint
    if endpoint is None:
        return
    yield _limits(world, asked, endpoint, open_tunnels)
    yield _target(world, asked, endpoint)
    receiver, sender = asked.interface, world.interface(endpoint.interface_id)
    if receiver is None or sender is None:
        return
    yield Line(step="route", outcome="pass", say=Say("route-local", {"address": asked.address, "vpc": asked.vpc.id}))
    refusal = client_refusal(world, endpoint, asked.source_ip, asked.address)
    source, own = source_of(world, asked, endpoint, sender)
    flow = paths.Flow(sender, receiver, source, TCP, asked.question.port, destination_address=asked.address)
    yield _outbound(world, flow)
    yield _source(world, endpoint, refusal, source, own)
    yield _inbound(world, flow)
    yield _tracking(world, asked, flow)


# -- who ---------------------------------------------------------------------------------------------------------------


def _credentials(asked: Asked) -> Line:
    who, now = name_of(asked.principal), asked.question.at
    if not asked.keys:
        if asked.principal.type == "AssumedRole":
            return Line(step="credentials", outcome="unknown", say=Say("key-none", {"principal": who}))
        return Line(step="credentials", outcome="fail", say=Say("key-none", {"principal": who}))
    for key in asked.keys:
        if key.active and (key.expires is None or key.expires > now):
            say = Say("key-valid", {"principal": who, "key": key.id})
            return Line(step="credentials", outcome="pass", say=say, decided_by=key.id)
    key = asked.keys[-1]
    if key.active and key.expires is not None:
        moment = datetime.fromtimestamp(key.expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        say = Say("key-expired", {"key": key.id, "time": moment})
    else:
        say = Say("key-inactive", {"principal": who, "key": key.id})
    return Line(step="credentials", outcome="fail", say=say, decided_by=key.id)


def name_of(principal: Principal) -> str:
    """A principal in the form in which it may be asked for."""
    kind = {"Root": "root", "IAMUser": "user", "AssumedRole": "role"}[principal.type]
    return f"{kind}/{principal.name}" if principal.name else kind


# -- IAM ---------------------------------------------------------------------------------------------------------------


def duration_of(world: World, asked: Asked) -> int:
    """The duration that IAM sees: an omitted one is the longest."""
    given = asked.question.duration
    return world.settings.max_tunnel_duration if given is None else given


def requests(world: World, asked: Asked) -> Iterator[iam.Request]:
    """What IAM is asked, in the order in which a client asks for it."""
    principal, question = asked.principal, asked.question
    caller = caller_context(world, principal, asked.source_ip, "", question.at)
    if question.ssh:
        for action in LOOK_UPS:
            yield iam.Request(principal_arn=principal.arn, action=action, resource="*", context=caller)
    if question.ssh and asked.instance is not None:
        arn = f"arn:{world.partition}:ec2:{world.region}:{world.account_id}:instance/{asked.instance.id}"
        context = dict(caller)
        context["ec2:osuser"] = question.os_user
        iam.add_tags(context, "aws:resourcetag", asked.instance.tags)
        iam.add_tags(context, "ec2:resourcetag", asked.instance.tags)
        yield iam.Request(principal_arn=principal.arn, action=SEND_KEY, resource=arn, context=context)
    if asked.endpoint is not None:
        tunnel = tunnel_context(question.port, asked.address, duration_of(world, asked), asked.endpoint)
        yield iam.Request(
            principal_arn=principal.arn,
            action=OPEN_TUNNEL,
            resource=world.endpoint_arn(asked.endpoint.id),
            context=caller | tunnel,
        )


def _iam(world: World, asked: Asked) -> Iterator[Line]:
    for request in requests(world, asked):
        decision = iam.decide(request, asked.principal)
        facts = {"action": request.action, "resource": request.resource, "statement": decision.statement}
        where = _defined_in(world, asked.principal, decision.statement.partition("/")[0])
        yield Line(
            step="iam",
            outcome="pass" if decision.allowed else "fail",
            say=Say(_iam_key(decision, asked.principal), facts | {"reason": decision.reason}),
            decided_by=decision.statement,
            defined_in=where,
            misses=tuple(
                Say("iam-miss", {"statement": miss.statement, "kept": "; ".join(miss.shortfalls)})
                for miss in decision.misses
            ),
        )


def _iam_key(decision: iam.Decision, principal: Principal) -> str:
    if decision.allowed:
        return "iam-root" if principal.type == "Root" else "iam-allowed"
    if decision.explicit:
        return "iam-denied" if decision.statement else "iam-unreadable"
    return "iam-session" if decision.kind == "session" else "iam-nothing"


def _defined_in(world: World, principal: Principal, policy: str) -> str:
    """Whose a policy is: `policy deploy of user/alice`; empty when that cannot be told."""
    if not policy:
        return ""
    user, role = world.user(principal.name), world.role(principal.name.partition("/")[0])
    owners: list[tuple[str, Sequence[str], Sequence[str]]] = []
    if principal.type == "IAMUser" and user is not None:
        owners.append((f"user/{user.name}", [one.name for one in user.policies], user.attached))
        for group in filter(None, map(world.user_group, user.groups)):
            owners.append((f"group/{group.name}", [one.name for one in group.policies], group.attached))
    if principal.type == "AssumedRole" and role is not None:
        owners.append((f"role/{role.name}", [one.name for one in role.policies], role.attached))
    for owner, inline, attached in owners:
        if policy in inline:
            return f"{owner}, inline policy {policy}"
        for arn in attached:
            if arn.rpartition("/")[2] == policy:
                return f"{owner}, {arn}"
    return ""


# -- endpoint and limits -----------------------------------------------------------------------------------------------


def _endpoint(world: World, asked: Asked) -> Line:
    endpoint = asked.endpoint
    if endpoint is None:
        return Line(step="endpoint", outcome="fail", say=Say("endpoint-none", {"vpc": asked.vpc.id}))
    facts = {"endpoint": endpoint.id, "state": endpoint.state}
    if endpoint.state not in CONNECTABLE_STATES:
        return Line(step="endpoint", outcome="fail", say=Say("endpoint-not-ready", facts), decided_by=endpoint.id)
    say = Say("endpoint-state", facts)
    if not asked.named and asked.interface is not None:
        same = endpoint.subnet_id == asked.interface.subnet_id
        say = Say("endpoint-chosen", facts | {"where": endpoint.subnet_id if same else asked.vpc.id})
    return Line(step="endpoint", outcome="pass", say=say, decided_by=endpoint.id)


def _limits(world: World, asked: Asked, endpoint: Endpoint, open_tunnels: int | None) -> Line:
    settings, port = world.settings, asked.question.port
    duration, most = duration_of(world, asked), settings.max_tunnels_per_endpoint
    facts = {
        "port": str(port),
        "duration": str(duration),
        "limit": str(settings.max_tunnel_duration),
        "most": str(most),
        "endpoint": endpoint.id,
        "open": str(open_tunnels),
    }
    if settings.allowed_ports and port not in settings.allowed_ports:
        ports = ", ".join(map(str, settings.allowed_ports))
        return _limit("port-not-offered", facts | {"ports": ports}, "allowed_ports")
    if not 1 <= duration <= settings.max_tunnel_duration:
        return _limit("duration-over", facts, "max_tunnel_duration")
    if open_tunnels is not None and open_tunnels >= most:
        return _limit("tunnels-full", facts, "max_tunnels_per_endpoint")
    key = "limits-uncounted" if open_tunnels is None else "limits-kept"
    return Line(step="limits", outcome="pass", say=Say(key, facts))


def _limit(key: str, facts: dict[str, str], setting: str) -> Line:
    return Line(step="limits", outcome="fail", say=Say(key, facts), decided_by=setting, defined_in="wicketgate.toml")


# -- target and source -------------------------------------------------------------------------------------------------


def _target(world: World, asked: Asked, endpoint: Endpoint) -> Line:
    refusal = target_refusal(world, endpoint, asked.address)
    if refusal is not None:
        return Line(step="target", outcome="fail", say=Say("target-refused", {"reason": refusal}))
    if asked.interface is None:
        facts = {"vpc": asked.vpc.id, "address": asked.address}
        return Line(step="target", outcome="fail", say=Say("target-nobody", facts))
    if asked.instance is not None and asked.instance.state != "running":
        facts = {"instance": asked.instance.id, "state": asked.instance.state}
        return Line(step="target", outcome="fail", say=Say("target-not-running", facts), decided_by=asked.instance.id)
    owner = asked.instance.id if asked.instance is not None else asked.interface.subnet_id
    facts = {"address": asked.address, "interface": asked.interface.id, "owner": owner}
    return Line(step="target", outcome="pass", say=Say("target-there", facts), decided_by=asked.interface.id)


def source_of(world: World, asked: Asked, endpoint: Endpoint, sender: NetworkInterface) -> tuple[str, str]:
    """The address that the target sees or, where that is refused, would see without preservation; and the endpoint's
    own address of the target's family."""
    six = ":" in asked.address
    own = next((one for one in sender.addresses if (":" in one) is six), sender.addresses[0])
    kept = endpoint.preserve_client_ip and client_refusal(world, endpoint, asked.source_ip, asked.address) is None
    return (asked.source_ip if kept else own), own


def _source(world: World, endpoint: Endpoint, refusal: str | None, source: str, own: str) -> Line:
    if refusal and world.settings.unpreservable_client == "refuse":
        say = Say("source-refused", {"reason": refusal})
        return Line(step="source-address", outcome="fail", say=say, decided_by=endpoint.id)
    say = Say("source-endpoint" if source == own else "source-client", {"source": source})
    return Line(step="source-address", outcome="pass", say=say, decided_by=endpoint.id)


# -- groups ------------------------------------------------------------------------------------------------------------


def _outbound(world: World, flow: paths.Flow) -> Line:
    allowing, _ = paths.covering(world, flow)
    packet = f"tcp {flow.port} to {flow.destination}"
    if allowing:
        return _allowed(world, "endpoint-outbound", flow.sender, allowing[0], packet)
    near = misses.nearest(
        world,
        flow.sender.group_ids,
        egress=True,
        protocol=flow.protocol,
        port=flow.port,
        peer_address=flow.destination,
        peer_groups=flow.receiver.group_ids,
    )
    return _nothing("endpoint-outbound", "outbound-nothing", flow.sender, packet, near)


def _inbound(world: World, flow: paths.Flow) -> Line:
    _, allowing = paths.covering(world, flow)
    packet = f"tcp {flow.port} from {flow.source_address}"
    if allowing:
        return _allowed(world, "target-inbound", flow.receiver, allowing[0], packet)
    near = misses.nearest(
        world,
        flow.receiver.group_ids,
        egress=False,
        protocol=flow.protocol,
        port=flow.port,
        peer_address=flow.source_address,
        peer_groups=flow.sender.group_ids,
    )
    return _nothing("target-inbound", "inbound-nothing", flow.receiver, packet, near)


def _allowed(world: World, step: str, eni: NetworkInterface, rule: SecurityGroupRule, packet: str) -> Line:
    group = next(one for one in filter(None, map(world.group, eni.group_ids)) if rule in one.rules)
    say = Say("rule-allows", {"rule": str(rule), "packet": packet})
    return Line(step=step, outcome="pass", say=say, decided_by=rule.id, defined_in=f"{group.id} ({group.name})")


def _nothing(step: str, key: str, eni: NetworkInterface, packet: str, near: tuple[Say, ...]) -> Line:
    groups = ", ".join(eni.group_ids)
    return Line(
        step=step,
        outcome="fail",
        say=Say(key, {"groups": groups, "packet": packet}),
        decided_by=groups,
        misses=near,
    )


def _tracking(world: World, asked: Asked, flow: paths.Flow) -> Line:
    if world.revocation(asked.vpc.id) == "immediate":
        say = Say("revocation-immediate", {"vpc": asked.vpc.id})
        return Line(step="tracking", outcome="pass", say=say, decided_by="revocation")
    sides = paths.tracking(world, flow)
    loose = [
        (name, side) for name, side in zip((flow.sender.id, flow.receiver.id), sides, strict=True) if not side.tracked
    ]
    if not loose:
        return Line(step="tracking", outcome="pass", say=Say("tracked-both"))
    rules = ", ".join(dict.fromkeys(rule.id for _, side in loose for rule in side.rules))
    say = Say("untracked", {"sides": ", ".join(name for name, _ in loose), "rules": rules})
    return Line(step="tracking", outcome="pass", say=say, decided_by=rules)
