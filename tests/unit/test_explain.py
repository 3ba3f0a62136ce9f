"""Explanations: every step with what decided it, the nearest misses, and changes that do what they say."""

import json
import re
from pathlib import Path
from string import Formatter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wicketgate import paths
from wicketgate.explain import Question, Say, Unanswerable, as_data, explain, lines_of, text, why_not
from wicketgate.explain.misses import rule_said
from wicketgate.explain.words import CATALOGUE, LANGUAGES
from wicketgate.model import (
    EXTERNAL_IMAGE,
    AccessKey,
    AttachedNetwork,
    Change,
    Endpoint,
    Instance,
    NetworkInterface,
    Policy,
    Role,
    SecurityGroup,
    SecurityGroupRule,
    Settings,
    Subnet,
    User,
    Vpc,
    World,
    apply_change,
)
from wicketgate.tunnel.targets import client_refusal, target_refusal

EICE, WEB, DB = "eice-1", "i-web", "i-db"
CLIENT = "203.0.113.10"


def rule(number, direction, peer, ports=(22, 22), protocol="tcp"):
    """A rule from or to a range or `sg-...`."""
    return SecurityGroupRule(
        id=f"sgr-{number}",
        is_egress=direction == "out",
        ip_protocol=protocol,
        from_port=ports[0],
        to_port=ports[1],
        cidr_ipv4=None if peer.startswith("sg-") else peer,
        referenced_group_id=peer if peer.startswith("sg-") else None,
    )


def allow(action="ec2-instance-connect:OpenTunnel", **more):
    """A policy of one statement."""
    statement = {"Effect": "Allow", "Action": action, "Resource": "*", **more}
    return {"Version": "2012-10-17", "Statement": [statement]}


def world(*, door=(), web=(), db=(), policy=None, preserve=False, state="create-complete", **settings):
    """An endpoint (group sg-door) and two instances (sg-web; sg-db and sg-web) in one subnet."""
    groups = [
        SecurityGroup(id=f"sg-{name}", vpc_id="vpc-1", name=name, rules=tuple(rules))
        for name, rules in (("door", door), ("web", web), ("db", db))
    ]
    interfaces = [
        NetworkInterface(id=f"eni-{name}", subnet_id="subnet-1", private_ip_address=f"10.0.0.{at}", link=name, **more)
        for name, at, more in (
            ("door", 10, {"group_ids": ("sg-door",), "interface_type": "ec2_instance_connect_endpoint"}),
            ("web", 11, {"group_ids": ("sg-web",)}),
            ("db", 12, {"group_ids": ("sg-db", "sg-web")}),
        )
    ]
    policies = () if policy is None else (Policy(name="ops", document=policy),)
    made = World(
        revision=7,
        settings=Settings(**settings),
        vpcs=(Vpc(id="vpc-1", cidr_block="10.0.0.0/16"),),
        subnets=(Subnet(id="subnet-1", vpc_id="vpc-1", cidr_block="10.0.0.0/24"),),
        groups=tuple(groups),
        interfaces=tuple(interfaces),
        instances=(Instance(id=WEB, interface_id="eni-web"), Instance(id=DB, interface_id="eni-db")),
        endpoints=(
            Endpoint(
                id=EICE,
                subnet_id="subnet-1",
                interface_id="eni-door",
                dns_name="door",
                preserve_client_ip=preserve,
                state=state,
            ),
        ),
        users=(User(name="alice", id="AIDA1", policies=policies), User(name="bob", id="AIDA2")),
        roles=(Role(name="ops", id="AROA1", policies=policies),),
        access_keys=(
            AccessKey(id="AKIAALICE0000001", secret="s", user_name="alice"),
            AccessKey(id="AKIABOB000000001", secret="s", user_name="bob", active=False),
            AccessKey(
                id="ASIAOPS000000001", secret="s", role_name="ops", session_name="x", session_token="t", expires=100.0
            ),
        ),
    )
    made.check()
    return made


def ask(made, *, principal="alice", target=WEB, **more):
    """The explanation of a question."""
    return explain(made, Question(principal=principal, source_ip=CLIENT, target=target, at=50.0, **more))


def failed(explanation):
    """(step, key) of what fails."""
    return [(line.step, line.say.key) for line in explanation.lines if line.outcome == "fail"]


