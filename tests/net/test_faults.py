"""What goes wrong around netd: the kernel refuses or is slow, netd is killed, others write to the same kernel objects.

Always: rules stay, nothing opens, what failed is told, and it is made good without anybody's help.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import pytest
from botocore.exceptions import ClientError

from tests.api.deployment import deployed
from tests.net.families import dual
from tests.net.kernel_state import Writes, differences, kernel_state
from tests.net.test_fabric import GROUPS, MEMBERS
from tests.net.test_netd import Process
from tests.net.test_scale import _many
from tests.net.worlds import VPC, attempt, listening, resource_id, rule, sg, world
from wicketgate import rules
from wicketgate.kernel import conntrack, ip, netns
from wicketgate.kernel.fabric import Fabric
from wicketgate.kernel.nftables import Nftables
from wicketgate.kernel.rtnetlink import Routing
from wicketgate.model import Change, FabricError, World, apply_change
from wicketgate.model.change import kind_of
from wicketgate.store import open_store

PORTS = (22, 80, 5432)
DENIED = [("endpoint", "10.0.1.13", 22), ("web-1", "10.0.1.14", 80), ("closed-1", "10.0.1.11", 22)]
"""What neither of the Worlds below allows: (sender, address, port)."""
WATCHED = 2.0
"""Seconds within which what somebody changed must be put back: netd looks every half of one."""


def small(revision=1):
    """The World of test_fabric.py."""
    return world(GROUPS, MEMBERS, revision=revision)


def large(revision=2):
    """The same with IPv6, one machine and one group more, one less, and more rules."""
    groups = {name: rules for name, rules in GROUPS.items() if name != "closed"}
    groups["new"] = [rule("in", "tcp", (5432, 5432), "sg:web")]
    members = {"web-1": ["web", "new"], "web-2": ["web"], "db-1": ["db"], "closed-1": ["new"], "more-1": ["new"]}
    return dual(world(groups, members, revision=revision, preserve=True))


def opened(made):
    """Which of the denied connections are made all the same."""
    senders = {eni.link: eni for eni in made.interfaces}
    with listening(made, PORTS):
        tried = [(link, address, port) for link, address, port in DENIED if _is_there(made, senders[link])]
        assert tried
        return [one for one in tried if attempt(made, senders[one[0]], *one[1:], wait=0.02) == "connected"]


def _is_there(made, sender):
    owner = made.endpoint_of_interface(sender.id) or made.instance_of_interface(sender.id)
    return netns.exists(owner.id) and any(one["ifname"] == "eth0" for one in ip.read(owner.id, "link", "show"))


def works(made):
    """Whether what is allowed is made."""
    with listening(made, PORTS):
        return attempt(made, made.interfaces[0], "10.0.1.11", 22, wait=1) == "connected"


def nft(commands, namespace=VPC):
    """What somebody does by hand."""
    with closing(Nftables(namespace)) as hand:
        return hand.run(commands)


def our_rules(namespace=VPC):
    """The table as it is listed, without what counts."""
    words = nft(f"list table inet {rules.TABLE}", namespace).replace(" counter packets ", " counter ").split()
    return sorted(word for word in words if not word.isdigit())


def until(condition, seconds=WATCHED):
    """Wait for something; how long it took."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, "it does not come about"
        time.sleep(0.02)
    return time.monotonic() - begun


# -- the kernel refuses ------------------------------------------------------------------------------------------------

STEPS = [
    *((Nftables, name) for name in ("run", "send")),
    *((module, name) for module, name in ((ip, "batch"), (ip, "sysctl"), (netns, "create"), (netns, "delete"))),
    (Routing, "_ask"),
    (conntrack, "forget"),
]
"""All by which the fabric changes the kernel."""


@contextmanager
def failing(monkeypatch, which, *, after):
    """The `which`th step fails, `after` it is done or instead of it; yields the list of the steps begun."""
    begun = []
    with monkeypatch.context() as patch:
        for owner, name in STEPS:
            patch.setattr(owner, name, _step(getattr(owner, name), name, begun, which, after))
        yield begun


def _step(real, name, begun, which, after):
    def step(*arguments, **options):
        if name == "run" and arguments[1].startswith("list "):
            return real(*arguments, **options)
        if name == "batch" and not arguments[1]:
            return None
        begun.append(name)
        mine = len(begun) == which
        if mine and not after:
            raise FabricError(f"step {which}, {name}: injected")
        result = real(*arguments, **options)
        if mine:
            raise FabricError(f"step {which}, {name}: injected")
        return result

    return step


