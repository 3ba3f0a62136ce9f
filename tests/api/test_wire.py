"""On the wire: signatures in every form, HTTP as it comes, and each service's own words for what is wrong."""

import datetime
import http.client
import json
import socket
import ssl
import urllib.parse
from xml.etree import ElementTree

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from tests.api.deployment import API, REGION, ROOT
from tests.api.people import User, allow
from tests.api.worlds import refusal

VERSIONS = {"ec2": "2016-11-15", "iam": "2010-05-08", "sts": "2011-06-15"}
FORM = "application/x-www-form-urlencoded; charset=utf-8"
EC2_CREDENTIALS = "AWS was not able to validate the provided access credentials"


class Wire:
    """One TLS connection to the API."""

    def __init__(self, deployment):
        context = ssl.create_default_context(cafile=str(deployment.serve.bundle))
        plain = socket.create_connection(("127.0.0.1", 443), timeout=10)
        self.socket = context.wrap_socket(plain, server_hostname=API)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        """Put bytes on the wire."""
        self.socket.sendall(data)

    def answer(self, method="POST"):
        """The next answer: (status, headers, body)."""
        response = http.client.HTTPResponse(self.socket, method=method)
        response.begin()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()

    def ask(self, data, method="POST"):
        """Send, and read the answer."""
        self.send(data)
        return self.answer(method)


@pytest.fixture
def wire(deployment):
    """A connection."""
    with Wire(deployment) as connection:
        yield connection


def query_body(action, service="ec2", **parameters):
    """A call in the query protocols."""
    return urllib.parse.urlencode({"Action": action, "Version": VERSIONS[service], **parameters}).encode()


def signed(body=b"", service="ec2", *, method="POST", query="", key=ROOT, region=REGION, token=None, headers=()):
    """A request signed by botocore, as a dictionary of headers."""
    request = AWSRequest(method, f"https://{API}/{query}", {"Host": API, **dict(headers)}, body)
    if body and "Content-Type" not in request.headers:
        request.headers["Content-Type"] = FORM
    botocore.auth.SigV4Auth(Credentials(*key, token), service, region).add_auth(request)
    return dict(request.headers.items())


def raw(headers, body=b"", method="POST", target="/"):
    """A request as bytes."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if "Transfer-Encoding" not in headers and (body or method == "POST"):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def error_of(answer):
    """(status, code, message) of an answer in XML, or in JSON 1.1."""
    status, headers, body = answer
    if headers["content-type"].startswith("application/x-amz-json"):
        told = json.loads(body)
        assert headers["x-amzn-errortype"] == told["__type"]
        return status, told["__type"], told.get("message", told.get("Message"))
    root = ElementTree.fromstring(body)
    found = {element.tag.rpartition("}")[2]: element.text for element in root.iter()}
    assert headers["x-amzn-requestid"] == found.get("RequestID", found.get("RequestId"))
    return status, found["Code"], found["Message"]


DESCRIBE = query_body("DescribeVpcs")
WHO = query_body("GetCallerIdentity", "sts")


# -- signatures --------------------------------------------------------------------------------------------------------


def test_by_header(wire):
    """POST with a form body, signed in the Authorization header."""
    status, headers, body = wire.ask(raw(signed(DESCRIBE), DESCRIBE))
    assert (status, headers["content-type"]) == (200, "text/xml;charset=UTF-8")
    assert ElementTree.fromstring(body).tag == "{http://ec2.amazonaws.com/doc/2016-11-15/}DescribeVpcsResponse"


def test_get(wire):
    """GET with the call in the query, signed in the header."""
    query = f"?{DESCRIBE.decode()}"
    headers = signed(method="GET", query=query)
    assert wire.ask(raw(headers, method="GET", target=f"/{query}"), "GET")[0] == 200


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_presigned(wire, method):
    """The signature in the query, as boto3's generate_presigned_url makes it."""
    query = f"?{DESCRIBE.decode()}"
    request = AWSRequest(method, f"https://{API}/{query}", {"Host": API})
    botocore.auth.SigV4QueryAuth(Credentials(*ROOT), "ec2", REGION, expires=60).add_auth(request)
    target = request.url.removeprefix(f"https://{API}")
    assert wire.ask(raw({"Host": API}, method=method, target=target), method)[0] == 200
    changed = target.replace("DescribeVpcs", "DescribeSubnets")
    status, code, _ = error_of(wire.ask(raw({"Host": API}, method=method, target=changed), method))
    assert (status, code) == (401, "AuthFailure")


