"""What a way is made of, as the EC2 API shows it (PathComponent): interfaces, groups, route tables, headers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from wicketgate import paths
from wicketgate.control.route_tables import main_table
from wicketgate.explain.allowed import content_of
from wicketgate.explain.analyzer_question import End, Probe, holds, host_range
from wicketgate.explain.region import Span
from wicketgate.model import NetworkInterface, Route, RouteTable, SecurityGroup, SecurityGroupRule, World
from wicketgate.paths.routes import hop, in_vpc, route_table, vpc_ranges

Item = dict[str, Any]
"""A part of an answer, by the service model's member names."""

KINDS: Final[Mapping[str, tuple[str, str]]] = {
    "i": ("instance", "instances"),
    "eni": ("network-interface", "interfaces"),
    "sg": ("security-group", "groups"),
    "subnet": ("subnet", "subnets"),
    "vpc": ("vpc", "vpcs"),
    "rtb": ("route-table", "route_tables"),
    "pcx": ("vpc-peering-connection", "peerings"),
    "pl": ("prefix-list", "prefix_lists"),
    "eice": ("instance-connect-endpoint", "endpoints"),
}
"""Prefix of an id -> kind as ARNs have it, and field of the World."""
LOCAL: Final = {"GatewayId": "local", "Origin": "createroutetable", "State": "active"}


def arn_of(world: World, resource_id: str) -> str:
    """ARN of a resource that a way can have, existing or not; empty for other ids."""
    kind, _ = KINDS.get(resource_id.partition("-")[0], ("", ""))
    return f"arn:{world.partition}:ec2:{world.region}:{world.account_id}:{kind}/{resource_id}" if kind else ""


def id_in(world: World, text: str) -> str:
    """The id that an ARN of this account and region names, or the text as it is when it is no ARN; empty for an ARN of
    anything else."""
    if not text.startswith("arn:"):
        return text
    resource_id = text.rpartition("/")[2]
    return resource_id if arn_of(world, resource_id) == text else ""


def component(world: World, resource_id: str) -> Item:
    """A resource as an AnalysisComponent: id, ARN, and the tag Name if it has one."""
    _, field = KINDS[resource_id.partition("-")[0]]
    there = world.by_id(field).get(resource_id)
    name = "" if there is None else there.tags.get("Name", "")
    return {"Id": resource_id, "Arn": arn_of(world, resource_id)} | ({"Name": name} if name else {})


def rule_item(rule: SecurityGroupRule) -> Item:
    """A rule as an AnalysisSecurityGroupRule. SecurityGroupId is the group that it refers to."""
    item: Item = {"Direction": "egress" if rule.is_egress else "ingress"}
    item["Protocol"] = "all" if rule.ip_protocol == "-1" else rule.ip_protocol
    if rule.ip_protocol in ("tcp", "udp"):
        item["PortRange"] = ports_item((rule.from_port, rule.to_port))
    if rule.prefix_list_id is not None:
        return item | {"PrefixListId": rule.prefix_list_id}
    if rule.referenced_group_id is not None:
        return item | {"SecurityGroupId": rule.referenced_group_id}
    return item | {"Cidr": rule.peer}


def ports_item(ports: Span) -> Item:
    """A range of ports as a PortRange."""
    return {"From": ports[0], "To": ports[1]}


def route_item(world: World, vpc_id: str, route: Route) -> Item:
    """A route to a peered VPC as an AnalysisRouteTableRoute."""
    active = any(one.id == route.peering_id for one in world.active_peerings(vpc_id))
    return {
        "DestinationCidr": route.destination,
        "VpcPeeringConnectionId": route.peering_id,
        "Origin": "createroute",
        "State": "active" if active else "blackhole",
    }


def table_of(world: World, eni: NetworkInterface) -> RouteTable:
    """The route table that an interface's packets follow, kept or not."""
    vpc = world.vpc_of_subnet(eni.subnet_id)
    return route_table(world, eni.subnet_id, vpc.id) or main_table(world, vpc.id)


def place(world: World, eni: NetworkInterface) -> Item:
    """Subnet and VPC of an interface."""
    return {
        "Subnet": component(world, eni.subnet_id),
        "Vpc": component(world, world.vpc_of_subnet(eni.subnet_id).id),
    }


def group_of(world: World, eni: NetworkInterface, rule: SecurityGroupRule) -> SecurityGroup:
    """The group of an interface that has a rule."""
    return next(group for group in filter(None, map(world.group, eni.group_ids)) if rule in group.rules)


# -- ways --------------------------------------------------------------------------------------------------------------


def forward(world: World, probe: Probe, rules: tuple[SecurityGroupRule, SecurityGroupRule]) -> tuple[Item, ...]:
    """The way of the first packet, by the rules that let it out and in."""
    header = _header(probe, rules)
    sender, receiver = probe.sender, probe.receiver
    leaving = _with_group(world, sender.interface, rules[0], rules[0])
    arriving = _with_group(world, receiver.interface, rules[1], rules[1])
    items = [
        *_beginning(world, sender, leaving),
        *_between(world, sender.interface, receiver.interface, probe.flow.destination),
        *reversed(_beginning(world, receiver, arriving)),
    ]
    items = _without_twice(items)
    items[0]["OutboundHeader"] = header
    if sender.endpoint is not None:
        before = {"SourceAddresses": [host_range(probe.client)]} if probe.client else {}
        items[0]["InboundHeader"] = {name: one for name, one in header.items() if "Source" not in name} | before
    items[-1]["InboundHeader"] = header
    return _numbered(items)


