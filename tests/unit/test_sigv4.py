"""Signatures: ours equal botocore's, and verify tells every way in which one does not hold."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from urllib.parse import parse_qs, urlencode, urlsplit

import msgspec
import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials
from hypothesis import given
from hypothesis import strategies as st

from wicketgate.model import AccessKey, AuthFailure, InvalidParameter
from wicketgate.sigv4 import Credentials, presign, tunnel_parameters
from wicketgate.sigv4.canonical import (
    EMPTY_SHA256,
    canonical_query,
    canonical_request,
    credential_scope,
    signature,
    signing_key,
    string_to_sign,
)
from wicketgate.sigv4.verify import (
    MAX_PARAMETERS,
    Expected,
    Proof,
    SignedRequest,
    parse_query,
    timestamp,
    verify_presigned,
)

NOW = 1_577_840_470.0  # 2020-01-01T01:01:10Z, nine seconds after the vector's date
HOST = "eice-123.ec2-instance-connect-endpoint.us-west-2.amazonaws.com"
KEY = AccessKey(id="access_key", secret="secret_key", user_name="alice")
TOKEN = "IQoJb3JpZ2luX2VjE+//w==/with+plus and space"
TEXT = st.text(st.characters(codec="utf-8"))
EXPECTED = Expected(region="us-west-2", service="ec2-instance-connect", window=60, clock_skew=300)


def signed_url(
    *,
    host: str = HOST,
    key: AccessKey = KEY,
    region: str = "us-west-2",
    at: float = NOW,
    expires: int = 60,
    token: str | None = None,
) -> str:
    """A URL as our client makes it."""
    parameters = tunnel_parameters("eice-123", 22, "10.0.0.0", 1)
    return presign(
        host, parameters, Credentials(key.id, key.secret, token or key.session_token), region=region, now=at,
        expires=expires,
    )  # fmt: skip


def query_of(url: str) -> dict[str, str]:
    """The decoded query of a URL."""
    return parse_query(urlsplit(url).query)


def verify(
    query: dict[str, str],
    *,
    keys: tuple[AccessKey, ...] = (KEY,),
    now: float = NOW,
    host: str = HOST,
    headers: dict[str, str] | None = None,
    expected: Expected = EXPECTED,
) -> Proof:
    """Verify a query as the gateway does."""
    request = SignedRequest(method="GET", path="/openTunnel", query=query, headers={**(headers or {}), "host": host})
    return verify_presigned(request, expected, {key.id: key for key in keys}.get, now)


def failure(query: dict[str, str], **how: object) -> AuthFailure:
    """The AuthFailure that verifying raises."""
    with pytest.raises(AuthFailure) as caught:
        verify(query, **how)  # type: ignore[arg-type]
    return caught.value


def sign_by_hand(query: dict[str, str], headers: dict[str, str], key: AccessKey = KEY) -> dict[str, str]:
    """Sign any query, as a client other than ours might have written it."""
    date, scope = query["X-Amz-Date"], query["X-Amz-Credential"].split("/", 1)[1]
    day, region, service, _ = scope.split("/")
    request = canonical_request("GET", "/openTunnel", canonical_query(query.items()), headers, EMPTY_SHA256)
    signed = signature(signing_key(key.secret, day, region, service), string_to_sign(date, scope, request))
    return {**query, "X-Amz-Signature": signed}


def unsigned(**changes: str | None) -> dict[str, str]:
    """The vector's query without a signature, with some parameters changed or (None) left out."""
    query: dict[str, str | None] = {**query_of(signed_url())}
    del query["X-Amz-Signature"]
    query.update({name.replace("_", "-"): value for name, value in changes.items()})
    return {name: value for name, value in query.items() if value is not None}


# -- making ------------------------------------------------------------------------------------------------------------


def botocore_url(
    host: str, parameters: dict[str, str], credentials: BotocoreCredentials, region: str, expires: int = 60
) -> str:
    """A URL made by botocore's query signer."""
    request = AWSRequest("GET", f"wss://{host}/openTunnel?{urlencode(parameters)}", headers={"host": host})
    SigV4QueryAuth(credentials, "ec2-instance-connect", region, expires=expires).add_auth(request)
    return str(request.url)


