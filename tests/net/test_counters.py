"""What the rules let through: counted exactly, credited to every rule that covers, kept over a restart of netd."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time

import msgspec
import pytest

from tests.net.test_netd import Process
from tests.net.test_peering import A1, B1, TO_B1, TO_B1_6, peered
from tests.net.test_revocation import Live, carries, connection
from tests.net.worlds import VPC, rule, sg, world
from wicketgate import ipc
from wicketgate.kernel import conntrack, netns
from wicketgate.model import Change, Settings
from wicketgate.netd.asking import ask

OUT = rule("out", "-1", (-1, -1), "10.0.0.0/16")
FROM_ENDPOINT = rule("in", "tcp", (22, 22), "sg:endpoint")
FROM_CLIENTS = rule("in", "tcp", (80, 80), "sg:client")
WEB = rule("in", "tcp", (1, 100), "10.0.1.0/24")
DNS = rule("in", "udp", (53, 53), "10.0.1.0/24")
NEVER = rule("in", "tcp", (9, 9), "0.0.0.0/0")
TO_SERVER = rule("out", "tcp", (22, 22), "sg:server")
GROUPS = {
    "endpoint": [TO_SERVER],
    "client": [OUT],
    "server": [FROM_ENDPOINT, FROM_CLIENTS, DNS, NEVER],
    "wide": [WEB],
}
MEMBERS = {"a": ["client"], "b": ["server", "wide"], "c": ["client"]}
SERVER = "10.0.1.12"


@pytest.fixture
def live(tmp_path, fabric):
    """A netd over the World of this module."""
    process = Process(tmp_path)
    try:
        yield Live(process, world(GROUPS, MEMBERS))
    finally:
        process.stop()


def connections(directory):
    """Rule id -> connections, without zeros."""
    return {key: one.connections for key, one in ask(directory).totals.rules.items() if one.connections}


def ended(live, directory):
    """The totals once no TCP connection stands: forgotten ones end for conntrack as well."""
    conntrack.delete(VPC, *conntrack.dump(VPC))
    return ask(directory).totals


def test_every_covering_rule_is_credited_once_for_a_connection(live, tmp_path):
    """Both rules that cover, at both ends; none that does not; refused attempts nowhere; packets are no connections."""
    for number in (1, 2, 3):
        with live.stream("a") as (ours, theirs):
            assert carries(ours, theirs)
            assert carries(ours, theirs)
        assert connections(tmp_path) == {OUT.id: number, FROM_CLIENTS.id: number, WEB.id: number}
    with netns.entered(live._namespace("a")), socket.socket() as refused:
        refused.settimeout(0.2)
        with pytest.raises(TimeoutError):
            refused.connect((SERVER, 200))
    assert connections(tmp_path) == {OUT.id: 3, FROM_CLIENTS.id: 3, WEB.id: 3}
    with live.tunnel() as (ours, theirs):
        assert carries(ours, theirs)
        expected = {OUT.id: 3, FROM_CLIENTS.id: 3, WEB.id: 4, TO_SERVER.id: 1, FROM_ENDPOINT.id: 1}
        assert connections(tmp_path) == expected
    totals = ask(tmp_path).totals
    assert (totals.lost_events, totals.uncredited) == (0, 0)
    assert NEVER.id not in totals.rules


def test_bytes_are_those_of_the_ip_packets(live, tmp_path):
    """One datagram each way, 28 bytes of headers each: live while the connection stands, then final."""
    with netns.entered(live._namespace("b")):
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with netns.entered(live._namespace("a")):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with server, client:
        server.bind(("0.0.0.0", 53))
        client.connect((SERVER, 53))
        client.send(b"x" * 100)
        assert select.select([server], [], [], 1)[0]
        server.sendto(b"y" * 300, server.recvfrom(200)[1])
        assert select.select([client], [], [], 1)[0]
        tally = ask(tmp_path).totals.rules[DNS.id]
        assert (tally.connections, tally.packets, tally.octets) == (1, 0, 0)
        assert (tally.live, tally.live_packets, tally.live_octets) == (1, 2, 456)
        tally = ended(live, tmp_path).rules[DNS.id]
        assert (tally.connections, tally.packets, tally.octets, tally.live) == (1, 2, 456, 0)


def test_what_began_before_a_change_is_credited_as_it_began(live, tmp_path):
    """Its rule is narrowed and another one added while it stands, and right after it began."""
    with live.stream("a") as (ours, theirs):
        live.rules("server", FROM_ENDPOINT, NEVER, rule("in", "tcp", (80, 80), "10.0.0.0/8"))
        assert carries(ours, theirs)
        assert connections(tmp_path) == {OUT.id: 1, WEB.id: 1}  # a rule that is gone is shown no more
    totals = ended(live, tmp_path)
    assert totals.rules[WEB.id].octets > 0
    assert set(totals.rules) == {OUT.id, WEB.id}


def test_what_begins_while_a_change_waits_is_credited_as_it_began(live, tmp_path):
    """netd is told of the change first, but what the kernel let through until then was let through by other rules."""
    later = rule("in", "tcp", (80, 80), "10.0.0.0/8")
    change = Change(
        puts=(msgspec.structs.replace(live.world.group(sg("server")), rules=(FROM_ENDPOINT, NEVER, later)),)
    )
    os.kill(live.process.process.pid, signal.SIGSTOP)
    live.process.feed.sendall(ipc.frame(ipc.step(live.world.revision + 1, change)))
    with live.stream("a"):
        os.kill(live.process.process.pid, signal.SIGCONT)
        assert ipc.read_answer(live.process.feed) == live.world.revision + 1
        assert connections(tmp_path) == {OUT.id: 1, WEB.id: 1}


def test_totals_outlive_netd(live, tmp_path):
    """Written within a second, read again; a connection that stands is credited when it ends, and not counted anew."""
    with live.stream("a") as (ours, theirs):
        deadline = time.monotonic() + 3
        file = tmp_path / "rule-counters.json"
        while not file.exists() or WEB.id not in json.loads(file.read_text())["rules"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        live.restart(tmp_path)
        live.enforce(live.world)
        assert connections(tmp_path) == {OUT.id: 1, FROM_CLIENTS.id: 1, WEB.id: 1}
        assert carries(ours, theirs)
    assert ended(live, tmp_path).rules[WEB.id].octets > 0
    assert connections(tmp_path)[WEB.id] == 1


def test_a_broken_file_is_no_reason_to_stay_down(live, tmp_path):
    """Counting begins anew."""
    live.process.process.kill()
    live.process.process.wait()
    (tmp_path / "rule-counters.json").write_text("{")
    live.restart(tmp_path)
    live.enforce(live.world)
    with live.stream("a"):
        assert connections(tmp_path)[WEB.id] == 1


def test_it_can_be_turned_off(live, tmp_path):
    """No listener then, and no totals."""
    live.enforce(msgspec.structs.replace(live.world, settings=Settings(rule_counters=False)))
    with live.stream("a"):
        assert ask(tmp_path).totals is None
    live.enforce(msgspec.structs.replace(live.world, settings=Settings()))
    with live.stream("c"):
        assert connections(tmp_path) == {OUT.id: 1, FROM_CLIENTS.id: 1, WEB.id: 1}


def test_the_router_itself_is_nobodys_rule(live, tmp_path):
    """Instance metadata is let in whatever the groups say, and credited to none."""
    with netns.entered(VPC):
        metadata = socket.create_server(("169.254.169.254", 80))
    with metadata, netns.entered(live._namespace("a")), socket.socket() as client:
        client.settimeout(1)
        client.connect(("169.254.169.254", 80))
    totals = ask(tmp_path).totals
    assert (connections(tmp_path), totals.elsewhere) == ({}, 1)


def test_a_storm_is_counted_or_said_to_be_lost(live, tmp_path):
    """Tens of thousands of connections faster than they are read: counted and lost together are all of them."""
    with netns.entered(live._namespace("a")):
        socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(200)]
    os.kill(live.process.process.pid, 19)
    try:
        for sock in socks:
            for port in range(100):
                sock.sendto(b"x", (SERVER, 5300 if port else 53))
                sock.sendto(b"x", ("10.0.1.13", 1 + port))
    finally:
        os.kill(live.process.process.pid, 18)
        for sock in socks:
            sock.close()
    totals = ask(tmp_path).totals
    assert totals.rules[DNS.id].connections + totals.lost_events == 200


@pytest.fixture
def command(live, tmp_path):
    """`wicketgate rules` for this netd."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "netd").symlink_to(tmp_path)

    def run(*words):
        words = [sys.executable, "-m", "wicketgate.cli", "rules", "--directory", str(tmp_path / "state"), *words]
        return subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)

    return run


