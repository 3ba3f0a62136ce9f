"""Why a packet does not get there, in AWS's explanation codes (Reachability Analyzer guide, explanation codes).

Every hindrance is told, not only the first one: who mends that should not find the next by asking again. Each is asked
of the functions that also make the verdict.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from wicketgate import paths
from wicketgate.explain.analyzer_components import (
    Item,
    component,
    group_of,
    place,
    ports_item,
    route_item,
    rule_item,
    table_of,
)
from wicketgate.explain.analyzer_question import End, Probe, holds
from wicketgate.model import CONNECTABLE_STATES, NetworkInterface, SecurityGroupRule, Vpc, World
from wicketgate.paths.judge import first_packet, inbound, outbound
from wicketgate.paths.ranges import never_forwarded
from wicketgate.paths.routes import hop, in_vpc, peer_source_refusal, source_refusal
from wicketgate.tunnel.targets import target_refusal

TCP: Final = 6


def states(world: World, probe: Probe) -> Iterator[Item]:
    """What is not running, not active or not what the path takes it for; and what endpoints do not do."""
    for end in (probe.sender, probe.receiver):
        if end.instance is not None and not end.instance.may_answer:
            yield _code("BAD_STATE", Component=component(world, end.instance.id), State=end.instance.state)
        if end.peering is not None and end.peering not in world.active_peerings(end.peering.requester_vpc_id):
            shown = component(world, end.peering.id)
            yield _code("BAD_STATE", Component=shown, VpcPeeringConnection=shown, State=end.peering.status)
    if probe.sender.endpoint is not None:
        yield from _endpoint(world, probe)
    if probe.wanted.arriving_source not in ("", probe.flow.source_address):
        yield _code("FILTER_AT_DESTINATION_SOURCE_ADDRESS", Address=probe.wanted.arriving_source)


def _endpoint(world: World, probe: Probe) -> Iterator[Item]:
    """What `admit` and the gateway refuse before they dial."""
    endpoint, flow = probe.sender.endpoint, probe.flow
    assert endpoint is not None, "asked for endpoints alone"
    shown = component(world, endpoint.id)
    if endpoint.state not in CONNECTABLE_STATES:
        yield _code("BAD_STATE", Component=shown, State=endpoint.state)
    if flow.protocol != TCP:
        yield _code("PROTOCOL_RESTRICTION", Component=shown, Protocols=["tcp"])
    offered = world.settings.allowed_ports
    if offered and flow.port not in offered:
        ports = [ports_item((port, port)) for port in offered]
        yield _code("TARGET_PORT_RESTRICTION", Component=shown, PortRanges=ports)
    if target_refusal(world, endpoint, flow.destination) is not None:
        yield _code("ENI_ADDRESS_RESTRICTION", Component=shown, Address=flow.destination, Direction="egress")
    if probe.unpreservable:
        yield _code("ENI_ADDRESS_RESTRICTION", Component=shown, Address=probe.client, Direction="ingress")


def on_the_way(world: World, flow: paths.Flow) -> Iterator[Item]:
    """What hinders a flow's first packet, in its order."""
    packet = first_packet(flow)
    sender, receiver = flow.sender, flow.receiver
    way = hop(world, sender, receiver, flow.destination)
    leaves = way.peering is not None
    if source_refusal(world, sender, flow.source_address, opened=False, leaves=leaves) is not None:
        yield _forged(world, flow)
    if not way.arrives:
        yield from route(world, sender, receiver, flow.destination)
    if not outbound(world, packet).passed:
        yield from _groups(world, flow, egress=True)
    if way.peering is not None and peer_source_refusal(world, sender, flow.source_address, way.peering) is not None:
        shown = component(world, way.peering.id)
        yield _code(
            "PCX_REQUIRES_ADDRESS_IN_VPC_CIDR",
            Component=shown,
            VpcPeeringConnection=shown,
            Address=flow.source_address,
            PacketField="source-address",
        )
    endpoint = world.endpoint_of_interface(receiver.id)
    if endpoint is not None:
        yield _code("UNSUPPORTED_COMPONENT", Component=component(world, endpoint.id), Direction="ingress")
    if not inbound(world, packet).passed:
        yield from _groups(world, flow, egress=False)


def _forged(world: World, flow: paths.Flow) -> Item:
    """An interface that sends from an address that is not its own."""
    sender, source = flow.sender, flow.source_address
    checked = sender.source_dest_check and world.endpoint_of_interface(sender.id) is None
    if never_forwarded(source) or not (checked or in_vpc(world.vpc_of_subnet(sender.subnet_id), source)):
        code = "ENI_ADDRESS_RESTRICTION"
    else:
        code = "ENI_SOURCE_DEST_CHECK_RESTRICTION" if checked else "GATEWAY_REJECTS_SPOOFED_TRAFFIC"
    return _code(code, **_at(world, sender), Address=source, Direction="egress", PacketField="source-address")


# -- routes ------------------------------------------------------------------------------------------------------------


