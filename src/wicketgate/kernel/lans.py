"""All subnets that are bound to networks of the host: opened, told what of a World concerns them, and given back."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping

from wicketgate.kernel import lan, lan_device, netns
from wicketgate.kernel.delta import Delta
from wicketgate.kernel.lan import Binding, InUse, Lan
from wicketgate.kernel.plug import ROUTER6, Attachment
from wicketgate.model import FabricError, World

_logger = logging.getLogger("wicketgate.lan")


def nobody(_namespace: str, _device: str, _addresses: Collection[str], _seconds: float) -> Mapping[str, str]:
    """In the place of `neighbours.in_use`: for networks of which it is known that nobody has any address."""
    return {}


class Lans:
    """The bound subnets of the World that is in force."""

    def __init__(self, bindings: Mapping[str, Binding], in_use: InUse) -> None:
        self.by_subnet: dict[str, Lan] = {}
        self._bindings = dict(bindings)
        self._in_use = in_use

    @property
    def sizes(self) -> dict[str, int]:
        """Subnet id -> the MTU of its network."""
        return {subnet_id: one.mtu for subnet_id, one in self.by_subnet.items()}

    def close(self) -> None:
        """Free the handles. Nothing in the kernel changes."""
        for one in self.by_subnet.values():
            one.close()

    # -- along a change of the World -----------------------------------------------------------------------------------

    def prepare(self, world: World, found: Delta, *, fresh: bool) -> None:
        """Before anything else: open what a World binds, and see that nobody has its endpoints' new addresses.

        `fresh`: whatever is found must not keep the World from being enforced. Raises FabricError.
        """
        if not self._bindings:
            return
        if fresh or found.whole:
            for subnet_id in self._bindings.keys() - self.by_subnet.keys():
                if world.subnet(subnet_id) is not None:
                    self._open(subnet_id)
        if fresh:
            for subnet_id, one in self.by_subnet.items():
                if subnet_id in self._bindings:
                    one.rebind(self._bindings[subnet_id])
        if not fresh:
            for subnet_id, one in self.by_subnet.items():
                subnet = world.subnet(subnet_id)
                if subnet is not None and subnet.vpc_id in found.returns:
                    one.check(_endpoint_addresses(world, subnet_id))

    def change(self, places: Iterable[tuple[str, str]], wanted: Iterable[Attachment]) -> None:
        """Links of machines were looked at: the places where they were, and how they are now. Raises FabricError."""
        gone: dict[str, set[str]] = {}
        for namespace, device in places:
            gone.setdefault(namespace, set()).add(device)
        now: dict[str, dict[str, tuple[str, ...]]] = {}
        for one in wanted:
            if one.on_lan:
                now.setdefault(one.namespace, {})[one.device] = one.addresses
        for there in self.by_subnet.values():
            new = now.get(there.namespace, {})
            there.change(gone.get(there.namespace, set()) - new.keys(), new)

    def keep(self, world: World, vpc_id: str, wanted: Iterable[Attachment]) -> None:
        """These are all the links of a VPC. Raises FabricError."""
        devices = {one.device for one in wanted if one.on_lan}
        for one in self._of_vpc(world, vpc_id):
            one.keep(devices)
            one.laid_mtu = one.mtu

    def answer(self, world: World, vpc_id: str) -> None:
        """Answer for the addresses of a VPC's endpoints and, with a return path, of its router. Raises FabricError."""
        for one in self._of_vpc(world, vpc_id):
            one.answer(_answers(world, one))

    def finish(self, world: World, *, fresh: bool) -> None:
        """At last: take in what is new, give back what is bound no more."""
        if not fresh and not self.by_subnet:
            return
        for subnet_id in [one for one in self.by_subnet if one not in self._bindings or world.subnet(one) is None]:
            self.by_subnet[subnet_id].close()
            self._release(self.by_subnet.pop(subnet_id).namespace)
        if fresh:
            self._sweep()
        for one in self.by_subnet.values():
            if not one.looked:
                one.look()

    # -- along the operator's file and the host ------------------------------------------------------------------------

    def rebind(self, bindings: Mapping[str, Binding], world: World) -> set[str]:
        """Take other bindings; returns the VPCs whose links are to be looked at again. Raises FabricError."""
        before, self._bindings = self._bindings, dict(bindings)
        changed = {one for one in before.keys() | bindings.keys() if before.get(one) != bindings.get(one)}
        here = {one for one in changed if world.subnet(one) is not None}
        # What gives a link back comes before what may want it.
        for subnet_id in sorted(here, key=lambda one: one in bindings):
            there = self.by_subnet.get(subnet_id)
            if subnet_id not in bindings:
                if there is not None:
                    there.close()
                    self._release(self.by_subnet.pop(subnet_id).namespace)
            elif there is None:
                self._open(subnet_id)
            else:
                there.rebind(bindings[subnet_id])
                there.answer(_answers(world, there))
                there.look()
        return {world.vpc_of_subnet(one).id for one in here}

    def look(self) -> set[str]:
        """See whether every device is there; returns the subnets whose machines' links are of another MTU."""
        for one in self.by_subnet.values():
            one.look()
        return {subnet_id for subnet_id, one in self.by_subnet.items() if one.laid_mtu != one.mtu}

    def _open(self, subnet_id: str) -> None:
        self.by_subnet[subnet_id] = Lan(subnet_id, self._bindings[subnet_id], self._in_use)

    def _of_vpc(self, world: World, vpc_id: str) -> list[Lan]:
        return [
            one
            for subnet_id, one in self.by_subnet.items()
            if (subnet := world.subnet(subnet_id)) is not None and subnet.vpc_id == vpc_id
        ]

    def _sweep(self) -> None:
        """Give back what an earlier process bound and what is bound no more."""
        used = {one.namespace for one in self.by_subnet.values()}
        for namespace in sorted(filter(lan.is_lan, netns.names() - used)):
            self._release(namespace)
        bindings = [one.binding for one in self.by_subnet.values()]
        try:
            lan_device.restore_all({one.device for one in bindings if one.mode == "own"})
        except FabricError as error:
            _logger.error("links of this host: %s", error)

    def _release(self, namespace: str) -> None:
        """What cannot be given back now is when netd starts again; no change fails for it."""
        try:
            lan.remove(namespace)
        except FabricError as error:
            _logger.error("the link of namespace %s cannot be given back: %s", namespace, error)


def _endpoint_addresses(world: World, subnet_id: str) -> frozenset[str]:
    return frozenset(
        address
        for endpoint in world.endpoints
        if endpoint.subnet_id == subnet_id and (eni := world.interface(endpoint.interface_id)) is not None
        for address in eni.addresses
    )


def _answers(world: World, one: Lan) -> frozenset[str]:
    found = _endpoint_addresses(world, one.subnet_id)
    subnet = world.subnet(one.subnet_id)
    if subnet is None or not one.binding.return_path:
        return found
    router4 = {subnet.router_address} if subnet.router_address is not None else set()
    router6 = {str(subnet.ipv6_network[1]), ROUTER6} if subnet.ipv6_network is not None else set()
    return found | router4 | router6
