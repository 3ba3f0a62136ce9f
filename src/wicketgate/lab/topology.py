"""Read a topology file (YAML): what the lab's world is to be. Every mistake is named with line, column and what was
expected. The world itself is made from it by API calls (`build`)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import yaml

from wicketgate.configuration import Configuration

_T = TypeVar("_T")
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_NAME = re.compile(r"^[a-z][a-z0-9-]{0,14}$")
_RULE = re.compile(
    r"^(?P<protocol>tcp|udp|icmp|icmpv6|all|\d{1,3})(?: (?P<first>\d{1,5})(?:-(?P<last>\d{1,5}))?)?"
    r" (?P<side>from|to) (?:group (?P<group>[a-z0-9-]+)|(?P<cidr>[0-9a-f.:]+/\d{1,3}))$"
)
RULE_FORM = "'PROTOCOL [PORT[-PORT]] from|to RANGE' or '... group NAME', e.g. 'tcp 22 from 10.0.0.0/16'"
RESERVED: Final = 4
"""Addresses at the start of a subnet that no interface can have; nor can one have the last (VPC User Guide)."""
ENDPOINT_NAME = re.compile(r"<endpoint ([a-z0-9-]+)>")
"""In a policy document: the ARN of the endpoint with this name."""


class TopologyError(Exception):
    """The topology file is wrong; `str()` is one line: file, line, column, what was found and what was expected."""


# -- what a file says --------------------------------------------------------------------------------------------------


class _Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what a file says; goes to the builder as JSON."""


class RulePlan(_Plan, frozen=True, kw_only=True):
    """A rule of a group, as the EC2 API has it, but for the name of a group in place of its id."""

    ip_protocol: str
    from_port: int
    to_port: int
    cidr: str = ""
    group: str = ""


class GroupPlan(_Plan, frozen=True, kw_only=True):
    """A security group with all its rules."""

    name: str
    inbound: tuple[RulePlan, ...] = ()
    outbound: tuple[RulePlan, ...] = ()


class RangePlan(_Plan, frozen=True, kw_only=True):
    """What a VPC or subnet has of each family; empty for none."""

    ipv4: str = ""
    ipv6: str = ""


class InstancePlan(_Plan, frozen=True, kw_only=True):
    """An instance. It has an address of each family that its subnet has."""

    name: str
    subnet: str
    address: str = ""
    ipv6_address: str = ""
    groups: tuple[str, ...]


class EndpointPlan(_Plan, frozen=True, kw_only=True):
    """An EC2 Instance Connect Endpoint. The API gives it the first free address of its subnet."""

    name: str
    subnet: str
    groups: tuple[str, ...]
    preserve_client_ip: bool
    tags: dict[str, str] = {}


class VpcPlan(_Plan, frozen=True, kw_only=True):
    """A VPC and all that is in it."""

    name: str
    ranges: RangePlan
    subnets: dict[str, RangePlan]
    """By name."""
    groups: tuple[GroupPlan, ...]
    instances: tuple[InstancePlan, ...]
    endpoint: EndpointPlan


class UserPlan(_Plan, frozen=True, kw_only=True):
    """An IAM user with one access key, which is made with it."""

    name: str
    policies: dict[str, dict[str, Any]]
    """Name -> document, in which `<endpoint NAME>` stands for an ARN."""


class Topology(_Plan, frozen=True, kw_only=True):
    """What the file says: the world to be made, and the network around it."""

    configuration: Configuration
    """Region, account, domain and what the file's `settings` say."""
    vpcs: tuple[VpcPlan, ...]
    users: tuple[UserPlan, ...]
    gateway_address: str
    clients: dict[str, str]
    """Client name -> its public IPv4 address."""

    def vpc(self, name: str) -> VpcPlan | None:
        """The VPC with this name."""
        return next((one for one in self.vpcs if one.name == name), None)

    @property
    def api_host(self) -> str:
        """The DNS name of the AWS APIs."""
        return f"api.{self.configuration.domain}"


# -- reading -----------------------------------------------------------------------------------------------------------


def load(path: Path | None = None) -> Topology:
    """Read a topology file, or the one that ships with the package. Raises TopologyError."""
    if path is None:
        text, name = (resources.files("wicketgate.lab") / "topology.yaml").read_text(), "topology.yaml"
    else:
        try:
            text, name = path.read_text(), str(path)
        except (OSError, UnicodeDecodeError) as error:
            raise TopologyError(f"{path}: cannot be read: {error}") from error
    return parse(text, name)


