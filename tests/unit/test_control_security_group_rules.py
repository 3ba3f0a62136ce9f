"""Rules of security groups: authorize, revoke, modify, describe; canonical form, identity, quota."""

import ipaddress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.sg_world import APP, DB, DEFAULT, NEXT, OTHER_VPC, SSH_RULE, VPC, WEB, run, run_with, small_world
from wicketgate.control.common import Quotas
from wicketgate.control.permissions import canonical, identity, protocol_name
from wicketgate.model import ApiError, SecurityGroup
from wicketgate.rules import compile_vpc

ANY = "0.0.0.0/0"


def tcp(first, last, *cidrs):
    """A permission for TCP ports from IPv4 ranges."""
    return {"IpProtocol": "tcp", "FromPort": first, "ToPort": last, "IpRanges": [{"CidrIp": one} for one in cidrs]}


def inbound(world, group_id):
    """(protocol, from, to, peer) of the inbound rules."""
    return [(rule.ip_protocol, rule.from_port, rule.to_port, rule.peer) for rule in world.group(group_id).inbound]


# -- authorize ---------------------------------------------------------------------------------------------------------


def test_authorize_answer():
    """The answer lists each rule made with id, ARN, tags and, for -1, ports -1; the group's own rules stay."""
    permission = {
        "IpProtocol": "-1",
        "FromPort": 0,
        "ToPort": 0,
        "IpRanges": [{"CidrIp": "10.1.2.3/8", "Description": "ten"}],
        "UserIdGroupPairs": [{"GroupId": WEB, "UserId": "123456789012"}],
    }
    tags = [{"ResourceType": "security-group-rule", "Tags": [{"Key": "k", "Value": "v"}]}]
    world, answer = run(
        small_world(),
        "AuthorizeSecurityGroupIngress",
        GroupId=WEB,
        IpPermissions=[permission],
        TagSpecifications=tags,
    )
    made = world.group(WEB).rules[-2:]
    common = {
        "GroupId": WEB,
        "GroupOwnerId": "123456789012",
        "IsEgress": False,
        "IpProtocol": "-1",
        "FromPort": -1,
        "ToPort": -1,
        "Tags": [{"Key": "k", "Value": "v"}],
    }
    arn = "arn:aws:ec2:us-east-1:123456789012:security-group-rule/"
    ids = [{"SecurityGroupRuleId": rule.id, "SecurityGroupRuleArn": arn + rule.id} for rule in made]
    reference = {"GroupId": WEB, "UserId": "123456789012"}
    assert answer == {
        "Return": True,
        "SecurityGroupRules": [
            {**common, **ids[0], "CidrIpv4": "10.0.0.0/8", "Description": "ten"},
            {**common, **ids[1], "ReferencedGroupInfo": reference},
        ],
    }
    assert len({rule.id for rule in world.group(WEB).rules}) == 6


def test_flat_form():
    """The legacy parameters make one rule; in the default VPC the group may be named."""
    world, _ = run(
        small_world(),
        "AuthorizeSecurityGroupIngress",
        GroupName="Web",
        IpProtocol="UDP",
        FromPort=53,
        ToPort=53,
        CidrIp="10.0.0.1/32",
    )
    assert inbound(world, WEB)[-1] == ("udp", 53, 53, "10.0.0.1/32")


def test_flat_source_group():
    """A flat source group is granted all of TCP, UDP and ICMP; revoking the same takes all three away."""
    flat = {"GroupName": "web", "SourceSecurityGroupName": "default"}
    world, _ = run(small_world(), "AuthorizeSecurityGroupIngress", **flat)
    assert inbound(world, WEB)[-3:] == [
        ("tcp", 0, 65535, DEFAULT),
        ("udp", 0, 65535, DEFAULT),
        ("icmp", -1, -1, DEFAULT),
    ]
    world, answer = run(world, "RevokeSecurityGroupIngress", **flat)
    assert inbound(world, WEB) == inbound(small_world(), WEB)
    assert [one["ReferencedGroupId"] for one in answer["RevokedSecurityGroupRules"]] == [DEFAULT] * 3


