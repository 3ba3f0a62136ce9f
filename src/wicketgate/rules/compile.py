"""World -> the ruleset of one VPC's router namespace, and of one endpoint's.

How a packet travels through the VPC's namespace:

    prerouting raw      counts what comes from an endpoint's interface; source check: before routing, so that a forged
                        packet gets no answer from the router either (ICMP for an expired TTL, a neighbour entry)
    prerouting mangle   source check of what an endpoint sends, which has to know the flow; replies of an endpoint's
                        flows: connection mark -> packet mark -> route back to the endpoint
    forward mangle      an endpoint's new flows get its mark
    forward filter      forward -> established? accept
                        -> to an endpoint's interface? drop
                        -> snd_<link>  the sender's outbound groups, each rule that matches: goto receive
                        -> receive -> rcv_<link>  the receiver's inbound groups, each rule that matches: accept
                        -> drop; what an endpoint sent is rejected instead, so that a refused dial fails at once
    postrouting         counts what goes to an endpoint's interface
    input               the router answers nobody, but for instance metadata: whatever the groups say, to interfaces
                        under their own address only (also to one without source check), and to no endpoint

Unknown interfaces match no map entry and fall to the policy, drop. Group references are judged by the *interface* the
packet came in by or will leave by, never by its address: that is why a rule that names the endpoint's group holds with
client IP preservation on and off, and why a forged source address gains nothing.

Marks and the way back are the same with client IP preservation on and off, so that open tunnels outlive a switch of it.

One chain per group and direction, rewritten whole when a rule changes; membership is one set element per interface.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import replace

from wicketgate.model import PROTOCOL_NUMBERS, Endpoint, NetworkInterface, SecurityGroup, SecurityGroupRule, World
from wicketgate.model.world import changed_pairs
from wicketgate.rules.ir import (
    Accept,
    Address,
    Chain,
    CopyMark,
    Count,
    CtOriginal,
    CtReply,
    CtState,
    Dispatch,
    Drop,
    Family,
    Goto,
    Hook,
    Icmp,
    InterfaceIn,
    InterfaceIs,
    Jump,
    Match,
    Ports,
    Protocol,
    Reject,
    Rule,
    Ruleset,
    SetCtMark,
    SetMark,
    SourceNotIn,
)

TABLE = "wicketgate"
APPLIED = "applied"
"""A chain without a hook that carries the fingerprint of the ruleset in its comment."""

ENDPOINT_MARK_SHIFT = 16
ENDPOINT_MARK_MASK = 0x0FFF0000
"""Bits 16-27 of connection and packet marks: the endpoint a flow came from. Bits 28-31 are the operator's."""

METADATA_ADDRESS, METADATA_PORT = "169.254.169.254", 80
"""Where instance metadata is, in every VPC (EC2 User Guide, "Access instance metadata")."""

RAW, MANGLE, FILTER = -300, -150, 0


def endpoint_mark(endpoint: Endpoint) -> int:
    """The mark of an endpoint's flows."""
    return endpoint.index << ENDPOINT_MARK_SHIFT


def compile_vpc(world: World, vpc_id: str, before: tuple[World, Ruleset] | None = None) -> Ruleset:
    """The whole ruleset of a VPC's router namespace.

    `before`: another World and what it compiled to. The result is the same with and without, but what did not change
    between the two is taken over: parts that are equal are mostly the same objects then.
    """
    if before is not None and _same_places(before[0], world):
        derived = _with_groups_of(world, vpc_id, before)
        if derived is not None:
            return derived
    groups = [group for group in world.groups if group.vpc_id == vpc_id]
    interfaces = world.interfaces_of_vpc(vpc_id)
    endpoints = {eni.link: found for eni in interfaces if (found := world.endpoint_of_interface(eni.id)) is not None}
    base = _base_chains(world, vpc_id, endpoints)
    plugged: dict[str, Chain] = {}
    for eni in interfaces:
        plugged[f"snd_{eni.link}"] = _sender_chain(eni, endpoints.get(eni.link))
        plugged[f"rcv_{eni.link}"] = _receiver_chain(eni)
    for link, endpoint in endpoints.items():
        plugged[f"refuse_{link}"] = Chain((Rule(statements=(SetMark(endpoint_mark(endpoint)),), verdict=Reject()),))
    links = [eni.link for eni in interfaces]
    free = {eni.link for eni in interfaces if not eni.source_dest_check}
    preserving = {link for link, endpoint in endpoints.items() if endpoint.preserve_client_ip or link in free}
    return Ruleset(
        chains={**base, **_chains_of_groups(groups, before), **plugged},
        interface_sets={
            "endpoints": frozenset(endpoints),
            "any_source": frozenset(free | endpoints.keys()),
            "preserving": frozenset(preserving),
            **{_set(group.id): frozenset(eni.link for eni in world.members(group.id)) for group in groups},
        },
        source_sets={"sources": frozenset((eni.link, eni.private_ip_address) for eni in interfaces)},
        maps={
            "senders": {link: f"snd_{link}" for link in links},
            "receivers": {link: f"rcv_{link}" for link in links},
            "refusals": {link: f"refuse_{link}" for link in endpoints},
        },
        counters=_counters({**base, **plugged}),
    )