@pytest.mark.usefixtures("fabric")
def test_any_step_may_fail(monkeypatch):
    """Whichever step of a large change fails, before it is done or after: nothing opens, the World before can be put
    back as it was by a process without memory, and the change then works."""
    put(small())
    before = kernel_state()
    with closing(Fabric()) as used:
        used.apply(small())
        with failing(monkeypatch, 0, after=False) as steps:
            used.apply(large())
    after = kernel_state()
    assert set(steps) >= {"run", "batch", "sysctl", "create", "_ask", "forget"}
    for number, which in enumerate(random.Random(5).sample(range(1, len(steps) + 1), 12)):
        put(small())
        with closing(Fabric()) as used:
            used.apply(small())
            with failing(monkeypatch, which, after=bool(number % 2)), pytest.raises(FabricError, match="injected"):
                used.apply(large())
        what = f"step {which} of {len(steps)}, {steps[which - 1]}"
        assert opened(small()) == [], what
        put(small())
        assert differences(kernel_state(), before) == [], what
        put(large())
        assert differences(kernel_state(), after) == [], what


def put(made):
    """Put a World in force as a process without memory does."""
    with closing(Fabric()) as fresh:
        fresh.apply(made)


def test_namespaces_run_out(fabric, tmp_path):
    """The kernel makes no further network namespace: the World is refused in words and is as before; later it works."""
    limit = Path("/proc/sys/user/max_net_namespaces")
    usual = limit.read_text()
    process = Process(tmp_path)
    assert process.apply(small()) == 1
    before = kernel_state()
    limit.write_text("1")
    try:
        with pytest.raises(RuntimeError, match="No space left on device"):
            process.apply(large())
        assert differences(kernel_state(), before) == []
    finally:
        limit.write_text(usual)
    assert works(small())
    assert process.apply(large()) == 2
    assert works(large())
    process.stop()


def test_full_disk(fabric, tmp_path):
    """No room for tunnels' slots: the dial is refused in words, changes go on, and with room dials are granted."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=3", "none", str(tmp_path)], check=True)
    try:
        (tmp_path / "full").touch()
        (tmp_path / "fuller").touch()
        process = Process(tmp_path)
        assert process.apply(small()) == 1
        with listening(small(), PORTS):
            reply, descriptors = process.dial()
            assert (reply.refused, descriptors) == ("connect", [])
            assert "No space left on device" in reply.message
            assert process.apply(small(2)) == 2
            (tmp_path / "full").unlink()
            (tmp_path / "fuller").unlink()
            reply, descriptors = process.dial()
            assert reply.refused is None
            for one in descriptors:
                os.close(one)
        process.stop()
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


# -- others write to the same kernel -----------------------------------------------------------------------------------

BY_HAND = {
    "table deleted": f"delete table inet {rules.TABLE}",
    "everything deleted": "flush ruleset",
    "rules deleted": f"flush table inet {rules.TABLE}",
    "let all pass": f"insert rule inet {rules.TABLE} forward accept",
    "policy": f"add chain inet {rules.TABLE} forward {{ type filter hook forward priority filter; policy accept; }}\n"
    f"flush chain inet {rules.TABLE} forward",
    "hold a chain": f"add chain inet {rules.TABLE} mine\nadd rule inet {rules.TABLE} mine "
    f"jump in_{sg('closed').removeprefix('sg-')}",
}


@pytest.mark.parametrize("what", BY_HAND)
def test_rules_changed_by_hand_while_netd_runs(fabric, tmp_path, what):
    """They are put back within a second or so, and netd's log says it; a change meanwhile puts them back at once."""
    process = Process(tmp_path, log=tmp_path / "log")
    assert process.apply(small()) == 1
    expected = our_rules()
    nft(BY_HAND[what])
    took = until(lambda: _table_is_there() and our_rules() == expected)
    assert took < WATCHED
    assert "somebody else changed the rules in namespace " + VPC in (tmp_path / "log").read_text()
    assert opened(small()) == []
    assert works(small())
    closed = small().group(sg("closed"))
    more = msgspec.structs.replace(closed, rules=(rule("in", "tcp", (9, 9), "10.0.0.0/8"),))
    assert process.apply(apply_change(small(), Change(puts=(more,)))) == 2
    nft(BY_HAND[what])
    assert process.apply(small(3)) == 3
    assert our_rules() == expected
    process.stop()


