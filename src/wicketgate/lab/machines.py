"""The lab's machines: namespaces around the fabric, and a real OpenSSH sshd in every instance's.

Made by root (every id mapped), sshd runs as on any host. With one id mapped it runs in a user namespace of its own, as
the one account it can be; without PAM, and with an /etc/group that has no `tty`, or no terminal could be had.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from wicketgate.kernel import ip, netns
from wicketgate.kernel.nftables import Nftables
from wicketgate.lab import sandbox
from wicketgate.model import FabricError, Instance

ACCOUNT = "ec2-user"
ACCOUNT_ID = 64912
"""An id that no account has: made by root the lab has the host's ids, and a login must own nothing there."""
ROOT = Path("/run/lab")

_libc = ctypes.CDLL(None, use_errno=True)
_MS_BIND, _MS_REC = 4096, 16384


def own_etc(hosts: dict[str, str]) -> None:
    """Put a tmpfs over /etc whose entries lead to the host's, but for accounts, groups, hosts and name services.

    `hosts`: name -> address, as in `name_hosts`. Only this mount namespace sees it. Nothing of the host is written to.
    """
    (ROOT / "etc").mkdir(parents=True, exist_ok=True)
    _mount("/etc", str(ROOT / "etc"), "", _MS_BIND | _MS_REC)
    _mount("tmpfs", "/etc", "tmpfs", 0, "mode=755")
    own = {
        "passwd": f"root:x:0:0:root:/root:/bin/bash\nsshd:x:64911:65534::/run/sshd:/usr/sbin/nologin\n"
        f"{ACCOUNT}:x:{ACCOUNT_ID}:{ACCOUNT_ID}::{home()}:/bin/bash\nnobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n",
        "group": f"root:x:0:\n{ACCOUNT}:x:{ACCOUNT_ID}:\nnogroup:x:65534:\n",
        "shadow": f"root:*:19000::::::\n{ACCOUNT}:*:19000::::::\n",
        "hosts": "",
        "nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files\n",
    }
    for name, text in own.items():
        (Path("/etc") / name).write_text(text)
    name_hosts(hosts)
    Path("/etc/shadow").chmod(0o600)
    for entry in (ROOT / "etc").iterdir():
        if entry.name not in own:
            target = entry.readlink() if entry.is_symlink() else entry
            (Path("/etc") / entry.name).symlink_to(target)


def name_hosts(hosts: dict[str, str]) -> None:
    """Have these names resolve, and no others; name -> address. Readers see the names before or these, never half."""
    lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in hosts.items())]
    new = Path("/etc/hosts.new")
    new.write_text("\n".join(lines) + "\n")
    new.replace("/etc/hosts")


def readable_python() -> tuple[str, dict[str, str]]:
    """This interpreter and package at a path that every id may walk to, e.g. when the checkout is in /root.

    Returns (interpreter, environment).
    """
    import sys

    import wicketgate

    code = ROOT / "code"
    # The gateway faces the network: it gets nothing of the caller's environment, credentials least of all.
    environment = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    places = {"prefix": Path(sys.prefix), "source": Path(wicketgate.__file__).parent.parent}
    for name, place in places.items():
        (code / name).mkdir(parents=True, exist_ok=True)
        _mount(str(place), str(code / name), "", _MS_BIND)
    environment["PYTHONPATH"] = str(code / "source")
    return str(code / "prefix" / "bin" / Path(sys.executable).name), environment


def home() -> Path:
    """Home directory of the account on every instance."""
    return ROOT / "home" / ACCOUNT


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    if _libc.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode() or None) != 0:
        raise FabricError(f"cannot mount {source} on {target}: {os.strerror(ctypes.get_errno())}")


def internet(gateway: str, clients: dict[str, str]) -> None:
    """Build the internet: every client reaches the gateway's port 443, and nothing else."""
    netns.create("internet")
    quiet = {"net/ipv6/conf/all/disable_ipv6": "1", "net/ipv6/conf/default/disable_ipv6": "1"}
    ip.sysctl("internet", {"net/ipv4/ip_forward": "1", **quiet})
    nft = Nftables("internet")
    nft.run(
        "add table inet internet\n"
        "add chain inet internet forward { type filter hook forward priority 0; policy drop; }\n"
        "add rule inet internet forward ct state { established, related } accept\n"
        f"add rule inet internet forward ip daddr {gateway} tcp dport 443 accept\n"
    )
    nft.close()
    ip.batch("internet", ["link set lo up"])
    for name, address in {"gateway": gateway, **clients}.items():
        netns.create(name)
        ip.sysctl(name, quiet)
        ip.batch("internet", [f"link add {name} type veth peer name eth0 netns {name}"])
        # The far side answers for everything, so each host needs its address and one route, whatever its range.
        ip.sysctl("internet", {f"net/ipv4/conf/{name}/proxy_arp": "1", f"net/ipv4/neigh/{name}/proxy_delay": "0"})
        ip.batch("internet", [f"link set {name} up", f"route add {address}/32 dev {name}"])
        lines = ["link set lo up", f"address add {address}/32 dev eth0", "link set eth0 up"]
        ip.batch(name, [*lines, "route add default dev eth0"])


@dataclass
class Machine:
    """An instance's sshd."""

    instance: Instance
    process: subprocess.Popen[bytes] | None = None

    @property
    def directory(self) -> Path:
        """Its configuration, host key and log."""
        return ROOT / "machines" / self.instance.id

    @property
    def log(self) -> Path:
        """What sshd says."""
        return self.directory / "sshd.log"

    def prepare(self, public_key: str) -> None:
        """Write configuration, host key and who may log in."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for parent in (ROOT / "machines", self.directory):
            parent.chmod(0o755)
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", self.directory / "host_key"], check=True
        )
        keys = self.directory / "authorized_keys"
        keys.write_text(public_key)
        (self.directory / "sshd_config").write_text(
            f"Port 22\nPort 3389\nListenAddress 0.0.0.0\nHostKey {self.directory}/host_key\nPidFile none\n"
            f"AuthorizedKeysFile {keys}\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\n"
            "StrictModes no\nLogLevel VERBOSE\nUseDNS no\nMaxStartups 200\nPrintMotd no\nSubsystem sftp internal-sftp\n"
        )
        self.log.touch()
        if sandbox.all_ids():
            os.chown(home(), ACCOUNT_ID, ACCOUNT_ID)

    def start(self) -> None:
        """Start sshd and return when it listens. Raises FabricError with its log."""
        name = self.instance.id
        command = [_sshd(), "-D", "-f", f"{self.directory}/sshd_config", "-E", str(self.log)]
        if not sandbox.all_ids():
            # Inside its own user namespace sshd has no say over this network namespace's low ports.
            ip.sysctl(name, {"net/ipv4/ip_unprivileged_port_start": "0"})
            command = ["unshare", "-U", f"--map-user={ACCOUNT_ID}", f"--map-group={ACCOUNT_ID}", *command]
        before = self.log.stat().st_size
        with netns.entered(name):
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while b"Server listening" not in self.log.read_bytes()[before:]:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise FabricError(f"sshd of {name} does not start: {self.log.read_text().strip()}")
            time.sleep(0.01)

    def stop(self) -> None:
        """End sshd."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None


def _sshd() -> str:
    found = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        raise FabricError("sshd is missing (Debian package openssh-server)")
    return found
