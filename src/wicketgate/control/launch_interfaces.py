"""The network interfaces of RunInstances: what the call says about them, what IAM is asked, how they are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from wicketgate.control import attachments, common, interfaces, regions, resources
from wicketgate.control.addresses import Addresses, Pool, Wish, wish_of
from wicketgate.control.call import Ask, Call
from wicketgate.control.common import Quotas
from wicketgate.control.connection_tracking import tracking_of
from wicketgate.control.resources import INTERFACE, SUBNET, found, subnet_of
from wicketgate.control.security_groups import default_vpc, group_by_name, named_group
from wicketgate.model import ApiError, NetworkInterface, Subnet
from wicketgate.model.resources import EXTERNAL_IMAGE

MAX_AT_ONCE: Final = 1000
"""Instances of one RunInstances call."""
TAGGED: Final = ("instance", "network-interface", "volume")
"""Resource types that RunInstances may tag. There are no volumes; tags for them are checked and have no effect."""
_NOT_OFFERED: Final = (
    "AssociatePublicIpAddress",
    "AssociateCarrierIpAddress",
    "NetworkCardIndex",
    "Ipv4Prefixes",
    "Ipv4PrefixCount",
    "Ipv6Prefixes",
    "Ipv6PrefixCount",
    "PrimaryIpv6",
    "EnaSrdSpecification",
    "EnaQueueCount",
)
_OF_NEW_ONES: Final = (
    "SubnetId",
    "Groups",
    "PrivateIpAddress",
    "PrivateIpAddresses",
    "SecondaryPrivateIpAddressCount",
    "Ipv6Addresses",
    "Ipv6AddressCount",
    "ConnectionTrackingSpecification",
    "DeleteOnTermination",
)
_INSTANCE_LEVEL: Final = {
    "SubnetId": "subnet ID",
    "SecurityGroupIds": "security groups",
    "SecurityGroups": "security groups",
    "PrivateIpAddress": "private address",
    "Ipv6Addresses": "IPv6 addresses",
    "Ipv6AddressCount": "IPv6 address count",
}
"""What a call that lists interfaces may not say of the instance, and AWS's noun for it."""


# -- what the call says ------------------------------------------------------------------------------------------------


