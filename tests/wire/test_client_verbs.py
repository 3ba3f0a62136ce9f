"""`ssh`, `open-tunnel --instance-id`, `proxy` and `ssh-config` as processes: real API formats, gateway and sshd."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.wire.api_harness import ApiServer
from tests.wire.gateway_harness import ENDPOINT, SECRET, TARGET, GatewayProcess, make_world
from wicketgate import pki
from wicketgate.api import Reply
from wicketgate.model import Instance, World

INSTANCE = "i-0123456789abcdef0"
TIMEOUT = 30
ME = pwd.getpwuid(os.geteuid()).pw_name


class LocalGateway(GatewayProcess):
    """A gateway whose certificate is for `localhost`, which every machine resolves."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.files = pki.ensure(directory / "pki-localhost", ["localhost"])


class Sshd:
    """A real sshd for this user's account, whose accepted keys are what the API was pushed."""

    def __init__(self, directory: Path) -> None:
        self.keys = directory / "authorized_keys"
        self.keys.touch()
        self.log = directory / "sshd.log"
        host_key = directory / "host_key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host_key)], check=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        settings = {
            "ListenAddress": f"127.0.0.1:{self.port}",
            "HostKey": host_key,
            "PidFile": "none",
            "AuthorizedKeysFile": self.keys,
            "StrictModes": "no",
            "UsePAM": "no",
            "PermitRootLogin": "yes",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "Subsystem": "sftp internal-sftp",
        }
        config = directory / "sshd_config"
        config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
        assert sshd, "sshd is missing (Debian package openssh-server)"
        argv = [sshd, "-D", "-e", "-f", str(config)]
        if os.geteuid() == 0:  # as root it insists on a directory that its service makes
            argv = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /run && mkdir /run/sshd && exec "$@"', "-", *argv]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + TIMEOUT
        while b"Server listening" not in self.log.read_bytes():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def accept(self, world: World) -> None:
        """Accept the keys that a World holds, as an instance does while they live."""
        lines = [f"{key.public_key}\n" for key in world.pushed_keys if key.os_user == ME]
        self.keys.write_text("".join(lines))

    def close(self) -> None:
        """Stop."""
        self.process.terminate()
        self.process.wait()


