"""Random Worlds over all that security groups know, and changes to make while flows are open.

Three VPCs: A with an endpoint and instances of every kind, B peered with A, C whose peering with A is not active. What
is drawn at random: addresses, endpoints' types, source checks, memberships, rules, prefix lists, routes, the peering.
"""

import ipaddress
from itertools import chain

import msgspec

from tests.net.worlds import resource_id, rule, sg
from wicketgate.model import (
    Endpoint,
    Instance,
    NetworkInterface,
    PrefixList,
    PrefixListEntry,
    Route,
    RouteTable,
    SecurityGroup,
    Settings,
    Subnet,
    Vpc,
    VpcPeeringConnection,
    World,
)

A, B, C = (f"vpc-0000000000000000{letter}" for letter in "abc")
PEERED, ASLEEP = "pcx-0000000000000000b", "pcx-0000000000000000c"
GROUPS = {A: ("endpoint", "a", "b", "c"), B: ("p", "q"), C: ("z",)}
HOME = {name: vpc for vpc, names in GROUPS.items() for name in names}
SUBNETS = {
    "a1": (A, "10.0.1.0/24", "2001:db8:0:a1::/64"),
    "a2": (A, "10.0.2.0/24", "2001:db8:0:a2::/64"),
    "a6": (A, "", "2001:db8:0:a6::/64"),
    "b1": (B, "10.1.1.0/24", "2001:db8:0:1b1::/64"),
    "c1": (C, "10.2.1.0/24", "2001:db8:0:2c1::/64"),
}
BLOCKS = {
    A: ("10.0.0.0/16", "2001:db8::/56"),
    B: ("10.1.0.0/16", "2001:db8:0:100::/56"),
    C: ("10.2.0.0/16", "2001:db8:0:200::/56"),
}
ENDPOINTS = {"door": "a1", "door-b": "b1"}
MACHINES = {  # link -> subnet and whose further interface it is
    "m-1": ("a1", ""),
    "m-2": ("a1", ""),
    "m-3": ("a2", ""),
    "m-3b": ("a1", "m-3"),
    "m-6": ("a6", ""),
    "p-1": ("b1", ""),
    "p-2": ("b1", ""),
    "z-1": ("c1", ""),
}

TYPES4 = [(8, 0), (8, 0), (8, 1), (13, 0), (3, 1), (0, 0), (42, 0)]
TYPES6 = [(128, 0), (128, 0), (1, 4), (144, 0), (200, 1)]
NUMBERS = [47, 50, 132, 136, 253]
_PROTOCOLS = ["tcp"] * 5 + ["udp"] * 4 + ["-1"] * 3 + ["icmp"] * 2 + ["icmpv6"] * 2 + ["6", *map(str, NUMBERS)]
_RANGES = [(22, 22), (53, 53), (80, 80), (0, 65535), (22, 80), (80, 9000), (443, 443), (8080, 8080), (1024, 65535)]
_ANY = ["0.0.0.0/0", "::/0"]
_INSIDE = {
    A: ["10.0.0.0/16", "10.0.1.0/24", "10.0.2.0/24", "10.0.1.8/29", "2001:db8::/56", "2001:db8:0:a1::/64"],
    B: ["10.1.0.0/16", "10.1.1.8/29", "2001:db8:0:100::/56", "2001:db8:0:1b1::10/124"],
    C: ["10.2.1.0/24", "2001:db8:0:2c1::/64"],
}
_CLIENTS = ["203.0.113.0/24", "2001:db8:99::/48"]
_LISTS = {"four": "IPv4", "other4": "IPv4", "six": "IPv6", "any4": "IPv4"}


# -- Worlds ------------------------------------------------------------------------------------------------------------


