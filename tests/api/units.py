"""The units of a host as systemd would start them: sockets made first, passed by LISTEN_FDS, each with its own user.

This is no systemd: it restarts nothing and confines nothing beyond the user. What it shares with systemd is what
sd_listen_fds(3), systemd.socket(5) and LoadCredential= (systemd.exec(5)) say.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.api.deployment import ACCOUNT, API, DOMAIN, REGION, ROOT, client_of, readable
from wicketgate.lab import sandbox

RUN = Path("/run/wicketgate")
USERS = {"wicketgate-api": 64921, "wicketgate-gateway": 64922, "wicketgate-metadata": 64923}
OWNERS = {"netd": "root", "api": "wicketgate-api", "gateway": "wicketgate-gateway", "metadata": "wicketgate-metadata"}
SOCKETS = {
    "calls": ("api", "api.sock", socket.SOCK_STREAM, "wicketgate-gateway", 0o600),
    "feed": ("api", "feed.sock", socket.SOCK_STREAM, "root", 0o666),
    "dial": ("netd", "dial.sock", socket.SOCK_SEQPACKET, "wicketgate-gateway", 0o600),
    "listen": ("netd", "listen.sock", socket.SOCK_SEQPACKET, "wicketgate-metadata", 0o600),
}
"""FileDescriptorName: unit, name below RUN, kind, owner, mode."""

EXECUTE = """
import os, sys
user, numbers, *command = sys.argv[1:]
passed = [int(number) for number in numbers.split(",") if number]
for index, number in enumerate(passed):  # high first: one of them may have a number that another one needs
    os.dup2(number, 200 + index, False)
for number in passed:
    os.close(number)
for index in range(len(passed)):
    os.dup2(200 + index, 3 + index)
os.environ["LISTEN_PID"] = str(os.getpid())
if int(user):
    os.setgroups([])
    os.setresgid(int(user), int(user), int(user))
    os.setresuid(int(user), int(user), int(user))
os.execv(command[0], command)
"""


def identity(user):
    """The id of a user, and of its group."""
    return USERS.get(user, 0)


class Units:
    """The sockets and processes of one host."""

    def __init__(self, state):
        assert sandbox.all_ids(), "units have users of their own: only root has ids to give them"
        self.state = state
        self.python, environment = readable()
        self.environment = {**environment, "WICKETGATE_CONFIG": str(state / "wicketgate.toml")}
        self.processes = {}
        self.notified = {}
        self.listening = {}
        self._install()
        self._listen()

    def _install(self):
        """Users, directories, settings and the root credential, as `wicketgate.units` says they have to be."""
        for file, line in (("/etc/passwd", "{0}:x:{1}:{1}::/:/bin/false\n"), ("/etc/group", "{0}:x:{1}:\n")):
            text = Path(file).read_text()
            Path(file).write_text(text + "".join(line.format(*one) for one in USERS.items() if one[0] not in text))
        for name, user, group, mode in (
            ("", "root", "root", 0o755),
            ("netd", "root", "root", 0o700),
            ("store", "wicketgate-api", "wicketgate-api", 0o700),
            ("audit", "root", "root", 0o755),
            ("audit/api", "wicketgate-api", "wicketgate-api", 0o700),
            ("audit/gateway", "wicketgate-gateway", "wicketgate-api", 0o2750),
            ("public", "wicketgate-api", "wicketgate-api", 0o755),
            ("credentials", "wicketgate-api", "wicketgate-api", 0o500),
            ("logs", "root", "root", 0o700),
        ):
            path = self.state / name
            path.mkdir(parents=True, exist_ok=True)
            os.chown(path, identity(user), identity(group))
            path.chmod(mode)
        (self.state / "wicketgate.toml").write_text(
            f'state_directory = "{self.state}"\ndomain = "{DOMAIN}"\naccount_id = "{ACCOUNT}"\nregion = "{REGION}"\n'
        )
        credential = self.state / "credentials" / "root-credential"
        credential.write_text(f"[default]\naws_access_key_id = {ROOT[0]}\naws_secret_access_key = {ROOT[1]}\n")
        credential.chmod(0o400)
        os.chown(credential, identity("wicketgate-api"), 0)

    def _listen(self):
        shutil.rmtree(RUN, ignore_errors=True)
        RUN.mkdir(mode=0o755)
        for name, (_, file, kind, user, mode) in SOCKETS.items():
            sock = socket.socket(socket.AF_UNIX, kind)
            sock.bind(str(RUN / file))
            os.chown(RUN / file, identity(user), identity(user))
            (RUN / file).chmod(mode)
            sock.listen(4096)
            self.listening[name] = sock
        self.listening["tls"] = socket.create_server(("127.0.0.1", 443), backlog=4096)

    # -- processes -----------------------------------------------------------------------------------------------------

    def start(self, *names):
        """Start units: `netd`, `api`, `metadata`, `gateway a0`."""
        for name in names:
            unit, *instance = name.split()
            passed = [one for one, (owner, *_) in SOCKETS.items() if owner == unit] or (["tls"] if instance else [])
            path = RUN / f"notify-{name.replace(' ', '-')}"
            path.unlink(missing_ok=True)
            self.notified[name] = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self.notified[name].bind(str(path))
            self.notified[name].settimeout(30)
            path.chmod(0o666)
            self.processes[name] = self.execute(unit, instance, passed, NOTIFY_SOCKET=str(path))

    def ready(self, *names):
        """Return when each of these has said once that it does its work (sd_notify(3))."""
        for name in names:
            assert self.notified[name].recv(100) == b"READY=1"

    def execute(self, unit, instance, passed, **more):
        """One process, with these sockets as descriptors 3 and on."""
        numbers = [self.listening[one].fileno() for one in passed]
        environment = {
            **self.environment,
            "LISTEN_FDS": str(len(passed)),
            "LISTEN_FDNAMES": ":".join(passed),
            "CREDENTIALS_DIRECTORY": str(self.state / "credentials"),
            **more,
        }
        command = [self.python, "-P", "-m", "wicketgate.units", unit, *instance]
        execute = [sys.executable, "-c", EXECUTE, str(identity(OWNERS[unit])), ",".join(map(str, numbers))]
        with self.log(unit, *instance).open("ab") as log:
            return subprocess.Popen(
                [*execute, *command],
                env=environment,
                pass_fds=numbers,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def log(self, *names):
        """A unit's log."""
        return self.state / "logs" / f"{'-'.join(names)}.log"

    def end(self, *names, number=signal.SIGKILL):
        """Send a signal that ends units; their exit codes."""
        for name in names:
            self.processes[name].send_signal(number)
        return [self.processes.pop(name).wait(20) for name in names]

    def stop(self):
        """End everything in order, and let go of the sockets."""
        names = list(self.processes)
        codes = self.end(*names, number=signal.SIGTERM)
        for sock in self.listening.values():
            sock.close()
        shutil.rmtree(RUN, ignore_errors=True)
        return dict(zip(names, codes, strict=True))

    # -- clients -------------------------------------------------------------------------------------------------------

    @property
    def bundle(self):
        """What clients trust."""
        return self.state / "public" / "bundle.pem"

    def client(self, service, key=ROOT[0], secret=ROOT[1], token=None, **config):
        """A boto3 client."""
        return client_of(service, key, secret, token, endpoint=f"https://{API}", verify=str(self.bundle), **config)
