"""The XML answers and errors of EC2 and of IAM and STS, byte by byte."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wicketgate.api import ApiError, Catalogue, OutputError
from wicketgate.api.xml import escaped

SERVICES = Catalogue.load().services
AT = datetime(2026, 1, 31, 23, 59, 59, 123_999, tzinfo=UTC)


def body(service: str, action: str, output: dict[str, Any]) -> str:
    """An answer without the XML declaration."""
    reply = SERVICES[service].answer(action, output, "req-1")
    assert reply.status == 200
    assert dict(reply.headers) == {"Content-Type": "text/xml;charset=UTF-8", "x-amzn-RequestId": "req-1"}
    declaration, _, text = reply.body.decode().partition("\n")
    assert declaration == '<?xml version="1.0" encoding="UTF-8"?>'
    return text


def test_an_ec2_answer_has_the_request_id_first_and_items_in_sets() -> None:
    """Element names, nesting, booleans, milliseconds; an empty list is an empty element, None is no element."""
    endpoint = {
        "InstanceConnectEndpointId": "eice-1",
        "CreatedAt": AT,
        "PreserveClientIp": False,
        "SecurityGroupIds": ["sg-1", "sg-2"],
        "Tags": [],
        "StateMessage": None,
    }
    text = body("ec2", "DescribeInstanceConnectEndpoints", {"InstanceConnectEndpoints": [endpoint]})
    assert text == (
        '<DescribeInstanceConnectEndpointsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
        "<requestId>req-1</requestId><instanceConnectEndpointSet><item>"
        "<instanceConnectEndpointId>eice-1</instanceConnectEndpointId><createdAt>2026-01-31T23:59:59.123Z</createdAt>"
        "<preserveClientIp>false</preserveClientIp>"
        "<securityGroupIdSet><item>sg-1</item><item>sg-2</item></securityGroupIdSet><tagSet/>"
        "</item></instanceConnectEndpointSet></DescribeInstanceConnectEndpointsResponse>"
    )


def test_an_ec2_action_without_output_returns_true() -> None:
    """What the model calls no output is `<return>true</return>` on AWS's wire."""
    assert body("ec2", "DeleteVpc", {}) == (
        '<DeleteVpcResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
        "<requestId>req-1</requestId><return>true</return></DeleteVpcResponse>"
    )


def test_a_query_answer_has_a_result_and_metadata() -> None:
    """The result wrapper, `member` items, timestamps to the second."""
    user = {"UserName": "u", "CreateDate": AT, "Tags": [{"Key": "k", "Value": "v"}]}
    assert body("iam", "GetUser", {"User": user}) == (
        '<GetUserResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><GetUserResult><User>'
        "<UserName>u</UserName><CreateDate>2026-01-31T23:59:59Z</CreateDate>"
        "<Tags><member><Key>k</Key><Value>v</Value></member></Tags>"
        "</User></GetUserResult><ResponseMetadata><RequestId>req-1</RequestId></ResponseMetadata></GetUserResponse>"
    )
    assert body("iam", "DeleteUser", {}) == (
        '<DeleteUserResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/">'
        "<ResponseMetadata><RequestId>req-1</RequestId></ResponseMetadata></DeleteUserResponse>"
    )
    assert "<SummaryMap><entry><key>Users</key><value>3</value></entry></SummaryMap>" in body(
        "iam", "GetAccountSummary", {"SummaryMap": {"Users": 3}}
    )


