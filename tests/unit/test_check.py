"""Checks: what holds, what does not and by which connection, what is written wrongly; explain agrees."""

import textwrap
import xml.etree.ElementTree as ET
from pathlib import Path
from random import Random
from string import Formatter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.test_explain import IN, OUT, allow, rule, world
from tests.unit.test_lint import SARIF, random_world
from wicketgate import paths
from wicketgate.explain import Question, explain
from wicketgate.explain.check import (
    Mistake,
    answer_of,
    as_data,
    as_junit,
    as_sarif,
    check,
    lines_of,
    read,
    text,
)
from wicketgate.explain.check.words import CHECK
from wicketgate.model import AccessKey, Change, Instance, Policy, Role, User, UserGroup, apply_change

NOW = 50.0
OFFICE = {"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}


def people(policies, made, groups=()):
    """A World with these users, each with an active key, and their policies."""
    users = tuple(
        User(
            name=name,
            id=f"AIDA{name}",
            policies=() if document is None else (Policy(name="p", document=document),),
            groups=tuple(group for group, members in groups if name in members),
            tags={"Team": name},
        )
        for name, document in policies.items()
    )
    keys = tuple(AccessKey(id=f"AKIA{name.upper():>016}", secret="s", user_name=name) for name in policies)
    return msgspec.structs.replace(
        made,
        users=users,
        roles=(),
        access_keys=keys,
        user_groups=tuple(UserGroup(name=group, id=group) for group, _ in groups),
    )


PASSING = world(door=[OUT], web=[IN])
SMALL = people({"alice": allow(), "bob": allow(Condition=OFFICE), "carol": None}, PASSING, [("ops", ["alice"])])


def run(made, *lines, verb="never"):
    """The result of one check from its lines."""
    content = "checks:\n" + "\n".join([f"  - {verb}: it", *(f"    {line}" for line in lines)])
    (result,) = check(made, content, "c.yaml", NOW).results
    return result


def explained(made, example):
    """What explain says about a counterexample."""
    return explain(
        made,
        Question(
            principal=example.principal,
            source_ip=example.source,
            target=example.target,
            endpoint_id=example.endpoint,
            port=example.port,
            duration=example.duration,
            at=NOW,
        ),
    )


@pytest.mark.parametrize(
    ("lines", "who"),
    [
        (["who: anyone", "to: i-web"], ["alice", "bob"]),
        (["who: not iam-group ops", "to: i-web"], ["bob"]),
        (["who: iam-group ops", "to: i-web"], ["alice"]),
        (["who: user carol", "to: i-web"], []),
        (["who: [user alice, user carol]", "to: i-web"], ["alice"]),
        (["who: user ?o*", "to: i-web"], ["bob"]),
        (["who: tag Team=al*", "to: i-web"], ["alice"]),
        (["who: user bob", "from: not 203.0.113.0/24", "to: i-web"], []),
        (["who: user bob", "from: 203.0.113.128/25", "to: i-web"], ["bob"]),
        (["from: internet", "to: i-web"], ["alice", "bob"]),
        (["from: 10.0.0.0/8", "to: i-web"], ["alice"]),
        (["who: root", "to: i-web"], ["root"]),
        (["who: anyone", "to: i-web", "port: 3389"], []),
        (["who: anyone", "to: i-web", "port: [3389, 20-22]"], ["alice", "bob"]),
        (["who: user alice", "to: i-web", "through: eice-1"], ["alice"]),
        (["who: user alice", "to: group web"], ["alice", "alice"]),
        (["who: user alice", "to: [group web, not i-db]"], ["alice"]),
        (["who: user alice", "to: vpc-1"], ["alice", "alice"]),
        (["who: user alice", "to: 10.0.0.12"], ["alice"]),
        (["who: user alice", "to: sg-db"], ["alice"]),
    ],
)
def test_never(lines, who):
    """Fails for exactly these, and explain says that each of them passes."""
    result = run(SMALL, *lines)
    assert [one.principal for one in result.examples] == who
    assert result.outcome == ("fail" if who else "pass")
    for example in result.examples:
        answer = explained(SMALL, example)
        assert {line.outcome for line in answer.lines if line.step != "credentials"} == {"pass"}
        assert answer.outcome == ("fail" if example.principal == "root" else "pass")  # root has no key here


@pytest.mark.parametrize(
    ("lines", "outcome"),
    [
        (["who: user alice", "to: i-web", "port: 22"], "pass"),
        (["who: user bob", "to: i-web", "port: 22"], "fail"),
        (["who: user bob", "from: 203.0.113.0/24", "to: i-web", "port: 22"], "pass"),
        (["who: user bob", "from: 203.0.112.0/23", "to: i-web", "port: 22"], "fail"),
        (["who: user alice", "to: i-web", "port: [22, 3389]"], "fail"),
        (["who: user alice", "to: i-web", "port: any"], "fail"),
        (["who: user alice", "to: everything", "port: 22"], "pass"),
        (["who: anyone", "from: 203.0.113.7", "to: i-web", "port: 22"], "fail"),
        (["who: not user carol", "from: 203.0.113.7", "to: i-web", "port: 22", "duration: 60"], "pass"),
    ],
)
def test_always(lines, outcome):
    """Fails if one of them lacks a part, and explain says of the counterexample that it fails."""
    result = run(SMALL, *lines, verb="always")
    assert result.outcome == outcome
    assert bool(result.examples) is (outcome == "fail")
    for example in result.examples:
        assert explained(SMALL, example).outcome == "fail"
        assert example.why


def test_a_cap_on_the_duration():
    """Who leaves the duration out is denied: always fails, but holds with a duration; never finds the short one."""
    capped = allow(Condition={"NumericLessThanEquals": {"ec2-instance-connect:maxTunnelDuration": "1800"}})
    made = people({"alice": capped}, PASSING)
    lines = ["who: user alice", "to: i-web", "port: 22"]
    assert run(made, *lines, verb="always").outcome == "fail"
    assert run(made, *lines, "duration: 1800", verb="always").outcome == "pass"
    (example,) = run(made, *lines).examples
    assert example.duration == 1800
    assert example.command[-2:] == ("--duration", "1800")
    assert explained(made, example).outcome == "pass"


def test_preserved_clients():
    """With client IP preservation the rules know clients; the counterexample is one of theirs."""
    made = world(door=[OUT], web=[rule(3, "in", "198.51.100.0/24")], preserve=True)
    made = people({"alice": allow()}, made)
    (example,) = run(made, "who: user alice", "to: i-web").examples
    assert example.source.startswith("198.51.100.")
    assert explained(made, example).outcome == "pass"
    assert run(made, "who: user alice", "from: not 198.51.100.0/24", "to: i-web").outcome == "pass"
    only = ["who: user alice", "to: i-web", "port: 22"]
    assert run(made, *only, "from: 198.51.100.0/24", verb="always").outcome == "pass"
    assert run(made, *only, verb="always").outcome == "fail"


def test_what_is_off_now_counts():
    """A stopped instance, a user without keys and a role without sessions are reached all the same, and it is said."""
    stopped = Instance(id="i-web", interface_id="eni-web", state="stopped")
    made = apply_change(SMALL, Change(puts=(stopped,)))
    (example,) = run(made, "who: user alice", "to: i-web").examples
    assert [say.key for say in example.why] == ["first-run"]
    keyless = msgspec.structs.replace(SMALL, access_keys=())
    (example,) = run(keyless, "who: user alice", "to: i-web").examples
    assert [say.key for say in example.why] == ["first-key"]
    role = Role(name="ops", id="AROA1", policies=(Policy(name="p", document=allow()),))
    made = apply_change(SMALL, Change(puts=(role,)))
    (example,) = run(made, "who: role ops", "to: i-web").examples
    assert [say.key for say in example.why] == ["first-session"]
    every = run(made, "who: anyone", "to: i-web").examples
    assert [len(one.why) for one in every] == [0, 0, 1], "what can be tried comes first"


def test_sessions():
    """A role's name means its sessions with never, and not with always, which would miss what narrows one of them."""
    narrow = (Policy(name="s", document=allow(Effect="Deny")),)
    session = AccessKey(
        id="ASIAOPS000000001", secret="s", role_name="ops", session_name="x", session_token="t", expires=100.0,
        session_policies=narrow,
    )  # fmt: skip
    role = Role(name="ops", id="AROA1", policies=(Policy(name="p", document=allow()),))
    made = apply_change(SMALL, Change(puts=(role, session)))
    assert run(made, "who: role ops", "to: i-web", "port: 22", verb="always").outcome == "pass"
    assert run(made, "who: role ops/x", "to: i-web", "port: 22", verb="always").outcome == "fail"
    assert [one.principal for one in run(made, "who: role ops", "to: i-web").examples] == ["role/ops"]


def test_what_cannot_be_told():
    """A condition on the user agent: unknown, with what it depends on; a certain failure beside it counts more."""
    agent = allow(Condition={"StringLike": {"aws:UserAgent": "aws-cli/*"}})
    made = people({"alice": agent, "bob": allow()}, PASSING)
    result = run(made, "who: user alice", "to: i-web")
    assert result.outcome == "unknown"
    assert "p/0" in result.depends[0]
    assert run(made, "who: user alice", "to: i-web", "port: 22", verb="always").outcome == "unknown"
    assert run(made, "who: anyone", "to: i-web").outcome == "fail"


# -- between machines --------------------------------------------------------------------------------------------------

MACHINES = world(
    door=[OUT],
    web=[IN, rule(5, "in", "sg-db", (5432, 5432)), rule(6, "in", "10.0.0.12/32", (-1, -1), "icmp")],
    db=[rule(7, "out", "sg-web", (5432, 5500)), rule(8, "out", "10.0.0.0/24", (8, -1), "icmp")],
)


@pytest.mark.parametrize(
    ("verb", "lines", "outcome"),
    [
        ("always", ["from: i-db", "to: i-web", "port: tcp 5432"], "pass"),
        ("always", ["from: i-db", "to: i-web", "port: 5432-5433"], "fail"),
        ("always", ["from: i-db", "to: i-web", "port: icmp 8"], "pass"),
        ("always", ["from: i-db", "to: i-web", "port: icmp"], "fail"),
        ("always", ["from: i-web", "to: i-db", "port: 5432"], "fail"),
        ("never", ["from: i-db", "to: i-web", "port: udp 5432"], "pass"),
        ("never", ["from: i-db", "to: i-web", "port: [udp 5432, 5000-6000]"], "fail"),
        ("never", ["from: i-db", "to: i-web"], "fail"),
        ("never", ["from: i-web", "to: i-db"], "pass"),
        ("never", ["from: everything", "to: everything", "port: protocol 47"], "pass"),
    ],
)
def test_packets_between_machines(verb, lines, outcome):
    """As the groups of both sides say; the counterexample is a packet that is judged so."""
    result = run(MACHINES, *lines, verb=verb)
    assert result.outcome == outcome
    for example in result.examples:
        assert _judged(MACHINES, example) is (verb == "never")


def _judged(made, example):
    """Whether a counterexample's packet passes, by the code that enforces."""
    icmp = example.protocol in (1, 58)
    flow = paths.Flow(
        made.interface(example.sender),
        made.interface(example.interface),
        example.source,
        example.protocol,
        example.port >> 8 if icmp else example.port,
        example.port & 255 if icmp else 0,
        example.target,
    )
    return paths.judge_flow(made, flow).passed


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**64))
def test_checks_against_single_packets(seed):
    """For random Worlds with a peering: a check fails exactly when some packet of the sample says so, or one beyond it
    that is judged to pass; an always that holds has no packet of the sample against it."""
    made = random_world(Random(seed))
    machines = [eni for eni in made.interfaces if made.endpoint_of_interface(eni.id) is None]
    for verb in ("never", "always"):
        pairs = [(one.id, two.id) for one in machines for two in machines if one is not two]
        single = [run(made, f"from: {one}", f"to: {two}", "port: 22", verb=verb).outcome for one, two in pairs]
        every = run(made, "from: everything", "to: everything", "port: 22", verb=verb)
        assert len(every.examples) + every.more == single.count("fail")
    for sender in machines:
        for receiver in machines:
            if sender is receiver:
                continue
            for port, protocol in ((22, 6), (443, 6), (9, 17)):
                name = "tcp" if protocol == 6 else "udp"
                lines = [f"from: {sender.id}", f"to: {receiver.id}", f"port: {name} {port}"]
                sources = [*sender.addresses, *(() if sender.source_dest_check else ("203.0.113.5",))]
                flows = [
                    paths.Flow(sender, receiver, source, protocol, port, 0, target)
                    for source in sources
                    for target in receiver.addresses
                    if (":" in source) is (":" in target)
                ]
                passed = [paths.judge_flow(made, flow).passed for flow in flows]
                never = run(made, *lines)
                assert never.outcome == "fail" or not any(passed), (seed, lines)
                for example in never.examples:
                    assert _judged(made, example)
                if run(made, *lines, verb="always").outcome == "pass":
                    assert passed[0]


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**64))
def test_checks_against_explain(seed):
    """For random Worlds: what never finds, explain lets pass; where it finds nothing, explain lets nothing of a sample
    pass, and what always holds of passes."""
    made = people({"alice": allow(), "bob": allow(Condition=OFFICE)}, random_world(Random(seed)))
    for who in ("alice", "bob"):
        for instance in made.instances:
            lines = [f"who: user {who}", f"to: {instance.id}"]
            result = run(made, *lines, "port: 22")
            for example in result.examples:
                assert explained(made, example).outcome == "pass", (seed, example)
            if result.outcome == "pass":
                for source in ("203.0.113.10", "198.51.100.1", "2001:db8::1"):
                    question = Question(principal=who, source_ip=source, target=instance.id, at=NOW)
                    assert explain(made, question).outcome != "pass", (seed, lines, source)
            always = run(made, *lines, "from: 203.0.113.0/24", "port: 22", verb="always")
            question = Question(principal=who, source_ip="203.0.113.77", target=instance.id, at=NOW)
            if always.outcome == "pass":
                assert explain(made, question).outcome == "pass"
            for example in always.examples:
                assert explained(made, example).outcome == "fail", (seed, example)


