"""For which region a request has to be signed, and how a question to IAM looks to its engine."""

import hashlib

import pytest

from wicketgate.api import authority
from wicketgate.api.http import Peer, Request
from wicketgate.model import AccessKey, AuthFailure, World
from wicketgate.sigv4.header import signed_headers
from wicketgate.sigv4.presign import Credentials

NOW = 1_800_000_000.0
KEY = AccessKey(id="AKIAROOT000000000000", secret="secret")
WORLD = World(region="eu-central-1", access_keys=(KEY,))
BODY = b"Action=ListUsers&Version=2010-05-08"


def request(service, region, *, now=NOW):
    """A request signed for a service in a region."""
    head = {"host": "api.wicketgate.test", "content-type": "application/x-www-form-urlencoded"}
    headers = signed_headers(head, BODY, Credentials(KEY.id, KEY.secret), region=region, service=service, now=now)
    return Request(method="POST", path="/", query="", headers=headers, body=BODY, peer=Peer(source_ip="192.0.2.1"))


@pytest.mark.parametrize(
    ("service", "region", "accepted"),
    [
        ("iam", "us-east-1", True),  # IAM's one region in the partition `aws`, wherever the installation is
        ("sts", "us-east-1", True),  # the global endpoint, which older SDKs use
        ("sts", "eu-central-1", True),
        ("iam", "eu-west-1", False),
        ("sts", "eu-west-1", False),
        ("ec2", "eu-central-1", True),
        ("ec2", "us-east-1", False),
        ("ec2-instance-connect", "us-east-1", False),
        ("cloudtrail", "eu-central-1", True),
    ],
)
def test_region(service, region, accepted):
    """IAM and STS may be signed for us-east-1, the others for the installation's own region only."""
    if accepted:
        key, principal = authority.authenticate(WORLD, request(service, region), service, NOW)
        assert (key, principal.arn) == (KEY, "arn:aws:iam::123456789012:root")
        return
    with pytest.raises(AuthFailure, match="Credential should be scoped to a valid region"):
        authority.authenticate(WORLD, request(service, region), service, NOW)


def test_service():
    """A signature for one service is none for another."""
    with pytest.raises(AuthFailure, match="scoped to correct service"):
        authority.authenticate(WORLD, request("sts", "us-east-1"), "iam", NOW)


def test_body():
    """The body is what was signed, or the signature does not hold."""
    sent = request("iam", "us-east-1")
    changed = Request(**{name: getattr(sent, name) for name in sent.__struct_fields__} | {"body": BODY + b"&Path=/x"})
    assert hashlib.sha256(changed.body).digest() != hashlib.sha256(sent.body).digest()
    with pytest.raises(AuthFailure, match="does not match"):
        authority.authenticate(WORLD, changed, "iam", NOW)


def test_key_of_nobody():
    """A key whose user is gone proves nothing."""
    orphan = AccessKey(id=KEY.id, secret=KEY.secret, user_name="gone")
    with pytest.raises(AuthFailure) as caught:
        authority.authenticate(
            World(region="us-east-1", access_keys=(orphan,)), request("iam", "us-east-1"), "iam", NOW
        )
    assert caught.value.code == "InvalidClientTokenId"


def test_action_is_signed():
    """X-Amz-Target says which action is meant: added to a request that was signed without it, it counts for nothing."""
    sent = request("ec2-instance-connect", "eu-central-1")
    added = {**sent.headers, "x-amz-target": "AWSEC2InstanceConnectService.SendSSHPublicKey"}
    changed = Request(**{name: getattr(sent, name) for name in sent.__struct_fields__} | {"headers": added})
    with pytest.raises(AuthFailure, match="x-amz-target that is not signed") as caught:
        authority.authenticate(WORLD, changed, "ec2-instance-connect", NOW)
    assert caught.value.code == "IncompleteSignature"
