"""Tags: create, delete, describe on every kind of resource. (Refusals stand in the network's part of errors.toml.)"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.net_world import (
    DEFAULT,
    ENDPOINT,
    ENDPOINT_ENI,
    MODEL,
    RUNNING,
    SUBNET,
    VPC,
    WEB,
    asks,
    run,
    small_world,
)
from wicketgate.control import operations
from wicketgate.model import ApiError

WORLD = small_world()
RULE = WORLD.group(DEFAULT).rules[0].id
KINDS = {
    VPC: "vpc",
    SUBNET: "subnet",
    WEB: "security-group",
    RULE: "security-group-rule",
    ENDPOINT_ENI: "network-interface",
    RUNNING: "instance",
    ENDPOINT: "instance-connect-endpoint",
}
"""One resource of each kind, and what tags call it."""


def tags_of(world, resource_id):
    """Tags as DescribeTags shows them."""
    _, answer = run(world, "DescribeTags", Filters=[{"Name": "resource-id", "Values": [resource_id]}])
    return {tag["Key"]: tag["Value"] for tag in answer["Tags"]}


def pairs(tags):
    """Tags as calls carry them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def test_actions_offered():
    """The three actions are offered under their names in the service model."""
    names = {"CreateTags", "DeleteTags", "DescribeTags"}
    assert {("ec2", name) for name in names} <= set(operations())
    assert set(MODEL.operation_names) >= names


@pytest.mark.parametrize("resource_id", KINDS, ids=KINDS.get)
def test_every_kind_carries_tags(resource_id):
    """New keys are added, known ones overwritten, under the kind's own name; then taken away again."""
    before = tags_of(WORLD, resource_id)
    world, _ = run(WORLD, "CreateTags", Resources=[resource_id], Tags=pairs({"Name": "new", "Empty": ""}))
    assert tags_of(world, resource_id) == before | {"Name": "new", "Empty": ""}
    _, answer = run(world, "DescribeTags", Filters=[{"Name": "key", "Values": ["Empty"]}])
    (tag,) = answer["Tags"]
    assert (tag["ResourceId"], tag["ResourceType"]) == (resource_id, KINDS[resource_id])
    world, _ = run(world, "DeleteTags", Resources=[resource_id])
    assert tags_of(world, resource_id) == {}


def test_a_group_and_its_rules_in_one_call():
    """Tags on a group and on its rule, in either order, all arrive: both live in one resource."""
    for order in ([DEFAULT, RULE], [RULE, DEFAULT]):
        world, _ = run(WORLD, "CreateTags", Resources=order, Tags=pairs({"k": "v"}))
        group = world.group(DEFAULT)
        assert (group.tags, group.rules[0].tags, group.rules[1:]) == (
            {"k": "v"},
            {"k": "v"},
            WORLD.group(DEFAULT).rules[1:],
        )


@pytest.mark.parametrize(
    ("given_tags", "left"),
    [
        ([{"Key": "Name"}], {"Stage": "test"}),
        ([{"Key": "Name", "Value": "lab"}], {"Stage": "test"}),
        ([{"Key": "Name", "Value": "other"}], {"Name": "lab", "Stage": "test"}),
        ([{"Key": "Name", "Value": ""}], {"Name": "lab", "Stage": "test"}),
        ([{"Key": "Unknown"}], {"Name": "lab", "Stage": "test"}),
        ([{"Key": "Name"}, {"Key": "Stage"}], {}),
        (None, {}),
    ],
)
def test_delete_by_key_or_by_key_and_value(given_tags, left):
    """By key; by key and value when one is given, the empty one too; everything when nothing is named."""
    parameters = {} if given_tags is None else {"Tags": given_tags}
    world, _ = run(WORLD, "DeleteTags", Resources=[VPC], **parameters)
    assert tags_of(world, VPC) == left


def test_fifty_tags_and_no_more():
    """The fifty-first key is refused for all resources of the call; overwriting at fifty is allowed."""
    world, _ = run(WORLD, "CreateTags", Resources=[WEB], Tags=pairs({f"k{n}": "v" for n in range(49)}))
    assert len(tags_of(world, WEB)) == 50
    with pytest.raises(ApiError) as caught:
        run(world, "CreateTags", Resources=[SUBNET, WEB], Tags=pairs({"one": "more"}))
    assert caught.value.code == "TagLimitExceeded"
    world, _ = run(world, "CreateTags", Resources=[WEB], Tags=pairs({"k0": "w"}))
    assert tags_of(world, WEB)["k0"] == "w"


