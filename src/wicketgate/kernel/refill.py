"""Put a whole ruleset in the place of whatever our table holds, in one transaction and so that no packet is lost."""

from __future__ import annotations

from typing import Any

from wicketgate import rules
from wicketgate.kernel.nftables import Nftables, TooLong
from wicketgate.model import FabricError


def replace(nft: Nftables, ruleset: rules.Ruleset) -> None:
    """Fill the table anew, or make another one where what is there is of other kinds. Raises FabricError, TooLong."""
    text = rules.refilling(ruleset, present(nft))
    if text is not None:
        try:
            nft.run(text)
        except TooLong:
            raise
        except FabricError:
            pass  # nothing has changed; a set of our name holds something else
        else:
            return
    nft.run(rules.render(ruleset))


def present(nft: Nftables) -> rules.Present:
    """What our table holds, by name. Raises FabricError."""
    chains = {
        one["name"]: (one["type"], one["hook"], one["prio"]) if "hook" in one else None
        for one in _objects(nft, "chain", "list chains inet")
    }
    sets, maps = (_names(nft, kind, f"list {kind}s inet") for kind in ("set", "map"))
    counters = _names(nft, "counter", f"list counters table inet {rules.TABLE}")
    timeouts = frozenset(nft.timeouts(rules.TABLE))
    return rules.Present(chains, sets, maps, counters, timeouts)


def _names(nft: Nftables, kind: str, command: str) -> frozenset[str]:
    return frozenset(one["name"] for one in _objects(nft, kind, command))


def _objects(nft: Nftables, kind: str, command: str) -> list[dict[str, Any]]:
    return [one[kind] for one in nft.listing(command) if kind in one and one[kind]["table"] == rules.TABLE]