def _same_places(before: World, world: World) -> bool:
    """Whether all that is plugged in anywhere is the same, so that only groups can differ."""
    return all(getattr(before, kind) is getattr(world, kind) for kind in ("subnets", "interfaces", "endpoints"))


def _with_groups_of(world: World, vpc_id: str, before: tuple[World, Ruleset]) -> Ruleset | None:
    """The ruleset before with the chains of groups that changed; None when groups came, went or changed places."""
    known, ruleset = before
    pairs = changed_pairs(known.groups, world.groups)
    if pairs is None or any(old.id != new.id or old.vpc_id != new.vpc_id for old, new in pairs):
        return None
    changed = _chains_of_groups([new for _, new in pairs if new.vpc_id == vpc_id], before)
    return replace(ruleset, chains=ruleset.chains | changed) if changed else ruleset


def _chains_of_groups(groups: Iterable[SecurityGroup], before: tuple[World, Ruleset] | None) -> dict[str, Chain]:
    """Chains of groups, which depend on nothing but the group: those of the same object as before are not made."""
    known, there = (World(), {}) if before is None else (before[0], before[1].chains)
    chains: dict[str, Chain] = {}
    for group in groups:
        inbound, outbound = _in(group), _out(group)
        same = known.group(group.id) is group and inbound in there
        chains[inbound] = there[inbound] if same else Chain(tuple(_group_rule(rule) for rule in group.inbound))
        chains[outbound] = there[outbound] if same else Chain(tuple(_group_rule(rule) for rule in group.outbound))
    return chains


def compile_endpoint() -> Ruleset:
    """The ruleset of an endpoint's own namespace: only what it asked for comes in; it forwards nothing."""
    return Ruleset(
        chains={
            "input": Chain(
                (
                    Rule((CtState(("established", "related")),), verdict=Accept()),
                    Rule((InterfaceIs("iif", "lo"),), verdict=Accept()),
                    Rule(statements=(Count("uninvited"),), verdict=Drop()),
                ),
                Hook("input", FILTER, "drop"),
            ),
            "forward": Chain((), Hook("forward", FILTER, "drop")),
        },
        counters=frozenset({"uninvited"}),
    )


def _base_chains(world: World, vpc_id: str, endpoints: dict[str, Endpoint]) -> dict[str, Chain]:
    vpc = world.vpc(vpc_id)
    assert vpc is not None, "nothing else is compiled"
    return {
        "count_from": Chain(
            tuple(Rule((InterfaceIs("iif", link),), (Count(f"from_{link}"),)) for link in endpoints),
            Hook("prerouting", RAW - 1),
        ),
        # Before routing and before connection tracking: a forged source must not ride on somebody else's connection,
        # and the router must not answer to it.
        "source_check": Chain(
            (
                # IPv6 has no source check yet, so none of it passes; the namespaces have it switched off as well.
                Rule((Family(6),), (Count("ipv6"),), Drop()),
                Rule(
                    (InterfaceIn("iif", "any_source", negate=True), SourceNotIn("sources")),
                    (Count("forged_source"),),
                    Drop(),
                ),
                # An endpoint's other addresses are clients', and no client's address is of the VPC.
                Rule(
                    (InterfaceIn("iif", "endpoints"), Address("saddr", vpc.network), SourceNotIn("sources")),
                    (Count("forged_source"),),
                    Drop(),
                ),
            ),
            Hook("prerouting", RAW),
        ),
        # Another address than its own an endpoint sends only in flows that it opened and, with client IP preservation
        # on, to open one. After connection tracking, which knows the flows, and still before routing.
        "endpoint_source": Chain(
            (
                *(
                    Rule(
                        (InterfaceIs("iif", link), CtOriginal(endpoint_mark(endpoint), ENDPOINT_MARK_MASK)),
                        verdict=Accept(),
                    )
                    for link, endpoint in endpoints.items()
                ),
                Rule((InterfaceIn("iif", "preserving"), CtState(("new",))), verdict=Accept()),
                Rule(
                    (InterfaceIn("iif", "endpoints"), SourceNotIn("sources")),
                    (Count("forged_source"),),
                    Drop(),
                ),
            ),
            Hook("prerouting", MANGLE - 1),
        ),
        "way_back": Chain(
            (Rule((CtReply(ENDPOINT_MARK_MASK),), (CopyMark(ENDPOINT_MARK_MASK),)),),
            Hook("prerouting", MANGLE),
        ),
        "mark_flows": Chain(
            tuple(
                Rule(
                    (InterfaceIs("iif", link), CtState(("new",))),
                    (SetCtMark(endpoint_mark(endpoint), ENDPOINT_MARK_MASK),),
                )
                for link, endpoint in endpoints.items()
            ),
            Hook("forward", MANGLE),
        ),
        "forward": Chain(
            (
                Rule((CtState(("established", "related")),), verdict=Accept()),
                Rule((CtState(("invalid",)),), (Count("invalid"),), Drop()),
                Rule((InterfaceIn("oif", "endpoints"),), (Count("to_endpoint"),), Drop()),
                Rule(verdict=Dispatch("iif", "senders")),
            ),
            Hook("forward", FILTER, "drop"),
        ),
        "receive": Chain(
            (
                Rule(verdict=Dispatch("oif", "receivers")),
                Rule(verdict=Dispatch("iif", "refusals")),
                Rule(verdict=Drop()),
            )
        ),
        # Nobody talks to the VPC router itself, metadata excepted, which knows its callers by their addresses.
        "router": Chain(
            (
                Rule((SourceNotIn("sources"),), verdict=Drop()),
                Rule(
                    (
                        InterfaceIn("iif", "endpoints", negate=True),
                        Address("daddr", ipaddress.IPv4Network(METADATA_ADDRESS)),
                        Ports(6, METADATA_PORT, METADATA_PORT),
                    ),
                    verdict=Accept(),
                ),
            ),
            Hook("input", FILTER, "drop"),
        ),
        "count_to": Chain(
            tuple(Rule((InterfaceIs("oif", link),), (Count(f"to_{link}"),)) for link in endpoints),
            Hook("postrouting", FILTER),
        ),
    }


