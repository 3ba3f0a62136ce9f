"""Managed prefix lists: every refusal, entries, versions, sizes, what IAM is asked; and rules that name lists."""

import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.net_world import MODEL, asks, call, run_with
from tests.unit.net_world import run as run_action
from wicketgate.control import operations
from wicketgate.control import prefix_list_answers as _answers  # noqa: F401  # offers its actions
from wicketgate.control import security_group_rules as _rules  # noqa: F401  # offers its actions
from wicketgate.control.common import AWS_QUOTAS, Quotas
from wicketgate.control.prefix_list_entries import MAX_VERSIONS, in_order
from wicketgate.model import (
    ApiError,
    NetworkInterface,
    PrefixList,
    PrefixListEntry,
    PrefixListVersion,
    SecurityGroup,
    SecurityGroupRule,
    Subnet,
    Vpc,
    World,
)

GOLDEN = Path(__file__).parent.parent / "golden" / "errors.toml"
ERRORS = tomllib.loads(GOLDEN.read_text(encoding="utf-8"))["prefix-lists"]

ACTIONS = {
    "CreateManagedPrefixList",
    "DeleteManagedPrefixList",
    "DescribeManagedPrefixLists",
    "DescribePrefixLists",
    "GetManagedPrefixListAssociations",
    "GetManagedPrefixListEntries",
    "ModifyManagedPrefixList",
    "RestoreManagedPrefixListVersion",
}

VPC, WEB, DB = "vpc-11111111111111111", "sg-11111111111111111", "sg-22222222222222222"
OFFICE, SIX = "pl-11111111111111111", "pl-22222222222222222"
LIST_RULE, RANGE_RULE = "sgr-11111111111111111", "sgr-11111111111111112"


def entry(cidr, description=""):
    """An entry of a list."""
    return PrefixListEntry(cidr=cidr, description=description)


def small_world():
    """A group whose first rule names the list `office`, in its version 2; and a list of IPv6 that no rule names."""
    tcp = {"is_egress": False, "ip_protocol": "tcp", "from_port": 22, "to_port": 22}
    second = entry("198.51.100.0/24")
    return World(
        vpcs=(Vpc(id=VPC, cidr_block="10.0.0.0/16"),),
        subnets=(Subnet(id="subnet-1", vpc_id=VPC, cidr_block="10.0.1.0/24"),),
        groups=(
            SecurityGroup(
                id=WEB,
                vpc_id=VPC,
                name="web",
                rules=(
                    SecurityGroupRule(id=LIST_RULE, prefix_list_id=OFFICE, description="the office", **tcp),
                    SecurityGroupRule(id=RANGE_RULE, cidr_ipv4="203.0.113.0/24", **tcp),
                ),
            ),
            SecurityGroup(id=DB, vpc_id=VPC, name="db"),
        ),
        interfaces=(
            NetworkInterface(
                id="eni-1", subnet_id="subnet-1", private_ip_address="10.0.1.4", group_ids=(WEB, DB), link="a"
            ),
        ),
        prefix_lists=(
            PrefixList(
                id=OFFICE,
                name="office",
                address_family="IPv4",
                max_entries=3,
                version=2,
                entries=(entry("192.0.2.0/24", "office"), second),
                state="modify-complete",
                tags={"Team": "red"},
            ),
            PrefixList(
                id=SIX, name="six", address_family="IPv6", max_entries=59, entries=(entry("2001:db8::/32", "six"),)
            ),
        ),
        prefix_list_versions=(PrefixListVersion(id=f"{OFFICE}:2", prefix_list_id=OFFICE, number=2, added=(second,)),),
    )


def run(world, action, **parameters):
    """As `net_world.run`; every World on the way is whole."""
    world, answer = run_action(world, action, **parameters)
    world.check()
    return world, answer


def entries(world, prefix_list, version=None):
    """(CIDR, description) of the entries as GetManagedPrefixListEntries has them."""
    asked = {} if version is None else {"TargetVersion": version}
    answer = run(world, "GetManagedPrefixListEntries", PrefixListId=prefix_list, **asked)[1]
    return [(one["Cidr"], one.get("Description", "")) for one in answer["Entries"]]