def specifications(parameters: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What is said about each interface, by device index, in the form of NetworkInterfaces whichever the call uses."""
    listed = parameters.get("NetworkInterfaces") or ()
    if listed:
        return sorted(listed, key=lambda one: one.get("DeviceIndex") or 0)
    one = {name: parameters[name] for name in _INSTANCE_LEVEL if parameters.get(name) is not None}
    return [one | {"DeviceIndex": 0, "Groups": parameters.get("SecurityGroupIds")}]


def check_forms(parameters: Mapping[str, Any]) -> None:
    """Refuse both forms at once, what interfaces have not, and device indexes that do not count up from 0.

    Raises InvalidParameterCombination, UnsupportedOperation, InvalidParameterValue, AttachmentLimitExceeded.
    """
    listed = parameters.get("NetworkInterfaces") or ()
    for name, noun in _INSTANCE_LEVEL.items():
        if listed and parameters.get(name):
            raise ApiError(
                "InvalidParameterCombination",
                f"Network interfaces and an instance-level {noun} may not be specified on the same request",
            )
    for one in listed:
        resources.refuse_parameters(one, _NOT_OFFERED, "NetworkInterfaces")
        if one.get("InterfaceType", "interface") != "interface":
            raise ApiError("UnsupportedOperation", "Network interfaces are of the type interface here.")
    if listed:
        _check_indexes([one.get("DeviceIndex") for one in listed])
    if parameters.get("SecurityGroups") and parameters.get("SubnetId"):
        raise ApiError(
            "InvalidParameterCombination", "The parameter groupName cannot be used with the parameter subnet"
        )


def _check_indexes(indexes: Sequence[int | None]) -> None:
    taken: list[int] = []
    for index in indexes:
        if index is None:
            raise ApiError("InvalidParameterValue", "Each network interface requires a device index.")
        if index in taken:
            raise ApiError("InvalidParameterValue", f"Two network interfaces have the device index {index}.")
        attachments.check_index(index, taken)
        taken.append(index)
    if 0 not in taken:
        raise ApiError(
            "InvalidParameterCombination",
            "When specifying network interfaces, you must include a device at index 0 and network card at index 0.",
        )


# -- what IAM is asked -------------------------------------------------------------------------------------------------


def ask(call: Call) -> Sequence[Ask]:
    """About the interfaces, their subnets and groups: each question once."""
    asked = [one for specification in specifications(call.parameters) for one in _ask_about(call, specification)]
    return list({(one.resource, str(one.context)): one for one in asked}.values())


def _ask_about(call: Call, specification: Mapping[str, Any]) -> Sequence[Ask]:
    """About interface, subnet and groups as they will be: a Deny on one holds however it is named or implied."""
    interface_id = specification.get("NetworkInterfaceId")
    interface = call.world.interface(interface_id) if interface_id else None
    if interface_id:
        subnet_id = interface.subnet_id if interface else ""
        groups: Sequence[str] = interface.group_ids if interface else ()
        about = resources.about_interface(call, "RunInstances", interface_id)
    else:
        implied = None if specification.get("SubnetId") else _default_subnet(call)
        subnet_id = specification.get("SubnetId") or (implied.id if implied else "")
        groups = _ask_groups(call, specification, subnet_id)
        tags = common.request_tags(call, "network-interface")
        about = resources.about_new_interface(call, "RunInstances", subnet_id, tags)
    return [
        about,
        resources.about_subnet(call, "RunInstances", subnet_id or "*"),
        *resources.about_groups(call, "RunInstances", groups),
    ]


def _ask_groups(call: Call, specification: Mapping[str, Any], subnet_id: str) -> Sequence[str]:
    vpc, names = default_vpc(call.world), call.parameters.get("SecurityGroups") or ()
    named = [group_by_name(call.world, vpc.id, name) for name in names] if vpc else []
    ids = [*(specification.get("Groups") or ()), *(group.id for group in named if group)]
    return resources.groups_or_default(call, ids, subnet_id)


# -- which subnet ------------------------------------------------------------------------------------------------------


def _wanted_zone(call: Call) -> str | None:
    placement = call.parameters.get("Placement") or {}
    names = (placement.get("AvailabilityZone"), placement.get("AvailabilityZoneId"))
    return regions.checked_zone(call.world, *names) if any(names) else None


def _subnet_for(call: Call, specification: Mapping[str, Any]) -> Subnet:
    world, wanted = call.world, _wanted_zone(call)
    if specification.get("SubnetId"):
        subnet = found(SUBNET, world, specification["SubnetId"])
        if wanted and wanted != regions.zone_of(world.region, subnet.availability_zone):
            raise ApiError(
                "InvalidParameterValue",
                f"The availability zone {wanted} is not that of subnet {subnet.id}. Leave one of them out.",
            )
        return subnet
    vpc = default_vpc(world)
    if vpc is None:
        raise ApiError("VPCIdNotSpecified", "No default VPC for this user. Specify a subnet.")
    implied = _default_subnet(call)
    if implied is None:
        raise ApiError("MissingInput", f"No subnets found for the default VPC '{vpc.id}'. Please specify a subnet.")
    return implied


def _default_subnet(call: Call) -> Subnet | None:
    """The first subnet of the default VPC, in the zone asked for if any; a zone that does not exist has none."""
    vpc, placement = default_vpc(call.world), call.parameters.get("Placement") or {}
    for subnet in call.world.subnets:
        zone = regions.zone_of(call.world.region, subnet.availability_zone)
        if (
            vpc is not None
            and subnet.vpc_id == vpc.id
            and placement.get("AvailabilityZone") in (None, "", zone)
            and placement.get("AvailabilityZoneId") in (None, "", regions.zone_id(zone))
        ):
            return subnet
    return None


# -- making them -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """One interface of each instance: one to be made, or one that exists."""

    index: int
    subnet: Subnet
    wish: Wish
    groups: Sequence[str]
    fields: Mapping[str, Any]
    """Of a new one: what else it has."""
    existing: NetworkInterface | None = None


def launched(call: Call, quotas: Quotas) -> list[tuple[str, list[NetworkInterface]]]:
    """Ids of the new instances, each with its interfaces by device index: as many of MinCount to MaxCount as there are
    addresses for.

    Raises InsufficientFreeAddressesInSubnet below MinCount, NetworkInterfaceLimitExceeded, InvalidParameterCombination,
    InvalidNetworkInterface.InUse, and as the checks of `interfaces`, `wish_of` and `Pool` do.
    """
    plans = [_plan(call, one, quotas) for one in specifications(call.parameters)]
    for plan in plans:
        attachments.check_image(call.parameters["ImageId"], plan.subnet)
        attachments.check_place(call.world, plan.subnet, plans[0].subnet)
    _check_shared(call, plans)
    pool, most = Pool(call.world), min(call.parameters["MaxCount"], MAX_AT_ONCE)
    for plan in plans:
        pool.claim(plan.subnet, plan.wish)
    made: list[tuple[str, list[NetworkInterface]]] = []
    for _ in range(most):
        given = _given(pool, plans)
        if given is None:
            break
        made.append(_instance(call, plans, given, [one for _, there in made for one in there]))
    if len(made) < call.parameters["MinCount"]:
        raise ApiError(
            "InsufficientFreeAddressesInSubnet",
            f"There are not enough free addresses in subnet '{plans[0].subnet.id}' "
            "to satisfy the requested number of instances.",
        )
    interfaces.check_interface_quota(call.world, len(made) * sum(one.existing is None for one in plans), quotas)
    return made


def _plan(call: Call, specification: Mapping[str, Any], quotas: Quotas) -> _Plan:
    if specification.get("NetworkInterfaceId"):
        return _plan_existing(call, specification)
    subnet = _subnet_for(call, specification)
    given = specification.get("Groups") or [
        named_group(call.world, name).id for name in call.parameters.get("SecurityGroups") or ()
    ]
    return _Plan(
        index=specification["DeviceIndex"],
        subnet=subnet,
        groups=interfaces.checked_groups(call.world, subnet, given, quotas),
        wish=_wish(call, subnet, specification),
        fields={
            "description": specification.get("Description") or "",
            "delete_on_termination": specification.get("DeleteOnTermination", True),
            "connection_tracking": tracking_of(specification.get("ConnectionTrackingSpecification")),
            "tags": common.tags_from(call.parameters, "network-interface", also=TAGGED),
        },
    )


def _wish(call: Call, subnet: Subnet, specification: Mapping[str, Any]) -> Wish:
    """The addresses that one interface is to have. A machine that exists has them already: none is chosen for it.

    Raises MissingParameter, InvalidParameterCombination, and as `wish_of` does.
    """
    wish = wish_of(specification)
    if call.parameters["ImageId"] != EXTERNAL_IMAGE:
        return wish
    if wish.secondary_count or wish.ipv6_count:
        raise ApiError(
            "InvalidParameterCombination",
            f"The image {EXTERNAL_IMAGE} registers a machine at the addresses that it has: name each of them, a count "
            "would choose others.",
        )
    missing = "PrivateIpAddress" if subnet.network is not None and not wish.primary else ""
    missing = "Ipv6Addresses" if subnet.network is None and not wish.ipv6 else missing
    if missing:
        raise ApiError(
            "MissingParameter",
            f"The request must contain the parameter {missing}: the image {EXTERNAL_IMAGE} registers a machine at the "
            f"address that it has in subnet '{subnet.id}'.",
        )
    return wish if wish.ipv6 else msgspec.structs.replace(wish, ipv6_count=0)


def _plan_existing(call: Call, specification: Mapping[str, Any]) -> _Plan:
    """An interface that was made by itself. It outlives the instance."""
    interface = found(INTERFACE, call.world, specification["NetworkInterfaceId"])
    if call.parameters["MaxCount"] != 1 or any(specification.get(name) for name in _OF_NEW_ONES):
        raise ApiError(
            "InvalidParameterCombination",
            "A network interface that exists is for one instance and has its subnet, groups and address. "
            "Give its id alone.",
        )
    if attachments.owner_of(call.world, interface) is not None:
        raise ApiError("InvalidNetworkInterface.InUse", f"Interface: [{interface.id}] in use.")
    index, subnet = specification["DeviceIndex"], subnet_of(call.world, interface)
    return _Plan(index=index, subnet=subnet, wish=Wish(), groups=(), fields={}, existing=interface)


def _check_shared(call: Call, plans: Sequence[_Plan]) -> None:
    """What is there once is not for several instances, nor for several interfaces of one."""
    if call.parameters["MaxCount"] > 1 and any(plan.wish.names_any for plan in plans):
        raise ApiError(
            "InvalidParameterCombination",
            "A private IP address is for one instance. Launch one at a time, or give none.",
        )
    existing = [plan.existing.id for plan in plans if plan.existing is not None]
    if len(set(existing)) < len(existing):
        raise ApiError("InvalidNetworkInterface.InUse", f"Interface: [{existing[0]}] in use.")


def _given(pool: Pool, plans: Sequence[_Plan]) -> list[Addresses] | None:
    """The addresses of one instance's interfaces; None when there are too few."""
    given = []
    for plan in plans:
        addresses = Addresses() if plan.existing is not None else pool.fill(plan.subnet, plan.wish)
        if addresses is None:
            return None
        given.append(addresses)
    return given


def _instance(
    call: Call, plans: Sequence[_Plan], given: Sequence[Addresses], others: Sequence[NetworkInterface]
) -> tuple[str, list[NetworkInterface]]:
    """A new instance's id and its interfaces. `others`: interfaces that were made before it."""
    instance_id, made = call.new_id("i"), list[NetworkInterface]()
    for plan, addresses in zip(plans, given, strict=True):
        interface = plan.existing or msgspec.structs.replace(
            interfaces.new_interface(call, plan.subnet, addresses, plan.groups, (*others, *made)), **plan.fields
        )
        further = {"attached_to": instance_id, "device_index": plan.index} if plan.index else {}
        made.append(msgspec.structs.replace(interface, attached_at=call.now, **further))
    return instance_id, made
