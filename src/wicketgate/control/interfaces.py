"""Network interfaces: links, groups, and the actions on them. Instances and endpoints get theirs here.

(Addresses: `addresses`, `address_assignment`. What an interface is attached to: `attachments`. This module offers the
actions of all.) CreateNetworkInterface takes a ClientToken.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import msgspec

from wicketgate.control import address_assignment as _assignment  # noqa: F401  # offers its actions
from wicketgate.control import common, regions, resources
from wicketgate.control.addresses import Addresses, Pool, wish_of
from wicketgate.control.attachments import (
    Owner,
    attachment_answer,
    attachment_id,
    no_attachment,
    owner_of,
)
from wicketgate.control.call import Ask, Call, Outcome, operation
from wicketgate.control.common import AWS_QUOTAS, Quotas
from wicketgate.control.connection_tracking import tracking_answer, tracking_of
from wicketgate.control.resources import GROUP, INTERFACE, SUBNET, found, subnet_of
from wicketgate.control.rule_quotas import check_rules_per_interface
from wicketgate.model import ApiError, Instance, NetworkInterface, SecurityGroup, Subnet, World

_NOT_OFFERED: Final = (
    "Ipv4Prefixes",
    "Ipv4PrefixCount",
    "Ipv6Prefixes",
    "Ipv6PrefixCount",
    "InterfaceType",
    "EnablePrimaryIpv6",
    "Operator",
)
_ATTRIBUTES: Final = ("Groups", "Description", "SourceDestCheck", "Attachment", "ConnectionTrackingSpecification")
_ATTRIBUTES_NOT_OFFERED: Final = (
    "EnaSrdSpecification",
    "EnablePrimaryIpv6",
    "AssociatePublicIpAddress",
    "AssociatedSubnetIds",
)


# -- what a new interface has ------------------------------------------------------------------------------------------


def link_name(interface_id: str, taken: Collection[str]) -> str:
    """The name of an interface's network device: `eni` and twelve hex digits of its id, 15 bytes as Linux allows.

    The last twelve, unless another interface of the VPC (`taken`) has them: then an earlier run of them.
    """
    digits = interface_id.removeprefix("eni-")
    for start in range(max(0, len(digits) - 12), -1, -1):
        name = f"eni{digits[start : start + 12]}"
        if name not in taken:
            return name
    raise ApiError("InternalError", f"No free device name for {interface_id}. Try again: another id is made.", 500)


def mac_address(interface_id: str) -> str:
    """A locally administered unicast address (RFC 7042, section 2.1) from the last ten hex digits of the id."""
    digits = interface_id[-10:]
    return ":".join(["02", *(digits[at : at + 2] for at in range(0, 10, 2))])


def private_dns_name(region: str, address: str) -> str:
    """`ip-10-0-0-5.ec2.internal`, elsewhere `....<region>.compute.internal` (EC2 User Guide, hostname types)."""
    return f"ip-{address.replace('.', '-')}.{private_domain(region)}"


def private_domain(region: str) -> str:
    """The domain of the region's private host names."""
    return "ec2.internal" if region == "us-east-1" else f"{region}.compute.internal"


def new_interface(
    call: Call, subnet: Subnet, given: Addresses, group_ids: Sequence[str], made: Collection[NetworkInterface] = ()
) -> NetworkInterface:
    """An interface that is attached to nothing. `made`: others of the same call, which are not in the World yet."""
    interface_id = call.new_id("eni")
    there = (*call.world.interfaces_of_vpc(subnet.vpc_id), *made)
    return NetworkInterface(
        id=interface_id,
        subnet_id=subnet.id,
        private_ip_address=given.primary,
        secondary_ip_addresses=given.secondary,
        ipv6_addresses=given.ipv6,
        group_ids=tuple(group_ids),
        link=link_name(interface_id, {eni.link for eni in there}),
        mac_address=mac_address(interface_id),
    )


def checked_groups(
    world: World,
    subnet: Subnet,
    given: Sequence[str] | None,
    quotas: Quotas = AWS_QUOTAS,
    maximum: int | None = None,
) -> tuple[str, ...]:
    """The groups for an interface in a subnet, each once; the VPC's default group when none is named.

    `maximum`: how many it may carry where that is not the quota. Raises InvalidSecurityGroupID.NotFound,
    InvalidParameter for a group of another VPC, and as `check_groups` does.
    """
    if not given:
        return (resources.default_group(world, subnet.vpc_id).id,)
    groups = resources.several(GROUP, world, given)
    for group in groups:
        if group.vpc_id != subnet.vpc_id:
            raise ApiError(
                "InvalidParameter",
                f"Security group {group.id} and subnet {subnet.id} belong to different networks.",
            )
    check_groups(world, groups, quotas, maximum)
    return tuple(group.id for group in groups)


