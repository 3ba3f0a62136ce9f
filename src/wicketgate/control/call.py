"""An API call as the actions see it, what they give back, and the table of actions.

An action is one function: it reads `call.world` and `call.parameters` (validated against the service model, keyed by
its member names) and returns an Outcome or raises ApiError. It commits nothing: the caller of the action authorises
first, stops there on DryRun, and commits the Change as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wicketgate.model import Change, Principal, World


@dataclass(frozen=True)
class Caller:
    """Who asks, as authenticated."""

    arn: str
    account_id: str
    user_name: str = ""
    """Name of the IAM user; empty for root."""
    principal: Principal | None = None
    """The same, with its policies; None in tests that need none."""
    access_key_id: str = ""
    source_ip: str = ""
    user_agent: str = ""


@dataclass(frozen=True)
class Call:
    """One API call."""

    world: World
    action: str
    parameters: Mapping[str, Any]
    caller: Caller
    now: float
    """Seconds since the epoch."""
    request_id: str
    new_id: Callable[[str], str]
    """Prefix, e.g. `sg`, -> an id that nothing has had: `sg-` and 17 hex digits."""
    random: Callable[[int], bytes] = bytes
    """So many unpredictable bytes, for secrets and for ids of other forms. (The default is for tests: all zero.)"""
    sign: Callable[[bytes], bytes] | None = None
    """RSA-PSS signature (SHA-256, salt of 32 bytes) by the key that the instances trust for pushed SSH keys; None where
    there is no such key."""

    def arn(self, resource: str) -> str:
        """ARN of an EC2 resource of this account and region, e.g. of `security-group/sg-...`."""
        world = self.world
        return f"arn:{world.partition}:ec2:{world.region}:{world.account_id}:{resource}"

    def change(self, *puts: Any, deletes: Sequence[tuple[str, str]] = ()) -> Change:
        """A Change with this call's caller, request id and time."""
        return Change(
            puts=tuple(puts), deletes=tuple(deletes), caller=self.caller.arn, request_id=self.request_id, time=self.now
        )


@dataclass(frozen=True)
class Outcome:
    """What an action answers, by the service model's member names, and what it changes."""

    answer: Mapping[str, Any] = field(default_factory=dict)
    change: Change = field(default_factory=Change)


@dataclass(frozen=True)
class Ask:
    """One question to IAM that a call must pass: this action on this resource in this context."""

    action: str
    resource: str = "*"
    context: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Condition keys of this resource, e.g. `ec2:Vpc`, `aws:ResourceTag/Name`; the caller's own are added."""


@dataclass(frozen=True)
class Operation:
    """One offered action of one service."""

    service: str
    """As botocore names it: `ec2`, `iam`, `sts`, `ec2-instance-connect`, `cloudtrail`."""
    name: str
    run: Callable[[Call], Outcome]
    asks: Callable[[Call], Sequence[Ask]]


_OPERATIONS: dict[tuple[str, str], Operation] = {}


def operation(
    service: str, asks: Callable[[Call], Sequence[Ask]] | None = None, name: str = ""
) -> Callable[[Callable[[Call], Outcome]], Callable[[Call], Outcome]]:
    """Offer the decorated function `create_security_group` as the action `CreateSecurityGroup` of a service.

    Without `asks` the action is authorised on resource `*`, as the Describe actions are. `name`: for actions whose
    name has capitals in a row, such as SendSSHPublicKey.
    """

    def offer(run: Callable[[Call], Outcome]) -> Callable[[Call], Outcome]:
        called = name or "".join(part.capitalize() for part in run.__name__.split("_"))
        _OPERATIONS[service, called] = Operation(service, called, run, asks or _on_everything(service))
        return run

    return offer


def _on_everything(service: str) -> Callable[[Call], Sequence[Ask]]:
    return lambda call: (Ask(f"{service}:{call.action}"),)


def operations() -> Mapping[tuple[str, str], Operation]:
    """(service, action) -> Operation, of all families that have been imported."""
    return _OPERATIONS