def test_flat_source_group_elsewhere():
    """A flat source group is one of the default VPC and of this account."""
    for more in ({"GroupId": APP}, {"GroupId": WEB, "SourceSecurityGroupOwnerId": "999999999999"}):
        with pytest.raises(ApiError, match="belong to different networks"):
            run(small_world(), "AuthorizeSecurityGroupIngress", SourceSecurityGroupName="web", **more)


def test_egress():
    """Outbound rules are separate from inbound ones of the same words."""
    permission = tcp(22, 22, ANY)
    world, answer = run(small_world(), "AuthorizeSecurityGroupEgress", GroupId=WEB, IpPermissions=[permission])
    assert answer["SecurityGroupRules"][0]["IsEgress"] is True
    assert len(world.group(WEB).outbound) == 2
    assert inbound(world, WEB) == inbound(small_world(), WEB)


def test_all_or_nothing():
    """One rule that is there already keeps all the others of the call out."""
    world = small_world()
    with pytest.raises(ApiError, match="already exists"):
        run(
            world,
            "AuthorizeSecurityGroupIngress",
            GroupId=WEB,
            IpPermissions=[tcp(80, 80, ANY), tcp(22, 22, ANY)],
        )
    assert world == small_world()


@pytest.mark.parametrize(
    ("given_name", "stored"),
    [
        ("tcp", "tcp"),
        ("TCP", "tcp"),
        ("6", "tcp"),
        ("17", "udp"),
        ("1", "icmp"),
        ("58", "icmpv6"),
        ("ICMPv6", "icmpv6"),
        ("-1", "-1"),
        ("0", "0"),
        ("47", "47"),
        ("255", "255"),
    ],
)
def test_protocols(given_name, stored):
    """Names in any case and numbers of the four named protocols are one spelling; other numbers stay numbers."""
    assert protocol_name(given_name) == stored


@pytest.mark.parametrize("name", ["all", "esp", "any", "256", "-2", "1.0", " tcp", "²", "٦", "0x6", "1000"])
def test_unknown_protocols(name):
    """Everything else is refused, in the words it was given."""
    with pytest.raises(ApiError) as caught:
        protocol_name(name)
    assert str(caught.value) == f"Invalid value '{name}' for IP protocol. Unknown protocol."


@pytest.mark.parametrize(
    ("permission", "ports"),
    [
        ({"IpProtocol": "tcp", "FromPort": 0, "ToPort": 65535}, (0, 65535)),
        ({"IpProtocol": "icmp", "FromPort": -1, "ToPort": -1}, (-1, -1)),
        ({"IpProtocol": "icmp", "FromPort": 8, "ToPort": 0}, (8, 0)),
        ({"IpProtocol": "icmp", "FromPort": 255, "ToPort": 255}, (255, 255)),
        ({"IpProtocol": "icmpv6"}, (-1, -1)),
        ({"IpProtocol": "icmpv6", "FromPort": 128, "ToPort": -1}, (128, -1)),
        ({"IpProtocol": "-1", "FromPort": 22, "ToPort": 23}, (-1, -1)),
        ({"IpProtocol": "132", "FromPort": 70000, "ToPort": -9}, (-1, -1)),
    ],
)
def test_ports(permission, ports):
    """Ports, types and codes at their bounds; where the protocol has none they are ignored, whatever they are."""
    world, _ = run(
        small_world(),
        "AuthorizeSecurityGroupIngress",
        GroupId=DB,
        IpPermissions=[{**permission, "IpRanges": [{"CidrIp": "10.9.0.0/16"}]}],
    )
    assert inbound(world, DB)[0][1:3] == ports


