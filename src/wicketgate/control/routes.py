"""The routes of route tables: create, replace, delete.

Targets are VPC peering connections: nothing else leads out of a VPC here. Destinations are made canonical, not refused,
when they have host bits (EC2 API Reference, CreateRoute). None of these actions takes a ClientToken.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from msgspec.structs import replace

from wicketgate.control import resources
from wicketgate.control.call import Call, Outcome, operation
from wicketgate.control.common import AWS_QUOTAS, Quotas
from wicketgate.control.peering import PEERING, present
from wicketgate.control.resources import found
from wicketgate.control.route_tables import ROUTE_TABLE, ask_table, local_ranges
from wicketgate.model import ApiError, Route, RouteTable, VpcPeeringConnection
from wicketgate.model.resources import IPv4or6Network

_TARGETS_NOT_OFFERED: Final = (
    "NatGatewayId",
    "NetworkInterfaceId",
    "EgressOnlyInternetGatewayId",
    "TransitGatewayId",
    "LocalGatewayId",
    "CarrierGatewayId",
    "VpcEndpointId",
    "CoreNetworkArn",
    "OdbNetworkArn",
    "InstanceId",
)
_TARGETS: Final = ("GatewayId", "VpcPeeringConnectionId", *_TARGETS_NOT_OFFERED)
_DESTINATIONS: Final = ("DestinationCidrBlock", "DestinationIpv6CidrBlock", "DestinationPrefixListId")
_RESERVED: Final = (ipaddress.IPv4Network("169.254.168.0/22"), ipaddress.IPv6Network("fd00:ec2::/32"))
"""Ranges of the services of each instance's own link (VPC User Guide, "Routes")."""


@operation("ec2", asks=ask_table)
def create_route(call: Call, quotas: Quotas = AWS_QUOTAS) -> Outcome:
    """Adds a route to a peered VPC; the same one again changes nothing. While the peering pends it is a blackhole.

    Raises RouteAlreadyExists, RouteLimitExceeded, InvalidParameterValue for a destination inside the VPC or the peering
    of another VPC, UnsupportedOperation for other targets.
    """
    table, destination = _table_and_destination(call)
    route = _route(call, table, destination)
    there = next((one for one in table.routes if one.destination == route.destination), None)
    if there == route:
        return Outcome({"Return": True})
    if there is not None:
        raise ApiError("RouteAlreadyExists", f"The route identified by {route.destination} already exists.")
    alike = sum((":" in one.destination) == (":" in route.destination) for one in table.routes)
    if alike >= quotas.routes_per_table:
        raise ApiError("RouteLimitExceeded", "The maximum number of routes has been reached.")
    return Outcome({"Return": True}, call.change(replace(table, routes=(*table.routes, route))))


@operation("ec2", asks=ask_table)
def replace_route(call: Call) -> Outcome:
    """Leads a route elsewhere. LocalTarget is for local routes, which are always so."""
    table, destination = _table_and_destination(call)
    if call.parameters.get("LocalTarget"):
        _check_local(call, table, destination)
        return Outcome()
    route = _route(call, table, destination)
    if all(one.destination != route.destination for one in table.routes):
        raise ApiError(
            "InvalidParameterValue",
            f"There is no route defined for '{route.destination}' in the route table. Use CreateRoute instead.",
        )
    routes = tuple(route if one.destination == route.destination else one for one in table.routes)
    return Outcome({}, call.change(replace(table, routes=routes)))


def _check_local(call: Call, table: RouteTable, destination: IPv4or6Network) -> None:
    if any(call.parameters.get(name) for name in _TARGETS):
        raise ApiError("InvalidParameterCombination", "The parameter LocalTarget cannot be used with another target")
    if destination not in local_ranges(call.world, table.vpc_id):
        raise ApiError("InvalidParameterValue", f"The route {destination} is not a local route of {table.vpc_id}.")


