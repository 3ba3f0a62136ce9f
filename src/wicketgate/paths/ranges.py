"""Addresses and ranges as numbers, parsed once: a judgement compares integers and never reads text."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from functools import lru_cache
from typing import Generic, NamedTuple, TypeVar

from wicketgate.model import PrefixList, PrefixListEntry
from wicketgate.model.addresses import ipv4_value

_Thing = TypeVar("_Thing")
_Value = TypeVar("_Value")


class Address(NamedTuple):
    """An address: family, 4 or 6, and value."""

    version: int
    value: int


class Range(NamedTuple):
    """A range: family, network and how many bits belong to the host."""

    version: int
    network: int
    host_bits: int

    def holds(self, address: Address) -> bool:
        """Whether the address is of this family and lies in the range."""
        return address.version == self.version and address.value >> self.host_bits == self.network

    @property
    def is_any(self) -> bool:
        """Whether it is 0.0.0.0/0 or ::/0."""
        return self.host_bits == (32 if self.version == 4 else 128)


class Remembered(Generic[_Thing, _Value]):
    """What a function made of a frozen value, for as long as it is given that very object.

    Resources are frozen but cannot be hashed (they hold tags), and hashing a group would cost more than reading it.
    """

    def __init__(self, make: Callable[[_Thing], _Value], size: int) -> None:
        self._make = make
        self._size = size
        self._known: dict[int, tuple[_Thing, _Value]] = {}

    def __call__(self, thing: _Thing) -> _Value:
        """What the function makes of the object."""
        known = self._known.get(id(thing))
        if known is None or known[0] is not thing:
            if len(self._known) >= self._size:
                self._known.clear()
            known = self._known[id(thing)] = (thing, self._make(thing))
        return known[1]


@lru_cache(maxsize=65_536)
def address(text: str) -> Address:
    """An address from its text. Raises ValueError."""
    if (value := ipv4_value(text)) is not None:
        return Address(4, value)
    parsed = ipaddress.ip_address(text)
    return Address(parsed.version, int(parsed))


@lru_cache(maxsize=65_536)
def canonical(text: str) -> str:
    """An address in the form in which the World has it. Raises ValueError."""
    if ipv4_value(text) is not None:
        return text
    return str(ipaddress.ip_address(text))


@lru_cache(maxsize=65_536)
def cidr(text: str) -> Range:
    """A range from its text, host bits ignored (EC2 API, IpRange). Raises ValueError."""
    network = ipaddress.ip_network(text, strict=False)
    host_bits = network.max_prefixlen - network.prefixlen
    return Range(network.version, int(network.network_address) >> host_bits, host_bits)


@lru_cache(maxsize=8192)
def never_forwarded(text: str) -> bool:
    """Whether no router passes a packet with this source on: unspecified, loopback, link-local, multicast, broadcast
    (RFC 1812 section 5.3.7, RFC 3927 section 2.7, RFC 4291 section 2.5)."""
    parsed = ipaddress.ip_address(text)
    special = parsed.is_unspecified or parsed.is_loopback or parsed.is_link_local or parsed.is_multicast
    return special or (parsed.version == 4 and int(parsed) >> 24 in (0, 255))


def entry_of(prefix_list: PrefixList, where: Address) -> PrefixListEntry | None:
    """The narrowest entry of a prefix list's present version that holds an address."""
    for host_bits, entries in _entries(prefix_list).get(where.version, ()):
        found = entries.get(where.value >> host_bits)
        if found is not None:
            return found
    return None


def _index(prefix_list: PrefixList) -> dict[int, list[tuple[int, dict[int, PrefixListEntry]]]]:
    """Family -> (host bits, network -> entry) of each length of prefix that occurs, the longest first."""
    lengths: dict[tuple[int, int], dict[int, PrefixListEntry]] = {}
    for entry in prefix_list.entries:
        where = cidr(entry.cidr)
        lengths.setdefault((where.version, where.host_bits), {}).setdefault(where.network, entry)
    found: dict[int, list[tuple[int, dict[int, PrefixListEntry]]]] = {}
    for (version, host_bits), entries in sorted(lengths.items()):
        found.setdefault(version, []).append((host_bits, entries))
    return found


_entries: Remembered[PrefixList, dict[int, list[tuple[int, dict[int, PrefixListEntry]]]]] = Remembered(_index, 4096)