OUT = rule(1, "out", "sg-web")
IN = rule(2, "in", "sg-door")


def test_a_connection_that_passes_is_explained_step_by_step():
    """Every step passes, in the order in which the connection meets them, with what decided it and where that is."""
    answer = ask(world(door=[OUT], web=[IN], policy=allow()))
    assert answer.outcome == "pass"
    assert [line.step for line in answer.lines] == [
        "credentials", "iam", "endpoint", "limits", "target", "route", "endpoint-outbound", "source-address",
        "target-inbound", "tracking",
    ]  # fmt: skip
    by = {line.step: line for line in answer.lines}
    assert by["iam"].decided_by == "ops/0"
    assert text(by["iam"].where) == "user/alice, inline policy ops"
    assert (by["endpoint-outbound"].decided_by, text(by["endpoint-outbound"].where)) == ("sgr-1", "sg-door (door)")
    assert by["target-inbound"].decided_by == "sgr-2"
    assert by["source-address"].say == Say("source-endpoint", {"source": "10.0.0.10"})
    assert by["endpoint"].say.key == "endpoint-chosen"
    assert answer.remedies == ()


@pytest.mark.parametrize(
    ("made", "more", "expected"),
    [
        (world(policy=allow()), {}, [("endpoint-outbound", "outbound-nothing"), ("target-inbound", "inbound-nothing")]),
        (world(door=[OUT], web=[IN]), {}, [("iam", "iam-nothing")]),
        (
            world(door=[OUT], web=[IN], policy=allow()),
            {"principal": "bob"},
            [("credentials", "key-inactive"), ("iam", "iam-nothing")],
        ),
        (
            world(door=[OUT], web=[IN], policy=allow(), state="delete-in-progress"),
            {"endpoint_id": EICE},
            [("endpoint", "endpoint-not-ready")],
        ),
        (world(door=[OUT], web=[IN], policy=allow(), state="delete-in-progress"), {}, [("endpoint", "endpoint-none")]),
        (
            world(door=[rule(1, "out", "sg-web", (80, 80))], web=[rule(2, "in", "sg-door", (80, 80))], policy=allow()),
            {"port": 80},
            [("limits", "port-not-offered")],
        ),
        (world(door=[OUT], web=[IN], policy=allow()), {"duration": 9999}, [("limits", "duration-over")]),
        (
            world(door=[OUT], web=[IN], policy=allow()),
            {"target": "10.0.0.99", "endpoint_id": EICE},
            [("target", "target-nobody")],
        ),
        (
            world(door=[OUT], web=[IN], policy=allow()),
            {"target": "10.0.0.1", "endpoint_id": EICE},
            [("target", "target-refused")],
        ),
        (world(door=[OUT], web=[IN], policy=allow()), {"ssh": True}, [("iam", "iam-nothing")] * 3),
        (world(door=[OUT], web=[IN], policy=allow("*")), {"ssh": True}, []),
        (world(door=[OUT], web=[IN], policy=allow()), {"principal": "role/ops"}, []),
        (world(door=[OUT], web=[IN], policy=allow("*", Effect="Deny")), {}, [("iam", "iam-denied")]),
        (
            world(policy=None),
            {"principal": "root"},
            [
                ("credentials", "key-none"),
                ("endpoint-outbound", "outbound-nothing"),
                ("target-inbound", "inbound-nothing"),
            ],
        ),
    ],
)
def test_what_fails(made, more, expected):
    """Each step fails by its own, and what is behind it is judged all the same."""
    assert failed(ask(made, **more)) == expected


def external(made, attached=None, state="running"):
    """The same, with web a machine that exists without us."""
    web, *others = made.instances
    web = msgspec.structs.replace(web, image_id=EXTERNAL_IMAGE, state=state)
    (subnet,) = made.subnets
    subnets = (msgspec.structs.replace(subnet, attached=attached),)
    return msgspec.structs.replace(made, instances=(web, *others), subnets=subnets)


def test_a_machine_that_did_not_answer_is_tried_all_the_same():
    """Its state is the opinion of a probe: the step says so and passes, as `paths` has it."""
    made = external(world(door=[OUT], web=[IN], policy=allow()), state="stopped")
    answer = ask(made)
    assert answer.outcome == "pass"
    (line,) = [line for line in answer.lines if line.step == "target"]
    assert text(line.say) == "10.0.0.11 is eni-web of i-web, which did not answer when it was last looked for"
    assert paths.judge(made, endpoint_id=EICE, address="10.0.0.11", port=22, client_address=CLIENT).passed


