"""What the client accepts, and the URL it makes of it."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.crtclient import botocore_url
from wicketgate.client import InvalidUse, TunnelRequest
from wicketgate.sigv4.presign import Credentials

GOOD = {"endpoint_id": "eice-0123456789abcdef0", "dns_name": "e.example.test", "private_ip_address": "10.0.1.11"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"endpoint_id": "eice 1"}, r"--instance-connect-endpoint-id 'eice 1' is malformed"),
        ({"endpoint_id": "i-1"}, "expected eice-"),
        ({"dns_name": "a/b"}, "--instance-connect-endpoint-dns-name 'a/b' is malformed"),
        ({"dns_name": "a:70000"}, "must be from 1 to 65535, not 70000"),
        ({"instance_id": "x-1"}, "--instance-id 'x-1' is malformed"),
        ({"private_ip_address": "10.0.1"}, "'10.0.1' is not an IPv4 or IPv6 address"),
        ({"private_ip_address": None}, "Give the target"),
        ({"private_ip_address": None, "instance_id": "i-1"}, "Give all of --instance-connect-endpoint-id"),
        ({"endpoint_id": None}, "need --instance-connect-endpoint-id"),
        ({"dns_name": None}, "Give all of"),
        ({"remote_port": 0}, "--remote-port must be from 1 to 65535, not 0"),
        ({"max_tunnel_duration": 0}, "--max-tunnel-duration must be from 1 to 3600, not 0"),
        ({"max_tunnel_duration": 3601}, "not 3601"),
    ],
)
def test_wrong_options_are_named_with_what_would_be_right(change: dict[str, object], words: str) -> None:
    """Every option that can be wrong says so before anything is sent."""
    with pytest.raises(InvalidUse, match=words):
        TunnelRequest.make(**{**GOOD, **change})  # type: ignore[arg-type]  # deliberately wrong


def test_an_instance_id_beside_the_three_options_is_accepted() -> None:
    """The id adds nothing when endpoint, name and address are given, as with the AWS CLI."""
    assert TunnelRequest.make(**GOOD, instance_id="i-0123456789abcdef0") == TunnelRequest.make(**GOOD)


@pytest.mark.parametrize(("name", "address"), [("e.test", ("e.test", 443)), ("e.test:8443", ("e.test", 8443))])
def test_the_port_is_443_unless_the_name_says_otherwise(name: str, address: tuple[str, int]) -> None:
    """`host:port` is ours; the AWS CLI knows 443 alone."""
    assert TunnelRequest.make(**{**GOOD, "dns_name": name}).address == address


@given(
    address=st.ip_addresses().map(str),
    port=st.integers(1, 65535),
    duration=st.none() | st.integers(1, 3600),
    token=st.none() | st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=60),
    with_port=st.booleans(),
)
def test_urls_equal_botocores_byte_for_byte(
    address: str, port: int, duration: int | None, token: str | None, with_port: bool
) -> None:
    """Same parameters, same second: the same URL as the AWS CLI's signer makes."""
    name = "e.example.test:8443" if with_port else "e.example.test"
    request = TunnelRequest.make(
        endpoint_id="eice-1",
        dns_name=name,
        private_ip_address=address,
        remote_port=port,
        max_tunnel_duration=duration,
    )
    parameters = {"instanceConnectEndpointId": "eice-1", "remotePort": str(port), "privateIpAddress": address}
    if duration is not None:
        parameters["maxTunnelDuration"] = str(duration)
    while True:  # botocore reads the clock itself: compare only when both fell into one second
        now = time.time()
        theirs = botocore_url(name, parameters, "AKIA", "secret/+", token=token, region="eu-west-1")
        if int(time.time()) == int(now):
            break
    assert request.url(Credentials("AKIA", "secret/+", token), region="eu-west-1", now=now) == theirs
