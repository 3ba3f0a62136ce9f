"""The source/destination check of an interface, both families: on, off, and switched while packets come."""

import msgspec
import pytest

from tests.net.flows import addresses, pair
from tests.net.packets import UDP, Ends, packet, tag, udp
from tests.net.rig import Rig
from tests.net.worlds import VPC
from wicketgate.model import Change, apply_change

VERSIONS = pytest.mark.parametrize("version", [4, 6])
OUTSIDE = {4: "203.0.113.7", 6: "2001:db8:99::7"}
NEIGHBOUR = {4: "10.0.1.10", 6: "2001:db8:0:1::10"}
"""The endpoint's, that is, of another interface."""


@pytest.fixture(name="rig")
def _rig():
    made = Rig()
    yield made
    made.close()


def _from(source, version):
    ends = Ends(source, addresses(version)[1], (4000, 9))
    return lambda number: [packet(ends.source, ends.destination, UDP, udp(ends, tag(number)))]


def _checked(made, *, checked):
    eni = made.interface(made.instances[0].interface_id)
    return apply_change(made, Change(puts=(msgspec.structs.replace(eni, source_dest_check=checked),)))


@VERSIONS
def test_switched(rig, version):
    """Off, an interface sends under any address, which the receiver's rules judge as what it says; on, under its own
    alone, and what else it sends is counted as forged. Its flows of before do not count as its own."""
    made = pair(version, [("out", "-1", (-1, -1), "any")], [("in", "udp", (9, 9), "any")])
    shots = [("a", _from(source, version), "b") for source in (OUTSIDE[version], NEIGHBOUR[version])]
    own = ("a", _from(addresses(version)[0], version), "b")
    for checked in (True, False, True):
        rig.apply(_checked(made, checked=checked))
        before = rig.counters(made)[VPC, "forged_source"]
        seen = rig.fire([own, *((link, made_, None if checked else there) for link, made_, there in shots)])
        assert seen == [{"b"}, *([set()] * 2 if checked else [{"b"}] * 2)]
        assert rig.counters(made)[VPC, "forged_source"] == before + 2 * checked


@VERSIONS
def test_references_do_not_count_addresses(rig, version):
    """Without the check an address of another's is no membership: a rule that names the other's group lets nothing
    in, and one for the range does."""
    near = pair(version, [("out", "-1", (-1, -1), "any")], [("in", "udp", (9, 9), "near")])
    server = next(one for one in near.groups if one.name == "server")
    (one,) = server.rules
    endpoints = next(eni for eni in near.interfaces if eni.link == "endpoint").group_ids[0]
    reference = msgspec.structs.replace(one, cidr_ipv4=None, cidr_ipv6=None, referenced_group_id=endpoints)
    by_group = apply_change(near, Change(puts=(msgspec.structs.replace(server, rules=(reference,)),)))
    for made, arrives in ((by_group, None), (near, "b")):
        rig.apply(_checked(made, checked=False))
        seen = rig.fire([("a", _from(NEIGHBOUR[version], version), arrives)])
        assert seen == [{arrives} if arrives else set()]


@pytest.mark.parametrize(
    "source",
    [
        *("0.0.0.0", "0.1.2.3", "127.0.0.1", "169.254.169.254", "169.254.1.1", "224.0.0.5", "255.255.255.255"),
        *("::", "::1", "fe80::5", "fe80::1", "ff02::1", "ff0e::5"),
    ],
)
def test_sources_that_are_nobodys(rig, source):
    """Without the check, too: what no machine can have as its address goes nowhere."""
    version = 6 if ":" in source else 4
    made = pair(version, [("out", "-1", (-1, -1), "any")], [("in", "-1", (-1, -1), "any")])
    rig.apply(_checked(made, checked=False))
    assert rig.fire([("a", _from(source, version), None)]) == [set()]
    assert rig.fire([("a", _from(OUTSIDE[version], version), "b")]) == [{"b"}]
