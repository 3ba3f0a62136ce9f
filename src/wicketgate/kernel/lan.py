"""The host's network that a subnet is bound to, split by source address in a namespace before the VPC's router.

    host's network ── lan0 ─┬─ l-... ══ eni.link ── VPC's namespace: a link for each machine, judged as any other
                            ├─ l-... ══ eni.link
                            └─ void             routes of what is answered for: the kernel wants them elsewhere
            namespace lan-...

Inwards the ruleset (lan_rules.py) puts each frame on the link of whom it gives as its source. Outwards it is routing: a
host route to each machine by `lan0`, whose neighbours the kernel looks for. Addresses of endpoints and, with a return
path, of the router are answered for by proxy ARP and proxy neighbour discovery, each by an entry of its own: for nobody
else's address is ever answered.

What the machines' links carry does not end when the device goes: until it is back, what is for them is refused.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import re
import socket
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final, NamedTuple

from wicketgate.kernel import devices, ip, lan_device, lan_rules, neighbour_frames, netns
from wicketgate.kernel.devices import Device
from wicketgate.kernel.lan_device import LAN_DEVICE, Binding, LinkProblem, Mode, lan_namespace
from wicketgate.kernel.nftables import Nftables
from wicketgate.kernel.router import VOID
from wicketgate.model import AddressInUse, FabricError

__all__ = ["LAN_DEVICE", "Binding", "Lan", "Mode", "is_lan", "lan_namespace", "link_of", "release_all", "remove"]

PROBE_SECONDS: Final = 0.4
"""How long it is asked, at most, whether somebody has the addresses already that are to be answered for."""

AGAIN_SECONDS: Final = 30.0
"""How often it is asked again for addresses that somebody had. While he has them it takes no time: he answers."""

SYSCTLS: Final = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
    "net/ipv4/conf/all/accept_redirects": "0",
    "net/ipv4/conf/all/accept_source_route": "0",
    "net/ipv4/conf/all/arp_accept": "0",
    "net/ipv4/conf/default/arp_accept": "0",
    "net/ipv4/conf/all/proxy_arp": "0",
    "net/ipv4/conf/default/proxy_arp": "0",
    "net/ipv6/conf/all/forwarding": "1",
    # Machines' links need no address; the device has one, to ask for neighbours with.
    "net/ipv6/conf/default/addr_gen_mode": "1",
    "net/ipv6/conf/all/accept_dad": "0",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/default/disable_ipv6": "0",
    "net/ipv6/conf/all/disable_ipv6": "0",
}

DEVICE_SYSCTLS: Final = {
    # Answers go to registered machines alone: each asker takes a place in the neighbour table, which all of the host
    # shares. (Of ARP alone: packets never come by this way.)
    f"net/ipv4/conf/{LAN_DEVICE}/rp_filter": "1",
    f"net/ipv4/conf/{LAN_DEVICE}/proxy_arp": "0",
    f"net/ipv4/conf/{LAN_DEVICE}/arp_accept": "0",
    f"net/ipv4/conf/{LAN_DEVICE}/accept_redirects": "0",
    f"net/ipv6/conf/{LAN_DEVICE}/disable_ipv6": "0",
    f"net/ipv6/conf/{LAN_DEVICE}/addr_gen_mode": "0",
    f"net/ipv6/conf/{LAN_DEVICE}/accept_ra": "0",
    f"net/ipv6/conf/{LAN_DEVICE}/accept_dad": "0",
    f"net/ipv6/conf/{LAN_DEVICE}/forwarding": "1",
    f"net/ipv6/conf/{LAN_DEVICE}/proxy_ndp": "1",
    # Else an answer waits for up to 0.8 s, which the first connection would wait for.
    f"net/ipv4/neigh/{LAN_DEVICE}/proxy_delay": "0",
    f"net/ipv6/neigh/{LAN_DEVICE}/proxy_delay": "0",
}

InUse = Callable[[str, str, Collection[str], float], Mapping[str, str]]
"""`neighbours.in_use`: which of some addresses somebody has, with his link-layer address."""

_OURS = re.compile(r"^lan-[0-9a-f]{8,17}$")
_logger = logging.getLogger("wicketgate.lan")


def link_of(interface_id: str) -> str:
    """The name of a network interface's link in the lan namespace."""
    return lan_rules.PREFIX + hashlib.sha256(interface_id.encode()).hexdigest()[:13]


