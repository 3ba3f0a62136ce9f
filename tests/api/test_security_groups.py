"""Security groups and their rules, as clients use them: through the stock SDK, in a deployment."""

import itertools

import pytest

from tests.api.worlds import code_of, filters, refusal, tagged

VPC_RANGE = "10.0.0.0/16"
_numbers = itertools.count(1)


def rule(protocol="tcp", port=None, *cidrs, to=None, **more):
    """An IpPermission."""
    ports = {} if port is None else {"FromPort": port, "ToPort": port if to is None else to}
    ranges = {"IpRanges": [{"CidrIp": cidr} for cidr in cidrs]} if cidrs else {}
    return {"IpProtocol": protocol, **ports, **ranges, **more}


def from_group(group_id, **more):
    """A source: the members of a group."""
    return {"UserIdGroupPairs": [{"GroupId": group_id, **more}]}


@pytest.fixture(scope="module")
def vpc(ec2):
    """One VPC for the module."""
    return ec2.create_vpc(CidrBlock=VPC_RANGE)["Vpc"]["VpcId"]


@pytest.fixture
def new(ec2, vpc):
    """What makes a group without rules: new(inbound rule, ...) -> its id."""

    def make(*inbound, name=None, in_vpc=vpc):
        name = name or f"group-{next(_numbers)}"
        group = ec2.create_security_group(GroupName=name, Description="d", VpcId=in_vpc)["GroupId"]
        ec2.revoke_security_group_egress(GroupId=group, IpPermissions=[rule("-1", None, "0.0.0.0/0")])
        if inbound:
            ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=list(inbound))
        return group

    return make


def shown(ec2, group):
    """The group as DescribeSecurityGroups has it."""
    return ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]


def rules_of(ec2, group):
    """Its rules one by one, in order."""
    return ec2.describe_security_group_rules(Filters=filters(group_id=group))["SecurityGroupRules"]


# -- the sequence of Terraform's aws_security_group --------------------------------------------------------------------


def test_terraform(ec2, vpc):
    """Create, revoke what it comes with (ports 0/0), authorise, update, revoke by id, delete until it is not found."""
    made = ec2.create_security_group(
        GroupName="tf", Description="Managed by Terraform", VpcId=vpc, **tagged("security-group", {"Name": "tf"})
    )
    group = made["GroupId"]
    assert made["SecurityGroupArn"] == f"arn:aws:ec2:us-east-1:123456789012:security-group/{group}"
    assert made["Tags"] == [{"Key": "Name", "Value": "tf"}]

    (default,) = shown(ec2, group)["IpPermissionsEgress"]
    assert (default["IpProtocol"], default["IpRanges"]) == ("-1", [{"CidrIp": "0.0.0.0/0"}])
    revoked = ec2.revoke_security_group_egress(GroupId=group, IpPermissions=[rule("-1", 0, "0.0.0.0/0")])
    assert [one["CidrIpv4"] for one in revoked["RevokedSecurityGroupRules"]] == ["0.0.0.0/0"]
    everything_v6 = {"IpProtocol": "-1", "FromPort": 0, "ToPort": 0, "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}
    asked = {"GroupId": group, "IpPermissions": [everything_v6]}
    assert code_of(ec2, "RevokeSecurityGroupEgress", **asked) == "InvalidPermission.NotFound"
    assert shown(ec2, group)["IpPermissionsEgress"] == []

    added = ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule("tcp", 443, "192.0.2.0/24")])
    rule_id = added["SecurityGroupRules"][0]["SecurityGroupRuleId"]
    assert added["Return"] is True
    ec2.revoke_security_group_ingress(GroupId=group, SecurityGroupRuleIds=[rule_id])
    assert rules_of(ec2, group) == []
    assert code_of(ec2, "RevokeSecurityGroupIngress", GroupId=group, SecurityGroupRuleIds=[rule_id]) == (
        "InvalidSecurityGroupRuleId.NotFound"
    )
    deleted = ec2.delete_security_group(GroupId=group)
    assert (deleted["Return"], deleted["GroupId"]) == (True, group)
    assert code_of(ec2, "DescribeSecurityGroups", GroupIds=[group]) == "InvalidGroup.NotFound"


