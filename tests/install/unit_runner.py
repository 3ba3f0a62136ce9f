"""A stand-in for systemd where systemd cannot run. It is no systemd.

It reads unit files as they are installed, makes their sockets, and starts each ExecStart= in unit order, as its User=,
with LISTEN_FDS, NOTIFY_SOCKET and credentials. What it takes from a unit: capabilities, no_new_privs, PrivateNetwork=,
a read-only file system but for ReadWritePaths=, SystemCallFilter=, RestrictAddressFamilies=, MemoryDenyWriteExecute=,
LimitNOFILE=, UMask=. What it does not: restarting what ends, control groups, RestrictNamespaces= and the rest.

    unit_runner.py serve FILTERS     answer `systemctl`, which is this file under that name, until killed;
                                     FILTERS is a JSON file: set of system calls (@name) -> its members
    systemctl start|stop|restart|kill|reload|is-active|daemon-reload ...

Standard library alone: it runs inside a tree that has nothing else. Set UNITS to look elsewhere than in /etc/systemd.
"""

from __future__ import annotations

import ctypes
import fnmatch
import json
import os
import pwd
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

UNITS = Path("/etc/systemd/system")
CONTROL = "/run/unit-runner.sock"
LOGS = Path("/var/log/units")
CLONE_NEWNS, CLONE_NEWNET = 0x20000, 0x40000000
MS_BIND, MS_REC, MS_SLAVE = 4096, 16384, 1 << 19
MOUNT_ATTR_RDONLY, AT_RECURSIVE, SYS_MOUNT_SETATTR = 1, 0x8000, 442
ALLOW, EPERM, EAFNOSUPPORT = 0x7FFF0000, 0x00050001, 0x00050061
EQUAL, MASKED = 4, 7
FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16, "AF_PACKET": 17}
LAST_FAMILY = 45

libc = ctypes.CDLL(None, use_errno=True)


class Unit:
    """One unit's settings, its drop-ins and instance included: [Section] Key -> values in order."""

    def __init__(self, name):
        self.name, self.values = name, {}
        prefix, at, rest = name.partition("@")
        self.instance = rest.rpartition(".")[0] if at else ""
        file = f"{prefix}@.{name.rpartition('.')[2]}" if at else name
        for path in (UNITS / file, *sorted((UNITS / f"{file}.d").glob("*.conf"))):
            for line in path.read_text().splitlines():
                key, equals, value = line.partition("=")
                if equals and not line.startswith(("#", ";")):
                    self.values.setdefault(key, []).append(value.replace("%i", self.instance))

    def all(self, key):
        return [word for value in self.values.get(key, []) for word in value.split()]

    def last(self, key, default=""):
        return self.values.get(key, [default])[-1]

    def yes(self, key):
        return self.last(key) in ("yes", "true", "1", "strict")


