"""What the network lets through of tunnels, as a set: from any client by an endpoint to one address of a target.

The axes are those of `reach_iam`: the client's address, the duration (which the network does not ask about), the port.
The same reading as `admit`, `tunnel.targets` and `paths.judge`; `tests/unit/test_reach.py` holds them together.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final, NamedTuple

from wicketgate.explain import allowed
from wicketgate.explain.classes import ends_of_ranges
from wicketgate.explain.region import EVERY_IPV4, EVERY_IPV6, EVERY_SOURCE, NOTHING, Box, Region, Span, span_of
from wicketgate.model import CONNECTABLE_STATES, Endpoint, NetworkInterface, World
from wicketgate.tunnel.targets import SPECIAL, target_refusal

TCP: Final = 6


class Target(NamedTuple):
    """One address of a network interface."""

    interface: str
    address: str
    instance: str
    """Empty for an interface that is attached to nothing."""


class Likeness(NamedTuple):
    """Equal for targets that no endpoint of their VPC tells apart."""

    groups: tuple[str, ...]
    place: int
    """Between which ends of ranges the address lies."""
    running: bool
    returns: bool
    """Whether replies to clients' addresses come back."""


def targets_of(world: World, eni: NetworkInterface) -> Iterator[Target]:
    """Every address of an interface."""
    instance = world.instance_of_interface(eni.id)
    for address in eni.addresses:
        yield Target(eni.id, address, "" if instance is None else instance.id)


def ends(world: World, vpc_id: str) -> list[int]:
    """Where on the axis of addresses something begins or ends that a judgement in this VPC asks about, in order."""
    found = set(ends_of_ranges((world,), (vpc_id,)))
    for network, _ in SPECIAL:
        first, last = span_of(str(network))
        found |= {first, last + 1}
    return sorted(found)


def place_of(address: str, places: list[int]) -> int:
    """Between which ends of ranges an address lies."""
    return bisect_right(places, span_of(address)[0])


def likeness(world: World, target: Target, places: list[int]) -> Likeness:
    """What of a target matters; `places` as `ends` has them."""
    eni = world.interface(target.interface)
    instance = world.instance(target.instance) if target.instance else None
    assert eni is not None, "targets are made from interfaces"
    return Likeness(
        tuple(sorted(set(eni.group_ids))),
        place_of(target.address, places),
        instance is None or instance.may_answer,
        world.replies_return(eni),
    )


def passing(world: World, endpoint: Endpoint, target: Target) -> Region:
    """The tunnels that come about, whoever asks, in the states in which everything is now."""
    sender, receiver = world.interface(endpoint.interface_id), world.interface(target.interface)
    assert sender is not None and receiver is not None, "World.check has seen to it"
    instance = world.instance(target.instance) if target.instance else None
    if endpoint.state not in CONNECTABLE_STATES or (instance is not None and not instance.may_answer):
        return NOTHING
    if world.endpoint_of_interface(receiver.id) is not None or target_refusal(world, endpoint, target.address):
        return NOTHING
    own = next((one for one in sender.addresses if (":" in one) is (":" in target.address)), None)
    out = _outbound(world, sender, receiver, target.address)
    if own is None or not out:
        return NOTHING
    arriving = [(span, ports) for span, ports in _inbound(world, receiver, sender) if any(_cut(out, ports))]
    place = span_of(own)[0]
    by_own = Region(
        Box(EVERY_SOURCE, EVERY_SOURCE, common)
        for (first, last), ports in arriving
        if first <= place <= last
        for common in _cut(out, ports)
    )
    if not endpoint.preserve_client_ip:
        return by_own
    kept = preservable(world, endpoint, six=":" in target.address) if world.replies_return(receiver) else NOTHING
    boxes = (Box(span, EVERY_SOURCE, common) for span, ports in arriving for common in _cut(out, ports))
    by_client = Region(boxes) & kept
    return by_client if world.settings.unpreservable_client == "refuse" else by_client | (by_own - kept)


def preservable(world: World, endpoint: Endpoint, *, six: bool) -> Region:
    """The clients whose address an endpoint that preserves it can show to a target of a family
    (`targets.client_refusal`)."""
    if six and not (world.settings.preserve_client_ipv6 and endpoint.ip_address_type != "ipv4"):
        return NOTHING
    vpc = world.vpc_of_subnet(endpoint.subnet_id)
    return _family_without((vpc.cidr_block, *vpc.ipv6_cidr_blocks), six)


@lru_cache(maxsize=1024)
def _family_without(ranges: tuple[str, ...], six: bool) -> Region:
    """A family without the special addresses and these."""
    whole = Region((Box(EVERY_IPV6 if six else EVERY_IPV4, EVERY_SOURCE),))
    never = (*(str(network) for network, _ in SPECIAL), *ranges)
    return whole - Region(Box(span_of(one), EVERY_SOURCE) for one in never)


def _outbound(world: World, sender: NetworkInterface, receiver: NetworkInterface, address: str) -> list[Span]:
    """The TCP ports that the sender's outbound rules allow towards the address."""
    place = span_of(address)[0]
    found = [
        ports
        for ports, spans in _tcp_rules(world, sender, receiver, egress=True)
        if any(first <= place <= last for first, last in spans)
    ]
    return _joined(found)


def _inbound(world: World, receiver: NetworkInterface, sender: NetworkInterface) -> Iterator[tuple[Span, Span]]:
    """(sources, ports) of the receiver's inbound rules for TCP."""
    for ports, spans in _tcp_rules(world, receiver, sender, egress=False):
        for span in spans:
            yield span, ports


def _tcp_rules(
    world: World, eni: NetworkInterface, peer: NetworkInterface, *, egress: bool
) -> Iterator[tuple[Span, tuple[Span, ...]]]:
    """Ports and far ends of an interface's rules that cover TCP."""
    for group in filter(None, map(world.group, eni.group_ids)):
        for rule in group.rules:
            if rule.is_egress is not egress:
                continue
            _, (first, last), ports = allowed.content_of(rule)
            if first <= TCP <= last and (spans := allowed.peers_of(world, group, rule, peer.group_ids)):
                yield ports, spans


def _cut(some: Iterable[Span], ports: Span) -> Iterator[Span]:
    for first, last in some:
        if max(first, ports[0]) <= min(last, ports[1]):
            yield max(first, ports[0]), min(last, ports[1])


def _joined(spans: list[Span]) -> list[Span]:
    """Disjoint spans, in order."""
    found: list[Span] = []
    for first, last in sorted(spans):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return found
