"""The two built-in images, and DescribeImages: what AWS's consoles, Terraform's data sources and scripts ask first.

Nothing is stored: there are no other images, and nobody makes or deletes one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from wicketgate.control import common, resources
from wicketgate.control.call import Call, Outcome, operation
from wicketgate.model import ApiError, World
from wicketgate.model.resources import EXTERNAL_IMAGE, NAMESPACE_IMAGE

OWNER_ALIAS: Final = "self"
"""The images are the account's own, so that `--owners self` finds them."""


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """What stands behind an ImageId."""

    id: str
    name: str
    description: str
    default_type: str
    """InstanceType when none is named. Another is kept and shown, and changes nothing."""
    tags: dict[str, str] = {}
    """Always none."""


IMAGES: Final[Mapping[str, Image]] = {
    image.id: image
    for image in (
        Image(
            id=NAMESPACE_IMAGE,
            name="wicketgate/namespace",
            description="A machine of the lab: a network namespace with a real sshd.",
            default_type="wicketgate.namespace",
        ),
        Image(
            id=EXTERNAL_IMAGE,
            name="wicketgate/external",
            description="A machine that exists: it is registered at its address, nothing is started.",
            default_type="wicketgate.external",
        ),
    )
}
CREATED: Final = "2026-01-01T00:00:00.000Z"
"""CreationDate: something has to stand there, and it never changes."""


def image_called(image_id: str | None) -> Image:
    """The image with this id. Raises MissingParameter, InvalidAMIID.Malformed, InvalidAMIID.NotFound."""
    if not image_id:
        raise ApiError("MissingParameter", "The request must contain the parameter ImageId")
    if image_id not in IMAGES:
        common.check_id("ami", image_id, "InvalidAMIID.Malformed")
        raise ApiError("InvalidAMIID.NotFound", f"The image id '[{image_id}]' does not exist")
    return IMAGES[image_id]


def _answer(world: World, image: Image) -> dict[str, Any]:
    return {
        "ImageId": image.id,
        "Name": image.name,
        "Description": image.description,
        "ImageLocation": f"{world.account_id}/{image.name}",
        "ImageType": "machine",
        "OwnerId": world.account_id,
        "Public": False,
        "State": "available",
        "CreationDate": CREATED,
        "Architecture": "x86_64",
        "Hypervisor": "xen",
        "VirtualizationType": "hvm",
        "RootDeviceType": "ebs",
        "BlockDeviceMappings": [],
        "ProductCodes": [],
        "EnaSupport": True,
        "PlatformDetails": "Linux/UNIX",
        "UsageOperation": "RunInstances",
        "Tags": [],
    }


_PATHS: Final = {
    "architecture": "Architecture",
    "creation-date": "CreationDate",
    "description": "Description",
    "ena-support": "EnaSupport",
    "hypervisor": "Hypervisor",
    "image-id": "ImageId",
    "image-type": "ImageType",
    "is-public": "Public",
    "manifest-location": "ImageLocation",
    "name": "Name",
    "owner-id": "OwnerId",
    "root-device-type": "RootDeviceType",
    "state": "State",
    "usage-operation": "UsageOperation",
    "virtualization-type": "VirtualizationType",
}
"""Filter -> where its value stands in the answer."""
_NEVER: Final = (
    "block-device-mapping.delete-on-termination",
    "block-device-mapping.device-name",
    "block-device-mapping.encrypted",
    "block-device-mapping.snapshot-id",
    "block-device-mapping.volume-size",
    "block-device-mapping.volume-type",
    "image-allowed",
    "kernel-id",
    "owner-alias",
    "platform",
    "product-code",
    "product-code.type",
    "ramdisk-id",
    "root-device-name",
    "source-image-id",
    "source-image-region",
    "source-instance-id",
    "state-reason-code",
    "state-reason-message",
    "sriov-net-support",
)
"""Filters of what no image has here: they match nothing."""


def _filters(world: World) -> Mapping[str, Callable[[Image], Any]]:
    def shown(member: str) -> Callable[[Image], Any]:
        return lambda image: _answer(world, image)[member]

    return {
        **dict.fromkeys(_NEVER, lambda image: None),
        **{name: shown(member) for name, member in _PATHS.items()},
        **common.TAG_GETTERS,
    }


@operation("ec2")
def describe_images(call: Call) -> Outcome:
    """DescribeImages: by ids, Owners (`self`, the account; anybody else has none), ExecutableUsers, filters, pages.

    Raises InvalidAMIID.NotFound or InvalidAMIID.Malformed for an id that is none.
    """
    resources.not_both(call, "ImageIds", "imagesSet")
    parameters = call.parameters
    named = [image_called(one) for one in dict.fromkeys(parameters.get("ImageIds") or ())]
    owners, users = parameters.get("Owners") or (), parameters.get("ExecutableUsers") or ()
    ours = not owners or not {OWNER_ALIAS, call.world.account_id}.isdisjoint(owners)
    # Who may launch by an explicit permission: nobody but the owner, who needs none.
    listed = [] if not ours or users else named or list(IMAGES.values())
    chosen = common.select(listed, parameters.get("Filters"), _filters(call.world))
    shown, following = resources.paged(call, chosen, lambda one: one.id, minimum=1)
    return Outcome({"Images": [_answer(call.world, one) for one in shown]} | following)
