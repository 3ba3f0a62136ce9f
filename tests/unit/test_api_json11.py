"""AWS's JSON 1.1 protocol: what is read, what is refused and in which words, what is written."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from wicketgate.api import MAX_BODY, ApiError, Catalogue, Message, OutputError

CATALOGUE = Catalogue.load()
TARGETS = {
    "SendSSHPublicKey": "AWSEC2InstanceConnectService.SendSSHPublicKey",
    "LookupEvents": "com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101.LookupEvents",
    "StartQuery": "com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101.StartQuery",
}
PUSH = {"InstanceId": "i-0123456789abcdef0", "InstanceOSUser": "ec2-user", "SSHPublicKey": "ssh-ed25519 " + "A" * 68}


def parsed(action: str, document: Any) -> dict[str, Any]:
    """The input of a request with this body."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return CATALOGUE.identify(Message({"x-amz-target": TARGETS[action]}, "", body)).parse()


def refused(action: str, document: Any) -> str:
    """Code and words of the refusal."""
    with pytest.raises(ApiError) as caught:
        parsed(action, document)
    assert caught.value.http_status == 400
    return f"{caught.value.code}: {caught.value}"


def test_a_key_push_is_read() -> None:
    """The body's members are the input."""
    assert parsed("SendSSHPublicKey", PUSH) == PUSH


def test_moments_are_seconds_or_iso_8601_and_null_is_absent() -> None:
    """Whole and fractional seconds as clients write them, text as people do."""
    at = datetime(2026, 1, 31, 23, 59, 59, 250_000, tzinfo=UTC)
    document = {"StartTime": at.timestamp(), "EndTime": "2026-01-31T23:59:59.25Z", "NextToken": None}
    assert parsed("LookupEvents", document) == {"StartTime": at, "EndTime": at}
    assert parsed("LookupEvents", {"StartTime": 0}) == {"StartTime": datetime(1970, 1, 1, tzinfo=UTC)}
    assert parsed("LookupEvents", b"") == {}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (b"[", "The request body is not valid JSON: Expecting value: line 1 column 2 (char 1)."),
        (b"5", "The request body is not a JSON object."),
        (b"\xff", "The request body is not UTF-8."),
        (b'\xef\xbb\xbf{"a":1}', "The request body is not valid JSON: Unexpected UTF-8 BOM (decode using utf-8-sig): "),
        (b'{"StartTime": NaN}', "The request body is not valid JSON: NaN is not JSON."),
        (
            b'{"MaxResults": 1, "MaxResults": 2}',
            "The request body is not valid JSON: the name 'MaxResults' is given twice.",
        ),
        (b"[" * 100_000, "The request body is nested too deeply."),
        (b'{"MaxResults": ' + b"9" * 5_000 + b"}", "The request body is not valid JSON: Exceeds the limit"),
        ({"Foo": 1}, "The parameter Foo is not recognized"),
        ({"MaxResults": "5"}, "STRING_VALUE can not be converted to an Integer at 'maxResults'"),
        ({"MaxResults": True}, "TRUE_VALUE can not be converted to an Integer at 'maxResults'"),
        ({"MaxResults": 5.0}, "DECIMAL_VALUE can not be converted to an Integer at 'maxResults'"),
        ({"MaxResults": 2**31}, "NUMBER_VALUE can not be converted to an Integer at 'maxResults'"),
        ({"NextToken": 5}, "NUMBER_VALUE can not be converted to a String at 'nextToken'"),
        ({"LookupAttributes": {}}, "OBJECT can not be converted to a List at 'lookupAttributes'"),
        ({"LookupAttributes": [None]}, "NULL_VALUE can not be converted to a Structure at 'lookupAttributes.1.member'"),
        ({"StartTime": 1e300}, "DECIMAL_VALUE can not be converted to a Timestamp such as 2026-01-31T23:59:59Z at"),
        ({"StartTime": 10**400}, "NUMBER_VALUE can not be converted to a Timestamp"),
        (b'{"StartTime": 1e999}', "DECIMAL_VALUE can not be converted to a Timestamp"),
        ({"StartTime": []}, "ARRAY can not be converted to a Timestamp"),
        ({"NextToken": "a\0"}, "The value at 'nextToken' is invalid. It contains the character U+0000, which"),
        (b'{"NextToken": "\\ud800"}', "The value at 'nextToken' is invalid. It contains the character U+D800, which"),
    ],
    ids=range(22),
)
def test_what_cannot_be_read_is_a_serialization_exception(document: Any, words: str) -> None:
    """Broken JSON, wrong types and unknown members; never a crash and never a guess."""
    assert refused("LookupEvents", document).startswith(f"SerializationException: {words}")


