"""What network interfaces are attached to: instances and endpoints; AttachNetworkInterface, DetachNetworkInterface.

An instance names its first interface, with device index 0, and keeps it for life. Further ones, in the same VPC and
zone, come and go while it runs or is stopped. There is one network card. Neither action takes a ClientToken.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

import msgspec

from wicketgate.control import regions, resources
from wicketgate.control.call import Ask, Call, Outcome, operation
from wicketgate.control.resources import INSTANCE, INTERFACE, found, interface_of, moment, subnet_of
from wicketgate.model import ApiError, Endpoint, Instance, NetworkInterface, Subnet, World
from wicketgate.model.resources import EXTERNAL_IMAGE

MAX_INTERFACES: Final = 15
"""Interfaces of one instance: what AWS's largest instance types have on one network card (EC2 User Guide)."""
_SETTLED: Final = ("running", "stopped")

Owner = Instance | Endpoint


def owner_of(world: World, interface: NetworkInterface) -> Owner | None:
    """What the interface is attached to."""
    return world.instance_of_interface(interface.id) or world.endpoint_of_interface(interface.id)


def check_free(world: World, interface: NetworkInterface) -> None:
    """Raise AuthFailure for an interface that a service manages, InvalidNetworkInterface.InUse for an attached one."""
    if interface.requester_managed:
        raise ApiError("AuthFailure", "You do not have permission to access the specified resource.")
    if owner_of(world, interface) is not None:
        raise ApiError("InvalidNetworkInterface.InUse", f"Interface: [{interface.id}] in use.")


def check_place(world: World, subnet: Subnet, other: Subnet) -> None:
    """Raise InvalidParameterCombination unless one instance may have interfaces in both subnets."""
    if subnet.vpc_id != other.vpc_id:
        raise ApiError(
            "InvalidParameterCombination",
            f"Subnets {other.id} and {subnet.id} are in different VPCs. An instance has all its interfaces in one VPC.",
        )
    zones = [regions.zone_of(world.region, one.availability_zone) for one in (other, subnet)]
    if zones[0] != zones[1]:
        raise ApiError(
            "InvalidParameterCombination",
            "You may not attach a network interface to an instance if they are not in the same availability zone",
        )


def check_image(image_id: str, subnet: Subnet) -> None:
    """Raise UnsupportedOperation for an instance of this image in a subnet where there is no place for it."""
    if subnet.attached is not None and image_id != EXTERNAL_IMAGE:
        raise ApiError(
            "UnsupportedOperation",
            f"The subnet '{subnet.id}' is bound to a network of this host, where no instance is made. Register "
            f"machines that exist there with the image {EXTERNAL_IMAGE}.",
        )


def check_index(index: int, taken: Collection[int]) -> None:
    """Raise InvalidParameterValue for no device index of an instance, AttachmentLimitExceeded for too many of them."""
    if not 0 <= index < MAX_INTERFACES:
        raise ApiError(
            "InvalidParameterValue",
            f"Value ({index}) for parameter deviceIndex is invalid. It is from 0 to {MAX_INTERFACES - 1}.",
        )
    if len(taken) >= MAX_INTERFACES:
        raise ApiError("AttachmentLimitExceeded", f"Interface count {len(taken) + 1} exceeds the limit.")


# -- actions -----------------------------------------------------------------------------------------------------------


def _ask_attach(call: Call) -> Sequence[Ask]:
    return (
        resources.about_instance(call, call.action, call.parameters["InstanceId"]),
        resources.about_interface(call, call.action, call.parameters["NetworkInterfaceId"]),
    )


