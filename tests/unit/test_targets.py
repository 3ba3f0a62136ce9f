"""Addresses that are never dialled, and client addresses that are never preserved."""

from __future__ import annotations

import ipaddress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wicketgate.model import Endpoint, NetworkInterface, SecurityGroup, Subnet, Vpc, World
from wicketgate.tunnel.targets import client_refusal, parse_address, target_refusal

OFF = Endpoint(id="eice-off", subnet_id="subnet-1", interface_id="eni-e", dns_name="off.example")
ON = msgspec.structs.replace(OFF, id="eice-on", index=2, preserve_client_ip=True)
WORLD = World(
    vpcs=(Vpc(id="vpc-1", cidr_block="10.0.0.0/16"), Vpc(id="vpc-2", cidr_block="10.1.0.0/16")),
    subnets=(
        Subnet(id="subnet-1", vpc_id="vpc-1", cidr_block="10.0.1.0/24"),
        Subnet(id="subnet-2", vpc_id="vpc-1", cidr_block="10.0.2.0/25"),
        Subnet(id="subnet-3", vpc_id="vpc-2", cidr_block="10.1.1.0/24"),
    ),
    groups=(SecurityGroup(id="sg-1", vpc_id="vpc-1", name="all"),),
    interfaces=(
        NetworkInterface(
            id="eni-e", subnet_id="subnet-1", private_ip_address="10.0.1.10", group_ids=("sg-1",), link="e"
        ),
        NetworkInterface(
            id="eni-i", subnet_id="subnet-2", private_ip_address="10.0.2.11", group_ids=("sg-1",), link="i"
        ),
    ),
    endpoints=(OFF, ON),
)
WORLD.check()

SPECIAL = [
    ("127.0.0.1", "a loopback address"),
    ("127.255.255.254", "a loopback address"),
    ("169.254.169.254", "the instance metadata service"),
    ("169.254.0.1", "a link-local address"),
    ("224.0.0.1", "a multicast address"),
    ("239.255.255.255", "a multicast address"),
    ("255.255.255.255", "the broadcast address"),
    ("240.0.0.1", "reserved range"),
    ("0.0.0.0", "the unspecified address"),
    ("0.1.2.3", "names no host"),
    ("2001:db8::1", "an IPv6 address"),
    ("::1", "an IPv6 address"),
    ("::ffff:127.0.0.1", "a loopback address"),
    ("ip-10-0-1-11", "not an IP address"),
    ("10.0.01.11", "not an IP address"),
    ("fe80::1%eth0", "not an IP address"),
    ("", "not an IP address"),
]


@pytest.mark.parametrize("endpoint", [OFF, ON])
@pytest.mark.parametrize(("address", "words"), SPECIAL)
def test_special_targets(endpoint, address, words):
    """What is no ordinary unicast IPv4 address is never dialled, and the reason says what it is."""
    assert words in str(target_refusal(WORLD, endpoint, address))


@pytest.mark.parametrize("endpoint", [OFF, ON])
@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("10.1.1.11", "outside 10.0.0.0/16, the range of the endpoint's VPC vpc-1"),
        ("192.0.2.1", "outside 10.0.0.0/16"),
        ("10.0.1.10", "the endpoint's own address"),
        ("10.0.1.1", "the VPC router's address in subnet-1"),
        ("10.0.2.1", "the VPC router's address in subnet-2"),
        ("10.0.2.0", "the network address of subnet-2"),
        ("10.0.2.127", "the broadcast address of subnet-2"),
    ],
)
def test_targets_of_the_vpc_that_are_no_hosts(endpoint, address, words):
    """Other networks, the endpoint itself, routers, network and broadcast addresses are refused."""
    assert words in str(target_refusal(WORLD, endpoint, address))


@pytest.mark.parametrize("endpoint", [OFF, ON])
@pytest.mark.parametrize("address", ["10.0.2.11", "::ffff:10.0.2.11", "10.0.1.99", "10.0.2.128", "10.0.99.99"])
def test_targets_of_the_vpc(endpoint, address):
    """An address of the VPC may be tried, whether or not an interface holds it or a subnet covers it."""
    assert target_refusal(WORLD, endpoint, address) is None


@pytest.mark.parametrize(
    ("address", "words"), [*SPECIAL, ("10.0.2.11", "inside 10.0.0.0/16, the range of"), ("10.0.1.1", "inside")]
)
def test_clients_that_cannot_be_preserved(address, words):
    """With preservation on, odd addresses and all of the VPC's are refused with the reason; off, none is."""
    assert words in str(client_refusal(WORLD, ON, address))
    assert client_refusal(WORLD, OFF, address) is None


@pytest.mark.parametrize(
    "address", ["203.0.113.10", "198.51.100.20", "10.1.1.11", "192.168.1.1", "::ffff:203.0.113.10"]
)
def test_clients_that_can_be_preserved(address):
    """Public and private unicast addresses outside the VPC can be the source that targets see."""
    assert client_refusal(WORLD, ON, address) is None


@given(st.ip_addresses(v=4))
def test_only_addresses_of_the_vpc_are_dialled(address):
    """Whatever is not refused lies in the VPC's range; a client that is not refused lies outside it."""
    inside = address in ipaddress.ip_network("10.0.0.0/16")
    if target_refusal(WORLD, OFF, str(address)) is None:
        assert inside
    if client_refusal(WORLD, ON, str(address)) is None:
        assert not inside
        assert not (address.is_multicast or address.is_loopback or address.is_link_local or address.is_reserved)


@given(st.ip_addresses(v=4, network="10.0.0.0/16"))
def test_every_address_of_the_vpc_but_the_named(address):
    """Inside the range exactly the endpoint's own and the three reserved addresses of each subnet are refused."""
    refused = {"10.0.1.10", "10.0.1.0", "10.0.1.1", "10.0.1.255", "10.0.2.0", "10.0.2.1", "10.0.2.127"}
    assert (target_refusal(WORLD, OFF, str(address)) is None) is (str(address) not in refused)


def test_mapped_addresses_are_ipv4():
    """A dual-stack socket's view of an IPv4 peer is that IPv4 address."""
    assert parse_address("::ffff:192.0.2.1") == ipaddress.IPv4Address("192.0.2.1")
