"""The verdict on a flow, step by step, in the order in which the packets meet the decisions."""

from __future__ import annotations

from dataclasses import dataclass

from wicketgate.model import PROTOCOL_NUMBERS, NetworkInterface, SecurityGroupRule, Step, Verdict, World
from wicketgate.paths.groups import first_match

_NAMES = {number: name for name, number in PROTOCOL_NUMBERS.items()}


@dataclass(frozen=True)
class Flow:
    """The first packet of a connection between two network interfaces of one VPC."""

    sender: NetworkInterface
    receiver: NetworkInterface
    source_address: str
    """What the packet carries: the sender's own address, or a preserved client's."""
    protocol: int = 6
    port: int = 22
    """Destination port; for ICMP the type."""
    code: int = 0


def judge(world: World, *, endpoint_id: str, address: str, port: int, client_address: str) -> Verdict:
    """Would a tunnel's connection from an endpoint to a target pass? Steps stop at the first that fails."""
    endpoint = world.endpoint(endpoint_id)
    if endpoint is None:
        return Verdict((Step("endpoint", False, f"{endpoint_id} does not exist", endpoint_id),))
    sender = world.interface(endpoint.interface_id)
    assert sender is not None, "World.check has seen to it"
    vpc = world.vpc_of_subnet(endpoint.subnet_id)
    receiver = world.interface_at(vpc.id, address)
    if receiver is None:
        return Verdict((Step("route", False, f"no network interface of {vpc.id} has {address}", vpc.id),))
    instance = next((one for one in world.instances if one.interface_id == receiver.id), None)
    steps = [Step("route", True, f"{address} is {receiver.id} in {vpc.id}", receiver.id)]
    if instance is not None and instance.state != "running":
        return Verdict((*steps, Step("target", False, f"{instance.id} is {instance.state}", instance.id)))
    source = client_address if endpoint.preserve_client_ip else sender.private_ip_address
    kept = "the client's own" if endpoint.preserve_client_ip else "the endpoint's"
    steps.append(Step("source-address", True, f"the target sees {source}, {kept}", endpoint.id))
    return Verdict(tuple(steps)) + judge_flow(world, Flow(sender, receiver, source, 6, port))


def judge_flow(world: World, flow: Flow) -> Verdict:
    """Do source check, the sender's outbound rules and the receiver's inbound rules pass a flow's first packet?"""
    steps: list[Step] = []
    for step in (_source_check(world, flow), _to_endpoint(world, flow), _outbound(world, flow), _inbound(world, flow)):
        if step is not None:
            steps.append(step)
            if not step.passed:
                break
    return Verdict(tuple(steps))


def _source_check(world: World, flow: Flow) -> Step | None:
    endpoint = world.endpoint_of_interface(flow.sender.id)
    preserving = endpoint is not None and endpoint.preserve_client_ip
    if preserving or not flow.sender.source_dest_check or flow.source_address == flow.sender.private_ip_address:
        return None
    reason = f"{flow.source_address} is not an address of {flow.sender.id} (source/destination check)"
    return Step("source-check", False, reason, flow.sender.id)


def _to_endpoint(world: World, flow: Flow) -> Step | None:
    endpoint = world.endpoint_of_interface(flow.receiver.id)
    if endpoint is None:
        return None
    reason = f"{flow.receiver.private_ip_address} is {endpoint.id}: only the service connects to an endpoint"
    return Step("to-endpoint", False, reason, endpoint.id)


def _outbound(world: World, flow: Flow) -> Step:
    rule = first_match(
        world,
        flow.sender.group_ids,
        egress=True,
        protocol=flow.protocol,
        port=flow.port,
        code=flow.code,
        peer_address=flow.receiver.private_ip_address,
        peer_groups=frozenset(flow.receiver.group_ids),
    )
    endpoint = world.endpoint_of_interface(flow.sender.id)
    name = "endpoint-outbound" if endpoint else "sender-outbound"
    to = f"{_packet(flow)} to {flow.receiver.private_ip_address}"
    return _step(name, rule, "outbound", flow.sender, to)


def _inbound(world: World, flow: Flow) -> Step:
    rule = first_match(
        world,
        flow.receiver.group_ids,
        egress=False,
        protocol=flow.protocol,
        port=flow.port,
        code=flow.code,
        peer_address=flow.source_address,
        peer_groups=frozenset(flow.sender.group_ids),
    )
    return _step("target-inbound", rule, "inbound", flow.receiver, f"{_packet(flow)} from {flow.source_address}")


def _step(name: str, rule: SecurityGroupRule | None, direction: str, eni: NetworkInterface, packet: str) -> Step:
    if rule is not None:
        return Step(name, True, f"{rule} allows {packet}", rule.id)
    groups = ", ".join(eni.group_ids)
    return Step(name, False, f"no {direction} rule of {groups} allows {packet}", groups)


def _packet(flow: Flow) -> str:
    name = _NAMES.get(flow.protocol, f"protocol {flow.protocol}")
    if flow.protocol in (6, 17):
        return f"{name} {flow.port}"
    return f"{name} type {flow.port} code {flow.code}" if flow.protocol in (1, 58) else name