@pytest.mark.parametrize(
    ("permission", "words"),
    [
        ({"IpProtocol": "icmp", "FromPort": 256, "ToPort": 0}, "ICMP type (256) out of range"),
        ({"IpProtocol": "icmpv6", "FromPort": -2, "ToPort": 0}, "ICMP type (-2) out of range"),
        ({"IpProtocol": "icmpv6", "FromPort": 128}, "Must specify both from and to ports with ICMP."),
        ({"IpProtocol": "tcp", "FromPort": 70000, "ToPort": 70000}, "TCP/UDP (from) port (70000) out of range"),
    ],
)
def test_bad_ports(permission, words):
    """What is beyond the bounds is named."""
    with pytest.raises(ApiError) as caught:
        run(
            small_world(),
            "AuthorizeSecurityGroupIngress",
            GroupId=DB,
            IpPermissions=[{**permission, "IpRanges": [{"CidrIp": "10.9.0.0/16"}]}],
        )
    assert words in str(caught.value)


# -- CIDR blocks -------------------------------------------------------------------------------------------------------


@given(st.ip_addresses(v=4), st.integers(0, 32))
def test_canonical_ipv4(address, length):
    """Host bits are cleared; the canonical form is its own canonical form and holds the address."""
    block = canonical(f"{address}/{length}", ipaddress.IPv4Network)
    assert canonical(block, ipaddress.IPv4Network) == block
    assert address in ipaddress.IPv4Network(block)
    assert block.endswith(f"/{length}")


@given(st.ip_addresses(v=6), st.integers(0, 128))
def test_canonical_ipv6(address, length):
    """However an IPv6 block is written, its canonical form is one: short and in lower case."""
    block = canonical(f"{address.exploded.upper()}/{length}", ipaddress.IPv6Network)
    assert block == canonical(f"{address}/{length}", ipaddress.IPv6Network) == block.lower()
    assert address in ipaddress.IPv6Network(block)


@pytest.mark.parametrize(
    "cidr",
    [
        "",
        "10.0.0.0",
        "10.0.0.0/",
        "10.0.0.0/33",
        "10.0.0/8",
        "10.0.0.0/08",
        "10.0.0.0/255.0.0.0",
        "010.0.0.0/8",
        " 10.0.0.0/8",
        "10.0.0.0/8 ",
        "10.0.0.0/8/8",
        "10.0.0.0/-1",
        "10.0.0.0/٨",
        "0/0",
        "::/0",
        "host/8",
    ],
)
def test_malformed_ipv4(cidr):
    """What is no IPv4 CIDR block is refused in AWS's words."""
    with pytest.raises(ApiError) as caught:
        canonical(cidr, ipaddress.IPv4Network)
    assert (caught.value.code, str(caught.value)) == ("InvalidParameterValue", f"CIDR block {cidr} is malformed")


@pytest.mark.parametrize("cidr", ["10.0.0.0/8", "::", "::/129", "fe80::%eth0/64", "g::/8", ":::/0"])
def test_malformed_ipv6(cidr):
    """What is no IPv6 CIDR block is refused in AWS's words."""
    with pytest.raises(ApiError, match="is malformed"):
        canonical(cidr, ipaddress.IPv6Network)


def test_enforceable():
    """Every kind of rule that is accepted compiles to a ruleset."""
    permissions = [
        {"IpProtocol": protocol, "FromPort": first, "ToPort": last, **source}
        for protocol, first, last in (
            ("tcp", 1, 2),
            ("udp", 3, 3),
            ("icmp", 8, -1),
            ("icmpv6", -1, -1),
            ("-1", 0, 0),
            ("47", 0, 0),
        )
        for source in (
            {"IpRanges": [{"CidrIp": "10.0.0.0/9"}]},
            {"Ipv6Ranges": [{"CidrIpv6": "2001:db8:1::/48"}]},
            {"UserIdGroupPairs": [{"GroupId": DB}]},
        )
    ]
    world, answer = run(small_world(), "AuthorizeSecurityGroupIngress", GroupId=DB, IpPermissions=permissions)
    assert len(answer["SecurityGroupRules"]) == 18
    assert compile_vpc(world, OTHER_VPC).chains


