"""The World: read and written without loss, refused whole when it contradicts itself; verdicts."""

import msgspec
import pytest

from tests.net.worlds import world
from wicketgate.model import Change, SecurityGroupRule, Step, Verdict, World, WorldError, apply_change

MADE = world({"endpoint": [], "web": []}, {"web-1": ["web"]})


def test_json_round_trip():
    """A World is read back equal to what was written."""
    assert World.from_json(MADE.to_json()) == MADE


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


@pytest.mark.parametrize("kind", ["vpcs", "subnets", "interfaces", "instances", "endpoints"])
@pytest.mark.parametrize(
    "wrong", ["{}/../../../etc/cron.d/x", "/etc/{}", "{} via 10.0.0.1", "{}\nlink delete lo", "host", ""]
)
def test_ids_are_no_paths(kind, wrong):
    """netd, which is root, makes names of namespaces, files and commands of ids: no World has one that is more."""
    thing, *others = getattr(MADE, kind)
    prefix = "" if kind == "subnets" else thing.id
    bad = msgspec.structs.replace(thing, id=wrong.format(thing.id) if wrong != "host" else f"host.{prefix}")
    with pytest.raises(WorldError, match=r"letters, digits and hyphens|exist"):
        msgspec.structs.replace(MADE, **{kind: (bad, *others)}).check()
    with pytest.raises(WorldError, match=r"letters, digits and hyphens"):
        apply_change(MADE, Change(puts=(bad,)))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"cidr_ipv6": "8000::%0 accept\nadd table inet evil\n#/1"}, "it has a zone"),
        ({"cidr_ipv6": "fe80::%eth0/64"}, "it has a zone"),
        ({"cidr_ipv4": "0.0.0.0/0\nadd table inet evil"}, "is no IPv[46] range"),
        ({"cidr_ipv4": "0.0.0.0/0", "ip_protocol": "٤٧"}, "is no protocol"),
    ],
)
def test_rules_are_no_commands(fields, words):
    """Nothing in a rule is more than a range and a protocol when netd writes it into nft's commands."""
    rule = SecurityGroupRule(**{"id": "sgr-1", "is_egress": False, "ip_protocol": "-1"} | fields)
    with pytest.raises(WorldError, match=words):
        apply_change(MADE, Change(puts=(msgspec.structs.replace(MADE.groups[0], rules=(rule,)),)))


def test_verdict_is_no_boolean():
    """`if verdict:` is an error; the first failed step is the failure."""
    failed = Verdict((Step("a", True, "fine"), Step("b", False, "not fine")))
    assert (failed.passed, failed.failure.name) == (False, "b")
    with pytest.raises(TypeError):
        bool(failed)
