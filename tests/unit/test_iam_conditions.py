"""Condition operators, one by one, and the wildcard matcher."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wicketgate.iam import Request, evaluate, read_document, wildcard_match
from wicketgate.iam.operators import OPERATORS
from wicketgate.iam.patterns import ANY, ONE, matches


def holds(operator: str, wanted: Any, found: str | tuple[str, ...] | None, effect: str = "Allow", **more: str) -> bool:
    """Whether `{operator: {test:Key: wanted}}` holds for a request whose key is `found` (None: no such key)."""
    statement = {"Effect": effect, "Action": "*", "Resource": "*", "Condition": {operator: {"test:Key": wanted}}}
    allow = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    statements = read_document(
        "P", {"Version": "2012-10-17", "Statement": [statement] if effect == "Allow" else [allow, statement]}
    )
    context = {name.replace("_", ":"): value for name, value in more.items()}
    request = Request(
        principal_arn="arn",
        action="a:b",
        resource="*",
        context=context if found is None else {**context, "test:key": found},
    )
    return evaluate(request, statements).allowed is (effect == "Allow")


TABLE = [
    # operator, policy's value, values that satisfy it, values that do not
    ("StringEquals", ["a", "B*"], ["a", "B*"], ["A", "b", "Bx", ""]),
    ("StringNotEquals", ["a", "b"], ["A", "c", ""], ["a", "b"]),
    ("StringEqualsIgnoreCase", "aB", ["ab", "AB"], ["a", "abc"]),
    ("StringNotEqualsIgnoreCase", "aB", ["a", "c"], ["ab", "AB"]),
    ("StringLike", "a*c?", ["acd", "abbbcd"], ["ac", "Acd", "acde", "xacd"]),
    ("StringNotLike", ["a*", "b?"], ["c", "b", "bcd"], ["a", "abc", "bc"]),
    ("NumericEquals", "22", ["22", "22.0", "+22", "022"], ["23", "-22", "x", "", "2_2", " 22", "NaN"]),
    ("NumericEquals", 22, ["22"], ["23"]),
    ("NumericEquals", [22, 0.5], ["22", "0.5", "0.50"], ["1"]),
    ("NumericNotEquals", ["22", "23"], ["24", "x"], ["22", "23.0"]),
    ("NumericLessThan", "10", ["9", "-100", "9.99"], ["10", "11", "x"]),
    ("NumericLessThanEquals", "10", ["9", "10"], ["10.1", "x"]),
    ("NumericGreaterThan", "10", ["11", "10.1"], ["9", "10", "x"]),
    ("NumericGreaterThanEquals", "10", ["10", "11"], ["9", "x"]),
    ("NumericEquals", "12345678901234567890", ["12345678901234567890"], ["12345678901234567891"]),
    ("IpAddress", ["10.0.1.0/31", "2001:DB8::/32"], ["10.0.1.0", "10.0.1.1", "2001:db8::1"], ["10.0.1.2", "x", ""]),
    ("IpAddress", "10.0.1.5", ["10.0.1.5", "::ffff:10.0.1.5"], ["10.0.1.4", "::ffff:10.0.1.4"]),
    ("IpAddress", "0.0.0.0/0", ["1.2.3.4"], ["2001:db8::1", "::1"]),
    ("IpAddress", "10.0.1.9/24", ["10.0.1.200"], ["10.0.2.1"]),
    ("NotIpAddress", ["10.0.0.0/8", "192.0.2.1"], ["11.0.0.1", "::1", "x"], ["10.1.2.3", "192.0.2.1"]),
    ("DateEquals", "2026-01-31T12:00:00Z", ["2026-01-31T12:00:00Z", "1769860800", "2026-01-31T13:00:00+01:00"], ["x"]),
    ("DateNotEquals", "2026-01-31", ["2026-01-30", "x"], ["2026-01-31T00:00:00Z"]),
    ("DateLessThan", "2026-02", ["2026-01-31T23:59:59.9Z", "0"], ["2026-02-01", "x", ""]),
    ("DateLessThanEquals", "2026", ["2026-01-01T00:00Z"], ["2026-01-01T00:00:01Z"]),
    ("DateGreaterThan", "1767225600", ["2026-01-01T00:00:01Z"], ["2026-01-01T00:00:00Z"]),
    ("DateGreaterThanEquals", "2026-01-01T00:00:00", ["1767225600"], ["1767225599"]),
    ("Bool", "true", ["true", "True"], ["false", "1", ""]),
    ("Bool", False, ["false"], ["true"]),
    ("BinaryEquals", "QmlubmFyeQ==", ["QmlubmFyeQ=="], ["QmluYXJ5", "%"]),
    ("ArnEquals", "arn:aws:sns:*:1234:t?pic", ["arn:aws:sns:r:1234:topic"], ["arn:aws:sns:r:x:1234:topic", "x"]),
    ("ArnLike", ["arn:a:b:c:d:e*", "*"], ["arn:a:b:c:d:e:f:g", "anything"], []),
    ("ArnLike", "arn:aws:iam::*", ["arn:aws:iam::1"], ["arn:aws:iam::1:user/x"]),
    ("ArnNotEquals", "arn:aws:iam::1:user/*", ["arn:aws:iam::2:user/x", "x"], ["arn:aws:iam::1:user/x"]),
    ("ArnNotLike", "arn:aws:iam::1:user/*", ["arn:aws:iam::2:user/x"], ["arn:aws:iam::1:user/x"]),
]
NEGATED = sorted(name for name, operator in OPERATORS.items() if operator.negated)


@pytest.mark.parametrize(("operator", "wanted", "yes", "no"), TABLE)
def test_operator(operator, wanted, yes, no):
    """Each operator with values that satisfy it and values that do not, plain and with IfExists."""
    for suffix in ("", "IfExists"):
        assert [value for value in yes if not holds(operator + suffix, wanted, value)] == []
        assert [value for value in no if holds(operator + suffix, wanted, value)] == []


def test_table_has_every_operator():
    """The table above leaves out no operator but Null, which has a test of its own."""
    assert {row[0] for row in TABLE} | {"Null"} == set(OPERATORS)
    assert sorted(name for name in OPERATORS if "Not" in name) == NEGATED


@pytest.mark.parametrize(("operator", "wanted"), [(row[0], row[1]) for row in TABLE])
def test_missing_key(operator, wanted):
    """Without the key a negated operator holds and a plain one does not; IfExists and ForAllValues always hold,
    ForAnyValue never."""
    assert holds(operator, wanted, None) is (operator in NEGATED)
    assert holds(f"{operator}IfExists", wanted, None)
    assert holds(f"ForAllValues:{operator}", wanted, None)
    assert not holds(f"ForAnyValue:{operator}", wanted, None)
    assert holds(f"ForAnyValue:{operator}IfExists", wanted, None)


def test_null():
    """Null true wants the key absent, false wants it present; an empty value is present."""
    for operator in ("Null", "ForAllValues:Null", "ForAnyValue:Null"):
        assert [holds(operator, "true", found) for found in (None, "", "x")] == [True, False, False]
        assert [holds(operator, False, found) for found in (None, "", "x")] == [False, True, True]


@pytest.mark.parametrize(
    ("operator", "found", "expected"),
    [
        ("ForAllValues:StringLike", ("key1a", "key2"), True),
        ("ForAllValues:StringLike", ("key1a", "x"), False),
        ("ForAllValues:StringLike", (), True),
        ("ForAnyValue:StringLike", ("key1a", "x"), True),
        ("ForAnyValue:StringLike", ("x", "y"), False),
        ("ForAnyValue:StringLike", (), False),
        ("ForAllValues:StringNotLike", ("x", "y"), True),
        ("ForAllValues:StringNotLike", ("x", "key2"), False),
        ("ForAnyValue:StringNotLike", ("x", "key2"), True),
        ("ForAnyValue:StringNotLike", ("key1", "key2"), False),
        ("StringLike", ("x", "key2"), True),
        ("StringNotLike", ("x", "key2"), False),
    ],
)
def test_set_operators(operator, found, expected):
    """Several values of one key: the prefixes are set operations, each request value against all of the policy's."""
    assert holds(operator, ["key1*", "key2"], found) is expected


