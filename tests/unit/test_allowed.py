"""Sets of packets and the reading of single ones say the same."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from wicketgate.explain import allowed
from wicketgate.explain.region import span_of
from wicketgate.model import (
    NetworkInterface,
    PrefixList,
    PrefixListEntry,
    SecurityGroup,
    SecurityGroupRule,
    Subnet,
    Vpc,
    World,
)
from wicketgate.paths import Flow, judge_flow

PROTOCOLS = ["-1", "tcp", "tcp", "udp", "icmp", "icmpv6", "6", "58", "47"]


def _rule(random, number):
    protocol = random.choice(PROTOCOLS)
    ports = random.choice([(22, 22), (0, 65535), (20, 80), (443, 443)])
    if protocol in ("icmp", "icmpv6", "58"):
        ports = random.choice([(-1, -1), (8, -1), (8, 0), (3, 4), (128, 0)])
    peer = random.choice(
        [
            {"cidr_ipv4": random.choice(["0.0.0.0/0", "10.0.0.0/24", "10.0.0.8/29", "10.0.0.11/32"])},
            {"cidr_ipv6": random.choice(["::/0", "fd00:0:0:1::/64", "fd00:0:0:1::b/128"])},
            {"prefix_list_id": random.choice(["pl-4", "pl-6"])},
            {"referenced_group_id": f"sg-{random.randrange(3)}"},
        ]
    )
    egress = random.random() < 0.5
    return SecurityGroupRule(
        id=f"sgr-{number}", is_egress=egress, ip_protocol=protocol, from_port=ports[0], to_port=ports[1], **peer
    )


def _world(random):
    groups = tuple(
        SecurityGroup(
            id=f"sg-{one}", vpc_id="vpc-1", name=f"g{one}", rules=tuple(_rule(random, f"{one}-{n}") for n in range(4))
        )
        for one in range(3)
    )
    interfaces = tuple(
        NetworkInterface(
            id=f"eni-{n}",
            subnet_id="subnet-1",
            private_ip_address=f"10.0.0.{10 + n}",
            ipv6_addresses=(f"fd00:0:0:1::{10 + n:x}",),
            group_ids=tuple(random.sample([group.id for group in groups], random.randint(1, 2))),
            link=f"l{n}",
        )
        for n in range(2)
    )
    lists = (
        PrefixList(id="pl-4", name="a", address_family="IPv4", max_entries=5, entries=_entries("10.0.0.10/31")),
        PrefixList(id="pl-6", name="b", address_family="IPv6", max_entries=5, entries=_entries("fd00:0:0:1::a/127")),
    )
    made = World(
        vpcs=(Vpc(id="vpc-1", cidr_block="10.0.0.0/16", ipv6_cidr_blocks=("fd00::/56",)),),
        subnets=(Subnet(id="subnet-1", vpc_id="vpc-1", cidr_block="10.0.0.0/24", ipv6_cidr_block="fd00:0:0:1::/64"),),
        groups=groups,
        interfaces=interfaces,
        prefix_lists=lists,
    )
    made.check()
    return made


def _entries(*ranges):
    return tuple(PrefixListEntry(cidr=one) for one in ranges)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**64))
def test_a_packet_is_in_the_region_where_it_passes(seed):
    """For random rules of all kinds: a packet passes exactly when outbound and inbound region hold it."""
    random = Random(seed)
    world = _world(random)
    sender, receiver = world.interfaces
    for source, destination in zip(sender.addresses, receiver.addresses, strict=True):
        passing = allowed.outbound(world, sender, receiver, destination) & allowed.inbound(world, receiver, sender)
        for protocol, port, code in [
            *((p, n, 0) for p in (6, 17) for n in (19, 20, 22, 80, 443, 65535)),
            *((p, kind, code) for p in (1, 58) for kind in (3, 8, 128) for code in (0, 4)),
            (47, 0, 0),
            (253, 0, 0),
        ]:
            flow = Flow(sender, receiver, source, protocol, port, code, destination)
            number = port << 8 | code if protocol in (1, 58) else port
            point = (span_of(source)[0], protocol, number)
            assert (point in passing) is judge_flow(world, flow).passed, (flow, passing)
