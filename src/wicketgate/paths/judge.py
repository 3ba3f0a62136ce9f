"""The verdict on a flow, step by step, in the order in which the packets meet the decisions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from wicketgate.model import (
    PROTOCOL_NUMBERS,
    Endpoint,
    NetworkInterface,
    PrefixListEntry,
    SecurityGroupRule,
    Step,
    Verdict,
    World,
)
from wicketgate.paths import groups
from wicketgate.paths.ranges import address as parsed
from wicketgate.paths.ranges import canonical, never_forwarded
from wicketgate.paths.routes import hop, in_vpc, peer_source_refusal, source_refusal

_NAMES = {number: name for name, number in PROTOCOL_NUMBERS.items()}


@dataclass(frozen=True)
class Flow:
    """A connection between two network interfaces of one VPC or of two peered ones, by its first packet."""

    sender: NetworkInterface
    receiver: NetworkInterface
    source_address: str
    """What the packet carries: an address of the sender's, a preserved client's, or a forged one. Canonical."""
    protocol: int = 6
    port: int = 22
    """Destination port; for ICMP the type."""
    code: int = 0
    destination_address: str = ""
    """Which of the receiver's addresses; empty = its first one of the source's family."""
    source_port: int = 0
    """What replies are sent to, for TCP and UDP. No rule asks for it until a reply is judged by the rules."""

    @property
    def destination(self) -> str:
        """The destination address; empty when the receiver has none of the source's family."""
        if self.destination_address:
            return self.destination_address
        six = ":" in self.source_address
        return next((one for one in self.receiver.addresses if (":" in one) is six), "")


def judge(world: World, *, endpoint_id: str, address: str, port: int, client_address: str) -> Verdict:
    """Would a tunnel's connection from an endpoint to a target pass? Steps stop at the first that fails."""
    endpoint = world.endpoint(endpoint_id)
    if endpoint is None:
        return Verdict((Step("endpoint", False, f"{endpoint_id} does not exist", endpoint_id),))
    sender = world.interface(endpoint.interface_id)
    assert sender is not None, "World.check has seen to it"
    address, client_address = canonical(address), canonical(client_address)
    own = next((one for one in sender.addresses if (":" in one) is (":" in address)), None)
    family = "ipv6" if ":" in address else "ipv4"
    if own is None or endpoint.ip_address_type not in ("dualstack", family):
        words = f"{endpoint.id} is of type {endpoint.ip_address_type} and does not reach {address}"
        return Verdict((Step("address-family", False, words, endpoint.id),))
    vpc = world.vpc_of_subnet(endpoint.subnet_id)
    receiver = world.interface_at(vpc.id, address)
    if receiver is None:
        return Verdict((Step("route", False, f"no network interface of {vpc.id} has {address}", vpc.id),))
    instance = world.instance_of_interface(receiver.id)
    steps = [Step("route", True, f"{address} is {receiver.id} in {vpc.id}", receiver.id)]
    if instance is not None and not instance.may_answer:
        return Verdict((*steps, Step("target", False, f"{instance.id} is {instance.state}", instance.id)))
    source = _tunnel_source(world, endpoint, receiver, own, client_address)
    kept = "the client's own" if source != own else "the endpoint's"
    steps.append(Step("source-address", True, f"the target sees {source}, {kept}", endpoint.id))
    flow = Flow(sender, receiver, source, 6, port, destination_address=address)
    return Verdict(tuple(steps)) + judge_flow(world, flow)


def _tunnel_source(world: World, endpoint: Endpoint, receiver: NetworkInterface, own: str, client_address: str) -> str:
    """The client's address where it is preserved. Where it cannot be, netd refuses the tunnel before the kernel judges,
    or connects from the endpoint's own address (the setting `unpreservable_client`)."""
    if not endpoint.preserve_client_ip or (":" in own) is not (":" in client_address):
        return own
    if not world.replies_return(receiver):
        return own
    if ":" in own and not world.settings.preserve_client_ipv6:
        return own
    vpc = world.vpc_of_subnet(endpoint.subnet_id)
    return own if never_forwarded(client_address) or in_vpc(vpc, client_address) else client_address


def judge_flow(world: World, flow: Flow) -> Verdict:
    """Do source check, routes, the sender's outbound and the receiver's inbound rules pass a flow's first packet?"""
    return until_failure(_first_packet(world, flow))


