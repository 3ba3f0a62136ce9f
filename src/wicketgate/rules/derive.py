"""The ruleset of a World from that of the World before, in time that depends on what changed between them.

Followed are rules of groups, entries of prefix lists, and groups and further addresses of interfaces. All else is left
to a whole compilation.
"""

from __future__ import annotations

import weakref
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

import msgspec

from wicketgate.model import Endpoint, NetworkInterface, SecurityGroup, World
from wicketgate.model.routing import PrefixList
from wicketgate.model.world import changed_pairs
from wicketgate.rules import groups as of_groups
from wicketgate.rules import names
from wicketgate.rules.groups import DIRECTIONS, VERSIONS
from wicketgate.rules.ir import CellSet, Chain, Origin, PairSet, Ruleset

ChainsOfInterface = Callable[[NetworkInterface, Endpoint | None], dict[str, Chain]]
GroupPairs = list[tuple[SecurityGroup, SecurityGroup]]
InterfacePairs = list[tuple[NetworkInterface, NetworkInterface]]

_Part = TypeVar("_Part")

_FOLLOWED = ("group_ids", "secondary_ip_addresses", "ipv6_addresses")
_IRRELEVANT = (
    "tags",
    "description",
    "mac_address",
    "delete_on_termination",
    "attached_at",
    "attached_to",
    "device_index",
)


@dataclass
class _Step:
    """Parts that take the place of those before, and names of parts that go."""

    world: World
    vpc_id: str
    known: World
    ruleset: Ruleset
    chains: dict[str, Chain] = field(default_factory=dict)
    interface_sets: dict[str, frozenset[str]] = field(default_factory=dict)
    pair_sets: dict[str, PairSet] = field(default_factory=dict)
    cell_sets: dict[str, CellSet] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)

    @property
    def after(self) -> Mapping[str, Chain]:
        """All chains, as they will be."""
        return ChainMap(self.chains, self.ruleset.chains)

    def of_vpc(self) -> list[SecurityGroup]:
        """The VPC's groups: all are looked at, so only when a set of references may have lost one."""
        return [group for group in self.world.groups if group.vpc_id == self.vpc_id]


def derive(
    world: World, vpc_id: str, before: tuple[World, Ruleset], chains_of_interface: ChainsOfInterface
) -> Ruleset | None:
    """The ruleset; the one before itself when nothing of it changed; None when more changed than is followed."""
    known, ruleset = before
    if any(getattr(known, kind) is not getattr(world, kind) for kind in ("vpcs", "subnets", "endpoints", "peerings")):
        return None
    groups = changed_pairs(known.groups, world.groups)
    interfaces = changed_pairs(known.interfaces, world.interfaces)
    if groups is None or interfaces is None or not all(_followed(*pair) for pair in interfaces):
        return None
    if any((old.id, old.vpc_id) != (new.id, new.vpc_id) for old, new in groups):
        return None
    step = _Step(world, vpc_id, known, ruleset)
    own_groups = [pair for pair in groups if pair[1].vpc_id == vpc_id]
    own = [pair for pair in interfaces if world.vpc_of_subnet(pair[1].subnet_id).id == vpc_id]
    for _, group in own_groups:
        _follow_group(step, group)
    _follow_lists(step, own_groups)
    _follow_interfaces(step, own, chains_of_interface)
    _follow_open_sets(step, own_groups, own)
    _follow_remote(step, own_groups, moved=len(own) < len(interfaces))
    return _taken(step)


def _followed(old: NetworkInterface, new: NetworkInterface) -> bool:
    same = {name: getattr(new, name) for name in _FOLLOWED + _IRRELEVANT}
    return msgspec.structs.replace(old, **same) == new


def _follow_group(step: _Step, group: SecurityGroup) -> None:
    parts, there = of_groups.parts_of_group(step.world, group), step.ruleset.cell_sets
    step.chains |= parts.chains
    step.cell_sets |= {name: cells for name, cells in parts.cell_sets.items() if there.get(name) != cells}
    possible = {name for name, *_ in of_groups.cell_set_names(group.id)}
    step.gone |= (possible & there.keys()) - parts.cell_sets.keys()


def _follow_lists(step: _Step, groups: GroupPairs) -> None:
    named, there = (of_groups.named_lists(pair[side] for pair in groups) for side in (1, 0))
    if lost := there - named:
        still = of_groups.named_lists(step.of_vpc())
        step.gone |= of_groups.chains_of_lists(step.known, lost - still).keys()
    step.chains |= of_groups.chains_of_lists(
        step.world, [one for one in named if names.list_chain(*one) not in step.ruleset.chains]
    )
    if step.known.prefix_lists is step.world.prefix_lists:
        return
    for new in step.world.prefix_lists:
        old = step.known.prefix_list(new.id)
        if old is not None and old is not new:
            for way in DIRECTIONS:
                if (name := names.list_chain(way, new.id)) in step.ruleset.chains and name not in step.gone:
                    _follow_list(step, way, old, new)