def test_a_client_cannot_be_preserved_to_a_machine_with_another_router():
    """The step of the source says why, in both languages, and the remedy lets it pass; or the endpoint's address is
    what the target sees."""
    rules = {"door": [OUT], "web": [IN], "policy": allow(), "preserve": True}
    there = AttachedNetwork(mode="bridge")
    answer = ask(external(world(**rules), there))
    assert failed(answer) == [("source-address", "source-refused")]
    (line,) = [line for line in answer.lines if line.outcome == "fail"]
    assert text(line.say).endswith(
        "10.0.0.11 does not send its replies through this gateway, so a client's address cannot be preserved to it"
    )
    assert "10.0.0.11" in text(line.say, "ja")
    assert [way.commands[0][2:] for way in answer.remedies] == [
        ("modify-instance-connect-endpoint", "--instance-connect-endpoint-id", EICE, "--no-preserve-client-ip")
    ]
    lax = external(world(**rules, unpreservable_client="endpoint-address"), there)
    assert ask(lax).outcome == "pass"
    verdict = paths.judge(lax, endpoint_id=EICE, address="10.0.0.11", port=22, client_address=CLIENT)
    assert "the target sees 10.0.0.10" in " ".join(str(step.reason) for step in verdict.steps)
    assert failed(ask(external(world(**rules), msgspec.structs.replace(there, return_path=True)))) == []


def test_sessions_end():
    """A role's session passes while it lasts, and says when it ended after."""
    made = world(door=[OUT], web=[IN], policy=allow())
    late = explain(made, Question(principal="ASIAOPS000000001", source_ip=CLIENT, target=WEB, at=200.0))
    assert late.lines[0].say == Say("key-expired", {"key": "ASIAOPS000000001", "time": "1970-01-01T00:01:40Z"})


def test_the_nearest_misses_come_first():
    """Rules that fail by one thing alone come before those that fail by more, the narrower first."""
    rules = [
        rule(3, "in", "10.9.0.0/16", (80, 80)),
        rule(4, "in", "sg-door", (80, 90)),
        rule(5, "in", "sg-door", (2222, 2222)),
        rule(6, "in", "10.0.0.11/32"),
        rule(7, "in", "sg-web", (22, 22), "udp"),
    ]
    answer = ask(world(door=[OUT], web=rules, policy=allow()))
    step = next(line for line in answer.lines if line.step == "target-inbound")
    assert list(map(text, step.misses)) == [
        "sgr-5 inbound tcp 2222 from sg-door would, but for: the port",
        "sgr-6 inbound tcp 22 from 10.0.0.11/32 would, but for: the address range",
        "sgr-4 inbound tcp 80-90 from sg-door would, but for: the port",
    ]


def test_iam_misses_say_what_kept_the_statement():
    """The statement that nearly allowed it, and the condition that kept it."""
    condition = {"NumericEquals": {"ec2-instance-connect:remotePort": "3389"}}
    answer = ask(world(door=[OUT], web=[IN], policy=allow(Condition=condition)))
    (line,) = [line for line in answer.lines if line.step == "iam"]
    (kept,) = line.misses[0].parts["kept"]
    assert text(kept) == "NumericEquals ec2-instance-connect:remotePort 22 is not 3389"


def _passing(made, preserve):
    """(sender, receiver, source, port) of single flows that pass."""
    return {
        (sender.id, receiver.id, source, port)
        for sender in made.interfaces
        for receiver in made.interfaces
        if sender is not receiver and receiver.id != "eni-door"
        for source in ((CLIENT, "198.51.100.1") if preserve and sender.id == "eni-door" else sender.addresses)
        for port in (22, 80)
        if paths.judge_flow(made, paths.Flow(sender, receiver, source, 6, port)).passed
    }