def test_new_group(ec2, vpc):
    """What a group is created with is what is shown, and what is not there is absent, as at AWS."""
    made = ec2.create_security_group(GroupName="shown ", Description="as it is", VpcId=vpc)["GroupId"]
    item = shown(ec2, made)
    assert {name: item[name] for name in ("GroupId", "GroupName", "Description", "VpcId", "OwnerId")} == {
        "GroupId": made,
        "GroupName": "shown",
        "Description": "as it is",
        "VpcId": vpc,
        "OwnerId": "123456789012",
    }
    assert item["SecurityGroupArn"] == f"arn:aws:ec2:us-east-1:123456789012:security-group/{made}"
    assert "Tags" not in item
    assert item["IpPermissions"] == []


def test_default_group(ec2, vpc):
    """Each VPC has one: members among themselves, everything out; its rules may change, it cannot be deleted."""
    found = ec2.describe_security_groups(Filters=filters(vpc_id=vpc, group_name="default"))["SecurityGroups"]
    (group,) = found
    assert group["Description"] == "default VPC security group"
    (inbound,) = group["IpPermissions"]
    assert (inbound["IpProtocol"], "FromPort" in inbound) == ("-1", False)
    assert inbound["UserIdGroupPairs"] == [{"UserId": "123456789012", "GroupId": group["GroupId"]}]
    assert code_of(ec2, "DeleteSecurityGroup", GroupId=group["GroupId"]) == "CannotDelete"


# -- rules -------------------------------------------------------------------------------------------------------------


def test_authorized_rules(ec2, new):
    """Each source is a rule with an id and an ARN; the answer has every field as DescribeSecurityGroupRules has it."""
    group, other = new(), new()
    added = ec2.authorize_security_group_ingress(
        GroupId=group,
        IpPermissions=[
            {
                **rule("TCP", 80, to=90),
                "IpRanges": [{"CidrIp": "192.0.2.77/24", "Description": "office"}],
                "Ipv6Ranges": [{"CidrIpv6": "2001:DB8::1/32"}],
                **from_group(other, Description="peers"),
            },
            {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "198.51.100.0/24"}]},
        ],
        **tagged("security-group-rule", {"Team": "red"}),
    )["SecurityGroupRules"]
    ids = [one["SecurityGroupRuleId"] for one in added]
    assert len(set(ids)) == 4
    assert all(len(one) == len("sgr-") + 17 for one in ids)
    assert [one["SecurityGroupRuleArn"].rpartition("/")[2] for one in added] == ids
    assert [(one.get("CidrIpv4"), one.get("CidrIpv6"), one.get("Description")) for one in added] == [
        ("192.0.2.0/24", None, "office"),
        (None, "2001:db8::/32", None),
        (None, None, "peers"),
        ("198.51.100.0/24", None, None),
    ]
    assert added[2]["ReferencedGroupInfo"] == {"GroupId": other, "UserId": "123456789012"}
    assert [(one["IpProtocol"], one["FromPort"], one["ToPort"]) for one in added] == [("tcp", 80, 90)] * 3 + [
        ("-1", -1, -1)
    ]
    assert all(one["Tags"] == [{"Key": "Team", "Value": "red"}] for one in added)
    assert rules_of(ec2, group) == added


