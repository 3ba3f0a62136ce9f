"""A whole ruleset in the place of another, by filling what is there anew: one transaction in which no packet is lost.

While a table is deleted and made again, a packet that is being judged goes on by the old rules, but what these look up
is deleted under it, so that it falls to the policy: drop. Where sets, maps and chains stay and only their content is
another, it finds the new content.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from wicketgate.rules import ir
from wicketgate.rules.names import APPLIED, TABLE
from wicketgate.rules.nft import _applied, _declare, _declare_chain, _elements, rule_lines


@dataclass(frozen=True)
class Present:
    """What our table holds, by name."""

    chains: Mapping[str, tuple[str, str, int] | None]
    """Name -> type, hook and priority of a base chain; None for others."""
    sets: frozenset[str] = frozenset()
    maps: frozenset[str] = frozenset()
    counters: frozenset[str] = frozenset()
    timeouts: frozenset[str] = frozenset()


def refilling(ruleset: ir.Ruleset, there: Present) -> str | None:
    """Replace what our table holds by this ruleset; None where a base chain of ours is another kind of chain.

    The kernel refuses the commands when a set or map of our names is of another kind. Counters keep their values.
    """
    wanted = {name: _kind(chain) for name, chain in ruleset.chains.items()}
    if any(there.chains.get(name, kind) != kind for name, kind in (*wanted.items(), (APPLIED, None))):
        return None
    return "\n".join(_lines(ruleset, there)) + "\n"


def _kind(chain: ir.Chain) -> tuple[str, str, int] | None:
    return None if chain.hook is None else ("filter", chain.hook.hook, chain.hook.priority)


def _lines(ruleset: ir.Ruleset, there: Present) -> Iterator[str]:
    sets = {**ruleset.interface_sets, **ruleset.pair_sets, **ruleset.cell_sets}
    yield f"flush table inet {TABLE}"
    for kind, found, wanted in (("map", there.maps, ruleset.maps), ("set", there.sets, sets)):
        yield from (f"flush {kind} inet {TABLE} {name}" for name in sorted(found))
        yield from (f"delete {kind} inet {TABLE} {name}" for name in sorted(found - wanted.keys()))
    yield from (
        f"delete chain inet {TABLE} {one}" for one in sorted(there.chains.keys() - ruleset.chains.keys() - {APPLIED})
    )
    yield from (f"delete counter inet {TABLE} {name}" for name in sorted(there.counters - ruleset.counters))
    yield from (f"delete ct timeout inet {TABLE} {name}" for name in sorted(there.timeouts - ruleset.timeouts.keys()))
    # A base chain is declared again, for its policy may be another.
    yield from (_declare_chain(name, chain) for name, chain in ruleset.chains.items() if chain.hook is not None)
    yield from (f"add counter inet {TABLE} {name}" for name in sorted(ruleset.counters - there.counters))
    yield from _declare(ruleset, skip=_skipped(ruleset, there))
    for name, chain in ruleset.chains.items():
        yield from rule_lines(name, chain)
    yield from _elements(ruleset, "add", of=ruleset)
    yield from _applied(ruleset, fresh=APPLIED not in there.chains)


def _skipped(ruleset: ir.Ruleset, there: Present) -> ir.Ruleset:
    """What of a ruleset need not be declared."""
    return replace(
        ruleset,
        chains={name: one for name, one in ruleset.chains.items() if name in there.chains or one.hook is not None},
        interface_sets={name: one for name, one in ruleset.interface_sets.items() if name in there.sets},
        pair_sets={name: one for name, one in ruleset.pair_sets.items() if name in there.sets},
        cell_sets={name: one for name, one in ruleset.cell_sets.items() if name in there.sets},
        maps={name: one for name, one in ruleset.maps.items() if name in there.maps},
        timeouts={name: one for name, one in ruleset.timeouts.items() if name in there.timeouts},
    )