def same_moment(url: str) -> float:
    """The time at which a URL says it was signed."""
    moment = timestamp(query_of(url)["X-Amz-Date"])
    assert moment is not None
    return moment


def test_conformance_vector():
    """The vector of the AWS CLI's own tests: this request has this signature."""
    url = signed_url(at=1_577_840_461)
    assert url == (
        f"wss://{HOST}/openTunnel?instanceConnectEndpointId=eice-123&remotePort=22&privateIpAddress=10.0.0.0"
        "&maxTunnelDuration=1&X-Amz-Algorithm=AWS4-HMAC-SHA256"
        "&X-Amz-Credential=access_key%2F20200101%2Fus-west-2%2Fec2-instance-connect%2Faws4_request"
        "&X-Amz-Date=20200101T010101Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host"
        "&X-Amz-Signature=3a56740422a5b9aebd22d860b7a30c729e459a6f71a83bc0de3a2b44b7353f28"
    )


@pytest.mark.parametrize("token", [None, TOKEN])
@pytest.mark.parametrize("address", ["10.0.1.11", "2001:db8::1", "ip-10-0-1-11.ec2.internal", "ümlaut & ~ / +*' "])
@pytest.mark.parametrize("duration", [None, 0, 3600])
@pytest.mark.parametrize("host", [HOST, "127.0.0.1:8443"])
def test_url_equals_botocore(token, address, duration, host):
    """Byte for byte what botocore's query signer makes, with session tokens and characters that need escaping."""
    parameters = tunnel_parameters("eice-0123456789abcdef0", 3389, address, duration)
    theirs = botocore_url(host, parameters, BotocoreCredentials("AKIA/1+2", "s3cr3t/+", token), "eu-west-1")
    ours = presign(
        host, parameters, Credentials("AKIA/1+2", "s3cr3t/+", token), region="eu-west-1", now=same_moment(theirs)
    )
    assert ours == theirs


@given(
    st.dictionaries(TEXT.filter(lambda name: name and not name.startswith("X-Amz-")), TEXT, max_size=6),
    TEXT.filter(bool),
    st.none() | TEXT.filter(bool),
    st.integers(1, 604_800),
)
def test_any_url_equals_botocore(parameters, secret, token, expires):
    """The same for arbitrary parameters, secrets, tokens and times."""
    theirs = botocore_url(HOST, parameters, BotocoreCredentials("AKIA", secret, token), "us-east-1", expires)
    ours = presign(
        HOST,
        parameters,
        Credentials("AKIA", secret, token),
        region="us-east-1",
        now=same_moment(theirs),
        expires=expires,
    )
    assert ours == theirs


REQUEST_SIGNER = f"""
import sys
from urllib.parse import urlencode
import botocore.session
from botocore.signers import RequestSigner
session = botocore.session.Session()
session.set_credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG", sys.argv[1] or None)
model = session.get_service_model("ec2-instance-connect")
credentials, emitter = session.get_credentials(), session.get_component("event_emitter")
signer = RequestSigner(
    model.service_id, "us-west-2", model.signing_name, model.signature_version, credentials, emitter
)
parameters = dict(
    instanceConnectEndpointId="eice-123", remotePort=22, privateIpAddress="2001:db8::1", maxTunnelDuration=600
)
request = dict(
    url="wss://{HOST}/openTunnel?" + urlencode(parameters), method="GET", headers=dict(host="{HOST}"), body=dict(),
    query_string="", url_path="/", context=dict(),
)
print(signer.generate_presigned_url(request_dict=request, operation_name="openTunnel", expires_in=60))
"""


@pytest.mark.parametrize("token", ["", TOKEN])
@pytest.mark.parametrize("crt", [False, True])
def test_url_equals_the_clis_request_signer(token, crt):
    """The AWS CLI's way, RequestSigner with botocore's own service model: the same URL, and verify accepts it.

    Where awscrt signs instead of botocore (an implementation in C), two parameters change places and nothing else.
    """
    environment = {**os.environ, "BOTO_DISABLE_CRT": "false" if crt else "true"}
    command = [sys.executable, "-c", REQUEST_SIGNER, token]
    theirs = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()
    moment = same_moment(theirs)
    credentials = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG", token or None)
    ours = presign(
        HOST, tunnel_parameters("eice-123", 22, "2001:db8::1", 600), credentials, region="us-west-2", now=moment
    )
    if crt:
        expires, headers = "&X-Amz-Expires=60", "&X-Amz-SignedHeaders=host"
        ours = ours.replace(expires + headers, headers + expires)
    assert ours == theirs
    key = AccessKey(id="AKIDEXAMPLE", secret="wJalrXUtnFEMI/K7MDENG", user_name="alice", session_token=token or None)
    assert verify(query_of(theirs), keys=(key,), now=moment).key == key


