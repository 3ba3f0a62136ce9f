"""This machine: whether it can run wicketgate, its accounts, and its systemd."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import wicketgate
from wicketgate.configuration import Configuration
from wicketgate.install.carry import Site
from wicketgate.install.manifest import InstallError
from wicketgate.install.texts import text
from wicketgate.kernel import netns

SYSTEMD_RUNS: Final = Path("/run/systemd/system")
"""sd_booted(3)."""

_TRIAL: Final = """\
table inet trial {
  set members { type ifname . ipv4_addr; elements = { "lo" . 127.0.0.1 }; }
  map verdicts { type ifname : verdict; elements = { "lo" : accept }; }
  chain early { type filter hook prerouting priority raw; policy accept; iifname . ip saddr @members accept; }
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state established accept
    ct mark set 1
    meta mark set ct mark
    iifname vmap @verdicts
    reject with icmpx admin-prohibited
  }
}
table netdev trial {
  chain in { type filter hook ingress device lo priority 0; policy accept; fwd to lo; }
}
"""
"""A small ruleset with each kind of expression that ours are made of."""


def site(root: Path, *, dry_run: bool, say: Callable[[str], None]) -> Site:
    """This machine's files, or another system's below `root`."""
    return Site(
        root=root,
        ids=lambda name: _account(root, "passwd", name),
        groups=lambda name: (_account(root, "group", name) or (None,))[0],
        make_account=lambda name: _make_account(root, name),
        dry_run=dry_run,
        say=say,
    )


def check_root() -> None:
    """Raises InstallError for everybody but root."""
    if os.geteuid() != 0:
        raise InstallError("it makes users, files below /etc and units, so it has to be started as root")


@contextlib.contextmanager
def alone(root: Path) -> Iterator[None]:
    """Nobody else installs below `root` meanwhile. Raises InstallError."""
    descriptor = os.open(root / "etc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise InstallError("another wicketgate install, upgrade or uninstall runs") from None
    finally:
        os.close(descriptor)


def check_account(root: Path, name: str) -> None:
    """A user of one of our names that is there already must be nobody's. Raises InstallError."""
    try:
        lines = (root / "etc" / "passwd").read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return
    for fields in (line.split(":") for line in lines):
        if fields[0] == name and len(fields) > 6:
            if not fields[6].endswith(("/nologin", "/false")):
                raise InstallError(f"there is a user {name} who may log in ({fields[6] or '/bin/sh'}): that cannot be "
                                   "who a service runs as; rename it, or give it /usr/sbin/nologin")  # fmt: skip
            if int(fields[2]) == 0:
                raise InstallError(f"the user {name} is root: remove it, and it is made anew")


def check_paths(configuration: Configuration) -> None:
    """Paths that stand in units, and a state directory that is nobody else's. Raises InstallError."""
    for name in ("state_directory", "key_file", "root_credential_file", "certificate_file", "private_key_file"):
        path = getattr(configuration, name)
        if path and not re.fullmatch(r"/[A-Za-z0-9._/@=,~+-]*", path):
            raise InstallError(f"{name} {path!r}: units need an absolute path of letters, digits and ._/@=,~+-")
    state = Path(configuration.state_directory)
    if state in _SHARED or ".." in state.parts:
        raise InstallError(f"state_directory {state} is not for one program alone: choose one below it")
    for hidden in _HIDDEN:
        if state.is_relative_to(hidden):
            raise InstallError(f"state_directory {state}: units do not see {hidden}, or it does not last; choose "
                               "another one, such as /var/lib/wicketgate")  # fmt: skip


_HIDDEN: Final = tuple(map(Path, ("/home", "/root", "/run", "/tmp", "/var/tmp", "/var/run", "/dev", "/proc", "/sys")))
_SHARED: Final = frozenset(map(Path, (
    "/", "/bin", "/boot", "/etc", "/lib", "/lib64", "/media", "/mnt", "/opt", "/sbin", "/srv", "/usr", "/usr/lib",
    "/usr/local", "/usr/share", "/var", "/var/cache", "/var/lib", "/var/log", "/var/opt", "/var/spool",
    "/etc/wicketgate", "/etc/systemd", "/etc/systemd/system",
)))  # fmt: skip


def check_environment(python: Path) -> None:
    """The units' users have to be able to read interpreter and package. Raises InstallError."""
    homes = (Path("/home"), Path("/root"))
    for path in (python, Path(sys.prefix), Path(wicketgate.__file__)):
        below = next((home for home in homes if path.absolute().is_relative_to(home)), None)
        unreadable = next((one for one in (path, *path.parents) if not _for_all(one)), None)
        if below or unreadable:
            why = f"lies below the home directory {below}" if below else f"has {unreadable} above it, not for everybody"
            raise InstallError(
                f"{path} {why}, where the units cannot read it: install wicketgate elsewhere first, such as: "
                "python3 -m venv /opt/wicketgate && /opt/wicketgate/bin/pip install 'wicketgate[server]'"
            )