def modified(world, prefix_list=OFFICE, add=(), remove=()):
    """The World after a modification by ModifyManagedPrefixList at the present version."""
    asked = {
        "AddEntries": [{"Cidr": cidr} if isinstance(cidr, str) else cidr for cidr in add],
        "RemoveEntries": [{"Cidr": cidr} for cidr in remove],
    }
    version = world.prefix_list(prefix_list).version
    return run(world, "ModifyManagedPrefixList", PrefixListId=prefix_list, CurrentVersion=version, **asked)[0]


def test_actions_offered():
    """Every action on managed prefix lists is offered under its name in the service model."""
    named = {name for name in MODEL.operation_names if "PrefixList" in name}
    assert named - {name for name in named if "Ipam" in name or "TransitGateway" in name} == ACTIONS
    assert {("ec2", name) for name in ACTIONS} <= set(operations())


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: f"{e['action']}: {e['does']}")
def test_refusal(error):
    """A bad call is refused with its code, words and status, whatever else is right."""
    world = small_world()
    with pytest.raises(ApiError) as caught:
        run(world, error["action"], **error["parameters"])
    assert (caught.value.code, str(caught.value), caught.value.http_status) == (error["code"], error["message"], 400)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"PrefixListName": "n" * 256}, "The prefix list name exceeds 255 characters: it has 256."),
        (
            {"Entries": [{"Cidr": "10.0.0.0/8", "Description": "d" * 256}]},
            "The description of the entry with the CIDR (10.0.0.0/8) exceeds 255 characters.",
        ),
    ],
)
def test_too_long(parameters, words):
    """Names and descriptions have 255 characters at most."""
    good = {"PrefixListName": "n" * 255, "MaxEntries": 5, "AddressFamily": "IPv4"}
    run(small_world(), "CreateManagedPrefixList", **good, Entries=[{"Cidr": "10.0.0.0/8", "Description": "d" * 255}])
    with pytest.raises(ApiError) as caught:
        run(small_world(), "CreateManagedPrefixList", **good | parameters)
    assert (caught.value.code, str(caught.value)) == ("InvalidParameterValue", words)


# -- create and delete -------------------------------------------------------------------------------------------------


def test_create():
    """A new list is complete in its version 1, with canonical entries by address; names may come again."""
    given_entries = [{"Cidr": "2001:DB8:1::5/48", "Description": "b"}, {"Cidr": "2001:db8::/48"}, {"Cidr": "::/0"}]
    tags = [{"ResourceType": "prefix-list", "Tags": [{"Key": "k", "Value": "v"}]}]
    world, answer = run(
        small_world(),
        "CreateManagedPrefixList",
        PrefixListName="office",
        MaxEntries=3,
        AddressFamily="IPv6",
        Entries=given_entries,
        TagSpecifications=tags,
    )
    made = world.prefix_lists[-1]
    assert answer["PrefixList"] == {
        "PrefixListId": made.id,
        "AddressFamily": "IPv6",
        "State": "create-complete",
        "PrefixListArn": f"arn:aws:ec2:us-east-1:123456789012:prefix-list/{made.id}",
        "PrefixListName": "office",
        "MaxEntries": 3,
        "Version": 1,
        "Tags": [{"Key": "k", "Value": "v"}],
        "OwnerId": "123456789012",
    }
    assert entries(world, made.id) == [("::/0", ""), ("2001:db8::/48", ""), ("2001:db8:1::/48", "b")]
    assert entries(world, made.id, 1) == entries(world, made.id)


@pytest.mark.parametrize("name", ["com.amazonaws-probe", "comamazonaws.probe", "com.awsome", "COM.AWS.x"])
def test_names_like_those_of_aws(name):
    """Only the three beginnings with their dots are AWS's own."""
    world, _ = run(small_world(), "CreateManagedPrefixList", PrefixListName=name, MaxEntries=1, AddressFamily="IPv4")
    assert world.prefix_lists[-1].name == name


def test_delete():
    """A list goes with all that is kept of its versions; another one's stay."""
    world = modified(small_world(), SIX, add=["2001:db8:1::/48"])
    world, answer = run(world, "DeleteManagedPrefixList", PrefixListId=SIX)
    assert answer["PrefixList"]["State"] == "delete-complete"
    assert [one.id for one in world.prefix_lists] == [OFFICE]
    assert [one.id for one in world.prefix_list_versions] == [f"{OFFICE}:2"]