def test_presigned_url_of_boto3(deployment, wire):
    """The whole way: boto3 makes the URL, a client without a credential uses it."""
    url = deployment.client("sts").generate_presigned_url("get_caller_identity", ExpiresIn=60, HttpMethod="GET")
    target = url.removeprefix(f"https://{API}")
    status, _, body = wire.ask(raw({"Host": API}, method="GET", target=target), "GET")
    assert (status, b":root</Arn>" in body) == (200, True)


SERVICES = {
    "ec2": (DESCRIBE, {}),
    "iam": (query_body("ListUsers", "iam"), {}),
    "sts": (WHO, {}),
    "ec2-instance-connect": (
        json.dumps({"InstanceId": "i-11111111", "InstanceOSUser": "u", "SSHPublicKey": "k" * 90}).encode(),
        {
            "Content-Type": "application/x-amz-json-1.1",
            "X-Amz-Target": "AWSEC2InstanceConnectService.SendSSHPublicKey",
        },
    ),
    "cloudtrail": (
        b"{}",
        {
            "Content-Type": "application/x-amz-json-1.1",
            "X-Amz-Target": "com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101.LookupEvents",
        },
    ),
}
by_service = pytest.mark.parametrize("service", SERVICES)


def asked(wire, service, **how):
    """One call of a service, signed in a way."""
    body, headers = SERVICES[service]
    return error_of(wire.ask(raw(signed(body, service, headers=headers, **how), body)))


@by_service
def test_wrong_secret(wire, service):
    """Each service's own code for a signature that does not match."""
    expected = {
        "ec2": (401, "AuthFailure"),
        "iam": (403, "SignatureDoesNotMatch"),
        "sts": (403, "SignatureDoesNotMatch"),
    }.get(service, (400, "InvalidSignatureException"))
    status, code, message = asked(wire, service, key=(ROOT[0], "wrong"))
    assert (status, code) == expected
    assert "The request signature we calculated does not match the signature you provided." in message
    assert message.startswith(EC2_CREDENTIALS) == (service == "ec2")


@by_service
def test_unknown_key(wire, service):
    """Each service's own code for a key that nobody has."""
    expected = {
        "ec2": (401, "AuthFailure"),
        "iam": (403, "InvalidClientTokenId"),
        "sts": (403, "InvalidClientTokenId"),
    }.get(service, (400, "UnrecognizedClientException"))
    status, code, message = asked(wire, service, key=("AKIANOBODYNOBODYNOBO", "secret"))
    assert (status, code) == expected
    assert "The security token included in the request is invalid." in message


@by_service
def test_unsigned(wire, service):
    """Each service's own code for a request without a signature."""
    body, headers = SERVICES[service]
    status, code, _ = error_of(wire.ask(raw({"Host": API, "Content-Type": FORM, **headers}, body)))
    json_service = "X-Amz-Target" in headers
    assert code == ("MissingAuthenticationTokenException" if json_service else "MissingAuthenticationToken")
    assert status == (400 if json_service else 403)


@by_service
def test_wrong_region(wire, service):
    """A signature for another region says which one it is here."""
    status, code, message = asked(wire, service, region="eu-west-1")
    assert status in (400, 401, 403)
    assert code in ("AuthFailure", "SignatureDoesNotMatch", "InvalidSignatureException")
    assert f"Credential should be scoped to a valid region, not 'eu-west-1': it is '{REGION}' here." in message


@by_service
@pytest.mark.parametrize("seconds", [-3600, 3600], ids=["an hour ago", "in an hour"])
def test_wrong_time(wire, service, seconds):
    """A signature of another hour is refused, whichever way the clock is wrong."""
    body, headers = SERVICES[service]
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    request = AWSRequest("POST", f"https://{API}/", {"Host": API, "Content-Type": FORM, **headers}, body)
    auth = botocore.auth.SigV4Auth(Credentials(*ROOT), service, REGION)
    request.context["timestamp"] = moment.strftime("%Y%m%dT%H%M%SZ")
    request.headers["X-Amz-Date"] = request.context["timestamp"]
    canonical = auth.canonical_request(request)
    signature = auth.signature(auth.string_to_sign(request, canonical), request)
    names = auth.signed_headers(auth.headers_to_sign(request))
    request.headers["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={auth.scope(request)}, SignedHeaders={names}, Signature={signature}"
    )
    status, code, message = error_of(wire.ask(raw(dict(request.headers.items()), body)))
    json_service = "X-Amz-Target" in headers
    assert code == ("InvalidSignatureException" if json_service else "RequestExpired")
    assert status in (400, 403)
    assert "signed 3" in message


