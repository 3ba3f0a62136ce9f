"""Framing on the Unix sockets between our own processes: one World feed each, and messages with descriptors.

    api ── feed ──> serve ── feed ──> netd, gateways, ...        with `Serve`
    api ── feed ──> netd, gateways, ...                          without (`followers.py`)

The feed is a stream of frames (4 bytes length, big-endian). Each holds an Update: `W` and a whole World as JSON, or
`C`, 8 bytes of revision and a Change as JSON, which leads to that revision from the one before. The other side answers
each with 8 bytes, the revision now in force, or `2**64 - 1` followed by a frame with the error in UTF-8.

Without `Serve` two more frames come from the API process: `O` and an Opening, answered with revision 0, and `N`, which
is not answered: from here on no Change is acknowledged to anybody that this process has not followed.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from typing import Final

import msgspec

from wicketgate.model import Change, WicketgateError, World, WorldError, apply_change

LENGTH = struct.Struct("!I")
REVISION = struct.Struct("!Q")
FAILED = 2**64 - 1
MAX_MESSAGE = 16 * 1024
"""Bytes of one dial message; far above any request, far below the socket buffer."""
CURRENT: Final = b"N"
_CREDENTIALS: Final = struct.Struct("iII")
"""`struct ucred` (unix(7), SO_PEERCRED): process, user and group id."""


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """Read `size` bytes from a blocking stream socket; raises EOFError when the peer is gone."""
    chunks = bytearray()
    while len(chunks) < size:
        chunk = sock.recv(size - len(chunks))
        if not chunk:
            raise EOFError("the process at the other end is gone")
        chunks += chunk
    return bytes(chunks)


def read_frame(sock: socket.socket) -> bytes:
    """Read one length-prefixed frame; raises EOFError when the peer is gone."""
    (length,) = LENGTH.unpack(read_exactly(sock, LENGTH.size))
    return read_exactly(sock, length)


def frame(data: bytes) -> bytes:
    """`data` as one frame."""
    return LENGTH.pack(len(data)) + data


def take_frame(data: bytearray) -> bytes | None:
    """Take the first frame out of what was read so far; None when it is not whole yet."""
    if len(data) < LENGTH.size:
        return None
    end = LENGTH.size + LENGTH.unpack_from(data)[0]
    if len(data) < end:
        return None
    taken = bytes(data[LENGTH.size : end])
    del data[:end]
    return taken


def peer_uid(sock: socket.socket) -> int:
    """Whose process is at the other end of a Unix socket; of a listener's, who made it listen last (unix(7))."""
    found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(found)[1])


def connect(path: str, kind: int, owner: int) -> socket.socket:
    """A non-blocking Unix socket of this kind to who listens at `path`; raises OSError, also for a full queue.

    That has to be a process of user `owner`, or root, who made the socket for it: PermissionError otherwise.
    """
    sock = socket.socket(socket.AF_UNIX, kind)
    try:
        sock.setblocking(False)
        sock.connect(path)
        found = peer_uid(sock)
        if found not in (0, owner):
            raise PermissionError(f"user {found} listens there instead of user {owner}")
    except OSError:
        sock.close()
        raise
    return sock


