"""A network of hosts that wicketgate did not make: by ip(8) alone, with a router of its own and plain TCP servers.

home (where netd runs)   br0, a bridge with the hosts as ports; or nic0, a NIC whose cable ends at a switch elsewhere
m1, m2, ...              machines: .11, .12, ... with a default route to rtr
pc                       a host that is registered nowhere: .99
rtr                      the network's own router: .3
"""

import json
import subprocess
import sys
import time

from wicketgate.lab import sandbox

PORTS = (22, 80)
SERVER = """
import selectors, socket, sys
chosen = selectors.DefaultSelector()
for port in map(int, sys.argv[1:]):
    chosen.register(socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True), 1)
print("ready", flush=True)
while True:
    for key, _ in chosen.select():
        connection, peer = key.fileobj.accept()
        connection.sendall(peer[0].removeprefix("::ffff:").encode())
        connection.close()
"""
CLIENT = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), float(sys.argv[3])) as connection:
        print(connection.recv(100).decode())
except OSError as error:
    print(type(error).__name__, error.errno)
"""


def ip(*words, namespace=None):
    """Run ip(8), in a namespace or at home; returns what it prints."""
    command = ["ip", *(["-n", namespace] if namespace else []), *" ".join(map(str, words)).split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


def inside(namespace, *command):
    """Run a program in a namespace; returns what it prints."""
    where = ["ip", "netns", "exec", namespace] if namespace else []
    return subprocess.run([*where, *command], capture_output=True, text=True, check=True).stdout


def connect(namespace, address, port, seconds=1.0):
    """What a host gets who connects: under which address it was seen, or the name of an error."""
    return inside(namespace, sys.executable, "-c", CLIENT, address, str(port), str(seconds)).strip()


class Site:
    """The network. `switch`: "home" for a bridge at home, "away" for a NIC at home whose cable leads to it."""

    def __init__(self, switch="home", machines=("m1", "m2"), prefixes=(24, 64), router_of_machines="3"):
        assert sandbox.inside()
        self.prefixes = prefixes
        self.names = [*machines, "pc", "rtr"]
        self.bridge, self.place = ("br0", None) if switch == "home" else ("sw0", "site")
        self.servers = []
        if self.place:
            ip("netns add", self.place)
        self.make_bridge()
        if self.place:
            self.make_nic()
        for number, name in enumerate(self.names, start=11):
            self._host(name, {"pc": 99, "rtr": 3}.get(name, number), router_of_machines)
        inside("rtr", "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        for name in self.names:
            self._serve(name)
        while not all("fe80:" in ip("-6 addr show dev eth0 -tentative", namespace=name) for name in self.names):
            time.sleep(0.05)

    def make_bridge(self):
        """The switch, with whoever is there already."""
        # Without snooping: nobody here asks who listens, and solicitations are to reach everybody at once.
        ip("link add", self.bridge, "type bridge mcast_snooping 0", namespace=self.place)
        ip("link set", self.bridge, "up", namespace=self.place)

    def make_nic(self):
        """The NIC at home, and its cable."""
        ip("link add nic0 type veth peer name cable netns", self.place)
        ip("link set cable master", self.bridge, "up", namespace=self.place)
        inside(None, "sysctl", "-qw", "net.ipv6.conf.nic0.accept_dad=0")
        ip("link set nic0 up")

    def plug(self):
        """Put all hosts' cables into the switch."""
        for name in self.names:
            ip(f"link set p-{name} master", self.bridge, "up", namespace=self.place)

    def _host(self, name, number, router):
        ip("netns add", name)
        there = ["netns", self.place] if self.place else []
        ip("link add", f"p-{name}", *there, "type veth peer name eth0 netns", name)
        ip(f"link set p-{name} master", self.bridge, "up", namespace=self.place)
        inside(name, "sysctl", "-qw", "net.ipv6.conf.eth0.accept_dad=0")
        ip("link set lo up", namespace=name)
        ip("link set eth0 up", namespace=name)
        ip(f"addr add 10.9.0.{number}/{self.prefixes[0]} dev eth0", namespace=name)
        ip(f"addr add fd09::{number}/{self.prefixes[1]} dev eth0 nodad", namespace=name)
        if name != "rtr":
            ip(f"route add default via 10.9.0.{router}", namespace=name)
            ip("route add default via", "fe80::1" if router == "1" else f"fd09::{router}", "dev eth0", namespace=name)

    def _serve(self, name):
        command = ["ip", "netns", "exec", name, sys.executable, "-c", SERVER, *map(str, PORTS)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert server.stdout.readline() == b"ready\n"
        self.servers.append(server)

    def mac(self, name):
        """A host's link-layer address."""
        return json.loads(ip("-j link show eth0", namespace=name))[0]["address"]

    def neighbour(self, name, address):
        """What a host knows of a neighbour: (link-layer address or None, state)."""
        found = json.loads(ip("-j neigh show", address, "dev eth0", namespace=name))
        return (found[0].get("lladdr"), found[0]["state"][0]) if found else (None, "NONE")

    def configuration(self):
        """Addresses, routes, rules, sysctls of forwarding and ruleset of every host: all that is no cache."""
        return {name: _configuration(name) for name in self.names}

    def close(self):
        """Remove all of it."""
        for server in self.servers:
            server.kill()
            server.wait()
            server.stdout.close()
        # The kernel takes a namespace down some time after its name: links that lead into one would still be here then,
        # in the way of the next site's.
        for link in json.loads(ip("-j link show")):
            if link["ifname"] in ("br0", "nic0") or link["ifname"].startswith("p-"):
                ip("link del dev", link["ifname"])
        for name in [*self.names, *([self.place] if self.place else [])]:
            ip("netns del", name)


def _configuration(name):
    found = [json.loads(ip("-j -d link show", namespace=name))]
    for family in ("-4", "-6"):
        for what in ("addr show", "route show table all", "rule show"):
            found.append(json.loads(ip(family, "-j", what, namespace=name)))
    found.append(inside(name, "nft", "list", "ruleset"))
    return _lasting(found)


def _lasting(value):
    """Without counters of time."""
    if isinstance(value, dict):
        passing = ("valid_life_time", "preferred_life_time", "stats", "expires", "tentative")
        return {key: _lasting(one) for key, one in value.items() if key not in passing}
    return [_lasting(one) for one in value] if isinstance(value, list) else value
