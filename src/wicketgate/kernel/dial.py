"""Open a tunnel's socket in an endpoint's namespace, from the endpoint's address or from the client's."""

from __future__ import annotations

import errno
import socket

from wicketgate.kernel import netns

SOL_IP = socket.SOL_IP
IP_TRANSPARENT = 19
IP_BIND_ADDRESS_NO_PORT = 24


def dial(namespace: str, address: str, port: int, client_address: str | None) -> tuple[socket.socket, int]:
    """Start a TCP connection and return (non-blocking socket, errno); EINPROGRESS or 0 means under way.

    With `client_address` the connection is made *from* that address (client IP preservation). Raises OSError when the
    kernel does not take the address as it is.
    """
    with netns.entered(namespace):
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if client_address is not None:
            sock.setsockopt(SOL_IP, IP_TRANSPARENT, 1)
            # The port is chosen at connect: two tunnels of one client then never collide on it.
            sock.setsockopt(SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((client_address, 0))
        result = sock.connect_ex((address, port))
        if client_address is not None and result in (0, errno.EINPROGRESS):
            used = sock.getsockname()[0]
            if used != client_address:
                # Broadcast, multicast and 0.0.0.0 are silently replaced by the kernel; never lie to the target.
                raise OSError(errno.EADDRNOTAVAIL, f"the kernel used {used} in place of {client_address}")
    except OSError:
        sock.close()
        raise
    return sock, result
