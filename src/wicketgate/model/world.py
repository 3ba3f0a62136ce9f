"""What exists: one immutable snapshot, the `World`, with a revision.

Ids have AWS's shapes (`vpc-`, `subnet-`, `sg-`, `sgr-`, `eni-`, `i-`, `eice-` and 17 hex digits). A network interface
is keyed (link, address): alone on its link in the lab, one of many on a link shared by real hosts.

A World is made whole or not at all: `World.from_json` raises WorldError naming the place, and `World.check` the
contradiction.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from functools import cached_property, lru_cache
from typing import Any, Literal, TypeVar

import msgspec

from wicketgate.model.check import check_world
from wicketgate.model.errors import WorldError

CONNECTABLE_STATES = frozenset({"create-complete", "update-in-progress", "update-complete", "update-failed"})
"""Endpoint states in which tunnels open (EC2 User Guide, connect-using-eice): an update keeps the old one in force."""

PROTOCOL_NUMBERS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58}
"""The protocols that rules may name (EC2 API, IpPermission), by their IANA numbers."""

IPv4or6Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class _Struct(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Base of all resources: frozen values, compared by content."""


class Vpc(_Struct, frozen=True, kw_only=True):
    """A VPC: an address space with a router of its own."""

    id: str
    cidr_block: str
    name: str = ""
    is_default: bool = False
    enable_dns_support: bool = True
    enable_dns_hostnames: bool = False
    tags: dict[str, str] = {}
    terminated_instances: tuple[Instance, ...] = ()
    """Instances that ended here and are still shown for a while, as AWS does. They have no network interface."""

    @property
    def network(self) -> ipaddress.IPv4Network:
        """The VPC's IPv4 range."""
        return ipaddress.IPv4Network(self.cidr_block)


class Subnet(_Struct, frozen=True, kw_only=True):
    """A part of a VPC's range. Its first address after the base is the VPC router's."""

    id: str
    vpc_id: str
    cidr_block: str
    availability_zone: str = ""
    map_public_ip_on_launch: bool = False
    tags: dict[str, str] = {}

    @property
    def network(self) -> ipaddress.IPv4Network:
        """The subnet's IPv4 range."""
        return ipaddress.IPv4Network(self.cidr_block)

    @property
    def router_address(self) -> str:
        """The VPC router's address in this subnet (base + 1, VPC User Guide, subnet sizing)."""
        return str(self.network.network_address + 1)


class SecurityGroupRule(_Struct, frozen=True, kw_only=True):
    """One allow rule. Exactly one of cidr_ipv4, cidr_ipv6, referenced_group_id is set (EC2 API, SecurityGroupRule)."""

    id: str
    is_egress: bool
    ip_protocol: str
    """`tcp`, `udp`, `icmp`, `icmpv6`, a protocol number, or `-1` for everything."""
    from_port: int = -1
    """First destination port for tcp and udp; ICMP type, -1 for all; ignored for other protocols."""
    to_port: int = -1
    """Last destination port for tcp and udp; ICMP code, -1 for all; ignored for other protocols."""
    cidr_ipv4: str | None = None
    cidr_ipv6: str | None = None
    referenced_group_id: str | None = None
    description: str = ""
    tags: dict[str, str] = {}

    @property
    def peer(self) -> str:
        """The source (inbound) or destination (outbound) as written."""
        return self.cidr_ipv4 or self.cidr_ipv6 or self.referenced_group_id or ""

    def __str__(self) -> str:
        """The rule as AWS words one: `sgr-1 inbound tcp 22 from sg-2`."""
        ports = ""
        if self.ip_protocol in ("tcp", "udp"):
            ports = f" {self.from_port}" if self.from_port == self.to_port else f" {self.from_port}-{self.to_port}"
        elif self.ip_protocol in ("icmp", "icmpv6") and self.from_port != -1:
            ports = f" type {self.from_port}" + (f" code {self.to_port}" if self.to_port != -1 else "")
        protocol = "all traffic" if self.ip_protocol == "-1" else self.ip_protocol
        direction, side = ("outbound", "to") if self.is_egress else ("inbound", "from")
        return f"{self.id} {direction} {protocol}{ports} {side} {self.peer}"


class SecurityGroup(_Struct, frozen=True, kw_only=True):
    """Allow rules shared by the network interfaces that carry the group. What no rule allows is dropped."""

    id: str
    vpc_id: str
    name: str
    description: str = ""
    rules: tuple[SecurityGroupRule, ...] = ()
    tags: dict[str, str] = {}

    @property
    def inbound(self) -> tuple[SecurityGroupRule, ...]:
        """Rules for traffic that reaches members."""
        return tuple(rule for rule in self.rules if not rule.is_egress)

    @property
    def outbound(self) -> tuple[SecurityGroupRule, ...]:
        """Rules for traffic that leaves members."""
        return tuple(rule for rule in self.rules if rule.is_egress)


