"""RunInstances: the machines and their interfaces, in one Change.

The one image is a namespace with a real sshd. An instance has one network interface. RunInstances takes a ClientToken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from wicketgate.control import common, interfaces, regions, resources
from wicketgate.control.call import Ask, Call, Outcome, operation
from wicketgate.control.common import AWS_QUOTAS, Quotas
from wicketgate.control.instance_answers import instance_answer, reservation_answer
from wicketgate.control.resources import INTERFACE, SUBNET, found
from wicketgate.control.security_groups import default_vpc, group_by_name, named_group
from wicketgate.model import ApiError, Instance, NetworkInterface, Subnet

IMAGE: Final = "ami-00000000000000001"
"""The built-in image."""
DEFAULT_TYPE: Final = "wicketgate.namespace"
"""InstanceType when none is named. Another is kept and shown, and changes nothing."""
MAX_AT_ONCE: Final = 1000
"""Instances of one RunInstances call."""
_NOT_OFFERED: Final = (
    "BlockDeviceMappings",
    "Ipv6AddressCount",
    "Ipv6Addresses",
    "KernelId",
    "RamdiskId",
    "UserData",
    "ElasticGpuSpecification",
    "ElasticInferenceAccelerators",
    "LaunchTemplate",
    "InstanceMarketOptions",
    "LicenseSpecifications",
    "EnablePrimaryIpv6",
    "SecondaryInterfaces",
    "IamInstanceProfile",
    "DisableApiTermination",
    "DisableApiStop",
    "EbsOptimized",
    "AdditionalInfo",
)
_INTERFACE_NOT_OFFERED: Final = (
    "AssociatePublicIpAddress",
    "Ipv6AddressCount",
    "Ipv6Addresses",
    "SecondaryPrivateIpAddressCount",
    "AssociateCarrierIpAddress",
    "Ipv4Prefixes",
    "Ipv4PrefixCount",
    "Ipv6Prefixes",
    "Ipv6PrefixCount",
    "PrimaryIpv6",
    "EnaSrdSpecification",
    "ConnectionTrackingSpecification",
    "EnaQueueCount",
)
_TAGGED: Final = ("instance", "network-interface", "volume")
"""Resource types that RunInstances may tag. There are no volumes; tags for them are checked and have no effect."""


def _ask_run(call: Call) -> Sequence[Ask]:
    specification = _specification(call.parameters)
    image = f"arn:{call.world.partition}:ec2:{call.world.region}::image/{call.parameters.get('ImageId') or '*'}"
    kind = call.parameters.get("InstanceType") or DEFAULT_TYPE
    instance = common.ec2_context(call, InstanceType=kind, Tenancy="default")
    return [
        Ask("ec2:RunInstances", image, common.ec2_context(call)),
        Ask("ec2:RunInstances", call.arn("instance/*"), instance | common.request_tags(call, "instance")),
        *_ask_network(call, specification),
        *(ask for kind in _TAGGED for ask in resources.about_tagging(call, kind)),
    ]


def _ask_network(call: Call, specification: Mapping[str, Any]) -> Sequence[Ask]:
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


def _specification(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What is said about the network, in the form of NetworkInterfaces[0], whichever form the call uses."""
    listed = parameters.get("NetworkInterfaces") or ()
    if listed:
        return dict(listed[0])
    named = {"SubnetId": "SubnetId", "PrivateIpAddress": "PrivateIpAddress", "Groups": "SecurityGroupIds"}
    return {name: parameters[given] for name, given in named.items() if parameters.get(given)}


@operation("ec2", asks=_ask_run)
def run_instances(call: Call, quotas: Quotas = AWS_QUOTAS) -> Outcome:
    """Instances in `pending`, as many as fit of MinCount to MaxCount, or none and an error.

    Raises InvalidAMIID.NotFound, InsufficientFreeAddressesInSubnet, UnsupportedOperation for what a namespace has not,
    InvalidParameterCombination, and as the checks of `interfaces` do.
    """
    world, parameters = call.world, call.parameters
    _check_run(parameters)
    specification = _specification(parameters)
    tags = common.tags_from(parameters, "instance", also=_TAGGED)
    if specification.get("NetworkInterfaceId"):
        made = [_attached(call, specification)]
    else:
        made = _new_interfaces(call, _subnet_for(call, specification), specification, quotas.groups_per_interface)
        interfaces.check_interface_quota(world, len(made), quotas)
    reservation = call.new_id("r")
    instances = [
        Instance(
            id=call.new_id("i"),
            interface_id=interface.id,
            state="pending",
            image_id=parameters["ImageId"],
            instance_type=parameters.get("InstanceType") or DEFAULT_TYPE,
            launched_at=call.now,
            tags=tags,
            reservation_id=reservation,
            launch_index=index,
            client_token=parameters.get("ClientToken") or "",
        )
        for index, interface in enumerate(made)
    ]
    change = call.change(*made, *instances)
    answers = [instance_answer(world, instance, interface) for instance, interface in zip(instances, made, strict=True)]
    return Outcome(reservation_answer(world, reservation, answers), change)


def _check_run(parameters: Mapping[str, Any]) -> None:
    resources.refuse_parameters(parameters, _NOT_OFFERED, "RunInstances")
    image = parameters.get("ImageId")
    if not image:
        raise ApiError("MissingParameter", "The request must contain the parameter ImageId")
    if image != IMAGE:
        common.check_id("ami", image, "InvalidAMIID.Malformed")
        raise ApiError("InvalidAMIID.NotFound", f"The image id '[{image}]' does not exist")
    if parameters.get("KeyName"):
        raise ApiError("InvalidKeyPair.NotFound", f"The key pair '{parameters['KeyName']}' does not exist")
    _check_counts(parameters["MinCount"], parameters["MaxCount"])
    _check_hardware(parameters)
    _check_network_forms(parameters)


