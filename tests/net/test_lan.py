"""Subnets bound to a network of hosts that was not made by us, in all four ways, both families."""

import errno
import json
import os
import select
import signal
import socket
import subprocess
import time

import msgspec
import pytest

from tests.net import lan_rig
from tests.net.lan_rig import PORTS, Site, connect, ip
from tests.net.test_netd import Process
from tests.net.worlds import CLIENT, ENDPOINT, SUBNET, VPC, resource_id, rule, sg
from wicketgate.kernel import lan as lan_module
from wicketgate.kernel import netns
from wicketgate.kernel.dial import dial
from wicketgate.kernel.fabric import Fabric
from wicketgate.kernel.lan import Binding, release_all
from wicketgate.kernel.neighbours import in_use
from wicketgate.model import (
    Endpoint,
    FabricError,
    Instance,
    NetworkInterface,
    SecurityGroup,
    Settings,
    Subnet,
    Vpc,
    World,
)
from wicketgate.model.resources import EXTERNAL_IMAGE, AttachedNetwork

INNER = "subnet-00000000000000002"
LAN = "lan-00000000000000001"
OURS, OURS6 = "10.9.0.250", "fd09::250"
CLIENT6 = "2001:db8::10"
MODES = ("own", "bridge", "macvlan", "routed")
GROUPS = {
    "endpoint": [rule("out", "tcp", (22, 80), "10.9.0.0/16"), rule("out", "tcp", (22, 80), "fd09::/56")],
    "web": [
        rule("in", "tcp", (22, 22), "sg:endpoint"),
        rule("out", "tcp", (80, 80), "sg:inner"),
    ],
    "inner": [rule("in", "tcp", (80, 80), "sg:web"), rule("out", "tcp", (80, 80), "sg:web")],
    "closed": [],
}


def made(machines=(("m1", 11, "web"), ("m2", 12, "closed")), *, preserve=False, revision=1, endpoint=OURS):
    """A VPC with a bound subnet of these machines and an endpoint, and a subnet with an instance of ours."""
    interfaces = [
        _interface("endpoint", SUBNET, endpoint, OURS6, "endpoint", interface_type="ec2_instance_connect_endpoint"),
        _interface("inner", INNER, "10.9.1.11", "fd09:0:0:1::11", "inner"),
        *(_interface(name, SUBNET, f"10.9.0.{number}", f"fd09::{number}", group) for name, number, group in machines),
    ]
    instances = [
        Instance(
            id=resource_id("i", one.link),
            interface_id=one.id,
            **({} if one.link == "inner" else {"image_id": EXTERNAL_IMAGE}),
        )
        for one in interfaces[1:]
    ]
    found = World(
        revision=revision,
        settings=Settings(preserve_client_ipv6=True),
        vpcs=(Vpc(id=VPC, cidr_block="10.9.0.0/16", ipv6_cidr_blocks=("fd09::/56",)),),
        subnets=(
            Subnet(id=SUBNET, vpc_id=VPC, cidr_block="10.9.0.0/24", ipv6_cidr_block="fd09::/64"),
            Subnet(id=INNER, vpc_id=VPC, cidr_block="10.9.1.0/24", ipv6_cidr_block="fd09:0:0:1::/64"),
        ),
        groups=tuple(SecurityGroup(id=sg(name), vpc_id=VPC, name=name, rules=tuple(rs)) for name, rs in GROUPS.items()),
        interfaces=tuple(interfaces),
        instances=tuple(instances),
        endpoints=(
            Endpoint(
                id=ENDPOINT,
                subnet_id=SUBNET,
                interface_id=interfaces[0].id,
                dns_name="x",
                preserve_client_ip=preserve,
                ip_address_type="dualstack",
            ),
        ),
    )
    found.check()
    return found


def _interface(name, subnet, four, six, group, **more):
    return NetworkInterface(
        id=resource_id("eni", name),
        subnet_id=subnet,
        private_ip_address=four,
        ipv6_addresses=(six,),
        group_ids=(sg(group),),
        link=name,
        **more,
    )