def back(
    world: World, probe: Probe, rules: tuple[SecurityGroupRule, SecurityGroupRule], sides: paths.Sides
) -> tuple[Item, ...]:
    """The way of the replies. A group has a rule there only at an interface that does not track the connection."""
    header = _swapped(_header(probe, rules))
    sender, receiver, flow = probe.sender, probe.receiver, probe.flow
    first = _with_group(world, receiver.interface, rules[1], None if sides[1].tracked else sides[1].rules[1])
    last = _with_group(world, sender.interface, rules[0], None if sides[0].tracked else sides[0].rules[1])
    vpc = world.vpc_of_subnet(receiver.interface.subnet_id)
    borrowed = sender.endpoint is not None and not in_vpc(vpc, flow.source_address)
    way = [] if borrowed else _between(world, receiver.interface, sender.interface, flow.source_address)
    items = _without_twice([*_beginning(world, receiver, first), *way, *reversed(_beginning(world, sender, last))])
    items[0]["OutboundHeader"] = items[-1]["InboundHeader"] = header
    return _numbered(items)


def _beginning(world: World, end: End, group: Item) -> list[Item]:
    """The components of one end, from the outside in: what the path names, the interface, the group."""
    if end.peering is not None:
        return [{"Component": component(world, end.peering.id)}]
    eni = end.interface
    attached = {"AttachedTo": component(world, end.instance.id)} if end.instance is not None else {}
    named = [] if end.asked == eni.id else [{"Component": component(world, end.asked)}]
    return [*named, {"Component": component(world, eni.id), **attached, **place(world, eni)}, group]


def _with_group(world: World, eni: NetworkInterface, by: SecurityGroupRule, shown: SecurityGroupRule | None) -> Item:
    """The group that has the rule to be shown or, where none is, the one that let the connection begin."""
    owner = component(world, group_of(world, eni, shown or by).id)
    return {"Component": owner} | ({"SecurityGroupRule": rule_item(shown)} if shown else {})


def _between(world: World, sender: NetworkInterface, receiver: NetworkInterface, destination: str) -> list[Item]:
    """Route table and peering connection; nothing within a subnet."""
    if sender.subnet_id == receiver.subnet_id:
        return []
    table, way = table_of(world, sender), hop(world, sender, receiver, destination)
    shown: Item = {"Component": component(world, table.id), "Vpc": component(world, table.vpc_id)}
    here, there = (world.vpc_of_subnet(one.subnet_id) for one in (sender, receiver))
    if way.peering is None:
        local = next(one for one in vpc_ranges(here) if holds(one, destination))
        return [{**shown, "RouteTableRoute": {"DestinationCidr": local, **LOCAL}}]
    holding = [one for one in table.routes if holds(one.destination, destination)]
    route = max(holding, key=lambda one: int(one.destination.rpartition("/")[2]))
    ends = {"SourceVpc": component(world, here.id), "DestinationVpc": component(world, there.id)}
    return [
        {**shown, "RouteTableRoute": route_item(world, here.id, route)},
        {"Component": component(world, way.peering.id), **ends},
    ]


def _without_twice(items: Sequence[Item]) -> list[Item]:
    """A peering connection that the path names stands once, and what is before it as a source, or behind it as a
    destination, is not the path's business."""
    ids = [item["Component"]["Id"] for item in items]
    first = len(ids) - 1 - ids[::-1].index(ids[0]) if ids[0].startswith("pcx-") else 0
    last = ids.index(ids[-1]) if ids[-1].startswith("pcx-") else len(ids) - 1
    return [dict(item) for item in items[first : max(first, last) + 1]]


def _header(probe: Probe, rules: Sequence[SecurityGroupRule]) -> Item:
    """The packets that pass like the one that was tried, as an AnalysisPacketHeader."""
    flow, asked = probe.flow, probe.wanted
    ports = [asked.ports, *(content_of(rule).ports for rule in rules)]
    span = max(one[0] for one in ports), min(one[1] for one in ports)
    if probe.sender.endpoint is not None:
        span = flow.port, flow.port
    return {
        "DestinationAddresses": [host_range(flow.destination)],
        "DestinationPortRanges": [ports_item(span)],
        "Protocol": str(flow.protocol),
        "SourceAddresses": [host_range(flow.source_address)],
        "SourcePortRanges": [ports_item(asked.source_ports)],
    }


def _swapped(header: Item) -> Item:
    ends = {"Source": "Destination", "Destination": "Source"}
    return {
        next((name.replace(one, ends[one]) for one in ends if name.startswith(one)), name): value
        for name, value in header.items()
    }


def _numbered(items: Sequence[Item]) -> tuple[Item, ...]:
    return tuple({"SequenceNumber": number, **item} for number, item in enumerate(items, 1))