def _table_is_there():
    return f"table inet {rules.TABLE}" in nft("list tables").splitlines()


@pytest.mark.parametrize("what", BY_HAND)
def test_rules_changed_by_hand_while_netd_is_away(fabric, tmp_path, what):
    """The next netd puts them back, although its mark still says that all is well."""
    process = Process(tmp_path)
    assert process.apply(small()) == 1
    expected = our_rules()
    process.stop()
    nft(BY_HAND[what])
    assert not _table_is_there() or our_rules() != expected
    process = Process(tmp_path)
    assert process.apply(small()) == 1
    assert our_rules() == expected
    assert opened(small()) == []
    process.stop()


def test_rules_that_are_not_guarded_stay_changed(fabric):
    """With the setting guard_rules off, until it is on again."""
    made = small()
    unguarded = msgspec.structs.replace(made.settings, guard_rules=False)
    fabric.apply(msgspec.structs.replace(made, settings=unguarded))
    expected = our_rules()
    nft(BY_HAND["let all pass"])
    assert fabric.mend() == []
    assert our_rules() != expected
    fabric.apply(msgspec.structs.replace(made, revision=2))
    assert fabric.mend() == [VPC]
    assert our_rules() == expected


def test_others_tables_cost_one_replacement(fabric):
    """Rules that somebody keeps beside ours are left alone; ours are written once more, and then no more."""
    fabric.apply(small())
    nft("add table ip foreign\nadd chain ip foreign c\nadd rule ip foreign c tcp dport 1 drop")
    assert fabric.mend() == [VPC]
    writes = Writes()
    assert fabric.mend() == []
    with closing(Fabric()) as fresh:
        fresh.apply(small())
    assert writes.seen() == []
    writes.close()
    assert "tcp dport 1 drop" in nft("list table ip foreign")


def test_names_taken_before_the_start(fabric, tmp_path):
    """A table, sets, chains and links of our names but of other kinds were there first: they are replaced by ours."""
    fabric.apply(small())
    expected = kernel_state()
    fabric.apply(World())
    netns.create(VPC)
    member = f"members_{sg('web').removeprefix('sg-')}"
    nft(
        f"add table inet {rules.TABLE}\n"
        f"add chain inet {rules.TABLE} forward {{ type filter hook output priority 5; policy accept; }}\n"
        f"add map inet {rules.TABLE} {member} {{ type ipv4_addr : mark; }}\n"
        f"add chain inet {rules.TABLE} {rules.APPLIED}\n"
        f'add rule inet {rules.TABLE} {rules.APPLIED} accept comment "{"0" * 64}"'
    )
    ip.batch(
        VPC, ["link add web-1 type veth peer name x", "link set web-1 up", "link add db-1 type veth peer name void"]
    )
    process = Process(tmp_path)
    assert process.apply(small()) == 1
    assert differences(kernel_state(), expected) == []
    assert opened(small()) == []
    assert works(small())
    process.stop()


OWNER = """
import socket, struct, sys, time
sys.path.insert(0, sys.argv[1])
from wicketgate.kernel.nftables import Nftables
nft = Nftables(sys.argv[2])
nft.run(sys.argv[3])
print("owned", flush=True)
time.sleep(60)
"""


def test_a_table_that_somebody_else_owns(fabric, tmp_path):
    """A table of our name that the kernel lets only its owner change: nothing can be enforced, so nothing is built;
    netd says so, lives, and does its work once the owner is gone."""
    netns.create(VPC)
    text = f"table inet {rules.TABLE} {{ flags owner; chain open {{ type filter hook forward priority 0; }}; }}"
    command = [sys.executable, "-c", OWNER, str(Path(rules.__file__).parent.parent.parent), VPC, text]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout.readline() == "owned\n"
        process = Process(tmp_path)
        with pytest.raises(RuntimeError, match="not permitted"):
            process.apply(small())
        assert [link["ifname"] for link in ip.read(VPC, "link", "show")] == ["lo"]
        owner.kill()
    assert process.apply(small()) == 1
    assert opened(small()) == []
    assert works(small())
    process.stop()


# -- links that go -----------------------------------------------------------------------------------------------------