def through(address, port=22, client=None, seconds=2.0, source=OURS):
    """What a dial from the endpoint gets: under which address it was seen, or the name of an errno."""
    sock, number = dial(ENDPOINT, address, port, client, OURS6 if ":" in address else source)
    with sock:
        if number not in (0, errno.EINPROGRESS):
            return REFUSED if number in (errno.EHOSTUNREACH, errno.EACCES) else os.strerror(number)
        sock.setblocking(True)
        if not select.select([], [sock], [], seconds)[1]:
            return "nothing"
        if number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return REFUSED if number in (errno.EHOSTUNREACH, errno.EACCES) else os.strerror(number)
        sock.settimeout(seconds)
        try:
            return sock.recv(100).decode()
        except TimeoutError:
            return "nothing"


REFUSED = "refused"
"""By the rules, or by the void, and at once."""


def settings_of(mode, return_path):
    """How the site is built for a mode, and what of it is bound."""
    site = {"switch": "home" if mode == "bridge" else "away"}
    if mode == "routed":
        site["prefixes"] = (25, 120)  # the endpoint's addresses are elsewhere, by way of the router
    if return_path:
        site["router_of_machines"] = "1"
    device = {"own": "nic0", "bridge": "br0", "macvlan": "nic0", "routed": "to-gate"}[mode]
    return site, Binding(mode, device, return_path)


def route_home(site):
    """For `routed`: the host forwards, and the site's router knows the way to the endpoint."""
    ip("addr add 10.9.0.2/25 dev nic0")
    ip("addr add fd09::2/120 dev nic0 nodad")
    for key in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
        lan_rig.inside(None, "sysctl", "-qw", f"{key}=1")
    ip(f"route add {OURS} via 10.9.0.2", namespace="rtr")
    ip(f"route add {OURS6} via fd09::2", namespace="rtr")


@pytest.fixture
def lan():
    """Makes a site and a Fabric bound to it, and removes both."""
    sites, fabrics = [], []

    def make(mode, return_path=False, world=None, ask=in_use):
        how, binding = settings_of(mode, return_path)
        sites.append(Site(**how))
        if mode == "routed":
            route_home(sites[0])
        before = sites[0].configuration()
        fabrics.append(Fabric(bindings={SUBNET: binding}, in_use=ask))
        fabrics[0].apply(world or made())
        assert fabrics[0].lans[SUBNET].problem == ""
        return sites[0], fabrics[0], before

    yield make
    for one in fabrics:
        one.close()
    cleaner = Fabric()
    cleaner.apply(World())
    cleaner.close()
    release_all()
    for one in sites:
        one.close()


@pytest.mark.parametrize("mode", MODES)
def test_reached_and_refused_as_the_groups_say(lan, mode):
    """Machines are reached under the endpoint's address, or refused at once; nobody's configuration is touched, and
    the hosts talk to each other and to their own router as before."""
    site, fabric, before = lan(mode)
    assert (through("10.9.0.11"), through("fd09::11")) == (OURS, OURS6)
    for refused in (("10.9.0.11", 80), ("fd09::11", 80), ("10.9.0.12", 22), ("fd09::12", 22), ("10.9.0.77", 22)):
        started = time.monotonic()
        assert through(*refused) == REFUSED
        assert time.monotonic() - started < 0.2
    assert connect("m1", OURS, 22, 0.3).startswith("TimeoutError"), "nobody connects to an endpoint"
    # Neither another host's address, nor one that nobody has, nor, to strangers, the endpoint's is ours to answer for.
    assert connect("pc", "10.9.0.11", 80) == "10.9.0.99"
    assert connect("m1", "fd09::3", 80) == "fd09::11"
    assert site.neighbour("pc", "10.9.0.11")[0] == site.mac("m1")
    assert connect("pc", "10.9.0.77", 80, 0.3).startswith("TimeoutError")
    assert site.neighbour("pc", "10.9.0.77")[0] is None
    if mode != "routed":
        connect("pc", OURS, 22, 0.3)
        assert site.neighbour("pc", OURS)[0] is None
    assert site.configuration() == before
    assert fabric.lans[SUBNET].counters()["strangers"] == 0 or mode == "routed"


