"""Where network interfaces are: look-ups by VPC, address, link, group and instance.

Made once from all interfaces, then carried from World to World: a change of a few interfaces copies the tables and
mends the entries concerned, which with 1,000 interfaces costs a twentieth of making them anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from wicketgate.model.resources import NetworkInterface

_Key = TypeVar("_Key")
Place = tuple[str, str]
"""VPC, and an address or a link's name in it."""
Interfaces = tuple[NetworkInterface, ...]
VpcOf = Callable[[str], str | None]
"""Subnet id -> VPC id; None when there is no such subnet."""


@dataclass(frozen=True, slots=True)
class Places:
    """Tables of network interfaces, none of them to be changed. An interface whose subnet is missing is in no VPC."""

    by_vpc: dict[str, dict[str, NetworkInterface]]
    by_address: dict[Place, Interfaces]
    """More than one holder is a contradiction, as is one twice."""
    by_link: dict[Place, Interfaces]
    by_group: dict[str, Interfaces]
    by_instance: dict[str, Interfaces]
    """Further interfaces (`attached_to`), by device index."""


def places(interfaces: Iterable[NetworkInterface], vpc_of: VpcOf) -> Places:
    """The tables of all interfaces, which come in the order of their creation."""
    made = Places({}, {}, {}, {}, {})
    for eni in interfaces:
        _add(made, eni, vpc_of(eni.subnet_id))
        for group_id in dict.fromkeys(eni.group_ids):
            made.by_group[group_id] = (*made.by_group.get(group_id, ()), eni)
    return made


def carried(
    before: Places,
    there: Mapping[str, NetworkInterface],
    now: Mapping[str, NetworkInterface],
    touched: Iterable[str],
    vpc_of: VpcOf,
) -> Places | None:
    """The tables of the interfaces `now`, of which only those `touched` differ from the ones `there` before.

    `touched`: ids, those of new interfaces in the order of their creation. None when one went from one VPC to
    another: the tables have to be made anew then.
    """
    ids = dict.fromkeys(touched)
    gone = [one for key in ids if (one := there.get(key)) is not None]
    come = [one for key in ids if (one := now.get(key)) is not None]
    if any(one.id in now and vpc_of(one.subnet_id) != vpc_of(now[one.id].subnet_id) for one in gone):
        return None
    by_vpc = dict(before.by_vpc)
    for vpc_id in {vpc_of(one.subnet_id) for one in (*gone, *come)} & by_vpc.keys():
        by_vpc[vpc_id or ""] = dict(by_vpc[vpc_id or ""])
    made = Places(
        by_vpc, dict(before.by_address), dict(before.by_link), dict(before.by_group), dict(before.by_instance)
    )
    for eni in gone:
        _remove(made, eni, vpc_of(eni.subnet_id), replaced=eni.id in now)
    for eni in come:
        _add(made, eni, vpc_of(eni.subnet_id))
    _regroup(made, now.values(), {group_id for eni in (*gone, *come) for group_id in eni.group_ids})
    return made


def _add(made: Places, eni: NetworkInterface, vpc_id: str | None) -> None:
    if vpc_id is not None:
        made.by_vpc.setdefault(vpc_id, {})[eni.id] = eni
        for address in eni.addresses:
            made.by_address[vpc_id, address] = (*made.by_address.get((vpc_id, address), ()), eni)
        made.by_link[vpc_id, eni.link] = (*made.by_link.get((vpc_id, eni.link), ()), eni)
    if eni.attached_to:
        further = (*made.by_instance.get(eni.attached_to, ()), eni)
        made.by_instance[eni.attached_to] = tuple(sorted(further, key=lambda one: one.device_index))


def _remove(made: Places, eni: NetworkInterface, vpc_id: str | None, *, replaced: bool) -> None:
    if vpc_id is not None:
        if not replaced:  # what is replaced keeps its place
            del made.by_vpc[vpc_id][eni.id]
        for address in set(eni.addresses):
            _without(made.by_address, (vpc_id, address), eni)
        _without(made.by_link, (vpc_id, eni.link), eni)
    if eni.attached_to:
        _without(made.by_instance, eni.attached_to, eni)


def _without(table: dict[_Key, Interfaces], key: _Key, eni: NetworkInterface) -> None:
    rest = tuple(one for one in table[key] if one is not eni)
    if rest:
        table[key] = rest
    else:
        del table[key]


def _regroup(made: Places, interfaces: Iterable[NetworkInterface], group_ids: set[str]) -> None:
    """The members of these groups anew, in the order of their creation."""
    found: dict[str, list[NetworkInterface]] = {group_id: [] for group_id in group_ids}
    elsewhere = group_ids.isdisjoint
    for eni in interfaces:
        if not elsewhere(eni.group_ids):
            for group_id in group_ids.intersection(eni.group_ids):
                found[group_id].append(eni)
    for group_id, members in found.items():
        if members:
            made.by_group[group_id] = tuple(members)
        else:
            made.by_group.pop(group_id, None)