# -- quota -------------------------------------------------------------------------------------------------------------

QUOTA = {"quotas": Quotas(rules_per_group=3)}


def v4(*numbers):
    """A permission with an IPv4 range for each number."""
    return {"IpProtocol": "-1", "IpRanges": [{"CidrIp": f"10.{n}.0.0/16"} for n in numbers]}


def v6(*numbers):
    """A permission with an IPv6 range for each number."""
    return {"IpProtocol": "-1", "Ipv6Ranges": [{"CidrIpv6": f"2001:db8:{n}::/48"} for n in numbers]}


def sg(*group_ids):
    """A permission with references."""
    return {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": one} for one in group_ids]}


@pytest.mark.parametrize(
    ("permissions", "fits"),
    [
        ([v4(1, 2, 3)], True),
        ([v4(1, 2, 3), v6(1, 2, 3)], True),
        ([v4(1, 2, 3, 4)], False),
        ([v6(1, 2, 3, 4)], False),
        ([v4(1, 2), v6(1, 2), sg(DB)], True),
        ([v4(1, 2, 3), sg(DB)], False),
        ([v4(1), v6(1, 2, 3), sg(DB)], False),
        ([sg(DB, APP, NEXT)], True),
        ([sg(DB, APP, NEXT), v6(1)], False),
    ],
)
def test_rule_quota(permissions, fits):
    """Each family has the whole quota; a reference counts in both; the fuller family decides."""
    arguments = {"GroupId": DB, "IpPermissions": permissions}
    if fits:
        run_with(small_world(), "AuthorizeSecurityGroupIngress", QUOTA, **arguments)
        run_with(small_world(), "AuthorizeSecurityGroupEgress", QUOTA, **arguments)
        return
    with pytest.raises(ApiError) as caught:
        run_with(small_world(), "AuthorizeSecurityGroupIngress", QUOTA, **arguments)
    assert caught.value.code == "RulesPerSecurityGroupLimitExceeded"
    assert str(caught.value) == "The maximum number of rules per security group has been reached."


def test_directions_have_quotas_of_their_own():
    """A full inbound side leaves the outbound side free."""
    world, _ = run_with(small_world(), "AuthorizeSecurityGroupIngress", QUOTA, GroupId=DB, IpPermissions=[v4(1, 2, 3)])
    run_with(world, "AuthorizeSecurityGroupEgress", QUOTA, GroupId=DB, IpPermissions=[v4(1, 2, 3)])


def test_outbound_quota():
    """The outbound side has the same limit as the inbound one."""
    with pytest.raises(ApiError, match="maximum number of rules"):
        run_with(small_world(), "AuthorizeSecurityGroupEgress", QUOTA, GroupId=DB, IpPermissions=[v4(1, 2, 3, 4)])


def test_default_quota():
    """By default the 60th rule passes and the 61st does not."""
    world, _ = run(small_world(), "AuthorizeSecurityGroupIngress", GroupId=DB, IpPermissions=[v4(*range(60))])
    with pytest.raises(ApiError, match="maximum number of rules"):
        run(world, "AuthorizeSecurityGroupIngress", GroupId=DB, IpPermissions=[v4(60)])


# -- revoke ------------------------------------------------------------------------------------------------------------


def test_revoke_by_id():
    """A rule goes by its id and is told in the answer."""
    world, answer = run(
        small_world(), "RevokeSecurityGroupIngress", GroupId=WEB, SecurityGroupRuleIds=[SSH_RULE, SSH_RULE]
    )
    assert ("tcp", 22, 22, ANY) not in inbound(world, WEB)
    assert len(world.group(WEB).rules) == 3
    assert answer == {
        "Return": True,
        "RevokedSecurityGroupRules": [
            {
                "SecurityGroupRuleId": SSH_RULE,
                "GroupId": WEB,
                "IsEgress": False,
                "IpProtocol": "tcp",
                "FromPort": 22,
                "ToPort": 22,
                "CidrIpv4": ANY,
            }
        ],
        "UnknownIpPermissions": [],
    }


def test_one_bad_id_revokes_nothing():
    """An unknown id among good ones keeps them all."""
    with pytest.raises(ApiError) as caught:
        run(
            small_world(),
            "RevokeSecurityGroupIngress",
            GroupId=WEB,
            SecurityGroupRuleIds=[SSH_RULE, "sgr-22222222222222221"],
        )
    assert caught.value.code == "InvalidSecurityGroupRuleId.NotFound"


@pytest.mark.parametrize(
    "permission",
    [
        {"IpProtocol": "6", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "9.9.9.9/0", "Description": "x"}]},
        {"IpProtocol": "-1", "FromPort": 0, "ToPort": 0, "Ipv6Ranges": [{"CidrIpv6": "2001:db8::1/32"}]},
    ],
)
def test_revoke_by_permission(permission):
    """A rule goes by its words: spelling, host bits and description do not matter."""
    world, answer = run(small_world(), "RevokeSecurityGroupIngress", GroupId=WEB, IpPermissions=[permission])
    assert len(world.group(WEB).rules) == 3
    assert len(answer["RevokedSecurityGroupRules"]) == 1


