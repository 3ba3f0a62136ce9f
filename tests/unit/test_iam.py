"""IAM evaluation: the EC2 User Guide's policies, deny by default, Deny wins, and what a refusal says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wicketgate.iam import Decision, MalformedPolicy, Request, evaluate, read_document, read_policies
from wicketgate.model import Policy

ARN = "arn:aws:ec2:us-east-1:123456789012:instance-connect-endpoint/eice-123456789abcdef"
USER = "arn:aws:iam::123456789012:user/alice"
OPEN = "ec2-instance-connect:OpenTunnel"
SEND = "ec2-instance-connect:SendSSHPublicKey"

CONTEXT = {
    "aws:username": "alice",
    "aws:sourceip": "192.0.2.7",
    "ec2-instance-connect:remoteport": "22",
    "ec2-instance-connect:privateipaddress": "10.0.1.1",
    "ec2-instance-connect:maxtunnelduration": "3600",
}


def ask(
    *statements: dict[str, Any],
    action: str = OPEN,
    resource: str = ARN,
    version: str | None = "2012-10-17",
    **changes: str | None,
) -> Decision:
    """Evaluate one policy named P; `changes` to the context are by the key's part after the colon, None removes."""
    document: dict[str, Any] = {"Statement": list(statements)}
    if version is not None:
        document["Version"] = version
    context: dict[str, str] = dict(CONTEXT)
    for name, value in changes.items():
        key = next(key for key in CONTEXT if key.partition(":")[2] == name.lower())
        if value is None:
            del context[key]
        else:
            context[key] = value
    asked = Request(principal_arn=USER, action=action, resource=resource, context=context)
    return evaluate(asked, read_policies([Policy(name="P", document=document)]))


ALLOW: dict[str, Any] = {"Effect": "Allow", "Action": "*", "Resource": "*"}
DENY: dict[str, Any] = {"Effect": "Deny", "Action": "*", "Resource": "*"}

# -- the reference policies of the EC2 User Guide, permissions-for-ec2-instance-connect-endpoint -----------------------

CONNECT: list[dict[str, Any]] = [
    {
        "Sid": "EC2InstanceConnect",
        "Action": OPEN,
        "Effect": "Allow",
        "Resource": ARN,
        "Condition": {
            "NumericEquals": {"ec2-instance-connect:remotePort": "22"},
            "IpAddress": {"ec2-instance-connect:privateIpAddress": "10.0.1.0/31"},
            "NumericLessThanEquals": {"ec2-instance-connect:maxTunnelDuration": "3600"},
        },
    },
    {
        "Sid": "SSHPublicKey",
        "Effect": "Allow",
        "Action": SEND,
        "Resource": "*",
        "Condition": {"StringEquals": {"ec2:osuser": "ami-username"}},
    },
    {
        "Sid": "Describe",
        "Action": ["ec2:DescribeInstances", "ec2:DescribeInstanceConnectEndpoints"],
        "Effect": "Allow",
        "Resource": "*",
    },
]


@pytest.mark.parametrize("address", ["10.0.1.0", "10.0.1.1"])
@pytest.mark.parametrize("duration", ["1", "3600"])
def test_connect_policy_allows(address, duration):
    """The connect policy allows its endpoint, port, range and durations; the verdict names the statement."""
    decision = ask(*CONNECT, privateIpAddress=address, maxTunnelDuration=duration)
    assert decision.allowed
    assert decision.statement == "P/EC2InstanceConnect"
    assert decision.message == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"remotePort": "3389"}, "NumericEquals ec2-instance-connect:remotePort 3389 is not 22"),
        ({"privateIpAddress": "10.0.1.2"}, "IpAddress ec2-instance-connect:privateIpAddress 10.0.1.2 is not in"),
        ({"privateIpAddress": "2001:db8::1"}, "2001:db8::1 is not in 10.0.1.0/31"),
        ({"maxTunnelDuration": "3601"}, "ec2-instance-connect:maxTunnelDuration 3601 is more than 3600"),
        ({"maxTunnelDuration": None}, "ec2-instance-connect:maxTunnelDuration is not in the request"),
        ({"resource": ARN + "0"}, f"the resource {ARN}0 is not {ARN}"),
        ({"resource": ARN.upper()}, "the resource"),
    ],
)
def test_connect_policy_denies(change, words):
    """All conditions count: each one alone keeps the statement from allowing, and the reason names it."""
    decision = ask(*CONNECT, **change)
    assert not decision.allowed
    assert decision.statement == ""
    assert decision.reason.startswith("statement P/EC2InstanceConnect allows the action but not: ")
    assert words in decision.reason


