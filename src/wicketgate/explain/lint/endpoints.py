"""Findings about endpoints: what their rules cannot do, whom they reach, and what client IP preservation changes."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import msgspec

from wicketgate.explain.allowed import content_of, peers_of
from wicketgate.explain.answer import Say
from wicketgate.explain.classes import Class, class_of, ends_of_ranges, passing, tunnels_only
from wicketgate.explain.lint.algebra import Held
from wicketgate.explain.lint.finding import NEW_RULE, Finding, Fix, authorize, revoked
from wicketgate.explain.lint.rules import about, for_endpoints_alone, peers
from wicketgate.explain.region import EVERY_IPV4, EVERY_IPV6, EVERY_SOURCE, IPV4_END, Box, Region, span_of
from wicketgate.model import (
    CONNECTABLE_STATES,
    Change,
    Endpoint,
    NetworkInterface,
    SecurityGroupRule,
    World,
    apply_change,
)


def inbound(world: World) -> Iterator[Finding]:
    """WG020: inbound rules of groups that endpoints alone carry. IAM says who may use an endpoint."""
    for group in world.groups:
        if for_endpoints_alone(world, group):
            for rule in group.inbound:
                yield about("WG020", Held(group, rule), revoked(group, rule))


def unseen(world: World, dead: Collection[str]) -> Iterator[Finding]:
    """WG025: inbound rules by ranges from which nothing here sends."""
    for group in world.groups:
        if _foreign_senders(world, group.vpc_id):
            continue
        near = peers(world, group)
        for rule in group.inbound:
            one = Held(group, rule)
            spans = [] if rule.referenced_group_id is not None else peers_of(world, group, rule, ())
            if spans and rule.id not in dead and not Region(map(Box, spans)) & near:
                yield about("WG025", one, revoked(group, rule))


def _foreign_senders(world: World, vpc_id: str) -> bool:
    """Whether something in a VPC may send from addresses that are not its own."""
    for eni in world.interfaces_of_vpc(vpc_id):
        endpoint = world.endpoint_of_interface(eni.id)
        if not eni.source_dest_check if endpoint is None else endpoint.preserve_client_ip:
            return True
    return False


# -- whom endpoints reach ----------------------------------------------------------------------------------------------


def reached(world: World) -> Iterator[Finding]:
    """WG021, WG022: endpoints that reach nothing, and interfaces that no endpoint reaches."""
    for vpc in world.vpcs:
        doors = [one for one in world.endpoints if world.vpc_of_subnet(one.subnet_id).id == vpc.id]
        doors = [one for one in doors if one.state in CONNECTABLE_STATES]
        machines = [eni for eni in world.interfaces_of_vpc(vpc.id) if world.endpoint_of_interface(eni.id) is None]
        if not doors or not machines:
            continue
        tunnels = Tunnels(world, vpc.id)
        by_door = {door.id: {eni.id for eni in machines if tunnels.between(door, eni)} for door in doors}
        for door in doors:
            if not by_door[door.id]:
                facts = {"endpoint": door.id, "vpc": vpc.id}
                yield Finding(kind="WG021", resource=door.id, say=Say("WG021", facts))
        somewhere = set().union(*by_door.values())
        for eni in machines if somewhere else ():
            instance = world.instance_of_interface(eni.id)
            if eni.id not in somewhere and instance is not None:
                facts = {"interface": eni.id, "instance": instance.id, "vpc": vpc.id}
                yield Finding(kind="WG022", resource=eni.id, within=instance.id, say=Say("WG022", facts))


class Tunnels:
    """What endpoints of a VPC pass to its interfaces; alike interfaces are asked about once."""

    def __init__(self, world: World, vpc_id: str) -> None:
        self._world = world
        self._ends = ends_of_ranges((world,), (vpc_id,))
        self._classes: dict[str, Class] = {}
        self._known: dict[tuple[str, Class], Region] = {}

    def class_of(self, eni: NetworkInterface) -> Class:
        """The class of an interface."""
        found = self._classes.get(eni.id)
        if found is None:
            found = self._classes[eni.id] = class_of(self._world, eni, self._ends)
        return found

    def between(self, endpoint: Endpoint, eni: NetworkInterface) -> Region:
        """The packets of tunnels that security groups pass, to the ports that are offered."""
        key = endpoint.id, self.class_of(eni)
        found = self._known.get(key)
        if found is None:
            sender = self._world.interface(endpoint.interface_id)
            whole = tunnels_only(passing(self._world, sender, eni)) if sender is not None else Region()
            found = self._known[key] = whole & offered(self._world)
        return found


def offered(world: World) -> Region:
    """TCP to the ports that tunnels may lead to."""
    ports = world.settings.allowed_ports
    spans = [(port, port) for port in ports] if ports else [(1, 65535)]
    return Region(Box(EVERY_SOURCE, (6, 6), span) for span in spans)


# -- client IP preservation --------------------------------------------------------------------------------------------


def preservation(world: World, dead: Collection[str]) -> Iterator[Finding]:
    """WG023, WG024: inbound rules by range that stop working when client IP preservation is switched."""
    for endpoint in world.endpoints:
        sender = world.interface(endpoint.interface_id)
        if sender is None or endpoint.state not in CONNECTABLE_STATES:
            continue
        vpc_id = world.vpc_of_subnet(endpoint.subnet_id).id
        other = msgspec.structs.replace(endpoint, preserve_client_ip=not endpoint.preserve_client_ip)
        after = apply_change(world, Change(puts=(other,)))
        before_and_after = Tunnels(world, vpc_id), Tunnels(after, vpc_id)
        for group in world.groups:
            if group.vpc_id != vpc_id or for_endpoints_alone(world, group):
                continue
            for rule in group.inbound:
                one = Held(group, rule)
                if rule.id in dead or not _depends(world, one, endpoint, sender):
                    continue
                alike = {before_and_after[0].class_of(eni): eni for eni in world.members(group.id)}
                if any(_lost(one, endpoint, eni, before_and_after) for eni in alike.values()):
                    yield _switched(one, endpoint, sender)


def _depends(world: World, one: Held, endpoint: Endpoint, sender: NetworkInterface) -> bool:
    """Whether a rule lets in what the endpoint sends now, but not what it sends when preservation is switched."""
    if one.rule.referenced_group_id is not None:
        return False
    spans = peers_of(world, one.group, one.rule, ())
    own = any(first <= span_of(address)[0] <= last for address in sender.addresses for first, last in spans)
    vpc = world.vpc_of_subnet(endpoint.subnet_id)
    inside = Region(Box(span_of(cidr)) for cidr in (vpc.cidr_block, *vpc.ipv6_cidr_blocks))
    clients = Region((Box(EVERY_IPV4), Box(EVERY_IPV6)) if world.settings.preserve_client_ipv6 else (Box(EVERY_IPV4),))
    theirs = bool(Region(map(Box, spans)) & (clients - inside))
    six_alone = all(first >= IPV4_END for first, _ in spans) and not world.settings.preserve_client_ipv6
    if six_alone:  # an IPv6 address is never preserved: nothing changes
        return False
    return theirs and not own if endpoint.preserve_client_ip else own and not theirs


def _lost(one: Held, endpoint: Endpoint, eni: NetworkInterface, tunnels: tuple[Tunnels, Tunnels]) -> Region:
    """Ports of a rule to which tunnels lead now, from whatever source, and would not any more."""
    before, after = (_ports(each.between(endpoint, eni)) for each in tunnels)
    return (before & Region((content_of(one.rule),))) - after


def _ports(region: Region) -> Region:
    return Region(box._replace(sources=EVERY_SOURCE) for box in region.boxes)


def _switched(one: Held, endpoint: Endpoint, sender: NetworkInterface) -> Finding:
    facts = {"endpoint": endpoint.id, "range": one.rule.peer}
    if endpoint.preserve_client_ip:  # a reference would let in all clients, which the range does not
        return about("WG024", one, None, facts)
    rule = msgspec.structs.replace(
        one.rule,
        id=NEW_RULE,
        cidr_ipv4=None,
        cidr_ipv6=None,
        prefix_list_id=None,
        referenced_group_id=sender.group_ids[0],
    )
    return about("WG023", one, _added(one, rule), facts)


def _added(one: Held, rule: SecurityGroupRule) -> Fix:
    group = msgspec.structs.replace(one.group, rules=(*one.group.rules, rule))
    return Fix(commands=(authorize(one.group, rule),), change=Change(puts=(group,)), effect="opens")
