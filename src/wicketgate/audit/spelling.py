"""Parameters and answers of API calls as CloudTrail spells them. Pure.

Names are the API's with a small first letter (`SSHPublicKey` is `sSHPublicKey`). EC2's lists are objects with `items`,
empty ones empty objects, and many have names of their own (`filterSet` with `valueSet`); `return` is `_return`, its
times are milliseconds since the epoch, other services' read `Jan 31, 2026, 11:59:59 PM`.
Source: CloudTrail User Guide, "CloudTrail record contents" and its log file examples; records that users published.

Secrets never pass: they are left out of answers, as AWS leaves out SecretAccessKey, and hidden in parameters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

HIDDEN: Final = "HIDDEN_DUE_TO_SECURITY_REASONS"
MAX_VALUE: Final = 10_240
"""Characters of one text: the longest policy document that a role may hold."""
MAX_SIZE: Final = 100 * 1024
"""Bytes of requestParameters and of responseElements, as in CloudTrail; what is larger is left out whole."""
MAX_DEPTH: Final = 16

SECRETS: Final = frozenset(
    {
        "SecretAccessKey",
        "SessionToken",
        "Password",
        "OldPassword",
        "NewPassword",
        "TokenCode",
        "SerialNumberToken",
        "SAMLAssertion",
        "WebIdentityToken",
        "UserData",
        "KeyMaterial",
        "MachineToken",
        "PrivateKey",
        "PasswordData",
    }
)
"""Member names whose values are secrets or may hold some, in any service."""

_EC2_NAMES: Final[Mapping[str, str]] = {
    "InstanceIds": "instancesSet",
    "VpcIds": "vpcSet",
    "SubnetIds": "subnetSet",
    "GroupIds": "securityGroupIdSet",
    "GroupNames": "securityGroupSet",
    "SecurityGroupIds": "groupSet",
    "Groups": "groupSet",
    "Filters": "filterSet",
    "Values": "valueSet",
    "Resources": "resourcesSet",
    "Tags": "tagSet",
    "TagSpecifications": "tagSpecificationSet",
    "ZoneNames": "availabilityZoneSet",
    "RegionNames": "regionSet",
    "AttributeNames": "accountAttributeNameSet",
    "UserIdGroupPairs": "groups",
}
_EC2_KEYS: Final[Mapping[str, str]] = {
    "Resources": "resourceId",
    "SecurityGroupIds": "groupId",
    "Groups": "groupId",
}
"""What an item of a list of texts is called where that is not the list's name in the singular."""


def request_parameters(service: str, parameters: Mapping[str, Any]) -> dict[str, Any] | None:
    """Validated parameters, keyed by the service model's member names, as requestParameters; None for none.

    `service` is the signing name, as `ec2`.
    """
    spelt = _structure(parameters, _Speller(service, None, hide=True))
    return bounded(spelt) or None


def response_elements(service: str, answer: Mapping[str, Any], shape: Any = None) -> dict[str, Any] | None:
    """An answer, keyed by member names, as responseElements; None for none.

    `shape` is botocore's model of the answer: with it, EC2's members are called as on the wire, as in CloudTrail.
    """
    spelt = _structure(answer, _Speller(service, shape, hide=False))
    return bounded(spelt) or None


def bounded(spelt: dict[str, Any]) -> dict[str, Any]:
    """What was given, or CloudTrail's note in its place when it is larger than MAX_SIZE."""
    size = len(json.dumps(spelt, separators=(",", ":")))
    if size <= MAX_SIZE:
        return spelt
    return {"omitted": True, "originalSize": size, "reason": f"size exceeds {MAX_SIZE} bytes"}


def shortened(text: str, size: int = MAX_VALUE) -> str:
    """A text cut to `size` characters, the last of which then says that it was."""
    return text if len(text) <= size else f"{text[: size - 1]}…"


class _Speller:
    """How one service's values are written; `hide` tells whether secrets are hidden or left out."""

    def __init__(self, service: str, shape: Any, *, hide: bool) -> None:
        self.ec2 = service == "ec2"
        self.shape = shape if self.ec2 else None
        self.hide = hide

    def below(self, shape: Any) -> _Speller:
        return _Speller("ec2" if self.ec2 else "", shape, hide=self.hide)

    def member(self, name: str) -> Any:
        return getattr(self.shape, "members", {}).get(name)

    def name(self, name: str, value: Any) -> str:
        if not self.ec2:
            return _camel(name)
        member = self.member(name)
        if member is not None:
            wire = str(member.serialization.get("name", name))
            return "_return" if wire == "return" else _camel(wire)
        if isinstance(value, (list, tuple)):
            scalars = bool(value) and not isinstance(value[0], Mapping)
            return _EC2_NAMES.get(name) or (f"{_camel(_singular(name))}Set" if scalars else _camel(name))
        return "_return" if name == "Return" else _camel(name)


def _structure(value: Mapping[str, Any], speller: _Speller, depth: int = 0) -> dict[str, Any]:
    spelt = {}
    for name, item in value.items():
        if item is None or (name in SECRETS and not speller.hide):
            continue
        key = speller.name(name, item)
        spelt[key] = HIDDEN if name in SECRETS else _value(name, item, speller.below(speller.member(name)), depth + 1)
    return spelt


def _value(name: str, value: Any, speller: _Speller, depth: int) -> Any:
    if depth > MAX_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        return _structure(value, speller, depth)
    if isinstance(value, (list, tuple)):
        return _list(name, value, speller, depth)
    if isinstance(value, datetime):
        return _time(value, speller)
    if isinstance(value, (bool, int, float)):
        return value
    return f"({len(value)} bytes)" if isinstance(value, bytes) else shortened(str(value))


def _list(name: str, value: Sequence[Any], speller: _Speller, depth: int) -> Any:
    inner = speller.below(getattr(speller.shape, "member", None))
    items = [_value(name, item, inner, depth + 1) for item in value]
    if not speller.ec2:
        return items
    if not items:
        return {}
    key = _EC2_KEYS.get(name, _camel(_singular(name)))
    return {"items": [item if isinstance(item, dict) else {key: item} for item in items]}


def _time(value: datetime, speller: _Speller) -> Any:
    if speller.ec2:
        return int(value.timestamp() * 1000)
    return f"{value:%b} {value.day}, {value.year}, {value.hour % 12 or 12}:{value:%M:%S %p}"


def _camel(name: str) -> str:
    return name[:1].lower() + name[1:]


def _singular(name: str) -> str:
    return re.sub(r"s$", "", name)
