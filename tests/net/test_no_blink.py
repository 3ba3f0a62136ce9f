"""No blink: while Worlds change a thousand times, netd is killed and whole tables are replaced, a stream that stays
allowed loses no packet, and one that is denied gets none through.

    i-src  eth0 .11, eth1 .12 ──┐ VPC A ── peering ── VPC B ── i-far .31
    i-dst  eth0 .21 ────────────┘
"""

import time
from random import Random

import msgspec
import pytest

from tests.net.streams import Stream, Streams
from tests.net.test_netd import Process
from tests.net.worlds import prefix_list, resource_id, rule, sg
from wicketgate.kernel.fabric import Fabric
from wicketgate.kernel.nftables import Nftables
from wicketgate.model import (
    Change,
    ConnectionTracking,
    Endpoint,
    Instance,
    NetworkInterface,
    PrefixListEntry,
    Route,
    RouteTable,
    SecurityGroup,
    Settings,
    Subnet,
    Vpc,
    VpcPeeringConnection,
    World,
    apply_change,
)

pytestmark = pytest.mark.once

A, B, C = (f"vpc-0000000000000000{letter}" for letter in "abc")
BLOCKS = {A: ("10.10.0.0/16", "2001:db8:10::/56"), B: ("10.20.0.0/16", "2001:db8:20::/56")}
NEW_BLOCKS = ("10.30.0.0/16", "2001:db8:30::/56")
SUBNETS = {A: resource_id("subnet", "a"), B: resource_id("subnet", "b")}
PEERING, OTHER_PEERING = "pcx-0000000000000000b", "pcx-0000000000000000c"
ANY = ("0.0.0.0/0", "::/0")
CHANGES = 1000

MACHINES = {  # link -> VPC, number, group, whose further interface it is
    "src": (A, 11, "src", ""),
    "src-b": (A, 12, "src", "src"),
    "dst": (A, 21, "dst", ""),
    "far": (B, 31, "far", ""),
    "other-1": (A, 41, "other", ""),
    "other-2": (B, 42, "else", ""),
}


def address(link, version, more=0):
    """A machine's address; `more`: a further one."""
    vpc, number, _, _ = MACHINES[link]
    middle = "10" if vpc == A else "20"
    return f"10.{middle}.1.{number + more}" if version == 4 else f"2001:db8:{middle}:1::{number + more}"


def machine(link):
    """The namespace."""
    return resource_id("i", link)


def streams():
    """All that is sent: allowed as tracked and untracked flows, near and across the peering; and denied."""
    found = []
    for version in (4, 6):
        for name, sender, receiver, port, fresh in (
            ("tracked", "src", "dst", 5000, False),
            ("tracked, new flows", "src", "dst", 5001, True),
            ("untracked", "src", "dst", 6000, False),
            ("untracked, new flows", "src", "dst", 6001, True),
            ("further interface", "src-b", "dst", 5002, False),
            ("further interface, new flows", "src-b", "dst", 5003, True),
            ("peering", "src", "far", 5004, False),
            ("peering, untracked", "src", "far", 6004, False),
            ("peering, new flows", "src", "far", 5005, True),
            ("denied on its way out", "src", "dst", 7000, True),
            ("denied on its way in", "src", "dst", 8000, True),
            ("denied in the other VPC", "src", "far", 8001, True),
        ):
            ends = address(sender, version), address(receiver, version)
            home = machine("src" if sender == "src-b" else sender)
            found.append(Stream(f"{name}, IPv{version}", home, machine(receiver), *ends, port, fresh))
    return found


# -- the World ---------------------------------------------------------------------------------------------------------


def group(vpc, name, *rules):
    """A group whose rules' ids are its own."""
    own = tuple(msgspec.structs.replace(one, id=resource_id("sgr", name, one.id)) for one in rules)
    return SecurityGroup(id=sg(name), vpc_id=vpc, name=name, rules=own)


def sending(peers):
    """Rules of a sender: tracked to some peers, untracked to any address, and to where they are refused."""
    found = [rule("out", "udp", (5000, 5999), peer) for peer in peers]
    for one in ANY:
        found += [rule("out", "udp", (6000, 6999), one), rule("out", "udp", (8000, 8999), one)]
        found.append(rule("in", "udp", (0, 65535), one))
    return found


def receiving(peers):
    """Rules of a receiver."""
    found = [rule("in", "udp", (5000, 5999), peer) for peer in peers]
    for one in ANY:
        found += [rule("in", "udp", (6000, 6999), one), rule("out", "udp", (0, 65535), one)]
    return found