def test_link_deleted_by_hand(fabric, tmp_path):
    """A change of an interface whose link is gone is refused or makes it anew, and is in force at the second try at the
    latest; nothing opens."""
    process = Process(tmp_path)
    assert process.apply(small()) == 1
    ip.batch(VPC, ["link delete web-1"])
    more = msgspec.structs.replace(small().interfaces[1], secondary_ip_addresses=("10.0.1.77",))
    wanted = apply_change(small(), Change(puts=(more,)))
    with contextlib.suppress(RuntimeError):
        process.apply(wanted)
    assert opened(wanted) == []
    assert process.apply(msgspec.structs.replace(wanted, revision=3)) == 3
    assert works(wanted)
    process.stop()
    with closing(Fabric()) as fresh:
        fresh.apply(wanted)
        grown = kernel_state()
        fresh.apply(World())
        fresh.apply(wanted)
    assert differences(grown, kernel_state()) == []


def test_links_deleted_in_mid_change(fabric, tmp_path):
    """Links disappear at any moment of twenty changes: each is in force or refused, and the last state is whole."""
    moments = random.Random(11)
    process = Process(tmp_path)
    assert process.apply(small()) == 1
    refused = 0
    for number in range(2, 22):
        made = large(number) if number % 2 else small(number)

        link = moments.choice(["web-1", "endpoint", "void", "db-1"])
        thread = threading.Thread(target=_delete_link, args=(link, moments.uniform(0, 0.1)))
        thread.start()
        try:
            process.apply(made)
        except RuntimeError:
            refused += 1
        thread.join()
        assert process.process.poll() is None
    assert opened(small()) == []
    process.stop()
    process = Process(tmp_path)
    assert process.apply(small(22)) == 22
    process.stop()
    grown = kernel_state()
    with closing(Fabric()) as fresh:
        fresh.apply(World())
        fresh.apply(small())
    assert differences(grown, kernel_state()) == []


def _delete_link(link, pause):
    time.sleep(pause)
    with contextlib.suppress(FabricError):
        ip.batch(VPC, [f"link delete {link}"])


# -- netd killed -------------------------------------------------------------------------------------------------------


def test_first_world_that_fails_leaves_what_was_there(fabric, tmp_path):
    """A netd started anew that cannot enforce its first World takes nothing down that an earlier one built."""
    fabric.apply(small())
    before = _links()
    process = Process(tmp_path)
    unpluggable = resource_id("i", "more-1")
    (netns.PINS / unpluggable).mkdir()
    try:
        with pytest.raises(RuntimeError, match=unpluggable):
            process.apply(large())
        assert _links() >= before
        assert opened(small()) == []
    finally:
        (netns.PINS / unpluggable).rmdir()
    assert process.apply(large()) == 2
    assert works(large())
    process.stop()


def _links():
    return {(made, link["ifname"]) for made in (VPC, small().instances[0].id) for link in ip.read(made, "link", "show")}


def test_killed_in_a_big_load(fabric, tmp_path):
    """Killed at any moment of loading a thousand groups, in batches where this is a user namespace: half a load
    denies."""
    made, nothing = _many(1000, 60), world({"endpoint": [], "web": []}, {"web-1": ["web"], "other-1": ["web"]})
    moments, denied = random.Random(3), 0
    for _ in range(6):
        put(nothing)
        assert not _passes(made)
        process = Process(tmp_path)
        process.tell(made)
        process.answers(moments.uniform(0.5, 4.0))
        process.process.kill()
        process.stop()
        assert not _passes(made, "10.0.1.12")
        passes = _passes(made)
        denied += not passes
        assert not passes or _is_whole(), "what is not marked as whole lets something through"
    assert denied, "each load was over before the kill"
    process = Process(tmp_path)
    assert process.apply(made) == 1
    assert _passes(made)
    process.stop()


def _is_whole():
    with closing(Nftables(VPC)) as hand:
        return any("rule" in one for one in hand.listing(f"list chain inet {rules.TABLE} {rules.APPLIED}"))


def _passes(made, address="10.0.1.11"):
    with listening(made, (22,)):
        return attempt(made, made.interfaces[0], address, 22, wait=0.05) == "connected"


# -- a whole deployment ------------------------------------------------------------------------------------------------


@pytest.fixture
def serving():
    """`Serve` with its processes, and a client of its API; everything is gone afterwards."""
    with deployed(f"faults-{time.monotonic_ns()}") as made:
        yield made, made.client("ec2")
    put(World())


def kernel_vpcs():
    """The VPCs that have a namespace."""
    return {name for name in netns.names() if name.startswith("vpc-")}


