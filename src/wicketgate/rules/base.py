"""Chains of a VPC's router namespace that do not depend on groups: hooks, source check, the way of a packet.

How a packet travels:

    prerouting raw      source_check: before routing and before connection tracking, so that a forged packet gets no
                        answer from the router (ICMP for an expired TTL, a neighbour entry) and rides on no flow; and
                        before fragments are put together, lest one of another machine's be among them
    prerouting mangle   flows: what an endpoint sends under another address has to be of a flow that it opened; replies
                        of an endpoint's flows: connection mark -> packet mark -> route back to the endpoint
    forward filter      forward -> by_another  sent under an address that is not the interface's: judged by itself
                        -> errors  an ICMP error about a flow, by nobody who is an end of it: the same
                        -> first packet of its flow has passed, and both sides are tracked? accept
                        -> to an endpoint's interface? drop
                        -> snd_<link>  the sender's outbound groups, each rule that matches: goto receive
                        -> receive -> rcv_<link>  the receiver's inbound groups, each rule that matches: accept
                        -> drop; what an endpoint sent is rejected instead, so that a refused dial fails at once
                        of_no_flow: what connection tracking takes for invalid is dropped, but for ICMP
                        again: later packets of a flow that is untracked at a side, which is judged by its rules anew
    postrouting         counts what goes to an endpoint's interface
    input               router: what is never filtered (VPC User Guide, security groups), and nothing else
    output              answers: what the router sends by itself, but for what Linux answers before it looks at sources

Whether a flow is untracked at a side is decided on its first packet and kept in the connection mark. "First" is
`ct status`, not `ct state new`: a flow that nobody has answered goes on as well when its rule goes.

An interface without source/destination check gains no part in a flow by bearing another one's address: what it sends so
is judged by its own groups, packet by packet, and a flow that begins so is untracked at the initiator's side, so that
the address's owner is judged by its groups, too.

A peering link stands in the place of an interface: it has its own source check, what leaves by it is judged by the
sender's groups here and by the receiver's in the other VPC's namespace, each with flows of its own.

Unknown interfaces match no map entry and fall to the policy, drop. Marks and the way back are the same with client IP
preservation on and off, so that open tunnels outlive a switch of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from typing import Literal

from wicketgate.model import Endpoint, Vpc
from wicketgate.rules import names
from wicketgate.rules.groups import DIRECTIONS, PASSED, TCP, UDP, VERSIONS
from wicketgate.rules.ir import (
    Accept,
    Address,
    Chain,
    CopyMark,
    Count,
    CtConfirmed,
    CtDirection,
    CtMark,
    CtState,
    Dispatch,
    Drop,
    Family,
    FlowSourceIn,
    Goto,
    Hook,
    Icmp,
    InterfaceIn,
    InterfaceIs,
    Jump,
    Limit,
    Mark,
    Network,
    PairIn,
    Ports,
    Protocol,
    Rule,
    SetCtMark,
    Version,
)
from wicketgate.rules.names import ENDPOINT_MARK_MASK, Direction, endpoint_mark, sources

RAW, MANGLE, FILTER = -450, -150, 0
"""Priorities; Linux puts fragments together at -400 (NF_IP_PRI_CONNTRACK_DEFRAG)."""
DHCP, DHCP6, DNS, NTP = 67, 547, 53, 123

ICMP, ICMPV6 = 1, 58
PARAMETER_PROBLEM = 4
"""ICMPv6 (RFC 4443, 3.4)."""

SOLICITATIONS, ADVERTISEMENT = (133, 135), 136
"""ICMPv6 that the router hears: router and neighbour solicitations, neighbour advertisements (RFC 4861)."""
STRANGERS = Limit(20, 50)
"""Solicitations and DHCPv6 under addresses that are nobody's, such as link-local ones, in a VPC: of each the router
remembers the sender in its neighbour table, of which the whole host has one, with 1024 entries by default."""
LISTENER_DISCOVERY = (130, 131, 132, 143)
"""ICMPv6 of multicast listeners (RFC 2710, RFC 3810)."""

UNSPECIFIED4, UNSPECIFIED6 = ip_network("0.0.0.0/8"), ip_network("::/128")
BROADCAST, ON_LINK_MULTICAST = ip_network("255.255.255.255/32"), ip_network("ff02::/16")

_WAYS: tuple[Literal["original"], Literal["reply"]] = ("original", "reply")

FORGED = Rule(statements=(Count("forged_source"),), verdict=Drop())
NOT_OWN = tuple(
    Rule((PairIn("iif", version, sources(version), negate=True),), FORGED.statements, Drop()) for version in VERSIONS
)
"""Drops what does not carry an address of the interface it came in by."""


@dataclass(frozen=True)
class Surroundings:
    """What the base chains of a VPC depend on."""

    vpc: Vpc
    endpoints: Mapping[str, Endpoint]
    """By the link of their interface."""
    peers: Mapping[str, tuple[Network, ...]] = field(default_factory=dict)
    """Link of each active peering connection -> ranges of the other VPC."""
    timeouts: tuple[Rule, ...] = ()
    """What leads to the chains of time-outs, if there are any."""
    unchecked: bool = False
    """Whether an instance's interface has its source/destination check off."""


