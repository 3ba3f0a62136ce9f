"""`wicketgate reach` on Worlds in files: table, JSON form, pictures, what differs and what a plan would shift."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest

from tests.unit.test_cli_verbs import run
from tests.unit.test_explain import EICE, IN, OUT, WEB, allow, rule, world
from wicketgate.api.planning import read_plan
from wicketgate.api.service import Catalogue
from wicketgate.explain.reach import Wish, reach
from wicketgate.explain.reach_change import PlanRefused, compare, planned
from wicketgate.explain.region import Box, Region, span_of
from wicketgate.model import World

OFFICE = {"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}


def kept(directory: Path, made: World, name: str = "world.json") -> Path:
    """A World in a file."""
    file = directory / name
    file.write_bytes(made.to_json())
    return file


def small() -> World:
    """alice and the role ops reach web from the office."""
    return world(door=[OUT], web=[IN], policy=allow(Condition=OFFICE))


def asked(file: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The verb."""
    return run("reach", "--world", str(file), *words)


def test_the_table_and_who_reaches_nothing(tmp_path: Path) -> None:
    """A line for what is reached, marks for who cannot sign just now, and the rest named."""
    done = asked(kept(tmp_path, small()), "--to", WEB, "--at", "1970-01-01T00:00:50Z")
    assert (done.returncode, done.stderr) == (0, "")
    table = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert table == [
        "PRINCIPAL ENDPOINT TARGET PORTS SECONDS FROM",
        f"root (no valid key) {EICE} {WEB} 10.0.0.11 22 1-3600 anywhere",
        f"alice, role/ops (if assumed), role/ops/x {EICE} {WEB} 10.0.0.11 22 1-3600 203.0.113.0/24",
        "",
        "Reach nothing: bob",
    ]


def test_as_json(tmp_path: Path) -> None:
    """Everything is in it, exactly."""
    data = json.loads(asked(kept(tmp_path, small()), "--principal", "alice", "--json").stdout)
    assert (data["schema"], data["revision"], data["endpoints"]) == (1, 7, [EICE])
    assert [who["name"] for who in data["principals"]] == ["alice"]
    (cell,) = data["cells"]
    assert cell["reach"] == [{"ports": [[22, 22]], "durations": [1, 3600], "sources": ["203.0.113.0/24"]}]
    instances = [target["instance"] for target in cell["targets"]]
    assert instances == ["i-web", "i-db"]
    assert cell["mayReach"] == cell["dependsOn"] == []