def test_merged_permissions(ec2, new):
    """DescribeSecurityGroups has one IpPermission for each protocol and ports, with all its sources."""
    group = new()
    for permission in (
        rule("tcp", 22, "192.0.2.0/24"),
        rule("tcp", 22, **from_group(group)),
        {**rule("tcp", 22), "Ipv6Ranges": [{"CidrIpv6": "::/0", "Description": "six"}]},
        rule("tcp", 22, "198.51.100.0/24"),
        rule("tcp", 22, "203.0.113.0/24", to=23),
        rule("47", 1, "192.0.2.0/24", to=2),
    ):
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[permission])
    assert shown(ec2, group)["IpPermissions"] == [
        {
            "IpProtocol": "tcp",
            "FromPort": 22,
            "ToPort": 22,
            "IpRanges": [{"CidrIp": "192.0.2.0/24"}, {"CidrIp": "198.51.100.0/24"}],
            "Ipv6Ranges": [{"CidrIpv6": "::/0", "Description": "six"}],
            "UserIdGroupPairs": [{"UserId": "123456789012", "GroupId": group}],
            "PrefixListIds": [],
        },
        {
            "IpProtocol": "tcp",
            "FromPort": 22,
            "ToPort": 23,
            "IpRanges": [{"CidrIp": "203.0.113.0/24"}],
            "Ipv6Ranges": [],
            "UserIdGroupPairs": [],
            "PrefixListIds": [],
        },
        {
            "IpProtocol": "47",
            "IpRanges": [{"CidrIp": "192.0.2.0/24"}],
            "Ipv6Ranges": [],
            "UserIdGroupPairs": [],
            "PrefixListIds": [],
        },
    ]


def test_canonical_cidr(ec2, new):
    """AWS's example: 100.68.0.18/18 is stored as 100.68.0.0/18, and is the same rule when it comes again."""
    group = new(rule("tcp", 22, "100.68.0.18/18"))
    assert [one["CidrIpv4"] for one in rules_of(ec2, group)] == ["100.68.0.0/18"]
    asked = {"GroupId": group, "IpPermissions": [rule("tcp", 22, "100.68.0.18/18")]}
    assert refusal(ec2, "AuthorizeSecurityGroupIngress", asked) == (
        "InvalidPermission.Duplicate",
        'the specified rule "peer: 100.68.0.0/18, TCP, from port: 22, to port: 22, ALLOW" already exists',
        400,
    )
    ec2.revoke_security_group_ingress(**asked)
    assert rules_of(ec2, group) == []


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (rule("tcp", 22, "192.0.2.0/24"), "InvalidPermission.Duplicate"),
        (rule("tcp", 81, "192.0.2.0/24", "10.0.0.300/24"), "InvalidParameterValue"),
        (rule("tcp", 80, "198.51.100.0/24"), "InvalidParameterValue"),  # comes twice
        (rule("tcp", 81, **from_group("sg-99999999999999999")), "InvalidGroup.NotFound"),
        (rule("tcp", 81), "MissingParameter"),
    ],
    ids=["there", "malformed", "twice", "no group", "no source"],
)
def test_all_or_nothing(ec2, new, bad, code):
    """One bad rule among good ones: none is added, whichever place it has."""
    group = new(rule("tcp", 22, "192.0.2.0/24"))
    before, good = rules_of(ec2, group), rule("tcp", 80, "198.51.100.0/24")
    for permissions in ([good, bad], [bad, good]):
        asked = {"GroupId": group, "IpPermissions": permissions}
        assert code_of(ec2, "AuthorizeSecurityGroupIngress", **asked) == code
    assert rules_of(ec2, group) == before


def test_revoke_all_or_nothing(ec2, new):
    """In a VPC that is not the default one, a rule that is not there keeps the others from being revoked."""
    group = new(rule("tcp", 22, "192.0.2.0/24", "198.51.100.0/24"))
    asked = {"GroupId": group, "IpPermissions": [rule("tcp", 22, "192.0.2.0/24"), rule("tcp", 23, "192.0.2.0/24")]}
    assert code_of(ec2, "RevokeSecurityGroupIngress", **asked) == "InvalidPermission.NotFound"
    there, missing = rules_of(ec2, group)[0]["SecurityGroupRuleId"], "sgr-99999999999999999"
    asked = {"GroupId": group, "SecurityGroupRuleIds": [there, missing]}
    assert code_of(ec2, "RevokeSecurityGroupIngress", **asked) == "InvalidSecurityGroupRuleId.NotFound"
    assert len(rules_of(ec2, group)) == 2


