"""Everything that is answered with an HTTP error: status, JSON, headers, and that it arrives."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable

import pytest

from tests.wire.conftest import open_tunnel
from tests.wire.gateway_harness import GatewayProcess, Target, read_answer, signed_path, upgrade
from wicketgate.tunnel import DialReply

GOOD = "/openTunnel?a=b"


def check(answer, status: int, code: str) -> None:
    """The shape every refusal has."""
    assert answer.status == status, answer.body
    assert answer.error["ErrorCode"] == code
    assert set(answer.error) == {"ErrorCode", "Message"} and answer.error["Message"]
    assert answer.all("content-length") == [str(len(answer.body))]
    assert answer.all("content-type") == ["application/json"]
    assert answer.all("connection") == ["close"]
    assert len(answer.all("x-amzn-requestid")) == 1 and len(answer.all("x-amzn-requestid")[0]) == 36


HEADS = [
    pytest.param(upgrade("/elsewhere"), 404, "UnknownOperation", id="path"),
    pytest.param(upgrade("/opentunnel"), 404, "UnknownOperation", id="path is case-sensitive"),
    pytest.param(upgrade(GOOD).replace(b"GET", b"POST", 1), 405, "MethodNotAllowed", id="method"),
    pytest.param(upgrade(GOOD, Host=None), 400, "MalformedRequest", id="no host"),
    pytest.param(upgrade(GOOD, X="y").replace(b"X: y", b"Host: again"), 400, "MalformedRequest", id="two hosts"),
    pytest.param(upgrade(GOOD, Host="a b"), 400, "MalformedRequest", id="bad host"),
    pytest.param(upgrade(GOOD, Upgrade=None), 426, "UpgradeRequired", id="no upgrade"),
    pytest.param(upgrade(GOOD, Upgrade="h2c"), 426, "UpgradeRequired", id="other upgrade"),
    pytest.param(upgrade(GOOD, Connection="keep-alive"), 426, "UpgradeRequired", id="connection without upgrade"),
    pytest.param(upgrade(GOOD, Sec_WebSocket_Version="8"), 426, "UpgradeRequired", id="old version"),
    pytest.param(upgrade(GOOD, Sec_WebSocket_Key=None), 400, "MalformedRequest", id="no key"),
    pytest.param(upgrade(GOOD, Sec_WebSocket_Key="short"), 400, "MalformedRequest", id="bad key"),
    pytest.param(b"GET /openTunnel HTTP/1.0\r\nHost: x\r\n\r\n", 505, "HttpVersionNotSupported", id="HTTP/1.0"),
    pytest.param(b"hello\r\n\r\n", 400, "MalformedRequest", id="no HTTP"),
    pytest.param(b"GET openTunnel HTTP/1.1\r\nHost: x\r\n\r\n", 400, "MalformedRequest", id="no path"),
    pytest.param(upgrade(GOOD, X="y").replace(b"X: y", b"X : y"), 400, "MalformedRequest", id="space before colon"),
    pytest.param(upgrade(GOOD, X="y").replace(b"X: y", b" folded"), 400, "MalformedRequest", id="folded line"),
    pytest.param(upgrade(GOOD, X="y").replace(b"X: y", b"X: a\nb"), 400, "MalformedRequest", id="bare LF"),
    pytest.param(upgrade(GOOD, Content_Length="5") + b"hello", 400, "MalformedRequest", id="body"),
    pytest.param(upgrade(GOOD, Transfer_Encoding="chunked"), 400, "MalformedRequest", id="chunked"),
    pytest.param(upgrade(GOOD, X="y" * 40_000), 431, "RequestHeaderFieldsTooLarge", id="40 KB of head"),
    pytest.param(b"G" * 33_000, 431, "RequestHeaderFieldsTooLarge", id="no end in 33 KB"),
    pytest.param(
        upgrade(GOOD, **{f"X{i}": "y" for i in range(130)}), 431, "RequestHeaderFieldsTooLarge", id="130 headers"
    ),
]


@pytest.mark.parametrize(("data", "status", "code"), HEADS)
def test_bad_head(shared: GatewayProcess, data: bytes, status: int, code: str):
    """A head that cannot become a tunnel gets its own HTTP error, complete, and the connection a clean end."""
    check(shared.refused(data), status, code)


def test_what_would_be_right_is_in_the_headers(shared: GatewayProcess):
    """405 names the method, 426 the upgrade and the version (RFC 9110 section 15.5.6, RFC 6455 section 4.4)."""
    assert shared.refused(upgrade(GOOD).replace(b"GET", b"PUT", 1)).all("allow") == ["GET"]
    answer = shared.refused(upgrade(GOOD, Sec_WebSocket_Version="99"))
    assert answer.all("sec-websocket-version") == ["13"]
    assert answer.all("upgrade") == ["websocket"]


CALLS = [
    pytest.param(lambda: GOOD, 403, "MissingAuthenticationToken", id="unsigned"),
    pytest.param(lambda: signed_path(22).replace("Port=22", "Port=23"), 403, "SignatureDoesNotMatch", id="signature"),
    pytest.param(lambda: signed_path(22, key="AKIANOBODY"), 403, "InvalidClientTokenId", id="unknown key"),
    pytest.param(lambda: signed_path(22, key="AKIANONE"), 403, "AccessDeniedException", id="no policy"),
    pytest.param(lambda: signed_path(70000), 400, "InvalidParameter", id="port"),
    pytest.param(lambda: signed_path(22, privateIpAddress="127.0.0.1"), 400, "InvalidParameter", id="loopback target"),
    pytest.param(
        lambda: signed_path(22, instanceConnectEndpointId="eice-nope"),
        404,
        "InvalidInstanceConnectEndpointId.NotFound",
        id="no endpoint",
    ),
]


@pytest.mark.parametrize(("make_path", "status", "code"), CALLS)
def test_refused_call(shared: GatewayProcess, make_path: Callable[[], str], status: int, code: str):
    """What admit refuses is an HTTP error in AWS's shape, audited under the request id of the answer."""
    path = make_path()
    answer = shared.refused(upgrade(path))
    check(answer, status, code)
    (event,) = [one for one in shared.audit() if one["requestID"] == answer.all("x-amzn-requestid")[0]]
    assert event["eventName"] == "OpenTunnel"
    assert event["errorMessage"] == answer.error["Message"]
    assert event["errorCode"] == code.replace("AccessDeniedException", "AccessDenied")
    signature = path.partition("X-Amz-Signature=")[2]
    assert not signature or signature not in str(event), "a log must not hold what opens a tunnel"


