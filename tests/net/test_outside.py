"""What netd finds on a network of hosts that it did not make: machines that come, go, move and reply elsewhere."""

import json
import logging
import selectors
import time
from pathlib import Path

import msgspec
import pytest

from tests.net.site import DEVICE, GATEWAY, GATEWAY_MAC, packet_socket, site, sysctl
from tests.net.test_netd import Process
from tests.net.worlds import ENDPOINT, SUBNET, VPC, sg
from wicketgate.kernel import ip, netns
from wicketgate.kernel import neighbour_frames as frames
from wicketgate.kernel.neighbours import in_use
from wicketgate.kernel.netns import HERE
from wicketgate.model import Endpoint, Instance, NetworkInterface, SecurityGroup, Subnet, Vpc, World
from wicketgate.model.observed import Observations
from wicketgate.model.resources import EXTERNAL_IMAGE, AttachedNetwork
from wicketgate.netd import hosts, outside, reports, segment
from wicketgate.netd.links import Link
from wicketgate.netd.outside import Outside
from wicketgate.netd.registered import Bound

M1, M2, M3 = "02:00:00:00:00:11", "02:00:00:00:00:12", "02:00:00:00:00:13"
OURS, OURS6, ROUTER = "10.9.0.250", "fd09::250", "10.9.0.1"
GROUP = SecurityGroup(id=sg("all"), vpc_id=VPC, name="all")
LINK = Link(subnet=SUBNET, mode="bridge", device="br0")
RETURNING = Link(subnet=SUBNET, mode="bridge", device="br0", return_path=True)


def made(*machines, revision=1):
    """A World with an endpoint, and a machine for each (number, addresses)."""
    endpoint = NetworkInterface(
        id="eni-00000000000000250",
        subnet_id=SUBNET,
        private_ip_address=OURS,
        ipv6_addresses=(OURS6,),
        group_ids=(GROUP.id,),
        link="endpoint",
        interface_type="ec2_instance_connect_endpoint",
    )
    interfaces = [
        NetworkInterface(
            id=f"eni-{number:017}",
            subnet_id=SUBNET,
            private_ip_address=four[0] if four else "",
            secondary_ip_addresses=tuple(four[1:]),
            ipv6_addresses=tuple(one for one in addresses if ":" in one),
            group_ids=(GROUP.id,),
            link=f"m{number}",
        )
        for number, *addresses in machines
        for four in [[one for one in addresses if ":" not in one]]
    ]
    return World(
        revision=revision,
        vpcs=(Vpc(id=VPC, cidr_block="10.9.0.0/16", ipv6_cidr_blocks=("fd09::/56",)),),
        subnets=(Subnet(id=SUBNET, vpc_id=VPC, cidr_block="10.9.0.0/24", ipv6_cidr_block="fd09::/64"),),
        groups=(GROUP,),
        interfaces=(endpoint, *interfaces),
        instances=tuple(
            Instance(id=f"i-{number:017}", interface_id=f"eni-{number:017}", image_id=EXTERNAL_IMAGE)
            for number, *_ in machines
        ),
        endpoints=(Endpoint(id=ENDPOINT, subnet_id=SUBNET, interface_id=endpoint.id, dns_name="x"),),
    )


class Loop:
    """An Outside in a loop such as netd's."""

    def __init__(self, file):
        self.file = file
        self._selector = selectors.DefaultSelector()
        self.turns = 0
        self.outside = Outside(
            file,
            watch=lambda tap, read: self._selector.register(tap, selectors.EVENT_READ, read),
            unwatch=self._selector.unregister,
        )

    def run(self, seconds, until=lambda found: False):
        """Let it work for so long, or until the file says what is waited for; returns what the file says then."""
        end = time.monotonic() + seconds
        while not until(self.told()) and (left := end - time.monotonic()) > 0:
            wait = self.outside.timeout(time.monotonic())
            for key, _ in self._selector.select(min(left, 0.2, 9 if wait is None else wait)):
                key.data()
            self.outside.look()
            self.turns += 1
        return self.told()

    def told(self):
        """What the file says."""
        return msgspec.json.decode(self.file.read_bytes(), type=Observations) if self.file.exists() else Observations()

    def machine(self, number=11):
        """What it says of a machine."""
        return self.told().machines.get(f"i-{number:017}")

    def wait(self, check, seconds=8, number=11):
        """Run until a check of a machine holds; returns the machine."""
        found = self.run(seconds, lambda told: check(told.machines.get(f"i-{number:017}"))).machines[f"i-{number:017}"]
        assert check(found), found
        return found

    def close(self):
        """End it."""
        self.outside.close()
        self._selector.close()


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    """All intervals are short."""
    times = {"WAIT_SECONDS": 0.1, "SETTLING_INTERVAL": 0.2, "STRAY_INTERVAL": 0.3, "INTERVAL_SECONDS": 0.3}
    times |= {"LOOK_SECONDS": 0.1, "WRITE_SECONDS": 0.05, "TROUBLE_SECONDS": 0.3}
    for module in (hosts, segment, outside, reports):
        for name, value in times.items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)


