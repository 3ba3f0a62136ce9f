"""Connections handed on to the API process: who is gone keeps no place. Real sockets."""

import asyncio

import uvloop

from wicketgate.gateway import handover


class Given(asyncio.Protocol):
    """The client's connection as the gateway has it before it is handed on."""

    def __init__(self, made):
        self.made = made

    def connection_made(self, transport):
        transport.pause_reading()
        self.made.set_result(transport)


def test_a_client_that_is_gone_already(tmp_path):
    """Nothing is asked of the API process, and no place is kept."""

    async def scenario():
        loop = asyncio.get_running_loop()
        made = loop.create_future()
        server = await loop.create_server(lambda: Given(made), "127.0.0.1", 0)
        await asyncio.open_connection(*server.sockets[0].getsockname())
        transport = await made
        transport.abort()
        await asyncio.sleep(0.05)
        client = handover.ClientSide(transport)
        await asyncio.wait_for(handover.hand_on(client, str(tmp_path / "none"), "192.0.2.7", "", b""), 5)

    uvloop.run(scenario())


def test_nobody_takes_all_places():
    """One address, and one IPv6 /64, gets 128 places; others still get theirs, 1,024 in all; what ends is free."""
    places = handover.Places()
    assert [places.take("192.0.2.1") for _ in range(129)] == [True] * 128 + [False]
    assert [places.take(f"2001:db8::{number:x}") for number in range(1, 130)] == [True] * 128 + [False]
    assert places.take("2001:db8:0:1::1")
    for number in range(2, 8):
        assert all(places.take(f"192.0.2.{number}") for _ in range(128 if number < 7 else 127))
    assert not places.take("198.51.100.1")
    places.give_back("192.0.2.1")
    assert places.take("198.51.100.1")
