"""All that a Fabric makes, as the kernel tells it: what two ways to one World may not differ in."""

import os
import socket
import struct
from contextlib import ExitStack
from pathlib import Path

from tests.net.test_netd import _state
from tests.net.test_scale import _held
from wicketgate.kernel import ip, netns
from wicketgate.kernel.fabric import OURS
from wicketgate.kernel.nftables import Nftables

SYSCTLS = ("net/ipv4", "net/ipv6", "net/netfilter")
_VARYING = ("nf_conntrack_count", "stable_secret", "/ping_group_range", "nf_conntrack_expect_max")

# Groups of rtnetlink(7) in which anything written to links, addresses, routes, rules or device settings shows.
_GROUPS = {"link": 1, "address4": 5, "route4": 7, "rule4": 8, "address6": 9, "route6": 11, "rule6": 19, "conf": 24}
_GROUPS |= {"conf6": 25}
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1


def kernel_state():
    """Namespace -> links with what they say of themselves, addresses, routes, rules, neighbours, sysctls, ruleset."""
    seen = _state()
    found = {}
    for name in sorted(netns.names()):
        links = {link["ifname"]: link for link in ip.read(name, "link", "show")}
        found[name] = {
            "links, addresses, routes, rules": seen[name],
            "aliases": {key: link.get("ifalias") for key, link in links.items() if key != "lo"},
            "first address": {key: _first(name, key) for key in links},
            "neighbours": sorted(str(one) for one in ip.read(name, "neighbour", "show", "nud", "permanent")),
            "sysctls": _sysctls(name),
            "ruleset": _held(name) if name.startswith(("vpc-", "eice-")) else {},
        }
    return found


def differences(one, other):
    """What two states differ in, in few words."""
    found = [f"namespace {name}" for name in one.keys() ^ other.keys()]
    for name in one.keys() & other.keys():
        for what in one[name]:
            if one[name][what] != other[name][what]:
                found.append(f"{name}: {what}: {_apart(one[name][what], other[name][what])}")
    return found


def _apart(one, other):
    if isinstance(one, dict):
        return {
            key: (one.get(key), other.get(key)) for key in one.keys() | other.keys() if one.get(key) != other.get(key)
        }
    pairs = enumerate(zip(one, other, strict=True))
    return {part: ([x for x in a if x not in b], [x for x in b if x not in a]) for part, (a, b) in pairs if a != b}


def _first(namespace, device):
    """The IPv4 address that the kernel prefers on a device."""
    there = ip.read(namespace, "-4", "address", "show", "dev", device)
    return next((one["local"] for link in there for one in link.get("addr_info", [])), None)


def _sysctls(namespace):
    found = {}
    with netns.entered(namespace):
        for top in SYSCTLS:
            for directory, _, files in os.walk(f"/proc/sys/{top}"):
                for file in files:
                    path = f"{directory}/{file}"
                    if not path.endswith(_VARYING):
                        try:
                            found[path] = Path(path).read_text()
                        except OSError:
                            continue  # written only, such as `flush`
    return found


class Writes:
    """Whatever is written to the network of our namespaces from now on, by anybody, as the kernel itself tells it."""

    def __init__(self):
        self._stack = ExitStack()
        self._heard = {}
        self._generations = {}
        for name in netns.names():
            if OURS.match(name):
                with netns.entered(name):
                    heard = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
                for group in _GROUPS.values():
                    heard.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
                self._heard[name] = self._stack.enter_context(heard)
                self._generations[name] = _generation(name)
        self._sysctls = {name: _sysctls(name) for name in self._heard}
        self._names = netns.names()

    def seen(self):
        """The events, namespaces and generations since the beginning."""
        found = [f"namespaces {self._names ^ netns.names()}"] if self._names != netns.names() else []
        for name, heard in self._heard.items():
            while (event := _received(heard)) is not None:
                found.append(f"{name}: rtnetlink message {event}")
            if _generation(name) != self._generations[name]:
                found.append(f"{name}: nftables transactions")
            if _sysctls(name) != self._sysctls[name]:
                found.append(f"{name}: sysctls")
        return found

    def close(self):
        """Hear no more."""
        self._stack.close()


def _generation(name):
    nft = Nftables(name)
    try:
        return nft.generation()
    finally:
        nft.close()


def _received(heard):
    try:
        data = heard.recv(1 << 16, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return None
    return struct.unpack_from("=H", data, 4)[0]
