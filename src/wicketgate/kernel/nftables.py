"""nftables through libnftables (Debian's libnftables1): one context per namespace, one transaction per call.

A context is made when it is needed; the one used longest ago is freed when there are many (descriptors.py).
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import socket
import struct
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

from wicketgate.kernel import netns
from wicketgate.kernel.descriptors import out_of_the_way
from wicketgate.model import FabricError

NFT_CTX_OUTPUT_JSON = 1 << 4
NETLINK_NETFILTER = 12
NFT_MSG_GETGEN, NFT_MSG_NEWOBJ, NFT_MSG_GETOBJ = (10 << 8 | number for number in (16, 18, 19))
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300
NFPROTO_INET = 1
NFTA_OBJ_TABLE, NFTA_OBJ_NAME, NFTA_OBJ_TYPE = 1, 2, 3
NFT_OBJECT_CT_TIMEOUT = 7

_MESSAGE = struct.Struct("=IHHIIBBH")
"""Header and nfgenmsg; attributes follow."""
_ATTRIBUTE = struct.Struct("=HH")
_ERROR = struct.Struct("=16xi")
"""Of a message NLMSG_ERROR, behind its header: a negative errno, or 0 for an acknowledgement."""


def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libnftables.so.1")
    except OSError as error:
        raise FabricError(f"libnftables.so.1 is missing (Debian package libnftables1): {error}") from error
    library.nft_ctx_new.restype = ctypes.c_void_p
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).restype = ctypes.c_char_p
        getattr(library, name).argtypes = [ctypes.c_void_p]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    for name in ("nft_ctx_free", "nft_ctx_buffer_output", "nft_ctx_buffer_error"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    return library


class TooLong(FabricError):
    """A transaction is longer than the kernel takes at once: what a socket may send, outside the initial user namespace
    (net.core.wmem_default). Nothing has changed."""


MOST_CONTEXTS = 256
"""Contexts that are kept: far below what select(2) takes. Another one is made in 0.4 ms."""
_contexts: OrderedDict[Nftables, int] = OrderedDict()
"""Those there are, the one used longest ago first."""


class Nftables:
    """The ruleset of one network namespace. Close it when done; not for use by two threads at once."""

    def __init__(self, namespace: str) -> None:
        """Open a context bound to the namespace. Raises FabricError."""
        self.namespace = namespace
        self._library = _library()
        self._netlink: socket.socket | None = None
        self._context()

    def _context(self) -> int:
        if self in _contexts:
            _contexts.move_to_end(self)
            return _contexts[self]
        while len(_contexts) >= MOST_CONTEXTS:
            self._library.nft_ctx_free(_contexts.popitem(last=False)[1])

        # A context binds its netlink socket when it is made, in the namespace of the thread that makes it.
        def make() -> int | None:
            netns.enter(self.namespace)
            context: int | None = self._library.nft_ctx_new(0)
            return context

        made = netns.in_thread(make)
        if not made:
            raise FabricError(f"libnftables gave no context for namespace {self.namespace}")
        self._library.nft_ctx_buffer_output(made)
        self._library.nft_ctx_buffer_error(made)
        _contexts[self] = made
        return made

    def run(self, commands: str) -> str:
        """Run commands as one transaction and return what they print; all or nothing. Raises FabricError, TooLong."""
        return self._run(commands, 0)

    def _run(self, commands: str, flags: int) -> str:
        context = self._context()
        self._library.nft_ctx_output_set_flags(context, flags)
        code = self._library.nft_run_cmd_from_buffer(context, commands.encode())
        output: bytes = self._library.nft_ctx_get_output_buffer(context) or b""
        error: bytes = self._library.nft_ctx_get_error_buffer(context) or b""
        if code != 0:
            kind = TooLong if os.strerror(errno.EMSGSIZE).encode() in error else FabricError
            raise kind(f"nftables in namespace {self.namespace}: {error.decode(errors='replace').strip()}")
        return output.decode()

    def carry_out(self, steps: Iterable[str | bytes]) -> int:
        """Run commands and send batches, one after the other, each a transaction; returns how many those were.

        Raises FabricError, TooLong.
        """
        count = 0
        for step in steps:
            if isinstance(step, str):
                self.run(step)
            else:
                self.send(step)
            count += 1
        return count

    def generation(self) -> int:
        """The number of the namespace's last transaction, whoever sent it; it has 32 bits. Raises FabricError."""
        netlink = self._opened()
        try:
            netlink.send(_MESSAGE.pack(_MESSAGE.size, NFT_MSG_GETGEN, NLM_F_REQUEST, 1, 0, 0, 0, 0))
            answer = netlink.recv(1 << 16)
        except OSError as error:
            raise FabricError(f"nftables in namespace {self.namespace}: {error.strerror}") from error
        (number,) = struct.unpack_from("!I", answer, _MESSAGE.size + _ATTRIBUTE.size)
        return int(number)

    def timeouts(self, table: str) -> set[str]:
        """The names of the `ct timeout` objects in a table of ours; libnftables 1.0.6 crashes when it lists them.

        Raises FabricError.
        """
        name = table.encode() + b"\0"
        body = _attribute(NFTA_OBJ_TABLE, name) + _attribute(NFTA_OBJ_TYPE, struct.pack("!I", NFT_OBJECT_CT_TIMEOUT))
        netlink, found = self._opened(), set[str]()
        head = (_MESSAGE.size + len(body), NFT_MSG_GETOBJ, NLM_F_REQUEST | NLM_F_DUMP, 1, 0, NFPROTO_INET, 0, 0)
        try:
            netlink.send(_MESSAGE.pack(*head) + body)
            while True:
                data = netlink.recv(1 << 16)
                while data:
                    length, kind = struct.unpack_from("=IH", data)
                    if kind != NFT_MSG_NEWOBJ:  # the end, or an error
                        return found
                    found |= {
                        value.rstrip(b"\0").decode()
                        for attribute, value in _attributes(data[_MESSAGE.size : length])
                        if attribute == NFTA_OBJ_NAME
                    }
                    data = data[(length + 3) & ~3 :]
        except OSError as error:
            raise FabricError(f"nftables in namespace {self.namespace}: {error.strerror}") from error

    def send(self, batch: bytes) -> None:
        """Send a batch of netlink messages whose last one asks for an acknowledgement; all or nothing.

        Raises FabricError, TooLong.
        """
        netlink = self._opened()
        try:
            netlink.send(batch)
            errors = list(_answers(netlink))
        except OSError as error:
            wrong = TooLong if error.errno == errno.EMSGSIZE else FabricError
            raise wrong(f"nftables in namespace {self.namespace}: {error.strerror}") from error
        if errors != [0]:
            words = ", ".join(os.strerror(number) for number in errors if number) or "no acknowledgement"
            raise FabricError(f"nftables in namespace {self.namespace}: {words}")

    def _opened(self) -> socket.socket:
        if self._netlink is None:
            kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
            with netns.entered(self.namespace):
                netlink = socket.socket(socket.AF_NETLINK, kind, NETLINK_NETFILTER)
            netlink.bind((0, 0))
            self._netlink = out_of_the_way(netlink)
        return self._netlink

    def listing(self, command: str) -> list[dict[str, Any]]:
        """Run a `list` command and return its objects; empty when there is no such thing."""
        try:
            output = self._run(command, NFT_CTX_OUTPUT_JSON)
        except FabricError as error:
            if "No such file or directory" in str(error):
                return []
            raise
        objects: list[dict[str, Any]] = json.loads(output)["nftables"] if output else []
        return objects

    def counters(self, table: str) -> dict[str, int]:
        """Packets of each named counter of our table."""
        objects = self.listing(f"list counters table inet {table}")
        return {one["counter"]["name"]: one["counter"]["packets"] for one in objects if "counter" in one}

    def close(self) -> None:
        """Free context and socket."""
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None
        context = _contexts.pop(self, None)
        if context is not None:
            self._library.nft_ctx_free(context)


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        yield kind, data[_ATTRIBUTE.size : length]
        data = data[(length + 3) & ~3 :]


def _answers(netlink: socket.socket) -> Iterator[int]:
    """The errno of each answer that is there, 0 for an acknowledgement: when `send` returns, all of them are."""
    while True:
        try:
            answer = netlink.recv(1 << 16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        (number,) = _ERROR.unpack_from(answer)
        yield -number
