"""netd as a real process: what it grants and refuses, what a kill leaves, what a confined process cannot do."""

import array
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from tests.net.families import CLIENT6, dual, hearing, six
from tests.net.test_fabric import GROUPS, MEMBERS, _normal
from tests.net.worlds import CLIENT, ENDPOINT, VPC, attempt, listening, preserving, rule, world
from wicketgate import ipc
from wicketgate.kernel import ip, netns
from wicketgate.kernel.fabric import Fabric
from wicketgate.lab.machines import readable_python
from wicketgate.model import Settings, World
from wicketgate.netd.slots import Slots
from wicketgate.tunnel.dial import DialReply, DialRequest


class Process:
    """A netd of its own, with our ends of its sockets."""

    def __init__(self, directory, log=None, **more):
        self.feed, feed = socket.socketpair()
        self.gateway, gateway = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        config = {"feed_fd": feed.fileno(), "gateway_fds": [gateway.fileno()], "state_directory": str(directory)} | more
        command = [sys.executable, "-m", "wicketgate.netd", json.dumps(config)]
        with Path(log or os.devnull).open("ab") as said:
            inherited = [feed.fileno(), gateway.fileno()]
            self.process = subprocess.Popen(command, pass_fds=inherited, stderr=said if log else None)
        feed.close()
        gateway.close()
        self.feed.settimeout(20)
        self.gateway.settimeout(5)

    def apply(self, made):
        """Send a World and wait for the answer."""
        self.tell(made)
        return ipc.read_answer(self.feed)

    def tell(self, made):
        """Send a World."""
        self.feed.sendall(ipc.frame(ipc.whole(made)))

    def answers(self, seconds):
        """Whether an answer comes within that time."""
        return bool(select.select([self.feed], [], [], seconds)[0])

    def dial(self, **options):
        """One dial: (reply, descriptors)."""
        request = {"id": 7, "endpoint_id": ENDPOINT, "address": "10.0.1.11", "port": 22, "client_address": CLIENT}
        self.gateway.send(msgspec.json.encode(DialRequest(**{**request, **options})))
        data, ancillary, _, _ = self.gateway.recvmsg(ipc.MAX_MESSAGE, 1024)
        descriptors = array.array("i")
        for _level, _kind, payload in ancillary:
            descriptors.frombytes(payload)
        return msgspec.json.decode(data, type=DialReply), list(descriptors)

    def stop(self):
        """End it by ending its feed."""
        self.feed.close()
        self.gateway.close()
        assert self.process.wait(5) in (0, -signal.SIGKILL)


@pytest.fixture
def netd(tmp_path, fabric):
    """A running netd over the standard World; `fabric` cleans the kernel afterwards."""
    started = Process(tmp_path)
    assert started.apply(world(GROUPS, MEMBERS)) == 1
    yield started
    started.stop()


def _close(descriptors):
    for descriptor in descriptors:
        os.close(descriptor)


def test_dial_hands_over_a_connected_socket(netd):
    """A granted dial carries the target socket and the lease; the target sees the endpoint's address."""
    with netns.entered(world(GROUPS, MEMBERS).instances[0].id):
        listener = socket.create_server(("0.0.0.0", 22))
    with listener:
        reply, (target, lease) = netd.dial()
        peer, address = listener.accept()
        assert (reply.refused, reply.source_address, address[0]) == (None, "10.0.1.10", "10.0.1.10")
        with socket.socket(fileno=target) as ours, peer:
            ours.setblocking(True)
            ours.sendall(b"hello")
            assert peer.recv(16) == b"hello"
        os.close(lease)


def test_client_address_is_preserved(netd):
    """With client IP preservation on the target sees the client's own address."""
    made = preserving(msgspec.structs.replace(world(GROUPS, MEMBERS), revision=2), on=True)
    assert netd.apply(made) == 2
    with netns.entered(made.instances[0].id):
        listener = socket.create_server(("0.0.0.0", 22))
    with listener:
        reply, descriptors = netd.dial()
        assert (reply.source_address, listener.accept()[1][0]) == (CLIENT, CLIENT)
        _close(descriptors)


