"""Findings about single rules and groups: too broad, without effect, not what they seem."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final

import msgspec

from wicketgate.explain.allowed import content_of, peers_of
from wicketgate.explain.answer import Say
from wicketgate.explain.lint import algebra
from wicketgate.explain.lint.algebra import Held, held
from wicketgate.explain.lint.finding import NEW_RULE, Facts, Finding, Fix, authorize, revoked
from wicketgate.explain.misses import rule_said
from wicketgate.explain.region import EVERY_IPV4, EVERY_IPV6, Box, Region, span_of
from wicketgate.model import CONNECTABLE_STATES, Change, SecurityGroup, SecurityGroupRule, World
from wicketgate.paths import groups as readings
from wicketgate.paths.groups import is_any_address

HIGH_RISK: Final[dict[int, str]] = {
    20: "FTP", 21: "FTP", 22: "SSH", 23: "Telnet", 25: "SMTP", 110: "POP3", 135: "RPC", 143: "IMAP", 445: "CIFS",
    1433: "SQL Server", 1434: "SQL Server", 3000: "Node.js", 3306: "MySQL", 3389: "RDP", 4333: "ahsp", 5000: "Flask",
    5432: "PostgreSQL", 5500: "fcp-addr-srvr1", 5601: "OpenSearch Dashboards", 8080: "proxy", 8088: "HTTP",
    8888: "HTTP", 9200: "OpenSearch", 9300: "OpenSearch",
}  # fmt: skip
"""TCP ports that are not for everybody (Security Hub User Guide, control EC2.19)."""
_NAMED: Final = 4
"""How many ports a sentence names."""
_TCP: Final = (6, 6)


def said(key: str, one: Held, facts: dict[str, str] | None = None, others: Sequence[Held] = ()) -> Say:
    """A sentence about a rule of a group."""
    parts: dict[str, tuple[Say, ...]] = {"rule": (rule_said(one.rule),)}
    if others:
        parts["others"] = tuple(rule_said(other.rule) for other in others)
    return Say(key, {"group": one.group.id, "name": one.group.name, **(facts or {})}, parts)


def about(kind: str, one: Held, fix: Fix | None, facts: dict[str, str] | None = None) -> Finding:
    """A finding about a rule, in the sentence of its kind."""
    return Finding(kind=kind, resource=one.rule.id, within=one.group.id, say=said(kind, one, facts), fix=fix)


def for_endpoints_alone(world: World, group: SecurityGroup) -> bool:
    """Whether endpoints carry the group and nothing else does."""
    members = world.members(group.id)
    return bool(members) and all(world.endpoint_of_interface(eni.id) is not None for eni in members)


# -- too broad ---------------------------------------------------------------------------------------------------------


def broad(world: World, dead: Collection[str]) -> Iterator[Finding]:
    """WG001, WG002: rules that let in every address of a family."""
    for one in held(world.groups):
        if one.rule.is_egress or one.rule.id in dead or not _from_everywhere(world, one):
            continue
        content = content_of(one.rule)
        ports = [port for port in HIGH_RISK if content.covers(Box(EVERY_IPV4, _TCP, (port, port)))]
        if one.rule.ip_protocol == "-1":
            yield about("WG002", one, _narrowed(revoked(one.group, one.rule)))
        elif ports:
            yield about("WG001", one, _tightened(world, one), {"ports": _ports(ports)})


def _from_everywhere(world: World, one: Held) -> bool:
    spans = peers_of(world, one.group, one.rule, ())
    return any(span in (EVERY_IPV4, EVERY_IPV6) for span in spans)


def _ports(ports: Sequence[int]) -> str:
    named = ", ".join(f"{port} ({HIGH_RISK[port]})" for port in ports[:_NAMED])
    return named if len(ports) <= _NAMED else f"{named}, +{len(ports) - _NAMED}"


def _narrowed(fix: Fix) -> Fix:
    return msgspec.structs.replace(fix, effect="narrows")


def _tightened(world: World, one: Held) -> Fix:
    """Where tunnels may lead to the port, let in an endpoint's group alone instead of everybody."""
    port, group = one.rule.from_port, one.group
    offered = world.settings.allowed_ports
    endpoint = _endpoint_group(world, group.vpc_id)
    if one.rule.from_port != one.rule.to_port or (offered and port not in offered) or not endpoint:
        return _narrowed(revoked(group, one.rule))
    new = SecurityGroupRule(
        id=NEW_RULE, is_egress=False, ip_protocol="tcp", from_port=port, to_port=port, referenced_group_id=endpoint
    )
    there = any(
        rule.referenced_group_id == endpoint and content_of(rule).covers(content_of(new)) for rule in group.inbound
    )
    return _narrowed(revoked(group, one.rule) if there else replaced(group, one.rule, new))


