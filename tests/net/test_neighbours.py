"""Taps on a real link: which addresses are in use, what is heard, and what it costs when somebody floods."""

import select
import threading
import time

import pytest

from tests.net.site import DEVICE, GATEWAY, GATEWAY_MAC, packet_socket, site, sysctl
from wicketgate.kernel import ip, netns
from wicketgate.kernel import neighbour_frames as frames
from wicketgate.kernel.neighbour_frames import Claim, Echo, Wish
from wicketgate.kernel.neighbours import Sender, Tap, in_use
from wicketgate.model import FabricError

M1, M2 = "02:00:00:00:00:11", "02:00:00:00:00:12"


@pytest.fixture(scope="module")
def there():
    """Two machines of both families."""
    with site() as made:
        made.machine("m1", 0x11, "10.9.0.11/24", "fd09::11/64")
        made.machine("m2", 0x12, "10.9.0.12/24", "fd09::12/64")
        yield made


def test_addresses_in_use_are_found_in_time(there):
    """Both families in one round, with the link-layer address of each; those that nobody has take the whole time."""
    asked = ["10.9.0.11", "10.9.0.5", "fd09::12", "fd09::5"]
    started = time.monotonic()
    assert in_use(GATEWAY, DEVICE, asked, 0.3) == {"10.9.0.11": M1, "fd09::12": M2}
    assert 0.25 < time.monotonic() - started < 0.4
    started = time.monotonic()
    assert in_use(GATEWAY, DEVICE, asked[::2], 0.3) == {"10.9.0.11": M1, "fd09::12": M2}
    assert time.monotonic() - started < 0.2, "all are known: no need to wait"
    assert in_use(GATEWAY, DEVICE, [], 0.3) == {}


def test_the_machines_learn_nothing_from_being_asked(there):
    """A probe has no sender's address, so no host has us among its neighbours (RFC 5227, 1.1)."""
    in_use(GATEWAY, DEVICE, ["10.9.0.11", "fd09::11"], 0.1)
    assert [one for one in ip.read("site-m1", "neigh", "show") if "lladdr" in one] == []


def test_what_we_answer_for_ourselves_is_free(there):
    """An address that the gateway's own kernel answers by proxy is nobody's."""
    sysctl(GATEWAY, "net.ipv4.ip_forward=1", "net.ipv6.conf.all.proxy_ndp=1", "net.ipv6.conf.all.forwarding=1")
    sysctl(GATEWAY, f"net.ipv4.neigh.{DEVICE}.proxy_delay=0", f"net.ipv6.neigh.{DEVICE}.proxy_delay=0")
    ip.batch(GATEWAY, [f"neigh add proxy {one} dev {DEVICE}" for one in ("10.9.0.6", "fd09::6")])
    ip.batch(GATEWAY, ["route add 10.9.0.6/32 dev lo", "route add fd09::6/128 dev lo"])
    assert in_use("site-m2", "eth0", ["fd09::6"], 0.3).keys() == {"fd09::6"}, "answered for others"
    assert in_use(GATEWAY, DEVICE, ["10.9.0.6", "fd09::6"], 0.1) == {}


def test_who_is_about_to_take_an_address_has_it(there):
    """Two gateways that start at once: each hears the other's probe."""
    with packet_socket("site-m2", "eth0") as other:

        def probe():
            time.sleep(0.05)
            other.send(frames.arp_request(M2, "10.9.0.7"))
            other.send(frames.solicitation(M2, "fd09::7"))

        thread = threading.Thread(target=probe)
        thread.start()
        assert in_use(GATEWAY, DEVICE, ["10.9.0.7", "fd09::7"], 0.3) == {"10.9.0.7": M2, "fd09::7": M2}
        thread.join()


def test_a_device_that_is_not_there_is_worded():
    """FabricError, with what is missing."""
    with pytest.raises(FabricError, match="there is no network namespace lan-00000000000000009"):
        in_use("lan-00000000000000009", DEVICE, ["10.9.0.1"], 0.1)
    netns.create("lan-00000000000000009")
    with pytest.raises(FabricError, match="cannot listen to lan0 in namespace lan-00000000000000009: No such device"):
        in_use("lan-00000000000000009", DEVICE, ["10.9.0.1"], 0.1)
    netns.delete("lan-00000000000000009")


def _wait(tap, kind, seconds=1.0):
    until, poll, found = time.monotonic() + seconds, select.poll(), []
    poll.register(tap, select.POLLIN)
    while time.monotonic() < until and not found:
        poll.poll((until - time.monotonic()) * 1000)
        found += [said for frame in tap.read(100) if isinstance(said := frames.read(frame), kind)]
    return found


