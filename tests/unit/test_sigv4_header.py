"""Requests signed by their Authorization header, as every SDK call is: botocore signs, we verify."""

import hashlib

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from wicketgate.model import AccessKey, AuthFailure
from wicketgate.sigv4 import verify
from wicketgate.sigv4.verify import Expected, SignedRequest, verify_header

KEY = AccessKey(id="AKIAEXAMPLE", secret="a/secret", user_name="alice")
TEMPORARY = AccessKey(id="ASIAEXAMPLE", secret="b/secret", user_name="alice", session_token="token/+==")
KEYS = {key.id: key for key in (KEY, TEMPORARY)}
EXPECTED = Expected(region="us-east-1", service="ec2", window=60, clock_skew=300)


def signed(body=b"Action=DescribeVpcs&Version=2016-11-15", key=KEY, url="https://api.wicketgate.test/", **headers):
    """(SignedRequest as the server reads it, time of signing) of a POST that botocore signed."""
    request = AWSRequest(
        "POST", url, data=body, headers={"Content-Type": "application/x-www-form-urlencoded", **headers}
    )
    SigV4Auth(Credentials(key.id, key.secret, key.session_token), "ec2", "us-east-1").add_auth(request)
    sent = {name.lower(): value for name, value in request.headers.items()}
    sent["host"] = "api.wicketgate.test"
    at = verify.timestamp(sent["x-amz-date"])
    made = SignedRequest(method="POST", path="/", query={}, headers=sent, payload_hash=hashlib.sha256(body).hexdigest())
    return made, at


def _change(request, **change):
    import msgspec

    return msgspec.structs.replace(request, **change)


@given(st.binary(max_size=200))
def test_botocore_signature_holds(body):
    """Whatever the body, a request signed by botocore is proven to be its key's."""
    request, at = signed(body)
    assert verify_header(request, EXPECTED, KEYS.get, at).key == KEY


def test_temporary_key():
    """A temporary key's token is in the signed headers and must be the right one."""
    request, at = signed(key=TEMPORARY)
    assert verify_header(request, EXPECTED, KEYS.get, at).key == TEMPORARY
    headers = {**request.headers, "x-amz-security-token": "another"}
    with pytest.raises(AuthFailure, match="does not match"):
        verify_header(_change(request, headers=headers), EXPECTED, KEYS.get, at)


@pytest.mark.parametrize(
    ("what", "change", "code"),
    [
        ("another body", {"payload_hash": hashlib.sha256(b"x").hexdigest()}, "SignatureDoesNotMatch"),
        ("another method", {"method": "GET"}, "SignatureDoesNotMatch"),
        ("another path", {"path": "/x"}, "SignatureDoesNotMatch"),
        ("another query", {"query": {"Action": "RunInstances"}}, "SignatureDoesNotMatch"),
    ],
)
def test_changed_request(what, change, code):
    """A request changed after signing is not proven."""
    request, at = signed()
    with pytest.raises(AuthFailure) as caught:
        verify_header(_change(request, **change), EXPECTED, KEYS.get, at)
    assert caught.value.code == code, what


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (None, "MissingAuthenticationToken"),
        ("Basic YTpi", "IncompleteSignature"),
        ("AWS4-HMAC-SHA256 Credential=x", "IncompleteSignature"),
        ("AWS4-HMAC-SHA256 Credential=x, SignedHeaders=host, Signature=00, Extra=1", "IncompleteSignature"),
        ("AWS4-HMAC-SHA256 garbage", "IncompleteSignature"),
        ("AWS4-HMAC-SHA256 ,,=,", "IncompleteSignature"),
    ],
)
def test_broken_header(authorization, code):
    """A missing or broken Authorization header is named as such."""
    request, at = signed()
    headers = {name: value for name, value in request.headers.items() if name != "authorization"}
    if authorization is not None:
        headers["authorization"] = authorization
    with pytest.raises(AuthFailure) as caught:
        verify_header(_change(request, headers=headers), EXPECTED, KEYS.get, at)
    assert caught.value.code == code


@pytest.mark.parametrize(("offset", "holds"), [(-301, False), (-299, True), (299, True), (301, False)])
def test_five_minutes_either_way(offset, holds):
    """A signature is good for five minutes before and after its date, and not a second longer."""
    request, at = signed()
    if holds:
        assert verify_header(request, EXPECTED, KEYS.get, at + offset)
    else:
        with pytest.raises(AuthFailure) as caught:
            verify_header(request, EXPECTED, KEYS.get, at + offset)
        assert caught.value.code == "RequestExpired"


def test_signature_is_over_host():
    """The same request sent to another host is not proven."""
    request, at = signed()
    headers = {**request.headers, "host": "other.wicketgate.test"}
    with pytest.raises(AuthFailure, match="does not match"):
        verify_header(_change(request, headers=headers), EXPECTED, KEYS.get, at)
