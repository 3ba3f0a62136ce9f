"""What a tracked connection is in terms of the World: whose packets, between which network interfaces. Pure."""

from __future__ import annotations

from wicketgate import rules
from wicketgate.kernel.conntrack import Entry
from wicketgate.model import NetworkInterface, World
from wicketgate.paths import Flow
from wicketgate.paths.routes import hop

_ICMP = frozenset({1, 58})
_WITH_PORTS = frozenset({6, 17})


class Reading:
    """Reads the connections of one VPC's namespace by one World."""

    def __init__(self, world: World, vpc_id: str) -> None:
        self._world = world
        self._vpc_id = vpc_id
        self._peers = [one.other(vpc_id) for one in world.active_peerings(vpc_id)]
        self._endpoints = {
            rules.endpoint_mark(endpoint): world.interface(endpoint.interface_id)
            for endpoint in world.endpoints
            if world.vpc_of_subnet(endpoint.subnet_id).id == vpc_id
        }

    def flow(self, entry: Entry) -> Flow | None:
        """The flow that a connection is; None when an end is nobody's that the World knows of.

        That is so for what talks to the router itself (metadata), for what an interface without source/destination
        check passes on, and for an end that is gone.
        """
        first = entry.original
        sender = self._sender(entry)
        receiver = self._world.interface_at(self._vpc_id, first.destination)
        if receiver is None and sender is not None:
            receiver = self._peered_receiver(sender, first.destination)
        elif sender is None and receiver is not None:
            sender = self._peered_sender(receiver, first.source, first.destination)
        if sender is None or receiver is None:
            return None
        icmp = entry.protocol in _ICMP
        return Flow(
            sender=sender,
            receiver=receiver,
            source_address=first.source,
            protocol=entry.protocol,
            port=first.icmp_type if icmp else first.destination_port if entry.protocol in _WITH_PORTS else 0,
            code=first.icmp_code if icmp else 0,
            destination_address=first.destination,
            source_port=first.source_port,
        )

    def _sender(self, entry: Entry) -> NetworkInterface | None:
        """By the endpoint's mark first: its packets may bear a client's address."""
        endpoint = self._endpoints.get(entry.mark & rules.ENDPOINT_MARK_MASK)
        return endpoint or self._world.interface_at(self._vpc_id, entry.original.source)

    def _peered(self, address: str) -> list[NetworkInterface]:
        found = [self._world.interface_at(one, address) for one in self._peers]
        return [one for one in found if one is not None]

    def _peered_receiver(self, sender: NetworkInterface, address: str) -> NetworkInterface | None:
        """Where an address is in several peered VPCs, the route decides."""
        found = self._peered(address)
        there = [one for one in found if hop(self._world, sender, one, address).arrives]
        return next(iter(there or found), None)

    def _peered_sender(self, receiver: NetworkInterface, source: str, address: str) -> NetworkInterface | None:
        found = self._peered(source)
        there = [one for one in found if hop(self._world, one, receiver, address).arrives]
        return next(iter(there or found), None)