def parse(text: str, name: str) -> Topology:
    """Read the text of a topology file. Raises TopologyError."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{mark.line + 1}:{mark.column + 1}" if mark else "1:1"
        raise TopologyError(f"{name}:{where}: not YAML: {error.problem or error.context}") from error
    if node is None:
        raise TopologyError(f"{name}:1:1: the file is empty; expected a mapping with clients, vpcs and users")
    return _Reader(name).topology(_At(node, name))


@dataclass(frozen=True)
class _At:
    """A value of the file with its place."""

    node: yaml.Node
    file: str
    key: yaml.Node | None = None
    """The key that leads to it in a mapping."""

    def wrong(self, expected: str) -> TopologyError:
        mark = self.node.start_mark
        found = (
            repr(self.node.value)
            if isinstance(self.node, yaml.ScalarNode)
            else "a mapping"
            if isinstance(self.node, yaml.MappingNode)
            else "a list"
        )
        return TopologyError(f"{self.file}:{mark.line + 1}:{mark.column + 1}: found {found}, expected {expected}")

    def mapping(self, required: set[str], optional: set[str] = frozenset()) -> dict[str, _At]:  # type: ignore[assignment]
        """The entries of a mapping with these keys and no others."""
        entries = dict(self.entries(f"a mapping with {', '.join(sorted(required | optional))}"))
        for key, value in entries.items():
            if key not in required | optional:
                raise value.wrong_key(key, f"one of {', '.join(sorted(required | optional))}")
        missing = sorted(required - set(entries))
        if missing:
            raise self.wrong(f"a mapping that also has {', '.join(missing)}")
        return entries

    def wrong_key(self, key: str, expected: str) -> TopologyError:
        mark = (self.key or self.node).start_mark
        return TopologyError(f"{self.file}:{mark.line + 1}:{mark.column + 1}: found key {key!r}, expected {expected}")

    def entries(self, expected: str = "a mapping of names") -> Iterator[tuple[str, _At]]:
        if not isinstance(self.node, yaml.MappingNode):
            raise self.wrong(expected)
        seen: set[str] = set()
        for key, value in self.node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value in seen:
                raise _At(key, self.file).wrong("a name that is not there yet")
            seen.add(key.value)
            yield key.value, _At(value, self.file, key)

    def items(self, expected: str) -> list[_At]:
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.wrong(expected)
        return [_At(item, self.file) for item in self.node.value]

    def text(self, expected: str = "a text") -> str:
        if not isinstance(self.node, yaml.ScalarNode):
            raise self.wrong(expected)
        return str(self.node.value)

    def parsed(self, parse: Callable[[str], _T], expected: str) -> _T:
        """The value as `parse` reads it; its ValueError becomes what was expected."""
        try:
            return parse(self.text(expected))
        except ValueError as error:
            raise self.wrong(expected) from error

    def data(self) -> Any:
        """The value as plain Python data."""
        loader = yaml.SafeLoader("")
        return loader.construct_document(self.node)


class _Reader:
    """Collects what there is while walking the file once."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.vpcs: list[VpcPlan] = []

    def topology(self, at: _At) -> Topology:
        top = at.mapping({"gateway", "clients", "vpcs", "users"}, {"region", "account", "domain", "settings"})
        gateway = top["gateway"].parsed(_ipv4, "the gateway's IPv4 address")
        clients = {name: one.parsed(_ipv4, "a client's IPv4 address") for name, one in top["clients"].entries()}
        for name, one in top["clients"].entries():
            _check_name(name, one)
        if not clients:
            raise top["clients"].wrong("at least one client")
        configuration = _configuration(at, top)
        for name, one in top["vpcs"].entries():
            _check_name(name, one)
            self.vpcs.append(self._vpc(name, one))
        return Topology(
            configuration=configuration,
            vpcs=tuple(self.vpcs),
            users=tuple(self._user(name, one) for name, one in top["users"].entries()),
            gateway_address=gateway,
            clients=clients,
        )

    def _vpc(self, name: str, at: _At) -> VpcPlan:
        entries = at.mapping({"cidr", "subnets", "groups", "instances", "endpoint"})
        ranges = entries["cidr"].parsed(_ranges, "an IPv4 range, and an IPv6 range after a space if it has one")
        if not ranges.ipv4:
            raise entries["cidr"].wrong("an IPv4 range first")
        subnets = {}
        for subnet, one in entries["subnets"].entries():
            subnets[subnet] = one.parsed(_ranges, "an IPv4 range, an IPv6 range, or both with a space between")
            _check_inside(subnets[subnet], ranges, one)
        names = [group for group, _ in entries["groups"].entries()]
        groups = [_group(group, names, one) for group, one in entries["groups"].entries()]
        instances: list[InstancePlan] = []
        for instance, one in entries["instances"].entries():
            _check_name(instance, one)
            within = one.mapping({"subnet", "address", "groups"})
            subnet = _one_of(within["subnet"], subnets, f"a subnet of VPC {name}")
            taken = {address for other in instances for address in (other.address, other.ipv6_address)}
            address, ipv6 = _addresses(within["address"], subnets[subnet], taken)
            members = _members(within["groups"], names, name)
            instances.append(
                InstancePlan(name=instance, subnet=subnet, address=address, ipv6_address=ipv6, groups=members)
            )
        return VpcPlan(
            name=name,
            ranges=ranges,
            subnets=subnets,
            groups=tuple(groups),
            instances=tuple(instances),
            endpoint=self._endpoint(name, subnets, names, entries["endpoint"]),
        )

    def _endpoint(self, vpc: str, subnets: dict[str, RangePlan], groups: list[str], at: _At) -> EndpointPlan:
        entries = at.mapping({"name", "subnet", "groups", "preserve-client-ip"}, {"tags"})
        name = entries["name"].text()
        _check_name(name, entries["name"])
        if any(one.endpoint.name == name for one in self.vpcs):
            raise entries["name"].wrong("a name that is not taken")
        return EndpointPlan(
            name=name,
            subnet=_one_of(entries["subnet"], subnets, f"a subnet of VPC {vpc}"),
            groups=_members(entries["groups"], groups, vpc),
            preserve_client_ip=entries["preserve-client-ip"].parsed(_boolean, "true or false"),
            tags={key: value.text() for key, value in entries["tags"].entries()} if "tags" in entries else {},
        )

    def _user(self, name: str, at: _At) -> UserPlan:
        entries = at.mapping({"policies"})
        policies = {policy: self._document(document) for policy, document in entries["policies"].entries()}
        return UserPlan(name=name, policies=policies)

    def _document(self, at: _At) -> dict[str, Any]:
        """A policy document; every `<endpoint NAME>` in it is one."""
        data = at.data()
        if not isinstance(data, dict):
            raise at.wrong("an IAM policy document")
        names = [one.endpoint.name for one in self.vpcs]
        for name in ENDPOINT_NAME.findall(str(data)):
            if name not in names:
                raise at.wrong(f"the name of an endpoint in <endpoint ...>, one of {', '.join(names)}")
        return {str(key): value for key, value in data.items()}


