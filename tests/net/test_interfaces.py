"""Further addresses and further interfaces of an instance, attached and detached while it runs; what a change costs."""

import socket
from contextlib import closing

import msgspec
import pytest

from tests.net.families import datagram, dual, hearing, knock, reach, six
from tests.net.test_ipv6 import written
from tests.net.worlds import ENDPOINT, SUBNET, VPC, rule, sg, world
from wicketgate.kernel import conntrack, ip, netns
from wicketgate.kernel.fabric import Fabric
from wicketgate.model import Change, NetworkInterface, Subnet, World, apply_change

FREE = [rule(way, "-1", (-1, -1), "0.0.0.0/0") for way in ("in", "out")]
FREE += [msgspec.structs.replace(one, id=f"{one.id[:-1]}6", cidr_ipv4=None, cidr_ipv6="::/0") for one in FREE]
GROUPS = {"endpoint": FREE, "free": FREE, "closed": []}
SECOND = "subnet-00000000000000002"


def further(number, *, subnet=SECOND, address=None, groups=("free",), to="", index=0):
    """An interface of its own in the second subnet."""
    return NetworkInterface(
        id=f"eni-000000000000001{number}",
        subnet_id=subnet,
        private_ip_address=address or f"10.0.2.{number}",
        ipv6_addresses=(f"2001:db8:0:2::{number}",) if address is None else (),
        group_ids=tuple(sg(name) for name in groups),
        link=f"more-{number}",
        attached_to=to,
        device_index=index,
    )


@pytest.fixture
def made():
    """Two machines and an endpoint in one subnet, dual stack, and an empty second subnet."""
    first = dual(world(GROUPS, {"one": ["free"], "two": ["free"]}))
    subnet = Subnet(id=SECOND, vpc_id=VPC, cidr_block="10.0.2.0/24", ipv6_cidr_block="2001:db8:0:2::/64")
    return msgspec.structs.replace(first, subnets=(*first.subnets, subnet))


def changed(before, *puts, deletes=()):
    """The World after a Change."""
    return apply_change(before, Change(puts=puts, deletes=deletes))


def devices(namespace):
    """Device -> its global addresses."""
    return {
        link["ifname"]: [one["local"] for one in link["addr_info"] if one["scope"] == "global"]
        for link in ip.read(namespace, "address", "show")
        if link["ifname"] != "lo"
    }


# -- further addresses -------------------------------------------------------------------------------------------------


def test_further_addresses_come_and_go(fabric, made):
    """Assigned to a running machine they are reached; unassigned they are nobody's; open connections do not notice."""
    fabric.apply(made)
    one, two = (instance.id for instance in made.instances)
    eni = made.interface(made.instances[0].interface_id)
    more = msgspec.structs.replace(
        eni, secondary_ip_addresses=("10.0.1.21", "10.0.1.22"), ipv6_addresses=(six("10.0.1.11"), six("10.0.1.21"))
    )
    with hearing([one], (22,)) as listeners:
        with netns.entered(two):
            open_ = socket.create_connection(("10.0.1.11", 22), 2)
        peer, _ = listeners[one, 22].accept()
        with open_, peer:
            after = changed(made, more)
            fabric.apply(after)
            assert devices(one)["eth0"][:3] == ["10.0.1.11", "10.0.1.21", "10.0.1.22"]
            for address in ("10.0.1.21", "10.0.1.22", six("10.0.1.21"), "10.0.1.11", six("10.0.1.11")):
                assert knock(ENDPOINT, address, 22) == "connected"
                assert reach(two, address, 22) == "connected"
            fewer = msgspec.structs.replace(more, secondary_ip_addresses=("10.0.1.22",), ipv6_addresses=())
            fabric.apply(changed(after, fewer))
            assert devices(one) == {"eth0": ["10.0.1.11", "10.0.1.22"]}
            assert knock(ENDPOINT, "10.0.1.22", 22) == "connected"
            assert reach(two, "10.0.1.21", 22) == "nothing"
            assert reach(two, six("10.0.1.11"), 22) == "nothing"
            open_.sendall(b"still here")
            peer.settimeout(2)
            assert peer.recv(16) == b"still here"