# -- mistakes ----------------------------------------------------------------------------------------------------------

CHECK_START = "checks:\n  - never: it\n    who: anyone\n"
ALWAYS = "checks:\n  - always: it\n    who: anyone\n    to: i-web\n    port: 22\n"


@pytest.mark.parametrize(
    ("content", "place", "words"),
    [
        ("", "1:1", "the file is empty, expected a mapping with the one key checks"),
        ("a: [", "1:5", "not YAML"),
        ("- a", "1:1", "found a list, expected a mapping with the one key checks"),
        ("cheks:\n  - never: it", "1:1", "found 'cheks', expected a mapping with the one key checks"),
        ("checks: {}", "1:9", "found a mapping, expected a list of checks"),
        ("checks: []", "1:9", "found a list, expected a list of checks, at least one"),
        ("checks:\n  - it", "2:5", "found 'it', expected a check"),
        ("checks:\n  - to: i-web\n    who: anyone", "2:5", "exactly one of never and always"),
        ("checks:\n  - never: a\n    always: b\n    to: i-web", "2:5", "exactly one of never and always"),
        ("checks:\n  - never: a\n    to: i-web", "2:5", "a mapping that also has who"),
        ("checks:\n  - never: a\n    who: anyone", "2:5", "a mapping that also has to"),
        ("checks:\n  - always: a\n    who: anyone\n    to: i-web", "2:5", "a mapping that also has port"),
        (CHECK_START + "    too: i-web", "4:5", "found 'too', expected one of never, always, who, from"),
        (CHECK_START + "    who: root\n    to: i-web", "4:5", "expected each key once"),
        (CHECK_START + "    to: {a: b}", "4:9", "found a mapping, expected a text or a list of texts"),
        (CHECK_START + "    to: []", "4:9", "found a list, expected a text or a list of texts"),
        (CHECK_START + "    to: i-web\n" + CHECK_START[8:] + "    to: i-web", "5:12", "a name that no other check has"),
        (CHECK_START + "    to: web", "4:9", "found 'web', expected machines: everything, group NAME"),
        (CHECK_START + "    to: i-gone", "4:9", "found 'i-gone', expected machines of which there is at least one"),
        (CHECK_START + "    to: [i-web, tag A=b]", "4:17", "machines of which there is at least one"),
        (CHECK_START + "    to: [i-web, not everything]", "4:10", "machines of which there is at least one"),
        (CHECK_START + "    to: i-web\n    port: ssh", "5:11", "expected a port as 22"),
        (CHECK_START + "    to: i-web\n    port: 23-22", "5:11", "expected a port as 22"),
        (CHECK_START + "    to: i-web\n    port: 65536", "5:11", "expected a port as 22"),
        (CHECK_START + "    to: i-web\n    port: udp 53", "5:11", "expected a TCP port from 1 to 65535"),
        (CHECK_START + "    to: i-web\n    through: eice-9", "5:14", "endpoints of which there is at least one"),
        (CHECK_START + "    to: i-web\n    through: door", "5:14", "expected endpoints: any, an id"),
        (CHECK_START + "    to: i-web\n    from: i-db", "5:11", "expected clients' addresses: anywhere, internet"),
        (CHECK_START + "    to: i-web\n    from: 203.0.113.1/24", "5:11", "expected clients' addresses"),
        (CHECK_START + "    to: i-web\n    from: [internet, not internet]", "5:12", "expected clients' addresses"),
        (CHECK_START + "    to: i-web\n    duration: 60", "5:15", "no duration"),
        ("checks:\n  - never: it\n    who: iam-grup ops\n    to: i-web", "3:10", "expected principals: anyone, root"),
        ("checks:\n  - never: it\n    who: user dave\n    to: i-web", "3:10", "principals of which there is at least"),
        ("checks:\n  - never: it\n    from: i-db\n    to: i-web\n    through: any", "5:14", "machines send without"),
        (ALWAYS + "    duration: 1h", "6:15", "seconds from"),
        (ALWAYS + "    duration: 3601", "6:15", "to 3600"),
    ],
)  # fmt: skip
def test_mistakes(content, place, words):
    """File, line, column, what was found and what would be right; in both languages."""
    with pytest.raises(Mistake) as wrong:
        check(SMALL, content, "c.yaml", NOW)
    assert str(wrong.value).startswith(f"c.yaml:{place}: "), str(wrong.value)
    assert words in str(wrong.value)
    assert wrong.value.worded("ja").startswith(f"c.yaml:{place}: ")
    assert wrong.value.worded("ja") != str(wrong.value)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="checks:\n -never'who\"[]{}&*!|>tofrmi0.#?,", max_size=80))
