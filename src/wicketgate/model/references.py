"""Which security groups name a prefix list: a look-up over all rules, made once and carried from World to World."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from wicketgate.model.resources import SecurityGroup

Naming = dict[str, frozenset[str]]
"""Id of a prefix list -> ids of the groups with rules that name it; not to be changed."""


def naming(groups: Iterable[SecurityGroup]) -> Naming:
    """The look-up of all groups."""
    found: dict[str, set[str]] = {}
    for group in groups:
        for list_id in named_by(group):
            found.setdefault(list_id, set()).add(group.id)
    return {list_id: frozenset(there) for list_id, there in found.items()}


def renamed(
    before: Naming, there: Mapping[str, SecurityGroup], now: Mapping[str, SecurityGroup], touched: Iterable[str]
) -> Naming:
    """The look-up of the groups `now`, of which only those `touched` (ids) differ from the ones `there` before."""
    found = before
    for group_id in dict.fromkeys(touched):
        was, named = named_by(there.get(group_id)), named_by(now.get(group_id))
        for list_id in was ^ named:
            found = dict(found) if found is before else found
            rest = found.get(list_id, frozenset()) ^ {group_id}
            if rest:
                found[list_id] = rest
            else:
                del found[list_id]
    return found


def named_by(group: SecurityGroup | None) -> set[str]:
    """Ids of the prefix lists that a group's rules name."""
    return set() if group is None else {rule.prefix_list_id for rule in group.rules if rule.prefix_list_id is not None}