@pytest.mark.parametrize("effect", ["Allow", "Deny"])
def test_all_keys_and_operators_must_hold(effect):
    """Operators are ANDed, keys of one operator too."""
    for condition, expected in (
        ({"StringEquals": {"test:a": "1", "test:b": "2"}}, True),
        ({"StringEquals": {"test:a": "1", "test:b": "x"}}, False),
        ({"StringEquals": {"test:a": "1"}, "Bool": {"test:b": "true"}}, False),
    ):
        statement = {"Effect": effect, "Action": "*", "Resource": "*", "Condition": condition}
        allow = {"Effect": "Allow", "Action": "*", "Resource": "*"}
        both = [statement] if effect == "Allow" else [allow, statement]
        request = Request(principal_arn="arn", action="a:b", resource="*", context={"test:a": "1", "test:b": "2"})
        decision = evaluate(request, read_document("P", {"Statement": both}))
        assert decision.allowed is (expected is (effect == "Allow"))


def test_variables_in_values():
    """String and ARN operators replace variables; wildcards inside a replaced value are plain characters."""
    assert holds("StringEquals", "${aws:username}", "alice", aws_username="alice")
    assert holds("StringEqualsIgnoreCase", "${aws:username}", "ALICE", aws_username="alice")
    assert holds("StringLike", "${aws:username}/*", "alice/x", aws_username="alice")
    assert not holds("StringLike", "${aws:username}", "alice", aws_username="*")
    assert holds("StringLike", "${*}?", "*x")
    assert not holds("StringLike", "${*}?", "xx")
    assert holds("StringEquals", "${*}${$}", "*$")
    assert holds("ArnLike", "arn:aws:iam::1:user/${aws:username}", "arn:aws:iam::1:user/al", aws_username="al")
    assert holds("StringEquals", "${test:none, 'some one'}", "some one")