@pytest.mark.parametrize("mode", ["own", "bridge", "macvlan"])
def test_the_return_path(lan, mode):
    """Machines whose router is the gateway see clients' own addresses, reach other members as the groups allow, and
    instance metadata's address."""
    world = made(preserve=True)
    site, _, before = lan(mode, True, world)
    assert (through("10.9.0.11", client=CLIENT), through("fd09::11", client=CLIENT6)) == (CLIENT, CLIENT6)
    inner = next(one.id for one in world.instances if not one.is_external)
    for address, source in (("10.9.1.11", "10.9.0.11"), ("fd09:0:0:1::11", "fd09::11")):
        with netns.entered(inner):
            listener = socket.create_server((address, 80), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
        with listener:
            asker = subprocess.Popen(["ip", "netns", "exec", "m1", *_client(address, 80)], stdout=subprocess.PIPE)
            listener.settimeout(3)
            connection, peer = listener.accept()
            connection.sendall(peer[0].encode())
            connection.close()
            assert asker.communicate(timeout=5)[0].decode().strip() == source
    assert connect("m2", "10.9.1.11", 80, 0.3).startswith("TimeoutError"), "its groups allow nothing"
    connect("m1", "10.9.0.77", 80, 0.3)
    assert site.neighbour("m1", "10.9.0.77")[0] is None, "nobody's address is nobody's to answer for"
    with netns.entered(VPC):
        metadata = socket.create_server(("169.254.169.254", 80))
    with metadata:
        asker = subprocess.Popen(["ip", "netns", "exec", "m1", *_client("169.254.169.254", 80)], stdout=subprocess.PIPE)
        metadata.settimeout(3)
        connection, peer = metadata.accept()
        connection.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)  # as answers with tokens have it
        connection.sendall(peer[0].encode())
        connection.close()
        assert asker.communicate(timeout=5)[0].decode().strip() == "10.9.0.11"
    assert site.configuration() == before


def _client(address, port):
    return [lan_rig.sys.executable, "-c", lan_rig.CLIENT, address, str(port), "3"]


def test_machines_come_and_go(lan):
    """A machine more, another address, one less: each in force at once, others undisturbed."""
    _, fabric, _ = lan("bridge", world=made([("m2", 12, "web")]))
    assert (through("10.9.0.11"), through("10.9.0.12")) == (REFUSED, OURS)
    fabric.apply(made([("m1", 11, "web"), ("m2", 12, "web")], revision=2))
    assert (through("10.9.0.11"), through("fd09::11"), through("10.9.0.12")) == (OURS, OURS6, OURS)
    ip("addr add 10.9.0.21/24 dev eth0", namespace="m1")
    moved = made([("m1", 21, "web"), ("m2", 12, "web")], revision=3)
    fabric.apply(moved)
    assert (through("10.9.0.11"), through("10.9.0.21"), through("10.9.0.12")) == (REFUSED, OURS, OURS)
    fabric.apply(made([("m2", 12, "web")], revision=4))
    assert (through("10.9.0.21"), through("10.9.0.12")) == (REFUSED, OURS)
    assert connect("m1", "10.9.0.12", 80) == "10.9.0.11"


def test_a_subnet_that_is_not_bound_leads_nowhere(lan, fabric):
    """External machines have no link then, nor a namespace: a dial is refused at once."""
    fabric.apply(made())
    started = time.monotonic()
    assert (through("10.9.0.11"), through("fd09::11")) == (REFUSED, REFUSED)
    assert time.monotonic() - started < 0.2
    assert sorted(netns.names()) == sorted([VPC, ENDPOINT, resource_id("i", "inner")])