def test_errors_have_each_protocols_form() -> None:
    """EC2's `RequestID` in capitals; the query protocol's Type says whose fault it is."""
    error = ApiError("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)
    reply = SERVICES["ec2"].error(error, "req-1")
    assert reply.status == 412
    assert reply.body.decode().partition("\n")[2] == (
        "<Response><Errors><Error><Code>DryRunOperation</Code>"
        "<Message>Request would have succeeded, but DryRun flag is set.</Message></Error></Errors>"
        "<RequestID>req-1</RequestID></Response>"
    )
    for status, fault in ((404, "Sender"), (500, "Receiver")):
        reply = SERVICES["iam"].error(ApiError("NoSuchEntity", "a < b", status), "req-1")
        assert reply.status == status
        assert reply.body.decode().partition("\n")[2] == (
            '<ErrorResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/">'
            f"<Error><Type>{fault}</Type><Code>NoSuchEntity</Code><Message>a &lt; b</Message></Error>"
            "<RequestId>req-1</RequestId></ErrorResponse>"
        )


@given(st.text())
def test_any_text_is_well_formed_character_data(text: str) -> None:
    """An XML parser gives back the text, with U+FFFD for each character that XML cannot carry."""
    legal = "".join(
        character if character in "\t\n\r" or (character >= " " and character not in "\ufffe\uffff") else "\ufffd"
        for character in text
    )
    assert (ElementTree.fromstring(f"<a>{escaped(text)}</a>").text or "") == legal


def test_lone_surrogates_are_replaced_too() -> None:
    """What UTF-8 cannot encode never reaches the encoder."""
    assert escaped("a\ud800]]>\r") == "a\ufffd]]&gt;&#13;"


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ({"Vpcz": []}, "DescribeVpcsResult has no member Vpcz"),
        ({"Vpcs": [{"VpcId": 5}]}, "expected string"),
        ({"Vpcs": [{"VpcId": b"vpc"}]}, "bytes-like"),
        ({"Vpcs": [{"IsDefault": "true"}]}, "'true' is not a boolean"),
        ({"Vpcs": [{"IsDefault": 1}]}, "1 is not a boolean"),
        ({"Vpcs": "vpc"}, "is not a list"),
        ({"Vpcs": ["vpc"]}, "no attribute 'items'"),
    ],
)
def test_an_output_that_does_not_fit_is_our_bug(output: dict[str, Any], words: str) -> None:
    """A wrong member or type in an answer is an OutputError that names the action, never a silent wrong answer."""
    with pytest.raises(OutputError, match=f"DescribeVpcs answered .*{words}"):
        SERVICES["ec2"].answer("DescribeVpcs", output, "req-1")


@pytest.mark.parametrize(
    ("member", "value"), [("CreatedAt", datetime(2026, 1, 1)), ("CreatedAt", "2026-01-01"), ("PreserveClientIp", "no")]
)
def test_a_moment_without_a_zone_is_our_bug(member: str, value: Any) -> None:
    """A naive datetime would be read in the server's zone by one and in UTC by another."""
    with pytest.raises(OutputError):
        SERVICES["ec2"].answer("CreateInstanceConnectEndpoint", {"InstanceConnectEndpoint": {member: value}}, "req-1")


def test_moments_are_written_in_utc() -> None:
    """A time in another zone is converted, not relabelled."""
    there = AT.astimezone(timezone(timedelta(hours=-7)))
    output = {"InstanceConnectEndpoint": {"CreatedAt": there}}
    assert "<createdAt>2026-01-31T23:59:59.123Z</createdAt>" in body("ec2", "CreateInstanceConnectEndpoint", output)


@pytest.mark.parametrize(
    ("value", "fits"), [(1.5, True), (3, True), (float("nan"), False), (float("inf"), False), (True, False)]
)
def test_numbers_are_finite(value: Any, fits: bool) -> None:
    """NaN and infinities leave the server as little as they enter it."""
    output = {"InstanceTypes": [{"ProcessorInfo": {"SustainedClockSpeedInGhz": value}}]}
    if fits:
        assert f"<sustainedClockSpeedInGhz>{float(value)!r}</" in body("ec2", "DescribeInstanceTypes", output)
    else:
        with pytest.raises(OutputError):
            SERVICES["ec2"].answer("DescribeInstanceTypes", output, "req-1")
