"""Chains of security groups and of prefix lists, and the sets that depend on them.

Four chains per group: its rules for any address and the rest, in and out. An interface's chain jumps to all its groups'
rules for any address first, so that any such rule makes a flow untracked, whatever else allows it.

Many rules for ports of TCP or UDP and ranges of addresses are the elements of one set, looked up at once, instead of
a rule each. A change of one is then a change of an element, at which the kernel does not look at all other rules again,
as it does at every new rule with a verdict: 15 ms with 60,000 rules. What overlaps another one stays a rule of its own.

A prefix list has a chain per direction, with a rule per entry; a rule that names the list jumps there once protocol and
ports match, so a change of the list rewrites its chains alone. A long list is a chain that leads to others, each with
some of the entries: else each change of an entry would rewrite up to 1,000 rules.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal
from zlib import crc32

from wicketgate.model import PROTOCOL_NUMBERS, NetworkInterface, SecurityGroup, SecurityGroupRule, World
from wicketgate.model.routing import PrefixList
from wicketgate.rules import names
from wicketgate.rules.ir import (
    Accept,
    Address,
    Cell,
    CellIn,
    CellSet,
    Chain,
    Family,
    Goto,
    Icmp,
    InterfaceIn,
    Jump,
    Match,
    Network,
    PairIn,
    PairSet,
    Ports,
    Protocol,
    Rule,
    Verdict,
    Version,
)
from wicketgate.rules.names import Direction

TCP: Final = 6
UDP: Final = 17
VERSIONS: tuple[Version, Version] = (4, 6)
DIRECTIONS: tuple[Direction, Direction] = ("in", "out")
BUCKET = 64
"""About so many entries of a long prefix list share a chain."""
PASSED: dict[Direction, Verdict] = {"in": Accept(), "out": Goto("receive")}
"""What follows when a rule of a direction allows a packet."""


FEWEST_CELLS = 8
"""With fewer rules, one after the other is quicker than a look-up, and a set takes 15 KB at least."""


@dataclass(frozen=True)
class GroupParts:
    """What a ruleset has for one group: four chains, and sets that they look up."""

    chains: dict[str, Chain]
    cell_sets: dict[str, CellSet]


def cell_set_names(group_id: str) -> Iterator[tuple[str, Direction, Literal[6, 17], Version]]:
    """All sets of cells that a group can have, and what each is for."""
    for direction in DIRECTIONS:
        for version in VERSIONS:
            yield names.cells(direction, "tcp", version, group_id), direction, 6, version
            yield names.cells(direction, "udp", version, group_id), direction, 17, version


def parts_of_group(world: World, group: SecurityGroup) -> GroupParts:
    """The chains and sets of a group."""
    celled = _celled(group)
    rules: dict[str, list[Rule]] = {}
    cell_sets: dict[str, CellSet] = {}
    for direction in DIRECTIONS:
        rules[names.any_chain(direction, group.id)] = []
        rules[names.group_chain(direction, group.id)] = []
    for name, direction, with_ports, version in cell_set_names(group.id):
        if cells := celled.get((direction, with_ports, version)):
            cell_sets[name] = CellSet(version, frozenset(map(_cell, cells)))
            looked_up = CellIn("daddr" if direction == "out" else "saddr", version, with_ports, name)
            rules[names.group_chain(direction, group.id)].append(Rule((looked_up,), verdict=PASSED[direction]))
    apart = {rule.id for cells in celled.values() for rule in cells}
    for rule in group.rules:
        if rule.id in apart:
            continue
        direction = _direction(rule)
        if _untracking(rule):
            version = _version(_network(rule.peer))
            verdict = Goto(names.untracking_chain(direction, version))
            protocol = _protocol(rule.ip_protocol, rule.from_port, rule.to_port)
            compiled = Rule((Family(version), *protocol), verdict=verdict, comment=rule.id)
            rules[names.any_chain(direction, group.id)].append(compiled)
        else:
            rules[names.group_chain(direction, group.id)] += _rules(world, group, rule)
    return GroupParts({name: Chain(tuple(found)) for name, found in rules.items()}, cell_sets)


def _celled(group: SecurityGroup) -> dict[tuple[Direction, int, Version], list[SecurityGroupRule]]:
    """The rules that become cells, by the set they are in: those that overlap no other, if they are enough."""
    candidates: dict[tuple[Direction, int, Version], list[SecurityGroupRule]] = {}
    for rule in group.rules:
        cidr = rule.cidr_ipv4 or rule.cidr_ipv6
        number = _WITH_PORTS.get(rule.ip_protocol)
        if cidr is not None and number is not None and (network := _network(cidr)).prefixlen > 0:
            candidates.setdefault((_direction(rule), number, _version(network)), []).append(rule)
    return {
        key: apart
        for key, rules in candidates.items()
        if len(rules) >= FEWEST_CELLS and len(apart := _apart(rules)) >= FEWEST_CELLS
    }


_WITH_PORTS = {"tcp": 6, "6": 6, "udp": 17, "17": 17}


def _apart(rules: Iterable[SecurityGroupRule]) -> list[SecurityGroupRule]:
    """The rules, all of one family and protocol, that have no address and port in common with another one."""
    overlapping: set[int] = set()
    active: list[tuple[SecurityGroupRule, int, int]] = []
    ordered = sorted(rules, key=lambda one: one.from_port)
    for rule in ordered:
        low, high = _bounds(rule.peer)
        active = [one for one in active if one[0].to_port >= rule.from_port]
        for other, other_low, other_high in active:
            if other_low <= high and low <= other_high:
                overlapping |= {id(other), id(rule)}
        active.append((rule, low, high))
    return [rule for rule in ordered if id(rule) not in overlapping]


@lru_cache(maxsize=16384)
def _bounds(cidr: str) -> tuple[int, int]:
    network = _network(cidr)
    return int(network.network_address), int(network.broadcast_address)


def _cell(rule: SecurityGroupRule) -> Cell:
    return Cell(_written(rule.peer), rule.from_port, rule.to_port, rule.id)


@lru_cache(maxsize=16384)
def _written(cidr: str) -> str:
    return str(_network(cidr))


def chains_of_list(
    direction: Direction, prefix_list: PrefixList, concerning: Collection[str] | None = None
) -> dict[str, Chain]:
    """The chains of a prefix list; of a long one perhaps only those in which some ranges are, or were."""
    count = buckets(prefix_list)
    name = names.list_chain(direction, prefix_list.id)
    if count == 1:
        return {name: _entries(direction, (entry.cidr for entry in prefix_list.entries))}
    wanted = range(count) if concerning is None else {_bucket(cidr, count) for cidr in concerning}
    found: dict[int, list[str]] = {number: [] for number in wanted}
    for entry in prefix_list.entries:
        if (there := found.get(_bucket(entry.cidr, count))) is not None:
            there.append(entry.cidr)
    chains = {names.list_chain(direction, prefix_list.id, key): _entries(direction, one) for key, one in found.items()}
    if concerning is None:
        parts = (names.list_chain(direction, prefix_list.id, number) for number in range(count))
        chains[name] = Chain(tuple(Rule(verdict=Jump(part)) for part in parts))
    return chains


def buckets(prefix_list: PrefixList) -> int:
    """How many parts a list has; it depends on what the list may hold, which seldom changes."""
    return max(1, -(-prefix_list.max_entries // BUCKET))


def _bucket(cidr: str, count: int) -> int:
    return crc32(cidr.encode()) % count


def _entries(direction: Direction, ranges: Iterable[str]) -> Chain:
    return Chain(tuple(Rule(_within(direction, cidr), verdict=PASSED[direction]) for cidr in sorted(ranges)))


def named_lists(groups: Iterable[SecurityGroup]) -> set[tuple[Direction, str]]:
    """(direction, id) of the prefix lists that rules name."""
    return {(_direction(rule), rule.prefix_list_id) for one in groups for rule in one.rules if rule.prefix_list_id}


def chains_of_lists(world: World, named: Iterable[tuple[Direction, str]]) -> dict[str, Chain]:
    """The chains of these prefix lists."""
    chains: dict[str, Chain] = {}
    for direction, list_id in named:
        if (one := world.prefix_list(list_id)) is not None:
            chains |= chains_of_list(direction, one)
    return chains


def remote_groups(world: World, groups: Iterable[SecurityGroup]) -> dict[str, str]:
    """Groups of peered VPCs that rules refer to, as far as they count: id -> link of the peering connection."""
    return {
        other.id: _peering_link(world, group.vpc_id, other.vpc_id)
        for group in groups
        for rule in group.rules
        if rule.referenced_vpc_id not in ("", group.vpc_id)
        and (other := world.referenced_group(group, rule)) is not None
    }


def remote_sets(world: World, referenced: Mapping[str, str]) -> dict[str, PairSet]:
    """Addresses of the members of groups in peered VPCs, which no interface of this VPC's router tells apart."""
    return {
        names.remote(group_id, version): PairSet(version, pairs(world.members(group_id), version, link))
        for group_id, link in referenced.items()
        for version in VERSIONS
    }