@pytest.mark.parametrize(
    "permission", [tcp(22, 23, ANY), tcp(22, 22, "10.0.0.0/8"), {"IpProtocol": "-1", "IpRanges": [{"CidrIp": ANY}]}]
)
def test_unknown_in_default_vpc(permission):
    """In the default VPC a rule that is not there is told, not refused; what is there goes all the same."""
    world, answer = run(
        small_world(), "RevokeSecurityGroupIngress", GroupId=WEB, IpPermissions=[permission, tcp(22, 22, ANY)]
    )
    [unknown] = answer["UnknownIpPermissions"]
    assert unknown["IpRanges"] == permission["IpRanges"]
    assert [one["SecurityGroupRuleId"] for one in answer["RevokedSecurityGroupRules"]] == [SSH_RULE]
    assert ("tcp", 22, 22, ANY) not in inbound(world, WEB)


def test_only_unknown_in_default_vpc():
    """When nothing matches, nothing changes."""
    world, answer = run(small_world(), "RevokeSecurityGroupIngress", GroupId=WEB, IpPermissions=[sg(DB)])
    assert world == small_world()
    assert answer["UnknownIpPermissions"][0]["UserIdGroupPairs"] == [{"UserId": "123456789012", "GroupId": DB}]


def test_revoke_names_groups_exactly():
    """A reference into another account is another rule; an id that is none is malformed, not unknown."""
    permission = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443}
    foreign = {**permission, "UserIdGroupPairs": [{"GroupId": DB, "UserId": "999999999999"}]}
    malformed = {**permission, "UserIdGroupPairs": [{"GroupId": "db"}]}
    for one, code in ((foreign, "InvalidPermission.NotFound"), (malformed, "InvalidGroupId.Malformed")):
        with pytest.raises(ApiError) as caught:
            run(small_world(), "RevokeSecurityGroupIngress", GroupId=APP, IpPermissions=[one])
        assert caught.value.code == code


def test_ports_of_whole_protocols_do_not_matter():
    """A rule for all traffic or another protocol that was stored with ports is the same rule as without."""
    stored = small_world().group(WEB).rules[2]
    assert identity(msgspec.structs.replace(stored, from_port=0, to_port=0)) == identity(stored)


def test_described_permissions_revoke():
    """What DescribeSecurityGroups shows can be handed back to revoke every rule."""
    for group_id in (WEB, APP):
        world = small_world()
        for side, action in (("IpPermissions", "Ingress"), ("IpPermissionsEgress", "Egress")):
            _, answer = run(world, "DescribeSecurityGroups", GroupIds=[group_id])
            shown = answer["SecurityGroups"][0][side]
            world, _ = run(world, f"RevokeSecurityGroup{action}", GroupId=group_id, IpPermissions=shown)
        assert world.group(group_id).rules == ()


