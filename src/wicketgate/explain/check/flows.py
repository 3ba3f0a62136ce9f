"""Checks about packets between machines, in one VPC or two peered ones, by the code that also enforces (`paths`)."""

from __future__ import annotations

from collections.abc import Iterator

from wicketgate import paths
from wicketgate.explain import allowed
from wicketgate.explain.answer import Say
from wicketgate.explain.check import selectors
from wicketgate.explain.check.answer import SHOWN, Example, Result
from wicketgate.explain.check.language import Written, packets
from wicketgate.explain.classes import Class, class_of, ends_of_ranges
from wicketgate.explain.region import EVERY_IPV4, EVERY_IPV6, EVERY_SOURCE, Box, Region, address_at, span_of
from wicketgate.model import NetworkInterface, World

_ICMP = (allowed.ICMP, allowed.ICMPV6)


def check(world: World, written: Written) -> Result:
    """Whether a check holds. Raises Mistake for one that names what is not there."""
    for key in ("through", "duration"):
        if key in written.values:
            raise written.values[key][0].wrong("tunnels-only")
    senders = selectors.machines(world, written.values["from"])
    receivers = selectors.machines(world, written.values["to"])
    asked = Region(packets(written.values["port"])) if "port" in written.values else Region((Box(),))
    judge = _opened if written.verb == "never" else _shut
    alike = _Alike(world)
    known: dict[object, bool] = {}
    found: list[Example] = []
    count = 0
    for sender in senders:
        for receiver in receivers:
            pair = alike.key(sender, receiver)
            if sender is receiver or known.get(pair) is False:
                continue
            if len(found) == SHOWN and known.get(pair):
                count += 1
                continue
            example = judge(world, sender, receiver, asked)
            known[pair] = example is not None
            if example is not None:
                count += 1
                found += [example] if len(found) < SHOWN else []
    return Result(
        verb=written.verb,
        name=written.name.text,
        place=written.place,
        outcome="fail" if count else "pass",
        examples=tuple(found),
        more=count - len(found),
    )


class _Alike:
    """Which pairs of interfaces are judged alike: within a VPC those of the same classes; routes beyond it may tell any
    two addresses apart."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ends = ends_of_ranges((world,), (vpc.id for vpc in world.vpcs))
        self._classes: dict[str, Class] = {}

    def key(self, sender: NetworkInterface, receiver: NetworkInterface) -> object:
        """Equal for pairs that are judged alike."""
        one, two = self._class(sender), self._class(receiver)
        return (one, two) if one.vpc_id == two.vpc_id else (sender.id, receiver.id)

    def _class(self, eni: NetworkInterface) -> Class:
        if eni.id not in self._classes:
            self._classes[eni.id] = class_of(self._world, eni, self._ends)
        return self._classes[eni.id]


def _opened(world: World, sender: NetworkInterface, receiver: NetworkInterface, asked: Region) -> Example | None:
    """A packet that gets there, if any does."""
    for destination in receiver.addresses:
        passing = _groups(world, sender, receiver, destination)
        for source in _sources(sender, passing, destination):
            for box in (passing & asked & Region((Box(span_of(source)),))).boxes:
                if paths.judge_flow(world, _flow(sender, receiver, source, destination, box)).passed:
                    return _example(sender, receiver, source, destination, box)
    return None


def _shut(world: World, sender: NetworkInterface, receiver: NetworkInterface, asked: Region) -> Example | None:
    """A packet from the sender's first address of a family that does not get there, or whose reply does not get back;
    None when all do. A pair without a family in common has none that does."""
    pairs = list(_pairs(sender, receiver))
    if not pairs:
        return _example(sender, receiver, sender.addresses[0], receiver.addresses[0], asked.boxes[0], Say("no-family"))
    source, destination = pairs[0]
    passing = _groups(world, sender, receiver, destination)
    own = Region((Box(span_of(source)),))
    missing = (asked & own & _possible(source)) - passing
    for box in (*missing.boxes, *(asked & own & _possible(source)).boxes):
        flow = _flow(sender, receiver, source, destination, box)
        verdict = paths.judge_flow(world, flow)
        if verdict.passed:
            verdict = paths.judge_packet(world, flow, sides=paths.tracking(world, flow), reply=True)
        if verdict.failure is not None:
            why = Say("step", {"step": verdict.failure.name, "reason": str(verdict.failure.reason)})
            return _example(sender, receiver, source, destination, box, why)
    return None


def _groups(world: World, sender: NetworkInterface, receiver: NetworkInterface, destination: str) -> Region:
    """What the groups of both sides pass to an address, from whatever address."""
    family = EVERY_IPV6 if ":" in destination else EVERY_IPV4
    both = allowed.outbound(world, sender, receiver, destination) & allowed.inbound(world, receiver, sender)
    return both & Region((Box(family),)) & _possible(destination)


def _possible(address: str) -> Region:
    """The packets that a family carries: ICMP is for IPv4, ICMPv6 for IPv6."""
    other = allowed.ICMP if ":" in address else allowed.ICMPV6
    return Region((Box(),)) - Region((Box(EVERY_SOURCE, (other, other)),))


def _sources(sender: NetworkInterface, passing: Region, destination: str) -> Iterator[str]:
    """The sender's own addresses of the destination's family; without source check also one of each box."""
    yield from (one for one in sender.addresses if (":" in one) is (":" in destination))
    if not sender.source_dest_check:
        yield from (address_at(box.sources[0]) for box in (passing - selectors.special()).boxes)


def _pairs(sender: NetworkInterface, receiver: NetworkInterface) -> Iterator[tuple[str, str]]:
    for source in sender.addresses:
        for destination in receiver.addresses:
            if (":" in source) is (":" in destination):
                yield source, destination


def _flow(sender: NetworkInterface, receiver: NetworkInterface, source: str, destination: str, box: Box) -> paths.Flow:
    """The first packet of a box."""
    protocol, port = box.protocols[0], box.ports[0]
    kind, code = (port >> 8, port & 255) if protocol in _ICMP else (port, 0)
    return paths.Flow(sender, receiver, source, protocol, kind, code, destination)


def _example(
    sender: NetworkInterface, receiver: NetworkInterface, source: str, destination: str, box: Box, *why: Say
) -> Example:
    return Example(
        source=source,
        target=destination,
        interface=receiver.id,
        protocol=box.protocols[0],
        port=box.ports[0],
        sender=sender.id,
        why=why,
    )
