"""One machine of the lab: an sshd that is process 1 of a pid namespace, in the network namespace of its instance.

Whatever a login leaves behind is in that pid namespace too, so that to switch a machine off is to kill its process 1:
the kernel ends the rest, and only then reports the end. What runs is read from /proc, never from a file of ours: the
process 1 whose standard error is a machine's log is that machine. So a killed agent forgets nothing.

Made by root (every id mapped), sshd runs as on any host. With one id mapped it runs in a user namespace of its own, as
the one account that it can be, `machines.ACCOUNT`, so nobody logs in by another name; without PAM, and with an
/etc/group that has no `tty`, or no terminal could be had.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import select
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from wicketgate.kernel import ip, netns
from wicketgate.lab import sandbox
from wicketgate.lab.machines import ACCOUNT_ID, ROOT, home
from wicketgate.model import FabricError

MACHINES: Final = ROOT / "machines"
PORTS: Final = (22, 3389)
"""Where every sshd listens: the ports that endpoints offer."""
CLONE_NEWPID: Final = 0x20000000

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LISTEN: Final = "0A"
"""TCP_LISTEN as /proc/net/tcp and tcp6 have it."""
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(eq=False)
class Machine:
    """The machine of one instance, running or not."""

    id: str
    """Of the instance; the name of its network namespace, too."""
    pid: int = 0
    """Of its sshd, as this process sees it; 0 while it is off."""
    descriptor: int = -1
    """A pidfd, readable once the machine is off and nothing of it is left."""
    _process: subprocess.Popen[bytes] | None = None
    _logged: int = field(default=0, repr=False)
    """Size of the log when it was switched on."""

    @property
    def directory(self) -> Path:
        """Its configuration, host key, authorized keys and log."""
        return MACHINES / self.id

    @property
    def log(self) -> Path:
        """What its sshd says."""
        return self.directory / "sshd.log"

    # -- files ---------------------------------------------------------------------------------------------------------

    def lay_out(self, authorized_key: str, key_command: str) -> None:
        """Write what its sshd reads; the host key that is there is kept.

        `authorized_key`: the line that always counts. `key_command`: AuthorizedKeysCommand with its arguments; empty =
        pushed keys are in files (`write_pushed_keys`).
        """
        for path in (MACHINES, self.directory, self.directory / "pushed"):
            path.mkdir(mode=0o755, parents=True, exist_ok=True)
        host_key = self.directory / "host_key"
        if not host_key.exists():
            key = ed25519.Ed25519PrivateKey.generate().private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
            )
            write(host_key, key.decode(), 0o600)
        write(self.directory / "authorized_keys", authorized_key.strip() + "\n")
        write(self.directory / "sshd_config", self._configuration(key_command))
        self.log.touch()
        if sandbox.all_ids():
            os.chown(home(), ACCOUNT_ID, ACCOUNT_ID)

    def _configuration(self, key_command: str) -> str:
        here = self.directory
        command = f"AuthorizedKeysCommand {key_command}\nAuthorizedKeysCommandUser nobody\n" if key_command else ""
        files = f"{here}/authorized_keys" if key_command else f"{here}/authorized_keys {here}/pushed/%u"
        return (
            "".join(f"Port {port}\n" for port in PORTS) + "ListenAddress 0.0.0.0\nListenAddress ::\n"
            f"HostKey {here}/host_key\nPidFile none\nAuthorizedKeysFile {files}\n{command}"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\n"
            "StrictModes no\nLogLevel VERBOSE\nUseDNS no\nMaxStartups 200\nPrintMotd no\nSubsystem sftp internal-sftp\n"
        )

    def write_pushed_keys(self, user: str, text: str) -> None:
        """Have its sshd take these authorized_keys lines, and no others, for a user."""
        write(self.directory / "pushed" / user, text)

    def remove(self) -> None:
        """Forget the machine's files: a terminated one does not come back."""
        shutil.rmtree(self.directory, ignore_errors=True)

    # -- life ----------------------------------------------------------------------------------------------------------

    def switch_on(self) -> None:
        """Start its sshd; `listening` says when it is there. Raises FabricError."""
        command = [_sshd(), "-D", "-f", f"{self.directory}/sshd_config", "-E", str(self.log)]
        if not sandbox.all_ids():
            # Inside its own user namespace sshd has no say over this network namespace's low ports.
            ip.sysctl(self.id, {"net/ipv4/ip_unprivileged_port_start": "0"})
            command = ["unshare", "-U", f"--map-user={ACCOUNT_ID}", f"--map-group={ACCOUNT_ID}", *command]
        self._logged = self.log.stat().st_size

        def start() -> subprocess.Popen[bytes]:
            netns.enter(self.id)
            if _libc.unshare(CLONE_NEWPID) != 0:
                raise FabricError(f"cannot make a pid namespace: {os.strerror(ctypes.get_errno())}")
            with self.log.open("ab") as log:
                return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={"PATH": _PATH})

        self._process = netns.in_thread(start)
        self._watch(self._process.pid)

    def adopt(self, pid: int) -> bool:
        """Take a process 1 found by `running` for this machine's, if it still is."""
        try:
            self._watch(pid)
        except ProcessLookupError:
            return False
        if _machine_of(pid) != self.id:  # the number is another process's by now
            self.forget()
            return False
        with contextlib.suppress(FileNotFoundError):
            self._logged = self.log.stat().st_size
        return True

    def _watch(self, pid: int) -> None:
        self.descriptor = os.pidfd_open(pid)
        self.pid = pid

    def alive(self) -> bool:
        """Whether it is switched on."""
        return self.descriptor >= 0 and not _readable(self.descriptor, 0)

    def listening(self) -> bool:
        """Whether its sshd, and nothing else, listens on all ports, of both families if the kernel has IPv6."""
        families = ("tcp", "tcp6") if Path("/proc/self/net/tcp6").exists() else ("tcp",)
        return all(self._held(family).issuperset(PORTS) for family in families)

    def _held(self, family: str) -> set[int]:
        """The ports on which its sshd itself listens."""
        try:
            held = {str(one.readlink()) for one in Path(f"/proc/{self.pid}/fd").iterdir()}
            lines = Path(f"/proc/{self.pid}/net/{family}").read_text().splitlines()[1:]
        except OSError:
            return set()
        fields = [line.split() for line in lines]
        sockets = [(int(one[1].rpartition(":")[2], 16), f"socket:[{one[9]}]") for one in fields if one[3] == _LISTEN]
        return {port for port, name in sockets if name in held}

    def at_home(self) -> bool:
        """Whether it is in the namespace that has the instance's name now, not in one that was made before."""
        try:
            here, there = Path(f"/proc/{self.pid}/ns/net").stat(), (netns.PINS / self.id).stat()
        except OSError:
            return False
        return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)

    def problem(self) -> str:
        """Why it will not listen, in its sshd's words; empty while nothing speaks against it."""
        with self.log.open("rb") as log:
            log.seek(self._logged)
            said = log.read().decode(errors="replace")
        if self.alive() and not re.search(r"^(error: )?Bind to port", said, re.MULTILINE):
            return ""
        words = [line.strip() for line in said.splitlines() if not line.startswith("Server listening")]
        return "; ".join(words) or "it ended without a word"

    def switch_off(self) -> None:
        """Kill it and all that runs in it. Returns at once: `descriptor` tells when that is done."""
        if self.descriptor >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.descriptor, signal.SIGKILL)

    def wait(self, seconds: float = 10.0) -> None:
        """Wait until a machine that was switched off is. Raises FabricError."""
        if self.descriptor >= 0 and not _readable(self.descriptor, seconds):
            raise FabricError(f"process {self.pid} of {self.id} does not end")
        self.forget()

    def forget(self) -> None:
        """Let go of a process that has ended."""
        if self._process is not None:
            self._process.wait()
            self._process = None
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.pid, self.descriptor = 0, -1


