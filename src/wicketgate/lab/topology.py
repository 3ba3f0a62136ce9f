"""Read a topology file (YAML) into a World. Every mistake is named with line, column and what was expected."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml

from wicketgate.model import (
    AccessKey,
    Endpoint,
    Instance,
    NetworkInterface,
    Policy,
    SecurityGroup,
    SecurityGroupRule,
    Settings,
    Subnet,
    User,
    Vpc,
    World,
    WorldError,
)

_T = TypeVar("_T")
_NAME = re.compile(r"^[a-z][a-z0-9-]{0,14}$")
_RULE = re.compile(
    r"^(?P<protocol>tcp|udp|icmp|icmpv6|all|\d{1,3})(?: (?P<first>\d{1,5})(?:-(?P<last>\d{1,5}))?)?"
    r" (?P<side>from|to) (?:group (?P<group>[a-z0-9-]+)|(?P<cidr>[0-9a-f.:]+/\d{1,3}))$"
)
RULE_FORM = "'PROTOCOL [PORT[-PORT]] from|to RANGE' or '... group NAME', e.g. 'tcp 22 from 10.0.0.0/16'"


class TopologyError(Exception):
    """The topology file is wrong; `str()` is one line: file, line, column, what was found and what was expected."""


@dataclass(frozen=True)
class Topology:
    """What the file says: the World, and the network around it."""

    world: World
    gateway_address: str
    clients: dict[str, str]
    """Client name -> its public IPv4 address."""


def resource_id(kind: str, *names: str) -> str:
    """An id of AWS's shape, the same for the same names in every run."""
    return f"{kind}-{hashlib.sha256('/'.join((kind, *names)).encode()).hexdigest()[:17]}"


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


@dataclass
class _Reader:
    """Collects resources while walking the file once."""

    file: str
    region: str = "us-east-1"
    account: str = "123456789012"
    domain: str = "wicketgate.test"
    vpcs: list[Vpc] = field(default_factory=list)
    subnets: list[Subnet] = field(default_factory=list)
    groups: list[SecurityGroup] = field(default_factory=list)
    interfaces: list[NetworkInterface] = field(default_factory=list)
    instances: list[Instance] = field(default_factory=list)
    endpoints: list[Endpoint] = field(default_factory=list)
    endpoint_names: dict[str, str] = field(default_factory=dict)

    def topology(self, at: _At) -> Topology:
        top = at.mapping({"gateway", "clients", "vpcs", "users"}, {"region", "account", "domain", "settings"})
        for key in ("region", "account", "domain"):
            if key in top:
                setattr(self, key, top[key].text())
        gateway = top["gateway"].parsed(_ipv4, "the gateway's IPv4 address")
        clients = {name: one.parsed(_ipv4, "a client's IPv4 address") for name, one in top["clients"].entries()}
        for name, one in top["clients"].entries():
            _check_name(name, one)
        for name, one in top["vpcs"].entries():
            _check_name(name, one)
            self._vpc(name, one)
        users, keys = self._users(top["users"])
        world = World(
            revision=1,
            account_id=self.account,
            region=self.region,
            settings=self._settings(top.get("settings")),
            vpcs=tuple(self.vpcs),
            subnets=tuple(self.subnets),
            groups=tuple(self.groups),
            interfaces=tuple(self.interfaces),
            instances=tuple(self.instances),
            endpoints=tuple(self.endpoints),
            users=users,
            access_keys=keys,
        )
        try:
            world.check()
        except WorldError as error:
            raise at.wrong(f"a consistent network: {error}") from error
        return Topology(world, gateway, clients)

    def _settings(self, at: _At | None) -> Settings:
        import msgspec

        if at is None:
            return Settings()
        try:
            return msgspec.convert(at.data(), Settings)
        except msgspec.ValidationError as error:
            raise at.wrong(f"valid settings: {error}") from error

    def _vpc(self, name: str, at: _At) -> None:
        entries = at.mapping({"cidr", "subnets", "groups", "instances", "endpoint"})
        vpc = Vpc(id=resource_id("vpc", name), name=name, cidr_block=entries["cidr"].parsed(_cidr, "an IPv4 range"))
        self.vpcs.append(vpc)
        for subnet, one in entries["subnets"].entries():
            cidr = one.parsed(_cidr, "an IPv4 range")
            if not ipaddress.IPv4Network(cidr).subnet_of(vpc.network):
                raise one.wrong(f"a range inside {vpc.cidr_block}")
            self.subnets.append(Subnet(id=resource_id("subnet", name, subnet), vpc_id=vpc.id, cidr_block=cidr))
        names = [group for group, _ in entries["groups"].entries()]
        for group, one in entries["groups"].entries():
            self.groups.append(_group(name, vpc.id, group, names, one))
        for instance, one in entries["instances"].entries():
            _check_name(instance, one)
            interface = self._interface(name, instance, one, one.mapping({"subnet", "address", "groups"}))
            self.instances.append(Instance(id=resource_id("i", name, instance), name=instance, interface_id=interface))
        self._endpoint(name, entries["endpoint"])

    def _endpoint(self, vpc: str, at: _At) -> None:
        entries = at.mapping({"name", "subnet", "address", "groups", "preserve-client-ip"}, {"tags"})
        name = entries["name"].text()
        _check_name(name, entries["name"])
        endpoint_id = resource_id("eice", vpc, name)
        interface = self._interface(vpc, name, at, entries, endpoint=True)
        label = hashlib.sha256(endpoint_id.encode()).hexdigest()[:8]
        host = f"{endpoint_id}.{label}.ec2-instance-connect-endpoint.{self.region}.{self.domain}"
        self.endpoint_names[name] = endpoint_id
        self.endpoints.append(
            Endpoint(
                id=endpoint_id,
                subnet_id=resource_id("subnet", vpc, entries["subnet"].text()),
                interface_id=interface,
                dns_name=host,
                preserve_client_ip=entries["preserve-client-ip"].parsed(_boolean, "true or false"),
                tags={
                    "Name": name,
                    **({k: v.text() for k, v in entries["tags"].entries()} if "tags" in entries else {}),
                },
            )
        )

    def _interface(self, vpc: str, name: str, at: _At, entries: dict[str, _At], *, endpoint: bool = False) -> str:
        address = entries["address"].parsed(_ipv4, "an IPv4 address")
        subnet_id = resource_id("subnet", vpc, entries["subnet"].text())
        subnet = next((one for one in self.subnets if one.id == subnet_id), None)
        if subnet is None:
            raise entries["subnet"].wrong(f"a subnet of VPC {vpc}")
        if ipaddress.IPv4Address(address) not in subnet.network:
            raise entries["address"].wrong(f"an address inside {subnet.cidr_block}")
        taken = {eni.private_ip_address for eni in self.interfaces if eni.subnet_id == subnet_id}
        if address in taken | {subnet.router_address}:
            raise entries["address"].wrong("an address that nothing else has")
        groups = []
        for one in entries["groups"].items("a list of group names"):
            group_id = resource_id("sg", vpc, one.text())
            if all(group.id != group_id for group in self.groups):
                raise one.wrong(f"a group of VPC {vpc}")
            groups.append(group_id)
        if not groups:
            raise entries["groups"].wrong("at least one group name")
        if any(eni.link == name and eni.subnet_id == subnet_id for eni in self.interfaces):
            raise at.wrong(f"a name that is not taken: {name} is")
        interface = NetworkInterface(
            id=resource_id("eni", vpc, name),
            subnet_id=subnet_id,
            private_ip_address=address,
            group_ids=tuple(groups),
            link=name,
            interface_type="ec2_instance_connect_endpoint" if endpoint else "interface",
        )
        self.interfaces.append(interface)
        return interface.id

    def _users(self, at: _At) -> tuple[tuple[User, ...], tuple[AccessKey, ...]]:
        users, keys = [], []
        for name, one in at.entries():
            entries = one.mapping({"access-key-id", "secret-access-key", "policies"})
            policies = tuple(
                Policy(name=policy, document=self._document(document))
                for policy, document in entries["policies"].entries()
            )
            users.append(
                User(name=name, id="AIDA" + hashlib.sha256(name.encode()).hexdigest()[:17].upper(), policies=policies)
            )
            key_id, secret = entries["access-key-id"].text(), entries["secret-access-key"].text()
            keys.append(AccessKey(id=key_id, secret=secret, user_name=name))
        return tuple(users), tuple(keys)

    def _document(self, at: _At) -> dict[str, Any]:
        """A policy document; `<endpoint NAME>` stands for that endpoint's ARN."""
        data = at.data()
        if not isinstance(data, dict):
            raise at.wrong("an IAM policy document")

        def arn(match: re.Match[str]) -> str:
            if match[1] not in self.endpoint_names:
                raise at.wrong(f"the name of an endpoint in <endpoint ...>, one of {', '.join(self.endpoint_names)}")
            world = World(account_id=self.account, region=self.region)
            return world.endpoint_arn(self.endpoint_names[match[1]])

        def filled(value: Any) -> Any:
            if isinstance(value, str):
                return re.sub(r"<endpoint ([a-z0-9-]+)>", arn, value)
            if isinstance(value, list):
                return [filled(one) for one in value]
            return {k: filled(v) for k, v in value.items()} if isinstance(value, dict) else value

        return {str(key): filled(value) for key, value in data.items()}