def _endpoint_group(world: World, vpc_id: str) -> str:
    for endpoint in world.endpoints:
        eni = world.interface(endpoint.interface_id)
        here = world.vpc_of_subnet(endpoint.subnet_id).id == vpc_id
        if eni is not None and here and endpoint.state in CONNECTABLE_STATES:
            return eni.group_ids[0]
    return ""


def replaced(group: SecurityGroup, rule: SecurityGroupRule, *new: SecurityGroupRule) -> Fix:
    """Put rules in the place of one: the new ones first, so that nothing is cut between."""
    fix = revoked(group, rule)
    rest = tuple(one for one in group.rules if one is not rule)
    commands = (*(authorize(group, one) for one in new), *fix.commands)
    return Fix(commands=commands, change=Change(puts=(msgspec.structs.replace(group, rules=(*rest, *new)),)))


def in_pieces(world: World, dead: Collection[str]) -> Iterator[Finding]:
    """WG003: groups whose rules together let every address of a family reach a high-risk port, though none does."""
    for group in world.groups:
        whole = {one.rule.id for one in held((group,)) if _from_everywhere(world, one)}
        inbound = [one for one in held((group,)) if not one.rule.is_egress and one.rule.id not in {*whole, *dead}]
        for version, family in ((4, EVERY_IPV4), (6, EVERY_IPV6)):
            boxes = [box for one in inbound for box in algebra.boxes(world, one, ())]
            ports = [
                port
                for port in HIGH_RISK
                if len(boxes) > 1 and Region((Box(family, _TCP, (port, port)),)) <= Region(_near(boxes, port))
            ]
            if ports:
                facts = {"group": group.id, "name": group.name, "version": str(version), "ports": _ports(ports)}
                yield Finding(kind="WG003", resource=group.id, say=Say("WG003", facts))


def _near(boxes: Sequence[Box], port: int) -> list[Box]:
    return [box for box in boxes if box.ports[0] <= port <= box.ports[1]]


# -- without effect ----------------------------------------------------------------------------------------------------


def powerless(world: World) -> Iterator[Finding]:
    """WG004, WG005, WG006: rules that allow nothing."""
    for one in held(world.groups):
        reference = one.rule.referenced_group_id
        if reference is not None and world.referenced_group(one.group, one.rule) is None:
            yield about("WG004", one, revoked(one.group, one.rule))
        elif not algebra.boxes(world, one, (reference or "",)):
            yield about("WG006", one, revoked(one.group, one.rule))
        elif reference is not None and not world.members(reference):
            yield about("WG005", one, None)


def covered(world: World, dead: Collection[str]) -> Iterator[Finding]:
    """WG007, WG008: rules that others make superfluous. All of them may go together, beside those that are dead.

    `dead`: what allows nothing, and what is too broad: the narrow rules are those that should stay beside it.
    """
    gone = set(dead)
    for one, others in algebra.redundant(world, world.groups, dead):
        gone.add(one.rule.id)
        say = said("WG007", one, others=others)
        yield _covered("WG007", one, say)
    for one, others in algebra.shadowed(world, gone):
        yield _covered("WG008", one, said("WG008", one, others=others))


