"""Worlds with IPv6, and sockets of either family to try them with."""

import errno
import select
import socket
from contextlib import ExitStack, contextmanager

import msgspec

from tests.net.worlds import VPC
from wicketgate.kernel import netns
from wicketgate.kernel.dial import dial, make_transparent

CLIENT6 = "2001:db8:ffff::10"
BLOCK6, SUBNET6 = "2001:db8::/56", "2001:db8:0:1::/64"


def six(address):
    """The IPv6 address beside an IPv4 one of the subnet: 10.0.1.11 -> 2001:db8:0:1::11."""
    return f"2001:db8:0:1::{address.rpartition('.')[2]}"


def rule6(one, cidr):
    """A rule for an IPv6 range in place of an IPv4 one."""
    return msgspec.structs.replace(one, id=f"{one.id[:-1]}6", cidr_ipv4=None, cidr_ipv6=cidr)


def dual(made, *, only6=(), preserve=None):
    """The same World with IPv6 everywhere; the interfaces on the links `only6` lose IPv4."""
    interfaces = tuple(
        msgspec.structs.replace(
            one,
            ipv6_addresses=(six(one.private_ip_address),),
            private_ip_address="" if one.link in only6 else one.private_ip_address,
        )
        for one in made.interfaces
    )
    kind = "ipv6" if "endpoint" in only6 else "dualstack"
    wanted = msgspec.structs.replace(
        made,
        vpcs=tuple(msgspec.structs.replace(one, ipv6_cidr_blocks=(BLOCK6,)) for one in made.vpcs),
        subnets=tuple(msgspec.structs.replace(one, ipv6_cidr_block=SUBNET6) for one in made.subnets),
        interfaces=interfaces,
        endpoints=tuple(
            msgspec.structs.replace(
                one,
                ip_address_type=kind,
                preserve_client_ip=one.preserve_client_ip if preserve is None else preserve,
            )
            for one in made.endpoints
        ),
        settings=msgspec.structs.replace(made.settings, preserve_client_ipv6=True),
    )
    wanted.check()
    return wanted


def family(address):
    """Of an address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def client_of(address):
    """A client's address of the same family."""
    return CLIENT6 if ":" in address else "203.0.113.10"


@contextmanager
def hearing(namespaces, ports):
    """TCP listeners of both families; namespace and port -> listener."""
    with ExitStack() as stack:
        found = {}
        for namespace in namespaces:
            for port in ports:
                with netns.entered(namespace):
                    listener = stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_STREAM))
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                listener.bind(("::", port))
                listener.listen(512)
                listener.settimeout(2)
                found[namespace, port] = listener
        yield found


def reach(namespace, address, port, *, source=None, wait=0.3):
    """A SYN from an instance, under another address if wanted: "connected", an errno's name, or "nothing"."""
    with netns.entered(namespace):
        sock = socket.socket(family(address), socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    with sock:
        if source is not None:
            make_transparent(sock)
            sock.bind((source, 0))
        return outcome(sock, sock.connect_ex((address, port)), wait)


def knock(endpoint, address, port, *, client=None, own=None, wait=0.3):
    """The same from an endpoint."""
    sock, number = dial(endpoint, address, port, client, own)
    with sock:
        return outcome(sock, number, wait)


def outcome(sock, number, wait):
    """How a connection under way ends."""
    if number in (0, errno.EINPROGRESS):
        _, writable, _ = select.select([], [sock], [], wait)
        if not writable:
            return "nothing"
        number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return errno.errorcode[number] if number else "connected"


def datagram(namespace, address="", port=0):
    """A UDP socket of the address's family, bound if wanted, transparent if it must be."""
    with netns.entered(namespace):
        sock = socket.socket(family(address), socket.SOCK_DGRAM)
    make_transparent(sock)
    sock.bind((address or "0.0.0.0", port))
    sock.settimeout(1)
    return sock


def raw_icmp(namespace, version):
    """What hears ICMP in a namespace."""
    with netns.entered(namespace):
        if version == 4:
            return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        return socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)


def forged(fabric):
    """Packets that the source check has dropped."""
    return fabric.counters(VPC)["forged_source"]