@operation("ec2", asks=_ask_attach)
def attach_network_interface(call: Call) -> Outcome:
    """Attaches a free interface beside the instance's first one. It stays when the instance ends.

    Raises IncorrectState for an instance that is on its way, InvalidParameterValue for a device index that is taken,
    and as the checks above do.
    """
    world, parameters = call.world, call.parameters
    resources.refuse_parameters(
        parameters, ("NetworkCardIndex", "EnaSrdSpecification", "EnaQueueCount"), "AttachNetworkInterface"
    )
    instance, index = found(INSTANCE, world, parameters["InstanceId"]), parameters["DeviceIndex"]
    interface = found(INTERFACE, world, parameters["NetworkInterfaceId"])
    check_free(world, interface)
    if instance.state not in _SETTLED:
        raise ApiError("IncorrectState", f"Instance '{instance.id}' is not 'running' or 'stopped'.")
    check_image(instance.image_id, subnet_of(world, interface))
    check_place(world, subnet_of(world, interface), subnet_of(world, interface_of(world, instance)))
    taken = {one.device_index for one in world.interfaces_of_instance(instance)}
    if index in taken:
        raise ApiError(
            "InvalidParameterValue",
            f"Instance '{instance.id}' already has an interface attached at device index '{index}'.",
        )
    check_index(index, taken)
    attached = msgspec.structs.replace(
        interface, attached_to=instance.id, device_index=index, attached_at=call.now, delete_on_termination=False
    )
    return Outcome({"AttachmentId": attachment_id(attached), "NetworkCardIndex": 0}, call.change(attached))


def _ask_detach(call: Call) -> Sequence[Ask]:
    """About the instance and the interface; of an attachment that is none, about any."""
    interface = _attached(call.world, call.parameters["AttachmentId"])
    owner = owner_of(call.world, interface) if interface else None
    return (
        resources.about_instance(call, call.action, owner.id if isinstance(owner, Instance) else "*"),
        resources.about_interface(call, call.action, interface.id if interface else "*"),
    )


@operation("ec2", asks=_ask_detach)
def detach_network_interface(call: Call) -> Outcome:
    """Detaches a further interface, at once, with Force or without.

    Raises InvalidAttachmentID.NotFound, OperationNotPermitted for an instance's first interface and an endpoint's.
    """
    world, wanted = call.world, call.parameters["AttachmentId"]
    interface = _attached(world, wanted)
    if interface is None:
        raise no_attachment(wanted)
    if interface.requester_managed:
        raise ApiError("OperationNotPermitted", "You are not allowed to manage 'ela-attach' attachments.")
    if not interface.attached_to:
        raise ApiError(
            "OperationNotPermitted",
            "The network interface at device index 0 and networkCard index 0 cannot be detached.",
        )
    return Outcome({}, call.change(detached(interface)))


def _attached(world: World, wanted: str) -> NetworkInterface | None:
    there = (eni for eni in world.interfaces if attachment_id(eni) == wanted)
    return next((eni for eni in there if owner_of(world, eni) is not None), None)


def no_attachment(wanted: str) -> ApiError:
    """InvalidAttachmentID.NotFound."""
    return ApiError("InvalidAttachmentID.NotFound", f"The attachment ID '{wanted}' does not exist")


def detached(interface: NetworkInterface) -> NetworkInterface:
    """The interface attached to nothing."""
    return msgspec.structs.replace(
        interface, attached_to="", device_index=0, attached_at=None, delete_on_termination=False
    )


# -- answers -----------------------------------------------------------------------------------------------------------


def attachment_id(interface: NetworkInterface) -> str:
    """The id of the interface's one attachment. The next attachment has another, so that who detaches an earlier one
    once more does not hit it."""
    prefix = "ela-attach-" if interface.requester_managed else "eni-attach-"
    return resources.derived(prefix, interface.id, str(interface.attached_at))


def attachment_answer(interface: NetworkInterface, since: float) -> dict[str, Any]:
    """The members that an attachment has in all answers. `since`: seconds since the epoch."""
    return {
        "AttachmentId": attachment_id(interface),
        "AttachTime": moment(since if interface.attached_at is None else interface.attached_at),
        "DeleteOnTermination": interface.delete_on_termination,
        "DeviceIndex": interface.device_index,
        "NetworkCardIndex": 0,
        "Status": "attached",
    }
