"""The smallest changes that would let a connection pass, and exactly what else each would open.

For each step that fails there are a few ways to mend it; a remedy is one way for every such step. What else it opens is
computed: the packets between all network interfaces of the VPC, and between those and its peers', that pass with the
change and did not before.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice, product
from typing import Final

import msgspec

from wicketgate.admit import OPEN_TUNNEL
from wicketgate.explain.answer import Line, Opening, Remedy, Say
from wicketgate.explain.opened import Gain, gains, shown, without
from wicketgate.explain.question import Asked
from wicketgate.explain.region import EVERY_IPV4, EVERY_IPV6, Box, Region, span_of
from wicketgate.explain.sent import sends
from wicketgate.explain.steps import SEND_KEY, duration_of, name_of, source_of
from wicketgate.model import (
    Change,
    Endpoint,
    NetworkInterface,
    Role,
    SecurityGroup,
    SecurityGroupRule,
    User,
    World,
    apply_change,
)
from wicketgate.model.change import Resource

MOST: Final = 5
"""How many remedies are given."""
TRIED: Final = 64
"""How many combinations are looked at."""
SHOWN: Final = 10
"""How many of the pairs that a remedy opens are listed."""
_NEW_INBOUND, _NEW_OUTBOUND = "sgr-00000000000000000", "sgr-00000000000000001"
"""Ids of the rules that are only thought of: a remedy has at most one in each direction, perhaps in the same group."""


@dataclass(frozen=True)
class _Way:
    """One way to mend one step."""

    commands: tuple[tuple[str, ...], ...] = ()
    puts: tuple[Resource, ...] = ()
    notes: tuple[Say, ...] = ()


def remedies(world: World, asked: Asked, lines: Sequence[Line]) -> tuple[Remedy, ...]:
    """What would let it pass, the one that opens least first; none when nothing fails or nothing can help."""
    failed = [line for line in lines if line.outcome == "fail"]
    choices = [list(_ways(world, asked, line)) for line in failed]
    if not failed or not all(choices):
        return ()
    found = [_remedy(world, asked, ways) for ways in islice(product(*choices), TRIED)]
    found.sort(key=lambda one: (one.also_opens, len(one.commands)))
    return tuple(found[:MOST])


def _remedy(world: World, asked: Asked, ways: Iterable[_Way]) -> Remedy:
    ways = list(ways)
    puts = _merged(put for way in ways for put in way.puts)
    opened: list[Gain] = []
    openings: list[Opening] = []
    if puts:
        after = apply_change(world, Change(puts=puts))
        wanted = _wanted(world, after, asked)
        opened = without(list(gains(world, after, asked.vpc.id)), wanted)
        openings = [_opening(one, shown(after, one, wanted)) for one in opened[:SHOWN]]
    return Remedy(
        commands=tuple(dict.fromkeys(command for way in ways for command in way.commands)),
        puts=puts,
        notes=tuple(note for way in ways for note in way.notes),
        opens=tuple(openings),
        also_opens=len(opened),
    )


def _opening(gain: Gain, what: tuple[Say, ...]) -> Opening:
    return Opening(sender=gain.sender.id, receiver=gain.receiver.id, what=what, addresses=gain.addresses)


def _merged(puts: Iterable[Resource]) -> tuple[Resource, ...]:
    """One of each: two that add rules to the same group become one that has both."""
    groups: dict[str, SecurityGroup] = {}
    others: list[Resource] = []
    for put in puts:
        if not isinstance(put, SecurityGroup):
            others.append(put)
        elif (there := groups.get(put.id)) is None:
            groups[put.id] = put
        else:
            new = [rule for rule in put.rules if rule not in there.rules]
            groups[put.id] = msgspec.structs.replace(there, rules=(*there.rules, *new))
    return (*groups.values(), *others)


def _wanted(world: World, after: World, asked: Asked) -> Gain:
    """The very connection that was asked about, as a gain of the World with the change."""
    endpoint, receiver = asked.endpoint, asked.interface
    assert endpoint is not None and receiver is not None, "there are ways only then"
    sender = world.interface(endpoint.interface_id)
    assert sender is not None, "World.check has seen to it"
    source, own = source_of(world, asked, endpoint, sender)
    sources = span_of(source)
    if source == own and sends(after, sender) == "own":  # as `widened` has it
        sources = EVERY_IPV6 if ":" in source else EVERY_IPV4
    port = asked.question.port
    return Gain(sender, receiver, Region((Box(sources, (6, 6), (port, port)),)), address=asked.address)


# -- ways --------------------------------------------------------------------------------------------------------------


def _ways(world: World, asked: Asked, line: Line) -> Iterator[_Way]:
    endpoint = asked.endpoint
    match line.say.key:
        case "key-inactive" if asked.principal.type == "IAMUser":
            which = ("--user-name", asked.principal.name, "--access-key-id", line.decided_by)
            yield _Way((("aws", "iam", "update-access-key", *which, "--status", "Active"),))
        case "key-none" if asked.principal.type == "IAMUser":
            yield _Way((("aws", "iam", "create-access-key", "--user-name", asked.principal.name),))
        case "iam-nothing":
            yield from _policy(world, asked, line)
        case "iam-denied":
            yield _Way(notes=(Say("note-edit-policy", {"statement": line.decided_by}),))
        case "iam-session":
            yield _Way(notes=(Say("note-session-policy"),))
        case "endpoint-none" if asked.interface is not None:
            create = ("create-instance-connect-endpoint", "--subnet-id", asked.interface.subnet_id)
            yield _Way((("aws", "ec2", *create),), notes=(Say("note-ask-again"),))
        case "endpoint-not-ready":
            yield _Way(notes=(Say("note-wait", line.say.facts),))
        case "port-not-offered":
            ports = sorted({*world.settings.allowed_ports, asked.question.port})
            yield _Way(notes=(Say("note-setting", {"setting": f"allowed_ports = {ports}"}),))
        case "duration-over":
            setting = f"max_tunnel_duration = {duration_of(world, asked)}"
            yield _Way(notes=(Say("note-setting", {"setting": setting}),))
        case "tunnels-full":
            yield _Way(notes=(Say("note-close-tunnels", line.say.facts),))
        case "target-not-running" if asked.instance is not None and asked.instance.state == "stopped":
            yield _Way((("aws", "ec2", "start-instances", "--instance-ids", asked.instance.id),))
        case "source-refused" if endpoint is not None:
            yield _without_preservation(endpoint)
        case "outbound-nothing" if endpoint is not None and asked.interface is not None:
            yield from _outbound(world, asked, endpoint, asked.interface)
        case "inbound-nothing" if endpoint is not None and asked.interface is not None:
            yield from _inbound(world, asked, endpoint, asked.interface)


def _policy(world: World, asked: Asked, line: Line) -> Iterator[_Way]:
    """An inline policy that allows exactly this."""
    action, resource = line.say.facts["action"], line.say.facts["resource"]
    statement: dict[str, object] = {"Effect": "Allow", "Action": action, "Resource": resource}
    facts = {"principal": name_of(asked.principal), "action": action, "user": asked.question.os_user}
    note = Say("note-policy-look", facts)
    if action == OPEN_TUNNEL:
        note = Say("note-policy-tunnel", facts)
        statement["Condition"] = {
            "NumericEquals": {"ec2-instance-connect:remotePort": str(asked.question.port)},
            "IpAddress": {"ec2-instance-connect:privateIpAddress": _host_range(asked.address)},
            "NumericLessThanEquals": {"ec2-instance-connect:maxTunnelDuration": str(duration_of(world, asked))},
        }
    elif action == SEND_KEY:
        note = Say("note-policy-key", facts)
        statement["Condition"] = {"StringEquals": {"ec2:osuser": asked.question.os_user}}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]}, separators=(",", ":"))
    owner: User | Role | None
    if asked.principal.type == "IAMUser":
        owner = world.user(asked.principal.name)
        who: tuple[str, ...] = ("put-user-policy", "--user-name", asked.principal.name)
    else:
        owner = world.role(asked.principal.name.partition("/")[0])
        who = ("put-role-policy", "--role-name", asked.principal.name.partition("/")[0])
    if owner is None:
        return
    name = _free_name(f"allow-{action.partition(':')[2].lower()}", [policy.name for policy in owner.policies])
    yield _Way((("aws", "iam", *who, "--policy-name", name, "--policy-document", document),), notes=(note,))


def _free_name(name: str, taken: Sequence[str]) -> str:
    """A name under which nothing is overwritten."""
    return next(one for one in chain((name,), (f"{name}-{number}" for number in count(2))) if one not in taken)


def _without_preservation(endpoint: Endpoint) -> _Way:
    words_ = ("modify-instance-connect-endpoint", "--instance-connect-endpoint-id", endpoint.id)
    return _Way(
        (("aws", "ec2", *words_, "--no-preserve-client-ip"),),
        (msgspec.structs.replace(endpoint, preserve_client_ip=False),),
        (Say("note-preservation", {"endpoint": endpoint.id}),),
    )


def _outbound(world: World, asked: Asked, endpoint: Endpoint, receiver: NetworkInterface) -> Iterator[_Way]:
    sender = world.interface(endpoint.interface_id)
    assert sender is not None, "World.check has seen to it"
    for group in filter(None, map(world.group, sender.group_ids)):
        yield _rule(asked, group, egress=True, address=asked.address)
        for other in receiver.group_ids:
            yield _rule(asked, group, egress=True, reference=other)


def _inbound(world: World, asked: Asked, endpoint: Endpoint, receiver: NetworkInterface) -> Iterator[_Way]:
    sender = world.interface(endpoint.interface_id)
    assert sender is not None, "World.check has seen to it"
    source, _ = source_of(world, asked, endpoint, sender)
    for group in filter(None, map(world.group, receiver.group_ids)):
        yield _rule(asked, group, egress=False, address=source)
        for other in sender.group_ids:
            yield _rule(asked, group, egress=False, reference=other)


def _rule(asked: Asked, group: SecurityGroup, *, egress: bool, address: str = "", reference: str = "") -> _Way:
    """A rule of a group for this port and one address or one group."""
    port = asked.question.port
    six = ":" in address
    rule = SecurityGroupRule(
        id=_NEW_OUTBOUND if egress else _NEW_INBOUND,
        is_egress=egress,
        ip_protocol="tcp",
        from_port=port,
        to_port=port,
        cidr_ipv4=_host_range(address) if address and not six else None,
        cidr_ipv6=_host_range(address) if six else None,
        referenced_group_id=reference or None,
    )
    if reference:
        peer = f"UserIdGroupPairs=[{{GroupId={reference}}}]"
    elif six:
        peer = f"Ipv6Ranges=[{{CidrIpv6={_host_range(address)}}}]"
    else:
        peer = f"IpRanges=[{{CidrIp={_host_range(address)}}}]"
    verb = f"authorize-security-group-{'egress' if egress else 'ingress'}"
    permission = f"IpProtocol=tcp,FromPort={port},ToPort={port},{peer}"
    command = ("aws", "ec2", verb, "--group-id", group.id, "--ip-permissions", permission)
    return _Way((command,), (msgspec.structs.replace(group, rules=(*group.rules, rule)),))


def _host_range(address: str) -> str:
    return f"{address}/128" if ":" in address else f"{address}/32"
