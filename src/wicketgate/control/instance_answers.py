"""How instances are shown: DescribeInstances, DescribeInstanceStatus and their filters, terminated ones included.

A terminated instance has no interface any more; its VPC remembers it for a while (`Vpc.terminated_instances`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from wicketgate.control import attachments, common, interfaces, regions, resources
from wicketgate.control.call import Call, Outcome, operation
from wicketgate.control.resources import INSTANCE, moment, subnet_of
from wicketgate.model import Instance, NetworkInterface, World

State = Literal["pending", "running", "stopping", "stopped", "shutting-down", "terminated"]
CODES: Final[Mapping[State, int]] = {
    "pending": 0,
    "running": 16,
    "shutting-down": 32,
    "terminated": 48,
    "stopping": 64,
    "stopped": 80,
}
"""InstanceState.Code (EC2 API Reference)."""


def instance_or_ended(world: World, instance_id: str) -> Instance | None:
    """The instance with this id, terminated ones that are still shown included."""
    return world.instance(instance_id) or next(
        (one for vpc in world.vpcs for one in vpc.terminated_instances if one.id == instance_id), None
    )


def all_instances(world: World) -> Iterator[Instance]:
    """Instances in the order of creation, then the terminated ones that are still shown."""
    yield from world.instances
    for vpc in world.vpcs:
        yield from vpc.terminated_instances


# -- answers -----------------------------------------------------------------------------------------------------------


def reservation_answer(world: World, reservation: str, answers: list[dict[str, Any]]) -> dict[str, Any]:
    return {"ReservationId": reservation, "OwnerId": world.account_id, "Groups": [], "Instances": answers}


def state_answer(instance: Instance) -> dict[str, Any]:
    """InstanceState."""
    return {"Code": CODES[instance.state], "Name": instance.state}


def reservation_of(instance: Instance) -> str:
    """ReservationId; one that was not made by RunInstances is alone in its own."""
    return instance.reservation_id or resources.derived("r-", instance.id)


def instance_answer(world: World, instance: Instance, there: Sequence[NetworkInterface]) -> dict[str, Any]:
    """Instance. `there`: its interfaces by device index; none once it has ended."""
    answer = {
        "InstanceId": instance.id,
        "ImageId": instance.image_id,
        "InstanceType": instance.instance_type,
        "State": state_answer(instance),
        "StateTransitionReason": instance.transition_reason,
        "AmiLaunchIndex": instance.launch_index,
        "LaunchTime": moment(instance.launched_at),
        "ClientToken": instance.client_token,
        "Architecture": "x86_64",
        "Hypervisor": "xen",
        "VirtualizationType": "hvm",
        "RootDeviceType": "ebs",
        "BlockDeviceMappings": [],
        "ProductCodes": [],
        "EbsOptimized": False,
        "EnaSupport": True,
        "Monitoring": {"State": "disabled"},
        "PlatformDetails": "Linux/UNIX",
        "PublicDnsName": "",
        "PrivateDnsName": "",
        "Placement": {"Tenancy": "default", "GroupName": ""},
        "NetworkInterfaces": [],
        "SecurityGroups": [],
        "Tags": common.tag_list(instance.tags),
    }
    if instance.state_reason:
        code, _, message = instance.state_reason.partition(": ")
        answer["StateReason"] = {"Code": code, "Message": message}
    return answer | (_network_answer(world, instance, there) if there else {})


def _network_answer(world: World, instance: Instance, there: Sequence[NetworkInterface]) -> dict[str, Any]:
    """What an instance shows of its interfaces, and as its own of the first one."""
    shown = [
        interfaces.common_answer(world, one)
        | {"Status": "in-use", "Attachment": attachments.attachment_answer(one, instance.launched_at)}
        for one in there
    ]
    first, zone = shown[0], regions.zone_of(world.region, subnet_of(world, there[0]).availability_zone)
    names = ("PrivateDnsName", "PrivateIpAddress", "SubnetId", "VpcId", "SourceDestCheck")
    ipv6 = {"Ipv6Address": there[0].ipv6_addresses[0]} if there[0].ipv6_addresses else {}
    if not there[0].private_ip_address:
        ipv6["PrivateDnsName"] = f"{instance.id}.{interfaces.private_domain(world.region)}"
    return (
        {name: first[name] for name in names if name in first}
        | ipv6
        | {
            "SecurityGroups": first["Groups"],
            "NetworkInterfaces": shown,
            "Placement": {
                "AvailabilityZone": zone,
                "AvailabilityZoneId": regions.zone_id(zone),
                "Tenancy": "default",
                "GroupName": "",
            },
        }
    )


def _answer_of(world: World, instance: Instance) -> dict[str, Any]:
    return instance_answer(world, instance, world.interfaces_of_instance(instance))


@operation("ec2")
def describe_instances(call: Call) -> Outcome:
    """DescribeInstances, by reservation. MaxResults counts instances; with ids: InvalidParameterCombination."""
    resources.not_both(call, "InstanceIds", "instancesSet")
    chosen = common.select(_named(call), call.parameters.get("Filters"), instance_filters(call.world))
    shown, following = resources.paged(call, chosen, lambda one: one.id)
    reservations: dict[str, list[dict[str, Any]]] = {}
    for instance in shown:
        reservations.setdefault(reservation_of(instance), []).append(_answer_of(call.world, instance))
    answers = [reservation_answer(call.world, *one) for one in reservations.items()]
    return Outcome({"Reservations": answers} | following)


def _named(call: Call) -> list[Instance]:
    ids = call.parameters.get("InstanceIds")
    if ids:
        return resources.several(INSTANCE, call.world, ids, get=instance_or_ended)
    return list(all_instances(call.world))


@operation("ec2")
def describe_instance_status(call: Call) -> Outcome:
    """DescribeInstanceStatus: running instances, with IncludeAllInstances all. What runs has passed its checks."""
    resources.not_both(call, "InstanceIds", "instancesSet")
    everything = bool(call.parameters.get("IncludeAllInstances"))
    listed = [one for one in _named(call) if everything or one.state == "running"]
    chosen = common.select(listed, call.parameters.get("Filters"), _status_filters(call.world))
    shown, following = resources.paged(call, chosen, lambda one: one.id)
    return Outcome({"InstanceStatuses": [_status_answer(call.world, one) for one in shown]} | following)


def _health(instance: Instance) -> str:
    return "ok" if instance.state == "running" else "not-applicable"


def _status_answer(world: World, instance: Instance) -> dict[str, Any]:
    details = [{"Name": "reachability", "Status": "passed"}] if instance.state == "running" else []
    summary = {"Status": _health(instance), "Details": details}
    answer = {
        "InstanceId": instance.id,
        "InstanceState": state_answer(instance),
        "InstanceStatus": summary,
        "SystemStatus": summary,
        "Events": [],
    }
    placement = _answer_of(world, instance)["Placement"]
    return answer | {name: placement[name] for name in ("AvailabilityZone", "AvailabilityZoneId") if name in placement}


# -- filters -----------------------------------------------------------------------------------------------------------


def _shown(world: World, *path: str) -> Callable[[Instance], Any]:
    """What an instance's answer has at this path; where a list stands in the path, of each of its items."""

    def get(instance: Instance) -> Any:
        values: list[Any] = [_answer_of(world, instance)]
        for member in path:
            values = [value[member] for value in values if member in value]
            values = [item for value in values for item in (value if isinstance(value, list) else [value])]
        return [interfaces.time_text(value) if member.endswith("Time") else value for value in values]

    return get


