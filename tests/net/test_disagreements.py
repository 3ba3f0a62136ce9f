"""What the differential test has found: each disagreement of reading, model and kernel, in its smallest World."""

from random import Random

import msgspec
import pytest

from tests.net.differential import compare
from tests.net.random_flows import Plan
from tests.net.random_worlds import GROUPS, HOME, random_place
from tests.net.rig import Rig
from tests.net.trials import Tally
from tests.net.worlds import rule, sg
from wicketgate.model import SecurityGroup

FOUR = ("10.0.1.8", "10.0.1.12")
SIX = ("2001:db8:0:a1::8", "2001:db8:0:a1::c")
EVERYTHING = (rule("out", "-1", (-1, -1), "0.0.0.0/0"), rule("out", "-1", (-1, -1), "::/0"))


@pytest.fixture(scope="module", name="rig")
def _rig():
    made = Rig()
    yield made
    made.close()


def _end(rig, inbound, addresses, content):
    """Where a flow between two instances that send everything ends: all three have to agree, too.

    `content`: protocol number, and port or ICMP type and code.
    """
    protocol, port, code = (*content, 0, 0)[:3]
    place = random_place(Random(1))
    rules = {"a": (*EVERYTHING, *inbound)}
    others = {vpc: (sg(names[-1]),) for vpc, names in GROUPS.items()}
    made = msgspec.structs.replace(
        place,
        groups=tuple(
            SecurityGroup(id=sg(name), vpc_id=vpc, name=name, rules=rules.get(name, ())) for name, vpc in HOME.items()
        ),
        interfaces=tuple(
            msgspec.structs.replace(
                eni,
                group_ids=(sg("a"),) if eni.link in ("m-1", "m-2") else others[place.vpc_of_subnet(eni.subnet_id).id],
            )
            for eni in place.interfaces
        ),
    )
    made.check()
    tally = Tally()
    compare(rig, (made, made), [Plan("m-1", "m-2", *addresses, protocol, port, code, 10001)], tally)
    (end,) = tally.outcomes
    return end


@pytest.mark.parametrize("addresses", [FOUR, SIX])
def test_udp_lite(rig, addresses):
    """Linux took right checksums of UDP-Lite for wrong ones, and what has a wrong one for no part of any flow."""
    assert _end(rig, [rule("in", "136", (-1, -1), "sg:a")], addresses, (136,)) == "pass"


@pytest.mark.parametrize(
    ("addresses", "protocol", "content"),
    [
        (FOUR, "icmp", (1, 3, 1)),  # an error about no flow
        (FOUR, "icmp", (1, 0, 0)),  # an answer to no request
        (FOUR, "icmp", (1, 42, 0)),  # a request that connection tracking does not know
        (SIX, "icmpv6", (58, 1, 4)),
        (SIX, "icmpv6", (58, 129, 0)),
        (SIX, "icmpv6", (58, 144, 0)),
    ],
)
def test_icmp_of_no_flow(rig, addresses, protocol, content):
    """Connection tracking calls such ICMP invalid: rules may allow it all the same, and refuse the type beside it."""
    _, kind, code = content
    assert _end(rig, [rule("in", protocol, (kind, code), "sg:a")], addresses, content) == "pass"
    assert _end(rig, [rule("in", protocol, (kind + 1, -1), "sg:a")], addresses, content) == "receiver"


@pytest.mark.parametrize("ports", [(-1, -1), (0, -1), (0, 0)])
def test_icmp_of_the_other_family(rig, ports):
    """nft left the family of ICMP out where a range had said one: protocol 1 came in by IPv6, where it is not ICMP."""
    assert _end(rig, [rule("in", "icmp", ports, "2001:db8::/56")], SIX, (1,)) == "receiver"
    assert _end(rig, [rule("in", "icmpv6", ports, "10.0.0.0/16")], FOUR, (58,)) == "receiver"
    assert _end(rig, [rule("in", "1", ports, "2001:db8::/56"), rule("in", "-1", (-1, -1), "sg:a")], SIX, (1,)) == "pass"
