"""A Change: what one acknowledged API call does to the World. The journal is a list of them, the World their sum."""

from __future__ import annotations

import msgspec

from wicketgate.model.errors import WorldError
from wicketgate.model.world import (
    AccessKey,
    Endpoint,
    Instance,
    ManagedPolicy,
    NetworkInterface,
    PushedKey,
    Role,
    SecurityGroup,
    Settings,
    Subnet,
    User,
    UserGroup,
    Vpc,
    World,
)

Resource = (
    Vpc
    | Subnet
    | SecurityGroup
    | NetworkInterface
    | Instance
    | Endpoint
    | User
    | UserGroup
    | Role
    | ManagedPolicy
    | AccessKey
    | PushedKey
    | Settings
)

KINDS: dict[str, type[Resource]] = {
    "vpc": Vpc,
    "subnet": Subnet,
    "security-group": SecurityGroup,
    "network-interface": NetworkInterface,
    "instance": Instance,
    "instance-connect-endpoint": Endpoint,
    "user": User,
    "user-group": UserGroup,
    "role": Role,
    "policy": ManagedPolicy,
    "access-key": AccessKey,
    "pushed-key": PushedKey,
    "settings": Settings,
}
"""Resource kind, as stored and as AWS's tags call it, -> its type."""

_FIELDS = {
    Vpc: "vpcs",
    Subnet: "subnets",
    SecurityGroup: "groups",
    NetworkInterface: "interfaces",
    Instance: "instances",
    Endpoint: "endpoints",
    User: "users",
    UserGroup: "user_groups",
    Role: "roles",
    ManagedPolicy: "managed_policies",
    AccessKey: "access_keys",
    PushedKey: "pushed_keys",
}


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Resources to put (whole, by id) and ids to delete, all or nothing, with who asked and when."""

    puts: tuple[Resource, ...] = ()
    deletes: tuple[tuple[str, str], ...] = ()
    """(kind, id)."""
    caller: str = ""
    """ARN of who asked; empty for wicketgate itself."""
    request_id: str = ""
    time: float = 0.0
    """Seconds since the epoch."""

    @property
    def empty(self) -> bool:
        """Whether it changes nothing."""
        return not self.puts and not self.deletes

    def to_json(self) -> bytes:
        """The Change as one JSON object, each resource with its kind."""
        return msgspec.json.encode(
            _Written(
                puts=[(kind_of(one), msgspec.Raw(msgspec.json.encode(one))) for one in self.puts],
                deletes=self.deletes,
                caller=self.caller,
                request_id=self.request_id,
                time=self.time,
            )
        )

    @classmethod
    def from_json(cls, data: bytes) -> Change:
        """Read a Change; raises WorldError."""
        try:
            written = msgspec.json.decode(data, type=_Written)
            puts = tuple(msgspec.json.decode(raw, type=KINDS[kind]) for kind, raw in written.puts)
        except (msgspec.DecodeError, UnicodeDecodeError, KeyError) as error:
            raise WorldError(f"not a Change: {error}") from error
        return cls(
            puts=puts,
            deletes=written.deletes,
            caller=written.caller,
            request_id=written.request_id,
            time=written.time,
        )


class _Written(msgspec.Struct, frozen=True, kw_only=True):
    """A Change as JSON has it: a union of Structs cannot be told apart without their kinds."""

    puts: list[tuple[str, msgspec.Raw]]
    deletes: tuple[tuple[str, str], ...]
    caller: str
    request_id: str
    time: float


_KIND_OF = {cls: kind for kind, cls in KINDS.items()}


def kind_of(resource: Resource) -> str:
    """The kind of a resource."""
    return _KIND_OF[type(resource)]


def id_of(resource: Resource) -> str:
    """The id by which a resource is put and deleted: for users, their groups and roles the name, for managed policies
    the ARN; the settings' is empty."""
    if isinstance(resource, Settings):
        return ""
    if isinstance(resource, ManagedPolicy):
        return resource.arn
    return resource.name if isinstance(resource, User | UserGroup | Role) else resource.id


def apply_change(world: World, change: Change) -> World:
    """The World after a Change, one revision on, checked. Puts keep their place, new ones come last.

    Raises WorldError when the Change deletes what is not there or leaves a contradiction; nothing has changed then.
    """
    fields: dict[str, object] = {"revision": world.revision + 1}
    for kind, cls in KINDS.items():
        puts = {id_of(one): one for one in change.puts if type(one) is cls}
        gone = {resource_id for deleted, resource_id in change.deletes if deleted == kind}
        if cls is Settings:
            fields |= {"settings": puts[""]} if puts else {}
        elif puts or gone:
            fields[_FIELDS[cls]] = _merged(getattr(world, _FIELDS[cls]), puts, gone, kind)
    changed: World = msgspec.structs.replace(world, **fields)
    changed.check()
    return changed


def inverse(world: World, change: Change) -> Change:
    """The Change that leads back to `world` after `change`: what is committed when the kernel cannot follow."""
    before = {(kind, id_of(one)): one for kind, one in _all(world)}
    touched = [(kind_of(one), id_of(one)) for one in change.puts] + list(change.deletes)
    return Change(
        puts=tuple(before[key] for key in touched if key in before),
        deletes=tuple(key for key in touched if key not in before),
        caller=change.caller,
        request_id=change.request_id,
        time=change.time,
    )


def _all(world: World) -> list[tuple[str, Resource]]:
    found: list[tuple[str, Resource]] = [("settings", world.settings)]
    for kind, cls in KINDS.items():
        if cls is not Settings:
            found += [(kind, one) for one in getattr(world, _FIELDS[cls])]
    return found


def _merged(there: tuple[Resource, ...], puts: dict[str, Resource], gone: set[str], kind: str) -> tuple[Resource, ...]:
    known = {id_of(one) for one in there}
    if gone - known:
        raise WorldError(f"{kind} {min(gone - known)} does not exist, so it cannot be deleted")
    kept = [puts.get(id_of(one), one) for one in there if id_of(one) not in gone]
    return (*kept, *(one for resource_id, one in puts.items() if resource_id not in known))
