"""Rules that nearly allowed a packet: what kept each from it, the nearest first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from wicketgate.explain.allowed import content_of, peers_of
from wicketgate.explain.answer import Say
from wicketgate.explain.region import IPV4_END, Box, span_of
from wicketgate.model import SecurityGroup, SecurityGroupRule, World

NEAREST: Final = 3
"""How many are shown."""


def nearest(
    world: World,
    group_ids: Iterable[str],
    *,
    egress: bool,
    protocol: int,
    port: int,
    peer_address: str,
    peer_groups: Iterable[str],
) -> tuple[Say, ...]:
    """Of the groups' rules in one direction those that came nearest to allowing a packet.

    `port`: as on the axis of `region`; for ICMP type and code.
    """
    peer_groups = frozenset(peer_groups)
    found: list[tuple[int, int, int, SecurityGroupRule, list[str]]] = []
    for group in filter(None, map(world.group, group_ids)):
        for rule in group.rules:
            if rule.is_egress is egress:
                kept = shortfalls(
                    world,
                    group,
                    rule,
                    protocol=protocol,
                    port=port,
                    peer_address=peer_address,
                    peer_groups=peer_groups,
                )
                if kept:
                    found.append((len(kept), -_exactness(rule), len(found), rule, kept))
    found.sort(key=lambda one: one[:3])
    return tuple(
        Say("miss", parts={"rule": (rule_said(rule),), "kept": tuple(Say(f"kept-{one}") for one in kept)})
        for *_, rule, kept in found[:NEAREST]
    )


def rule_said(rule: SecurityGroupRule) -> Say:
    """A rule in words, in English those of `str(rule)`."""
    facts = {"rule": rule.id, "peer": rule.peer}
    return Say("rule-outbound" if rule.is_egress else "rule-inbound", facts, {"content": (_content_said(rule),)})


def _content_said(rule: SecurityGroupRule) -> Say:
    protocol, first, last = rule.ip_protocol, rule.from_port, rule.to_port
    if protocol == "-1":
        return Say("traffic-all")
    if protocol in ("tcp", "udp"):
        return Say("traffic", {"words": f"{protocol} {first}" if first == last else f"{protocol} {first}-{last}"})
    if protocol in ("icmp", "icmpv6") and first != -1:
        facts = {"protocol": protocol, "type": str(first), "code": str(last)}
        return Say("traffic-type" if last == -1 else "traffic-type-code", facts)
    return Say("traffic", {"words": protocol})


def shortfalls(
    world: World,
    group: SecurityGroup,
    rule: SecurityGroupRule,
    *,
    protocol: int,
    port: int,
    peer_address: str,
    peer_groups: frozenset[str],
) -> list[str]:
    """What keeps a rule from allowing a packet: of `protocol`, `port`, `family`, `range`, `group`, `stale`."""
    place, _ = span_of(peer_address)
    kept = []
    content = content_of(rule)
    if not content.protocols[0] <= protocol <= content.protocols[1]:
        kept.append("protocol")
    elif not content.ports[0] <= port <= content.ports[1]:
        kept.append("port")
    if rule.referenced_group_id is not None:
        if rule.referenced_group_id not in peer_groups:
            kept.append("group")
        elif world.referenced_group(group, rule) is None:
            kept.append("stale")
    else:
        spans = peers_of(world, group, rule, peer_groups)
        if not any(first <= place <= last for first, last in spans):
            same_family = any((first < IPV4_END) is (place < IPV4_END) for first, _ in spans)
            kept.append("range" if same_family or not spans else "family")
    return kept


def _exactness(rule: SecurityGroupRule) -> int:
    """How narrow a rule is: of two that miss by as much, the narrower one was rather meant for this."""
    box: Box = content_of(rule)
    return -(box.ports[1] - box.ports[0] + 1) * (box.protocols[1] - box.protocols[0] + 1)