def test_strange_files_are_mistakes(content):
    """Whatever is in a file, it is told as a mistake at a place in it, and nothing else is raised."""
    with pytest.raises(Mistake):
        check(SMALL, content, "c.yaml", NOW)


def test_deep_files_are_mistakes():
    """Also one that nests more than anybody reads."""
    with pytest.raises(Mistake):
        check(SMALL, "[" * 20_000, "c.yaml", NOW)


def test_the_documented_example_reads():
    """The file at the head of docs/check.md is one, with all of its checks."""
    content = (Path(__file__).parents[2] / "docs" / "check.md").read_text()
    start = content.index("    checks:\n")
    example = textwrap.dedent(content[start : content.index("    $ wicketgate check")])
    assert [one.verb for one in read(example, "c.yaml")] == ["never", "never", "always", "always", "never"]


# -- telling -----------------------------------------------------------------------------------------------------------

MANY = """\
checks:
  - never: "<ops> & others & \\x01 reach web"
    who: anyone
    to: i-web
  - always: bob gets in
    who: user bob
    to: i-web
    port: 22
  - never: carol gets in
    who: user carol
    to: i-web
  - always: db reaches web
    from: i-db
    to: i-web
    port: 5432
"""


def test_both_languages_say_everything():
    """The same facts in both; every result can be told in both."""
    for key, sentences in CHECK.items():
        facts = [{name for _, name, _, _ in Formatter().parse(sentence) if name} for sentence in sentences]
        assert facts[0] == facts[1], key
        assert all(sentences)
    results = check(SMALL, MANY, "c.yaml", NOW)
    assert len(list(lines_of(results))) == len(list(lines_of(results, "ja")))
    assert text(results.results[1].examples[0].why[0]).startswith("no statement allows")