@pytest.mark.parametrize(("ours", "theirs"), [("10.9.0.5", "10.9.0.11"), ("fd09::5", "fd09::11")])
def test_echo_requests_from_foreign_addresses_are_answered_to_us(there, ours, theirs):
    """A frame from an address that is only answered for; another identifier's answer does not wake anybody."""
    ip.batch("site-m1", [f"neigh replace {ours} lladdr {GATEWAY_MAC} dev eth0"])
    tap = Tap(GATEWAY, DEVICE, 77)
    other = Tap(GATEWAY, DEVICE, 78)
    try:
        tap.send(frames.framed(frames.echo_request(ours, theirs, 77, 5, b"hello"), tap.mac, M1))
        assert _wait(tap, Echo) == [Echo(theirs, ours, 5, b"hello")]
        assert _wait(other, Echo, 0.05) == []
    finally:
        tap.close()
        other.close()
        ip.batch("site-m1", [f"neigh delete {ours} dev eth0"])


def test_packets_under_any_source_by_the_kernels_own_routes(there):
    """What `routed` links need: the next hop is looked up by the namespace's routes."""
    ip.batch(GATEWAY, [f"addr add 10.9.0.9/32 dev {DEVICE}", f"route add 10.9.0.12/32 dev {DEVICE}"])
    ip.batch(GATEWAY, [f"route add fd09::12/128 dev {DEVICE}"])
    ip.batch("site-m2", [f"neigh replace {one} lladdr {GATEWAY_MAC} dev eth0" for one in ("10.9.0.5", "fd09::5")])
    tap, sender = Tap(GATEWAY, DEVICE, 77), Sender(GATEWAY)
    try:
        for ours, theirs in (("10.9.0.5", "10.9.0.12"), ("fd09::5", "fd09::12")):
            assert sender.send(frames.echo_request(ours, theirs, 77, 9, b"x"), theirs)
            assert _wait(tap, Echo) == [Echo(theirs, ours, 9, b"x")]
        assert not sender.send(frames.echo_request("10.9.0.5", "198.51.100.1", 77, 9, b"x"), "198.51.100.1"), "no route"
    finally:
        tap.close()
        sender.close()
        ip.batch(GATEWAY, [f"addr delete 10.9.0.9/32 dev {DEVICE}"])


def test_nothing_else_wakes_a_tap(there):
    """Other traffic for us and for everybody is filtered by the kernel."""
    tap = Tap(GATEWAY, DEVICE, 77)
    with packet_socket("site-m1", "eth0") as sock:
        try:
            tap.read(1000)
            for kind in (0x0800, 0x86DD, 0x88CC):
                sock.send(bytes.fromhex(f"{GATEWAY_MAC}{M1}".replace(":", "")) + kind.to_bytes(2, "big") + bytes(60))
            sock.send(frames.framed(frames.echo_request("10.9.0.11", "10.9.0.5", 77, 1, b""), M1, tap.mac))
            time.sleep(0.05)
            # The machines' kernels may look after their own neighbours meanwhile.
            assert all(isinstance(frames.read(one), Claim | Wish) for one in tap.read(1000))
            sock.send(frames.arp_request(M1, "10.9.0.5", "10.9.0.11"))
            assert Claim("10.9.0.11", M1) in _wait(tap, Claim)
        finally:
            tap.close()


def test_a_flood_waits_in_bounded_room(there):
    """Of 20,000 frames that nobody reads some hundreds are kept, and the rest are counted as lost."""
    tap = Tap(GATEWAY, DEVICE, 77)
    with packet_socket("site-m1", "eth0") as sock:
        try:
            frame = frames.arp_request(M1, "10.9.0.5", "10.9.0.11")
            for _ in range(20_000):
                sock.send(frame)
            kept = len(tap.read(100_000))
            assert 100 < kept < 2_000
            assert kept + tap.lost >= 19_000
        finally:
            tap.close()


def test_a_device_that_goes_down_says_so(there):
    """Reading raises, so that whoever listens begins anew when it is back."""
    tap = Tap(GATEWAY, DEVICE, 77)
    try:
        ip.batch(GATEWAY, [f"link set {DEVICE} down"])
        with pytest.raises(FabricError, match="Network is down"):
            tap.read(10)
        assert not tap.send(frames.arp_request(tap.mac, "10.9.0.11"))
    finally:
        tap.close()
        ip.batch(GATEWAY, [f"link set {DEVICE} up"])
