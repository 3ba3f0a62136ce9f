"""The lab's agent: real sshd's that follow fed Worlds over the real fabric, and a real ssh client that tries them."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import msgspec
import pytest

from tests.net.test_metadata import SIGNER, Processes, interpreter, wait_ready  # noqa: F401  # a fixture
from tests.net.worlds import ENDPOINT, resource_id, rule, world
from tests.unit.test_control_instance_connect import SEND, call
from wicketgate import ipc
from wicketgate.kernel import netns
from wicketgate.kernel.fabric import Fabric
from wicketgate.lab import agent, machines, sandbox, sshd
from wicketgate.model import Change, PushedKey, World, apply_change

OPEN = [rule("in", "-1", (-1, -1), "0.0.0.0/0"), rule("out", "-1", (-1, -1), "0.0.0.0/0")]
A, B, CLIENT = (resource_id("i", name) for name in ("alpha", "beta", "client"))
ADDRESSES = {A: "10.0.1.11", B: "10.0.1.12"}
PLACE = machines.ROOT / "agent-tests"
KEY = PLACE / "id_ed25519"
OWN = PLACE / "pushed_ed25519"


def made(*, revision=1, **states):
    """Two instances that may talk, and `client`, from which the client connects: it is stopped, its network is not."""
    first = world(
        {"endpoint": [], "open": OPEN}, {"alpha": ["open"], "beta": ["open"], "client": ["open"]}, revision=revision
    )
    states = {"client": "stopped", **states}
    (endpoint,) = first.endpoints
    return msgspec.structs.replace(
        first,
        instances=tuple(msgspec.structs.replace(one, state=states.get(one.name, "running")) for one in first.instances),
        endpoints=(msgspec.structs.replace(endpoint, dns_name=dns_name(ENDPOINT)),),
    )


def dns_name(endpoint_id):
    """The IPv4 name of an endpoint."""
    return f"{endpoint_id}.0123456789ab.ec2-instance-connect-endpoint.us-east-1.wicketgate.test"


class Agent:
    """The process, and our end of its feed."""

    def __init__(self, fabric, *, environment=None, **options):
        self.fabric, self.environment = fabric, environment
        given = {"domain": "wicketgate.test", "gateway_address": "192.0.2.1", "hosts_file": PLACE / "hosts"}
        self.companion = agent.companion(**given, authorized_key=KEY.with_suffix(".pub").read_text(), **options)
        self.start()

    def start(self):
        """Start it with a new feed, to the World that it has to be sent again."""
        self.feed, feed = socket.socketpair()
        with feed:
            command = self.companion.command(feed.fileno())
            self.process = subprocess.Popen(command, pass_fds=[feed.fileno()], env=self.environment)
        self.feed.settimeout(30)

    def apply(self, wanted):
        """Have the fabric and then the agent follow a World. Raises RuntimeError with the agent's words."""
        self.fabric.apply(wanted)
        return self.send(ipc.whole(wanted))

    def send(self, update):
        """Send an Update; the revision it acknowledges."""
        self.feed.sendall(ipc.frame(update))
        return ipc.read_answer(self.feed)

    def kill(self):
        """kill -9."""
        self.process.kill()
        self.process.wait()
        self.feed.close()

    def stop(self):
        """End it by ending its feed."""
        self.feed.close()
        assert self.process.wait(5) in (0, -signal.SIGKILL)


@pytest.fixture(scope="session", autouse=True)
def place():
    """Accounts of the lab's own, a home, and two key pairs."""
    if not os.path.ismount("/etc"):
        machines.own_etc({})
    for path in (machines.ROOT, PLACE, machines.ROOT / "home", machines.home()):
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o755)
    for key in (KEY, OWN):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)


@pytest.fixture
def running(fabric):
    """An agent that has switched `alpha` and `beta` on."""
    started = Agent(fabric)
    assert started.apply(made()) == 1
    yield started
    started.stop()
    sshd.end_all()
    for name in [path.name for path in sshd.MACHINES.iterdir()]:
        sshd.Machine(name).remove()


