"""What security groups allow between two network interfaces, as a set of packets instead of an answer about one.

The same reading as `paths`, rule by rule; `tests/unit/test_allowed.py` holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final

from wicketgate.explain.region import (
    EVERY_IPV4,
    EVERY_IPV6,
    EVERY_PORT,
    EVERY_PROTOCOL,
    EVERY_SOURCE,
    IPV4_END,
    NOTHING,
    Box,
    Region,
    Span,
    span_of,
)
from wicketgate.model import PROTOCOL_NUMBERS, NetworkInterface, SecurityGroup, SecurityGroupRule, World

ICMP: Final = 1
ICMPV6: Final = 58
EVERY_PACKET: Final = Box()


def outbound(
    world: World, sender: NetworkInterface, receiver: NetworkInterface, destination: str, within: Box = EVERY_PACKET
) -> Region:
    """What the sender's outbound rules allow towards one address of the receiver, of the packets within a box."""
    place, _ = span_of(destination)
    family = Box(EVERY_IPV4 if place < IPV4_END else EVERY_IPV6) & within
    if family is None:
        return NOTHING
    boxes = []
    for group, rule in _rules(world, sender.group_ids, egress=True):
        box = family & content_of(rule)
        if box is not None and any(
            first <= place <= last for first, last in peers_of(world, group, rule, receiver.group_ids)
        ):
            boxes.append(box)
    return Region(boxes)


def inbound(world: World, receiver: NetworkInterface, sender: NetworkInterface, within: Box = EVERY_PACKET) -> Region:
    """What the receiver's inbound rules allow from the sender, whatever address it sends from, within a box."""
    boxes = []
    for group, rule in _rules(world, receiver.group_ids, egress=False):
        content = content_of(rule) & within
        if content is None:
            continue
        for span in peers_of(world, group, rule, sender.group_ids):
            boxes += [box for box in (Box(span) & content,) if box is not None]
    return Region(boxes)


def peers_of(
    world: World, group: SecurityGroup, rule: SecurityGroupRule, peer_groups: Iterable[str]
) -> tuple[Span, ...]:
    """The addresses that a rule of a group allows at the far end, if the interface there carries `peer_groups`."""
    if rule.referenced_group_id is not None:
        counts = rule.referenced_group_id in peer_groups and world.referenced_group(group, rule) is not None
        return (EVERY_SOURCE,) if counts else ()
    if rule.prefix_list_id is not None:
        prefix_list = world.prefix_list(rule.prefix_list_id)
        return () if prefix_list is None else tuple(span_of(entry.cidr) for entry in prefix_list.entries)
    return (span_of(rule.cidr_ipv4 or rule.cidr_ipv6 or ""),)


def content_of(rule: SecurityGroupRule) -> Box:
    """Protocols and ports of a rule; for ICMP also the address family that carries it."""
    return _content(rule.ip_protocol, rule.from_port, rule.to_port)


@lru_cache(maxsize=65536)
def _content(ip_protocol: str, from_port: int, to_port: int) -> Box:
    if ip_protocol == "-1":
        return Box(EVERY_SOURCE, EVERY_PROTOCOL, EVERY_PORT)
    number = PROTOCOL_NUMBERS.get(ip_protocol) or int(ip_protocol)
    if number in (PROTOCOL_NUMBERS["tcp"], PROTOCOL_NUMBERS["udp"]):
        return Box(EVERY_SOURCE, (number, number), (from_port, to_port))
    if number in (ICMP, ICMPV6):
        family = EVERY_IPV4 if number == ICMP else EVERY_IPV6
        if from_port == -1:
            return Box(family, (number, number), EVERY_PORT)
        codes = (0, 255) if to_port == -1 else (to_port, to_port)
        return Box(family, (number, number), (from_port << 8 | codes[0], from_port << 8 | codes[1]))
    return Box(EVERY_SOURCE, (number, number), EVERY_PORT)


def _rules(
    world: World, group_ids: Iterable[str], *, egress: bool
) -> Iterator[tuple[SecurityGroup, SecurityGroupRule]]:
    for group in filter(None, map(world.group, group_ids)):
        yield from ((group, rule) for rule in group.rules if rule.is_egress is egress)