def test_delete_once_no_rule_names_it():
    """What keeps a list is the rule, inbound or outbound, alone."""
    world = small_world()
    permission = {"IpProtocol": "-1", "PrefixListIds": [{"PrefixListId": OFFICE}]}
    world, _ = run(world, "AuthorizeSecurityGroupEgress", GroupId=DB, IpPermissions=[permission])
    world, _ = run(world, "RevokeSecurityGroupIngress", GroupId=WEB, SecurityGroupRuleIds=[LIST_RULE])
    with pytest.raises(ApiError, match="has a dependent object"):
        run(world, "DeleteManagedPrefixList", PrefixListId=OFFICE)
    world, answer = run(world, "RevokeSecurityGroupEgress", GroupId=DB, IpPermissions=[permission])
    assert answer["RevokedSecurityGroupRules"][0]["PrefixListId"] == OFFICE
    world, _ = run(world, "DeleteManagedPrefixList", PrefixListId=OFFICE)
    assert world.prefix_list(OFFICE) is None


# -- entries and versions ----------------------------------------------------------------------------------------------


def test_modify_entries():
    """One call adds and removes; the version is one on, earlier ones can still be read."""
    asked = {
        "PrefixListId": OFFICE,
        "CurrentVersion": 2,
        "AddEntries": [{"Cidr": "10.1.2.3/8", "Description": "ten"}],
        "RemoveEntries": [{"Cidr": "192.0.2.9/24"}],
    }
    world, answer = run(small_world(), "ModifyManagedPrefixList", **asked)
    assert (answer["PrefixList"]["Version"], answer["PrefixList"]["State"]) == (3, "modify-complete")
    assert entries(world, OFFICE) == [("10.0.0.0/8", "ten"), ("198.51.100.0/24", "")]
    assert entries(world, OFFICE, 3) == entries(world, OFFICE)
    assert entries(world, OFFICE, 2) == [("192.0.2.0/24", "office"), ("198.51.100.0/24", "")]
    assert entries(world, OFFICE, 1) == [("192.0.2.0/24", "office")]


def test_without_a_version():
    """CurrentVersion may be left out."""
    world, answer = run(
        small_world(), "ModifyManagedPrefixList", PrefixListId=OFFICE, RemoveEntries=[{"Cidr": "192.0.2.0/24"}]
    )
    assert answer["PrefixList"]["Version"] == 3
    assert entries(world, OFFICE) == [("198.51.100.0/24", "")]


def test_another_description():
    """An entry that is added again with another description replaces the old one, in a list that is full as well."""
    world = modified(small_world(), add=["10.0.0.0/8"])
    world = modified(world, add=[{"Cidr": "192.0.2.0/24", "Description": "home"}])
    assert entries(world, OFFICE)[1] == ("192.0.2.0/24", "home")
    assert entries(world, OFFICE, 3)[1] == ("192.0.2.0/24", "office")


def test_replace_in_a_full_list():
    """What a call removes makes room for what it adds."""
    world = modified(small_world(), add=["10.0.0.0/8"])
    world = modified(world, add=["11.0.0.0/8"], remove=["10.0.0.0/8"])
    assert [cidr for cidr, _ in entries(world, OFFICE)] == ["11.0.0.0/8", "192.0.2.0/24", "198.51.100.0/24"]


def test_restore():
    """A restored version is a new one with the old entries; what it undid can be restored in turn."""
    world, answer = run(
        small_world(), "RestoreManagedPrefixListVersion", PrefixListId=OFFICE, PreviousVersion=1, CurrentVersion=2
    )
    assert (answer["PrefixList"]["Version"], answer["PrefixList"]["State"]) == (3, "restore-complete")
    assert entries(world, OFFICE) == [("192.0.2.0/24", "office")]
    world, _ = run(world, "RestoreManagedPrefixListVersion", PrefixListId=OFFICE, PreviousVersion=2, CurrentVersion=3)
    assert entries(world, OFFICE) == [("192.0.2.0/24", "office"), ("198.51.100.0/24", "")]
    assert world.prefix_list(OFFICE).version == 4


def test_restore_into_a_smaller_list():
    """A version that no longer fits is refused."""
    world = modified(small_world(), remove=["192.0.2.0/24"])
    world, _ = run(world, "ModifyManagedPrefixList", PrefixListId=OFFICE, MaxEntries=1)
    with pytest.raises(ApiError) as caught:
        run(world, "RestoreManagedPrefixListVersion", PrefixListId=OFFICE, PreviousVersion=2, CurrentVersion=3)
    assert caught.value.code == "PrefixListMaxEntriesExceeded"