@pytest.fixture
def there():
    """A site whose gateway answers for the endpoint's addresses as Linux does by proxy."""
    with site() as made_site:
        sysctl(GATEWAY, "net.ipv4.ip_forward=1", "net.ipv6.conf.all.proxy_ndp=1", "net.ipv6.conf.all.forwarding=1")
        sysctl(GATEWAY, f"net.ipv4.neigh.{DEVICE}.proxy_delay=0", f"net.ipv6.neigh.{DEVICE}.proxy_delay=0")
        ip.batch(GATEWAY, [f"neigh add proxy {one} dev {DEVICE}" for one in (OURS, OURS6, ROUTER)])
        ip.batch(GATEWAY, [f"route add {one} dev lo" for one in (f"{OURS}/32", f"{OURS6}/128", f"{ROUTER}/32")])
        yield made_site


@pytest.fixture
def loop(tmp_path):
    """A running Outside."""
    running = Loop(tmp_path / "observations.json")
    yield running
    running.close()


def up(machine):
    """Whether it is known to answer."""
    return machine is not None and machine.reachable


def down(machine):
    """Whether it is known not to answer."""
    return machine is not None and not machine.reachable


@pytest.mark.parametrize("address", ["10.9.0.11", "fd09::11"])
def test_a_machine_goes_away_and_comes_back(there, loop, address):
    """By ARP and by neighbour discovery; the time is of the change, and the file is written for it alone."""
    port = there.machine("m1", 0x11, f"{address}/{24 if '.' in address else 64}")
    loop.outside.follow(made((11, address)), {SUBNET: Bound(LINK)})
    first = loop.wait(up)
    assert abs(first.since - time.time()) < 3
    written = loop.file.stat().st_ino
    loop.run(0.8)
    assert loop.file.stat().st_ino == written
    ip.batch("site-switch", [f"link set {port} down"])
    gone = loop.wait(down)
    assert gone.since > first.since
    ip.batch("site-switch", [f"link set {port} up"])
    assert loop.wait(up).since > gone.since
    assert oct(loop.file.stat().st_mode & 0o777) == "0o644"


def test_the_machine_is_asked_from_the_endpoints_address(there, loop):
    """So it learns what is true, and nothing of ours but that; it is never asked from an address that is not ours."""
    there.machine("m1", 0x11, "10.9.0.11/24", "fd09::11/64")
    loop.outside.follow(made((11, "10.9.0.11", "fd09::11")), {SUBNET: Bound(LINK)})
    loop.wait(up)
    loop.run(0.6)
    learnt = {one["dst"]: one["lladdr"] for one in ip.read("site-m1", "neigh", "show") if "lladdr" in one}
    assert learnt and learnt.items() <= {OURS: GATEWAY_MAC, OURS6: GATEWAY_MAC}.items()


def test_a_machine_replaced_by_another(there, loop, caplog):
    """The same address at another link-layer address, with nothing said by the new one: logged once with both."""
    port = there.machine("m1", 0x11, "10.9.0.11/24")
    loop.outside.follow(made((11, "10.9.0.11")), {SUBNET: Bound(LINK)})
    loop.wait(up)
    ip.batch("site-switch", [f"link set {port} down"])
    there.machine("m2", 0x12, "10.9.0.11/24")
    found = loop.wait(lambda one: up(one) and one.note != "")
    assert found.note == f"10.9.0.11 moved from {M1} to {M2}"
    loop.run(0.6)
    lines = [one.getMessage() for one in caplog.records if "moved from" in one.getMessage()]
    assert lines == [f"i-{11:017}: 10.9.0.11 moved from {M1} to {M2}: the machine was replaced, or its address stolen"]


