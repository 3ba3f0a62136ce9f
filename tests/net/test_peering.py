"""VPC peering in the fabric: links, routes by subnet, who may send what across, and what is left when it ends."""

import socket
from contextlib import closing

import msgspec
import pytest

from tests.net.families import datagram, hearing, knock, reach
from tests.net.test_ipv6 import written
from tests.net.worlds import resource_id
from wicketgate.kernel import conntrack, ip, netns
from wicketgate.kernel.fabric import Fabric
from wicketgate.model import (
    Change,
    Endpoint,
    Instance,
    NetworkInterface,
    SecurityGroup,
    SecurityGroupRule,
    Subnet,
    Vpc,
    World,
    apply_change,
)
from wicketgate.model.routing import Route, RouteTable, VpcPeeringConnection

A, B, C = (f"vpc-0000000000000000{letter}" for letter in "abc")
PEERING = VpcPeeringConnection(id="pcx-1", requester_vpc_id=A, accepter_vpc_id=B, link="pcx-1", status="active")
DOOR, DOOR_ENI = "eice-00000000000000001", "eni-d0000000000000000"
NUMBER = {A: 10, B: 20, C: 30}


def block(vpc_id):
    """IPv4 range of a VPC."""
    return f"10.{NUMBER[vpc_id]}.0.0/16"


def block6(vpc_id):
    """IPv6 range of a VPC."""
    return f"2001:db8:{NUMBER[vpc_id]}::/56"


def group(vpc_id):
    """A VPC's group that allows everything."""
    ends = [("cidr_ipv4", "0.0.0.0/0"), ("cidr_ipv6", "::/0")]
    rules = tuple(
        SecurityGroupRule(id=f"sgr-{vpc_id[-1]}{number}", is_egress=bool(number & 1), ip_protocol="-1", **dict([end]))
        for number, end in enumerate([end for end in ends for _ in range(2)])
    )
    return SecurityGroup(id=f"sg-{vpc_id[-1]}", vpc_id=vpc_id, name="all", rules=rules)


def machine(vpc_id, subnet, number):
    """An interface and its instance: machine `number` of a VPC's first or second subnet."""
    eni = NetworkInterface(
        id=eni_id(vpc_id, subnet, number),
        subnet_id=f"subnet-{vpc_id[-1]}{subnet}",
        private_ip_address=address(vpc_id, subnet, number),
        ipv6_addresses=(address6(vpc_id, subnet, number),),
        group_ids=(f"sg-{vpc_id[-1]}",),
        link=f"m{subnet}{number}",
    )
    return eni, Instance(id=where(vpc_id, subnet, number), interface_id=eni.id)


def eni_id(vpc_id, subnet, number):
    """The machine's interface."""
    return f"eni-{vpc_id[-1]}{subnet}{number:015d}"


def where(vpc_id, subnet, number):
    """The machine's namespace."""
    return resource_id("i", vpc_id, str(subnet), str(number))


def address(vpc_id, subnet, number):
    """The machine's IPv4 address."""
    return f"10.{NUMBER[vpc_id]}.{subnet}.{number}"


def address6(vpc_id, subnet, number):
    """The machine's IPv6 address."""
    return f"2001:db8:{NUMBER[vpc_id]}:{subnet}::{number}"


def table(vpc_id, routes, *, main=True, subnets=(), name="main"):
    """A route table; routes: destination -> peering connection."""
    return RouteTable(
        id=f"rtb-{vpc_id[-1]}-{name}",
        vpc_id=vpc_id,
        main=main,
        subnet_ids=subnets,
        routes=tuple(Route(destination=where_to, peering_id=peering) for where_to, peering in routes.items()),
    )


def both(vpc_id, peering="pcx-1"):
    """Routes to all of a VPC's ranges."""
    return {block(vpc_id): peering, block6(vpc_id): peering}


def peered(*, peerings=(PEERING,), tables=None):
    """Three VPCs of two subnets with a machine each, and an endpoint in A."""
    vpcs = (A, B, C)
    machines = [machine(vpc_id, subnet, 11) for vpc_id in vpcs for subnet in (1, 2)]
    door = NetworkInterface(
        id=DOOR_ENI,
        subnet_id="subnet-a1",
        private_ip_address="10.10.1.10",
        ipv6_addresses=("2001:db8:10:1::10",),
        group_ids=("sg-a",),
        link="door",
        interface_type="ec2_instance_connect_endpoint",
    )
    made = World(
        revision=1,
        vpcs=tuple(Vpc(id=one, cidr_block=block(one), ipv6_cidr_blocks=(block6(one),)) for one in vpcs),
        subnets=tuple(
            Subnet(
                id=f"subnet-{one[-1]}{subnet}",
                vpc_id=one,
                cidr_block=f"10.{NUMBER[one]}.{subnet}.0/24",
                ipv6_cidr_block=f"2001:db8:{NUMBER[one]}:{subnet}::/64",
            )
            for one in vpcs
            for subnet in (1, 2)
        ),
        groups=tuple(group(one) for one in vpcs),
        interfaces=(door, *(eni for eni, _ in machines)),
        instances=tuple(instance for _, instance in machines),
        endpoints=(
            Endpoint(id=DOOR, subnet_id="subnet-a1", interface_id=DOOR_ENI, dns_name="d", ip_address_type="dualstack"),
        ),
        peerings=peerings,
        route_tables=(table(A, both(B)), table(B, both(A))) if tables is None else tables,
    )
    made.check()
    return made


