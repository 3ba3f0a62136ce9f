"""Who follows the API process: in which order they are told, who is cut off, and that nobody misses a Change."""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import ClassVar

import msgspec
import pytest

from wicketgate import followers as followers_module
from wicketgate import ipc
from wicketgate.followers import Followers, Role
from wicketgate.model import AccessKey, Change, User, Vpc, World, apply_change

NETD = Role("netd", frozenset({"user", "access-key"}), required=True)
GATEWAY = Role("gateway", frozenset(), opened=True)
OPENING = ipc.Opening(certificate=b"certificate", key=b"key")
FIRST = World(revision=7, vpcs=(Vpc(id="vpc-1", cidr_block="10.0.0.0/16"),))


class Peer(threading.Thread):
    """The other end of a connection: follows, unless told to do something else with an Update."""

    def __init__(self, followers, role, **ways):
        super().__init__(daemon=True)
        self.ways = ways
        self.world, self.opening = None, None
        self.revisions = []
        self.times = {}
        self.current = threading.Event()
        self.ended = threading.Event()
        ours, self.sock = socket.socketpair()
        followers._roles = {os.geteuid(): role}
        followers.accept(ours)
        self.start()

    def run(self):
        try:
            while True:
                self.take(ipc.read_frame(self.sock))
        except (EOFError, OSError):
            self.ended.set()

    def take(self, update):
        if update == ipc.CURRENT:
            self.current.set()
        elif update[:1] == b"O":
            self.opening = msgspec.json.decode(update[1:], type=ipc.Opening)
            self.sock.sendall(ipc.acknowledgement(0))
        else:
            self.follow(ipc.updated(self.world, update))

    def follow(self, world):
        self.times[world.revision] = time.monotonic()
        way = self.ways.get(f"at{world.revision}")
        if way is not None:
            self.world = way(self, world) or self.world
            return
        self.world = world
        self.revisions.append(world.revision)
        self.sock.sendall(ipc.acknowledgement(world.revision))

    def joined(self):
        assert self.current.wait(5)
        return self


def refuse(words):
    def way(peer, _world):
        peer.sock.sendall(ipc.failure(words))

    return way


def say(data):
    def way(peer, _world):
        peer.sock.sendall(data)

    return way


def end(peer, _world):
    peer.sock.shutdown(socket.SHUT_RDWR)


def wait(peer, world):
    """Acknowledge when told."""
    peer.reached.set()
    assert peer.free.wait(10)
    peer.revisions.append(world.revision)
    peer.sock.sendall(ipc.acknowledgement(world.revision))
    return world


@pytest.fixture
def followers():
    return Followers(FIRST, {}, OPENING, patience=1.0, missing=0.5)


def change(world, number):
    """The next World, and how it comes to be."""
    made = Change(puts=(Vpc(id=f"vpc-new{number}", cidr_block="10.9.0.0/16"),), time=1.0)
    return apply_change(world, made), made


def test_newcomers_get_the_world(followers):
    """Each gets the whole World and is told that it is current; a gateway what TLS needs before; netd no secret."""
    secret = msgspec.structs.replace(
        FIRST, users=(User(name="a", id="AIDAA"),), access_keys=(AccessKey(id="AKIA", secret="hidden", user_name="a"),)
    )
    followers.enforce(secret, None)
    netd, gateway = Peer(followers, NETD).joined(), Peer(followers, GATEWAY).joined()
    assert netd.opening is None
    assert gateway.opening == OPENING
    assert (netd.world.vpcs, netd.world.users, netd.world.access_keys) == (FIRST.vpcs, (), ())
    assert gateway.world == secret


@pytest.mark.parametrize(
    ("role", "told"),
    [(followers_module.NETD, False), (followers_module.METADATA, False), (followers_module.GATEWAY, True)],
    ids=lambda one: getattr(one, "name", ""),
)
def test_secret_keys_go_to_gateways_alone(role, told):
    """Nobody else decides by them; metadata answers machines, and one of those may come to be its master."""
    key = AccessKey(id="AKIA", secret="hidden", user_name="a")
    world = msgspec.structs.replace(FIRST, users=(User(name="a", id="AIDAA"),), access_keys=(key,))
    change = Change(puts=(msgspec.structs.replace(key, id="AKIB"),), time=1.0)
    assert (b"hidden" in role.update(world, None)) is told
    assert (b"hidden" in role.update(apply_change(world, change), change)) is told