def test_an_address_stolen_while_its_owner_stays(there, loop, caplog):
    """Both answer: that is a dispute, said once, with both link-layer addresses; further addresses are watched too."""
    there.machine("m1", 0x11, "10.9.0.11/24", "10.9.0.77/24")
    loop.outside.follow(made((11, "10.9.0.11", "10.9.0.77")), {SUBNET: Bound(LINK)})
    loop.wait(up)
    there.machine("m2", 0x12, "10.9.0.11/24")
    with packet_socket("site-m2", "eth0") as thief:
        for _ in range(3):  # a port of a bridge that is just up may lose what comes first
            thief.send(frames.arp_request(M2, "10.9.0.11", "10.9.0.11"))
            loop.run(0.3)
        found = loop.wait(lambda one: "two hosts" in one.note)
        assert found.note == f"10.9.0.11 is claimed by two hosts: {M1} and {M2}"
        loop.run(0.6)
        assert sum("two hosts" in one.getMessage() for one in caplog.records) == 1
        for mac in (M1, M2):
            thief.send(frames.arp_request(mac, "10.9.0.77", "10.9.0.77"))
        loop.wait(lambda one: f"10.9.0.77 moved from {M1} to {M2}" in one.note)


def test_an_endpoints_address_is_taken_before_it_is_answered_for(there):
    """What somebody has is found, and who."""
    there.machine("m1", 0x11, f"{OURS}/24", f"{OURS6}/64")
    assert in_use(GATEWAY, DEVICE, [OURS, OURS6, "10.9.0.251"], 0.3) == {OURS: M1, OURS6: M1}


def test_an_endpoints_address_is_taken_later(there, loop, caplog):
    """Somebody else answers for it: an error once, a problem of the subnet while it lasts, and announced as ours."""
    there.machine("m1", 0x11, "10.9.0.11/24")
    there.machine("m2", 0x12, "10.9.0.12/24")
    loop.outside.follow(made((11, "10.9.0.11")), {SUBNET: Bound(LINK)})
    loop.wait(up)
    there.ip("m2", f"addr add {OURS}/24 dev eth0")
    with packet_socket("site-m2", "eth0") as other:
        for _ in range(3):
            other.send(frames.arp_request(M2, OURS, OURS))
            if loop.run(1, lambda told: told.subnets[SUBNET].notice != "").subnets[SUBNET].notice:
                break
    words = f"{OURS} of {ENDPOINT} is claimed by another host too: {M2}"
    told = loop.run(5, lambda told: told.subnets[SUBNET].notice != "")
    assert told.subnets[SUBNET].notice == words
    loop.run(0.6)
    assert [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR] == [words]
    learnt = {one["dst"]: one["lladdr"] for one in ip.read("site-m1", "neigh", "show") if "lladdr" in one}
    assert learnt[OURS] == GATEWAY_MAC, "announced after the other's claim"


def test_a_host_that_makes_sure_first_does_not_take_an_endpoints_address(there, loop):
    """Linux's proxy answers no ARP probe, so netd does (RFC 5227); of IPv6 the proxy does itself (RFC 4862)."""
    there.machine("m2", 0x12, "10.9.0.12/24", "fd09::12/64")
    assert in_use("site-m2", "eth0", [OURS, OURS6], 0.2) == {OURS6: GATEWAY_MAC}, "without netd"
    loop.outside.follow(made(), {SUBNET: Bound(LINK)})
    loop.run(0.3)
    with packet_socket("site-m2", "eth0") as other:
        other.bind(("eth0", frames.ETH_P_ARP))
        other.settimeout(2)
        other.send(frames.arp_request(M2, OURS))
        loop.run(0.1)
        assert frames.read(other.recv(2048)) == frames.Claim(OURS, GATEWAY_MAC)
    assert loop.told().subnets[SUBNET].notice == ""