def changed(before, *puts, deletes=()):
    """The World after a Change."""
    return apply_change(before, Change(puts=puts, deletes=deletes))


A1, A2, B1, B2, C1 = (where(*one, 11) for one in ((A, 1), (A, 2), (B, 1), (B, 2), (C, 1)))
TO_B1, TO_B1_6 = address(B, 1, 11), address6(B, 1, 11)


def links(vpc_id):
    """Peering links there are."""
    return {one["ifname"] for one in ip.read(vpc_id, "link", "show") if one.get("ifalias", "").startswith("peering|")}


def leftovers(vpc_id):
    """Rules and routes that only peering makes."""
    found = []
    for version in ("-4", "-6"):
        found += [one for one in ip.read(vpc_id, version, "rule", "show") if 5000 <= one["priority"] < 6000]
        routes = ip.read(vpc_id, version, "route", "show", "table", "all")
        numbers = [int(one["table"]) for one in routes if str(one.get("table", "")).isdigit()]
        found += [number for number in numbers if number == 1000 or number >= 1 << 30]
    return found


def test_both_families_reach_the_peer(fabric):
    """From every subnet that follows the main tables, both ways; the peer sees the sender's own address."""
    fabric.apply(peered())
    with hearing([A1, A2, B1, B2], (22,)) as listeners:
        for sender, end in ((A1, TO_B1), (A2, TO_B1), (A1, TO_B1_6), (B2, address(A, 2, 11)), (B2, address6(A, 2, 11))):
            assert reach(sender, end, 22) == "connected", (sender, end)
        while listeners[B1, 22].accept()[1][0] != address6(A, 1, 11):
            pass


def test_without_routes_nothing_passes(fabric):
    """An active connection alone leads nowhere; routes of one side alone are of no use to either."""
    for tables in ((), (table(A, both(B)),), (table(B, both(A)),), (table(A, {}), table(B, {}))):
        fabric.apply(peered(tables=tables))
        with hearing([A1, B1], (22,)):
            assert reach(A1, TO_B1, 22) == "nothing"
            assert reach(B1, address6(A, 1, 11), 22) == "nothing"
            assert reach(A1, address(A, 2, 11), 22) == "ECONNREFUSED"


def test_routes_are_of_the_subnet(fabric):
    """A table of its own takes a subnet from the main one's routes; moving it back gives them again."""
    alone = table(A, {}, main=False, subnets=("subnet-a2",), name="alone")
    made = peered(tables=(table(A, both(B)), alone, table(B, both(A))))
    fabric.apply(made)
    with hearing([B1], (22,)):
        for end in (TO_B1, TO_B1_6):
            assert reach(A1, end, 22) == "connected"
            assert reach(A2, end, 22) == "nothing"
        made = changed(made, msgspec.structs.replace(alone, subnet_ids=()))
        fabric.apply(made)
        for end in (TO_B1, TO_B1_6):
            assert reach(A2, end, 22) == "connected"
        only = msgspec.structs.replace(alone, subnet_ids=("subnet-a2",), routes=table(A, both(B)).routes)
        made = changed(made, only, table(A, {}))
        fabric.apply(made)
        assert reach(A1, TO_B1, 22) == "nothing"
        assert reach(A2, TO_B1, 22) == "connected"


def test_the_longest_route_counts_and_local_comes_first(fabric):
    """A route to a part of the peer, one that is wider than the peer, and a blackhole that is narrower."""
    gone = msgspec.structs.replace(PEERING, id="pcx-2", accepter_vpc_id=C, link="pcx-2", status="deleted")
    wide = {"10.0.0.0/8": "pcx-1", f"{address(B, 2, 0)}/24": "pcx-2"}
    fabric.apply(peered(peerings=(PEERING, gone), tables=(table(A, wide), table(B, both(A)))))
    with hearing([B1, B2, C1, A2], (22,)):
        assert reach(A1, TO_B1, 22) == "connected"
        assert reach(A1, address(B, 2, 11), 22) == "nothing", "a blackhole"
        assert reach(A1, address(A, 2, 11), 22) == "connected", "local"
        assert reach(A1, address(C, 1, 11), 22) == "nothing", "no peer of A's"
    with hearing([B1], (22,)):
        part = {f"{TO_B1}/32": "pcx-1", f"{TO_B1_6}/128": "pcx-1"}
        fabric.apply(peered(tables=(table(A, part), table(B, both(A)))))
        assert reach(A1, TO_B1, 22) == "connected"
        assert reach(A1, TO_B1_6, 22) == "connected"