def test_a_change_that_cannot_be_enforced_is_undone():
    """The kernel has no room for another VPC: the call fails with the kernel's words, the World is as before, what went
    before still works, and with room the same call succeeds. The journal has the Change and its inverse."""
    limit = Path("/proc/sys/user/max_net_namespaces")
    usual = limit.read_text()
    with deployed(f"faults-{time.monotonic_ns()}") as deployment:
        ec2 = deployment.client("ec2")
        first = ec2.create_vpc(CidrBlock="10.8.0.0/16")["Vpc"]["VpcId"]
        rules_before, revision = our_rules(first), deployment.serve.world.revision
        limit.write_text("1")
        try:
            words = "could not be enforced and was undone.*No space left on device"
            with pytest.raises(ClientError, match=words) as caught:
                ec2.create_vpc(CidrBlock="10.9.0.0/16")
        finally:
            limit.write_text(usual)
        assert caught.value.response["Error"]["Code"] == "InternalError"
        assert [one["VpcId"] for one in ec2.describe_vpcs()["Vpcs"]] == [first]
        assert kernel_vpcs() == {first}
        assert our_rules(first) == rules_before
        second = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
        assert kernel_vpcs() == {first, second}
        directory = deployment.serve.directory / "store"
    put(World())
    with closing(open_store(directory)) as store:
        done, undone, _again, *_ = [one.change for one in store.changes(revision)]
    assert {(kind_of(one), one.id) for one in done.puts} == set(undone.deletes)
    assert ("vpc", second) not in undone.deletes


def test_netd_that_hangs(serving):
    """A netd that is stopped in mid-air is ended and started anew; the call waits for that and succeeds; meanwhile the
    rules stand."""
    deployment, ec2 = serving
    vpc = ec2.create_vpc(CidrBlock="10.8.0.0/16")["Vpc"]["VpcId"]
    before = our_rules(vpc)
    netd = next(child for child in deployment.serve.children if child.name == "netd")
    netd.feed._sock.settimeout(1.5)  # instead of half a minute
    hung = netd.process.pid
    os.kill(hung, signal.SIGSTOP)
    begun = time.monotonic()
    ec2.create_vpc(CidrBlock="10.9.0.0/16")
    assert time.monotonic() - begun > 1
    assert netd.process.pid != hung
    assert our_rules(vpc) == before
    assert len(kernel_vpcs()) == 2


def test_netd_killed_under_calls(serving):
    """Killed again and again while calls come in: each call is answered, what was acknowledged is in the kernel, and
    what was refused is not."""
    deployment, ec2 = serving
    vpc = ec2.create_vpc(CidrBlock="10.8.0.0/16")["Vpc"]["VpcId"]
    group = ec2.create_security_group(GroupName="web", Description="web", VpcId=vpc)["GroupId"]
    netd = next(child for child in deployment.serve.children if child.name == "netd")
    over, moments = threading.Event(), random.Random(8)

    def killer():
        while not over.wait(moments.uniform(0.05, 0.6)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(netd.process.pid, signal.SIGKILL)

    thread = threading.Thread(target=killer)
    thread.start()
    outcomes = {}
    try:
        for port in range(1000, 1040):
            ports = {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}
            try:
                ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[ports])
                outcomes[port] = True
            except ClientError as error:
                assert error.response["Error"]["Code"] == "InternalError"
                outcomes[port] = False
    finally:
        over.set()
        thread.join()
    deployment.serve.wait_alive(20)
    allowed = {port for port, done in outcomes.items() if done}
    told = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]
    assert {one["FromPort"] for one in told} == allowed
    world = deployment.serve.world
    with closing(Fabric()) as fresh:
        writes = Writes()
        fresh.apply(world)
        assert writes.seen() == []
        writes.close()
    assert {rule.from_port for rule in world.group(group).rules if not rule.is_egress} == allowed
    assert len(allowed) > 10


def test_rules_deleted_under_a_deployment(serving):
    """They come back, and netd's log says what happened."""
    deployment, ec2 = serving
    vpc = ec2.create_vpc(CidrBlock="10.8.0.0/16")["Vpc"]["VpcId"]
    before = our_rules(vpc)
    nft("flush ruleset", vpc)
    until(lambda: f"table inet {rules.TABLE}" in nft("list tables", vpc) and our_rules(vpc) == before)
    log = (deployment.serve.directory / "logs" / "netd.log").read_text()
    assert f"somebody else changed the rules in namespace {vpc}: they are put back" in log