def test_spellings(wire):
    """Spaces in headers, repeated headers, odd characters in query and body: what botocore signs is what we read."""
    status, _, _ = wire.ask(raw(signed(DESCRIBE, headers={"X-Spaced": "a   b  c "}), DESCRIBE))
    assert status == 200
    name = "tag:a b+c~*'()/%?&=\N{KEY}"
    body = query_body("DescribeVpcs", **{"Filter.1.Name": name, "Filter.1.Value.1": name})
    assert wire.ask(raw(signed(body), body))[0] == 200
    query = "?" + "&".join(
        f"{key}={urllib.parse.quote(value, safe='-_.~')}" for key, value in urllib.parse.parse_qsl(body.decode())
    )
    assert wire.ask(raw(signed(method="GET", query=query), method="GET", target=f"/{query}"), "GET")[0] == 200


def test_repeated_header(wire):
    """A signed header that comes twice counts as its values with a comma between (SigV4, canonical headers)."""
    headers = signed(DESCRIBE, headers={"X-Twice": "one,two"})
    data = raw(headers, DESCRIBE).replace(b"X-Twice: one,two", b"X-Twice: one\r\nX-Twice: two")
    assert wire.ask(data)[0] == 200


def test_changed_on_the_way(wire):
    """Another body, path parameter or header value than was signed is no longer what was signed."""
    headers = signed(DESCRIBE)
    date = headers["X-Amz-Date"]
    second_later = f"{date[:-2]}{(int(date[-2]) + 1) % 10}Z"
    for data in (
        raw(headers, query_body("DescribeSubnets")),
        raw(headers, DESCRIBE, target="/?MaxResults=5"),
        raw(headers | {"X-Amz-Date": second_later}, DESCRIBE),
    ):
        status, code, _ = error_of(wire.ask(data))
        assert (status, code) == (401, "AuthFailure")


def test_another_service(wire):
    """What is signed for one service is no call of another."""
    status, code, message = error_of(wire.ask(raw(signed(WHO, "ec2"), WHO)))
    assert (status, code) == (400, "NoSuchVersion")
    status, code, message = error_of(wire.ask(raw(signed(DESCRIBE, "s3"), DESCRIBE)))
    assert (status, code) == (400, "UnsupportedOperation")
    assert "signed for s3, which wicketgate does not offer" in message


def test_session_tokens(deployment, iam, wire):
    """A role's temporary credential works with its token, and with no other and without one not at all."""
    trust = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}],
    }
    role = iam.create_role(RoleName="wire", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    policy = {"Version": "2012-10-17", "Statement": [allow("ec2:DescribeVpcs")]}
    iam.put_role_policy(RoleName="wire", PolicyName="p", PolicyDocument=json.dumps(policy))
    user = User(deployment, iam)
    user.may(allow("sts:AssumeRole", role))
    sts = deployment.client("sts", *user.key)
    given = sts.assume_role(RoleArn=role, RoleSessionName="me")["Credentials"]
    key = given["AccessKeyId"], given["SecretAccessKey"]
    assert deployment.client("ec2", *key, given["SessionToken"]).describe_vpcs()["Vpcs"] is not None
    for token in (None, given["SessionToken"][:-4] + "AAAA"):
        status, code, _ = error_of(wire.ask(raw(signed(DESCRIBE, key=key, token=token), DESCRIBE)))
        assert (status, code) == (401, "AuthFailure")
    status, code, _ = error_of(wire.ask(raw(signed(DESCRIBE, token=given["SessionToken"]), DESCRIBE)))
    assert (status, code) == (401, "AuthFailure")  # root's key is not temporary
    other = query_body("DescribeSubnets")
    status, code, message = error_of(wire.ask(raw(signed(other, key=key, token=given["SessionToken"]), other)))
    assert (status, code) == (403, "UnauthorizedOperation")
    assert "assumed-role/wire/me" in message


def test_inactive_key(deployment, iam):
    """A key that is switched off is refused, and works again when it is switched on."""
    user = User(deployment, iam)
    user.may(allow("ec2:DescribeVpcs"))
    iam.update_access_key(UserName=user.name, AccessKeyId=user.key[0], Status="Inactive")
    assert refusal(user.ec2, "DescribeVpcs", {})[::2] == ("AuthFailure", 401)
    iam.update_access_key(UserName=user.name, AccessKeyId=user.key[0], Status="Active")
    user.ec2.describe_vpcs()


def test_iam_from_anywhere(deployment):
    """IAM is signed for us-east-1, which the SDK does by itself."""
    assert deployment.client("iam").list_users()["Users"] is not None


# -- what is asked for -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "service", "expected"),
    [
        (query_body("DescribeNothing"), "ec2", (400, "InvalidAction")),
        (query_body("DescribeVolumes"), "ec2", (400, "UnsupportedOperation")),
        (query_body("describevpcs"), "ec2", (400, "InvalidAction")),
        (b"Version=2016-11-15", "ec2", (400, "MissingAction")),
        (b"Action=DescribeVpcs", "ec2", (400, "MissingParameter")),
        (b"Action=DescribeVpcs&Version=2006-01-01", "ec2", (400, "NoSuchVersion")),
        (query_body("DescribeVpcs", Colour="red"), "ec2", (400, "UnknownParameter")),
        (DESCRIBE + b"&MaxResults=ten", "ec2", (400, "InvalidParameterValue")),
        (DESCRIBE + b"&Version=2016-11-15", "ec2", (400, "MalformedQueryString")),
        (DESCRIBE + b"&X=%zz", "ec2", (400, "MalformedQueryString")),
        (DESCRIBE + b"&Filter.0.Name=a", "ec2", (400, "InvalidParameterValue")),
        (query_body("DeleteVpc"), "ec2", (400, "MissingParameter")),
        (query_body("GetNothing", "iam"), "iam", (400, "InvalidAction")),
        (query_body("CreateSAMLProvider", "iam"), "iam", (400, "UnsupportedOperation")),
        (query_body("CreateUser", "iam"), "iam", (400, "ValidationError")),
        (query_body("DecodeAuthorizationMessage", "sts"), "sts", (400, "UnsupportedOperation")),
    ],
)
def test_what_is_asked(wire, body, service, expected):
    """Each kind of call that cannot be carried out, in the service's own code."""
    assert error_of(wire.ask(raw(signed(body, service), body)))[:2] == expected


