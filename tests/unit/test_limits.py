"""What netd could not enforce, or not in a reasonable time, is no World: whoever sends it, netd refuses it in words."""

import msgspec
import pytest

from wicketgate import rules
from wicketgate.kernel import router
from wicketgate.model import (
    Change,
    ConnectionTracking,
    NetworkInterface,
    PrefixList,
    SecurityGroup,
    SecurityGroupRule,
    Subnet,
    Vpc,
    World,
    WorldError,
    apply_change,
)

VPC = Vpc(id="vpc-1", cidr_block="10.0.0.0/16", ipv6_cidr_blocks=("fd00::/56",))
SUBNET = Subnet(id="subnet-1", vpc_id="vpc-1", cidr_block="10.0.0.0/24", ipv6_cidr_block="fd00::/64")
GROUP = SecurityGroup(id="sg-1", vpc_id="vpc-1", name="one")
ENI = NetworkInterface(id="eni-1", subnet_id="subnet-1", private_ip_address="10.0.0.5", group_ids=("sg-1",), link="one")
LIST = PrefixList(id="pl-1", name="one", address_family="IPv4", max_entries=1000)
WORLD = World(vpcs=(VPC,), subnets=(SUBNET,), groups=(GROUP,), interfaces=(ENI,), prefix_lists=(LIST,))


def _rule(ip_protocol, first=-1, last=-1):
    return SecurityGroupRule(
        id="sgr-1", is_egress=False, ip_protocol=ip_protocol, from_port=first, to_port=last, cidr_ipv4="10.0.0.0/8"
    )


def _with(thing, **fields):
    return msgspec.structs.replace(thing, **fields)


@pytest.mark.parametrize(
    ("put", "words"),
    [
        *(
            (_with(GROUP, rules=(_rule(protocol, *ports),)), "no type and code of ICMP")
            for protocol in ("icmp", "icmpv6", "1", "58")
            for ports in ((256,), (-2,), (3, 256), (3, -2))
        ),
        *((_with(GROUP, rules=(_rule(one, 1, 2),)), "no protocol") for one in ("06", "017", "000", "256", "6 ", "+6")),
        (_with(GROUP, id="1"), "sg-"),
        (_with(LIST, id="1"), "pl-"),
        (_with(LIST, max_entries=1001), "not within 1-1000"),
        (_with(LIST, max_entries=0), "not within 1-1000"),
        (Vpc(id="vpc-2", cidr_block="255.255.255.254/31"), "no room"),
        (Vpc(id="vpc-2", cidr_block="10.0.0.1/32"), "no room"),
        (Subnet(id="subnet-2", vpc_id="vpc-1", cidr_block="10.0.9.0/31"), "no room"),
        (Subnet(id="subnet-2", vpc_id="vpc-1", ipv6_cidr_block="fd00:0:0:9::/128"), "no room"),
        *(
            (_with(ENI, connection_tracking=ConnectionTracking(**{timer: seconds})), f"{timer} of")
            for timer, wrong in (
                ("tcp_established", (59, 432_001, 10**12)),
                ("udp_stream", (59, 181)),
                ("udp", (-5, 29, 61)),
            )
            for seconds in wrong
        ),
    ],
)
def test_refused(put, words):
    """It would have ended netd, or kept it busy, at every start."""
    with pytest.raises(WorldError, match=words):
        apply_change(WORLD, Change(puts=(put,)))


@pytest.mark.parametrize(
    "put",
    [
        *(_with(GROUP, rules=(_rule(one, 255, 255),)) for one in ("icmp", "1", "icmpv6", "58", "6", "tcp", "17")),
        *(_with(GROUP, rules=(_rule(one, 70_000, -9),)) for one in ("-1", "0", "47", "255")),
        _with(LIST, max_entries=1),
        Subnet(id="subnet-2", vpc_id="vpc-1", cidr_block="10.0.9.252/30", ipv6_cidr_block="fd00:0:0:9::fffc/126"),
        _with(ENI, connection_tracking=ConnectionTracking(tcp_established=60, udp_stream=180, udp=60)),
    ],
)
def test_the_last_that_is_taken(put):
    """What is just within the limits becomes a ruleset and addresses of the router."""
    made = apply_change(WORLD, Change(puts=(put,)))
    assert rules.render(rules.compile_vpc(made, "vpc-1"))
    assert list(rules.loading(rules.compile_vpc(made, "vpc-1")))
    assert router._addresses(made, VPC)
