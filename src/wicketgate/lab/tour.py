"""The tour: every statement on groups and policies of an endpoint, in place and taken away, with real logins.

Each row says what is expected and what was seen. A login counts when OpenSSH logged in through the endpoint and the
instance's own sshd logged exactly the expected source address; a refusal when it was refused for the expected reason.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field

from wicketgate.lab.edits import Edit, edits, groups_set, key_deactivated, rules_set
from wicketgate.lab.lab import Lab
from wicketgate.lab.topology import Topology

HOME: dict[str, object] = {"client": "home", "max_tunnel_duration": "3599"}
"""The other client. A duration of its own makes a URL of its own: one that the first client used within the same second
with the same key is bound to that client's address (url_reuse)."""


@dataclass(frozen=True)
class Row:
    """One thing tried."""

    section: str
    what: str
    expected: str
    seen: str
    passed: bool

    def as_dict(self) -> dict[str, object]:
        """For `--json`."""
        return asdict(self)


@dataclass
class Tour:
    """Walks the rows over a running lab of the topology that ships with the package."""

    lab: Lab
    on_row: Callable[[Row], None] = lambda _row: None
    rows: list[Row] = field(default_factory=list)
    _section: str = ""

    def run(self) -> list[Row]:
        """Every section, each starting from the world of the topology file."""
        sections: dict[str, Callable[[], None]] = {
            "endpoint outbound": self.endpoint_outbound,
            "endpoint inbound": self.endpoint_inbound,
            "instance inbound, by group": self.inbound_by_group,
            "SSH from the endpoint only": self.endpoint_only,
            "instance inbound, by range": self.inbound_by_range,
            "stateful": self.stateful,
            "IPv6": self.both_families,
            "IAM": self.identity,
        }
        for name, section in sections.items():
            self._section = name
            section()
            self.lab.restore()
        return self.rows

    @property
    def plain(self) -> str:
        """What instances see of the office without client IP preservation: the endpoint's address."""
        return self.lab.source("plain")

    @property
    def kept(self) -> str:
        """What instances see of the office with client IP preservation: the client's address."""
        return self.lab.source("kept")

    # -- sections ------------------------------------------------------------------------------------------------------

    def endpoint_outbound(self) -> None:
        """The endpoint's group must allow outbound to the target: by group reference, or by IPv4 range."""
        for vpc, source, cidr in (("plain", self.plain, "10.0.0.0/16"), ("kept", self.kept, "10.1.0.0/16")):
            self.login(f"{vpc}: to group web, a member", vpc, "web-1", source)
            self.login(f"{vpc}: to group web, second member", vpc, "web-2", source)
            self.refused(f"{vpc}: to group web, member of db", vpc, "db-1", "no outbound rule of")
            self.refused(f"{vpc}: to group web, another port", vpc, "web-1", "no outbound rule of", port=3389)
            self.refused(f"{vpc}: closed-1 is no member of web", vpc, "closed-1", "no outbound rule of")
            with self.changed(groups_set(vpc, "closed-1", ["closed", "web"])):
                self.login(f"{vpc}: closed-1 joins web while running", vpc, "closed-1", source)
            self.refused(f"{vpc}: closed-1 leaves web again", vpc, "closed-1", "no outbound rule of")
            with self.changed(rules_set(vpc, "endpoint", outbound=[])):
                self.refused(f"{vpc}: rule taken away", vpc, "web-1", "no outbound rule of")
            with self.changed(rules_set(vpc, "endpoint", outbound=[f"tcp 22 to {cidr}"])):
                self.login(f"{vpc}: to the VPC's range {cidr}", vpc, "db-1", source)
            with self.changed(rules_set(vpc, "endpoint", outbound=["tcp 22 to 10.9.0.0/16"])):
                self.refused(f"{vpc}: to another range", vpc, "db-1", "no outbound rule of")

    def endpoint_inbound(self) -> None:
        """Traffic from the service into the endpoint is let in whatever the endpoint's inbound rules say."""
        for vpc, source in (("plain", self.plain), ("kept", self.kept)):
            for name, rules in (("empty", list[str]()), ("all open", ["all from 0.0.0.0/0"])):
                edit = edits(
                    rules_set(vpc, "endpoint", inbound=rules), rules_set(vpc, "web", outbound=["all to 0.0.0.0/0"])
                )
                with self.changed(edit):
                    self.login(f"{vpc}: inbound rules {name}", vpc, "web-1", source)
                    endpoint = self.lab.interface(self.lab.endpoint(vpc)).private_ip_address
                    what = f"{vpc}: inbound {name}, web-1 connects to the endpoint"
                    self.dropped(what, vpc, "web-1", endpoint, counter="to_endpoint")

    def inbound_by_group(self) -> None:
        """A reference to the endpoint's group works with client IP preservation off and on."""
        for vpc, source in (("plain", self.plain), ("kept", self.kept)):
            mode = "on" if vpc == "kept" else "off"
            self.login(f"preservation {mode}: from group endpoint", vpc, "web-1", source)
            with self.changed(rules_set(vpc, "web", inbound=[])):
                self.refused(f"preservation {mode}: rule taken away", vpc, "web-1", "no inbound rule of")
        self.login("preservation on: from group endpoint, another client", "kept", "web-1", "198.51.100.20", **HOME)

    def endpoint_only(self) -> None:
        """With no other rule for SSH, an instance accepts SSH from the endpoint only."""
        free = [
            rules_set(vpc, group, outbound=["all to 0.0.0.0/0"]) for vpc in ("plain", "kept") for group in ("web", "db")
        ]
        with self.changed(edits(*free)):
            for vpc, source in (("plain", self.plain), ("kept", self.kept)):
                target = self.lab.address(vpc, "web-1")
                self.login(f"{vpc}: through the endpoint", vpc, "web-1", source)
                self.dropped(f"{vpc}: a neighbour of the same group", vpc, "web-2", target, counter="rcv_stop_web-1")
                self.dropped(f"{vpc}: a host of the same range", vpc, "db-1", target, counter="rcv_stop_web-1")
                what = f"{vpc}: db-1 forges source {source}"
                self.dropped(what, vpc, "db-1", target, counter="forged_source", source=source)

    def inbound_by_range(self) -> None:
        """By range the endpoint's address counts when preservation is off, the client's when it is on."""
        vpc_range, client_range = "tcp 22 from 10.0.0.0/16", "tcp 22 from 203.0.113.0/24"
        with self.changed(rules_set("plain", "web", inbound=[vpc_range])):
            self.login("off: from the VPC's range", "plain", "web-1", self.plain)
            self.login("off: from the VPC's range, any client", "plain", "web-1", self.plain, **HOME)
        with self.changed(rules_set("plain", "web", inbound=[client_range])):
            self.refused("off: from the client's range (cross case)", "plain", "web-1", "no inbound rule of")
        with self.changed(rules_set("kept", "web", inbound=[client_range])):
            self.login("on: from the client's range, client inside", "kept", "web-1", "203.0.113.10")
            self.refused("on: from the client's range, client outside", "kept", "web-1", "no inbound rule of", **HOME)
        with self.changed(rules_set("kept", "web", inbound=["tcp 22 from 10.1.0.0/16"])):
            self.refused("on: from the VPC's range (cross case)", "kept", "web-1", "no inbound rule of")

    def stateful(self) -> None:
        """Replies leave whatever the outbound rules say; a connection of the instance's own does not."""
        for vpc, source in (("plain", self.plain), ("kept", self.kept)):
            with self.changed(rules_set(vpc, "web", inbound=["tcp 22 from 0.0.0.0/0"], outbound=[])):
                self.login(f"{vpc}: no outbound rule, replies leave", vpc, "web-1", source)
                target = self.lab.address(vpc, "web-2")
                what = f"{vpc}: no outbound rule, own connection"
                self.dropped(what, vpc, "web-1", target, counter="snd_stop_web-1")
            opened = rules_set(vpc, "web", inbound=["tcp 22 from 0.0.0.0/0"], outbound=["tcp 22 to 0.0.0.0/0"])
            with self.changed(opened):
                self.connected(f"{vpc}: outbound rule, own connection", vpc, "web-1", target)

    def both_families(self) -> None:
        """A dual-stack endpoint reaches both families, each judged by the rules for it; groups count in both."""
        four, six = self.lab.source("dual"), self.lab.source("dual", ipv6=True)
        target = {"address": self.lab.address("dual", "web-1", ipv6=True)}
        member_of_db = {"address": self.lab.address("dual", "db-1", ipv6=True)}
        self.login("reached over IPv6 through the dual-stack endpoint", "dual", "web-1", six, **target)
        self.login("the same machine over IPv4", "dual", "web-1", four)
        self.login("an IPv6-only machine", "dual", "six-1", six)
        self.refused("over IPv6 to a member of db", "dual", "db-1", "no outbound rule of", **member_of_db)
        with self.changed(rules_set("dual", "web", inbound=["tcp 22 from 10.2.0.0/16"])):
            self.refused("inbound from the IPv4 range, over IPv6", "dual", "web-1", "no inbound rule of", **target)
        with self.changed(rules_set("dual", "web", inbound=["tcp 22 from fd10:2::/56"])):
            self.login("inbound from the IPv6 range, over IPv6", "dual", "web-1", six, **target)
            self.refused("inbound from the IPv6 range, over IPv4", "dual", "web-1", "no inbound rule of")
        with self.changed(rules_set("dual", "endpoint", outbound=["tcp 22 to ::/0"])):
            self.login("outbound to ::/0, over IPv6", "dual", "web-1", six, **target)
            self.refused("outbound to ::/0, over IPv4", "dual", "web-1", "no outbound rule of")

    def identity(self) -> None:
        """IAM controls who may use an endpoint; when it refuses, no packet leaves the endpoint or comes to it."""
        short: dict[str, object] = {"max_tunnel_duration": "600"}
        with self.changed(rules_set("plain", "endpoint", outbound=["tcp 22 to 10.0.0.0/16"])):
            self.login("operator, all conditions met", "plain", "web-1", self.plain, **{"user": "operator", **short})
            denied = "is not authorized to perform: ec2-instance-connect:OpenTunnel"
            cases: list[tuple[str, str, str, dict[str, object]]] = [
                ("nobody: no policy allows the action", "plain", "web-1", {"user": "nobody", **short}),
                ("operator, endpoint: another one", "kept", "web-1", {**short, "address": "10.1.1.11"}),
                ("operator, port: 3389", "plain", "web-1", {**short, "port": 3389}),
                ("operator, address: outside 10.0.1.10/31", "plain", "db-1", short),
                ("operator, duration: 900 s", "plain", "web-1", {"max_tunnel_duration": "900"}),
                ("operator, duration: omitted counts as 3600 s", "plain", "web-1", {}),
                ("operator, source address: outside 203.0.113.0/24", "plain", "web-1", {**short, "client": "home"}),
            ]
            for what, vpc, name, options in cases:
                self.silent(what, vpc, name, denied, **{"user": "operator", **options})
        self.outlives()

    def outlives(self) -> None:
        """A tunnel goes on when its key is deactivated; a new one is not opened."""
        lab = self.lab
        target = lab.address("plain", "web-1")
        proxy = lab.tunnel_command("plain", target)
        command = [*lab.ssh_command(proxy, target), "cat"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        ssh = lab.popen("office", "admin", command, **pipes)
        assert ssh.stdin is not None
        assert ssh.stdout is not None

        def echo(line: bytes) -> bytes:
            assert ssh.stdin is not None
            assert ssh.stdout is not None
            with suppress(BrokenPipeError):  # it was refused, or has ended: the row will say so
                ssh.stdin.write(line)
                ssh.stdin.flush()
            return ssh.stdout.readline()

        before = echo(b"before\n")
        with self.changed(key_deactivated("admin")):
            after = echo(b"after\n")
            seen = f"{before.decode().strip()}, {after.decode().strip()}"
            self._row("an open tunnel outlives its deactivated key", "before, after", seen, seen == "before, after")
            self.refused("a new tunnel with the deactivated key", "plain", "web-1", "security token")
        with suppress(BrokenPipeError):
            ssh.stdin.close()
        ssh.wait(20)

    # -- one row -------------------------------------------------------------------------------------------------------

    @contextmanager
    def changed(self, edit: Edit) -> Iterator[None]:
        """The body under an edited world; the topology's is put back afterwards."""
        self.lab.change(edit)
        try:
            yield
        finally:
            self.lab.restore()

    def login(self, what: str, vpc: str, name: str, source: str, **options: object) -> None:
        """Expect a login whose sshd logs `source`."""
        done = self.lab.login(vpc, name, **options)  # type: ignore[arg-type]
        seen = f"login from {done.source}" if done.exit_code == 0 else f"refused: {_words(done.stderr)}"
        self._row(what, f"login from {source}", seen, seen == f"login from {source}")

    def refused(self, what: str, vpc: str, name: str, reason: str, **options: object) -> None:
        """Expect a refusal whose words contain `reason`, and nothing accepted by sshd."""
        done = self.lab.login(vpc, name, **options)  # type: ignore[arg-type]
        seen = f"refused: {_words(done.stderr)}" if done.source is None else f"login from {done.source}"
        passed = done.source is None and done.exit_code != 0 and reason in _words(done.stderr)
        self._row(what, f"refused: {reason}", seen, passed)

    def silent(self, what: str, vpc: str, name: str, reason: str, **options: object) -> None:
        """Expect a refusal, and that no IP packet of the endpoint's interface was counted."""
        link = self.lab.interface(self.lab.endpoint(vpc)).link
        vpc_id = self.lab.vpc(vpc).id

        def packets() -> int:
            counters = self.lab.counters(vpc_id)
            return counters[f"from_{link}"] + counters[f"to_{link}"]

        self._quiet(packets)
        before = packets()
        done = self.lab.login(vpc, name, **options)  # type: ignore[arg-type]
        counted = packets() - before
        seen = f"refused: {_words(done.stderr)}" if done.source is None else f"login from {done.source}"
        passed = done.source is None and reason in _words(done.stderr) and counted == 0
        self._row(what, f"refused: {reason}; 0 packets", f"{seen}; {counted} packets", passed)

    def _quiet(self, packets: Callable[[], int], seconds: float = 5.0) -> None:
        """Wait until earlier tunnels have said goodbye: all have their close lines, and the counters stand still."""
        deadline = time.monotonic() + seconds
        before = -1
        while time.monotonic() < deadline:
            lines = [(line["eventName"], line["requestID"]) for line in self.lab.audit() if "errorCode" not in line]
            opened = {request for event, request in lines if event == "OpenTunnel"}
            closed = {line["requestID"] for line in self.lab.audit() if line["eventName"] == "CloseTunnel"}
            now = packets()
            if opened <= closed and now == before:
                return
            before = now
            time.sleep(0.05)

    def dropped(
        self, what: str, vpc: str, sender: str, address: str, *, counter: str, source: str | None = None
    ) -> None:
        """Expect an instance's own connection to vanish, and the named counter to have counted it.

        `counter` has an instance's name in the place of its link's.
        """
        kind, _, name = counter.rpartition("_stop_")
        kernels = f"{kind}_stop_{self.lab.interface(self.lab.instance(vpc, name)).link}" if kind else counter
        before = self.lab.counters(self.lab.vpc(vpc).id)[kernels]
        outcome = self.lab.connect(vpc, sender, address, source=source)
        counted = self.lab.counters(self.lab.vpc(vpc).id)[kernels] - before
        seen = f"{outcome}, {'counted' if counted else 'not counted'} by {counter}"
        self._row(what, f"timed out, counted by {counter}", seen, outcome == "timed out" and counted > 0)

    def connected(self, what: str, vpc: str, sender: str, address: str) -> None:
        """Expect an instance's own connection to come about."""
        seen = self.lab.connect(vpc, sender, address)
        self._row(what, "connected", seen, seen == "connected")

    def _row(self, what: str, expected: str, seen: str, passed: bool) -> None:
        row = Row(self._section, what, expected, seen, passed)
        self.rows.append(row)
        self.on_row(row)


def missing_for_tour(topology: Topology) -> str:
    """What a topology lacks of the names that the tour speaks of; empty when it has them all."""
    machines = {
        **dict.fromkeys(("plain", "kept"), ("web-1", "web-2", "db-1", "closed-1")),
        "dual": ("web-1", "six-1", "db-1"),
    }
    vpcs = {name: topology.vpc(name) for name in machines}
    users = {user.name for user in topology.users}
    instances = {(name, one.name) for name, vpc in vpcs.items() for one in (vpc.instances if vpc else ())}
    groups = {(name, one.name) for name, vpc in vpcs.items() for one in (vpc.groups if vpc else ())}
    wanted = {
        **{f"the client {name}": name in topology.clients for name in ("office", "home")},
        **{f"the user {name}": name in users for name in ("admin", "operator", "nobody")},
        **{
            f"the instance {name} in VPC {vpc}": (vpc, name) in instances
            for vpc, names in machines.items()
            for name in names
        },
        **{
            f"the group {name} in VPC {vpc}": (vpc, name) in groups
            for vpc in vpcs
            for name in ("endpoint", "web", "db", *(() if vpc == "dual" else ("closed",)))
        },
    }
    return ", ".join(what for what, there in wanted.items() if not there)


def _words(stderr: str) -> str:
    """The line that says why, of what ssh and its ProxyCommand printed."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    told = [line for line in lines if "Closure Reason" in line or "ErrorCode" in line or "Exception" in line]
    return (
        (told or lines or ["(nothing was said)"])[0]
        .removeprefix("wicketgate: ")
        .removeprefix("Websocket Closure Reason: ")
    )
