"""The API process's HTTP: limits of size and time, requests in a row, and what is no request. Real sockets, no TLS."""

import asyncio
import contextlib
import json
import socket
import struct

import pytest
import uvloop

from wicketgate.api.http import MAX_HEAD, MAX_LARGE, SMALL_BODY, Connection
from wicketgate.api.service import MAX_BODY, Reply

PEER = json.dumps({"source_ip": "192.0.2.7", "tls_version": "TLSv1.3"}).encode()
PREAMBLE = struct.pack("!H", len(PEER)) + PEER
SHORT = 0.1
"""Seconds that stand for the 30 of a request, or the 75 between two."""


def request(path="/", *headers, body=b"", method="POST", version="1.1"):
    """A request as bytes."""
    lines = [f"{method} {path} HTTP/{version}", "Host: api.test", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class Client:
    """One connection to a handler that tells what it was asked."""

    def __init__(self, connections=None, **times):
        self.connections = set() if connections is None else connections
        self.times = times
        self.asked = []
        self.slow = asyncio.Event()
        self.slow.set()
        self.padding = b""

    async def __aenter__(self):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: Connection(self._answer, self.connections, **self.times), theirs)
        self.reader, self.writer = await asyncio.open_unix_connection(sock=ours)
        self.writer.write(PREAMBLE)
        return self

    async def __aexit__(self, *_):
        self.writer.close()

    async def _answer(self, asked):
        self.asked.append(asked)
        await self.slow.wait()
        return Reply(
            200, (("Content-Type", "text/plain"),), f"{asked.method} {asked.path}?{asked.query}".encode() + self.padding
        )

    def send(self, *parts):
        """Put bytes on their way."""
        for part in parts:
            self.writer.write(part)

    async def answer(self):
        """Status, headers and body of the next answer."""
        head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)).decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await asyncio.wait_for(self.reader.readexactly(int(headers["content-length"])), 5)
        return int(head[0].split()[1]), headers, body.decode()

    async def ended(self):
        """Whether the server ends the connection, without a further byte."""
        try:
            return await asyncio.wait_for(self.reader.read(), 5) == b""
        except ConnectionError:  # it ended while we were sending
            return True


def played(scenario):
    """A test of an `async def scenario()`, in the loop that the API process runs in."""

    def test():
        uvloop.run(asyncio.wait_for(scenario(), 20))

    test.__doc__, test.__name__ = scenario.__doc__, scenario.__name__
    return test


@played
async def test_request():
    """A request is given whole, with who sent it; header names in lower case, repeated ones joined."""
    async with Client() as client:
        client.send(request("/x?a=b%20c&d", "X-Name:  one ", "x-name: two", body=b"abc"))
        status, headers, body = await client.answer()
        assert (status, headers["connection"], body) == (200, "keep-alive", "POST /x?a=b%20c&d")
        (asked,) = client.asked
        assert (asked.body, asked.headers["x-name"]) == (b"abc", "one,two")
        assert (asked.peer.source_ip, asked.peer.tls_version) == ("192.0.2.7", "TLSv1.3")


@played
async def test_byte_by_byte():
    """However the bytes come, the request is the same."""
    async with Client() as client:
        for byte in request("/", body=b"abc"):
            client.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await client.answer())[0] == 200
        assert client.asked[0].body == b"abc"


@played
async def test_one_after_the_other():
    """A connection is kept: nothing of a request is left for the next one."""
    async with Client() as client:
        client.send(request("/1", "X-One: 1", body=b"first"))
        assert (await client.answer())[2] == "POST /1?"
        client.send(request("/2"))
        assert (await client.answer())[2] == "POST /2?"
        assert client.asked[1].body == b""
        assert "x-one" not in client.asked[1].headers


@pytest.mark.parametrize(
    "head",
    [["Connection: close"], [], ["Connection: Upgrade", "Upgrade: h2c"]],
    ids=["asked for", "HTTP/1.0", "upgrade"],
)
def test_not_kept(head):
    """The connection ends after the answer when the client has it so, or wants to upgrade it."""

    async def scenario():
        async with Client() as client:
            client.send(request("/", *head, version="1.1" if head else "1.0"))
            status, headers, _ = await client.answer()
            assert (status, headers["connection"]) == (200, "close")
            assert await client.ended()

    uvloop.run(scenario())