class _Member(NamedTuple):
    """A machine's link as this side knows it."""

    number: int
    """Its index."""
    addresses: tuple[str, ...]


class Lan:
    """The lan namespace of one bound subnet. Close it to free its handle; the kernel keeps everything."""

    def __init__(self, subnet_id: str, binding: Binding, in_use: InUse) -> None:
        """Make the namespace or take the one that is there. Nothing goes through it before `look`, which finds the
        device, and everything that is told before is in force with it. Raises FabricError."""
        self.subnet_id = subnet_id
        self.binding = binding
        self.namespace = lan_namespace(subnet_id)
        self.problem = "its link has not been looked for yet"
        """Why nothing goes to the host's network and nothing comes from it, in words without a link's name; "" if it
        does."""
        self.taken: dict[str, str] = {}
        """Addresses that are not answered for because somebody has them -> his link-layer address."""
        self._in_use = in_use
        self._asked_at = 0.0
        """When it was last asked for addresses, of the monotonic clock."""
        self._device: Device | None = None
        self.looked = False
        """Whether it was looked for the device yet."""
        self._members: dict[str, _Member] = {}
        self._wanted: frozenset[str] = frozenset()
        self._free: frozenset[str] = frozenset()
        self._said = ""
        self._generation = -1
        _make(self.namespace)
        there = devices.read(self.namespace, LAN_DEVICE)
        self.mtu = 1500 if there is None else there.mtu
        """Bytes that the device carries at once, and that machines' links should;"""
        self.laid_mtu = self.mtu
        """and what they do."""
        self._nft = Nftables(self.namespace)
        self._nft.run(lan_rules.FORWARDING)

    def close(self) -> None:
        """Free the handle. Nothing in the kernel changes."""
        self._nft.close()

    # -- the device ----------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """See whether the device is as it should be, and make it so. A link that cannot be used is told as the problem,
        and nothing is raised: it may be there at the next look."""
        try:
            device = lan_device.attach(self.namespace, self.binding)
            same = self._device is not None and device.index == self._device.index
            if not same or not device.up or not self._leads_there():
                self._bring_up(device)
            self._device, self.mtu, self.problem = device, device.mtu, ""
            if self.taken and time.monotonic() >= self._asked_at + AGAIN_SECONDS:
                self._settle_answers()
            self._say(f"{self.subnet_id} is bound to {self.binding.device} ({self.binding.mode})", logging.INFO)
        except FabricError as error:
            self.problem = error.public if isinstance(error, LinkProblem) else "its link cannot be set up"
            self._say(f"{self.subnet_id} cannot be bound to the host's network: {error}", logging.ERROR)
            self._go_without()
        self.looked = True

    def rebind(self, binding: Binding) -> None:
        """Bind it to another link, or in another way, from the next look on. Raises FabricError."""
        if (binding.mode, binding.device) != (self.binding.mode, self.binding.device):
            lan_device.release(self.namespace)
        self.binding = binding

    def mend(self) -> bool:
        """Put the ruleset back if somebody else has changed it; returns whether. Raises FabricError."""
        if not self.looked or self._nft.generation() == self._generation:
            return False
        self._load()
        return True

    def counters(self) -> dict[str, int]:
        """Frames that were dropped: `strangers`, from addresses of no machine here; `others`, for others. Raises
        FabricError."""
        listed = self._nft.listing(f"list counters table netdev {lan_rules.TABLE}")
        return {one["counter"]["name"]: one["counter"]["packets"] for one in listed if "counter" in one}

    # -- what is behind it ---------------------------------------------------------------------------------------------

    def change(self, gone: Collection[str], wanted: Mapping[str, tuple[str, ...]]) -> None:
        """Forget some machines' links and know others, each with its machine's addresses. Raises FabricError."""
        new = {name: one for name, one in self._indexed(wanted).items() if self._members.get(name) != one}
        old = {name: self._members.pop(name) for name in {*gone, *new} if name in self._members}
        self._members |= new
        if not self.looked or not (old or new):
            return
        if self._device is None:
            self._load()
            return
        leaving, coming = _by_address(old), _by_address(new)
        stays = leaving.items() & coming.items()
        commands = lan_rules.elements(dict(leaving.items() - stays), dict(coming.items() - stays))
        if commands:
            self._run(commands)
        left = leaving.keys() - coming.keys()
        # All are laid first, for those that are deleted may have gone with a device that somebody had down.
        lines = [f"route delete {_host(one)} dev {LAN_DEVICE}" for one in sorted(left)]
        ip.batch(self.namespace, _routes(left | (coming.keys() - leaving.keys())) + lines)

    def keep(self, names: Collection[str]) -> None:
        """Forget the links that are none of these. Raises FabricError."""
        self.change(self._members.keys() - set(names), {})

    def check(self, addresses: Collection[str]) -> None:
        """See that nobody has those of some addresses that were not asked for before. Raises FabricError, in words."""
        new = set(addresses) - self._wanted
        found = self._asked(new)
        for address, mac in found.items():
            raise AddressInUse(address, self.subnet_id, mac)
        self._free = frozenset(new)

    def answer(self, addresses: Collection[str]) -> None:
        """Answer for these addresses and no others, but not for one that somebody has. Raises FabricError."""
        before, self._wanted = self._wanted, frozenset(addresses)
        if self._device is None or (before == self._wanted and not self.taken):
            return
        self._settle_answers()

    def _settle_answers(self) -> None:
        there = _answered(self.namespace)  # asked for, not remembered: somebody may have had the device down
        before, self.taken = self.taken, self._asked(self._wanted - there - self._free)
        self._free, self._asked_at = frozenset(), time.monotonic()
        for address, mac in self.taken.items() - before.items():
            _logger.error("%s of %s is not answered for: %s has it", address, self.subnet_id, mac)
        wanted = self._wanted - self.taken.keys()
        new = wanted - there
        ip.batch(self.namespace, _answers(there - wanted, new))
        if self._device is not None and self.binding.mode != "routed":
            _announce(self.namespace, self._device.mac, new)
        if self.binding.mode == "routed":
            lan_device.lay_host_routes(self.binding, [one for one in sorted(wanted) if not one.startswith("fe80:")])

    def _asked(self, addresses: Collection[str]) -> dict[str, str]:
        """Those of some addresses that somebody has."""
        if not addresses or self._device is None or self.binding.mode == "routed":
            return {}
        return dict(self._in_use(self.namespace, LAN_DEVICE, sorted(addresses), PROBE_SECONDS))

    # -- the kernel ----------------------------------------------------------------------------------------------------

    def _bring_up(self, device: Device) -> None:
        """Rules, then the device, then routes: nothing comes in that is not split already."""
        self._device = device
        self._load()
        ip.sysctl(self.namespace, DEVICE_SYSCTLS)
        ip.batch(self.namespace, [f"link set dev {LAN_DEVICE} up"])
        wanted, there = _by_address(self._members).keys(), _routed(self.namespace)
        old = [f"route delete {_host(one)} dev {LAN_DEVICE}" for one in sorted(there - wanted)]
        ip.batch(self.namespace, old + _routes(wanted - there))
        self._settle_answers()

    def _leads_there(self) -> bool:
        """Whether a machine is routed to. With a device that is down, if only for a moment, the kernel forgets all
        routes by it, and whom it answers for."""
        address = next((one for member in self._members.values() for one in member.addresses), "")
        if not address:
            return True
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with netns.entered(self.namespace), socket.socket(family, socket.SOCK_DGRAM) as probe:
            return probe.connect_ex((address, 9)) not in (errno.ENETUNREACH, errno.EHOSTUNREACH)  # nothing is sent

    def _go_without(self) -> None:
        if self.looked and self._device is None:
            return
        self._device = None
        try:
            self._load()
        except FabricError as error:
            _logger.error("rules in namespace %s: %s", self.namespace, error)

    def _indexed(self, wanted: Mapping[str, tuple[str, ...]]) -> dict[str, _Member]:
        try:
            with netns.entered(self.namespace):
                return {name: _Member(socket.if_nametoindex(name), addresses) for name, addresses in wanted.items()}
        except OSError as error:
            raise FabricError(f"a machine's link in namespace {self.namespace}: {error.strerror}") from error

    def _load(self) -> None:
        self._run(
            lan_rules.table(self._members, present=self._device is not None, routed=self.binding.mode == "routed")
        )

    def _run(self, commands: str) -> None:
        self._generation = -1  # if this fails, the next look puts all of it in force
        self._nft.run(commands)
        self._generation = self._nft.generation()

    def _say(self, words: str, level: int) -> None:
        """Once, however often it is found."""
        if words != self._said:
            _logger.log(level, words)
            self._said = words


def remove(namespace: str) -> None:
    """Give the host's link back and remove a lan namespace. Raises FabricError."""
    lan_device.release(namespace)
    netns.delete(namespace)