def random_world(random, place=None):
    """A World; `place` gives another one whose addresses and machines it takes over."""
    place = random_place(random) if place is None else place
    lists = tuple(_random_list(random, name, family) for name, family in _LISTS.items())
    peering_status = random.choice(["active"] * 5 + ["pending-acceptance", "deleted"])
    made = msgspec.structs.replace(
        place,
        groups=tuple(
            SecurityGroup(id=sg(name), vpc_id=vpc, name=name, rules=_random_rules(random, name))
            for name, vpc in HOME.items()
        ),
        interfaces=tuple(_regrouped(random, eni, place) for eni in place.interfaces),
        prefix_lists=lists,
        peerings=(
            VpcPeeringConnection(
                id=PEERED, requester_vpc_id=A, accepter_vpc_id=B, link="peer-ab", status=peering_status
            ),
            VpcPeeringConnection(id=ASLEEP, requester_vpc_id=A, accepter_vpc_id=C, link="peer-ac", status="deleted"),
        ),
        route_tables=_random_routes(random),
    )
    made.check()
    return made


def random_place(random):
    """VPCs, subnets, network interfaces, instances and endpoints, without rules."""
    kinds = {name: random.choice(["ipv4", "dualstack", "dualstack", "ipv6"]) for name in ENDPOINTS}
    interfaces = [_endpoint_interface(name, subnet, kinds[name]) for name, subnet in ENDPOINTS.items()]
    interfaces += [_interface(random, link, *place) for link, place in MACHINES.items()]
    instances = [link for link, (_, owner) in MACHINES.items() if not owner]
    return World(
        settings=Settings(preserve_client_ipv6=True),
        vpcs=tuple(Vpc(id=vpc, cidr_block=four, ipv6_cidr_blocks=(six,)) for vpc, (four, six) in BLOCKS.items()),
        subnets=tuple(
            Subnet(id=_subnet(name), vpc_id=vpc, cidr_block=four, ipv6_cidr_block=six)
            for name, (vpc, four, six) in SUBNETS.items()
        ),
        interfaces=tuple(interfaces),
        instances=tuple(Instance(id=resource_id("i", link), name=link, interface_id=_eni(link)) for link in instances),
        endpoints=tuple(
            Endpoint(
                id=resource_id("eice", name),
                subnet_id=_subnet(subnet),
                interface_id=_eni(name),
                dns_name=f"{name}.wicketgate.test",
                ip_address_type=kinds[name],
                preserve_client_ip=random.random() < 0.5,
            )
            for name, subnet in ENDPOINTS.items()
        ),
    )


def _eni(link):
    return resource_id("eni", link)


def _subnet(name):
    return resource_id("subnet", name)


def _endpoint_interface(name, subnet, kind):
    number = 4
    four, six = _addresses(subnet, number, 1)
    return NetworkInterface(
        id=_eni(name),
        subnet_id=_subnet(subnet),
        private_ip_address="" if kind == "ipv6" else four[0],
        ipv6_addresses=() if kind == "ipv4" else tuple(six),
        group_ids=("",),
        link=name,
        interface_type="ec2_instance_connect_endpoint",
    )


def _interface(random, link, subnet, owner):
    number = 8 + 4 * list(MACHINES).index(link)
    four, six = _addresses(subnet, number, random.choice([1, 2, 3, 3]))
    return NetworkInterface(
        id=_eni(link),
        subnet_id=_subnet(subnet),
        private_ip_address=four[0] if four else "",
        secondary_ip_addresses=tuple(four[1:]),
        ipv6_addresses=tuple(six[: random.choice([1, 2, 2])]),
        group_ids=("",),
        link=link,
        source_dest_check=random.random() < 0.8,
        attached_to=resource_id("i", owner) if owner else "",
        device_index=1 if owner else 0,
    )


def _addresses(subnet, number, count):
    _, four, six = SUBNETS[subnet]
    return (
        [f"{four.rpartition('.')[0]}.{number + step}" for step in range(count)] if four else [],
        [f"{six.removesuffix('/64')}{number + step:x}" for step in range(2)],
    )