@pytest.mark.parametrize("preserve", [False, True])
def test_dual_stack(netd, preserve):
    """An endpoint of both families: the target sees the endpoint's or the client's address of its own family; a mapped
    address is IPv4, and a client of the other family is refused with preservation on."""
    made = dual(world(GROUPS, MEMBERS, revision=2), preserve=preserve)
    assert netd.apply(made) == 2
    target = made.instances[0].id
    with hearing([target], (22,)) as listeners:
        for address, client, source in (
            ("10.0.1.11", CLIENT, CLIENT if preserve else "10.0.1.10"),
            ("::ffff:10.0.1.11", f"::ffff:{CLIENT}", CLIENT if preserve else "10.0.1.10"),
            (six("10.0.1.11"), CLIENT6, CLIENT6 if preserve else six("10.0.1.10")),
        ):
            reply, descriptors = netd.dial(address=address, client_address=client)
            assert (reply.refused, reply.source_address) == (None, source), reply.message
            peer, seen = listeners[target, 22].accept()
            peer.close()
            assert seen[0].removeprefix("::ffff:") == source
            _close(descriptors)
        for address, client in (("10.0.1.11", CLIENT6), (six("10.0.1.11"), CLIENT)):
            reply, descriptors = netd.dial(address=address, client_address=client)
            assert reply.refused == ("client-address" if preserve else None)
            _close(descriptors)
    assert netd.dial(address=six("10.0.1.1"))[0].refused == "target"


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"endpoint_id": "eice-0123456789abcdef0"}, "endpoint"),
        ({"address": "127.0.0.1"}, "target"),
        ({"address": "169.254.169.254"}, "target"),
        ({"address": "10.0.1.1"}, "target"),
        ({"address": "8.8.8.8"}, "target"),
        ({"port": 70000}, "target"),
        ({"port": -1}, "target"),
        ({"port": 5432}, "target"),
        ({"client_address": "10.0.1.12", "preserve": True}, "client-address"),
        ({"client_address": "127.0.0.1", "preserve": True}, "client-address"),
        ({"client_address": "169.254.7.7", "preserve": True}, "client-address"),
    ],
)
def test_refusals(netd, change, kind):
    """netd judges every request by its own World and names what is wrong."""
    change = dict(change)
    if change.pop("preserve", False):
        netd.apply(preserving(msgspec.structs.replace(world(GROUPS, MEMBERS), revision=2), on=True))
    reply, descriptors = netd.dial(**change)
    assert (reply.refused, descriptors) == (kind, [])
    assert reply.message


def test_twenty_tunnels_and_no_more(netd):
    """The limit is exact: the 21st is refused, and a lease that ends frees its slot at once."""
    with listening(world(GROUPS, MEMBERS), (22,)):
        held = [netd.dial()[1] for _ in range(20)]
        assert all(len(one) == 2 for one in held)
        reply, _ = netd.dial()
        assert reply.refused == "limit"
        assert "20" in reply.message
        _close(held.pop())
        reply, again = netd.dial()
        assert reply.refused is None
        for one in [*held, again]:
            _close(one)


def test_restarted_netd_knows_the_slots(netd, tmp_path):
    """Slots are held by the leases, not by netd: a killed and restarted one grants none too many."""
    with listening(world(GROUPS, MEMBERS), (22,)):
        held = [netd.dial()[1] for _ in range(20)]
        netd.process.kill()
        netd.process.wait()
        again = Process(tmp_path)
        assert again.apply(world(GROUPS, MEMBERS)) == 1
        assert again.dial()[0].refused == "limit"
        for one in held:
            _close(one)
        reply, descriptors = again.dial()
        assert reply.refused is None
        _close(descriptors)
        again.stop()


