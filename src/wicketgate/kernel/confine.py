"""Give up every privilege, for good: what faces the network runs after this.

Afterwards the process has an id that owns nothing, no capability in any namespace, no way to regain one (no_new_privs),
and an empty network namespace of its own: it can use the sockets it was handed and open none that leads anywhere.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from pathlib import Path

from wicketgate.model import FabricError

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
LINUX_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def confine(user_id: int) -> None:
    """Drop everything. Must run while the process has one thread. Raises FabricError.

    Where `user_id` is not mapped (a namespace with one id) the process goes into a user namespace of its own, in which
    its one id carries that number and which gives it no capability over anything outside.
    """
    mapped = _is_mapped(user_id)
    outer = os.geteuid(), os.getegid()
    _call("unshare", CLONE_NEWNET if mapped else CLONE_NEWNET | CLONE_NEWUSER)
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    if mapped:
        for capability in range(last + 1):
            _call("prctl", PR_CAPBSET_DROP, capability, 0, 0, 0)
        os.setgroups([])
        os.setresgid(user_id, user_id, user_id)
        os.setresuid(user_id, user_id, user_id)
    else:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user_id} {outer[0]} 1")
        Path("/proc/self/gid_map").write_text(f"{user_id} {outer[1]} 1")
        for capability in range(last + 1):
            _call("prctl", PR_CAPBSET_DROP, capability, 0, 0, 0)
    _call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # its memory holds everybody's secret access keys
    _drop_capabilities()


def _is_mapped(user_id: int) -> bool:
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        first, _, count = (int(part) for part in line.split())
        if first <= user_id < first + count:
            return True
    return False


def _drop_capabilities() -> None:
    header = (ctypes.c_uint32 * 2)(LINUX_CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)()
    _call("capset", header, data)


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        raise FabricError(f"cannot give up privileges: {name}: {os.strerror(ctypes.get_errno())}")


def main() -> None:
    """`python -m wicketgate.kernel.confine UID COMMAND...`: confine, then become the command."""
    confine(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