def _follow_list(step: _Step, direction: names.Direction, old: PrefixList, new: PrefixList) -> None:
    if of_groups.buckets(old) == of_groups.buckets(new):
        differing = {entry.cidr for entry in old.entries} ^ {entry.cidr for entry in new.entries}
        step.chains |= of_groups.chains_of_list(direction, new, differing)
        return
    chains = of_groups.chains_of_list(direction, new)
    step.gone |= of_groups.chains_of_list(direction, old).keys() - chains.keys()
    step.chains |= chains


def _follow_interfaces(step: _Step, interfaces: InterfacePairs, chains_of_interface: ChainsOfInterface) -> None:
    for old, new in interfaces:
        if old.group_ids != new.group_ids:
            step.chains |= chains_of_interface(new, step.world.endpoint_of_interface(new.id))
            for group_id in set(old.group_ids) ^ set(new.group_ids):
                _put(step, names.members(group_id), new.link, group_id in new.group_ids)
        if old.addresses != new.addresses:
            for version in VERSIONS:
                name = names.sources(version)
                there = step.pair_sets.get(name, step.ruleset.pair_sets[name]).pairs
                less, more = of_groups.pairs([old], version), of_groups.pairs([new], version)
                step.pair_sets[name] = PairSet(version, there - less | more)


def _follow_open_sets(step: _Step, groups: GroupPairs, interfaces: InterfacePairs) -> None:
    """Interfaces that changed, and the members of groups that opened or closed a way."""
    before, after = step.ruleset.chains, step.after
    concerned = {new.id: (old, new) for old, new in interfaces}
    for _, group in groups:
        if of_groups.open_ways(before, group.id) != of_groups.open_ways(after, group.id):
            concerned = {eni.id: (eni, eni) for eni in step.world.members(group.id)} | concerned
    for old, new in concerned.values():
        if step.world.endpoint_of_interface(new.id) is None:
            was, now = _ways(before, old.group_ids), _ways(after, new.group_ids)
            for name in was ^ now:
                _put(step, name, new.link, name in now)


def _ways(chains: Mapping[str, Chain], group_ids: Iterable[str]) -> frozenset[str]:
    return frozenset().union(*(of_groups.open_ways(chains, group_id) for group_id in group_ids))


def _put(step: _Step, set_name: str, link: str, there: bool) -> None:
    found = step.interface_sets.get(set_name, step.ruleset.interface_sets[set_name])
    step.interface_sets[set_name] = found | {link} if there else found - {link}


def _follow_remote(step: _Step, groups: GroupPairs, *, moved: bool) -> None:
    """`moved`: whether an interface of another VPC changed."""
    if not step.world.active_peerings(step.vpc_id):
        return
    referring = any(rule.referenced_vpc_id for pair in groups for one in pair for rule in one.rules)
    if not (referring or moved):
        return
    there = {name: pairs for name, pairs in step.ruleset.pair_sets.items() if name.startswith("remote")}
    wanted = of_groups.remote_sets(step.world, of_groups.remote_groups(step.world, step.of_vpc()))
    step.pair_sets |= {name: pairs for name, pairs in wanted.items() if there.get(name) != pairs}
    step.gone |= there.keys() - wanted.keys()


def _taken(step: _Step) -> Ruleset:
    """The ruleset before with the step made; it remembers from where, so that the difference is known."""
    old = step.ruleset
    chains = {name: chain for name, chain in step.chains.items() if old.chains.get(name) != chain}
    if not (chains or step.interface_sets or step.pair_sets or step.cell_sets or step.gone):
        return old
    new = replace(
        old,
        chains=_with(old.chains, chains, step.gone),
        interface_sets=_with(old.interface_sets, step.interface_sets, set()),
        pair_sets=_with(old.pair_sets, step.pair_sets, step.gone),
        cell_sets=_with(old.cell_sets, step.cell_sets, step.gone),
    )
    touched = frozenset((*chains, *step.interface_sets, *step.pair_sets, *step.cell_sets, *step.gone))
    new.origin.append(Origin(weakref.ref(old), touched))
    return new


def _with(there: dict[str, _Part], put: Mapping[str, _Part], gone: set[str]) -> dict[str, _Part]:
    if not put and gone.isdisjoint(there):
        return there
    made = {**there, **put}
    for name in gone & made.keys():
        del made[name]
    return made