def pairs(interfaces: Iterable[NetworkInterface], version: Version, link: str = "") -> frozenset[tuple[str, str]]:
    """(link, address) of interfaces, of one family; under another link than their own if one is given."""
    return frozenset(
        (link or eni.link, address)
        for eni in interfaces
        for address in eni.addresses
        if (":" in address) is (version == 6)
    )


def open_ways(chains: Mapping[str, Chain], group_id: str) -> frozenset[str]:
    """Which of names.OPEN_SETS a group puts its members into, read from its compiled rules for any address."""
    return frozenset(
        name
        for direction in DIRECTIONS
        for rule in chains[names.any_chain(direction, group_id)].rules
        for name in _opened(direction, rule.matches)
    )


def _opened(direction: Direction, matches: tuple[Match, ...]) -> Iterator[str]:
    family, *ports = matches
    assert isinstance(family, Family), "all rules for any address begin so"
    if ports in ([], [Ports(TCP, 0, 65535)]):
        yield names.open_set(direction, "tcp", family.version)
    if ports in ([], [Ports(UDP, 0, 65535)]):
        yield names.open_set(direction, "udp", family.version)


def _direction(rule: SecurityGroupRule) -> Direction:
    return "out" if rule.is_egress else "in"


def _untracking(rule: SecurityGroupRule) -> bool:
    """Whether a flow that it allows can be untracked: any address, and TCP, UDP or everything."""
    cidr = rule.cidr_ipv4 or rule.cidr_ipv6
    return cidr is not None and _network(cidr).prefixlen == 0 and rule.ip_protocol in ("-1", "tcp", "udp", "6", "17")


