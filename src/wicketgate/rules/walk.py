"""The executable model: what the kernel does with a packet under a ruleset, by nft's own rules.

`walk` knows nothing of security groups. It runs the very values that `nft` renders, so model and kernel can be compared
packet by packet, and a compiler that writes the wrong thing is told from a model that reads it wrongly.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Literal, assert_never

from wicketgate.rules import ir


@dataclass(frozen=True)
class Packet:
    """A packet at a hook, with what connection tracking says of it."""

    iif: str
    oif: str
    saddr: str
    daddr: str
    protocol: int
    dport: int = 0
    """Destination port; for ICMP the type."""
    code: int = 0
    ct_state: Literal["new", "established", "related", "invalid"] = "new"
    ct_reply: bool = False
    """Whether it travels against the direction of its flow's first packet. For ICMP errors (`related`) the flow's."""
    ct_mark: int = 0
    ct_confirmed: bool = False
    """With `new`: whether an earlier packet of the flow has passed, and nobody has answered yet."""
    flow_source: str = ""
    """For an ICMP error (`related`) of somebody else than an end of its flow: the end that would have sent it."""

    @property
    def version(self) -> int:
        """4 or 6."""
        return ipaddress.ip_address(self.daddr).version


@dataclass
class Walk:
    """What became of the packet, and the way it took."""

    outcome: Literal["accept", "drop", "reject"] = "accept"
    chains: list[str] = field(default_factory=list)
    counted: list[str] = field(default_factory=list)
    decided_by: str = ""
    """Comment of the rule that led to the verdict: the id of a security group rule, if so far the receiver's."""
    mark: int = 0
    ct_mark: int = 0
    """What the connection's mark is afterwards; bits 0 and 1: untracked at the initiator's, the responder's side."""
    timeout: str = ""
    """The time-out object that a first packet's flow was given."""


def walk(ruleset: ir.Ruleset, packet: Packet, hooks: tuple[str, ...] = ("prerouting", "forward")) -> Walk:
    """Run a packet through every base chain of the hooks it passes, by priority, until one drops it."""
    result = Walk(ct_mark=packet.ct_mark)
    for hook in hooks:
        bases = [(name, chain) for name, chain in ruleset.chains.items() if chain.hook and chain.hook.hook == hook]
        for name, chain in sorted(bases, key=lambda one: one[1].hook.priority if one[1].hook else 0):
            policy = chain.hook.policy if chain.hook else "accept"
            result.outcome = _run(ruleset, packet, name, result) or policy
            if result.outcome != "accept":
                return result
    return result


def _run(ruleset: ir.Ruleset, packet: Packet, name: str, result: Walk) -> Literal["accept", "drop", "reject"] | None:
    """Run one chain; None when it decides nothing."""
    result.chains.append(name)
    for rule in ruleset.chains[name].rules:
        if not all(_holds(match, packet, ruleset, result) for match in rule.matches):
            continue
        decided_by, result.decided_by = result.decided_by, _comment(rule, packet, ruleset) or result.decided_by
        for statement in rule.statements:
            _act(statement, ruleset, packet, result)
        match rule.verdict:
            case None:
                continue
            case ir.Accept():
                return "accept"
            case ir.Drop():
                return "drop"
            case ir.Reject():
                return "reject"
            case ir.Jump(chain):
                outcome = _run(ruleset, packet, chain, result)
                if outcome is not None:
                    return outcome
                result.decided_by = decided_by  # of a prefix list that holds no match
            case ir.Goto(chain):
                return _run(ruleset, packet, chain, result)
            case ir.Dispatch(side, map_name):
                target = ruleset.maps[map_name].get(packet.iif if side == "iif" else packet.oif)
                if target is not None:
                    return _run(ruleset, packet, target, result)
    return None


