"""Ranges of VPCs and subnets: how they are read, which IPv6 ones they may have, their association, what is shown of it.

What AWS provides from its own public addresses is here a unique local range (RFC 4193): the first /56 below fd and 40
bits of a digest of account, region and VPC, so that ranges of VPCs hardly ever meet, here or when installations are
joined. An operator's own range comes from the one pool (`POOL`), which stands for whatever is routed to this host. An
association takes effect at once. None of these actions takes a ClientToken or DryRun.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from wicketgate.control import common, resources
from wicketgate.control.call import Ask, Call, Outcome, operation
from wicketgate.control.resources import SUBNET, VPC, found
from wicketgate.model import ApiError, Subnet, Vpc, World

POOL: Final = "ipv6pool-ec2-00000000000000001"
"""The address pool of an operator's own ranges."""
MAX_RANGES: Final = 5
"""IPv6 ranges of one VPC (VPC User Guide, "Amazon VPC quotas")."""
_VPC_PREFIXES, _SUBNET_PREFIXES = range(44, 61, 4), range(44, 65, 4)
"""Lengths that IPv6 ranges may have (VPC User Guide, "IPv6 VPC CIDR blocks", "IPv6 subnet CIDR blocks")."""
_UNUSABLE: Final = tuple(map(ipaddress.IPv6Network, ("::/8", "fd00:ec2::/32", "fe80::/10", "ff00::/8")))
"""What no interface can have: unspecified, loopback and mapped, the metadata service's, link-local, multicast."""
_ATTEMPTS: Final = 16
"""Digests that are tried for one VPC: each meets a range that is there with a probability of 1 in 2^40."""
_IPAM: Final = ("Ipv4IpamPoolId", "Ipv4NetmaskLength", "Ipv6IpamPoolId", "Ipv6NetmaskLength")


def ipv4_range(cidr: str) -> ipaddress.IPv4Network:
    """An IPv4 range as CreateVpc and CreateSubnet read it: host bits are cleared, 100.68.0.18/18 is 100.68.0.0/18.

    Raises InvalidParameterValue. Source: EC2 API Reference.
    """
    try:
        if "/" not in cidr:
            raise ValueError(cidr)
        return ipaddress.IPv4Network(cidr, strict=False)
    except ValueError as error:
        raise ApiError(
            "InvalidParameterValue",
            f"Value ({cidr}) for parameter cidrBlock is invalid. This is not a valid CIDR block.",
        ) from error


# -- ranges of VPCs ----------------------------------------------------------------------------------------------------


def wanted_range(world: World, vpc_id: str, parameters: Mapping[str, Any]) -> str:
    """The IPv6 range that CreateVpc or AssociateVpcCidrBlock asks for; empty for none.

    Raises MissingParameter, InvalidParameterCombination, InvalidVpc.Range, CidrConflict with another VPC's range.
    """
    provided, pool = parameters.get("AmazonProvidedIpv6CidrBlock"), parameters.get("Ipv6Pool")
    border = parameters.get("Ipv6CidrBlockNetworkBorderGroup")
    if border and (not provided or border != world.region):
        raise ApiError(
            "InvalidParameterValue",
            f"Value ({border}) for parameter ipv6CidrBlockNetworkBorderGroup is invalid. "
            f"There is {world.region} alone, for a range that amazonProvidedIpv6CidrBlock asks for.",
        )
    if provided and (pool or parameters.get("Ipv6CidrBlock")):
        raise ApiError(
            "InvalidParameterCombination",
            "The parameter amazonProvidedIpv6CidrBlock cannot be used with ipv6Pool or ipv6CidrBlock.",
        )
    if provided:
        return str(provided_range(world, vpc_id))
    if parameters.get("Ipv6CidrBlock") and not pool:
        raise ApiError("MissingParameter", f"The parameter ipv6CidrBlock needs ipv6Pool, which is {POOL}.")
    return _range_of_pool(world, pool, parameters.get("Ipv6CidrBlock")) if pool else ""