def route(world: World, sender: NetworkInterface, receiver: NetworkInterface, destination: str) -> Iterator[Item]:
    """Why a packet to an address of the receiver does not reach it, rules apart."""
    here, there = (world.vpc_of_subnet(one.subnet_id) for one in (sender, receiver))
    if destination not in receiver.addresses:
        given = {"Address": destination} if destination else {}
        yield _code(
            "ENI_ADDRESS_RESTRICTION",
            **_at(world, receiver),
            **given,
            Direction="ingress",
            PacketField="destination-address",
        )
        return
    if in_vpc(here, destination):
        shown = {"RouteTable": component(world, table_of(world, sender).id), "Vpc": component(world, here.id)}
        yield _code("VPC_LOCAL_ROUTE_CIDR_RESTRICTION", **shown, Address=destination, Cidrs=[here.cidr_block])
        return
    peered = any(one.other(here.id) == there.id for one in world.active_peerings(here.id))
    if not peered or world.endpoint_of_interface(sender.id) is not None:
        yield _code("DISCONNECTED_VPCS", SourceVpc=component(world, here.id), DestinationVpc=component(world, there.id))
    yield from _table(world, sender, here, there, destination)


def _table(world: World, sender: NetworkInterface, here: Vpc, there: Vpc, destination: str) -> Iterator[Item]:
    """What the sender's route table has that is of no use, or has not."""
    table = table_of(world, sender)
    shown = {"RouteTable": component(world, table.id), **place(world, sender)}
    holding = [one for one in table.routes if holds(one.destination, destination)]
    if not holding:
        yield _code("NO_ROUTE_TO_DESTINATION", **shown, Address=destination)
    taken = max(holding, key=lambda one: int(one.destination.rpartition("/")[2]), default=None)
    for one in table.routes:
        peering = world.peering(one.peering_id)
        item = route_item(world, here.id, one)
        leads = peering is not None and peering.other(here.id) == there.id
        if one is taken and item["State"] != "active":
            yield _code("BAD_STATE_ROUTE", **shown, RouteTableRoute=item, State=item["State"])
            if peering is not None:
                pcx = component(world, peering.id)
                yield _code("BAD_STATE", Component=pcx, VpcPeeringConnection=pcx, State=peering.status)
        elif one is taken and not leads:
            yield _code("NO_POSSIBLE_DESTINATION", **shown, RouteTableRoute=item, Address=destination)
        elif leads and one in holding and one is not taken:
            yield _code("MORE_SPECIFIC_ROUTE", **shown, RouteTableRoute=item)
        elif leads and one not in holding:
            yield _code("CANNOT_ROUTE", **shown, RouteTableRoute=item, Address=destination)


# -- groups ------------------------------------------------------------------------------------------------------------


def _groups(world: World, flow: paths.Flow, *, egress: bool) -> Iterator[Item]:
    """An interface whose groups let nothing like it out, or in."""
    eni = flow.sender if egress else flow.receiver
    direction = {"Direction": "egress" if egress else "ingress"}
    groups = [group for group in map(world.group, eni.group_ids) if group is not None]
    shown = [component(world, group.id) for group in groups]
    if any(group.outbound if egress else group.inbound for group in groups):
        yield _code("ENI_SG_RULES_MISMATCH", **direction, SecurityGroups=shown, **_at(world, eni))
    else:
        for group in shown:
            yield _code("SG_HAS_NO_RULES", **direction, SecurityGroup=group, **_at(world, eni))
    for rule in _stale(world, flow, eni, egress=egress):
        peering = {"VpcPeeringConnection": component(world, rule.peering_id)} if world.peering(rule.peering_id) else {}
        owner = component(world, group_of(world, eni, rule).id)
        yield _code(
            "UNKNOWN_PEERED_SGS", **direction, SecurityGroup=owner, SecurityGroupRule=rule_item(rule), **peering
        )


def _stale(world: World, flow: paths.Flow, eni: NetworkInterface, *, egress: bool) -> Iterator[SecurityGroupRule]:
    """Rules that would allow the packet if the group that they refer to were still in a peered VPC."""
    other = flow.receiver if egress else flow.sender
    for group in filter(None, map(world.group, eni.group_ids)):
        for rule in group.outbound if egress else group.inbound:
            if rule.referenced_group_id is not None and world.referenced_group(group, rule) is None:
                fits = paths.allows(
                    rule,
                    protocol=flow.protocol,
                    port=flow.port,
                    code=flow.code,
                    peer_address=flow.destination if egress else flow.source_address,
                    peer_groups=frozenset(other.group_ids),
                )
                if fits:
                    yield rule


# -- what there is not -------------------------------------------------------------------------------------------------


def missing(world: World, resource_id: str, what: str) -> Item:
    """An end that is gone, or that has no network interface. `what`: `source` or `destination`."""
    there = world.instance(resource_id) is not None or world.peering(resource_id) is not None
    if not there:
        return _code("NO_SOURCE_OR_DESTINATION", MissingComponent=what)
    return _code("UNASSOCIATED_COMPONENT", Component=component(world, resource_id))


def unknown_destination(world: World, sender: End, address: str) -> Item:
    """An address that nothing within reach holds."""
    vpc = world.vpc_of_subnet(sender.interface.subnet_id)
    return _code("NO_POSSIBLE_DESTINATION", Vpc=component(world, vpc.id), Address=address)


def plain(code: str) -> Item:
    """A code that says it all."""
    return _code(code)


def filtered(world: World, arn: str, *, removed: bool) -> Item:
    """A component that no path traverses, or that every path traverses and that it had to do without."""
    code = "COMPONENT_FILTER_RESTRICTION_REMOVED_COMPONENT" if removed else "COMPONENT_FILTER_RESTRICTION"
    return _code(code, Component={"Id": arn.rpartition("/")[2], "Arn": arn})


def _at(world: World, eni: NetworkInterface) -> Item:
    return {"NetworkInterface": component(world, eni.id), **place(world, eni)}


def _code(code: str, /, **members: object) -> Item:
    return {"ExplanationCode": code, **members}