def test_the_endpoints_address_is_somebody_elses(lan, monkeypatch):
    """A change that would take an address of another host is refused in words, and nothing is answered for it."""
    free = made()
    site, fabric, _ = lan("bridge", world=msgspec.structs.replace(free, endpoints=(), interfaces=free.interfaces[1:]))
    taken = made(revision=2, endpoint="10.9.0.99")
    with pytest.raises(FabricError, match=rf"10\.9\.0\.99 is in use on the network of {SUBNET}, by {site.mac('pc')}"):
        fabric.apply(taken)
    assert fabric.lans[SUBNET].taken == {}
    again = Fabric(bindings={SUBNET: Binding("bridge", "br0")}, in_use=in_use)
    again.apply(taken)  # at a start it is enforced all the same, but for that address
    assert again.lans[SUBNET].taken == {"10.9.0.99": site.mac("pc")}
    assert connect("m1", "10.9.0.99", 80) == "10.9.0.11"
    ip("addr del 10.9.0.99/24 dev eth0", namespace="pc")
    again.look()
    assert again.lans[SUBNET].taken != {}, "it is not asked at every look"
    monkeypatch.setattr(lan_module, "AGAIN_SECONDS", 0.0)
    again.look()
    assert again.lans[SUBNET].taken == {}
    assert through("10.9.0.11", source="10.9.0.99") == "10.9.0.99"
    again.close()


def _flap_bridge(site):
    ip("link del br0")
    yield
    site.make_bridge()
    site.plug()


def _flap_nic(site):
    ip("link del cable", namespace="site")
    yield
    site.make_nic()


@pytest.mark.parametrize(("mode", "flap"), [("bridge", _flap_bridge), ("macvlan", _flap_nic), ("own", _flap_nic)])
def test_a_link_that_goes_and_comes_back(lan, mode, flap):
    """While it is gone dials are refused at once and the problem is worded; tunnels live on when it is back."""
    site, fabric, _ = lan(mode)
    with netns.entered("m1"):
        listener = socket.create_server(("10.9.0.11", 2222))
    opened = made()
    opened = msgspec.structs.replace(
        opened,
        revision=2,
        groups=(
            *(one for one in opened.groups if one.name != "web"),
            SecurityGroup(id=sg("web"), vpc_id=VPC, name="web", rules=(rule("in", "tcp", (22, 2222), "sg:endpoint"),)),
        ),
    )
    endpoint = next(one for one in opened.groups if one.name == "endpoint")
    wider = msgspec.structs.replace(endpoint, rules=(*endpoint.rules, rule("out", "tcp", (2222, 2222), "10.9.0.0/16")))
    opened = msgspec.structs.replace(
        opened, groups=tuple(wider if one.name == "endpoint" else one for one in opened.groups)
    )
    fabric.apply(opened)
    sock, _ = dial(ENDPOINT, "10.9.0.11", 2222, None, OURS)
    with listener, sock:
        peer, _ = listener.accept()
        steps = flap(site)
        next(steps)
        fabric.look()
        assert fabric.lans[SUBNET].problem == "its link is not there"
        assert through("10.9.0.11") == REFUSED
        assert through("fd09::11") == REFUSED
        next(steps, None)
        fabric.look()
        assert fabric.lans[SUBNET].problem == ""
        assert (through("10.9.0.11", seconds=4), through("fd09::11", seconds=4)) == (OURS, OURS6)
        peer.sendall(b"still here")
        sock.setblocking(True)
        sock.settimeout(5)
        assert sock.recv(20) == b"still here"
        peer.close()


def test_the_hosts_end_of_a_routed_link(lan):
    """Somebody deletes it, or switches it off, with which its routes are gone: all is there again at the next look."""
    _, fabric, _ = lan("routed")
    for harm in ("link del to-gate", "link set dev to-gate down"):
        ip(harm)
        fabric.look()
        assert fabric.lans[SUBNET].problem == ""
        assert (through("10.9.0.11"), through("fd09::11")) == (OURS, OURS6), harm


# -- with netd and the operator's file ---------------------------------------------------------------------------------


@pytest.fixture
def site(request):
    """A site with a NIC at home."""
    found = Site(**getattr(request, "param", {"switch": "away"}))
    yield found
    cleaner = Fabric()
    cleaner.apply(World())
    cleaner.close()
    release_all()
    found.close()