class Runner:
    def __init__(self, filters):
        self.filters = filters
        self.sockets, self.processes, self.active = {}, {}, set()

    # -- commands ----------------------------------------------------------------------------------------------------

    def command(self, words):
        """Exit code and what is printed."""
        self.reap()
        verb, *rest = [word for word in words if not word.startswith("-")]
        options = dict(word[2:].split("=", 1) for word in words if word.startswith("--") and "=" in word)
        if verb == "daemon-reload":
            return 0, ""
        units = [name for pattern in rest for name in self.matching(pattern)]
        if verb == "list-units":
            known = {*self.processes, *self.sockets, *self.active}
            return 0, "\n".join(f"{name} loaded active running x" for name in fnmatch.filter(sorted(known), rest[0]))
        if verb == "is-active":
            up = all(self.is_up(name) for name in rest)
            return (0, "active") if up else (3, "inactive")
        if verb in ("stop", "restart"):
            for name in reversed(units):
                self.stop(name)
        if verb in ("start", "restart"):
            for name in units:
                self.start(name)
        if verb == "reload":
            for name in units:
                os.kill(self.processes[name], signal.SIGHUP)
        if verb == "kill":
            for name in units:
                if name in self.processes:
                    os.kill(self.processes[name], getattr(signal, options["signal"]))
        return 0, ""

    def matching(self, pattern):
        if "*" not in pattern:
            return [pattern]
        return fnmatch.filter([*self.processes, *self.sockets], pattern)

    def is_up(self, name):
        return name in self.processes or name in self.sockets or name in self.active

    def reap(self):
        for name, pid in list(self.processes.items()):
            if os.waitpid(pid, os.WNOHANG)[0]:
                del self.processes[name]

    # -- starting and stopping ---------------------------------------------------------------------------------------

    def start(self, name):
        if self.is_up(name) and not name.endswith(".target"):
            return
        if name.endswith(".target"):
            self.active.add(name)
            for one in self.in_order(path.name for path in (UNITS / f"{name}.wants").iterdir()):
                self.start(one)
        elif name.endswith(".socket"):
            self.open(Unit(name))
        else:
            unit = Unit(name)
            for one in (*unit.all("Requires"), *unit.all("Sockets"), *unit.all("Wants")):
                self.start(one)
            if unit.last("Type") == "oneshot":
                self.active.add(name)
            else:
                self.run(unit)

    def in_order(self, names):
        """Sockets, then services after what they are After=."""
        left, done = sorted(names, key=lambda name: (not name.endswith(".socket"), name)), []
        while left:
            ready = next(one for one in left if not set(Unit(one).all("After")) & set(left) - {one})
            left.remove(ready)
            done.append(ready)
        return done

    def open(self, unit):
        opened = []
        for key, kind in (("ListenStream", socket.SOCK_STREAM), ("ListenSequentialPacket", socket.SOCK_SEQPACKET)):
            for address in unit.all(key):
                if address.startswith("/"):
                    one = socket.socket(socket.AF_UNIX, kind)
                    Path(address).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                    Path(address).unlink(missing_ok=True)
                    one.bind(address)
                    Path(address).chmod(int(unit.last("SocketMode"), 8))
                    os.chown(address, pwd.getpwnam(unit.last("SocketUser")).pw_uid, 0)
                else:
                    host, _, port = address.rpartition(":")
                    family = socket.AF_INET6 if "[" in host else socket.AF_INET
                    one = socket.socket(family, kind)
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    if family == socket.AF_INET6:
                        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    one.bind((host.strip("[]"), int(port)))
                one.listen(int(unit.last("Backlog")))
                opened.append((unit.last("FileDescriptorName"), one))
        self.sockets[unit.name] = opened

    def run(self, unit):
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        place = f"/run/notify-{unit.name}"
        Path(place).unlink(missing_ok=True)
        notify.bind(place)
        Path(place).chmod(0o666)
        credentials = self.credentials(unit)
        pid = os.fork()
        if pid == 0:
            try:
                self.become(unit, place, credentials)
            except BaseException as error:  # noqa: BLE001  # the child must not go on as the parent
                os.write(2, f"unit_runner: {unit.name}: {error!r}\n".encode())
                os._exit(200)
        self.processes[unit.name] = pid
        self.wait_ready(unit, notify, pid)
        notify.close()

    def wait_ready(self, unit, notify, pid):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if select.select([notify], [], [], 0.05)[0] and b"READY=1" in notify.recv(4096):
                return
            if os.waitpid(pid, os.WNOHANG)[0]:
                del self.processes[unit.name]
                raise RuntimeError(f"{unit.name} ended: {(LOGS / unit.name).read_text()[-600:]}")
        raise RuntimeError(f"{unit.name} is not ready: {(LOGS / unit.name).read_text()[-600:]}")

    def credentials(self, unit):
        if not unit.all("LoadCredential"):
            return None
        directory = Path("/run/credentials") / unit.name
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700, parents=True)
        owner = pwd.getpwnam(unit.last("User")).pw_uid
        for one in unit.all("LoadCredential"):
            name, _, path = one.partition(":")
            (directory / name).write_bytes(Path(path).read_bytes())
            (directory / name).chmod(0o400)
            os.chown(directory / name, owner, -1)
        os.chown(directory, owner, -1)
        directory.parent.chmod(0o755)
        return directory

    def stop(self, name):
        self.active.discard(name)
        if name.endswith(".target"):
            for path in (UNITS / f"{name}.wants").iterdir():
                self.stop(path.name)
        for _, one in self.sockets.pop(name, []):
            address = one.getsockname()
            one.close()
            if isinstance(address, str):
                Path(address).unlink(missing_ok=True)
        pid = self.processes.pop(name, None)
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)

    # -- in the child ------------------------------------------------------------------------------------------------

    def become(self, unit, notify, credentials):
        os.setsid()
        signal.set_wakeup_fd(-1)
        LOGS.mkdir(exist_ok=True)
        log = os.open(LOGS / unit.name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        passed = [
            (name, one)
            for socket_unit in (unit.all("Sockets") or [unit.name.replace(".service", ".socket")])
            for name, one in self.sockets.get(socket_unit, [])
        ]
        copies = [os.dup2(one.fileno(), 200 + index) for index, (_, one) in enumerate(passed)]
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        for index, copy in enumerate(copies):
            os.dup2(copy, 3 + index)
        os.closerange(3 + len(copies), 4096)
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "NOTIFY_SOCKET": notify,
            "LISTEN_PID": str(os.getpid()),
            "LISTEN_FDS": str(len(passed)),
            "LISTEN_FDNAMES": ":".join(name for name, _ in passed),
        }
        if credentials:
            environment["CREDENTIALS_DIRECTORY"] = str(credentials)
        os.umask(int(unit.last("UMask", "0022"), 8))
        limit = min(int(unit.last("LimitNOFILE")), resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, limit), limit))
        self.enclose(unit)
        self.drop(unit)
        for load in self.seccomp(unit):
            load()
        command = unit.last("ExecStart").split()
        os.execve(command[0], command, environment)

    def enclose(self, unit):
        if unit.yes("PrivateNetwork"):
            check(libc.unshare(CLONE_NEWNET))
        if unit.last("ProtectSystem") == "strict":
            check(libc.unshare(CLONE_NEWNS))
            check(libc.mount(b"none", b"/", None, MS_REC | MS_SLAVE, None))
            writable = [*unit.all("ReadWritePaths"), "/proc", "/dev"]
            for path in unit.all("ReadWritePaths"):
                check(libc.mount(path.encode(), path.encode(), None, MS_BIND, None))
            set_readonly("/", True)
            for path in writable:
                set_readonly(path, False)

    def drop(self, unit):
        allowed = {CAPABILITIES[name] for name in unit.all("CapabilityBoundingSet")}
        for number in range(int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1):
            if number not in allowed:
                check(libc.prctl(24, number, 0, 0, 0))
        user = unit.last("User")
        if user:
            found = pwd.getpwnam(user)
            os.setgroups([])
            os.setresgid(found.pw_gid, found.pw_gid, found.pw_gid)
            os.setresuid(found.pw_uid, found.pw_uid, found.pw_uid)
        check(libc.prctl(38, 1, 0, 0, 0))

    def seccomp(self, unit):
        """Filters ready to be loaded: what may be called, which families, no memory both written and executed."""
        library = ctypes.CDLL("libseccomp.so.2")
        library.seccomp_init.restype = ctypes.c_void_p

        def begin(default):
            context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(default)))

            def add(action, name, *comparisons):
                number = library.seccomp_syscall_resolve_name(name.encode())
                if number < 0:
                    return  # of another architecture
                array = (Comparison * max(len(comparisons), 1))(*comparisons)
                check(
                    library.seccomp_rule_add_array(
                        context, ctypes.c_uint32(action), number, ctypes.c_uint(len(comparisons)), array
                    )
                )

            return add, lambda: check(library.seccomp_load(context))

        families, families_load = begin(ALLOW)
        allowed = {FAMILIES[name] for name in unit.all("RestrictAddressFamilies")}
        for number in set(range(LAST_FAMILY + 1)) - allowed:
            families(EAFNOSUPPORT, "socket", Comparison(0, EQUAL, number, 0))
        memory, memory_load = begin(ALLOW)
        if unit.yes("MemoryDenyWriteExecute"):
            memory(EPERM, "mmap", Comparison(2, MASKED, 6, 6))
            memory(EPERM, "mprotect", Comparison(2, MASKED, 4, 4))
            memory(EPERM, "pkey_mprotect", Comparison(2, MASKED, 4, 4))
        calls, calls_load = begin(EPERM)
        for name in sorted(self.calls(unit) | {"execve"}):
            calls(ALLOW, name)
        return families_load, memory_load, calls_load

    def calls(self, unit):
        allowed = self.expanded("@default")
        for line in unit.values["SystemCallFilter"]:
            names = set().union(*(self.expanded(word) for word in line.lstrip("~").split()))
            allowed = allowed - names if line.startswith("~") else allowed | names
        return allowed

    def expanded(self, word):
        if not word.startswith("@"):
            return {word}
        return set().union(*(self.expanded(one) for one in self.filters[word]))


