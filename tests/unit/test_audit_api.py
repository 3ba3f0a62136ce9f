"""The audit line of an API call, beside records that CloudTrail wrote."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from wicketgate.api import Catalogue
from wicketgate.audit.api_events import ApiCall, api_event, error_code, is_read_only
from wicketgate.audit.spelling import MAX_SIZE, MAX_VALUE
from wicketgate.model import ApiError, Principal, User, World

ALICE = Principal(type="IAMUser", arn="arn:aws:iam::123456789012:user/alice", id="AIDAALICE", name="alice")
WORLD = World(users=(User(name="bob", id="AIDABOB", path="/staff/"),))
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGwV0kq1W7fV3i1Ue0o1pOFN7d0cVbq0H9mQ5gHf2u8x"
INSTANCE = "i-0123456789abcdef0"
GROUP = "sg-0123456789abcdef0"


def event(service, action, **more):
    """The record of a call by alice from an office's address."""
    call = ApiCall(
        service=service,
        action=action,
        request_id="11111111-1111-4111-8111-111111111111",
        source_ip="198.51.100.7",
        user_agent="aws-cli/2",
        **{"access_key_id": "AKIAALICE", "principal": ALICE, **more},
    )
    return api_event(WORLD, call, event_id="22222222-2222-4222-8222-222222222222", now=1_769_903_999)


def test_a_pushed_key_is_recorded_as_aws_does_since_2025():
    """Every field of a published record of SendSSHPublicKey, with this call's values."""
    found = event(
        "ec2-instance-connect",
        "SendSSHPublicKey",
        parameters={"InstanceId": INSTANCE, "InstanceOSUser": "ec2-user", "SSHPublicKey": KEY},
        answer={"RequestId": "11111111-1111-4111-8111-111111111111", "Success": True},
        tls={"tlsVersion": "TLSv1.3", "clientProvidedHostHeader": "api.wicketgate.test"},
    )
    assert found == {
        "eventVersion": "1.08",
        "userIdentity": {
            "type": "IAMUser",
            "principalId": "AIDAALICE",
            "arn": "arn:aws:iam::123456789012:user/alice",
            "accountId": "123456789012",
            "accessKeyId": "AKIAALICE",
            "userName": "alice",
        },
        "eventTime": "2026-01-31T23:59:59Z",
        "eventSource": "ec2-instance-connect.amazonaws.com",
        "eventName": "SendSSHPublicKey",
        "awsRegion": "us-east-1",
        "sourceIPAddress": "198.51.100.7",
        "userAgent": "aws-cli/2",
        "requestParameters": {"instanceId": INSTANCE, "instanceOSUser": "ec2-user", "sSHPublicKey": KEY},
        "responseElements": {"requestId": "11111111-1111-4111-8111-111111111111", "success": True},
        "requestID": "11111111-1111-4111-8111-111111111111",
        "eventID": "22222222-2222-4222-8222-222222222222",
        "readOnly": False,
        "resources": [
            {
                "accountId": "123456789012",
                "type": "AWS::EC2::Instance",
                "ARN": f"arn:aws:ec2:us-east-1:123456789012:instance/{INSTANCE}",
            }
        ],
        "eventType": "AwsApiCall",
        "managementEvent": True,
        "recipientAccountId": "123456789012",
        "eventCategory": "Management",
        "tlsDetails": {"tlsVersion": "TLSv1.3", "clientProvidedHostHeader": "api.wicketgate.test"},
    }


def test_denied_access_has_no_parameters_but_its_resource():
    """CloudTrail leaves the parameters out; what was asked for is still found by its resource."""
    found = event(
        "ec2-instance-connect",
        "SendSSHPublicKey",
        parameters={"InstanceId": INSTANCE, "InstanceOSUser": "root", "SSHPublicKey": KEY},
        error=ApiError("AccessDeniedException", "User: alice is not authorized", 403),
    )
    assert (found["errorCode"], found["errorMessage"]) == ("AccessDenied", "User: alice is not authorized")
    assert found["requestParameters"] is None
    assert found["responseElements"] is None
    assert found["resources"][0]["ARN"].endswith(INSTANCE)


@pytest.mark.parametrize(
    ("service", "error", "code"),
    [
        ("ec2", ApiError("UnauthorizedOperation", "", 403), "Client.UnauthorizedOperation"),
        ("ec2", ApiError("InternalError", "", 500), "Server.InternalError"),
        ("iam", ApiError("NoSuchEntity", "", 404), "NoSuchEntityException"),
        ("iam", ApiError("AccessDenied", "", 403), "AccessDenied"),
        ("sts", ApiError("ExpiredToken", "", 403), "ExpiredToken"),
    ],
)
def test_error_codes_are_cloudtrails(service, error, code):
    """EC2's say whose fault it was; IAM's are the exceptions' names."""
    assert error_code(service, error) == code