def test_default_egress_as_terraform_revokes_it():
    """The outbound rule of a new group is revoked by -1 with ports 0 and 0."""
    world, answer = run(small_world(), "CreateSecurityGroup", GroupName="t", Description="d", VpcId=OTHER_VPC)
    everything = {"IpProtocol": "-1", "FromPort": 0, "ToPort": 0}
    world, _ = run(
        world,
        "RevokeSecurityGroupEgress",
        GroupId=answer["GroupId"],
        IpPermissions=[{**everything, "IpRanges": [{"CidrIp": ANY}]}],
    )
    assert world.group(answer["GroupId"]).rules == ()
    with pytest.raises(ApiError) as caught:
        run(
            world,
            "RevokeSecurityGroupEgress",
            GroupId=answer["GroupId"],
            IpPermissions=[{**everything, "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}],
        )
    assert caught.value.code == "InvalidPermission.NotFound"


# -- modify ------------------------------------------------------------------------------------------------------------


def modify(world, group_id, **rules):
    """The World after modifying rules by id (with `_` for `-`)."""
    updates = [
        {"SecurityGroupRuleId": name.replace("_", "-"), "SecurityGroupRule": fields} for name, fields in rules.items()
    ]
    return run(world, "ModifySecurityGroupRules", GroupId=group_id, SecurityGroupRules=updates)


def test_modify():
    """All fields are replaced, of rules of both directions; id, tags and place stay; no description means none."""
    world, answer = modify(
        small_world(),
        WEB,
        sgr_11111111111111112={"IpProtocol": "tcp", "FromPort": 80, "ToPort": 81, "CidrIpv6": "2001:DB8::9/64"},
        sgr_1111111111111111e={
            "IpProtocol": "udp",
            "FromPort": 53,
            "ToPort": 53,
            "CidrIpv4": "10.0.0.9/8",
            "Description": "dns",
        },
    )
    assert answer == {"Return": True}
    before, after = small_world().group(WEB).rules, world.group(WEB).rules
    assert [rule.id for rule in after] == [rule.id for rule in before]
    assert (after[0], after[2]) == (before[0], before[2])
    assert (after[1].ip_protocol, after[1].from_port, after[1].to_port) == ("tcp", 80, 81)
    assert (after[1].cidr_ipv6, after[1].description, after[1].tags) == ("2001:db8::/64", "", {"Kind": "v6"})
    assert (after[3].is_egress, after[3].peer, after[3].description) == (True, "10.0.0.0/8", "dns")


def test_modify_reference():
    """A reference may be moved to another group of the VPC."""
    fields = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "ReferencedGroupId": APP}
    world, _ = modify(small_world(), APP, sgr_22222222222222221=fields)
    assert inbound(world, APP)[0] == ("tcp", 443, 443, APP)


def test_rules_may_swap():
    """Two rules may take each other's place in one call."""
    world, _ = modify(
        small_world(),
        WEB,
        sgr_11111111111111111={"IpProtocol": "50", "CidrIpv4": "10.0.0.0/8"},
        sgr_11111111111111113={"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "CidrIpv4": ANY},
    )
    assert {identity(rule) for rule in world.group(WEB).rules} == {identity(r) for r in small_world().group(WEB).rules}


def test_modify_to_itself():
    """Writing a rule as it is changes only its description."""
    fields = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "CidrIpv4": ANY, "Description": "new"}
    world, _ = modify(small_world(), WEB, sgr_11111111111111111=fields)
    assert world.group(WEB).rules[0] == msgspec.structs.replace(small_world().group(WEB).rules[0], description="new")


@pytest.mark.parametrize(
    ("rule_id", "fields", "words"),
    [
        ("sgr-11111111111111112", {"CidrIpv4": ANY}, "an IPv4 CIDR for an existing IPv6 CIDR rule."),
        ("sgr-11111111111111112", {"ReferencedGroupId": WEB}, "a referenced group id for an existing IPv6 CIDR rule."),
        ("sgr-22222222222222221", {"CidrIpv4": ANY}, "an IPv4 CIDR for an existing referenced group id rule."),
    ],
)
def test_source_kind_stays(rule_id, fields, words):
    """The kind of source cannot be changed: the refusal names both."""
    owner = APP if rule_id.startswith("sgr-2") else WEB
    update = {"SecurityGroupRuleId": rule_id, "SecurityGroupRule": {"IpProtocol": "-1", **fields}}
    with pytest.raises(ApiError) as caught:
        run(small_world(), "ModifySecurityGroupRules", GroupId=owner, SecurityGroupRules=[update])
    assert str(caught.value) == f"You may not specify {words}"


def test_the_same_rule_id_twice():
    """A rule may be modified once per call."""
    updates = [
        {"SecurityGroupRuleId": SSH_RULE, "SecurityGroupRule": {"IpProtocol": "-1", "CidrIpv4": cidr}}
        for cidr in ("10.0.0.0/8", "11.0.0.0/8")
    ]
    with pytest.raises(ApiError, match="must not appear multiple times"):
        run(small_world(), "ModifySecurityGroupRules", GroupId=WEB, SecurityGroupRules=updates)


# -- descriptions ------------------------------------------------------------------------------------------------------


def test_update_descriptions():
    """Descriptions are set and, where none is given, removed; by words or by id; nothing else changes."""
    permission = tcp(22, 22, ANY)
    permission["IpRanges"][0]["Description"] = "everyone"
    six = {"IpProtocol": "-1", "Ipv6Ranges": [{"CidrIpv6": "2001:db8::/32"}]}
    world, answer = run(
        small_world(), "UpdateSecurityGroupRuleDescriptionsIngress", GroupId=WEB, IpPermissions=[permission, six]
    )
    assert answer == {"Return": True}
    assert [rule.description for rule in world.group(WEB).rules] == ["everyone", "", "", ""]
    by_id = [{"SecurityGroupRuleId": "sgr-1111111111111111e", "Description": "out"}]
    world, _ = run(
        world, "UpdateSecurityGroupRuleDescriptionsEgress", GroupName="web", SecurityGroupRuleDescriptions=by_id
    )
    assert [rule.description for rule in world.group(WEB).rules] == ["everyone", "", "", "out"]
    assert world.group(WEB).rules[1].tags == {"Kind": "v6"}
    assert [identity(r) for r in world.group(WEB).rules] == [identity(r) for r in small_world().group(WEB).rules]


def test_description_of_one_rule_twice():
    """A rule's description may be set once per call."""
    by_id = [{"SecurityGroupRuleId": SSH_RULE, "Description": text} for text in ("a", "b")]
    with pytest.raises(ApiError, match="must not appear multiple times"):
        run(
            small_world(),
            "UpdateSecurityGroupRuleDescriptionsIngress",
            GroupId=WEB,
            SecurityGroupRuleDescriptions=by_id,
        )


# -- describe ----------------------------------------------------------------------------------------------------------


def found(world, **parameters):
    """Ids of the rules that a description finds."""
    _, answer = run(world, "DescribeSecurityGroupRules", **parameters)
    return [rule["SecurityGroupRuleId"] for rule in answer["SecurityGroupRules"]]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("group-id", APP, ["sgr-22222222222222221", "sgr-22222222222222222", "sgr-2222222222222222e"]),
        (
            "group-id",
            "sg-2222222222222222?",
            ["sgr-22222222222222221", "sgr-22222222222222222", "sgr-2222222222222222e"],
        ),
        ("group-id", "sg-99999999999999999", []),
        ("security-group-rule-id", SSH_RULE, [SSH_RULE]),
        ("tag:Kind", "v6", ["sgr-11111111111111112"]),
    ],
)
def test_rule_filter(name, value, expected):
    """Every filter of the documentation finds the rules it should; an unknown group has none."""
    assert found(small_world(), Filters=[{"Name": name, "Values": [value]}]) == expected