_INSTANCE_PATHS: Final = {
    "architecture": "Architecture",
    "availability-zone": "Placement.AvailabilityZone",
    "availability-zone-id": "Placement.AvailabilityZoneId",
    "client-token": "ClientToken",
    "dns-name": "PublicDnsName",
    "ebs-optimized": "EbsOptimized",
    "ena-support": "EnaSupport",
    "hypervisor": "Hypervisor",
    "ipv6-address": "NetworkInterfaces.Ipv6Addresses.Ipv6Address",
    "image-id": "ImageId",
    "instance-id": "InstanceId",
    "instance-state-code": "State.Code",
    "instance-state-name": "State.Name",
    "instance-type": "InstanceType",
    "instance.group-id": "SecurityGroups.GroupId",
    "instance.group-name": "SecurityGroups.GroupName",
    "group-id": "SecurityGroups.GroupId",
    "group-name": "SecurityGroups.GroupName",
    "launch-index": "AmiLaunchIndex",
    "launch-time": "LaunchTime",
    "monitoring-state": "Monitoring.State",
    "platform-details": "PlatformDetails",
    "private-dns-name": "PrivateDnsName",
    "private-ip-address": "PrivateIpAddress",
    "reason": "StateTransitionReason",
    "root-device-type": "RootDeviceType",
    "source-dest-check": "SourceDestCheck",
    "state-reason-code": "StateReason.Code",
    "state-reason-message": "StateReason.Message",
    "subnet-id": "SubnetId",
    "tenancy": "Placement.Tenancy",
    "virtualization-type": "VirtualizationType",
    "vpc-id": "VpcId",
    "network-interface.addresses.primary": "NetworkInterfaces.PrivateIpAddresses.Primary",
    "network-interface.addresses.private-dns-name": "NetworkInterfaces.PrivateIpAddresses.PrivateDnsName",
    "network-interface.addresses.private-ip-address": "NetworkInterfaces.PrivateIpAddresses.PrivateIpAddress",
    "network-interface.attachment.attach-time": "NetworkInterfaces.Attachment.AttachTime",
    "network-interface.attachment.attachment-id": "NetworkInterfaces.Attachment.AttachmentId",
    "network-interface.attachment.delete-on-termination": "NetworkInterfaces.Attachment.DeleteOnTermination",
    "network-interface.attachment.device-index": "NetworkInterfaces.Attachment.DeviceIndex",
    "network-interface.attachment.network-card-index": "NetworkInterfaces.Attachment.NetworkCardIndex",
    "network-interface.attachment.status": "NetworkInterfaces.Attachment.Status",
    "network-interface.description": "NetworkInterfaces.Description",
    "network-interface.group-id": "NetworkInterfaces.Groups.GroupId",
    "network-interface.group-name": "NetworkInterfaces.Groups.GroupName",
    "network-interface.ipv6-address": "NetworkInterfaces.Ipv6Addresses.Ipv6Address",
    "network-interface.ipv6-addresses.ipv6-address": "NetworkInterfaces.Ipv6Addresses.Ipv6Address",
    "network-interface.ipv6-addresses.is-primary-ipv6": "NetworkInterfaces.Ipv6Addresses.IsPrimaryIpv6",
    "network-interface.mac-address": "NetworkInterfaces.MacAddress",
    "network-interface.network-interface-id": "NetworkInterfaces.NetworkInterfaceId",
    "network-interface.owner-id": "NetworkInterfaces.OwnerId",
    "network-interface.private-dns-name": "NetworkInterfaces.PrivateDnsName",
    "network-interface.private-ip-address": "NetworkInterfaces.PrivateIpAddress",
    "network-interface.source-dest-check": "NetworkInterfaces.SourceDestCheck",
    "network-interface.status": "NetworkInterfaces.Status",
    "network-interface.subnet-id": "NetworkInterfaces.SubnetId",
    "network-interface.vpc-id": "NetworkInterfaces.VpcId",
}
"""Filter -> where its value stands in the answer."""

