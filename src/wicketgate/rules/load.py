"""A whole ruleset in transactions that the kernel takes from a user namespace, whatever its size, and quickly.

What is much of (rules of groups and interfaces, elements) goes as netlink messages, the rest as text: libnftables would
read back what is there before each part, and take half a gigabyte for the whole.

Base chains with policy drop come first and the elements by which packets reach a group's chain last, so that half a
load denies; the fingerprint is in the last part alone, so that half a load is not taken for a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from wicketgate.rules import ir
from wicketgate.rules.expressions import NotHere
from wicketgate.rules.names import APPLIED
from wicketgate.rules.netlink import (
    NEWCHAIN,
    NEWSETELEM,
    NLM_F_CREATE,
    Message,
    batch,
    chain_messages,
    counter_messages,
    element_messages,
    named_chain,
    set_messages,
)
from wicketgate.rules.nft import applied_chain, declarations, rule_lines

TEXT = 32_000
"""Characters of a part that is text: one becomes at most six bytes of netlink messages."""
MESSAGES = 150_000
"""Bytes of a part that is messages. Both fit what a socket sends at once by default (net.core.wmem_default, 212,992
bytes)."""


def loading(ruleset: ir.Ruleset) -> Iterator[str | bytes]:
    """Replace whatever our table holds by this ruleset, in parts: text for libnftables, bytes as they are."""
    written: dict[str, list[Message]] = {}
    for name, chain in ruleset.chains.items():
        if chain.hook is None:
            try:
                written[name] = list(chain_messages(name, chain))
            except NotHere:
                continue
    said = {name: chain for name, chain in ruleset.chains.items() if name not in written}
    yield from _lines(declarations(replace(ruleset, chains=said, cell_sets={}, counters=frozenset())))
    yield from _batches(_parts(ruleset, written))
    yield from _lines(line for name, chain in said.items() for line in rule_lines(name, chain))
    applied = (NEWCHAIN, NLM_F_CREATE, named_chain(APPLIED)), *chain_messages(APPLIED, applied_chain(ruleset))
    yield from _batches((*element_messages(NEWSETELEM, NLM_F_CREATE, ruleset), *applied))


def _parts(ruleset: ir.Ruleset, written: dict[str, list[Message]]) -> Iterator[Message]:
    """Counters, sets of cells, then all chains before the rules of any."""
    yield from counter_messages(ruleset.counters)
    yield from set_messages(ruleset.cell_sets)
    yield from ((NEWCHAIN, NLM_F_CREATE, named_chain(name)) for name in written)
    for messages in written.values():
        yield from messages


def _lines(lines: Iterable[str]) -> Iterator[str]:
    part: list[str] = []
    size = 0
    for line in lines:
        if size + len(line) > TEXT:
            yield "\n".join(part) + "\n"
            part, size = [], 0
        part.append(line)
        size += len(line)
    if part:
        yield "\n".join(part) + "\n"


def _batches(messages: Iterable[Message]) -> Iterator[bytes]:
    part: list[Message] = []
    size = 0
    for message in messages:
        if part and size + len(message[2]) + 20 > MESSAGES:
            yield batch(part)
            part, size = [], 0
        part.append(message)
        size += len(message[2]) + 20
    if part:
        yield batch(part)
