"""A Change: what one acknowledged API call does to the World. The journal is a list of them, the World their sum."""

from __future__ import annotations

import msgspec

from wicketgate.model.check import check_change
from wicketgate.model.errors import WorldError
from wicketgate.model.insights import NetworkInsightsAnalysis, NetworkInsightsPath
from wicketgate.model.resources import (
    AccessKey,
    Endpoint,
    Instance,
    MachineCredential,
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
)
from wicketgate.model.routing import PrefixList, PrefixListVersion, RouteTable, VpcPeeringConnection
from wicketgate.model.world import World

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
    | MachineCredential
    | PrefixList
    | PrefixListVersion
    | VpcPeeringConnection
    | RouteTable
    | NetworkInsightsPath
    | NetworkInsightsAnalysis
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
    "machine-credential": MachineCredential,
    "prefix-list": PrefixList,
    "prefix-list-version": PrefixListVersion,
    "vpc-peering-connection": VpcPeeringConnection,
    "route-table": RouteTable,
    "network-insights-path": NetworkInsightsPath,
    "network-insights-analysis": NetworkInsightsAnalysis,
    "settings": Settings,
}
"""Resource kind, as stored and as AWS's tags call it, -> its type."""

FIELDS: dict[type[Resource], str] = {
    Settings: "settings",
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
    MachineCredential: "machine_credentials",
    PrefixList: "prefix_lists",
    PrefixListVersion: "prefix_list_versions",
    VpcPeeringConnection: "peerings",
    RouteTable: "route_tables",
    NetworkInsightsPath: "insights_paths",
    NetworkInsightsAnalysis: "insights_analyses",
}
"""Type -> field of the World, where it has its kind of resource."""


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
_KIND_OF_FIELD = {FIELDS[cls]: kind for kind, cls in KINDS.items()}


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

    `world` has passed its own check: only what the Change can have broken is looked at again. Raises WorldError when
    the Change deletes what is not there or leaves a contradiction; nothing has changed then.
    """
    puts, gone = _by_field(change)
    fields: dict[str, object] = {"revision": world.revision + 1}
    if "settings" in puts:
        fields["settings"] = puts.pop("settings")[""]
    by_id: dict[str, dict[str, Resource]] = {}
    for field in puts.keys() | gone.keys():
        there, deleted = world.by_id(field), gone.get(field, set())
        if not deleted <= there.keys():
            unknown = min(deleted - there.keys())
            raise WorldError(f"{_KIND_OF_FIELD[field]} {unknown} does not exist, so it cannot be deleted")
        by_id[field] = there | puts.get(field, {})  # what is put again keeps its place
        for resource_id in deleted:
            del by_id[field][resource_id]
        fields[field] = tuple(by_id[field].values())
    touched = {field: [*puts.get(field, {}), *gone.get(field, ())] for field in by_id}
    changed = world.replaced(fields, by_id, touched)
    check_change(changed, world, touched)
    return changed


def inverse(world: World, change: Change) -> Change:
    """The Change that leads back to `world` after `change`: what is committed when the kernel cannot follow."""
    touched = dict.fromkeys([(kind_of(one), id_of(one)) for one in change.puts] + list(change.deletes))
    before = {key: one for key in touched if (one := _there(world, *key)) is not None}
    return Change(
        puts=tuple(before.values()),
        deletes=tuple(key for key in touched if key not in before),
        caller=change.caller,
        request_id=change.request_id,
        time=change.time,
    )


def _there(world: World, kind: str, resource_id: str) -> Resource | None:
    if kind == "settings":
        return world.settings
    found: Resource | None = world.by_id(FIELDS[KINDS[kind]]).get(resource_id)
    return found


def _by_field(change: Change) -> tuple[dict[str, dict[str, Resource]], dict[str, set[str]]]:
    """What a Change puts and deletes: field of the World -> id -> resource, and field -> ids."""
    puts: dict[str, dict[str, Resource]] = {}
    for one in change.puts:
        puts.setdefault(FIELDS[type(one)], {})[id_of(one)] = one
    gone: dict[str, set[str]] = {}
    for kind, resource_id in change.deletes:
        if kind not in KINDS or KINDS[kind] is Settings:
            raise WorldError(f"{kind} {resource_id} cannot be deleted: it is no kind of resource that can be")
        gone.setdefault(FIELDS[KINDS[kind]], set()).add(resource_id)
    return puts, gone
