"""What becomes of an admission as time goes by and the World changes. (In a gateway: tests/wire/test_revocation.py.)"""

import msgspec
import pytest

from tests.unit.test_admit import ARN, EICE, NOW, OPEN, allow, policy, world
from wicketgate.admit import Grant, Opened, review
from wicketgate.model import AccessKey, Role
from wicketgate.tunnel.reasons import MAX_REASON, revoked

GRANT = Grant(
    endpoint_id=EICE,
    address="10.0.1.11",
    port=22,
    duration=3600,
    may_see_rules=True,
    signature="",
    signature_expires=NOW + 60,
)
OPENED = Opened(access_key_id="AKIAALICE", source_ip="203.0.113.10", user_agent="aws-cli/2", grant=GRANT)


def failed(made, opened=OPENED, now=NOW):
    """The step that failed, and what the holder is told; None and nothing if all is well."""
    found = review(made, opened, now)
    failure = found.verdict.failure
    assert (failure is None) == (found.told == "")
    assert len(revoked(found.told).encode()) <= MAX_REASON
    return (failure.name if failure is not None else None), found.told


def test_what_was_admitted_still_is():
    """Long after the signature has ended."""
    assert failed(world(policy(allow())), now=NOW + 3000) == (None, "")


@pytest.mark.parametrize(
    ("condition", "later"),
    [
        ({"DateLessThan": {"aws:CurrentTime": "2026-09-21T14:13:30Z"}}, 11),
        ({"NumericLessThan": {"aws:EpochTime": str(int(NOW) + 10)}}, 11),
    ],
)
def test_the_hours_of_a_policy_end(condition, later):
    """Conditions are asked with the present time."""
    made = world(policy(allow(**condition)))
    assert failed(made) == (None, "")
    assert failed(made, now=NOW + later) == ("iam", f"no policy allows {OPEN} any more")


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ({"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}, True),
        ({"IpAddress": {"aws:SourceIp": "198.51.100.0/24"}}, False),
        ({"StringEquals": {"ec2-instance-connect:privateIpAddress": "10.0.1.11"}}, True),
        ({"NumericEquals": {"ec2-instance-connect:remotePort": "3389"}}, False),
        ({"NumericLessThanEquals": {"ec2-instance-connect:maxTunnelDuration": "3600"}}, True),
        ({"StringLike": {"aws:UserAgent": "aws-cli/*"}}, True),
        ({"StringEquals": {"aws:PrincipalTag/Team": "red"}}, False),
    ],
)
def test_the_request_is_the_one_that_was_made(condition, holds):
    """From the same address and program, for the same target and time."""
    assert failed(world(policy(allow(**condition))))[0] == (None if holds else "iam")


def test_a_deny_is_told_apart():
    """As at admission."""
    made = world(policy(allow(), {"Effect": "Deny", "Action": OPEN, "Resource": ARN}))
    assert failed(made) == ("iam", f"a policy denies {OPEN}")


def test_a_session_ends():
    """To the second; and with a policy of its role."""
    key = AccessKey(
        id="ASIASESSION", secret="s", session_token="t", expires=NOW + 10, role_name="ops", session_name="alice"
    )
    role = Role(name="ops", id="AROAOPS", policies=(policy(allow()),))
    made = msgspec.structs.replace(world(), roles=(role,), access_keys=(key,))
    opened = msgspec.structs.replace(OPENED, access_key_id=key.id)
    assert failed(made, opened, NOW + 9.9) == (None, "")
    expired = ("credentials", "the session of access key ASIASESSION has expired")
    assert failed(made, opened, NOW + 10) == expired
    emptied = msgspec.structs.replace(made, roles=(msgspec.structs.replace(role, policies=()),))
    assert failed(emptied, opened)[0] == "iam"


def test_groups_are_asked_once_there_are_packets():
    """Before the dial the kernel has the word."""
    made = world(policy(allow()))
    dialled = msgspec.structs.replace(OPENED, source_address="10.0.1.10")
    assert failed(made) == (None, "")
    assert failed(made, dialled) == ("route", "it may not pass the network any more")
    knowing = world(policy(allow(), allow("ec2:DescribeSecurityGroupRules", "*")))
    assert failed(knowing, dialled) == ("route", "no network interface of vpc-1 has 10.0.1.11")
