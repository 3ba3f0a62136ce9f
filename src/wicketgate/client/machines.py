"""Machines that exist, by the EC2 API: which are registered, what a list of rows would change, and changing it.

Registering is RunInstances with the built-in image `external`; forgetting is TerminateInstances.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from wicketgate.client.api import ApiRefused, Ec2, Element
from wicketgate.client.errors import Refused
from wicketgate.client.inventory import Row, Wrong

EXTERNAL_IMAGE: Final = "ami-00000000000000002"
_PAGE: Final = "1000"
_AT_ONCE: Final = 100
"""Instances of one TerminateInstances."""
_since = re.compile(r".*\((.*)\)").fullmatch


class Machine(NamedTuple):
    """A registered machine."""

    id: str
    name: str
    addresses: tuple[str, ...]
    subnet: str
    vpc: str
    state: str
    """`running`, or `stopped` when it did not answer."""
    since: str
    """Since when, as the API words it; empty when nobody looked."""
    note: str
    """The words of its StateReason."""
    groups: tuple[str, ...]
    """Ids."""
    tags: Mapping[str, str]

    @property
    def address(self) -> str:
        """Its first address."""
        return self.addresses[0] if self.addresses else ""


def machines(ec2: Ec2) -> list[Machine]:
    """The registered machines that have not ended, in the order of their addresses."""
    parameters = {"Filter.1.Name": "image-id", "Filter.1.Value.1": EXTERNAL_IMAGE, "MaxResults": _PAGE}
    found = [
        _machine(item)
        for page in ec2.pages("DescribeInstances", parameters)
        for item in page.iterfind("{*}reservationSet/{*}item/{*}instancesSet/{*}item")
        if item.findtext("{*}instanceState/{*}name") not in ("terminated", "shutting-down")
    ]
    return sorted(found, key=lambda one: (one.vpc, _number(one.address)))


def _number(address: str) -> tuple[int, int]:
    parsed = ipaddress.ip_address(address or "0.0.0.0")
    return parsed.version, int(parsed)


def _machine(item: Element) -> Machine:
    tags = {_text(one, "key"): _text(one, "value") for one in item.iterfind("{*}tagSet/{*}item")}
    since = _since(_text(item, "reason"))
    name = tags.pop("Name", "")
    return Machine(
        id=_text(item, "instanceId"),
        name=name,
        addresses=tuple(_addresses(item.iterfind("{*}networkInterfaceSet/{*}item"))),
        subnet=_text(item, "subnetId"),
        vpc=_text(item, "vpcId"),
        state=item.findtext("{*}instanceState/{*}name") or "",
        since=since[1] if since else "",
        note=item.findtext("{*}stateReason/{*}message") or "",
        groups=tuple(sorted(_text(one, "groupId") for one in item.iterfind("{*}groupSet/{*}item"))),
        tags=tags,
    )


def _addresses(interfaces: Iterable[Element]) -> Iterator[str]:
    """IPv4 addresses of each interface before its IPv6 ones, the first interface first."""
    for one in interfaces:
        yield from (_text(each, "privateIpAddress") for each in one.iterfind("{*}privateIpAddressesSet/{*}item"))
        yield from (_text(each, "ipv6Address") for each in one.iterfind("{*}ipv6AddressesSet/{*}item"))


def _text(element: Element, name: str) -> str:
    return element.findtext(f"{{*}}{name}") or ""


# -- what rows would change --------------------------------------------------------------------------------------------


class Wish(NamedTuple):
    """A row with everything found that it names."""

    row: Row
    subnet: str
    groups: tuple[str, ...]
    """Ids; () = the default group."""


@dataclass
class Plan:
    """What rows come to."""

    new: list[Wish] = field(default_factory=list)
    same: list[tuple[Row, Machine]] = field(default_factory=list)
    """Registered already, as the row says."""
    other: list[tuple[Row, Machine, str]] = field(default_factory=list)
    """Registered, but not as the row says; with the difference in words."""
    wrong: list[Wrong] = field(default_factory=list)


class _Subnet(NamedTuple):
    id: str
    vpc: str
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]


class _Known(NamedTuple):
    """What the deployment has of what rows may name."""

    subnets: dict[str, _Subnet]
    groups: dict[tuple[str, str], str]
    """(VPC, id or name) -> id."""
    machines: dict[tuple[str, str], Machine]
    """(VPC, address) -> machine."""


def plan(ec2: Ec2, rows: Sequence[Row]) -> Plan:
    """What has to be made for these rows. Nothing is made: every new machine is tried without effect (DryRun).

    Raises TunnelFailed without an answer, ApiRefused where what is there may not be looked at.
    """
    known, found = _known(ec2), Plan()
    first: dict[tuple[str, str], Row] = {}
    for row in rows:
        try:
            wish = _wish(known, row)
            place = known.subnets[wish.subnet].vpc, row.address
            if (before := first.setdefault(place, row)) is not row:
                raise _Unfit(f"{row.address} stands in line {before.line} already")
            machine = known.machines.get(place)
            if machine is None:
                _try(ec2, wish)
                found.new.append(wish)
            elif difference := _difference(wish, machine):
                found.other.append((row, machine, difference))
            else:
                found.same.append((row, machine))
        except _Unfit as unfit:
            found.wrong.append(Wrong(row.line, str(unfit)))
    return found


class _Unfit(Exception):  # never leaves this module
    """Why a row cannot be used."""


def _known(ec2: Ec2) -> _Known:
    subnets = [
        _subnet(item) for page in ec2.pages("DescribeSubnets", {}) for item in page.iterfind("{*}subnetSet/{*}item")
    ]
    groups = {}
    for page in ec2.pages("DescribeSecurityGroups", {}):
        for item in page.iterfind("{*}securityGroupInfo/{*}item"):
            for name in (_text(item, "groupName"), _text(item, "groupId")):
                groups[_text(item, "vpcId"), name] = _text(item, "groupId")
    there = {(one.vpc, address): one for one in machines(ec2) for address in one.addresses}
    return _Known({one.id: one for one in subnets}, groups, there)


def _subnet(item: Element) -> _Subnet:
    blocks = [_text(item, "cidrBlock")]
    blocks += [_text(one, "ipv6CidrBlock") for one in item.iterfind("{*}ipv6CidrBlockAssociationSet/{*}item")]
    networks = tuple(ipaddress.ip_network(block) for block in blocks if block)
    return _Subnet(_text(item, "subnetId"), _text(item, "vpcId"), networks)


def _wish(known: _Known, row: Row) -> Wish:
    """The subnet and groups that a row means. Raises _Unfit."""
    address = ipaddress.ip_address(row.address)
    if row.subnet and row.subnet not in known.subnets:
        raise _Unfit(f"there is no subnet {row.subnet}")
    holding = [one for one in known.subnets.values() if any(address in network for network in one.networks)]
    if row.subnet:
        holding = [one for one in holding if one.id == row.subnet]
        if not holding:
            raise _Unfit(f"{row.address} is not in the range of {row.subnet}")
    if not holding:
        raise _Unfit(f"{row.address} is in the range of no subnet")
    if len(holding) > 1:
        raise _Unfit(f"{row.address} is in the ranges of {', '.join(one.id for one in holding)}: name one")
    missing = [name for name in row.groups if (holding[0].vpc, name) not in known.groups]
    if missing:
        raise _Unfit(f"there is no security group {', '.join(missing)} in {holding[0].vpc}")
    return Wish(row, holding[0].id, tuple(dict.fromkeys(known.groups[holding[0].vpc, name] for name in row.groups)))


def _difference(wish: Wish, machine: Machine) -> str:
    """In which respects a machine is not as a row says; what the row does not say is as it likes."""
    row, found = wish.row, []
    if row.subnet and machine.subnet != wish.subnet:
        found.append(f"subnet {machine.subnet}, not {wish.subnet}")
    if row.name and machine.name != row.name:
        found.append(f"name {machine.name or '(none)'}, not {row.name}")
    if wish.groups and set(machine.groups) != set(wish.groups):
        found.append(f"groups {' '.join(machine.groups)}, not {' '.join(sorted(wish.groups))}")
    for key, value in row.tags.items():
        if machine.tags.get(key) != value:
            now = f"{key}={machine.tags[key]}" if key in machine.tags else "(none)"
            found.append(f"tag {now}, not {key}={value}")
    return "; ".join(found)


# -- changing it -------------------------------------------------------------------------------------------------------


def _parameters(wish: Wish) -> dict[str, str]:
    name = "Ipv6Address.1.Ipv6Address" if ":" in wish.row.address else "PrivateIpAddress"
    parameters = {
        "ImageId": EXTERNAL_IMAGE,
        "MinCount": "1",
        "MaxCount": "1",
        "SubnetId": wish.subnet,
        name: wish.row.address,
    }
    parameters |= {f"SecurityGroupId.{place}": group for place, group in enumerate(wish.groups, 1)}
    tags = ({"Name": wish.row.name} if wish.row.name else {}) | dict(wish.row.tags)
    for place, (key, value) in enumerate(tags.items(), 1):
        parameters["TagSpecification.1.ResourceType"] = "instance"
        parameters |= {f"TagSpecification.1.Tag.{place}.Key": key, f"TagSpecification.1.Tag.{place}.Value": value}
    return parameters


def _try(ec2: Ec2, wish: Wish) -> None:
    """Ask whether a machine could be registered. Raises _Unfit with the API's words."""
    try:
        ec2.call("RunInstances", {**_parameters(wish), "DryRun": "true"})
    except ApiRefused as refused:
        if refused.code != "DryRunOperation":
            raise _Unfit(f"{refused.code}: {refused.message}") from refused