@pytest.mark.parametrize(
    ("target", "body", "expected"),
    [
        ("AWSEC2InstanceConnectService.SendNothing", b"{}", (400, "UnknownOperationException")),
        ("AWSEC2InstanceConnectService.SendSerialConsoleSSHPublicKey", b"{}", (400, "UnsupportedOperationException")),
        ("Nobody.SendSSHPublicKey", b"{}", (400, "UnknownOperationException")),
        ("", b"{}", (400, "UnknownOperationException")),
        ("AWSEC2InstanceConnectService.SendSSHPublicKey", b"{", (400, "SerializationException")),
        ("AWSEC2InstanceConnectService.SendSSHPublicKey", b"{}", (400, "InvalidArgsException")),
    ],
)
def test_targets(wire, target, body, expected):
    """JSON 1.1: the error's type stands in the body and in x-amzn-ErrorType."""
    headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": target}
    answer = wire.ask(raw(signed(body, "ec2-instance-connect", headers=headers), body))
    assert answer[1]["content-type"] == "application/x-amz-json-1.1"
    assert error_of(answer)[:2] == expected


def test_names_in_errors(wire):
    """What a caller sends comes back escaped, cut, and without what XML cannot hold."""
    for name in ("<b>&amp;</b>", "a\x00\x08b", "\N{GRINNING FACE}", "x" * 9000):
        body = query_body(name)
        status, code, message = error_of(wire.ask(raw(signed(body), body)))
        assert (status, code) == (400, "MalformedQueryString" if "\x00" in name else "InvalidAction")
        assert len(message) < 600


@pytest.mark.parametrize("path", ["/nothing", "//", "/openTunnels", "/%2e"])
def test_other_paths(wire, path):
    """There is nothing but the APIs, at /."""
    assert error_of(wire.ask(raw(signed(DESCRIBE), DESCRIBE, target=path)))[:2] == (404, "InvalidAction")


# -- HTTP --------------------------------------------------------------------------------------------------------------


def test_two_on_one_connection(wire):
    """A connection is kept between calls, of different services too."""
    for body, service in ((DESCRIBE, "ec2"), (WHO, "sts"), (query_body("DescribeNothing"), "ec2"), (DESCRIBE, "ec2")):
        status, headers, _ = wire.ask(raw(signed(body, service), body))
        assert status == (400 if b"Nothing" in body else 200)
        assert headers["connection"] == "keep-alive"


def test_pipelined(wire):
    """Two requests at once: the first is answered, and the connection ends."""
    data = raw(signed(DESCRIBE), DESCRIBE)
    status, headers, _ = wire.ask(data + data)
    assert (status, headers["connection"]) == (200, "close")
    assert wire.socket.recv(1) == b""