def test_describe_rules():
    """Rules are found by id, each once; a description and an IPv6 range are told; icmp has its type and code."""
    assert found(small_world(), SecurityGroupRuleIds=[SSH_RULE, SSH_RULE]) == [SSH_RULE]
    assert len(found(small_world())) == 7
    _, answer = run(
        small_world(),
        "DescribeSecurityGroupRules",
        SecurityGroupRuleIds=["sgr-11111111111111112", "sgr-22222222222222222"],
    )
    six, icmp = answer["SecurityGroupRules"]
    assert (six["CidrIpv6"], six["Description"]) == ("2001:db8::/32", "six")
    assert six["Tags"] == [{"Key": "Kind", "Value": "v6"}]
    assert (icmp["FromPort"], icmp["ToPort"], icmp["Tags"]) == (8, -1, [])


def test_rule_pages():
    """Pages together give every rule once, also when a rule seen before is gone."""
    world, answer = small_world(), {}
    _, answer = run(world, "DescribeSecurityGroupRules", MaxResults=5)
    seen = [rule["SecurityGroupRuleId"] for rule in answer["SecurityGroupRules"]]
    owner = WEB if seen[-1].startswith("sgr-1") else APP
    world, _ = run(world, "RevokeSecurityGroupIngress", GroupId=owner, SecurityGroupRuleIds=[seen[-1]])
    seen += found(world, MaxResults=5, NextToken=answer["NextToken"])
    assert sorted(seen) == sorted(rule.id for group in small_world().groups for rule in group.rules)


