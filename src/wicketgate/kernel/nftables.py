"""nftables through libnftables (Debian's libnftables1): one context per namespace, one transaction per call."""

from __future__ import annotations

import ctypes
import errno
import json
import os
from typing import Any

from wicketgate.kernel import netns
from wicketgate.model import FabricError

NFT_CTX_OUTPUT_JSON = 1 << 4


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


class Nftables:
    """The ruleset of one network namespace. Close it when done; not for use by two threads at once."""

    def __init__(self, namespace: str) -> None:
        """Open a context bound to the namespace. Raises FabricError."""
        self.namespace = namespace
        self._library = _library()

        # A context binds its netlink socket when it is made, in the namespace of the thread that makes it.
        def make() -> int | None:
            netns.enter(namespace)
            context: int | None = self._library.nft_ctx_new(0)
            return context

        self._context = netns.in_thread(make)
        if not self._context:
            raise FabricError(f"libnftables gave no context for namespace {namespace}")
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)

    def run(self, commands: str) -> str:
        """Run commands as one transaction and return what they print; all or nothing. Raises FabricError, TooLong."""
        code = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
        output: bytes = self._library.nft_ctx_get_output_buffer(self._context) or b""
        error: bytes = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if code != 0:
            kind = TooLong if os.strerror(errno.EMSGSIZE).encode() in error else FabricError
            raise kind(f"nftables in namespace {self.namespace}: {error.decode(errors='replace').strip()}")
        return output.decode()

    def listing(self, command: str) -> list[dict[str, Any]]:
        """Run a `list` command and return its objects; empty when there is no such thing."""
        self._library.nft_ctx_output_set_flags(self._context, NFT_CTX_OUTPUT_JSON)
        try:
            output = self.run(command)
        except FabricError as error:
            if "No such file or directory" in str(error):
                return []
            raise
        finally:
            self._library.nft_ctx_output_set_flags(self._context, 0)
        objects: list[dict[str, Any]] = json.loads(output)["nftables"] if output else []
        return objects

    def counters(self, table: str) -> dict[str, int]:
        """Packets of each named counter of our table."""
        objects = self.listing(f"list counters table inet {table}")
        return {one["counter"]["name"]: one["counter"]["packets"] for one in objects if "counter" in one}

    def close(self) -> None:
        """Free the context."""
        if self._context:
            self._library.nft_ctx_free(self._context)
            self._context = None