@pytest.mark.parametrize("effect", ["Allow", "Deny"])
@pytest.mark.parametrize("operator", ["StringEquals", "StringLike", "ArnLike", "StringEqualsIgnoreCase"])
def test_variable_without_value(operator, effect):
    """A value whose variable has none matches nothing; in a negated operator that satisfies a Deny, not an Allow."""
    wanted = "arn:aws:iam::1:user/${test:none}"
    assert not holds(operator, wanted, "arn:aws:iam::1:user/x", effect)
    negated = operator.replace("String", "StringNot").replace("Arn", "ArnNot")
    assert holds(negated, wanted, "arn:aws:iam::1:user/x", effect) is (effect == "Deny")


def test_condition_key_names_are_not_case_sensitive():
    """A key and the tag key inside it may be spelled in any case; the exact spelling wins where both exist."""
    context = {"aws:resourcetag/Team": "x", "aws:resourcetag/team": "y", "ec2-instance-connect:remoteport": "22"}
    for key, value in (
        ("aws:ResourceTag/Team", "x"),
        ("AWS:resourcetag/team", "y"),
        ("aws:ResourceTag/TEAM", "y"),
        ("ec2-instance-connect:RemotePort", "22"),
    ):
        document = {"Statement": {**ALLOW, "Condition": {"StringEquals": {key: value}}}}
        request = Request(principal_arn="arn", action="a:b", resource="*", context=context)
        assert evaluate(request, read_document("P", document)).allowed


ALLOW = {"Effect": "Allow", "Action": "*", "Resource": "*"}


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ({"NumericLessThan": {"test:n": 5}}, "NumericLessThan test:n 9 is not less than 5"),
        ({"NumericGreaterThan": {"test:n": 9}}, "NumericGreaterThan test:n 9 is not more than 9"),
        ({"NumericGreaterThanEquals": {"test:n": 10}}, "NumericGreaterThanEquals test:n 9 is less than 10"),
        ({"NumericNotEquals": {"test:n": [8, 9]}}, "NumericNotEquals test:n 9 is 8 or 9"),
        ({"NotIpAddress": {"test:ip": "10.0.0.0/8"}}, "NotIpAddress test:ip 10.1.1.1 is in 10.0.0.0/8"),
        ({"StringEqualsIfExists": {"test:n": ["7", "8"]}}, "StringEqualsIfExists test:n 9 is not 7 or 8"),
        ({"Null": {"test:n": "true"}}, "Null test:n is present"),
        ({"Null": {"test:none": "false"}}, "Null test:none is missing"),
        ({"Bool": {"test:none": "true"}}, "Bool test:none is not in the request (wanted true)"),
    ],
)
def test_shortfalls_in_words(condition, words):
    """A refusal says of each condition what was found and what was wanted."""
    request = Request(principal_arn="arn", action="a:b", resource="*", context={"test:n": "9", "test:ip": "10.1.1.1"})
    decision = evaluate(request, read_document("P", {"Statement": {**ALLOW, "Condition": condition}}))
    assert decision.reason == f"statement P/0 allows the action but not: {words}"


def slow_match(pattern: str, text: str) -> bool:
    """The definition of wildcards, by recursion."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return slow_match(pattern[1:], text) or (bool(text) and slow_match(pattern, text[1:]))
    return bool(text) and pattern[0] in ("?", text[0]) and slow_match(pattern[1:], text[1:])


@given(st.text("ab*?", max_size=7), st.text("ab*?", max_size=8))
@example("a*b?*", "aabab")
def test_wildcards_are_as_defined(pattern, text):
    """The matcher, with its short cuts and without, agrees with the recursive definition."""
    expected = slow_match(pattern, text)
    tokens = [{"*": ANY, "?": ONE}.get(character, character) for character in pattern]
    assert wildcard_match(pattern, text) is expected
    assert matches(tokens, text) is expected


@pytest.mark.timeout(5)
def test_wildcards_do_not_explode():
    """A pattern with many stars against a long text that nearly fits takes no exponential time."""
    assert not wildcard_match("*a" * 200 + "b", "a" * 2000)


@pytest.mark.parametrize(
    "pattern",
    ["*" + "a" * 1800 + "b*", "*" + "a" * 900 + "?" + "a" * 900 + "b*", "*a" * 1000 + "b", "*?a" * 600 + "b*"],
)
def test_costly_patterns(pattern):
    """Who may write a session policy may not keep the server busy with it: 32,000 characters are looked through in
    a blink."""
    began = time.process_time()
    assert not wildcard_match(pattern, "a" * 32_000)
    assert time.process_time() - began < 0.5