# -- any sequence of calls ---------------------------------------------------------------------------------------------

PERMISSIONS = st.builds(
    lambda protocol, port, sources: {"IpProtocol": protocol, "FromPort": port, "ToPort": port, **sources},
    st.sampled_from(["tcp", "6", "UDP", "-1", "47"]),
    st.integers(20, 22),
    st.one_of(
        st.sampled_from(["10.0.0.1/8", "10.0.0.0/8", ANY]).map(lambda cidr: {"IpRanges": [{"CidrIp": cidr}]}),
        st.sampled_from(["::/0", "1::/0"]).map(lambda cidr: {"Ipv6Ranges": [{"CidrIpv6": cidr}]}),
        st.sampled_from([WEB, DEFAULT]).map(lambda group: {"UserIdGroupPairs": [{"GroupId": group}]}),
    ),
)


@given(st.lists(st.tuples(st.sampled_from(["Authorize", "Revoke"]), st.booleans(), PERMISSIONS), max_size=12))
def test_no_rule_twice(steps):
    """Whatever is authorized and revoked, no group ever holds a rule twice, and both actions agree what is there."""
    world = msgspec.structs.replace(
        small_world(),
        groups=(
            SecurityGroup(id=DEFAULT, vpc_id=VPC, name="default"),
            *(one for one in small_world().groups if one.id != DEFAULT),
        ),
    )
    for verb, is_egress, permission in steps:
        action = f"{verb}SecurityGroup{'Egress' if is_egress else 'Ingress'}"
        before = {identity(rule) for rule in world.group(DEFAULT).rules}
        try:
            world, _ = run(world, action, GroupId=DEFAULT, IpPermissions=[permission])
        except ApiError as error:
            assert (verb, error.code) == ("Authorize", "InvalidPermission.Duplicate")
            continue
        rules = world.group(DEFAULT).rules
        after = {identity(rule) for rule in rules}
        assert len(after) == len(rules)
        assert after >= before if verb == "Authorize" else after <= before
        if verb == "Authorize":
            assert len(after) == len(before) + 1
