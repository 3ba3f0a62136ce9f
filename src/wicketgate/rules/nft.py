"""Ruleset -> nftables commands (nft(8) text, one transaction a buffer), whole or as the difference of two.

Text, not JSON: libnftables takes both, the text is what a reader of `nft list ruleset` knows, and it is half the size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import assert_never

from wicketgate.rules import ir
from wicketgate.rules.compile import APPLIED, TABLE


def fingerprint(ruleset: ir.Ruleset) -> str:
    """A hash of the ruleset's content: what reconcile compares, since nft rewrites expressions when it lists them."""
    return hashlib.sha256("\n".join(_whole(ruleset)).encode()).hexdigest()[:32]


def render(ruleset: ir.Ruleset) -> str:
    """Replace whatever our table holds by this ruleset, in one transaction that leaves no gap."""
    # Adding the table first makes the deletion succeed whether or not it exists (nft 1.0.6 has no `destroy`).
    lines = [f"add table inet {TABLE}", f"delete table inet {TABLE}", f"add table inet {TABLE}"]
    return "\n".join([*lines, *_whole(ruleset), *_applied(ruleset, fresh=True)]) + "\n"


def changes(old: ir.Ruleset, new: ir.Ruleset) -> str:
    """Turn `old`, in force now, into `new`: only what differs. Empty when nothing does.

    Order within the transaction: what is named must exist before it is used, and be unused before it goes. Counters
    keep their values unless they are new.
    """
    if old == new:
        return ""
    lines = [f"add counter inet {TABLE} {name}" for name in sorted(new.counters - old.counters)]
    lines += _declare(new, skip=old)
    for name, chain in new.chains.items():
        before = old.chains.get(name)
        if before != chain:
            if before is not None:
                lines.append(f"flush chain inet {TABLE} {name}")
            lines += _rules(name, chain)
    lines += _elements(old, new, "delete")
    lines += _elements(new, old, "add")
    gone = [name for name in old.chains if name not in new.chains]
    lines += [f"flush chain inet {TABLE} {name}" for name in gone]
    lines += [f"delete chain inet {TABLE} {name}" for name in gone]
    for names_old, names_new, kind in (
        (old.maps, new.maps, "map"),
        (old.interface_sets, new.interface_sets, "set"),
        (old.source_sets, new.source_sets, "set"),
    ):
        lines += [f"delete {kind} inet {TABLE} {name}" for name in names_old if name not in names_new]
    lines += [f"delete counter inet {TABLE} {name}" for name in sorted(old.counters - new.counters)]
    return "\n".join([*lines, *_applied(new, fresh=False)]) + "\n"


def _whole(ruleset: ir.Ruleset) -> Iterator[str]:
    yield from (f"add counter inet {TABLE} {name}" for name in sorted(ruleset.counters))
    yield from _declare(ruleset, skip=ir.Ruleset())
    for name, chain in ruleset.chains.items():
        yield from _rules(name, chain)
    yield from _elements(ruleset, ir.Ruleset(), "add")


def _applied(ruleset: ir.Ruleset, *, fresh: bool) -> Iterator[str]:
    yield f"{'add' if fresh else 'flush'} chain inet {TABLE} {APPLIED}"
    yield f'add rule inet {TABLE} {APPLIED} counter comment "{fingerprint(ruleset)}"'


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
        if name in skip.chains:
            continue
        if chain.hook is None:
            yield f"add chain inet {TABLE} {name}"
        else:
            hook = chain.hook
            at = f"type filter hook {hook.hook} priority {hook.priority}; policy {hook.policy};"
            yield f"add chain inet {TABLE} {name} {{ {at} }}"


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
    listed = ", ".join(elements)
    if listed:
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
