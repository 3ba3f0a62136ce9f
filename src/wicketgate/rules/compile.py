"""World -> the ruleset of one VPC's router namespace, and of one endpoint's.

Group references are judged by the *interface* a packet came in by or will leave by, never by its address: that is why a
rule that names the endpoint's group holds with client IP preservation on and off, and why a forged source address gains
nothing. Across a peering connection the router knows no interface, so there it is (peering link, address).

A change costs what it touches: rules rewrite the group's chains, entries of a prefix list its chains, a membership is
one set element per interface and group and the two chains of the interface.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from wicketgate.model import Endpoint, NetworkInterface, SecurityGroup, World
from wicketgate.rules import groups as of_groups
from wicketgate.rules import names
from wicketgate.rules.base import FILTER, Surroundings, base_chains
from wicketgate.rules.derive import derive
from wicketgate.rules.groups import DIRECTIONS, VERSIONS
from wicketgate.rules.ir import (
    Accept,
    Chain,
    Count,
    CtState,
    Dispatch,
    Drop,
    Goto,
    Hook,
    Icmp,
    InterfaceIs,
    Jump,
    PairSet,
    Reject,
    Rule,
    Ruleset,
    SetCtMark,
    SetMark,
)
from wicketgate.rules.names import ENDPOINT_MARK_MASK, ENDPOINT_MARK_SHIFT, endpoint_mark
from wicketgate.rules.timeouts import compile_timeouts

__all__ = ["ENDPOINT_MARK_SHIFT", "compile_endpoint", "compile_vpc"]


def compile_vpc(world: World, vpc_id: str, before: tuple[World, Ruleset] | None = None) -> Ruleset:
    """The whole ruleset of a VPC's router namespace. It depends on the VPC, on its subnets, interfaces, endpoints,
    groups and active peering connections, on prefix lists that the groups name, and on the interfaces and groups of
    peered VPCs.

    `before`: another World and what it compiled to. The result is the same with and without, but what did not change
    between the two is taken over: parts that are equal are mostly the same objects then.
    """
    derived = None if before is None else derive(world, vpc_id, before, chains_of_interface)
    return derived or _whole(world, vpc_id, before)


def compile_endpoint() -> Ruleset:
    """The ruleset of an endpoint's own namespace: only what it asked for comes in; it forwards nothing."""
    return Ruleset(
        chains={
            "input": Chain(
                (
                    Rule((CtState(("established", "related")),), verdict=Accept()),
                    Rule((InterfaceIs("iif", "lo"),), verdict=Accept()),
                    # Neighbour solicitations and advertisements: without them its address is nobody's.
                    *(Rule((Icmp(6, kind, None),), verdict=Accept()) for kind in (135, 136)),
                    Rule(statements=(Count("uninvited"),), verdict=Drop()),
                ),
                Hook("input", FILTER, "drop"),
            ),
            "forward": Chain((), Hook("forward", FILTER, "drop")),
        },
        counters=frozenset({"uninvited"}),
    )


# -- whole -------------------------------------------------------------------------------------------------------------


def _whole(world: World, vpc_id: str, before: tuple[World, Ruleset] | None) -> Ruleset:
    vpc = world.vpc(vpc_id)
    assert vpc is not None, "nothing else is compiled"
    groups = [group for group in world.groups if group.vpc_id == vpc_id]
    interfaces = world.interfaces_of_vpc(vpc_id)
    links = [eni.link for eni in interfaces]
    endpoints = {eni.link: found for eni in interfaces if (found := world.endpoint_of_interface(eni.id)) is not None}
    peers = {
        one.link: other.networks
        for one in world.active_peerings(vpc_id)
        if (other := world.vpc(one.other(vpc_id))) is not None
    }
    timeouts = compile_timeouts(interfaces, peers)
    of_interfaces = _chains_of_interfaces(interfaces, endpoints, before)
    of_group = _parts_of_groups(world, groups, before)
    free = {eni.link for eni in interfaces if not eni.source_dest_check}
    unchecked = free - endpoints.keys()
    base = base_chains(Surroundings(vpc, endpoints, peers, timeouts.jump, bool(unchecked)))
    preserving = {link for link, endpoint in endpoints.items() if endpoint.preserve_client_ip or link in free}
    return Ruleset(
        chains={
            **base,
            **timeouts.chains,
            **of_groups.chains_of_lists(world, of_groups.named_lists(groups)),
            **of_group.chains,
            **of_interfaces,
        },
        interface_sets={
            "links": frozenset((*links, *peers)),
            "endpoints": frozenset(endpoints),
            "any_source": frozenset(free | endpoints.keys()),
            "preserving": frozenset(preserving),
            **({"unchecked": frozenset(unchecked)} if unchecked else {}),
            **({"peerings": frozenset(peers)} if peers else {}),
            **timeouts.interface_sets,
            **_open_sets(of_group.chains, groups, [eni for eni in interfaces if eni.link not in endpoints]),
            **{names.members(one.id): frozenset(eni.link for eni in world.members(one.id)) for one in groups},
        },
        pair_sets={
            **{names.sources(version): PairSet(version, of_groups.pairs(interfaces, version)) for version in VERSIONS},
            **of_groups.remote_sets(world, of_groups.remote_groups(world, groups) if peers else {}),
        },
        cell_sets=of_group.cell_sets,
        maps={
            "senders": {link: f"snd_{link}" for link in links} | dict.fromkeys(peers, "receive"),
            "receivers": {link: f"rcv_{link}" for link in links} | dict.fromkeys(peers, "leave"),
            "refusals": {link: f"refuse_{link}" for link in endpoints},
        },
        counters=_counters({**base, **of_interfaces}),
        timeouts=timeouts.objects,
    )