def write(file, mode="own", device="nic0", more=""):
    """The operator's file."""
    file.write_text(f'[[link]]\nsubnet = "{SUBNET}"\nmode = "{mode}"\ndevice = "{device}"\n{more}')
    file.chmod(0o644)


def wait_for(check, seconds=4.0):
    """Wait until a check holds."""
    end = time.monotonic() + seconds
    while not (found := check()) and time.monotonic() < end:
        time.sleep(0.05)
    assert found


def home():
    """The links of the host, by name."""
    return {one["ifname"]: one for one in json.loads(ip("-j link show"))}


def test_the_file_is_read_again_and_devices_are_given_back(site, tmp_path):
    """SIGHUP binds and releases; a mistake changes nothing; a NIC comes back with name, state and addresses; a killed
    netd takes up where it was."""
    file, log = tmp_path / "links.toml", tmp_path / "log"
    ip("addr add 10.9.0.2/24 dev nic0")
    ip("addr add fd09::2/64 dev nic0 nodad")
    mac = home()["nic0"]["address"]
    write(file, device="nic7")
    process = Process(tmp_path, log, links_file=str(file))
    assert process.apply(made()) == 1
    assert through("10.9.0.11") == REFUSED
    assert f"{SUBNET} cannot be bound to the host's network: there is no link nic7 on this host" in log.read_text()
    write(file)
    process.process.send_signal(signal.SIGHUP)
    wait_for(lambda: through("10.9.0.11") == OURS)
    assert "nic0" not in home()
    process.process.kill()
    process.process.wait()
    write(file, more="oops = 1\n")
    process = Process(tmp_path, log, links_file=str(file))
    assert process.apply(made()) == 1
    wait_for(lambda: "there is no 'oops'" in log.read_text())
    assert "nic0" in home(), "a wrong file binds nothing"
    write(file)
    process.process.send_signal(signal.SIGHUP)
    wait_for(lambda: through("10.9.0.11") == OURS)
    process.process.kill()
    process.process.wait()
    process = Process(tmp_path, log, links_file=str(file))
    assert process.apply(made()) == 1
    assert through("10.9.0.11") == OURS
    file.write_text("[[link]]\n")
    process.process.send_signal(signal.SIGHUP)
    wait_for(lambda: log.read_text().count("subnet is missing") == 1)
    assert through("10.9.0.11") == OURS
    file.write_text("")
    process.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "nic0" in home())
    wait_for(lambda: "UP" in home()["nic0"]["flags"])
    assert through("10.9.0.11") == REFUSED
    assert (home()["nic0"]["address"], home()["nic0"].get("ifalias")) == (mac, None)
    addresses = {one["local"] for one in json.loads(ip("-j addr show dev nic0"))[0]["addr_info"]}
    assert addresses >= {"10.9.0.2", "fd09::2"}
    assert LAN not in netns.names()
    process.stop()


def test_preserved_clients_need_the_return_path(site, tmp_path):
    """netd refuses them by its own file, whatever the World says."""
    file = tmp_path / "links.toml"
    write(file, mode="macvlan")
    process = Process(tmp_path, links_file=str(file))
    world = made(preserve=True)
    told = msgspec.structs.replace(world.subnets[0], attached=AttachedNetwork(mode="macvlan", return_path=True))
    assert process.apply(msgspec.structs.replace(world, subnets=(told, world.subnets[1]))) == 1
    reply, _ = process.dial(address="10.9.0.11")
    assert (reply.refused, "does not send its replies through this gateway" in reply.message) == (
        "client-address",
        True,
    )
    reply, descriptors = process.dial(address="10.9.1.11")
    assert reply.refused is None
    for one in descriptors:
        os.close(one)
    process.stop()


KILLER = """#!/bin/sh
echo "$*" >>{place}/calls
if [ "$(wc -l <{place}/calls)" = "{number}" ]; then
    [ {when} = before ] || PATH={path} ip "$@"
    kill -9 $PPID
    exit 1
fi
PATH={path} exec ip "$@"
"""
"""An ip(8) that kills who has called it for this time, before or after it has done its work."""


