"""Rules of groups, prefix lists and interfaces as netlink attributes (linux/netfilter/nf_tables.h), as libnftables
writes them."""

from __future__ import annotations

import struct
import sys
from typing import Literal

from wicketgate.rules import ir

NFPROTO_IPV4, NFPROTO_IPV6 = 2, 10
NESTED = 0x8000
META_IIFNAME, META_OIFNAME, META_NFPROTO, META_L4PROTO = 6, 7, 15, 16
CT_STATE, CT_MARK = 0, 3
EQUAL, OTHER, AT_MOST, AT_LEAST = 0, 1, 3, 5
BASE_NETWORK, BASE_TRANSPORT = 1, 2
REGISTER_VERDICT, REGISTER, NEXT_REGISTER = 0, 1, 2
BEHIND_FOUR_BYTES = 9
"""The register of 32 bits that follows the first 32 bits of REGISTER."""
DROP, ACCEPT, JUMP, GOTO = 0, 1, -3, -4
OBJECT_COUNTER = 1
LOOKUP_INVERTED = 1

_ATTRIBUTE = struct.Struct("=HH")
_PADDING = (b"", bytes(3), bytes(2), bytes(1))


class NotHere(Exception):
    """Something that only `nft` renders; never leaves `netlink`."""


_ADDRESSED = (ir.Address, ir.PairIn, ir.CellIn)
"""Matches that begin with a test of the family."""


def rule_expressions(rule: ir.Rule) -> bytes:
    """The list of a rule's expressions. Raises NotHere."""
    # What says the family already makes ICMP's own test of it needless, and libnftables leaves it out.
    of_family = any(isinstance(match, ir.Address | ir.Family | ir.PairIn | ir.CellIn) for match in rule.matches)
    parts = [_match(match, of_family) for match in rule.matches]
    addressed = [place for place, match in enumerate(rule.matches) if isinstance(match, _ADDRESSED)]
    for place in addressed[1:]:  # the first one's test of the family serves the others
        parts[place] = parts[place].removeprefix(_family(4)).removeprefix(_family(6))
    parts += [_statement(statement) for statement in rule.statements]
    if rule.verdict is not None:
        parts.append(_verdict(rule.verdict))
    return b"".join(parts)


def verdict_data(verdict: ir.Verdict) -> bytes:
    """A verdict as the data of an element or of an expression. Raises NotHere."""
    match verdict:
        case ir.Accept():
            code = number(1, ACCEPT)
        case ir.Drop():
            code = number(1, DROP)
        case ir.Goto(chain):
            code = number(1, GOTO) + text(2, chain)
        case ir.Jump(chain):
            code = number(1, JUMP) + text(2, chain)
        case _:
            raise NotHere
    return attribute(2 | NESTED, code)


def interface_key(name: str) -> bytes:
    """A device's name as the key of a set: 16 bytes."""
    return name.encode().ljust(16, b"\0")


# -- attributes --------------------------------------------------------------------------------------------------------


def attribute(kind: int, value: bytes) -> bytes:
    """A netlink attribute, padded."""
    size = len(value)
    return _ATTRIBUTE.pack(4 + size, kind) + value + _PADDING[size % 4]


def number(kind: int, value: int) -> bytes:
    """An attribute of 32 bits in network byte order."""
    return attribute(kind, (value & 0xFFFFFFFF).to_bytes(4, "big"))


def text(kind: int, value: str) -> bytes:
    """An attribute with a zero-terminated text."""
    return attribute(kind, value.encode() + b"\0")


def data(kind: int, value: bytes) -> bytes:
    """An attribute with a value of a register or a key."""
    return attribute(kind | NESTED, attribute(1, value))


def _expression(name: str, *attributes: bytes) -> bytes:
    return attribute(1 | NESTED, text(1, name) + attribute(2 | NESTED, b"".join(attributes)))


# -- expressions -------------------------------------------------------------------------------------------------------


def _meta(key: int) -> bytes:
    return _expression("meta", number(2, key), number(1, REGISTER))


def _compare(operator: int, value: bytes) -> bytes:
    return _expression("cmp", number(1, REGISTER), number(2, operator), data(3, value))


def _payload(base: int, offset: int, length: int, register: int = REGISTER) -> bytes:
    return _expression("payload", number(1, register), number(2, base), number(3, offset), number(4, length))


def _bitwise(mask: bytes, flipped: bytes) -> bytes:
    """The register under a mask, and then with some bits flipped."""
    size = number(3, len(mask))
    return _expression("bitwise", number(1, REGISTER), number(2, REGISTER), size, data(4, mask), data(5, flipped))


def _interface(side: Literal["iif", "oif"]) -> bytes:
    return _meta(META_IIFNAME if side == "iif" else META_OIFNAME)


