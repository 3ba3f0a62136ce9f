"""Access keys: create, list, update, delete, and when one was last used.

Without UserName a call is about the caller's own keys, which may be root's. The secret is shown once, on creation.
Temporary keys (STS) are none of these.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import msgspec

from wicketgate.control.call import Ask, Call, Outcome, operation
from wicketgate.control.identity.common import (
    IAM_QUOTAS,
    USER,
    IamQuotas,
    ask_identity,
    check_quota,
    iam_arn,
    moment,
    no_such,
    paged,
    unique_id,
    user_named,
)
from wicketgate.control.identity.users import ask_own_or_named, keys_of, own_or_named
from wicketgate.model import AccessKey, ApiError


def new_secret(call: Call) -> str:
    """Forty characters, as AWS's secret access keys have."""
    return base64.b64encode(call.random(30)).decode()


def _owner(call: Call) -> str:
    """Name of the user that the call is about, who exists; empty for root."""
    name = own_or_named(call)
    return user_named(call.world, name).name if name else ""


def _key_of(call: Call) -> AccessKey:
    owner, key_id = _owner(call), call.parameters["AccessKeyId"]
    for key in keys_of(call.world, owner):
        if key.id == key_id:
            return key
    raise no_such(f"The Access Key with id {key_id} cannot be found.")


def _answer(key: AccessKey) -> dict[str, Any]:
    """A key as lists show it; root's has no user name."""
    answer: dict[str, Any] = {"UserName": key.user_name} if key.user_name else {}
    return answer | {
        "AccessKeyId": key.id,
        "Status": "Active" if key.active else "Inactive",
        "CreateDate": moment(key.created_at),
    }


@operation("iam", asks=ask_own_or_named)
def create_access_key(call: Call, quotas: IamQuotas = IAM_QUOTAS) -> Outcome:
    """A key of a user, or of the caller. Raises LimitExceeded for a third."""
    owner = _owner(call)
    check_quota(len(keys_of(call.world, owner)), quotas.access_keys_per_user, "AccessKeysPerUser")
    key = AccessKey(id=unique_id(call, "AKIA", 16), secret=new_secret(call), user_name=owner, created_at=call.now)
    return Outcome({"AccessKey": _answer(key) | {"SecretAccessKey": key.secret}}, call.change(key))


@operation("iam", asks=ask_own_or_named)
def list_access_keys(call: Call) -> Outcome:
    """The keys of a user, or of the caller, by id."""
    shown, more = paged(call, keys_of(call.world, _owner(call)), lambda key: key.id)
    return Outcome({"AccessKeyMetadata": [_answer(key) for key in shown], **more})


@operation("iam", asks=ask_own_or_named)
def update_access_key(call: Call) -> Outcome:
    """Makes a key active or inactive, at once. Raises InvalidInput for another status."""
    status = call.parameters["Status"]
    if status not in ("Active", "Inactive"):
        raise ApiError("InvalidInput", f"The status {status} cannot be set. Specify Active or Inactive.")
    return Outcome({}, call.change(msgspec.structs.replace(_key_of(call), active=status == "Active")))


@operation("iam", asks=ask_own_or_named)
def delete_access_key(call: Call) -> Outcome:
    """Ends a key, at once."""
    return Outcome({}, call.change(deletes=[("access-key", _key_of(call).id)]))


def _ask_last_used(call: Call) -> Sequence[Ask]:
    key = call.world.access_key(call.parameters["AccessKeyId"])
    if key is None or not key.user_name:
        return (Ask(f"iam:{call.action}", iam_arn(call.world, "user/*")),)
    return (ask_identity(USER, call, key.user_name),)


@operation("iam", asks=_ask_last_used)
def get_access_key_last_used(call: Call) -> Outcome:
    """When and for which service a user's key was last used. Raises AccessDenied for a key that does not exist."""
    key = call.world.access_key(call.parameters["AccessKeyId"])
    if key is None or key.role_name:
        raise ApiError(
            "AccessDenied",
            f"User: {call.caller.arn} is not authorized to perform iam:GetAccessKeyLastUsed on resource: "
            f"access key {call.parameters['AccessKeyId']}",
            403,
        )
    used: dict[str, Any] = {"ServiceName": "N/A", "Region": "N/A"}
    if key.last_used is not None:
        when, service = key.last_used
        used = {"LastUsedDate": moment(when), "ServiceName": service, "Region": call.world.region}
    owner = {"UserName": key.user_name} if key.user_name else {}
    return Outcome({**owner, "AccessKeyLastUsed": used})