class Place:
    """All that a client meets, and its own home."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.gateway = LocalGateway(directory)
        self.gateway.start(make_world(dns_name="localhost"))
        self.sshd = Sshd(directory)
        self.api = ApiServer(directory, self.world())
        self.api.on_change = self.sshd.accept
        bundle = directory / "both.pem"
        bundle.write_bytes(self.gateway.files.ca.read_bytes() + self.api.files.ca.read_bytes())
        self.home = directory / "home"
        self.home.mkdir()
        self.known_hosts = self.home / "known_hosts"
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SSL_", "SSH_"))
        } | {
            "HOME": str(self.home),
            "TMPDIR": str(self.home),
            "AWS_ACCESS_KEY_ID": "AKIAALL",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_CA_BUNDLE": str(bundle),
            "AWS_ENDPOINT_URL": self.api.url,
        }

    def world(self) -> World:
        """The API's World: the gateway's, with the port of the gateway in the endpoint's name."""
        world = make_world(dns_name=f"localhost:{self.gateway.port}")
        return msgspec.structs.replace(world, instances=(Instance(id=INSTANCE, interface_id="eni-t"),))

    def reset(self) -> None:
        """As at the start."""
        self.api.world = self.world()
        self.api.calls.clear()
        self.api.override = lambda action: None
        self.api.hang_up = False
        self.sshd.accept(self.api.world)

    def run(self, *argv: str, **more: str) -> subprocess.CompletedProcess[str]:
        """A command to its end, with empty input."""
        return subprocess.run(
            argv,
            env=self.environment | more,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )

    def wicketgate(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """One of our verbs to its end."""
        return self.run(sys.executable, "-m", "wicketgate.cli", *words, **more)

    def ssh_options(self) -> list[str]:
        """Where host keys go, so that no file of the machine is read or written."""
        return [
            "-o",
            f"UserKnownHostsFile={self.known_hosts}",
            "-o",
            "StrictHostKeyChecking=accept-new",
            "-o",
            "HashKnownHosts=no",
        ]

    def close(self) -> None:
        """Stop everything."""
        self.api.close()
        self.sshd.close()
        self.gateway.close()


@pytest.fixture(scope="module")
def shared_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One for all tests of this file."""
    made = Place(tmp_path_factory.mktemp("place"))
    yield made
    made.close()


@pytest.fixture
def place(shared_place: Place) -> Place:
    """The same, as at the start."""
    shared_place.reset()
    return shared_place


def test_ssh_logs_in_with_a_key_of_its_own(place: Place) -> None:
    """Describe, Describe, push, login: output and exit code are the command's, and no key is left behind."""
    done = place.wicketgate(
        "ssh", "--ssh-port", str(place.sshd.port), f"{ME}@{INSTANCE}", *place.ssh_options(), "--", "echo hi; exit 7"
    )
    assert (done.stdout, done.returncode) == ("hi\n", 7), done.stderr + place.sshd.log.read_text()
    assert [action for action, _ in place.api.calls] == [
        "DescribeInstances",
        "DescribeInstanceConnectEndpoints",
        "SendSSHPublicKey",
    ]
    pushed = place.api.calls[-1][1]
    assert (pushed["InstanceId"], pushed["InstanceOSUser"]) == (INSTANCE, ME)
    assert pushed["SSHPublicKey"].startswith("ssh-ed25519 ")
    assert list(place.home.glob("wicketgate-ssh-*")) == []
    assert place.known_hosts.read_text().startswith(f"{INSTANCE} ssh-ed25519 ")


def test_ssh_options_and_ports_are_sshs_own(place: Place) -> None:
    """`-p` behind the instance goes to ssh and through it to the tunnel; a command needs no `--`."""
    done = place.wicketgate(
        "ssh", "--os-user", ME, INSTANCE, *place.ssh_options(), "-p", str(place.sshd.port), "echo", "over"
    )
    assert (done.stdout, done.returncode) == ("over\n", 0), done.stderr


def test_ssh_with_a_key_that_the_instance_knows_pushes_none(place: Place) -> None:
    """`--private-key-file`, with the AWS CLI's options; behind `--` all words are ssh's."""
    key = place.home / "mine"
    if not key.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    place.sshd.keys.write_text(key.with_suffix(".pub").read_text())
    done = place.wicketgate(
        *("ssh", "--private-key-file", str(key), "--ssh-port", str(place.sshd.port), "--instance-id", INSTANCE),
        *("--eice-options", f"endpointId={ENDPOINT},maxTunnelDuration=60", "--os-user", ME),
        *("--", *place.ssh_options(), "echo", "mine"),
    )
    assert (done.stdout, done.returncode) == ("mine\n", 0), done.stderr
    assert [action for action, _ in place.api.calls] == ["DescribeInstances", "DescribeInstanceConnectEndpoints"]
    assert place.api.calls[1][1]["InstanceConnectEndpointIds"] == [ENDPOINT]


def test_ssh_that_is_told_to_stop_leaves_no_key_behind(place: Place) -> None:
    """SIGTERM to us ends ssh; the key that was made for it is removed."""
    words = ("--ssh-port", str(place.sshd.port), f"{ME}@{INSTANCE}", *place.ssh_options(), "echo up; exec sleep 60")
    argv = [sys.executable, "-m", "wicketgate.cli", "ssh", *words]
    with subprocess.Popen(argv, env=place.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        assert len(list(place.home.glob("wicketgate-ssh-*"))) == 1
        process.terminate()
        assert process.wait(TIMEOUT) == 255 or process.returncode == 128 + signal.SIGTERM
    assert list(place.home.glob("wicketgate-ssh-*")) == []


def test_ssh_fails_with_awss_words_before_ssh_starts(place: Place) -> None:
    """An instance that is not there, a user who may not: one line, code and request id in it, exit 255."""
    missing = place.wicketgate("ssh", "i-00000000000000000")
    assert missing.returncode == 255
    assert missing.stderr.startswith(
        "wicketgate: DescribeInstances: InvalidInstanceID.NotFound: "
        "The instance ID 'i-00000000000000000' does not exist (request id "
    )
    assert missing.stderr.count("\n") == 1
    refused = place.wicketgate("ssh", INSTANCE, AWS_SECRET_ACCESS_KEY="wrong")
    assert "SignatureDoesNotMatch: The request signature we calculated does not match" in refused.stderr
    body = b'{"__type":"AccessDeniedException","Message":"User: x is not\\nauthorized"}'
    place.api.override = lambda action: Reply(403, (), body) if action == "SendSSHPublicKey" else None
    denied = place.wicketgate("ssh", INSTANCE)
    assert denied.stderr == "wicketgate: SendSSHPublicKey: AccessDeniedException: User: x is not authorized\n"
    assert list(place.home.glob("wicketgate-ssh-*")) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "is no instance's id"),
        (("web-1",), "web-1 is no instance's id"),
        (("--os-user", "a", f"b@{INSTANCE}"), "name two users"),
        ((f"a;b@{INSTANCE}",), "'a;b' is no user's name"),
        ((INSTANCE, "-v", "-l", "root"), "ssh's -l comes too late"),
        (("--eice-options", "x=1", INSTANCE), "expected NAME=VALUE with endpointId, dnsName, maxTunnelDuration"),
        (("--eice-options", "dnsName=x", INSTANCE), "you must specify endpointId"),
    ],
)
def test_ssh_names_what_is_wrong_with_its_words(place: Place, words: tuple[str, ...], message: str) -> None:
    """Exit 252, as the AWS CLI, and nothing is asked of anybody."""
    done = place.wicketgate("ssh", *words)
    assert done.returncode == 252
    assert message in done.stderr
    assert place.api.calls == []


