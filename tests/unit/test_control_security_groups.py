"""Security groups: every refusal in AWS's words, creation, deletion, description, and what IAM is asked."""

import tomllib
from pathlib import Path

import msgspec
import pytest

from tests.unit.sg_world import APP, DB, DEFAULT, MODEL, NEXT, OTHER_VPC, VPC, WEB, asks, run, run_with, small_world
from wicketgate.control import operations
from wicketgate.control.common import Quotas
from wicketgate.control.security_groups import default_group_of, default_security_group
from wicketgate.model import ApiError, SecurityGroup, World

GOLDEN = Path(__file__).parent.parent / "golden" / "errors.toml"
ERRORS = tomllib.loads(GOLDEN.read_text(encoding="utf-8"))["security-groups"]

ACTIONS = {
    "AuthorizeSecurityGroupEgress",
    "AuthorizeSecurityGroupIngress",
    "CreateSecurityGroup",
    "DeleteSecurityGroup",
    "DescribeSecurityGroupReferences",
    "DescribeSecurityGroupRules",
    "DescribeSecurityGroups",
    "GetSecurityGroupsForVpc",
    "ModifySecurityGroupRules",
    "RevokeSecurityGroupEgress",
    "RevokeSecurityGroupIngress",
    "UpdateSecurityGroupRuleDescriptionsEgress",
    "UpdateSecurityGroupRuleDescriptionsIngress",
}


def test_actions_offered():
    """Every action on groups and rules is offered under its name in the service model."""
    assert {("ec2", name) for name in ACTIONS} <= set(operations())
    assert set(MODEL.operation_names) >= ACTIONS


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: f"{e['action']}: {e['does']}")
def test_refusal(error):
    """A bad call is refused with AWS's code, words and status, whatever else is right."""
    with pytest.raises(ApiError) as caught:
        run(small_world(), error["action"], **error["parameters"])
    assert (caught.value.code, str(caught.value), caught.value.http_status) == (error["code"], error["message"], 400)


# -- create ------------------------------------------------------------------------------------------------------------


def test_create():
    """A new group lets everything out and nothing in; its name loses trailing spaces; tags are answered."""
    tags = [{"ResourceType": "security-group", "Tags": [{"Key": "Name", "Value": "n"}]}]
    world, answer = run(
        small_world(),
        "CreateSecurityGroup",
        GroupName="new  ",
        Description="d",
        VpcId=OTHER_VPC,
        TagSpecifications=tags,
    )
    group = world.group(answer["GroupId"])
    assert (group.vpc_id, group.name, group.description, group.tags) == (OTHER_VPC, "new", "d", {"Name": "n"})
    assert answer["SecurityGroupArn"] == f"arn:aws:ec2:us-east-1:123456789012:security-group/{group.id}"
    assert answer["Tags"] == [{"Key": "Name", "Value": "n"}]
    [rule] = group.rules
    assert (rule.is_egress, rule.ip_protocol, rule.cidr_ipv4) == (True, "-1", "0.0.0.0/0")


def test_create_in_default_vpc():
    """Without a VpcId the group is made in the default VPC; without one of those it is refused."""
    world, answer = run(small_world(), "CreateSecurityGroup", GroupName="app", Description="d")
    assert world.group(answer["GroupId"]).vpc_id == VPC
    assert "Tags" not in answer
    with pytest.raises(ApiError, match="No default VPC for this user") as caught:
        run(World(), "CreateSecurityGroup", GroupName="app", Description="d")
    assert caught.value.code == "VPCIdNotSpecified"


@pytest.mark.parametrize("name", ["a" * 255, "a. _-:/()#,@[]+=&;{}!$*", "sgmine", "my default"])
def test_allowed_names(name):
    """All of the documented characters and 255 of them are allowed in names and descriptions."""
    world, answer = run(small_world(), "CreateSecurityGroup", GroupName=name, Description=name)
    assert world.group(answer["GroupId"]).name == name


