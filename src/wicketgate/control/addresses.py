"""The private addresses of network interfaces: which a call asks for, and which are free.

The first four addresses of a subnet's range and its last are reserved, of IPv4 and IPv6 alike (VPC User Guide, "Subnet
CIDR blocks"). What nobody asks for by name is the lowest free one. In a subnet that is bound to a network of the host
the third and fourth may be named: hosts of that network stand there, and no service of a VPC does.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

import msgspec

from wicketgate.model import ApiError, Subnet, World
from wicketgate.model.resources import IPv4or6Network

RESERVED_FIRST: Final = 4
RESERVED_FIRST_ATTACHED: Final = 2
"""Of a subnet that is bound to a network of the host: its base and the VPC router."""
MAX_ADDRESSES: Final = 50
"""Addresses of one interface in each family: what AWS's largest common instance types have (EC2 User Guide, "Maximum IP
addresses per network interface")."""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """The addresses that a call asks for, for one interface: some by name, of others so many."""

    primary: str = ""
    secondary: tuple[str, ...] = ()
    secondary_count: int = 0
    ipv6: tuple[str, ...] = ()
    ipv6_count: int | None = None
    """None: what the subnet says (AssignIpv6AddressOnCreation)."""

    @property
    def names_any(self) -> bool:
        """Whether it names an address, which only one interface can have."""
        return bool(self.primary or self.secondary or self.ipv6)


class Addresses(msgspec.Struct, frozen=True, kw_only=True):
    """The addresses that an interface gets, as NetworkInterface has them."""

    primary: str = ""
    secondary: tuple[str, ...] = ()
    ipv6: tuple[str, ...] = ()


def wish_of(parameters: Mapping[str, Any]) -> Wish:
    """What PrivateIpAddress, PrivateIpAddresses, SecondaryPrivateIpAddressCount, Ipv6Addresses and Ipv6AddressCount ask
    for, of CreateNetworkInterface or of an interface of RunInstances.

    Raises InvalidParameterCombination for two primary addresses and for names beside a count, InvalidParameterValue for
    a negative count, PrivateIpAddressLimitExceeded.
    """
    listed: Sequence[Mapping[str, Any]] = parameters.get("PrivateIpAddresses") or ()
    primaries = [one.get("PrivateIpAddress") or "" for one in listed if one.get("Primary")]
    single: str = parameters.get("PrivateIpAddress") or ""
    if primaries and single:
        raise ApiError(
            "InvalidParameterCombination",
            "The parameter privateIpAddress cannot be used with a primary address in privateIpAddresses.",
        )
    if len(primaries) > 1:
        raise ApiError("InvalidParameterCombination", "Only one address in privateIpAddresses can be the primary one.")
    others = [one.get("PrivateIpAddress") or "" for one in listed if not one.get("Primary")]
    count = checked_count(parameters, "SecondaryPrivateIpAddressCount") or 0
    if others and count:
        raise _not_both("secondaryPrivateIpAddressCount", "privateIpAddresses")
    wish = Wish(
        primary=single or next(iter(primaries), ""),
        secondary=tuple(address for address in others if address),
        secondary_count=count or others.count(""),
        ipv6=tuple(one.get("Ipv6Address") or "" for one in parameters.get("Ipv6Addresses") or ()),
        ipv6_count=checked_count(parameters, "Ipv6AddressCount"),
    )
    if wish.ipv6 and wish.ipv6_count is not None:
        raise _not_both("ipv6AddressCount", "ipv6Addresses")
    check_limit(1 + len(wish.secondary) + wish.secondary_count)
    check_limit(len(wish.ipv6) + (wish.ipv6_count or 0))
    return wish


def checked_count(parameters: Mapping[str, Any], name: str) -> int | None:
    """How many addresses a parameter asks for; None when it is not there. Raises InvalidParameterValue below 0."""
    count: int | None = parameters.get(name)
    if count is not None and count < 0:
        raise ApiError(
            "InvalidParameterValue",
            f"Value ({count}) for parameter {name[0].lower()}{name[1:]} is invalid. Value must be a positive number.",
        )
    return count


def _not_both(one: str, other: str) -> ApiError:
    return ApiError("InvalidParameterCombination", f"The parameter {one} cannot be used with the parameter {other}.")


def check_limit(count: int) -> None:
    """Raise PrivateIpAddressLimitExceeded for more addresses of one family than an interface may have."""
    if count > MAX_ADDRESSES:
        raise ApiError("PrivateIpAddressLimitExceeded", "Number of private addresses will exceed limit.")


def free_count(world: World, subnet: Subnet) -> int:
    """How many IPv4 addresses of a subnet an interface could still get: AvailableIpAddressCount."""
    network = subnet.network
    if network is None:
        return 0
    there = [eni for eni in world.interfaces_of_vpc(subnet.vpc_id) if eni.subnet_id == subnet.id]
    taken = sum(len(eni.addresses) - len(eni.ipv6_addresses) for eni in there)
    return max(0, network.num_addresses - RESERVED_FIRST - 1 - taken)


