"""Entries and versions of managed prefix lists.

Entries are kept in the order of their addresses, so that what a list holds does not depend on how it came to hold it.
A version is kept as what it did to the one before; earlier ones are found by undoing that. (VPC User Guide, "Managed
prefix lists".)
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from msgspec.structs import replace

from wicketgate.control.permissions import canonical
from wicketgate.model import ApiError, PrefixList, PrefixListEntry, PrefixListVersion, World

MAX_ENTRIES: Final = 1000
MAX_VERSIONS: Final = 1000
"""Entries that a list may be made for, and versions of one list that are kept (VPC User Guide, "Amazon VPC quotas")."""
MAX_DESCRIPTION: Final = 255

Entries = tuple[PrefixListEntry, ...]


# -- what a call asks for ----------------------------------------------------------------------------------------------


def requested(given: Iterable[Mapping[str, Any]], address_family: str) -> dict[str, PrefixListEntry]:
    """CIDR block in canonical form -> entry, of AddPrefixListEntry and RemovePrefixListEntry items of a call.

    Raises InvalidParameterValue for a malformed block, one of the other family, a block that comes twice and a
    description that is too long.
    """
    found: dict[str, PrefixListEntry] = {}
    for one in given:
        entry = PrefixListEntry(cidr=_block(one.get("Cidr"), address_family), description=one.get("Description") or "")
        if len(entry.description) > MAX_DESCRIPTION:
            raise _bad(
                f"The description of the entry with the CIDR ({entry.cidr}) exceeds {MAX_DESCRIPTION} characters."
            )
        if entry.cidr in found:
            raise _bad(f"Request cannot contain Cidr {one.get('Cidr')} more than once")
        found[entry.cidr] = entry
    return found


def _block(cidr: str | None, address_family: str) -> str:
    given = cidr or ""
    block = canonical(given, ipaddress.IPv6Network if ":" in given else ipaddress.IPv4Network)
    if (":" in given) != (address_family == "IPv6"):
        raise _bad(f"The CIDR ({given}) is not of the address family of the prefix list, {address_family}.")
    return block


def _bad(message: str) -> ApiError:
    return ApiError("InvalidParameterValue", message)


def changed(entries: Entries, add: Mapping[str, PrefixListEntry], remove: Mapping[str, PrefixListEntry]) -> Entries:
    """The entries after a modification; an added one whose block is there takes the place of that one.

    Raises InvalidParameterValue for a block in both `add` and `remove`, and InvalidPrefixListModification when an
    added entry is there to the letter or a removed one is not.
    """
    for cidr in add.keys() & remove.keys():
        raise _bad(f"Request cannot contain Cidr {cidr} in both AddPrefixListEntries and RemovePrefixListEntries")
    there = {entry.cidr: entry for entry in entries}
    for cidr in remove:
        if there.pop(cidr, None) is None:
            raise _impossible(f"An entry with the CIDR ({cidr}) does not exist.")
    for cidr, entry in add.items():
        if there.get(cidr) == entry:
            raise _impossible(f"An entry with the CIDR ({cidr}) and description ({entry.description}) already exists.")
    return in_order((there | dict(add)).values())


def _impossible(message: str) -> ApiError:
    return ApiError("InvalidPrefixListModification", message)


def check_size(count: int, max_entries: int) -> None:
    """Raise PrefixListMaxEntriesExceeded when a list for `max_entries` cannot hold so many entries."""
    if count > max_entries:
        raise ApiError(
            "PrefixListMaxEntriesExceeded",
            f"The number of entries ({count}) exceeds the maximum number of entries for the prefix list "
            f"({max_entries}).",
        )


# -- order -------------------------------------------------------------------------------------------------------------


def in_order(entries: Iterable[PrefixListEntry]) -> Entries:
    """The entries as lists keep them: by address, the wider block first."""
    return tuple(sorted(entries, key=place))


def place(entry: PrefixListEntry) -> str:
    """Text that sorts as the entry's block does."""
    return _place(entry.cidr)


@lru_cache(maxsize=65_536)
def _place(cidr: str) -> str:
    network = ipaddress.ip_network(cidr)
    return f"{int(network.network_address):032x}/{network.prefixlen:03}"


# -- versions ----------------------------------------------------------------------------------------------------------


def next_version(prefix_list: PrefixList, entries: Entries, state: str) -> tuple[PrefixList, PrefixListVersion]:
    """The list with other entries in a new version, and what that version did."""
    before, after, number = set(prefix_list.entries), set(entries), prefix_list.version + 1
    step = PrefixListVersion(
        id=version_id(prefix_list.id, number),
        prefix_list_id=prefix_list.id,
        number=number,
        added=tuple(entry for entry in entries if entry not in before),
        removed=tuple(entry for entry in prefix_list.entries if entry not in after),
    )
    return replace(prefix_list, version=number, entries=entries, state=state, state_message=""), step


def version_id(prefix_list_id: str, number: int) -> str:
    """Id of what is kept of a version."""
    return f"{prefix_list_id}:{number}"


def outlived(world: World, prefix_list: PrefixList) -> list[tuple[str, str]]:
    """What is no longer kept now that the list has this version, to be deleted: (kind, id)."""
    oldest = version_id(prefix_list.id, prefix_list.version - MAX_VERSIONS + 1)
    return [("prefix-list-version", oldest)] if oldest in world.by_id("prefix_list_versions") else []


def entries_at(world: World, prefix_list: PrefixList, version: int) -> Entries:
    """The entries of a version of the list. Raises InvalidParameterValue for one that is not, or no longer, there."""
    steps: Mapping[str, PrefixListVersion] = world.by_id("prefix_list_versions")
    undone = [steps.get(version_id(prefix_list.id, number)) for number in range(prefix_list.version, version, -1)]
    if not 1 <= version <= prefix_list.version or None in undone:
        raise _bad(f"The version ({version}) of the prefix list ({prefix_list.id}) does not exist.")
    entries = set(prefix_list.entries)
    for step in undone:
        entries = entries.difference(step.added).union(step.removed) if step is not None else entries
    return in_order(entries)