def _range_of_pool(world: World, pool: str, given: str | None) -> str:
    if pool != POOL:
        raise ApiError("InvalidIpv6PoolID.NotFound", f"The pool ID '{pool}' does not exist. There is {POOL}.")
    if not given:
        raise ApiError("MissingParameter", "The request must contain the parameter ipv6CidrBlock: name your range.")
    network = _network(given)
    if network.prefixlen not in _VPC_PREFIXES or any(network.overlaps(one) for one in _UNUSABLE):
        raise ApiError("InvalidVpc.Range", f"The CIDR '{given}' is invalid.")
    for vpc_id, other in _all_ranges(world):
        if network.overlaps(other):
            raise ApiError("CidrConflict", f"The CIDR '{given}' conflicts with {other} of VPC {vpc_id}.")
    return str(network)


def provided_range(world: World, vpc_id: str) -> ipaddress.IPv6Network:
    """The range that a VPC is given when it asks for one. It is the same whenever it asks, unless another has it."""
    taken = [*_UNUSABLE, *(network for _, network in _all_ranges(world))]
    for network in _candidates(world, vpc_id):
        if not any(network.overlaps(one) for one in taken):
            return network
    raise ApiError("InternalError", f"No free IPv6 range for {vpc_id}.", 500)


def _candidates(world: World, vpc_id: str) -> Iterator[ipaddress.IPv6Network]:
    for attempt in range(_ATTEMPTS):
        digest = hashlib.sha256(f"{world.account_id}/{world.region}/{vpc_id}/{attempt}".encode()).digest()
        yield ipaddress.IPv6Network((b"\xfd" + digest[:5] + bytes(10), 56))


def _all_ranges(world: World) -> Iterator[tuple[str, ipaddress.IPv6Network]]:
    return ((vpc.id, ipaddress.IPv6Network(text)) for vpc in world.vpcs for text in vpc.ipv6_cidr_blocks)


def _is_provided(world: World, vpc: Vpc, block: str) -> bool:
    return any(str(network) == block for network in _candidates(world, vpc.id))


def _network(given: str) -> ipaddress.IPv6Network:
    """An IPv6 range, likewise."""
    try:
        if "/" not in given or "%" in given:
            raise ValueError(given)
        return ipaddress.IPv6Network(given, strict=False)
    except ValueError as error:
        raise ApiError("InvalidParameterValue", f"invalid value for parameter ipv6-cidr-block: {given}") from error


# -- ranges of subnets -------------------------------------------------------------------------------------------------


def subnet_range(world: World, vpc: Vpc, given: str) -> str:
    """The IPv6 range for a subnet of a VPC, in canonical form.

    Raises InvalidParameterValue for no range of a length that subnets have, InvalidSubnet.Range outside the VPC's
    ranges, InvalidSubnet.Conflict.
    """
    network = _network(given)
    if network.prefixlen not in _SUBNET_PREFIXES:
        raise ApiError("InvalidParameterValue", f"invalid value for parameter ipv6-cidr-block: {given}")
    if not any(network.subnet_of(ipaddress.IPv6Network(one)) for one in vpc.ipv6_cidr_blocks):
        raise ApiError("InvalidSubnet.Range", f"The IPv6 CIDR '{given}' is invalid.")
    others = [one.ipv6_network for one in world.subnets if one.vpc_id == vpc.id]
    if any(other is not None and network.overlaps(other) for other in others):
        raise ApiError("InvalidSubnet.Conflict", f"The IPv6 CIDR '{given}' conflicts with another subnet")
    return str(network)


# -- answers -----------------------------------------------------------------------------------------------------------


def vpc_association_id(vpc: Vpc, block: str) -> str:
    """The id of the association of a VPC with a range. (That with its first range depends on the VPC alone.)"""
    return resources.derived("vpc-cidr-assoc-", *((vpc.id,) if block == vpc.cidr_block else (vpc.id, block)))


def vpc_association(world: World, vpc: Vpc, block: str, state: str = "associated") -> dict[str, Any]:
    """VpcIpv6CidrBlockAssociation."""
    return {
        "AssociationId": vpc_association_id(vpc, block),
        "Ipv6CidrBlock": block,
        "Ipv6CidrBlockState": {"State": state},
        "Ipv6Pool": "Amazon" if _is_provided(world, vpc, block) else POOL,
        "NetworkBorderGroup": world.region,
    }


