"""The lab: a topology brought up with the real processes, real sshd's and real clients. Runs inside a sandbox.

Its world is made, changed and put back by calls of the AWS APIs alone, from a client's place on its internet.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from wicketgate.configuration import Configuration
from wicketgate.daemon import Child, Companion, Serve
from wicketgate.kernel import netns
from wicketgate.kernel.dial import IP_TRANSPARENT
from wicketgate.kernel.nftables import Nftables
from wicketgate.lab import agent, machines, sandbox, sshd
from wicketgate.lab.enter import ENVIRONMENTS
from wicketgate.lab.machines import ACCOUNT, ROOT
from wicketgate.lab.topology import Topology
from wicketgate.model import Endpoint, FabricError, Instance, NetworkInterface, SecurityGroup, Vpc, World
from wicketgate.rules import TABLE

if TYPE_CHECKING:
    from wicketgate.lab.build import Builder
    from wicketgate.lab.edits import Edit

ROOT_CREDENTIAL: Final = ("AKIAWICKETGATELAB000", "lab/only/root/secret/that/builds/it/all0")
"""Of the account's root user, who builds the world. It is worth something inside the sandbox only."""
KEY: Final = ROOT / "id_ed25519"
"""The lab's own SSH key, which logs in everywhere without being pushed."""
BUILDER: Final = "root"
"""The user that `environment` knows beside those of the topology: the account's root user."""


@dataclass(frozen=True)
class Login:
    """What became of one ssh login."""

    exit_code: int
    stdout: str
    stderr: str
    source: str | None
    """The address in sshd's own log line "Accepted publickey ... from", when it accepted."""