def test_a_refused_call_dials_nothing(shared: GatewayProcess):
    """No dial request leaves the gateway for a call that IAM denies."""
    before = len(shared.netd.requests)
    shared.refused(upgrade(signed_path(22, key="AKIANONE")))
    assert len(shared.netd.requests) == before


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("endpoint", 400, "InvalidState"),
        ("target", 400, "InvalidParameter"),
        ("client-address", 400, "UnsupportedOperation"),
    ],
)
def test_permanent_refusal_by_netd(gateway: GatewayProcess, kind, status: int, code: str):
    """What trying again cannot change is an HTTP error, and the attempt's line in the audit trail says so."""
    gateway.netd.answer = lambda request: DialReply(id=request.id, refused=kind, message="the reason")
    answer = gateway.refused(upgrade(signed_path(22)))
    check(answer, status, code)
    assert answer.error["Message"] == "the reason"
    (event,) = gateway.wait_audit("OpenTunnel")
    assert (event["errorCode"], event["errorMessage"]) == (code, "the reason")
    assert len(gateway.audit()) == 1


@pytest.mark.parametrize("connection", ["Upgrade", "keep-alive, Upgrade", "upgrade"])
def test_connection_header_forms(shared: GatewayProcess, target: Target, connection: str):
    """`Connection` is a list of case-insensitive tokens (RFC 9110 section 7.6.1); Firefox-like clients send two."""
    with shared.tls() as sock:
        sock.sendall(upgrade(signed_path(target.port), Connection=connection))
        assert sock.recv(12) == b"HTTP/1.1 101"
        target.accept().close()


def test_head_in_single_bytes(shared: GatewayProcess, target: Target):
    """A head that trickles in is put together, wherever the network cut it."""
    with shared.tls() as sock:
        for byte in upgrade(signed_path(target.port)):
            sock.send(bytes([byte]))
        assert sock.recv(12) == b"HTTP/1.1 101"
        target.accept().close()


def test_head_just_below_the_limit(shared: GatewayProcess, target: Target):
    """31 KiB of head are taken: picows alone would have dropped anything above 16 KiB."""
    with shared.tls() as sock:
        sock.sendall(upgrade(signed_path(target.port), X="y" * 31_000))
        assert sock.recv(12) == b"HTTP/1.1 101"
        target.accept().close()


def test_slow_head(tmp_path):
    """A head that does not come to its end is answered 408 when the timer ends, not cut."""
    gateway = GatewayProcess(tmp_path, head_timeout=0.5)
    gateway.start()
    try:
        with gateway.tls() as sock:
            sock.sendall(b"GET /openTunnel HTTP/1.1\r\n")
            start = time.monotonic()
            check(read_answer(sock), 408, "RequestTimeout")
            assert time.monotonic() - start < 5
    finally:
        gateway.close()


def test_answer_survives_a_client_that_still_sends(shared: GatewayProcess):
    """The answer to an oversized head arrives although 1 MB more is on its way: no reset overtakes it."""
    with shared.tls() as sock:
        sock.sendall(b"x" * 1_000_000)
        time.sleep(0.2)  # give a reset every chance to arrive first
        check(read_answer(sock), 431, "RequestHeaderFieldsTooLarge")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_below_1_2_is_refused(shared: GatewayProcess):
    """TLS 1.1 does not come about."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        shared.tls(context)


def test_no_tls_at_all(shared: GatewayProcess, target: Target):
    """Plain HTTP is cut, and the next client is served."""
    with socket.create_connection(("127.0.0.1", shared.port), timeout=10) as sock:
        sock.sendall(upgrade(GOOD))
        while sock.recv(4096):
            pass
    client, peer = open_tunnel(shared, target)
    peer.close()
    assert client.receive_close()[0] == 1000