def gateway_of(name, router):
    """A machine's default route."""
    ip.batch(f"site-{name}", [f"route replace default via {router} dev eth0"])


def test_a_machine_whose_router_is_another(there, loop):
    """It answers on the link, and its replies to anybody elsewhere go to another: client addresses are not preserved
    to it. One that answers no echo is not judged, and one that replies this way is fine."""
    there.machine("m1", 0x11, "10.9.0.11/24")
    there.machine("m2", 0x12, "10.9.0.12/24")
    there.machine("m3", 0x13, "10.9.0.13/24")
    there.machine("router", 0x99, "10.9.0.254/24")
    gateway_of("m1", "10.9.0.254")
    gateway_of("m2", ROUTER)
    gateway_of("m3", "10.9.0.254")
    sysctl("site-m3", "net.ipv4.icmp_echo_ignore_all=1")
    loop.outside.follow(made((11, "10.9.0.11"), (12, "10.9.0.12"), (13, "10.9.0.13")), {SUBNET: Bound(RETURNING)})
    found = loop.wait(lambda one: up(one) and one.note != "")
    assert found.note == "10.9.0.11 does not send its replies through this gateway"
    loop.run(0.6)
    words = "10.9.0.11 does not send its replies through this gateway, as a probe has found"
    assert loop.outside.refusal(VPC, "10.9.0.11") == f"{words}, so a client's address cannot be preserved to it"
    assert [loop.outside.refusal(VPC, one) for one in ("10.9.0.12", "10.9.0.13", "10.9.0.99")] == [None] * 3
    assert (loop.machine(12).note, loop.machine(13).note) == ("", "")
    known = loop.outside._networks[SUBNET].segment.hosts
    assert [known[f"10.9.0.{n}"].back.way for n in (11, 12, 13)] == ["not seen", "seen", "unknown"]
    gateway_of("m1", ROUTER)
    loop.wait(lambda one: one.note == "")
    assert loop.outside.refusal(VPC, "10.9.0.11") is None


def test_the_way_back_of_ipv6(there, loop):
    """The same by neighbour discovery and ICMPv6, the router being fe80::1."""
    ip.batch(GATEWAY, [f"neigh add proxy fe80::1 dev {DEVICE}", "addr add fe80::1/128 dev lo nodad"])
    there.machine("m1", 0x11, "fd09::11/64")
    there.machine("m2", 0x12, "fd09::12/64")
    there.machine("router", 0x99, "fd09::99/64")
    gateway_of("m1", "fd09::99")
    gateway_of("m2", "fe80::9")
    loop.outside.follow(made((11, "fd09::11"), (12, "fd09::12")), {SUBNET: Bound(RETURNING)})
    assert "fd09::11 does not send" in loop.wait(lambda one: up(one) and one.note != "").note
    loop.run(0.6)
    known = loop.outside._networks[SUBNET].segment.hosts
    assert [known[f"fd09::{n}"].back.way for n in (11, 12)] == ["not seen", "seen"]


def test_a_flood_of_arp_costs_little_and_hides_nobody(there, loop):
    """100,000 frames as fast as they can be sent: netd reads its portion a second, and holds no machine to be gone."""
    there.machine("m1", 0x11, "10.9.0.11/24")
    there.machine("m2", 0x12, "10.9.0.12/24")
    loop.outside.follow(made((11, "10.9.0.11")), {SUBNET: Bound(LINK)})
    first = loop.wait(up)
    sent = 0
    with packet_socket("site-m2", "eth0") as flood:
        flood.setblocking(False)
        frame = frames.arp_request(M2, "10.9.0.99", "10.9.0.12")
        used, started = 0.0, time.monotonic()
        while sent < 100_000:
            for _ in range(500):
                try:
                    flood.send(frame)
                    sent += 1
                except BlockingIOError:
                    break
            before = time.process_time()
            loop.run(0.0005)
            used += time.process_time() - before
    took = time.monotonic() - started
    print(f"{sent} frames in {took:.2f} s: {used * 1000:.0f} ms of netd's time")
    assert used < 0.1 + 0.25 * took
    assert loop.machine() == first
    loop.run(1.2)
    assert loop.machine() == first
    ip.batch("site-m1", ["link set eth0 down"])
    loop.wait(down)


