"""Quotas of rules: what counts for how much, for a group and for each interface that carries it."""

import msgspec
import pytest

from tests.unit.net_world import (
    ENDPOINT,
    IMAGE,
    RUNNING,
    SMALL,
    SUBNET,
    VPC,
    WEB,
    number,
    run,
    run_with,
    settled,
    small_world,
)
from wicketgate.control import prefix_lists as _prefix_lists  # noqa: F401  # offers its actions
from wicketgate.control import security_group_rules as _rules  # noqa: F401  # offers its actions
from wicketgate.control.common import Quotas
from wicketgate.control.endpoints import EndpointQuotas
from wicketgate.control.rule_quotas import effective_rules, rule_count
from wicketgate.model import ApiError, PrefixList, SecurityGroup, SecurityGroupRule, World

QUOTAS = Quotas(rules_per_group=10, rules_per_interface=15)
"""Two full groups are too much for one interface."""
FULL, HALF = f"sg-{number('a')}", f"sg-{number('b')}"
LIST = f"pl-{number('1')}"
WITH_WEB = f"eni-{number('1')}"
TOO_MANY = (
    "SecurityGroupsPerInterfaceLimitExceeded",
    "The security groups have more rules than a network interface may have: 15.",
)


def ranges(count, **fields):
    """So many rules, each with a range of its own."""
    return tuple(
        SecurityGroupRule(
            id=f"sgr-{index}", is_egress=False, ip_protocol="-1", cidr_ipv4=f"10.{index}.0.0/16", **fields
        )
        for index in range(count)
    )


def world():
    """Groups with ten inbound rules and with five, that nothing carries, beside `web` without any."""
    given = small_world()
    full = SecurityGroup(id=FULL, vpc_id=VPC, name="full", rules=ranges(10))
    half = SecurityGroup(id=HALF, vpc_id=VPC, name="half", rules=ranges(5))
    return msgspec.structs.replace(given, groups=(*given.groups, full, half))


def refused(quotas, where, action, **parameters):
    """(code, message) of a call that the quotas do not allow."""
    with pytest.raises(ApiError) as caught:
        run_with(where, action, quotas, **parameters)
    return caught.value.code, str(caught.value)


def add(where, group, count, quotas=QUOTAS):
    """The World after so many more inbound rules of a group."""
    permission = {"IpProtocol": "udp", "FromPort": 1, "ToPort": 1}
    permission["IpRanges"] = [{"CidrIp": f"11.{index}.0.0/16"} for index in range(count)]
    return run_with(
        where, "AuthorizeSecurityGroupIngress", {"quotas": quotas}, GroupId=group, IpPermissions=[permission]
    )[0]


# -- what counts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("v4", "v6", "references", "lists", "expected"),
    [
        (3, 0, 0, 0, 3),
        (3, 2, 0, 0, 3),
        (2, 3, 0, 0, 3),
        (2, 3, 4, 0, 7),
        (0, 0, 0, 1, 20),
        (0, 5, 1, 1, 26),
        (0, 0, 0, 0, 0),
    ],
)
def test_rule_count(v4, v6, references, lists, expected):
    """The larger of both kinds of ranges, references, and a list's size, whatever is in it."""
    kinds = [{"cidr_ipv4": "10.0.0.0/8"}] * v4 + [{"cidr_ipv6": "::/0"}] * v6
    kinds += [{"referenced_group_id": WEB}] * references + [{"prefix_list_id": LIST}] * lists
    rules = [SecurityGroupRule(id="sgr-1", is_egress=True, ip_protocol="-1", **kind) for kind in kinds]
    there = World(prefix_lists=(PrefixList(id=LIST, name="l", address_family="IPv4", max_entries=20),))
    assert rule_count(there, rules) == expected


def test_directions_are_counted_apart():
    """An interface has its bound in each direction."""
    both = SecurityGroup(id="sg-1", vpc_id=VPC, name="g", rules=ranges(3))
    outbound = tuple(msgspec.structs.replace(rule, is_egress=True) for rule in ranges(4))
    assert effective_rules(World(), (both, msgspec.structs.replace(both, rules=outbound))) == 4
    assert effective_rules(World(), (both, both)) == 6


# -- what would carry too much -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "parameters"),
    [
        ("ModifyNetworkInterfaceAttribute", {"NetworkInterfaceId": WITH_WEB, "Groups": []}),
        ("ModifyInstanceAttribute", {"InstanceId": RUNNING, "Groups": []}),
        ("CreateNetworkInterface", {"SubnetId": SUBNET, "Groups": []}),
        (
            "RunInstances",
            {"SubnetId": SUBNET, "SecurityGroupIds": [], "ImageId": IMAGE, "MinCount": 1, "MaxCount": 1},
        ),
        ("CreateInstanceConnectEndpoint", {"SubnetId": SMALL, "SecurityGroupIds": []}),
        ("ModifyInstanceConnectEndpoint", {"InstanceConnectEndpointId": ENDPOINT, "SecurityGroupIds": []}),
    ],
)
def test_groups_of_an_interface(action, parameters):
    """Groups whose rules are together more than an interface may have are refused wherever they are given to one."""
    quotas = {"vpc_quotas" if "Endpoint" in action else "quotas": QUOTAS}
    if action == "CreateInstanceConnectEndpoint":
        quotas["quotas"] = EndpointQuotas(endpoints_per_vpc=2)

    def with_groups(*groups):
        return {name: list(groups) if value == [] else value for name, value in parameters.items()}

    run_with(world(), action, quotas, **with_groups(FULL, HALF))  # 15
    more = add(world(), HALF, 1)
    assert refused(quotas, more, action, **with_groups(FULL, HALF)) == TOO_MANY
    run_with(more, action, quotas, **with_groups(FULL, WEB))


def test_rule_of_a_group_that_is_carried():
    """A rule that would be too much for one of the interfaces with its group is refused; carried alone it is not."""
    there, _ = run(world(), "ModifyNetworkInterfaceAttribute", NetworkInterfaceId=WITH_WEB, Groups=[FULL, HALF])
    with pytest.raises(ApiError) as caught:
        add(there, HALF, 1)
    assert (caught.value.code, str(caught.value)) == (
        "RulesPerSecurityGroupLimitExceeded",
        "The maximum number of rules per network interface has been reached on an interface with the security group: "
        "15.",
    )
    there, _ = run(there, "ModifyNetworkInterfaceAttribute", NetworkInterfaceId=WITH_WEB, Groups=[HALF])
    add(there, HALF, 5)


def test_rule_of_a_group_on_its_way():
    """The groups that an endpoint is about to get count from when they are asked for."""
    there, _ = run(
        world(), "ModifyInstanceConnectEndpoint", InstanceConnectEndpointId=ENDPOINT, SecurityGroupIds=[FULL, HALF]
    )
    with pytest.raises(ApiError, match="per network interface"):
        add(there, HALF, 1)
    with pytest.raises(ApiError, match="per network interface"):
        add(settled(there), HALF, 1)


def test_defaults():
    """With AWS's own quotas no five groups can be too much, nor the sixteen of an endpoint."""
    quotas = Quotas()
    assert quotas.rules_per_group * 16 <= quotas.rules_per_interface
