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
from wicketgate.explain.question import Asked, Way
from wicketgate.model import (
    CONNECTABLE_STATES,
    PROTOCOL_NUMBERS,
    Endpoint,
    NetworkInterface,
    PrefixListEntry,
    Principal,
    SecurityGroupRule,
    World,
)
from wicketgate.model.verdict import Reason
from wicketgate.paths.groups import covering
from wicketgate.paths.judge import first_packet
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
    if asked.endpoint is not None:
        yield _limits(world, asked, asked.endpoint, open_tunnels)
        yield from network_steps(world, asked.endpoint, asked.way)


def network_steps(world: World, endpoint: Endpoint, way: Way) -> Iterator[Line]:
    """The steps of the packets: from the target's address to what becomes of the connection later."""
    yield _target(world, way, endpoint)
    receiver, sender = way.interface, world.interface(endpoint.interface_id)
    if receiver is None or sender is None or world.vpc_of_subnet(receiver.subnet_id) is not way.vpc:
        return
    yield Line(step="route", outcome="pass", say=Say("route-local", {"address": way.address, "vpc": way.vpc.id}))
    refusal = client_refusal(world, endpoint, way.source_ip, way.address)
    source, own = source_of(world, way, endpoint, sender)
    flow = paths.Flow(sender, receiver, source, TCP, way.port, destination_address=way.address)
    yield _outbound(world, flow)
    yield _source(world, endpoint, refusal, source, own)
    yield _inbound(world, flow)
    yield _tracking(world, way, flow)


# -- who ---------------------------------------------------------------------------------------------------------------


def _credentials(asked: Asked) -> Line:
    who, now = name_of(asked.principal), asked.question.at
    if not asked.keys:
        if asked.principal.type == "AssumedRole":
            return Line(step="credentials", outcome="unknown", say=Say("session-none", {"principal": who}))
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
            where=where,
            misses=tuple(map(_iam_miss, decision.misses)),
        )


def _iam_miss(miss: iam.Miss) -> Say:
    kept = tuple(Say(f"shortfall-{one.key}", one.facts) for one in miss.shortfalls)
    return Say("iam-miss", {"statement": miss.statement}, {"kept": kept})


def _iam_key(decision: iam.Decision, principal: Principal) -> str:
    if decision.allowed:
        return "iam-root" if principal.type == "Root" else "iam-allowed"
    if decision.explicit:
        return "iam-denied" if decision.statement else "iam-unreadable"
    return "iam-session" if decision.kind == "session" else "iam-nothing"


def _defined_in(world: World, principal: Principal, policy: str) -> Say | None:
    """Whose a policy is; None when that cannot be told."""
    if not policy:
        return None
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
            return Say("defined-inline", {"owner": owner, "policy": policy})
        for arn in attached:
            if arn.rpartition("/")[2] == policy:
                return Say("defined-managed", {"owner": owner, "policy": arn})
    return None


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
    return Line(step="limits", outcome="fail", say=Say(key, facts), decided_by=setting, where=Say("defined-settings"))


# -- target and source -------------------------------------------------------------------------------------------------


def _target(world: World, way: Way, endpoint: Endpoint) -> Line:
    refusal = target_refusal(world, endpoint, way.address)
    if refusal is not None:
        return Line(step="target", outcome="fail", say=Say("target-refused", parts={"reason": (_refusal(refusal),)}))
    if way.interface is None:
        facts = {"vpc": way.vpc.id, "address": way.address}
        return Line(step="target", outcome="fail", say=Say("target-nobody", facts))
    if (home := world.vpc_of_subnet(way.interface.subnet_id)) is not way.vpc:
        facts = {"interface": way.interface.id, "vpc": home.id, "endpoint": endpoint.id, "here": way.vpc.id}
        return Line(step="target", outcome="fail", say=Say("target-elsewhere", facts), decided_by=home.id)
    if (other := world.endpoint_of_interface(way.interface.id)) is not None:
        facts = {"address": way.address, "endpoint": other.id}
        return Line(step="target", outcome="fail", say=Say("target-endpoint", facts), decided_by=other.id)
    if way.instance is not None and not way.instance.may_answer:
        facts = {"instance": way.instance.id, "state": way.instance.state}
        return Line(step="target", outcome="fail", say=Say("target-not-running", facts), decided_by=way.instance.id)
    network = world.subnet(way.interface.subnet_id)
    external = way.instance is not None and way.instance.is_external
    if external and network is not None and network.attached is not None and network.attached.problem:
        facts = {"subnet": network.id, "problem": network.attached.problem}
        return Line(step="target", outcome="fail", say=Say("target-cut-off", facts), decided_by=network.id)
    owner = way.instance.id if way.instance is not None else way.interface.subnet_id
    facts = {"address": way.address, "interface": way.interface.id, "owner": owner}
    silent = way.instance is not None and way.instance.state != "running"
    say = Say("target-silent" if silent else "target-there", facts)
    return Line(step="target", outcome="pass", say=say, decided_by=way.interface.id)


