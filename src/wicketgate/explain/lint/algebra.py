"""Rules that change nothing, by set algebra: what a rule allows is a region, and so is what the others allow.

A rule may go when the others cover all of its region, and when no flow changes from untracked to tracked or back
(EC2 User Guide, security group connection tracking): that is a matter of rules that name 0.0.0.0/0 or ::/0.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from wicketgate.explain.allowed import content_of, peers_of
from wicketgate.explain.region import EVERY_IPV4, EVERY_IPV6, EVERY_SOURCE, Box, Region, Span
from wicketgate.model import SecurityGroup, SecurityGroupRule, World
from wicketgate.paths.groups import is_any_address

_TCP, _UDP = (6, 6), (17, 17)


class Held(NamedTuple):
    """A rule and the group that it is in: what a reference means depends on the group's VPC."""

    group: SecurityGroup
    rule: SecurityGroupRule


def held(groups: Iterable[SecurityGroup]) -> Iterator[Held]:
    """All rules of groups."""
    for group in groups:
        yield from (Held(group, rule) for rule in group.rules)


def families(world: World, vpc_id: str) -> tuple[Span, ...]:
    """The address families in which packets move in a VPC."""
    vpc = world.vpc(vpc_id)
    return (EVERY_IPV4, EVERY_IPV6) if vpc is not None and vpc.ipv6_cidr_blocks else (EVERY_IPV4,)


def boxes(world: World, one: Held, peer_groups: Collection[str]) -> tuple[Box, ...]:
    """The packets that a rule allows from or to an interface that carries `peer_groups`."""
    content = content_of(one.rule)
    return tuple(
        box
        for family in families(world, one.group.vpc_id)
        for span in peers_of(world, one.group, one.rule, peer_groups)
        if (common := Box(span) & Box(family)) is not None and (box := common & content) is not None
    )


def needless(world: World, one: Held, others: Sequence[Held], carriers: Iterable[Collection[str]] = ()) -> bool:
    """Whether a rule changes nothing beside others of its direction.

    `carriers`: the sets of groups that interfaces with the referenced group carry. Without any, an interface that
    carries this group alone is thought of, so that the answer holds for every interface to come.
    """
    several = list(carriers) or [(one.rule.referenced_group_id or "",)]
    return _tracks_alike(world, one, others) and all(_covered(world, one, others, peers) for peers in several)


def _covered(world: World, one: Held, others: Sequence[Held], peer_groups: Collection[str]) -> bool:
    mine = boxes(world, one, peer_groups)
    near = [box for other in others for box in boxes(world, other, peer_groups) if any(box & part for part in mine)]
    return Region(mine) <= Region(near)


def _tracks_alike(world: World, one: Held, others: Sequence[Held]) -> bool:
    """Whether the same TCP and UDP flows are untracked without a rule."""
    if not is_any_address(one.rule):
        return True
    six = one.rule.cidr_ipv6 is not None
    alike = [other.rule for other in others if is_any_address(other.rule) and (other.rule.cidr_ipv6 is not None) is six]
    content = content_of(one.rule)
    judged = Region(box for protocol in (_TCP, _UDP) if (box := content & Box(EVERY_SOURCE, protocol)) is not None)
    if not judged <= Region(map(content_of, alike)):
        return False
    return all(
        any(content_of(rule).covers(whole) for rule in alike)
        for whole in (Box(EVERY_SOURCE, _TCP), Box(EVERY_SOURCE, _UDP))
        if content.covers(whole)
    )


def redundant(
    world: World, groups: Iterable[SecurityGroup], dead: Collection[str]
) -> Iterator[tuple[Held, list[Held]]]:
    """Rules that others of the same group cover, and which; all of them may go together.

    The narrowest goes first, so that of two alike the older one stays. `dead`: ids of rules that are not to count.
    """
    for group in groups:
        for egress in (False, True):
            rest = [one for one in held((group,)) if one.rule.is_egress is egress and one.rule.id not in dead]
            order = sorted(range(len(rest)), key=lambda number: (_width(world, rest[number]), -number))
            for one in [rest[number] for number in order]:
                others = [other for other in rest if other is not one]
                if needless(world, one, others):
                    rest = others
                    yield one, _involved(world, one, others, (one.rule.referenced_group_id or "",))


def shadowed(world: World, gone: Collection[str]) -> Iterator[tuple[Held, list[Held]]]:
    """Rules that change nothing on any interface that carries their group now, because its other groups allow the same.

    All of them may go together with `gone`, the ids of rules that are not to count.
    """
    left = set(gone)
    for group in world.groups:
        several = {frozenset(eni.group_ids) for eni in world.members(group.id)}
        if not several or frozenset((group.id,)) in several:
            continue
        for one in held((group,)):
            if one.rule.id in left:
                continue
            around = [_others(world, one, carried, left) for carried in several]
            peers = {frozenset(eni.group_ids) for eni in world.members(one.rule.referenced_group_id or "")}
            if all(needless(world, one, others, peers) for others in around):
                left.add(one.rule.id)
                yield one, _involved(world, one, around[0], frozenset().union(*peers))


def _others(world: World, one: Held, carried: Iterable[str], left: Collection[str]) -> list[Held]:
    """The rules beside one, of its direction, on an interface with these groups."""
    return [
        other
        for other in held(filter(None, map(world.group, sorted(carried))))
        if other.rule.is_egress is one.rule.is_egress and other.rule.id not in left and other.rule is not one.rule
    ]


def _involved(world: World, one: Held, others: Sequence[Held], peer_groups: Collection[str]) -> list[Held]:
    """Those of the others that have something in common with a rule."""
    mine = boxes(world, one, peer_groups)
    return [other for other in others if any(box & part for box in boxes(world, other, peer_groups) for part in mine)]


def _width(world: World, one: Held) -> int:
    return Region(boxes(world, one, (one.rule.referenced_group_id or "",))).size
