"""Findings about IAM policies: what they name and is not there, and what they keep from clients by accident."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Final, NamedTuple

from wicketgate.admit import OPEN_TUNNEL
from wicketgate.explain.answer import Say
from wicketgate.explain.lint.finding import Finding
from wicketgate.iam import MalformedPolicy, Statement, read_policies
from wicketgate.iam.conditions import Condition
from wicketgate.model import Policy, World

_DURATION: Final = "ec2-instance-connect:maxtunnelduration"
_ADDRESS: Final = "ec2-instance-connect:privateipaddress"
_PORT: Final = "ec2-instance-connect:remoteport"


class _Owned(NamedTuple):
    """A policy and where it is."""

    policy: Policy
    resource: str
    where: Say


def policies(world: World) -> Iterator[Finding]:
    """WG030 to WG034, policy by policy."""
    for owned in _owned(world):
        try:
            statements = read_policies((owned.policy,))
        except MalformedPolicy as error:
            say = Say("WG034", {"reason": str(error)}, {"where": (owned.where,)})
            yield Finding(kind="WG034", resource=owned.resource, say=say)
            continue
        for statement in statements:
            if statement.names_action(OPEN_TUNNEL.lower()):
                yield from _statement(world, owned, statement)


def _owned(world: World) -> Iterator[_Owned]:
    """Every policy that the account has written, AWS's own aside."""
    kinds = (("user", world.users), ("group", world.user_groups), ("role", world.roles))
    for kind, owners in kinds:
        for owner in owners:
            name = f"{kind}/{owner.name}"
            for policy in owner.policies:
                yield _Owned(policy, name, Say("defined-inline", {"owner": name, "policy": policy.name}))
    for managed in world.managed_policies:
        policy = Policy(name=managed.name, document=managed.document)
        yield _Owned(policy, managed.arn, Say("managed-policy", {"arn": managed.arn}))


def _statement(world: World, owned: _Owned, statement: Statement) -> Iterator[Finding]:
    yield from _capped(world, owned, statement)
    yield from _endpoints(world, owned, statement)
    for condition in statement.conditions:
        key = condition.key.lower()
        if key == _ADDRESS and condition.operator.name == "IpAddress":
            yield from _addresses(world, owned, statement, condition)
        if key == _PORT and condition.operator.name in ("NumericEquals", "StringEquals"):
            yield from _ports(world, owned, statement, condition)


def _about(kind: str, owned: _Owned, statement: Statement, **facts: str) -> Finding:
    say = Say(kind, {"statement": statement.name, **facts}, {"where": (owned.where,)})
    return Finding(kind=kind, resource=statement.name, within=owned.resource, say=say)


def _capped(world: World, owned: _Owned, statement: Statement) -> Iterator[Finding]:
    """An omitted duration is the longest there is (`admit.tunnel_context`): a lower cap denies who leaves it out."""
    conditions = [one for one in statement.conditions if one.key.lower() == _DURATION]
    longest = world.settings.max_tunnel_duration
    if not statement.allows or not conditions or _hold(conditions, longest):
        return
    numbers = {int(value) for one in conditions for value in one.values if value.isdecimal()}
    tried = {1, *(number + more for number in numbers for more in (-1, 0, 1))}
    fitting = [number for number in tried if 1 <= number <= longest and _hold(conditions, number)]
    if fitting:
        yield _about("WG030", owned, statement, cap=str(max(fitting)), longest=str(longest))


def _hold(conditions: list[Condition], duration: int) -> bool:
    return all(one.holds({_DURATION: str(duration)}) for one in conditions)


def _endpoints(world: World, owned: _Owned, statement: Statement) -> Iterator[Finding]:
    there = {world.endpoint_arn(one.id) for one in world.endpoints}
    for pattern in statement.resources:
        plain = not pattern.parts and not set(pattern.text) & set("*?")
        if plain and ":instance-connect-endpoint/" in pattern.text and pattern.text not in there:
            yield _about("WG031", owned, statement, arn=pattern.text)


def _addresses(world: World, owned: _Owned, statement: Statement, condition: Condition) -> Iterator[Finding]:
    for value in condition.values:
        network = ipaddress.ip_network(value, strict=False)
        held = (ipaddress.ip_address(address) for eni in world.interfaces for address in eni.addresses)
        if not any(address in network for address in held):
            yield _about("WG032", owned, statement, value=value)


def _ports(world: World, owned: _Owned, statement: Statement, condition: Condition) -> Iterator[Finding]:
    offered = world.settings.allowed_ports
    for value in condition.values:
        if offered and value.isdecimal() and int(value) not in offered:
            ports = ", ".join(map(str, offered))
            yield _about("WG033", owned, statement, value=value, ports=ports)