def test_a_machine_sends_under_its_further_addresses(fabric, made):
    """And under no other."""
    eni = msgspec.structs.replace(made.interface(made.instances[0].interface_id), secondary_ip_addresses=("10.0.1.21",))
    fabric.apply(changed(made, eni))
    one, two = (instance.id for instance in made.instances)
    with datagram(two, "0.0.0.0", 9) as receiver:
        receiver.settimeout(0.3)
        for source in ("10.0.1.21", "10.0.1.11"):
            with datagram(one, source) as sender:
                sender.sendto(b"x", ("10.0.1.12", 9))
                assert receiver.recvfrom(8)[1][0] == source
        with datagram(one, "10.0.1.22") as sender, pytest.raises(TimeoutError):
            sender.sendto(b"x", ("10.0.1.12", 9))
            receiver.recv(8)


@pytest.mark.parametrize("fresh", [False, True])
def test_a_moved_address_takes_no_flow_along(fabric, made, fresh):
    """An address that moves to another interface in one Change: what was tracked for it is forgotten, no other flow."""
    one, two = (made.interface(instance.interface_id) for instance in made.instances)
    before = changed(made, msgspec.structs.replace(one, secondary_ip_addresses=("10.0.1.21",)))
    fabric.apply(before)
    with datagram(made.instances[1].id, "10.0.1.12", 9) as sender:
        sender.sendto(b"x", ("10.0.1.21", 9))
        sender.sendto(b"x", ("10.0.1.11", 9))
    after = changed(before, one, msgspec.structs.replace(two, secondary_ip_addresses=("10.0.1.21",)))
    with closing(Fabric()) as without_memory:
        (without_memory if fresh else fabric).apply(after)
    assert devices(made.instances[0].id)["eth0"][0] == "10.0.1.11"
    assert devices(made.instances[1].id)["eth0"][:2] == ["10.0.1.12", "10.0.1.21"]
    flows = {entry.original.destination for entry in conntrack.dump(VPC) if entry.protocol == 17}
    assert flows == {"10.0.1.11"}
    with hearing([made.instances[1].id], (22,)):
        assert knock(ENDPOINT, "10.0.1.21", 22) == "connected"


def test_a_stopped_machine_leaves_no_flow(fabric, made):
    """When it has stopped, what was tracked for it is forgotten; while it is stopping, not yet."""
    fabric.apply(made)
    with datagram(made.instances[1].id, "10.0.1.12", 9) as sender:
        sender.sendto(b"x", ("10.0.1.11", 9))
    for state, left in (("stopping", 1), ("stopped", 0)):
        made = changed(made, msgspec.structs.replace(made.instances[0], state=state))
        fabric.apply(made)
        assert sum(entry.protocol == 17 for entry in conntrack.dump(VPC)) == left


def test_a_swap_of_groups_keeps_flows(fabric, made):
    """Other groups are like other rules: what is tracked goes on."""
    fabric.apply(made)
    with datagram(made.instances[1].id, "10.0.1.12", 9) as sender:
        sender.sendto(b"x", ("10.0.1.11", 9))
    eni = made.interface(made.instances[0].interface_id)
    fabric.apply(changed(made, msgspec.structs.replace(eni, group_ids=(sg("closed"),))))
    assert sum(entry.protocol == 17 for entry in conntrack.dump(VPC)) == 1


# -- further interfaces ------------------------------------------------------------------------------------------------


def test_attach_and_detach_while_running(fabric, made):
    """An interface on its own becomes eth1 of a running machine, then eth2 of another, then is on its own again."""
    one, two = made.instances
    alone = further(31)
    world_ = changed(made, alone)
    fabric.apply(world_)
    nobody = alone.id.replace("eni-", "i-")
    assert devices(nobody) == {"eth0": ["10.0.2.31", "2001:db8:0:2::31"]}
    for instance, index in ((one, 1), (two, 2)):
        world_ = changed(world_, further(31, to=instance.id, index=index))
        fabric.apply(world_)
        assert devices(instance.id)[f"eth{index}"] == ["10.0.2.31", "2001:db8:0:2::31"]
        assert nobody not in netns.names()
        with hearing([instance.id], (22,)):
            for address in ("10.0.2.31", "2001:db8:0:2::31", "10.0.1.11" if instance is one else "10.0.1.12"):
                assert knock(ENDPOINT, address, 22) == "connected"
    assert set(devices(one.id)) == {"eth0"}
    assert rules_of(one.id) == []
    world_ = changed(world_, alone)
    fabric.apply(world_)
    assert set(devices(two.id)) == {"eth0"}
    assert rules_of(two.id) == []
    assert set(devices(nobody)) == {"eth0"}
    fabric.apply(changed(world_, deletes=[("network-interface", alone.id)]))
    assert nobody not in netns.names()


