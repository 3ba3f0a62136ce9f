"""Our Authorization header beside botocore's, byte for byte."""

from __future__ import annotations

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials
from hypothesis import given
from hypothesis import strategies as st

from wicketgate.sigv4.header import signed_headers
from wicketgate.sigv4.presign import Credentials
from wicketgate.sigv4.verify import timestamp

PRINTABLE = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)


@given(
    body=st.binary(max_size=100),
    token=st.none() | PRINTABLE,
    target=st.none() | PRINTABLE,
    secret=PRINTABLE,
    port=st.none() | st.integers(1, 65535).filter(lambda port: port not in (80, 443)),
)
def test_headers_equal_botocores(body, token, target, secret, port):
    """With and without session token, further headers and port."""
    host = f"api.wicketgate.test:{port}" if port else "api.wicketgate.test"
    headers = {"content-type": "application/x-amz-json-1.1"} | ({"x-amz-target": target} if target else {})
    theirs = AWSRequest("POST", f"https://{host}/", data=body, headers=dict(headers))
    SigV4Auth(BotocoreCredentials("AKIAX", secret, token), "ec2", "eu-west-1").add_auth(theirs)
    now = timestamp(theirs.headers["X-Amz-Date"])
    ours = signed_headers(
        {"host": host, **headers}, body, Credentials("AKIAX", secret, token), region="eu-west-1", service="ec2", now=now
    )
    assert ours.pop("host") == host
    assert ours == {name.lower(): value for name, value in theirs.headers.items()}
