"""Ruleset -> nftables commands (nft(8) text, one transaction a buffer), whole or as the difference of two.

Text, not JSON: libnftables takes both, the text is what a reader of `nft list ruleset` knows, and it is half the size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar, assert_never

from wicketgate.rules import ir
from wicketgate.rules.names import APPLIED, TABLE

ELEMENTS = 250
"""Elements of a set that one command adds or deletes."""

NONE: frozenset[str] = frozenset()

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


def changes(old: ir.Ruleset, new: ir.Ruleset) -> str:
    """Turn `old`, in force now, into `new`: only what differs. Empty when nothing does.

    Order within the transaction: what is named must exist before it is used, and be unused before it goes. Counters
    keep their values unless they are new.
    """
    less, more = difference(old, new)
    if less == more:
        return ""
    lines = [f"add counter inet {TABLE} {name}" for name in sorted(more.counters)]
    lines += _declare(more, skip=old)
    for name, chain in more.chains.items():
        if name in old.chains:
            lines.append(f"flush chain inet {TABLE} {name}")
        lines += rule_lines(name, chain)
    lines += _elements(less, "delete", of=new)
    lines += _elements(more, "add", of=new)
    gone = [name for name in less.chains if name not in new.chains]
    lines += [f"flush chain inet {TABLE} {name}" for name in gone]
    lines += [f"delete chain inet {TABLE} {name}" for name in gone]
    for names_old, names_new, kind in (
        (less.maps, new.maps, "map"),
        (less.interface_sets, new.interface_sets, "set"),
        (less.pair_sets, new.pair_sets, "set"),
        (less.cell_sets, new.cell_sets, "set"),
        (less.timeouts, new.timeouts, "ct timeout"),
    ):
        lines += [f"delete {kind} inet {TABLE} {name}" for name in names_old if name not in names_new]
    lines += [f"delete counter inet {TABLE} {name}" for name in sorted(less.counters)]
    return "\n".join([*lines, *_applied(new, fresh=False)]) + "\n"


def applied_chain(ruleset: ir.Ruleset) -> ir.Chain:
    """The chain that nothing jumps to and that says which ruleset this is."""
    # A rule with a verdict would have the kernel look at every chain that packets can reach, at each change of it.
    return ir.Chain((ir.Rule((ir.CtState(("invalid",)),), comment=fingerprint(ruleset)),))


def difference(old: ir.Ruleset, new: ir.Ruleset) -> tuple[ir.Ruleset, ir.Ruleset]:
    """Both without what they have in common, down to elements of sets and maps. The same objects are not compared.

    The fingerprint of `new` is known afterwards, from that of `old`.
    """
    touched = next((origin.touched for origin in new.origin if origin.of() is old), None)
    chains = _differing(old.chains, new.chains, touched)
    interface_sets = _differing(old.interface_sets, new.interface_sets, touched)
    pair_sets = _differing(old.pair_sets, new.pair_sets, touched)
    cell_sets = _differing(old.cell_sets, new.cell_sets, touched)
    maps = _differing(old.maps, new.maps, touched)
    timeouts = _differing(old.timeouts, new.timeouts, touched)
    less, more = (
        ir.Ruleset(
            chains=chains[side],
            interface_sets={
                name: part - other.interface_sets.get(name, NONE) for name, part in interface_sets[side].items()
            },
            pair_sets={name: _lacking(part, other.pair_sets.get(name)) for name, part in pair_sets[side].items()},
            cell_sets={name: _without(part, other.cell_sets.get(name)) for name, part in cell_sets[side].items()},
            maps={name: dict(part.items() - other.maps.get(name, {}).items()) for name, part in maps[side].items()},
            counters=one.counters - other.counters,
            timeouts=timeouts[side],
        )
        for side, one, other in ((0, old, new), (1, new, old))
    )
    if not new.digest:
        new.digest.append((int(fingerprint(old), 16) - _digest(less) + _digest(more)) % 2**256)
    return less, more


def _differing(
    old: dict[str, _Part], new: dict[str, _Part], touched: frozenset[str] | None
) -> tuple[dict[str, _Part], dict[str, _Part]]:
    """The entries of each that the other has not; `touched`: the only names in which they can differ."""
    if old is new:
        return {}, {}
    names = {**old, **new} if touched is None else sorted(touched)
    differing = [name for name in names if (one := old.get(name)) is not (two := new.get(name)) and one != two]
    return {name: old[name] for name in differing if name in old}, {
        name: new[name] for name in differing if name in new
    }


def _lacking(part: ir.PairSet, other: ir.PairSet | None) -> ir.PairSet:
    """What the other set has not."""
    return part if other is None else ir.PairSet(part.version, part.pairs - other.pairs)


def _without(part: ir.CellSet, other: ir.CellSet | None) -> ir.CellSet:
    """The same of sets of cells."""
    return part if other is None else ir.CellSet(part.version, part.cells - other.cells)


def _digest(ruleset: ir.Ruleset) -> int:
    """The sum of the hashes of the parts, each the text that makes it, modulo 2**256."""
    return sum(int.from_bytes(hashlib.sha256(part.encode()).digest(), "big") for part in _parts(ruleset)) % 2**256


def _parts(ruleset: ir.Ruleset) -> Iterator[str]:
    """Counters, time-outs, sets, maps, their elements and chains, each a text that stands for all of it."""
    yield from (f"counter {name}" for name in ruleset.counters)
    yield from (f"timeout {name} {timeout}" for name, timeout in ruleset.timeouts.items())
    for name, chain in ruleset.chains.items():
        yield "\n".join((_declare_chain(name, chain), *rule_lines(name, chain)))
    for set_name, elements in _sets(ruleset):
        yield f"set {set_name}"
        yield from (f"{set_name} {element}" for element in elements)


def declarations(ruleset: ir.Ruleset) -> Iterator[str]:
    """An empty table in place of ours, and in it chains, sets, maps and objects, all empty; base chains first."""
    # Adding the table first makes the deletion succeed whether or not it exists (nft 1.0.6 has no `destroy`).
    yield from (f"add table inet {TABLE}", f"delete table inet {TABLE}", f"add table inet {TABLE}")
    base = {name: chain for name, chain in ruleset.chains.items() if chain.hook is not None}
    yield from (_declare_chain(name, chain) for name, chain in base.items())
    yield from (f"add counter inet {TABLE} {name}" for name in sorted(ruleset.counters))
    yield from _declare(ruleset, skip=ir.Ruleset(chains=base))


def _replacement(ruleset: ir.Ruleset) -> Iterator[str]:
    yield from declarations(ruleset)
    for name, chain in ruleset.chains.items():
        yield from rule_lines(name, chain)
    yield from _elements(ruleset, "add", of=ruleset)
    yield from _applied(ruleset, fresh=True)


def _applied(ruleset: ir.Ruleset, *, fresh: bool) -> Iterator[str]:
    yield f"{'add' if fresh else 'flush'} chain inet {TABLE} {APPLIED}"
    yield from rule_lines(APPLIED, applied_chain(ruleset))


def _declare(ruleset: ir.Ruleset, *, skip: ir.Ruleset) -> Iterator[str]:
    for name in ruleset.interface_sets:
        if name not in skip.interface_sets:
            yield f"add set inet {TABLE} {name} {{ type ifname; }}"
    for name, pairs in ruleset.pair_sets.items():
        if name not in skip.pair_sets:
            yield f"add set inet {TABLE} {name} {{ type ifname . ipv{pairs.version}_addr; }}"
    for name, cells in ruleset.cell_sets.items():
        if name not in skip.cell_sets:
            yield f"add set inet {TABLE} {name} {{ type ipv{cells.version}_addr . inet_service; flags interval; }}"
    for name in ruleset.maps:
        if name not in skip.maps:
            yield f"add map inet {TABLE} {name} {{ type ifname : verdict; }}"
    for name, timeout in ruleset.timeouts.items():
        if name not in skip.timeouts:
            yield f"add ct timeout inet {TABLE} {name} {{ {_timeout(timeout)} }}"
    for name, chain in ruleset.chains.items():
        if name not in skip.chains:
            yield _declare_chain(name, chain)


def _declare_chain(name: str, chain: ir.Chain) -> str:
    if chain.hook is None:
        return f"add chain inet {TABLE} {name}"
    hook = chain.hook
    at = f"type filter hook {hook.hook} priority {hook.priority}; policy {hook.policy};"
    return f"add chain inet {TABLE} {name} {{ {at} }}"


def rule_lines(name: str, chain: ir.Chain) -> Iterator[str]:
    """Commands that add a chain's rules to it."""
    return (f"add rule inet {TABLE} {name} {_rule(rule)}" for rule in chain.rules)


