"""Admission: the order of decisions, each refusal's words, and what a grant holds."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wicketgate.admit import Admission, TunnelCall, admit
from wicketgate.model import (
    AccessKey,
    Endpoint,
    NetworkInterface,
    Policy,
    SecurityGroup,
    Settings,
    Subnet,
    User,
    Vpc,
    World,
)
from wicketgate.sigv4 import Credentials, presign

NOW = 1_790_000_000.0
EICE = "eice-0123456789abcdef0"
HOST = f"{EICE}.ec2-instance-connect-endpoint.us-east-1.example.net"
OPEN = "ec2-instance-connect:OpenTunnel"
ARN = f"arn:aws:ec2:us-east-1:123456789012:instance-connect-endpoint/{EICE}"
DEFAULTS = Settings()
TARGET = {"instanceConnectEndpointId": EICE, "remotePort": "22", "privateIpAddress": "10.0.1.11"}
AWS_PORT_MESSAGE = (
    "The specified RemotePort is not valid. Specify either 22 or 3389 as the RemotePort and retry your request."
)


def policy(*statements: dict[str, Any], name: str = "Connect") -> Policy:
    """A policy of these statements."""
    return Policy(name=name, document={"Version": "2012-10-17", "Statement": list(statements)})


def allow(action: str = OPEN, resource: str = ARN, **condition: Any) -> dict[str, Any]:
    """An Allow statement; conditions are keyed by operator."""
    return {"Effect": "Allow", "Action": action, "Resource": resource, "Condition": condition}


def world(
    *policies: Policy,
    settings: Settings = DEFAULTS,
    tags: dict[str, str] | None = None,
    state: str = "create-complete",
) -> World:
    """A World with one endpoint, one instance, and alice who has these policies; bob may do everything."""
    endpoint = Endpoint(
        id=EICE, subnet_id="subnet-1", interface_id="eni-e", dns_name=HOST, tags=tags or {}, state=state
    )
    made = World(
        settings=settings,
        vpcs=(Vpc(id="vpc-1", cidr_block="10.0.0.0/16"),),
        subnets=(Subnet(id="subnet-1", vpc_id="vpc-1", cidr_block="10.0.1.0/24"),),
        groups=(SecurityGroup(id="sg-1", vpc_id="vpc-1", name="all"),),
        interfaces=(
            NetworkInterface(
                id="eni-e", subnet_id="subnet-1", private_ip_address="10.0.1.10", group_ids=("sg-1",), link="e"
            ),
        ),
        endpoints=(endpoint,),
        users=(
            User(name="alice", id="AIDAALICE", policies=policies, tags={"Team": "blue"}),
            User(name="bob", id="AIDABOB", path="/ops/", policies=(policy(allow("*", "*"), name="Admin"),)),
        ),
        access_keys=(
            AccessKey(id="AKIAALICE", secret="alice's", user_name="alice"),
            AccessKey(id="AKIABOB", secret="bob's", user_name="bob"),
        ),
    )
    made.check()
    return made


CONNECT = world(policy(allow() | {"Sid": "S1"}))


def call(
    parameters: dict[str, str] = TARGET,
    *,
    who: str = "alice",
    at: float = NOW,
    source: str = "203.0.113.10",
    query: str | None = None,
) -> TunnelCall:
    """A call that `who` signed at `at`."""
    credentials = Credentials(f"AKIA{who.upper()}", f"{who}'s")
    url = presign(HOST, parameters, credentials, region="us-east-1", now=at)
    return TunnelCall(
        query=urlsplit(url).query if query is None else query,
        host=HOST,
        source_ip=source,
        user_agent="aws-cli/2.38.5 md/command#ec2-instance-connect.open-tunnel",
    )


def refused(admission: Admission, step: str, code: str, status: int) -> str:
    """Assert that the admission failed at `step` with this error; returns the error's message."""
    assert admission.grant is None
    assert admission.error is not None
    failure = admission.verdict.failure
    assert failure is not None
    assert failure == admission.verdict.steps[-1]
    assert (failure.name, admission.error.code, admission.error.http_status) == (step, code, status)
    return str(admission.error)