class NetworkInterface(_Struct, frozen=True, kw_only=True):
    """An elastic network interface (ENI): the thing groups are attached to."""

    id: str
    subnet_id: str
    private_ip_address: str
    group_ids: tuple[str, ...]
    link: str
    """Name of the network device on the VPC router's side (at most 15 bytes)."""
    interface_type: Literal["interface", "ec2_instance_connect_endpoint"] = "interface"
    source_dest_check: bool = True
    description: str = ""
    mac_address: str = ""
    requester_managed: bool = False
    """Made by a service for its own use: visible, but only the service may change it."""
    delete_on_termination: bool = True
    attached_at: float | None = None
    """Seconds since the epoch; None while attached to nothing."""
    tags: dict[str, str] = {}


class Instance(_Struct, frozen=True, kw_only=True):
    """A machine with a network interface in a VPC."""

    id: str
    interface_id: str
    name: str = ""
    state: Literal["pending", "running", "stopping", "stopped", "shutting-down", "terminated"] = "running"
    image_id: str = "ami-00000000000000001"
    instance_type: str = "wicketgate.namespace"
    launched_at: float = 0.0
    """Seconds since the epoch."""
    state_reason: str = ""
    """`Code: message` as StateReason has them, e.g. `Client.UserInitiatedShutdown: ...`; empty for none."""
    tags: dict[str, str] = {}
    reservation_id: str = ""
    """The RunInstances call it came from; empty = one of its own."""
    launch_index: int = 0
    """Its number within that call."""
    client_token: str = ""
    transition_reason: str = ""
    """StateTransitionReason, e.g. `User initiated (2026-01-31 23:59:59 GMT)`."""
    terminated_at: float = 0.0
    """Seconds since the epoch."""


class EndpointSettings(_Struct, frozen=True, kw_only=True):
    """The settings of an endpoint that ModifyInstanceConnectEndpoint changes; None = not asked for."""

    preserve_client_ip: bool | None = None
    ip_address_type: Literal["ipv4", "dualstack", "ipv6"] | None = None
    group_ids: tuple[str, ...] | None = None


class Endpoint(_Struct, frozen=True, kw_only=True):
    """An EC2 Instance Connect Endpoint. Its groups are those of its network interface."""

    id: str
    subnet_id: str
    interface_id: str
    dns_name: str
    preserve_client_ip: bool = False
    state: str = "create-complete"
    index: int = 1
    """Number of the endpoint within its VPC's namespace, 1..4095: bits 16-27 of the marks."""
    tags: dict[str, str] = {}
    state_message: str = ""
    created_at: float = 0.0
    """Seconds since the epoch."""
    ip_address_type: Literal["ipv4", "dualstack", "ipv6"] = "ipv4"
    pending: EndpointSettings | None = None
    """What a Modify asked for, while update-in-progress: the present values stay in force until it is done."""


class Policy(_Struct, frozen=True, kw_only=True):
    """An identity-based IAM policy: the document as JSON data, kept as it was written."""

    name: str
    document: dict[str, Any]


class User(_Struct, frozen=True, kw_only=True):
    """An IAM user."""

    name: str
    id: str
    path: str = "/"
    policies: tuple[Policy, ...] = ()
    """Inline policies."""
    attached: tuple[str, ...] = ()
    """ARNs of managed policies."""
    groups: tuple[str, ...] = ()
    """Names of the IAM groups that the user is in."""
    created_at: float = 0.0
    """Seconds since the epoch."""
    tags: dict[str, str] = {}


class UserGroup(_Struct, frozen=True, kw_only=True):
    """An IAM group: policies that its users have in common. (No security group.)"""

    name: str
    id: str
    path: str = "/"
    policies: tuple[Policy, ...] = ()
    attached: tuple[str, ...] = ()
    created_at: float = 0.0


class Role(_Struct, frozen=True, kw_only=True):
    """An IAM role: what its trust policy's principals may become for a while."""

    name: str
    id: str
    path: str = "/"
    trust: dict[str, Any] = {}
    """The trust policy (AssumeRolePolicyDocument) as JSON data."""
    policies: tuple[Policy, ...] = ()
    attached: tuple[str, ...] = ()
    description: str = ""
    max_session_duration: int = 3600
    """Seconds."""
    created_at: float = 0.0
    tags: dict[str, str] = {}