@pytest.mark.parametrize("preserve", [False, True])
def test_remedies_let_it_pass_and_open_what_they_say(preserve):
    """Applied, each remedy makes the connection pass; what else passes then is what it said, flow by flow."""
    made = world(
        door=[rule(9, "out", "10.0.9.0/24")],
        web=[rule(8, "in", "10.0.9.0/24")],
        db=[rule(7, "out", "0.0.0.0/0", (0, 65535))],
        policy=allow(),
        preserve=preserve,
    )
    answer = ask(made)
    assert answer.remedies
    assert [one.also_opens for one in answer.remedies] == sorted(one.also_opens for one in answer.remedies)
    asked = ("eni-door", "eni-web", CLIENT if preserve else "10.0.0.10", 22)
    for remedy in answer.remedies:
        after = apply_change(made, Change(puts=remedy.puts))
        assert ask(after).outcome == "pass", remedy
        gained = {flow[:2] for flow in _passing(after, preserve) - _passing(made, preserve) - {asked}}
        assert {(one.sender, one.receiver) for one in remedy.opens} == gained
        assert remedy.also_opens == len(gained)
    assert answer.remedies[0].also_opens == 0


def test_a_policy_that_would_help_is_exact():
    """The inline policy allows this endpoint, address, port and duration alone."""
    answer = ask(world(door=[OUT], web=[IN]))
    (remedy,) = answer.remedies
    (command,) = remedy.commands
    assert command[:5] == ("aws", "iam", "put-user-policy", "--user-name", "alice")
    document = json.loads(command[-1])
    made = world(door=[OUT], web=[IN], policy=document)
    assert ask(made).outcome == "pass"
    assert failed(ask(made, target=DB))[0] == ("iam", "iam-nothing")
    assert failed(ask(made, port=3389))[0] == ("iam", "iam-nothing")


def test_tracking_says_what_a_revoke_would_do():
    """Tracked on both sides, or cut at once when the rule for any address goes."""
    anywhere = [rule(3, "in", "0.0.0.0/0"), rule(4, "out", "0.0.0.0/0", (0, 65535))]
    made = world(door=[OUT], web=anywhere, policy=allow())
    assert ask(made).lines[-1].say == Say("untracked", {"sides": "eni-web", "rules": "sgr-3, sgr-4"})
    assert ask(world(door=[OUT], web=[IN], policy=allow())).lines[-1].say.key == "tracked-both"
    at_once = world(door=[OUT], web=[IN], policy=allow(), revocation="immediate")
    assert ask(at_once).lines[-1].say.key == "revocation-immediate"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"principal": "carol"}, "there is no user 'carol'"),
        ({"principal": "arn:aws:s3:::bucket"}, "the ARN is of no user"),
        ({"principal": "arn:aws"}, "the ARN is of no user"),
        ({"principal": "arn:aws:iam::210987654321:user/alice"}, "is of another account; this one is 123456789012"),
        ({"principal": "arn:aws:sts::123456789012:assumed-role/dev/x"}, "there is no role 'dev'"),
        ({"principal": ""}, "there is no user ''"),
        ({"principal": "role/"}, "there is no role ''"),
        ({"principal": "AKIANOBODY000001"}, "no such access key"),
        ({"target": "i-gone"}, "no such instance"),
        ({"target": "web"}, "no instance id, network interface id or IP address"),
        ({"target": "10.0.0.77"}, "no network interface has this address"),
        ({"endpoint_id": "eice-2"}, "there is no such endpoint"),
        ({"port": 0}, "no TCP port"),
    ],
)
def test_questions_that_cannot_be_answered(more, words):
    """Say what is not there and what would be right."""
    with pytest.raises(Unanswerable, match=re.escape(words)):
        ask(world(), **more)


def test_both_languages_say_everything():
    """Every sentence exists in every language, with the same facts in it; every answer can be told in both."""
    for key, sentences in CATALOGUE.items():
        assert len(sentences) == len(LANGUAGES)
        facts = [{name for _, name, _, _ in Formatter().parse(sentence) if name} for sentence in sentences]
        assert facts[0] - {"relation"} == facts[1], key  # the operator's name says it
        assert all(sentences)
    answer = ask(world(door=[rule(1, "out", "sg-db")], policy=allow()))
    english, japanese = lines_of(answer), lines_of(answer, "ja")
    assert len(english) == len(japanese)
    assert "FAIL target's inbound rules: no inbound rule of sg-web allows tcp 22 from 10.0.0.10" in english
    assert any("インバウンドルールがありません" in line for line in japanese)
    missed = Say("miss", parts={"rule": (rule_said(OUT),), "kept": (Say("kept-port"), Say("kept-family"))})
    assert text(missed) == "sgr-1 outbound tcp 22 to sg-web would, but for: the port, the address family"
    assert text(missed, "ja") == (
        "sgr-1 (sg-web への tcp 22 のアウトバウンド) は次の点を除けば許可します: ポート、アドレスファミリー"
    )