def _sender_chain(eni: NetworkInterface, endpoint: Endpoint | None) -> Chain:
    refusal = Drop() if endpoint is None else Goto(f"refuse_{eni.link}")
    return Chain(
        (
            *(Rule(verdict=Jump(f"out_{_hex(group_id)}")) for group_id in eni.group_ids),
            Rule(statements=(Count(f"snd_stop_{eni.link}"),), verdict=refusal),
        )
    )


def _receiver_chain(eni: NetworkInterface) -> Chain:
    return Chain(
        (
            *(Rule(verdict=Jump(f"in_{_hex(group_id)}")) for group_id in eni.group_ids),
            Rule(statements=(Count(f"rcv_stop_{eni.link}"),), verdict=Dispatch("iif", "refusals")),
            Rule(verdict=Drop()),
        )
    )


def _group_rule(rule: SecurityGroupRule) -> Rule:
    matches = (*_peer(rule), *_protocol(rule))
    return Rule(matches, verdict=Goto("receive") if rule.is_egress else Accept(), comment=rule.id)


def _peer(rule: SecurityGroupRule) -> tuple[Match, ...]:
    if rule.referenced_group_id is not None:
        return (InterfaceIn("oif" if rule.is_egress else "iif", _set(rule.referenced_group_id)),)
    network = ipaddress.ip_network(rule.cidr_ipv4 or rule.cidr_ipv6 or "", strict=False)
    if network.prefixlen == 0:
        return (Family(4 if network.version == 4 else 6),)
    return (Address("daddr" if rule.is_egress else "saddr", network),)


def _protocol(rule: SecurityGroupRule) -> tuple[Match, ...]:
    if rule.ip_protocol == "-1":
        return ()
    number = PROTOCOL_NUMBERS.get(rule.ip_protocol) or int(rule.ip_protocol)
    if number == 6:
        return (Ports(6, rule.from_port, rule.to_port),)
    if number == 17:
        return (Ports(17, rule.from_port, rule.to_port),)
    if number in (1, 58):
        version: int = 4 if number == 1 else 6
        if rule.from_port == -1:
            # ICMP is a protocol of IPv4 and ICMPv6 of IPv6: the number alone would also match it carried in the other.
            return (Family(4 if version == 4 else 6), Protocol(number))
        return (Icmp(4 if version == 4 else 6, rule.from_port, None if rule.to_port == -1 else rule.to_port),)
    return (Protocol(number),)


def _counters(chains: dict[str, Chain]) -> frozenset[str]:
    return frozenset(
        statement.counter
        for chain in chains.values()
        for rule in chain.rules
        for statement in rule.statements
        if isinstance(statement, Count)
    )


def _hex(group_id: str) -> str:
    return group_id.removeprefix("sg-")


def _set(group_id: str) -> str:
    return f"members_{_hex(group_id)}"


def _in(group: SecurityGroup) -> str:
    return f"in_{_hex(group.id)}"


def _out(group: SecurityGroup) -> str:
    return f"out_{_hex(group.id)}"
