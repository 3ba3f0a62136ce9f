"""A table filled anew is the table that its text makes, whatever it held before, down to the kernel's expressions."""

from contextlib import closing
from random import Random

import msgspec
import pytest

from tests.net.random_worlds import A, random_world
from tests.net.test_scale import _held
from wicketgate import rules
from wicketgate.kernel import netns, refill
from wicketgate.kernel.nftables import Nftables
from wicketgate.model import ConnectionTracking

REFILLED, MADE = "refilled", "made"
EMPTY = f"add table inet {rules.TABLE}\ndelete table inet {rules.TABLE}\nadd table inet {rules.TABLE}\n"
FOREIGN = f"""
add chain inet {rules.TABLE} foreign
add rule inet {rules.TABLE} foreign accept
add set inet {rules.TABLE} mine {{ type ipv4_addr; elements = {{ 10.0.0.1 }}; }}
add map inet {rules.TABLE} ways {{ type ipv4_addr : verdict; elements = {{ 10.0.0.1 : goto foreign }}; }}
add counter inet {rules.TABLE} count
add chain inet {rules.TABLE} first {{ type filter hook forward priority -5; }}
add rule inet {rules.TABLE} first ip saddr @mine counter name count jump foreign
add rule inet {rules.TABLE} first ip saddr vmap @ways
insert rule inet {rules.TABLE} forward accept
"""


@pytest.fixture
def pair():
    """Two namespaces to compare."""
    for name in (REFILLED, MADE):
        netns.create(name)
    with closing(Nftables(REFILLED)) as refilled, closing(Nftables(MADE)) as made:
        yield refilled, made
    for name in (REFILLED, MADE):
        netns.delete(name)


def ruleset(random):
    """Of a random World, with time-outs."""
    made = random_world(random)
    slow = ConnectionTracking(udp_stream=random.randint(60, 62), tcp_established=random.randint(60, 62))
    interfaces = (
        msgspec.structs.replace(one, connection_tracking=slow) if random.random() < 0.4 else one
        for one in made.interfaces
    )
    return rules.compile_vpc(msgspec.structs.replace(made, interfaces=tuple(interfaces)), A)


def test_refilled_is_made(pair):
    """From one random ruleset to another, with what somebody else put into our table, and what he put before it."""
    refilled, made = pair
    random = Random(3)
    refilled.run(rules.render(ruleset(random)))
    for number in range(20):
        wanted = ruleset(random)
        if number % 3 == 1:
            refilled.run(FOREIGN)
        text = rules.refilling(wanted, refill.present(refilled))
        refilled.run(text)
        made.run(rules.render(wanted))
        assert _held(REFILLED) == _held(MADE), number


@pytest.mark.parametrize(
    "there",
    [
        f"add set inet {rules.TABLE} links {{ type ipv4_addr; }}",
        f"add chain inet {rules.TABLE} forward {{ type filter hook output priority 0; }}",
        f"add chain inet {rules.TABLE} {rules.APPLIED} {{ type filter hook output priority 0; }}",
        f"add chain inet {rules.TABLE} forward",
    ],
)
def test_what_cannot_be_filled_is_made_anew(pair, there):
    """Where a set or a base chain of our names is of another kind, another table takes the place of the whole."""
    refilled, made = pair
    wanted = ruleset(Random(4))
    refilled.run(EMPTY + there)
    refill.replace(refilled, wanted)
    made.run(rules.render(wanted))
    assert _held(REFILLED) == _held(MADE)