def _covered(kind: str, one: Held, say: Say) -> Finding:
    fix = revoked(one.group, one.rule)
    return Finding(kind=kind, resource=one.rule.id, within=one.group.id, say=say, fix=fix)


def unused(world: World, facts: Facts, dead: Collection[str]) -> Iterator[Finding]:
    """WG009: rules that let nothing through since counting began. Nobody can say of them what they are for."""
    if facts.connections is None:
        return
    for one in held(world.groups):
        if one.rule.id not in dead and world.members(one.group.id) and not facts.connections.get(one.rule.id):
            fix = _narrowed(revoked(one.group, one.rule))
            yield about("WG009", one, fix, {"since": facts.since})


# -- not what they seem ------------------------------------------------------------------------------------------------


def untracked(world: World, dead: Collection[str], unwanted: Collection[str]) -> Iterator[Finding]:
    """WG010: rules for some ports whose flows no interface tracks, so that removing them cuts at once.

    `unwanted`: rules that are to be narrowed anyway.
    """
    for one in held(world.groups):
        content = content_of(one.rule)
        whole = one.rule.ip_protocol == "-1" or content.ports == (0, 65535)
        if one.rule.id in dead or whole or not is_any_address(one.rule) or content.protocols not in (_TCP, (17, 17)):
            continue
        if world.revocation(one.group.vpc_id) == "aws" and _not_tracked(world, one, content.protocols[0]):
            fix = replaced(one.group, one.rule, *_halves(one.rule))
            yield about("WG010", one, None if one.rule.id in unwanted else fix)


def _not_tracked(world: World, one: Held, protocol: int) -> bool:
    version = 6 if one.rule.cidr_ipv6 is not None else 4
    return any(
        world.endpoint_of_interface(eni.id) is None
        and readings.all_ports(world, eni.group_ids, egress=not one.rule.is_egress, protocol=protocol, version=version)
        is not None
        for eni in world.members(one.group.id)
    )


def _halves(rule: SecurityGroupRule) -> tuple[SecurityGroupRule, ...]:
    """The same addresses without naming any address as such, which is what makes flows untracked."""
    names = ("::/1", "8000::/1") if rule.cidr_ipv6 is not None else ("0.0.0.0/1", "128.0.0.0/1")
    field = "cidr_ipv6" if rule.cidr_ipv6 is not None else "cidr_ipv4"
    return tuple(
        msgspec.structs.replace(rule, id=f"{NEW_RULE}{part}", **{field: name}) for part, name in enumerate(names)
    )


def idle(world: World) -> Iterator[Finding]:
    """WG011: groups that nothing carries and no rule names."""
    named = {one.rule.referenced_group_id for one in held(world.groups)}
    wanted = {group_id for one in world.endpoints if one.pending for group_id in one.pending.group_ids or ()}
    for group in world.groups:
        if group.name == "default" or group.id in named or group.id in wanted or world.members(group.id):
            continue
        command = ("aws", "ec2", "delete-security-group", "--group-id", group.id)
        fix = Fix(commands=(command,), change=Change(deletes=(("security-group", group.id),)))
        say = Say("WG011", {"group": group.id, "name": group.name})
        yield Finding(kind="WG011", resource=group.id, say=say, fix=fix)


def peers(world: World, group: SecurityGroup) -> Region:
    """All addresses of a group's VPC and of those that it has active peerings with."""
    vpc_ids = [group.vpc_id, *(one.other(group.vpc_id) for one in world.active_peerings(group.vpc_id))]
    vpcs = filter(None, map(world.vpc, vpc_ids))
    return Region(Box(span_of(cidr)) for vpc in vpcs for cidr in (vpc.cidr_block, *vpc.ipv6_cidr_blocks))
