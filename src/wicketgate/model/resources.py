"""The resources that a World is made of, each a frozen value, and the principal that IAM decides about.

Ids have AWS's shapes (`vpc-`, `subnet-`, `sg-`, `sgr-`, `eni-`, `i-`, `eice-` and 17 hex digits). A network interface
is keyed (link, address): alone on its link in the lab, one of many on a link shared by real hosts.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Any, Literal

import msgspec

CONNECTABLE_STATES = frozenset({"create-complete", "update-in-progress", "update-complete", "update-failed"})
"""Endpoint states in which tunnels open (EC2 User Guide, connect-using-eice): an update keeps the old one in force."""

PROTOCOL_NUMBERS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58}
"""The protocols that rules may name (EC2 API, IpPermission), by their IANA numbers."""

IPv4or6Address = ipaddress.IPv4Address | ipaddress.IPv6Address
IPv4or6Network = ipaddress.IPv4Network | ipaddress.IPv6Network

NAMESPACE_IMAGE = "ami-00000000000000001"
"""The built-in image of the lab's machines: a network namespace with a real sshd."""
EXTERNAL_IMAGE = "ami-00000000000000002"
"""The built-in image of machines that exist without us, on a network of the host: nothing is started for them."""

REVOCATION_TAG = "wicketgate:revocation"
"""A VPC's tag that overrides the setting `revocation` there."""