def base_chains(around: Surroundings) -> dict[str, Chain]:
    """All chains but those of groups, prefix lists, interfaces and time-outs."""
    return {
        **_source_checks(around),
        **_endpoint_flows(around.endpoints),
        **_forward(around),
        **_untracking(),
        "router": Chain(tuple(_router(around.vpc)), Hook("input", FILTER, "drop")),
        "strangers": Chain((Rule((STRANGERS,), verdict=Accept()), Rule(verdict=Drop()))),
        # Hop-by-hop options are read before any hook: whatever a machine writes into a packet with a wrong one would
        # come to whom it gives as the source.
        "answers": Chain((Rule((Icmp(6, PARAMETER_PROBLEM, None),), verdict=Drop()),), Hook("output", FILTER)),
    }


def _source_checks(around: Surroundings) -> dict[str, Chain]:
    # Almost every packet carries an address of its interface, so that is asked first.
    own = (Rule((PairIn("iif", version, sources(version)),), verdict=Accept()) for version in VERSIONS)
    special = (names.LINK_LOCAL6, UNSPECIFIED6, names.LINK_LOCAL4, UNSPECIFIED4)
    chains = {
        "source_check": Chain(
            (
                *own,
                Rule((InterfaceIn("iif", "links", negate=True),), FORGED.statements, Drop()),
                *((Rule((InterfaceIn("iif", "peerings"),), verdict=Goto("from_peer")),) if around.peers else ()),
                *(Rule((Address("saddr", network),), verdict=Goto("on_link")) for network in special),
                Rule((InterfaceIn("iif", "any_source", negate=True),), FORGED.statements, Drop()),
                # An endpoint's other addresses are clients', and no client's address is of the VPC.
                *(
                    Rule((InterfaceIn("iif", "endpoints"), Address("saddr", network)), FORGED.statements, Drop())
                    for network in around.vpc.networks
                ),
            ),
            Hook("prerouting", RAW),
        ),
        # Who has no address that others know talks to the router alone.
        "on_link": Chain(
            (
                Rule((Address("daddr", names.LINK_LOCAL6),), verdict=Accept()),
                Rule((Address("daddr", ON_LINK_MULTICAST),), verdict=Accept()),
                Rule((Address("daddr", BROADCAST), Ports(UDP, DHCP, DHCP)), verdict=Accept()),
                FORGED,
            )
        ),
    }
    if around.peers:
        of_peer = [
            Rule((InterfaceIs("iif", link), Address("saddr", network)), verdict=Accept())
            for link, networks in around.peers.items()
            for network in networks
        ]
        neighbour = Rule((Address("saddr", names.LINK_LOCAL6),), verdict=Goto("on_link"))
        chains["from_peer"] = Chain((*of_peer, neighbour, FORGED))
    return chains


