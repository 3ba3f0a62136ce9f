"""What one rule and one set of groups allow. Source: EC2 User Guide, security group rules.

Rules only allow. A network interface's policy in a direction is the union of the rules of all its groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from wicketgate.model import PROTOCOL_NUMBERS, PrefixListEntry, SecurityGroup, SecurityGroupRule, World
from wicketgate.paths.ranges import Address, Range, Remembered, address, cidr, entry_of

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
_ICMP_FAMILY = {ICMP: 4, ICMPV6: 6}


class Packet(NamedTuple):
    """A packet as the rules of one network interface see it."""

    protocol: int
    port: int
    """Destination port; for ICMP the type."""
    code: int
    peer: Address
    """The far end: destination of what leaves, source of what arrives."""
    peer_groups: frozenset[str]
    """Groups of the network interface that really sent or will receive the packet."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """A rule with its texts turned into numbers."""

    rule: SecurityGroupRule
    protocol: int | None
    """None = every protocol."""
    first: int
    last: int
    where: Range | None
    """None for a group reference or a prefix list."""

    def covers_content(self, packet: Packet) -> bool:
        """Whether protocol and port, or ICMP type and code, are the rule's."""
        if self.protocol is None:
            return True
        if self.protocol != packet.protocol:
            return False
        if self.protocol in (TCP, UDP):
            return self.first <= packet.port <= self.last
        family = _ICMP_FAMILY.get(self.protocol)
        if family is None:
            return True  # ports are ignored: "allows traffic on all ports" (EC2 API, IpPermission)
        typed = self.first in (-1, packet.port) and (self.first == -1 or self.last in (-1, packet.code))
        return typed and packet.peer.version == family


def allows(
    rule: SecurityGroupRule,
    *,
    protocol: int,
    port: int,
    code: int,
    peer_address: str,
    peer_groups: frozenset[str],
    prefix_list: Iterable[str] = (),
) -> bool:
    """Whether a rule covers a packet: protocol number, port (ICMP: type), code, and the far end.

    `peer_groups` are the groups of the network interface that really sent or will receive the packet; `prefix_list`
    are the ranges of the list that the rule names.
    """
    reading = _read(rule)
    packet = Packet(protocol, port, code, address(peer_address), peer_groups)
    if rule.referenced_group_id is not None:
        at_peer = rule.referenced_group_id in peer_groups
    elif rule.prefix_list_id is not None:
        at_peer = any(cidr(one).holds(packet.peer) for one in prefix_list)
    else:
        at_peer = reading.where is not None and reading.where.holds(packet.peer)
    return at_peer and reading.covers_content(packet)


def covering(
    world: World, group_ids: Iterable[str], packet: Packet, *, egress: bool
) -> Iterator[tuple[SecurityGroupRule, PrefixListEntry | None]]:
    """All rules of the groups, in order, that allow the packet, and which entry of its prefix list each did by."""
    for group_id in group_ids:
        group = world.group(group_id)
        if group is None:
            continue
        by_protocol = _readings(group)[egress]
        for reading in by_protocol.get(packet.protocol, by_protocol[-1]):
            if not reading.covers_content(packet):
                continue
            rule, where = reading.rule, reading.where
            if where is not None:
                if where.holds(packet.peer):
                    yield rule, None
            elif rule.referenced_group_id is not None:
                if rule.referenced_group_id in packet.peer_groups and world.referenced_group(group, rule) is not None:
                    yield rule, None
            else:
                prefix_list = world.prefix_list(rule.prefix_list_id or "")
                entry = None if prefix_list is None else entry_of(prefix_list, packet.peer)
                if entry is not None:
                    yield rule, entry


def first_match(
    world: World,
    group_ids: Iterable[str],
    *,
    egress: bool,
    protocol: int,
    port: int,
    code: int,
    peer_address: str,
    peer_groups: frozenset[str],
) -> SecurityGroupRule | None:
    """The first rule of the groups, in order, that allows the packet; None when none does."""
    packet = Packet(protocol, port, code, address(peer_address), peer_groups)
    return next((rule for rule, _ in covering(world, group_ids, packet, egress=egress)), None)


def any_address(world: World, group_ids: Iterable[str], packet: Packet, *, egress: bool) -> SecurityGroupRule | None:
    """The first rule that allows the packet and names 0.0.0.0/0 or ::/0; a prefix list with that range is none."""
    found = (rule for rule, _ in covering(world, group_ids, packet, egress=egress))
    return next((rule for rule in found if is_any_address(rule)), None)


def all_ports(
    world: World, group_ids: Iterable[str], *, egress: bool, protocol: int, version: int
) -> SecurityGroupRule | None:
    """The first rule that allows a protocol, 6 or 17, on all ports for every address of a family."""
    for group_id in group_ids:
        group = world.group(group_id)
        by_protocol = _readings(group)[egress] if group is not None else {-1: ()}
        for reading in by_protocol.get(protocol, by_protocol[-1]):
            where = reading.where
            whole = reading.protocol is None or (reading.first, reading.last) == (0, 65535)
            if where is not None and where.is_any and where.version == version and whole:
                return reading.rule
    return None


def is_any_address(rule: SecurityGroupRule) -> bool:
    """Whether a rule names 0.0.0.0/0 or ::/0."""
    text = rule.cidr_ipv4 or rule.cidr_ipv6
    return text is not None and cidr(text).is_any


def _read(rule: SecurityGroupRule) -> _Reading:
    number = None
    if rule.ip_protocol != "-1":
        number = PROTOCOL_NUMBERS.get(rule.ip_protocol)
        number = int(rule.ip_protocol) if number is None else number
    text = rule.cidr_ipv4 or rule.cidr_ipv6
    return _Reading(rule, number, rule.from_port, rule.to_port, None if text is None else cidr(text))


_ByProtocol = dict[int, tuple[_Reading, ...]]
"""Protocol number -> the rules that may cover it, in order; -1 -> those for every protocol."""


def _by_protocol(rules: Iterable[SecurityGroupRule]) -> _ByProtocol:
    readings = [_read(rule) for rule in rules]
    numbers = {reading.protocol for reading in readings if reading.protocol is not None}
    found = {number: tuple(one for one in readings if one.protocol in (None, number)) for number in numbers}
    return {-1: tuple(one for one in readings if one.protocol is None), **found}


def _both_directions(group: SecurityGroup) -> tuple[_ByProtocol, _ByProtocol]:
    """Inbound, outbound: by `egress` as an index."""
    return _by_protocol(group.inbound), _by_protocol(group.outbound)


_readings: Remembered[SecurityGroup, tuple[_ByProtocol, _ByProtocol]] = Remembered(_both_directions, 16_384)