def test_shared_functions_verify_botocores_header_signatures():
    """The canonical functions also give botocore's signature in an Authorization header of a POST with a body."""
    body = b"Action=DescribeInstanceConnectEndpoints&Version=2016-11-15"
    request = AWSRequest(
        "POST", "https://ec2.us-west-2.amazonaws.com/?b=2&a=1", data=body, headers={"X-Odd": " a   b "}
    )
    SigV4Auth(BotocoreCredentials("AKID", "secret"), "ec2", "us-west-2").add_auth(request)
    names = request.headers["Authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
    headers = {name.lower(): value for name, value in request.headers.items()} | {"host": "ec2.us-west-2.amazonaws.com"}
    date = request.headers["X-Amz-Date"]
    canonical = canonical_request(
        "POST",
        "/",
        canonical_query({"a": "1", "b": "2"}.items()),
        {name: headers[name] for name in names},
        hashlib.sha256(body).hexdigest(),
    )
    to_sign = string_to_sign(date, credential_scope(date, "us-west-2", "ec2"), canonical)
    ours = signature(signing_key("secret", date[:8], "us-west-2", "ec2"), to_sign)
    assert request.headers["Authorization"].endswith(f"Signature={ours}")


def test_import_is_light():
    """Importing the client's half loads neither msgspec nor the model."""
    code = "import sys, wicketgate.sigv4; print([m for m in sys.modules if 'msgspec' in m or 'wicketgate.model' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- verifying ---------------------------------------------------------------------------------------------------------


def test_our_url_verifies():
    """What presign makes, verify proves: key, signature, end."""
    query = query_of(signed_url())
    assert verify(query) == Proof(KEY, query["X-Amz-Signature"], NOW + 60)


def test_order_of_parameters_does_not_matter():
    """Go clients sort their query; the signature is the same."""
    query = query_of(signed_url())
    assert verify(dict(sorted(query.items()))) == verify(dict(reversed(query.items())))


def test_host_is_signed_with_its_port():
    """A Host header with a port verifies against a URL signed with that port, and with no other."""
    query = query_of(signed_url(host="127.0.0.1:8443"))
    assert verify(query, host="127.0.0.1:8443").key == KEY
    assert failure(query, host="127.0.0.1").code == "SignatureDoesNotMatch"


def test_missing_expires_gets_our_window():
    """Without X-Amz-Expires (Teleport, rdsconn) a URL is good for our window."""
    query = sign_by_hand(unsigned(X_Amz_Expires=None), {"host": HOST})
    assert verify(query, now=NOW + 60).expires == NOW + 60
    assert failure(query, now=NOW + 61).code == "RequestExpired"


def test_longer_expires_is_cut_to_our_window():
    """A URL that asks for a week ends with our window."""
    query = query_of(signed_url(expires=604_800))
    assert verify(query, now=NOW + 60).expires == NOW + 60
    assert failure(query, now=NOW + 61).code == "RequestExpired"


def test_shorter_expires_is_kept():
    """A URL that asks for 5 s ends after 5 s, and the message says when it was signed."""
    query = query_of(signed_url(expires=5))
    assert verify(query, now=NOW + 5).expires == NOW + 5
    error = failure(query, now=NOW + 6)
    assert (error.code, "signed 6 s ago" in str(error), "good for 5 s" in str(error)) == ("RequestExpired", True, True)


def test_clock_behind():
    """A URL of a clock that is 90 s behind has ended when it is made, as at AWS; the message says what to do."""
    error = failure(query_of(signed_url(at=NOW - 90)))
    assert error.code == "RequestExpired"
    assert "the clock of the machine that signs is 90 s behind ours: set that clock" in str(error)


def test_clock_ahead():
    """A signer's clock may be 300 s ahead, not 301."""
    query = query_of(signed_url(at=NOW + 300))
    assert verify(query).key == KEY
    error = failure(query, now=NOW - 1)
    assert error.code == "RequestExpired"
    assert "301 s in the future" in str(error)


@pytest.mark.parametrize("name", sorted(query_of(signed_url())))
def test_every_parameter_is_covered(name):
    """Changing any one parameter makes the request fail."""
    query = query_of(signed_url())
    last = query[name][-1]
    query[name] = query[name][:-1] + ("0" if last != "0" else "1")
    assert failure(query).http_status == 403


@pytest.mark.parametrize("name", [name for name in query_of(signed_url()) if not name.startswith("X-Amz")])
def test_removed_or_added_parameter(name):
    """A tunnel parameter taken away or another one added: the signature does not match."""
    query = query_of(signed_url())
    added = {**query, f"{name}2": "1"}
    del query[name]
    assert failure(query).code == failure(added).code == "SignatureDoesNotMatch"


@given(st.text("0123456789abcdef", min_size=64, max_size=64))
def test_guessed_signature(guess):
    """A well-formed signature that is not the right one does not match."""
    query = {**query_of(signed_url()), "X-Amz-Signature": guess}
    assert failure(query).code == "SignatureDoesNotMatch"


@pytest.mark.parametrize("name", ["Algorithm", "Credential", "Date", "SignedHeaders", "Signature"])
def test_missing_signature_parameter_is_named(name):
    """Each needed parameter, left out or empty, is named in an IncompleteSignature."""
    query = query_of(signed_url())
    query[f"X-Amz-{name}"] = ""
    empty = failure(query)
    del query[f"X-Amz-{name}"]
    gone = failure(query)
    assert empty.code == gone.code == "IncompleteSignature"
    assert f"X-Amz-{name}" in str(empty)
    assert str(gone) == str(empty)


def test_unsigned_request():
    """A URL without any signature says that one is missing."""
    assert failure(tunnel_parameters("eice-1", 22, "10.0.0.1")).code == "MissingAuthenticationToken"


@pytest.mark.parametrize(
    ("name", "value", "code", "words"),
    [
        ("X-Amz-Algorithm", "AWS4-ECDSA-P256-SHA256", "IncompleteSignature", "sign with AWS4-HMAC-SHA256"),
        ("X-Amz-Credential", "access_key", "IncompleteSignature", "<access key id>/<YYYYMMDD>"),
        ("X-Amz-Credential", "/20200101/us-west-2/ec2-instance-connect/aws4_request", "IncompleteSignature", "form"),
        ("X-Amz-Credential", "k/20200102/us-west-2/ec2-instance-connect/aws4_request", "SignatureDoesNotMatch", "Date"),
        ("X-Amz-Credential", "k/20200101/mars-1/ec2-instance-connect/aws4_request", "SignatureDoesNotMatch", "mars-1"),
        ("X-Amz-Credential", "k/20200101/us-west-2/ec2/aws4_request", "SignatureDoesNotMatch", "correct service"),
        ("X-Amz-Credential", "k/20200101/us-west-2/ec2-instance-connect/aws5", "SignatureDoesNotMatch", "terminator"),
        ("X-Amz-Date", "20200101T010170Z", "IncompleteSignature", "basic format"),
        ("X-Amz-Date", "20200101", "IncompleteSignature", "basic format"),
        ("X-Amz-Date", "20200101T٠٠٠٠٠٠Z", "IncompleteSignature", "basic format"),
        ("X-Amz-Expires", "0", "IncompleteSignature", "1 to 604800"),
        ("X-Amz-Expires", "-5", "IncompleteSignature", "1 to 604800"),
        ("X-Amz-Expires", "604801", "IncompleteSignature", "1 to 604800"),
        ("X-Amz-Expires", "6e1", "IncompleteSignature", "1 to 604800"),
        ("X-Amz-Expires", "", "IncompleteSignature", "1 to 604800"),
        ("X-Amz-SignedHeaders", "user-agent", "IncompleteSignature", "'host'"),
        ("X-Amz-SignedHeaders", "host;host", "IncompleteSignature", "each once"),
        ("X-Amz-SignedHeaders", "user-agent;host", "IncompleteSignature", "sorted"),
        ("X-Amz-SignedHeaders", "host;x-none", "IncompleteSignature", "'x-none'"),
        ("X-Amz-Signature", "A" * 64, "IncompleteSignature", "lower-case"),
        ("X-Amz-Signature", "é" * 64, "IncompleteSignature", "lower-case"),
        ("X-Amz-Signature", "ab", "IncompleteSignature", "64"),
    ],
)
def test_malformed_signature_parameter(name, value, code, words):
    """Each malformed value has AWS's code and says what would be right."""
    error = failure({**query_of(signed_url()), name: value})
    assert error.code == code
    assert words in str(error)


def test_other_signed_headers_are_verified():
    """A header signed beside host counts when the request has it, and its change is noticed."""
    query = unsigned(X_Amz_SignedHeaders="host;user-agent")
    query = sign_by_hand(query, {"host": HOST, "user-agent": "x  y"})
    assert verify(query, headers={"user-agent": "x y "}).key == KEY
    assert failure(query, headers={"user-agent": "xy"}).code == "SignatureDoesNotMatch"


def test_header_that_is_not_ascii():
    """A Host header that cannot be encoded is refused, not a crash."""
    assert failure(query_of(signed_url()), host="h\udcffst").code == "IncompleteSignature"


def test_unknown_key():
    """A key that nobody has."""
    assert failure(query_of(signed_url()), keys=()).code == "InvalidClientTokenId"


def test_inactive_key_is_told_only_to_its_holder():
    """Who signs right hears that the key is inactive; who guesses hears nothing of it."""
    key = msgspec.structs.replace(KEY, active=False)
    told = failure(query_of(signed_url()), keys=(key,))
    guessed = failure({**query_of(signed_url()), "X-Amz-Signature": "0" * 64}, keys=(key,))
    assert (told.code, guessed.code) == ("InvalidClientTokenId", "SignatureDoesNotMatch")
    assert "inactive" in str(told)
    assert "inactive" not in str(guessed)


TEMPORARY = AccessKey(id="ASIA1", secret="temporary", user_name="alice", session_token=TOKEN, expires=NOW + 30)


def test_session_token():
    """A temporary key works with its session token until the key ends, and not at that moment."""
    query = query_of(signed_url(key=TEMPORARY))
    assert verify(query, keys=(TEMPORARY,), now=NOW + 29.9).key == TEMPORARY
    assert failure(query, keys=(TEMPORARY,), now=NOW + 30).code == "ExpiredToken"


@pytest.mark.parametrize(("stored", "sent"), [(TOKEN, None), (TOKEN, "other"), (None, TOKEN), (TOKEN, "ünïcode")])
def test_wrong_session_token(stored, sent):
    """A token missing, another, or for a key that has none: the token is invalid although the signature holds."""
    key = msgspec.structs.replace(TEMPORARY, session_token=stored)
    query = query_of(signed_url(key=msgspec.structs.replace(key, session_token=None), token=sent))
    assert failure(query, keys=(key,)).code == "InvalidClientTokenId"


# -- reading the query -------------------------------------------------------------------------------------------------


@given(st.dictionaries(TEXT.filter(bool), TEXT, max_size=MAX_PARAMETERS))
def test_parse_query_undoes_urlencode(parameters):
    """What is percent-encoded comes back as it was; a '+' is a plus sign, unlike in forms."""
    encoded = urlencode(parameters).replace("+", "%20")
    assert parse_query(encoded) == parameters
    assert parse_query(encoded) == {name: v[0] for name, v in parse_qs(encoded, keep_blank_values=True).items()}


def test_plus_is_a_plus():
    """SigV4 knows no form encoding."""
    assert parse_query("a=1+1&b&c==&&") == {"a": "1+1", "b": "", "c": "="}


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("remotePort=22&remotePort=23", "'remotePort' is given twice"),
        ("remotePort=22&remote%50ort=22", "'remotePort' is given twice"),
        ("a=%", "write '%' as %25"),
        ("a=%zz", "not percent-encoded"),
        ("%4=b", "not percent-encoded"),
        ("a=é", "not percent-encoded"),
        ("a=%ff", "UTF-8"),
        ("&".join(f"a{index}=1" for index in range(33)), "at most 32"),
    ],
)
def test_query_that_two_readers_could_understand_differently(query, words):
    """Duplicates, broken encoding and floods are refused with a worded error."""
    with pytest.raises(InvalidParameter, match=words):
        parse_query(query)