def running() -> dict[str, int]:
    """Instance id -> process id, of every machine that is on, whoever switched it on."""
    pids = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
    return {machine: pid for pid in pids if (machine := _machine_of(pid)) is not None}


def _machine_of(pid: int) -> str | None:
    """The instance whose process 1 this is."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        error = Path(f"/proc/{pid}/fd/2").readlink()
    except OSError:
        return None
    # Seen from here it has two numbers: ours, and 1 in a pid namespace just below.
    if not re.search(r"^NSpid:\t\d+\t1$", status, re.MULTILINE) or error.parent.parent != MACHINES:
        return None
    return error.parent.name


def end_all() -> None:
    """Switch every machine off, whoever switched it on. Raises FabricError."""
    machines = [machine for name, pid in running().items() if (machine := Machine(name)).adopt(pid)]
    for machine in machines:
        machine.switch_off()
    for machine in machines:
        machine.wait()


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a whole file in one step: readers see the old one or the new one."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    new.touch(mode=mode & 0o700)  # a private key is nobody else's for a moment, either
    new.write_text(text)
    new.chmod(mode)
    new.replace(path)


def _readable(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(1000 * seconds))


def _sshd() -> str:
    found = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:{_PATH}")
    if found is None:
        raise FabricError("sshd is missing (Debian package openssh-server)")
    return found
