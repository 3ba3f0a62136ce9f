"""Who follows what the API process commits, where there is no `Serve`: they connect, and are told.

    comes ── hello: Opening, World, what was committed meanwhile ──> current ── each Change ──> cut off, or ends
                                  (a thread of its own)              (told `N`)   (all at once)

netd is told first and is required: what it does not follow is not in force. Then all others at once. A follower that
fails, is silent or says nonsense is cut off; it connects again and gets the whole World. A newcomer blocks nobody: it
is told what was committed while it took in the World, and counts from the moment when nothing is left to tell.
"""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from wicketgate import ipc
from wicketgate.model import KINDS, Change, World
from wicketgate.model.change import FIELDS, kind_of

_logger = logging.getLogger("wicketgate.feed")

IDENTITIES: Final = frozenset({"user", "user-group", "role", "policy", "access-key"})
"""Kinds that only those need to know who decide by them."""
INSIGHTS: Final = frozenset({"network-insights-path", "network-insights-analysis", "machine-credential"})
"""Kinds that only the API process has a use for."""
NETD_NEEDS_NOT: Final = IDENTITIES | INSIGHTS | {"pushed-key", "prefix-list-version"}
GATEWAY_NEEDS_NOT: Final = INSIGHTS | {"pushed-key", "prefix-list-version"}
METADATA_NEEDS_NOT: Final = IDENTITIES | INSIGHTS | {"prefix-list-version"}

ACKNOWLEDGE_SECONDS: Final = 30.0
"""How long a process may take to enforce a World before it is held to be stuck."""
LEAST_PATIENCE: Final = 1.0
"""Seconds for an answer, at least, once one after the other gave none. Each silence halves the time for the next."""
MISSING_SECONDS: Final = 10.0
"""How long a Change waits for a required follower that is not there."""
STRANGERS_SECONDS: Final = 60.0
"""How often it is logged that strangers connect: any user of the host may, as often as he likes."""
_BACKLOG: Final = 128
_MAX_WORDS: Final = 64 * 1024
"""Bytes of a refusal; more are nonsense."""


@dataclass(frozen=True)
class Role:
    """What a kind of follower is told."""

    name: str
    hidden: frozenset[str]
    """Kinds of resources that are none of its business."""
    required: bool = False
    """What it cannot follow is refused."""
    opened: bool = False
    """It gets the Opening first."""
    most: int = 4
    """How many there may be at a time."""

    def update(self, world: World, change: Change | None) -> bytes:
        """The Update to this World, by a Change from the one before, or from whatever."""
        if change is None:
            return ipc.whole(without(world, self.hidden))
        return ipc.step(world.revision, narrowed(change, self.hidden))


NETD: Final = Role("netd", NETD_NEEDS_NOT, required=True)
GATEWAY: Final = Role("gateway", GATEWAY_NEEDS_NOT, opened=True, most=512)
METADATA: Final = Role("metadata", METADATA_NEEDS_NOT)


def without(world: World, hidden: frozenset[str]) -> World:
    """The World without the resources of some kinds."""
    return msgspec.structs.replace(world, **{FIELDS[KINDS[kind]]: () for kind in hidden})


def narrowed(change: Change, hidden: frozenset[str]) -> Change:
    """The Change without the resources of some kinds."""
    return msgspec.structs.replace(
        change,
        puts=tuple(put for put in change.puts if kind_of(put) not in hidden),
        deletes=tuple(key for key in change.deletes if key[0] not in hidden),
    )


@dataclass(eq=False)
class Follower:
    """One connection."""

    role: Role
    sock: socket.socket
    owed: list[tuple[World, Change | None]] = field(default_factory=list)
    """What was committed while it was new."""