def test_open_tunnel_finds_address_and_endpoint_of_an_instance(place: Place) -> None:
    """`--instance-id` alone: what arrives is the greeting of the instance's sshd."""
    done = place.wicketgate("open-tunnel", "--instance-id", INSTANCE, "--remote-port", str(place.sshd.port))
    assert done.stdout.startswith("SSH-2.0-OpenSSH"), done.stderr
    states = place.api.calls[1][1]["Filters"][0]
    assert states["Name"] == "state"
    assert set(states["Values"]) == {"create-complete", "update-in-progress", "update-complete", "update-failed"}


def test_open_tunnel_finds_an_endpoints_name(place: Place) -> None:
    """An address and an endpoint's id: only the endpoint is looked up."""
    options = ("--private-ip-address", TARGET, "--instance-connect-endpoint-id", ENDPOINT)
    done = place.wicketgate("open-tunnel", *options, "--remote-port", str(place.sshd.port))
    assert done.stdout.startswith("SSH-2.0-OpenSSH"), done.stderr
    assert [action for action, _ in place.api.calls] == ["DescribeInstanceConnectEndpoints"]


def test_open_tunnel_says_that_there_is_no_endpoint(place: Place) -> None:
    """An endpoint whose state admits no tunnel counts as none."""
    (endpoint,) = place.api.world.endpoints
    gone = msgspec.structs.replace(endpoint, state="delete-in-progress")
    place.api.world = msgspec.structs.replace(place.api.world, endpoints=(gone,))
    done = place.wicketgate("open-tunnel", "--instance-id", INSTANCE)
    assert done.stderr == "wicketgate: There are no available instance connect endpoints in vpc-1.\n"
    assert done.returncode == 255


def test_open_tunnel_without_a_url_says_how_to_give_one(place: Place) -> None:
    """There is no default: keys made here are shown to nobody else."""
    done = place.wicketgate("open-tunnel", "--instance-id", INSTANCE, AWS_ENDPOINT_URL="")
    assert "No URL of the APIs: set AWS_ENDPOINT_URL" in done.stderr
    assert done.returncode == 253