def ready() -> None:
    """Tell who started this process that it does its work now, if it wants to know (sd_notify(3))."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
            sock.connect(f"\0{path[1:]}" if path.startswith("@") else path)
            sock.send(b"READY=1")


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """What the API process says first on its feed: what it takes its store to know. Acknowledged as 0.

    To `Serve` as JSON and nothing else, to a gateway as a frame `O` with what TLS needs.
    """

    certificate: bytes = b""
    """PEM; empty when the operator has files."""
    key: bytes = b""
    ca: bytes = b""
    signer_chain: bytes = b""
    """PEM: what instance metadata shows of the signer of pushed SSH keys."""
    signer_root: bytes = b""
    """PEM: what instances pin to check it."""
    root_access_key_id: str = ""
    """A root credential that was made and has not been shown; else empty."""
    root_secret_access_key: str = ""


def opening(said: Opening) -> bytes:
    """The frame that a gateway gets before its first World."""
    return b"O" + msgspec.json.encode(said)


def whole(world: World) -> bytes:
    """An Update that replaces whatever the other side has."""
    return b"W" + world.to_json()


def step(revision: int, change: Change) -> bytes:
    """An Update to `revision` from the one before."""
    return b"C" + REVISION.pack(revision) + change.to_json()


def read_update(world: World | None, update: bytes) -> tuple[World, Change | None]:
    """The World after an Update, and the Change if it was one. Raises WorldError for what cannot be read or applied."""
    kind, data = update[:1], update[1:]
    if kind == b"W":
        return World.from_json(data), None
    if kind != b"C" or world is None or len(data) < REVISION.size:
        raise WorldError("an update is neither a World nor a Change of a known one")
    (revision,) = REVISION.unpack_from(data)
    if revision != world.revision + 1:
        raise WorldError(f"a Change to revision {revision} came while revision {world.revision} is in force")
    change = Change.from_json(data[REVISION.size :])
    return apply_change(world, change), change


def updated(world: World | None, update: bytes) -> World:
    """The World after an Update. Raises WorldError."""
    return read_update(world, update)[0]


def acknowledgement(revision: int) -> bytes:
    """The answer of a process that now enforces `revision`."""
    return REVISION.pack(revision)


def failure(message: str) -> bytes:
    """The answer of a process that could not apply what it was sent."""
    return REVISION.pack(FAILED) + frame(message.encode())


def read_answer(sock: socket.socket) -> int:
    """Read an answer to a World: the revision. Raises RuntimeError with the other side's words, EOFError when gone."""
    (revision,) = REVISION.unpack(read_exactly(sock, REVISION.size))
    if revision == FAILED:
        raise RuntimeError(read_frame(sock).decode())
    return int(revision)


class FeedError(WicketgateError):
    """A process is gone, or does not keep to the protocol."""


class FeedSilence(FeedError):
    """A process did not answer in time."""


class FeedRefusal(FeedError):
    """A process could not apply a World and said why."""


class Feed:
    """Our end of one process's World feed. One thread at a time."""

    def __init__(self, name: str, sock: socket.socket, patience: float) -> None:
        """`name` of the process, for words; `patience`: seconds it may take to enforce a World."""
        self.name = name
        self._sock = sock
        self._sock.settimeout(patience)

    def enforce(self, world: World, change: Change | None) -> None:
        """Have `world` enforced, to which `change` leads from the one before; None: from whatever. Raises FeedError."""
        update = whole(world) if change is None else step(world.revision, change)
        self.publish(world.revision, update)

    def publish(self, revision: int, update: bytes) -> None:
        """Have the process enforce the World after an Update, which has this revision, and wait until it does.

        Raises FeedRefusal with the process's own words: it goes on with the World before. Raises FeedError when it does
        not answer as it should: the feed is closed then, because an answer that comes late would be taken for the
        answer to the next World; the process ends with its feed and has to be started again.
        """
        self.begin(revision, update)
        self.finish(revision)

    def begin(self, revision: int, update: bytes) -> None:
        """The first half of `publish`: send it. Several processes can be at work before the first one is waited for."""
        try:
            self._sock.sendall(frame(update))
        except OSError as error:
            self.close()
            raise FeedError(f"{self.name} did not apply revision {revision}: {error}") from error

    def finish(self, revision: int) -> None:
        """The second half: wait until the process enforces the revision that `begin` sent."""
        try:
            answered = read_answer(self._sock)
        except RuntimeError as error:
            raise FeedRefusal(f"{self.name} did not apply revision {revision}: {error}") from error
        except (OSError, EOFError) as error:
            self.close()
            raise FeedError(f"{self.name} did not apply revision {revision}: {error}") from error
        if answered != revision:
            self.close()
            raise FeedError(f"{self.name} answered revision {answered} to {revision}")

    def wait_for_end(self) -> None:
        """Return when the other side is gone; for a thread of its own, beside the one that publishes."""
        poll = select.poll()
        poll.register(self._sock, select.POLLRDHUP)  # and, always, POLLHUP and POLLERR
        poll.poll()

    def close(self) -> None:
        """End the feed, and with it the process."""
        self._sock.close()
