"""The gateway's end of the dial channel: every answer finds its request, and no descriptor is ever lost."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
import uvloop

from wicketgate.gateway.netd_client import DialDenied, Dialled, NetdChannel, NetdUnavailable
from wicketgate.tunnel import DialReply, DialRequest

REQUEST = DialRequest(id=0, endpoint_id="eice-1", address="10.0.1.1", port=22, client_address="192.0.2.1")


class Netd:
    """The other end, played by hand."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(5)

    async def request(self) -> DialRequest:
        """The next request."""
        return msgspec.json.decode(await asyncio.to_thread(self.sock.recv, 65536), type=DialRequest)

    def grant(self, request_id: int, descriptors: int = 2) -> list[socket.socket]:
        """Grant a dial with so many descriptors; our ends of them, which read EOF once theirs are closed."""
        pairs = [socket.socketpair() for _ in range(descriptors)]
        theirs = [pair[1].fileno() for pair in pairs]
        reply = DialReply(id=request_id, source_address=f"10.9.9.{request_id % 250}")
        socket.send_fds(self.sock, [msgspec.json.encode(reply)], theirs)
        for _, end in pairs:
            end.close()
        for end, _ in pairs:
            end.settimeout(5)
        return [pair[0] for pair in pairs]


def run(test: Callable[[NetdChannel, Netd], Awaitable[None]]) -> None:
    """Run a test with both ends; afterwards no descriptor is left open."""

    async def main() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        channel = NetdChannel(ours)
        channel.start()
        try:
            await test(channel, Netd(theirs))
        finally:
            channel.close()
            theirs.close()

    uvloop.run(main())


def dialling(channel: NetdChannel, seconds: float = 5.0) -> asyncio.Task[Dialled | DialDenied]:
    """A dial under way."""
    return asyncio.ensure_future(channel.dial(REQUEST, seconds))


async def all_closed(ends: list[socket.socket]) -> None:
    """Assert that the other ends of these are closed."""
    for end in ends:
        assert await asyncio.to_thread(end.recv, 1) == b""
        end.close()


def test_answers_find_their_requests():
    """50 dials in flight, answered in reverse: each gets its own answer."""

    async def test(channel: NetdChannel, netd: Netd) -> None:
        tasks = [dialling(channel) for _ in range(50)]
        ids = [(await netd.request()).id for _ in tasks]
        assert len(set(ids)) == 50
        ends = [netd.grant(one) for one in reversed(ids)]
        for request_id, task in zip(ids, tasks, strict=True):
            answer = await task
            assert isinstance(answer, Dialled)
            assert answer.source_address == f"10.9.9.{request_id % 250}"
            assert not os.get_inheritable(answer.sock.fileno()) and not os.get_inheritable(answer.lease)
            answer.sock.close()
            os.close(answer.lease)
        await all_closed([end for pair in ends for end in pair])

    run(test)


def test_refusal_is_handed_on():
    """A refusal arrives with kind, words and errno."""

    async def test(channel: NetdChannel, netd: Netd) -> None:
        task = dialling(channel)
        request = await netd.request()
        netd.sock.send(msgspec.json.encode(DialReply(id=request.id, refused="connect", message="no", errno=101)))
        assert await task == DialDenied("connect", "no", 101)

    run(test)


def test_late_answer_is_closed():
    """After the timer the caller is told, and what comes later is closed."""

    async def test(channel: NetdChannel, netd: Netd) -> None:
        task = dialling(channel, 0.05)
        request = await netd.request()
        with pytest.raises(NetdUnavailable, match=r"did not answer within 0\.05 s"):
            await task
        await all_closed(netd.grant(request.id))

    run(test)


def test_cancelled_dial_is_closed():
    """A dial given up before or in the moment of its answer leaks nothing."""

    async def test(channel: NetdChannel, netd: Netd) -> None:
        early = dialling(channel)
        request = await netd.request()
        early.cancel()
        with pytest.raises(asyncio.CancelledError):
            await early
        await all_closed(netd.grant(request.id))
        task = dialling(channel)
        request = await netd.request()
        ends = netd.grant(request.id)
        channel._readable()  # the answer is here, and its task has not had its turn yet
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await all_closed(ends)

    run(test)


@pytest.mark.parametrize("descriptors", [1, 3, 8])
def test_wrong_number_of_descriptors(descriptors: int):
    """A grant with anything but two descriptors is no grant; all of them are closed."""

    async def test(channel: NetdChannel, netd: Netd) -> None:
        task = dialling(channel)
        request = await netd.request()
        ends = netd.grant(request.id, descriptors)
        with pytest.raises(NetdUnavailable, match=f"with {descriptors} descriptors"):
            await task
        await all_closed(ends)

    run(test)


def test_no_room_for_descriptors():
    """When the process has no descriptor left, that one dial fails; the channel lives, and the next one works."""

    async def test(channel: NetdChannel, netd: Netd) -> None:
        task = dialling(channel)
        request = await netd.request()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        ends = netd.grant(request.id)
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
        try:
            channel._readable()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        with pytest.raises(NetdUnavailable, match="with 0 descriptors"):
            await task
        await all_closed(ends)
        task = dialling(channel)
        request = await netd.request()
        ends = netd.grant(request.id)
        answer = await task
        assert isinstance(answer, Dialled)
        answer.sock.close()
        os.close(answer.lease)
        await all_closed(ends)

    run(test)


def test_answer_that_is_none():
    """Garbage with descriptors is closed and logged; the channel goes on."""

    async def test(channel: NetdChannel, netd: Netd) -> None:
        task = dialling(channel)
        request = await netd.request()
        ours, theirs = socket.socketpair()
        socket.send_fds(netd.sock, [b"nonsense"], [theirs.fileno()])
        theirs.close()
        await all_closed([ours])
        netd.sock.send(msgspec.json.encode(DialReply(id=request.id, refused="limit", message="20")))
        assert await task == DialDenied("limit", "20")

    run(test)


def test_netd_gone():
    """When netd goes, whoever waits is told at once, and so is everyone after."""

    async def test(channel: NetdChannel, netd: Netd) -> None:
        task = dialling(channel)
        await netd.request()
        netd.sock.close()
        for _ in range(2):
            with pytest.raises(NetdUnavailable, match=r"netd is not running|broke"):
                await task
            task = dialling(channel)
        task.cancel()

    run(test)


def test_full_channel():
    """More requests than the socket holds wait their turn; none is lost, none blocks the loop."""

    async def test(channel: NetdChannel, netd: Netd) -> None:
        tasks = [dialling(channel) for _ in range(2000)]
        await asyncio.sleep(0)
        for _ in tasks:
            request = await netd.request()
            netd.sock.send(msgspec.json.encode(DialReply(id=request.id, refused="limit", message="20")))
        assert all(answer == DialDenied("limit", "20") for answer in await asyncio.gather(*tasks))

    run(test)


def test_a_new_worker_takes_no_answer_of_the_old_one():
    """Ids start anywhere: an answer left over on the inherited socket matches no request of the next worker."""
    starts = set()

    async def test(channel: NetdChannel, netd: Netd) -> None:
        task = dialling(channel)
        starts.add((await netd.request()).id)
        task.cancel()

    for _ in range(5):
        run(test)
    assert len(starts) == 5 and min(starts) > 1_000_000


def test_no_descriptor_is_left(tmp_path: Path):
    """All of the above again and again: as many descriptors as before."""
    test_answers_find_their_requests()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        test_answers_find_their_requests()
        test_late_answer_is_closed()
        test_cancelled_dial_is_closed()
        test_wrong_number_of_descriptors(3)
        test_answer_that_is_none()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