def rules_of(namespace):
    """Rules of policy routing for further interfaces, both families."""
    return [
        one
        for version in ("-4", "-6")
        for one in ip.read(namespace, version, "rule", "show")
        if 0 < one["priority"] < 32766
    ]


def test_replies_leave_by_the_interface_they_came_to(fabric, made):
    """Two interfaces in two subnets, and a third in the first one's: each answers under its own address, and to whom in
    the other subnet; the source check, which knows interfaces, would drop anything else."""
    one, two = made.instances
    others = [
        further(31, to=one.id, index=1),
        further(32, subnet=SUBNET, address="10.0.1.77", to=one.id, index=2),
        further(33, to=two.id, index=1),
    ]
    fabric.apply(changed(made, *others))
    before = fabric.counters(VPC)["forged_source"]
    with hearing([one.id], (22,)):
        for address in ("10.0.1.11", "10.0.2.31", "10.0.1.77", six("10.0.1.11"), "2001:db8:0:2::31"):
            assert knock(ENDPOINT, address, 22) == "connected"
            for source in ("2001:db8:0:2::33", six("10.0.1.12")) if ":" in address else ("10.0.2.33", "10.0.1.12"):
                assert reach(two.id, address, 22, source=source) == "connected"
    assert fabric.counters(VPC)["forged_source"] == before


def test_groups_are_of_the_interface(fabric, made):
    """What one interface lets in another of the same machine does not."""
    one, two = made.instances
    fabric.apply(changed(made, further(31, to=one.id, index=1, groups=("closed",))))
    with hearing([one.id], (22,)):
        assert reach(two.id, "10.0.1.11", 22) == "connected"
        assert reach(two.id, "10.0.2.31", 22) == "nothing"


def test_a_netd_without_memory_writes_nothing(fabric, made, monkeypatch):
    """A fresh Fabric over further addresses and interfaces, one of them on its own."""
    one, _ = made.instances
    eni = msgspec.structs.replace(made.interface(one.interface_id), secondary_ip_addresses=("10.0.1.21",))
    wanted = changed(made, eni, further(31, to=one.id, index=1), further(32))
    fabric.apply(wanted)
    assert written(wanted, monkeypatch) == []


def test_a_netd_without_memory_detaches(fabric, made):
    """Attached before, gone in the next one's World: no device and no rule are left."""
    one, _ = made.instances
    fabric.apply(changed(made, further(31, to=one.id, index=1)))
    with closing(Fabric()) as fresh:
        fresh.apply(made)
    assert set(devices(one.id)) == {"eth0"}
    assert rules_of(one.id) == []


# -- what a change costs -----------------------------------------------------------------------------------------------


def test_one_interface_among_many(fabric, monkeypatch):
    """A change of one interface's groups, and of a prefix list, asks the kernel nothing; an address asks for little."""
    made = _many(200)
    fabric.apply(made)
    calls = []
    run = ip._ip

    def counted(namespace, arguments, text=""):
        calls.append((namespace, arguments, text))
        return run(namespace, arguments, text)

    monkeypatch.setattr(ip, "_ip", counted)
    eni = made.interfaces[7]
    swapped = changed(made, msgspec.structs.replace(eni, group_ids=(sg("closed"),)))
    fabric.apply(swapped)
    assert calls == []
    fabric.apply(
        changed(swapped, msgspec.structs.replace(swapped.interface(eni.id), secondary_ip_addresses=("10.0.3.9",)))
    )
    assert 0 < len(calls) <= 6
    assert all(
        eni.link in " ".join([*arguments, text]) or "eth0" in text + " ".join(arguments) for _, arguments, text in calls
    )


def _many(count):
    """One VPC with many machines."""
    made = world(GROUPS, {"one": ["free"]})
    subnet = msgspec.structs.replace(made.subnets[0], cidr_block="10.0.0.0/16")
    interfaces = [
        NetworkInterface(
            id=f"eni-{number:017x}",
            subnet_id=SUBNET,
            private_ip_address=f"10.0.{4 + number // 200}.{number % 200 + 10}",
            group_ids=(sg("free"),),
            link=f"m{number}",
        )
        for number in range(count)
    ]
    many = World(vpcs=made.vpcs, subnets=(subnet,), groups=made.groups, interfaces=tuple(interfaces))
    many.check()
    return many