class Struct(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Base of all resources: frozen values, compared by content."""


class Vpc(Struct, frozen=True, kw_only=True):
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
    ipv6_cidr_blocks: tuple[str, ...] = ()
    """Associated IPv6 ranges."""

    @property
    def network(self) -> ipaddress.IPv4Network:
        """The VPC's IPv4 range."""
        return ipaddress.IPv4Network(self.cidr_block)

    @property
    def networks(self) -> tuple[IPv4or6Network, ...]:
        """All ranges of the VPC, IPv4 first."""
        return (self.network, *map(ipaddress.IPv6Network, self.ipv6_cidr_blocks))


class AttachedNetwork(Struct, frozen=True, kw_only=True):
    """The network of the host that a subnet is bound to, as the operator's file says and netd has found it.

    netd alone reads that file and goes by it; this is what it told, so that decisions can be worded and explained. No
    API call sets it, and no link is named in it.
    """

    mode: Literal["own", "bridge", "macvlan", "routed"]
    return_path: bool = False
    """Whether machines send what is for anywhere else back through this gateway, so that client addresses can be
    preserved."""
    endpoint_addresses: tuple[str, ...] = ()
    """What endpoints' addresses are taken from; () = any free one of the subnet."""
    problem: str = ""
    """Why it cannot be used at present, in words that name no link; empty when it can."""
    notice: str = ""
    """What else an operator should know: who else has, or claims, addresses of endpoints; empty for nothing."""


class Subnet(Struct, frozen=True, kw_only=True):
    """A part of a VPC's ranges. The first address after the base of its IPv4 range is the VPC router's."""

    id: str
    vpc_id: str
    cidr_block: str = ""
    """Empty for an IPv6-only subnet."""
    availability_zone: str = ""
    map_public_ip_on_launch: bool = False
    tags: dict[str, str] = {}
    ipv6_cidr_block: str = ""
    """Empty for none."""
    assign_ipv6_on_creation: bool = False
    attached: AttachedNetwork | None = None
    """None for a subnet that has only what is made here."""

    @property
    def network(self) -> ipaddress.IPv4Network | None:
        """The subnet's IPv4 range; None for an IPv6-only subnet."""
        return ipaddress.IPv4Network(self.cidr_block) if self.cidr_block else None

    @property
    def ipv6_network(self) -> ipaddress.IPv6Network | None:
        """The subnet's IPv6 range, if it has one."""
        return ipaddress.IPv6Network(self.ipv6_cidr_block) if self.ipv6_cidr_block else None

    @property
    def router_address(self) -> str | None:
        """The VPC router's IPv4 address in this subnet (base + 1, VPC User Guide, subnet sizing)."""
        return None if (network := self.network) is None else str(network.network_address + 1)


class SecurityGroupRule(Struct, frozen=True, kw_only=True):
    """One allow rule with exactly one of cidr_ipv4, cidr_ipv6, prefix_list_id, referenced_group_id (EC2 API,
    SecurityGroupRule)."""

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
    prefix_list_id: str | None = None
    """All entries of the list's present version."""
    referenced_group_id: str | None = None
    referenced_vpc_id: str = ""
    """VPC of a referenced group that is of a peered VPC; empty for the rule's own. Such a reference counts while a
    peering connection of the two VPCs is active and the group exists; otherwise it is stale and allows nothing."""
    peering_id: str = ""
    """The peering connection by which the group of the other VPC was found, to be shown."""
    description: str = ""
    tags: dict[str, str] = {}

    @property
    def peer(self) -> str:
        """The source (inbound) or destination (outbound) as written."""
        return self.cidr_ipv4 or self.cidr_ipv6 or self.prefix_list_id or self.referenced_group_id or ""

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


class SecurityGroup(Struct, frozen=True, kw_only=True):
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


class ConnectionTracking(Struct, frozen=True, kw_only=True):
    """Idle time-outs of an interface's tracked connections, in seconds; None = the default (EC2 API,
    ConnectionTrackingSpecification)."""

    tcp_established: int | None = None
    udp_stream: int | None = None
    """UDP with more than one request and response."""
    udp: int | None = None
    """UDP in one direction, or a single exchange."""


class NetworkInterface(Struct, frozen=True, kw_only=True):
    """An elastic network interface (ENI): the thing groups are attached to."""

    id: str
    subnet_id: str
    private_ip_address: str = ""
    """Primary IPv4 address; empty in an IPv6-only subnet."""
    secondary_ip_addresses: tuple[str, ...] = ()
    """Further IPv4 addresses."""
    ipv6_addresses: tuple[str, ...] = ()
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
    attached_to: str = ""
    """Instance whose further interface this is; empty for its first one, which the instance names."""
    device_index: int = 0
    """Number among its instance's interfaces: 0 is the first."""
    connection_tracking: ConnectionTracking | None = None

    @property
    def addresses(self) -> tuple[str, ...]:
        """All private addresses, the primary IPv4 address first, IPv6 last."""
        first = (self.private_ip_address,) if self.private_ip_address else ()
        return (*first, *self.secondary_ip_addresses, *self.ipv6_addresses)


class Instance(Struct, frozen=True, kw_only=True):
    """A machine with network interfaces in a VPC."""

    id: str
    interface_id: str
    """Its first network interface. Further ones name it (`attached_to`)."""
    name: str = ""
    state: Literal["pending", "running", "stopping", "stopped", "shutting-down", "terminated"] = "running"
    image_id: str = NAMESPACE_IMAGE
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

    @property
    def is_external(self) -> bool:
        """Whether it is a machine that exists without us: registered, never started or stopped."""
        return self.image_id == EXTERNAL_IMAGE

    @property
    def may_answer(self) -> bool:
        """Whether something may be there. Of a machine that exists without us `stopped` only says that the last probe
        had no answer, and a probe may err: nothing is refused for it."""
        return self.state == "running" or (self.is_external and self.state == "stopped")


class EndpointSettings(Struct, frozen=True, kw_only=True):
    """The settings of an endpoint that ModifyInstanceConnectEndpoint changes; None = not asked for."""

    preserve_client_ip: bool | None = None
    ip_address_type: Literal["ipv4", "dualstack", "ipv6"] | None = None
    group_ids: tuple[str, ...] | None = None


class Endpoint(Struct, frozen=True, kw_only=True):
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


class Policy(Struct, frozen=True, kw_only=True):
    """An identity-based IAM policy: the document as JSON data, kept as it was written."""

    name: str
    document: dict[str, Any]


class User(Struct, frozen=True, kw_only=True):
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


class UserGroup(Struct, frozen=True, kw_only=True):
    """An IAM group: policies that its users have in common. (No security group.)"""

    name: str
    id: str
    path: str = "/"
    policies: tuple[Policy, ...] = ()
    attached: tuple[str, ...] = ()
    created_at: float = 0.0


class Role(Struct, frozen=True, kw_only=True):
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


class PolicyVersion(Struct, frozen=True, kw_only=True):
    """One version of a managed policy's document."""

    id: str
    """`v1`, `v2`, ..."""
    document: dict[str, Any]
    created_at: float = 0.0


class ManagedPolicy(Struct, frozen=True, kw_only=True):
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


class AccessKey(Struct, frozen=True, kw_only=True):
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


class PushedKey(Struct, frozen=True, kw_only=True):
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


class MachineCredential(Struct, frozen=True, kw_only=True):
    """What a machine that cannot reach link-local metadata shows to be told its own metadata over TLS.

    It lets its bearer read what one instance is told, and nothing else.
    """

    id: str
    instance_id: str
    secret_hash: str
    """SHA-256 of the secret in hexadecimal digits: 256 random bits need no slower hash, and nobody needs the secret."""
    created_at: float = 0.0
    """Seconds since the epoch."""
    created_by: str = ""
    """ARN of who had it made."""


class Principal(Struct, frozen=True, kw_only=True):
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


class Settings(Struct, frozen=True, kw_only=True):
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
    preserve_client_ipv6: bool = False
    """Whether endpoints with IPv6 may preserve client addresses, which AWS refuses."""
    revocation: Literal["aws", "immediate"] = "aws"
    """What a change does to connections that it no longer allows: tracked ones go on, as at AWS, or are cut at once.
    A VPC's tag `wicketgate:revocation` overrides it there."""
    rule_counters: bool = True
    """Whether it is counted what each rule lets through. Costs a microsecond for each new connection."""
    guard_rules: bool = True
    """Whether rules that somebody else changed in the kernel are put back, half a second later."""