def test_constraints_are_listed_in_the_services_own_code() -> None:
    """InvalidArgsException is EC2 Instance Connect's word; CloudTrail has the framework's ValidationException."""
    assert refused("SendSSHPublicKey", {**PUSH, "InstanceId": "i-XYZ0123456", "SSHPublicKey": "short"}) == (
        "InvalidArgsException: 2 validation errors detected: Value 'i-XYZ0123456' at 'instanceId' failed to satisfy "
        "constraint: Member must satisfy regular expression pattern: ^i-[a-f0-9]+$; Value 'short' at 'sSHPublicKey' "
        "failed to satisfy constraint: Member must have length greater than or equal to 80"
    )
    assert refused("LookupEvents", {"MaxResults": 51}) == (
        "ValidationException: 1 validation error detected: Value '51' at 'maxResults' failed to satisfy constraint: "
        "Member must have value less than or equal to 50"
    )


@pytest.mark.parametrize(
    ("user", "fits"),
    [
        ("ec2-user", True),
        ("_x", True),
        ("a@b.c", True),
        ("1a", True),
        ("svc$", True),
        ("1", False),
        ("a\n", False),
        ("é", False),
    ],
)
def test_user_names_keep_the_models_two_branched_pattern(user: str, fits: bool) -> None:
    """The whole value must match: a line end after `$` does not pass, which Python's own `match` would let through."""
    if fits:
        assert parsed("SendSSHPublicKey", {**PUSH, "InstanceOSUser": user})["InstanceOSUser"] == user
    else:
        assert "at 'instanceOSUser' failed to satisfy" in refused("SendSSHPublicKey", {**PUSH, "InstanceOSUser": user})


def test_an_answer_and_an_error() -> None:
    """Numbers for moments, base64 for nothing here, the error's type in body and header, the model's message member."""
    at = datetime(2026, 1, 31, 23, 59, 59, 250_000, tzinfo=UTC)
    reply = CATALOGUE.services["cloudtrail"].answer(
        "LookupEvents", {"Events": [{"EventTime": at, "Resources": []}], "NextToken": None}, "req-1"
    )
    assert json.loads(reply.body) == {"Events": [{"EventTime": 1769903999.25, "Resources": []}]}
    assert dict(reply.headers) == {"Content-Type": "application/x-amz-json-1.1", "x-amzn-RequestId": "req-1"}

    reply = CATALOGUE.services["ec2-instance-connect"].error(ApiError("EC2InstanceNotFoundException", "no"), "req-1")
    assert (reply.status, dict(reply.headers)["x-amzn-ErrorType"]) == (400, "EC2InstanceNotFoundException")
    assert json.loads(reply.body) == {"__type": "EC2InstanceNotFoundException", "Message": "no"}
    reply = CATALOGUE.services["cloudtrail"].error(ApiError("InvalidNextTokenException", "no"), "req-1")
    assert json.loads(reply.body) == {"__type": "InvalidNextTokenException", "message": "no"}


@pytest.mark.parametrize("output", [{"Sucess": True}, {"Success": "true"}, {"RequestId": 5}])
def test_an_output_that_does_not_fit_is_our_bug(output: dict[str, Any]) -> None:
    """A wrong member or type in an answer is an OutputError."""
    with pytest.raises(OutputError, match="SendSSHPublicKey answered"):
        CATALOGUE.services["ec2-instance-connect"].answer("SendSSHPublicKey", output, "req-1")


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":' * 150_000,
        b'{"LookupAttributes":[' + b",".join([b"{}"] * 300_000) + b"]}",
        b'{"LookupAttributes":[' + b",".join([b'{"X":1}'] * 120_000) + b"]}",
        b"{" + b",".join(b'"%x":1' % number for number in range(90_000)) + b"}",
        b"{" + b",".join(b'"%x":1' % number for number in range(90_000)) + b',"1":1}',
        b'{"MaxResults":' + b"1" * (MAX_BODY - 100) + b"}",
        b'{"EventCategory":"' + b"\\u0041" * (MAX_BODY // 6 - 100) + b'"}',
    ],
    ids=["deep", "many faults", "many unknown", "many members", "twice", "long number", "long text"],
)
def test_no_body_costs_more_than_its_size(body: bytes) -> None:
    """A megabyte of the worst kinds is refused within two seconds, in few words."""
    started = time.process_time()
    assert len(refused("LookupEvents", body)) < 5_000
    assert time.process_time() - started < 2