def test_nobody_reaches_it(tmp_path: Path) -> None:
    """Exit code 1, and a sentence."""
    done = asked(kept(tmp_path, small()), "--principal", "bob")
    assert (done.returncode, done.stdout) == (1, "Nobody reaches anything of what was asked about.\n")
    assert asked(kept(tmp_path, small()), "--from", "198.51.100.0/24", "--principal", "alice").returncode == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--principal", "carol"), "--principal: there is no user 'carol'"),
        (("--to", "i-gone"), "--to: there is no such instance as i-gone"),
        (("--from", "x"), "--from: 'x' is no IP address"),
        (("--all-traffic",), "--to: say what is to be reached"),
    ],
)
def test_what_is_not_there(tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    """Exit code 2, naming the option."""
    done = asked(kept(tmp_path, small()), *words)
    assert done.returncode == 2
    assert told in done.stderr


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """Exit code 2, naming the file and what is wrong with it."""
    done = asked(tmp_path / "none.json")
    assert (done.returncode, done.stderr) == (
        2,
        f"wicketgate: --world: {tmp_path / 'none.json'}: No such file or directory\n",
    )
    (tmp_path / "bad.json").write_text("{")
    assert "not a World" in asked(tmp_path / "bad.json").stderr
    done = asked(kept(tmp_path, small()), "--with", str(tmp_path / "bad.json"), "--json")
    assert json.loads(done.stdout)["missing"]["text"].startswith("the plan is no JSON")


def test_what_differs_between_two_worlds(tmp_path: Path) -> None:
    """What is gained and lost, by whom; nothing when nothing does."""
    file, wider = kept(tmp_path, small()), world(door=[OUT], web=[IN], policy=allow())
    done = asked(file, "--diff", str(kept(tmp_path, wider, "wider.json")), "--to", WEB, "--at", "1970-01-01T00:00:50Z")
    assert done.returncode == 1
    line = " ".join(done.stdout.splitlines()[1].split())
    assert line == (
        f"+ alice, role/ops, role/ops/x {EICE} {WEB} 10.0.0.11 22 1-3600 "
        "0.0.0.0-203.0.112.255, 203.0.114.0-255.255.255.255, ::/0"
    )
    back = asked(tmp_path / "wider.json", "--diff", str(file), "--to", WEB)
    assert back.stdout.splitlines()[1].startswith("- ")
    same = asked(file, "--diff", str(file))
    assert (same.returncode, same.stdout) == (0, "Nobody's reach differs.\n")


def plan(*calls: dict[str, Any]) -> World:
    """The small World after calls."""
    return planned(small(), read_plan(json.dumps(calls), Catalogue.load()), 50.0)


def test_a_planned_change_is_run_by_the_actions_themselves(tmp_path: Path) -> None:
    """Rules to and fro: the diff is what the plan opens; the same from the command line."""
    call = {
        "Action": "AuthorizeSecurityGroupEgress",
        "GroupId": "sg-door",
        "IpPermissions": [
            {"IpProtocol": "tcp", "FromPort": 3389, "ToPort": 3389, "IpRanges": [{"CidrIp": "10.0.0.11/32"}]}
        ],
    }
    inward = {
        "Action": "AuthorizeSecurityGroupIngress",
        "GroupId": "sg-web",
        "IpPermissions": [
            {"IpProtocol": "tcp", "FromPort": 3000, "ToPort": 4000, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
        ],
    }
    wish = Wish(principal="alice")
    (shift,) = compare(reach(small(), wish), reach(plan(call, inward), wish))
    assert [target.instance for target in shift.targets] == [WEB]
    assert shift.gained == Region((Box(span_of("203.0.113.0/24"), (1, 3600), (3389, 3389)),))
    assert not shift.lost
    file = tmp_path / "plan.json"
    file.write_text(json.dumps([call, inward]))
    done = asked(kept(tmp_path, small()), "--with", str(file), "--principal", "alice")
    assert done.returncode == 1
    assert done.stdout.splitlines()[1].split()[:6] == ["+", "alice", EICE, WEB, "10.0.0.11", "3389"]


def test_a_planned_policy_takes_away(tmp_path: Path) -> None:
    """IAM's actions can be planned too."""
    denied = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}]}
    call = {"Action": "PutUserPolicy", "UserName": "alice", "PolicyName": "x", "PolicyDocument": json.dumps(denied)}
    (shift,) = compare(reach(small(), Wish()), reach(plan(call), Wish()))
    assert (shift.principals, bool(shift.gained), bool(shift.lost)) == (("alice",), False, True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("7", "must be a list of calls"),
        ("[7]", "call 1: an object with Action is needed"),
        ('[{"Action": "Dance"}]', "call 1, Dance: no such action is offered"),
        ('[{"Action": "CreateSecurityGroup", "Colour": "red"}]', "there is no parameter Colour"),
        ('[{"Action": "CreateSecurityGroup", "GroupName": 7}]', "Invalid type for parameter GroupName"),
        (
            '[{"Action": "DeleteSecurityGroup", "GroupId": "sg-web"}, {"Action": "DeleteSecurityGroup"}]',
            "call 1, DeleteSecurityGroup",
        ),
    ],
)
def test_plans_that_cannot_be_carried_out(text: str, words: str) -> None:
    """Which call, and why: malformed, or refused by the action."""
    with pytest.raises(PlanRefused, match=words):
        planned(small(), read_plan(text, Catalogue.load()), 50.0)


def test_all_traffic(tmp_path: Path) -> None:
    """Instances that reach an instance, with what."""
    made = world(web=[rule(1, "in", "sg-db", (80, 90))], db=[rule(2, "out", "10.0.0.0/24", (85, 99))])
    done = asked(kept(tmp_path, made), "--all-traffic", "--to", WEB)
    assert done.returncode == 0
    assert " ".join(done.stdout.splitlines()[1].split()) == f"i-db 10.0.0.12 {WEB} 10.0.0.11 the VPC tcp 85-90"
    assert asked(kept(tmp_path, made), "--all-traffic", "--to", "i-db").returncode == 1


def test_pictures_stand_alone(tmp_path: Path) -> None:
    """Well-formed, with names escaped, and nothing to be fetched."""
    made = small()
    users = (msgspec.structs.replace(made.users[0], name="a<b>&c"), *made.users[1:])
    made = msgspec.structs.replace(made, users=users, access_keys=made.access_keys[1:])
    svg, page = tmp_path / "reach.svg", tmp_path / "reach.html"
    assert asked(kept(tmp_path, made), "--svg", str(svg), "--html", str(page)).returncode == 0
    drawn = ElementTree.parse(svg).getroot()
    texts = [text for one in drawn.iter() if (text := one.text)]
    assert "a<b>&c" in texts
    assert "by some clients" in texts
    assert "a&lt;b&gt;&amp;c" in page.read_text()
    for text in (svg.read_text(), page.read_text()):
        assert "http" not in text.replace('xmlns="http://www.w3.org/2000/svg"', "")


@pytest.mark.parametrize(
    "words", [("--all-traffic", "--diff", "x"), ("--with", "x", "--svg", "y"), ("--all-traffic", "--port", "22")]
)
def test_options_that_exclude_each_other(tmp_path: Path, words: tuple[str, ...]) -> None:
    """The wrong use is told as such."""
    assert asked(kept(tmp_path, small()), *words).returncode == 252
