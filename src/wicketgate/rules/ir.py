"""The ruleset as values: what `compile` writes, `nft` renders and `walk` executes.

Only what our rules use exists here. Every expression is a frozen value, so two rulesets compare by content and a
change is the difference of two values.
"""

from __future__ import annotations

import ipaddress
import weakref
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Version = Literal[4, 6]
"""IPv4 or IPv6."""

# -- expressions: what must hold for a rule to act ---------------------------------------------------------------------


@dataclass(frozen=True)
class CtState:
    """The packet's connection is in one of these states."""

    states: tuple[Literal["new", "established", "related", "invalid"], ...]


@dataclass(frozen=True)
class CtConfirmed:
    """The packet belongs to a tracked flow of which an earlier packet has passed: it is not the first."""


@dataclass(frozen=True)
class CtDirection:
    """The packet travels as the flow's first packet did (`original`) or the other way."""

    direction: Literal["original", "reply"]


@dataclass(frozen=True)
class CtMark:
    """The bits of the connection's mark under `mask` are, or are not, `value`."""

    value: int
    mask: int
    negate: bool = False


@dataclass(frozen=True)
class Mark:
    """The packet's mark has one of the bits of `mask`."""

    mask: int


@dataclass(frozen=True)
class InterfaceIn:
    """The device the packet entered (`side="iif"`) or will leave by (`"oif"`) is, or is not, in a named set."""

    side: Literal["iif", "oif"]
    set_name: str
    negate: bool = False


@dataclass(frozen=True)
class InterfaceIs:
    """The device is exactly this one."""

    side: Literal["iif", "oif"]
    name: str


@dataclass(frozen=True)
class PairIn:
    """(device, address) is, or is not, in a named set of pairs of that family: device entered by and source address
    (`side="iif"`) or device to leave by and destination address (`"oif"`). Never holds for the other family."""

    side: Literal["iif", "oif"]
    version: Version
    set_name: str
    negate: bool = False


@dataclass(frozen=True)
class FlowSourceIn:
    """(device entered by, address that packets of the flow bear as source in a direction) is, or is not, in a named set
    of pairs of that family. Never holds for the other family, nor for what is of no flow."""

    version: Version
    direction: Literal["original", "reply"]
    set_name: str
    negate: bool = False


@dataclass(frozen=True)
class CellIn:
    """The packet is of that family and protocol, and its address of that side and destination port lie in a cell of a
    named set."""

    side: Literal["saddr", "daddr"]
    version: Version
    protocol: Literal[6, 17]
    set_name: str


@dataclass(frozen=True)
class Address:
    """The source or destination address lies in a range."""

    side: Literal["saddr", "daddr"]
    network: Network


@dataclass(frozen=True)
class Family:
    """The packet is IPv4 (4) or IPv6 (6)."""

    version: Version


@dataclass(frozen=True)
class Protocol:
    """The layer-4 protocol number."""

    number: int


@dataclass(frozen=True)
class Ports:
    """TCP (6) or UDP (17) with a destination port in an inclusive range."""

    protocol: Literal[6, 17]
    first: int
    last: int


@dataclass(frozen=True)
class Icmp:
    """ICMP (version 4) or ICMPv6 (version 6) of a type, and of a code unless code is None."""

    version: Version
    type: int
    code: int | None


@dataclass(frozen=True)
class Limit:
    """Not more packets than that have come so far: `per_second` in the long run, `burst` at once."""

    per_second: int
    burst: int


Match = (
    CtState
    | CtConfirmed
    | CtDirection
    | CtMark
    | Mark
    | InterfaceIn
    | InterfaceIs
    | PairIn
    | FlowSourceIn
    | CellIn
    | Address
    | Family
    | Protocol
    | Ports
    | Icmp
    | Limit
)

# -- statements and verdicts -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Count:
    """Count packets and bytes in a named counter."""

    counter: str


@dataclass(frozen=True)
class SetCtMark:
    """Set the bits of `mask` in the connection's mark to `value`, leaving the others."""

    value: int
    mask: int


