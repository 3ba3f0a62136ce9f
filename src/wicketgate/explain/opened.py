"""What else a change of a World opens: packets that pass after it and did not before, exactly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from wicketgate.explain import allowed
from wicketgate.explain.answer import Say
from wicketgate.explain.classes import Class, class_of, ends_of_ranges
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
    address_at,
    ranges_of,
    span_of,
)
from wicketgate.explain.sent import sends, sent, widened
from wicketgate.explain.words import Language, text
from wicketgate.model import PROTOCOL_NUMBERS, NetworkInterface, SecurityGroupRule, World

_NAMES: Final = {number: name for name, number in PROTOCOL_NUMBERS.items()}
RANGES_SHOWN: Final = 4


@dataclass(frozen=True)
class Gain:
    """Packets between two interfaces that pass now and did not before."""

    sender: NetworkInterface
    receiver: NetworkInterface
    region: Region
    """To whichever address of the receiver."""
    by_address: tuple[Region, ...] = ()
    """The same for each of the receiver's addresses; empty where that makes no difference."""
    address: str = ""
    """The one address of the receiver that is meant; empty = all."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """The receiver's addresses that get something; empty = all of them."""
        some = tuple(one for one, region in zip(self.receiver.addresses, self.by_address, strict=False) if region)
        return () if len(some) in (0, len(self.receiver.addresses)) else some


def gains(before: World, after: World, vpc_id: str) -> Iterator[Gain]:
    """For every pair of network interfaces what passes after a change of rules or endpoints of a VPC that did not
    before: within the VPC, and between it and its peers."""
    changed = {group.id for group in after.groups if before.group(group.id) is not group}
    endpoints = {one.interface_id for one in after.endpoints if before.endpoint(one.id) is not one}
    vpc_ids = [vpc_id, *(one.other(vpc_id) for one in after.active_peerings(vpc_id))]
    ends = sorted({*ends_of_ranges((before, after), vpc_ids), *_ends_of_routes(after, vpc_ids)})
    interfaces = [eni for one in vpc_ids for eni in after.interfaces_of_vpc(one)]
    classes = {eni.id: class_of(after, eni, ends) for eni in interfaces}
    known: dict[tuple[Class, Class, str], tuple[Region, ...]] = {}
    added = _around(rule for one in changed for rule in _added(before, after, one))
    for sender in interfaces:
        within = allowed.EVERY_PACKET if sender.id in endpoints else added
        if within is None:
            continue
        outwards = sender.id in endpoints or not changed.isdisjoint(sender.group_ids)
        for receiver in interfaces:
            if receiver is sender or not (outwards or not changed.isdisjoint(receiver.group_ids)):
                continue
            kind = classes[sender.id], classes[receiver.id]
            across = kind[0].vpc_id != kind[1].vpc_id
            key = (*kind, sender.subnet_id if across else "")
            regions = known.get(key)
            if regions is None:
                regions = known[key] = _gain(before, after, sender, receiver, within)
            if any(regions):
                yield Gain(sender, receiver, _union(regions), regions)


def _added(before: World, after: World, group_id: str) -> Iterator[SecurityGroupRule]:
    then, now = before.group(group_id), after.group(group_id)
    assert now is not None, "it was found there"
    yield from (rule for rule in now.rules if then is None or rule not in then.rules)


def _around(rules: Iterable[SecurityGroupRule]) -> Box | None:
    """A box that holds whatever the rules allow, so that all else need not be looked at; None without rules."""
    boxes = [allowed.content_of(rule) for rule in rules]
    if not boxes:
        return None
    spans = (tuple(zip(*axis, strict=True)) for axis in zip(*boxes, strict=True))
    return Box._make((min(firsts), max(lasts)) for firsts, lasts in spans)


def _ends_of_routes(world: World, vpc_ids: Iterable[str]) -> Iterator[int]:
    """Where on the axis of addresses the routes of VPCs begin or end to hold."""
    for table in world.route_tables:
        for route in table.routes if table.vpc_id in vpc_ids else ():
            first, last = span_of(route.destination)
            yield from (first, last + 1)


def _gain(
    before: World, after: World, sender: NetworkInterface, receiver: NetworkInterface, within: Box
) -> tuple[Region, ...]:
    """What passes now and did not before, for each address of the receiver."""
    then = before.interface(sender.id), before.interface(receiver.id)
    found = []
    for address in receiver.addresses:
        region = sent(after, sender, receiver, address, within)
        if region and then[0] is not None and then[1] is not None:
            region -= sent(before, then[0], then[1], address, within)
        found.append(widened(after, sender, region) if sends(after, sender) == "own" else region)
    return tuple(found)


def _union(regions: Iterable[Region]) -> Region:
    found = NOTHING
    for region in regions:
        found |= region
    return found


def shown(after: World, gain: Gain, asked: Gain) -> tuple[Say, ...]:
    """A gain of `without` in sentences: where all other clients get in, nothing is said of sources."""
    same = (gain.sender.id, gain.receiver.id) == (asked.sender.id, asked.receiver.id)
    if sends(after, gain.sender) != "clients":
        return packets(gain.region)
    return packets(widened(after, gain.sender, gain.region, asked.region if same else NOTHING))


def words(region: Region, language: Language = "en") -> str:
    """A region in AWS's notation: `tcp 22 from 203.0.113.0/24; udp 53`."""
    return joined(packets(region), language)


def joined(what: Iterable[Say], language: Language = "en") -> str:
    """The same from its sentences."""
    return "; ".join(text(one, language) for one in what)


def packets(region: Region) -> tuple[Say, ...]:
    """A region, box by box. That it is whatever the sender sends is not said, unless the families differ."""
    boxes = region.merged()
    both = {box.sources[0] < IPV4_END for box in boxes} | {box.sources[1] < IPV4_END for box in boxes} == {True, False}
    return tuple(_box(box, sources) for box in boxes for sources in _by_family(box.sources, both=both))


def _by_family(sources: Span, *, both: bool) -> Iterator[Span]:
    """Sources apart by family, or EVERY_SOURCE for whatever is sent."""
    if sources == EVERY_SOURCE or (not both and sources in (EVERY_IPV4, EVERY_IPV6)):
        yield EVERY_SOURCE
        return
    for first, last in (EVERY_IPV4, EVERY_IPV6):
        if sources[0] <= last and sources[1] >= first:
            yield max(sources[0], first), min(sources[1], last)


def _box(box: Box, sources: Span) -> Say:
    content = _content(box.protocols, box.ports)
    if sources == EVERY_SOURCE:
        return content
    return Say("packets-from", {"sources": _sources(sources)}, {"content": (content,)})


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
    ranges = ranges_of(sources)
    if len(ranges) > RANGES_SHOWN:
        return f"{address_at(sources[0])}-{address_at(sources[1])}"
    return ", ".join(ranges)


def without(found: Sequence[Gain], asked: Gain) -> list[Gain]:
    """Gains without what was asked for."""
    rest = []
    for gain in found:
        same = (gain.sender.id, gain.receiver.id) == (asked.sender.id, asked.receiver.id)
        less = _less(gain, asked) if same else gain
        if less.region:
            rest.append(less)
    return rest


def _less(gain: Gain, asked: Gain) -> Gain:
    if not asked.address:
        return replace(gain, region=gain.region - asked.region, by_address=())
    regions = tuple(
        region - asked.region if address == asked.address else region
        for address, region in zip(gain.receiver.addresses, gain.by_address, strict=True)
    )
    return replace(gain, region=_union(regions), by_address=regions)