def _endpoint_flows(endpoints: Mapping[str, Endpoint]) -> dict[str, Chain]:
    return {
        "flows": Chain(
            (
                Rule((InterfaceIn("iif", "endpoints"),), verdict=Goto("from_endpoint")),
                Rule(
                    (CtDirection("reply"), CtMark(0, ENDPOINT_MARK_MASK, negate=True)),
                    (CopyMark(ENDPOINT_MARK_MASK),),
                ),
            ),
            Hook("prerouting", MANGLE),
        ),
        # Another address than its own an endpoint sends only in flows that it opened and, with client IP preservation
        # on, to open one. After connection tracking, which knows the flows, and still before routing.
        "from_endpoint": Chain(
            (
                *(Rule((InterfaceIs("iif", link),), (Count(f"from_{link}"),)) for link in endpoints),
                # Neighbour discovery, which is of no flow; the source check has seen to it that it goes no further.
                Rule((Address("saddr", names.LINK_LOCAL6),), verdict=Accept()),
                *(
                    Rule(
                        (
                            InterfaceIs("iif", link),
                            CtDirection("original"),
                            CtMark(endpoint_mark(endpoint), ENDPOINT_MARK_MASK),
                        ),
                        verdict=Accept(),
                    )
                    for link, endpoint in endpoints.items()
                ),
                Rule((InterfaceIn("iif", "preserving"), CtState(("new",))), verdict=Accept()),
                *NOT_OWN,
            )
        ),
        # What is for an endpoint bears its mark: replies, and errors about what was rejected.
        "count": Chain(
            (Rule((Mark(ENDPOINT_MARK_MASK),), verdict=Jump("to_endpoint")),),
            Hook("postrouting", FILTER),
        ),
        "to_endpoint": Chain(
            tuple(Rule((InterfaceIs("oif", link),), (Count(f"to_{link}"),)) for link in endpoints),
        ),
    }


def _forward(around: Surroundings) -> dict[str, Chain]:
    leaving = Rule((InterfaceIn("oif", "peerings"),), verdict=Jump("leaving"))
    first = (
        Rule((InterfaceIn("oif", "endpoints"),), (Count("to_endpoint"),), Drop()),
        Rule(verdict=Dispatch("iif", "senders")),
    )
    chains = {
        "forward": Chain(
            (
                *((leaving,) if around.peers else ()),
                *(_not_own("by_another") if around.unchecked else ()),
                Rule((CtState(("related",)),), verdict=Jump("errors")),
                Rule((CtConfirmed(), CtMark(0, names.UNTRACKED)), verdict=Accept()),
                Rule((CtState(("invalid",)),), verdict=Goto("of_no_flow")),
                Rule((CtConfirmed(),), verdict=Goto("again")),
                *first,
            ),
            Hook("forward", FILTER, "drop"),
        ),
        "errors": Chain(tuple(_errors())),
        # ICMP that is neither a request nor about a known flow begins none: it is judged packet by packet.
        "of_no_flow": Chain(
            (
                *(Rule((Protocol(number),), verdict=Goto("by_itself")) for number in (ICMP, ICMPV6)),
                Rule(statements=(Count("invalid"),), verdict=Drop()),
            )
        ),
        "by_itself": Chain((*first, Rule(verdict=Drop()))),
        # A packet's sender is the flow's initiator in the original direction and its responder in the other.
        "again": Chain(
            (
                Rule((CtDirection("original"), CtMark(0, names.INITIATOR_UNTRACKED)), verdict=Goto("receive")),
                Rule((CtDirection("reply"), CtMark(0, names.RESPONDER_UNTRACKED)), verdict=Goto("receive")),
                Rule(verdict=Dispatch("iif", "senders")),
                Rule(verdict=Drop()),
            )
        ),
        "receive": Chain(
            (
                Rule((CtConfirmed(),), verdict=Jump("receive_again")),
                *around.timeouts,
                Rule(verdict=Dispatch("oif", "receivers")),
                Rule(verdict=Dispatch("iif", "refusals")),
                Rule(verdict=Drop()),
            )
        ),
        "receive_again": Chain(
            (
                Rule((CtDirection("original"), CtMark(0, names.RESPONDER_UNTRACKED)), verdict=Accept()),
                Rule((CtDirection("reply"), CtMark(0, names.INITIATOR_UNTRACKED)), verdict=Accept()),
            )
        ),
    }
    if around.unchecked:
        untracked = SetCtMark(names.INITIATOR_UNTRACKED, names.INITIATOR_UNTRACKED)
        chains["by_another"] = Chain(
            (
                # A flow that the owner began stays as it is.
                Rule((CtConfirmed(),), verdict=Goto("by_itself")),
                Rule((CtDirection("original"),), (untracked,)),
                Rule(verdict=Goto("by_itself")),
            )
        )
    if around.peers:
        chains["leaving"] = Chain(tuple(_leaving(around.vpc)))
        chains["leave"] = Chain((Rule(verdict=Accept()),))
    return chains