class Pool:
    """The addresses of a World's subnets that a call can still give. What it gives is taken from then on."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._given: set[tuple[str, str]] = set()
        """(VPC id, address)."""
        self._free: dict[tuple[str, int], Iterator[str]] = {}

    def claim(self, subnet: Subnet, wish: Wish) -> None:
        """Take the addresses that a wish names, before any are given that nobody named.

        Raises InvalidParameterValue for no address, one outside the subnet or reserved; InvalidIPAddress.InUse.
        """
        for address in ((wish.primary,) if wish.primary else ()) + wish.secondary:
            self._given.add((subnet.vpc_id, self.checked(subnet, 4, address)))
        for address in wish.ipv6:
            self._given.add((subnet.vpc_id, self.checked(subnet, 6, address)))

    def fill(self, subnet: Subnet, wish: Wish) -> Addresses | None:
        """The addresses for one interface whose wish was claimed; None when the subnet has too few.

        Raises InvalidParameterValue for addresses of a family that the subnet has not.
        """
        if subnet.network is None and (wish.primary or wish.secondary or wish.secondary_count):
            raise ApiError("InvalidParameterValue", f"The subnet '{subnet.id}' has no IPv4 CIDR block.")
        first = [wish.primary] if wish.primary or subnet.network is None else self.take(subnet, 4, 1)
        secondary = self.take(subnet, 4, wish.secondary_count)
        ipv6 = self.take(subnet, 6, _ipv6_wanted(subnet, wish))
        if first is None or secondary is None or ipv6 is None:
            return None
        return Addresses(
            primary=first[0],
            secondary=(*wish.secondary, *secondary),
            ipv6=(*(canonical(6, address) for address in wish.ipv6), *ipv6),
        )

    def take(self, subnet: Subnet, version: int, count: int) -> list[str] | None:
        """So many free addresses, lowest first; None, and none is taken, when there are fewer.

        Raises InvalidParameterValue in a subnet without a range of this family.
        """
        if not count:
            return []
        free = self._free.setdefault((subnet.id, version), self._lowest_first(subnet, version))
        found = list(islice(free, count))
        if len(found) < count:
            return None
        self._given.update((subnet.vpc_id, address) for address in found)
        return found

    def take_for_endpoint(self, subnet: Subnet, version: int) -> list[str] | None:
        """An address for an endpoint: the first free one of those that a network of the host has for them, if it has
        any of this family, else as `take` gives one. None when there is none."""
        network = _range(subnet, version)
        meant = subnet.attached.endpoint_addresses if subnet.attached is not None else ()
        offered = [one for one in meant if (":" in one) is (version == 6) and ipaddress.ip_address(one) in network]
        for address in offered:
            try:
                found = self.checked(subnet, version, address)
            except ApiError:  # taken or reserved: the next one
                continue
            self._given.add((subnet.vpc_id, found))
            return [found]
        return None if offered else self.take(subnet, version, 1)

    def checked(self, subnet: Subnet, version: int, given: str) -> str:
        """A named address in canonical form, if an interface can have it. Raises as `claim` does."""
        address, network = ipaddress.ip_address(canonical(version, given)), _range(subnet, version)
        if address not in network:
            raise ApiError("InvalidParameterValue", "Address does not fall within the subnet's address range")
        first = RESERVED_FIRST if subnet.attached is None else RESERVED_FIRST_ATTACHED
        if not first <= int(address) - int(network.network_address) < network.num_addresses - 1:
            raise ApiError("InvalidParameterValue", f"Address {address} is in subnet's reserved address range")
        if self._taken(subnet.vpc_id, str(address)):
            raise ApiError("InvalidIPAddress.InUse", f"Address {address} is in use.")
        return str(address)

    def _lowest_first(self, subnet: Subnet, version: int) -> Iterator[str]:
        network = _range(subnet, version)
        for offset in range(RESERVED_FIRST, network.num_addresses - 1):
            if not self._taken(subnet.vpc_id, address := str(network.network_address + offset)):
                yield address

    def _taken(self, vpc_id: str, address: str) -> bool:
        return (vpc_id, address) in self._given or self.world.interface_at(vpc_id, address) is not None


def canonical(version: int, given: str) -> str:
    """An address as it is kept. Raises InvalidParameterValue for what is none of this family, or has a zone."""
    try:
        address = ipaddress.IPv4Address(given) if version == 4 else ipaddress.IPv6Address(given)
        if "%" in given:
            raise ValueError(given)
    except ValueError as error:
        raise ApiError("InvalidParameterValue", f"invalid value for parameter address: {given}") from error
    return str(address)


def _ipv6_wanted(subnet: Subnet, wish: Wish) -> int:
    """How many IPv6 addresses the subnet is to choose. In an IPv6-only subnet an interface has at least one."""
    if wish.ipv6:
        return 0
    wanted = int(subnet.assign_ipv6_on_creation) if wish.ipv6_count is None else wish.ipv6_count
    return wanted if subnet.network is not None else max(1, wanted)


def _range(subnet: Subnet, version: int) -> IPv4or6Network:
    network = subnet.network if version == 4 else subnet.ipv6_network
    if network is None:
        raise ApiError("InvalidParameterValue", f"The subnet '{subnet.id}' has no IPv{version} CIDR block.")
    return network