NEAR = {
    "groups": (["sg:dst", f"sg:far@{B}"], ["sg:src", "sg:src2"]),
    "ranges": ([*BLOCKS[A], *BLOCKS[B]], [*BLOCKS[A]]),
    "lists": (["pl:four", "pl:six"], ["pl:four", "pl:six"]),
}
"""Ways to say the same: (to whom, from whom)."""
FAR = {"groups": [f"sg:src@{A}", f"sg:src2@{A}"], "ranges": [*BLOCKS[A]], "lists": ["pl:four", "pl:six"]}


def first_world():
    """What all changes begin with."""
    tables = [table(vpc, "main", main=True) for vpc in (A, B)] + [table(A, "second"), table(A, "third")]
    return World(
        revision=1,
        settings=Settings(preserve_client_ipv6=True),
        vpcs=tuple(Vpc(id=one, cidr_block=four, ipv6_cidr_blocks=(six,)) for one, (four, six) in BLOCKS.items()),
        subnets=tuple(subnet(vpc, SUBNETS[vpc], "1") for vpc in (A, B)),
        groups=(
            *(group(A, name, *sending(NEAR["groups"][0])) for name in ("src", "src2")),
            group(A, "dst", *receiving(NEAR["groups"][1])),
            group(B, "far", *receiving(FAR["groups"])),
            *(group(vpc, name, rule("in", "tcp", (22, 22), "0.0.0.0/0")) for name, vpc in (("other", A), ("else", B))),
        ),
        interfaces=tuple(interface(link) for link in MACHINES),
        instances=tuple(
            Instance(id=machine(link), name=link, interface_id=resource_id("eni", link))
            for link, (_, _, _, owner) in MACHINES.items()
            if not owner
        ),
        prefix_lists=(
            prefix_list("four", "10.0.0.0/8"),
            prefix_list("six", "2001:db8::/32"),
            prefix_list("unused", "192.0.2.0/24"),
        ),
        peerings=(
            VpcPeeringConnection(id=PEERING, requester_vpc_id=A, accepter_vpc_id=B, link="peer-ab", status="active"),
        ),
        route_tables=tuple(tables),
    )


def subnet(vpc, name, number):
    """One of a VPC's subnets."""
    middle = "10" if vpc == A else "20"
    return Subnet(
        id=name,
        vpc_id=vpc,
        cidr_block=f"10.{middle}.{number}.0/24",
        ipv6_cidr_block=f"2001:db8:{middle}:{number}::/64",
    )


def interface(link):
    """A machine's interface."""
    vpc, _, name, owner = MACHINES[link]
    return NetworkInterface(
        id=resource_id("eni", link),
        subnet_id=SUBNETS[vpc],
        private_ip_address=address(link, 4),
        ipv6_addresses=(address(link, 6),),
        group_ids=(sg(name),),
        link=link,
        attached_to=machine(owner) if owner else "",
        device_index=1 if owner else 0,
    )


def table(vpc, name, *, main=False, subnets=(), more=()):
    """A route table that leads to the other VPC."""
    other = BLOCKS[B if vpc == A else A]
    routes = tuple(Route(destination=one, peering_id=PEERING) for one in (*other, *more))
    return RouteTable(id=resource_id("rtb", vpc, name), vpc_id=vpc, main=main, subnet_ids=subnets, routes=routes)


# -- changes -----------------------------------------------------------------------------------------------------------


def other_words(random, _made):
    """The rules say the same by other peers: groups, ranges, prefix lists, or several of them."""
    names = random.sample(list(NEAR), random.randint(1, 3))
    near = [[peer for name in names for peer in NEAR[name][side]] for side in (0, 1)]
    puts = [group(A, name, *sending(near[0]), *extra(random)) for name in ("src", "src2")]
    puts.append(group(A, "dst", *receiving(near[1]), *extra(random)))
    puts.append(group(B, "far", *receiving([peer for name in names for peer in FAR[name]]), *extra(random)))
    return random.sample(puts, random.randint(1, len(puts)))


def extra(random):
    """Rules that concern nothing that is sent, but perhaps cover it too."""
    ports = [(22, 22), (443, 443), (5000, 5100), (6001, 6003)]
    peers = ["10.10.1.11/32", "10.0.0.0/8", "2001:db8::/32", "pl:unused", *ANY]
    pairs = {(random.choice(ports), random.choice(peers)) for _ in range(random.randint(0, 3))}
    return [rule(random.choice(["in", "out"]), "udp", ports, peer) for ports, peer in sorted(pairs)]