_NEVER: Final = (
    "instance-lifecycle",
    "ip-address",
    "kernel-id",
    "key-name",
    "placement-group-name",
    "platform",
    "product-code",
    "ramdisk-id",
    "requester-id",
    "root-device-name",
    "spot-instance-request-id",
    "block-device-mapping.volume-id",
    "host-id",
    "iam-instance-profile.arn",
    "iam-instance-profile.id",
    "network-interface.association.public-ip",
    "network-interface.addresses.association.public-ip",
    "outpost-arn",
)
"""Filters of what no instance has here: they match nothing."""


def instance_filters(world: World) -> Mapping[str, Callable[[Instance], Any]]:
    """The filters of DescribeInstances."""
    return {
        **dict.fromkeys(_NEVER, lambda one: None),
        **{name: _shown(world, *path.split(".")) for name, path in _INSTANCE_PATHS.items()},
        "network-interface.attachment.instance-id": lambda one: one.id if one.interface_id else None,
        "owner-id": lambda one: world.account_id,
        "reservation-id": reservation_of,
        **common.TAG_GETTERS,
    }


def _status_filters(world: World) -> Mapping[str, Callable[[Instance], Any]]:
    everything = instance_filters(world)
    names = ("availability-zone", "availability-zone-id", "instance-state-code", "instance-state-name")
    events = ("code", "description", "instance-event-id", "not-after", "not-before", "not-before-deadline")
    checks = ("instance-status", "system-status")
    return {
        **{name: everything[name] for name in names},
        **dict.fromkeys((f"event.{name}" for name in events), lambda one: None),
        **dict.fromkeys((f"{name}.status" for name in checks), _health),
        **dict.fromkeys(
            (f"{name}.reachability" for name in checks), lambda one: "passed" if one.state == "running" else None
        ),
        "operator.managed": lambda one: False,
    }