def test_revoke_one_of_several_sources(ec2, new):
    """One source of a permission goes, whatever its description; the answer says which rule that was."""
    ranges = [{"CidrIp": "192.0.2.0/24", "Description": "office"}, {"CidrIp": "198.51.100.0/24"}]
    group = new({**rule("tcp", 22), "IpRanges": ranges})
    before = rules_of(ec2, group)
    gone = ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[rule("tcp", 22, "192.0.2.0/24")])
    (revoked,) = gone["RevokedSecurityGroupRules"]
    assert revoked["SecurityGroupRuleId"] == before[0]["SecurityGroupRuleId"]
    assert (revoked["GroupId"], revoked["IsEgress"], revoked["Description"]) == (group, False, "office")
    assert gone["UnknownIpPermissions"] == []
    assert rules_of(ec2, group) == before[1:]


def test_flat_form(ec2, new):
    """The legacy parameters of one inbound rule, to authorise and to revoke."""
    group = new()
    flat = {"IpProtocol": "udp", "FromPort": 53, "ToPort": 53, "CidrIp": "192.0.2.0/24"}
    ec2.authorize_security_group_ingress(GroupId=group, **flat)
    assert [(one["IpProtocol"], one["FromPort"]) for one in rules_of(ec2, group)] == [("udp", 53)]
    ec2.revoke_security_group_ingress(GroupId=group, **flat)
    assert rules_of(ec2, group) == []


def test_modify_rules(ec2, new):
    """Inbound and outbound rules of one call change whole, and keep their ids, tags and kind of source."""
    group = new()
    tags = tagged("security-group-rule", {"Team": "red"})
    inbound = ec2.authorize_security_group_ingress(
        GroupId=group, IpPermissions=[rule("tcp", 22, "192.0.2.0/24")], **tags
    )["SecurityGroupRules"][0]["SecurityGroupRuleId"]
    outbound = ec2.authorize_security_group_egress(GroupId=group, IpPermissions=[rule("-1", None, **from_group(group))])
    outbound = outbound["SecurityGroupRules"][0]["SecurityGroupRuleId"]

    def update(*changes):
        return {
            "GroupId": group,
            "SecurityGroupRules": [{"SecurityGroupRuleId": one, "SecurityGroupRule": new} for one, new in changes],
        }

    wanted = {"IpProtocol": "17", "FromPort": 53, "ToPort": 54, "CidrIpv4": "198.51.100.9/24", "Description": "dns"}
    to_group = {"IpProtocol": "icmp", "FromPort": 8, "ToPort": -1, "ReferencedGroupId": group}
    answer = ec2.modify_security_group_rules(**update((inbound, wanted), (outbound, to_group)))
    assert answer["Return"] is True
    first, second = rules_of(ec2, group)
    assert (first["SecurityGroupRuleId"], first["IpProtocol"], first["ToPort"]) == (inbound, "udp", 54)
    assert (first["CidrIpv4"], first["Description"]) == ("198.51.100.0/24", "dns")
    assert first["Tags"] == [{"Key": "Team", "Value": "red"}]
    assert (second["SecurityGroupRuleId"], second["IsEgress"], second["FromPort"]) == (outbound, True, 8)

    other_kind = {"IpProtocol": "-1", "CidrIpv4": "0.0.0.0/0"}
    assert code_of(ec2, "ModifySecurityGroupRules", **update((inbound, other_kind), (outbound, other_kind))) == (
        "InvalidParameterValue"
    )
    assert rules_of(ec2, group) == [first, second]