def _for_all(path: Path) -> bool:
    status = path.stat()
    return bool(status.st_mode & (0o001 if path.is_dir() else 0o004))


def check_kernel() -> None:
    """Network namespaces, nf_tables and libnftables, tried in a namespace that is gone afterwards. Raises InstallError.

    Where systemd does not run there may still be a kernel to try; another system's kernel cannot be.
    """
    try:
        library = ctypes.CDLL("libnftables.so.1")
    except OSError as error:
        raise InstallError("libnftables.so.1 is missing: apt-get install libnftables1") from error
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
    for name in ("nft_ctx_get_error_buffer", "nft_ctx_free", "nft_ctx_buffer_error"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]

    def try_it() -> str:
        if ctypes.CDLL(None, use_errno=True).unshare(netns.CLONE_NEWNET) != 0:
            return f"it makes no network namespace: {os.strerror(ctypes.get_errno())}"
        context = library.nft_ctx_new(0)
        library.nft_ctx_buffer_error(context)
        try:
            if library.nft_run_cmd_from_buffer(context, _TRIAL.encode()) == 0:
                return ""
            words: bytes = library.nft_ctx_get_error_buffer(context) or b""
            return f"it refuses an nftables ruleset: {words.decode(errors='replace').strip()}"
        finally:
            library.nft_ctx_free(context)

    trouble = netns.in_thread(try_it)
    if trouble:
        raise InstallError(f"this kernel ({os.uname().release}) cannot do what is needed: {trouble}")


def check_ports(configuration: Configuration) -> None:
    """The addresses clients connect to have to be free. Raises InstallError."""
    for address in configuration.listen_addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                trial.bind((address, configuration.port))
                trial.listen(1)
        except OSError as error:
            if error.errno == errno.EAFNOSUPPORT:
                raise InstallError(f"cannot listen on {address}: this kernel has no IPv6; leave it out: "
                                   "wicketgate install --listen 0.0.0.0") from error  # fmt: skip
            raise InstallError(
                f"cannot listen on {address} port {configuration.port}: {error.strerror}; see who does with "
                f"`ss -ltnp 'sport = :{configuration.port}'`, or choose other listen_addresses"
            ) from error


def booted() -> bool:
    """Whether systemd is this machine's init."""
    return SYSTEMD_RUNS.is_dir()


def active(unit: str) -> bool:
    """Whether systemd has a unit up."""
    try:
        run(["systemctl", "is-active", unit])
    except InstallError:
        return False
    return True


def units(pattern: str) -> dict[str, str]:
    """The units that systemd has loaded or heard of: name -> ActiveState (systemctl(1) list-units)."""
    told = run(["systemctl", "list-units", "--all", "--plain", "--no-legend", "--no-pager", pattern])
    lines = [line.replace("\u25cf", " ").split() for line in told.splitlines()]
    return {fields[0]: fields[2] for fields in lines if len(fields) > 2 and fields[1] == "loaded"}


def run(arguments: Sequence[str]) -> str:
    """Run a program; what it printed. Raises InstallError with its own words."""
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    except OSError as error:
        raise InstallError(f"{arguments[0]}: {error.strerror}") from error
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip() or f"it ended with code {done.returncode}"
        raise InstallError(f"{' '.join(arguments)}: {words}")
    return done.stdout


def _account(root: Path, database: str, name: str) -> tuple[int, int] | None:
    """Ids of a user or a group by the files below /etc, which are where system users are. Raises InstallError."""
    try:
        lines = (root / "etc" / database).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        lines = []
    for line in lines:
        fields = line.split(":")
        if fields[0] == name and len(fields) > 3:
            return int(fields[2]), int(fields[3]) if database == "passwd" else int(fields[2])
    return (0, 0) if name == "root" else None


def _make_account(root: Path, name: str) -> None:
    """By systemd-sysusers(8), which needs no running systemd, else by useradd(8)."""
    if shutil.which("systemd-sysusers"):
        # One account, as SYSUSERS has it: each that is made is said, and known to be ours.
        line = next(line for line in text("sysusers.conf").splitlines() if line.split()[1:2] == [name])
        run(["systemd-sysusers", *([f"--root={root}"] if root != Path("/") else []), "--inline", line])
    elif shutil.which("useradd"):
        other = ["--root", str(root)] if root != Path("/") else []
        run(["useradd", *other, "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent",
             "--shell", "/usr/sbin/nologin", name])  # fmt: skip
    else:
        raise InstallError("neither systemd-sysusers nor useradd is here to make system users with")


def remove_account(root: Path, name: str) -> None:
    """Raises InstallError."""
    other = ["--root", str(root)] if root != Path("/") else []
    run(["userdel", *other, name])