class Followers:
    """All of them, told by one thread at a time."""

    def __init__(
        self,
        world: World,
        roles: Mapping[int, Role],
        opening: ipc.Opening,
        *,
        patience: float = ACKNOWLEDGE_SECONDS,
        missing: float = MISSING_SECONDS,
    ) -> None:
        """`world` is in force; `roles`: user id -> what its processes are told. `patience` and `missing` in seconds."""
        self._world = world
        self._roles = roles
        self._opening = opening
        self._patience = patience
        self._missing = missing
        self._changed = threading.Condition()
        """Held while followers are told, so that none comes to be one meanwhile."""
        self._members: list[Follower] = []
        self._newcomers: list[Follower] = []
        self._since = time.monotonic()
        """When a required follower was seen last."""
        self._trouble = ""
        """Why the last required newcomer could not follow."""
        self._silences = 0
        """How often in a row somebody else than the required one gave no answer in time."""
        self._writing = threading.Lock()
        self._wholes: dict[frozenset[str], tuple[World, bytes]] = {}
        """The last World as it was written for each kind: many newcomers share the bytes."""
        self._strangers = 0
        """How many were closed since that was logged last."""
        self._strangers_logged = -STRANGERS_SECONDS

    # -- telling -------------------------------------------------------------------------------------------------------

    def enforce(self, world: World, change: Change | None) -> None:
        """Have `world` followed by all, `change` leading to it from the one before; returns when they do.

        Raises FeedRefusal when the required one cannot, or is not there: nobody else was told then. Without a Change
        the World is in force whatever happens: who cannot follow is cut off and gets it when it comes again.
        """
        with self._changed:
            if change is not None:
                self._require(world, change)
                rest = [one for one in self._members if not one.role.required]
            else:
                rest = list(self._members)
            self._world = world
            for newcomer in self._newcomers:
                newcomer.owed.append((world, change))
            failures = self._tell(rest, world, change, self._patience_left())
            if any(isinstance(error, ipc.FeedSilence) for error in failures.values()):
                self._silences += 1
            elif rest:
                self._silences = max(self._silences - 1, 0)
            for follower, error in failures.items():
                if isinstance(error, ipc.FeedRefusal):
                    self._cut_off(follower, error)

    def _patience_left(self) -> float:
        """Seconds: who comes again and again to say nothing is not to hold up each Change for as long as the first."""
        return max(self._patience / float(1 << self._silences), min(LEAST_PATIENCE, self._patience))

    def _require(self, world: World, change: Change) -> None:
        """Have the required one follow; one that ends over it gets one more chance when it is there again."""
        for _ in range(2):
            self._changed.wait_for(self._required, max(self._since + self._missing - time.monotonic(), 0.0))
            told = self._required()
            if not told:
                break
            failures = self._tell(told, world, change, self._patience)
            self._since = time.monotonic()
            for error in failures.values():
                if isinstance(error, ipc.FeedRefusal):
                    raise error
            if len(failures) < len(told):
                return
        why = f": {self._trouble}" if self._trouble else ""
        raise ipc.FeedRefusal(f"netd does not follow, and without it nothing would be enforced{why}")

    def _required(self) -> list[Follower]:
        return [one for one in self._members if one.role.required]

    def _tell(
        self, followers: Iterable[Follower], world: World, change: Change | None, patience: float
    ) -> dict[Follower, ipc.FeedError]:
        """Tell them all at once; who did not follow and why. Who did not refuse but broke is cut off."""
        updates: dict[frozenset[str], bytes] = {}  # written once for all of a kind
        talks = []
        for one in followers:
            if one.role.hidden not in updates:
                updates[one.role.hidden] = self._framed(one.role, world, change)
            talks.append(_Talk(one, world.revision, updates[one.role.hidden]))
        failures = _converse(talks, patience)
        for follower, error in failures.items():
            if not isinstance(error, ipc.FeedRefusal):
                self._cut_off(follower, error)
        return failures

    def _framed(self, role: Role, world: World, change: Change | None) -> bytes:
        """The frame with a role's Update."""
        if change is not None:
            return ipc.frame(role.update(world, change))
        with self._writing:
            kept, written = self._wholes.get(role.hidden, (None, b""))
            if kept is not world:
                written = ipc.frame(role.update(world, None))
                self._wholes[role.hidden] = world, written
            return written

    def _cut_off(self, follower: Follower, why: Exception) -> None:
        _logger.warning("%s is cut off: %s", follower.role.name, why)
        if follower in self._members:
            self._members.remove(follower)
        if follower.role.required:
            self._since, self._trouble = time.monotonic(), str(why)
        follower.sock.close()

    # -- newcomers -----------------------------------------------------------------------------------------------------

    def listen(self, listener: socket.socket) -> None:
        """Take followers from a socket that listens, in threads, as long as the process lives."""
        listener.setblocking(True)
        listener.listen(_BACKLOG)  # made to listen by us: now its peers see whose process we are
        threading.Thread(target=self._accept, args=(listener,), name="followers", daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError as error:  # out of descriptors or memory
                _logger.error("a follower cannot be accepted: %s", error.strerror)
                time.sleep(1.0)
                continue
            self.accept(sock)

    def accept(self, sock: socket.socket) -> None:
        """Take this connection, if it is of somebody who has a role and there is room for one more."""
        user = ipc.peer_uid(sock)
        role = self._roles.get(user)
        if role is None:
            sock.close()
            self._note_stranger(user)
            return
        sock.setblocking(False)
        newcomer = Follower(role, sock)
        with self._changed:
            self._forget_the_dead()
            there = sum(one.role is role for one in (*self._members, *self._newcomers))
            if there >= role.most:
                _logger.warning("there are %d followers that are %s already: one more is closed", there, role.name)
                sock.close()
                return
            self._newcomers.append(newcomer)
            newcomer.owed.append((self._world, None))
        threading.Thread(target=self._welcome, args=(newcomer,), name=f"welcome {role.name}", daemon=True).start()

    def _note_stranger(self, user: int) -> None:
        self._strangers += 1
        now = time.monotonic()
        if now - self._strangers_logged < STRANGERS_SECONDS:
            return
        _logger.warning("connections of nobody who follows closed: %d, the last one user %d's", self._strangers, user)
        self._strangers, self._strangers_logged = 0, now

    def _forget_the_dead(self) -> None:
        for one in list(self._members):
            try:
                said = one.sock.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                continue
            except OSError as error:
                self._cut_off(one, error)
            else:
                self._cut_off(one, ipc.FeedError("it speaks unasked" if said else "it has ended"))

    def _welcome(self, newcomer: Follower) -> None:
        try:
            if newcomer.role.opened:
                self._say(newcomer, 0, ipc.frame(ipc.opening(self._opening)))
            while not self._is_current(newcomer):
                with self._changed:
                    owed, newcomer.owed = newcomer.owed, []
                for world, change in owed:
                    self._say(newcomer, world.revision, self._framed(newcomer.role, world, change))
        except (ipc.FeedError, OSError) as error:
            with self._changed:
                self._newcomers.remove(newcomer)
                self._cut_off(newcomer, error)

    def _is_current(self, newcomer: Follower) -> bool:
        """Whether there is nothing left to tell it; it is a follower then, and told so."""
        with self._changed:
            if newcomer.owed:
                return False
            newcomer.sock.sendall(ipc.frame(ipc.CURRENT))
            self._newcomers.remove(newcomer)
            self._members.append(newcomer)
            if newcomer.role.required:
                self._trouble = ""
            self._changed.notify_all()
            return True

    def _say(self, newcomer: Follower, revision: int, framed: bytes) -> None:
        for error in _converse([_Talk(newcomer, revision, framed)], self._patience).values():
            raise error


# -- conversations -----------------------------------------------------------------------------------------------------


class _Talk:
    """One Update to one follower, and its answer."""

    def __init__(self, follower: Follower, revision: int, framed: bytes) -> None:
        self.follower = follower
        self._revision = revision
        self._unsent = memoryview(framed)
        self._answer = bytearray()

    @property
    def events(self) -> int:
        """What to wait for (poll(2))."""
        return select.POLLIN | (select.POLLOUT if self._unsent else 0)

    def go_on(self) -> bool:
        """Send and read what goes without waiting; whether it has followed. Raises FeedRefusal, FeedError, OSError."""
        while self._unsent:
            try:
                self._unsent = self._unsent[self.follower.sock.send(self._unsent) :]
            except BlockingIOError:
                break
        try:
            chunk = self.follower.sock.recv(_MAX_WORDS)
        except BlockingIOError:
            return False
        if not chunk:
            raise ipc.FeedError(f"{self._did_not} it ended")
        self._answer += chunk
        return self._understood()

    @property
    def _did_not(self) -> str:
        return f"{self.follower.role.name} did not apply revision {self._revision}:"

    def _understood(self) -> bool:
        if len(self._answer) < ipc.REVISION.size:
            return False
        (answered,) = ipc.REVISION.unpack_from(self._answer)
        rest = self._answer[ipc.REVISION.size :]
        if answered == ipc.FAILED and not self._unsent and len(rest) < _MAX_WORDS:
            words = ipc.take_frame(rest)
            if words is None:
                return False
            if not rest:
                raise ipc.FeedRefusal(f"{self._did_not} {words.decode(errors='replace')}")
        if answered != self._revision or rest or self._unsent:
            raise ipc.FeedError(f"{self._did_not} it answered nonsense")
        return True


def _converse(talks: Iterable[_Talk], seconds: float) -> dict[Follower, ipc.FeedError]:
    """Have all conversations at once, none longer than so many seconds; the followers that did not follow, and why."""
    deadline = time.monotonic() + seconds
    failures: dict[Follower, ipc.FeedError] = {}
    going = {talk.follower.sock.fileno(): talk for talk in talks}
    poll = select.poll()
    for descriptor, talk in going.items():
        poll.register(descriptor, talk.events)
    while going and (left := deadline - time.monotonic()) > 0:
        for descriptor, _ in poll.poll(left * 1000):
            talk = going[descriptor]
            try:
                if not talk.go_on():
                    poll.modify(descriptor, talk.events)
                    continue
            except ipc.FeedError as error:
                failures[talk.follower] = error
            except OSError as error:
                failures[talk.follower] = ipc.FeedError(f"{talk.follower.role.name}: {error.strerror or error}")
            poll.unregister(descriptor)
            del going[descriptor]
    for talk in going.values():
        failures[talk.follower] = ipc.FeedSilence(f"{talk.follower.role.name} did not answer within {seconds:g} s")
    return failures
