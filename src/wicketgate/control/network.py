"""VPCs. (Their IPv6 ranges: `cidr_blocks`. Subnets and network interfaces, which this module offers as well: `subnets`,
`interfaces`.)

A VPC comes with its default security group and goes with it. Whatever asks for IPAM, a second IPv4 range or other
tenancies is refused. None of these actions takes a ClientToken.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from wicketgate.control import cidr_blocks, common, peering, resources
from wicketgate.control import interfaces as _interfaces  # noqa: F401  # offers its actions
from wicketgate.control import subnets as _subnets  # noqa: F401  # offers its actions
from wicketgate.control.call import Ask, Call, Outcome, operation
from wicketgate.control.common import AWS_QUOTAS, Quotas
from wicketgate.control.resources import VPC, found
from wicketgate.control.security_groups import default_security_group
from wicketgate.model import ApiError, Vpc, World

_UNUSABLE: Final = tuple(map(ipaddress.IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")))
"""What no interface can have: this host, loopback, link-local (the metadata service), multicast and above."""

_NOT_OFFERED: Final = (
    "Ipv4IpamPoolId",
    "Ipv4NetmaskLength",
    "Ipv6IpamPoolId",
    "Ipv6NetmaskLength",
    "VpcEncryptionControl",
)
_ATTRIBUTES: Final = {
    "EnableDnsSupport": "enable_dns_support",
    "EnableDnsHostnames": "enable_dns_hostnames",
    "EnableNetworkAddressUsageMetrics": None,
}


def _ask_of_vpc(call: Call) -> Sequence[Ask]:
    return (resources.about_vpc(call, call.action, call.parameters["VpcId"]),)


def _ask_create_vpc(call: Call) -> Sequence[Ask]:
    context = common.ec2_context(call, Tenancy="default") | common.request_tags(call, "vpc")
    new = Ask("ec2:CreateVpc", call.arn("vpc/*"), context)
    return (new, *cidr_blocks.ask_pool(call), *resources.about_tagging(call, "vpc"))


@operation("ec2", asks=_ask_create_vpc)
def create_vpc(call: Call, quotas: Quotas = AWS_QUOTAS) -> Outcome:
    """A VPC and its default security group, at once available.

    Raises InvalidVpc.Range outside /16 to /28, VpcLimitExceeded, UnsupportedOperation for IPAM and tenancies, and as
    `cidr_blocks.wanted_range` does.
    """
    parameters = call.parameters
    resources.refuse_parameters(parameters, _NOT_OFFERED, "CreateVpc")
    if parameters.get("InstanceTenancy", "default") != "default":
        raise ApiError("UnsupportedTenancy", "The tenancy value must be default: there is no dedicated hardware here.")
    if not parameters.get("CidrBlock"):
        raise ApiError("MissingParameter", "Either 'cidrBlock' or 'ipv4IpamPoolId' should be provided.")
    network = cidr_blocks.ipv4_range(parameters["CidrBlock"])
    if not 16 <= network.prefixlen <= 28 or any(network.overlaps(one) for one in _UNUSABLE):
        raise ApiError("InvalidVpc.Range", f"The CIDR '{parameters['CidrBlock']}' is invalid.")
    if len(call.world.vpcs) >= quotas.vpcs_per_region:
        raise ApiError("VpcLimitExceeded", "The maximum number of VPCs has been reached.")
    vpc_id, tags = call.new_id("vpc"), common.tags_from(parameters, "vpc")
    ipv6 = cidr_blocks.wanted_range(call.world, vpc_id, parameters)
    vpc = Vpc(id=vpc_id, cidr_block=str(network), ipv6_cidr_blocks=(ipv6,) if ipv6 else (), tags=tags)
    group = default_security_group(vpc.id, call.new_id, ipv6=bool(ipv6))
    return Outcome({"Vpc": _vpc_answer(call.world, vpc)}, call.change(vpc, group))


def _vpc_answer(world: World, vpc: Vpc) -> dict[str, Any]:
    association = {
        "AssociationId": cidr_blocks.vpc_association_id(vpc, vpc.cidr_block),
        "CidrBlock": vpc.cidr_block,
        "CidrBlockState": {"State": "associated"},
    }
    return {
        "VpcId": vpc.id,
        "OwnerId": world.account_id,
        "State": "available",
        "CidrBlock": vpc.cidr_block,
        "CidrBlockAssociationSet": [association],
        "Ipv6CidrBlockAssociationSet": [cidr_blocks.vpc_association(world, vpc, one) for one in vpc.ipv6_cidr_blocks],
        "DhcpOptionsId": "default",
        "InstanceTenancy": "default",
        "IsDefault": vpc.is_default,
        "Tags": common.tag_list(vpc.tags),
    }


@operation("ec2")
def describe_vpcs(call: Call) -> Outcome:
    """DescribeVpcs, in the order of creation unless it comes in pages."""
    vpcs = call.world.vpcs
    if call.parameters.get("VpcIds"):
        vpcs = tuple(resources.several(VPC, call.world, call.parameters["VpcIds"]))
    chosen = common.select(vpcs, call.parameters.get("Filters"), _vpc_filters(call.world))
    shown, following = resources.paged(call, chosen, lambda vpc: vpc.id)
    return Outcome({"Vpcs": [_vpc_answer(call.world, vpc) for vpc in shown]} | following)


def _vpc_filters(world: World) -> Mapping[str, Callable[[Vpc], Any]]:
    def cidr(vpc: Vpc) -> str:
        return vpc.cidr_block

    def of_ipv6(member: str) -> Callable[[Vpc], Any]:
        return lambda vpc: [cidr_blocks.vpc_association(world, vpc, one)[member] for one in vpc.ipv6_cidr_blocks]

    return {
        "cidr": cidr,
        "cidr-block": cidr,
        "cidrBlock": cidr,
        "cidr-block-association.cidr-block": cidr,
        "cidr-block-association.association-id": lambda vpc: cidr_blocks.vpc_association_id(vpc, vpc.cidr_block),
        "cidr-block-association.state": lambda vpc: "associated",
        "dhcp-options-id": lambda vpc: "default",
        "ipv6-cidr-block-association.ipv6-cidr-block": lambda vpc: vpc.ipv6_cidr_blocks,
        "ipv6-cidr-block-association.ipv6-pool": of_ipv6("Ipv6Pool"),
        "ipv6-cidr-block-association.association-id": of_ipv6("AssociationId"),
        "ipv6-cidr-block-association.state": lambda vpc: ["associated" for _ in vpc.ipv6_cidr_blocks],
        "is-default": lambda vpc: vpc.is_default,
        "isDefault": lambda vpc: vpc.is_default,
        "owner-id": lambda vpc: world.account_id,
        "state": lambda vpc: "available",
        "vpc-id": lambda vpc: vpc.id,
        **common.TAG_GETTERS,
    }


@operation("ec2", asks=_ask_of_vpc)
def delete_vpc(call: Call) -> Outcome:
    """Ends a VPC, its default group, its main route table and requests for its peering.

    Raises DependencyViolation while it has subnets, other groups or route tables, or an active peering connection.
    """
    world, vpc = call.world, found(VPC, call.world, call.parameters["VpcId"])
    groups = [group for group in world.groups if group.vpc_id == vpc.id]
    tables = [table for table in world.route_tables if table.vpc_id == vpc.id]
    if (
        any(subnet.vpc_id == vpc.id for subnet in world.subnets)
        or any(group.name != "default" for group in groups)
        or any(not table.main for table in tables)
        or world.active_peerings(vpc.id)
    ):
        raise ApiError("DependencyViolation", f"The vpc '{vpc.id}' has dependencies and cannot be deleted.")
    deletes = [
        *(("security-group", group.id) for group in groups),
        *(("route-table", table.id) for table in tables),
        ("vpc", vpc.id),
    ]
    return Outcome({}, call.change(*peering.ended_requests(world, vpc.id, call.now), deletes=deletes))


@operation("ec2", asks=_ask_of_vpc)
def describe_vpc_attribute(call: Call) -> Outcome:
    """DescribeVpcAttribute: enableDnsSupport, enableDnsHostnames, enableNetworkAddressUsageMetrics (always off)."""
    vpc = found(VPC, call.world, call.parameters["VpcId"])
    wanted = call.parameters["Attribute"]
    member = wanted[:1].upper() + wanted[1:]
    field = _ATTRIBUTES[member]
    return Outcome({"VpcId": vpc.id, member: {"Value": bool(field and getattr(vpc, field))}})


@operation("ec2", asks=_ask_of_vpc)
def modify_vpc_attribute(call: Call) -> Outcome:
    """Sets one attribute of a VPC. Raises InvalidParameterCombination for none or several."""
    vpc = found(VPC, call.world, call.parameters["VpcId"])
    member = resources.one_attribute(call.parameters, _ATTRIBUTES)
    field, value = _ATTRIBUTES[member], bool(call.parameters[member].get("Value"))
    if field is None and value:
        raise ApiError("UnsupportedOperation", "Network address usage metrics are not offered here. Leave them off.")
    if field is None:
        return Outcome()
    return Outcome({}, call.change(msgspec.structs.replace(vpc, **{field: value})))