@dataclass(frozen=True)
class SetMark:
    """Set the packet's mark."""

    value: int


@dataclass(frozen=True)
class CopyMark:
    """Copy the bits of `mask` from the connection's mark to the packet's."""

    mask: int


@dataclass(frozen=True)
class SetTimeout:
    """Give a flow, on its first packet, the idle time-outs of a named object if it is of the object's protocol."""

    timeout: str


@dataclass(frozen=True)
class Accept:
    """The packet passes this hook."""


@dataclass(frozen=True)
class Drop:
    """The packet vanishes."""


@dataclass(frozen=True)
class Reject:
    """The packet vanishes and its sender is told: ICMP administratively prohibited (RFC 1812 section 5.2.7.1)."""


@dataclass(frozen=True)
class Jump:
    """Go on in another chain and come back when it decides nothing."""

    chain: str


@dataclass(frozen=True)
class Goto:
    """Go on in another chain and do not come back."""

    chain: str


@dataclass(frozen=True)
class Dispatch:
    """Go to the chain that a named map has for the packet's device; go on when it has none."""

    side: Literal["iif", "oif"]
    map_name: str


Statement = Count | SetCtMark | SetMark | CopyMark | SetTimeout
Verdict = Accept | Drop | Reject | Jump | Goto | Dispatch


# -- containers --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """All matches hold -> the statements run, then the verdict decides (None: the next rule)."""

    matches: tuple[Match, ...] = ()
    statements: tuple[Statement, ...] = ()
    verdict: Verdict | None = None
    comment: str = ""


@dataclass(frozen=True)
class Hook:
    """Where in the kernel a base chain runs, and what happens to a packet that reaches its end."""

    hook: Literal["prerouting", "input", "forward", "output", "postrouting"]
    priority: int
    policy: Literal["accept", "drop"] = "accept"


@dataclass(frozen=True)
class Chain:
    """Rules in order; a base chain when it has a hook."""

    rules: tuple[Rule, ...]
    hook: Hook | None = None


@dataclass(frozen=True)
class PairSet:
    """A set of (device name, address), all addresses of one family and in canonical form."""

    version: Version
    pairs: frozenset[tuple[str, str]] = frozenset()


class Cell(NamedTuple):
    """Addresses and ports: an element of a set. The comment says where it is from and tells no cells apart."""

    network: str
    """A range in canonical form."""
    first: int
    last: int
    comment: str = ""


@dataclass(frozen=True)
class CellSet:
    """A set of cells of one family, none of which overlaps another one: the kernel refuses those that do."""

    version: Version
    cells: frozenset[Cell] = frozenset()


@dataclass(frozen=True)
class Timeout:
    """Idle time-outs of a protocol: (state as nft(8) names it, seconds), in the order of names. Others are Linux's."""

    protocol: Literal["tcp", "udp"]
    policy: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Origin:
    """That a ruleset was made from another one, and the names of all chains and sets in which the two can differ."""

    of: weakref.ref[Ruleset]
    touched: frozenset[str]


@dataclass(frozen=True)
class Ruleset:
    """One nftables table of the `inet` family."""

    chains: dict[str, Chain] = field(default_factory=dict)
    interface_sets: dict[str, frozenset[str]] = field(default_factory=dict)
    """Set name -> device names."""
    pair_sets: dict[str, PairSet] = field(default_factory=dict)
    cell_sets: dict[str, CellSet] = field(default_factory=dict)
    maps: dict[str, dict[str, str]] = field(default_factory=dict)
    """Map name -> device name -> chain to go to."""
    counters: frozenset[str] = frozenset()
    timeouts: dict[str, Timeout] = field(default_factory=dict)
    """Time-out object name -> what it says; the name says it all, so an object never changes."""
    digest: list[int] = field(default_factory=list, init=False, compare=False, repr=False)
    """What `nft.fingerprint` found, once it is known: a change then need not hash everything again."""
    origin: list[Origin] = field(default_factory=list, init=False, compare=False, repr=False)
    """Another ruleset from which this one was made, if it was."""