def ssh(address, *command, port=22, key=KEY, user="ec2-user", **options):
    """Start an ssh client that logs in from the third machine's network."""
    quiet = "-F none -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o BatchMode=yes"
    chosen = ["-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=10", "-i", str(key), "-p", str(port)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with netns.entered(CLIENT):
        return subprocess.Popen(["ssh", *quiet.split(), *chosen, f"{user}@{address}", *command], **pipes, **options)


def login(instance_id, command="echo in", **how):
    """What a command's login prints, or ssh's words when there is none."""
    out, err = ssh(ADDRESSES[instance_id], command, **how).communicate(timeout=30)
    return out.strip() or err.strip()


def host_key(instance_id):
    """The public host key that a machine shows."""
    command = ["ssh-keyscan", "-t", "ed25519", ADDRESSES[instance_id]]
    with netns.entered(CLIENT):
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[2]


def session(instance_id):
    """A login that stays, with `cat` at the far end."""
    process = ssh(ADDRESSES[instance_id], "cat")
    assert echo(process, "before\n") == "before\n"
    return process


def echo(process, line):
    """What comes back of a line; empty when the session is over."""
    try:
        process.stdin.write(line)
        process.stdin.flush()
    except BrokenPipeError:
        return ""
    return process.stdout.readline()


def processes(word):
    """Ids of the processes with a word in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if word.encode() in arguments:
            found.append(int(path.parent.name))
    return found


def eventually(fact, seconds=10.0):
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# -- on and off --------------------------------------------------------------------------------------------------------


def test_instances_that_run_take_logins(running):
    """On both ports, whether the instance is running or on its way there; a stopped one has no process."""
    assert running.apply(made(revision=2, alpha="pending")) == 2
    assert [login(one, port=port) for one in (A, B) for port in (22, 3389)] == ["in"] * 4
    assert sshd.running().keys() == {A, B}
    assert login(A, "id -un; id -u").split() == ["ec2-user", str(machines.ACCOUNT_ID)]
    out, _ = ssh(ADDRESSES[A], "-tt", "tty").communicate(timeout=30)
    assert out.startswith("/dev/pts/")


@pytest.mark.parametrize("state", ["stopping", "stopped", "shutting-down", "terminated"])
def test_what_stops_has_no_process_left(running, state):
    """Neither sshd nor an open session nor what a login left in the background; the neighbour notices nothing."""
    login(A, "setsid sleep 71237 >/dev/null 2>&1 </dev/null & sleep 0.1")
    ending, staying = session(A), session(B)
    assert processes("71237")
    assert running.apply(made(revision=2, alpha=state)) == 2
    assert (processes("71237"), list(sshd.running())) == ([], [B])
    assert "Connection refused" in login(A)
    assert ending.wait(10) == 255
    assert echo(staying, "after\n") == "after\n"
    staying.kill()
    staying.communicate()
    ending.communicate()


def test_host_keys_are_kept_and_forgotten(running):
    """Kept over stop and start; a terminated machine's files are removed, and what comes after it is another one."""
    before = host_key(A)
    running.apply(made(revision=2, alpha="stopped"))
    running.apply(made(revision=3, alpha="pending"))
    assert host_key(A) == before
    running.apply(made(revision=4, alpha="terminated"))
    assert not sshd.Machine(A).directory.exists()
    running.apply(made(revision=5))
    assert host_key(A) != before
    running.apply(World(revision=6))
    assert (sshd.running(), list(sshd.MACHINES.iterdir())) == ({}, [])


def test_updates_that_concern_no_machine_cost_nothing(running):
    """A Change of a group is acknowledged at once, and no process is touched."""
    before = sshd.running()
    took = []
    for revision in range(2, 22):
        change = msgspec.structs.replace(made().groups[0], description=str(revision))
        update = ipc.step(revision, Change(puts=(change,)))
        started = time.perf_counter()
        assert running.send(update) == revision
        took.append(time.perf_counter() - started)
    assert min(took) < 0.002
    assert sshd.running() == before


def test_eight_machines_start_at_once(running, tmp_path):
    """With an sshd that takes half a second to start, eight do not take four."""
    slow = tmp_path / "sshd"
    slow.write_text('#!/bin/sh\nsleep 0.5\nexec /usr/sbin/sshd "$@"\n')
    slow.chmod(0o755)
    for path in (tmp_path, *tmp_path.parents[:3]):  # without root sshd has an id of its own
        path.chmod(path.stat().st_mode | 0o011)
    running.stop()
    running.environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    running.start()
    names = {f"m{number}": ["open"] for number in range(8)}
    many = world({"endpoint": [], "open": OPEN}, names, revision=2)
    running.fabric.apply(many)
    started = time.monotonic()
    assert running.send(ipc.whole(many)) == 2
    assert 0.5 < time.monotonic() - started < 2.5
    assert len(sshd.running()) == 8


# -- what goes wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("port", [22, 3389])
def test_a_taken_port_is_refused_in_words(running, port):
    """The Update fails, naming machine and port; nothing of it is left, and the World before it goes on."""
    running.apply(made(revision=2, alpha="stopped", beta="stopped"))
    with netns.entered(B):
        taken = socket.create_server(("0.0.0.0", port))
    with taken, pytest.raises(RuntimeError) as caught:
        running.apply(made(revision=3))
    expected = f"sshd of {B} does not start: Bind to port {port} on 0.0.0.0 failed: Address already in use"
    assert str(caught.value).startswith(expected)
    assert sshd.running() == {}
    assert running.apply(made(revision=4)) == 4
    assert login(B) == "in"


def test_a_refused_launch_leaves_no_files(running):
    """An instance that was new in a refused Update has nothing left; one that was there keeps its host key."""
    new = world({"endpoint": [], "open": OPEN}, {"alpha": ["open"], "beta": ["open"], "new": ["open"]}, revision=2)
    before = sshd.running()
    running.fabric.apply(new)
    with netns.entered(resource_id("i", "new")):
        taken = socket.create_server(("0.0.0.0", 22))
    with taken, pytest.raises(RuntimeError, match="does not start"):
        running.send(ipc.whole(new))
    assert sshd.running() == before
    assert {path.name for path in sshd.MACHINES.iterdir()} == {A, B}


def test_a_killed_agent_loses_no_session(running):
    """Its successor knows the machines that are on, starts none twice, and those that ended meanwhile."""
    before = sshd.running()
    open_session = session(A)
    running.kill()
    os.kill(before[B], signal.SIGKILL)
    eventually(lambda: B not in sshd.running())
    running.start()
    assert running.apply(made()) == 1
    after = sshd.running()
    assert (after[A], after.keys()) == (before[A], before.keys())
    assert after[B] != before[B]
    assert echo(open_session, "after\n") == "after\n"
    assert running.apply(made(revision=2, alpha="stopped")) == 2
    assert open_session.wait(10) == 255
    open_session.communicate()


def test_killed_between_start_and_stop(running):
    """Machines of which the next agent's World knows nothing any more are ended by it."""
    running.kill()
    running.start()
    assert running.apply(made(revision=2, alpha="stopped", beta="terminated")) == 2
    assert sshd.running() == {}
    assert [path.name for path in sshd.MACHINES.iterdir()] == [A]


def test_sshd_that_ends_is_started_again(running):
    """Twice; what is stopped while its sshd is down stays off."""
    for _ in range(2):
        before = sshd.running()[A]
        os.kill(before, signal.SIGKILL)
        eventually(lambda: sshd.running().get(A, before) != before)  # noqa: B023  # called in this round
        eventually(lambda: login(A) == "in")
    os.kill(sshd.running()[A], signal.SIGKILL)
    eventually(lambda: A not in sshd.running())
    assert running.apply(made(revision=2, alpha="stopped")) == 2
    time.sleep(0.5)
    assert sshd.running().keys() == {B}


def test_a_namespace_made_anew_gets_its_machine(running):
    """A machine in a namespace that lost its name is nobody's: the whole World, sent again, mends it."""
    before = sshd.running()
    running.fabric.apply(World())
    again = Fabric()
    again.apply(made())
    again.close()
    assert running.send(ipc.whole(made(revision=2))) == 2
    assert not set(sshd.running().values()) & set(before.values())
    assert login(A) == "in"


# -- names -------------------------------------------------------------------------------------------------------------


def test_names_resolve_when_acknowledged(running):
    """The API's and every endpoint's; the file is replaced as a whole, and so are the names of a deleted endpoint."""
    with (PLACE / "hosts").open() as before:
        names = {line.split()[1] for line in before}
        assert {"api.wicketgate.test", dns_name(ENDPOINT)} <= names
        for service in ("ec2", "iam", "sts", "ec2-instance-connect", "cloudtrail"):
            assert f"{service}.us-east-1.wicketgate.test" in names
        assert len([one for one in names if one.startswith(ENDPOINT)]) == 4
        without = msgspec.structs.replace(made(revision=2), endpoints=())
        assert running.apply(without) == 2
        before.seek(0)
        assert dns_name(ENDPOINT) in before.read(), "who reads goes on reading the old file"
    text = (PLACE / "hosts").read_text()
    assert "192.0.2.1 api.wicketgate.test\n" in text
    assert ENDPOINT not in text


# -- pushed keys -------------------------------------------------------------------------------------------------------


def with_key(before, *, instance_id=A, user="ec2-user", life=60.0, **how):
    """The World after SendSSHPublicKey, as if it had been called 60 s minus `life` ago."""
    public = OWN.with_suffix(".pub").read_text()
    given = {"InstanceId": instance_id, "InstanceOSUser": user, "SSHPublicKey": public, "now": time.time() + life - 60}
    return apply_change(before, SEND.run(call(before, **given, **how)).change)


class Files:
    """Pushed keys in files that the agent writes."""

    def __init__(self, fabric, _directory, _python):
        self.agent = Agent(fabric)
        self.apply = self.agent.apply

    def stop(self):
        """End it."""
        self.agent.stop()


class Command:
    """Pushed keys from metadata, by sshd's AuthorizedKeysCommand."""

    def __init__(self, fabric, directory, python):
        self.processes = Processes(directory, *python)
        (directory / "root.pem").write_bytes(SIGNER.root)
        self.agent = Agent(fabric, ssh_root=directory / "root.pem")
        self.ready = False

    def apply(self, wanted):
        """Have netd, metadata and the agent follow."""
        self.processes.apply(wanted)
        answered = self.agent.send(ipc.whole(wanted))
        if not self.ready:
            wait_ready(A)
            self.ready = True
        return answered

    def stop(self):
        """End all."""
        self.agent.stop()
        self.processes.stop()


MODES = [Files, Command] if sandbox.all_ids() else [Files]
"""Without root sshd takes no AuthorizedKeysCommand from anybody but the real root."""


@pytest.fixture(params=MODES, ids=lambda mode: mode.__name__.lower())
def pushing(request, fabric, tmp_path, interpreter):  # noqa: F811  # the fixture
    """All that it takes to log in with a pushed key."""
    started = request.param(fabric, tmp_path, interpreter)
    assert started.apply(made()) == 1
    yield started
    started.stop()
    sshd.end_all()
    for name in [path.name for path in sshd.MACHINES.iterdir()]:
        sshd.Machine(name).remove()


def test_a_pushed_key_opens_one_account_for_its_time(pushing):
    """At once, on its machine alone; not before, not when it is over; the lab's own key always."""
    assert "Permission denied" in login(A, key=OWN)
    assert pushing.apply(with_key(made(), life=4.0)) == 2
    assert login(A, key=OWN) == "in"
    assert "Permission denied" in login(B, key=OWN)
    assert login(A) == login(B) == "in"
    time.sleep(4.0)
    assert "Permission denied" in login(A, key=OWN)
    assert login(A) == "in"


@pytest.mark.parametrize("who", [{"user": "root"}, {"user": "admin"}, {"instance_id": B}, {"life": 0.5}])
def test_keys_for_others(pushing, who):
    """A key for another user, another instance, or one that is as good as over opens nothing."""
    assert pushing.apply(with_key(made(), **who)) == 2
    time.sleep(who.get("life", 0.0))
    assert "Permission denied" in login(A, key=OWN)


def test_a_key_ends_without_the_agent(pushing):
    """The agent's end lengthens no key's life; a new agent finds what was pushed meanwhile."""
    pushing.apply(with_key(made(), life=3.0))
    pushing.agent.kill()
    assert login(A, key=OWN) == "in"
    time.sleep(3.0)
    assert "Permission denied" in login(A, key=OWN)
    pushing.agent.start()
    assert pushing.apply(with_key(msgspec.structs.replace(made(), revision=2))) == 3
    assert login(A, key=OWN) == "in"


def test_files_hold_no_key_that_is_over(running):
    """They are tidied, and nothing gets into them that is no key."""
    file = sshd.Machine(A).directory / "pushed" / "ec2-user"
    assert running.apply(with_key(made(), life=1.5)) == 2
    assert file.read_text().startswith('expiry-time="')
    eventually(lambda: file.read_text() == "", 5.0)
    public = OWN.with_suffix(".pub").read_text().strip()
    for number, text in enumerate((f'command="true" {public}', f"{public}\n{public}", f"{public}\r{public}"), start=3):
        nasty = PushedKey(id="k", instance_id=A, os_user="ec2-user", public_key=text, expires=time.time() + 60)
        assert running.apply(msgspec.structs.replace(made(revision=number), pushed_keys=(nasty,))) == number
        assert file.read_text() == ""
