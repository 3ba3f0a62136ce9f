"""Every setting: its name, type, default, bounds, and what there is to know about it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from wicketgate.control.common import Quotas
from wicketgate.control.endpoints import EndpointQuotas
from wicketgate.model import Settings, WicketgateError
from wicketgate.store import Identity

PREFIX: Final = "WICKETGATE_"
"""Of every environment variable."""

ROOT_VARIABLES: Final = ("WICKETGATE_ROOT_ACCESS_KEY_ID", "WICKETGATE_ROOT_SECRET_ACCESS_KEY")
"""These have no flag and no place in the file: command lines and configuration files are read by many."""

_T = TypeVar("_T", bound=msgspec.Struct)


class ConfigurationError(WicketgateError):
    """A setting is wrong: says where it was set, what was found and what would be right."""


def _setting(description: str, expected: str, **constraints: Any) -> msgspec.Meta:
    return msgspec.Meta(description=description, extra={"expected": expected}, **constraints)


def _count(description: str, *, first: int = 1, last: int = 1_000_000) -> msgspec.Meta:
    return _setting(description, f"a whole number from {first} to {last}", ge=first, le=last)


_LABEL: Final = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"


class Configuration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings, checked. Made by `load`."""

    state_directory: Annotated[
        str,
        _setting("Directory for all that must survive a restart.", "an absolute path", pattern=r"^/.*\Z"),
    ] = "/var/lib/wicketgate"
    key_file: Annotated[
        str,
        _setting(
            "File of the key that secrets at rest are sealed with, made on first start. Keep a copy elsewhere.\n"
            'Empty: "store/seal.key" in the state directory.',
            'an absolute path, or ""',
            pattern=r"^(/.*)?\Z",
        ),
    ] = ""
    root_credential_file: Annotated[
        str,
        _setting(
            "File with the root credential, in the form of an AWS credentials file, mode 0600.\n"
            f"{ROOT_VARIABLES[0]} and {ROOT_VARIABLES[1]} are stronger.\n"
            "With neither, a credential is made on first start and shown once.",
            'an absolute path, or ""',
            pattern=r"^(/.*)?\Z",
        ),
    ] = ""
    links_file: Annotated[
        str,
        _setting(
            "File that binds subnets to networks of this host (docs/networks.md); it must belong to root.\n"
            "If there is none, no subnet is bound.",
            'an absolute path, or ""',
            pattern=r"^(/.*)?\Z",
        ),
    ] = "/etc/wicketgate/links.toml"

    listen_addresses: Annotated[
        tuple[str, ...],
        _setting(
            "IP addresses that the AWS APIs and the endpoints are served on.",
            'a list of IP addresses, e.g. ["0.0.0.0", "::"]',
            min_length=1,
        ),
    ] = ("0.0.0.0", "::")
    port: Annotated[int, _count("TCP port of both. Stock clients open tunnels on 443 only.", last=65535)] = 443
    domain: Annotated[
        str,
        _setting(
            "DNS domain below which endpoints have their names, in the place of amazonaws.com.",
            'a DNS name in lower case, e.g. "wicketgate.example.com"',
            pattern=rf"^(?=.{{1,180}}\Z){_LABEL}(\.{_LABEL})*\Z",
        ),
    ] = "wicketgate.internal"
    certificate_file: Annotated[
        str,
        _setting(
            "PEM file of your own server certificate and what leads to its root; needs private_key_file.\n"
            "Empty: a private CA is made on first start.",
            'an absolute path, or ""',
            pattern=r"^(/.*)?\Z",
        ),
    ] = ""
    private_key_file: Annotated[
        str,
        _setting("PEM file of its private key, mode 0600.", 'an absolute path, or ""', pattern=r"^(/.*)?\Z"),
    ] = ""
    workers: Annotated[int, _count("Gateway processes; 0 = one for each processor core.", first=0, last=256)] = 0
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        _setting("The least important messages to log.", '"debug", "info", "warning" or "error"'),
    ] = "info"

    region: Annotated[
        str,
        _setting(
            "AWS Region that this installation is to its clients. Fixed by the first start.",
            'a Region name, e.g. "us-east-1"',
            pattern=r"^[a-z]{2,}(-[a-z]+)+-[0-9]{1,2}\Z",
        ),
    ] = "us-east-1"
    account_id: Annotated[
        str,
        _setting(
            "AWS account number that all resources belong to. Fixed by the first start.",
            'twelve digits in quotes, e.g. "123456789012"',
            pattern=r"^[0-9]{12}\Z",
        ),
    ] = "123456789012"
    partition: Annotated[
        Literal["aws", "aws-cn", "aws-us-gov"],
        _setting(
            "AWS partition, the second part of every ARN. Fixed by the first start.", '"aws", "aws-cn" or "aws-us-gov"'
        ),
    ] = "aws"

    allowed_ports: Annotated[
        tuple[Annotated[int, msgspec.Meta(ge=1, le=65535)], ...],
        _setting(
            "Ports that tunnels may lead to; [] = any. AWS offers 22 and 3389.",
            "a list of ports, e.g. [22, 3389]",
        ),
    ] = (22, 3389)
    max_tunnels_per_endpoint: Annotated[int, _count("Tunnels open at the same time through one endpoint.")] = 20
    max_tunnel_duration: Annotated[
        int, _count("Seconds that a tunnel may last: upper bound and default of maxTunnelDuration.", last=604_800)
    ] = 3600
    connect_timeout: Annotated[
        float,
        _setting(
            "Seconds to wait for a target's answer. The stock CLI gives up after 10.",
            "a number of seconds from 0.1 to 60",
            ge=0.1,
            le=60,
        ),
    ] = 5.0
    presign_window: Annotated[int, _count("Seconds that a presigned tunnel URL is good for, at most.", last=3600)] = 60
    clock_skew: Annotated[int, _count("Seconds by which a caller's clock may be wrong.", first=0, last=900)] = 300
    url_reuse: Annotated[
        Literal["same-source", "once", "any"],
        _setting("Who may use a presigned tunnel URL again within its time.", '"same-source", "once" or "any"'),
    ] = "same-source"
    unpreservable_client: Annotated[
        Literal["refuse", "endpoint-address"],
        _setting(
            "What happens, with client IP preservation on, to a client whose address cannot be preserved.",
            '"refuse" or "endpoint-address"',
        ),
    ] = "refuse"
    preserve_client_ipv6: Annotated[
        bool,
        _setting("Whether endpoints with IPv6 may preserve client addresses, which AWS refuses.", "true or false"),
    ] = False
    revocation: Annotated[
        Literal["aws", "immediate"],
        _setting(
            "Whether connections that a change no longer allows go on if tracked, as at AWS, or are cut at once.\n"
            "The tag wicketgate:revocation of a VPC overrides it there.",
            '"aws" or "immediate"',
        ),
    ] = "aws"
    rule_counters: Annotated[
        bool,
        _setting(
            "Whether it is counted what each security group rule lets through (wicketgate rules --counters).\n"
            "It costs a microsecond for each new connection, and netd some ten.",
            "true or false",
        ),
    ] = True
    guard_rules: Annotated[
        bool,
        _setting(
            "Whether netd puts its nftables table back half a second after somebody else has changed the rules of a\n"
            "network namespace of its. Without, experiments by hand stay until netd writes there itself.",
            "true or false",
        ),
    ] = True

    endpoints_per_region: Annotated[int, _count("EC2 Instance Connect Endpoints in all.", last=4095)] = 5
    endpoints_per_vpc: Annotated[int, _count("EC2 Instance Connect Endpoints in one VPC.", last=4095)] = 1
    endpoints_per_subnet: Annotated[int, _count("EC2 Instance Connect Endpoints in one subnet.", last=4095)] = 1
    groups_per_region: Annotated[int, _count("Security groups in all.")] = 2500
    rules_per_group: Annotated[
        int, _count("Rules of a security group, for each direction and each of IPv4 and IPv6.", last=1000)
    ] = 60
    groups_per_interface: Annotated[
        int, _count("Security groups on one network interface; on an endpoint's always 16.", last=16)
    ] = 5
    rules_per_interface: Annotated[
        int,
        _count(
            "Rules of all groups of an interface, per direction, and bound of rules_per_group x groups_per_interface.",
            last=16_000,
        ),
    ] = 1000
    vpcs_per_region: Annotated[int, _count("VPCs in all.")] = 5
    subnets_per_vpc: Annotated[int, _count("Subnets in one VPC.")] = 200
    interfaces_per_region: Annotated[int, _count("Network interfaces in all.")] = 5000
    peerings_per_vpc: Annotated[int, _count("Active peering connections of one VPC.", last=125)] = 50
    peering_requests_per_vpc: Annotated[int, _count("Requests of one VPC for peering that nobody accepted yet.")] = 25
    route_tables_per_vpc: Annotated[int, _count("Route tables of one VPC, its main one included.")] = 200
    routes_per_table: Annotated[
        int, _count("Routes in one route table, for each of IPv4 and IPv6, beside the local ones.", last=1000)
    ] = 500
    prefix_lists_per_region: Annotated[int, _count("Managed prefix lists in all.")] = 100
    insights_paths_per_region: Annotated[int, _count("Paths of Reachability Analyzer in all.")] = 1000
    insights_analyses_per_region: Annotated[int, _count("Analyses of Reachability Analyzer in all.")] = 10_000

    @property
    def identity(self) -> Identity:
        """Account, region and partition, as the store keeps them."""
        return self._part(Identity)

    @property
    def settings(self) -> Settings:
        """The limits that the World carries."""
        return self._part(Settings)

    @property
    def quotas(self) -> Quotas:
        """The limits that the VPC's actions check."""
        return self._part(Quotas)

    @property
    def endpoint_quotas(self) -> EndpointQuotas:
        """The limits on EC2 Instance Connect Endpoints."""
        return self._part(EndpointQuotas)

    @property
    def worker_count(self) -> int:
        """Gateway processes to start."""
        return self.workers or os.cpu_count() or 1

    def _part(self, cls: type[_T]) -> _T:
        return cls(**{name: getattr(self, name) for name in cls.__struct_fields__})


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to know about one setting: for help texts and documentation."""

    name: str
    description: str
    expected: str
    """What a right value is, in words."""
    default: Any
    type: Any

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return PREFIX + self.name.upper()

    @property
    def flag(self) -> str:
        """Its flag on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def is_list(self) -> bool:
        """Whether variable and flag take items with commas between."""
        return isinstance(self.default, tuple)


def _settings() -> dict[str, Setting]:
    found = {}
    for field in msgspec.structs.fields(Configuration):
        meta: msgspec.Meta = field.type.__metadata__[0]
        found[field.name] = Setting(
            name=field.name,
            description=meta.description or "",
            expected=(meta.extra or {})["expected"],
            default=field.default,
            type=field.type,
        )
    return found


SETTINGS: Final[Mapping[str, Setting]] = _settings()
"""Name -> setting, in the order of the documentation."""