def test_the_network_comes_later_goes_and_comes_back(there, loop, tmp_path):
    """Without its device nothing is said anew of machines; a device or a namespace that is made again is picked up."""
    there.machine("m1", 0x11, "10.9.0.11/24")
    ip.batch(GATEWAY, [f"link set {DEVICE} down", f"link set {DEVICE} name other0"])
    loop.outside.follow(made((11, "10.9.0.11")), {SUBNET: Bound(LINK, problem="there is no link br0")})
    told = loop.run(0.5)
    assert (told.machines, told.subnets[SUBNET].problem) == ({}, "there is no link br0")
    ip.batch(GATEWAY, [f"link set other0 name {DEVICE}", f"link set {DEVICE} up"])
    loop.outside.follow(made((11, "10.9.0.11")), {SUBNET: Bound(LINK)})
    first = loop.wait(up)
    ip.batch(GATEWAY, [f"link delete {DEVICE}"])
    loop.run(0.6)
    assert loop.machine() == first
    netns.delete(GATEWAY)
    loop.run(0.3)
    there.plug(GATEWAY, DEVICE, GATEWAY_MAC, ["fe80::9/64"])
    loop.run(0.5)
    ip.batch("site-m1", ["link set eth0 down"])
    loop.wait(down)
    loop.outside.follow(made(revision=2), {SUBNET: Bound(LINK)})
    assert loop.run(2, lambda told: not told.machines).machines == {}
    loop.outside.follow(made(revision=3), {})
    assert loop.run(2, lambda told: not told.subnets) == Observations(revision=3)