def _lookup(set_name: str, negate: bool) -> bytes:
    flags = (number(5, LOOKUP_INVERTED),) if negate else ()
    return _expression("lookup", text(1, set_name), number(2, REGISTER), *flags)


def _family(version: ir.Version) -> bytes:
    return _meta(META_NFPROTO) + _compare(EQUAL, bytes([NFPROTO_IPV4 if version == 4 else NFPROTO_IPV6]))


def _protocol(number: int) -> bytes:
    return _meta(META_L4PROTO) + _compare(EQUAL, bytes([number]))


def _match(match: ir.Match, of_family: bool) -> bytes:
    match match:
        case ir.InterfaceIn(side, set_name, negate):
            return _interface(side) + _lookup(set_name, negate)
        case ir.PairIn():
            return _pair(match)
        case ir.CellIn():
            return _cell(match)
        case ir.CtState(("invalid",)):
            masked = _bitwise((1).to_bytes(4, sys.byteorder), bytes(4))
            return _expression("ct", number(2, CT_STATE), number(1, REGISTER)) + masked + _compare(OTHER, bytes(4))
        case ir.Address(side, network) if network.prefixlen > 0:
            return _address(side, network)
        case ir.Family(version):
            return _family(version)
        case ir.Protocol(protocol):
            return _protocol(protocol)
        case ir.Ports(protocol, first, last):
            low, high = first.to_bytes(2, "big"), last.to_bytes(2, "big")
            ports = _compare(EQUAL, low) if first == last else _compare(AT_LEAST, low) + _compare(AT_MOST, high)
            return _protocol(protocol) + _payload(BASE_TRANSPORT, 2, 2) + ports
        case ir.Icmp(version, kind, code):
            value = bytes([kind] if code is None else [kind, code])
            typed = _payload(BASE_TRANSPORT, 0, len(value)) + _compare(EQUAL, value)
            return (b"" if of_family else _family(version)) + _protocol(1 if version == 4 else 58) + typed
    raise NotHere


def _address(side: Literal["saddr", "daddr"], network: ir.Network) -> bytes:
    """A prefix of whole bytes is compared as so many bytes, any other under its mask."""
    version: ir.Version = 4 if network.version == 4 else 6
    size = network.max_prefixlen // 8
    offset = (12 if version == 4 else 8) + (size if side == "daddr" else 0)
    whole, rest = divmod(network.prefixlen, 8)
    value = network.network_address.packed
    if rest == 0:
        test = _payload(BASE_NETWORK, offset, whole) + _compare(EQUAL, value[:whole])
    else:
        masked = _bitwise(network.netmask.packed, bytes(size))
        test = _payload(BASE_NETWORK, offset, size) + masked + _compare(EQUAL, value)
    return _family(version) + test


def _pair(match: ir.PairIn) -> bytes:
    """Device and address, side by side in the registers, looked up together."""
    size = 4 if match.version == 4 else 16
    offset = (12 if match.version == 4 else 8) + (size if match.side == "oif" else 0)
    address = _payload(BASE_NETWORK, offset, size, NEXT_REGISTER)
    return _family(match.version) + _interface(match.side) + address + _lookup(match.set_name, match.negate)


def _cell(match: ir.CellIn) -> bytes:
    """Address and port, side by side in the registers, looked up together."""
    size = 4 if match.version == 4 else 16
    offset = (12 if match.version == 4 else 8) + (size if match.side == "daddr" else 0)
    address = _payload(BASE_NETWORK, offset, size)
    port = _payload(BASE_TRANSPORT, 2, 2, BEHIND_FOUR_BYTES if match.version == 4 else NEXT_REGISTER)
    return _family(match.version) + _protocol(match.protocol) + address + port + _lookup(match.set_name, False)


def _statement(statement: ir.Statement) -> bytes:
    match statement:
        case ir.Count(counter):
            return _expression("objref", number(1, OBJECT_COUNTER), text(2, counter))
        case ir.SetCtMark(value, mask):
            load = _expression("ct", number(2, CT_MARK), number(1, REGISTER))
            others = (~mask & 0xFFFFFFFF).to_bytes(4, sys.byteorder)
            return (
                load
                + _bitwise(others, value.to_bytes(4, sys.byteorder))
                + _expression("ct", number(2, CT_MARK), number(4, REGISTER))
            )
    raise NotHere


def _verdict(verdict: ir.Verdict) -> bytes:
    if isinstance(verdict, ir.Dispatch):
        to_verdict = number(3, REGISTER_VERDICT)
        lookup = _expression("lookup", text(1, verdict.map_name), number(2, REGISTER), to_verdict)
        return _interface(verdict.side) + lookup
    return _expression("immediate", number(1, REGISTER_VERDICT), attribute(2 | NESTED, verdict_data(verdict)))
