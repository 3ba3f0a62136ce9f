"""cloudtrail:LookupEvents over audit files."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from wicketgate.api import Catalogue
from wicketgate.api.cloudtrail import lookup_events
from wicketgate.audit.events import event_time
from wicketgate.model import ApiError

NOW = 1_769_903_999.0


def record(number, *, before=0, **more):
    """One event, some seconds before NOW."""
    return {
        "eventID": f"id-{number}",
        "eventName": "CreateVpc",
        "eventSource": "ec2.amazonaws.com",
        "eventTime": event_time(NOW - before),
        "readOnly": False,
        "userIdentity": {"type": "IAMUser", "userName": "alice", "accessKeyId": "AKIAALICE"},
        "resources": [{"type": "AWS::EC2::VPC", "ARN": f"arn:aws:ec2:us-east-1:1:vpc/vpc-{number}"}],
        **more,
    }


def append(path, *records):
    """Write events to an audit file."""
    with path.open("ab") as file:
        file.writelines(json.dumps(one).encode() + b"\n" for one in records)


def ids(answer):
    """The ids of an answer's events."""
    return [event["EventId"] for event in answer["Events"]]


@pytest.fixture
def path(tmp_path):
    """A file with five events, oldest first."""
    file = tmp_path / "api.jsonl"
    role = {"type": "AssumedRole", "arn": "arn:aws:sts::1:assumed-role/admin/bob", "accessKeyId": "ASIABOB"}
    append(
        file,
        record(1, before=400),
        record(2, before=300, eventName="DescribeVpcs", readOnly=True, resources=[]),
        record(3, before=200, userIdentity={"type": "Root"}),
        record(4, before=100, userIdentity=role, eventSource="iam.amazonaws.com"),
        record(5),
    )
    return file


def test_an_answer_is_newest_first_and_fits_the_service_model(path):
    """Every member of an event; the codec writes it."""
    answer = lookup_events({}, [path], NOW)
    assert ids(answer) == ["id-5", "id-4", "id-3", "id-2", "id-1"]
    assert "NextToken" not in answer
    event = answer["Events"][0]
    assert json.loads(event.pop("CloudTrailEvent")) == record(5)
    assert event == {
        "EventId": "id-5",
        "EventName": "CreateVpc",
        "ReadOnly": "false",
        "AccessKeyId": "AKIAALICE",
        "EventTime": datetime.fromtimestamp(NOW, UTC),
        "EventSource": "ec2.amazonaws.com",
        "Username": "alice",
        "Resources": [{"ResourceType": "AWS::EC2::VPC", "ResourceName": "vpc-5"}],
    }
    reply = Catalogue.load().services["cloudtrail"].answer("LookupEvents", answer, "r")
    assert json.loads(reply.body)["Events"][0]["EventTime"] == NOW


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("EventId", "id-3", ["id-3"]),
        ("EventName", "DescribeVpcs", ["id-2"]),
        ("ReadOnly", "true", ["id-2"]),
        ("Username", "alice", ["id-5", "id-2", "id-1"]),
        ("Username", "root", ["id-3"]),
        ("Username", "bob", ["id-4"]),
        ("ResourceType", "AWS::EC2::VPC", ["id-5", "id-4", "id-3", "id-1"]),
        ("ResourceName", "vpc-1", ["id-1"]),
        ("ResourceName", "arn:aws:ec2:us-east-1:1:vpc/vpc-1", ["id-1"]),
        ("EventSource", "iam.amazonaws.com", ["id-4"]),
        ("AccessKeyId", "ASIABOB", ["id-4"]),
        ("AccessKeyId", "nobody", []),
    ],
)
def test_each_attribute_narrows(path, key, value, expected):
    """All eight of them."""
    asked = {"LookupAttributes": [{"AttributeKey": key, "AttributeValue": value}]}
    assert ids(lookup_events(asked, [path], NOW)) == expected


def test_times_narrow(path):
    """Both ends are included."""
    start, end = (datetime.fromtimestamp(NOW - before, UTC) for before in (300, 100))
    assert ids(lookup_events({"StartTime": start, "EndTime": end}, [path], NOW)) == ["id-4", "id-3", "id-2"]


def test_history_goes_back_ninety_days(path):
    """What is older is not shown."""
    append(path.with_name("old.jsonl"), record(0, before=91 * 86_400))
    assert "id-0" not in ids(lookup_events({}, [path.with_name("old.jsonl"), path], NOW))


def test_pages_are_stable_while_events_are_added(path):
    """Every old event once, whatever comes in between, also within one second and after a rotation."""
    append(path, *(record(number) for number in (6, 7, 8)))
    seen, token = [], None
    for number in range(20):
        asked = {"MaxResults": 2} | ({"NextToken": token} if token else {})
        answer = lookup_events(asked, sorted(path.parent.iterdir()), NOW)
        seen += ids(answer)
        token = answer.get("NextToken")
        if token is None:
            break
        append(path, record(100 + number))
        if number == 1:
            path.rename(path.with_name("api.jsonl.1"))
    assert seen == ["id-8", "id-7", "id-6", "id-5", "id-4", "id-3", "id-2", "id-1"]


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"MaxResults": 0}, "InvalidMaxResultsException"),
        ({"MaxResults": 51}, "InvalidMaxResultsException"),
        ({"NextToken": "x"}, "InvalidNextTokenException"),
        ({"NextToken": "bnVsbA=="}, "InvalidNextTokenException"),
        (
            {"StartTime": datetime.fromtimestamp(NOW, UTC), "EndTime": datetime.fromtimestamp(NOW - 1, UTC)},
            "InvalidTimeRangeException",
        ),
        (
            {"LookupAttributes": [{"AttributeKey": "EventId", "AttributeValue": "x"}] * 2},
            "InvalidLookupAttributesException",
        ),
        (
            {"LookupAttributes": [{"AttributeKey": "ReadOnly", "AttributeValue": "x"}]},
            "InvalidLookupAttributesException",
        ),
    ],
)
def test_wrong_parameters(path, parameters, code):
    """CloudTrail's own exceptions."""
    with pytest.raises(ApiError) as caught:
        lookup_events(parameters, [path], NOW)
    assert caught.value.code == code


def test_a_token_is_good_for_its_own_parameters_only(path):
    """Another question with the same token is refused."""
    token = lookup_events({"MaxResults": 1}, [path], NOW)["NextToken"]
    asked = {"NextToken": token, "LookupAttributes": [{"AttributeKey": "Username", "AttributeValue": "alice"}]}
    with pytest.raises(ApiError, match="different parameters"):
        lookup_events(asked, [path], NOW)
