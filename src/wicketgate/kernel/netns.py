"""Network namespaces pinned by name under /run/netns, as ip-netns(8) does, so that `ip netns exec NAME` works on them.

A namespace is a property of a thread: `entered` switches the calling thread and back.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from wicketgate.model import FabricError

PINS = Path("/run/netns")
HERE = ""
"""In the place of a name: the namespace that the calling thread is in, the host's for netd."""

CLONE_NEWNET = 0x40000000
MS_BIND = 4096
MS_REC = 16384
MS_SHARED = 1 << 20
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)
_T = TypeVar("_T")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise FabricError(f"{what}: {os.strerror(number)}")


def names() -> set[str]:
    """The pinned namespaces."""
    return {path.name for path in PINS.iterdir()} if PINS.is_dir() else set()


def exists(name: str) -> bool:
    """Whether there is a pinned namespace of this name."""
    return _is_pinned(PINS / name)


def create(name: str) -> None:
    """Make and pin a namespace; nothing happens if it is there. Raises FabricError."""
    pin = PINS / name
    if _is_pinned(pin):
        return
    try:
        PINS.mkdir(mode=0o755, parents=True, exist_ok=True)
        if not any(PINS.iterdir()):
            _make_mount_point()
        pin.touch(mode=0o444)
    except OSError as error:
        raise FabricError(f"cannot pin network namespace {name}: {error.strerror}") from error

    def make() -> None:
        _check(_libc.unshare(CLONE_NEWNET), f"cannot make network namespace {name}")
        source = f"/proc/self/task/{threading.get_native_id()}/ns/net".encode()
        _check(_libc.mount(source, bytes(pin), b"none", MS_BIND, None), f"cannot pin network namespace {name}")

    in_thread(make)


def delete(name: str) -> None:
    """Unpin a namespace; the kernel removes it, links and all, once no process and no socket is in it."""
    pin = PINS / name
    _libc.umount2(bytes(pin), MNT_DETACH)
    try:
        pin.unlink(missing_ok=True)
    except OSError as error:
        raise FabricError(f"cannot remove {pin}, which is no pin of ours: {error.strerror}") from error


def _make_mount_point() -> None:
    """Have the directory be a mount of its own, as the first `ip netns add` would.

    Made later it would be bound over itself with all pins in it, and those below could not be removed any more (EBUSY).
    """
    if _libc.mount(b"", bytes(PINS), b"none", MS_SHARED | MS_REC, None) != 0:  # no mount point yet
        _libc.mount(bytes(PINS), bytes(PINS), b"none", MS_BIND | MS_REC, None)
        _libc.mount(b"", bytes(PINS), b"none", MS_SHARED | MS_REC, None)


def _is_pinned(pin: Path) -> bool:
    """A pin is a file of nsfs; a plain file is what a killed `create` left behind."""
    return pin.exists() and pin.stat().st_dev != pin.parent.stat().st_dev


@contextmanager
def entered(name: str) -> Iterator[None]:
    """Run the body with this thread, and whatever it starts, in the namespace. Raises FabricError."""
    if name == HERE:
        yield
        return
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter(name)
        try:
            yield
        finally:
            _check(_libc.setns(home, CLONE_NEWNET), "cannot return from a network namespace")
    finally:
        os.close(home)


@contextmanager
def path_here() -> Iterator[str]:
    """A path by which ip(8), in whatever namespace, finds the one that the calling thread is in now."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield f"/proc/{os.getpid()}/fd/{home}"
    finally:
        os.close(home)


def enter(name: str) -> None:
    """Switch this thread to the namespace for good. Raises FabricError when there is none of that name."""
    try:
        there = os.open(PINS / name, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise FabricError(f"there is no network namespace {name}") from None
    try:
        _check(_libc.setns(there, CLONE_NEWNET), f"cannot enter network namespace {name}")
    finally:
        os.close(there)


def in_thread(work: Callable[[], _T]) -> _T:
    """Run `work` in a thread of its own, which takes its namespace to the grave, and return what it returns."""
    results: list[_T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001  # handed to the caller, whatever it is
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
