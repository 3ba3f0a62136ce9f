"""Around the lab's machines: their accounts and /etc, the internet, and an interpreter that every id can read."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from wicketgate.kernel import ip, netns
from wicketgate.kernel.nftables import Nftables
from wicketgate.model import FabricError

ACCOUNT = "ec2-user"
ACCOUNT_ID = 64912
"""An id that no account has: made by root the lab has the host's ids, and a login must own nothing there."""
ROOT = Path("/run/lab")

_libc = ctypes.CDLL(None, use_errno=True)
_MS_BIND, _MS_REC = 4096, 16384


def own_etc(hosts: dict[str, str]) -> None:
    """Put a tmpfs over /etc whose entries are the host's, but for accounts, groups, hosts and name services.

    `hosts`: name -> address. Only this mount namespace sees it. Nothing of the host is written to.
    """
    (ROOT / "etc").mkdir(parents=True, exist_ok=True)
    _mount("/etc", str(ROOT / "etc"), "", _MS_BIND | _MS_REC)
    _mount("tmpfs", "/etc", "tmpfs", 0, "mode=755")
    own = {
        "passwd": f"root:x:0:0:root:{client_home()}:/bin/bash\nsshd:x:64911:65534::/run/sshd:/usr/sbin/nologin\n"
        f"{ACCOUNT}:x:{ACCOUNT_ID}:{ACCOUNT_ID}::{home()}:/bin/bash\nnobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n",
        "group": f"root:x:0:\n{ACCOUNT}:x:{ACCOUNT_ID}:\nnogroup:x:65534:\n",
        "shadow": f"root:*:19000::::::\n{ACCOUNT}:*:19000::::::\n",
        "hosts": "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in hosts.items()),
        "nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files\n",
    }
    for name, text in own.items():
        (Path("/etc") / name).write_text(text)
    Path("/etc/shadow").chmod(0o600)
    for entry in (ROOT / "etc").iterdir():
        if entry.name not in own:
            _lead(Path("/etc") / entry.name, entry)


def _lead(name: Path, entry: Path) -> None:
    """Have a name in the new /etc lead to an entry of the one before: by a mount, for names may be gone in there.

    A sandbox inside this one has a /run of its own, and finds by its /etc what this one does.
    """
    if entry.is_symlink():
        name.symlink_to(entry.readlink())
    elif entry.is_dir() or entry.is_file():
        if entry.is_dir():
            name.mkdir()
        else:
            name.touch()
        _mount(str(entry), str(name), "", _MS_BIND | _MS_REC)


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


def client_home() -> Path:
    """Home directory of root in the sandbox, who runs the clients' programs: nothing of the host's is for them."""
    return ROOT / "home" / "client"


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
        ip.batch("internet", [f"link add name {name} type veth peer name eth0 netns {name}"])
        # The far side answers for everything, so each host needs its address and one route, whatever its range.
        ip.sysctl("internet", {f"net/ipv4/conf/{name}/proxy_arp": "1", f"net/ipv4/neigh/{name}/proxy_delay": "0"})
        ip.batch("internet", [f"link set dev {name} up", f"route add {address}/32 dev {name}"])
        lines = ["link set lo up", f"address add {address}/32 dev eth0", "link set eth0 up"]
        ip.batch(name, [*lines, "route add default dev eth0"])