def test_peering_is_not_transitive(fabric):
    """A to C by way of B, whose routes would have it so: no packet of A's arrives."""
    second = msgspec.structs.replace(PEERING, id="pcx-2", requester_vpc_id=B, accepter_vpc_id=C, link="pcx-2")
    tables = (
        table(A, both(B) | both(C)),
        table(B, both(A) | both(C, "pcx-2")),
        table(C, both(B, "pcx-2") | both(A, "pcx-2")),
    )
    fabric.apply(peered(peerings=(PEERING, second), tables=tables))
    with hearing([C1, B1], (22,)):
        for end in (address(C, 1, 11), address6(C, 1, 11)):
            assert reach(A1, end, 22) == "nothing"
            assert reach(B1, end, 22) == "connected"
        assert reach(A1, TO_B1, 22) == "connected"


@pytest.mark.parametrize("free", [False, True])
def test_sources_across_the_link(fabric, free):
    """Another machine's address of the VPC is dropped where it is sent, even without source check; one of neither VPC,
    or of the peer's, where it arrives."""
    made = peered()
    eni = next(one for one in made.interfaces if one.id == eni_id(A, 1, 11))
    fabric.apply(changed(made, msgspec.structs.replace(eni, source_dest_check=not free)))
    for end, sources in (
        (TO_B1, [address(A, 2, 11), "10.10.1.99", address(B, 2, 11), "203.0.113.9", address(C, 1, 11)]),
        (TO_B1_6, [address6(A, 2, 11), address6(B, 2, 11), "2001:db8:99::1", address6(C, 1, 11)]),
    ):
        with datagram(B1, "::" if ":" in end else "0.0.0.0", 9) as receiver:
            receiver.settimeout(0.1)
            for source in sources:
                with datagram(A1, source) as sender:
                    sender.sendto(b"forged", (end, 9))
                with pytest.raises(TimeoutError):
                    receiver.recv(16)
            with datagram(A1, address6(A, 1, 11) if ":" in end else address(A, 1, 11)) as sender:
                sender.sendto(b"true", (end, 9))
            assert receiver.recv(16) == b"true"


def test_endpoints_do_not_reach_across(fabric):
    """An endpoint's dial to the peer is refused at once, under its own address and under a client's."""
    made = peered()
    kept = msgspec.structs.replace(made.endpoints[0], preserve_client_ip=True)
    for wanted in (made, changed(made, kept)):
        fabric.apply(wanted)
        with hearing([B1], (22,)):
            for end, client in ((TO_B1, "203.0.113.10"), (TO_B1_6, "2001:db8:ffff::10")):
                ended = knock(DOOR, end, 22, client=client if wanted is not made else None)
                assert ended in ("EHOSTUNREACH", "EACCES"), (end, ended)


def test_errors_of_the_peers_router_arrive(fabric):
    """A packet that expires at the other VPC's router is answered by it."""
    fabric.apply(peered())
    for end, own, level, option, protocol in (
        (TO_B1, address(A, 1, 11), socket.SOL_IP, socket.IP_TTL, socket.IPPROTO_ICMP),
        (TO_B1_6, address6(A, 1, 11), socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, socket.IPPROTO_ICMPV6),
    ):
        with netns.entered(A1):
            kind = socket.AF_INET6 if ":" in end else socket.AF_INET
            heard = socket.socket(kind, socket.SOCK_RAW, protocol)
        heard.settimeout(2)
        with closing(heard), datagram(A1, own) as sender:
            sender.setsockopt(level, option, 2)
            sender.sendto(b"expires", (end, 9))
            while True:
                answer, (who, *_) = heard.recvfrom(512)
                if (answer[0] if ":" in end else answer[20]) in (3, 11):
                    break
            assert who in (address(B, 1, 1), address(B, 2, 1), address6(B, 1, 1), address6(B, 2, 1))


