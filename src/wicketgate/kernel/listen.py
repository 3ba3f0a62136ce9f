"""The listening sockets of instance metadata, and the messages by which netd hands them out.

The process that answers has no privilege: it could neither enter a VPC's router namespace nor bind the port. It sends
`ListenRequest`s over a SOCK_SEQPACKET socket to netd, which answers each with a `ListenReply` and the socket.
"""

from __future__ import annotations

import socket

import msgspec

from wicketgate.kernel import netns
from wicketgate.rules import METADATA_ADDRESS, METADATA_PORT

BACKLOG = 256


class ListenRequest(msgspec.Struct, frozen=True, kw_only=True, tag_field="op", tag="listen"):
    """`{"op": "listen", "vpc_id": ...}`."""

    vpc_id: str


class ListenReply(msgspec.Struct, frozen=True, kw_only=True):
    """The answer, with the socket (SCM_RIGHTS) when `error` is empty."""

    vpc_id: str
    error: str = ""


def listen(vpc_id: str) -> socket.socket:
    """A non-blocking socket that listens at the metadata address inside a VPC. Raises FabricError and OSError."""
    with netns.entered(vpc_id):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((METADATA_ADDRESS, METADATA_PORT))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