@given(
    new=st.dictionaries(st.text("ab:é ", min_size=1, max_size=5), st.text("xyz", max_size=4), min_size=1, max_size=8),
    resources=st.sets(st.sampled_from(sorted(KINDS)), min_size=1),
)
def test_what_is_created_is_described_and_can_be_deleted(new, resources):
    """Any tags on any resources: all are described, the others' stay; deleting them leaves what was there before."""
    before = {one: tags_of(WORLD, one) for one in KINDS}
    world, _ = run(WORLD, "CreateTags", Resources=sorted(resources), Tags=pairs(new))
    for one in KINDS:
        assert tags_of(world, one) == before[one] | (new if one in resources else {})
    world, _ = run(world, "DeleteTags", Resources=sorted(resources), Tags=[{"Key": key} for key in new])
    for one in resources:
        assert tags_of(world, one) == {key: value for key, value in before[one].items() if key not in new}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("resource-type", "vpc", {(VPC, "Name"), (VPC, "Stage")}),
        ("tag:Stage", "test", {(VPC, "Stage")}),
        ("value", "web", {(WEB, "Name")}),
        ("key", "Tier", {(SUBNET, "Tier")}),
        ("resource-id", "i-*", {(RUNNING, "Name")}),
        ("tag:InstanceConnectEndpointId", ENDPOINT, {(ENDPOINT_ENI, "InstanceConnectEndpointId")}),
    ],
)
def test_tag_filters(name, value, expected):
    """Each filter picks single tags."""
    _, answer = run(WORLD, "DescribeTags", Filters=[{"Name": name, "Values": [value]}])
    assert {(tag["ResourceId"], tag["Key"]) for tag in answer["Tags"]} == expected


def test_pages_of_tags():
    """Pages of five show every tag once."""
    _, whole = run(WORLD, "DescribeTags")
    seen, token = [], {}
    for _ in range(len(whole["Tags"])):
        _, answer = run(WORLD, "DescribeTags", MaxResults=5, **token)
        seen += [(tag["ResourceId"], tag["Key"]) for tag in answer["Tags"]]
        if "NextToken" not in answer:
            break
        token = {"NextToken": answer["NextToken"]}
    assert sorted(seen) == sorted((tag["ResourceId"], tag["Key"]) for tag in whole["Tags"])
    assert len(seen) > 5


@pytest.mark.parametrize("value", ["", "Immediate", "at-once"])
def test_a_word_that_revocation_does_not_know(value):
    """The tag that says what a VPC's changes do to connections takes two values, at CreateTags and CreateVpc."""
    tags = pairs({"wicketgate:revocation": value})
    specification = [{"ResourceType": "vpc", "Tags": tags}]
    calls = {
        "CreateTags": {"Resources": [VPC], "Tags": tags},
        "CreateVpc": {"CidrBlock": "10.9.0.0/16", "TagSpecifications": specification},
    }
    for action, parameters in calls.items():
        with pytest.raises(ApiError) as refused:
            run(WORLD, action, **parameters)
        assert refused.value.code == "InvalidParameterValue"
        assert str(refused.value) == (
            f"Value ({value}) for tag wicketgate:revocation is invalid. Valid values: aws, immediate."
        )


@pytest.mark.parametrize("value", ["aws", "immediate"])
def test_a_vpcs_revocation_is_its_tags(value):
    """The tag is in force once it is set, and no more once it is taken away."""
    world, _ = run(WORLD, "CreateTags", Resources=[VPC], Tags=pairs({"wicketgate:revocation": value}))
    assert world.revocation(VPC) == value
    world, _ = run(world, "DeleteTags", Resources=[VPC], Tags=[{"Key": "wicketgate:revocation"}])
    assert world.revocation(VPC) == "aws"


def test_one_question_for_each_resource():
    """Each resource with its own tags, and those of the request as RequestTag and TagKeys."""
    found = asks(WORLD, "CreateTags", Resources=[VPC, RULE, "i-nope", "nope"], Tags=pairs({"Team": "a"}))
    assert [resource.rpartition(":")[2] for _, resource, _ in found] == [
        f"vpc/{VPC}",
        f"security-group-rule/{RULE}",
        "instance/i-nope",
        "*/nope",
    ]
    assert found[0][2]["aws:ResourceTag/Stage"] == ("test",)
    for action, _, context in found:
        assert action == "ec2:CreateTags"
        assert (context["aws:RequestTag/Team"], context["aws:TagKeys"]) == (("a",), ("Team",))
