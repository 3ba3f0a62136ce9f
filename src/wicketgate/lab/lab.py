"""The lab: a topology brought up with the real processes, real sshd's and real clients. Runs inside a sandbox."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from wicketgate import pki
from wicketgate.daemon import GATEWAY_UID, Serve
from wicketgate.kernel import netns
from wicketgate.kernel.dial import IP_TRANSPARENT
from wicketgate.kernel.nftables import Nftables
from wicketgate.lab import machines, sandbox
from wicketgate.lab.enter import ENVIRONMENTS
from wicketgate.lab.machines import ACCOUNT, ROOT, Machine
from wicketgate.lab.topology import Topology, resource_id, rule
from wicketgate.model import Endpoint, Instance, NetworkInterface, SecurityGroup, World
from wicketgate.rules import TABLE


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
    _serve: Serve | None = None
    machines: dict[str, Machine] = field(default_factory=dict)
    """Instance id -> its sshd."""

    # -- life ----------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Bring everything up; returns when a login would work. Raises FabricError."""
        if not sandbox.inside():
            raise RuntimeError("the lab runs inside a sandbox only: python -m wicketgate.lab.sandbox -- ...")
        world = self.topology.world
        for path in (ROOT, ROOT / "home", machines.home()):
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o755)
        python, environment = machines.readable_python()
        machines.own_etc({endpoint.dns_name: self.topology.gateway_address for endpoint in world.endpoints})
        machines.internet(self.topology.gateway_address, self.topology.clients)
        authority = self._certificates()
        self._serve = Serve(
            world=world,
            directory=ROOT / "state",
            listeners=[self._listener()],
            certificate=authority.certificate,
            key=authority.key,
            workers=self.workers,
            python=python,
            environment=environment,
        )
        (ROOT / "state").mkdir(exist_ok=True)
        (ROOT / "state").chmod(0o755)
        self.serve.start()
        self._start_machines()
        ENVIRONMENTS.touch(mode=0o600)
        ENVIRONMENTS.write_text(json.dumps({user.name: self.environment(user.name) for user in world.users}))

    def stop(self) -> None:
        """End all processes. Namespaces stay until the sandbox ends."""
        if self._serve is not None:
            self._serve.stop()
        for machine in self.machines.values():
            machine.stop()

    def _certificates(self) -> pki.ServerFiles:
        names = [endpoint.dns_name for endpoint in self.topology.world.endpoints]
        files = pki.ensure(ROOT / "pki", names)
        pki.write_bundle(ROOT / "bundle.pem", files.ca)
        (ROOT / "pki").chmod(0o755)
        if sandbox.all_ids():
            os.chown(files.key, GATEWAY_UID, GATEWAY_UID)
        return files

    def _listener(self) -> socket.socket:
        with netns.entered("gateway"):
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self.topology.gateway_address, 443))
        listener.listen(1024)
        return listener

    def _start_machines(self) -> None:
        key = ROOT / "id_ed25519"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", key], check=True)
        public = key.with_suffix(".pub").read_text()
        for instance in self.topology.world.instances:
            machine = Machine(instance)
            machine.prepare(public)
            machine.start()
            self.machines[instance.id] = machine

    @property
    def serve(self) -> Serve:
        """The processes of a started lab."""
        assert self._serve is not None, "started"
        return self._serve

    # -- the World -----------------------------------------------------------------------------------------------------

    @property
    def world(self) -> World:
        """The World in force."""
        return self.serve.world

    def change(self, edit: Edit) -> World:
        """Apply an edit of the World; returns, with the new World, when kernel and gateway enforce it."""
        world = msgspec.structs.replace(edit(self.world), revision=self.world.revision + 1)
        self.serve.apply(world)
        return world

    def endpoint(self, vpc: str) -> Endpoint:
        """The endpoint of a VPC, by the VPC's name."""
        vpc_id = resource_id("vpc", vpc)
        return next(one for one in self.world.endpoints if self.world.vpc_of_subnet(one.subnet_id).id == vpc_id)

    def instance(self, vpc: str, name: str) -> Instance:
        """An instance by the names of its VPC and itself."""
        found = self.world.instance(resource_id("i", vpc, name))
        assert found is not None, f"{vpc}/{name}"
        return found

    def interface(self, owner: Instance | Endpoint) -> NetworkInterface:
        """The network interface of an instance or endpoint."""
        found = self.world.interface(owner.interface_id)
        assert found is not None, owner.id
        return found

    def address(self, vpc: str, name: str) -> str:
        """Private address of an instance."""
        return self.interface(self.instance(vpc, name)).private_ip_address

    # -- acting --------------------------------------------------------------------------------------------------------

    def environment(self, user: str) -> dict[str, str]:
        """Environment of a client program of a user: credentials, region, and whom to trust."""
        key = next(one for one in self.world.access_keys if one.user_name == user)
        keep = {
            name: os.environ[name] for name in ("PATH", "TERM", "LANG", "TMPDIR", sandbox.MARK) if name in os.environ
        }
        return {
            **keep,
            "HOME": str(ROOT / "home"),
            "AWS_ACCESS_KEY_ID": key.id,
            "AWS_SECRET_ACCESS_KEY": key.secret,
            "AWS_REGION": self.world.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "SSL_CERT_FILE": str(ROOT / "bundle.pem"),
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
        key = str(ROOT / "id_ed25519")
        options = ["-F", "none", "-i", key, *known.split(), "-o", "ConnectTimeout=15", "-o", f"ProxyCommand={proxied}"]
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
        machine = self.machines[self.instance(vpc, name).id]
        target = address or self.address(vpc, name)
        before = machine.log.stat().st_size
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
        logged = machine.log.read_bytes()[before:].decode(errors="replace")
        accepted = re.search(r"Accepted publickey for \S+ from (\S+) port", logged)
        return Login(done.returncode, done.stdout, done.stderr, accepted[1] if accepted else None)

    def connect(self, vpc: str, sender: str, address: str, port: int = 22, *, source: str | None = None) -> str:
        """Try a TCP connection from an instance, for a second: `connected`, `timed out` or the error.

        `source` forges the source address.
        """
        instance = self.instance(vpc, sender)
        with netns.entered(instance.id):
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
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


def wicketgate_command() -> list[str]:
    """How to start this package's command line with this interpreter."""
    script = Path(sys.executable).parent / "wicketgate"
    return [str(script)] if script.exists() else [sys.executable, "-m", "wicketgate.cli"]


# -- edits of a World --------------------------------------------------------------------------------------------------

Edit = Callable[[World], World]


def rules_set(
    vpc: str, group: str, *, inbound: Sequence[str] | None = None, outbound: Sequence[str] | None = None
) -> Edit:
    """An edit that replaces a group's rules in one or both directions, written as in the topology file."""
    group_id = resource_id("sg", vpc, group)

    def edited(one: SecurityGroup) -> SecurityGroup:
        if one.id != group_id:
            return one
        ins = one.inbound if inbound is None else tuple(rule(vpc, group, text, egress=False) for text in inbound)
        outs = one.outbound if outbound is None else tuple(rule(vpc, group, text, egress=True) for text in outbound)
        return msgspec.structs.replace(one, rules=ins + outs)

    return lambda world: msgspec.structs.replace(world, groups=tuple(edited(one) for one in world.groups))


def groups_set(vpc: str, name: str, groups: Sequence[str]) -> Edit:
    """An edit that replaces the groups of an instance's network interface."""
    instance_id = resource_id("i", vpc, name)
    group_ids = tuple(resource_id("sg", vpc, group) for group in groups)

    def edit(world: World) -> World:
        instance = world.instance(instance_id)
        assert instance is not None, name
        interfaces = tuple(
            msgspec.structs.replace(eni, group_ids=group_ids) if eni.id == instance.interface_id else eni
            for eni in world.interfaces
        )
        return msgspec.structs.replace(world, interfaces=interfaces)

    return edit


def edits(*several: Edit) -> Edit:
    """Several edits as one."""

    def edit(world: World) -> World:
        for one in several:
            world = one(world)
        return world

    return edit
