"""RunInstances: the machines and their interfaces, in one Change.

An image is a namespace with a real sshd, or a machine that exists and is registered at its address. (Their interfaces:
`launch_interfaces`.) RunInstances takes a ClientToken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from wicketgate.control import common, images, launch_interfaces, resources
from wicketgate.control.call import Ask, Call, Outcome, operation
from wicketgate.control.common import AWS_QUOTAS, Quotas
from wicketgate.control.instance_answers import instance_answer, reservation_answer
from wicketgate.control.launch_interfaces import MAX_AT_ONCE, TAGGED
from wicketgate.model import ApiError, Instance
from wicketgate.model.resources import EXTERNAL_IMAGE, NAMESPACE_IMAGE

_NOT_OFFERED: Final = (
    "BlockDeviceMappings",
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


def _ask_run(call: Call) -> Sequence[Ask]:
    image = f"arn:{call.world.partition}:ec2:{call.world.region}::image/{call.parameters.get('ImageId') or '*'}"
    known = images.IMAGES.get(call.parameters.get("ImageId") or "", images.IMAGES[NAMESPACE_IMAGE])
    kind = call.parameters.get("InstanceType") or known.default_type
    instance = common.ec2_context(call, InstanceType=kind, Tenancy="default")
    return [
        Ask("ec2:RunInstances", image, common.ec2_context(call)),
        Ask("ec2:RunInstances", call.arn("instance/*"), instance | common.request_tags(call, "instance")),
        *launch_interfaces.ask(call),
        *(ask for kind in TAGGED for ask in resources.about_tagging(call, kind)),
    ]


@operation("ec2", asks=_ask_run)
def run_instances(call: Call, quotas: Quotas = AWS_QUOTAS) -> Outcome:
    """Instances in `pending`, as many as fit of MinCount to MaxCount, or none and an error.

    Raises InvalidAMIID.NotFound, InsufficientFreeAddressesInSubnet, UnsupportedOperation for what a namespace has not,
    InvalidParameterCombination, and as `launch_interfaces.launched` does.
    """
    world, parameters = call.world, call.parameters
    image = images.image_called(parameters.get("ImageId"))
    _check_run(parameters)
    tags = common.tags_from(parameters, "instance", also=TAGGED)
    made = launch_interfaces.launched(call, quotas)
    reservation = call.new_id("r")
    instances = [
        Instance(
            id=instance_id,
            interface_id=there[0].id,
            state="pending",
            image_id=image.id,
            instance_type=parameters.get("InstanceType") or image.default_type,
            launched_at=call.now,
            tags=tags,
            reservation_id=reservation,
            launch_index=index,
            client_token=parameters.get("ClientToken") or "",
        )
        for index, (instance_id, there) in enumerate(made)
    ]
    change = call.change(*(interface for _, there in made for interface in there), *instances)
    answers = [instance_answer(world, one, there) for one, (_, there) in zip(instances, made, strict=True)]
    return Outcome(reservation_answer(world, reservation, answers), change)


def _check_run(parameters: Mapping[str, Any]) -> None:
    resources.refuse_parameters(parameters, _NOT_OFFERED, "RunInstances")
    if parameters.get("KeyName"):
        raise ApiError("InvalidKeyPair.NotFound", f"The key pair '{parameters['KeyName']}' does not exist")
    _check_counts(parameters["MinCount"], parameters["MaxCount"])
    if parameters["ImageId"] == EXTERNAL_IMAGE and parameters["MaxCount"] > 1:
        raise ApiError(
            "InvalidParameterValue",
            f"MaxCount {parameters['MaxCount']} is invalid: the image {EXTERNAL_IMAGE} registers one machine a call, "
            "at the address that it has.",
        )
    _check_hardware(parameters)
    launch_interfaces.check_forms(parameters)


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
