"""What of a World is looked after in the subnets that are bound to networks of the host."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from wicketgate.model import Subnet, World
from wicketgate.netd.links import Link

ROUTER6: Final = "fe80::1"
"""The one router that IPv6 hosts know."""

_OVER: Final = frozenset({"shutting-down", "terminated"})


@dataclass(frozen=True)
class Bound:
    """A subnet that is bound to a network of the host, as it stands."""

    link: Link
    problem: str = ""
    """Why the network cannot be used; empty when it can."""
    taken: Mapping[str, str] = field(default_factory=dict)
    """Addresses that are not answered for, because somebody else had them -> his link-layer address."""

    @property
    def notices(self) -> list[str]:
        """What else is wrong, in words."""
        return [f"{address} is not answered for: {mac} has it" for address, mac in sorted(self.taken.items())]


def watched(world: World, instance_id: str, subnet_ids: Collection[str]) -> dict[tuple[str, str], bool]:
    """(subnet, address) of an external machine in some subnets -> whether the machine's state goes by it: the first of
    each family of an interface does."""
    instance = world.instance(instance_id)
    if instance is None or not instance.is_external or instance.state in _OVER:
        return {}
    found = {}
    for eni in world.interfaces_of_instance(instance):
        if eni.subnet_id in subnet_ids:
            first = {eni.private_ip_address, *eni.ipv6_addresses[:1]}
            found.update({(eni.subnet_id, address): address in first for address in eni.addresses})
    return found


def answered(world: World, subnet: Subnet, bound: Bound) -> dict[str, str]:
    """The addresses that are answered for on a subnet's network, each with whose it is: endpoints' first."""
    found = {}
    for endpoint in world.endpoints:
        eni = world.interface(endpoint.interface_id)
        if eni is not None and eni.subnet_id == subnet.id:
            found.update(dict.fromkeys(eni.addresses, endpoint.id))
    if bound.link.return_path and bound.link.mode != "routed":
        four, six = subnet.router_address, subnet.ipv6_network
        router = [*([] if four is None else [four]), *([] if six is None else [str(six[1]), ROUTER6])]
        found.update(dict.fromkeys(router, f"the router of {subnet.id}"))
    return {address: owner for address, owner in found.items() if address not in bound.taken}


def touched(before: World, world: World) -> set[str]:
    """Instances that came, went or became others, and those of such interfaces."""
    instances = _changed(before.by_id("instances"), world.by_id("instances"))
    for eni_id in _changed(before.by_id("interfaces"), world.by_id("interfaces")):
        owners = (place.instance_of_interface(eni_id) for place in (before, world))
        instances |= {one.id for one in owners if one is not None}
    return instances


def _changed(before: Mapping[str, object], now: Mapping[str, object]) -> set[str]:
    if before is now:
        return set()
    return {key for key, one in now.items() if before.get(key) is not one} | (before.keys() - now.keys())