def check_groups(
    world: World, groups: Sequence[SecurityGroup], quotas: Quotas = AWS_QUOTAS, maximum: int | None = None
) -> None:
    """Raise SecurityGroupsPerInterfaceLimitExceeded for more groups than an interface may carry, or for groups with
    more rules than it may have."""
    most = quotas.groups_per_interface if maximum is None else maximum
    if len(groups) > most:
        raise ApiError(
            "SecurityGroupsPerInterfaceLimitExceeded",
            f"The maximum number of security groups per interface has been reached: {most}.",
        )
    check_rules_per_interface(world, groups, quotas)


def check_interface_quota(world: World, count: int, quotas: Quotas) -> None:
    """Raise NetworkInterfaceLimitExceeded when there may not be so many more interfaces."""
    if len(world.interfaces) + count > quotas.interfaces_per_region:
        raise ApiError("NetworkInterfaceLimitExceeded", "The maximum number of network interfaces has been reached.")


def replaced_groups(
    world: World, interface: NetworkInterface, given: Sequence[str], quotas: Quotas = AWS_QUOTAS
) -> NetworkInterface:
    """The interface with this set of groups instead of its own. Raises as `checked_groups` does, but
    InvalidGroup.NotFound for a group of another VPC."""
    vpc_id = subnet_of(world, interface).vpc_id
    groups = resources.several(GROUP, world, given)
    if any(group.vpc_id != vpc_id for group in groups):
        raise ApiError("InvalidGroup.NotFound", "You have specified two resources that belong to different networks.")
    check_groups(world, groups, quotas)
    return msgspec.structs.replace(interface, group_ids=tuple(group.id for group in groups))


# -- actions -----------------------------------------------------------------------------------------------------------


def _ask_create(call: Call) -> Sequence[Ask]:
    subnet_id, tags = call.parameters["SubnetId"], common.request_tags(call, "network-interface")
    groups = resources.groups_or_default(call, call.parameters.get("Groups"), subnet_id)
    return (
        resources.about_new_interface(call, "CreateNetworkInterface", subnet_id, tags),
        resources.about_subnet(call, "CreateNetworkInterface", subnet_id),
        *resources.about_groups(call, "CreateNetworkInterface", groups),
        *resources.about_tagging(call, "network-interface"),
    )


@operation("ec2", asks=_ask_create)
def create_network_interface(call: Call, quotas: Quotas = AWS_QUOTAS) -> Outcome:
    """An interface of its own, attached to nothing.

    Raises InsufficientFreeAddressesInSubnet, NetworkInterfaceLimitExceeded, and as the checks above, `wish_of` and
    `Pool` do.
    """
    world, parameters = call.world, call.parameters
    resources.refuse_parameters(parameters, _NOT_OFFERED, "CreateNetworkInterface")
    subnet = found(SUBNET, world, parameters["SubnetId"])
    groups = checked_groups(world, subnet, parameters.get("Groups"), quotas)
    check_interface_quota(world, 1, quotas)
    wish, pool = wish_of(parameters), Pool(world)
    pool.claim(subnet, wish)
    given = pool.fill(subnet, wish)
    if given is None:
        raise ApiError(
            "InsufficientFreeAddressesInSubnet",
            "The specified subnet does not have enough free addresses to satisfy the request.",
        )
    interface = msgspec.structs.replace(
        new_interface(call, subnet, given, groups),
        description=parameters.get("Description") or "",
        delete_on_termination=False,
        connection_tracking=tracking_of(parameters.get("ConnectionTrackingSpecification")),
        tags=common.tags_from(parameters, "network-interface"),
    )
    token = parameters.get("ClientToken")
    answer = {"NetworkInterface": interface_answer(world, interface, None)}
    return Outcome(answer | ({"ClientToken": token} if token else {}), call.change(interface))


def _ask_of_interface(call: Call) -> Sequence[Ask]:
    interface_id = call.parameters["NetworkInterfaceId"]
    return (
        resources.about_interface(call, call.action, interface_id),
        *resources.about_groups(call, call.action, call.parameters.get("Groups") or ()),
    )


@operation("ec2", asks=_ask_of_interface)
def delete_network_interface(call: Call) -> Outcome:
    """Ends an interface. Raises InvalidParameterValue while something uses it, as AWS does."""
    interface = found(INTERFACE, call.world, call.parameters["NetworkInterfaceId"])
    if owner_of(call.world, interface) is not None or interface.requester_managed:
        raise ApiError("InvalidParameterValue", f"Network interface '{interface.id}' is currently in use.")
    return Outcome({}, call.change(deletes=[("network-interface", interface.id)]))