@pytest.mark.parametrize("cut", [None, 5, 30, 46])
def test_pipelined(cut):
    """A second request before the first answer, whole or cut off anywhere: the first is answered, then it ends."""

    async def scenario():
        async with Client() as client:
            client.slow.clear()
            client.send(request("/1", body=b"first") + request("/2", "X-Two: 2", body=b"second")[:cut])
            await asyncio.sleep(0.01)
            client.slow.set()
            status, headers, body = await client.answer()
            assert (status, headers["connection"], body) == (200, "close", "POST /1?")
            assert await client.ended()
            (asked,) = client.asked
            assert (asked.path, asked.body, "x-two" in asked.headers) == ("/1", b"first", False)

    uvloop.run(scenario())


@played
async def test_early_in_a_second_read():
    """A second request that comes by itself while the first is answered is answered in its turn."""
    async with Client() as client:
        client.slow.clear()
        client.send(request("/1"))
        await asyncio.sleep(0.01)
        assert len(client.asked) == 1
        client.send(request("/2"))
        await asyncio.sleep(0.01)
        client.slow.set()
        assert [(await client.answer())[2] for _ in "12"] == ["POST /1?", "POST /2?"]


@played
async def test_garbage_after_a_request():
    """What follows a request and is none does not take away its answer."""
    async with Client() as client:
        client.send(request("/1") + b"\x00\x01 nonsense\r\n\r\n")
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert await client.ended()


@played
async def test_head_request():
    """HEAD is answered without a body, and its length."""
    async with Client() as client:
        client.send(request("/", method="HEAD"))
        head = await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 5)
        assert b"Content-Length: 7\r\n" in head
        client.send(request("/2", method="GET"))
        assert (await client.answer())[2] == "GET /2?"


@played
async def test_expectation():
    """Who waits for 100 Continue gets it, before the answer."""
    async with Client() as client:
        head, body = request("/", "Expect: 100-continue", body=b"abc")[:-3], b"abc"
        client.send(head)
        assert await asyncio.wait_for(client.reader.readexactly(25), 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(body)
        assert (await client.answer())[0] == 200


@played
async def test_chunks():
    """A chunked body is put together; its trailers are no headers."""
    async with Client() as client:
        head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.send(head + b"3\r\nabc\r\n", b"2;x=y\r\nde\r\n0\r\nX-Late: 1\r\nHost: b\r\n\r\n")
        assert (await client.answer())[0] == 200
        assert (client.asked[0].body, client.asked[0].headers["host"]) == (b"abcde", "a")
        assert "x-late" not in client.asked[0].headers


LONG = "x" * (MAX_HEAD + 1)
CHUNK = b"10000\r\n" + bytes(0x10000) + b"\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request("/" + LONG), 431),
        (request("/", f"X-Long: {LONG}"), 431),
        (request("/", *["a:"] * 9000), 431),
        (b"POST / HTTP/1.1\r\nX-Endless: " + bytes(4 * MAX_HEAD).replace(b"\0", b"x"), 431),
        (b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY + 1), 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNK * 17, 413),
        (b"GARBAGE\r\n\r\n", 400),
        (b"POST / HTTP/1.1\nHost: a\n\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nBad Name: 1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nX: a\x00b\r\n\r\n", 400),
    ],
    ids=[
        "long target",
        "long header",
        "many headers",
        "endless header",
        "large body",
        "large chunks",
        "garbage",
        "bare line feeds",
        "two lengths",
        "length and chunks",
        "unknown coding",
        "negative length",
        "space in a name",
        "control character",
    ],
)
def test_refused(data, status):
    """What is too large, or no request at all, is answered once and asked of nobody; then the connection ends."""

    async def scenario():
        async with Client() as client:
            client.send(data)
            answered, headers, body = await client.answer()
            assert (answered, headers["connection"]) == (status, "close")
            assert body.endswith("\n")
            assert await client.ended()
            assert client.asked == []

    uvloop.run(scenario())


@played
async def test_refusal_is_not_lost():
    """A client that goes on sending its large body can still read the answer."""
    async with Client() as client:
        client.send(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (64 * MAX_BODY))
        for _ in range(32):
            client.send(bytes(MAX_BODY))
            await client.writer.drain()
        assert (await client.answer())[0] == 413