def test_connect_policy_is_no_wider():
    """The same policy denies actions it does not name and keys for another OS user."""
    assert not ask(*CONNECT, action="ec2:DeleteInstanceConnectEndpoint").allowed
    assert ask(*CONNECT, action="ec2:DescribeInstances", resource="*").allowed
    assert not ask(*CONNECT, action=SEND, resource="arn:aws:ec2:us-east-1:123456789012:instance/i-1").allowed


SOURCE_RANGE = {
    "Effect": "Allow",
    "Action": OPEN,
    "Resource": ARN,
    "Condition": {
        "IpAddress": {"aws:SourceIp": "192.0.2.0/24"},
        "NumericEquals": {"ec2-instance-connect:remotePort": "22"},
    },
}


def test_source_range_policy():
    """The source range policy allows 192.0.2.0/24 to port 22 and nobody else, nothing else."""
    assert ask(SOURCE_RANGE, sourceIp="192.0.2.255").allowed
    assert not ask(SOURCE_RANGE, sourceIp="192.0.3.0").allowed
    assert not ask(SOURCE_RANGE, sourceIp="192.0.2.255", remotePort="23").allowed


def test_tag_policy_for_keys():
    """The ABAC policy for pushed keys follows the instance's tag."""
    statement = {
        "Effect": "Allow",
        "Action": SEND,
        "Resource": "arn:aws:ec2:region:account-id:instance/*",
        "Condition": {"StringEquals": {"aws:ResourceTag/tag-key": "tag-value"}},
    }
    statements = read_document("P", {"Version": "2012-10-17", "Statement": statement})
    for tags, allowed in (({"aws:resourcetag/tag-key": "tag-value"}, True), ({}, False)):
        asked = Request(
            principal_arn=USER, action=SEND, resource="arn:aws:ec2:region:account-id:instance/i-1", context=tags
        )
        assert evaluate(asked, statements).allowed is allowed


# -- effect, action, resource ------------------------------------------------------------------------------------------


def test_nothing_allows_nothing():
    """Without any statement everything is denied, in AWS's words."""
    decision = evaluate(Request(principal_arn=USER, action=OPEN, resource=ARN, context={}), ())
    assert not decision.allowed
    assert decision.reason == f"no statement allows {OPEN}"
    assert decision.message == (
        f"User: {USER} is not authorized to perform: {OPEN} on resource: {ARN} "
        f"because no identity-based policy allows the {OPEN} action"
    )


def test_deny_wins_in_aws_words():
    """An explicit Deny beats any Allow, before or after it, and is named."""
    for statements in ([ALLOW, DENY | {"Sid": "No"}], [DENY | {"Sid": "No"}, ALLOW]):
        decision = ask(*statements)
        assert not decision.allowed
        assert decision.statement == "P/No"
        assert decision.message == (
            f"User: {USER} is not authorized to perform: {OPEN} on resource: {ARN} "
            "with an explicit deny in an identity-based policy"
        )


def test_statement_without_sid_is_named_by_index():
    """The deciding statement without a Sid is named by its place."""
    assert ask({**ALLOW, "Action": "s3:*"}, ALLOW).statement == "P/1"


@pytest.mark.parametrize(
    ("action", "named"),
    [
        ("*", True),
        (OPEN, True),
        (OPEN.upper(), True),
        ("ec2-instance-connect:*", True),
        ("EC2-Instance-Connect:open*", True),
        ("ec2-instance-connect:OpenTunne?", True),
        ("*:OpenTunnel", True),
        ("ec2-instance-connect:OpenTunnel?", False),
        ("ec2:*", False),
        ("ec2-instance-connect:Open", False),
        ("ec2-instance-connect:SendSSHPublicKey", False),
    ],
)
def test_action_and_not_action(action, named):
    """Action names are not case-sensitive and know wildcards; NotAction is exactly the opposite."""
    assert ask({**ALLOW, "Action": ["s3:GetObject", action]}).allowed is named
    assert ask({"Effect": "Allow", "NotAction": ["s3:GetObject", action], "Resource": "*"}).allowed is not named