@pytest.mark.parametrize("name", ["a" * 256, "a?", "a<", 'a"', "a\n", "a\\"])
def test_refused_names(name):
    """Other characters, and more than 255, are refused in names and descriptions."""
    for given in ({"GroupName": name, "Description": "d"}, {"GroupName": "n", "Description": name}):
        with pytest.raises(ApiError, match=r"Invalid security group (name|description)\."):
            run(small_world(), "CreateSecurityGroup", **given)


def test_group_quota():
    """The last group of the quota is made, the next is not."""
    quotas = {"quotas": Quotas(groups_per_region=6)}
    world, _ = run_with(small_world(), "CreateSecurityGroup", quotas, GroupName="six", Description="d")
    with pytest.raises(ApiError) as caught:
        run_with(world, "CreateSecurityGroup", quotas, GroupName="seven", Description="d")
    assert caught.value.code == "SecurityGroupLimitExceeded"


def test_default_group():
    """A VPC's own group: members may talk to each other and to everybody."""
    ids = iter(("sg-9", "sgr-1", "sgr-2"))
    group = default_security_group(OTHER_VPC, lambda prefix: next(ids))
    assert (group.id, group.name, group.description) == ("sg-9", "default", "default VPC security group")
    [inbound], [outbound] = group.inbound, group.outbound
    assert (inbound.ip_protocol, inbound.referenced_group_id) == ("-1", "sg-9")
    assert (outbound.ip_protocol, outbound.cidr_ipv4) == ("-1", "0.0.0.0/0")
    world = msgspec.structs.replace(small_world(), groups=(*small_world().groups, group))
    world.check()
    assert default_group_of(world, OTHER_VPC) == group


# -- delete ------------------------------------------------------------------------------------------------------------


def test_delete():
    """A group that nothing refers to goes, also by its name in the default VPC, also when it names itself."""
    world = small_world()
    spare = default_security_group(VPC, lambda prefix: f"{prefix}-5")
    spare = msgspec.structs.replace(spare, name="Spare")
    world = msgspec.structs.replace(world, groups=(*world.groups, spare))
    after, answer = run(world, "DeleteSecurityGroup", GroupName="spare")
    assert answer == {"Return": True, "GroupId": "sg-5"}
    assert after.group("sg-5") is None
    assert len(after.groups) == len(world.groups) - 1


def test_delete_after_revoke():
    """Once the rule that names it is gone, a group can be deleted."""
    world, _ = run(
        small_world(), "RevokeSecurityGroupIngress", GroupId=APP, SecurityGroupRuleIds=["sgr-22222222222222221"]
    )
    world, _ = run(world, "DeleteSecurityGroup", GroupId=DB)
    assert world.group(DB) is None


# -- describe ----------------------------------------------------------------------------------------------------------


def described(**parameters):
    """Ids of the groups that a description finds."""
    _, answer = run(small_world(), "DescribeSecurityGroups", **parameters)
    return [group["GroupId"] for group in answer["SecurityGroups"]]


