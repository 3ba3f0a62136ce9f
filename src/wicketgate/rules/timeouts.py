"""Idle time-outs of tracked flows: for each timer the smaller of what both interfaces ask for (EC2 API,
ConnectionTrackingSpecification), set on a flow's first packet.

    timeouts -> timeouts_tcp        the smallest value that either interface has
             -> timeouts_udp        the smallest `stream`, of either interface
                -> timeouts_udp_<s> the smallest `udp`: the default is the smallest that may be asked for

A time-out object holds all timers of a protocol, so there is one per pair of UDP's values that can come together. A
VPC in which nobody asks has none of this. The defaults themselves are the namespace's (sysctl).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from wicketgate.model import NetworkInterface
from wicketgate.rules.ir import Chain, Goto, InterfaceIn, Jump, Protocol, Rule, SetTimeout, Timeout

TCP_ESTABLISHED, UDP_STREAM, UDP = 432_000, 180, 30
"""The defaults, in seconds: of the first two the largest that may be asked for, of the third the smallest."""

SIDES: tuple[Literal["iif"], Literal["oif"]] = ("iif", "oif")

LONGER = "udp_longer"
"""Set of what does not insist on the default of `udp`."""


@dataclass
class Timeouts:
    """What a VPC's ruleset has for time-outs; all empty when every interface has the defaults."""

    objects: dict[str, Timeout] = field(default_factory=dict)
    interface_sets: dict[str, frozenset[str]] = field(default_factory=dict)
    chains: dict[str, Chain] = field(default_factory=dict)

    @property
    def jump(self) -> tuple[Rule, ...]:
        """What leads there."""
        return (Rule(verdict=Jump("timeouts")),) if self.chains else ()


def compile_timeouts(interfaces: Iterable[NetworkInterface], peering_links: Iterable[str]) -> Timeouts:
    """Time-outs for the interfaces of a VPC. What is behind a peering link is another namespace's business."""
    tcp, stream, udp = _wanted(interfaces)
    made = Timeouts()
    if not (tcp or stream or udp):
        return made
    made.interface_sets |= {f"tcp_{value}": frozenset(links) for value, links in tcp.items()}
    made.interface_sets |= {f"udp_stream_{value}": frozenset(links) for value, links in stream.items()}
    made.interface_sets |= {f"udp_{value}": frozenset(links) for value, links in udp.items()}
    made.interface_sets[LONGER] = frozenset(peering_links).union(*udp.values())
    for_tcp = [rule for value in sorted(tcp) for rule in _either(f"tcp_{value}", _tcp(made, value))]
    for_udp = [
        Rule((InterfaceIn(side, f"udp_stream_{value}"),), verdict=Goto(f"timeouts_udp_{value}"))
        for value in sorted(stream)
        for side in SIDES
    ]
    made.chains = {
        "timeouts": Chain(
            (
                Rule((Protocol(6),), verdict=Goto("timeouts_tcp")),
                Rule((Protocol(17),), verdict=Goto("timeouts_udp")),
            )
        ),
        "timeouts_tcp": Chain(tuple(for_tcp)),
        "timeouts_udp": Chain((*for_udp, Rule(verdict=Goto(f"timeouts_udp_{UDP_STREAM}")))),
        **{f"timeouts_udp_{value}": Chain(tuple(_udp(made, value, udp))) for value in {*stream, UDP_STREAM}},
        "timed": Chain(()),
    }
    return made


def _wanted(interfaces: Iterable[NetworkInterface]) -> tuple[dict[int, set[str]], ...]:
    """Links by value, for each timer; without those that want the default."""
    found: tuple[dict[int, set[str]], ...] = ({}, {}, {})
    for eni in interfaces:
        if (tracking := eni.connection_tracking) is not None:
            values = (tracking.tcp_established, tracking.udp_stream, tracking.udp)
            for links, value, default in zip(found, values, (TCP_ESTABLISHED, UDP_STREAM, UDP), strict=True):
                if value is not None and value != default:
                    links.setdefault(value, set()).add(eni.link)
    return found


def _either(set_name: str, action: tuple[SetTimeout, ...]) -> Iterator[Rule]:
    """Act and be done if one of the interfaces is in the set."""
    for side in SIDES:
        yield Rule((InterfaceIn(side, set_name),), action, Goto("timed"))


def _tcp(made: Timeouts, value: int) -> tuple[SetTimeout, ...]:
    name = f"tcp_{value}"
    made.objects[name] = Timeout("tcp", (("established", value),))
    return (SetTimeout(name),)


def _udp(made: Timeouts, stream: int, wanted: dict[int, set[str]]) -> Iterator[Rule]:
    shortest = _udp_object(made, stream, UDP)
    for side in SIDES:
        yield Rule((InterfaceIn(side, LONGER, negate=True),), shortest, Goto("timed"))
    for value in sorted(wanted):
        yield from _either(f"udp_{value}", _udp_object(made, stream, value))
    if shortest:  # nft knows no rule without a word
        yield Rule(statements=shortest)  # a peering link on both sides: nobody's business, and nobody's flow


def _udp_object(made: Timeouts, stream: int, value: int) -> tuple[SetTimeout, ...]:
    if (stream, value) == (UDP_STREAM, UDP):
        return ()
    name = f"udp_{stream}_{value}"
    made.objects[name] = Timeout("udp", (("replied", stream), ("unreplied", value)))
    return (SetTimeout(name),)