def test_grant():
    """An allowed call passes every step in order and is granted what it asked for."""
    admission = admit(CONNECT, call(TARGET | {"maxTunnelDuration": "600"}), NOW)
    assert admission.error is None
    assert [step.name for step in admission.verdict.steps] == [
        "credentials", "parameters", "iam", "endpoint", "port", "target"
    ]  # fmt: skip
    assert admission.verdict.passed
    grant = admission.grant
    assert grant is not None
    assert (grant.endpoint_id, grant.address, grant.port, grant.duration) == (EICE, "10.0.1.11", 22, 600)
    assert (len(grant.signature), grant.signature_expires, grant.may_see_rules) == (64, NOW + 60, False)
    assert [step.decided_by for step in admission.verdict.steps][:4] == ["AKIAALICE", "", "Connect/S1", EICE]
    assert admission.principal == CONNECT.principal(CONNECT.access_keys[0])
    assert admission.access_key_id == "AKIAALICE"


def test_omitted_duration_is_the_longest():
    """Without maxTunnelDuration the grant is for the setting's time, and it is absent from the parameters as sent."""
    admission = admit(CONNECT, call(), NOW)
    assert admission.grant is not None
    assert admission.grant.duration == 3600
    assert admission.parameters == TARGET


def test_parameters_are_kept_as_sent():
    """CloudTrail's requestParameters are what was sent, also when it is refused."""
    sent = TARGET | {"remotePort": "0x16", "maxTunnelDuration": " 1", "privateIpAddress": "ip 1/ü"}
    admission = admit(CONNECT, call(sent), NOW)
    refused(admission, "parameters", "InvalidParameter", 400)
    assert admission.parameters == sent


# -- credentials -------------------------------------------------------------------------------------------------------


def test_nothing_is_told_to_strangers():
    """A wrong signature is refused before parameters, policies or endpoints are looked at; nobody is proven."""
    wrong = TunnelCall(query=call({"remotePort": "x"}).query[:-1] + "z", host=HOST, source_ip="203.0.113.10")
    admission = admit(CONNECT, wrong, NOW)
    refused(admission, "credentials", "IncompleteSignature", 403)
    assert len(admission.verdict.steps) == 1
    assert admission.principal is None
    assert admission.access_key_id == "AKIAALICE"


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        (call(query=""), "MissingAuthenticationToken"),
        (call(at=NOW - 61), "RequestExpired"),
        (call(at=NOW + 301), "RequestExpired"),
        (call(who="mallory"), "InvalidClientTokenId"),
        (msgspec.structs.replace(call(), host="other.example"), "SignatureDoesNotMatch"),
        (
            msgspec.structs.replace(call(), query=call().query.replace("10.0.1.11", "10.0.1.12")),
            "SignatureDoesNotMatch",
        ),
    ],
)
def test_credentials(changed, code):
    """Unsigned, old, early, unknown, for another host, changed: each has AWS's code."""
    refused(admit(CONNECT, changed, NOW), "credentials", code, 403)


def test_settings_bound_the_signature():
    """presign_window and clock_skew of the World's settings are what counts."""
    tight = world(policy(allow()), settings=Settings(presign_window=5, clock_skew=0))
    assert admit(tight, call(at=NOW - 5), NOW).grant is not None
    assert admit(tight, call(at=NOW - 6), NOW).grant is None
    assert admit(tight, call(at=NOW + 1), NOW).grant is None


def test_key_deactivated():
    """A key that the World now says is inactive opens nothing."""
    keys = tuple(msgspec.structs.replace(key, active=False) for key in CONNECT.access_keys)
    inactive = msgspec.structs.replace(CONNECT, access_keys=keys)
    assert "AKIAALICE is inactive" in refused(admit(inactive, call(), NOW), "credentials", "InvalidClientTokenId", 403)