def test_the_answer_as_data():
    """For programs: keys and facts beside the text; it is JSON."""
    data = json.loads(msgspec.json.encode(as_data(ask(world(policy=allow())))))
    assert (data["schema"], data["outcome"], data["revision"]) == (1, "fail", 7)
    assert data["asked"]["endpoint"] == EICE
    step = data["steps"][-2]
    assert (step["step"], step["key"]) == ("target-inbound", "inbound-nothing")
    assert data["remedies"][0]["commands"][0][:3] == ["aws", "ec2", "authorize-security-group-egress"]


@pytest.mark.parametrize(
    "principal",
    [
        "alice", "user/alice", "arn:aws:iam::123456789012:user/alice", "AKIAALICE0000001", "role/ops", "role/ops/x",
        "arn:aws:iam::123456789012:role/ops", "arn:aws:sts::123456789012:assumed-role/ops/x", "ASIAOPS000000001",
    ],
)  # fmt: skip
def test_principals_by_every_name(principal):
    """The same user or role, however it is called."""
    assert ask(world(door=[OUT], web=[IN], policy=allow()), principal=principal).outcome == "pass"


def test_a_role_that_nobody_has_assumed():
    """Its policies can be judged, whether there will be a session cannot."""
    answer = ask(world(door=[OUT], web=[IN], policy=allow()), principal="role/ops/nobody")
    assert (answer.outcome, answer.lines[0].say.key) == ("unknown", "session-none")


def test_a_target_of_another_vpc():
    """An endpoint does not reach it, not even where its own VPC has a machine of the same address."""
    made = world(door=[OUT], web=[IN], policy=allow())
    far = NetworkInterface(
        id="eni-far", subnet_id="subnet-2", private_ip_address="10.0.0.11", link="far", group_ids=("sg-far",)
    )
    other = msgspec.structs.replace(
        made,
        vpcs=(*made.vpcs, Vpc(id="vpc-2", cidr_block="10.0.0.0/16")),
        subnets=(*made.subnets, Subnet(id="subnet-2", vpc_id="vpc-2", cidr_block="10.0.0.0/24")),
        groups=(*made.groups, SecurityGroup(id="sg-far", vpc_id="vpc-2", name="far")),
        interfaces=(*made.interfaces, far),
        instances=(*made.instances, Instance(id="i-far", interface_id="eni-far")),
    )
    other.check()
    assert failed(ask(other, target="i-far", endpoint_id=EICE)) == [("target", "target-elsewhere")]
    assert failed(ask(other, target="i-far")) == [("endpoint", "endpoint-none")]
    with pytest.raises(Unanswerable, match=re.escape("Target: 10.0.0.11 is in several VPCs (vpc-1, vpc-2)")):
        ask(other, target="10.0.0.11")


def test_the_rule_in_words_is_the_rule():
    """In English word for word what the model calls it; without English words in Japanese."""
    rules = [
        rule(1, "in", "sg-web"), rule(2, "out", "10.0.0.0/8", (1, 9)), rule(3, "in", "10.0.0.0/8", (-1, -1), "-1"),
        rule(4, "in", "10.0.0.0/8", (8, -1), "icmp"), rule(5, "out", "10.0.0.0/8", (3, 4), "icmp"),
        rule(6, "in", "10.0.0.0/8", (-1, -1), "icmp"), rule(7, "in", "10.0.0.0/8", (-1, -1), "50"),
    ]  # fmt: skip
    for one in rules:
        assert text(rule_said(one)) == str(one)
        assert not re.search(r"\b(from|to|inbound|outbound|type|code|all traffic)\b", text(rule_said(one), "ja"))


