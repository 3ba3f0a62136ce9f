"""The connections: who asks is looked up, a head is read, an answer is written; nothing an instance does costs much."""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
import time
from collections import Counter
from http import HTTPStatus
from pathlib import Path
from typing import Final

from wicketgate.metadata.answers import answer
from wicketgate.metadata.http import MAX_HEAD, BadRequest, Response, parse, render
from wicketgate.metadata.tokens import Tokens
from wicketgate.metadata.tree import Tree, tree
from wicketgate.model import Instance, World

HEAD_SECONDS: Final = 5.0
"""For a request's head to come, and for an answer to be taken."""
MAX_CONNECTIONS: Final = 32
"""Of one instance at a time; further ones are closed."""
HOP_LIMIT: Final = 1
"""IP TTL, or IPv6 hop limit, of answers that carry a token: what a forwarder on the instance passed on would not arrive
(EC2 User Guide, "HTTP PUT response hop limit")."""
USUAL_TTL: Final = 64

_logger = logging.getLogger("wicketgate.metadata")
Who = tuple[str, str]
"""VPC and address."""


class Metadata:
    """The metadata of all instances of a World."""

    def __init__(self, domain: str, signer_chain: Path) -> None:
        self._domain = domain
        self._signer_chain = signer_chain
        self._tokens = Tokens()
        self._world = World()
        self._connections: Counter[Who] = Counter()

    def enforce(self, world: World) -> frozenset[str]:
        """Answer by this World from now on; its VPCs."""
        self._world = world
        return frozenset(vpc.id for vpc in world.vpcs)

    async def serve(self, vpc_id: str, listener: socket.socket) -> asyncio.Server:
        """Take connections from the instances of one VPC."""
        return await asyncio.start_server(functools.partial(self._connected, vpc_id), sock=listener, limit=MAX_HEAD)

    async def _connected(self, vpc_id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        who = vpc_id, str((writer.get_extra_info("peername") or ("",))[0])
        self._connections[who] += 1
        try:
            if self._connections[who] <= MAX_CONNECTIONS:
                await self._talk(who, reader, writer)
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # silent, gone, or too long a head: there is nobody to answer
        finally:
            self._connections[who] -= 1
            if not self._connections[who]:
                del self._connections[who]
            writer.close()

    async def _talk(self, who: Who, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = self._instance(who)
        keep_alive = first is not None
        while keep_alive:
            async with asyncio.timeout(HEAD_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            # An address can get a new owner at any moment; the connection stays with whom it began.
            instance = self._instance(who)
            if first is None or instance is None or instance.id != first.id:
                return
            data, ttl, keep_alive = self._answered(head, instance)
            connection = writer.get_extra_info("socket")
            if connection.family == socket.AF_INET6:
                connection.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, ttl)
            else:
                connection.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
            writer.write(data)
            async with asyncio.timeout(HEAD_SECONDS):
                await writer.drain()

    def _instance(self, who: Who) -> Instance | None:
        """Whose address this is: of any of its interfaces, primary or not."""
        interface = self._world.interface_at(*who)
        return None if interface is None else self._world.instance_of_interface(interface.id)

    def _answered(self, head: bytes, instance: Instance) -> tuple[bytes, int, bool]:
        """The answer, the IP TTL it goes with, and whether another request may follow."""
        now = time.time()
        try:
            request = parse(head)
        except BadRequest:
            return render(Response(HTTPStatus.BAD_REQUEST), keep_alive=False), USUAL_TTL, False
        response = answer(request, instance.id, now, self._tokens, lambda: self._tree(instance, now))
        keep_alive = request.keep_alive and not request.has_body
        data = render(response, head_only=request.method == "HEAD", keep_alive=keep_alive)
        return data, HOP_LIMIT if request.method == "PUT" else USUAL_TTL, keep_alive

    def _tree(self, instance: Instance, now: float) -> Tree:
        try:
            chain = self._signer_chain.read_text("ascii")
        except (OSError, UnicodeDecodeError) as error:
            _logger.error("the SSH signer's certificate %s cannot be read: %s", self._signer_chain, error)
            chain = ""
        return tree(self._world, instance, now, domain=self._domain, signer_chain=chain)