@pytest.mark.once
def test_killed_in_any_step_no_device_is_lost(site, tmp_path, monkeypatch):
    """netd killed at each call of ip(8) with which a NIC is moved or given back: it is always somewhere, and at last
    where it should be, with its addresses and its state."""
    file, place, path = tmp_path / "links.toml", tmp_path / "bin", os.environ["PATH"] + ":/usr/sbin"
    place.mkdir()
    ip("addr add 10.9.0.2/24 dev nic0")
    mac = home()["nic0"]["address"]
    monkeypatch.setenv("PATH", f"{place}:{path}")

    def run(text, number):
        """Whether a netd that is killed at this call came so far."""
        file.write_text("")
        file.chmod(0o644)
        if text:
            write(file)
        (place / "calls").write_text("")
        when = ("before", "after")[number % 2]
        (place / "ip").write_text(KILLER.format(place=place, number=number, when=when, path=path))
        (place / "ip").chmod(0o755)
        process = Process(tmp_path, links_file=str(file))
        process.tell(made(revision=number + 1))
        try:
            ended = process.answers(10) and not process.feed.recv(1, socket.MSG_PEEK)
        except ConnectionResetError:
            ended = True
        process.process.kill()
        process.process.wait()
        process.feed.close()
        process.gateway.close()
        (place / "ip").unlink()
        links = [*home().values(), *(json.loads(ip("-j link show", namespace=LAN)) if LAN in netns.names() else [])]
        assert [one["ifname"] for one in links if one["address"] == mac] in (["nic0"], ["lan0"]), number
        return ended

    moments = 0
    for number in range(1, 100):
        bound, freed = run("bound", number), run("", number)
        moments += bound + freed
        if not bound and not freed:
            break
    assert moments >= 10
    file.write_text("")
    process = Process(tmp_path, links_file=str(file))
    assert process.apply(made(revision=200)) == 200
    assert "UP" in home()["nic0"]["flags"]
    assert {one["local"] for one in json.loads(ip("-j addr show dev nic0"))[0]["addr_info"]} >= {"10.9.0.2"}
    write(file)
    process.process.send_signal(signal.SIGHUP)
    wait_for(lambda: through("10.9.0.11") == OURS)
    process.stop()


def test_what_cannot_be_bound_is_worded(site, fabric):
    """Links of the wrong kind, parts of others and names that are taken: a problem each, and nothing is open."""
    ip("link add br0 type bridge")
    ip("link add name a type veth peer name b")
    ip("link set dev a master br0 up")
    for binding, words in (
        (Binding("bridge", "nic0"), "its link is of the wrong kind"),
        (Binding("bridge", "br0"), "its link is down"),
        (Binding("own", "a"), "its link is used by another one"),
        (Binding("own", "lo"), "its link is of the wrong kind"),
        (Binding("own", "br0"), "its link cannot be moved"),
        (Binding("macvlan", "a"), "its link cannot be shared"),
        (Binding("macvlan", "nic9"), "its link is not there"),
        (Binding("routed", "nic0"), "the name of its link is taken"),
    ):
        fabric.rebind({SUBNET: binding})
        fabric.apply(made())
        assert fabric.lans[SUBNET].problem == words, binding
        assert through("10.9.0.11") == REFUSED
        assert home().keys() >= {"nic0", "br0", "a", "b"}
    fabric.rebind({SUBNET: Binding("own", "nic0")})
    assert (fabric.lans[SUBNET].problem, through("10.9.0.11")) == ("", OURS)
    ip("link del dev a")


def test_the_hosts_only_way_out_is_not_moved(site, fabric):
    """An operator who names the wrong NIC keeps the session that he is in."""
    ip("addr add 192.0.2.2/24 dev nic0")
    ip("route add default via 192.0.2.1")
    fabric.rebind({SUBNET: Binding("own", "nic0")})
    fabric.apply(made())
    assert fabric.lans[SUBNET].problem == "its link cannot be moved"
    assert "default via 192.0.2.1 dev nic0" in ip("route")
    ip("link add name a type veth peer name b")
    ip("link set dev a up")
    ip("route add default dev a metric 9")  # now it has another
    fabric.look()
    assert (fabric.lans[SUBNET].problem, through("10.9.0.11")) == ("", OURS)
    ip("link del dev a")