def covering(world: World, flow: Flow) -> tuple[tuple[SecurityGroupRule, ...], tuple[SecurityGroupRule, ...]]:
    """All of the sender's outbound and all of the receiver's inbound rules that cover a flow's first packet."""
    packet = first_packet(flow)
    return (
        tuple(rule for rule, _ in groups.covering(world, packet.sender.group_ids, packet.leaving, egress=True)),
        tuple(rule for rule, _ in groups.covering(world, packet.receiver.group_ids, packet.arriving, egress=False)),
    )


def _first_packet(world: World, flow: Flow) -> Iterator[Step | None]:
    packet = first_packet(flow)
    way = hop(world, flow.sender, flow.receiver, flow.destination)
    yield source_refusal(world, flow.sender, flow.source_address, opened=False, leaves=way.peering is not None)
    yield way.step
    if way.peering is None:
        yield _to_endpoint(world, flow)
        yield outbound(world, packet)
    else:  # the receiver's router sees only what the sender's let go
        yield outbound(world, packet)
        yield peer_source_refusal(world, flow.sender, flow.source_address, way.peering)
        yield _to_endpoint(world, flow)
    yield inbound(world, packet)


def until_failure(steps: Iterable[Step | None]) -> Verdict:
    """The verdict of steps that are not found out before they are asked for; None = nothing to say."""
    found: list[Step] = []
    for step in steps:
        if step is not None:
            found.append(step)
            if not step.passed:
                break
    return Verdict(tuple(found))


class Moving(NamedTuple):
    """One packet on its way between two network interfaces, be it of a flow's first direction or back."""

    sender: NetworkInterface
    receiver: NetworkInterface
    source: str
    destination: str
    protocol: int
    port: int
    """Destination port; for ICMP the type."""
    code: int
    back: bool = False
    """Whether it goes to the one that opened the flow."""

    @property
    def leaving(self) -> groups.Packet:
        """What the sender's outbound rules see."""
        peer_groups = frozenset(self.receiver.group_ids)
        return groups.Packet(self.protocol, self.port, self.code, parsed(self.destination), peer_groups)

    @property
    def arriving(self) -> groups.Packet:
        """What the receiver's inbound rules see."""
        peer_groups = frozenset(self.sender.group_ids)
        return groups.Packet(self.protocol, self.port, self.code, parsed(self.source), peer_groups)

    def __str__(self) -> str:
        name = _NAMES.get(self.protocol, f"protocol {self.protocol}")
        if self.protocol in (groups.TCP, groups.UDP):
            return f"{name} {self.port}"
        icmp = self.protocol in (groups.ICMP, groups.ICMPV6)
        return f"{name} type {self.port} code {self.code}" if icmp else name


def first_packet(flow: Flow) -> Moving:
    """A flow's first packet."""
    return Moving(
        flow.sender, flow.receiver, flow.source_address, flow.destination, flow.protocol, flow.port, flow.code
    )


def outbound(world: World, packet: Moving) -> Step:
    """Whether the outbound rules of the packet's sender allow it."""
    found = next(groups.covering(world, packet.sender.group_ids, packet.leaving, egress=True), None)
    name = f"{role(world, packet.sender, 'target' if packet.back else 'sender')}-outbound"
    return _step(name, found, "outbound", packet.sender, f"{packet} to {packet.destination}")


def inbound(world: World, packet: Moving) -> Step:
    """Whether the inbound rules of the packet's receiver allow it."""
    found = next(groups.covering(world, packet.receiver.group_ids, packet.arriving, egress=False), None)
    name = f"{role(world, packet.receiver, 'sender' if packet.back else 'target')}-inbound"
    return _step(name, found, "inbound", packet.receiver, f"{packet} from {packet.source}")


def role(world: World, eni: NetworkInterface, otherwise: str) -> str:
    """How the steps call a network interface's end of a flow."""
    return "endpoint" if world.endpoint_of_interface(eni.id) is not None else otherwise


def _to_endpoint(world: World, flow: Flow) -> Step | None:
    endpoint = world.endpoint_of_interface(flow.receiver.id)
    if endpoint is None:
        return None
    reason = f"{flow.destination} is {endpoint.id}: only the service connects to an endpoint"
    return Step("to-endpoint", False, reason, endpoint.id)


def _step(
    name: str,
    found: tuple[SecurityGroupRule, PrefixListEntry | None] | None,
    direction: str,
    eni: NetworkInterface,
    packet: str,
) -> Step:
    if found is None:
        names = ", ".join(eni.group_ids)
        return Step(name, False, f"no {direction} rule of {names} allows {packet}", names)
    rule, entry = found
    by = "" if entry is None else f" by entry {entry.cidr}"
    return Step(name, True, f"{rule} allows {packet}{by}", rule.id)
