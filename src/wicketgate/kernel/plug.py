"""Network interfaces plugged into a VPC's router: one veth each, its host routes, and what is configured behind it.

    <link>   in the VPC's namespace: a host route to each address; fe80::1, the router that IPv6 hosts know
    eth<n>   in the namespace of the instance or endpoint: the addresses, and a default route to the router
    l-...    in its place for a machine that exists without us: in the namespace of the host's network that its subnet
             is bound to (lan.py). Where the subnet is bound to none there is no link: what is for it goes to the void

A link says in its alias what it is for and how it was configured, so that a process without memory neither takes it for
another's nor does it all again. It is the last thing that is done to it, and taken back before anything else is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from wicketgate.kernel import conntrack, ip, netns, peering
from wicketgate.kernel.lan import lan_namespace, link_of
from wicketgate.kernel.lan_rules import LINK_ADDRESS
from wicketgate.kernel.returns import make_all_local
from wicketgate.kernel.router import VOID
from wicketgate.kernel.rtnetlink import Routing
from wicketgate.model import NetworkInterface, World

ROUTER6 = "fe80::1"
"""The router's address on every link, for hosts with IPv6: one route serves them all."""
FURTHER_TABLE = 1000
"""In an instance's namespace: packets from addresses of eth<n>, n > 0, follow the table 1000 + n; also their rules'
priority."""

CHANGING = "changing"
"""In a link's alias, in the place of how it was configured: it may be half done."""

HOST_SYSCTLS = {
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    # An address that follows another goes alone, and not with it.
    "net/ipv4/conf/all/promote_secondaries": "1",
    "net/ipv4/conf/default/promote_secondaries": "1",
    # Switched on for devices with IPv6 addresses. There is nobody on the link whose address could be taken twice.
    "net/ipv6/conf/all/accept_dad": "0",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/default/accept_ra": "0",
    "net/ipv6/conf/default/disable_ipv6": "1",
}


@dataclass(frozen=True)
class Attachment:
    """How one network interface is plugged in."""

    link: str
    namespace: str
    device: str
    """Its name in the namespace: `eth` and the device index."""
    addresses: tuple[str, ...]
    """The primary IPv4 address first, if there is one."""
    router: str
    """The router's IPv4 address; empty without IPv4."""
    prefix_length: int
    """Of the subnet's IPv4 range."""
    of_endpoint: bool
    checked: bool
    """Whether it sends under its own addresses alone."""
    mtu: int = 0
    """Bytes that the host's network carries at once; 0 for what is not on one."""

    @property
    def on_lan(self) -> bool:
        """Whether it is a machine's on a network of the host."""
        return self.mtu > 0

    @property
    def place(self) -> str:
        """Where it is plugged in: with another place the link is another."""
        return f"{self.namespace}|{self.device}"

    @property
    def alias(self) -> str:
        """What the link carries as its alias in the kernel."""
        told = repr(
            (self.addresses, self.router, self.prefix_length, self.of_endpoint, self.checked)
            + ((self.mtu,) if self.on_lan else ())
        )
        return f"{self.place}|{hashlib.sha256(told.encode()).hexdigest()[:16]}"

    @property
    def has_ipv6(self) -> bool:
        """Whether there is an IPv6 address."""
        return any(":" in one for one in self.addresses)

    @property
    def index(self) -> int:
        """The device index."""
        return int(self.device.removeprefix("eth"))


def attachment(world: World, eni: NetworkInterface, lans: Mapping[str, int]) -> Attachment | None:
    """How an interface of a World is to be plugged in; None for a machine that is on no network of the host.

    `lans`: subnets that are bound to one, and the MTU there.
    """
    subnet = world.subnet(eni.subnet_id)
    assert subnet is not None, "World.check has seen to it"
    endpoint = world.endpoint_of_interface(eni.id)
    instance = world.instance_of_interface(eni.id)
    owner = endpoint or instance
    on_lan = instance is not None and instance.is_external
    if on_lan and subnet.id not in lans:
        return None
    namespace = owner.id if owner is not None else eni.id.replace("eni-", "i-")
    device = f"eth{eni.device_index if instance is not None and eni.attached_to else 0}"
    return Attachment(
        link=eni.link,
        namespace=lan_namespace(subnet.id) if on_lan else namespace,
        device=link_of(eni.id) if on_lan else device,
        addresses=eni.addresses,
        router=subnet.router_address or "",
        prefix_length=0 if subnet.network is None else subnet.network.prefixlen,
        of_endpoint=endpoint is not None,
        checked=endpoint is None and eni.source_dest_check,
        mtu=lans[subnet.id] if on_lan else 0,
    )


@dataclass(frozen=True)
class _Link:
    """A link that is there: what its alias says, and the addresses that are routed to it."""

    alias: str
    addresses: frozenset[str]