def _timeout(timeout: ir.Timeout) -> str:
    # The kernel compares the protocol alone, so that the object serves IPv6 as well.
    policy = ", ".join(f"{state} : {seconds}" for state, seconds in timeout.policy)
    return f"protocol {timeout.protocol}; l3proto ip; policy = {{ {policy} }};"


def _elements(ruleset: ir.Ruleset, verb: str, *, of: ir.Ruleset) -> Iterator[str]:
    """Elements as add or delete commands; sets that are none of `of`'s go away whole and are left alone."""
    for name, elements in _sets(ruleset):
        if any(name in sets for sets in (of.interface_sets, of.pair_sets, of.cell_sets, of.maps)):
            yield from _element_command(verb, name, elements)


def _sets(ruleset: ir.Ruleset) -> Iterator[tuple[str, Iterator[str]]]:
    """Sets and maps with their elements as nft has them; maps last, since they lead to groups' chains."""
    for name, links in ruleset.interface_sets.items():
        yield name, (f'"{link}"' for link in sorted(links))
    for name, pairs in ruleset.pair_sets.items():
        yield name, (f'"{link}" . {address}' for link, address in sorted(pairs.pairs))
    for name, cells in ruleset.cell_sets.items():
        yield name, map(_cell, sorted(cells.cells))
    for name, entries in ruleset.maps.items():
        yield name, (f'"{link}" : goto {chain}' for link, chain in sorted(entries.items()))