def test_sentences_of_the_engines_are_the_engines_own():
    """What an engine says in English stands word for word in an explanation; every one has its Japanese."""
    made = world(door=[OUT], web=[IN], policy=allow(), preserve=True)
    endpoint = made.endpoint(EICE)
    for target in ("127.0.0.1", "10.0.0.1", "10.1.0.1", "10.0.0.10", "169.254.169.254", "fd00::1"):
        answer = ask(made, target=target, endpoint_id=EICE)
        (line,) = [one for one in answer.lines if one.step == "target"]
        assert text(line.say) == f"an endpoint never dials it: {target_refusal(made, endpoint, target)}"
    inside = explain(made, Question(principal="alice", source_ip="10.0.0.12", target=WEB, endpoint_id=EICE))
    (line,) = [one for one in inside.lines if one.say.key == "source-refused"]
    reason = client_refusal(made, endpoint, "10.0.0.12", "10.0.0.11")
    assert text(line.say) == f"the client's address cannot be preserved: {reason}"
    assert text(line.say, "ja").startswith("クライアントのアドレスを保持できません: 10.0.0.12 はエンドポイントの VPC")


@st.composite
def worlds(draw):
    """Small Worlds in which each step of the packets sometimes fails."""
    peers = ["sg-web", "sg-door", "10.0.0.0/24", "10.0.0.10/32", "203.0.113.0/24", "0.0.0.0/0"]
    ports = [(22, 22), (80, 90), (0, 65535)]

    def rules(direction, first):
        drawn = draw(st.lists(st.tuples(st.sampled_from(peers), st.sampled_from(ports)), max_size=2))
        return [rule(first + index, direction, *one) for index, one in enumerate(drawn)]

    made = world(door=rules("out", 10), web=rules("in", 20), policy=allow(), preserve=draw(st.booleans()))
    state = draw(st.sampled_from(["running", "running", "stopped"]))
    instances = (msgspec.structs.replace(made.instances[0], state=state), *made.instances[1:])
    return msgspec.structs.replace(made, instances=instances)


@given(worlds(), st.sampled_from(["10.0.0.11", "10.0.0.12", "10.0.0.99"]), st.sampled_from([22, 85]))
def test_the_close_reason_is_the_explanation(made, address, port):
    """What a gateway says of a connection that fails is the step that `explain` shows, and what `paths` finds."""
    reason = why_not(made, endpoint_id=EICE, address=address, port=port, client_address=CLIENT)
    verdict = paths.judge(made, endpoint_id=EICE, address=address, port=port, client_address=CLIENT)
    assert reason == (verdict.failure.reason if verdict.failure is not None else "")
    answer = as_data(ask(made, target=address, endpoint_id=EICE, port=port))
    network = [one for one in answer["steps"] if one["step"] not in ("credentials", "iam", "endpoint", "limits")]
    assert next((one["text"] for one in network if one["outcome"] == "fail"), "") == reason


def test_the_close_reason_without_an_endpoint():
    """It may be deleted while a connection is being made."""
    words = why_not(world(), endpoint_id="eice-9", address="10.0.0.11", port=22, client_address=CLIENT)
    assert words == "eice-9 does not exist"


def test_the_form_is_documented():
    """Every field of the answer, its steps and its remedies has a row in docs/explain.md, and every row is a field."""
    text_ = (Path(__file__).parents[2] / "docs" / "explain.md").read_text(encoding="utf-8")
    form = text_.partition("## The JSON form")[2]
    tables = [set(re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", part, re.MULTILINE)) for part in form.split("Each of ")]
    whole, steps, remedies = ({name for row in rows for name in re.findall(r"\w+", row)} for rows in tables)
    data = as_data(ask(world(policy=allow())))
    assert whole == {*data, "proof", "missing"}
    assert steps == set(data["steps"][0])
    assert remedies == set(data["remedies"][0])


def test_no_tunnel_leads_to_another_endpoint():
    """The interface of an endpoint takes connections of the service alone, whatever the groups say."""
    made = world(door=[rule(1, "out", "0.0.0.0/0"), rule(2, "in", "0.0.0.0/0")], policy=allow())
    eni = NetworkInterface(
        id="eni-second",
        subnet_id="subnet-1",
        private_ip_address="10.0.0.13",
        link="second",
        group_ids=("sg-door",),
        interface_type="ec2_instance_connect_endpoint",
    )
    second = Endpoint(id="eice-2", subnet_id="subnet-1", interface_id="eni-second", dns_name="second", index=2)
    made = apply_change(made, Change(puts=(eni, second)))
    assert failed(ask(made, target="10.0.0.13", endpoint_id=EICE)) == [("target", "target-endpoint")]