def _holds(match: ir.Match, packet: Packet, ruleset: ir.Ruleset, result: Walk) -> bool:
    match match:
        case ir.CtState(states):
            return packet.ct_state in states
        case ir.CtConfirmed():
            return packet.ct_state in ("established", "related") or (packet.ct_state == "new" and packet.ct_confirmed)
        case ir.CtDirection(direction):
            return _tracked(packet) and packet.ct_reply is (direction == "reply")
        case ir.CtMark(value, mask, negate):
            return _tracked(packet) and (result.ct_mark & mask == value) is not negate
        case ir.Mark(mask):
            return bool(result.mark & mask)
        case ir.InterfaceIn(side, set_name, negate):
            return (_device(packet, side) in ruleset.interface_sets[set_name]) is not negate
        case ir.InterfaceIs(side, name):
            return _device(packet, side) == name
        case ir.PairIn(side, version, set_name, negate):
            # The address implies the family: for other packets the expression does not match at all.
            pair = (packet.iif, packet.saddr) if side == "iif" else (packet.oif, packet.daddr)
            return packet.version == version and (pair in ruleset.pair_sets[set_name].pairs) is not negate
        case ir.FlowSourceIn(version, direction, set_name, negate):
            if packet.version != version or not _tracked(packet):
                return False
            source = (packet.flow_source or packet.saddr) if packet.ct_reply is (direction == "reply") else packet.daddr
            return ((packet.iif, source) in ruleset.pair_sets[set_name].pairs) is not negate
        case ir.CellIn():
            return _cell(match, packet, ruleset) is not None
        case ir.Address(side, network):
            address = ipaddress.ip_address(packet.saddr if side == "saddr" else packet.daddr)
            return address.version == network.version and address in network
        case ir.Family(version):
            return packet.version == version
        case ir.Protocol(number):
            return packet.protocol == number
        case ir.Ports(protocol, first, last):
            return packet.protocol == protocol and first <= packet.dport <= last
        case ir.Icmp(version, kind, code):
            number = 1 if version == 4 else 58
            typed = packet.version == version and packet.protocol == number and packet.dport == kind
            return typed and code in (None, packet.code)
        case ir.Limit():
            return True  # the model knows no time: few packets come
    assert_never(match)


def _cell(match: ir.CellIn, packet: Packet, ruleset: ir.Ruleset) -> ir.Cell | None:
    """The one cell that the packet lies in."""
    if (packet.version, packet.protocol) != (match.version, match.protocol):
        return None
    address = ipaddress.ip_address(packet.saddr if match.side == "saddr" else packet.daddr)
    there = (
        one
        for one in ruleset.cell_sets[match.set_name].cells
        if one.first <= packet.dport <= one.last and address in ipaddress.ip_network(one.network)
    )
    return next(there, None)


def _comment(rule: ir.Rule, packet: Packet, ruleset: ir.Ruleset) -> str:
    """What a rule that matched says of where it is from: itself, or by the cell that the packet lies in."""
    cells = (_cell(match, packet, ruleset) for match in rule.matches if isinstance(match, ir.CellIn))
    return rule.comment or "".join(cell.comment for cell in cells if cell is not None)


def _tracked(packet: Packet) -> bool:
    """An invalid packet belongs to no connection, so that no direction and no mark match."""
    return packet.ct_state != "invalid"


def _device(packet: Packet, side: Literal["iif", "oif"]) -> str:
    return packet.iif if side == "iif" else packet.oif


def _act(statement: ir.Statement, ruleset: ir.Ruleset, packet: Packet, result: Walk) -> None:
    match statement:
        case ir.Count(counter):
            result.counted.append(counter)
        case ir.SetCtMark(value, mask):
            result.ct_mark = result.ct_mark & ~mask | value
        case ir.SetMark(value):
            result.mark = value
        case ir.CopyMark(mask):
            result.mark = result.ct_mark & mask
        case ir.SetTimeout(timeout):
            if packet.protocol == (6 if ruleset.timeouts[timeout].protocol == "tcp" else 17):
                result.timeout = timeout
