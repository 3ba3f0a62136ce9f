"""What the kernel does with many first packets in one World: which of them arrive, and what that says of a change."""

import ipaddress
from itertools import count

from tests.net.conversations import says
from tests.net.random_flows import CLIENT4, CLIENT6, FIRST_SOURCE_PORT, LAST_SOURCE_PORT, Plan
from tests.net.random_worlds import vpc_of
from tests.net.rig import forget_flows
from wicketgate.paths import judge_flow
from wicketgate.paths.routes import in_vpc

ANY = {ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")}
OTHER_CLIENTS = {4: "198.51.100.7", 6: "2001:db8:77::7"}
CLIENTS = {4: CLIENT4, 6: CLIENT6}

_source_ports = count()


def plan(sender, receiver, source, destination, content):
    """A flow of a content - (protocol, port, code) - between two network interfaces, with a source port of its own."""
    number = FIRST_SOURCE_PORT + next(_source_ports) % (LAST_SOURCE_PORT - FIRST_SOURCE_PORT)
    return Plan(sender.link, receiver.link, source, destination, *content, number)


def arriving(rig, made, plans):
    """Which of the flows' first packets arrive at their receivers, in a World that is in force."""
    forget_flows(made)
    found = _fired(rig, made, plans)
    lost = [one for one in plans if one not in found and judge_flow(made, one.flow(made)).passed]
    return found | _fired(rig, made, lost)  # on a busy host a packet may be lost, so those are sent once more


def _fired(rig, made, plans):
    shots = []
    for one in plans:
        flow = one.flow(made)
        # The reading says only what is worth waiting for.
        awaited = one.receiver if judge_flow(made, flow).passed else None
        shots.append((one.sender, lambda number, flow=flow: [says(flow, number)], awaited))
    seen = rig.fire(shots)
    return {one for one, links in zip(plans, seen, strict=True) if one.receiver in links}


class Pairs:
    """All pairs of network interfaces with an end in a VPC, and the addresses between which to try them."""

    def __init__(self, random, made, vpc, others):
        """`others`: addresses that rules may name, for those who send from addresses that are not their own."""
        self._made, self._vpc = made, vpc
        others = {*CLIENTS.values(), *others, *_of_each_range(made)}
        self._sources = {
            (eni.link, version): self._sources_of(random, eni, version, others)
            for eni in made.interfaces
            for version in (4, 6)
        }

    def _sources_of(self, random, sender, version, others):
        """Addresses of a family that an interface might send from: its own, and others, whether or not it may."""
        own = [one for one in sender.addresses if _is(one, version)]
        others = sorted(one for one in others - {*own} if _is(one, version))
        endpoint = self._made.endpoint_of_interface(sender.id)
        if not own or (endpoint is None and sender.source_dest_check):
            return own
        if endpoint is not None:
            vpc = self._made.vpc_of_subnet(sender.subnet_id)
            return [*own, *(one for one in others if not in_vpc(vpc, one)), OTHER_CLIENTS[version]]
        near = [one for eni in self._made.interfaces for one in eni.addresses if eni is not sender]
        return [*own, *others, random.choice([one for one in near if _is(one, version)])]

    def flows(self, contents):
        """Flows of these contents - (protocol, port, code) - between all pairs, from and to every address."""
        return [
            plan(sender, receiver, source, destination, content)
            for sender in self._made.interfaces
            for receiver in self._made.interfaces
            if receiver is not sender and self._vpc.id in (vpc_of(sender.link), vpc_of(receiver.link))
            for destination in receiver.addresses
            for source in self._sources[sender.link, 6 if ":" in destination else 4]
            if source not in receiver.addresses
            for content in contents
        ]


def _of_each_range(made):
    """An address of every range that rules and prefix lists name, in no narrower one of them."""
    ranges = {one.peer for group in made.groups for one in group.rules if one.cidr_ipv4 or one.cidr_ipv6}
    ranges |= {entry.cidr for one in made.prefix_lists for entry in one.entries}
    networks = {ipaddress.ip_network(one) for one in ranges} - ANY
    return {str(one[min(5, one.num_addresses - 1)]) for one in networks}  # past those that AWS reserves


def _is(address, version):
    return (":" in address) is (version == 6)
