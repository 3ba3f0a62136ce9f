"""Changes of the lab's world that can be taken back: calls of the AWS APIs, as an administrator would make them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from wicketgate.lab.build import Builder
from wicketgate.lab.topology import rule

Edit = Callable[[Builder], None]
"""Makes its calls; returns when all of them are in force."""


def rules_set(
    vpc: str, group: str, *, inbound: Sequence[str] | None = None, outbound: Sequence[str] | None = None
) -> Edit:
    """An edit that replaces a group's rules in one or both directions, written as in the topology file."""
    ins = None if inbound is None else [rule(text, egress=False) for text in inbound]
    outs = None if outbound is None else [rule(text, egress=True) for text in outbound]
    return lambda builder: builder.set_rules(vpc, group, ins, outs)


def groups_set(vpc: str, name: str, groups: Sequence[str]) -> Edit:
    """An edit that replaces the groups of an instance's network interface."""
    return lambda builder: builder.set_groups(vpc, name, groups)


def instance_stopped(vpc: str, name: str) -> Edit:
    """An edit that stops an instance."""
    return lambda builder: builder.stop_instance(vpc, name)


def instance_started(vpc: str, name: str) -> Edit:
    """An edit that starts a stopped instance."""
    return lambda builder: builder.start_instance(vpc, name)


def key_deactivated(user: str) -> Edit:
    """An edit that deactivates a user's access key."""
    return lambda builder: builder.set_key_active(user, active=False)


def preservation_set(vpc: str, *, preserve: bool) -> Edit:
    """An edit that switches client IP preservation of a VPC's endpoint."""
    return lambda builder: builder.modify_endpoint(vpc, PreserveClientIp=preserve)


def endpoint_deleted(vpc: str) -> Edit:
    """An edit that deletes a VPC's endpoint."""
    return lambda builder: builder.delete_endpoint(vpc)


def edits(*several: Edit) -> Edit:
    """Several edits as one."""

    def edit(builder: Builder) -> None:
        for one in several:
            one(builder)

    return edit
