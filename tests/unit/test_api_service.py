"""Which service, operation and protocol a request is for; and botocore's own clients against the codec."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import botocore.session
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config
from botocore.exceptions import ClientError

from wicketgate.api import MAX_BODY, ApiError, Catalogue, Message

CATALOGUE = Catalogue.load()
OFFERED = {"ec2": {"DescribeVpcs"}, "iam": {"GetUser"}, "ec2-instance-connect": {"SendSSHPublicKey"}}
EIC = "AWSEC2InstanceConnectService"


def signed(service: str) -> dict[str, str]:
    """The header of a request signed for a service."""
    scope = f"AKIDEXAMPLE/20260131/us-east-1/{service}/aws4_request"
    return {"authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=00"}


def refused(message: Message) -> str:
    """The service that answers, code and words of a refusal."""
    with pytest.raises(ApiError) as caught:
        CATALOGUE.identify(message, OFFERED)
    return f"{CATALOGUE.speaker(message).name} {caught.value.http_status} {caught.value.code}: {caught.value}"


@pytest.mark.parametrize(
    ("message", "service", "operation"),
    [
        (Message(signed("ec2"), "", b"Action=DescribeVpcs&Version=2016-11-15"), "ec2", "DescribeVpcs"),
        (Message({}, "", b"Version=2016-11-15&Action=DescribeVpcs"), "ec2", "DescribeVpcs"),
        (Message({}, "Version=2010-05-08&Action=GetUser"), "iam", "GetUser"),
        (Message({}, "Action=GetCallerIdentity", b"Version=2011-06-15"), "sts", "GetCallerIdentity"),
        (Message({"x-amz-target": f"{EIC}.SendSSHPublicKey"}), "ec2-instance-connect", "SendSSHPublicKey"),
        (
            Message({"x-amz-target": f"{EIC}.SendSSHPublicKey", **signed("ec2")}),
            "ec2-instance-connect",
            "SendSSHPublicKey",
        ),
        (
            Message(
                {},
                "Action=GetUser&Version=2010-05-08&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=00"
                "&X-Amz-Credential=AKID%2F20260131%2Fus-east-1%2Fiam%2Faws4_request",
            ),
            "iam",
            "GetUser",
        ),
    ],
)
def test_a_service_is_told_by_target_scope_or_version(message: Message, service: str, operation: str) -> None:
    """Header, query and body each suffice; the target header goes before the scope, which the signature judges."""
    call = CATALOGUE.identify(message)
    assert (call.service.name, call.operation) == (service, operation)
    assert CATALOGUE.speaker(message) is call.service
    if service != "ec2-instance-connect":
        assert call.parse() == {}  # what signs and what names the action is no parameter of it


def test_a_plus_sign_in_a_query_string_is_itself() -> None:
    """As the signature sees it (RFC 3986); in a form body it is a space."""
    head = "Action=GetUser&Version=2010-05-08"
    assert CATALOGUE.identify(Message({}, f"{head}&UserName=Ann+Bob")).parse() == {"UserName": "Ann+Bob"}
    with pytest.raises(ApiError, match="Value 'Ann Bob' at 'userName'"):
        CATALOGUE.identify(Message({}, "", f"{head}&UserName=Ann+Bob".encode())).parse()


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            Message({}, "", b"Action=Fly&Version=2016-11-15"),
            "ec2 400 InvalidAction: The action Fly is not valid for this web service.",
        ),
        (
            Message({}, "", b"Action=Fly&Version=2010-05-08"),
            "iam 400 InvalidAction: Could not find operation Fly for version 2010-05-08",
        ),
        (
            Message(signed("iam"), "", b"Action=GetUser"),
            "iam 400 InvalidAction: Could not find operation GetUser for version NO_VERSION_SPECIFIED",
        ),
        (
            Message(signed("sts"), "", b"Action=GetCallerIdentity&Version=2016-11-15"),
            "sts 400 InvalidAction: Could not find operation GetCallerIdentity for version 2016-11-15",
        ),
        (
            Message(signed("ec2"), "", b"Action=DescribeVpcs&Version=2014-10-01"),
            "ec2 400 NoSuchVersion: The requested version (2014-10-01) of service AmazonEC2 does not exist; "
            "use 2016-11-15.",
        ),
        (
            Message(signed("ec2"), "", b"Action=DescribeVpcs"),
            "ec2 400 MissingParameter: The request must contain the parameter Version",
        ),
        (Message(signed("iam")), "iam 400 MissingAction: The request must contain the parameter Action"),
        (Message({}), "ec2 400 MissingAction: The request must contain the parameter Action"),
        (
            Message({}, "", b"Action=DeleteVpc&Version=2016-11-15"),
            "ec2 400 UnsupportedOperation: DeleteVpc is an action of ec2 that wicketgate does not offer.",
        ),
        (
            Message({}, "", b"Action=GetCallerIdentity&Version=2011-06-15"),
            "sts 400 UnsupportedOperation: GetCallerIdentity is an action of sts that wicketgate does not offer.",
        ),
        (
            Message({"x-amz-target": f"{EIC}.SendSerialConsoleSSHPublicKey"}),
            "ec2-instance-connect 400 UnsupportedOperationException: SendSerialConsoleSSHPublicKey is an action of "
            "ec2-instance-connect that wicketgate does not offer.",
        ),
        (
            Message({"x-amz-target": f"{EIC}.Fly"}),
            "ec2-instance-connect 400 UnknownOperationException: ec2-instance-connect has no operation Fly.",
        ),
        (
            Message({"x-amz-target": "DynamoDB_20120810.GetItem"}),
            "cloudtrail 400 UnknownOperationException: X-Amz-Target names the service 'DynamoDB_20120810'; known are: "
            f"com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101, {EIC}, Wicketgate.",
        ),
        (
            Message(signed("s3")),
            "ec2 400 UnsupportedOperation: The request is signed for s3, which wicketgate does not offer: "
            "ec2, iam, sts, cloudtrail, ec2-instance-connect, wicketgate.",
        ),
        (
            Message(signed("cloudtrail"), "", b""),
            "cloudtrail 400 UnknownOperationException: cloudtrail needs the header X-Amz-Target.",
        ),
        (
            Message({}, "Action=GetUser&Version=2010-05-08", b"Action=GetUser"),
            "iam 400 MalformedQueryString: The parameter Action is given twice; give it once.",
        ),
        (
            Message({}, "", b"x" * (MAX_BODY + 1)),
            "ec2 413 RequestEntityTooLarge: The body has 1048577 bytes; at most 1048576 are read.",
        ),
        (
            Message({}, "x" * (MAX_BODY + 1)),
            "ec2 413 RequestEntityTooLarge: The query string has 1048577 bytes; at most 1048576 are read.",
        ),
        (Message({}, "a=\udcff"), "ec2 400 MalformedQueryString: The parameters do not decode to UTF-8."),
    ],
)
def test_what_is_not_offered_is_refused_in_the_services_format(message: Message, words: str) -> None:
    """Unknown and unoffered services, actions and versions, each worded and answered by the right service."""
    assert refused(message) == words


@pytest.mark.parametrize("header", ["Credential=" * 3_000, "Credential=a/1/" * 2_000, "," * 30_000])
def test_a_hostile_authorization_header_is_no_scope(header: str) -> None:
    """What names no credential scope leaves the choice to the Version, and the search for it is bounded."""
    message = Message({"authorization": header}, "", b"Action=GetUser&Version=2010-05-08")
    assert CATALOGUE.identify(message).service.name == "iam"


def test_statuses_come_from_the_model() -> None:
    """IAM's errors have statuses of their own; EC2's model has none."""
    assert CATALOGUE.services["iam"].modelled_status("NoSuchEntity") == 404
    assert CATALOGUE.services["iam"].modelled_status("Nothing") is None
    assert CATALOGUE.services["ec2"].modelled_status("InvalidVpcID.NotFound") is None


def test_an_operation_that_the_model_lacks_is_a_key_error() -> None:
    """A typing error in our own table of operations is found when it is warmed."""
    CATALOGUE.services["ec2"].warm(["DescribeVpcs"])
    with pytest.raises(KeyError, match="ec2 has no operation DescribeVpc"):
        CATALOGUE.services["ec2"].warm(["DescribeVpc"])


# -- botocore's clients -----------------------------------------------------------------------------------------------


class Wire:
    """Stands where the network would: requests go through the codec, an operation's function answers."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.parameters: list[dict[str, Any]] = []

    def __call__(self, request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        headers = {
            name.lower(): value.decode() if isinstance(value, bytes) else value
            for name, value in request.headers.items()
        }
        body = request.body.encode() if isinstance(request.body, str) else request.body or b""
        message = Message(headers, request.url.partition("?")[2], body)
        try:
            call = CATALOGUE.identify(message)
            self.parameters.append(call.parse())
            reply = call.answer(self.answer(), "req-1")
        except ApiError as error:
            reply = CATALOGUE.speaker(message).error(error, "req-1")
        return AWSResponse(request.url, reply.status, dict(reply.headers), Raw(reply.body))


class Raw:
    """A response body as botocore reads it."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, **_: Any) -> Iterator[bytes]:
        """The body in one piece."""
        yield self._body


def client(service: str, wire: Wire) -> Any:
    """A botocore client whose requests, signed as ever, go to `wire`."""
    made = botocore.session.Session().create_client(
        service,
        region_name="us-east-1",
        endpoint_url="https://localhost",
        aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key="secret",
        config=Config(parameter_validation=False, retries={"max_attempts": 0}),
    )
    made.meta.events.register("before-send", wire)
    return made


@pytest.mark.parametrize(
    ("service", "method", "parameters", "output"),
    [
        (
            "ec2",
            "authorize_security_group_ingress",
            {"GroupId": "sg-1", "IpPermissions": [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]},
            {"Return": True, "SecurityGroupRules": [{"SecurityGroupRuleId": "sgr-1", "IsEgress": False, "Tags": []}]},
        ),
        ("iam", "get_user", {"UserName": "Ann+Bob@x"}, {"User": {"UserName": "Ann+Bob@x", "Path": "/"}}),
        ("sts", "get_caller_identity", {}, {"UserId": "AIDA", "Account": "123456789012", "Arn": "arn:aws:iam::1:x"}),
        ("cloudtrail", "lookup_events", {"MaxResults": 5}, {"Events": [{"EventId": "1"}], "NextToken": "n"}),
        (
            "ec2-instance-connect",
            "send_ssh_public_key",
            {"InstanceId": "i-0123456789", "InstanceOSUser": "u", "SSHPublicKey": "k" * 80},
            {"RequestId": "req-1", "Success": True},
        ),
    ],
)
def test_botocores_clients_understand_the_codec(service: str, method: str, parameters: Any, output: Any) -> None:
    """A signed request of each service is told apart, read and answered."""
    wire = Wire(lambda: output)
    answer = getattr(client(service, wire), method)(**parameters)
    assert wire.parameters == [parameters]
    assert answer.pop("ResponseMetadata")["RequestId"] == "req-1"
    assert answer == output


@pytest.mark.parametrize(
    ("service", "method", "code"),
    [
        ("ec2", "create_security_group", "MissingParameter"),
        ("iam", "create_role", "ValidationError"),
        ("cloudtrail", "start_query", ""),
        ("ec2-instance-connect", "send_ssh_public_key", "InvalidArgsException"),
    ],
)
def test_botocores_clients_understand_refusals(service: str, method: str, code: str) -> None:
    """A request without its required parameters raises the client's own error, with our code and request id."""
    if not code:  # everything that StartQuery needs may be absent
        wire = Wire(lambda: (_ for _ in ()).throw(ApiError("InvalidQueryStatementException", "no")))
        code = "InvalidQueryStatementException"
    else:
        wire = Wire(dict)
    with pytest.raises(ClientError) as caught:
        getattr(client(service, wire), method)()
    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["ResponseMetadata"]["RequestId"] == "req-1"