def is_lan(namespace: str) -> bool:
    """Whether a namespace is, by its name, one of a bound subnet."""
    return _OURS.match(namespace) is not None


def release_all() -> None:
    """Give all links back to the host, for when netd is to be no more. Raises FabricError."""
    for name in sorted(filter(is_lan, netns.names())):
        remove(name)
    lan_device.restore_all(set())


def _make(namespace: str) -> None:
    """A namespace as it is to be; nothing is written that is so. Raises FabricError."""
    netns.create(namespace)
    ip.sysctl(namespace, SYSCTLS)
    there = {str(link["ifname"]) for link in ip.read(namespace, "link", "show")}
    lines = []
    if not there >= set(VOID):
        ip.delete_links(namespace, there & set(VOID))
        lines = [f"link add {VOID[0]} type veth peer name {VOID[1]}"]
    ip.batch(namespace, [*lines, *(f"link set {link} arp off up" for link in VOID), "link set lo up"])


def _host(address: str) -> str:
    return f"{address}/{128 if ':' in address else 32}"


def _by_address(members: Mapping[str, _Member]) -> dict[str, int]:
    return {address: one.number for one in members.values() for address in one.addresses}


def _routes(addresses: Iterable[str]) -> list[str]:
    return [f"route replace {_host(one)} dev {LAN_DEVICE}" for one in sorted(addresses)]


