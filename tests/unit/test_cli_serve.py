"""`wicketgate serve`: what stands in the way of listening is one line."""

import socket

import pytest

from wicketgate.cli import serve
from wicketgate.model import FabricError


def test_no_ipv6(monkeypatch):
    """On a kernel without IPv6 the default addresses cannot all be listened on; it says what to leave out."""
    monkeypatch.setattr(socket, "AF_INET6", 40_000)  # a family that no kernel has, and refuses in the same way
    with pytest.raises(FabricError, match=r"cannot listen on :: port 0: Address family .*leave it out of listen_addr"):
        serve._listener("::", 0)


def test_listening():
    """Both families; the IPv6 one leaves IPv4 to the other."""
    for address, family in (("127.0.0.1", socket.AF_INET), ("::", socket.AF_INET6)):
        with serve._listener(address, 0) as listener:
            assert (listener.family, listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)) == (family, 1)
    with serve._listener("::", 0) as listener:
        assert listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
