"""Reading = model = kernel, on random Worlds; and the proof that a wrong compiler would be caught."""

import dataclasses
import ipaddress
import itertools

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.net.differential import Mismatch, Tally, compare, worlds
from wicketgate import rules
from wicketgate.kernel.fabric import Fabric
from wicketgate.model import World
from wicketgate.rules import ir

EXAMPLES = 80
OPTIONS = {
    "deadline": None,
    "database": None,
    "report_multiple_bugs": False,
    "suppress_health_check": list(HealthCheck),
    # No shrinking: a mismatch prints the flow and every verdict, and each try costs real packets.
    "phases": [Phase.generate],
}


def _run(compile_vpc=rules.compile_vpc):
    fabric = Fabric(compile_vpc)
    tally, revisions = Tally(), itertools.count(1)

    @settings(max_examples=EXAMPLES, **OPTIONS)
    @given(worlds())
    def examples(made):
        compare(fabric, made, tally, next(revisions))

    try:
        examples()
    finally:
        fabric.close()
        cleaner = Fabric()
        cleaner.apply(World())
        cleaner.close()
    return tally


def test_reading_model_and_kernel_agree():
    """Every flow of a run ends as the pure reading says, at the side it says, in a mix that could tell errors apart."""
    tally = _run()
    shares = {name: count / tally.flows for name, count in tally.outcomes.items()}
    print(tally.flows, shares)
    assert tally.flows >= 300
    assert shares["pass"] >= 0.25
    assert shares["sender"] >= 0.20
    assert shares["receiver"] >= 0.20


def _by_source_address(world, vpc_id, _before=None):
    """A wrong compiler: inbound group references judged by the members' addresses instead of their interfaces."""
    right = rules.compile_vpc(world, vpc_id)
    address = {eni.link: ipaddress.ip_network(eni.private_ip_address) for eni in world.interfaces}

    def wrong(rule):
        for match in rule.matches:
            if isinstance(match, ir.InterfaceIn) and match.side == "iif" and match.set_name.startswith("members_"):
                rest = tuple(one for one in rule.matches if one is not match)
                for link in sorted(right.interface_sets[match.set_name]):
                    yield dataclasses.replace(rule, matches=(ir.Address("saddr", address[link]), *rest))
                return
        yield rule

    chains = {
        name: dataclasses.replace(chain, rules=tuple(new for old in chain.rules for new in wrong(old)))
        if name.startswith("in_")
        else chain
        for name, chain in right.chains.items()
    }
    return dataclasses.replace(right, chains=chains)


def test_a_wrong_compiler_is_caught():
    """A compiler that judges group references by source address does not survive one run."""
    with pytest.raises(Mismatch):
        _run(_by_source_address)