def test_netd_first_then_all_at_once(followers):
    """A Change comes to the others when netd has followed, and to all of them before one has answered."""
    netd = Peer(followers, NETD).joined()
    slow = [Peer(followers, GATEWAY, at8=lambda peer, world: time.sleep(0.2) or wait(peer, world)) for _ in range(3)]
    for peer in slow:
        peer.reached, peer.free = threading.Event(), threading.Event()
        peer.free.set()
        peer.joined()
    began = time.monotonic()
    after, made = change(FIRST, 1)
    followers.enforce(after, made)
    assert time.monotonic() - began < 0.45
    assert netd.times[8] < min(peer.times[8] for peer in slow)
    assert [peer.revisions for peer in (netd, *slow)] == [[7, 8]] * 4


def test_refused_by_netd(followers):
    """A Change that netd refuses is told to nobody else; the inverse one is in force for all."""
    netd = Peer(followers, NETD, at8=refuse("no such device")).joined()
    gateway = Peer(followers, GATEWAY).joined()
    after, made = change(FIRST, 1)
    with pytest.raises(ipc.FeedRefusal, match="netd did not apply revision 8: no such device"):
        followers.enforce(after, made)
    assert gateway.revisions == [7]
    restored = msgspec.structs.replace(FIRST, revision=9)
    followers.enforce(restored, None)
    assert (netd.revisions, gateway.revisions) == ([7, 9], [7, 9])
    assert netd.world == restored


def test_no_netd(followers):
    """Without netd a Change is refused after a while, in words, then at once; one that comes meanwhile follows it."""
    gateway = Peer(followers, GATEWAY).joined()
    after, made = change(FIRST, 1)
    began = time.monotonic()
    for _ in range(3):
        with pytest.raises(ipc.FeedRefusal, match="netd does not follow"):
            followers.enforce(after, made)
    assert time.monotonic() - began < 1.0
    followers.enforce(msgspec.structs.replace(FIRST, revision=9), None)  # undone: that asks nobody's leave
    assert gateway.revisions == [7, 9]
    netd = Peer(followers, NETD).joined()
    followers.enforce(*change(msgspec.structs.replace(FIRST, revision=9), 2))
    assert netd.revisions == [9, 10]


def test_netd_ends_over_a_change(followers):
    """The next netd gets the World before and then the Change: it counts if that one follows."""
    Peer(followers, NETD, at8=end).joined()
    after, made = change(FIRST, 1)
    threading.Timer(0.2, lambda: found.append(Peer(followers, NETD))).start()
    found = []
    followers.enforce(after, made)
    assert found[0].revisions == [7, 8]


@pytest.mark.parametrize(
    "way",
    [
        pytest.param(end, id="ends"),
        pytest.param(lambda peer, world: None, id="silent"),
        pytest.param(say(ipc.acknowledgement(99)), id="other revision"),
        pytest.param(say(ipc.acknowledgement(8) + b"more"), id="more than an answer"),
        pytest.param(say(ipc.REVISION.pack(ipc.FAILED) + ipc.LENGTH.pack(1 << 30) + b"x" * 100_000), id="long words"),
        pytest.param(refuse("what is this?"), id="refuses"),
    ],
)
def test_cut_off(followers, way):
    """A follower that does not follow is cut off within its time, the Change counts, and others are not held up."""
    netd = Peer(followers, NETD).joined()
    bad, good = Peer(followers, GATEWAY, at8=way).joined(), Peer(followers, GATEWAY).joined()
    began = time.monotonic()
    world, made = change(FIRST, 1)
    followers.enforce(world, made)
    assert time.monotonic() - began < 1.5
    assert bad.ended.wait(2)
    began = time.monotonic()
    followers.enforce(*change(world, 2))
    assert time.monotonic() - began < 0.5
    assert [peer.revisions for peer in (netd, good)] == [[7, 8, 9]] * 2


def test_one_that_comes_again_to_say_nothing(followers, monkeypatch):
    """Each Change is held up for half as long as the one before, and for as long as ever once all have answered."""
    monkeypatch.setattr(followers_module, "LEAST_PATIENCE", 0.1)
    Peer(followers, NETD).joined()
    world, took = FIRST, []
    for number in range(6):
        Peer(followers, GATEWAY, **{f"at{8 + number}": say(b"")}).joined()
        world, made = change(world, number)
        began = time.monotonic()
        followers.enforce(world, made)
        took.append(time.monotonic() - began)
    assert 0.9 < took[0] < 1.5
    assert all(least <= one < least + 0.3 for one, least in zip(took, (1.0, 0.5, 0.25, 0.125, 0.1, 0.1), strict=True))
    Peer(followers, GATEWAY).joined()
    for number in range(6, 12):
        world, made = change(world, number)
        followers.enforce(world, made)
    assert followers._patience_left() == 1.0