def register(ec2: Ec2, wish: Wish) -> str:
    """Register a machine; its id. Raises ApiRefused, TunnelFailed."""
    root = ec2.call("RunInstances", _parameters(wish))
    return root.findtext("{*}instancesSet/{*}item/{*}instanceId") or ""


def named(known: Sequence[Machine], names: Sequence[str]) -> list[Machine]:
    """The registered machines with these ids or addresses, each once. Raises Refused for what names none or several."""
    found: dict[str, Machine] = {}
    for name in names:
        those = [one for one in known if name == one.id or _canonical(name) in one.addresses]
        if not those:
            raise Refused(f"There is no registered machine {name}.")
        if len(those) > 1:
            raise Refused(f"{name} is the address of {', '.join(one.id for one in those)}: name one by its id.")
        found[those[0].id] = those[0]
    return list(found.values())


def _canonical(name: str) -> str:
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name


def forget(ec2: Ec2, those: Sequence[Machine]) -> None:
    """Have these machines no longer registered; nothing happens to them. Raises ApiRefused, TunnelFailed."""
    for start in range(0, len(those), _AT_ONCE):
        some = those[start : start + _AT_ONCE]
        ec2.call("TerminateInstances", {f"InstanceId.{place}": one.id for place, one in enumerate(some, 1)})
