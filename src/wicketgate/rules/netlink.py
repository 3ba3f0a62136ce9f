"""A change of chains and elements as one batch of netlink messages (linux/netfilter/nf_tables.h), as libnftables writes
it.

Why a second rendering beside `nft`: before each command libnftables reads all chains and sets of the namespace back,
2 ms with 1,000 groups, where the change itself takes 0.1. So what changes often goes to the kernel directly: rules of
groups, entries of prefix lists, memberships, interfaces. All else, which needs sets or hooks, stays text.
`tests/net/test_scale.py` proves that the kernel ends up with the very expressions and elements that the text gives.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from ipaddress import ip_address, ip_network
from itertools import islice

from wicketgate.rules import ir
from wicketgate.rules.expressions import (
    NESTED,
    OBJECT_COUNTER,
    NotHere,
    attribute,
    data,
    interface_key,
    number,
    rule_expressions,
    text,
    verdict_data,
)
from wicketgate.rules.names import APPLIED, TABLE
from wicketgate.rules.nft import ELEMENTS, applied_chain, difference

BATCH_BEGIN, BATCH_END = 0x10, 0x11
NFNL_SUBSYS_NFTABLES = 10
NFPROTO_UNSPEC, NFPROTO_INET = 0, 1
NEWCHAIN, DELCHAIN, NEWRULE, DELRULE = 3, 5, 6, 8
NEWSET, DELSET, NEWSETELEM, DELSETELEM, NEWOBJ, DELOBJ = 9, 11, 12, 14, 18, 20
NLM_F_REQUEST, NLM_F_ACK, NLM_F_CREATE, NLM_F_APPEND = 0x1, 0x4, 0x400, 0x800
RULE_CHAIN, RULE_EXPRESSIONS, RULE_USERDATA = 2, 4, 7
CHAIN_NAME = 3
SET_NAME, SET_ELEMENTS = 2, 3
SET_FLAGS, SET_KEY_TYPE, SET_KEY_LENGTH, SET_DESCRIPTION, SET_ID = 3, 4, 5, 9, 10
INTERVALS, CONCATENATION = 0x4, 0x80
TYPE_IPV4, TYPE_IPV6, TYPE_PORT, TYPE_BITS = 7, 8, 13, 6
"""What libnftables calls types of keys, for those who list the set; those of a concatenation stand in six bits each."""
ELEMENT_KEY, ELEMENT_DATA, ELEMENT_USERDATA, ELEMENT_KEY_END = 1, 2, 6, 10
OBJECT_NAME, OBJECT_TYPE, OBJECT_DATA = 2, 3, 4
USERDATA_COMMENT = 0

_HEADER = struct.Struct("=IHHII")
_NFGEN = struct.Struct("!BBH")
_PORT = struct.Struct("!Hxx")

Message = tuple[int, int, bytes]
"""Type, flags and attributes."""


def rewriting(old: ir.Ruleset, new: ir.Ruleset) -> bytes | None:
    """What `changes` does, as one batch of messages that asks for one acknowledgement; None when it needs more than
    regular chains, sets of cells, elements and counters, and so has to be text. Empty when nothing differs."""
    less, more = difference(old, new)
    if less == more:
        return b""
    if (
        less.timeouts
        or more.timeouts
        or any(
            getattr(less, kind).keys() != getattr(more, kind).keys() for kind in ("interface_sets", "pair_sets", "maps")
        )
    ):
        return None
    try:
        messages = list(_messages(less, more))
    except NotHere:
        return None
    return batch([*messages, *_rewritten(APPLIED, applied_chain(new))])


def _messages(less: ir.Ruleset, more: ir.Ruleset) -> Iterator[Message]:
    """In the order of `changes`: what is named must exist before it is used, and be unused before it goes."""
    yield from counter_messages(more.counters)
    for name, chain in more.chains.items():
        if chain.hook is not None:
            raise NotHere
        if name not in less.chains:
            yield NEWCHAIN, NLM_F_CREATE, named_chain(name)
    yield from set_messages({name: cells for name, cells in more.cell_sets.items() if name not in less.cell_sets})
    for name, chain in more.chains.items():
        yield from _rewritten(name, chain)
    kept = {name: cells for name, cells in less.cell_sets.items() if name in more.cell_sets}
    yield from element_messages(DELSETELEM, 0, replace(less, cell_sets=kept))
    yield from element_messages(NEWSETELEM, NLM_F_CREATE, more)
    gone = [name for name in less.chains if name not in more.chains]
    yield from ((DELRULE, 0, _in_table(RULE_CHAIN, name)) for name in gone)
    yield from ((DELCHAIN, 0, named_chain(name)) for name in gone)
    yield from ((DELSET, 0, _in_table(SET_NAME, name)) for name in less.cell_sets if name not in more.cell_sets)
    for name in sorted(less.counters):
        yield DELOBJ, 0, _in_table(OBJECT_NAME, name) + number(OBJECT_TYPE, OBJECT_COUNTER)


def counter_messages(counters: Iterable[str]) -> Iterator[Message]:
    """Make these counters."""
    kind = number(OBJECT_TYPE, OBJECT_COUNTER) + attribute(OBJECT_DATA | NESTED, b"")
    return ((NEWOBJ, NLM_F_CREATE, _in_table(OBJECT_NAME, name) + kind) for name in sorted(counters))


def set_messages(cell_sets: Mapping[str, ir.CellSet]) -> Iterator[Message]:
    """Make these sets of cells, empty."""
    return ((NEWSET, NLM_F_CREATE, _cell_set(name, cells)) for name, cells in cell_sets.items())


def named_chain(name: str) -> bytes:
    """What a message that makes or deletes a regular chain says."""
    return _in_table(CHAIN_NAME, name)


def _rewritten(name: str, chain: ir.Chain) -> Iterator[Message]:
    """The chain flushed and filled again."""
    yield DELRULE, 0, _in_table(RULE_CHAIN, name)
    yield from chain_messages(name, chain)


def chain_messages(name: str, chain: ir.Chain) -> Iterator[Message]:
    """Add a chain's rules to it. Raises NotHere."""
    where = _in_table(RULE_CHAIN, name)
    for rule in chain.rules:
        attributes = where + attribute(RULE_EXPRESSIONS | NESTED, rule_expressions(rule))
        if rule.comment:
            attributes += _comment(RULE_USERDATA, rule.comment)
        yield NEWRULE, NLM_F_CREATE | NLM_F_APPEND, attributes