class PolicyVersion(_Struct, frozen=True, kw_only=True):
    """One version of a managed policy's document."""

    id: str
    """`v1`, `v2`, ..."""
    document: dict[str, Any]
    created_at: float = 0.0


class ManagedPolicy(_Struct, frozen=True, kw_only=True):
    """A managed policy, the account's own or AWS's."""

    arn: str
    name: str
    id: str
    path: str = "/"
    description: str = ""
    default_version: str = "v1"
    versions: tuple[PolicyVersion, ...] = ()
    next_version: int = 2
    """Number of the next version: numbers are never used again."""
    created_at: float = 0.0
    updated_at: float = 0.0
    tags: dict[str, str] = {}

    @property
    def document(self) -> dict[str, Any]:
        """The document of the default version."""
        return next(version.document for version in self.versions if version.id == self.default_version)


def _allowing(sid: str, *actions: str) -> dict[str, Any]:
    statement = {"Effect": "Allow", "Action": list(actions) if len(actions) > 1 else actions[0], "Resource": "*"}
    return {"Version": "2012-10-17", "Statement": [{"Sid": sid, **statement} if sid else statement]}


# name -> id, date and document; the date of the second and its id are not AWS's
_AWS_MANAGED: dict[str, tuple[str, float, dict[str, Any]]] = {
    "AdministratorAccess": ("ANPAIWMBCKSKIEE64ZLYK", 1423247986.0, _allowing("", "*")),
    "EC2InstanceConnect": (
        "ANPAEC2INSTANCECONNECT",
        1561661553.0,
        _allowing("EC2InstanceConnect", "ec2:DescribeInstances", "ec2-instance-connect:SendSSHPublicKey"),
    ),
}


@lru_cache(maxsize=4)
def aws_managed_policies(partition: str) -> dict[str, ManagedPolicy]:
    """AWS managed policies by ARN, as far as they are offered (AWS Managed Policy Reference Guide)."""
    return {
        (arn := f"arn:{partition}:iam::aws:policy/{name}"): ManagedPolicy(
            arn=arn,
            name=name,
            id=policy_id,
            versions=(PolicyVersion(id="v1", document=document, created_at=created),),
            created_at=created,
            updated_at=created,
        )
        for name, (policy_id, created, document) in _AWS_MANAGED.items()
    }


class AccessKey(_Struct, frozen=True, kw_only=True):
    """An access key: of a user, of a session of a role, or, with neither, of the account's root user.

    With a session token the key is temporary (STS) and ends at `expires`.
    """

    id: str
    secret: str
    user_name: str = ""
    active: bool = True
    session_token: str | None = None
    expires: float | None = None
    """Seconds since the epoch; None = never."""
    role_name: str = ""
    session_name: str = ""
    """RoleSessionName of an assumed role."""
    session_policies: tuple[Policy, ...] = ()
    """What AssumeRole was given to narrow the session: only what these allow as well is allowed."""
    session_tags: dict[str, str] = {}
    created_at: float = 0.0
    last_used: tuple[float, str] | None = None
    """When (seconds since the epoch) and for which service; not kept up to the second."""


class PushedKey(_Struct, frozen=True, kw_only=True):
    """An SSH public key that SendSSHPublicKey pushed for one instance and one of its users, for 60 seconds."""

    id: str
    instance_id: str
    os_user: str
    public_key: str
    """`type base64`: the key alone, without comment, whatever form it was sent in."""
    expires: float
    """Seconds since the epoch by the server's clock."""
    caller: str = ""
    """ARN of who pushed it."""
    request_id: str = ""
    blob: str = ""
    """What metadata shows for it: comment lines, key line and signature (EC2 Instance Connect's signed form)."""


class Principal(_Struct, frozen=True, kw_only=True):
    """Who made a request, once that is proven, and all policies that say what he may."""

    type: Literal["Root", "IAMUser", "AssumedRole"]
    """As CloudTrail's userIdentity has it."""
    arn: str
    id: str
    """Unique id: AIDA..., AROA...:session, or the account for root."""
    name: str = ""
    """User name, or `role/session` of an assumed role; empty for root."""
    policies: tuple[Policy, ...] = ()
    """Identity-based policies: inline and managed, its own and its groups'."""
    session_policies: tuple[Policy, ...] | None = None
    """None = none given; otherwise an action must be allowed by these too."""
    tags: dict[str, str] = {}
    issued_at: float | None = None
    """When its temporary credentials were issued, in seconds since the epoch; None for a long-term access key."""


