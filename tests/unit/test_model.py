"""The World: read and written without loss, refused whole when it contradicts itself; verdicts."""

import msgspec
import pytest

from tests.net.worlds import world
from wicketgate.lab.topology import TopologyError, load, parse
from wicketgate.model import Step, Verdict, World, WorldError

MADE = world({"endpoint": [], "web": []}, {"web-1": ["web"]})


def test_json_round_trip():
    """A World is read back equal to what was written."""
    shipped = load().world
    assert World.from_json(shipped.to_json()) == shipped


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "truncated"),
        (b"[]", "Expected `object`"),
        (b'{"vpcs": [{"id": 3}]}', "$.vpcs[0].id"),
        (b'{"vpc": []}', "unknown field `vpc`"),
        (
            b'{"vpcs": [{"id": "vpc-1", "cidr_block": "10.0.0.0/16"}, {"id": "vpc-1", "cidr_block": "10.0.0.0/16"}]}',
            "twice",
        ),
    ],
)
def test_unreadable_world(text, words):
    """What is no World is refused with the place and what was expected there."""
    with pytest.raises(WorldError) as caught:
        World.from_json(text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("interfaces", {"private_ip_address": "10.9.9.9"}, "is not inside 10.0.1.0/24"),
        ("interfaces", {"private_ip_address": "10.0.1.11"}, "is taken"),
        ("interfaces", {"group_ids": ()}, "at least one security group"),
        ("interfaces", {"group_ids": ("sg-gone",)}, "sg-gone does not exist"),
        ("interfaces", {"subnet_id": "subnet-gone"}, "subnet-gone does not exist"),
        ("instances", {"interface_id": "eni-gone"}, "eni-gone does not exist"),
        ("endpoints", {"interface_id": "eni-gone"}, "eni-gone does not exist"),
        ("endpoints", {"index": 5000}, "not within 1-4095"),
        ("subnets", {"cidr_block": "192.168.0.0/24"}, "is not inside 10.0.0.0/16"),
        ("groups", {"vpc_id": "vpc-gone"}, "vpc-gone does not exist"),
    ],
)
def test_contradictions(kind, change, words):
    """Every dangling id, stray address and duplicate is named."""
    things = getattr(MADE, kind)
    bad = msgspec.structs.replace(MADE, **{kind: (msgspec.structs.replace(things[0], **change), *things[1:])})
    with pytest.raises(WorldError) as caught:
        bad.check()
    assert words in str(caught.value)


def test_verdict_is_no_boolean():
    """`if verdict:` is an error; the first failed step is the failure."""
    failed = Verdict((Step("a", True, "fine"), Step("b", False, "not fine")))
    assert (failed.passed, failed.failure.name) == (False, "b")
    with pytest.raises(TypeError):
        bool(failed)


SHIPPED = """gateway: 192.0.2.10
clients: {office: 203.0.113.10}
vpcs:
  plain:
    cidr: 10.0.0.0/16
    subnets: {a: 10.0.1.0/24}
    groups:
      web: {inbound: ["tcp 22 from group web"]}
    endpoint: {name: door, subnet: a, address: 10.0.1.10, groups: [web], preserve-client-ip: false}
    instances:
      one: {subnet: a, address: 10.0.1.11, groups: [web]}
users: {}
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("192.0.2.10", "192.0.2.300", "1:10: found '192.0.2.300', expected the gateway's IPv4 address"),
        ("users: {}", "user: {}", "12:1: found key 'user', expected one of"),
        ("cidr: 10.0.0.0/16", "cidr: 10.0.0.1/16", "5:11: found '10.0.0.1/16', expected an IPv4 range"),
        ("{a: 10.0.1.0/24}", "{a: 10.9.1.0/24}", "6:18: found '10.9.1.0/24', expected a range inside 10.0.0.0/16"),
        ("from group web", "from group wob", "8:23: found 'tcp 22 from group wob', expected a group of this VPC"),
        ("tcp 22 from", "tcp 22 to", "8:23: found 'tcp 22 to group web', expected 'PROTOCOL"),
        (
            "address: 10.0.1.11",
            "address: 10.0.1.10",
            "9:48: found '10.0.1.10', expected an address that nothing else has",
        ),
        (
            "address: 10.0.1.11",
            "address: 10.0.1.1",
            "11:33: found '10.0.1.1', expected an address that nothing else has",
        ),
        ("groups: [web]}\nusers", "groups: []}\nusers", "11:52: found a list, expected at least one group name"),
        ("preserve-client-ip: false", "preserve-client-ip: no", "9:94: found 'no', expected true or false"),
        ("name: door", "name: The Door", "9:16: found key 'The Door', expected a name of"),
        ("      one:", "      lo:", "11:7: found key 'lo', expected a name of"),
        ("users: {}", "users: {", "not YAML"),
        ("gateway: 192.0.2.10\n", "", "1:1: found a mapping, expected a mapping that also has gateway"),
    ],
)
def test_topology_mistakes_have_a_place(old, new, message):
    """Every mistake in a topology file is one line: file, line, column, what was found and what was expected."""
    assert parse(SHIPPED, "mine").world.instances[0].name == "one"
    with pytest.raises(TopologyError) as caught:
        parse(SHIPPED.replace(old, new), "mine")
    assert str(caught.value).startswith("mine:")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