def other_memberships(random, made):
    """A sender is in one or the other of two groups alike, or in both, and in another group besides."""
    link = random.choice(["src", "src-b"])
    names = random.choice([["src"], ["src2"], ["src", "src2"], ["src2", "other"], ["other", "src"]])
    return [changed(made, link, group_ids=tuple(sg(name) for name in names))]


def further_addresses(random, made):
    """Addresses come and go beside those that are used."""
    link = random.choice(["src", "src-b", "dst", "far"])
    more4 = tuple(address(link, 4, more) for more in random.sample([100, 102, 104], random.randint(0, 3)))
    more6 = tuple(address(link, 6, more) for more in random.sample([100, 102], random.randint(0, 2)))
    return [changed(made, link, secondary_ip_addresses=more4, ipv6_addresses=(address(link, 6), *more6))]


def other_timeouts(random, made):
    """Idle time-outs of an end."""
    slow = ConnectionTracking(udp_stream=random.randint(60, 180), udp=random.randint(30, 60))
    return [changed(made, random.choice(["src", "src-b", "dst", "far"]), connection_tracking=slow)]


def source_check(random, made):
    """Switched at an end."""
    return [changed(made, random.choice(["src", "src-b", "dst", "far"]), source_dest_check=random.random() < 0.5)]


def other_routes(random, _made):
    """The sender's subnet follows another table, or a table leads to the same by more routes."""
    narrow = random.sample(["10.20.1.0/24", "10.20.1.31/32", "2001:db8:20:1::/64"], random.randint(0, 3))
    follow = random.choice(["main", "second", "third"])
    return [
        table(A, name, main=name == "main", subnets=(SUBNETS[A],) if name == follow != "main" else (), more=narrow)
        for name in ("main", "second", "third")
    ]


def another_machine(random, made):
    """One comes, or goes."""
    number = random.randrange(200, 240)
    eni = NetworkInterface(
        id=resource_id("eni", str(number)),
        subnet_id=SUBNETS[A],
        private_ip_address=f"10.10.1.{number}",
        ipv6_addresses=(f"2001:db8:10:1::{number}",),
        group_ids=(sg(random.choice(["other", "src", "dst"])),),
        link=f"new-{number}",
    )
    there = [one for one in made.interfaces if one.link.startswith("new-")]
    if len(there) > 3 or made.interface(eni.id) is not None:
        return [("network-interface", random.choice(there).id)]
    return [eni]


def another_endpoint(_random, made):
    """One comes, or goes."""
    if made.endpoints:
        return [("instance-connect-endpoint", made.endpoints[0].id), ("network-interface", resource_id("eni", "door"))]
    eni = NetworkInterface(
        id=resource_id("eni", "door"),
        subnet_id=SUBNETS[A],
        private_ip_address="10.10.1.5",
        group_ids=(sg("other"),),
        link="door",
        interface_type="ec2_instance_connect_endpoint",
    )
    name = resource_id("eice", "door")
    door = Endpoint(id=name, subnet_id=SUBNETS[A], interface_id=eni.id, dns_name="door.wicketgate.test")
    return [eni, door]


def another_vpc(_random, made):
    """One comes with a peering of its own, or goes."""
    if made.vpc(C) is not None:
        return [("vpc-peering-connection", OTHER_PEERING), ("vpc", C)]
    peering = VpcPeeringConnection(
        id=OTHER_PEERING, requester_vpc_id=A, accepter_vpc_id=C, link="peer-ac", status="active"
    )
    return [Vpc(id=C, cidr_block=NEW_BLOCKS[0], ipv6_cidr_blocks=(NEW_BLOCKS[1],)), peering]


def another_subnet(_random, made):
    """One comes, or goes."""
    name = resource_id("subnet", "more")
    return [("subnet", name)] if made.subnet(name) is not None else [subnet(A, name, "7")]


def others_rules(random, _made):
    """Of groups that no stream has to do with, or of lists."""
    entries = tuple(PrefixListEntry(cidr=f"192.0.2.{random.randrange(250)}/32") for _ in range(3))
    four = prefix_list("four", "10.0.0.0/8", *(f"192.0.2.{random.randrange(9)}/32" for _ in range(1)))
    return [
        random.choice(
            [
                group(A, "other", *extra(random)),
                group(B, "else", *extra(random)),
                msgspec.structs.replace(
                    prefix_list("unused"), entries=tuple({one.cidr: one for one in entries}.values())
                ),
                four,
            ]
        )
    ]