@pytest.mark.parametrize(
    ("resource", "named"),
    [
        ("*", True),
        (ARN, True),
        ("arn:aws:ec2:*:*:instance-connect-endpoint/*", True),
        ("arn:aws:ec2:us-east-?:*:*/eice-*f", True),
        (ARN.replace("eice-", "EICE-"), False),
        ("arn:aws:ec2:*:*:instance/*", False),
        (ARN[:-1], False),
        (ARN + "?", False),
    ],
)
def test_resource_and_not_resource(resource, named):
    """Resources are case-sensitive and know wildcards; NotResource is exactly the opposite."""
    assert ask({**ALLOW, "Resource": ["arn:aws:s3:::b", resource]}).allowed is named
    assert ask({"Effect": "Allow", "Action": "*", "NotResource": ["arn:aws:s3:::b", resource]}).allowed is not named


def test_nearest_misses_come_first():
    """A refusal tells the three statements that came nearest, nearest first, and no more."""
    port = {"NumericEquals": {"ec2-instance-connect:remotePort": 3389}}
    source = {"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}
    far = {**ALLOW, "Sid": "Far", "Resource": "arn:aws:s3:::b", "Condition": port | source}
    near = {**ALLOW, "Sid": "Near", "Condition": port}
    others = [{**ALLOW, "Sid": f"Other{index}", "Condition": port | source} for index in range(3)]
    reason = ask(far, *others, near, {**ALLOW, "Sid": "S3", "Action": "s3:*"}).reason
    names = ["Near", "Other0", "Other1"]
    assert [part.split(" ")[1] for part in reason.split("; ")] == [f"P/{name}" for name in names]
    assert "and IpAddress aws:SourceIp 192.0.2.7 is not in 203.0.113.0/24" in reason


# -- variables ---------------------------------------------------------------------------------------------------------


def by_variable(resource: str, name: str, version: str | None = "2012-10-17") -> bool:
    """Whether a Resource with variables fits the endpoint named like the user `name`."""
    return ask({**ALLOW, "Resource": resource}, version=version, username=name, resource=f"arn:x/{name}").allowed


def test_variable_in_resource():
    """`${aws:username}` in a Resource is the caller's name, key case notwithstanding."""
    assert by_variable("arn:x/${aws:username}", "alice")
    assert by_variable("arn:x/${AWS:UserName}", "alice")
    assert not ask({**ALLOW, "Resource": "arn:x/${aws:username}"}, resource="arn:x/bob").allowed


def test_variables_are_text_in_old_policies():
    """Policies without Version, or of 2008-10-17, know no variables."""
    for version in (None, "2008-10-17"):
        assert not by_variable("arn:x/${aws:username}", "alice", version)
        assert ask(
            {**ALLOW, "Resource": "arn:x/${aws:username}"}, version=version, resource="arn:x/${aws:username}"
        ).allowed


@pytest.mark.parametrize("name", ["*", "?????", "a*"])
def test_variable_is_taken_literally(name):
    """A caller who is named like a wildcard matches only that very name."""
    statement = {**ALLOW, "Resource": "arn:x/${aws:username}"}
    assert ask(statement, username=name, resource=f"arn:x/{name}").allowed
    assert not ask(statement, username=name, resource="arn:x/alice").allowed


def test_escapes():
    """`${*}`, `${?}` and `${$}` are the characters themselves."""
    statement = {**ALLOW, "Resource": "arn:x/${*}${?}${$}*"}
    assert ask(statement, resource="arn:x/*?$anything").allowed
    assert not ask(statement, resource="arn:x/abcd").allowed


def test_default_value():
    """A variable without value takes its default; with one, the value."""
    statement = {**ALLOW, "Resource": "arn:x/${aws:username, 'nobody'}"}
    assert ask(statement, username=None, resource="arn:x/nobody").allowed
    assert ask(statement, resource="arn:x/alice").allowed
    assert not ask(statement, resource="arn:x/nobody").allowed


def test_variable_without_value_opens_nothing():
    """Without value and default: Resource and NotResource of an Allow do not apply; NotResource of a Deny does."""
    variable = "arn:x/${aws:PrincipalTag/team}"
    assert not ask({**ALLOW, "Resource": variable}, resource="arn:x/").allowed
    assert not ask({"Effect": "Allow", "Action": "*", "NotResource": variable}).allowed
    assert not ask(ALLOW, {"Effect": "Deny", "Action": "*", "NotResource": variable}).allowed
    assert ask(ALLOW, {"Effect": "Deny", "Action": "*", "Resource": variable}).allowed


# -- malformed policies ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "policy P: the document must be a JSON object"),
        ({"Version": "2020-01-01", "Statement": ALLOW}, "Version '2020-01-01': must be 2012-10-17"),
        ({"Statement": []}, "policy P: Statement: must be a statement"),
        ({"Version": "2012-10-17"}, "policy P: Statement: must be a statement"),
        ({"Statement": ALLOW, "statement": ALLOW}, "element 'statement': is unknown"),
        ({"Statement": ["x"]}, "statement 0: must be a JSON object"),
        ({"Statement": [ALLOW, ALLOW | {"Principal": "*"}]}, "statement 1: Principal: has no place"),
        ({"Statement": ALLOW | {"Conditions": {}}}, "statement 0: element 'Conditions': is unknown; Action, Condition"),
        ({"Statement": ALLOW | {"Effect": "allow"}}, "statement 0: Effect: must be Allow or Deny, not 'allow'"),
        ({"Statement": {"Action": "*", "Resource": "*"}}, "Effect: must be Allow or Deny, not None"),
        ({"Statement": ALLOW | {"NotAction": "*"}}, "exactly one of Action and NotAction is needed, not 2"),
        ({"Statement": {"Effect": "Deny", "Action": "*"}}, "exactly one of Resource and NotResource is needed, not 0"),
        ({"Statement": ALLOW | {"Action": []}}, "statement 0: Action: must be a string or a list"),
        ({"Statement": ALLOW | {"Action": ["a:b", 1]}}, "statement 0: Action: must be a string or a list"),
        ({"Statement": ALLOW | {"Action": "OpenTunnel"}}, "Action 'OpenTunnel': must be * or service:Action"),
        ({"Statement": ALLOW | {"Resource": "eice-1"}}, "Resource 'eice-1': must be * or an ARN"),
        ({"Statement": ALLOW | {"Sid": 1}}, "Sid: must be a string, not 1"),
        ({"Statement": [ALLOW | {"Sid": "A"}, DENY | {"Sid": "A"}]}, "statement 1: Sid: 'P/A' is used twice"),
        ({"Statement": ALLOW | {"Condition": {"Bool": "x"}}}, "Condition: must have the form"),
        ({"Statement": ALLOW | {"Condition": {"Bool": {"a:b": {}}}}}, "Bool: a:b: values are strings, numbers"),
        ({"Statement": ALLOW | {"Condition": {"stringEquals": {"a:b": "c"}}}}, "is StringEquals meant?"),
        ({"Statement": ALLOW | {"Condition": {"ForAll:Bool": {"a:b": "true"}}}}, "ForAllValues and ForAnyValue exist"),
        ({"Statement": ALLOW | {"Condition": {"NullIfExists": {"a:b": "true"}}}}, "NullIfExists does not exist"),
        ({"Statement": ALLOW | {"Condition": {"Bool": {"SourceIp": "true"}}}}, "'SourceIp' is not a condition key"),
        ({"Statement": DENY | {"Condition": {"StringEquals": {"a:b ": "c"}}}}, "'a:b ' is not a condition key"),
        ({"Statement": DENY | {"Condition": {"StringEquals": {"\ta:b": "c"}}}}, "a:b' is not a condition key"),
        ({"Statement": DENY | {"Condition": {"StringEquals": {"a:b": []}}}}, "a:b: the list of values is empty"),
        ({"Statement": ALLOW | {"Condition": {"StringNotEquals": {"a:b": []}}}}, "a:b: the list of values is empty"),
        ({"Statement": ALLOW | {"Condition": {"Bool": {"a:b": "yes"}}}}, "a:b: 'yes' cannot be compared, true or"),
        ({"Statement": ALLOW | {"Condition": {"NumericEquals": {"a:b": "x"}}}}, "a number such as 22 is needed"),
        ({"Statement": ALLOW | {"Condition": {"NumericEquals": {"a:b": "NaN"}}}}, "a number such as 22 is needed"),
        ({"Statement": ALLOW | {"Condition": {"IpAddress": {"a:b": "10.0.0.0/33"}}}}, "such as 10.0.1.0/24 is needed"),
        ({"Statement": ALLOW | {"Condition": {"IpAddress": {"a:b": "${aws:SourceIp}"}}}}, "10.0.1.0/24 is needed"),
        ({"Statement": ALLOW | {"Condition": {"DateEquals": {"a:b": "today"}}}}, "a date such as"),
        ({"Statement": ALLOW | {"Condition": {"DateEquals": {"a:b": "2026-02-30"}}}}, "a date that exists is needed"),
        ({"Statement": ALLOW | {"Condition": {"BinaryEquals": {"a:b": "?"}}}}, "base64 is needed"),
    ],
)
def test_malformed_document(document, words):
    """What is no policy is refused when read, naming the policy, the place and what would be right."""
    with pytest.raises(MalformedPolicy) as caught:
        read_document("P", document)
    assert words in str(caught.value)
    assert str(caught.value).startswith("policy P")