def _check_counts(least: int, most: int) -> None:
    if least < 1 or most < least:
        raise ApiError(
            "InvalidParameterValue",
            f"MinCount {least} and MaxCount {most} are invalid: MinCount is at least 1, MaxCount at least MinCount.",
        )
    if least > MAX_AT_ONCE:
        raise ApiError("ResourceCountExceeded", f"One request launches at most {MAX_AT_ONCE} instances, not {least}.")


def _check_hardware(parameters: Mapping[str, Any]) -> None:
    """Refuse what is asked of a machine that a namespace has not. What only tunes one is accepted without effect."""
    for name, switch in (
        ("Monitoring", "Enabled"),
        ("HibernationOptions", "Configured"),
        ("EnclaveOptions", "Enabled"),
    ):
        resources.refuse_parameters(parameters.get(name) or {}, (switch,), f"RunInstances.{name}")
    placement = parameters.get("Placement") or {}
    refused = [name for name in placement if name not in ("AvailabilityZone", "AvailabilityZoneId", "Tenancy")]
    resources.refuse_parameters(placement, refused, "RunInstances.Placement")
    if placement.get("Tenancy", "default") != "default":
        raise ApiError("UnsupportedTenancy", "The tenancy value must be default: there is no dedicated hardware here.")
    if (parameters.get("MetadataOptions") or {}).get("HttpEndpoint") == "disabled":
        raise ApiError("UnsupportedOperation", "The metadata service cannot be disabled here: keys come through it.")


def _check_network_forms(parameters: Mapping[str, Any]) -> None:
    listed = parameters.get("NetworkInterfaces") or ()
    instance_level = {
        "SubnetId": "subnet ID",
        "SecurityGroupIds": "security groups",
        "SecurityGroups": "security groups",
        "PrivateIpAddress": "private address",
    }
    for name, noun in instance_level.items():
        if listed and parameters.get(name):
            raise ApiError(
                "InvalidParameterCombination",
                f"Network interfaces and an instance-level {noun} may not be specified on the same request",
            )
    if len(listed) > 1 or any(one.get("DeviceIndex", 0) for one in listed):
        raise ApiError(
            "UnsupportedOperation", "An instance has one network interface here. Give one, with DeviceIndex 0."
        )
    for one in listed:
        resources.refuse_parameters(one, _INTERFACE_NOT_OFFERED, "NetworkInterfaces")
    if parameters.get("SecurityGroups") and parameters.get("SubnetId"):
        raise ApiError(
            "InvalidParameterCombination", "The parameter groupName cannot be used with the parameter subnet"
        )


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


def _new_interfaces(
    call: Call, subnet: Subnet, specification: Mapping[str, Any], maximum: int
) -> list[NetworkInterface]:
    given = specification.get("Groups") or [
        named_group(call.world, name).id for name in call.parameters.get("SecurityGroups") or ()
    ]
    groups = interfaces.checked_groups(call.world, subnet, given, maximum)
    tags = common.tags_from(call.parameters, "network-interface", also=_TAGGED)
    made: list[NetworkInterface] = []
    for address in _addresses(call, subnet, specification):
        made.append(
            msgspec.structs.replace(
                interfaces.new_interface(call, subnet, address, groups, made),
                description=specification.get("Description") or "",
                delete_on_termination=specification.get("DeleteOnTermination", True),
                attached_at=call.now,
                tags=tags,
            )
        )
    return made


def _addresses(call: Call, subnet: Subnet, specification: Mapping[str, Any]) -> list[str]:
    least, most = call.parameters["MinCount"], min(call.parameters["MaxCount"], MAX_AT_ONCE)
    wish = interfaces.wished_address(specification)
    if wish and call.parameters["MaxCount"] > 1:
        raise ApiError(
            "InvalidParameterCombination",
            "A private IP address is for one instance. Launch one at a time, or give none.",
        )
    if wish:
        return [interfaces.checked_address(call.world, subnet, wish)]
    free = [address for address, _ in zip(interfaces.free_addresses(call.world, subnet), range(most), strict=False)]
    if len(free) < least:
        raise ApiError(
            "InsufficientFreeAddressesInSubnet",
            f"There are not enough free addresses in subnet '{subnet.id}' "
            "to satisfy the requested number of instances.",
        )
    return free


def _attached(call: Call, specification: Mapping[str, Any]) -> NetworkInterface:
    """An interface that was made by itself, for one instance. It outlives the instance."""
    interface = found(INTERFACE, call.world, specification["NetworkInterfaceId"])
    if call.parameters["MaxCount"] != 1 or any(
        specification.get(name) for name in ("SubnetId", "Groups", "PrivateIpAddress", "PrivateIpAddresses")
    ):
        raise ApiError(
            "InvalidParameterCombination",
            "A network interface that exists is for one instance and has its subnet, groups and address. "
            "Give its id alone.",
        )
    if interfaces.owner_of(call.world, interface) is not None:
        raise ApiError("InvalidNetworkInterface.InUse", f"Interface: [{interface.id}] in use.")
    return msgspec.structs.replace(interface, attached_at=call.now)