@pytest.mark.parametrize(
    "start",
    [b"POST / HTTP/1.1\r\nHost: a", b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc"],
    ids=["head", "body"],
)
def test_slow_request(start):
    """A request that does not come to its end is answered 408, however steadily it comes."""

    async def scenario():
        async with Client(request_seconds=SHORT) as client:
            client.send(start)
            with pytest.raises(asyncio.TimeoutError):
                for _ in range(20):
                    await asyncio.wait_for(client.reader.readexactly(1), SHORT / 4)
            status, _, body = await client.answer()
            assert (status, body) == (408, f"The request did not arrive within {SHORT} s.\n")
            assert await client.ended()

    uvloop.run(scenario())


@pytest.mark.parametrize("drip", [b"\r\n", b""], ids=["blank lines", "nothing"])
def test_nothing_but(drip):
    """Who sends nothing, or only blank lines, is not waited for longer than for a request."""

    async def scenario():
        async with Client(request_seconds=SHORT) as client:
            began = asyncio.get_running_loop().time()

            async def dripping():
                while True:
                    client.send(drip)
                    await asyncio.sleep(SHORT / 5)

            task = asyncio.ensure_future(dripping())
            assert await client.ended()
            task.cancel()
            assert asyncio.get_running_loop().time() - began < 10 * SHORT

    uvloop.run(scenario())


@played
async def test_idle():
    """Between two requests there is another, longer time; then the connection ends without a word."""
    async with Client(request_seconds=30, idle_seconds=SHORT) as client:
        client.send(request())
        await client.answer()
        assert await client.ended()
        assert client.connections == set()


@played
async def test_answer_not_taken():
    """While an answer is not taken no further request is read: what is kept of answers stays bounded."""
    async with Client() as client:
        client.padding = bytes(8 * MAX_BODY)
        client.send(request())
        await asyncio.sleep(SHORT)
        client.send(request())
        await asyncio.sleep(SHORT)
        assert len(client.asked) == 1
        assert (await client.answer())[0] == 200
        assert (await client.answer())[0] == 200
        assert len(client.asked) == 2


@pytest.mark.parametrize("kept", ["keep-alive", "close"])
def test_answer_never_taken(kept):
    """A client that takes nothing of its answer any more is cut off."""

    async def scenario():
        async with Client(stall_seconds=SHORT) as client:
            client.padding = bytes(8 * MAX_BODY)
            client.send(request("/", f"Connection: {kept}"))
            await asyncio.sleep(10 * SHORT)
            assert client.connections == set()

    uvloop.run(asyncio.wait_for(scenario(), 20))


@played
async def test_answer_taken_slowly():
    """One that is slow but goes on gets all of it."""
    async with Client(stall_seconds=3 * SHORT) as client:
        client.padding = bytes(8 * MAX_BODY)
        client.send(request("/", "Connection: close"))
        got = 0
        while data := await client.reader.read(2 * MAX_BODY):
            got += len(data)
            await asyncio.sleep(SHORT / 10)
        assert got > 8 * MAX_BODY


@played
async def test_many_large_bodies():
    """Bodies are kept before it is known who sends them, so only so many large ones are taken at a time."""
    async with contextlib.AsyncExitStack() as stack:
        connections = set()
        clients = [await stack.enter_async_context(Client(connections)) for _ in range(MAX_LARGE + 2)]
        *many, one_more, small = clients
        begun = request(body=bytes(SMALL_BODY + 2))[:-1]
        for client in many:
            client.send(begun)
        await asyncio.sleep(SHORT)
        one_more.send(begun)
        status, _, body = await one_more.answer()
        assert (status, body) == (503, "Too many large requests at once.\n")
        small.send(request(body=bytes(SMALL_BODY)))
        assert (await small.answer())[0] == 200
        many[0].send(b"\0")
        assert (await many[0].answer())[0] == 200
        small.send(begun + b"\0")
        assert (await small.answer())[0] == 200, "there is room again"


@pytest.mark.parametrize("name", ["Host", "Authorization", "X-Amz-Target"])
def test_headers_that_come_once(name):
    """Of two such headers, two readers could mean different ones."""

    async def scenario():
        async with Client() as client:
            client.send(f"GET / HTTP/1.1\r\n{name}: a\r\n{name.lower()}: b\r\n\r\n".encode())
            status, _, body = await client.answer()
            assert (status, body) == (400, f"The request has more than one {name.lower()} header.\n")
            assert client.asked == []

    uvloop.run(scenario())