def _not_own(chain: str) -> Iterator[Rule]:
    """Where what an unchecked interface sends under another address than its own goes."""
    for version in VERSIONS:
        unchecked = InterfaceIn("iif", "unchecked")
        yield Rule((unchecked, PairIn("iif", version, sources(version), negate=True)), verdict=Goto(chain))


def _errors() -> Iterator[Rule]:
    """ICMP errors are of a flow if an end of it sends them; else whoever guesses its ports could send what its own
    rules forbid. An endpoint's were seen to with its other packets."""
    for version in VERSIONS:
        for direction in _WAYS:
            of_end = FlowSourceIn(version, direction, sources(version), negate=True)
            matches = (InterfaceIn("iif", "endpoints", negate=True), CtDirection(direction), of_end)
            yield Rule(matches, verdict=Goto("by_itself"))


def _leaving(vpc: Vpc) -> Iterator[Rule]:
    """What may go by a peering link: nothing of an endpoint's or of another peer's and, since beyond the link an
    interface is known by its address alone, no address of the VPC but the sender's, whatever its source check."""
    yield Rule((InterfaceIn("iif", "endpoints"),), (Count("endpoint_to_peer"),), Dispatch("iif", "refusals"))
    yield Rule((InterfaceIn("iif", "peerings"),), verdict=Drop())
    for network in vpc.networks:
        version: Version = 4 if network.version == 4 else 6
        another = PairIn("iif", version, sources(version), negate=True)
        yield Rule((Address("saddr", network), another), FORGED.statements, Drop())


def _untracking() -> dict[str, Chain]:
    """Where rules for any address lead: at an interface whose other direction is open, too, the flow is untracked.

    Only in the original direction: a later packet comes here too when its side is untracked, the other way round as
    the receiver.
    """
    return {
        names.untracking_chain(direction, version): Chain(
            (*(_untrack(direction, protocol, version) for protocol in (TCP, UDP)), Rule(verdict=PASSED[direction]))
        )
        for direction in DIRECTIONS
        for version in VERSIONS
    }


def _untrack(direction: Direction, protocol: Literal[6, 17], version: Version) -> Rule:
    side: Literal["iif", "oif"] = "iif" if direction == "out" else "oif"
    bit = names.INITIATOR_UNTRACKED if direction == "out" else names.RESPONDER_UNTRACKED
    other = names.open_set("in" if direction == "out" else "out", "tcp" if protocol == TCP else "udp", version)
    matches = (Protocol(protocol), CtDirection("original"), InterfaceIn(side, other))
    return Rule(matches, (SetCtMark(bit, bit),))


def _router(vpc: Vpc) -> Iterator[Rule]:
    """What the router hears: never an endpoint, and, but for DHCP, only who sends under an address of its own."""
    for kind in SOLICITATIONS:
        yield Rule((PairIn("iif", 6, sources(6)), Icmp(6, kind, None)), verdict=Accept())
        yield Rule((Address("saddr", UNSPECIFIED6), Icmp(6, kind, None)), verdict=Accept())
        yield Rule((Icmp(6, kind, None),), verdict=Goto("strangers"))
    for kind in (ADVERTISEMENT, *LISTENER_DISCOVERY):
        yield Rule((Icmp(6, kind, None),), verdict=Accept())
    yield Rule((InterfaceIn("iif", "endpoints"),), verdict=Drop())
    yield Rule((Address("saddr", UNSPECIFIED4), Ports(UDP, DHCP, DHCP)), verdict=Accept())
    yield Rule((Address("saddr", names.LINK_LOCAL6), Ports(UDP, DHCP6, DHCP6)), verdict=Goto("strangers"))
    yield from (replace(rule, statements=()) for rule in NOT_OWN)
    for text in (names.METADATA_ADDRESS, names.METADATA_ADDRESS6):
        yield _service(text, TCP, names.METADATA_PORT)
    for text in (str(vpc.network.network_address + 2), *names.DNS_ADDRESSES):
        yield from (_service(text, protocol, DNS) for protocol in (UDP, TCP))
    for text in names.TIME_ADDRESSES:
        yield _service(text, UDP, NTP)
    yield Rule((Family(4), Ports(UDP, DHCP, DHCP)), verdict=Accept())
    yield Rule((Family(6), Ports(UDP, DHCP6, DHCP6)), verdict=Accept())


def _service(address: str, protocol: Literal[6, 17], port: int) -> Rule:
    return Rule((Address("daddr", ip_network(address)), Ports(protocol, port, port)), verdict=Accept())
