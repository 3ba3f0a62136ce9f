"""What netd does for the metadata process: a listening socket for each VPC and family it asks about."""

from __future__ import annotations

import socket

import msgspec

from wicketgate import ipc
from wicketgate.kernel.listen import ListenReply, ListenRequest, listen
from wicketgate.model import FabricError, World


def serve(channel: socket.socket, world: World) -> None:
    """Answer one request; nonsense gets no answer, a process that is gone is left to `serve`."""
    try:
        request = msgspec.json.decode(channel.recv(ipc.MAX_MESSAGE), type=ListenRequest)
    except (OSError, msgspec.DecodeError, ValueError, RecursionError):
        return
    # Only what the World has is ever a namespace's name: the asking process is trusted with no other.
    if world.vpc(request.vpc_id) is None:
        error = f"there is no VPC {request.vpc_id[:64]} in revision {world.revision}"
        _send(channel, ListenReply(vpc_id=request.vpc_id, version=request.version, error=error), [])
        return
    try:
        listener = listen(request.vpc_id, request.version)
    except (OSError, FabricError) as problem:
        _send(channel, ListenReply(vpc_id=request.vpc_id, version=request.version, error=str(problem)), [])
        return
    with listener:
        _send(channel, ListenReply(vpc_id=request.vpc_id, version=request.version), [listener.fileno()])


def _send(channel: socket.socket, reply: ListenReply, descriptors: list[int]) -> None:
    try:
        socket.send_fds(channel, [msgspec.json.encode(reply)], descriptors)
    except OSError:
        return  # gone or drowning; it asks again