def _routed(namespace: str) -> set[str]:
    """The addresses that are routed to the device."""
    return {
        str(route["dst"])
        for version in ("-4", "-6")
        for route in ip.read(namespace, version, "route", "show", "dev", LAN_DEVICE)
        if "/" not in str(route["dst"])
    }


def _answered(namespace: str) -> frozenset[str]:
    """The addresses that the kernel answers for."""
    return frozenset(
        str(one["dst"])
        for version in ("-4", "-6")
        for one in ip.read(namespace, version, "neigh", "show", "proxy", "dev", LAN_DEVICE)
    )


def _answers(gone: Iterable[str], new: Iterable[str]) -> list[str]:
    """Commands for addresses that are no more, or newly, answered for."""
    lines = [f"neigh delete proxy {one} dev {LAN_DEVICE}" for one in sorted(gone)]
    for one in sorted(new):
        # Without a route to it by another device the kernel answers for no address of IPv4. (It stays there after.)
        lines += [] if ":" in one else [f"route replace {_host(one)} dev {VOID[0]}"]
        lines.append(f"neigh add proxy {one} dev {LAN_DEVICE}{' router' if one.startswith('fe80:') else ''}")
    return lines


def _announce(namespace: str, mac: str, addresses: Iterable[str]) -> None:
    """Tell who remembers another link-layer address of ours, such as that of a NIC that was replaced (RFC 5227, 2.3;
    RFC 4861, 7.2.6). Raises FabricError."""
    frames = [
        neighbour_frames.advertisement(mac, one) if ":" in one else neighbour_frames.arp_request(mac, one, one)
        for one in sorted(addresses)
        if not one.startswith("fe80:")  # it would say that this is no router
    ]
    try:
        with netns.entered(namespace), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as packets:
            packets.bind((LAN_DEVICE, 0))
            for frame in frames:
                packets.send(frame)
    except OSError as error:
        raise FabricError(f"addresses cannot be announced in namespace {namespace}: {error.strerror}") from error