def test_ec2_rules_are_spelt_as_in_published_records():
    """Lists are objects with `items`, empty ones empty objects; the answer's names are those of the wire."""
    shape = Catalogue.load().services["ec2"].model.operation_model("AuthorizeSecurityGroupIngress").output_shape
    found = event(
        "ec2",
        "AuthorizeSecurityGroupIngress",
        parameters={
            "GroupId": GROUP,
            "IpPermissions": [
                {
                    "IpProtocol": "tcp",
                    "FromPort": 22,
                    "ToPort": 22,
                    "IpRanges": [{"CidrIp": "0.0.0.0/0"}],
                    "Ipv6Ranges": [],
                    "UserIdGroupPairs": [{"GroupId": GROUP}],
                }
            ],
        },
        answer={"Return": True, "SecurityGroupRules": [{"SecurityGroupRuleId": "sgr-0123456789abcdef0"}]},
        output_shape=shape,
        api_version="2016-11-15",
    )
    assert found["requestParameters"] == {
        "groupId": GROUP,
        "ipPermissions": {
            "items": [
                {
                    "ipProtocol": "tcp",
                    "fromPort": 22,
                    "toPort": 22,
                    "ipRanges": {"items": [{"cidrIp": "0.0.0.0/0"}]},
                    "ipv6Ranges": {},
                    "groups": {"items": [{"groupId": GROUP}]},
                }
            ]
        },
    }
    assert found["responseElements"] == {
        "requestId": "11111111-1111-4111-8111-111111111111",
        "_return": True,
        "securityGroupRuleSet": {"items": [{"securityGroupRuleId": "sgr-0123456789abcdef0"}]},
    }
    assert found["apiVersion"] == "2016-11-15"
    assert [one["type"] for one in found["resources"]] == [
        "AWS::EC2::SecurityGroup",
        "AWS::EC2::SecurityGroupRule",
    ]


def test_a_read_only_call_has_filters_and_no_answer():
    """Describe: its filters as CloudTrail has them, nothing of what it answered."""
    found = event(
        "ec2",
        "DescribeInstances",
        parameters={"InstanceIds": [INSTANCE], "Filters": [{"Name": "vpc-id", "Values": ["vpc-1", "vpc-2"]}]},
        answer={"Reservations": [{"OwnerId": "1"}]},
    )
    assert found["requestParameters"] == {
        "instancesSet": {"items": [{"instanceId": INSTANCE}]},
        "filterSet": {"items": [{"name": "vpc-id", "valueSet": {"items": [{"value": "vpc-1"}, {"value": "vpc-2"}]}}]},
    }
    assert found["responseElements"] is None
    assert found["readOnly"] is True


def test_secrets_are_never_written():
    """Secret keys, session tokens and user data stand in no part of the line."""
    now = datetime(2026, 1, 31, 13, 5, 9, tzinfo=UTC)
    credentials = {"AccessKeyId": "ASIAX", "SecretAccessKey": "s3cret", "SessionToken": "t0ken", "Expiration": now}
    assumed = event("sts", "AssumeRole", parameters={"RoleSessionName": "s"}, answer={"Credentials": credentials})
    assert assumed["responseElements"] == {
        "credentials": {"accessKeyId": "ASIAX", "expiration": "Jan 31, 2026, 1:05:09 PM"}
    }
    made = event("iam", "CreateAccessKey", parameters={"UserName": "bob"}, answer={"AccessKey": credentials})
    ran = event("ec2", "RunInstances", parameters={"UserData": "s3cret", "MinCount": 1})
    assert ran["requestParameters"] == {"userData": "HIDDEN_DUE_TO_SECURITY_REASONS", "minCount": 1}
    assert not any(secret in json.dumps([assumed, made, ran]) for secret in ("s3cret", "t0ken"))


def test_iam_resources_have_their_paths():
    """A user's ARN has the path of the user that is there."""
    found = event("iam", "AttachUserPolicy", parameters={"UserName": "bob", "PolicyArn": "arn:aws:iam::aws:policy/X"})
    assert [one["ARN"] for one in found["resources"]] == [
        "arn:aws:iam::123456789012:user/staff/bob",
        "arn:aws:iam::aws:policy/X",
    ]


def test_an_unproven_caller_is_unknown():
    """What a stranger claims is written as claimed, and cut; nothing of his parameters is."""
    found = event("ec2", "RunInstances", principal=None, access_key_id="A" * 1000, error=ApiError("AuthFailure", "no"))
    assert found["userIdentity"]["type"] == "Unknown"
    assert len(found["userIdentity"]["accessKeyId"]) == 256
    assert found["requestParameters"] is None


def test_sizes_are_bounded():
    """One long text is cut, many are left out with CloudTrail's note, and deep ones end."""
    cut = event("iam", "PutUserPolicy", parameters={"UserName": "bob", "PolicyDocument": "x" * 20_000})
    assert len(cut["requestParameters"]["policyDocument"]) == MAX_VALUE
    many = event("ec2", "CreateTags", parameters={"Resources": ["i-1"] * 50_000})
    assert many["requestParameters"]["omitted"] is True
    assert many["requestParameters"]["originalSize"] > MAX_SIZE
    deep = {}
    for _ in range(500):
        deep = {"Deeper": deep}
    assert len(json.dumps(event("iam", "X", parameters=deep))) < 2000


@pytest.mark.parametrize(
    ("action", "expected"),
    [("DescribeVpcs", True), ("GetCallerIdentity", True), ("AssumeRole", True), ("CreateVpc", False), ("Gut", False)],
)
def test_read_only_actions(action, expected):
    """By name, as CloudTrail has them; AssumeRole is one at AWS."""
    assert is_read_only(action) is expected