@operation("ec2", asks=_ask_of_interface)
def modify_network_interface_attribute(call: Call, quotas: Quotas = AWS_QUOTAS) -> Outcome:
    """Sets one attribute: groups (the whole set), description, source/destination check, delete on termination, or the
    idle time-outs of tracked connections that are named.

    Raises AuthFailure for an interface that a service manages, InvalidParameterCombination for none or several.
    """
    world, parameters = call.world, call.parameters
    interface = found(INTERFACE, world, parameters["NetworkInterfaceId"])
    resources.refuse_parameters(parameters, _ATTRIBUTES_NOT_OFFERED, "ModifyNetworkInterfaceAttribute")
    given = {name: parameters[name] for name in _ATTRIBUTES if parameters.get(name) not in (None, [])}
    attribute = resources.one_attribute(given, _ATTRIBUTES)
    if interface.requester_managed:
        raise ApiError("AuthFailure", "You do not have permission to access the specified resource.")
    if attribute == "Groups":
        return Outcome({}, call.change(replaced_groups(world, interface, given["Groups"], quotas)))
    if attribute == "Attachment":
        return Outcome({}, call.change(_attachment_changed(world, interface, given["Attachment"])))
    if attribute == "ConnectionTrackingSpecification":
        tracking = tracking_of(given[attribute], interface.connection_tracking)
        return Outcome({}, call.change(msgspec.structs.replace(interface, connection_tracking=tracking)))
    value = given[attribute].get("Value")
    fields = {"description": value or ""} if attribute == "Description" else {"source_dest_check": bool(value)}
    return Outcome({}, call.change(msgspec.structs.replace(interface, **fields)))


def _attachment_changed(world: World, interface: NetworkInterface, wish: Mapping[str, Any]) -> NetworkInterface:
    if owner_of(world, interface) is None or wish.get("AttachmentId") != attachment_id(interface):
        raise no_attachment(wish.get("AttachmentId") or "")
    resources.refuse_parameters(wish, ("EnaQueueCount",), "ModifyNetworkInterfaceAttribute")
    if wish.get("DeleteOnTermination") is None:
        raise ApiError("MissingParameter", "The request must contain the parameter deleteOnTermination")
    return msgspec.structs.replace(interface, delete_on_termination=wish["DeleteOnTermination"])


# -- answers -----------------------------------------------------------------------------------------------------------


def group_answers(world: World, interface: NetworkInterface) -> list[dict[str, str]]:
    """GroupIdentifiers of the groups that an interface carries."""
    groups = [world.group(group_id) for group_id in interface.group_ids]
    return [{"GroupId": group.id, "GroupName": group.name} for group in groups if group is not None]


def common_answer(world: World, interface: NetworkInterface) -> dict[str, Any]:
    """What an interface shows both by itself and inside an instance."""
    answer = {
        "NetworkInterfaceId": interface.id,
        "OwnerId": world.account_id,
        "SubnetId": interface.subnet_id,
        "VpcId": subnet_of(world, interface).vpc_id,
        "Description": interface.description,
        "Groups": group_answers(world, interface),
        "InterfaceType": interface.interface_type,
        "Ipv6Addresses": [{"Ipv6Address": one, "IsPrimaryIpv6": False} for one in interface.ipv6_addresses],
        "MacAddress": interface.mac_address or mac_address(interface.id),
        "PrivateIpAddresses": _ipv4_answers(world, interface),
        "SourceDestCheck": interface.source_dest_check,
        **tracking_answer(interface),
    }
    if interface.private_ip_address:
        primary = answer["PrivateIpAddresses"][0]
        answer |= {name: primary[name] for name in ("PrivateDnsName", "PrivateIpAddress")}
    return answer


def _ipv4_answers(world: World, interface: NetworkInterface) -> list[dict[str, Any]]:
    primary = interface.private_ip_address
    listed = (primary, *interface.secondary_ip_addresses) if primary else ()
    return [
        {
            "Primary": address == primary,
            "PrivateDnsName": private_dns_name(world.region, address),
            "PrivateIpAddress": address,
        }
        for address in listed
    ]


