"""Addresses that are never dialled, and client addresses that are never preserved."""

from __future__ import annotations

import ipaddress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wicketgate.model import (
    EXTERNAL_IMAGE,
    AttachedNetwork,
    Endpoint,
    Instance,
    NetworkInterface,
    SecurityGroup,
    Settings,
    Subnet,
    Vpc,
    World,
)
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
        ("10.0.0.2", "the DNS server's address in vpc-1"),
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
    """Inside the range exactly the endpoint's own, the DNS server's and three addresses of each subnet are refused."""
    refused = {"10.0.0.2", "10.0.1.10", "10.0.1.0", "10.0.1.1", "10.0.1.255", "10.0.2.0", "10.0.2.1", "10.0.2.127"}
    assert (target_refusal(WORLD, OFF, str(address)) is None) is (str(address) not in refused)


def with_machine(attached, image_id=EXTERNAL_IMAGE):
    """10.0.2.11 is an instance, its subnet bound to a network of the host or not."""
    machine = Instance(id="i-1", interface_id="eni-i", image_id=image_id)
    subnets = [
        msgspec.structs.replace(one, attached=attached) if one.id == "subnet-2" else one for one in WORLD.subnets
    ]
    return msgspec.structs.replace(WORLD, subnets=tuple(subnets), instances=(machine,))


ELSEWHERE, HERE = AttachedNetwork(mode="bridge"), AttachedNetwork(mode="own", return_path=True)


@pytest.mark.parametrize("attached", [None, ELSEWHERE])
def test_no_client_is_preserved_to_a_machine_with_another_router(attached):
    """Its replies would go elsewhere: refused with the reason, for this target alone; with preservation off never."""
    made = with_machine(attached)
    assert str(client_refusal(made, ON, "203.0.113.10", "10.0.2.11")) == (
        "10.0.2.11 does not send its replies through this gateway, so a client's address cannot be preserved to it"
    )
    assert client_refusal(made, ON, "203.0.113.10", "10.0.2.12") is None
    assert client_refusal(made, ON, "203.0.113.10") is None
    assert client_refusal(made, OFF, "203.0.113.10", "10.0.2.11") is None


@pytest.mark.parametrize(
    ("attached", "image_id"), [(HERE, EXTERNAL_IMAGE), (None, "ami-00000000000000001"), (ELSEWHERE, "ami-1")]
)
def test_clients_are_preserved_where_replies_come_back(attached, image_id):
    """To machines of a network that leads back here, and to what is made here."""
    made = with_machine(attached, image_id)
    assert client_refusal(made, ON, "203.0.113.10", "10.0.2.11") is None


def test_mapped_addresses_are_ipv4():
    """A dual-stack socket's view of an IPv4 peer is that IPv4 address."""
    assert parse_address("::ffff:192.0.2.1") == ipaddress.IPv4Address("192.0.2.1")


# -- IPv6 --------------------------------------------------------------------------------------------------------------

DUAL = Endpoint(
    id="eice-dual", subnet_id="subnet-6", interface_id="eni-d", dns_name="d.example", ip_address_type="dualstack"
)
SIX = msgspec.structs.replace(DUAL, id="eice-six", index=2, ip_address_type="ipv6")
FOUR = msgspec.structs.replace(DUAL, id="eice-four", index=3, ip_address_type="ipv4")
WORLD6 = World(
    vpcs=(
        Vpc(id="vpc-6", cidr_block="10.6.0.0/16", ipv6_cidr_blocks=("2001:db8:6::/56", "2001:db8:7::/56")),
        Vpc(id="vpc-4", cidr_block="10.4.0.0/16"),
    ),
    subnets=(
        Subnet(id="subnet-6", vpc_id="vpc-6", cidr_block="10.6.1.0/24", ipv6_cidr_block="2001:db8:6:1::/64"),
        Subnet(id="subnet-only", vpc_id="vpc-6", ipv6_cidr_block="2001:db8:7:2::/64"),
        Subnet(id="subnet-4", vpc_id="vpc-4", cidr_block="10.4.1.0/24"),
    ),
    groups=(SecurityGroup(id="sg-6", vpc_id="vpc-6", name="all"),),
    interfaces=(
        NetworkInterface(
            id="eni-d",
            subnet_id="subnet-6",
            private_ip_address="10.6.1.10",
            ipv6_addresses=("2001:db8:6:1::10",),
            group_ids=("sg-6",),
            link="d",
        ),
        NetworkInterface(
            id="eni-2",
            subnet_id="subnet-6",
            private_ip_address="10.6.1.11",
            secondary_ip_addresses=("10.6.1.12",),
            group_ids=("sg-6",),
            link="e",
        ),
    ),
    endpoints=(DUAL, SIX, FOUR),
)
WORLD6.check()
PRESERVING6 = msgspec.structs.replace(WORLD6, settings=Settings(preserve_client_ipv6=True))


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("::", "the unspecified address"),
        ("::1", "a loopback address"),
        ("::10.6.1.11", "names no host"),
        ("fe80::1", "a link-local address"),
        ("ff02::1", "a multicast address"),
        ("fd00:ec2::254", "the instance metadata service"),
        ("fd00:ec2::253", "where the VPC's own services are"),
        ("fd00:ec2:ffff::1", "where the VPC's own services are"),
        ("2001:db8:8::1", "outside 2001:db8:6::/56, 2001:db8:7::/56, the ranges of the endpoint's VPC vpc-6"),
        ("2001:db8:6:1::", "the network address of subnet-6"),
        ("2001:db8:7:2::1", "the VPC router's address in subnet-only"),
        ("2001:db8:6:1::10", "the endpoint's own address"),
    ],
)
@pytest.mark.parametrize("endpoint", [DUAL, SIX])
def test_ipv6_addresses_that_are_never_dialled(endpoint, address, words):
    """What is no ordinary unicast address, is outside the VPC, or is nobody's in it."""
    assert words in str(target_refusal(WORLD6, endpoint, address))
    assert "IPv4 endpoint reaches IPv4 addresses only" in str(target_refusal(WORLD6, FOUR, address))


