"""What netd does for the metadata process: a listening socket for each VPC and family it asks about."""

from __future__ import annotations

import socket

import msgspec

from wicketgate import ipc
from wicketgate.kernel.listen import ListenReply, ListenRequest, listen
from wicketgate.model import FabricError, World


def serve(channel: socket.socket, world: World) -> bool:
    """Answer one request; nonsense gets no answer. Returns whether who asks is still there."""
    try:
        message = channel.recv(ipc.MAX_MESSAGE)
    except OSError as gone:
        return isinstance(gone, BlockingIOError)
    try:
        request = msgspec.json.decode(message, type=ListenRequest)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return bool(message)
    # Only what the World has is ever a namespace's name: the asking process is trusted with no other.
    if world.vpc(request.vpc_id) is None:
        error = f"there is no VPC {request.vpc_id[:64]} in revision {world.revision}"
        _send(channel, ListenReply(vpc_id=request.vpc_id, version=request.version, error=error), [])
        return True
    try:
        listener = listen(request.vpc_id, request.version)
    except (OSError, FabricError) as problem:
        _send(channel, ListenReply(vpc_id=request.vpc_id, version=request.version, error=str(problem)), [])
        return True
    with listener:
        _send(channel, ListenReply(vpc_id=request.vpc_id, version=request.version), [listener.fileno()])
    return True


def _send(channel: socket.socket, reply: ListenReply, descriptors: list[int]) -> None:
    try:
        socket.send_fds(channel, [msgspec.json.encode(reply)], descriptors)
    except OSError:
        return  # gone or drowning; it asks again
