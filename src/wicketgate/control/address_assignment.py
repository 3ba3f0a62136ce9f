"""Further addresses of an interface: assign and unassign, IPv4 and IPv6. None of these actions takes a ClientToken.

All take effect at once, also while the instance runs. Prefixes are not offered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from wicketgate.control import resources
from wicketgate.control.addresses import Pool, canonical, check_limit, checked_count
from wicketgate.control.call import Ask, Call, Outcome, operation
from wicketgate.control.resources import INTERFACE, found, subnet_of
from wicketgate.model import ApiError, NetworkInterface

_PREFIXES: Final = ("Ipv4Prefixes", "Ipv4PrefixCount", "Ipv6Prefixes", "Ipv6PrefixCount")


def _ask(call: Call) -> Sequence[Ask]:
    return (resources.about_interface(call, call.action, call.parameters["NetworkInterfaceId"]),)


def _interface(call: Call) -> NetworkInterface:
    """The interface that the call names. Raises AuthFailure for one that a service manages."""
    resources.refuse_parameters(call.parameters, _PREFIXES, call.action)
    interface = found(INTERFACE, call.world, call.parameters["NetworkInterfaceId"])
    if interface.requester_managed:
        raise ApiError("AuthFailure", "You do not have permission to access the specified resource.")
    return interface


def _wanted(call: Call, names: str, count: str) -> tuple[list[str], int]:
    """The addresses that the call names, each once, or how many it wants: one of both.

    Raises MissingParameter for neither, InvalidParameterCombination for both, InvalidParameterValue below 1.
    """
    named = list(dict.fromkeys(call.parameters.get(names) or ()))
    number = checked_count(call.parameters, count)
    shown, counted = names[0].lower() + names[1:], count[0].lower() + count[1:]
    if named and number is not None:
        raise ApiError("InvalidParameterCombination", f"The parameter {counted} cannot be used with {shown}.")
    if not named and number is None:
        raise ApiError("MissingParameter", f"The request must contain the parameter {shown} or {counted}")
    owner = call.world.instance_of_interface(call.parameters["NetworkInterfaceId"])
    if number and owner is not None and owner.is_external:
        raise ApiError(
            "InvalidParameterCombination",
            f"The instance '{owner.id}' is a machine that exists by itself: name the addresses that it has, a count "
            "would choose others.",
        )
    if number == 0:
        raise ApiError(
            "InvalidParameterValue", f"Value (0) for parameter {counted} is invalid. Value must be a positive number."
        )
    return named, number or 0


def _taken(pool: Pool, interface: NetworkInterface, version: int, count: int) -> list[str]:
    addresses = pool.take(subnet_of(pool.world, interface), version, count)
    if addresses is None:
        raise ApiError(
            "InsufficientFreeAddressesInSubnet",
            "The specified subnet does not have enough free addresses to satisfy the request.",
        )
    return addresses


# -- IPv4 --------------------------------------------------------------------------------------------------------------


@operation("ec2", asks=_ask)
def assign_private_ip_addresses(call: Call) -> Outcome:
    """Adds secondary IPv4 addresses, named ones or so many of the subnet's free ones.

    With AllowReassignment a secondary address of another interface moves here. Raises InvalidParameterValue for one
    that may not move, PrivateIpAddressLimitExceeded, InsufficientFreeAddressesInSubnet.
    """
    interface = _interface(call)
    named, count = _wanted(call, "PrivateIpAddresses", "SecondaryPrivateIpAddressCount")
    if not interface.private_ip_address:
        raise ApiError("InvalidParameterValue", f"The subnet '{interface.subnet_id}' has no IPv4 CIDR block.")
    pool = Pool(call.world)
    moved = _moved(call, pool, interface, [canonical(4, one) for one in named])
    added = [*named, *_taken(pool, interface, 4, count)]
    new = [one for one in added if one not in interface.addresses]
    check_limit(1 + len(interface.secondary_ip_addresses) + len(new))
    changed = msgspec.structs.replace(interface, secondary_ip_addresses=(*interface.secondary_ip_addresses, *new))
    answer = {
        "NetworkInterfaceId": interface.id,
        "AssignedPrivateIpAddresses": [{"PrivateIpAddress": one} for one in added],
        "AssignedIpv4Prefixes": [],
    }
    return Outcome(answer, call.change(*moved, changed) if new else call.change())


def _moved(call: Call, pool: Pool, interface: NetworkInterface, named: list[str]) -> list[NetworkInterface]:
    """The other interfaces without the addresses that move to this one; addresses that nobody has are checked."""
    vpc_id, losers = subnet_of(call.world, interface).vpc_id, dict[str, NetworkInterface]()
    kept = []
    for address in named:
        holder = call.world.interface_at(vpc_id, address)
        if holder is None:
            pool.checked(subnet_of(call.world, interface), 4, address)
        elif address == holder.private_ip_address:
            raise ApiError("InvalidParameterValue", "secondary-addresses")
        elif holder.id != interface.id and not (
            call.parameters.get("AllowReassignment") and _movable(holder, interface)
        ):
            kept.append(address)
        elif holder.id != interface.id:
            loser = losers.get(holder.id, holder)
            left = tuple(one for one in loser.secondary_ip_addresses if one != address)
            losers[holder.id] = msgspec.structs.replace(loser, secondary_ip_addresses=left)
    if kept:
        raise ApiError("InvalidParameterValue", f"[{', '.join(kept)}] assigned, but move is not allowed.")
    return list(losers.values())


def _movable(holder: NetworkInterface, interface: NetworkInterface) -> bool:
    return holder.subnet_id == interface.subnet_id and not holder.requester_managed


@operation("ec2", asks=_ask)
def unassign_private_ip_addresses(call: Call) -> Outcome:
    """Takes secondary IPv4 addresses away. Raises InvalidParameterValue for one that is none, or the primary one."""
    interface, named = _interface(call), _named(call, "PrivateIpAddresses", 4)
    if interface.private_ip_address in named:
        raise ApiError(
            "InvalidParameterValue",
            f"Value ({interface.private_ip_address}) for parameter privateIpAddress is invalid. "
            "The primary IP address of an interface cannot be unassigned.",
        )
    left = _without(interface, interface.secondary_ip_addresses, named)
    return Outcome({}, call.change(msgspec.structs.replace(interface, secondary_ip_addresses=left)))


def _named(call: Call, names: str, version: int) -> list[str]:
    named = call.parameters.get(names)
    if not named:
        raise ApiError("MissingParameter", f"The request must contain the parameter {names[0].lower()}{names[1:]}")
    return list(dict.fromkeys(canonical(version, one) for one in named))


def _without(interface: NetworkInterface, present: tuple[str, ...], named: list[str]) -> tuple[str, ...]:
    if not set(named) <= set(present):
        raise ApiError(
            "InvalidParameterValue", f"Some of the specified addresses are not assigned to interface {interface.id}"
        )
    return tuple(one for one in present if one not in named)


# -- IPv6 --------------------------------------------------------------------------------------------------------------


@operation("ec2", asks=_ask)
def assign_ipv6_addresses(call: Call) -> Outcome:
    """Adds IPv6 addresses, named ones or so many of the subnet's free ones. One that it has already stays.

    Raises InvalidParameterValue in a subnet without IPv6, InvalidIPAddress.InUse, PrivateIpAddressLimitExceeded.
    """
    interface = _interface(call)
    named, count = _wanted(call, "Ipv6Addresses", "Ipv6AddressCount")
    pool, subnet = Pool(call.world), subnet_of(call.world, interface)
    addresses = dict.fromkeys(canonical(6, one) for one in named)
    new = [pool.checked(subnet, 6, one) for one in addresses if one not in interface.ipv6_addresses]
    new += _taken(pool, interface, 6, count)
    check_limit(len(interface.ipv6_addresses) + len(new))
    changed = msgspec.structs.replace(interface, ipv6_addresses=(*interface.ipv6_addresses, *new))
    answer: dict[str, Any] = {
        "NetworkInterfaceId": interface.id,
        "AssignedIpv6Addresses": list(addresses) or new,
        "AssignedIpv6Prefixes": [],
    }
    return Outcome(answer, call.change(changed) if new else call.change())


@operation("ec2", asks=_ask)
def unassign_ipv6_addresses(call: Call) -> Outcome:
    """Takes IPv6 addresses away. Raises InvalidParameterValue for one that is none, OperationNotPermitted for the only
    address of an interface in an IPv6-only subnet."""
    interface, named = _interface(call), _named(call, "Ipv6Addresses", 6)
    left = _without(interface, interface.ipv6_addresses, named)
    if not left and not interface.private_ip_address:
        raise ApiError(
            "OperationNotPermitted",
            f"The only address of network interface {interface.id} cannot be unassigned: its subnet is IPv6-only.",
        )
    answer = {
        "NetworkInterfaceId": interface.id,
        "UnassignedIpv6Addresses": named,
        "UnassignedIpv6Prefixes": [],
    }
    return Outcome(answer, call.change(msgspec.structs.replace(interface, ipv6_addresses=left)))