def _regrouped(random, eni, place):
    if place.endpoint_of_interface(eni.id) is not None:
        names = ["endpoint"] if eni.link == "door" else ["p"]
        names += random.choice([[], [], ["a"] if eni.link == "door" else ["q"]])
    else:
        there = [name for name in GROUPS[vpc_of(eni.link)] if name != "endpoint" or random.random() < 0.1]
        names = random.sample(there, random.randint(1, len(there)))
    return msgspec.structs.replace(eni, group_ids=tuple(sg(name) for name in names))


def vpc_of(link):
    """The VPC that a link is in."""
    subnet = ENDPOINTS[link] if link in ENDPOINTS else MACHINES[link][0]
    return SUBNETS[subnet][0]


def _random_rules(random, name):
    rules = [_random_rule(random, name, direction) for direction in ["out"] * 4 + ["in"] * 4 if random.random() < 0.8]
    if random.random() < 0.4:  # what makes flows untracked
        any_address = random.choice(_ANY)
        rules.append(rule("out", random.choice(["-1", "tcp", "udp"]), (0, 65535), any_address))
        rules.append(rule("in", random.choice(["-1", "tcp", "udp"]), (0, 65535), any_address))
    named = {f"{one.id}{name}": one for one in rules}
    return tuple(msgspec.structs.replace(one, id=resource_id("sgr", key)) for key, one in named.items())


def _random_rule(random, name, direction):
    protocol = random.choice(_PROTOCOLS)
    ports = random.choice(_RANGES) if protocol in ("tcp", "udp", "6") else (-1, -1)
    if protocol in ("icmp", "icmpv6"):
        kind, code = random.choice(TYPES4 if protocol == "icmp" else TYPES6)
        ports = random.choice([(-1, -1), (kind, -1), (kind, code)])
    return rule(direction, protocol, ports, _random_peer(random, HOME[name], direction))


def _random_peer(random, vpc, direction):
    kind = random.choice(["any", "cidr", "cidr", "cidr", "list", "list", "group", "group", "group", "peer", "peer"])
    other = {A: B, B: A, C: A}[vpc]
    if kind == "any":
        return random.choice(_ANY)
    if kind == "cidr":
        clients = _CLIENTS if direction == "in" else []
        return random.choice([*_INSIDE[vpc] * 2, *_INSIDE[other], *clients * 2])
    if kind == "list":
        return f"pl:{random.choice(list(_LISTS))}"
    if kind == "peer" and vpc != C:
        return f"sg:{random.choice(GROUPS[other])}@{other}"
    return f"sg:{random.choice(GROUPS[vpc])}"


def _random_list(random, name, family):
    six = family == "IPv6"
    pool = [one for one in chain(*_INSIDE.values(), _CLIENTS) if (":" in one) is six]
    ranges = random.sample(pool, random.randint(0, 3)) + (["0.0.0.0/0"] if name == "any4" else [])
    if not six and random.random() < 0.5:
        ranges.append(f"10.0.1.{random.randrange(8, 40)}/32")
    entries = {msgspec.structs.astuple(one)[0]: one for one in (_entry(cidr) for cidr in ranges)}
    return PrefixList(
        id=resource_id("pl", name), name=name, address_family=family, max_entries=10, entries=tuple(entries.values())
    )


def _entry(cidr):
    return PrefixListEntry(cidr=str(ipaddress.ip_network(cidr, strict=False)))


def _random_routes(random):
    to_b = [*BLOCKS[B], "10.1.1.0/28", "2001:db8:0:1b1::/64", "0.0.0.0/0", "10.0.1.0/24"]
    to_a = [*BLOCKS[A], "10.0.1.0/24", "2001:db8:0:a1::/64"]

    def routes(destinations, usual):
        chosen = dict.fromkeys(random.sample(destinations, random.randint(0, 3)), PEERED)
        chosen |= dict.fromkeys(usual if random.random() < 0.8 else (), PEERED)
        for one in ("10.1.1.16/28", "10.2.0.0/16"):
            if random.random() < 0.3:
                chosen[one] = ASLEEP  # swallows what a wider route would have led somewhere
        return tuple(Route(destination=one, peering_id=peering) for one, peering in chosen.items())

    tables = [
        RouteTable(id=resource_id("rtb", "a"), vpc_id=A, main=True, routes=routes(to_b, BLOCKS[B])),
        RouteTable(id=resource_id("rtb", "b"), vpc_id=B, main=True, routes=routes(to_a, BLOCKS[A])),
    ]
    if random.random() < 0.5:
        a2 = (_subnet("a2"),)
        tables.append(RouteTable(id=resource_id("rtb", "a2"), vpc_id=A, subnet_ids=a2, routes=routes(to_b, BLOCKS[B])))
    return tuple(tables)


