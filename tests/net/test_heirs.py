"""What becomes of open flows when an interface changes groups, is detached, stops or gives its address to another.

AWS says nothing of this. Other groups are like other rules; what ends takes its flows along; and whoever comes to an
address after another has nothing of the other's flows, in either direction.
"""

import msgspec
import pytest

from tests.net.families import datagram, dual, six
from tests.net.flows import EVERYTHING, NAMES, OUT, PORT, TCP, UDP, addresses, arrives, flow, pair
from tests.net.worlds import SUBNET, VPC, resource_id, rule, sg, world
from wicketgate.kernel import conntrack
from wicketgate.model import Change, Instance, NetworkInterface, apply_change

pytestmark = pytest.mark.slow

VERSIONS = pytest.mark.parametrize("version", [4, 6])
KINDS = pytest.mark.parametrize("kind", [TCP, UDP])
C, C6 = "10.0.1.21", six("10.0.1.21")
FREE = [rule(way, "-1", (-1, -1), peer) for way in ("in", "out") for peer in ("10.0.1.0/24", "2001:db8:0:1::/64")]


def changed(before, *puts, deletes=()):
    """The World after a Change."""
    return apply_change(before, Change(puts=puts, deletes=deletes))


def regrouped(made, link, *names):
    """The World once an interface has other groups."""
    eni = next(one for one in made.interfaces if one.link == link)
    return changed(made, msgspec.structs.replace(eni, group_ids=tuple(sg(name) for name in names)))


def tracked(*wanted):
    """Flows with one of the addresses."""
    return [one for one in conntrack.dump(VPC) if {one.original.source, one.original.destination} & {*wanted}]


# -- other groups ------------------------------------------------------------------------------------------------------


@VERSIONS
@KINDS
@pytest.mark.parametrize("link", ["a", "b"])
@pytest.mark.parametrize("untracked", [False, True])
def test_other_groups_are_like_other_rules(fabric, version, kind, link, untracked):
    """A tracked flow goes on, an untracked one is judged by the new groups at once, and again when they change back."""
    narrow = [("out", NAMES[kind], (PORT, PORT), "near"), ("in", NAMES[kind], (PORT, PORT), "near")]
    rules = {"a": narrow, "b": narrow} | ({link: EVERYTHING} if untracked else {})
    made = pair(version, rules["a"], rules["b"])
    fabric.apply(made)
    with flow(made, version, kind) as ends:
        fabric.apply(regrouped(made, link, "none"))
        assert (arrives(*ends), arrives(*ends[::-1])) == (not untracked, not untracked)
        fabric.apply(made)
        assert arrives(*ends, wait=3)


@VERSIONS
def test_a_flow_stays_what_it_was(fabric, version):
    """New groups that would leave it untracked do not make a tracked flow so: it outlives them."""
    made = pair(version, [OUT], [("in", "tcp", (PORT, PORT), "near")])
    fabric.apply(made)
    with flow(made, version, TCP) as ends:
        both = changed(
            made,
            msgspec.structs.replace(
                made.group(sg("none")), rules=pair(version, [], EVERYTHING).group(sg("server")).rules
            ),
        )
        fabric.apply(regrouped(both, "b", "none"))
        assert arrives(*ends)
        fabric.apply(regrouped(changed(both, made.group(sg("none"))), "b", "none"))
        assert arrives(*ends)


# -- the end of an interface's owner -----------------------------------------------------------------------------------


@pytest.fixture
def three():
    """Three machines that may do everything inside the subnet, and a group that allows nothing."""
    return dual(world({"endpoint": [], "free": FREE, "none": []}, {"a": ["free"], "b": ["free"], "c": ["free"]}))


def _further(to="", groups=("free",)):
    """An interface with an address of each family, alone or attached to an instance."""
    return NetworkInterface(
        id="eni-00000000000000099",
        subnet_id=SUBNET,
        private_ip_address=C,
        ipv6_addresses=(C6,),
        group_ids=tuple(sg(name) for name in groups),
        link="more",
        attached_to=to,
        device_index=1 if to else 0,
    )


@VERSIONS
def test_detached_and_attached_to_another(fabric, three, version):
    """Nothing of what was open at an interface is there for the instance that it is attached to next, though its
    groups allow everything."""
    a, b, c = (one.id for one in three.instances)
    made = changed(three, _further(b))
    fabric.apply(made)
    source, address = addresses(version)[0], (C, C6)[version == 6]
    with datagram(a, source, 4000) as sender:
        with datagram(b, address, PORT) as receiver:
            sender.connect((address, PORT))
            receiver.connect((source, 4000))
            assert arrives(sender, receiver)
            assert arrives(receiver, sender)
            alone = changed(made, _further())
            fabric.apply(alone)
            assert tracked(address) == []
        # The machine that now has it may receive nothing.
        heir = changed(alone, _further(c, groups=("none",)))
        fabric.apply(heir)
        with datagram(c, address, PORT) as receiver:
            receiver.connect((source, 4000))
            assert not arrives(sender, receiver)
            assert not arrives(receiver, sender)
    assert tracked(address) == []