def interface_answer(world: World, interface: NetworkInterface, owner: Owner | None) -> dict[str, Any]:
    """NetworkInterface, as DescribeNetworkInterfaces has it."""
    zone = regions.zone_of(world.region, subnet_of(world, interface).availability_zone)
    answer = common_answer(world, interface) | {
        "AvailabilityZone": zone,
        "AvailabilityZoneId": regions.zone_id(zone),
        "RequesterManaged": interface.requester_managed,
        "Status": "available" if owner is None else "in-use",
        "TagSet": common.tag_list(interface.tags),
    }
    if interface.ipv6_addresses:
        answer["Ipv6Address"] = interface.ipv6_addresses[0]
    if not interface.private_ip_address:
        answer["Ipv6Native"] = True
    if interface.requester_managed:
        answer["RequesterId"] = "ec2-instance-connect"
    if isinstance(owner, Instance):
        answer["Attachment"] = attachment_answer(interface, owner.launched_at) | {
            "InstanceId": owner.id,
            "InstanceOwnerId": world.account_id,
        }
    elif owner is not None:
        answer["Attachment"] = attachment_answer(interface, owner.created_at) | {"InstanceOwnerId": "amazon-aws"}
    return answer


@operation("ec2")
def describe_network_interfaces(call: Call) -> Outcome:
    """DescribeNetworkInterfaces. MaxResults together with ids: InvalidParameterCombination."""
    world, ids = call.world, call.parameters.get("NetworkInterfaceIds")
    resources.not_both(call, "NetworkInterfaceIds", "networkInterfaceIdSet")
    interfaces = resources.several(INTERFACE, world, ids) if ids else world.interfaces
    chosen = common.select(interfaces, call.parameters.get("Filters"), _filters(world))
    shown, following = resources.paged(call, chosen, lambda eni: eni.id)
    return Outcome(
        {"NetworkInterfaces": [interface_answer(world, one, owner_of(world, one)) for one in shown]} | following
    )


def _filters(world: World) -> Mapping[str, Callable[[NetworkInterface], Any]]:
    def shown(*path: str) -> Callable[[NetworkInterface], Any]:
        def get(interface: NetworkInterface) -> Any:
            answer: Any = interface_answer(world, interface, owner_of(world, interface))
            for member in path:
                answer = answer.get(member) if answer else None
            return answer

        return get

    def ipv4(interface: NetworkInterface) -> list[str]:
        return [one["PrivateIpAddress"] for one in _ipv4_answers(world, interface)]

    absent = (
        "addresses.association.owner-id",
        "addresses.association.public-ip",
        "association.allocation-id",
        "association.association-id",
        "association.ip-owner-id",
        "association.public-dns-name",
        "association.public-ip",
        "operator.principal",
    )
    return {
        **dict.fromkeys(absent, lambda eni: None),
        "addresses.primary": lambda eni: [one["Primary"] for one in _ipv4_answers(world, eni)],
        "addresses.private-ip-address": ipv4,
        "attachment.attach-time": lambda eni: time_text(shown("Attachment", "AttachTime")(eni)),
        "attachment.attachment-id": shown("Attachment", "AttachmentId"),
        "attachment.delete-on-termination": shown("Attachment", "DeleteOnTermination"),
        "attachment.device-index": shown("Attachment", "DeviceIndex"),
        "attachment.instance-id": shown("Attachment", "InstanceId"),
        "attachment.instance-owner-id": shown("Attachment", "InstanceOwnerId"),
        "attachment.status": shown("Attachment", "Status"),
        "availability-zone": shown("AvailabilityZone"),
        "availability-zone-id": shown("AvailabilityZoneId"),
        "description": lambda eni: eni.description,
        "group-id": lambda eni: eni.group_ids,
        "group-name": lambda eni: [one["GroupName"] for one in group_answers(world, eni)],
        "interface-type": lambda eni: eni.interface_type,
        "ipv6-addresses.ipv6-address": lambda eni: eni.ipv6_addresses,
        "mac-address": shown("MacAddress"),
        "network-interface-id": lambda eni: eni.id,
        "operator.managed": lambda eni: False,
        "owner-id": lambda eni: world.account_id,
        "private-dns-name": shown("PrivateDnsName"),
        "private-ip-address": ipv4,
        "requester-id": shown("RequesterId"),
        "requester-managed": lambda eni: eni.requester_managed,
        "source-dest-check": lambda eni: eni.source_dest_check,
        "status": shown("Status"),
        "subnet-id": lambda eni: eni.subnet_id,
        "vpc-id": lambda eni: subnet_of(world, eni).vpc_id,
        **common.TAG_GETTERS,
    }


def time_text(time: Any) -> str | None:
    """A time of an answer as filters compare it, to the millisecond."""
    return None if time is None else time.strftime("%Y-%m-%dT%H:%M:%S.") + f"{time.microsecond // 1000:03d}Z"