def test_lines():
    """A sign, the verb and the name; below it the connection, what stops it, and the command that shows it."""
    lines = list(lines_of(check(SMALL, MANY, "c.yaml", NOW)))
    at = lines.index("FAIL always: bob gets in")
    assert lines[at + 1] == "      bob from 198.51.100.10 does not reach 10.0.0.11 (eni-web) by eice-1: tcp 22"
    assert lines[at + 3] == (
        "        wicketgate explain --principal bob --from 198.51.100.10 --endpoint eice-1 --to 10.0.0.11 --port 22"
    )
    assert "ok   never: carol gets in" in lines
    assert lines[-1] == "Hold: 1. Do not hold: 3. Cannot be told: 0. Revision 7."


def test_as_junit():
    """XML that parses, whatever is in a name; counts; one case for each check with its line."""
    suites = ET.fromstring(as_junit(check(SMALL, MANY, "c.yaml", NOW)))
    assert (suites.get("tests"), suites.get("failures"), suites.get("errors")) == ("4", "3", "0")
    cases = list(suites.iter("testcase"))
    assert [case.get("line") for case in cases] == ["2", "5", "9", "12"]
    assert cases[0].get("name") == "never: <ops> & others & \ufffd reach web"
    assert [len(case) for case in cases] == [1, 1, 0, 1]
    assert "wicketgate explain" in cases[0][0].text


def test_as_sarif():
    """The schema allows it; a result for each check that does not hold, at its place."""
    log = as_sarif(check(SMALL, MANY, "c.yaml", NOW), "1.0")
    assert not list(SARIF.iter_errors(log))
    results = log["runs"][0]["results"]
    assert [one["ruleId"] for one in results] == ["never", "always", "always"]
    region = results[0]["locations"][0]["physicalLocation"]["region"]
    assert region == {"startLine": 2, "startColumn": 12}


def test_many_counterexamples_are_counted():
    """Five are given, the rest is a number."""
    made = people({f"u{n}": allow() for n in range(8)}, PASSING)
    result = run(made, "who: anyone", "to: group web")
    assert (len(result.examples), result.more) == (5, 11)
    data = as_data(check(made, "checks: [{never: it, who: anyone, to: group web}]", "c.yaml", NOW))
    assert data["checks"][0]["more"] == 11
    assert answer_of(check(made, MANY.replace("carol", "u1").replace("bob", "u2"), "c", NOW), "1")["JUnit"]