def test_descriptions(ec2, new):
    """Set by IpPermissions and by id, of either direction; omitting one removes it. Ids stay."""
    group = new(rule("tcp", 22, "192.0.2.0/24", "198.51.100.0/24"))
    ec2.authorize_security_group_egress(GroupId=group, IpPermissions=[rule("tcp", 22, "192.0.2.0/24")])
    first, second, out = rules_of(ec2, group)

    def described():
        return [one.get("Description") for one in rules_of(ec2, group)]

    ranges = [{"CidrIp": "192.0.2.0/24", "Description": "a-zA-Z0-9. _-:/()#,@[]+=&;{}!$*"}]
    ec2.update_security_group_rule_descriptions_ingress(
        GroupId=group, IpPermissions=[{**rule("tcp", 22), "IpRanges": ranges}]
    )
    assert described() == [ranges[0]["Description"], None, None]
    by_id = [{"SecurityGroupRuleId": second["SecurityGroupRuleId"], "Description": "home"}]
    ec2.update_security_group_rule_descriptions_ingress(GroupId=group, SecurityGroupRuleDescriptions=by_id)
    by_id = [{"SecurityGroupRuleId": out["SecurityGroupRuleId"], "Description": "out"}]
    ec2.update_security_group_rule_descriptions_egress(GroupId=group, SecurityGroupRuleDescriptions=by_id)
    assert described() == [ranges[0]["Description"], "home", "out"]
    ec2.update_security_group_rule_descriptions_ingress(
        GroupId=group, IpPermissions=[rule("tcp", 22, "192.0.2.0/24", "198.51.100.0/24")]
    )
    assert described() == [None, None, "out"]
    ids = [one["SecurityGroupRuleId"] for one in (first, second, out)]
    assert [one["SecurityGroupRuleId"] for one in rules_of(ec2, group)] == ids


@pytest.mark.parametrize("member", ["GroupName", "Description"])
def test_longest_text(ec2, vpc, member):
    """255 characters of a name or description are taken as they are, one more is refused."""
    asked = {"GroupName": f"g{next(_numbers)}", "Description": "d", "VpcId": vpc}
    longest = f"{next(_numbers)} ".ljust(255, "x")
    assert code_of(ec2, "CreateSecurityGroup", **asked | {member: longest + "x"}) == "InvalidParameterValue"
    made = ec2.create_security_group(**asked | {member: longest})["GroupId"]
    assert shown(ec2, made)[member] == longest


def test_longest_rule_description(ec2, new):
    """The same for a rule's description."""
    group = new()
    for length, refused in ((256, True), (255, False)):
        ranges = [{"CidrIp": "192.0.2.0/24", "Description": "x" * length}]
        asked = {"GroupId": group, "IpPermissions": [{**rule("tcp", 22), "IpRanges": ranges}]}
        if refused:
            assert code_of(ec2, "AuthorizeSecurityGroupIngress", **asked) == "InvalidParameterValue"
        else:
            ec2.authorize_security_group_ingress(**asked)
            assert rules_of(ec2, group)[0]["Description"] == "x" * 255


def test_filter_limits(ec2):
    """Up to 50 filters with up to 200 values each."""
    for filter_count, value_count, refused in ((50, 200, False), (51, 1, True), (1, 201, True)):
        names = [{"Name": "group-name", "Values": ["x"] * value_count} for _ in range(filter_count)]
        if refused:
            assert code_of(ec2, "DescribeSecurityGroups", Filters=names) == "FilterLimitExceeded"
        else:
            assert ec2.describe_security_groups(Filters=names)["SecurityGroups"] == []


# -- quotas, references, deletion --------------------------------------------------------------------------------------


def test_rule_quota(ec2, new):
    """60 in each direction, and for each of IPv4 and IPv6; a group reference stands in both families."""
    group, other = new(), new()
    v4 = [f"10.{number}.0.0/16" for number in range(59)]
    v6 = [{"CidrIpv6": f"2001:db8:{number:x}::/48"} for number in range(60)]
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule("-1", None, *v4)])
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[{"IpProtocol": "-1", "Ipv6Ranges": v6}])
    one_more_v4 = {"GroupId": group, "IpPermissions": [rule("-1", None, "10.60.0.0/16")]}
    reference = {"GroupId": group, "IpPermissions": [rule("-1", None, **from_group(other))]}
    full = (
        "RulesPerSecurityGroupLimitExceeded",
        "The maximum number of rules per security group has been reached.",
        400,
    )
    assert refusal(ec2, "AuthorizeSecurityGroupIngress", reference) == full
    ec2.authorize_security_group_ingress(**one_more_v4)
    assert refusal(ec2, "AuthorizeSecurityGroupIngress", one_more_v4 | reference) == full
    another = {"GroupId": group, "IpPermissions": [rule("-1", None, "10.61.0.0/16")]}
    assert refusal(ec2, "AuthorizeSecurityGroupIngress", another) == full
    ec2.authorize_security_group_egress(**another)  # outbound rules have a quota of their own


