"""VPCs and subnets. (Their IPv6 ranges: `cidr_blocks`. Network interfaces: `interfaces`, which this module offers too.)

A VPC comes with its default security group and goes with it. Whatever asks for IPAM, a second IPv4 range, other
tenancies or outposts is refused. None of these actions takes a ClientToken. Ranges are made canonical, not refused,
when they have host bits: 100.68.0.18/18 is 100.68.0.0/18 (EC2 API Reference, CreateVpc and CreateSubnet).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from wicketgate.control import common, interfaces, peering, regions, resources
from wicketgate.control.call import Ask, Call, Outcome, operation
from wicketgate.control.common import AWS_QUOTAS, Quotas
from wicketgate.control.resources import SUBNET, VPC, found
from wicketgate.control.route_tables import without_subnet
from wicketgate.control.security_groups import default_security_group
from wicketgate.model import ApiError, Subnet, Vpc, World

_UNUSABLE: Final = tuple(map(ipaddress.IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")))
"""What no interface can have: this host, loopback, link-local (the metadata service), multicast and above."""

_VPC_NOT_OFFERED: Final = (
    "Ipv4IpamPoolId",
    "Ipv4NetmaskLength",
    "Ipv6IpamPoolId",
    "Ipv6NetmaskLength",
    "VpcEncryptionControl",
)
_SUBNET_NOT_OFFERED: Final = (
    "OutpostArn",
    "Ipv4IpamPoolId",
    "Ipv4NetmaskLength",
    "Ipv6IpamPoolId",
    "Ipv6NetmaskLength",
)
_VPC_ATTRIBUTES: Final = {
    "EnableDnsSupport": "enable_dns_support",
    "EnableDnsHostnames": "enable_dns_hostnames",
    "EnableNetworkAddressUsageMetrics": None,
}
_SUBNET_ATTRIBUTES: Final = (
    "MapPublicIpOnLaunch",
    "AssignIpv6AddressOnCreation",
    "MapCustomerOwnedIpOnLaunch",
    "CustomerOwnedIpv4Pool",
    "EnableDns64",
    "PrivateDnsHostnameTypeOnLaunch",
    "EnableResourceNameDnsARecordOnLaunch",
    "EnableResourceNameDnsAAAARecordOnLaunch",
    "EnableLniAtDeviceIndex",
    "DisableLniAtDeviceIndex",
)


def _ask_of_vpc(call: Call) -> Sequence[Ask]:
    return (resources.about_vpc(call, call.action, call.parameters["VpcId"]),)


def _ask_of_subnet(call: Call) -> Sequence[Ask]:
    return (resources.about_subnet(call, call.action, call.parameters["SubnetId"]),)


# -- VPCs --------------------------------------------------------------------------------------------------------------


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
    resources.refuse_parameters(parameters, _VPC_NOT_OFFERED, "CreateVpc")
    if parameters.get("InstanceTenancy", "default") != "default":
        raise ApiError("UnsupportedTenancy", "The tenancy value must be default: there is no dedicated hardware here.")
    if not parameters.get("CidrBlock"):
        raise ApiError("MissingParameter", "Either 'cidrBlock' or 'ipv4IpamPoolId' should be provided.")
    network = _network(parameters["CidrBlock"])
    if not 16 <= network.prefixlen <= 28 or any(network.overlaps(one) for one in _UNUSABLE):
        raise ApiError("InvalidVpc.Range", f"The CIDR '{parameters['CidrBlock']}' is invalid.")
    if len(call.world.vpcs) >= quotas.vpcs_per_region:
        raise ApiError("VpcLimitExceeded", "The maximum number of VPCs has been reached.")
    vpc_id, tags = call.new_id("vpc"), common.tags_from(parameters, "vpc")
    ipv6 = cidr_blocks.wanted_range(call.world, vpc_id, parameters)
    vpc = Vpc(id=vpc_id, cidr_block=str(network), ipv6_cidr_blocks=(ipv6,) if ipv6 else (), tags=tags)
    group = default_security_group(vpc.id, call.new_id, ipv6=bool(ipv6))
    return Outcome({"Vpc": _vpc_answer(call.world, vpc)}, call.change(vpc, group))


def _network(cidr: str) -> ipaddress.IPv4Network:
    """A range as CreateVpc and CreateSubnet read it: host bits are cleared."""
    try:
        if "/" not in cidr:
            raise ValueError(cidr)
        return ipaddress.IPv4Network(cidr, strict=False)
    except ValueError as error:
        raise ApiError(
            "InvalidParameterValue",
            f"Value ({cidr}) for parameter cidrBlock is invalid. This is not a valid CIDR block.",
        ) from error


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
    field = _VPC_ATTRIBUTES[member]
    return Outcome({"VpcId": vpc.id, member: {"Value": bool(field and getattr(vpc, field))}})


@operation("ec2", asks=_ask_of_vpc)
def modify_vpc_attribute(call: Call) -> Outcome:
    """Sets one attribute of a VPC. Raises InvalidParameterCombination for none or several."""
    vpc = found(VPC, call.world, call.parameters["VpcId"])
    member = resources.one_attribute(call.parameters, _VPC_ATTRIBUTES)
    field, value = _VPC_ATTRIBUTES[member], bool(call.parameters[member].get("Value"))
    if field is None and value:
        raise ApiError("UnsupportedOperation", "Network address usage metrics are not offered here. Leave them off.")
    if field is None:
        return Outcome()
    return Outcome({}, call.change(msgspec.structs.replace(vpc, **{field: value})))


# -- subnets -----------------------------------------------------------------------------------------------------------


def _ask_create_subnet(call: Call) -> Sequence[Ask]:
    vpc_id = call.parameters["VpcId"]
    context = common.ec2_context(
        call, Vpc=call.arn(f"vpc/{vpc_id}"), AvailabilityZone=call.parameters.get("AvailabilityZone")
    )
    new = Ask("ec2:CreateSubnet", call.arn("subnet/*"), context | common.request_tags(call, "subnet"))
    return (new, resources.about_vpc(call, "CreateSubnet", vpc_id), *resources.about_tagging(call, "subnet"))


@operation("ec2", asks=_ask_create_subnet)
def create_subnet(call: Call, quotas: Quotas = AWS_QUOTAS) -> Outcome:
    """A part of a VPC's ranges, at once available: IPv4, both, or with Ipv6Native IPv6 alone.

    Raises InvalidSubnet.Range outside the VPC or /16 to /28, InvalidSubnet.Conflict, SubnetLimitExceeded, and as
    `cidr_blocks.subnet_range` does.
    """
    world, parameters = call.world, call.parameters
    resources.refuse_parameters(parameters, _SUBNET_NOT_OFFERED, "CreateSubnet")
    vpc = found(VPC, world, parameters["VpcId"])
    _check_families(parameters)
    ipv4, ipv6 = parameters.get("CidrBlock"), parameters.get("Ipv6CidrBlock")
    others = [one for one in world.subnets if one.vpc_id == vpc.id]
    network = _subnet_network(vpc, others, ipv4) if ipv4 else ""
    if len(others) >= quotas.subnets_per_vpc:
        raise ApiError("SubnetLimitExceeded", "The maximum number of subnets has been reached.")
    subnet = Subnet(
        id=call.new_id("subnet"),
        vpc_id=vpc.id,
        cidr_block=network,
        ipv6_cidr_block=cidr_blocks.subnet_range(world, vpc, ipv6) if ipv6 else "",
        assign_ipv6_on_creation=bool(parameters.get("Ipv6Native")),
        availability_zone=regions.checked_zone(
            world, parameters.get("AvailabilityZone"), parameters.get("AvailabilityZoneId")
        ),
        tags=common.tags_from(parameters, "subnet"),
    )
    return Outcome({"Subnet": _subnet_answer(call, subnet)}, call.change(subnet))


def _check_families(parameters: Mapping[str, Any]) -> None:
    """Refuse a subnet without a range, and an IPv6-only one with an IPv4 range."""
    if parameters.get("Ipv6Native") and not parameters.get("Ipv6CidrBlock"):
        raise ApiError("MissingParameter", "Either 'ipv6CidrBlock' or 'ipv6IpamPoolId' should be provided.")
    if parameters.get("Ipv6Native") and parameters.get("CidrBlock"):
        raise ApiError(
            "InvalidParameterCombination",
            "When specifying ipv4 parameters, cidrBlock or ipv4IpamPoolId, you cannot set ipv6Native to true.",
        )
    if not parameters.get("Ipv6Native") and not parameters.get("CidrBlock"):
        raise ApiError("MissingParameter", "Either 'cidrBlock' or 'ipv4IpamPoolId' should be provided.")


def _subnet_network(vpc: Vpc, others: Sequence[Subnet], given: str) -> str:
    network = _network(given)
    if not 16 <= network.prefixlen <= 28 or not network.subnet_of(vpc.network):
        raise ApiError("InvalidSubnet.Range", f"The CIDR '{given}' is invalid.")
    if any(one.network is not None and network.overlaps(one.network) for one in others):
        raise ApiError("InvalidSubnet.Conflict", f"The CIDR '{given}' conflicts with another subnet")
    return str(network)


def _subnet_answer(call: Call, subnet: Subnet) -> dict[str, Any]:
    zone = regions.zone_of(call.world.region, subnet.availability_zone)
    answer = {
        "SubnetId": subnet.id,
        "SubnetArn": call.arn(f"subnet/{subnet.id}"),
        "VpcId": subnet.vpc_id,
        "OwnerId": call.world.account_id,
        "State": "available",
        "AvailableIpAddressCount": addresses.free_count(call.world, subnet),
        "AvailabilityZone": zone,
        "AvailabilityZoneId": regions.zone_id(zone),
        "DefaultForAz": False,
        "MapPublicIpOnLaunch": subnet.map_public_ip_on_launch,
        "MapCustomerOwnedIpOnLaunch": False,
        "AssignIpv6AddressOnCreation": subnet.assign_ipv6_on_creation,
        "Ipv6CidrBlockAssociationSet": [cidr_blocks.subnet_association(subnet)] if subnet.ipv6_cidr_block else [],
        "EnableDns64": False,
        "Ipv6Native": _ipv6_native(subnet),
        "PrivateDnsNameOptionsOnLaunch": {
            "HostnameType": _hostname_type(subnet),
            "EnableResourceNameDnsARecord": False,
            "EnableResourceNameDnsAAAARecord": False,
        },
        "Tags": common.tag_list(subnet.tags),
    }
    return answer | ({"CidrBlock": subnet.cidr_block} if subnet.cidr_block else {})


def _ipv6_native(subnet: Subnet) -> bool:
    return not subnet.cidr_block


def _hostname_type(subnet: Subnet) -> str:
    """What host names are made of: without IPv4, of the instance's id (VPC User Guide, "IPv6-only subnets")."""
    return "resource-name" if _ipv6_native(subnet) else "ip-name"