def test_reading_is_remembered_by_content():
    """A document changed in place is read anew: what counts is its content."""
    document: dict[str, Any] = {"Version": "2012-10-17", "Statement": dict(ALLOW)}
    policy = Policy(name="P", document=document)
    first = read_policies([policy])
    assert read_policies([Policy(name="P", document=dict(document))])[0] is first[0]
    document["Statement"]["Effect"] = "Deny"
    assert [statement.allows for statement in (*first, *read_policies([policy]))] == [True, False]


# -- properties --------------------------------------------------------------------------------------------------------

CONDITIONS = st.sampled_from(
    [
        {},
        {"NumericEquals": {"ec2-instance-connect:remotePort": "22"}},
        {"NumericNotEquals": {"ec2-instance-connect:remotePort": ["22", 3389]}},
        {"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}},
        {"NotIpAddress": {"aws:SourceIp": "192.0.2.0/24"}},
        {"StringLikeIfExists": {"aws:username": "a*"}},
        {"Null": {"aws:username": "true"}},
        {"StringNotEquals": {"aws:username": "${aws:PrincipalTag/x}"}},
    ]
)
STATEMENTS = st.builds(
    lambda effect, action, resource, condition: {
        "Effect": effect,
        action[0]: action[1],
        resource[0]: resource[1],
        "Condition": condition,
    },
    st.sampled_from(["Allow", "Deny"]),
    st.tuples(st.sampled_from(["Action", "NotAction"]), st.sampled_from(["*", OPEN, "s3:*", ["s3:*", OPEN]])),
    st.tuples(st.sampled_from(["Resource", "NotResource"]), st.sampled_from(["*", ARN, "arn:aws:ec2:*", "arn:x"])),
    CONDITIONS,
)
CHANGES = st.fixed_dictionaries(
    {
        "remotePort": st.sampled_from(["22", "3389", "443"]),
        "sourceIp": st.sampled_from(["192.0.2.1", "198.51.100.1"]),
        "username": st.sampled_from(["alice", "bob", None]),
    }
)


@given(st.lists(STATEMENTS, min_size=1, max_size=5), STATEMENTS, CHANGES)
def test_adding_a_statement_is_monotonic(statements, added, changes):
    """One more Allow never takes away; one more Deny never gives."""
    before = ask(*statements, **changes).allowed
    after = ask(*statements, added, **changes).allowed
    if added["Effect"] == "Allow":
        assert after >= before
    else:
        assert after <= before


@given(
    st.lists(STATEMENTS, min_size=1, max_size=5).flatmap(lambda s: st.tuples(st.just(s), st.permutations(s))), CHANGES
)
def test_order_of_statements_does_not_matter(both, changes):
    """Any order of the same statements gives the same decision."""
    statements, shuffled = both
    assert ask(*statements, **changes).allowed == ask(*shuffled, **changes).allowed


@given(st.lists(STATEMENTS, min_size=1, max_size=4), CHANGES)
def test_decision_is_what_the_statements_say_one_by_one(statements, changes):
    """Allowed exactly when some Allow applies and no Deny does, each statement asked alone."""
    allows = [ask(one, **changes).allowed for one in statements if one["Effect"] == "Allow"]
    denies = [not ask(ALLOW, one, **changes).allowed for one in statements if one["Effect"] == "Deny"]
    assert ask(*statements, **changes).allowed is (any(allows) and not any(denies))