def test_rules_there_are_put_back_too(site, fabric):
    """Somebody flushes the ruleset of the lan namespace: it is put back."""
    fabric.rebind({SUBNET: Binding("macvlan", "nic0")})
    fabric.apply(made())
    assert through("10.9.0.11") == OURS
    lan_rig.inside(LAN, "nft", "flush", "ruleset")
    assert through("10.9.0.11", seconds=0.3) == "nothing"
    assert fabric.mend() == [LAN]
    assert through("10.9.0.11") == OURS
    assert fabric.mend() == []
    assert PORTS == (22, 80)


def test_many_machines_fill_no_neighbour_table(site, fabric):
    """A hundred machines that nobody talks to take no places in it, and a frame finds its machine at once."""
    fabric.rebind({SUBNET: Binding("macvlan", "nic0")})
    fabric.apply(made([(f"x{number}", number, "web") for number in range(101, 200)]))
    fabric.apply(made([("m1", 11, "web"), *((f"x{number}", number, "web") for number in range(101, 201))], revision=2))
    assert through("10.9.0.11") == OURS
    found = ip("neigh show nud all", namespace=LAN).splitlines()
    assert len([one for one in found if " dev l-" in one or "10.9.0." in one]) <= 3, found


def test_machines_links_carry_what_the_device_does(site, fabric):
    """They have its MTU, also when it becomes another."""
    fabric.rebind({SUBNET: Binding("own", "nic0")})
    ip("link set dev nic0 mtu 1400")
    fabric.apply(made())

    def sizes():
        links = json.loads(ip("-j link show", namespace=LAN)) + json.loads(ip("-j link show", namespace=VPC))
        return {one["mtu"] for one in links if one["ifname"].startswith("l-") or one["ifname"] in ("m1", "m2")}

    assert through("10.9.0.11") == OURS
    fabric.look()
    assert sizes() == {1400}
    ip("link set lan0 mtu 1300", namespace=LAN)
    fabric.look()
    assert sizes() == {1300}
    assert through("10.9.0.11") == OURS


@pytest.mark.parametrize("looked", [False, True])
def test_a_device_that_was_down_for_a_moment(site, fabric, monkeypatch, looked):
    """The kernel has forgotten routes and answers: all is there at the next look, and a change before it succeeds."""
    fabric.rebind({SUBNET: Binding("own", "nic0")})
    fabric.apply(made())
    ip("link set lan0 down", namespace=LAN)
    ip("link set lan0 up", namespace=LAN)
    assert ip("neigh show proxy", namespace=LAN) == "", "it has"
    if looked:
        fabric.look()
        assert (through("10.9.0.11"), through("fd09::11")) == (OURS, OURS6)
        monkeypatch.setattr(lan_module.Lan, "_bring_up", None)
        fabric.look()  # once is enough
        monkeypatch.undo()
    bare = made([("m2", 12, "web")], revision=2)
    fabric.apply(msgspec.structs.replace(bare, endpoints=(), interfaces=bare.interfaces[1:]))
    assert ip("neigh show proxy", namespace=LAN) == ""
    fabric.apply(made([("m2", 12, "web")], revision=3))
    fabric.look()
    assert (through("10.9.0.12"), through("fd09::12")) == (OURS, OURS6)


def test_a_device_whose_name_is_forgotten_is_not_deleted(site, fabric):
    """Somebody takes away the alias that says what it was: it is given back under the name that it has."""
    fabric.rebind({SUBNET: Binding("own", "nic0")})
    fabric.apply(made())
    mac = json.loads(ip("-j link show lan0", namespace=LAN))[0]["address"]
    lan_rig.inside(LAN, "ip", "link", "set", "lan0", "alias", "")
    fabric.look()
    assert (fabric.lans[SUBNET].problem, home()["lan0"]["address"]) == ("its link is not there", mac)
    ip("link set lan0 name nic0")
    fabric.look()
    assert through("10.9.0.11") == OURS