def test_versions_kept():
    """The last thousand versions can be read; the one before is forgotten, and nothing of it is kept."""
    world = small_world()
    last = world.prefix_list(OFFICE)
    for number in range(3, MAX_VERSIONS + 2):
        step = {"add": ["10.0.0.0/8"]} if number % 2 else {"remove": ["10.0.0.0/8"]}
        outcome = operations()["ec2", "ModifyManagedPrefixList"].run(
            call(
                world,
                "ModifyManagedPrefixList",
                PrefixListId=OFFICE,
                AddEntries=[{"Cidr": one} for one in step.get("add", ())],
                RemoveEntries=[{"Cidr": one} for one in step.get("remove", ())],
            )
        )
        puts = {type(one): one for one in outcome.change.puts}
        last = puts[PrefixList]
        gone = {one for _, one in outcome.change.deletes}
        steps = (*(one for one in world.prefix_list_versions if one.id not in gone), puts[PrefixListVersion])
        world = msgspec.structs.replace(world, prefix_lists=(last, *world.prefix_lists[1:]), prefix_list_versions=steps)
    assert last.version == MAX_VERSIONS + 1
    assert len(world.prefix_list_versions) == MAX_VERSIONS - 1
    assert [cidr for cidr, _ in entries(world, OFFICE, 2)] == ["192.0.2.0/24", "198.51.100.0/24"]
    with pytest.raises(ApiError, match=r"The version \(1\) of the prefix list"):
        entries(world, OFFICE, 1)


BLOCKS = [f"10.{second}.0.0/{length}" for second in range(0, 256, 64) for length in (10, 16)]
TOGGLES = st.lists(st.sets(st.sampled_from(BLOCKS), min_size=1), max_size=8)


@given(TOGGLES)
def test_any_history(toggles):
    """Whatever a list went through, each of its versions can be read as it was, in order of addresses."""
    world = small_world()
    world = msgspec.structs.replace(
        world,
        groups=(),
        interfaces=(),
        prefix_lists=(PrefixList(id=OFFICE, name="o", address_family="IPv4", max_entries=20),),
        prefix_list_versions=(),
    )
    history = [set()]
    for toggled in toggles:
        world = modified(world, add=sorted(toggled - history[-1]), remove=sorted(toggled & history[-1]))
        history.append(history[-1] ^ toggled)
    for version, held in enumerate(history, 1):
        assert entries(world, OFFICE, version) == [(one.cidr, "") for one in in_order(entry(cidr) for cidr in held)]


def test_entries_of_one_call():
    """A hundred may be added, and a hundred removed, by one call."""
    blocks = [f"10.{number}.0.0/16" for number in range(101)]
    new = {"PrefixListName": "n", "MaxEntries": 200, "AddressFamily": "IPv4"}
    with pytest.raises(ApiError) as caught:
        run(small_world(), "CreateManagedPrefixList", **new, Entries=[{"Cidr": one} for one in blocks])
    assert (caught.value.code, str(caught.value)) == (
        "InvalidParameterValue",
        "The number of entries per request cannot exceeds limit (100).",
    )
    some = [{"Cidr": one} for one in blocks[:100]]
    world, answer = run(small_world(), "CreateManagedPrefixList", **new, Entries=some)
    made = answer["PrefixList"]["PrefixListId"]
    with pytest.raises(ApiError) as caught:
        modified(world, made, add=[f"11.{number}.0.0/16" for number in range(101)])
    assert str(caught.value) == "Request cannot contain more than 100 entry additions or removals."
    world = modified(world, made, add=[f"11.{number}.0.0/16" for number in range(100)], remove=blocks[:100])
    assert len(entries(world, made)) == 100


# -- name and size -----------------------------------------------------------------------------------------------------


def test_rename():
    """A new name makes no new version, alone and with a new size."""
    world, answer = run(small_world(), "ModifyManagedPrefixList", PrefixListId=OFFICE, PrefixListName="home")
    assert (answer["PrefixList"]["PrefixListName"], answer["PrefixList"]["Version"]) == ("home", 2)
    world, answer = run(world, "ModifyManagedPrefixList", PrefixListId=OFFICE, PrefixListName="work", MaxEntries=2)
    assert (world.prefix_list(OFFICE).name, world.prefix_list(OFFICE).max_entries) == ("work", 2)
    assert answer["PrefixList"]["Version"] == 2


