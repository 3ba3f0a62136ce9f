"""VPCs and subnets. (Network interfaces: `interfaces`, which this module offers as well.)

A VPC comes with its default security group and goes with it. IPv4 only: whatever asks for IPv6, address pools, other
tenancies or outposts is refused. None of these actions takes a ClientToken. Ranges are made canonical, not refused,
when they have host bits: 100.68.0.18/18 is 100.68.0.0/18 (EC2 API Reference, CreateVpc and CreateSubnet).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from wicketgate.control import common, interfaces, regions, resources
from wicketgate.control.call import Ask, Call, Outcome, operation
from wicketgate.control.common import AWS_QUOTAS, Quotas
from wicketgate.control.resources import SUBNET, VPC, found
from wicketgate.control.security_groups import default_security_group
from wicketgate.model import ApiError, Subnet, Vpc, World

_UNUSABLE: Final = tuple(map(ipaddress.IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")))
"""What no interface can have: this host, loopback, link-local (the metadata service), multicast and above."""

_VPC_NOT_OFFERED: Final = (
    "Ipv6Pool",
    "Ipv6CidrBlock",
    "Ipv4IpamPoolId",
    "Ipv4NetmaskLength",
    "Ipv6IpamPoolId",
    "Ipv6NetmaskLength",
    "Ipv6CidrBlockNetworkBorderGroup",
    "VpcEncryptionControl",
    "AmazonProvidedIpv6CidrBlock",
)
_SUBNET_NOT_OFFERED: Final = (
    "Ipv6CidrBlock",
    "OutpostArn",
    "Ipv6Native",
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
    return (Ask("ec2:CreateVpc", call.arn("vpc/*"), context), *resources.about_tagging(call, "vpc"))


@operation("ec2", asks=_ask_create_vpc)
def create_vpc(call: Call, quotas: Quotas = AWS_QUOTAS) -> Outcome:
    """A VPC and its default security group, at once available.

    Raises InvalidVpc.Range outside /16 to /28, VpcLimitExceeded, UnsupportedOperation for IPv6, pools and tenancies.
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
    vpc = Vpc(id=call.new_id("vpc"), cidr_block=str(network), tags=common.tags_from(parameters, "vpc"))
    group = default_security_group(vpc.id, call.new_id)
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
        "AssociationId": resources.derived("vpc-cidr-assoc-", vpc.id),
        "CidrBlock": vpc.cidr_block,
        "CidrBlockState": {"State": "associated"},
    }
    return {
        "VpcId": vpc.id,
        "OwnerId": world.account_id,
        "State": "available",
        "CidrBlock": vpc.cidr_block,
        "CidrBlockAssociationSet": [association],
        "Ipv6CidrBlockAssociationSet": [],
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

    def nothing(_vpc: Vpc) -> None:
        return None

    return {
        "cidr": cidr,
        "cidr-block": cidr,
        "cidrBlock": cidr,
        "cidr-block-association.cidr-block": cidr,
        "cidr-block-association.association-id": lambda vpc: resources.derived("vpc-cidr-assoc-", vpc.id),
        "cidr-block-association.state": lambda vpc: "associated",
        "dhcp-options-id": lambda vpc: "default",
        "ipv6-cidr-block-association.ipv6-cidr-block": nothing,
        "ipv6-cidr-block-association.ipv6-pool": nothing,
        "ipv6-cidr-block-association.association-id": nothing,
        "ipv6-cidr-block-association.state": nothing,
        "is-default": lambda vpc: vpc.is_default,
        "isDefault": lambda vpc: vpc.is_default,
        "owner-id": lambda vpc: world.account_id,
        "state": lambda vpc: "available",
        "vpc-id": lambda vpc: vpc.id,
        **common.TAG_GETTERS,
    }


@operation("ec2", asks=_ask_of_vpc)
def delete_vpc(call: Call) -> Outcome:
    """Ends a VPC and its default group. Raises DependencyViolation while it has subnets or other groups."""
    vpc = found(VPC, call.world, call.parameters["VpcId"])
    groups = [group for group in call.world.groups if group.vpc_id == vpc.id]
    if any(subnet.vpc_id == vpc.id for subnet in call.world.subnets) or any(one.name != "default" for one in groups):
        raise ApiError("DependencyViolation", f"The vpc '{vpc.id}' has dependencies and cannot be deleted.")
    deletes = [*(("security-group", group.id) for group in groups), ("vpc", vpc.id)]
    return Outcome({}, call.change(deletes=deletes))


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
    """A part of a VPC's range, at once available.

    Raises InvalidSubnet.Range outside the VPC or /16 to /28, InvalidSubnet.Conflict, SubnetLimitExceeded.
    """
    world, parameters = call.world, call.parameters
    resources.refuse_parameters(parameters, _SUBNET_NOT_OFFERED, "CreateSubnet")
    vpc = found(VPC, world, parameters["VpcId"])
    if not parameters.get("CidrBlock"):
        raise ApiError("MissingParameter", "Either 'cidrBlock' or 'ipv4IpamPoolId' should be provided.")
    network = _network(parameters["CidrBlock"])
    if not 16 <= network.prefixlen <= 28 or not network.subnet_of(vpc.network):
        raise ApiError("InvalidSubnet.Range", f"The CIDR '{parameters['CidrBlock']}' is invalid.")
    others = [one for one in world.subnets if one.vpc_id == vpc.id]
    if any(one.network is not None and network.overlaps(one.network) for one in others):
        raise ApiError("InvalidSubnet.Conflict", f"The CIDR '{parameters['CidrBlock']}' conflicts with another subnet")
    if len(others) >= quotas.subnets_per_vpc:
        raise ApiError("SubnetLimitExceeded", "The maximum number of subnets has been reached.")
    subnet = Subnet(
        id=call.new_id("subnet"),
        vpc_id=vpc.id,
        cidr_block=str(network),
        availability_zone=regions.checked_zone(
            world, parameters.get("AvailabilityZone"), parameters.get("AvailabilityZoneId")
        ),
        tags=common.tags_from(parameters, "subnet"),
    )
    return Outcome({"Subnet": _subnet_answer(call, subnet)}, call.change(subnet))


def _subnet_answer(call: Call, subnet: Subnet) -> dict[str, Any]:
    zone = regions.zone_of(call.world.region, subnet.availability_zone)
    return {
        "SubnetId": subnet.id,
        "SubnetArn": call.arn(f"subnet/{subnet.id}"),
        "VpcId": subnet.vpc_id,
        "OwnerId": call.world.account_id,
        "State": "available",
        "CidrBlock": subnet.cidr_block,
        "AvailableIpAddressCount": interfaces.free_count(call.world, subnet),
        "AvailabilityZone": zone,
        "AvailabilityZoneId": regions.zone_id(zone),
        "DefaultForAz": False,
        "MapPublicIpOnLaunch": subnet.map_public_ip_on_launch,
        "MapCustomerOwnedIpOnLaunch": False,
        "AssignIpv6AddressOnCreation": False,
        "Ipv6CidrBlockAssociationSet": [],
        "EnableDns64": False,
        "Ipv6Native": False,
        "PrivateDnsNameOptionsOnLaunch": {
            "HostnameType": "ip-name",
            "EnableResourceNameDnsARecord": False,
            "EnableResourceNameDnsAAAARecord": False,
        },
        "Tags": common.tag_list(subnet.tags),
    }


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

    def cidr(subnet: Subnet) -> str:
        return subnet.cidr_block

    def off(_subnet: Subnet) -> bool:
        return False

    absent = (
        "customer-owned-ipv4-pool",
        "enable-lni-at-device-index",
        "ipv6-cidr-block-association.ipv6-cidr-block",
        "ipv6-cidr-block-association.association-id",
        "ipv6-cidr-block-association.state",
        "outpost-arn",
    )
    return {
        **dict.fromkeys(absent, lambda subnet: None),
        "availability-zone": zone,
        "availabilityZone": zone,
        "availability-zone-id": lambda subnet: regions.zone_id(zone(subnet)),
        "availabilityZoneId": lambda subnet: regions.zone_id(zone(subnet)),
        "available-ip-address-count": lambda subnet: interfaces.free_count(world, subnet),
        "cidr": cidr,
        "cidr-block": cidr,
        "cidrBlock": cidr,
        "default-for-az": off,
        "defaultForAz": off,
        "enable-dns64": off,
        "ipv6-native": off,
        "map-customer-owned-ip-on-launch": off,
        "map-public-ip-on-launch": lambda subnet: subnet.map_public_ip_on_launch,
        "owner-id": lambda subnet: world.account_id,
        "private-dns-name-options-on-launch.hostname-type": lambda subnet: "ip-name",
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
    """Ends a subnet. Raises DependencyViolation while it has network interfaces."""
    subnet = found(SUBNET, call.world, call.parameters["SubnetId"])
    if any(eni.subnet_id == subnet.id for eni in call.world.interfaces):
        raise ApiError("DependencyViolation", f"The subnet '{subnet.id}' has dependencies and cannot be deleted.")
    return Outcome({}, call.change(deletes=[("subnet", subnet.id)]))


@operation("ec2", asks=_ask_of_subnet)
def modify_subnet_attribute(call: Call) -> Outcome:
    """Sets MapPublicIpOnLaunch (kept and shown; there are no public addresses). Others may only be off, as they are."""
    subnet = found(SUBNET, call.world, call.parameters["SubnetId"])
    member = resources.one_attribute(call.parameters, _SUBNET_ATTRIBUTES)
    given = call.parameters[member]
    value = given.get("Value") if isinstance(given, Mapping) else given
    if member == "MapPublicIpOnLaunch":
        return Outcome({}, call.change(msgspec.structs.replace(subnet, map_public_ip_on_launch=bool(value))))
    if value and value != "ip-name":
        raise ApiError("UnsupportedOperation", f"The attribute {member} is not offered here. Leave it off.")
    return Outcome()
