"""A network of hosts on one bridge, made with plain ip(8), and a namespace in the place of a subnet's gateway."""

import socket
import subprocess
from contextlib import contextmanager

from wicketgate.kernel import ip, netns

SWITCH, GATEWAY, DEVICE = "site-switch", "lan-00000000000000001", "lan0"
GATEWAY_MAC = "02:00:00:00:09:00"


class Site:
    """The bridge. `machine` plugs a host in; `close` removes everything."""

    def __init__(self):
        self._namespaces = [SWITCH]
        netns.create(SWITCH)
        ip.batch(SWITCH, ["link set lo up", "link add br0 type bridge", "link set br0 up"])
        self.plug(GATEWAY, DEVICE, GATEWAY_MAC, ["fe80::9/64"])

    def plug(self, namespace, device, mac, addresses=()):
        """A host with one device on the bridge."""
        netns.create(namespace)
        self._namespaces.append(namespace)
        port = f"p{len(self._namespaces)}"
        ip.batch(SWITCH, [f"link add {port} type veth peer name {device} netns {namespace}"])
        ip.batch(SWITCH, [f"link set {port} master br0 up"])
        lines = [f"link set {device} address {mac}", "link set lo up", f"link set {device} up"]
        lines += [f"addr add {one} dev {device} {'nodad' if ':' in one else ''}" for one in addresses]
        ip.batch(namespace, lines)
        return port

    def machine(self, name, number, *addresses):
        """A machine `name` with a link-layer address of that number; returns its port."""
        return self.plug(f"site-{name}", "eth0", f"02:00:00:00:00:{number:02x}", addresses)

    def ip(self, name, *lines):
        """ip(8) commands at a machine."""
        ip.batch(f"site-{name}", list(lines))

    def close(self):
        """Remove it all."""
        for name in reversed(self._namespaces):
            netns.delete(name)


def sysctl(namespace, *settings):
    """`name=value` each, in a namespace."""
    with netns.entered(namespace):
        subprocess.run(["/usr/sbin/sysctl", "-qw", *settings], check=True)


def packet_socket(namespace, device):
    """A raw packet socket at a device, to say by hand what a host would not."""
    with netns.entered(namespace):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.bind((device, 0))
    return sock


@contextmanager
def site():
    """A site that is removed again."""
    made = Site()
    try:
        yield made
    finally:
        made.close()
