"""Reading = model = kernel, on random Worlds and real packets; and the proof that wrong compilers would be caught."""

import pytest

from tests.net.campaign import run
from tests.net.trials import Mismatch
from tests.net.wrong_compilers import WRONG, icmp_code_ignored
from wicketgate.kernel import conntrack

WORLDS = 48
"""A quarter of a minute's worth on two cores; `make soak` goes on for as long as one likes."""


def test_reading_model_and_kernel_agree():
    """Every packet ends as the pure reading says, at the side it says, in a mix that could tell errors apart."""
    tally = run("continuous integration", worlds=WORLDS)
    print(tally)
    shares = {name: count / tally.flows for name, count in tally.outcomes.items()}
    assert tally.flows >= 5000
    assert shares["pass"] >= 0.25
    assert shares["sender"] >= 0.20
    assert shares["receiver"] >= 0.20
    for kind in ("any", "cidr4", "cidr6", "prefix list", "reference", "peered reference"):
        assert tally.sources[kind] >= 200, kind
    for protocol in (1, 6, 17, 47, 50, 58, 132, 136, 253):
        assert tally.protocols[protocol] >= 200, protocol
    assert all(tally.natures[sides] >= 200 for sides in (0, 1, 2)), tally.natures
    for kind in ("answer", "forth", "back", "error forth", "error back"):
        refused = sum(count for (what, end), count in tally.later.items() if what == kind and end != "pass")
        assert tally.later[kind, "pass"] >= 200, kind
        assert refused >= (20 if kind == "answer" else 100), kind
    assert tally.later["new owner", "pass"] >= 40
    assert tally.later["new owner", "sender"] + tally.later["new owner", "receiver"] >= 40
    assert tally.expired >= 200
    assert tally.connections["connected"] >= 200
    assert tally.connections["EHOSTUNREACH"] >= 20
    assert tally.connections["EACCES"] >= 20


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_compiler_is_caught(wrong):
    """What a compiler with one mistake puts into the kernel does not survive a run."""
    with pytest.raises(Mismatch):
        run("wrong compilers", worlds=WORLDS, compile_vpc=wrong(), shrink=False)


def test_the_smallest_world_is_told():
    """Of a World with dozens of rules only the two that matter are left."""
    with pytest.raises(Mismatch) as raised:
        run("wrong compilers", worlds=WORLDS, compile_vpc=icmp_code_ignored())
    _, told = str(raised.value).split("\nin\n")
    rules = [line for line in told.splitlines() if "sgr-" in line]
    assert len(rules) <= 2
    assert any("icmp" in line for line in rules)


def test_an_inherited_flow_is_caught(monkeypatch):
    """Nor does a fabric that forgets nothing when an address gets a new owner."""
    monkeypatch.setattr(conntrack, "forget", lambda _namespace, _addresses: 0)
    with pytest.raises(Mismatch):
        run("wrong fabric", worlds=WORLDS, shrink=False)