def test_referenced_group_stays(ec2, new):
    """A group that another one's rule names cannot be deleted until that rule is gone; a rule with itself is none."""
    named, naming = new(), new()
    ec2.authorize_security_group_ingress(GroupId=named, IpPermissions=[rule("-1", None, **from_group(named))])
    ec2.authorize_security_group_ingress(GroupId=naming, IpPermissions=[rule("-1", None, **from_group(named))])
    assert refusal(ec2, "DeleteSecurityGroup", {"GroupId": named}) == (
        "DependencyViolation",
        f"resource {named} has a dependent object",
        400,
    )
    ec2.revoke_security_group_ingress(GroupId=naming, IpPermissions=[rule("-1", None, **from_group(named))])
    ec2.delete_security_group(GroupId=named)


def test_console_form_of_a_reference(ec2, new):
    """`123456789012/sg-...` names account and group."""
    group = new()
    reference = rule("tcp", 1, **from_group(f"123456789012/{group}"))
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[reference])
    assert rules_of(ec2, group)[0]["ReferencedGroupInfo"] == {"GroupId": group, "UserId": "123456789012"}


def test_references_of_other_vpcs(ec2, new):
    """There are no peerings, so no other VPC ever refers to a group."""
    assert ec2.describe_security_group_references(GroupId=[new()])["SecurityGroupReferenceSet"] == []


def test_names_are_of_a_vpc(ec2, vpc, new):
    """The same name in another VPC is another group; in the same one it is taken, in whatever case."""
    new(name="Name")
    taken = {"GroupName": "nAME", "Description": "d", "VpcId": vpc}
    assert code_of(ec2, "CreateSecurityGroup", **taken) == "InvalidGroup.Duplicate"
    other = ec2.create_vpc(CidrBlock=VPC_RANGE)["Vpc"]["VpcId"]
    ec2.create_security_group(**taken | {"VpcId": other})


# -- finding -----------------------------------------------------------------------------------------------------------


def test_groups_for_vpc(ec2, new):
    """The groups of a VPC, its default one included, with tags, filtered."""
    vpc = ec2.create_vpc(CidrBlock=VPC_RANGE)["Vpc"]["VpcId"]
    group = new(name="front", in_vpc=vpc)
    ec2.create_tags(Resources=[group], Tags=[{"Key": "Team", "Value": "red"}])
    found = ec2.get_security_groups_for_vpc(VpcId=vpc)["SecurityGroupForVpcs"]
    assert sorted(one["GroupName"] for one in found) == ["default", "front"]
    found = ec2.get_security_groups_for_vpc(VpcId=vpc, Filters=filters(group_name="fr*"))["SecurityGroupForVpcs"]
    assert found == [
        {
            "Description": "d",
            "GroupName": "front",
            "OwnerId": "123456789012",
            "GroupId": group,
            "Tags": [{"Key": "Team", "Value": "red"}],
            "PrimaryVpcId": vpc,
        }
    ]