def _parts_of_groups(
    world: World, groups: Iterable[SecurityGroup], before: tuple[World, Ruleset] | None
) -> of_groups.GroupParts:
    """Chains and sets of groups: those of a group that is the same object as before are not made again, unless it may
    refer to another VPC."""
    known, there = (World(), Ruleset()) if before is None else before
    peered = bool(known.peerings or world.peerings)
    made = of_groups.GroupParts({}, {})
    for group in groups:
        same = known.group(group.id) is group and names.group_chain("in", group.id) in there.chains
        if same and not (peered and any(rule.referenced_vpc_id for rule in group.rules)):
            parts = _taken_over(group.id, there)
        else:
            parts = of_groups.parts_of_group(world, group)
        made.chains.update(parts.chains)
        made.cell_sets.update(parts.cell_sets)
    return made


def _taken_over(group_id: str, there: Ruleset) -> of_groups.GroupParts:
    chains = [name(way, group_id) for way in DIRECTIONS for name in (names.any_chain, names.group_chain)]
    cell_sets = [name for name, *_ in of_groups.cell_set_names(group_id) if name in there.cell_sets]
    return of_groups.GroupParts(
        {name: there.chains[name] for name in chains}, {name: there.cell_sets[name] for name in cell_sets}
    )


def _chains_of_interfaces(
    interfaces: Iterable[NetworkInterface], endpoints: Mapping[str, Endpoint], before: tuple[World, Ruleset] | None
) -> dict[str, Chain]:
    """Chains of interfaces, which depend on nothing but the interface and its endpoint: as of groups."""
    known, there = (World(), {}) if before is None else (before[0], before[1].chains)
    chains: dict[str, Chain] = {}
    for eni in interfaces:
        sender, receiver, refuse = f"snd_{eni.link}", f"rcv_{eni.link}", f"refuse_{eni.link}"
        endpoint = endpoints.get(eni.link)
        same = known.interface(eni.id) is eni and known.endpoint_of_interface(eni.id) is endpoint
        if same and sender in there:
            chains |= {name: there[name] for name in (sender, receiver, *((refuse,) if endpoint else ()))}
        else:
            chains |= chains_of_interface(eni, endpoint)
    return chains


def _open_sets(
    chains: Mapping[str, Chain], groups: Iterable[SecurityGroup], interfaces: Iterable[NetworkInterface]
) -> dict[str, frozenset[str]]:
    """Members of each of names.OPEN_SETS. Endpoints are in none: their inbound rules count for nothing."""
    ways = {group.id: of_groups.open_ways(chains, group.id) for group in groups}
    found: dict[str, set[str]] = {name: set() for name in names.OPEN_SETS}
    for eni in interfaces:
        for group_id in eni.group_ids:
            for name in ways[group_id]:
                found[name].add(eni.link)
    return {name: frozenset(links) for name, links in found.items()}


def chains_of_interface(eni: NetworkInterface, endpoint: Endpoint | None) -> dict[str, Chain]:
    """What an interface sends and receives: its groups' rules for any address before all others."""
    ways = {
        way: [
            Rule(verdict=Jump(name(way, group_id)))
            for name in (names.any_chain, names.group_chain)
            for group_id in eni.group_ids
        ]
        for way in DIRECTIONS
    }
    sent, received = (Count(f"snd_stop_{eni.link}"),), (Count(f"rcv_stop_{eni.link}"),)
    refused = Dispatch("iif", "refusals")
    chains = {f"rcv_{eni.link}": Chain((*ways["in"], Rule(statements=received, verdict=refused), Rule(verdict=Drop())))}
    if endpoint is None:
        chains[f"snd_{eni.link}"] = Chain((*ways["out"], Rule(statements=sent, verdict=Drop())))
        return chains
    # Its flows are marked here: only first packets come this way, since an endpoint's side is always tracked.
    mark = Rule(statements=(SetCtMark(endpoint_mark(endpoint), ENDPOINT_MARK_MASK),))
    refuse = Rule(statements=sent, verdict=Goto(f"refuse_{eni.link}"))
    chains[f"snd_{eni.link}"] = Chain((mark, *ways["out"], refuse))
    told = Rule(statements=(SetMark(endpoint_mark(endpoint)),), verdict=Reject())
    chains[f"refuse_{eni.link}"] = Chain((told,))
    return chains


def _counters(chains: Mapping[str, Chain]) -> frozenset[str]:
    return frozenset(
        statement.counter
        for chain in chains.values()
        for rule in chain.rules
        for statement in rule.statements
        if isinstance(statement, Count)
    )