def test_describe_item():
    """A group is described with its rules merged, ports only where the protocol has them."""
    _, answer = run(small_world(), "DescribeSecurityGroups", GroupIds=[WEB])
    empty = {"UserIdGroupPairs": [], "IpRanges": [], "Ipv6Ranges": [], "PrefixListIds": []}
    ssh = {**empty, "IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    six = {**empty, "IpProtocol": "-1", "Ipv6Ranges": [{"CidrIpv6": "2001:db8::/32", "Description": "six"}]}
    assert answer == {
        "SecurityGroups": [
            {
                "OwnerId": "123456789012",
                "GroupId": WEB,
                "GroupName": "web",
                "Description": "front",
                "VpcId": VPC,
                "SecurityGroupArn": f"arn:aws:ec2:us-east-1:123456789012:security-group/{WEB}",
                "Tags": [{"Key": "Name", "Value": "web"}, {"Key": "Team", "Value": "a"}],
                "IpPermissions": [ssh, six, {**empty, "IpProtocol": "50", "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}],
                "IpPermissionsEgress": [{**empty, "IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}],
            }
        ]
    }


def test_describe_reference():
    """A referenced group comes with its account; a group without tags has none in the answer."""
    _, answer = run(small_world(), "DescribeSecurityGroups", GroupIds=[APP])
    [group] = answer["SecurityGroups"]
    assert group["IpPermissions"][0]["UserIdGroupPairs"] == [{"UserId": "123456789012", "GroupId": DB}]
    assert "Tags" not in group


def test_sources_merge():
    """All sources of one protocol and port range stand in one permission."""
    more = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}
    more["IpRanges"] = [{"CidrIp": "10.0.0.0/8", "Description": "ten"}]
    more["Ipv6Ranges"] = [{"CidrIpv6": "::/0"}]
    more["UserIdGroupPairs"] = [{"GroupId": WEB, "Description": "self"}]
    world, _ = run(small_world(), "AuthorizeSecurityGroupIngress", GroupId=WEB, IpPermissions=[more])
    _, answer = run(world, "DescribeSecurityGroups", GroupIds=[WEB])
    [ssh] = [one for one in answer["SecurityGroups"][0]["IpPermissions"] if one["IpProtocol"] == "tcp"]
    assert ssh["IpRanges"] == [{"CidrIp": "0.0.0.0/0"}, {"CidrIp": "10.0.0.0/8", "Description": "ten"}]
    assert ssh["Ipv6Ranges"] == [{"CidrIpv6": "::/0"}]
    assert ssh["UserIdGroupPairs"] == [{"UserId": "123456789012", "GroupId": WEB, "Description": "self"}]


def test_describe_by_id_and_name():
    """Ids and names are united, each group once; without either come all."""
    assert described() == [DEFAULT, WEB, APP, DB, NEXT]
    assert described(GroupIds=[DB, WEB, DB]) == [DB, WEB]
    assert described(GroupNames=["web"]) == [WEB]
    assert described(GroupIds=[WEB, DB], GroupNames=["web"]) == [WEB, DB]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("description", "fr*", [WEB]),
        ("group-id", WEB, [WEB]),
        ("group-name", "?eb", [WEB]),
        ("group-name", "WEB", []),
        ("owner-id", "123456789012", [DEFAULT, WEB, APP, DB, NEXT]),
        ("owner-id", "999999999999", []),
        ("vpc-id", OTHER_VPC, [APP, DB, NEXT]),
        ("tag:Team", "a", [WEB]),
        ("tag:Team", "b", []),
        ("tag-key", "Team", [WEB]),
        ("tag-value", "a", [WEB]),
        ("ip-permission.cidr", "0.0.0.0/0", [WEB]),
        ("ip-permission.cidr", "10.*", [WEB, APP]),
        ("ip-permission.ipv6-cidr", "2001:db8::/32", [WEB]),
        ("ip-permission.prefix-list-id", "*", []),
        ("ip-permission.protocol", "icmp", [APP]),
        ("ip-permission.from-port", "22", [WEB]),
        ("ip-permission.to-port", "443", [APP]),
        ("ip-permission.group-id", DB, [APP]),
        ("ip-permission.group-name", "db", [APP]),
        ("ip-permission.user-id", "123456789012", [APP]),
        ("egress.ip-permission.cidr", "0.0.0.0/0", [WEB, APP]),
        ("egress.ip-permission.ipv6-cidr", "*", []),
        ("egress.ip-permission.prefix-list-id", "*", []),
        ("egress.ip-permission.protocol", "-1", [WEB, APP]),
        ("egress.ip-permission.from-port", "22", []),
        ("egress.ip-permission.to-port", "22", []),
        ("egress.ip-permission.group-id", DB, []),
        ("egress.ip-permission.group-name", "db", []),
        ("egress.ip-permission.user-id", "123456789012", []),
    ],
)
def test_filter(name, value, expected):
    """Every filter of the documentation finds the groups it should."""
    assert described(Filters=[{"Name": name, "Values": [value]}]) == expected


def test_filters_met_by_different_rules():
    """Two rule filters may be met by two rules of one group; every filter must be met."""
    both = [
        {"Name": "ip-permission.cidr", "Values": ["10.0.0.0/8"]},
        {"Name": "ip-permission.from-port", "Values": ["22", "8"]},
    ]
    assert described(Filters=both) == [WEB, APP]
    assert described(Filters=[*both, {"Name": "vpc-id", "Values": [VPC]}]) == [WEB]


def test_describe_pages():
    """Pages together give every group once."""
    world = small_world()
    extra = tuple(SecurityGroup(id=f"sg-{n:017x}", vpc_id=VPC, name=f"g{n}") for n in range(8))
    world = msgspec.structs.replace(world, groups=(*world.groups, *extra))
    seen, token = [], None
    for size in (5, 5, 3):
        _, answer = run(world, "DescribeSecurityGroups", MaxResults=5, **({"NextToken": token} if token else {}))
        assert len(answer["SecurityGroups"]) == size
        seen += [group["GroupId"] for group in answer["SecurityGroups"]]
        token = answer.get("NextToken")
    assert token is None
    assert sorted(seen) == sorted(group.id for group in world.groups)


def test_groups_for_vpc():
    """The groups of a VPC, filtered by any of the documented filters."""
    _, answer = run(small_world(), "GetSecurityGroupsForVpc", VpcId=VPC)
    assert answer["SecurityGroupForVpcs"][0] == {
        "Description": "default VPC security group",
        "GroupName": "default",
        "OwnerId": "123456789012",
        "GroupId": DEFAULT,
        "Tags": [],
        "PrimaryVpcId": VPC,
    }
    assert len(answer["SecurityGroupForVpcs"]) == 2
    for name, value in (
        ("group-id", WEB),
        ("description", "front"),
        ("group-name", "web"),
        ("owner-id", "*"),
        ("primary-vpc-id", VPC),
    ):
        _, answer = run(
            small_world(), "GetSecurityGroupsForVpc", VpcId=VPC, Filters=[{"Name": name, "Values": [value]}]
        )
        assert WEB in [one["GroupId"] for one in answer["SecurityGroupForVpcs"]]
    with pytest.raises(ApiError, match="The filter 'tag:a' is invalid"):
        run(small_world(), "GetSecurityGroupsForVpc", VpcId=VPC, Filters=[{"Name": "tag:a", "Values": ["b"]}])


def test_references():
    """Nothing beyond a peering refers to a group: there are no peerings. (With them: test_control_peering.)"""
    _, answer = run(small_world(), "DescribeSecurityGroupReferences", GroupId=[DB])
    assert answer == {"SecurityGroupReferenceSet": []}


# -- what IAM is asked -------------------------------------------------------------------------------------------------

ARN = "arn:aws:ec2:us-east-1:123456789012:"
REGION = {"ec2:Region": ("us-east-1",)}
WEB_CONTEXT = {
    **REGION,
    "ec2:Vpc": (f"{ARN}vpc/{VPC}",),
    "ec2:SecurityGroupID": (WEB,),
    **{
        f"{prefix}:ResourceTag/{key}": (value,)
        for prefix in ("aws", "ec2")
        for key, value in (("Name", "web"), ("Team", "a"))
    },
}


def test_ask_create():
    """Creation is asked about the group to be, the VPC, and the tags."""
    tags = [{"ResourceType": "security-group", "Tags": [{"Key": "k", "Value": "v"}]}]
    asked = asks(small_world(), "CreateSecurityGroup", GroupName="n", Description="d", TagSpecifications=tags)
    requested = {"aws:RequestTag/k": ("v",), "aws:TagKeys": ("k",)}
    assert asked == [
        (
            "ec2:CreateSecurityGroup",
            f"{ARN}security-group/*",
            {**REGION, "ec2:Vpc": (f"{ARN}vpc/{VPC}",), **requested},
        ),
        (
            "ec2:CreateSecurityGroup",
            f"{ARN}vpc/{VPC}",
            {
                **REGION,
                "ec2:VpcID": (VPC,),
                "aws:ResourceTag/Stage": ("prod",),
                "ec2:ResourceTag/Stage": ("prod",),
            },
        ),
        (
            "ec2:CreateTags",
            f"{ARN}security-group/*",
            {**REGION, "ec2:CreateAction": ("CreateSecurityGroup",), **requested},
        ),
    ]


@pytest.mark.parametrize(
    "action",
    [
        "DeleteSecurityGroup",
        "AuthorizeSecurityGroupIngress",
        "AuthorizeSecurityGroupEgress",
        "RevokeSecurityGroupIngress",
        "RevokeSecurityGroupEgress",
        "UpdateSecurityGroupRuleDescriptionsIngress",
        "UpdateSecurityGroupRuleDescriptionsEgress",
    ],
)
def test_ask_group(action):
    """An action on a group is asked about that group with its tags, VPC and id, by id or by name."""
    for named in ({"GroupId": WEB}, {"GroupName": "web"}):
        assert asks(small_world(), action, **named) == [(f"ec2:{action}", f"{ARN}security-group/{WEB}", WEB_CONTEXT)]


def test_ask_unknown_group():
    """A group that does not exist is asked about by its id, so that a refusal does not tell; no name is any group."""
    gone = "sg-99999999999999999"
    assert asks(small_world(), "DeleteSecurityGroup", GroupId=gone) == [
        ("ec2:DeleteSecurityGroup", f"{ARN}security-group/{gone}", REGION)
    ]
    assert asks(World(), "DeleteSecurityGroup", GroupName="web")[0][1] == f"{ARN}security-group/*"


def test_ask_tagged_rules():
    """Rules made with tags are asked about too, as is tagging them."""
    tags = [{"ResourceType": "security-group-rule", "Tags": [{"Key": "k", "Value": "v"}]}]
    asked = asks(small_world(), "AuthorizeSecurityGroupIngress", GroupId=WEB, TagSpecifications=tags)
    assert [(action, resource) for action, resource, _ in asked] == [
        ("ec2:AuthorizeSecurityGroupIngress", f"{ARN}security-group/{WEB}"),
        ("ec2:AuthorizeSecurityGroupIngress", f"{ARN}security-group-rule/*"),
        ("ec2:CreateTags", f"{ARN}security-group-rule/*"),
    ]
    assert asked[2][2]["ec2:CreateAction"] == ("AuthorizeSecurityGroupIngress",)


def test_ask_modify():
    """Modifying is asked about the group and about each rule with its tags."""
    updates = [{"SecurityGroupRuleId": "sgr-11111111111111112"}, {"SecurityGroupRuleId": "sgr-9"}]
    asked = asks(small_world(), "ModifySecurityGroupRules", GroupId=WEB, SecurityGroupRules=updates)
    action = "ec2:ModifySecurityGroupRules"
    assert asked == [
        (action, f"{ARN}security-group/{WEB}", WEB_CONTEXT),
        (
            action,
            f"{ARN}security-group-rule/sgr-11111111111111112",
            {**REGION, "aws:ResourceTag/Kind": ("v6",), "ec2:ResourceTag/Kind": ("v6",)},
        ),
        (action, f"{ARN}security-group-rule/sgr-9", REGION),
    ]


def test_ask_describe():
    """Descriptions are asked about everything; the groups for a VPC about that VPC."""
    assert asks(small_world(), "DescribeSecurityGroups")[0][:2] == ("ec2:DescribeSecurityGroups", "*")
    assert asks(small_world(), "GetSecurityGroupsForVpc", VpcId=VPC)[0][1] == f"{ARN}vpc/{VPC}"