@operation("ec2")
def describe_subnets(call: Call) -> Outcome:
    """DescribeSubnets, in the order of creation unless it comes in pages."""
    subnets = call.world.subnets
    if call.parameters.get("SubnetIds"):
        subnets = tuple(resources.several(SUBNET, call.world, call.parameters["SubnetIds"]))
    chosen = common.select(subnets, call.parameters.get("Filters"), _subnet_filters(call))
    shown, following = resources.paged(call, chosen, lambda subnet: subnet.id)
    return Outcome({"Subnets": [_subnet_answer(call, subnet) for subnet in shown]} | following)


def _subnet_filters(call: Call) -> Mapping[str, Callable[[Subnet], Any]]:
    world = call.world

    def zone(subnet: Subnet) -> str:
        return regions.zone_of(world.region, subnet.availability_zone)

    def cidr(subnet: Subnet) -> str | None:
        return subnet.cidr_block or None

    def off(_subnet: Subnet) -> bool:
        return False

    absent = (
        "customer-owned-ipv4-pool",
        "enable-lni-at-device-index",
        "outpost-arn",
    )
    return {
        **dict.fromkeys(absent, lambda subnet: None),
        "availability-zone": zone,
        "availabilityZone": zone,
        "availability-zone-id": lambda subnet: regions.zone_id(zone(subnet)),
        "availabilityZoneId": lambda subnet: regions.zone_id(zone(subnet)),
        "available-ip-address-count": lambda subnet: addresses.free_count(world, subnet),
        "cidr": cidr,
        "cidr-block": cidr,
        "cidrBlock": cidr,
        "default-for-az": off,
        "defaultForAz": off,
        "enable-dns64": off,
        "ipv6-cidr-block-association.ipv6-cidr-block": lambda subnet: subnet.ipv6_cidr_block or None,
        "ipv6-cidr-block-association.association-id": cidr_blocks.subnet_association_id,
        "ipv6-cidr-block-association.state": lambda subnet: "associated" if subnet.ipv6_cidr_block else None,
        "ipv6-native": _ipv6_native,
        "map-customer-owned-ip-on-launch": off,
        "map-public-ip-on-launch": lambda subnet: subnet.map_public_ip_on_launch,
        "owner-id": lambda subnet: world.account_id,
        "private-dns-name-options-on-launch.hostname-type": _hostname_type,
        "private-dns-name-options-on-launch.enable-resource-name-dns-a-record": off,
        "private-dns-name-options-on-launch.enable-resource-name-dns-aaaa-record": off,
        "state": lambda subnet: "available",
        "subnet-arn": lambda subnet: call.arn(f"subnet/{subnet.id}"),
        "subnet-id": lambda subnet: subnet.id,
        "vpc-id": lambda subnet: subnet.vpc_id,
        **common.TAG_GETTERS,
    }