def test_url_reuse(netd):
    """A presigned URL is good again from the source that used it first, and from no other; `once` and `any` differ."""
    base = world(GROUPS, MEMBERS)
    signed = {"signature": "ab" * 32, "signature_expires": time.time() + 60}
    for revision, (policy, expected) in enumerate(
        {
            "same-source": [None, None, "url-reused"],
            "once": [None, "url-reused", "url-reused"],
            "any": [None] * 3,
        }.items(),
        start=2,
    ):
        netd.apply(msgspec.structs.replace(base, revision=revision, settings=Settings(url_reuse=policy)))
        signed["signature"] = f"{revision:064x}"
        seen = []
        for client in (CLIENT, CLIENT, "198.51.100.20"):
            reply, descriptors = netd.dial(**signed, client_address=client)
            seen.append(reply.refused)
            _close(descriptors)
        assert seen == expected, policy


@pytest.mark.parametrize(
    "nonsense", [b"\x00not json", b'{"id": "x"}', b'{"id": "\xff"}', b"[" * 8000, b"", b'{"id": 1e999}']
)
def test_nonsense_is_survived(netd, nonsense):
    """A worker that sends rubbish gets no answer and does no harm."""
    netd.gateway.send(nonsense)
    reply, descriptors = netd.dial()
    assert reply.refused is None
    _close(descriptors)


def test_impossible_world_keeps_the_old_one(netd):
    """A World that contradicts itself or that the kernel cannot take is answered with words; the old one stays."""
    made = world(GROUPS, MEMBERS)
    anything = [rule("in", "-1", (-1, -1), "0.0.0.0/0"), rule("out", "-1", (-1, -1), "0.0.0.0/0")]
    opened = world(dict.fromkeys(GROUPS, anything), MEMBERS, revision=3)
    dangling = msgspec.structs.replace(opened, revision=2, groups=())
    # This instance's namespace cannot be pinned, which shows after the rules of the same World were loaded.
    homeless = msgspec.structs.replace(opened.instances[3], id="somewhere")  # no name that reconcile would clean up
    unpluggable = msgspec.structs.replace(opened, instances=(*opened.instances[:3], homeless))
    (netns.PINS / homeless.id).mkdir()
    for bad in (dangling, unpluggable):
        with pytest.raises(RuntimeError):
            netd.apply(bad)
        with listening(made, (22,)):
            reply, descriptors = netd.dial()
            assert (reply.refused, reply.revision) == (None, 1)
            _close(descriptors)
            assert attempt(made, made.interfaces[0], "10.0.1.13", 22) == "EHOSTUNREACH"
    (netns.PINS / homeless.id).rmdir()
    assert netd.apply(msgspec.structs.replace(made, revision=4)) == 4


def test_killed_at_any_point_then_reconciled(tmp_path, fabric):
    """netd killed at 20 random moments of building and changing: the next start gives exactly what was asked for."""
    moments = random.Random(20261123)
    four = world(GROUPS, MEMBERS, revision=1)
    more = msgspec.structs.replace(four.interfaces[1], secondary_ip_addresses=("10.0.1.77",))
    worlds = [
        msgspec.structs.replace(four, interfaces=(four.interfaces[0], more, *four.interfaces[2:])),
        dual(world({**GROUPS, "web": []}, {**MEMBERS, "extra": ["db"]}, preserve=True, revision=2)),
    ]
    for number in range(20):
        process = Process(tmp_path)
        process.feed.sendall(ipc.frame(ipc.whole(worlds[number % 2])))
        time.sleep(moments.uniform(0.05, 0.35))
        process.process.send_signal(signal.SIGKILL)
        process.process.wait()
    process = Process(tmp_path)
    assert process.apply(worlds[1]) == 2
    assert process.apply(msgspec.structs.replace(worlds[0], revision=3)) == 3
    process.stop()
    after = _state()
    fabric.apply(World())
    fresh = Fabric()
    fresh.apply(worlds[0])
    fresh.close()
    assert after == _state()
    with listening(worlds[0], (22,)):
        made = worlds[0]
        assert attempt(made, made.interfaces[0], "10.0.1.11", 22) == "connected"
        assert attempt(made, made.interfaces[0], "10.0.1.13", 22) == "EHOSTUNREACH"