# -- parameters --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"instanceConnectEndpointId": None}, "parameter instanceConnectEndpointId is missing"),
        ({"remotePort": None}, "parameter remotePort is missing"),
        ({"privateIpAddress": ""}, "parameter privateIpAddress is missing"),
        ({"instanceConnectEndpointId": "vpce-1"}, "'vpce-1' is malformed; one looks like eice-"),
        ({"instanceConnectEndpointId": "eice-1/../*"}, "malformed"),
        ({"instanceConnectEndpointId": "eice-1\n"}, "'eice-1\\n' is malformed"),
        ({"instanceConnectEndpointId": "eice-" + "a" * 65}, "malformed"),
        ({"remotePort": "0"}, "decimal number from 1 to 65535"),
        ({"remotePort": "65536"}, "decimal number from 1 to 65535"),
        ({"remotePort": "022"}, "decimal number from 1 to 65535"),
        ({"remotePort": "+22"}, "decimal number from 1 to 65535"),
        ({"remotePort": "٢٢"}, "decimal number from 1 to 65535"),
        ({"remotePort": "22 "}, "'22 ' must be a decimal number"),
        ({"privateIpAddress": "ip-10-0-1-11.ec2.internal"}, "host names are not resolved"),
        ({"privateIpAddress": "10.0.1.011"}, "must be an IP address"),
        ({"privateIpAddress": "10.0.1.0/24"}, "must be an IP address"),
        ({"privateIpAddress": "167772427"}, "must be an IP address"),
        ({"maxTunnelDuration": "0"}, "from 1 to 3600"),
        ({"maxTunnelDuration": "3601"}, "from 1 to 3600"),
        ({"maxTunnelDuration": ""}, "from 1 to 3600"),
        ({"maxTunnelDuration": "60.5"}, "from 1 to 3600"),
        ({"maxTunnelDuration": "9" * 5000}, "from 1 to 3600"),
        ({"remoteport": "22"}, "'remoteport' is unknown; openTunnel takes instanceConnectEndpointId"),
        ({"X-Amz-Content-Sha256": "x"}, "'X-Amz-Content-Sha256' is unknown"),
    ],
)
def test_malformed_parameter(change, words):
    """Each parameter that is missing, unknown or malformed is named with what would be right."""
    sent = {name: value for name, value in {**TARGET, **change}.items() if value is not None}
    assert words in refused(admit(CONNECT, call(sent), NOW), "parameters", "InvalidParameter", 400)


@pytest.mark.parametrize("extra", ["&remotePort=22", "&%72emotePort=3389", "&a=%", "&a=%ff"])
def test_ambiguous_query(extra):
    """Duplicates and broken encoding are refused at once."""
    refused(admit(CONNECT, call(query=call().query + extra), NOW), "parameters", "InvalidParameter", 400)


def test_longest_duration_is_a_setting():
    """max_tunnel_duration moves both the bound and the default."""
    longer = world(policy(allow()), settings=Settings(max_tunnel_duration=7200))
    for sent in (TARGET, TARGET | {"maxTunnelDuration": "7200"}):
        admission = admit(longer, call(sent), NOW)
        assert admission.grant is not None
        assert admission.grant.duration == 7200


# -- IAM ---------------------------------------------------------------------------------------------------------------


def test_denied_in_aws_words():
    """The caller reads AWS's sentence; the record names the nearest statement and what it wanted."""
    only = world(policy(allow(NumericEquals={"ec2-instance-connect:remotePort": "22"}) | {"Sid": "S1"}))
    admission = admit(only, call(TARGET | {"remotePort": "3389"}), NOW)
    message = refused(admission, "iam", "AccessDeniedException", 403)
    assert message == (
        f"User: arn:aws:iam::123456789012:user/alice is not authorized to perform: {OPEN} "
        f"on resource: {ARN} because no identity-based policy allows the {OPEN} action"
    )
    assert admission.verdict.steps[-1].reason == (
        "statement Connect/S1 allows the action but not: NumericEquals ec2-instance-connect:remotePort 3389 is not 22"
    )
    assert admission.principal is not None


def test_explicit_deny_is_named():
    """An explicit Deny anywhere wins; the step is decided by that statement."""
    deny = {"Sid": "NoSsh", "Effect": "Deny", "Action": OPEN, "Resource": "*"}
    admission = admit(world(policy(allow("*", "*")), policy(deny, name="Guard")), call(), NOW)
    assert refused(admission, "iam", "AccessDeniedException", 403).endswith(
        "with an explicit deny in an identity-based policy"
    )
    assert admission.verdict.steps[-1].decided_by == "Guard/NoSsh"


def test_iam_answers_before_existence_is_told():
    """Who may not open a tunnel cannot learn whether the endpoint exists; who may, can."""
    other = TARGET | {"instanceConnectEndpointId": "eice-none"}
    refused(admit(CONNECT, call(other), NOW), "iam", "AccessDeniedException", 403)
    message = refused(
        admit(CONNECT, call(other, who="bob"), NOW), "endpoint", "InvalidInstanceConnectEndpointId.NotFound", 404
    )
    assert "'eice-none' does not exist" in message