class Links:
    """The interfaces plugged into one VPC."""

    def __init__(self, vpc_id: str) -> None:
        self.vpc_id = vpc_id
        self._there: dict[str, _Link] = {}

    def namespaces(self) -> set[str]:
        """The namespaces behind the links."""
        return {one.alias.partition("|")[0] for one in self._there.values()}

    def place(self, link: str) -> tuple[str, str]:
        """Namespace and device at the other end of a link; empty if nobody knows."""
        namespace, _, device = self._place(link).partition("|")
        return namespace, device

    def names(self) -> set[str]:
        """The links that are there."""
        return set(self._there)

    def read(self) -> None:
        """Take what is in the kernel for what was plugged in. Raises FabricError."""
        addresses: dict[str, set[str]] = {}
        for version in ("-4", "-6"):
            for route in ip.read(self.vpc_id, version, "route", "show", "table", "main"):
                addresses.setdefault(str(route.get("dev", "")), set()).add(str(route["dst"]))
        for link in ip.read(self.vpc_id, "link", "show"):
            name, alias = str(link["ifname"]), str(link.get("ifalias", ""))
            if name not in ("lo", *VOID) and not alias.startswith(peering.ALIAS):
                found = {one for one in addresses.get(name, ()) if "/" not in one}
                self._there[name] = _Link(alias, frozenset(found))

    def change(self, gone: Iterable[str], wanted: Iterable[Attachment], peers: Iterable[str] = ()) -> set[str]:
        """Plug in what is wanted and is not so already, and unplug links that are gone. Raises FabricError.

        `peers`: other VPCs that may know connections of the addresses. Returns the namespaces that lost a device.
        """
        gone = {*gone}
        wanted = [one for one in wanted if self._there.get(one.link) != _as_link(one)]
        if not gone and not wanted:
            return set()
        kept = {one.link for one in wanted if self._place(one.link) == one.place}
        doomed = (gone | {one.link for one in wanted}) & self._there.keys() - kept
        moved = {address for link in doomed for address in self._there[link].addresses}
        left = {self._place(link).partition("|")[0] for link in doomed}
        leaving = {one.link: self._there[one.link].addresses - {*one.addresses} for one in wanted if one.link in kept}
        self._unplug(doomed, leaving)
        for one in wanted:
            known = self._there.get(one.link)
            moved |= {*one.addresses} ^ (frozenset() if known is None else known.addresses)
        # A new owner of an address never inherits a flow: forgotten while nobody has the address.
        for vpc_id in {self.vpc_id, *peers} if moved else ():
            conntrack.forget(vpc_id, moved)
        self._plug(wanted, kept)
        return left - {""}

    def _place(self, link: str) -> str:
        known = self._there.get(link)
        return "" if known is None else known.alias.rpartition("|")[0]

    def _unplug(self, doomed: Collection[str], leaving: dict[str, frozenset[str]]) -> None:
        for link in doomed:
            namespace, _, device = self._place(link).partition("|")
            if device.startswith("eth") and device != "eth0" and netns.exists(namespace):
                _forget_rules(namespace, device)
        ip.delete_links(self.vpc_id, sorted(doomed))
        lines = [f"link set dev {link} alias {self._place(link)}|{CHANGING}" for link in leaving]
        for link, addresses in leaving.items():
            lines += [f"route delete {_host(address)} dev {link}" for address in sorted(addresses)]
        ip.batch(self.vpc_id, lines)
        for link in doomed:
            del self._there[link]

    def _plug(self, wanted: Collection[Attachment], kept: Collection[str]) -> None:
        new = [one for one in wanted if one.link not in kept]
        _prepare_lans([one for one in new if one.on_lan])
        lines = []
        for one in new:
            if not one.on_lan:
                _prepare(one)
            how = f"mtu {one.mtu} address {LINK_ADDRESS}" if one.on_lan else ""
            lines.append(f"link add name {one.link} {how} type veth peer name {one.device} {how} netns {one.namespace}")
        ip.batch(self.vpc_id, lines)
        lines = []
        for one in wanted:
            off = "0" if one.has_ipv6 else "1"
            # Proxy ARP answers after a random delay of up to 0.8 s, which the first connection would wait for.
            quick = {f"net/ipv4/neigh/{one.link}/proxy_delay": "0"}
            # ARP requests under false addresses would fill the neighbour table, which the whole host shares.
            strict = {f"net/ipv4/conf/{one.link}/rp_filter": "1" if one.checked else "0"}
            ip.sysctl(self.vpc_id, {f"net/ipv6/conf/{one.link}/disable_ipv6": off, **quick, **strict})
            if not one.on_lan:
                ip.sysctl(one.namespace, {f"net/ipv6/conf/{one.device}/disable_ipv6": off})
            lines += _outside(one)
        ip.batch(self.vpc_id, lines)
        for one in wanted:
            if not one.on_lan:
                _configure(one)
        _configure_on_lans([one for one in wanted if one.on_lan])
        ip.batch(self.vpc_id, [f"link set dev {one.link} alias {one.alias}" for one in wanted])
        self._there |= {one.link: _as_link(one) for one in wanted}