def test_it_ends(fabric):
    """Deleted: no link, rule or route is left in either VPC, nothing passes, and nothing is tracked across it."""
    made = peered()
    fabric.apply(made)
    with datagram(A1, address(A, 1, 11)) as sender, datagram(B1, "0.0.0.0", 9) as receiver:
        sender.sendto(b"x", (TO_B1, 9))
        assert receiver.recv(8) == b"x"
        sender.sendto(b"x", (address(A, 2, 11), 9))
    over = changed(
        made,
        msgspec.structs.replace(PEERING, status="deleted"),
        deletes=[("route-table", "rtb-a-main"), ("route-table", "rtb-b-main")],
    )
    fabric.apply(over)
    for vpc_id in (A, B):
        assert links(vpc_id) == set()
        assert leftovers(vpc_id) == []
    assert [one.original.destination for one in conntrack.dump(A) if one.protocol == 17] == [address(A, 2, 11)]
    assert [one for one in conntrack.dump(B) if one.protocol == 17] == []
    with hearing([B1], (22,)):
        assert reach(A1, TO_B1, 22) == "nothing"
        fabric.apply(msgspec.structs.replace(made, revision=9))
        assert reach(A1, TO_B1, 22) == "connected"


def test_a_peer_goes(fabric):
    """The other VPC is deleted with its connection, in one step and by a netd without memory as well."""
    made = peered()
    over = msgspec.structs.replace(PEERING, status="deleted")
    rest = World(
        revision=2,
        vpcs=(made.vpcs[0], made.vpcs[2]),
        subnets=tuple(one for one in made.subnets if one.vpc_id != B),
        groups=tuple(one for one in made.groups if one.vpc_id != B),
        interfaces=tuple(one for one in made.interfaces if not one.id.startswith("eni-b")),
        instances=tuple(one for one in made.instances if not one.interface_id.startswith("eni-b")),
        endpoints=made.endpoints,
        peerings=(over,),
        route_tables=(made.route_tables[0],),
    )
    rest.check()
    for fresh in (False, True):
        fabric.apply(msgspec.structs.replace(made, revision=1))
        with closing(Fabric()) as without_memory:
            (without_memory if fresh else fabric).apply(rest)
        assert B not in netns.names()
        assert links(A) == set()
        with hearing([A2], (22,)):
            assert reach(A1, address(A, 2, 11), 22) == "connected"


def test_a_new_owner_in_the_peer_inherits_no_flow(fabric):
    """An address of B moves to another machine there: A's router forgets what it knows of it, too."""
    made = peered()
    fabric.apply(made)
    with datagram(A1, address(A, 1, 11)) as sender:
        sender.sendto(b"x", (TO_B1, 9))
        sender.sendto(b"x", (address(B, 2, 11), 9))
    eni = next(one for one in made.interfaces if one.id == eni_id(B, 1, 11))
    fabric.apply(changed(made, msgspec.structs.replace(eni, private_ip_address=address(B, 1, 77))))
    for vpc_id in (A, B):
        ends = {one.original.destination for one in conntrack.dump(vpc_id) if one.protocol == 17}
        assert ends == {address(B, 2, 11)}


def test_a_netd_without_memory_writes_nothing(fabric, monkeypatch):
    """Links, rules and routes of two connections, one of them over, are found as they are."""
    gone = msgspec.structs.replace(PEERING, id="pcx-2", accepter_vpc_id=C, link="pcx-2", status="deleted")
    alone = table(
        A, {block(C): "pcx-2", "::/0": "pcx-1", "0.0.0.0/0": "pcx-1"}, main=False, subnets=("subnet-a2",), name="x"
    )
    made = peered(
        peerings=(PEERING, gone), tables=(table(A, both(B) | {f"{TO_B1}/32": "pcx-1"}), alone, table(B, both(A)))
    )
    fabric.apply(made)
    assert written(made, monkeypatch) == []


def test_a_link_of_another_connection_is_made_anew(fabric):
    """A netd without memory finds a link of this name that leads elsewhere, and one whose peer has other ranges."""
    made = peered()
    fabric.apply(made)
    other = msgspec.structs.replace(PEERING, id="pcx-9", accepter_vpc_id=C)
    tables = (table(A, both(C, "pcx-9")), table(C, both(A, "pcx-9")))
    wanted = peered(peerings=(other,), tables=tables)
    with closing(Fabric()) as fresh:
        fresh.apply(wanted)
        with hearing([B1, C1], (22,)):
            assert reach(A1, address(C, 1, 11), 22) == "connected"
            assert reach(A1, TO_B1, 22) == "nothing"
        assert links(B) == set()
        vpc = msgspec.structs.replace(wanted.vpcs[2], ipv6_cidr_blocks=(block6(C), "2001:db8:31::/56"))
        fresh.apply(changed(wanted, vpc))
        with hearing([C1], (22,)):
            assert reach(A1, address6(C, 1, 11), 22) == "connected"
