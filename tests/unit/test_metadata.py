"""Metadata without a network: heads that are refused, tokens that are none. (The rest: tests/net/test_metadata.py.)"""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wicketgate.metadata.http import BadRequest, parse
from wicketgate.metadata.tokens import Tokens


def test_a_head_is_read():
    """Method, path without query and empty parts, decoded; header names in lower case; the wish to go on."""
    request = parse(b"GET /latest//meta-data/a%20b/?x=1 HTTP/1.1\r\nX-Token:  t \r\nconnection: Close\r\n\r\n")
    assert (request.method, request.names) == ("GET", ("latest", "meta-data", "a b"))
    assert request.headers == {"x-token": "t", "connection": "Close"}
    assert not request.keep_alive
    assert parse(b"GET / HTTP/1.1\r\n\r\n").keep_alive
    assert not parse(b"GET / HTTP/1.0\r\n\r\n").keep_alive


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (b"Content-Length: 0", False),
        (b"Content-Length: 1", True),
        (b"Transfer-Encoding: chunked", True),
        (b"A: b", False),
    ],
)
def test_bodies_are_noticed(header, body):
    """What follows a body we do not read could be taken for the next request."""
    assert parse(b"PUT / HTTP/1.1\r\n" + header + b"\r\n\r\n").has_body is body


@settings(max_examples=500)
@given(st.binary(max_size=80), st.binary(max_size=80))
def test_garbage_heads(line, rest):
    """Whatever comes is read or refused, and never read as more than one line says."""
    try:
        request = parse(line + b"\r\n" + rest + b"\r\n\r\n")
    except BadRequest:
        return
    assert request.method.isalpha()
    assert all("\r" not in value and "\n" not in value for value in request.headers.values())


@settings(max_examples=200)
@given(st.text(max_size=80) | st.binary(max_size=60).map(lambda data: base64.urlsafe_b64encode(data).decode()))
def test_tokens_that_are_none(text):
    """Only what was issued is a token, for the instance and the time it was issued for."""
    tokens = Tokens()
    good = tokens.issue("i-1", 100)
    assert tokens.expiry(good, "i-1", 99.9) == 100
    assert tokens.expiry(good, "i-1", 100) is None
    assert tokens.expiry(good, "i-2", 0) is None
    assert Tokens().expiry(good, "i-1", 0) is None
    assert tokens.expiry(text, "i-1", 0) is None


def test_a_token_cannot_be_lengthened():
    """Its end is part of what its mark is made of."""
    tokens = Tokens()
    data = bytearray(base64.urlsafe_b64decode(tokens.issue("i-1", 100)))
    for place in range(len(data)):
        data[place] ^= 1
        assert tokens.expiry(base64.urlsafe_b64encode(bytes(data)).decode(), "i-1", 0) is None
        data[place] ^= 1
    assert tokens.expiry(base64.urlsafe_b64encode(bytes(data)).decode(), "i-1", 0) == 100
