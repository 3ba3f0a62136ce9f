"""What exists: one immutable snapshot, the `World`, with a revision.

A World is made whole or not at all: `World.from_json` raises WorldError naming the place, and `World.check` the
contradiction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, Literal, TypeVar

import msgspec

from wicketgate.model.check import check_world
from wicketgate.model.errors import WorldError
from wicketgate.model.insights import NetworkInsightsAnalysis, NetworkInsightsPath
from wicketgate.model.places import Places, carried, places
from wicketgate.model.references import Naming, naming, renamed
from wicketgate.model.resources import (
    REVOCATION_TAG,
    AccessKey,
    Endpoint,
    Instance,
    MachineCredential,
    ManagedPolicy,
    NetworkInterface,
    Policy,
    Principal,
    PushedKey,
    Role,
    SecurityGroup,
    SecurityGroupRule,
    Settings,
    Struct,
    Subnet,
    User,
    UserGroup,
    Vpc,
    aws_managed_policies,
)
from wicketgate.model.routing import PrefixList, PrefixListVersion, RouteTable, VpcPeeringConnection


class World(Struct, frozen=True, kw_only=True, dict=True):
    """Everything there is, at one revision. Tuples keep the order of creation; look-ups are by id."""

    revision: int = 0
    account_id: str = "123456789012"
    region: str = "us-east-1"
    partition: str = "aws"
    settings: Settings = Settings()
    vpcs: tuple[Vpc, ...] = ()
    subnets: tuple[Subnet, ...] = ()
    groups: tuple[SecurityGroup, ...] = ()
    interfaces: tuple[NetworkInterface, ...] = ()
    instances: tuple[Instance, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    users: tuple[User, ...] = ()
    user_groups: tuple[UserGroup, ...] = ()
    roles: tuple[Role, ...] = ()
    managed_policies: tuple[ManagedPolicy, ...] = ()
    access_keys: tuple[AccessKey, ...] = ()
    pushed_keys: tuple[PushedKey, ...] = ()
    machine_credentials: tuple[MachineCredential, ...] = ()
    prefix_lists: tuple[PrefixList, ...] = ()
    prefix_list_versions: tuple[PrefixListVersion, ...] = ()
    peerings: tuple[VpcPeeringConnection, ...] = ()
    route_tables: tuple[RouteTable, ...] = ()
    insights_paths: tuple[NetworkInsightsPath, ...] = ()
    insights_analyses: tuple[NetworkInsightsAnalysis, ...] = ()

    # -- look-ups: None when there is no such thing --------------------------------------------------------------------

    @cached_property
    def _vpcs(self) -> dict[str, Vpc]:
        return {thing.id: thing for thing in self.vpcs}

    @cached_property
    def _subnets(self) -> dict[str, Subnet]:
        return {thing.id: thing for thing in self.subnets}

    @cached_property
    def _groups(self) -> dict[str, SecurityGroup]:
        return {thing.id: thing for thing in self.groups}

    @cached_property
    def _interfaces(self) -> dict[str, NetworkInterface]:
        return {thing.id: thing for thing in self.interfaces}

    @cached_property
    def _instances(self) -> dict[str, Instance]:
        return {thing.id: thing for thing in self.instances}

    @cached_property
    def _endpoints(self) -> dict[str, Endpoint]:
        return {thing.id: thing for thing in self.endpoints}

    @cached_property
    def _access_keys(self) -> dict[str, AccessKey]:
        return {thing.id: thing for thing in self.access_keys}

    @cached_property
    def _users(self) -> dict[str, User]:
        return {user.name: user for user in self.users}

    @cached_property
    def _user_groups(self) -> dict[str, UserGroup]:
        return {group.name: group for group in self.user_groups}

    @cached_property
    def _roles(self) -> dict[str, Role]:
        return {role.name: role for role in self.roles}

    @cached_property
    def _managed_policies(self) -> dict[str, ManagedPolicy]:
        return {policy.arn: policy for policy in self.managed_policies}

    @cached_property
    def _pushed_keys(self) -> dict[str, PushedKey]:
        return {thing.id: thing for thing in self.pushed_keys}

    @cached_property
    def _machine_credentials(self) -> dict[str, MachineCredential]:
        return {thing.id: thing for thing in self.machine_credentials}

    @cached_property
    def _prefix_lists(self) -> dict[str, PrefixList]:
        return {thing.id: thing for thing in self.prefix_lists}

    @cached_property
    def _prefix_list_versions(self) -> dict[str, PrefixListVersion]:
        return {thing.id: thing for thing in self.prefix_list_versions}

    @cached_property
    def _peerings(self) -> dict[str, VpcPeeringConnection]:
        return {thing.id: thing for thing in self.peerings}

    @cached_property
    def _route_tables(self) -> dict[str, RouteTable]:
        return {thing.id: thing for thing in self.route_tables}

    @cached_property
    def _insights_paths(self) -> dict[str, NetworkInsightsPath]:
        return {thing.id: thing for thing in self.insights_paths}

    @cached_property
    def _insights_analyses(self) -> dict[str, NetworkInsightsAnalysis]:
        return {thing.id: thing for thing in self.insights_analyses}

    @cached_property
    def _peerings_by_vpc(self) -> dict[str, tuple[VpcPeeringConnection, ...]]:
        ends = ((vpc_id, one) for one in self.peerings for vpc_id in (one.requester_vpc_id, one.accepter_vpc_id))
        return _grouped(pair for pair in ends if pair[1].status == "active")

    @cached_property
    def _places(self) -> Places:
        return places(self.interfaces, self._vpc_id_of_subnet)

    def _vpc_id_of_subnet(self, subnet_id: str) -> str | None:
        subnet = self.subnet(subnet_id)
        return None if subnet is None else subnet.vpc_id

    @cached_property
    def _naming(self) -> Naming:
        return naming(self.groups)

    @cached_property
    def _endpoints_by_interface(self) -> dict[str, Endpoint]:
        return {endpoint.interface_id: endpoint for endpoint in reversed(self.endpoints)}

    @cached_property
    def _instances_by_interface(self) -> dict[str, Instance]:
        return {instance.interface_id: instance for instance in reversed(self.instances)}

    def by_id(self, field: str) -> dict[str, Any]:
        """The look-up of a field, e.g. `groups`: id, as `id_of` in `change.py` has it, -> resource. Not to change."""
        found: dict[str, Any] = getattr(self, f"_{field}")
        return found

    def replaced(
        self,
        fields: Mapping[str, Any],
        by_id: Mapping[str, dict[str, Any]],
        touched: Mapping[str, Iterable[str]] | None = None,
    ) -> World:
        """This World with other fields, unchecked, and their new look-ups by id, so that they need not be made.

        What is looked up in none of these fields is shared with this World. `touched`: field -> ids of all that was
        put or deleted in it, if it is known, so that the look-ups of places can be mended and need not be made either.
        """
        new: World = msgspec.structs.replace(self, **fields)
        for name, sources in _LOOK_UPS.items():
            if name in self.__dict__ and fields.keys().isdisjoint(sources):
                new.__dict__[name] = self.__dict__[name]
        new.__dict__.update({f"_{field}": found for field, found in by_id.items()})
        changed = (touched or {}).get("groups")
        if changed is not None and "_naming" in self.__dict__:
            new.__dict__["_naming"] = renamed(self._naming, self._groups, new._groups, changed)
        moved = (touched or {}).get("interfaces")
        if moved is not None and "_places" in self.__dict__ and "subnets" not in fields:
            mended = carried(self._places, self._interfaces, new._interfaces, moved, self._vpc_id_of_subnet)
            if mended is not None:
                new.__dict__["_places"] = mended
        return new

    def vpc(self, vpc_id: str) -> Vpc | None:
        """The VPC with this id."""
        return self._vpcs.get(vpc_id)

    def subnet(self, subnet_id: str) -> Subnet | None:
        """The subnet with this id."""
        return self._subnets.get(subnet_id)

    def group(self, group_id: str) -> SecurityGroup | None:
        """The security group with this id."""
        return self._groups.get(group_id)

    def interface(self, interface_id: str) -> NetworkInterface | None:
        """The network interface with this id."""
        return self._interfaces.get(interface_id)

    def instance(self, instance_id: str) -> Instance | None:
        """The instance with this id."""
        return self._instances.get(instance_id)

    def endpoint(self, endpoint_id: str) -> Endpoint | None:
        """The EC2 Instance Connect Endpoint with this id."""
        return self._endpoints.get(endpoint_id)

    def user(self, name: str) -> User | None:
        """The IAM user with this name (case-sensitive here; IAM compares names case-insensitively on creation)."""
        return self._users.get(name)

    def user_group(self, name: str) -> UserGroup | None:
        """The IAM group with this name."""
        return self._user_groups.get(name)

    def role(self, name: str) -> Role | None:
        """The IAM role with this name."""
        return self._roles.get(name)

    def managed_policy(self, arn: str) -> ManagedPolicy | None:
        """The managed policy with this ARN, the account's own or AWS's."""
        return self._managed_policies.get(arn) or aws_managed_policies(self.partition).get(arn)

    def principal(self, key: AccessKey) -> Principal | None:
        """Whose key this is, with all policies that count; None when the user or role is gone."""
        if key.role_name:
            return self._session(key)
        if not key.user_name:
            return Principal(type="Root", arn=f"arn:{self.partition}:iam::{self.account_id}:root", id=self.account_id)
        user = self.user(key.user_name)
        if user is None:
            return None
        owners: list[User | UserGroup | Role] = [user]
        owners += [group for name in user.groups if (group := self.user_group(name)) is not None]
        policies = [policy for owner in owners for policy in (*owner.policies, *self._attached_policies(owner))]
        return Principal(
            type="IAMUser",
            arn=self.user_arn(user),
            id=user.id,
            name=user.name,
            policies=tuple(policies),
            tags=user.tags,
        )

    def _session(self, key: AccessKey) -> Principal | None:
        role = self.role(key.role_name)
        if role is None:
            return None
        return Principal(
            type="AssumedRole",
            arn=f"arn:{self.partition}:sts::{self.account_id}:assumed-role/{role.name}/{key.session_name}",
            id=f"{role.id}:{key.session_name}",
            name=f"{role.name}/{key.session_name}",
            policies=(*role.policies, *self._attached_policies(role)),
            session_policies=key.session_policies or None,
            tags={**role.tags, **key.session_tags},
            issued_at=key.created_at,
        )

    def _attached_policies(self, owner: User | UserGroup | Role) -> list[Policy]:
        found = [policy for arn in owner.attached if (policy := self.managed_policy(arn)) is not None]
        return [Policy(name=policy.name, document=policy.document) for policy in found]

    def access_key(self, access_key_id: str) -> AccessKey | None:
        """The access key with this id."""
        return self._access_keys.get(access_key_id)

    def machine_credential(self, credential_id: str) -> MachineCredential | None:
        """The machine credential with this id."""
        return self._machine_credentials.get(credential_id)

    def members(self, group_id: str) -> tuple[NetworkInterface, ...]:
        """The network interfaces that carry the group."""
        return self._places.by_group.get(group_id, ())

    def vpc_of_subnet(self, subnet_id: str) -> Vpc:
        """The VPC of a subnet that exists; raises WorldError otherwise."""
        subnet = self.subnet(subnet_id)
        vpc = self.vpc(subnet.vpc_id) if subnet else None
        if vpc is None:
            raise WorldError(f"subnet {subnet_id} or its VPC does not exist")
        return vpc

    def interfaces_of_vpc(self, vpc_id: str) -> tuple[NetworkInterface, ...]:
        """The network interfaces in a VPC."""
        return tuple(self._places.by_vpc.get(vpc_id, {}).values())

    def interface_at(self, vpc_id: str, address: str) -> NetworkInterface | None:
        """The network interface of a VPC that holds a private address, in canonical form."""
        holders = self._places.by_address.get((vpc_id, address))
        return holders[0] if holders else None

    def holders(self, vpc_id: str, address: str) -> tuple[NetworkInterface, ...]:
        """All network interfaces of a VPC with a private address: more than one only in a World that contradicts."""
        return self._places.by_address.get((vpc_id, address), ())

    def interfaces_on_link(self, vpc_id: str, link: str) -> tuple[NetworkInterface, ...]:
        """All network interfaces of a VPC on a link."""
        return self._places.by_link.get((vpc_id, link), ())

    def further_interfaces(self, instance_id: str) -> tuple[NetworkInterface, ...]:
        """The network interfaces that are attached to an instance beside its first one, by device index."""
        return self._places.by_instance.get(instance_id, ())

    def endpoint_of_interface(self, interface_id: str) -> Endpoint | None:
        """The endpoint whose network interface this is."""
        return self._endpoints_by_interface.get(interface_id)

    def instance_of_interface(self, interface_id: str) -> Instance | None:
        """The instance whose network interface this is, be it its first or a further one."""
        first = self.instance_by_first_interface(interface_id)
        if first is not None:
            return first
        eni = self.interface(interface_id)
        return None if eni is None or not eni.attached_to else self.instance(eni.attached_to)

    def instance_by_first_interface(self, interface_id: str) -> Instance | None:
        """The instance that names this network interface as its first one."""
        return self._instances_by_interface.get(interface_id)

    def replies_return(self, interface: NetworkInterface) -> bool:
        """Whether what the interface sends to an address outside its network comes back through this gateway.

        What is made here has no other way. A machine that exists without us has its own router, unless its network is
        said to lead back here.
        """
        owner = self.instance_of_interface(interface.id)
        if owner is None or not owner.is_external:
            return True
        subnet = self.subnet(interface.subnet_id)
        return subnet is not None and subnet.attached is not None and subnet.attached.return_path

    def interfaces_of_instance(self, instance: Instance) -> tuple[NetworkInterface, ...]:
        """The network interfaces of an instance by device index; none once it has ended."""
        first = self.interface(instance.interface_id)
        return () if first is None else (first, *self.further_interfaces(instance.id))

    def prefix_list(self, prefix_list_id: str) -> PrefixList | None:
        """The managed prefix list with this id."""
        return self._prefix_lists.get(prefix_list_id)

    def groups_naming(self, prefix_list_id: str) -> tuple[SecurityGroup, ...]:
        """The groups with rules that name a prefix list."""
        there = self._naming.get(prefix_list_id, frozenset())
        return tuple(group for group_id, group in self._groups.items() if group_id in there) if there else ()

    def peering(self, peering_id: str) -> VpcPeeringConnection | None:
        """The VPC peering connection with this id, in whatever state."""
        return self._peerings.get(peering_id)

    def active_peerings(self, vpc_id: str) -> tuple[VpcPeeringConnection, ...]:
        """The peering connections of a VPC that packets can pass."""
        return self._peerings_by_vpc.get(vpc_id, ())

    def route_table(self, route_table_id: str) -> RouteTable | None:
        """The route table with this id."""
        return self._route_tables.get(route_table_id)

    def insights_path(self, path_id: str) -> NetworkInsightsPath | None:
        """The path of Reachability Analyzer with this id."""
        return self._insights_paths.get(path_id)

    def insights_analysis(self, analysis_id: str) -> NetworkInsightsAnalysis | None:
        """The analysis of Reachability Analyzer with this id."""
        return self._insights_analyses.get(analysis_id)

    def referenced_group(self, group: SecurityGroup, rule: SecurityGroupRule) -> SecurityGroup | None:
        """The group that a rule of `group` refers to; None for a rule without one and while the reference is stale."""
        other = self.group(rule.referenced_group_id or "")
        if other is None or other.vpc_id != (rule.referenced_vpc_id or group.vpc_id):
            return None
        if other.vpc_id == group.vpc_id:
            return other
        peered = any(one.other(group.vpc_id) == other.vpc_id for one in self.active_peerings(group.vpc_id))
        return other if peered else None

    def revocation(self, vpc_id: str) -> Literal["aws", "immediate"]:
        """What a change does to connections of a VPC that it no longer allows (the setting `revocation`)."""
        vpc = self.vpc(vpc_id)
        wanted = self.settings.revocation if vpc is None else vpc.tags.get(REVOCATION_TAG, self.settings.revocation)
        return "immediate" if wanted == "immediate" else "aws"

    # -- names ---------------------------------------------------------------------------------------------------------

    def endpoint_arn(self, endpoint_id: str) -> str:
        """ARN of an endpoint, existing or not (IAM is asked before existence is told)."""
        return f"arn:{self.partition}:ec2:{self.region}:{self.account_id}:instance-connect-endpoint/{endpoint_id}"

    def user_arn(self, user: User) -> str:
        """ARN of a user."""
        return f"arn:{self.partition}:iam::{self.account_id}:user{user.path}{user.name}"

    def role_arn(self, role: Role) -> str:
        """ARN of a role."""
        return f"arn:{self.partition}:iam::{self.account_id}:role{role.path}{role.name}"

    # -- reading and writing -------------------------------------------------------------------------------------------

    def to_json(self) -> bytes:
        """The World as one JSON object."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, data: bytes) -> World:
        """Read a World; raises WorldError that names the place."""
        try:
            world = msgspec.json.decode(data, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise WorldError(f"not a World: {error}") from error
        world.check()
        return world

    def check(self) -> None:
        """Raise WorldError for the first contradiction: a dangling id, an address outside its subnet, a duplicate."""
        check_world(self)


_LOOK_UPS: dict[str, frozenset[str]] = {
    "_vpcs": frozenset({"vpcs"}),
    "_subnets": frozenset({"subnets"}),
    "_groups": frozenset({"groups"}),
    "_interfaces": frozenset({"interfaces"}),
    "_instances": frozenset({"instances"}),
    "_endpoints": frozenset({"endpoints"}),
    "_access_keys": frozenset({"access_keys"}),
    "_users": frozenset({"users"}),
    "_user_groups": frozenset({"user_groups"}),
    "_roles": frozenset({"roles"}),
    "_managed_policies": frozenset({"managed_policies"}),
    "_pushed_keys": frozenset({"pushed_keys"}),
    "_machine_credentials": frozenset({"machine_credentials"}),
    "_prefix_lists": frozenset({"prefix_lists"}),
    "_prefix_list_versions": frozenset({"prefix_list_versions"}),
    "_peerings": frozenset({"peerings"}),
    "_route_tables": frozenset({"route_tables"}),
    "_insights_paths": frozenset({"insights_paths"}),
    "_insights_analyses": frozenset({"insights_analyses"}),
    "_peerings_by_vpc": frozenset({"peerings"}),
    "_naming": frozenset({"groups"}),
    "_places": frozenset({"interfaces", "subnets"}),
    "_endpoints_by_interface": frozenset({"endpoints"}),
    "_instances_by_interface": frozenset({"instances"}),
}
"""Cached look-ups of the World -> the fields they are made from."""

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


def _grouped(pairs: Iterable[tuple[_Key, _Value]]) -> dict[_Key, tuple[_Value, ...]]:
    found: dict[_Key, list[_Value]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return {key: tuple(values) for key, values in found.items()}


def changed_pairs(before: tuple[_Value, ...], after: tuple[_Value, ...]) -> list[tuple[_Value, _Value]] | None:
    """Of two fields of Worlds, the places where another object stands now; None when one has more places."""
    if len(before) != len(after):
        return None
    if before is after:
        return []
    return [(old, new) for old, new in zip(before, after, strict=True) if old is not new]