def test_resize():
    """A group takes a list as large as its quota leaves room for; a larger size fails, and says for whom."""
    world, answer = run(small_world(), "ModifyManagedPrefixList", PrefixListId=OFFICE, MaxEntries=59)
    assert (answer["PrefixList"]["State"], answer["PrefixList"]["MaxEntries"]) == ("modify-complete", 59)
    world, answer = run(world, "ModifyManagedPrefixList", PrefixListId=OFFICE, MaxEntries=60, PrefixListName="n")
    assert answer["PrefixList"]["State"] == "modify-failed"
    assert answer["PrefixList"]["StateMessage"] == (
        f"The following resources do not support the new maximum size: {WEB}"
    )
    assert (world.prefix_list(OFFICE).max_entries, world.prefix_list(OFFICE).name) == (59, "office")
    world = modified(world, add=["10.0.0.0/8"])
    assert (world.prefix_list(OFFICE).state, world.prefix_list(OFFICE).state_message) == ("modify-complete", "")
    world, answer = run(world, "ModifyManagedPrefixList", PrefixListId=SIX, MaxEntries=1000)
    assert answer["PrefixList"]["State"] == "modify-complete"


def test_resize_fails_for_many():
    """At most ten resources are named."""
    world = small_world()
    permission = {"IpProtocol": "-1", "PrefixListIds": [{"PrefixListId": SIX}]}
    for number in range(12):
        world, made = run(world, "CreateSecurityGroup", GroupName=f"g{number}", Description="d", VpcId=VPC)
        world, _ = run(world, "AuthorizeSecurityGroupIngress", GroupId=made["GroupId"], IpPermissions=[permission])
    _, answer = run(world, "ModifyManagedPrefixList", PrefixListId=SIX, MaxEntries=61)
    assert answer["PrefixList"]["StateMessage"].count("sg-") == 10


def test_lists_per_region():
    """The quota of lists."""
    new = {"PrefixListName": "n", "MaxEntries": 1, "AddressFamily": "IPv4"}
    world, _ = run_with(small_world(), "CreateManagedPrefixList", {"quotas": Quotas(prefix_lists_per_region=3)}, **new)
    with pytest.raises(ApiError) as caught:
        run_with(world, "CreateManagedPrefixList", {"quotas": Quotas(prefix_lists_per_region=3)}, **new)
    assert caught.value.code == "PrefixListLimitExceeded"
    assert AWS_QUOTAS.prefix_lists_per_region == 100


# -- rules that name lists ---------------------------------------------------------------------------------------------


def test_rules():
    """A list is a source like another: authorised, merged, filtered for, described anew, modified and revoked."""
    permission = {
        "IpProtocol": "tcp",
        "FromPort": 22,
        "ToPort": 22,
        "PrefixListIds": [{"PrefixListId": OFFICE, "Description": "o"}],
        "IpRanges": [{"CidrIp": "10.0.0.0/8"}],
    }
    world, answer = run(small_world(), "AuthorizeSecurityGroupIngress", GroupId=DB, IpPermissions=[permission])
    (made,) = (one for one in answer["SecurityGroupRules"] if "PrefixListId" in one)
    assert (made["PrefixListId"], made["Description"]) == (OFFICE, "o")
    (shown,) = run(world, "DescribeSecurityGroups", GroupIds=[DB])[1]["SecurityGroups"]
    assert shown["IpPermissions"] == [{**permission, "UserIdGroupPairs": [], "Ipv6Ranges": []}]

    wanted = [{"Name": "ip-permission.prefix-list-id", "Values": [OFFICE]}]
    found = run(world, "DescribeSecurityGroups", Filters=wanted)[1]["SecurityGroups"]
    assert [one["GroupId"] for one in found] == [WEB, DB]
    wanted = [{"Name": "egress.ip-permission.prefix-list-id", "Values": ["*"]}]
    assert run(world, "DescribeSecurityGroups", Filters=wanted)[1]["SecurityGroups"] == []

    other = {"IpProtocol": "icmp", "FromPort": -1, "ToPort": -1, "PrefixListId": SIX}
    update = {"SecurityGroupRuleId": made["SecurityGroupRuleId"], "SecurityGroupRule": other}
    world, _ = run(world, "ModifySecurityGroupRules", GroupId=DB, SecurityGroupRules=[update])
    world, _ = run(
        world,
        "UpdateSecurityGroupRuleDescriptionsIngress",
        GroupId=DB,
        IpPermissions=[{"IpProtocol": "icmp", "FromPort": -1, "ToPort": -1, "PrefixListIds": [{"PrefixListId": SIX}]}],
    )
    (rule,) = (one for one in world.group(DB).rules if one.prefix_list_id is not None)
    assert (rule.id, rule.prefix_list_id, rule.description) == (made["SecurityGroupRuleId"], SIX, "")