def test_the_groups_in_force_as_a_table(live, command):
    """Members with their addresses and owners, rules with names of groups; nothing about counts unless asked."""
    live.rules("wide")
    done = command()
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines()]
    server, client = sg("server"), sg("client")
    assert [server, "server", f"({VPC})"] in lines
    assert ["eni-00000000000000012", SERVER, live._namespace("b"), "b"] in lines
    assert [FROM_CLIENTS.id, "inbound", "tcp", "80", client, "(client)"] in lines
    assert [OUT.id, "outbound", "all", "all", "10.0.0.0/16"] in lines
    assert ["no", "rules:", "nothing", "passes"] in lines
    assert lines[-1] == ["Revision", f"{live.world.revision}."]
    assert "CONNECTIONS" not in done.stdout


def test_counts_beside_the_rules(live, command, tmp_path):
    """The numbers that netd has, what they mean, and zero for a rule that let nothing through."""
    with live.stream("a") as (ours, theirs):
        assert carries(ours, theirs)
        live_octets = ask(tmp_path).totals.rules[WEB.id].live_octets
        done = command("--counters", "--group", "server")
        lines = [line.split() for line in done.stdout.splitlines()]
        (counted,) = [line for line in lines if line[:1] == [FROM_CLIENTS.id]]
        assert counted[6:9] == ["1", "0", "0"]
        assert (counted[9], counted[11]) == ("1", str(live_octets))
        assert [line[5:] for line in lines if line[:1] == [NEVER.id]] == [["0"] * 6]
        assert "every rule that covers its first packet" in done.stdout
        assert "0 beginnings or ends that came too fast" in done.stdout
        assert WEB.id not in done.stdout
        (shown,) = json.loads(command("--counters", "--group", sg("wide"), "--json").stdout)["groups"]
        assert shown["rules"][0]["counters"]["connections"] == 1