def _rules(world: World, group: SecurityGroup, rule: SecurityGroupRule) -> Iterator[Rule]:
    direction, protocol = _direction(rule), _protocol(rule.ip_protocol, rule.from_port, rule.to_port)
    if rule.prefix_list_id is not None:
        yield Rule(protocol, verdict=Jump(names.list_chain(direction, rule.prefix_list_id)), comment=rule.id)
        return
    for peer in _peers(world, group, rule):
        if _of_one_family(peer, protocol):
            yield Rule((*peer, *protocol), verdict=PASSED[direction], comment=rule.id)


def _of_one_family(peer: tuple[Match, ...], protocol: tuple[Match, ...]) -> bool:
    """Whether they can hold at once. nft(8) leaves ICMP's family out where an address has said one, so that a rule for
    ICMP and IPv6 addresses would match ICMP carried in IPv6."""
    wanted = {one.version for one in protocol if isinstance(one, Family | Icmp)}
    if not wanted:
        return True
    versions = {_version(one.network) for one in peer if isinstance(one, Address)}
    return len(versions | wanted | {one.version for one in peer if isinstance(one, Family | PairIn)}) == 1


def _peers(world: World, group: SecurityGroup, rule: SecurityGroupRule) -> Iterator[tuple[Match, ...]]:
    """What the far end must be, as alternatives; none for a reference that counts for nothing."""
    direction = _direction(rule)
    if rule.referenced_group_id is None:
        yield _within(direction, rule.peer)
        return
    other = world.referenced_group(group, rule)
    if other is None:
        return
    side: Literal["iif", "oif"] = "oif" if rule.is_egress else "iif"
    if other.vpc_id == group.vpc_id:
        yield (InterfaceIn(side, names.members(other.id)),)
        return
    for version in VERSIONS:
        yield (PairIn(side, version, names.remote(other.id, version)),)


@lru_cache(maxsize=16384)
def _within(direction: Direction, cidr: str) -> tuple[Match, ...]:
    """Many rules say the same: one value for all of them saves memory and time."""
    network = _network(cidr)
    if network.prefixlen == 0:
        return (Family(_version(network)),)
    return (Address("daddr" if direction == "out" else "saddr", network),)


@lru_cache(maxsize=16384)
def _protocol(ip_protocol: str, from_port: int, to_port: int) -> tuple[Match, ...]:
    """What a rule says of protocol and ports, as for SecurityGroupRule."""
    if ip_protocol == "-1":
        return ()
    number = PROTOCOL_NUMBERS.get(ip_protocol) or int(ip_protocol)
    if number == TCP:
        return (Ports(TCP, from_port, to_port),)
    if number == UDP:
        return (Ports(UDP, from_port, to_port),)
    if number in (1, 58):
        version: Version = 4 if number == 1 else 6
        if from_port == -1:
            # ICMP is a protocol of IPv4 and ICMPv6 of IPv6: the number alone would also match it carried in the other.
            return (Family(version), Protocol(number))
        return (Icmp(version, from_port, None if to_port == -1 else to_port),)
    return (Protocol(number),)


def _peering_link(world: World, vpc_id: str, other: str) -> str:
    return next(one.link for one in world.active_peerings(vpc_id) if one.other(vpc_id) == other)


def _version(network: Network) -> Version:
    return 4 if network.version == 4 else 6


@lru_cache(maxsize=16384)
def _network(cidr: str) -> Network:
    return ipaddress.ip_network(cidr, strict=False)