def _as_link(one: Attachment) -> _Link:
    return _Link(one.alias, frozenset(one.addresses))


def _host(address: str) -> str:
    return f"{address}/{128 if ':' in address else 32}"


def _prepare(one: Attachment) -> None:
    """Make the namespace, and make room in it."""
    if not netns.exists(one.namespace):
        netns.create(one.namespace)
        ip.sysctl(one.namespace, HOST_SYSCTLS)
        return
    ip.sysctl(one.namespace, HOST_SYSCTLS)
    # A device that a killed run left without its other end's right name is of no use to anybody.
    if any(there["ifname"] == one.device for there in ip.read(one.namespace, "link", "show")):
        ip.batch(one.namespace, [f"link delete {one.device}"])


def _prepare_lans(some: Collection[Attachment]) -> None:
    """Make room for machines' links, which nobody but us makes there."""
    for namespace in {one.namespace for one in some}:
        there = {str(link["ifname"]) for link in ip.read(namespace, "link", "show")}
        ip.delete_links(namespace, sorted(there & {one.device for one in some if one.namespace == namespace}))


def _configure_on_lans(some: Collection[Attachment]) -> None:
    for namespace in {one.namespace for one in some}:
        ip.batch(namespace, [_up(one.device, one) for one in some if one.namespace == namespace])


def _up(device: str, one: Attachment) -> str:
    # Both ends of a machine's link have the same address, so nobody has to be asked for it, and the neighbour table,
    # which the whole host shares, has no entry of it.
    return f"link set dev {device} mtu {one.mtu} arp off up" if one.on_lan else f"link set dev {device} up"


def _outside(one: Attachment) -> list[str]:
    """Commands for the router's side of a link."""
    lines = [_up(one.link, one)]
    if one.has_ipv6:
        lines.append(f"address replace {ROUTER6}/64 dev {one.link} nodad")
    return lines + [f"route replace {_host(address)} dev {one.link}" for address in one.addresses]


def _configure(one: Attachment) -> None:
    """Addresses and routes of the host's side, as DHCP and router advertisements would have them."""
    wanted = [f"{address}/{128 if ':' in address else one.prefix_length}" for address in one.addresses]
    with Routing(one.namespace) as host:
        for device in ("lo", one.device):
            host.up(device)
        for address in sorted(host.addresses(one.device).difference(wanted)):
            host.delete_address(one.device, address)
        # The first device knows the subnet as its network: the router answers every ARP request, so that a machine
        # works as it is configured anywhere. A further one's packets all go to the router, lest they took the first
        # one's way.
        for address in wanted:
            host.replace_address(one.device, address, prefix_route=not one.index)
        _lay_default_routes(host, one)
    if one.index:
        _follow(one)
    if one.of_endpoint:
        make_all_local(one.namespace)


def _lay_default_routes(host: Routing, one: Attachment) -> None:
    routers = [one.router] if one.router and ":" not in one.addresses[0] else []
    routers += [ROUTER6] if one.has_ipv6 else []
    number = FURTHER_TABLE + one.index
    for router in routers:
        if not one.index:
            host.replace_default(one.device, router)
        else:
            # In the main table too, behind the first device's: there may be a family that only this device has.
            host.replace_default(one.device, router, table=number)
            host.replace_default(one.device, router, metric=2000 + number)


def _follow(one: Attachment) -> None:
    """Packets from the addresses of a further device leave by it."""
    # What comes before what goes, and what stays is left alone: no packet is to take the first device's way meanwhile.
    for version, there in _following(one.namespace, one.device).items():
        own = {address for address in one.addresses if (":" in address) is (version == 6)}
        lines = [f"rule add {_rule(one.device, address)}" for address in sorted(own - there)]
        lines += [f"rule delete {_rule(one.device, address)}" for address in sorted(there - own)]
        ip.batch(one.namespace, lines, version)


def _forget_rules(namespace: str, device: str) -> None:
    for version, there in _following(namespace, device).items():
        ip.batch(namespace, [f"rule delete {_rule(device, address)}" for address in sorted(there)], version)


def _following(namespace: str, device: str) -> dict[Literal[4, 6], set[str]]:
    """The addresses from which packets follow a device's table, by version."""
    number = FURTHER_TABLE + int(device.removeprefix("eth"))
    versions: tuple[Literal[4, 6], ...] = (4, 6)
    return {
        version: {
            str(one["src"]) for one in ip.read(namespace, f"-{version}", "rule", "show") if one["priority"] == number
        }
        for version in versions
    }


def _rule(device: str, address: str) -> str:
    number = FURTHER_TABLE + int(device.removeprefix("eth"))
    return f"priority {number} from {address} lookup {number}"