def test_chunked(wire):
    """A body in chunks is signed and read as one."""
    headers = signed(DESCRIBE) | {"Transfer-Encoding": "chunked"}
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (DESCRIBE[:7], DESCRIBE[7:], b""))
    assert wire.ask(raw(headers) + chunks)[0] == 200


def test_expectation(wire):
    """Who waits for 100 Continue gets it, and then the answer."""
    wire.send(raw(signed(DESCRIBE) | {"Expect": "100-continue"}, DESCRIBE)[: -len(DESCRIBE)])
    assert wire.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert wire.ask(DESCRIBE)[0] == 200


def test_body_over_the_limit(wire):
    """More than a mebibyte is not read, however it comes, and the answer is not lost."""
    large = b"x" * (1024 * 1024 + 1)
    status, headers, body = wire.ask(raw(signed(large), large))
    assert (status, headers["connection"]) == (413, "close")
    assert body == b"The body has 1048577 bytes; at most 1048576 are read.\n"


def test_chunks_over_the_limit(wire):
    """The same for a body whose length is not told."""
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    assert wire.ask(raw({"Host": API, "Transfer-Encoding": "chunked"}) + chunk * 20)[0] == 413


@pytest.mark.parametrize("first", [True, False], ids=["first request", "later request"])
def test_head_over_the_limit(wire, first):
    """32 KiB of request line and headers are read, no more; on a connection that was used before too."""
    if not first:
        wire.ask(raw(signed(DESCRIBE), DESCRIBE))
    fits = raw(signed(DESCRIBE, headers={"X-Long": "x" * 30_000}), DESCRIBE)
    assert wire.ask(fits)[0] == 200
    assert wire.ask(raw(signed(DESCRIBE) | {"X-Long": "x" * 33_000}, DESCRIBE))[0] == 431


@pytest.mark.parametrize(
    "head",
    [
        b"X-Folded: a\r\n b\r\n",
        b"X-Control: a\x01b\r\n",
        b"X-Bare: a\nX-Injected: b\r\n",
        b"X Space: a\r\n",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
    ],
    ids=["folded", "control character", "bare line feed", "space in a name", "two lengths", "length and chunks"],
)
def test_ambiguous_heads(wire, head):
    """What two readers might read differently is never carried out."""
    data = raw(signed(DESCRIBE), DESCRIBE)
    status, headers, _ = wire.ask(data.replace(b"\r\n", b"\r\n" + head, 1))
    assert (status, headers["connection"]) == (400, "close")


def test_values_in_the_record(deployment, wire):
    """A header's value stands in the audit trail as data, whatever it holds: one line, the call's own."""
    name = 'x"}\\u000a{"eventName": "Injected"} \xff'
    status, headers, _ = wire.ask(raw(signed(DESCRIBE) | {"User-Agent": name}, DESCRIBE))
    (event,) = [event for event in deployment.audit() if event["requestID"] == headers["x-amzn-requestid"]]
    assert (status, event["userAgent"], event["eventName"]) == (200, name, "DescribeVpcs")


def test_every_answer_is_recorded(deployment, wire):
    """Calls that nobody signed, or that mean nothing, are in the audit trail under their request ids and names."""
    body, unnamed = query_body("DescribeNothing"), b"Version=2016-11-15&XAction=DescribeVpcs"
    for data, name, code in (
        (raw({"Host": API, "Content-Type": FORM}, DESCRIBE), "DescribeVpcs", "MissingAuthenticationToken"),
        (raw(signed(body), body), "DescribeNothing", "InvalidAction"),
        (raw(signed(unnamed), unnamed), "Unknown", "MissingAction"),
        (raw(signed(DESCRIBE, key=(ROOT[0], "wrong")), DESCRIBE), "DescribeVpcs", "AuthFailure"),
    ):
        request_id = wire.ask(data)[1]["x-amzn-requestid"]
        (event,) = [event for event in deployment.audit() if event["requestID"] == request_id]
        assert event["errorCode"].endswith(code)
        assert event["eventName"] == name


def test_sdk_understands(deployment):
    """The stock SDK turns each protocol's errors into its own exceptions."""
    with pytest.raises(ClientError) as caught:
        deployment.client("iam", ROOT[0], "wrong").list_users()
    assert caught.value.response["Error"]["Code"] == "SignatureDoesNotMatch"
    eic = deployment.client("ec2-instance-connect")
    with pytest.raises(eic.exceptions.EC2InstanceNotFoundException):
        eic.send_ssh_public_key(
            InstanceId="i-99999999999999999",
            InstanceOSUser="me",
            SSHPublicKey="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl",
        )
