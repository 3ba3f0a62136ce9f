"""Tracked and untracked connections, and what becomes of a flow's later packets when rules have changed since.

Each network interface judges for itself (EC2 User Guide, security group connection tracking). A flow that it tracks
goes on whatever becomes of the rules; of one that it does not track every packet is judged by the present rules. TCP
and UDP alone can be untracked: where a rule for any address admits the flow and the other direction allows all ports to
any address, an entry of its own would say nothing that the rules do not. And where an interface without
source/destination check begins a flow under an address that is not its own: the address's owner has no part in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from wicketgate.model import NetworkInterface, SecurityGroupRule, Step, Verdict, World
from wicketgate.paths import groups
from wicketgate.paths.judge import Flow, Moving, first_packet, inbound, outbound, role, until_failure
from wicketgate.paths.ranges import address
from wicketgate.paths.routes import Hop, hop, peer_source_refusal, source_refusal


@dataclass(frozen=True)
class Tracking:
    """What one network interface does with a flow. It is settled when the flow begins."""

    tracked: bool
    reason: str = ""
    """One line for people."""
    rules: tuple[SecurityGroupRule, ...] = ()
    """What makes it untracked: the rule that admits the flow, and the one that allows everything the other way. None
    for a flow that begins under an address that is not the interface's."""


Sides = tuple[Tracking, Tracking]
"""The side that opened the flow, and the other one."""


def tracking(world: World, flow: Flow) -> Sides:
    """Whether each side tracks a flow that begins under the present rules."""
    packet = first_packet(flow)
    return (
        _side(world, flow.sender, packet.leaving, packet, egress=True),
        _side(world, flow.receiver, packet.arriving, packet, egress=False),
    )


def _side(world: World, eni: NetworkInterface, seen: groups.Packet, packet: Moving, *, egress: bool) -> Tracking:
    own = not egress or packet.source in eni.addresses or world.endpoint_of_interface(eni.id) is not None
    if not own:
        return Tracking(False, f"{packet.source} is not of {eni.id}, which gains no part in a flow by it")
    if packet.protocol not in (groups.TCP, groups.UDP):
        return Tracking(True, f"{packet} is always tracked")
    if world.endpoint_of_interface(eni.id) is not None:  # its inbound rules count for nothing, so nor do they here
        return Tracking(True, f"{eni.id} is an endpoint's: its tunnels outlive its rules")
    there, back = ("outbound", "inbound") if egress else ("inbound", "outbound")
    admits = groups.any_address(world, eni.group_ids, seen, egress=egress)
    if admits is None:
        return Tracking(True, f"no {there} rule for any address admits it at {eni.id}")
    version = address(packet.destination).version
    returns = groups.all_ports(world, eni.group_ids, egress=not egress, protocol=packet.protocol, version=version)
    if returns is None:
        return Tracking(True, f"no {back} rule of {eni.id} allows any address all ports")
    return Tracking(False, f"{admits} admits it, and {returns} allows everything back", (admits, returns))


def judge_packet(
    world: World, flow: Flow, *, sides: Sides, reply: bool = False, icmp_error: tuple[int, int] | None = None
) -> Verdict:
    """Would a later packet of a flow pass now? `sides` is what `tracking` said when the flow began.

    `reply`: it goes back to the one that opened the flow. `icmp_error`: type and code of an ICMP error that an end of
    the flow sends about a packet of the flow that it received; it moves as the flow's own packets from there do.
    """
    return until_failure(_later(world, flow, sides, _moving(flow, reply, icmp_error)))


def _moving(flow: Flow, reply: bool, icmp_error: tuple[int, int] | None) -> Moving:
    sender, receiver = (flow.receiver, flow.sender) if reply else (flow.sender, flow.receiver)
    source, destination = flow.source_address, flow.destination
    protocol, port, code = flow.protocol, flow.port, flow.code
    if reply:
        source, destination = destination, source
        port = flow.source_port if protocol in (groups.TCP, groups.UDP) else port
    if icmp_error is not None:
        protocol = groups.ICMPV6 if ":" in source else groups.ICMP
        port, code = icmp_error
    return Moving(sender, receiver, source, destination, protocol, port, code, back=reply)


def _later(world: World, flow: Flow, sides: Sides, packet: Moving) -> Iterator[Step | None]:
    """The steps, in the packet's order. New connections to an endpoint are refused; what it asked for is not."""
    way = _way(world, flow, packet)
    across = way.peering is not None
    opened = not packet.back
    yield source_refusal(world, packet.sender, packet.source, opened=opened, leaves=across)
    yield way.step
    mine, other = reversed(sides) if packet.back else sides
    yield outbound(world, packet) if not mine.tracked else _passes(world, packet.sender, packet, "outbound")
    if way.peering is not None:
        yield peer_source_refusal(world, packet.sender, packet.source, way.peering)
    yield inbound(world, packet) if not other.tracked else _passes(world, packet.receiver, packet, "inbound")


def _way(world: World, flow: Flow, packet: Moving) -> Hop:
    """As `hop`; but replies to an address that an endpoint borrowed find their way by the flow's mark."""
    endpoint = world.endpoint_of_interface(flow.sender.id)
    if packet.back and endpoint is not None and flow.source_address not in flow.sender.addresses:
        return Hop(None)
    return hop(world, packet.sender, packet.receiver, packet.destination)


def _passes(world: World, eni: NetworkInterface, packet: Moving, direction: str) -> Step:
    others_end = packet.back is (direction == "outbound")
    name = f"{role(world, eni, 'target' if others_end else 'sender')}-{direction}"
    return Step(name, True, f"{eni.id} tracks the flow: {packet} passes whatever its rules", eni.id)
