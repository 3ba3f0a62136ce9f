"""The ruleset of a lan namespace: which machine a frame is from, and nothing else. Who may talk to whom is decided
behind it, by the groups, at a link of the machine's own.

    netdev  in      ARP and neighbour discovery are for the namespace itself; IP that is for our link-layer address goes
                    unchanged to the link of whom it gives as its source; routed, an error of ICMP about a packet to a
                    machine, which any router on the way may send, goes there as if the machine had sent it; answers to
                    netd's own pings, which it has seen before any rule, and everything else are dropped
            absent  in the place of `in` while there is no device: what is for a machine is refused at once, by an
                    answer under the machine's address
    inet    hops    the namespace is no hop: what may go no further arrives
            forward from machines' links to the device, nothing else
            output  what the namespace says itself is for the device: to machines' links each report of a multicast
                    listener would make an entry in the neighbour table
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from wicketgate.kernel.lan_device import LAN_DEVICE
from wicketgate.kernel.neighbour_frames import ECHO_MARK

TABLE: Final = "wicketgate"
LINK_ADDRESS: Final = "02:00:00:00:00:01"
"""Of both ends of every machine's link: nobody else is on it."""
PREFIX: Final = "l-"
"""How the names of machines' links begin, on this side."""
MOST_DEVICES: Final = 256
"""Of one chain (NFT_NETDEVICE_MAX)."""
STRANGERS: Final = "limit rate 20/second burst 50 packets"
"""Solicitations of IPv6 by who is not registered, link-local addresses among them: of each sender the kernel makes an
entry in the neighbour table, of which the whole host has one."""


ERRORS: Final = (
    # Of a packet's destination: behind the eight bytes of ICMP, at 16 of IPv4's header (RFC 792) and 24 of IPv6's.
    # About pings (protocol at 9 and 6) they are for netd alone, if for anybody: it pings who is not there.
    "ether type ip icmp type { destination-unreachable, time-exceeded } @th,136,8 != 1 ip saddr set @th,192,32",
    "ether type ip6 icmpv6 type { destination-unreachable, packet-too-big, time-exceeded } @th,112,8 != 58 "
    "ip6 saddr set @th,256,128",
)
"""From a router on the way, whose address is no machine's. Behind it only errors of a flow that is known, from one of
its ends, pass without a rule, and TCP looks whether the error is about a segment that it has just sent (RFC 5927)."""


def table(members: Mapping[str, tuple[int, Iterable[str]]], *, present: bool, routed: bool) -> str:
    """Commands that put the whole ruleset in force, in one transaction.

    `members`: name of each machine's link here -> its index and the machine's addresses. `present`: whether the device
    is there; `routed`: whether routers of any address may be behind it.
    """
    elements = [(address, index) for index, addresses in members.values() for address in addresses]
    lines = [f"table netdev {TABLE}\ndelete table netdev {TABLE}\ntable netdev {TABLE} {{"]
    lines += ["counter strangers { }", "counter others { }"]
    lines += _map("m4", "ipv4_addr", [one for one in elements if ":" not in one[0]])
    lines += _map("m6", "ipv6_addr", [one for one in elements if ":" in one[0]])
    lines += _inwards(routed=routed) if present else _absent(sorted(members))
    return "\n".join([*lines, "}", FORWARDING])


def elements(gone: Mapping[str, int], new: Mapping[str, int]) -> str:
    """Commands that take addresses, with the indexes of their links, out of the maps and put others in."""
    lines = []
    for verb, some in (("delete", gone), ("add", new)):
        for name, wanted in (("m4", False), ("m6", True)):
            pairs = [f"{address} : {index}" for address, index in some.items() if (":" in address) is wanted]
            if pairs:
                lines.append(f"{verb} element netdev {TABLE} {name} {{ {', '.join(pairs)} }}")
    return "\n".join(lines)


def _map(name: str, kind: str, pairs: list[tuple[str, int]]) -> list[str]:
    # Indexes, not names: libnftables would look for the names in the wrong namespace.
    filled = f"elements = {{ {', '.join(f'{address} : {index}' for address, index in pairs)} }};" if pairs else ""
    return [f"map {name} {{ type {kind} : iface_index; {filled} }}"]


def _inwards(*, routed: bool) -> list[str]:
    solicitation = "ether type ip6 ip6 nexthdr icmpv6 icmpv6 type nd-neighbor-solicit"
    return [
        "chain in {",
        f'type filter hook ingress device "{LAN_DEVICE}" priority 0; policy drop;',
        "ether type arp accept",
        "ether type ip6 ip6 nexthdr icmpv6 icmpv6 type nd-neighbor-advert accept",
        f"{solicitation} ip6 saddr @m6 accept",
        f"{solicitation} {STRANGERS} accept",
        "meta pkttype != host counter name others drop",
        # They are about nothing that the VPC knows, and would be counted there.
        f"ether type ip icmp type echo-reply @th,64,64 0x{ECHO_MARK.hex()} drop",
        f"ether type ip6 icmpv6 type echo-reply @th,64,64 0x{ECHO_MARK.hex()} drop",
        *(ERRORS if routed else ()),
        f"ether type ip ether daddr set {LINK_ADDRESS} fwd to ip saddr map @m4",
        f"ether type ip6 ether daddr set {LINK_ADDRESS} fwd to ip6 saddr map @m6",
        "counter name strangers drop",
        "}",
    ]


def _absent(links: list[str]) -> list[str]:
    lines = []
    for first in range(0, len(links), MOST_DEVICES):
        lines += [
            f"chain absent{first} {{",
            f"type filter hook ingress devices = {{ {', '.join(links[first : first + MOST_DEVICES])} }} priority 0;",
            "policy drop;",
            "meta protocol ip reject with icmp type host-unreachable",
            "meta protocol ip6 reject with icmpv6 type addr-unreachable",
            "}",
        ]
    return lines


FORWARDING: Final = f"""table inet {TABLE}
delete table inet {TABLE}
table inet {TABLE} {{
chain hops {{
type filter hook prerouting priority -300;
iifname "{PREFIX}*" ip ttl 1 ip ttl set 2
iifname "{PREFIX}*" ip6 hoplimit 1 ip6 hoplimit set 2
}}
chain forward {{
type filter hook forward priority 0; policy drop;
iifname "{PREFIX}*" oifname "{LAN_DEVICE}" accept
}}
chain output {{
type filter hook output priority 0; policy drop;
oifname "{LAN_DEVICE}" accept
}}
chain input {{
type filter hook input priority 0; policy drop;
icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
}}
}}"""
"""Commands that put in force what depends on nothing."""