def _configuration(at: _At, top: dict[str, _At]) -> Configuration:
    """The settings of the lab's servers: the file's, and room for whatever is tried beyond AWS's own quotas."""
    quotas = {"vpcs_per_region": 100, "endpoints_per_region": 100, "endpoints_per_vpc": 10, "endpoints_per_subnet": 10}
    given: dict[str, Any] = {"domain": "wicketgate.test", "workers": 1, **quotas}
    for key, setting in (("region", "region"), ("account", "account_id"), ("domain", "domain")):
        if key in top:
            given[setting] = top[key].text()
    settings = top["settings"].data() if "settings" in top else {}
    try:
        return msgspec.convert({**given, **settings}, Configuration)
    except (msgspec.ValidationError, TypeError) as error:
        raise top.get("settings", at).wrong(f"valid settings: {error}") from error


def _one_of(at: _At, names: Container[str], expected: str) -> str:
    name = at.text()
    if name not in names:
        raise at.wrong(expected)
    return name


def _check_inside(part: RangePlan, whole: RangePlan, at: _At) -> None:
    if part.ipv4 and not ipaddress.IPv4Network(part.ipv4).subnet_of(ipaddress.IPv4Network(whole.ipv4)):
        raise at.wrong(f"a range inside {whole.ipv4}")
    if part.ipv6 and not whole.ipv6:
        raise at.wrong("an IPv4 range: the VPC has no IPv6 range")
    if part.ipv6 and not ipaddress.IPv6Network(part.ipv6).subnet_of(ipaddress.IPv6Network(whole.ipv6)):
        raise at.wrong(f"a range inside {whole.ipv6}")


