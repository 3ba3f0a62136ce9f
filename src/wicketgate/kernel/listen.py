"""The listening sockets of instance metadata, and the messages by which netd hands them out.

The process that answers has no privilege: it could neither enter a VPC's router namespace nor bind the port. It sends
`ListenRequest`s over a SOCK_SEQPACKET socket to netd, which answers each with a `ListenReply` and the socket.
"""

from __future__ import annotations

import socket
from typing import Literal

import msgspec

from wicketgate.kernel import netns
from wicketgate.rules import METADATA_ADDRESS, METADATA_ADDRESS6, METADATA_PORT

BACKLOG = 256
Version = Literal[4, 6]


class ListenRequest(msgspec.Struct, frozen=True, kw_only=True, tag_field="op", tag="listen"):
    """`{"op": "listen", "vpc_id": ...}`."""

    vpc_id: str
    version: Version = 4
    """Of IP: at which of the two addresses of metadata to listen."""


class ListenReply(msgspec.Struct, frozen=True, kw_only=True):
    """The answer, with the socket (SCM_RIGHTS) when `error` is empty."""

    vpc_id: str
    version: Version = 4
    error: str = ""


def listen(vpc_id: str, version: Version = 4) -> socket.socket:
    """A non-blocking socket that listens at a metadata address inside a VPC. Raises FabricError and OSError."""
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    with netns.entered(vpc_id):
        listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((METADATA_ADDRESS6 if version == 6 else METADATA_ADDRESS, METADATA_PORT))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