@dataclass
class Lab:
    """One running lab. `start`, use, `stop`; the sandbox's end cleans up whatever is left."""

    topology: Topology
    workers: int = 1
    keys: dict[str, tuple[str, str]] = field(default_factory=dict)
    """User name -> id and secret of the access key."""
    _serve: Serve | None = None
    _builder: Builder | None = None
    _python: tuple[str, dict[str, str]] = ("", {})
    """The interpreter for processes of other ids, and their environment."""

    # -- life ----------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Bring everything up; returns when a login would work. Raises FabricError."""
        if not sandbox.inside():
            raise RuntimeError("the lab runs inside a sandbox only: python -m wicketgate.lab.sandbox -- ...")
        for path in (ROOT, ROOT / "home", machines.home(), machines.client_home()):
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o755)
        ssh = machines.client_home() / ".ssh"
        ssh.mkdir(mode=0o700)
        # Every machine is new, and its VPC may have the addresses of one that is gone: there is nothing to remember.
        (ssh / "config").write_text("StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n")
        self._python = machines.readable_python()
        machines.own_etc({})
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", KEY], check=True)
        machines.internet(self.topology.gateway_address, self.topology.clients)
        self.keys[BUILDER] = ROOT_CREDENTIAL
        with self._building() as build:  # it reads its libraries while the servers start
            self._serve = self._served(self._listener())
            self.serve.start()
            build()
        self._write_environments()

    def stop(self) -> None:
        """End all processes. Namespaces stay until the sandbox ends."""
        if self._serve is not None:
            self._serve.stop()
        sshd.end_all()

    def restart(self, **settings: object) -> None:
        """End the servers and start them again over the same state, with other settings than the topology's."""
        (listener,) = self.serve.listeners
        self.serve.stop()
        self._serve = self._served(listener, **settings)
        self.serve.start()

    def _served(self, listener: socket.socket, **settings: object) -> Serve:
        own = {"state_directory": str(ROOT / "state"), "workers": self.workers, "links_file": ""}
        given = msgspec.structs.asdict(self.topology.configuration)
        configuration = msgspec.convert({**given, **own, **settings}, Configuration)
        python, environment = self._python
        return Serve(
            configuration=configuration,
            listeners=[listener],
            python=python,
            environment=environment,
            root=ROOT_CREDENTIAL,
            companions=(self._agent(configuration),),
        )

    def _agent(self, configuration: Configuration) -> Companion:
        """What switches the machines on and off, and has all names resolve."""
        return agent.companion(
            domain=configuration.domain,
            gateway_address=self.topology.gateway_address,
            authorized_key=KEY.with_suffix(".pub").read_text(),
            ssh_root=ROOT / "state" / "ssh-root.pem",
        )

    def _listener(self) -> socket.socket:
        with netns.entered("gateway"):
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self.topology.gateway_address, 443))
        listener.listen(1024)
        return listener

    @contextmanager
    def _building(self) -> Iterator[Callable[[], None]]:
        """Start the builder at a client's place; the body gets a function that has it build, and takes its keys."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = self.popen(self.place, BUILDER, [sys.executable, "-m", "wicketgate.lab.build"], **pipes)

        def build() -> None:
            out, err = process.communicate(msgspec.json.encode({"topology": self.topology}))
            if process.returncode != 0:
                said = err.decode(errors="replace").strip().splitlines() or ["it said nothing"]
                raise FabricError(f"the world cannot be built: {said[-1]}")
            self.keys |= {user: (key["id"], key["secret"]) for user, key in json.loads(out).items()}

        try:
            yield build
        finally:
            process.kill()
            process.wait()

    def _write_environments(self) -> None:
        ENVIRONMENTS.touch(mode=0o600)
        ENVIRONMENTS.write_text(json.dumps({user: self.environment(user) for user in self.keys}))

    @property
    def serve(self) -> Serve:
        """The processes of a started lab."""
        assert self._serve is not None, "started"
        return self._serve

    @property
    def place(self) -> str:
        """The client from whose place the world is built and changed."""
        return next(iter(self.topology.clients))

    # -- the World -----------------------------------------------------------------------------------------------------

    @property
    def world(self) -> World:
        """The World in force."""
        return self.serve.world

    def change(self, edit: Edit) -> World:
        """Make an edit by API calls; returns, with the new World, when kernel and gateway enforce it."""
        with netns.entered(self.place):
            edit(self._connected())
        return self.world

    def restore(self) -> World:
        """Put back by API calls whatever differs from the topology; returns when it is in force."""
        builder = self._connected()
        with netns.entered(self.place):
            builder.build()
        self.keys |= {user: (key.id, key.secret) for user, key in builder.keys.items()}
        self._write_environments()
        return self.world

    def _connected(self) -> Builder:
        """This process's own administrator; boto3 is loaded when it is first needed."""
        from wicketgate.lab.build import AccessKey, Builder

        if self._builder is None:
            self._builder = Builder.connected(self.topology, self.environment(BUILDER))
            self._builder.keys = {user: AccessKey(*key) for user, key in self.keys.items() if user != BUILDER}
        return self._builder

    def vpc(self, name: str) -> Vpc:
        """A VPC by its Name tag."""
        return next(one for one in self.world.vpcs if one.tags.get("Name") == name)

    def endpoint(self, vpc: str) -> Endpoint:
        """The endpoint of a VPC, by the VPC's name."""
        vpc_id = self.vpc(vpc).id
        return next(one for one in self.world.endpoints if self.world.vpc_of_subnet(one.subnet_id).id == vpc_id)

    def instance(self, vpc: str, name: str) -> Instance:
        """An instance by the names of its VPC and itself."""
        there = {eni.id for eni in self.world.interfaces_of_vpc(self.vpc(vpc).id)}
        return next(one for one in self.world.instances if one.tags.get("Name") == name and one.interface_id in there)

    def group(self, vpc: str, name: str) -> SecurityGroup:
        """A security group by the names of its VPC and itself."""
        vpc_id = self.vpc(vpc).id
        return next(one for one in self.world.groups if (one.vpc_id, one.name) == (vpc_id, name))

    def interface(self, owner: Instance | Endpoint) -> NetworkInterface:
        """The network interface of an instance or endpoint."""
        found = self.world.interface(owner.interface_id)
        assert found is not None, owner.id
        return found

    def machine(self, vpc: str, name: str) -> sshd.Machine:
        """The machine of an instance: where its files are."""
        return sshd.Machine(self.instance(vpc, name).id)

    def child(self, name: str) -> Child:
        """One of the servers' processes by name, e.g. `netd`."""
        return next(one for one in self.serve.children if one.name == name)

    def address(self, vpc: str, name: str, *, ipv6: bool = False) -> str:
        """Private address of an instance: its IPv4 address, or its IPv6 address if it has no other or that is asked."""
        return _address_of(self.interface(self.instance(vpc, name)), ipv6=ipv6)

    def source(self, vpc: str, client: str = "office", *, ipv6: bool = False) -> str:
        """The address that instances of a VPC see: the client's with client IP preservation, else the endpoint's."""
        endpoint = self.endpoint(vpc)
        if endpoint.preserve_client_ip:
            return self.topology.clients[client]
        return _address_of(self.interface(endpoint), ipv6=ipv6)

    # -- acting --------------------------------------------------------------------------------------------------------

    def environment(self, user: str) -> dict[str, str]:
        """Environment of a user's AWS clients: where the APIs are, credentials, region, and whom to trust."""
        keep = {
            name: os.environ[name] for name in ("PATH", "TERM", "LANG", "TMPDIR", sandbox.MARK) if name in os.environ
        }
        key_id, secret = self.keys[user]
        bundle, region = str(ROOT / "state" / "bundle.pem"), self.topology.configuration.region
        return {
            **keep,
            "HOME": str(machines.client_home()),
            "AWS_ENDPOINT_URL": f"https://{self.topology.api_host}",
            "AWS_ACCESS_KEY_ID": key_id,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CA_BUNDLE": bundle,
            "SSL_CERT_FILE": bundle,
        }

    def tunnel_command(
        self, vpc: str, address: str, port: int = 22, *, aws: str | None = None, **options: str
    ) -> list[str]:
        """The open-tunnel command line to an address: ours, or the stock AWS CLI's (`aws`: its path)."""
        program = [aws, "ec2-instance-connect", "open-tunnel"] if aws else [*wicketgate_command(), "open-tunnel"]
        endpoint = self.endpoint(vpc)
        arguments = {
            "instance-connect-endpoint-id": endpoint.id,
            "instance-connect-endpoint-dns-name": endpoint.dns_name,
            "private-ip-address": address,
            "remote-port": str(port),
            **{name.replace("_", "-"): value for name, value in options.items()},
        }
        return [*program, *(part for name, value in arguments.items() for part in (f"--{name}", value))]

    def popen(self, client: str, user: str, command: Sequence[str], **options: object) -> subprocess.Popen[bytes]:
        """Start a program at a client's place in the network."""
        with netns.entered(client):
            return subprocess.Popen(command, env=self.environment(user), **options)  # type: ignore[call-overload,no-any-return]

    def ssh_command(self, proxy: Sequence[str], address: str) -> list[str]:
        """OpenSSH's command line through a ProxyCommand."""
        known = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o BatchMode=yes"
        proxied = " ".join(proxy)
        options = [
            "-F",
            "none",
            "-i",
            str(KEY),
            *known.split(),
            "-o",
            "ConnectTimeout=15",
            "-o",
            f"ProxyCommand={proxied}",
        ]
        return ["ssh", *options, f"{ACCOUNT}@{address}"]

    def login(
        self,
        vpc: str,
        name: str,
        *,
        user: str = "admin",
        client: str = "office",
        address: str | None = None,
        port: int = 22,
        command: str = "true",
        aws: str | None = None,
        **options: str,
    ) -> Login:
        """Log in to an instance through its VPC's endpoint with OpenSSH, and read what its sshd logged."""
        log = self.machine(vpc, name).log
        target = address or self.address(vpc, name)
        before = log.stat().st_size
        proxy = self.tunnel_command(vpc, target, port, aws=aws, **options)
        with netns.entered(client):
            done = subprocess.run(
                [*self.ssh_command(proxy, target), command],
                env=self.environment(user),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        logged = log.read_bytes()[before:].decode(errors="replace")
        accepted = re.search(r"Accepted publickey for \S+ from (\S+) port", logged)
        return Login(done.returncode, done.stdout, done.stderr, accepted[1] if accepted else None)

    def connect(self, vpc: str, sender: str, address: str, port: int = 22, *, source: str | None = None) -> str:
        """Try a TCP connection from an instance, for a second: `connected`, `timed out` or the error.

        `source` forges the source address, of IPv4.
        """
        instance = self.instance(vpc, sender)
        with netns.entered(instance.id):
            sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        with sock:
            sock.settimeout(1.0)
            try:
                if source is not None:
                    sock.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
                    sock.bind((source, 0))
                sock.connect((address, port))
            except TimeoutError:
                return "timed out"
            except OSError as error:
                return os.strerror(error.errno or 0)
            return "connected"

    def counters(self, namespace: str) -> dict[str, int]:
        """Packets of every named counter of our ruleset in a VPC's or endpoint's namespace."""
        nft = Nftables(namespace)
        try:
            return nft.counters(TABLE)
        finally:
            nft.close()

    def audit(self) -> list[dict[str, object]]:
        """Every line of the audit logs, in order of time within each worker."""
        files = [path for path in self.serve.audit_files if path.exists()]
        return [json.loads(line) for path in files for line in path.read_text().splitlines()]


def _address_of(interface: NetworkInterface, *, ipv6: bool) -> str:
    return interface.ipv6_addresses[0] if ipv6 else interface.addresses[0]


def wicketgate_command() -> list[str]:
    """How to start this package's command line with this interpreter."""
    script = Path(sys.executable).parent / "wicketgate"
    return [str(script)] if script.exists() else [sys.executable, "-m", "wicketgate.cli"]