@VERSIONS
def test_stopped(fabric, version):
    """When an instance has stopped nothing is tracked for it, and an answer that was on its way is none any more."""
    made = pair(version, [("out", "udp", (PORT, PORT), "near")], [("in", "udp", (PORT, PORT), "near"), OUT])
    fabric.apply(made)
    with flow(made, version, UDP) as (client, server):
        stopping = changed(made, msgspec.structs.replace(made.instances[0], state="stopping"))
        fabric.apply(stopping)
        assert arrives(server, client), "its connections may still end in order"
        stopped = changed(stopping, msgspec.structs.replace(made.instances[0], state="stopped"))
        fabric.apply(stopped)
        assert tracked(*addresses(version)) == []
        again = changed(stopped, msgspec.structs.replace(made.instances[0], state="running"))
        fabric.apply(again)
        assert not arrives(server, client), "what comes now begins a flow, which no rule of a's lets in"


# -- an address and its next owner -------------------------------------------------------------------------------------


@VERSIONS
@KINDS
@pytest.mark.parametrize("untracked", [False, True])
def test_a_new_machine_at_an_old_address(fabric, version, kind, untracked):
    """Its groups allow nothing, so it hears nothing of what its predecessor had open, and can say nothing into it."""
    near = [(way, "-1", (-1, -1), "near") for way in ("in", "out")]
    made = pair(version, EVERYTHING if untracked else near, EVERYTHING if untracked else near)
    fabric.apply(made)
    target = addresses(version)[1]
    with flow(made, version, kind) as (client, server):
        heir = _heir(made)
        fabric.apply(heir)
        assert tracked(target) == []
        assert not arrives(client, server), "the machine that had it is cut off"
        if kind == UDP:
            with datagram(heir.instances[1].id, target, PORT) as next_one:
                next_one.connect(client.getsockname()[:2])
                assert not arrives(client, next_one)
                assert not arrives(next_one, client)


def _heir(made):
    """The World once b is gone and another machine, in no group that allows anything, has its addresses."""
    b = made.instances[1]
    eni = made.interface(b.interface_id)
    fresh = msgspec.structs.replace(eni, id="eni-00000000000000098", link="fresh", group_ids=(sg("none"),))
    instance = Instance(id=resource_id("i", "fresh"), name="fresh", interface_id=fresh.id)
    return changed(made, fresh, instance, deletes=(("instance", b.id), ("network-interface", eni.id)))


@VERSIONS
def test_a_moved_address(fabric, three, version):
    """A further address that goes to another interface in one Change takes no flow along; other flows go on."""
    address = (C, C6)[version == 6]
    eni_b, eni_c = (three.interface(one.interface_id) for one in three.instances[1:])

    def holding(eni):
        if version == 4:
            return msgspec.structs.replace(eni, secondary_ip_addresses=(address,))
        return msgspec.structs.replace(eni, ipv6_addresses=(*eni.ipv6_addresses, address))

    made = changed(three, holding(eni_b))
    fabric.apply(made)
    source, primary = addresses(version)
    a, b, c = (one.id for one in three.instances)
    with datagram(a, source, 4000) as sender, datagram(b, address, PORT) as old, flow(made, version, TCP) as stays:
        sender.connect((address, PORT))
        old.connect((source, 4000))
        assert arrives(sender, old)
        fabric.apply(changed(made, eni_b, msgspec.structs.replace(holding(eni_c), group_ids=(sg("none"),))))
        assert tracked(address) == []
        with datagram(c, address, PORT) as heir:
            heir.connect((source, 4000))
            assert not arrives(sender, heir)
            assert not arrives(heir, sender)
        assert arrives(*stays)
        assert tracked(primary) != []


@VERSIONS
def test_an_owner_comes_back(fabric, version):
    """The same machine at the same address after a while without one: it has to begin anew as well."""
    made = pair(version, [("out", "udp", (PORT, PORT), "near")], [("in", "udp", (PORT, PORT), "near"), OUT])
    fabric.apply(made)
    eni = made.interface(made.instances[0].interface_id)
    without = {"ipv6_addresses": ()} if version == 6 else {"private_ip_address": ""}
    bare = changed(made, msgspec.structs.replace(eni, **without))
    with flow(made, version, UDP) as (client, server):
        fabric.apply(bare)
        fabric.apply(made)
        assert not arrives(server, client), "an answer to nothing"
        assert arrives(client, server)
        assert arrives(server, client)
