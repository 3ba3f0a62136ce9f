"""Ruleset -> nftables commands (nft(8) text, one transaction a buffer), whole or as the difference of two.

Text, not JSON: libnftables takes both, the text is what a reader of `nft list ruleset` knows, and it is half the size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar, assert_never

from wicketgate.rules import ir
from wicketgate.rules.compile import APPLIED, TABLE

BATCH = 32_000
"""Characters of one transaction that fits whatever a socket sends at once by default (net.core.wmem_default, 212,992
bytes): one becomes at most six bytes of netlink messages."""
ELEMENTS = 250
"""Elements of a set that one command adds or deletes."""

_Part = TypeVar("_Part")


def fingerprint(ruleset: ir.Ruleset) -> str:
    """A hash of the ruleset's content: what reconcile compares, since nft rewrites expressions when it lists them.

    It is the sum of the hashes of the parts, so that the difference of two rulesets leads from one to the other.
    """
    if not ruleset.digest:
        ruleset.digest.append(_digest(ruleset))
    return f"{ruleset.digest[0]:064x}"


def render(ruleset: ir.Ruleset) -> str:
    """Replace whatever our table holds by this ruleset, in one transaction that leaves no gap."""
    return "\n".join(_replacement(ruleset)) + "\n"


def batches(ruleset: ir.Ruleset) -> Iterator[str]:
    """The same in transactions that the kernel takes from a user namespace, whatever the ruleset's size.

    Base chains with policy drop come first and the elements by which packets reach a group's chain last, so that half
    a load denies; the fingerprint is in the last one alone, so that half a load is not taken for a whole.
    """
    lines: list[str] = []
    size = 0
    for line in _replacement(ruleset):
        if size + len(line) > BATCH:
            yield "\n".join(lines) + "\n"
            lines, size = [], 0
        lines.append(line)
        size += len(line)
    yield "\n".join(lines) + "\n"


def changes(old: ir.Ruleset, new: ir.Ruleset) -> str:
    """Turn `old`, in force now, into `new`: only what differs. Empty when nothing does.

    Order within the transaction: what is named must exist before it is used, and be unused before it goes. Counters
    keep their values unless they are new.
    """
    less, more = difference(old, new)
    if less == more:
        return ""
    lines = [f"add counter inet {TABLE} {name}" for name in sorted(more.counters)]
    lines += _declare(more, skip=less)
    for name, chain in more.chains.items():
        if name in less.chains:
            lines.append(f"flush chain inet {TABLE} {name}")
        lines += _rules(name, chain)
    lines += _elements(less, more, "delete")
    lines += _elements(more, less, "add")
    gone = [name for name in less.chains if name not in more.chains]
    lines += [f"flush chain inet {TABLE} {name}" for name in gone]
    lines += [f"delete chain inet {TABLE} {name}" for name in gone]
    for names_old, names_new, kind in (
        (less.maps, more.maps, "map"),
        (less.interface_sets, more.interface_sets, "set"),
        (less.source_sets, more.source_sets, "set"),
    ):
        lines += [f"delete {kind} inet {TABLE} {name}" for name in names_old if name not in names_new]
    lines += [f"delete counter inet {TABLE} {name}" for name in sorted(less.counters)]
    return "\n".join([*lines, *_applied(new, fresh=False)]) + "\n"


def applied_chain(ruleset: ir.Ruleset) -> ir.Chain:
    """The chain that nothing jumps to and that says which ruleset this is."""
    return ir.Chain((ir.Rule(verdict=ir.Drop(), comment=fingerprint(ruleset)),))


def difference(old: ir.Ruleset, new: ir.Ruleset) -> tuple[ir.Ruleset, ir.Ruleset]:
    """Both without what they have in common. What is the same object is not compared.

    The fingerprint of `new` is known afterwards, from that of `old`.
    """
    chains = _differing(old.chains, new.chains)
    interface_sets = _differing(old.interface_sets, new.interface_sets)
    source_sets = _differing(old.source_sets, new.source_sets)
    maps = _differing(old.maps, new.maps)
    less, more = (
        ir.Ruleset(
            chains=chains[side],
            interface_sets=interface_sets[side],
            source_sets=source_sets[side],
            maps=maps[side],
            counters=one.counters - other.counters,
        )
        for side, one, other in ((0, old, new), (1, new, old))
    )
    if not new.digest:
        new.digest.append((int(fingerprint(old), 16) - _digest(less) + _digest(more)) % 2**256)
    return less, more


def _differing(old: dict[str, _Part], new: dict[str, _Part]) -> tuple[dict[str, _Part], dict[str, _Part]]:
    """The entries of each that the other has not."""
    if old is new:
        return {}, {}
    there = old.get
    more = {name: part for name, part in new.items() if there(name) is not part and there(name) != part}
    less = {name: old[name] for name in more if name in old}
    if len(old) - len(less) != len(new) - len(more):
        less |= {name: part for name, part in old.items() if name not in new}
    return less, more


def _digest(ruleset: ir.Ruleset) -> int:
    """The sum of the hashes of the parts, each the text that makes it, modulo 2**256."""
    return sum(int.from_bytes(hashlib.sha256(part.encode()).digest(), "big") for part in _parts(ruleset)) % 2**256


def _parts(ruleset: ir.Ruleset) -> Iterator[str]:
    """Counters, sets, maps and chains, each a text that stands for all of it."""
    yield from (f"counter {name}" for name in ruleset.counters)
    for name, chain in ruleset.chains.items():
        yield "\n".join((_declare_chain(name, chain), *_rules(name, chain)))
    yield from (f"set {name} {sorted(links)}" for name, links in ruleset.interface_sets.items())
    yield from (f"set {name} {sorted(pairs)}" for name, pairs in ruleset.source_sets.items())
    yield from (f"map {name} {sorted(entries.items())}" for name, entries in ruleset.maps.items())


def _replacement(ruleset: ir.Ruleset) -> Iterator[str]:
    # Adding the table first makes the deletion succeed whether or not it exists (nft 1.0.6 has no `destroy`).
    yield from (f"add table inet {TABLE}", f"delete table inet {TABLE}", f"add table inet {TABLE}")
    base = {name: chain for name, chain in ruleset.chains.items() if chain.hook is not None}
    yield from (_declare_chain(name, chain) for name, chain in base.items())
    yield from (f"add counter inet {TABLE} {name}" for name in sorted(ruleset.counters))
    yield from _declare(ruleset, skip=ir.Ruleset(chains=base))
    for name, chain in ruleset.chains.items():
        yield from _rules(name, chain)
    yield from _elements(ruleset, ir.Ruleset(), "add")
    yield from _applied(ruleset, fresh=True)


def _applied(ruleset: ir.Ruleset, *, fresh: bool) -> Iterator[str]:
    yield f"{'add' if fresh else 'flush'} chain inet {TABLE} {APPLIED}"
    yield from _rules(APPLIED, applied_chain(ruleset))


def _declare(ruleset: ir.Ruleset, *, skip: ir.Ruleset) -> Iterator[str]:
    for name in ruleset.interface_sets:
        if name not in skip.interface_sets:
            yield f"add set inet {TABLE} {name} {{ type ifname; }}"
    for name in ruleset.source_sets:
        if name not in skip.source_sets:
            yield f"add set inet {TABLE} {name} {{ type ifname . ipv4_addr; }}"
    for name in ruleset.maps:
        if name not in skip.maps:
            yield f"add map inet {TABLE} {name} {{ type ifname : verdict; }}"
    for name, chain in ruleset.chains.items():
        if name not in skip.chains:
            yield _declare_chain(name, chain)


def _declare_chain(name: str, chain: ir.Chain) -> str:
    if chain.hook is None:
        return f"add chain inet {TABLE} {name}"
    hook = chain.hook
    at = f"type filter hook {hook.hook} priority {hook.priority}; policy {hook.policy};"
    return f"add chain inet {TABLE} {name} {{ {at} }}"


def _rules(name: str, chain: ir.Chain) -> Iterator[str]:
    return (f"add rule inet {TABLE} {name} {_rule(rule)}" for rule in chain.rules)


def _elements(having: ir.Ruleset, other: ir.Ruleset, verb: str) -> Iterator[str]:
    """Elements of `having` that `other` lacks, as add or delete commands; sets that go away whole are left alone."""
    for name, links in having.interface_sets.items():
        if verb == "add" or name in other.interface_sets:
            rest = links - other.interface_sets.get(name, frozenset())
            yield from _element_command(verb, name, (f'"{link}"' for link in sorted(rest)))
    for name, pairs in having.source_sets.items():
        if verb == "add" or name in other.source_sets:
            missing = pairs - other.source_sets.get(name, frozenset())
            yield from _element_command(verb, name, (f'"{link}" . {address}' for link, address in sorted(missing)))
    for name, entries in having.maps.items():
        if verb == "add" or name in other.maps:
            there = other.maps.get(name, {})
            lacking = sorted((link, chain) for link, chain in entries.items() if there.get(link) != chain)
            yield from _element_command(verb, name, (f'"{link}" : goto {chain}' for link, chain in lacking))


def _element_command(verb: str, set_name: str, elements: Iterable[str]) -> Iterator[str]:
    rest = iter(elements)
    while listed := ", ".join(islice(rest, ELEMENTS)):
        yield f"{verb} element inet {TABLE} {set_name} {{ {listed} }}"


def _rule(rule: ir.Rule) -> str:
    parts = [_match(match) for match in rule.matches]
    parts += [_statement(statement) for statement in rule.statements]
    if rule.verdict is not None:
        parts.append(_verdict(rule.verdict))
    if rule.comment:
        parts.append(f'comment "{rule.comment}"')
    return " ".join(parts)


def _match(match: ir.Match) -> str:
    match match:
        case ir.CtState(states):
            return f"ct state {{ {', '.join(states)} }}" if len(states) > 1 else f"ct state {states[0]}"
        case ir.CtReply(mask):
            return f"ct direction reply ct mark & {mask:#010x} != 0"
        case ir.CtOriginal(value, mask):
            return f"ct direction original ct mark & {mask:#010x} == {value:#010x}"
        case ir.InterfaceIn(side, set_name, negate):
            return f"{side}name {'!= ' if negate else ''}@{set_name}"
        case ir.InterfaceIs(side, name):
            return f'{side}name "{name}"'
        case ir.SourceNotIn(set_name):
            return f"iifname . ip saddr != @{set_name}"
        case ir.Address(side, network):
            return f"{'ip' if network.version == 4 else 'ip6'} {side} {network}"
        case ir.Family(version):
            return f"meta nfproto ipv{version}"
        case ir.Protocol(number):
            return f"meta l4proto {number}"
        case ir.Ports(protocol, first, last):
            name = "tcp" if protocol == 6 else "udp"
            return f"{name} dport {first}" if first == last else f"{name} dport {first}-{last}"
        case ir.Icmp(version, kind, code):
            name = "icmp" if version == 4 else "icmpv6"
            return f"{name} type {kind}" + ("" if code is None else f" {name} code {code}")
    assert_never(match)


def _statement(statement: ir.Statement) -> str:
    match statement:
        case ir.Count(counter):
            return f'counter name "{counter}"'
        case ir.SetCtMark(value, mask):
            return f"ct mark set ct mark & {~mask & 0xFFFFFFFF:#010x} | {value:#010x}"
        case ir.SetMark(value):
            return f"meta mark set {value:#010x}"
        case ir.CopyMark(mask):
            return f"meta mark set ct mark & {mask:#010x}"
    assert_never(statement)


def _verdict(verdict: ir.Verdict) -> str:
    match verdict:
        case ir.Accept():
            return "accept"
        case ir.Drop():
            return "drop"
        case ir.Reject():
            return "reject with icmpx type admin-prohibited"
        case ir.Jump(chain):
            return f"jump {chain}"
        case ir.Goto(chain):
            return f"goto {chain}"
        case ir.Dispatch(side, map_name):
            return f"{side}name vmap @{map_name}"
    assert_never(verdict)