def test_lint_knows_what_nobody_used(live, command, tmp_path):
    """Rules that let nothing through are told about, those that did are not."""
    assert command().returncode == 0
    file = tmp_path / "world.json"
    file.write_bytes(live.world.to_json())
    where = ("--world", str(file), "--counters", "--directory", str(tmp_path / "state"))
    with live.stream("a") as (ours, theirs):
        assert carries(ours, theirs)
        words = [sys.executable, "-m", "wicketgate.cli", "lint", *where, "--json"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert done.stderr == ""
    report = json.loads(done.stdout)
    unused = {one["resource"]: one for one in report["findings"] if one["id"] == "WG009"}
    assert NEVER.id in unused
    assert not {FROM_CLIENTS.id, WEB.id} & set(unused)
    assert unused[NEVER.id]["facts"]["since"].endswith("Z")
    assert len(report["notLookedAt"]) == 1


def test_across_a_peering_each_side_is_credited_once(tmp_path, fabric):
    """Both namespaces tell of the connection: the sender's credits outbound rules, the receiver's inbound ones."""
    process = Process(tmp_path)
    try:
        live = Live(process, peered())
        with connection(A1, B1, TO_B1, 80), connection(A1, B1, TO_B1_6, 81):
            found = {rule: live.world.group(f"sg-{rule[4]}") for rule in connections(tmp_path)}
            by_id = {one.id: one for group in found.values() for one in group.rules}
            assert connections(tmp_path) == dict.fromkeys(found, 1)
            ways = sorted((rule[4], by_id[rule].is_egress, by_id[rule].cidr_ipv4 is None) for rule in found)
            assert ways == [("a", True, False), ("a", True, True), ("b", False, False), ("b", False, True)]
    finally:
        process.stop()


def test_what_cannot_be_shown_is_said(live, command, tmp_path):
    """An unknown group; nothing counted; no netd."""
    assert "there is no security group sg-none" in command("--group", "sg-none").stderr
    live.enforce(msgspec.structs.replace(live.world, settings=Settings(rule_counters=False)))
    assert "rule_counters is false" in command("--counters").stderr
    assert command().returncode == 0
    (tmp_path / "ask.sock").unlink()
    done = command()
    assert (done.returncode, "is wicketgate serving with this state directory?" in done.stderr) == (1, True)


def test_who_asks_and_goes_does_no_harm(live, tmp_path):
    """Many who do not wait for the answer."""
    for _ in range(40):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.connect(str(tmp_path / "ask.sock"))
    assert ask(tmp_path).world.revision == live.world.revision