def subnet_association_id(subnet: Subnet) -> str | None:
    """The id of the association of a subnet with its IPv6 range; None when it has none."""
    if not subnet.ipv6_cidr_block:
        return None
    return resources.derived("subnet-cidr-assoc-", subnet.id, subnet.ipv6_cidr_block)


def subnet_association(subnet: Subnet, state: str = "associated") -> dict[str, Any]:
    """SubnetIpv6CidrBlockAssociation of a subnet with an IPv6 range."""
    return {
        "AssociationId": subnet_association_id(subnet),
        "Ipv6CidrBlock": subnet.ipv6_cidr_block,
        "Ipv6CidrBlockState": {"State": state},
    }


# -- association -------------------------------------------------------------------------------------------------------


def ask_pool(call: Call) -> Sequence[Ask]:
    """May addresses of this pool be used? No question when the call names none."""
    pool = call.parameters.get("Ipv6Pool")
    return (Ask(f"ec2:{call.action}", call.arn(f"ipv6pool-ec2/{pool}"), common.ec2_context(call)),) if pool else ()


@operation(
    "ec2",
    asks=lambda call: (resources.about_vpc(call, call.action, call.parameters["VpcId"]), *ask_pool(call)),
)
def associate_vpc_cidr_block(call: Call) -> Outcome:
    """Gives a VPC another IPv6 range, one that is provided or one of the pool. Its groups' rules stay as they are.

    Raises CidrLimitExceeded beyond five ranges or one provided, UnsupportedOperation for a second IPv4 range, and as
    `wanted_range` does.
    """
    world, parameters = call.world, call.parameters
    resources.refuse_parameters(parameters, ("CidrBlock", *_IPAM), "AssociateVpcCidrBlock")
    vpc = found(VPC, world, parameters["VpcId"])
    if len(vpc.ipv6_cidr_blocks) >= MAX_RANGES:
        raise _too_many(vpc, MAX_RANGES)
    if parameters.get("AmazonProvidedIpv6CidrBlock") and any(
        _is_provided(world, vpc, block) for block in vpc.ipv6_cidr_blocks
    ):
        raise _too_many(vpc, 1)
    block = wanted_range(world, vpc.id, parameters)
    if not block:
        raise ApiError("MissingParameter", "The request must contain amazonProvidedIpv6CidrBlock or ipv6Pool.")
    changed = msgspec.structs.replace(vpc, ipv6_cidr_blocks=(*vpc.ipv6_cidr_blocks, block))
    answer = {"VpcId": vpc.id, "Ipv6CidrBlockAssociation": vpc_association(world, vpc, block)}
    return Outcome(answer, call.change(changed))


def _too_many(vpc: Vpc, maximum: int) -> ApiError:
    return ApiError(
        "CidrLimitExceeded", f"This network '{vpc.id}' has met its maximum number of allowed CIDRs: {maximum}"
    )


def _vpc_associated(world: World, association_id: str) -> tuple[Vpc, str] | None:
    """The VPC and its range that the id associates."""
    pairs = ((vpc, block) for vpc in world.vpcs for block in (vpc.cidr_block, *vpc.ipv6_cidr_blocks))
    return next((pair for pair in pairs if vpc_association_id(*pair) == association_id), None)


def _ask_disassociate_vpc(call: Call) -> Sequence[Ask]:
    pair = _vpc_associated(call.world, call.parameters["AssociationId"])
    return (resources.about_vpc(call, call.action, pair[0].id if pair else "*"),)


@operation("ec2", asks=_ask_disassociate_vpc)
def disassociate_vpc_cidr_block(call: Call) -> Outcome:
    """Takes an IPv6 range from a VPC. Raises InvalidVpcCidrBlockAssociationID.NotFound, OperationNotPermitted for the
    IPv4 range, InvalidCidrBlock.InUse while a subnet is within it."""
    world, wanted = call.world, call.parameters["AssociationId"]
    pair = _vpc_associated(world, wanted)
    if pair is None:
        common.check_id("vpc-cidr-assoc", wanted, "InvalidVpcCidrBlockAssociationId.Malformed")
        raise ApiError(
            "InvalidVpcCidrBlockAssociationID.NotFound", f"The vpc CIDR block association ID '{wanted}' does not exist"
        )
    vpc, block = pair
    if block == vpc.cidr_block:
        raise ApiError(
            "OperationNotPermitted",
            f"The vpc CIDR block with association ID {wanted} may not be disassociated. "
            "It is the primary IPv4 CIDR block of the VPC",
        )
    network = ipaddress.IPv6Network(block)
    there = [one.ipv6_network for one in world.subnets if one.vpc_id == vpc.id]
    if any(one is not None and one.subnet_of(network) for one in there):
        raise ApiError("InvalidCidrBlock.InUse", f"The vpc {vpc.id} currently has a subnet within CIDR block {block}")
    kept = tuple(one for one in vpc.ipv6_cidr_blocks if one != block)
    answer = {"VpcId": vpc.id, "Ipv6CidrBlockAssociation": vpc_association(world, vpc, block, "disassociated")}
    return Outcome(answer, call.change(msgspec.structs.replace(vpc, ipv6_cidr_blocks=kept)))