def test_the_type_of_the_endpoint_says_which_families_it_reaches():
    """ipv4: IPv4, ipv6: IPv6, dualstack: both; an IPv4-mapped address is IPv4, a range's last address is a host's."""
    for address in ("2001:db8:6:1::11", "2001:DB8:7:2:ffff:ffff:ffff:ffff", "2001:db8:6:5::2"):
        assert target_refusal(WORLD6, DUAL, address) is None
        assert target_refusal(WORLD6, SIX, address) is None
        assert "an IPv6 address" in str(target_refusal(WORLD6, FOUR, address))
    for address in ("10.6.1.11", "10.6.1.12", "::ffff:10.6.1.12"):
        assert target_refusal(WORLD6, DUAL, address) is None
        assert target_refusal(WORLD6, FOUR, address) is None
        assert "IPv6 endpoint reaches IPv6 addresses only" in str(target_refusal(WORLD6, SIX, address))


def test_a_vpc_without_ipv6_has_no_ipv6_target():
    """The reason says why."""
    here = msgspec.structs.replace(DUAL, subnet_id="subnet-4")
    assert "of which there are none" in str(target_refusal(WORLD6, here, "2001:db8::1"))


def test_the_dns_server_may_be_an_interface():
    """An interface that holds the address is a target as any."""
    eni = msgspec.structs.replace(WORLD6.interfaces[1], private_ip_address="10.6.0.2", secondary_ip_addresses=())
    base = Subnet(id="subnet-6", vpc_id="vpc-6", cidr_block="10.6.0.0/23", ipv6_cidr_block="2001:db8:6:1::/64")
    held = msgspec.structs.replace(WORLD6, subnets=(base, *WORLD6.subnets[1:]), interfaces=(WORLD6.interfaces[0], eni))
    held.check()
    assert target_refusal(held, DUAL, "10.6.0.2") is None
    assert "DNS server" in str(target_refusal(WORLD6, DUAL, "10.6.0.2"))


@pytest.mark.parametrize(
    ("client", "target", "words"),
    [
        ("2001:db8:9::9", "2001:db8:6:1::11", None),
        ("203.0.113.10", "10.6.1.11", None),
        ("::ffff:203.0.113.10", "10.6.1.11", None),
        ("2001:db8:9::9", "10.6.1.11", "an IPv6 address and cannot be the source towards an IPv4 one"),
        ("203.0.113.10", "2001:db8:6:1::11", "an IPv4 address and cannot be the source towards an IPv6 one"),
        ("2001:db8:7::9", "2001:db8:6:1::11", "inside 2001:db8:6::/56, 2001:db8:7::/56, the ranges of"),
        ("10.6.200.1", "10.6.1.11", "inside 10.6.0.0/16, the range of"),
        ("fe80::9", "2001:db8:6:1::11", "a link-local address"),
        ("::1", "2001:db8:6:1::11", "a loopback address"),
        ("ff05::9", "2001:db8:6:1::11", "a multicast address"),
        ("fd00:ec2::9", "2001:db8:6:1::11", "the VPC's own services"),
    ],
)
def test_clients_of_an_endpoint_with_ipv6(client, target, words):
    """With `preserve_client_ipv6` both families are preserved, each towards its own; without it IPv6 is not."""
    kept = msgspec.structs.replace(DUAL, preserve_client_ip=True)
    refusal = client_refusal(PRESERVING6, kept, client, target)
    assert refusal is None if words is None else words in str(refusal)
    assert client_refusal(PRESERVING6, DUAL, client, target) is None, "preservation is off"
    if ":" in client and "." not in client:
        assert "client IP preservation is for IPv4" in str(client_refusal(WORLD6, kept, client, target))
        ipv4 = msgspec.structs.replace(FOUR, preserve_client_ip=True)
        assert "client IP preservation is for IPv4" in str(client_refusal(PRESERVING6, ipv4, client, "10.6.1.11"))


def test_a_target_that_is_no_address():
    """It is netd's to refuse; here it is no reason to take the client for preservable."""
    kept = msgspec.structs.replace(DUAL, preserve_client_ip=True)
    assert str(client_refusal(PRESERVING6, kept, "203.0.113.10", "nonsense")) == "'nonsense' is not an IP address"


@given(st.ip_addresses(v=6))
def test_only_ipv6_addresses_of_the_vpc_are_dialled(address):
    """As for IPv4, for all addresses and for those near the VPC's."""
    near = ipaddress.IPv6Address(int(ipaddress.IPv6Address("2001:db8:6::")) | int(address) % 2**73)
    kept = msgspec.structs.replace(DUAL, preserve_client_ip=True)
    for one in (address, near):
        inside = any(one in ipaddress.ip_network(block) for block in WORLD6.vpcs[0].ipv6_cidr_blocks)
        if target_refusal(WORLD6, DUAL, str(one)) is None:
            assert inside
        if one.ipv4_mapped is None and client_refusal(PRESERVING6, kept, str(one)) is None:
            assert not inside
            assert not (one.is_multicast or one.is_loopback or one.is_link_local or one.is_unspecified)