def element_messages(kind: int, flags: int, ruleset: ir.Ruleset) -> Iterator[Message]:
    """Add or delete all elements of a ruleset's sets and, last, of its maps."""
    for name, links in ruleset.interface_sets.items():
        yield from _of_set(kind, flags, name, (_key(interface_key(link)) for link in sorted(links)))
    for name, pairs in ruleset.pair_sets.items():
        keys = (interface_key(link) + ip_address(address).packed for link, address in sorted(pairs.pairs))
        yield from _of_set(kind, flags, name, (_key(key) for key in keys))
    for name, cells in ruleset.cell_sets.items():
        yield from _of_set(kind, flags, name, map(_cell, sorted(cells.cells)))
    for name, entries in ruleset.maps.items():
        leads = (_key(interface_key(link)) + _leads(chain) for link, chain in sorted(entries.items()))
        yield from _of_set(kind, flags, name, leads)


def _of_set(kind: int, flags: int, name: str, elements: Iterable[bytes]) -> Iterator[Message]:
    rest = iter(elements)
    while listed := b"".join(attribute(1 | NESTED, one) for one in islice(rest, ELEMENTS)):
        yield kind, flags, _in_table(SET_NAME, name) + attribute(SET_ELEMENTS | NESTED, listed)


def _key(value: bytes) -> bytes:
    return data(ELEMENT_KEY, value)


def _cell_set(name: str, cells: ir.CellSet) -> bytes:
    """A set of cells, without its elements: addresses and ports side by side, each padded to four bytes."""
    address, port = 4 if cells.version == 4 else 16, 2
    fields = b"".join(attribute(1 | NESTED, number(1, size)) for size in (address, port))
    return b"".join(
        (
            _in_table(SET_NAME, name),
            number(SET_FLAGS, INTERVALS | CONCATENATION),
            number(SET_KEY_TYPE, (TYPE_IPV4 if cells.version == 4 else TYPE_IPV6) << TYPE_BITS | TYPE_PORT),
            number(SET_KEY_LENGTH, address + 4),
            number(SET_ID, 1),  # must be there, and names the set within the batch: we name it by name
            attribute(SET_DESCRIPTION | NESTED, attribute(2 | NESTED, fields)),
        )
    )


def _cell(cell: ir.Cell) -> bytes:
    """The lowest address and port, the highest ones, and the comment."""
    low, high = _bounds(cell.network)
    comment = _comment(ELEMENT_USERDATA, cell.comment) if cell.comment else b""
    return _key(low + _PORT.pack(cell.first)) + data(ELEMENT_KEY_END, high + _PORT.pack(cell.last)) + comment


@lru_cache(maxsize=16384)
def _bounds(network: str) -> tuple[bytes, bytes]:
    """The first and the last address of a range."""
    found = ip_network(network)
    return found.network_address.packed, found.broadcast_address.packed


def _comment(kind: int, comment: str) -> bytes:
    written = comment.encode() + b"\0"
    return attribute(kind, bytes((USERDATA_COMMENT, len(written))) + written)


def _leads(chain: str) -> bytes:
    return attribute(ELEMENT_DATA | NESTED, verdict_data(ir.Goto(chain)))


def _in_table(kind: int, name: str) -> bytes:
    """The table, which is attribute 1 of every message, and the name of what is meant."""
    return text(1, TABLE) + text(kind, name)


def batch(bodies: list[Message]) -> bytes:
    """Messages (type, flags, attributes) as one transaction; the last of them is acknowledged."""
    control = _NFGEN.pack(NFPROTO_UNSPEC, 0, NFNL_SUBSYS_NFTABLES)
    messages = [_message(BATCH_BEGIN, 0, 0, control)]
    for place, (kind, flags, attributes) in enumerate(bodies, start=1):
        acknowledged = NLM_F_ACK if place == len(bodies) else 0
        body = _NFGEN.pack(NFPROTO_INET, 0, 0) + attributes
        messages.append(_message(NFNL_SUBSYS_NFTABLES << 8 | kind, flags | acknowledged, place, body))
    messages.append(_message(BATCH_END, 0, len(bodies) + 1, control))
    return b"".join(messages)


def _message(kind: int, flags: int, place: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, NLM_F_REQUEST | flags, place, 0) + body