def test_associations():
    """The groups whose rules name a list, each once, in pages."""
    world = small_world()
    permission = {"IpProtocol": "udp", "FromPort": 1, "ToPort": 2, "PrefixListIds": [{"PrefixListId": OFFICE}]}
    for group in (WEB, DB):
        world, _ = run(world, "AuthorizeSecurityGroupIngress", GroupId=group, IpPermissions=[permission])
    answer = run(world, "GetManagedPrefixListAssociations", PrefixListId=OFFICE)[1]
    owner = {"ResourceOwner": "123456789012"}
    assert answer == {"PrefixListAssociations": [{"ResourceId": WEB, **owner}, {"ResourceId": DB, **owner}]}
    assert run(world, "GetManagedPrefixListAssociations", PrefixListId=SIX)[1] == {"PrefixListAssociations": []}


@pytest.mark.parametrize("egress", [False, True])
def test_weight(egress):
    """A list counts by its size, in either direction, beside references and the larger of both kinds of ranges."""
    world, action = small_world(), f"AuthorizeSecurityGroup{'Egress' if egress else 'Ingress'}"
    list_rule = {"IpProtocol": "-1", "PrefixListIds": [{"PrefixListId": SIX}]}
    v4 = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}
    v6 = {"IpProtocol": "-1", "Ipv6Ranges": [{"CidrIpv6": "2001:db8::/32"}]}
    reference = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": WEB}]}
    world, _ = run(world, action, GroupId=DB, IpPermissions=[list_rule, v4, v6])  # 59 + 1 = 60
    with pytest.raises(ApiError) as caught:
        run(world, action, GroupId=DB, IpPermissions=[reference])
    assert caught.value.code == "RulesPerSecurityGroupLimitExceeded"


def test_weight_of_a_modified_rule():
    """A rule may not be given a list that is too large for its group."""
    world = small_world()
    request = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "PrefixListId": SIX}
    update = {"SecurityGroupRuleId": LIST_RULE, "SecurityGroupRule": request}
    run(world, "ModifySecurityGroupRules", GroupId=WEB, SecurityGroupRules=[update])  # 59 + 1 = 60
    world, _ = run(world, "ModifyManagedPrefixList", PrefixListId=SIX, MaxEntries=60)
    with pytest.raises(ApiError) as caught:
        run(world, "ModifySecurityGroupRules", GroupId=WEB, SecurityGroupRules=[update])
    assert caught.value.code == "RulesPerSecurityGroupLimitExceeded"


def test_resize_and_interfaces():
    """A size may also be more than an interface with several groups can take."""
    quotas = {"quotas": Quotas(rules_per_group=60, rules_per_interface=63)}
    permission = {"IpProtocol": "-1", "PrefixListIds": [{"PrefixListId": SIX}]}
    world, _ = run_with(
        small_world(), "AuthorizeSecurityGroupIngress", quotas, GroupId=DB, IpPermissions=[permission]
    )  # 3 + 1 of WEB and 59 of DB, on one interface
    _, answer = run_with(world, "ModifyManagedPrefixList", quotas, PrefixListId=OFFICE, MaxEntries=4)
    assert answer["PrefixList"]["State"] == "modify-failed"
    assert answer["PrefixList"]["StateMessage"].endswith(f": {WEB}")


# -- finding, tags, IAM ------------------------------------------------------------------------------------------------


