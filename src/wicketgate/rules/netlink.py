"""A change of rules alone as one batch of netlink messages (linux/netfilter/nf_tables.h), as libnftables writes it.

Why a second rendering beside `nft`: before each command libnftables reads all chains and sets of the namespace back,
2 ms with 1,000 groups, where the change itself takes 0.1. So the one frequent change, chains of groups that are
rewritten, goes to the kernel directly; all else, which needs sets, maps or hooks, stays text.
`tests/net/test_scale.py` proves that the kernel ends up with the very expressions that the text gives.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Literal

from wicketgate.rules import ir
from wicketgate.rules.names import APPLIED, TABLE
from wicketgate.rules.nft import applied_chain, difference

BATCH_BEGIN, BATCH_END = 0x10, 0x11
NFNL_SUBSYS_NFTABLES = 10
NFPROTO_UNSPEC, NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6 = 0, 1, 2, 10
NEWRULE, DELRULE = 6, 8
NLM_F_REQUEST, NLM_F_ACK, NLM_F_CREATE, NLM_F_APPEND = 0x1, 0x4, 0x400, 0x800
NESTED = 0x8000
RULE_TABLE, RULE_CHAIN, RULE_EXPRESSIONS, RULE_USERDATA = 1, 2, 4, 7
USERDATA_COMMENT = 0
META_IIFNAME, META_OIFNAME, META_NFPROTO, META_L4PROTO = 6, 7, 15, 16
EQUAL, AT_MOST, AT_LEAST = 0, 3, 5
BASE_NETWORK, BASE_TRANSPORT = 1, 2
REGISTER_VERDICT, REGISTER = 0, 1
DROP, ACCEPT, JUMP, GOTO = 0, 1, -3, -4

_HEADER = struct.Struct("=IHHII")
_NFGEN = struct.Struct("!BBH")
_ATTRIBUTE = struct.Struct("=HH")


class _NotHere(Exception):
    """Something that only `nft` renders; never leaves this module."""


def rewriting(old: ir.Ruleset, new: ir.Ruleset) -> bytes | None:
    """What `changes` does, as one batch of messages that asks for one acknowledgement; None when it needs more than
    rules of chains of groups, and so has to be text. Empty when nothing differs."""
    less, more = difference(old, new)
    if less == more:
        return b""
    if less.chains.keys() != more.chains.keys() or any(
        (one.interface_sets, one.pair_sets, one.maps, one.counters) != ({}, {}, {}, frozenset()) for one in (less, more)
    ):
        return None
    try:
        bodies = [body for name, chain in more.chains.items() for body in _rewritten(name, chain)]
    except _NotHere:
        return None
    bodies += _rewritten(APPLIED, applied_chain(new))
    return _batch(bodies)


def _batch(bodies: list[tuple[int, int, bytes]]) -> bytes:
    """Messages (type, flags, attributes) as one transaction; the last of them is acknowledged."""
    control = _NFGEN.pack(NFPROTO_UNSPEC, 0, NFNL_SUBSYS_NFTABLES)
    messages = [_message(BATCH_BEGIN, 0, 0, control)]
    for number, (kind, flags, attributes) in enumerate(bodies, start=1):
        acknowledged = NLM_F_ACK if number == len(bodies) else 0
        body = _NFGEN.pack(NFPROTO_INET, 0, 0) + attributes
        messages.append(_message(NFNL_SUBSYS_NFTABLES << 8 | kind, flags | acknowledged, number, body))
    messages.append(_message(BATCH_END, 0, len(bodies) + 1, control))
    return b"".join(messages)


def _message(kind: int, flags: int, number: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, NLM_F_REQUEST | flags, number, 0) + body


def _rewritten(name: str, chain: ir.Chain) -> Iterator[tuple[int, int, bytes]]:
    """The chain flushed and filled again."""
    where = _text(RULE_TABLE, TABLE) + _text(RULE_CHAIN, name)
    if chain.hook is not None:
        raise _NotHere
    yield DELRULE, 0, where
    for rule in chain.rules:
        if rule.statements or rule.verdict is None:
            raise _NotHere
        # What says the family already makes ICMP's own test of it needless, and libnftables leaves it out.
        of_family = any(isinstance(match, ir.Address | ir.Family) for match in rule.matches)
        expressions = b"".join(_match(match, of_family) for match in rule.matches) + _verdict(rule.verdict)
        attributes = where + _attribute(RULE_EXPRESSIONS | NESTED, expressions)
        if rule.comment:
            comment = rule.comment.encode() + b"\0"
            attributes += _attribute(RULE_USERDATA, bytes((USERDATA_COMMENT, len(comment))) + comment)
        yield NEWRULE, NLM_F_CREATE | NLM_F_APPEND, attributes


# -- attributes --------------------------------------------------------------------------------------------------------


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, (value & 0xFFFFFFFF).to_bytes(4, "big"))


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _data(kind: int, value: bytes) -> bytes:
    return _attribute(kind | NESTED, _attribute(1, value))


def _expression(name: str, *attributes: bytes) -> bytes:
    return _attribute(1 | NESTED, _text(1, name) + _attribute(2 | NESTED, b"".join(attributes)))


# -- expressions -------------------------------------------------------------------------------------------------------


def _meta(key: int) -> bytes:
    return _expression("meta", _number(2, key), _number(1, REGISTER))


def _compare(operator: int, value: bytes) -> bytes:
    return _expression("cmp", _number(1, REGISTER), _number(2, operator), _data(3, value))


def _payload(base: int, offset: int, length: int) -> bytes:
    return _expression("payload", _number(1, REGISTER), _number(2, base), _number(3, offset), _number(4, length))


def _family(version: Literal[4, 6]) -> bytes:
    return _meta(META_NFPROTO) + _compare(EQUAL, bytes([NFPROTO_IPV4 if version == 4 else NFPROTO_IPV6]))


def _protocol(number: int) -> bytes:
    return _meta(META_L4PROTO) + _compare(EQUAL, bytes([number]))


def _match(match: ir.Match, of_family: bool) -> bytes:
    match match:
        case ir.InterfaceIn(side, set_name, False):
            lookup = _expression("lookup", _text(1, set_name), _number(2, REGISTER))
            return _meta(META_IIFNAME if side == "iif" else META_OIFNAME) + lookup
        case ir.Address(side, network) if network.prefixlen > 0:
            return _address(side, network)
        case ir.Family(version):
            return _family(version)
        case ir.Protocol(number):
            return _protocol(number)
        case ir.Ports(protocol, first, last):
            low, high = first.to_bytes(2, "big"), last.to_bytes(2, "big")
            ports = _compare(EQUAL, low) if first == last else _compare(AT_LEAST, low) + _compare(AT_MOST, high)
            return _protocol(protocol) + _payload(BASE_TRANSPORT, 2, 2) + ports
        case ir.Icmp(version, kind, code):
            value = bytes([kind] if code is None else [kind, code])
            typed = _payload(BASE_TRANSPORT, 0, len(value)) + _compare(EQUAL, value)
            return (b"" if of_family else _family(version)) + _protocol(1 if version == 4 else 58) + typed
    raise _NotHere


def _address(side: Literal["saddr", "daddr"], network: ir.Network) -> bytes:
    """A prefix of whole bytes is compared as so many bytes, any other under its mask."""
    version: Literal[4, 6] = 4 if network.version == 4 else 6
    size = network.max_prefixlen // 8
    offset = (12 if version == 4 else 8) + (size if side == "daddr" else 0)
    whole, rest = divmod(network.prefixlen, 8)
    value = network.network_address.packed
    if rest == 0:
        test = _payload(BASE_NETWORK, offset, whole) + _compare(EQUAL, value[:whole])
    else:
        masked = _expression(
            "bitwise",
            *(_number(1, REGISTER), _number(2, REGISTER), _number(3, size)),
            *(_data(4, network.netmask.packed), _data(5, bytes(size))),
        )
        test = _payload(BASE_NETWORK, offset, size) + masked + _compare(EQUAL, value)
    return _family(version) + test


def _verdict(verdict: ir.Verdict) -> bytes:
    match verdict:
        case ir.Accept():
            code = _number(1, ACCEPT)
        case ir.Drop():
            code = _number(1, DROP)
        case ir.Goto(chain):
            code = _number(1, GOTO) + _text(2, chain)
        case ir.Jump(chain):
            code = _number(1, JUMP) + _text(2, chain)
        case _:
            raise _NotHere
    data = _attribute(2 | NESTED, _attribute(2 | NESTED, code))
    return _expression("immediate", _number(1, REGISTER_VERDICT), data)