def test_an_untrusted_api_gets_no_request(place: Place) -> None:
    """A certificate of another CA: one line that names the ways to trust it."""
    done = place.wicketgate("ssh", INSTANCE, AWS_CA_BUNDLE=str(place.gateway.files.ca))
    assert "The certificate of localhost is not trusted" in done.stderr
    assert place.api.calls == []


def test_an_answer_of_something_else_is_no_traceback(place: Place) -> None:
    """HTML in the place of the API: one line with its beginning."""
    place.api.override = lambda action: Reply(200, (), b"<html>\x1b[2J hello")
    done = place.wicketgate("ssh", INSTANCE)
    assert done.stderr.startswith("wicketgate: DescribeInstances: the answer (HTTP 200) is not one of the AWS API")
    assert "\x1b" not in done.stderr


def test_a_connection_that_the_api_let_go_of_is_made_anew(place: Place) -> None:
    """Between two calls: nobody notices."""
    place.api.hang_up = True
    done = place.wicketgate("open-tunnel", "--instance-id", INSTANCE, "--remote-port", str(place.sshd.port))
    assert done.stdout.startswith("SSH-2.0-OpenSSH"), done.stderr


def test_an_api_that_is_not_there_is_one_line(place: Place) -> None:
    """Nobody listens on the port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    done = place.wicketgate("ssh", "--endpoint-url", f"https://localhost:{port}", INSTANCE)
    assert done.stderr == f"wicketgate: Cannot reach localhost:{port}: Connection refused.\n"
    assert done.returncode == 255


def stanza_of(place: Place) -> Path:
    """A configuration file with what `ssh-config` prints."""
    made = place.wicketgate("ssh-config", "--os-user", ME, "--key", str(place.home / "key with space"))
    assert made.returncode == 0, made.stderr
    config = place.home / "ssh_config"
    more = {"Port": place.sshd.port, "UserKnownHostsFile": place.known_hosts, "StrictHostKeyChecking": "accept-new"}
    config.write_text(made.stdout + "".join(f"    {name} {value}\n" for name, value in more.items()))
    return config


def test_plain_ssh_and_scp_work_with_the_stanza(place: Place) -> None:
    """Each connection pushes the key anew and opens its tunnel; nothing but ssh's own words are needed."""
    config = stanza_of(place)
    shown = place.run("ssh", "-F", str(config), INSTANCE, "echo plain")
    assert shown.stdout == "plain\n", shown.stderr
    assert [action for action, _ in place.api.calls][-1] == "SendSSHPublicKey"
    place.sshd.keys.write_text("")
    source = place.home / "file"
    source.write_bytes(os.urandom(200_000))
    copied = place.run("scp", "-F", str(config), str(source), f"{INSTANCE}:{place.home}/copy")
    assert copied.returncode == 0, copied.stderr
    assert (place.home / "copy").read_bytes() == source.read_bytes()


def test_the_stanza_makes_its_key_once(place: Place) -> None:
    """A second stanza is for the same key; the private half is nobody else's to read."""
    key = place.home / "once"
    first = place.wicketgate("ssh-config", "--key", str(key), "--profile", "dev", "--host", "*.wg")
    content = key.read_text()
    second = place.wicketgate("ssh-config", "--key", str(key), "--profile", "dev", "--host", "*.wg")
    assert first.stdout == second.stdout
    assert first.stderr == f"wicketgate: made the key {key}\n"
    assert key.read_text() == content
    assert key.stat().st_mode & 0o077 == 0
    assert first.stdout.startswith(f'Host *.wg\n    User ec2-user\n    IdentityFile "{key}"\n')
    assert f"proxy --key {key} --profile dev -- '%h' '%p' '%r'\n" in first.stdout


def test_a_proxy_without_its_key_says_where_it_comes_from(place: Place) -> None:
    """The stanza of another machine, for example."""
    done = place.wicketgate("proxy", "--key", "/nowhere/key", INSTANCE, "22", ME)
    assert done.stderr == "wicketgate: There is no key /nowhere/key: `wicketgate ssh-config` makes it.\n"
    assert done.returncode == 253
