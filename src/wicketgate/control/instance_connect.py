"""EC2 Instance Connect's own API: SendSSHPublicKey. (SendSerialConsoleSSHPublicKey is not offered: no serial console.)

A pushed key lives 60 seconds for one user of one instance; several live at once. What the instance reads is a signed
form of it, the blob:

    #Timestamp=<when it ends, seconds since the epoch>
    #Instance=<instance id>
    #Caller=<ARN>
    #Request=<request id>
    <type> <base64>
    <RSA-PSS signature of all lines above, each with its newline: base64 in lines>

Codes and their words: EC2 Instance Connect API Reference, SendSSHPublicKey; "Invalid input parameter received for
Illegal argument exception: RSA - SSH Public key is invalid" as users quoted it, the reason after the colon is ours.
"""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Sequence
from typing import Final

from wicketgate.control import common, resources
from wicketgate.control.call import Ask, Call, Outcome, operation
from wicketgate.control.instance_answers import instance_or_ended
from wicketgate.control.regions import zone_of
from wicketgate.control.ssh_keys import KeyProblem, key_line
from wicketgate.model import ApiError, Instance, World
from wicketgate.model.resources import PushedKey

LIFE: Final = 60.0
"""Seconds (EC2 User Guide, "Connect to a Linux instance using EC2 Instance Connect")."""


def _ask_send(call: Call) -> Sequence[Ask]:
    """The resource is the instance, existing or not: who may not push to it does not learn whether there is one."""
    instance_id = call.parameters["InstanceId"]
    instance = call.world.instance(instance_id)
    context = common.ec2_context(call, instance.tags if instance else None, osuser=call.parameters["InstanceOSUser"])
    return (Ask("ec2-instance-connect:SendSSHPublicKey", call.arn(f"instance/{instance_id}"), context),)


@operation("ec2-instance-connect", asks=_ask_send, name="SendSSHPublicKey")
def send_ssh_public_key(call: Call) -> Outcome:
    """Pushes a key, and forgets those whose time is over. The same key pushed again gets 60 seconds anew.

    Raises InvalidArgsException for a key or zone, EC2InstanceNotFoundException, EC2InstanceStateInvalidException for
    one that has ended or is stopped, EC2InstanceUnavailableException while it starts.
    """
    parameters = call.parameters
    try:
        line = key_line(parameters["SSHPublicKey"])
    except KeyProblem as problem:
        raise _invalid(f"{problem.kind}{' - ' if problem.kind else ''}SSH Public key is invalid: {problem}") from None
    instance = _running(call.world, parameters["InstanceId"])
    _check_zone(call.world, instance, parameters.get("AvailabilityZone"))
    user = parameters["InstanceOSUser"]
    expires = call.now + LIFE
    key = PushedKey(
        id=resources.derived("key-", instance.id, user, line),
        instance_id=instance.id,
        os_user=user,
        public_key=line,
        expires=expires,
        caller=call.caller.arn,
        request_id=call.request_id,
        blob=_blob(call, instance.id, line, expires),
    )
    ended = [one.id for one in call.world.pushed_keys if one.expires <= call.now and one.id != key.id]
    change = call.change(key, deletes=[("pushed-key", one) for one in ended])
    return Outcome({"RequestId": call.request_id, "Success": True}, change)


def _running(world: World, instance_id: str) -> Instance:
    instance = instance_or_ended(world, instance_id)
    if instance is None:
        raise ApiError("EC2InstanceNotFoundException", "The specified instance was not found.")
    if instance.state == "pending":
        raise ApiError(
            "EC2InstanceUnavailableException",
            "The instance is currently unavailable. Wait a few minutes and try again.",
        )
    if not instance.may_answer:
        raise ApiError(
            "EC2InstanceStateInvalidException",
            "Unable to connect because the instance is not in a valid state. Connecting to a stopped or terminated "
            "instance is not supported. If the instance is stopped, start your instance, and try to connect again.",
        )
    return instance


def _check_zone(world: World, instance: Instance, wanted: str | None) -> None:
    subnet = resources.subnet_of(world, resources.interface_of(world, instance))
    zone = zone_of(world.region, subnet.availability_zone)
    if wanted and wanted != zone:
        raise _invalid(f"the instance {instance.id} is not in Availability Zone {wanted}")


def _blob(call: Call, instance_id: str, line: str, expires: float) -> str:
    if call.sign is None:
        raise ApiError("ServiceException", "This server has no key to sign pushed SSH keys with.", 500)
    signed = (
        f"#Timestamp={int(expires)}\n#Instance={instance_id}\n#Caller={call.caller.arn}\n"
        f"#Request={call.request_id}\n{line}\n"
    )
    signature = base64.b64encode(call.sign(signed.encode())).decode()
    return signed + "\n".join(textwrap.wrap(signature, 76)) + "\n"


def _invalid(reason: str) -> ApiError:
    return ApiError(
        "InvalidArgsException", f"Invalid input parameter received for Illegal argument exception: {reason}"
    )
