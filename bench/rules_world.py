"""The Worlds that `bench/rules.py` measures: groups with many rules, many interfaces, one prefix list."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from wicketgate.model import (
    Instance,
    NetworkInterface,
    PrefixList,
    PrefixListEntry,
    SecurityGroup,
    SecurityGroupRule,
    Subnet,
    Vpc,
    World,
)

RANGE = ipaddress.IPv4Network("10.0.0.0/16")
OTHERS = ipaddress.IPv4Network("172.16.0.0/12")
"""Where the sources are that no packet of the benchmark has."""
LIST = "pl-00000000000000001"
PORTS = (20_000, 60_000)
"""UDP ports that the last rule of all lets in; no other rule does."""
TCP_PORT = 5201
"""The one TCP port that the last rule but one lets in."""


def hexadecimal(prefix: str, number: int) -> str:
    """An id of AWS's shape."""
    return f"{prefix}-{number:017x}"


def elsewhere(number: int, length: int = 24) -> str:
    """A range that no packet comes from or goes to, as /24 another one for each number below 4,096."""
    start = OTHERS.network_address + 256 * (number % 4096)
    return str(ipaddress.IPv4Network(f"{start}/{length}", strict=False))


def plain(number: int, rule: int, cidr: str, ports: tuple[int, int], protocol: str = "udp") -> SecurityGroupRule:
    """An inbound rule of a group, both by number."""
    return SecurityGroupRule(
        id=hexadecimal("sgr", (number << 20) + rule),
        is_egress=False,
        ip_protocol=protocol,
        from_port=ports[0],
        to_port=ports[1],
        cidr_ipv4=cidr,
    )


def unmatched(number: int, count: int, *, near: bool = False) -> list[SecurityGroupRule]:
    """Inbound rules, each with ports of its own, that no packet matches: their sources are elsewhere (/16, /24, /32)
    or, `near`, their ports are others."""
    sources = [str(RANGE) if near else elsewhere(number * count + one, (16, 24, 32)[one % 3]) for one in range(count)]
    return [plain(number, one, source, (1000 + 10 * one, 1009 + 10 * one)) for one, source in enumerate(sources)]


def everything_out(number: int) -> SecurityGroupRule:
    """The outbound rule that a new group has."""
    return SecurityGroupRule(
        id=hexadecimal("sgr", (number << 20) + (1 << 19)), is_egress=True, ip_protocol="-1", cidr_ipv4="0.0.0.0/0"
    )


class Vpcs:
    """Makes one VPC of a World by number: what is in it has ids of its own, addresses are the same in each."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.id = hexadecimal("vpc", number)
        self.subnet_id = hexadecimal("subnet", number)

    def group(self, number: int, rules: Iterable[SecurityGroupRule]) -> SecurityGroup:
        """A group by number."""
        return SecurityGroup(id=self.group_id(number), vpc_id=self.id, name=f"group-{number}", rules=tuple(rules))

    def group_id(self, number: int) -> str:
        """Its id."""
        return hexadecimal("sg", (self.number << 32) + number)

    def interface(self, number: int, groups: Iterable[int]) -> NetworkInterface:
        """A network interface by number, in groups by their numbers."""
        return NetworkInterface(
            id=hexadecimal("eni", (self.number << 32) + number),
            subnet_id=self.subnet_id,
            private_ip_address=str(RANGE.network_address + 256 + number),
            group_ids=tuple(self.group_id(one) for one in groups),
            link=f"i{number}",
        )

    def instance(self, interface: NetworkInterface) -> Instance:
        """The instance that has an interface, with the interface's number."""
        return Instance(id=interface.id.replace("eni-", "i-"), interface_id=interface.id, name=interface.link)

    def world(self, groups: Iterable[SecurityGroup], interfaces: Sequence[NetworkInterface]) -> World:
        """A World of this VPC alone, with an instance to each interface."""
        return World(
            vpcs=(Vpc(id=self.id, cidr_block=str(RANGE)),),
            subnets=(Subnet(id=self.subnet_id, vpc_id=self.id, cidr_block=str(RANGE)),),
            groups=tuple(groups),
            interfaces=tuple(interfaces),
            instances=tuple(map(self.instance, interfaces)),
        )

    def guarded(self, rules: int, groups: int, interfaces: int, *, near: bool = False) -> World:
        """Interface 0 sends to the last one; all but 0 carry groups that have so many inbound rules together.

        The last rule of the last group lets the benchmark's UDP in, the one before its TCP. `near`: see `unmatched`.
        """
        made = [self.group(0, [everything_out(0)])]
        for number in range(1, groups + 1):
            count = rules // groups + (number <= rules % groups)
            own = unmatched(number, count, near=near)
            if number == groups:
                own[-2:] = [
                    plain(number, count - 2, str(RANGE), (TCP_PORT, TCP_PORT), "tcp"),
                    plain(number, count - 1, str(RANGE), PORTS),
                ]
            made.append(self.group(number, own))
        guarded = range(1, groups + 1)
        return self.world(made, [self.interface(one, guarded if one else (0,)) for one in range(interfaces)])


def together(worlds: Iterable[World]) -> World:
    """One World of several that have nothing in common."""
    made = World()
    for one in worlds:
        fields = ("vpcs", "subnets", "groups", "interfaces", "instances")
        made = replace(made, **{field: getattr(made, field) + getattr(one, field) for field in fields})
    made.check()
    return made


def large(groups: int = 1000, rules: int = 60, interfaces: int = 1000, *, prefix_list: bool = True) -> World:
    """Groups of so many inbound rules in one VPC, and interfaces in two of the groups each.

    The last rule of a group refers to the group before it; that of the first one names a prefix list of 100 entries.
    """
    vpc = Vpcs(1)
    made = []
    for number in range(groups):
        before = vpc.group_id(number - 1) if number else None
        listed = LIST if prefix_list and not number else None
        last = replace(
            plain(number, rules - 1, "", (22, 22), "tcp"),
            cidr_ipv4=None if before or listed else elsewhere(0),
            prefix_list_id=listed,
            referenced_group_id=before,
        )
        made.append(vpc.group(number, (*unmatched(number, rules - 1), last, everything_out(number))))
    there = [vpc.interface(one, dict.fromkeys((one % groups, (one * 7 + 3) % groups))) for one in range(interfaces)]
    entries = tuple(PrefixListEntry(cidr=elsewhere(number)) for number in range(100))
    lists = (PrefixList(id=LIST, name="bench", address_family="IPv4", max_entries=200, entries=entries),)
    return replace(vpc.world(made, there), prefix_lists=lists if prefix_list else ())