def test_describe():
    """Filters, pages and tags; the lists of AWS's services are none."""
    world = small_world()

    def found(**asked):
        return [one["PrefixListId"] for one in run(world, "DescribeManagedPrefixLists", **asked)[1]["PrefixLists"]]

    def by(name, *values):
        return found(Filters=[{"Name": name, "Values": list(values)}])

    assert found() == [OFFICE, SIX]
    assert found(PrefixListIds=[SIX, OFFICE, SIX]) == [SIX, OFFICE]
    assert by("prefix-list-name", "o*") == [OFFICE]
    assert by("prefix-list-id", SIX) == [SIX]
    assert by("owner-id", "123456789012") == [OFFICE, SIX]
    assert by("owner-id", "AWS") == []
    assert by("tag:Team", "red") == [OFFICE]
    first = run(world, "DescribeManagedPrefixLists", MaxResults=1)[1]
    rest = run(world, "DescribeManagedPrefixLists", MaxResults=1, NextToken=first["NextToken"])[1]
    assert [one["PrefixListId"] for one in rest["PrefixLists"]] == [SIX]
    assert run(world, "DescribePrefixLists")[1] == {"PrefixLists": []}


def test_pages_of_entries():
    """Entries come in the same order in pages and at once."""
    blocks = [f"10.{number}.0.0/16" for number in (200, 9, 30)]
    world = modified(small_world(), remove=["192.0.2.0/24", "198.51.100.0/24"], add=blocks)
    seen, token = [], {}
    while True:
        answer = run(world, "GetManagedPrefixListEntries", PrefixListId=OFFICE, MaxResults=1, **token)[1]
        seen += [(one["Cidr"], "") for one in answer["Entries"]]
        if "NextToken" not in answer:
            break
        token = {"NextToken": answer["NextToken"]}
    assert seen == entries(world, OFFICE)
    assert [cidr for cidr, _ in seen] == [blocks[1], blocks[2], blocks[0]]


def test_tags():
    """Tags are put on, shown and taken away as on every resource."""
    world, _ = run(small_world(), "CreateTags", Resources=[SIX], Tags=[{"Key": "a", "Value": "b"}])
    assert world.prefix_list(SIX).tags == {"a": "b"}
    wanted = [{"Name": "resource-type", "Values": ["prefix-list"]}]
    tags = run(world, "DescribeTags", Filters=wanted)[1]["Tags"]
    assert [(one["ResourceId"], one["Key"]) for one in tags] == [(OFFICE, "Team"), (SIX, "a")]
    world, _ = run(world, "DeleteTags", Resources=[SIX])
    assert world.prefix_list(SIX).tags == {}
    with pytest.raises(ApiError, match="The prefix list ID 'pl-99999999' does not exist"):
        run(world, "CreateTags", Resources=["pl-99999999"], Tags=[{"Key": "a"}])


@pytest.mark.parametrize("action", sorted(ACTIONS - {"CreateManagedPrefixList"}))
def test_asks(action):
    """One question, on the list with its tags; the Describe actions are authorised on everything."""
    ((asked, resource, context),) = asks(small_world(), action, PrefixListId=OFFICE)
    assert asked == f"ec2:{action}"
    if action.startswith("Describe"):
        assert (resource, context) == ("*", {})
    else:
        assert resource == f"arn:aws:ec2:us-east-1:123456789012:prefix-list/{OFFICE}"
        assert context == {
            "ec2:Region": ("us-east-1",),
            "aws:ResourceTag/Team": ("red",),
            "ec2:ResourceTag/Team": ("red",),
        }
        missing = asks(small_world(), action, PrefixListId="pl-9")
        assert missing == [(asked, resource.replace(OFFICE, "pl-9"), {"ec2:Region": ("us-east-1",)})]


def test_asks_of_creation():
    """A list to be made, with the tags of the request; and CreateTags when there are any."""
    arn = "arn:aws:ec2:us-east-1:123456789012:prefix-list/*"
    region = {"ec2:Region": ("us-east-1",)}
    assert asks(small_world(), "CreateManagedPrefixList") == [("ec2:CreateManagedPrefixList", arn, region)]
    tags = [{"ResourceType": "prefix-list", "Tags": [{"Key": "k", "Value": "v"}]}]
    requested = {"aws:RequestTag/k": ("v",), "aws:TagKeys": ("k",)}
    assert asks(small_world(), "CreateManagedPrefixList", TagSpecifications=tags) == [
        ("ec2:CreateManagedPrefixList", arn, region | requested),
        ("ec2:CreateTags", arn, region | {"ec2:CreateAction": ("CreateManagedPrefixList",)} | requested),
    ]
