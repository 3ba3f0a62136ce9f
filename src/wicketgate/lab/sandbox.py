"""Run a command inside user, mount, network, IPC and pid namespaces of its own, with a /run of its own.

    top ── (lifeline) ── keeper ── init (pid 1 of the sandbox) ── command

Root maps every id, an ordinary user maps one: its own, to root inside. Whatever happens to `top`, SIGKILL included, the
kernel cleans up: `keeper` and `init` die with their parent, with pid 1 all processes of the sandbox, with them its
namespaces, links, rulesets and tmpfs.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import sys
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 2, 4, 8, 16384, 1 << 18
PR_SET_PDEATHSIG = 1

MARK = "WICKETGATE_SANDBOX"
"""Environment variable that is set inside: `all` when every id is mapped, `one` when only the caller's is."""

_libc = ctypes.CDLL(None, use_errno=True)


class SandboxError(Exception):
    """The sandbox cannot be made here; one line that says why and what would help."""


def inside() -> bool:
    """Whether this process runs in a sandbox."""
    return MARK in os.environ


def all_ids() -> bool:
    """Whether every user id is mapped in this sandbox (it was made by root)."""
    return os.environ.get(MARK) == "all"


def run(argv: list[str], environment: dict[str, str] | None = None) -> int:
    """Run a command in a new sandbox and return its exit code (128 + n for signal n). Raises SandboxError."""
    for descriptor in (0, 1, 2):  # closed by the caller: else the next socket would take its number
        with contextlib.suppress(OSError):
            os.fstat(descriptor)
            continue
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    everything = os.geteuid() == 0 and sum(count for _, count in _ranges("uid_map")) > 1
    ready_r, ready_w = os.pipe()  # keeper -> top: the user namespace is there, or an errno
    mapped_r, mapped_w = os.pipe()  # top -> keeper: ids are mapped; held open as the lifeline until top ends
    env = dict(os.environ if environment is None else environment)
    env[MARK] = "all" if everything else "one"
    keeper = os.fork()
    if keeper == 0:
        os.close(ready_r)
        os.close(mapped_w)
        _keep(argv, env, ready_w, mapped_r)
    os.close(ready_w)
    os.close(mapped_r)
    problem = os.read(ready_r, 16)
    os.close(ready_r)
    if problem != b"ok":
        os.waitpid(keeper, 0)
        raise SandboxError(_why_not(int(problem or b"0")))
    _map_ids(keeper, everything=everything)
    os.write(mapped_w, b"m")
    return _wait(keeper)


def _wait(keeper: int) -> int:
    """Wait for the keeper, passing on the signals by which people end programs."""

    def pass_on(number: int, _frame: object) -> None:
        os.kill(keeper, number)

    old = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGHUP)}
    # A terminal's Ctrl-C reaches the whole foreground group, the command included.
    old[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _, status = os.waitpid(keeper, 0)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _map_ids(pid: int, *, everything: bool) -> None:
    process = Path(f"/proc/{pid}")
    if everything:
        # A process that is itself in a user namespace can pass on only the ids it has.
        for kind in ("uid_map", "gid_map"):
            (process / kind).write_text("".join(f"{first} {first} {count}\n" for first, count in _ranges(kind)))
        return
    (process / "setgroups").write_text("deny")
    (process / "uid_map").write_text(f"0 {os.geteuid()} 1")
    (process / "gid_map").write_text(f"0 {os.getegid()} 1")


def _ranges(kind: str) -> list[tuple[int, int]]:
    """(first id, count) of the ids that this process has: root in a sandbox made by an ordinary user has one."""
    lines = [line.split() for line in Path(f"/proc/self/{kind}").read_text().splitlines()]
    return [(int(first), int(count)) for first, _, count in lines]


def _why_not(number: int) -> str:
    cause = os.strerror(number) if number else "the process that tried ended"
    return (
        f"wicketgate: this kernel does not let uid {os.geteuid()} make a user namespace here ({cause}); needed are "
        "user.max_user_namespaces above 0, kernel.unprivileged_userns_clone=1 where that exists, and a root directory "
        "that is not a plain chroot (use pivot_root)"
    )


def _keep(argv: list[str], env: dict[str, str], ready: int, lifeline: int) -> None:
    """The keeper: makes the namespaces, starts init, passes its end on. Never returns."""
    flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWPID
    if _libc.unshare(flags) != 0:
        os.write(ready, str(ctypes.get_errno() or errno.EPERM).encode())
        os._exit(1)
    os.write(ready, b"ok")
    os.close(ready)
    if os.read(lifeline, 1) != b"m":
        os._exit(1)
    _die_with_parent(lifeline)
    init = os.fork()
    if init == 0:
        _die_with_parent(lifeline)
        _init(argv, env, lifeline)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda n, _frame: os.kill(init, n))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _, status = os.waitpid(init, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _die_with_parent(lifeline: int) -> None:
    """Have the kernel kill this process when its parent ends; the lifeline closes the race before this call."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.set_blocking(lifeline, False)
    try:
        if os.read(lifeline, 1) == b"":
            os._exit(1)
    except BlockingIOError:
        pass


def _init(argv: list[str], env: dict[str, str], lifeline: int) -> None:
    """Process 1: prepares the mounts, runs the command, reaps orphans. Never returns."""
    os.umask(0o022)  # what the lab lays out for processes of other ids must be theirs to read
    try:
        _mounts()
    except OSError as error:
        print(f"wicketgate: cannot prepare the sandbox's mounts: {error}", file=sys.stderr)
        os._exit(1)
    child = os.fork()
    if child == 0:
        os.close(lifeline)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        env["TMPDIR"] = "/run/tmp"
        try:
            os.execvpe(argv[0], argv, env)
        except OSError as error:
            print(f"wicketgate: {argv[0]}: {error.strerror}", file=sys.stderr)
            os._exit(127)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda n, _frame: os.kill(child, n))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            pid, status = os.wait()
        except InterruptedError:
            continue
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def _mounts() -> None:
    _mount("none", "/", "", MS_REC | MS_PRIVATE)
    _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    # Pins of namespaces, sockets, keys, logs, temporary files: all live here and go with the sandbox.
    _mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=2g")
    for path, mode in (("/run/netns", 0o755), ("/run/sshd", 0o755), ("/run/tmp", 0o1777), ("/run/lock", 0o1777)):
        Path(path).mkdir(mode=mode)
        Path(path).chmod(mode)


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    if _libc.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode()) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{os.strerror(number)} ({kind or 'remount'} on {target})")


def main() -> None:
    """`python -m wicketgate.lab.sandbox [--] COMMAND...`."""
    argv = sys.argv[2:] if sys.argv[1:2] == ["--"] else sys.argv[1:]
    if not argv:
        sys.exit("usage: python -m wicketgate.lab.sandbox [--] COMMAND [ARGUMENT ...]")
    try:
        sys.exit(run(argv))
    except SandboxError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
