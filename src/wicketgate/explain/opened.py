"""What else a change of a World opens: packets that pass after it and did not before, exactly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from wicketgate.explain.answer import Say
from wicketgate.explain.classes import Class, class_of, ends_of_ranges, passing, tunnels_only
from wicketgate.explain.region import (
    EVERY_IPV4,
    EVERY_IPV6,
    EVERY_PORT,
    EVERY_PROTOCOL,
    NOTHING,
    Box,
    Region,
    Span,
    address_at,
    ranges_of,
)
from wicketgate.explain.words import Language, text
from wicketgate.model import PROTOCOL_NUMBERS, NetworkInterface, World

_NAMES: Final = {number: name for name, number in PROTOCOL_NUMBERS.items()}
RANGES_SHOWN: Final = 4


@dataclass(frozen=True)
class Gain:
    """Packets between two interfaces that pass now and did not before."""

    sender: NetworkInterface
    receiver: NetworkInterface
    region: Region


def gains(before: World, after: World, vpc_id: str) -> Iterator[Gain]:
    """For every pair of network interfaces of a VPC what passes after a change of rules alone that did not before."""
    changed = {group.id for group in after.groups if before.group(group.id) is not group}
    endpoints = {one.interface_id for one in after.endpoints if before.endpoint(one.id) is not one}
    ends = ends_of_ranges((before, after), (vpc_id,))
    interfaces = after.interfaces_of_vpc(vpc_id)
    classes = {eni.id: class_of(after, eni, ends) for eni in interfaces}
    known: dict[tuple[Class, Class], Region] = {}
    for sender in interfaces:
        outwards = sender.id in endpoints or not changed.isdisjoint(sender.group_ids)
        for receiver in interfaces:
            if receiver is sender or not (outwards or not changed.isdisjoint(receiver.group_ids)):
                continue
            pair = classes[sender.id], classes[receiver.id]
            region = known.get(pair)
            if region is None:
                region = known[pair] = _gain(before, after, sender, receiver)
            if region:
                yield Gain(sender, receiver, region)


def _gain(before: World, after: World, sender: NetworkInterface, receiver: NetworkInterface) -> Region:
    now = passing(after, sender, receiver)
    if not now:
        return NOTHING
    if after.endpoint_of_interface(sender.id) is not None:
        now = tunnels_only(now)
    there = before.interface(sender.id), before.interface(receiver.id)
    return now if there[0] is None or there[1] is None else now - passing(before, there[0], there[1])


def words(region: Region, language: Language = "en") -> str:
    """A region in AWS's notation: `tcp 22 from 203.0.113.0/24; udp 53`."""
    return joined(packets(region), language)


def joined(what: Iterable[Say], language: Language = "en") -> str:
    """The same from its sentences."""
    return "; ".join(text(one, language) for one in what)


def packets(region: Region) -> tuple[Say, ...]:
    """A region, box by box."""
    return tuple(map(_box, region.merged()))


def _box(box: Box) -> Say:
    content = _content(box.protocols, box.ports)
    sources = _sources(box.sources)
    return Say("packets-from", {"sources": sources}, {"content": (content,)}) if sources else content


def _content(protocols: Span, ports: Span) -> Say:
    if protocols == EVERY_PROTOCOL and ports == EVERY_PORT:
        return Say("traffic-all")
    if protocols[0] != protocols[1]:
        facts = {"first": str(protocols[0]), "last": str(protocols[1]), "ports": _ports(ports)}
        return Say("traffic-protocols" if ports == EVERY_PORT else "traffic-protocols-ports", facts)
    name = _NAMES.get(protocols[0])
    if name is None:
        return Say("traffic-protocol", {"protocol": str(protocols[0])})
    if ports == EVERY_PORT:
        return Say("traffic", {"words": name})
    if name in ("icmp", "icmpv6"):
        facts = {"protocol": name, "type": str(ports[0] >> 8), "code": str(ports[0] & 255)}
        return Say("traffic-type" if ports[1] - ports[0] == 255 else "traffic-type-code", facts)
    return Say("traffic", {"words": f"{name} {_ports(ports)}"})


def _ports(ports: Span) -> str:
    return str(ports[0]) if ports[0] == ports[1] else f"{ports[0]}-{ports[1]}"


def _sources(sources: Span) -> str:
    if sources in (EVERY_IPV4, EVERY_IPV6) or sources == (EVERY_IPV4[0], EVERY_IPV6[1]):
        return ""
    ranges = ranges_of(sources)
    if len(ranges) > RANGES_SHOWN:
        return f"{address_at(sources[0])}-{address_at(sources[1])}"
    return ", ".join(ranges)


def without(found: Sequence[Gain], asked: Gain) -> list[Gain]:
    """Gains without what was asked for."""
    rest = []
    for gain in found:
        region = gain.region
        if (gain.sender.id, gain.receiver.id) == (asked.sender.id, asked.receiver.id):
            region = region - asked.region
        if region:
            rest.append(Gain(gain.sender, gain.receiver, region))
    return rest
