"""What AWS's documents leave open about security groups, and what is answered here.

Each is a row of the table of deliberate differences. What becomes of open flows is in test_tracking.py; whether ICMP
errors reach untracked flows in test_connection_tracking.py and test_path_mtu.py of tests/net.
"""

import itertools

import pytest

from tests.api.worlds import code_of, filters, refusal

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def vpc(ec2):
    """One VPC for the module."""
    return ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]


@pytest.fixture
def group(ec2, vpc):
    """A group without inbound rules."""
    made = ec2.create_security_group(GroupName=f"open-{next(_numbers)}", Description="d", VpcId=vpc)
    return made["GroupId"]


def permission(protocol, ports, *ranges):
    """An IpPermission of IPv4 ranges."""
    first, last = ports
    return {
        "IpProtocol": protocol,
        "FromPort": first,
        "ToPort": last,
        "IpRanges": [{"CidrIp": cidr} for cidr in ranges or ("192.0.2.0/24",)],
    }


def inbound(ec2, group):
    """The inbound rules of a group, one by one."""
    rules = ec2.describe_security_group_rules(Filters=filters(group_id=group))["SecurityGroupRules"]
    return [one for one in rules if not one["IsEgress"]]


@pytest.mark.parametrize(
    ("protocol", "ports", "words"),
    [
        ("tcp", (443, 80), "Invalid TCP/UDP port range (443:80). The from port must not exceed the to port."),
        ("udp", (1, 0), "Invalid TCP/UDP port range (1:0). The from port must not exceed the to port."),
        ("icmp", (-1, 0), "ICMP code (0) invalid. With type -1 (all types) the code must be -1 (all codes)."),
        ("icmpv6", (-1, 3), "ICMP code (3) invalid. With type -1 (all types) the code must be -1 (all codes)."),
    ],
)
def test_ranges_that_are_none(ec2, group, protocol, ports, words):
    """Ports the wrong way round, and a code of all types, are refused in words; nothing is added."""
    asked = {"GroupId": group, "IpPermissions": [permission("tcp", (22, 22)), permission(protocol, ports)]}
    assert refusal(ec2, "AuthorizeSecurityGroupIngress", asked) == ("InvalidParameterValue", words, 400)
    assert inbound(ec2, group) == []


@pytest.mark.parametrize("protocol", ["47", "50", "132", "-1"])
def test_ports_of_protocols_without(ec2, group, protocol):
    """Whatever ports were given: a group shows none, and a rule by itself shows -1."""
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[permission(protocol, (1, 2))])
    (shown,) = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]
    assert {"FromPort", "ToPort"} & shown.keys() == set()
    (alone,) = inbound(ec2, group)
    assert (alone["IpProtocol"], alone["FromPort"], alone["ToPort"]) == (protocol, -1, -1)
    duplicate = {"GroupId": group, "IpPermissions": [permission(protocol, (3, 4))]}
    assert code_of(ec2, "AuthorizeSecurityGroupIngress", **duplicate) == "InvalidPermission.Duplicate"


def test_pages_of_named_groups(ec2, vpc):
    """MaxResults together with ids makes pages of those: groups and rules, unlike interfaces and instances."""
    ids = [
        ec2.create_security_group(GroupName=f"open-{next(_numbers)}", Description="d", VpcId=vpc)["GroupId"]
        for _ in range(6)
    ]
    first = ec2.describe_security_groups(GroupIds=ids, MaxResults=5)
    rest = ec2.describe_security_groups(GroupIds=ids, MaxResults=5, NextToken=first["NextToken"])
    assert "NextToken" not in rest
    shown = [one["GroupId"] for one in (*first["SecurityGroups"], *rest["SecurityGroups"])]
    assert (len(first["SecurityGroups"]), sorted(shown)) == (5, sorted(ids))
    ranges = [f"192.0.2.{number}/32" for number in range(6)]
    made = ec2.authorize_security_group_ingress(GroupId=ids[0], IpPermissions=[permission("tcp", (22, 22), *ranges)])[
        "SecurityGroupRules"
    ]
    rules = [one["SecurityGroupRuleId"] for one in made]
    page = ec2.describe_security_group_rules(SecurityGroupRuleIds=rules, MaxResults=5)
    assert len(page["SecurityGroupRules"]) == 5
    page = ec2.describe_security_group_rules(SecurityGroupRuleIds=rules, MaxResults=5, NextToken=page["NextToken"])
    assert len(page["SecurityGroupRules"]) == 1


@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_of_several_is_there(ec2, group, place):
    """A rule that exists already, wherever it stands in the call, keeps all the others out."""
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[permission("tcp", (22, 22))])
    before = inbound(ec2, group)
    wanted = [permission("tcp", (80, 80)), permission("tcp", (443, 443))]
    wanted.insert(place, permission("tcp", (22, 22)))
    asked = {"GroupId": group, "IpPermissions": wanted}
    assert code_of(ec2, "AuthorizeSecurityGroupIngress", **asked) == "InvalidPermission.Duplicate"
    assert inbound(ec2, group) == before


def test_order_of_rules(ec2, group):
    """Rules are shown in the order in which they were authorised; a modified one keeps its place."""
    ports = [443, 22, 8080, 80]
    for port in ports:
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[permission("tcp", (port, port))])

    def shown():
        permissions = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]
        return [one["FromPort"] for one in inbound(ec2, group)], [one["FromPort"] for one in permissions]

    assert shown() == (ports, ports)
    second = inbound(ec2, group)[1]["SecurityGroupRuleId"]
    change = {"IpProtocol": "tcp", "FromPort": 9999, "ToPort": 9999, "CidrIpv4": "192.0.2.0/24"}
    update = {"SecurityGroupRuleId": second, "SecurityGroupRule": change}
    ec2.modify_security_group_rules(GroupId=group, SecurityGroupRules=[update])
    assert shown() == ([443, 9999, 8080, 80],) * 2
    ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[permission("tcp", (443, 443))])
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[permission("tcp", (443, 443))])
    assert shown() == ([9999, 8080, 80, 443],) * 2