EDITS = {
    **dict.fromkeys((other_words, other_memberships, other_timeouts, source_check, other_routes, others_rules), 20),
    **dict.fromkeys((further_addresses, another_subnet, another_machine, another_endpoint), 5),
    another_vpc: 1,
}
"""What a change may be, and how often it is."""


def changed(made, link, **values):
    """A machine's interface with other values."""
    return msgspec.structs.replace(made.interface(resource_id("eni", link)), **values)


def edited(random, made):
    """(name, World) after one change."""
    (edit,) = random.choices(list(EDITS), EDITS.values())
    found = edit(random, made)
    puts = tuple(one for one in found if not isinstance(one, tuple))
    deletes = tuple(one for one in found if isinstance(one, tuple))
    return edit.__name__, apply_change(made, Change(puts=puts, deletes=deletes))


# -- tests -------------------------------------------------------------------------------------------------------------


def told(sent, moments):
    """Which changes packets were lost in, by stream."""
    found = {}
    for name, lost in sent.lost.items():
        if not name.startswith("denied"):
            for moment in lost:
                during = next(
                    (what for begun, ended, what in moments if begun - 0.001 <= moment <= ended + 0.001), "idle"
                )
                found.setdefault((name, during), []).append(moment)
    return {key: len(lost) for key, lost in found.items()}


def check(sent, moments):
    """Everything allowed arrived, nothing denied did, and both were tried all the time."""
    assert told(sent, moments) == {}
    assert {name: count for name, count in sent.arrived.items() if count and name.startswith("denied")} == {}
    seconds = moments[-1][1] - moments[0][0]
    assert min(sent.sent.values()) > 20 * seconds, "so few packets would show little"
    assert sent.sent.keys() == {one.name for one in streams()}


def test_a_thousand_changes(fabric):
    """Related and unrelated changes, restarts and replacements of whole tables in between."""
    random, made, moments = Random(20261126), first_world(), []
    made.check()
    fabric.apply(made)
    foreign = {vpc: Nftables(vpc) for vpc in (A, B)}
    used = fabric
    with Streams(streams()) as sent:
        for number in range(CHANGES):
            begun = time.monotonic()
            what, made = edited(random, made)
            used.apply(made)
            if number % 50 == 17:
                what = "restart"
                if used is not fabric:
                    used.close()
                used = Fabric()
                used.apply(made)
            if number % 50 == 42:
                what = "whole table"
                for nft in foreign.values():
                    nft.run("add table ip foreign\ndelete table ip foreign")
                assert set(used.mend()) == {A, B}
            moments.append((begun, time.monotonic(), what))
    for one in (*foreign.values(), used):
        one.close()
    check(sent, moments)


def test_whole_tables(fabric):
    """Replaced two hundred times: deleted and made again they would lose a packet in about twenty."""
    made, moments = first_world(), []
    fabric.apply(made)
    foreign = {vpc: Nftables(vpc) for vpc in (A, B)}
    with Streams(streams()) as sent:
        for _ in range(100):
            begun = time.monotonic()
            for nft in foreign.values():
                nft.run("add table ip foreign\ndelete table ip foreign")
            assert set(fabric.mend()) == {A, B}
            moments.append((begun, time.monotonic(), "whole table"))
    for one in foreign.values():
        one.close()
    check(sent, moments)


def test_netd_killed_over_and_over(fabric, tmp_path):
    """netd killed in the middle of changes and started again, thirty times."""
    random, made, moments = Random(7), first_world(), []
    process = Process(tmp_path)
    assert process.apply(made) == 1
    with Streams(streams()) as sent:
        for _ in range(30):
            begun = time.monotonic()
            for _ in range(random.randint(1, 4)):
                _, made = edited(random, made)
                process.apply(made)
            _, made = edited(random, made)
            process.tell(made)
            time.sleep(random.uniform(0, 0.02))
            process.process.kill()
            process.process.wait()
            process.feed.close()
            process.gateway.close()
            process = Process(tmp_path)
            assert process.apply(made) == made.revision
            moments.append((begun, time.monotonic(), "kill"))
    process.stop()
    check(sent, moments)