# -- changes while flows are open --------------------------------------------------------------------------------------


def changed(random, world):
    """The World after a few changes that a caller might make: no machine and no address comes or goes."""
    for change in random.sample(_CHANGES, random.randint(2, 4)):
        world = change(random, world)
    world.check()
    return world


def _fewer_rules(random, world):
    """Every group loses some rules."""
    return _each_group(world, lambda group: tuple(one for one in group.rules if random.random() < 0.5))


def _more_rules(random, world):
    """Every group gets others besides."""

    def more(group):
        known = {one.id: one for one in (*group.rules, *_random_rules(random, group.name))}
        return tuple(known.values())

    return _each_group(world, more)


def _no_any_address(_random, world):
    """No rule is left that names any address: what is untracked ends."""
    return _each_group(
        world, lambda group: tuple(one for one in group.rules if (one.cidr_ipv4 or one.cidr_ipv6) not in _ANY)
    )


def _each_group(world, rules_of):
    groups = tuple(msgspec.structs.replace(one, rules=rules_of(one)) for one in world.groups)
    return msgspec.structs.replace(world, groups=groups)


def _other_groups(random, world):
    """Some network interfaces change groups."""
    interfaces = (_regrouped(random, eni, world) if random.random() < 0.4 else eni for eni in world.interfaces)
    return msgspec.structs.replace(world, interfaces=tuple(interfaces))


def _other_lists(random, world):
    """Prefix lists get other entries."""
    lists = tuple(_random_list(random, one.name, one.address_family) for one in world.prefix_lists)
    return msgspec.structs.replace(world, prefix_lists=lists)


def _other_routes(random, world):
    """Other routes, and perhaps the peering goes."""
    world = msgspec.structs.replace(world, route_tables=_random_routes(random))
    if random.random() < 0.7:
        return world
    peerings = tuple(msgspec.structs.replace(one, status="deleted") for one in world.peerings)
    return msgspec.structs.replace(world, peerings=peerings)


def _switched(random, world):
    """Source checks and client IP preservation are switched."""
    machines = {eni.id for eni in world.interfaces} - {one.interface_id for one in world.endpoints}
    interfaces = (
        msgspec.structs.replace(eni, source_dest_check=random.random() < 0.8) if eni.id in machines else eni
        for eni in world.interfaces
    )
    endpoints = (msgspec.structs.replace(one, preserve_client_ip=random.random() < 0.5) for one in world.endpoints)
    return msgspec.structs.replace(world, interfaces=tuple(interfaces), endpoints=tuple(endpoints))


_CHANGES = (_fewer_rules, _more_rules, _no_any_address, _other_groups, _other_lists, _other_routes, _switched)


def readdressed(world):
    """The World after further addresses have gone on from each machine's interface to the next one's of the subnet."""
    by_link = {eni.link: eni for eni in world.interfaces}
    for links in (("m-1", "m-2", "m-3b"), ("p-1", "p-2")):
        there = [by_link[link] for link in links]
        for giver, taker in zip(there, there[1:] + there[:1], strict=True):
            six = (*taker.ipv6_addresses[:1], *giver.ipv6_addresses[1:])
            four = giver.secondary_ip_addresses
            by_link[taker.link] = msgspec.structs.replace(taker, secondary_ip_addresses=four, ipv6_addresses=six)
    world = msgspec.structs.replace(world, interfaces=tuple(by_link.values()))
    world.check()
    return world
