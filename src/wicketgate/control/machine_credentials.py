"""Credentials of machines that ask for their own metadata over TLS: actions of the service `wicketgate`.

EC2 has nothing of the kind: there link-local metadata reaches every instance. A machine on a network of its own
(`Instance.is_external`) is not reached by it, so it shows a bearer token (RFC 6750): `<credential id>.<secret>`. Only
the SHA-256 of the secret is kept, and the token is shown once, in the answer that made it. A credential ends when it is
deleted, and with its instance. An instance may have two, so that one can take the place of the other without a gap.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from wicketgate.control import common
from wicketgate.control.call import Ask, Call, Outcome, operation
from wicketgate.control.instance_answers import CODES
from wicketgate.model import ApiError, Instance, MachineCredential, World

SERVICE: Final = "wicketgate"
PER_INSTANCE: Final = 2
SECRET_BYTES: Final = 32
_ENDING: Final = (32, 48)
"""Codes of shutting-down and terminated."""
_is_token = re.compile(r"(mc-[0-9a-f]{17})\.([A-Za-z0-9_-]{43})").fullmatch


class MachineTrust(msgspec.Struct, frozen=True, kw_only=True):
    """What machines pin, as PEM."""

    signer_root: str = ""
    """Root certificate of the signer of pushed SSH keys; empty where there is none."""
    certificate_authority: str = ""
    """The CA of the APIs' certificate; empty where the operator's own certificate is in use."""


NO_TRUST: Final = MachineTrust()


def instance_of_token(world: World, token: str) -> Instance | None:
    """Whose token this is; None for anything that is not one in force.

    A token with an unknown id takes the same comparison as one with a wrong secret.
    """
    match = _is_token(token)
    if match is None:
        return None
    credential = world.machine_credential(match[1])
    kept = "0" * 64 if credential is None else credential.secret_hash
    same = hmac.compare_digest(kept, _hash(match[2]))
    return world.instance(credential.instance_id) if credential is not None and same else None


def _ask(call: Call) -> Sequence[Ask]:
    """The resource is the instance, existing or not: who may not learns nothing of it."""
    return (_about(call, call.parameters["InstanceId"]),)


def _ask_of_several(call: Call) -> Sequence[Ask]:
    ids = dict.fromkeys(call.parameters.get("InstanceIds") or ())
    return [_about(call, instance_id) for instance_id in ids] or (Ask(f"{SERVICE}:{call.action}"),)


def _about(call: Call, instance_id: str) -> Ask:
    instance = call.world.instance(instance_id)
    context = common.ec2_context(call, instance.tags if instance else None)
    return Ask(f"{SERVICE}:{call.action}", call.arn(f"instance/{instance_id}"), context)


@operation(SERVICE, asks=_ask)
def create_machine_credential(call: Call, trust: MachineTrust = NO_TRUST) -> Outcome:
    """Makes a credential for an instance and shows its token, for the only time, with what the machine is to pin.

    Raises InstanceNotFoundException, for one that ends too, and MachineCredentialLimitExceededException.
    """
    instance = _existing(call.world, call.parameters["InstanceId"])
    if not trust.signer_root:
        raise ApiError("ServiceException", "This server has no key to sign pushed SSH keys with.", 500)
    there = _of(call.world, instance.id)
    if len(there) >= PER_INSTANCE:
        raise ApiError(
            "MachineCredentialLimitExceededException",
            f"The instance {instance.id} has {len(there)} credentials. Delete one of them: "
            f"{', '.join(one.id for one in there)}.",
        )
    secret = base64.urlsafe_b64encode(call.random(SECRET_BYTES)).decode().rstrip("=")
    made = MachineCredential(
        id=call.new_id("mc"),
        instance_id=instance.id,
        secret_hash=_hash(secret),
        created_at=call.now,
        created_by=call.caller.arn,
    )
    answer = {
        "MachineCredential": _shown(made),
        "MachineToken": f"{made.id}.{secret}",
        "SignerRoot": trust.signer_root,
        "CertificateAuthority": trust.certificate_authority,
    }
    return Outcome(answer, call.change(made))


@operation(SERVICE, asks=_ask)
def delete_machine_credential(call: Call) -> Outcome:
    """Deletes one credential of an instance; it is refused from then on. Raises MachineCredentialNotFoundException."""
    instance_id, credential_id = call.parameters["InstanceId"], call.parameters["MachineCredentialId"]
    if all(one.id != credential_id for one in _of(call.world, instance_id)):
        raise ApiError(
            "MachineCredentialNotFoundException", f"The instance {instance_id} has no credential {credential_id}."
        )
    return Outcome({}, call.change(deletes=[("machine-credential", credential_id)]))


@operation(SERVICE, asks=_ask_of_several)
def describe_machine_credentials(call: Call) -> Outcome:
    """The credentials of the instances named, or of all, oldest first; never a secret."""
    wanted = call.parameters.get("InstanceIds")
    found = [one for one in call.world.machine_credentials if not wanted or one.instance_id in wanted]
    return Outcome({"MachineCredentials": [_shown(one) for one in found]})


def _existing(world: World, instance_id: str) -> Instance:
    instance = world.instance(instance_id)
    if instance is None or CODES[instance.state] in _ENDING:
        raise ApiError("InstanceNotFoundException", f"There is no instance {instance_id}.")
    return instance


def _of(world: World, instance_id: str) -> list[MachineCredential]:
    return [one for one in world.machine_credentials if one.instance_id == instance_id]


def _shown(credential: MachineCredential) -> dict[str, Any]:
    return {
        "MachineCredentialId": credential.id,
        "InstanceId": credential.instance_id,
        "CreatedAt": datetime.fromtimestamp(credential.created_at, UTC),
        "CreatedBy": credential.created_by,
    }


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
