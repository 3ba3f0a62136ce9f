"""Route tables: which peered VPCs the packets of a subnet reach.

Every VPC has a main table, which subnets without an association of their own follow. It is kept once something about it
is changed; until then it is one with only the local routes and an id that follows from the VPC's. Local routes are not
kept, they follow from the VPC's ranges. An association is known by its table and subnet, and so is its id. Only
CreateRouteTable takes a ClientToken. (VPC User Guide, "Configure route tables". The routes themselves: `routes`.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from wicketgate.control import common, resources
from wicketgate.control.call import Ask, Call, Outcome, operation
from wicketgate.control.common import AWS_QUOTAS, Quotas
from wicketgate.control.resources import SUBNET, VPC, Kind, found
from wicketgate.model import ApiError, RouteTable, World
from wicketgate.model.resources import IPv4or6Network

MIN_RESULTS, MAX_RESULTS = 5, 100
"""Bounds of MaxResults (EC2 API Reference, DescribeRouteTables)."""


# -- tables and associations -------------------------------------------------------------------------------------------


def main_table(world: World, vpc_id: str) -> RouteTable:
    """The main table of a VPC, kept or not."""
    kept = next((one for one in world.route_tables if one.vpc_id == vpc_id and one.main), None)
    return kept or RouteTable(id=resources.derived("rtb-", vpc_id), vpc_id=vpc_id, main=True)


def all_tables(world: World) -> list[RouteTable]:
    """All route tables, main ones that are not kept first."""
    with_main = {one.vpc_id for one in world.route_tables if one.main}
    return [*(main_table(world, vpc.id) for vpc in world.vpcs if vpc.id not in with_main), *world.route_tables]


def _table(world: World, table_id: str) -> RouteTable | None:
    return world.route_table(table_id) or next((one for one in all_tables(world) if one.id == table_id), None)


ROUTE_TABLE = Kind[RouteTable](
    "rtb", "routeTable", _table, "InvalidRouteTableID.NotFound", "InvalidRouteTableId.Malformed"
)


def local_ranges(world: World, vpc_id: str) -> tuple[IPv4or6Network, ...]:
    """The ranges of a VPC: the destinations of its local routes."""
    return found(VPC, world, vpc_id).networks


def without_subnet(world: World, subnet_id: str) -> list[RouteTable]:
    """The table that the subnet is associated with, as it is without; none when it follows the main table."""
    table = _table_of_subnet(world, subnet_id)
    return [] if table is None else [_taken_from(table, subnet_id)]


def _table_of_subnet(world: World, subnet_id: str) -> RouteTable | None:
    """The table that a subnet is explicitly associated with."""
    return next((one for one in world.route_tables if subnet_id in one.subnet_ids), None)


def _taken_from(table: RouteTable, subnet_id: str) -> RouteTable:
    return replace(table, subnet_ids=tuple(one for one in table.subnet_ids if one != subnet_id))


def _associations(table: RouteTable) -> Iterator[tuple[str, str]]:
    """Id and subnet of each association of a table; the one with the VPC, the main one, has no subnet."""
    if table.main:
        yield resources.derived("rtbassoc-", table.id), ""
    for subnet_id in table.subnet_ids:
        yield association_id(table, subnet_id), subnet_id


def association_id(table: RouteTable, subnet_id: str) -> str:
    """The id of the association of a table with a subnet."""
    return resources.derived("rtbassoc-", table.id, subnet_id)


def _find_association(world: World, wanted: str) -> tuple[RouteTable, str] | None:
    for table in all_tables(world):
        for one, subnet_id in _associations(table):
            if one == wanted:
                return table, subnet_id
    return None


def _association(call: Call) -> tuple[RouteTable, str]:
    """Table and subnet of the association that the call names. Raises InvalidAssociationID.NotFound."""
    wanted = call.parameters["AssociationId"]
    association = _find_association(call.world, wanted)
    if association is None:
        raise ApiError("InvalidAssociationID.NotFound", f"The association ID '{wanted}' does not exist")
    return association


# -- questions to IAM --------------------------------------------------------------------------------------------------


def _about_table(call: Call, table_id: str) -> Ask:
    table = _table(call.world, table_id)
    context = common.ec2_context(
        call,
        table.tags if table else None,
        RouteTableID=table_id,
        Vpc=call.arn(f"vpc/{table.vpc_id}") if table else None,
    )
    return Ask(f"ec2:{call.action}", call.arn(f"route-table/{table_id}"), context)


def ask_table(call: Call) -> Sequence[Ask]:
    """May this be done to the table that the call names?"""
    return (_about_table(call, call.parameters["RouteTableId"]),)


def _ask_create(call: Call) -> Sequence[Ask]:
    vpc_id = call.parameters["VpcId"]
    context = common.ec2_context(call, Vpc=call.arn(f"vpc/{vpc_id}")) | common.request_tags(call, "route-table")
    new = Ask(f"ec2:{call.action}", call.arn("route-table/*"), context)
    return (new, resources.about_vpc(call, call.action, vpc_id), *resources.about_tagging(call, "route-table"))


def _ask_associate(call: Call) -> Sequence[Ask]:
    subnet_id = call.parameters.get("SubnetId")
    return (*ask_table(call), *((resources.about_subnet(call, call.action, subnet_id),) if subnet_id else ()))


def _ask_association(call: Call) -> Sequence[Ask]:
    """The tables that the association is and will be with, and its subnet."""
    association = _find_association(call.world, call.parameters["AssociationId"])
    table_id, subnet_id = (association[0].id, association[1]) if association else ("*", "")
    tables = dict.fromkeys([table_id, *filter(None, [call.parameters.get("RouteTableId")])])
    subnets = [resources.about_subnet(call, call.action, subnet_id)] if subnet_id else []
    return (*(_about_table(call, one) for one in tables), *subnets)


# -- create, delete, associate -----------------------------------------------------------------------------------------


@operation("ec2", asks=_ask_create)
def create_route_table(call: Call, quotas: Quotas = AWS_QUOTAS) -> Outcome:
    """A table with the local routes, which nothing follows yet. Raises RouteTableLimitExceeded."""
    world, token = call.world, call.parameters.get("ClientToken")
    vpc = found(VPC, world, call.parameters["VpcId"])
    tags = common.tags_from(call.parameters, "route-table")
    if sum(one.vpc_id == vpc.id for one in all_tables(world)) >= quotas.route_tables_per_vpc:
        raise ApiError("RouteTableLimitExceeded", "The maximum number of route tables has been reached.")
    table = RouteTable(id=call.new_id("rtb"), vpc_id=vpc.id, tags=tags)
    answer = {"RouteTable": _answer(world, table)} | ({"ClientToken": token} if token else {})
    return Outcome(answer, call.change(table))


@operation("ec2", asks=ask_table)
def delete_route_table(call: Call) -> Outcome:
    """Ends a table. Raises DependencyViolation for the main one and while subnets are associated."""
    table = found(ROUTE_TABLE, call.world, call.parameters["RouteTableId"])
    if table.main or table.subnet_ids:
        raise ApiError("DependencyViolation", f"The routeTable '{table.id}' has dependencies and cannot be deleted.")
    return Outcome({}, call.change(deletes=[("route-table", table.id)]))


@operation("ec2", asks=_ask_associate)
def associate_route_table(call: Call) -> Outcome:
    """Has a subnet follow a table instead of the main one.

    Raises Resource.AlreadyAssociated when it follows another one, InvalidParameterValue across VPCs.
    """
    world, parameters = call.world, call.parameters
    resources.refuse_parameters(parameters, ("GatewayId", "PublicIpv4Pool"), call.action)
    if not parameters.get("SubnetId"):
        raise ApiError("MissingParameter", "The request must contain exactly one of subnetId or gatewayId")
    table = found(ROUTE_TABLE, world, parameters["RouteTableId"])
    subnet = found(SUBNET, world, parameters["SubnetId"])
    _check_same_vpc(table, subnet.vpc_id, f"subnet {subnet.id}")
    before = _table_of_subnet(world, subnet.id)
    answer = {"AssociationId": association_id(table, subnet.id), "AssociationState": {"State": "associated"}}
    if before is None:
        return Outcome(answer, call.change(replace(table, subnet_ids=(*table.subnet_ids, subnet.id))))
    if before.id == table.id:
        return Outcome(answer)
    raise ApiError(
        "Resource.AlreadyAssociated",
        f"the specified association for route table {table.id} conflicts with an existing association",
    )


def _check_same_vpc(table: RouteTable, vpc_id: str, what: str) -> None:
    if table.vpc_id != vpc_id:
        raise ApiError("InvalidParameterValue", f"route table {table.id} and {what} belong to different networks")


@operation("ec2", asks=_ask_association)
def disassociate_route_table(call: Call) -> Outcome:
    """Has a subnet follow the main table again. Raises InvalidParameterValue for the main association."""
    table, subnet_id = _association(call)
    if not subnet_id:
        wanted = call.parameters["AssociationId"]
        raise ApiError("InvalidParameterValue", f"cannot disassociate the main route table association {wanted}")
    return Outcome({}, call.change(_taken_from(table, subnet_id)))


@operation("ec2", asks=_ask_association)
def replace_route_table_association(call: Call) -> Outcome:
    """Has a subnet, or with the main association all subnets without one of their own, follow another table at once."""
    world = call.world
    before, subnet_id = _association(call)
    table = found(ROUTE_TABLE, world, call.parameters["RouteTableId"])
    _check_same_vpc(table, before.vpc_id, f"association {call.parameters['AssociationId']}")
    if subnet_id:
        after = replace(table, subnet_ids=(*table.subnet_ids, subnet_id))
        new_id, puts = association_id(after, subnet_id), (_taken_from(before, subnet_id), after)
    else:
        after = replace(table, main=True)
        new_id, puts = next(_associations(after))[0], (replace(before, main=False), after)
    answer = {"NewAssociationId": new_id, "AssociationState": {"State": "associated"}}
    return Outcome(answer) if before.id == table.id else Outcome(answer, call.change(*puts))


# -- describe ----------------------------------------------------------------------------------------------------------


def _answer(world: World, table: RouteTable) -> dict[str, Any]:
    return {
        "RouteTableId": table.id,
        "VpcId": table.vpc_id,
        "OwnerId": world.account_id,
        "Associations": [_association_answer(table, one, subnet_id) for one, subnet_id in _associations(table)],
        "PropagatingVgws": [],
        "Routes": _route_answers(world, table),
        "Tags": common.tag_list(table.tags),
    }


def _association_answer(table: RouteTable, one: str, subnet_id: str) -> dict[str, Any]:
    answer = {
        "Main": not subnet_id,
        "RouteTableAssociationId": one,
        "RouteTableId": table.id,
        "AssociationState": {"State": "associated"},
    }
    return answer | ({"SubnetId": subnet_id} if subnet_id else {})


def _route_answers(world: World, table: RouteTable) -> list[dict[str, str]]:
    """The local routes, then the others in the order they were made."""
    local = {"GatewayId": "local", "Origin": "CreateRouteTable", "State": "active"}
    answers = [_destination_answer(str(network)) | local for network in local_ranges(world, table.vpc_id)]
    for route in table.routes:
        peering = world.peering(route.peering_id)
        state = "active" if peering is not None and peering.status == "active" else "blackhole"
        target = {"VpcPeeringConnectionId": route.peering_id, "Origin": "CreateRoute", "State": state}
        answers.append(_destination_answer(route.destination) | target)
    return answers


def _destination_answer(destination: str) -> dict[str, str]:
    return {"DestinationIpv6CidrBlock" if ":" in destination else "DestinationCidrBlock": destination}


@operation("ec2")
def describe_route_tables(call: Call) -> Outcome:
    """DescribeRouteTables: local routes first in each."""
    world, ids = call.world, call.parameters.get("RouteTableIds")
    tables = resources.several(ROUTE_TABLE, world, ids) if ids else all_tables(world)
    chosen = common.select(tables, call.parameters.get("Filters"), _filters(world))
    shown, following = resources.paged(call, chosen, lambda one: one.id, MIN_RESULTS, MAX_RESULTS)
    return Outcome({"RouteTables": [_answer(world, one) for one in shown]} | following)


def _filters(world: World) -> Mapping[str, Callable[[RouteTable], Any]]:
    def of_routes(member: str) -> Callable[[RouteTable], Any]:
        return lambda table: [one.get(member) for one in _route_answers(world, table)]

    routes = {
        "destination-cidr-block": "DestinationCidrBlock",
        "destination-ipv6-cidr-block": "DestinationIpv6CidrBlock",
        "destination-prefix-list-id": "DestinationPrefixListId",
        "carrier-gateway-id": "CarrierGatewayId",
        "egress-only-internet-gateway-id": "EgressOnlyInternetGatewayId",
        "gateway-id": "GatewayId",
        "instance-id": "InstanceId",
        "local-gateway-id": "LocalGatewayId",
        "nat-gateway-id": "NatGatewayId",
        "transit-gateway-id": "TransitGatewayId",
        "origin": "Origin",
        "state": "State",
        "vpc-peering-connection-id": "VpcPeeringConnectionId",
    }
    return {
        **{f"route.{name}": of_routes(member) for name, member in routes.items()},
        "association.gateway-id": lambda table: None,
        "association.main": lambda table: [not subnet_id for _, subnet_id in _associations(table)],
        "association.route-table-association-id": lambda table: [one for one, _ in _associations(table)],
        "association.route-table-id": lambda table: table.id if table.main or table.subnet_ids else None,
        "association.subnet-id": lambda table: table.subnet_ids,
        "owner-id": lambda table: world.account_id,
        "route-table-id": lambda table: table.id,
        "vpc-id": lambda table: table.vpc_id,
        **common.TAG_GETTERS,
    }
