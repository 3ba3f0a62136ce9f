"""Topology files: what is read from one, and where its mistakes are."""

import pytest

from wicketgate.lab.topology import RulePlan, TopologyError, parse

SHIPPED = """gateway: 192.0.2.10
clients: {office: 203.0.113.10}
vpcs:
  plain:
    cidr: 10.0.0.0/16
    subnets: {a: 10.0.1.0/24}
    groups:
      web: {inbound: ["tcp 22 from group web"]}
    endpoint: {name: door, subnet: a, groups: [web], preserve-client-ip: false}
    instances:
      one: {subnet: a, address: 10.0.1.11, groups: [web]}
      two: {subnet: a, address: 10.0.1.12, groups: [web]}
users: {ann: {policies: {P: {Resource: "<endpoint door>"}}}}
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("192.0.2.10", "192.0.2.300", "1:10: found '192.0.2.300', expected the gateway's IPv4 address"),
        ("users: {", "user: {", "13:1: found key 'user', expected one of"),
        ("cidr: 10.0.0.0/16", "cidr: 10.0.0.1/16", "5:11: found '10.0.0.1/16', expected an IPv4 range"),
        ("{a: 10.0.1.0/24}", "{a: 10.9.1.0/24}", "6:18: found '10.9.1.0/24', expected a range inside 10.0.0.0/16"),
        ("from group web", "from group wob", "8:23: found 'tcp 22 from group wob', expected a group of this VPC"),
        ("tcp 22 from", "tcp 22 to", "8:23: found 'tcp 22 to group web', expected 'PROTOCOL"),
        ("10.0.1.12", "10.0.1.11", "12:33: found '10.0.1.11', expected an address that nothing else has"),
        ("10.0.1.12", "10.0.1.3", "12:33: found '10.0.1.3', expected an address that is not reserved, from 10.0.1.4"),
        ("10.0.1.12", "10.0.1.255", "expected an address that is not reserved, from 10.0.1.4 to 10.0.1.254"),
        ("10.0.1.12", "10.0.2.12", "12:33: found '10.0.2.12', expected an address inside 10.0.1.0/24"),
        ("one: {subnet: a", "one: {subnet: b", "11:21: found 'b', expected a subnet of VPC plain"),
        ("groups: [web]}\nusers", "groups: []}\nusers", "12:52: found a list, expected at least one group name"),
        ("groups: [web]}\nusers", "groups: [wob]}\nusers", "12:53: found 'wob', expected a group of VPC plain"),
        ("preserve-client-ip: false", "preserve-client-ip: no", "9:74: found 'no', expected true or false"),
        ("10.0.0.0/16", "fd10::/56", "5:11: found 'fd10::/56', expected an IPv4 range first"),
        ("10.0.0.0/16", "10.0.0.0/16 fd10::1/56", "5:11: found '10.0.0.0/16 fd10::1/56', expected an IPv4 range, and"),
        ("10.0.1.0/24", "10.0.1.0/24 fd10::/64", "expected an IPv4 range: the VPC has no IPv6 range"),
        (
            "10.0.1.12",
            "10.0.1.12 fd10::12",
            "12:33: found '10.0.1.12 fd10::12', expected an address inside 10.0.1.0/24",
        ),
        ("10.0.1.12", "fd10::12", "12:33: found 'fd10::12', expected an IPv4 address"),
        ("<endpoint door>", "<endpoint dor>", "expected the name of an endpoint in <endpoint ...>, one of door"),
        ("vpcs:", "settings: {workers: 999}\nvpcs:", "expected valid settings: Expected `int` <= 256 - at `$.workers`"),
        ("{office: 203.0.113.10}", "{}", "2:10: found a mapping, expected at least one client"),
        ("name: door", "name: The Door", "9:16: found key 'The Door', expected a name of"),
        ("      one:", "      lo:", "11:7: found key 'lo', expected a name of"),
        ("users: {ann", "users: {{ann", "not YAML"),
        ("gateway: 192.0.2.10\n", "", "1:1: found a mapping, expected a mapping that also has gateway"),
    ],
)
def test_topology_mistakes_have_a_place(old, new, message):
    """Every mistake in a topology file is one line: file, line, column, what was found and what was expected."""
    assert parse(SHIPPED, "mine").vpcs[0].instances[0].name == "one"
    with pytest.raises(TopologyError) as caught:
        parse(SHIPPED.replace(old, new), "mine")
    assert str(caught.value).startswith("mine:")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


DUAL = (
    SHIPPED.replace("10.0.0.0/16", "10.0.0.0/16 fd10::/56")
    .replace("{a: 10.0.1.0/24}", "{a: 10.0.1.0/24, b: 10.0.2.0/24 fd10::/64, c: 'fd10:0:0:1::/64'}")
    .replace("{subnet: a, address: 10.0.1.11", "{subnet: b, address: 10.0.2.11 FD10::0011")
    .replace("{subnet: a, address: 10.0.1.12", "{subnet: c, address: 'fd10:0:0:1::12'")
)


def test_both_families():
    """A VPC, its subnets and instances may have both, or the latter IPv6 alone; addresses are made canonical."""
    (vpc,) = parse(DUAL, "mine").vpcs
    assert (vpc.ranges.ipv4, vpc.ranges.ipv6) == ("10.0.0.0/16", "fd10::/56")
    assert [(one.ipv4, one.ipv6) for one in vpc.subnets.values()] == [
        ("10.0.1.0/24", ""),
        ("10.0.2.0/24", "fd10::/64"),
        ("", "fd10:0:0:1::/64"),
    ]
    assert [(one.address, one.ipv6_address) for one in vpc.instances] == [
        ("10.0.2.11", "fd10::11"),
        ("", "fd10:0:0:1::12"),
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("fd10::/64", "fd11::/64", "expected a range inside fd10::/56"),
        (" FD10::0011", "", "found '10.0.2.11', expected an address inside 10.0.2.0/24 and one inside fd10::/64"),
        (
            "FD10::0011",
            "fd10::3",
            "expected an address that is not reserved, from fd10::4 to fd10::ffff:ffff:ffff:fffe",
        ),
        ("fd10:0:0:1::12", "10.0.2.12", "found '10.0.2.12', expected an IPv6 address"),
        ("fd10:0:0:1::12", "fd10::12", "expected an address inside fd10:0:0:1::/64"),
    ],
)
def test_mistakes_of_ipv6(old, new, message):
    """They have a place as well."""
    assert old in DUAL
    with pytest.raises(TopologyError) as caught:
        parse(DUAL.replace(old, new), "mine")
    assert message in str(caught.value)


def test_rules_are_read_as_the_api_has_them():
    """Protocol, ports and peer of every form of rule."""
    text = SHIPPED.replace(
        '"tcp 22 from group web"', '"tcp 22 from group web", "udp 1-9 from 10.0.0.1/8", "all from ::/0"'
    )
    assert parse(text, "mine").vpcs[0].groups[0].inbound == (
        RulePlan(ip_protocol="tcp", from_port=22, to_port=22, group="web"),
        RulePlan(ip_protocol="udp", from_port=1, to_port=9, cidr="10.0.0.0/8"),
        RulePlan(ip_protocol="-1", from_port=-1, to_port=-1, cidr="::/0"),
    )