def test_malformed_policy_denies_everything():
    """One unreadable policy denies, whatever others allow; the record names the place, the caller only that it is."""
    broken = policy({"Effect": "Deny", "Action": OPEN}, name="Broken")
    admission = admit(world(policy(allow("*", "*")), broken), call(), NOW)
    assert refused(admission, "iam", "AccessDeniedException", 403).endswith(
        "because an identity-based policy is malformed"
    )
    assert admission.verdict.steps[-1].reason.startswith("policy Broken: statement 0: exactly one of Resource")
    assert admit(world(broken), call(who="bob"), NOW).grant is not None


@pytest.mark.parametrize(
    ("condition", "change", "passes"),
    [
        ({"NumericEquals": {"ec2-instance-connect:remotePort": "22"}}, {}, True),
        ({"NumericEquals": {"ec2-instance-connect:remotePort": "3389"}}, {}, False),
        ({"IpAddress": {"ec2-instance-connect:privateIpAddress": "10.0.1.10/31"}}, {}, True),
        ({"IpAddress": {"ec2-instance-connect:privateIpAddress": "10.0.1.12/31"}}, {}, False),
        (
            {"IpAddress": {"ec2-instance-connect:privateIpAddress": "10.0.1.11"}},
            {"privateIpAddress": "::ffff:a00:10b"},
            True,
        ),
        ({"NumericLessThanEquals": {"ec2-instance-connect:MaxTunnelDuration": "600"}}, {}, False),
        (
            {"NumericLessThanEquals": {"ec2-instance-connect:maxTunnelDuration": "600"}},
            {"maxTunnelDuration": "600"},
            True,
        ),
        ({"NumericEquals": {"ec2-instance-connect:maxTunnelDuration": "3600"}}, {}, True),
        ({"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}, {}, True),
        ({"NotIpAddress": {"aws:SourceIp": "203.0.113.0/24"}}, {}, False),
        ({"StringEquals": {"aws:ResourceTag/env": "prod", "ec2:ResourceTag/Env": "prod"}}, {}, True),
        ({"StringEquals": {"aws:ResourceTag/env": "test"}}, {}, False),
        ({"StringEquals": {"aws:PrincipalTag/team": "${aws:ResourceTag/Team}"}}, {}, True),
        ({"StringEquals": {"aws:username": "alice", "aws:userid": "AIDAALICE", "aws:PrincipalType": "User"}}, {}, True),
        ({"StringEquals": {"aws:PrincipalAccount": "123456789012", "aws:RequestedRegion": "us-east-1"}}, {}, True),
        ({"StringEquals": {"ec2:Region": "us-east-1"}, "Bool": {"aws:SecureTransport": "true"}}, {}, True),
        ({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::123456789012:user/al*"}}, {}, True),
        ({"StringLike": {"aws:UserAgent": "aws-cli/*"}}, {}, True),
        ({"DateLessThan": {"aws:CurrentTime": "2026-09-21T14:13:20Z"}}, {}, False),
        ({"DateEquals": {"aws:CurrentTime": "2026-09-21T14:13:20Z", "aws:EpochTime": "1790000000"}}, {}, True),
        ({"NumericEquals": {"aws:EpochTime": "1790000000"}}, {}, True),
        ({"Null": {"aws:TokenIssueTime": "true", "aws:MultiFactorAuthPresent": "true"}}, {}, True),
    ],
)
def test_condition_keys(condition, change, passes):
    """Every condition key of OpenTunnel and the global ones have this call's values."""
    made = world(policy(allow(**condition)), tags={"Env": "prod", "Team": "blue"})
    assert (admit(made, call(TARGET | change), NOW).grant is not None) is passes


def test_source_address_of_a_dual_stack_socket():
    """An IPv4 client that the socket shows as ::ffff:... is judged by its IPv4 address."""
    made = world(policy(allow(IpAddress={"aws:SourceIp": "203.0.113.0/24"})))
    assert admit(made, call(source="::ffff:203.0.113.10"), NOW).grant is not None
    assert admit(made, call(source="::ffff:203.0.114.10"), NOW).grant is None


def test_who_may_see_rules():
    """Close reasons may name rules only for whom IAM lets describe them."""
    for statements, expected in (([], False), ([allow("ec2:DescribeSecurityGroupRules", "*")], True)):
        admission = admit(world(policy(allow(), *statements)), call(), NOW)
        assert admission.grant is not None
        assert admission.grant.may_see_rules is expected


# -- endpoint, port, target --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["create-complete", "update-in-progress", "update-complete", "update-failed"])
def test_connectable_states(state):
    """Tunnels open while an endpoint is complete or being updated."""
    assert admit(world(policy(allow()), state=state), call(), NOW).grant is not None


@pytest.mark.parametrize("state", ["create-in-progress", "create-failed", "delete-in-progress", "delete-complete"])
def test_other_states(state):
    """In other states the refusal names the state and those that would do."""
    message = refused(admit(world(policy(allow()), state=state), call(), NOW), "endpoint", "InvalidState", 400)
    assert f"is in state {state}" in message
    assert "create-complete" in message


def test_port_that_is_not_offered():
    """AWS's exact sentence for its two ports, also for someone whom IAM allows everything."""
    admission = admit(CONNECT, call(TARGET | {"remotePort": "5432"}, who="bob"), NOW)
    assert refused(admission, "port", "InvalidParameter", 400) == AWS_PORT_MESSAGE
    assert admission.verdict.steps[-1].decided_by == "allowed_ports"


@pytest.mark.parametrize(
    ("ports", "words"),
    [
        ((22,), "Specify 22 as the RemotePort"),
        ((22, 5432), "Specify either 22 or 5432 as the RemotePort"),
        ((22, 3389, 5432), "Specify one of 22, 3389, 5432 as the RemotePort"),
        ((), None),
    ],
)
def test_ports_are_a_setting(ports, words):
    """allowed_ports opens others, none listed opens all, and the sentence follows."""
    made = world(policy(allow()), settings=Settings(allowed_ports=ports))
    admission = admit(made, call(TARGET | {"remotePort": "65535"}), NOW)
    if words is None:
        assert admission.grant is not None
    else:
        assert words in refused(admission, "port", "InvalidParameter", 400)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1", "127.0.0.1 is a loopback address"),
        ("169.254.169.254", "is the instance metadata service"),
        ("2001:db8::1", "an IPv4 endpoint reaches IPv4 addresses only"),
        ("10.0.1.1", "is the VPC router's address"),
        ("10.1.0.1", "is outside 10.0.0.0/16"),
    ],
)
def test_target_that_is_never_dialled(address, words):
    """A target that no endpoint of this kind dials is refused with the reason."""
    message = refused(
        admit(CONNECT, call(TARGET | {"privateIpAddress": address}), NOW), "target", "InvalidParameter", 400
    )
    assert message.startswith("The specified PrivateIpAddress is not valid: ")
    assert words in message


def test_target_without_interface_is_dialled():
    """Whether anything answers shows at dial time, not here."""
    assert admit(CONNECT, call(TARGET | {"privateIpAddress": "10.0.77.7"}), NOW).grant is not None


# -- whatever comes ----------------------------------------------------------------------------------------------------


@given(st.text(), st.text(), st.text(), st.text())
def test_any_text_is_refused_without_a_crash(query, host, source, agent):
    """Arbitrary text as a request is a worded refusal."""
    admission = admit(CONNECT, TunnelCall(query=query, host=host, source_ip=source, user_agent=agent), NOW)
    assert admission.grant is None
    assert admission.error is not None
    assert str(admission.error)


@given(
    st.dictionaries(st.sampled_from([*TARGET, "maxTunnelDuration"]), st.text(st.characters(codec="utf-8"))),
    st.sampled_from(["alice", "bob"]),
)
def test_any_signed_parameters_are_decided(change, who):
    """Arbitrary values, well signed, are granted or refused with words, and recorded as sent."""
    sent = TARGET | change
    admission = admit(CONNECT, call(sent, who=who), NOW)
    assert (admission.grant is None) is (admission.error is not None)
    assert admission.verdict.passed is (admission.grant is not None)
    assert admission.parameters == sent


@given(st.integers(0, len(call().query) - 1), st.characters(codec="ascii"))
def test_one_changed_character_is_never_granted(place, character):
    """Any single change of a signed query is refused, unless it says the same."""
    query = call().query
    changed = query[:place] + character + query[place + 1 :]
    admission = admit(CONNECT, call(query=changed), NOW)
    assert (admission.grant is not None) is (unquote(changed) == unquote(query))


def test_encoding_of_the_query_does_not_matter():
    """A client that escapes more than it must sends the same request."""
    escaped = call().query.replace("10.0.1.11", "10%2e0.%31.11")
    assert admit(CONNECT, call(query=escaped), NOW).grant is not None