@operation("ec2", asks=ask_table)
def delete_route(call: Call) -> Outcome:
    """Takes a route away. Raises InvalidRoute.NotFound, InvalidParameterValue for a local one."""
    table, destination = _table_and_destination(call)
    if destination in local_ranges(call.world, table.vpc_id):
        raise ApiError("InvalidParameterValue", f"cannot remove local route {destination} in route table {table.id}")
    routes = tuple(one for one in table.routes if one.destination != str(destination))
    if len(routes) == len(table.routes):
        family = "destination-ipv6-cidr-block" if destination.version == 6 else "destination-cidr-block"
        raise ApiError("InvalidRoute.NotFound", f"no route with {family} {destination} in route table {table.id}")
    return Outcome({}, call.change(replace(table, routes=routes)))


def _table_and_destination(call: Call) -> tuple[RouteTable, IPv4or6Network]:
    """The table and the one destination that a call names, made canonical."""
    parameters = call.parameters
    given = [name for name in _DESTINATIONS if parameters.get(name)]
    if len(given) != 1:
        raise ApiError(
            "InvalidParameterCombination" if given else "MissingParameter",
            "The request must contain exactly one of destinationCidrBlock, destinationIpv6CidrBlock or "
            "destinationPrefixListId",
        )
    table = found(ROUTE_TABLE, call.world, parameters["RouteTableId"])
    resources.refuse_parameters(parameters, ("DestinationPrefixListId",), call.action)
    return table, _destination(given[0], parameters[given[0]])


def _destination(parameter: str, cidr: str) -> IPv4or6Network:
    family = ipaddress.IPv6Network if parameter == "DestinationIpv6CidrBlock" else ipaddress.IPv4Network
    try:
        if "/" not in cidr or "%" in cidr:
            raise ValueError(cidr)
        return family(cidr, strict=False)
    except ValueError as error:
        name = parameter[0].lower() + parameter[1:]
        raise ApiError(
            "InvalidParameterValue",
            f"Value ({cidr}) for parameter {name} is invalid. This is not a valid CIDR block.",
        ) from error


def _route(call: Call, table: RouteTable, destination: IPv4or6Network) -> Route:
    """The route that a call describes, checked."""
    peering = _target(call)
    if table.vpc_id not in (peering.requester_vpc_id, peering.accepter_vpc_id):
        raise ApiError(
            "InvalidParameterValue",
            f"route table {table.id} and network gateway {peering.id} belong to different networks",
        )
    if any(_inside(destination, one) for one in local_ranges(call.world, table.vpc_id)):
        raise ApiError(
            "InvalidParameterValue",
            f"The destination CIDR block {destination} is equal to or more specific than one of this VPC's CIDR "
            "blocks. This route can target only an interface or an instance.",
        )
    if any(_inside(destination, one) for one in _RESERVED):
        raise ApiError(
            "InvalidParameterValue", f"The destination CIDR block {destination} is reserved: it never leaves a subnet."
        )
    return Route(destination=str(destination), peering_id=peering.id)


def _target(call: Call) -> VpcPeeringConnection:
    """The connection that a call routes to. AWS takes the id of any gateway as GatewayId, and so do we."""
    parameters = call.parameters
    given = [name for name in _TARGETS if parameters.get(name)]
    if len(given) != 1:
        raise ApiError(
            "InvalidParameterCombination" if given else "MissingParameter",
            "The request must contain exactly one of gatewayId, natGatewayId, networkInterfaceId, "
            "vpcPeeringConnectionId, egressOnlyInternetGatewayId, transitGatewayId, localGatewayId or instanceId",
        )
    target: str = parameters[given[0]]
    if given[0] in _TARGETS_NOT_OFFERED or not (given[0] == "VpcPeeringConnectionId" or target.startswith("pcx-")):
        raise ApiError(
            "UnsupportedOperation",
            f"Routes lead to VPC peering connections here. A route to {target} ({given[0]}) is not offered.",
        )
    (peering,) = resources.several(
        PEERING, call.world, [target], lambda world, one: _routable(present(world.peering(one), call.now))
    )
    return peering


def _routable(peering: VpcPeeringConnection | None) -> VpcPeeringConnection | None:
    return peering if peering is not None and peering.status in ("pending-acceptance", "active") else None


def _inside(inner: IPv4or6Network, outer: IPv4or6Network) -> bool:
    return inner.version == outer.version and inner.prefixlen >= outer.prefixlen and inner.network_address in outer
