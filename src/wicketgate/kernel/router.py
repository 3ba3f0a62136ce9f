"""The namespace of a VPC, its router: how its network stack is set, the router's own addresses, and the void."""

from __future__ import annotations

from wicketgate import rules
from wicketgate.kernel import ip, netns
from wicketgate.model import Vpc, World

VOID = ("void", "void-peer")
"""The link to nowhere and its other end, both in the VPC's namespace."""

SERVICES = (rules.METADATA_ADDRESS, rules.METADATA_ADDRESS6, *rules.DNS_ADDRESSES, *rules.TIME_ADDRESSES)
"""Where instances find metadata, DNS and the time. Only metadata has a server of ours."""

SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
    # A new namespace has the host's values. By a source route a packet would go elsewhere than rules are asked about,
    # and ARP replies that nobody asked for are to make no entries in the neighbour table, which the whole host shares.
    "net/ipv4/conf/all/accept_source_route": "0",
    "net/ipv4/conf/all/arp_accept": "0",
    "net/ipv4/conf/default/arp_accept": "0",
    # For the links to come: the rest of a subnet is behind the router.
    "net/ipv4/conf/default/proxy_arp": "1",
    "net/ipv6/conf/all/forwarding": "1",
    # A link has fe80::1 and no other address, and IPv6 only if its interface has; nobody else could have fe80::1.
    "net/ipv6/conf/default/addr_gen_mode": "1",
    "net/ipv6/conf/all/accept_dad": "0",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/default/disable_ipv6": "1",
    "net/ipv6/conf/lo/disable_ipv6": "0",
    # A refused dial is told by ICMP, and refusals come in bursts: with the stock limits half of 20 time out instead.
    "net/ipv4/icmp_ratelimit": "0",
    "net/ipv4/icmp_msgs_per_sec": "1000000",
    "net/ipv4/icmp_msgs_burst": "100000",
    "net/ipv6/icmp/ratelimit": "0",
    # The ICMP error takes the mark of the packet it answers, and by it the route back to a preserved client address.
    "net/ipv4/fwmark_reflect": "1",
    "net/ipv6/fwmark_reflect": "1",
}

TRACKING = {
    # Without an entry there is no way in for a segment in the middle of a connection, from either side: what was
    # forgotten stays so. Entries are the kernel's, so netd may come and go.
    "net/netfilter/nf_conntrack_tcp_loose": "0",
    # Checksums are the receiver's business, and Linux takes those of UDP-Lite for UDP's, so that right ones are wrong.
    "net/netfilter/nf_conntrack_checksum": "0",
    "net/netfilter/nf_conntrack_acct": "1",
    # Idle time-outs (EC2 User Guide, security group connection tracking): 180 s is not Linux's default.
    "net/netfilter/nf_conntrack_tcp_timeout_established": "432000",
    "net/netfilter/nf_conntrack_udp_timeout": "30",
    "net/netfilter/nf_conntrack_udp_timeout_stream": "180",
    "net/netfilter/nf_conntrack_generic_timeout": "600",
}
OTHER_TRACKERS = {
    f"net/netfilter/nf_conntrack_{timer}": "600"
    for timer in (
        *("gre_timeout", "gre_timeout_stream"),
        *(f"sctp_timeout_{state}" for state in ("closed", "cookie_wait", "cookie_echoed", "established")),
        *(f"sctp_timeout_{state}" for state in ("shutdown_sent", "shutdown_recd", "shutdown_ack_sent")),
        "sctp_timeout_heartbeat_sent",
        *(f"dccp_timeout_{state}" for state in ("request", "respond", "partopen", "open", "closereq", "closing")),
        "dccp_timeout_timewait",
    )
}
"""Protocols that Linux tracks in more detail than AWS, where they are as any other; as far as a kernel knows them."""


def make_router(vpc_id: str) -> None:
    """Make and set the namespace. Raises FabricError."""
    netns.create(vpc_id)
    ip.sysctl(vpc_id, SYSCTLS)


def set_tracking(vpc_id: str) -> None:
    """Set connection tracking, once a ruleset has asked for it: only then its sysctls are there. Raises FabricError."""
    ip.sysctl(vpc_id, TRACKING)
    ip.sysctl(vpc_id, OTHER_TRACKERS, missing_ok=True)


def lay_void(vpc_id: str) -> None:
    """Route what no interface holds to nowhere: there it is judged and counted. Raises FabricError."""
    there = {str(link["ifname"]): link["flags"] for link in ip.read(vpc_id, "link", "show")}
    lines = []
    if not there.keys() >= set(VOID):
        ip.delete_links(vpc_id, there.keys() & set(VOID))  # somebody else's link of that name is in the way
        there = {}
        lines.append(f"link add {VOID[0]} type veth peer name {VOID[1]}")
    # Without ARP nothing is looked up there: else each address tried would take a place in the neighbour table,
    # which all namespaces of the host share.
    lines += [f"link set {link} arp off" for link in VOID if "NOARP" not in there.get(link, ())]
    lines += [f"link set {link} up" for link in ("lo", *VOID) if "UP" not in there.get(link, ())]
    ip.batch(vpc_id, lines)
    ip.sysctl(vpc_id, {f"net/ipv6/conf/{VOID[0]}/disable_ipv6": "0"})
    lines = []
    for version, default in (("-4", "default"), ("-6", "::/0")):
        if not ip.read(vpc_id, version, "route", "show", "default", "dev", VOID[0]):
            lines.append(f"route replace {default} dev {VOID[0]}")
    ip.batch(vpc_id, lines)


def resolver(vpc: Vpc) -> str:
    """Where a VPC's instances find DNS: its base address + 2 (VPC User Guide, Amazon DNS server)."""
    return str(vpc.network.network_address + 2)


def lay_addresses(world: World, vpc: Vpc) -> None:
    """Give the router its addresses and no others; nothing is written that is so. Raises FabricError."""
    wanted = _addresses(world, vpc)
    there = {
        str(address["local"])
        for link in ip.read(vpc.id, "address", "show", "dev", "lo")
        for address in link.get("addr_info", [])
    }
    old = sorted(there - wanted.keys() - {"127.0.0.1", "::1"})
    lines = [f"address delete {one}/{128 if ':' in one else 32} dev lo" for one in old]
    lines += [
        f"address add {one}/{128 if ':' in one else 32} dev lo{how}" for one, how in wanted.items() if one not in there
    ]
    ip.batch(vpc.id, lines)


def _addresses(world: World, vpc: Vpc) -> dict[str, str]:
    """Address -> further words for ip(8)."""
    subnets = [one for one in world.subnets if one.vpc_id == vpc.id]
    # The router must choose no service's address for what it sends itself, such as ICMP errors.
    wanted = {one: " nodad preferred_lft 0" if ":" in one else " scope host" for one in SERVICES}
    if world.interface_at(vpc.id, resolver(vpc)) is None:
        wanted[resolver(vpc)] = " scope host"
    wanted |= {one.router_address: "" for one in subnets if one.router_address is not None}
    return wanted | {str(one.ipv6_network[1]): " nodad" for one in subnets if one.ipv6_network is not None}