class Settings(_Struct, frozen=True, kw_only=True):
    """What an operator may set. Defaults are AWS's where AWS has the limit."""

    allowed_ports: tuple[int, ...] = (22, 3389)
    """RemotePort values offered; () = any. AWS offers 22 and 3389."""
    max_tunnels_per_endpoint: int = 20
    max_tunnel_duration: int = 3600
    """Seconds; upper bound and default of maxTunnelDuration."""
    connect_timeout: float = 5.0
    """Seconds to wait for the target's answer; below the stock CLI's own 10 s."""
    presign_window: int = 60
    """Seconds that a presigned URL is good for when X-Amz-Expires is absent, and at most."""
    clock_skew: int = 300
    """Seconds by which a caller's clock may run ahead of ours."""
    url_reuse: Literal["same-source", "once", "any"] = "same-source"
    """Who may use a presigned URL again within its window."""
    unpreservable_client: Literal["refuse", "endpoint-address"] = "refuse"
    """With client IP preservation on, what to do for a client address that cannot be preserved."""


class World(_Struct, frozen=True, kw_only=True, dict=True):
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
    def _members(self) -> dict[str, tuple[NetworkInterface, ...]]:
        return _grouped((group_id, eni) for eni in self.interfaces for group_id in dict.fromkeys(eni.group_ids))

    @cached_property
    def _interfaces_by_vpc(self) -> dict[str, tuple[NetworkInterface, ...]]:
        return _grouped(
            (subnet.vpc_id, eni) for eni in self.interfaces if (subnet := self.subnet(eni.subnet_id)) is not None
        )

    @cached_property
    def _interfaces_by_address(self) -> dict[tuple[str, str], NetworkInterface]:
        by_vpc = self._interfaces_by_vpc.items()
        return {(vpc_id, eni.private_ip_address): eni for vpc_id, there in by_vpc for eni in there}

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

    def replaced(self, fields: Mapping[str, Any], by_id: Mapping[str, dict[str, Any]]) -> World:
        """This World with other fields, unchecked, and their new look-ups by id, so that they need not be made.

        What is looked up in none of these fields is shared with this World.
        """
        new: World = msgspec.structs.replace(self, **fields)
        for name, sources in _LOOK_UPS.items():
            if name in self.__dict__ and fields.keys().isdisjoint(sources):
                new.__dict__[name] = self.__dict__[name]
        new.__dict__.update({f"_{field}": found for field, found in by_id.items()})
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
        policies = [policy for owner in owners for policy in (*owner.policies, *self._attached(owner))]
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
            policies=(*role.policies, *self._attached(role)),
            session_policies=key.session_policies or None,
            tags={**role.tags, **key.session_tags},
            issued_at=key.created_at,
        )

    def _attached(self, owner: User | UserGroup | Role) -> list[Policy]:
        found = [policy for arn in owner.attached if (policy := self.managed_policy(arn)) is not None]
        return [Policy(name=policy.name, document=policy.document) for policy in found]

    def access_key(self, access_key_id: str) -> AccessKey | None:
        """The access key with this id."""
        return self._access_keys.get(access_key_id)

    def members(self, group_id: str) -> tuple[NetworkInterface, ...]:
        """The network interfaces that carry the group."""
        return self._members.get(group_id, ())

    def vpc_of_subnet(self, subnet_id: str) -> Vpc:
        """The VPC of a subnet that exists; raises WorldError otherwise."""
        subnet = self.subnet(subnet_id)
        vpc = self.vpc(subnet.vpc_id) if subnet else None
        if vpc is None:
            raise WorldError(f"subnet {subnet_id} or its VPC does not exist")
        return vpc

    def interfaces_of_vpc(self, vpc_id: str) -> tuple[NetworkInterface, ...]:
        """The network interfaces in a VPC."""
        return self._interfaces_by_vpc.get(vpc_id, ())

    def interface_at(self, vpc_id: str, address: str) -> NetworkInterface | None:
        """The network interface of a VPC that holds a private address."""
        return self._interfaces_by_address.get((vpc_id, address))

    def endpoint_of_interface(self, interface_id: str) -> Endpoint | None:
        """The endpoint whose network interface this is."""
        return self._endpoints_by_interface.get(interface_id)

    def instance_of_interface(self, interface_id: str) -> Instance | None:
        """The instance whose network interface this is."""
        return self._instances_by_interface.get(interface_id)

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
    "_members": frozenset({"interfaces"}),
    "_interfaces_by_vpc": frozenset({"interfaces", "subnets"}),
    "_interfaces_by_address": frozenset({"interfaces", "subnets"}),
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