def test_a_routed_machine_answers_echoes(loop):
    """Beyond a router, from the endpoint's address; one that never answers is not held to be gone."""
    with site() as routed:
        routed.machine("router", 0x99, "169.254.9.1/24", "10.9.0.1/24")
        routed.machine("m1", 0x11, "10.9.0.11/24")
        sysctl("site-router", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.send_redirects=0")
        gateway_of("m1", "10.9.0.1")
        ip.batch("site-router", [f"route add {OURS}/32 via 169.254.9.2 dev eth0"])
        ip.batch("site-m1", [f"route add {OURS}/32 via 10.9.0.1 dev eth0"])
        ip.batch(GATEWAY, [f"addr add 169.254.9.2/24 dev {DEVICE}", "route add 10.9.0.0/24 via 169.254.9.1"])
        link = Link(subnet=SUBNET, mode="routed", device="wg0")
        loop.outside.follow(made((11, "10.9.0.11"), (12, "10.9.0.12")), {SUBNET: Bound(link)})
        loop.wait(up)
        loop.run(0.6)
        assert loop.machine(12) is None
        sysctl("site-m1", "net.ipv4.icmp_echo_ignore_all=1")
        loop.wait(down)


def test_what_an_earlier_netd_found_is_not_forgotten(there, loop, tmp_path):
    """A restart tells nothing new of machines that are as they were, and nothing of those that are gone."""
    there.machine("m1", 0x11, "10.9.0.11/24")
    loop.outside.follow(made((11, "10.9.0.11")), {SUBNET: Bound(LINK)})
    first = loop.wait(up)
    again = Loop(loop.file)
    try:
        again.outside.follow(made((11, "10.9.0.11"), (12, "10.9.0.12")), {SUBNET: Bound(LINK)})
        again.wait(down, number=12)
        assert again.machine() == first
    finally:
        again.close()
    other = Loop(loop.file)
    try:
        other.outside.follow(made((12, "10.9.0.12")), {SUBNET: Bound(LINK)})
        assert other.run(2, lambda told: len(told.machines) == 1).machines.keys() == {f"i-{12:017}"}
    finally:
        other.close()


def test_a_disk_that_is_full_stops_nothing(there, tmp_path, caplog):
    """What cannot be written is said once, and written when it can be."""
    there.machine("m1", 0x11, "10.9.0.11/24")
    running = Loop(tmp_path / "later" / "observations.json")
    try:
        running.outside.follow(made((11, "10.9.0.11")), {SUBNET: Bound(LINK)})
        running.run(0.8)
        assert [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR] == [
            f"what was found outside cannot be written to {running.file}: No such file or directory"
        ]
        (tmp_path / "later").mkdir()
        assert running.wait(up, seconds=7)
        assert json.loads(Path(running.file).read_text())["revision"] == 1
    finally:
        running.close()


def test_nothing_bound_costs_nothing(tmp_path):
    """One file at the start, so that the API process knows; no turn of the loop after."""
    running = Loop(tmp_path / "observations.json")
    try:
        running.outside.follow(made((11, "10.9.0.11")), {})
        running.run(0.3)
        assert running.told() == Observations(revision=1)
        assert running.outside.timeout(time.monotonic()) is None
    finally:
        running.close()


# -- netd itself -------------------------------------------------------------------------------------------------------


@pytest.fixture
def bound_netd(tmp_path, fabric):
    """A netd whose subnet is bound to a bridge of this host with two machines on it; `fabric` cleans up."""
    ip.batch(HERE, ["link add br-out type bridge", "link set br-out up", "link set lo up"])
    for name, mac, address in (("one", M1, "10.9.0.11/24"), ("two", M2, "10.9.0.12/24")):
        netns.create(f"site-{name}")
        ip.batch(HERE, [f"link add p-{name} type veth peer name eth0 netns site-{name}"])
        ip.batch(HERE, [f"link set p-{name} master br-out up"])
        lines = [f"link set eth0 address {mac}", "link set eth0 up", f"addr add {address} dev eth0"]
        ip.batch(f"site-{name}", lines)
    links = tmp_path / "links.toml"
    links.write_text(f'[[link]]\nsubnet = "{SUBNET}"\nmode = "bridge"\ndevice = "br-out"\nreturn_path = true\n')
    links.chmod(0o644)
    told = tmp_path / "observations.json"
    running = Process(tmp_path, tmp_path / "log", links_file=str(links), observations=str(told))
    yield running, told
    running.stop()
    ip.delete_links(HERE, ["br-out"])
    for name in ("one", "two"):
        netns.delete(f"site-{name}")


def _told(file, check, seconds=10):
    until = time.monotonic() + seconds
    while True:
        found = msgspec.json.decode(file.read_bytes(), type=Observations) if file.exists() else Observations()
        if check(found) or time.monotonic() > until:
            return found
        time.sleep(0.05)


def test_netd_tells_and_refuses(bound_netd):
    """A machine is found; an endpoint whose address somebody has is refused in words, and is there when it is free; a
    client's address is not preserved to a machine that replies elsewhere."""
    running, file = bound_netd
    machine = (11, "10.9.0.11")
    without = msgspec.structs.replace(made(machine), endpoints=(), interfaces=made(machine).interfaces[1:])
    assert running.apply(without) == 1
    name = f"i-{11:017}"
    assert _told(file, lambda told: name in told.machines).machines[name].reachable
    ip.batch("site-two", [f"addr add {OURS}/24 dev eth0"])
    with pytest.raises(RuntimeError, match=f"{OURS}.*{M2}"):
        running.apply(made(machine, revision=2))
    ip.batch("site-two", [f"addr delete {OURS}/24 dev eth0"])
    assert running.apply(made(machine, revision=3)) == 3
    ip.batch("site-one", ["route add default via 10.9.0.12 dev eth0"])
    stray = "10.9.0.11 does not send its replies through this gateway"
    assert _told(file, lambda told: told.machines[name].note != "").machines[name].note == stray
    kept = msgspec.structs.replace(made(machine).endpoints[0], preserve_client_ip=True)
    attached = made(machine).subnets[0]
    attached = msgspec.structs.replace(attached, attached=AttachedNetwork(mode="bridge", return_path=True))
    running.apply(msgspec.structs.replace(made(machine, revision=4), endpoints=(kept,), subnets=(attached,)))
    reply, descriptors = running.dial(address="10.9.0.11")
    assert (reply.refused, descriptors) == ("client-address", [])
    assert reply.message == f"{stray}, as a probe has found, so a client's address cannot be preserved to it"