@operation("ec2", asks=_ask_of_subnet)
def delete_subnet(call: Call) -> Outcome:
    """Ends a subnet and its association. Raises DependencyViolation while it has network interfaces."""
    subnet = found(SUBNET, call.world, call.parameters["SubnetId"])
    if any(eni.subnet_id == subnet.id for eni in call.world.interfaces):
        raise ApiError("DependencyViolation", f"The subnet '{subnet.id}' has dependencies and cannot be deleted.")
    return Outcome({}, call.change(*without_subnet(call.world, subnet.id), deletes=[("subnet", subnet.id)]))


@operation("ec2", asks=_ask_of_subnet)
def modify_subnet_attribute(call: Call) -> Outcome:
    """Sets MapPublicIpOnLaunch (kept and shown; there are no public addresses) or AssignIpv6AddressOnCreation.

    Others may only be off, as they are. Raises InvalidParameterValue for IPv6 addresses in a subnet without IPv6.
    """
    subnet = found(SUBNET, call.world, call.parameters["SubnetId"])
    member = resources.one_attribute(call.parameters, _SUBNET_ATTRIBUTES)
    given = call.parameters[member]
    value = given.get("Value") if isinstance(given, Mapping) else given
    if member == "MapPublicIpOnLaunch":
        return Outcome({}, call.change(msgspec.structs.replace(subnet, map_public_ip_on_launch=bool(value))))
    if member == "AssignIpv6AddressOnCreation":
        return Outcome({}, call.change(_assigning_ipv6(subnet, wanted=bool(value))))
    if value and value != _hostname_type(subnet):
        raise ApiError("UnsupportedOperation", f"The attribute {member} is not offered here. Leave it off.")
    return Outcome()


def _assigning_ipv6(subnet: Subnet, *, wanted: bool) -> Subnet:
    if wanted and not subnet.ipv6_cidr_block:
        raise ApiError(
            "InvalidParameterValue",
            "Invalid value 'true' for assign-ipv6-address-on-creation. Cannot set assign-ipv6-address-on-creation to "
            f"true unless the subnet ({subnet.id}) has an IPv6 CIDR block associated with it.",
        )
    return msgspec.structs.replace(subnet, assign_ipv6_on_creation=wanted)