def test_one_that_does_not_read(followers):
    """A World larger than any socket buffer, sent to one that never reads, holds the others up for its time alone."""
    Peer(followers, NETD).joined()
    deaf, good = Peer(followers, GATEWAY), Peer(followers, GATEWAY).joined()
    deaf.joined()
    deaf.take = lambda _update: time.sleep(3)
    followers.enforce(*change(FIRST, 1))  # which it is busy with
    large = msgspec.structs.replace(
        FIRST, revision=9, vpcs=(Vpc(id="vpc-1", cidr_block="10.0.0.0/16", tags={"a": "x" * 5_000_000}),)
    )
    began = time.monotonic()
    followers.enforce(large, None)
    assert time.monotonic() - began < 1.5
    assert good.world == large


def test_newcomer_neither_misses_nor_blocks(followers):
    """While one takes in its first World, Changes are acknowledged; it gets each of them before it is current."""
    netd = Peer(followers, NETD).joined()
    slow = Peer.__new__(Peer)
    reached, free = threading.Event(), threading.Event()
    slow.reached, slow.free = reached, free
    slow.__init__(followers, GATEWAY, at7=wait)
    assert reached.wait(5)
    world = FIRST
    for number in range(5):
        world, made = change(world, number)
        followers.enforce(world, made)
    assert netd.revisions == [7, 8, 9, 10, 11, 12]
    assert not slow.current.is_set()
    free.set()
    slow.joined()
    assert slow.revisions == [7, 8, 9, 10, 11, 12]
    assert slow.world == world


def test_newcomers_under_load(followers):
    """Who comes while Changes follow each other without a pause gets every one once, in order."""
    Peer(followers, NETD).joined()
    peers, ending = [], threading.Event()

    def come():
        while not ending.is_set():
            peers.append(Peer(followers, Role("metadata", frozenset(), most=1000)))
            time.sleep(0.01)

    coming = threading.Thread(target=come)
    coming.start()
    world = FIRST
    for number in range(150):
        world, made = change(world, number)
        followers.enforce(world, made)
    ending.set()
    coming.join()
    for peer in peers:
        peer.joined()
        assert peer.revisions == list(range(peer.revisions[0], 158)), peer.revisions
        assert peer.world == world


def test_strangers(followers):
    """Who has no role is closed without a word, and so is one too many of a role."""
    ours, theirs = socket.socketpair()
    followers.accept(ours)
    assert theirs.recv(1) == b""
    few = Role("metadata", frozenset(), most=2)
    Peer(followers, few).joined()
    second = Peer(followers, few).joined()
    assert Peer(followers, few).ended.wait(2)
    second.sock.shutdown(socket.SHUT_RDWR)  # ended: there is room again
    assert Peer(followers, few).joined()


def test_many_strangers_are_logged_once(followers, caplog):
    """The socket is there for every user of the host: who only wants to fill the log does not."""
    for _ in range(100):
        ours, theirs = socket.socketpair()
        followers.accept(ours)
        assert theirs.recv(1) == b""
        theirs.close()
    assert [record.getMessage() for record in caplog.records] == [
        f"connections of nobody who follows closed: 1, the last one user {os.geteuid()}'s"
    ]


class Counted(Role):
    """A role that counts how often a whole World is written for it."""

    written: ClassVar[list[int]] = []

    def update(self, world, change):
        self.written.append(world.revision)
        return super().update(world, change)


def test_many_newcomers_share_what_they_are_told(followers):
    """A gateway in wrong hands may connect as often as there is room, and read nothing: it costs one World."""
    role = Counted("gateway", frozenset({"user"}), most=100)
    followers._roles = {os.geteuid(): role}
    pairs = [socket.socketpair() for _ in range(100)]
    for ours, _ in pairs:
        followers.accept(ours)
    for _, theirs in pairs:
        assert ipc.updated(None, ipc.read_frame(theirs)).revision == FIRST.revision
        theirs.close()
    assert role.written == [FIRST.revision]