def _addresses(at: _At, subnet: RangePlan, taken: set[str]) -> tuple[str, str]:
    """The IPv4 and the IPv6 address of an instance: one for each range that its subnet has, with a space between."""
    wanted = [cidr for cidr in (subnet.ipv4, subnet.ipv6) if cidr]
    found = at.text().split()
    if len(found) != len(wanted):
        raise at.wrong(f"an address inside {' and one inside '.join(wanted)}")
    for text, cidr in zip(found, wanted, strict=True):
        _check_address(at, text, ipaddress.ip_network(cidr), taken)
    six = str(ipaddress.IPv6Address(found[-1])) if subnet.ipv6 else ""
    return found[0] if subnet.ipv4 else "", six


def _check_address(at: _At, text: str, network: _Network, taken: set[str]) -> None:
    try:
        address = ipaddress.IPv4Address(text) if network.version == 4 else ipaddress.IPv6Address(text)
    except ValueError as error:
        raise at.wrong(f"an IPv{network.version} address") from error
    if address not in network:
        raise at.wrong(f"an address inside {network}")
    offset = int(address) - int(network.network_address)
    if not RESERVED <= offset < network.num_addresses - 1:
        raise at.wrong(f"an address that is not reserved, from {network[RESERVED]} to {network[-2]}")
    if str(address) in taken:
        raise at.wrong("an address that nothing else has")


def _members(at: _At, names: list[str], vpc: str) -> tuple[str, ...]:
    groups = []
    for one in at.items("a list of group names"):
        if one.text() not in names:
            raise one.wrong(f"a group of VPC {vpc}")
        groups.append(one.text())
    if not groups:
        raise at.wrong("at least one group name")
    return tuple(groups)


def _group(name: str, names: list[str], at: _At) -> GroupPlan:
    entries = at.mapping(set(), {"inbound", "outbound"})
    rules: dict[str, list[RulePlan]] = {"inbound": [], "outbound": []}
    for side, found in rules.items():
        for one in entries[side].items("a list of rules") if side in entries else []:
            try:
                found.append(rule(one.text(RULE_FORM), egress=side == "outbound", groups=names))
            except ValueError as error:
                raise one.wrong(str(error)) from error
    return GroupPlan(name=name, inbound=tuple(rules["inbound"]), outbound=tuple(rules["outbound"]))


def rule(text: str, *, egress: bool, groups: list[str] | None = None) -> RulePlan:
    """One rule from its text. Raises ValueError that says what was expected."""
    match = _RULE.match(text)
    if match is None or (match["side"] == "to") is not egress:
        raise ValueError(f"{RULE_FORM} ({'outbound rules say to' if egress else 'inbound rules say from'})")
    if match["group"] is not None and groups is not None and match["group"] not in groups:
        raise ValueError(f"a group of this VPC, one of {', '.join(groups)}")
    protocol = "-1" if match["protocol"] == "all" else match["protocol"]
    if protocol in ("tcp", "udp") and match["first"] is None:
        raise ValueError(f"{RULE_FORM}: {protocol} needs a port")
    first = -1 if match["first"] is None else int(match["first"])
    last = first if match["last"] is None else int(match["last"])
    if first > last or last > 65535:
        raise ValueError("a port range FIRST-LAST within 0-65535")
    return RulePlan(
        ip_protocol=protocol,
        from_port=first,
        to_port=last if protocol in ("tcp", "udp") else -1 if match["last"] is None else last,
        cidr=str(ipaddress.ip_network(match["cidr"], strict=False)) if match["cidr"] else "",
        group=match["group"] or "",
    )


def _check_name(name: str, at: _At) -> None:
    if not _NAME.match(name) or name in ("lo", "internet", "gateway"):
        raise at.wrong_key(name, "a name of 1-15 lower-case letters, digits and hyphens that starts with a letter")


def _ipv4(text: str) -> str:
    return str(ipaddress.IPv4Address(text))


def _ranges(text: str) -> RangePlan:
    four, _, six = text.rpartition(" ") if ":" in text else (text, "", "")
    return RangePlan(
        ipv4=str(ipaddress.IPv4Network(four)) if four or not six else "",
        ipv6=str(ipaddress.IPv6Network(six)) if six else "",
    )


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"
