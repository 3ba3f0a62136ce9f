"""The condition keys that every request has: who asks, from where, when.

Source: IAM User Guide, reference_policies_condition-keys.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from wicketgate.model import Principal, World
from wicketgate.model.addresses import ipv4_value

_TYPES: Final = {"Root": "Account", "IAMUser": "User", "AssumedRole": "AssumedRole"}
"""CloudTrail's type of a principal -> IAM's."""


def caller_context(world: World, principal: Principal, source_ip: str, user_agent: str, now: float) -> dict[str, str]:
    """The global condition keys of a request at `now`, seconds since the epoch.

    For a session of a role, aws:PrincipalArn is the role's ARN, as at AWS. Absent for long-term access keys, as at AWS:
    aws:MultiFactorAuthPresent and aws:TokenIssueTime; absent for all but users: aws:username.
    """
    context = {
        "aws:currenttime": _iso_time(int(now)),
        "aws:epochtime": str(int(now)),
        "aws:principalaccount": world.account_id,
        "aws:principalarn": principal_arn(world, principal),
        "aws:principalisawsservice": "false",
        "aws:principaltype": _TYPES[principal.type],
        "aws:requestedregion": world.region,
        "aws:securetransport": "true",
        "aws:userid": principal.id,
        "aws:viaawsservice": "false",
        "ec2:region": world.region,
    }
    if principal.type == "IAMUser":
        context["aws:username"] = principal.name
    if principal.issued_at is not None:
        context["aws:tokenissuetime"] = _iso_time(int(principal.issued_at))
        context["aws:multifactorauthpresent"] = "false"
    if address := _canonical_address(source_ip):
        context["aws:sourceip"] = address
    if user_agent:
        context["aws:useragent"] = user_agent
    if principal.tags:
        add_tags(context, "aws:principaltag", principal.tags)
    return context


def principal_arn(world: World, principal: Principal) -> str:
    """The value of aws:PrincipalArn: for a session of a role the role's ARN."""
    if principal.type == "AssumedRole":
        role = world.role(principal.name.partition("/")[0])
        if role is not None:
            return world.role_arn(role)
    return principal.arn


def add_tags(context: dict[str, str], prefix: str, tags: Mapping[str, str]) -> None:
    """Each tag as it is written and in lower case, because a policy may spell its key in another case."""
    for name in sorted(tags):
        context.setdefault(f"{prefix}/{name.lower()}", tags[name])
    for name, value in tags.items():
        context[f"{prefix}/{name}"] = value


@lru_cache(maxsize=16)
def _iso_time(now: int) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _canonical_address(text: str) -> str:
    """An address in its one spelling, an IPv4-mapped one as IPv4; empty for what is none."""
    if ipv4_value(text) is not None:
        return text
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address):
        return "" if address.scope_id is not None else str(address.ipv4_mapped or address)
    return str(address)
