"""Flows to try in a random World: as many that pass as that either side refuses, and just beside the rules."""

from dataclasses import dataclass

from tests.net.random_worlds import ENDPOINTS, NUMBERS, TYPES4, TYPES6, vpc_of
from wicketgate.paths import Flow, judge_flow

CLIENT4, CLIENT6 = "203.0.113.10", "2001:db8:99::10"
PORTS = (22, 53, 80, 8080)
FIRST_SOURCE_PORT, LAST_SOURCE_PORT = 10_000, 32_000
"""Of packets made by hand: below those that sockets choose (net.ipv4.ip_local_port_range)."""


@dataclass(frozen=True)
class Plan:
    """A flow by the names of its ends, so that it can be tried again in a smaller World."""

    sender: str
    receiver: str
    source: str
    destination: str
    protocol: int
    port: int
    code: int
    source_port: int
    fragmented: bool = False
    extended: bool = False

    def flow(self, world):
        """The same in a World that has both network interfaces."""
        by_link = {eni.link: eni for eni in world.interfaces}
        return Flow(
            by_link[self.sender],
            by_link[self.receiver],
            self.source,
            self.protocol,
            self.port,
            self.code,
            destination_address=self.destination,
            source_port=self.source_port,
        )


WANTED = {"pass": 0.42, "sender": 0.27, "receiver": 0.27, "route": 0.04}
"""Shares of a World's flows by where they end: a run that only ever passes or only ever fails proves little."""
_ENDS = {"source-check": "sender", "to-endpoint": "receiver", "peer-source": "receiver", "route": "route"}


def end_of(verdict):
    """Which side ends a flow: `pass`, `sender`, `receiver`, or `route`."""
    step = verdict.failure
    if step is None:
        return "pass"
    return _ENDS.get(step.name) or ("sender" if step.name.endswith("-outbound") else "receiver")


def random_plans(random, world, count):
    """Flows to try, no two of which connection tracking could take for one."""
    left = {end: round(share * count) for end, share in WANTED.items()}
    taken, plans = set(), []
    for number in range(count * 40):
        plan = _random_plan(random, world, FIRST_SOURCE_PORT + number % (LAST_SOURCE_PORT - FIRST_SOURCE_PORT))
        key = _key(plan)
        if plan is None or key in taken:
            continue
        end = end_of(judge_flow(world, plan.flow(world)))
        if left[end]:
            left[end] -= 1
            taken.add(key)
            plans.append(plan)
    return plans


def _key(plan):
    """What connection tracking knows a flow by: without ports, both directions are one."""
    if plan is None:
        return None
    icmp = (plan.protocol, ":" in plan.source) in ((1, False), (58, True))
    ports = (plan.source_port,) if icmp or plan.protocol in (6, 17, 132, 136) else ()
    return (plan.protocol, frozenset((plan.source, plan.destination)), *ports)


def _random_plan(random, world, source_port):
    sender, receiver = random.sample(world.interfaces, 2)
    across = vpc_of(sender.link) != vpc_of(receiver.link)
    if random.random() < (0.7 if receiver.link in ENDPOINTS else 0.4 if across else 0):
        return None
    six = random.random() < 0.5
    destinations = [one for one in receiver.addresses if (":" in one) is six]
    sources = [one for one in sender.addresses if (":" in one) is six]
    if not destinations or not sources:
        return None
    protocol, port, code = _random_content(random, world, sender, receiver, six)
    source = _random_source(random, world, sender, sources, six)
    borrowed = source not in sender.addresses and world.endpoint_of_interface(sender.id) is not None
    if source in receiver.addresses or (borrowed and protocol in (1, 58)):  # netd borrows for TCP
        return None
    return Plan(
        sender.link,
        receiver.link,
        source,
        random.choice(destinations),
        protocol,
        port,
        code,
        source_port,
        fragmented=protocol == 17 and random.random() < 0.2,
        extended=six and random.random() < 0.2,
    )


def _random_source(random, world, sender, own, six):
    endpoint = world.endpoint_of_interface(sender.id)
    client = CLIENT6 if six else CLIENT4
    if endpoint is not None:
        return random.choice([random.choice(own), client])
    if random.random() < (0.04 if sender.source_dest_check else 0.4):
        others = [one for eni in world.interfaces for one in eni.addresses if (":" in one) is six]
        return random.choice([client, random.choice(others), "fe80::66" if six else client])
    return random.choice(own)


def _random_content(random, world, sender, receiver, six):
    if random.random() < 0.75:  # what a rule of either side might cover
        groups = [world.group(one) for one in (*sender.group_ids, *receiver.group_ids)]
        rules = [one for group in groups for one in group.rules if one.ip_protocol != "-1"]
        if rules:
            return _content_of(random, random.choice(rules), six)
    return _content_of(random, None, six)


def _content_of(random, covered, six):
    """Protocol, port and code that a rule covers, or that lie just beside it."""
    protocol = covered.ip_protocol if covered else random.choice(["tcp", "udp", "icmp", *map(str, NUMBERS)])
    if protocol in ("tcp", "udp", "6", "17"):
        first, last = (covered.from_port, covered.to_port) if covered else (1, 65535)
        beside = [port for port in (first - 1, first, last, last + 1) if 0 < port < FIRST_SOURCE_PORT]
        return 17 if protocol in ("udp", "17") else 6, random.choice([*PORTS, *beside]), 0
    if protocol in ("icmp", "icmpv6"):
        if random.random() < 0.1:  # one family's ICMP carried in the other
            return 1 if six else 58, 0, 0
        kind, code = random.choice(TYPES6 if six else TYPES4)
        if covered is not None and covered.from_port != -1 and (protocol == "icmpv6") is six:
            kind = covered.from_port
            code = random.choice([code, max(covered.to_port, 0), max(covered.to_port, 0) ^ 1])
        return 58 if six else 1, kind, code
    return int(protocol), 0, 0