@pytest.fixture(scope="module")
def filtered(ec2):
    """Groups to be found, by name, in a VPC of their own."""
    vpc = ec2.create_vpc(CidrBlock=VPC_RANGE)["Vpc"]["VpcId"]
    made = {"vpc": vpc}
    for name, description, tags in (
        ("web-1", "front", {"Team": "red", "Stage": "prod"}),
        ("web-2", "front*", {"Team": "blue"}),
        ("db", "back", {"Stage": "test"}),
    ):
        made[name] = ec2.create_security_group(
            GroupName=name, Description=description, VpcId=vpc, **tagged("security-group", tags)
        )["GroupId"]
    to_web = rule("tcp", 5432, **from_group(made["web-1"]))
    ec2.authorize_security_group_ingress(GroupId=made["db"], IpPermissions=[to_web, rule("udp", 53, "192.0.2.0/24")])
    six = {"IpProtocol": "icmpv6", "FromPort": -1, "ToPort": -1, "Ipv6Ranges": [{"CidrIpv6": "2001:db8::/32"}]}
    ec2.authorize_security_group_egress(GroupId=made["web-2"], IpPermissions=[six])
    return made


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("group-name", ["web-*"], {"web-1", "web-2"}),
        ("group-name", ["web-?", "d?"], {"web-1", "web-2", "db"}),
        ("group-name", ["WEB-1"], set()),
        ("group-name", ["web"], set()),
        ("description", ["front\\*"], {"web-2"}),
        ("description", ["*o*t"], {"web-1"}),
        ("group-id", ["{db}", "sg-99999999999999999"], {"db"}),
        ("owner-id", ["123456789012"], {"web-1", "web-2", "db", "default"}),
        ("tag:Team", ["red", "blue"], {"web-1", "web-2"}),
        ("tag:Team", ["r*"], {"web-1"}),
        ("tag:Colour", ["*"], set()),
        ("tag-key", ["Stage"], {"web-1", "db"}),
        ("tag-value", ["t?st"], {"db"}),
        ("ip-permission.protocol", ["udp"], {"db"}),
        ("ip-permission.from-port", ["5432"], {"db"}),
        ("ip-permission.to-port", ["53"], {"db"}),
        ("ip-permission.cidr", ["192.0.2.*"], {"db"}),
        ("ip-permission.group-id", ["{web-1}"], {"db"}),
        ("ip-permission.group-name", ["web-1"], {"db"}),
        ("ip-permission.user-id", ["123456789012"], {"db", "default"}),
        ("ip-permission.ipv6-cidr", ["*"], set()),
        ("ip-permission.prefix-list-id", ["*"], set()),
        ("egress.ip-permission.ipv6-cidr", ["2001:db8::/32"], {"web-2"}),
        ("egress.ip-permission.protocol", ["icmpv6"], {"web-2"}),
        ("egress.ip-permission.cidr", ["0.0.0.0/0"], {"web-1", "web-2", "db", "default"}),
    ],
)
def test_filter(ec2, filtered, name, values, expected):
    """Each filter of DescribeSecurityGroups."""
    values = [filtered.get(value.strip("{}"), value) if value[0] == "{" else value for value in values]
    wanted = [{"Name": "vpc-id", "Values": [filtered["vpc"]]}, {"Name": name, "Values": values}]
    found = ec2.describe_security_groups(Filters=wanted)["SecurityGroups"]
    assert {one["GroupName"] for one in found} == expected


def test_filters_are_anded(ec2, filtered):
    """Every filter has to hold; rule filters may be met by different rules of a group."""
    wanted = [
        *filters(vpc_id=filtered["vpc"]),
        {"Name": "ip-permission.protocol", "Values": ["tcp"]},
        {"Name": "ip-permission.from-port", "Values": ["53"]},
    ]
    found = ec2.describe_security_groups(Filters=wanted)["SecurityGroups"]
    assert [one["GroupName"] for one in found] == ["db"]
    wanted += [{"Name": "tag:Stage", "Values": ["prod"]}]
    assert ec2.describe_security_groups(Filters=wanted)["SecurityGroups"] == []


def test_rule_filters(ec2, new):
    """DescribeSecurityGroupRules by group, by id and by tag."""
    group = new(rule("tcp", 22, "192.0.2.0/24", "198.51.100.0/24"))
    first, second = (one["SecurityGroupRuleId"] for one in rules_of(ec2, group))
    ec2.create_tags(Resources=[second], Tags=[{"Key": "Ticket", "Value": second}])

    def found(wanted):
        answer = ec2.describe_security_group_rules(Filters=[{"Name": n, "Values": v} for n, v in wanted.items()])
        return [one["SecurityGroupRuleId"] for one in answer["SecurityGroupRules"]]

    assert found({"security-group-rule-id": [first]}) == [first]
    assert found({"tag:Ticket": [second]}) == [second]
    assert found({"group-id": ["sg-99999999999999999"]}) == []
    assert [
        one["SecurityGroupRuleId"]
        for one in ec2.describe_security_group_rules(SecurityGroupRuleIds=[second, first])["SecurityGroupRules"]
    ] == [second, first]
