"""Open a tunnel's socket in an endpoint's namespace, from the endpoint's address or from the client's."""

from __future__ import annotations

import errno
import socket

from wicketgate.kernel import netns

SOL_IP = socket.SOL_IP
IP_TRANSPARENT = 19
IPV6_TRANSPARENT = 75
IP_BIND_ADDRESS_NO_PORT = 24


def dial(
    namespace: str, address: str, port: int, client_address: str | None, own_address: str | None = None
) -> tuple[socket.socket, int]:
    """Start a TCP connection and return (non-blocking socket, errno); EINPROGRESS or 0 means under way.

    With `client_address`, which is of the target's family, the connection is made *from* that address (client IP
    preservation); else from `own_address`, or from what the kernel chooses. Raises OSError when the kernel does not
    take the address as it is.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    source = client_address or own_address
    with netns.entered(namespace):
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if client_address is not None:
            make_transparent(sock)
        if source is not None:
            # The port is chosen at connect: two tunnels of one client then never collide on it. (For both families.)
            sock.setsockopt(SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((source, 0))
        result = sock.connect_ex((address, port))
        if source is not None and result in (0, errno.EINPROGRESS):
            used = sock.getsockname()[0]
            if used != source:
                # Broadcast, multicast and 0.0.0.0 are silently replaced by the kernel; never lie to the target.
                raise OSError(errno.EADDRNOTAVAIL, f"the kernel used {used} in place of {source}")
        if family == socket.AF_INET6 and result == errno.EINPROGRESS:
            # A refusal that came back inside connect() makes IPv4's socket readable, but of IPv6's it is kept as a soft
            # error, which nobody would hear of before the next SYN, a second later.
            result = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or result
    except OSError:
        sock.close()
        raise
    return sock, result


def make_transparent(sock: socket.socket) -> None:
    """Let a socket be bound to an address that is not this host's. Raises OSError without CAP_NET_ADMIN."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
    else:
        sock.setsockopt(SOL_IP, IP_TRANSPARENT, 1)