class Comparison(ctypes.Structure):
    """`struct scmp_arg_cmp` of libseccomp."""

    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


CAPABILITIES = {"CAP_NET_BIND_SERVICE": 10, "CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_SYS_ADMIN": 21}


class Attributes(ctypes.Structure):
    """`struct mount_attr`, mount_setattr(2)."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns")]


def set_readonly(path, wanted):
    attributes = Attributes(MOUNT_ATTR_RDONLY if wanted else 0, 0 if wanted else MOUNT_ATTR_RDONLY, 0, 0)
    check(libc.syscall(SYS_MOUNT_SETATTR, -100, path.encode(), AT_RECURSIVE, ctypes.byref(attributes), 32))


def check(result):
    if result < 0:
        raise OSError(-result if result < -1 else ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def serve(filters):
    runner = Runner(json.loads(Path(filters).read_text()))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(CONTROL)
    listener.listen()
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("rw") as stream:
            try:
                answer = runner.command(json.loads(stream.readline()))
            except Exception as error:  # noqa: BLE001  # told to who asked
                answer = 1, str(error)
            stream.write(json.dumps(answer) + "\n")


def ask(words):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(CONTROL)
        with connection.makefile("rw") as stream:
            stream.write(json.dumps(words) + "\n")
            stream.flush()
            code, said = json.loads(stream.readline())
    if said:
        print(said, file=sys.stderr if code else sys.stdout)
    return code


def reload(name):
    """A unit that is reloaded by a program of its own: here, so that systemctl is answered meanwhile."""
    command = Unit(name).last("ExecReload").split()
    return subprocess.run(command, stdin=subprocess.DEVNULL).returncode if command[0] != "/bin/kill" else None


if __name__ == "__main__":
    if Path(sys.argv[0]).name == "systemctl" and sys.argv[1] == "reload" and (code := reload(sys.argv[2])) is not None:
        sys.exit(code)
    if Path(sys.argv[0]).name == "systemctl":
        sys.exit(ask(sys.argv[1:]))
    serve(sys.argv[2])