@operation("ec2", asks=lambda call: (resources.about_subnet(call, call.action, call.parameters["SubnetId"]),))
def associate_subnet_cidr_block(call: Call) -> Outcome:
    """Gives a subnet its IPv6 range. Raises CidrLimitExceeded when it has one, and as `subnet_range` does."""
    resources.refuse_parameters(call.parameters, _IPAM, "AssociateSubnetCidrBlock")
    subnet = found(SUBNET, call.world, call.parameters["SubnetId"])
    given = call.parameters.get("Ipv6CidrBlock")
    if not given:
        raise ApiError("MissingParameter", "Either 'ipv6CidrBlock' or 'ipv6IpamPoolId' should be provided.")
    if subnet.ipv6_cidr_block:
        raise ApiError("CidrLimitExceeded", f"The subnet '{subnet.id}' already has an IPv6 CIDR block.")
    block = subnet_range(call.world, call.world.vpc_of_subnet(subnet.id), given)
    changed = msgspec.structs.replace(subnet, ipv6_cidr_block=block)
    answer = {"SubnetId": subnet.id, "Ipv6CidrBlockAssociation": subnet_association(changed)}
    return Outcome(answer, call.change(changed))


def _subnet_associated(world: World, association_id: str) -> Subnet | None:
    return next((one for one in world.subnets if subnet_association_id(one) == association_id), None)


def _ask_disassociate_subnet(call: Call) -> Sequence[Ask]:
    subnet = _subnet_associated(call.world, call.parameters["AssociationId"])
    return (resources.about_subnet(call, call.action, subnet.id if subnet else "*"),)


@operation("ec2", asks=_ask_disassociate_subnet)
def disassociate_subnet_cidr_block(call: Call) -> Outcome:
    """Takes the IPv6 range from a subnet. Raises InvalidSubnetCidrBlockAssociationID.NotFound, InvalidCidrBlock.InUse
    while addresses of it are given or are to be given to new interfaces, OperationNotPermitted in an IPv6-only one."""
    wanted = call.parameters["AssociationId"]
    subnet = _subnet_associated(call.world, wanted)
    if subnet is None:
        common.check_id("subnet-cidr-assoc", wanted, "InvalidSubnetCidrBlockAssociationId.Malformed")
        raise ApiError(
            "InvalidSubnetCidrBlockAssociationID.NotFound",
            f"The subnet CIDR block with association ID '{wanted}' does not exist",
        )
    may_not = f"The subnet IPv6 CIDR block with association ID {wanted} may not be disassociated, because"
    if subnet.network is None:
        raise ApiError("OperationNotPermitted", f"{may_not} its subnet is IPv6-only.")
    if subnet.assign_ipv6_on_creation:
        raise ApiError(
            "InvalidCidrBlock.InUse", f"{may_not} its subnet has assign-ipv6-address-on-creation set to true."
        )
    there = call.world.interfaces_of_vpc(subnet.vpc_id)
    if any(eni.subnet_id == subnet.id and eni.ipv6_addresses for eni in there):
        raise ApiError("InvalidCidrBlock.InUse", f"{may_not} network interfaces have addresses of it.")
    answer = {"SubnetId": subnet.id, "Ipv6CidrBlockAssociation": subnet_association(subnet, "disassociated")}
    return Outcome(answer, call.change(msgspec.structs.replace(subnet, ipv6_cidr_block="")))