def _refusal(reason: Reason) -> Say:
    return Say(f"refusal-{reason.key}", reason.facts)


def source_of(world: World, way: Way | Asked, endpoint: Endpoint, sender: NetworkInterface) -> tuple[str, str]:
    """The address that the target sees or, where that is refused, would see without preservation; and the endpoint's
    own address of the target's family."""
    six = ":" in way.address
    own = next((one for one in sender.addresses if (":" in one) is six), sender.addresses[0])
    kept = endpoint.preserve_client_ip and client_refusal(world, endpoint, way.source_ip, way.address) is None
    return (way.source_ip if kept else own), own


def _source(world: World, endpoint: Endpoint, refusal: Reason | None, source: str, own: str) -> Line:
    if refusal is not None and world.settings.unpreservable_client == "refuse":
        say = Say("source-refused", parts={"reason": (_refusal(refusal),)})
        return Line(step="source-address", outcome="fail", say=say, decided_by=endpoint.id)
    say = Say("source-endpoint" if source == own else "source-client", {"source": source})
    return Line(step="source-address", outcome="pass", say=say, decided_by=endpoint.id)


# -- groups ------------------------------------------------------------------------------------------------------------


def _outbound(world: World, flow: paths.Flow) -> Line:
    said = Say("packet-to", {"content": f"tcp {flow.port}", "address": flow.destination})
    found = next(covering(world, flow.sender.group_ids, first_packet(flow).leaving, egress=True), None)
    if found is not None:
        return _allowed(world, "endpoint-outbound", flow.sender, found, said)
    near = misses.nearest(
        world,
        flow.sender.group_ids,
        egress=True,
        protocol=flow.protocol,
        port=flow.port,
        peer_address=flow.destination,
        peer_groups=flow.receiver.group_ids,
    )
    return _nothing("endpoint-outbound", "outbound-nothing", flow.sender, said, near)


def _inbound(world: World, flow: paths.Flow) -> Line:
    said = Say("packet-from", {"content": f"tcp {flow.port}", "address": flow.source_address})
    found = next(covering(world, flow.receiver.group_ids, first_packet(flow).arriving, egress=False), None)
    if found is not None:
        return _allowed(world, "target-inbound", flow.receiver, found, said)
    near = misses.nearest(
        world,
        flow.receiver.group_ids,
        egress=False,
        protocol=flow.protocol,
        port=flow.port,
        peer_address=flow.source_address,
        peer_groups=flow.sender.group_ids,
    )
    return _nothing("target-inbound", "inbound-nothing", flow.receiver, said, near)


def _allowed(
    world: World,
    step: str,
    eni: NetworkInterface,
    found: tuple[SecurityGroupRule, PrefixListEntry | None],
    packet: Say,
) -> Line:
    rule, entry = found
    group = next(one for one in filter(None, map(world.group, eni.group_ids)) if rule in one.rules)
    parts: dict[str, tuple[Say, ...]] = {"rule": (misses.rule_said(rule),), "packet": (packet,)}
    say = Say("rule-allows", parts=parts)
    if entry is not None:
        say = Say("rule-allows-entry", {"entry": entry.cidr}, parts)
    where = Say("defined-group", {"group": group.id, "name": group.name})
    return Line(step=step, outcome="pass", say=say, decided_by=rule.id, where=where)


def _nothing(step: str, key: str, eni: NetworkInterface, packet: Say, near: tuple[Say, ...]) -> Line:
    groups = ", ".join(eni.group_ids)
    return Line(
        step=step,
        outcome="fail",
        say=Say(key, {"groups": groups}, {"packet": (packet,)}),
        decided_by=groups,
        misses=near,
    )


def _tracking(world: World, way: Way, flow: paths.Flow) -> Line:
    if world.revocation(way.vpc.id) == "immediate":
        say = Say("revocation-immediate", {"vpc": way.vpc.id})
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
