"""Subnets. (Their IPv6 ranges: `cidr_blocks`.)

Whatever asks for IPAM or outposts is refused. None of these actions takes a ClientToken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from wicketgate.control import addresses, cidr_blocks, common, regions, resources
from wicketgate.control.call import Ask, Call, Outcome, operation
from wicketgate.control.common import AWS_QUOTAS, Quotas
from wicketgate.control.resources import SUBNET, VPC, found
from wicketgate.control.route_tables import without_subnet
from wicketgate.model import ApiError, Subnet, Vpc

_NOT_OFFERED: Final = (
    "OutpostArn",
    "Ipv4IpamPoolId",
    "Ipv4NetmaskLength",
    "Ipv6IpamPoolId",
    "Ipv6NetmaskLength",
)
_ATTRIBUTES: Final = (
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


def _ask_of_subnet(call: Call) -> Sequence[Ask]:
    return (resources.about_subnet(call, call.action, call.parameters["SubnetId"]),)


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
    resources.refuse_parameters(parameters, _NOT_OFFERED, "CreateSubnet")
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
    network = cidr_blocks.ipv4_range(given)
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
    member = resources.one_attribute(call.parameters, _ATTRIBUTES)
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