def _state():
    """Links, addresses, routes, rules and ruleset of every namespace of ours, without what differs by nature."""
    return {
        name: (
            sorted((link["ifname"], link["operstate"]) for link in ip.read(name, "link", "show")),
            sorted(
                (one["ifname"], address["local"], address["prefixlen"])
                for one in ip.read(name, "address", "show")
                for address in one.get("addr_info", [])
                if address["scope"] != "link" or name.startswith("vpc-")
            ),
            *(
                sorted(str(one) for one in ip.read(name, version, *what) if not _is_link_local(one))
                for version in ("-4", "-6")
                for what in (("route", "show", "table", "all"), ("rule", "show"))
            ),
            _normal(name) if name.startswith(("vpc-", "eice-")) else [],
        )
        for name in sorted(netns.names())
    }


def _is_link_local(route):
    """Those of a host's own making, which it numbers as it likes."""
    return str(route.get("dst", "")).startswith("fe80:")


def test_slots_of_a_dead_process_are_free(tmp_path):
    """A killed holder's slots are free at once, and `taken` counts exactly."""
    slots = Slots(tmp_path)
    code = (
        "import sys, time; from pathlib import Path; from wicketgate.netd.slots import Slots\n"
        "held = [Slots(Path(sys.argv[1])).take('e', 3) for _ in range(3)]; print(held, flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert b"None" not in holder.stdout.readline()
    assert slots.taken("e", 3) == 3
    assert slots.take("e", 3) is None
    holder.kill()
    holder.wait()
    assert slots.taken("e", 3) == 0
    holder.stdout.close()


def test_confined_process_can_do_nothing(fabric):
    """After confine: no capability, no new privileges, no way into a namespace, no network but what was handed over."""
    fabric.apply(world(GROUPS, MEMBERS))
    code = (
        "import json, os, socket\n"
        "from wicketgate.kernel import netns\n"
        "def attempt(work):\n"
        "    try: work(); return 'possible'\n"
        "    except Exception as error: return type(error).__name__\n"
        "status = dict(line.split(':', 1) for line in open('/proc/self/status') if ':' in line)\n"
        "print(json.dumps({'caps': [int(status[k].strip(), 16) for k in ('CapEff', 'CapPrm', 'CapBnd', 'CapAmb')],\n"
        " 'nnp': status['NoNewPrivs'].strip(), 'uid': os.getuid(),\n"
        f" 'enter': attempt(lambda: netns.enter('{VPC}')), 'create': attempt(lambda: netns.create('mine')),\n"
        " 'connect': attempt(lambda: socket.create_connection(('192.0.2.1', 1), 1)),\n"
        " 'raw': attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)),\n"
        " 'transparent': attempt(lambda: socket.socket().setsockopt(0, 19, 1))}))\n"
    )
    python, environment = readable_python()
    command = [python, "-m", "wicketgate.kernel.confine", "64910", python, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["caps"] == [0, 0, 0, 0]
    assert (seen["nnp"], seen["uid"]) == ("1", 64910)
    assert [seen[key] for key in ("enter", "create", "connect", "raw", "transparent")] == [
        "FabricError",
        seen["create"],
        "OSError",
        "PermissionError",
        "PermissionError",
    ]
    assert seen["create"] in ("FabricError", "PermissionError")
    # Where one id is mapped the two processes share it, and a plain file can be made; a namespace cannot.
    assert not netns._is_pinned(Path("/run/netns/mine"))