def _group(vpc: str, vpc_id: str, name: str, names: list[str], at: _At) -> SecurityGroup:
    entries = at.mapping(set(), {"inbound", "outbound"})
    rules: list[SecurityGroupRule] = []
    for side in ("inbound", "outbound"):
        for one in entries[side].items("a list of rules") if side in entries else []:
            try:
                rules.append(rule(vpc, name, one.text(RULE_FORM), egress=side == "outbound", groups=names))
            except ValueError as error:
                raise one.wrong(str(error)) from error
    return SecurityGroup(id=resource_id("sg", vpc, name), vpc_id=vpc_id, name=name, rules=tuple(rules))


def rule(vpc: str, group: str, text: str, *, egress: bool, groups: list[str] | None = None) -> SecurityGroupRule:
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
    cidr = str(ipaddress.ip_network(match["cidr"], strict=False)) if match["cidr"] else None
    return SecurityGroupRule(
        id=resource_id("sgr", vpc, group, "out" if egress else "in", text),
        is_egress=egress,
        ip_protocol=protocol,
        from_port=first,
        to_port=last if protocol in ("tcp", "udp") else -1 if match["last"] is None else last,
        cidr_ipv4=cidr if cidr and ":" not in cidr else None,
        cidr_ipv6=cidr if cidr and ":" in cidr else None,
        referenced_group_id=resource_id("sg", vpc, match["group"]) if match["group"] else None,
    )


def _check_name(name: str, at: _At) -> None:
    if not _NAME.match(name) or name in ("lo", "void", "void-peer"):
        raise at.wrong_key(name, "a name of 1-15 lower-case letters, digits and hyphens that starts with a letter")


def _ipv4(text: str) -> str:
    return str(ipaddress.IPv4Address(text))


def _cidr(text: str) -> str:
    return str(ipaddress.IPv4Network(text))


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"
