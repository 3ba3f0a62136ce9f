"""Everybody who may ask for a tunnel: root, users, roles, and the sessions of roles that there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

from wicketgate.model import AccessKey, Principal, World

USER_AGENT: Final = "aws:useragent"
_OF_SESSION: Final = frozenset({"aws:userid", "aws:tokenissuetime"})

Credentials = Literal["valid", "none", "to-assume"]
"""`none`: no access key that is in force; `to-assume`: of a role, which has sessions only."""


class Who(NamedTuple):
    """A principal, and what is known of how it would ask."""

    name: str
    """As `wicketgate explain --principal` takes it: `alice`, `role/ops`, `role/ops/SESSION`, `root`, or a key's id."""
    principal: Principal
    credentials: Credentials
    unsettled: frozenset[str]
    """Context keys whose value is known only when it asks."""


def everybody(world: World, at: float) -> tuple[Who, ...]:
    """All principals, root first, at a time in seconds since the epoch. Sessions that have ended are none."""
    return tuple(_everybody(world, at))


def _everybody(world: World, at: float) -> Iterator[Who]:
    agent = frozenset({USER_AGENT})
    keys = [key for key in world.access_keys if key.active and (key.expires is None or key.expires > at)]
    signing = {key.user_name for key in keys if not key.role_name}
    for name in ("", *(user.name for user in world.users)):
        principal = world.principal(AccessKey(id="", secret="", user_name=name))
        assert principal is not None, "it is one of the World's"
        yield Who(name or "root", principal, "valid" if name in signing else "none", agent)
    for role in world.roles:
        principal = world.principal(AccessKey(id="", secret="", role_name=role.name, session_name="reach"))
        assert principal is not None, "it is one of the World's"
        yield Who(f"role/{role.name}", principal, "to-assume", agent | _OF_SESSION)
    sessions = [key for key in keys if key.role_name]
    count = Counter((key.role_name, key.session_name) for key in sessions)
    for key in sessions:
        principal = world.principal(key)
        if principal is not None:
            once = count[key.role_name, key.session_name] == 1
            yield Who(f"role/{key.role_name}/{key.session_name}" if once else key.id, principal, "valid", agent)