def _cell(cell: ir.Cell) -> str:
    ports = f"{cell.first}" if cell.first == cell.last else f"{cell.first}-{cell.last}"
    return f"{cell.network} . {ports}" + (f' comment "{cell.comment}"' if cell.comment else "")


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
            return f"ct state {','.join(states)}"  # a mask; in braces it would be a set to look up
        case ir.CtConfirmed():
            return "ct status confirmed"
        case ir.CtDirection(direction):
            return f"ct direction {direction}"
        case ir.CtMark(value, mask, negate):
            return f"ct mark & {mask:#010x} {'!=' if negate else '=='} {value:#010x}"
        case ir.Mark(mask):
            return f"meta mark & {mask:#010x} != 0"
        case ir.InterfaceIn(side, set_name, negate):
            return f"{side}name {'!= ' if negate else ''}@{set_name}"
        case ir.InterfaceIs(side, name):
            return f'{side}name "{name}"'
        case ir.PairIn(side, version, set_name, negate):
            address = f"{'ip' if version == 4 else 'ip6'} {'saddr' if side == 'iif' else 'daddr'}"
            return f"{side}name . {address} {'!= ' if negate else ''}@{set_name}"
        case ir.FlowSourceIn(version, direction, set_name, negate):
            address = f"ct {direction} {'ip' if version == 4 else 'ip6'} saddr"
            return f"iifname . {address} {'!= ' if negate else ''}@{set_name}"
        case ir.CellIn(side, version, protocol, set_name):
            ports = f"{'tcp' if protocol == 6 else 'udp'} dport"
            return f"{'ip' if version == 4 else 'ip6'} {side} . {ports} @{set_name}"
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
        case ir.Limit(per_second, burst):
            return f"limit rate {per_second}/second burst {burst} packets"
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
        case ir.SetTimeout(timeout):
            return f'ct timeout set "{timeout}"'
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
