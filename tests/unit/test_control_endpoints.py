"""EC2 Instance Connect Endpoints: every refusal, states and what ends them, names, what IAM is asked."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.net_world import (
    DEFAULT,
    ENDPOINT,
    ENDPOINT_ENI,
    MODEL,
    NOW,
    OTHER_DEFAULT,
    OTHER_SUBNET,
    OTHER_VPC,
    SMALL,
    SUBNET,
    VPC,
    WEB,
    asks,
    call,
    check_refusal,
    golden_errors,
    number,
    run,
    run_with,
    small_world,
)
from wicketgate.control import endpoints, operations
from wicketgate.control.endpoints import EndpointQuotas
from wicketgate.model import CONNECTABLE_STATES, ApiError, apply_change

ACTIONS = {
    "CreateInstanceConnectEndpoint",
    "DescribeInstanceConnectEndpoints",
    "ModifyInstanceConnectEndpoint",
    "DeleteInstanceConnectEndpoint",
}
MANY = {"quotas": EndpointQuotas(endpoints_per_region=9, endpoints_per_vpc=9, endpoints_per_subnet=9)}
CREATE, MODIFY, DELETE = (f"{verb}InstanceConnectEndpoint" for verb in ("Create", "Modify", "Delete"))


def shown(world, endpoint_id=ENDPOINT):
    """The endpoint as DescribeInstanceConnectEndpoints shows it."""
    (one,) = run(world, "DescribeInstanceConnectEndpoints", InstanceConnectEndpointIds=[endpoint_id])[1][
        "InstanceConnectEndpoints"
    ]
    return one


def settled(world, **how):
    """The World once the kernel has followed."""
    change = endpoints.settle(world, NOW, **how)
    return world if change.empty else apply_change(world, change)


def test_actions_offered():
    """Every action of the family is offered under its name in the service model."""
    assert {("ec2", name) for name in ACTIONS} <= set(operations())
    assert set(MODEL.operation_names) >= ACTIONS


@golden_errors("endpoints")
def test_refusal(error):
    """A bad call is refused with the code and words that the golden file has."""
    check_refusal(error)


# -- create ------------------------------------------------------------------------------------------------------------


def test_create_begins_and_completes():
    """create-in-progress without interface and name, as at AWS; then complete with both, and the default group."""
    tags = [{"ResourceType": "instance-connect-endpoint", "Tags": [{"Key": "Name", "Value": "n"}]}]
    world, answer = run(small_world(), CREATE, SubnetId=OTHER_SUBNET, TagSpecifications=tags, ClientToken="t")
    begun = answer["InstanceConnectEndpoint"]
    assert (begun["State"], begun["NetworkInterfaceIds"], "DnsName" in begun) == ("create-in-progress", [], False)
    assert (begun["PreserveClientIp"], begun["IpAddressType"], answer["ClientToken"]) == (False, "ipv4", "t")
    endpoint_id = begun["InstanceConnectEndpointId"]
    assert shown(world, endpoint_id) == begun
    assert begun["State"] not in CONNECTABLE_STATES
    world = settled(world, done={endpoint_id})
    done = shown(world, endpoint_id)
    (eni_id,) = done["NetworkInterfaceIds"]
    assert (done["State"], done["VpcId"], done["SubnetId"]) == ("create-complete", OTHER_VPC, OTHER_SUBNET)
    assert (done["SecurityGroupIds"], done["AvailabilityZone"]) == ([OTHER_DEFAULT], "us-east-1a")
    assert done["InstanceConnectEndpointArn"].endswith(f":instance-connect-endpoint/{endpoint_id}")
    assert done["CreatedAt"].timestamp() == NOW
    eni = world.interface(eni_id)
    assert (eni.interface_type, eni.requester_managed) == ("ec2_instance_connect_endpoint", True)
    assert (eni.tags, eni.private_ip_address) == ({"InstanceConnectEndpointId": endpoint_id}, "10.0.0.4")


def test_a_failed_creation_says_why():
    """create-failed with the reason, not connectable, and it can be deleted."""
    world, answer = run(small_world(), CREATE, SubnetId=OTHER_SUBNET)
    endpoint_id = answer["InstanceConnectEndpoint"]["InstanceConnectEndpointId"]
    world = settled(world, failed={endpoint_id: "no room"})
    assert (shown(world, endpoint_id)["State"], shown(world, endpoint_id)["StateMessage"]) == (
        "create-failed",
        "no room",
    )
    world, _ = run(world, DELETE, InstanceConnectEndpointId=endpoint_id)
    assert settled(world).endpoint(endpoint_id) is None


def test_names_share_a_wildcard():
    """Four names in AWS's form under the domain given; endpoints of one account differ in the first label alone."""
    world = small_world()
    first, second = (endpoints.dns_name(world, f"eice-{number(one)}", "example.org") for one in "ab")
    assert first.partition(".")[2] == second.partition(".")[2]
    head, place, tail = first.split(".", 2)
    assert (head, len(place), tail) == (f"eice-{number('a')}", 8, "ec2-instance-connect-endpoint.us-east-1.example.org")
    names = endpoints.public_dns_names(first)
    assert names["Ipv4"] == {"DnsName": first, "FipsDnsName": f"{head}.{place}.fips.{tail}"}
    assert len({*names["Ipv4"].values(), *names["Dualstack"].values()}) == 4


def test_names_of_an_endpoint_are_shown():
    """DnsName and FipsDnsName at the top are those of PublicDnsNames.Ipv4; the stored name is kept."""
    one = shown(small_world())
    assert one["DnsName"] == small_world().endpoints[0].dns_name
    assert {name: one[name] for name in ("DnsName", "FipsDnsName")} == one["PublicDnsNames"]["Ipv4"]


def test_the_domain_is_an_argument():
    """The caller of the action chooses the domain of a new endpoint's name."""
    world, _ = run_with(small_world(), CREATE, {"domain": "example.org"}, SubnetId=OTHER_SUBNET)
    assert world.endpoints[-1].dns_name.endswith(".ec2-instance-connect-endpoint.us-east-1.example.org")


@pytest.mark.parametrize(
    ("quotas", "place"),
    [
        (EndpointQuotas(endpoints_per_region=1), "Region us-east-1"),
        (EndpointQuotas(endpoints_per_vpc=0), f"VPC {OTHER_VPC}"),
        (EndpointQuotas(endpoints_per_subnet=0), f"subnet {OTHER_SUBNET}"),
    ],
)
def test_each_quota_is_its_own(quotas, place):
    """Each of the three quotas refuses by itself and names its place."""
    with pytest.raises(ApiError) as caught:
        run_with(small_world(), CREATE, {"quotas": quotas}, SubnetId=OTHER_SUBNET)
    assert caught.value.code == "InstanceConnectEndpointLimitExceeded"
    assert place in str(caught.value)


def test_indexes_are_unique_in_a_vpc_and_filled():
    """The lowest number from 1 that no endpoint of the VPC has; another VPC counts for itself."""
    world = small_world()
    for subnet in (SMALL, SMALL, OTHER_SUBNET):
        world, _ = run_with(world, CREATE, MANY, SubnetId=subnet)
    assert [one.index for one in world.endpoints] == [1, 2, 3, 1]
    world, _ = run(world, DELETE, InstanceConnectEndpointId=world.endpoints[1].id)
    world = settled(world)
    world, _ = run_with(world, CREATE, MANY, SubnetId=SUBNET)
    assert world.endpoints[-1].index == 2


def test_sixteen_groups_and_no_more():
    """An endpoint carries up to 16 groups, more than other interfaces by default."""
    world = small_world()
    more = [msgspec.structs.replace(world.groups[2], id=f"sg-{n:017x}", name=f"g{n}", rules=()) for n in range(17)]
    world = msgspec.structs.replace(world, groups=(*world.groups, *more))
    ids = [group.id for group in more]
    made, _ = run(world, CREATE, SubnetId=OTHER_SUBNET, SecurityGroupIds=ids[:16])
    assert made.interfaces[-1].group_ids == tuple(ids[:16])
    with pytest.raises(ApiError) as caught:
        run(world, CREATE, SubnetId=OTHER_SUBNET, SecurityGroupIds=ids)
    assert caught.value.code == "SecurityGroupsPerInterfaceLimitExceeded"


def test_a_full_subnet_has_no_room_for_an_endpoint():
    """InsufficientFreeAddressesInSubnet when every address is taken."""
    world = small_world()
    for _ in range(11):
        world, _ = run(world, "CreateNetworkInterface", SubnetId=SMALL)
    with pytest.raises(ApiError) as caught:
        run_with(world, CREATE, MANY, SubnetId=SMALL)
    assert caught.value.code == "InsufficientFreeAddressesInSubnet"


# -- modify ------------------------------------------------------------------------------------------------------------


def test_an_update_keeps_the_old_in_force_until_it_is_complete():
    """update-in-progress shows and is the old configuration, connectable; settling brings the new one at once."""
    before = small_world()
    wish = {"SecurityGroupIds": [DEFAULT, WEB], "PreserveClientIp": True, "IpAddressType": "ipv4"}
    world, answer = run(before, MODIFY, InstanceConnectEndpointId=ENDPOINT, **wish)
    assert answer == {"Return": True}
    during = shown(world)
    assert during == shown(before) | {"State": "update-in-progress"}
    assert "update-in-progress" in CONNECTABLE_STATES
    assert world.interfaces == before.interfaces
    assert settled(world, done=()) == world
    world = settled(world, done={ENDPOINT})
    after = shown(world)
    assert (after["State"], after["SecurityGroupIds"]) == ("update-complete", [DEFAULT, WEB])
    assert (after["PreserveClientIp"], world.endpoint(ENDPOINT).pending) == (True, None)


def test_an_update_changes_only_what_it_names():
    """What a Modify does not name stays: first preservation, then groups."""
    world, _ = run(small_world(), MODIFY, InstanceConnectEndpointId=ENDPOINT, PreserveClientIp=True)
    world = settled(world)
    assert shown(world)["SecurityGroupIds"] == [WEB]
    world, _ = run(world, MODIFY, InstanceConnectEndpointId=ENDPOINT, SecurityGroupIds=[DEFAULT])
    world = settled(world)
    assert (shown(world)["PreserveClientIp"], shown(world)["SecurityGroupIds"]) == (True, [DEFAULT])


def test_preservation_in_force_forbids_dualstack():
    """A preserving endpoint refuses dualstack with AWS's words unless the same call gives preservation up."""
    world, _ = run(small_world(), MODIFY, InstanceConnectEndpointId=ENDPOINT, PreserveClientIp=True)
    world = settled(world)
    with pytest.raises(ApiError, match="Client IP preservation isn't supported for Dualstack and IPv6"):
        run(world, MODIFY, InstanceConnectEndpointId=ENDPOINT, IpAddressType="dualstack")
    with pytest.raises(ApiError, match="is not compatible with subnet"):
        run(world, MODIFY, InstanceConnectEndpointId=ENDPOINT, IpAddressType="dualstack", PreserveClientIp=False)


def test_a_failed_update_leaves_the_old_in_force():
    """update-failed says why, is connectable, and can be modified again."""
    world, _ = run(small_world(), MODIFY, InstanceConnectEndpointId=ENDPOINT, SecurityGroupIds=[DEFAULT])
    world = settled(world, failed={ENDPOINT: "the kernel did not follow"})
    one = shown(world)
    assert (one["State"], one["StateMessage"]) == ("update-failed", "the kernel did not follow")
    assert (one["SecurityGroupIds"], world.endpoint(ENDPOINT).pending) == ([WEB], None)
    world, _ = run(world, MODIFY, InstanceConnectEndpointId=ENDPOINT, SecurityGroupIds=[DEFAULT])
    assert shown(settled(world))["StateMessage"] == ""


def test_an_update_to_a_group_that_has_gone_fails():
    """A group that is deleted while the update is under way ends it in update-failed; the World stays whole."""
    world, _ = run(small_world(), MODIFY, InstanceConnectEndpointId=ENDPOINT, SecurityGroupIds=[DEFAULT])
    gone = msgspec.structs.replace(world, groups=tuple(one for one in world.groups if one.id != DEFAULT))
    world = settled(gone)
    assert shown(world)["State"] == "update-failed"
    assert DEFAULT in shown(world)["StateMessage"]


@pytest.mark.parametrize(
    ("state", "allowed"),
    [
        ("create-in-progress", False),
        ("create-complete", True),
        ("create-failed", False),
        ("update-in-progress", False),
        ("update-complete", True),
        ("update-failed", True),
        ("delete-in-progress", False),
        ("delete-failed", False),
    ],
)
def test_states_that_may_be_modified(state, allowed):
    """A complete or failed update may be modified again; anything else is IncorrectState."""
    world = small_world()
    world = msgspec.structs.replace(world, endpoints=(msgspec.structs.replace(world.endpoints[0], state=state),))
    if allowed:
        run(world, MODIFY, InstanceConnectEndpointId=ENDPOINT, PreserveClientIp=True)
        return
    with pytest.raises(ApiError) as caught:
        run(world, MODIFY, InstanceConnectEndpointId=ENDPOINT, PreserveClientIp=True)
    assert caught.value.code == "IncorrectState"
    assert state in str(caught.value)


# -- delete ------------------------------------------------------------------------------------------------------------


def test_delete_begins_and_ends():
    """delete-in-progress without interface and not connectable; then endpoint and interface are gone together."""
    world, answer = run(small_world(), DELETE, InstanceConnectEndpointId=ENDPOINT)
    begun = answer["InstanceConnectEndpoint"]
    assert (begun["State"], begun["NetworkInterfaceIds"]) == ("delete-in-progress", [])
    assert begun["State"] not in CONNECTABLE_STATES
    assert world.interface(ENDPOINT_ENI) is not None
    assert run(world, DELETE, InstanceConnectEndpointId=ENDPOINT)[1] == answer
    world = settled(world, done={ENDPOINT})
    assert (world.endpoint(ENDPOINT), world.interface(ENDPOINT_ENI)) == (None, None)
    run(world, CREATE, SubnetId=SUBNET)


def test_a_failed_deletion_can_be_repeated():
    """delete-failed says why and keeps everything; a second Delete ends it."""
    world, _ = run(small_world(), DELETE, InstanceConnectEndpointId=ENDPOINT)
    world = settled(world, failed={ENDPOINT: "busy"})
    assert (shown(world)["State"], shown(world)["StateMessage"]) == ("delete-failed", "busy")
    world, _ = run(world, DELETE, InstanceConnectEndpointId=ENDPOINT)
    assert settled(world).endpoints == ()


def test_deleting_ends_an_update():
    """A Delete during an update drops what the update asked for."""
    world, _ = run(small_world(), MODIFY, InstanceConnectEndpointId=ENDPOINT, SecurityGroupIds=[DEFAULT])
    world, _ = run(world, DELETE, InstanceConnectEndpointId=ENDPOINT)
    assert (world.endpoint(ENDPOINT).pending, settled(world).endpoints) == (None, ())


@given(st.lists(st.sampled_from(("create", "modify", "delete", "settle", "fail")), max_size=12))
def test_any_order_of_calls_leaves_a_whole_world(steps):
    """Whatever is called in whatever order: AWS's states, one interface each, nothing left to settle."""
    states = set(MODEL.shape_for("Ec2InstanceConnectEndpointState").enum)
    world = small_world()
    for step in steps:
        ids = [one.id for one in world.endpoints]
        try:
            if step == "create":
                world, _ = run_with(world, CREATE, MANY, SubnetId=SMALL)
            elif step == "modify" and ids:
                world, _ = run(world, MODIFY, InstanceConnectEndpointId=ids[-1], SecurityGroupIds=[DEFAULT])
            elif step == "delete" and ids:
                world, _ = run(world, DELETE, InstanceConnectEndpointId=ids[0])
        except ApiError as error:
            assert error.code in ("IncorrectState", "InstanceConnectEndpointLimitExceeded")
        if step == "settle":
            world = settled(world)
            assert endpoints.settle(world, NOW).empty
        elif step == "fail":
            world = settled(world, failed=dict.fromkeys(ids, "x"))
        world.check()
        assert {one.state for one in world.endpoints} <= states
        managed = {eni.id for eni in world.interfaces if eni.requester_managed}
        assert managed == {one.interface_id for one in world.endpoints}


# -- describe ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (
            {"state": ["create-complete", "update-in-progress", "update-complete", "update-failed"], "vpc-id": [VPC]},
            True,
        ),
        ({"state": ["create-complete"], "subnet-id": [SUBNET]}, True),
        ({"subnet-id": [SMALL]}, False),
        ({"vpc-id": [OTHER_VPC]}, False),
        ({"state": ["delete-complete"]}, False),
        ({"instance-connect-endpoint-id": ["eice-*"]}, True),
        ({"tag:Name": ["door"]}, True),
        ({"tag-key": ["Name"], "tag-value": ["window"]}, False),
    ],
)
def test_endpoint_filters(filters, found):
    """The filters that the stock clients send, and the others; all states may be named."""
    wish = [{"Name": name, "Values": values} for name, values in filters.items()]
    _, answer = run(small_world(), "DescribeInstanceConnectEndpoints", Filters=wish)
    assert [one["InstanceConnectEndpointId"] for one in answer["InstanceConnectEndpoints"]] == [ENDPOINT] * found


def test_pages_of_endpoints():
    """Pages of one show every endpoint once."""
    world = small_world()
    for _ in range(2):
        world, _ = run_with(world, CREATE, MANY, SubnetId=SMALL)
    seen, token = [], {}
    while True:
        _, answer = run(world, "DescribeInstanceConnectEndpoints", MaxResults=1, **token)
        seen += [one["InstanceConnectEndpointId"] for one in answer["InstanceConnectEndpoints"]]
        if "NextToken" not in answer:
            break
        token = {"NextToken": answer["NextToken"]}
    assert sorted(seen) == sorted(one.id for one in world.endpoints)


# -- IAM ---------------------------------------------------------------------------------------------------------------


def test_create_asks_for_what_the_service_does_too():
    """Endpoint, subnet and groups; the interface it makes and tags; the role when it is the first endpoint."""
    found = asks(small_world(), CREATE, SubnetId=OTHER_SUBNET)
    assert [(action, resource.split(":", 5)[5]) for action, resource, _ in found] == [
        ("ec2:CreateInstanceConnectEndpoint", "instance-connect-endpoint/*"),
        ("ec2:CreateInstanceConnectEndpoint", f"subnet/{OTHER_SUBNET}"),
        ("ec2:CreateInstanceConnectEndpoint", f"security-group/{OTHER_DEFAULT}"),
        ("ec2:CreateNetworkInterface", "network-interface/*"),
        ("ec2:CreateNetworkInterface", f"subnet/{OTHER_SUBNET}"),
        ("ec2:CreateNetworkInterface", f"security-group/{OTHER_DEFAULT}"),
        ("ec2:CreateTags", "network-interface/*"),
    ]
    assert found[1][2]["ec2:Vpc"] == (f"arn:aws:ec2:us-east-1:123456789012:vpc/{OTHER_VPC}",)
    first = asks(msgspec.structs.replace(small_world(), endpoints=()), CREATE, SubnetId=OTHER_SUBNET)
    assert [one[0] for one in first if one not in found] == ["iam:CreateServiceLinkedRole"]


def test_modify_and_delete_ask_about_the_endpoint():
    """One question with the endpoint's tags and subnet."""
    for action in (MODIFY, DELETE):
        ((asked, resource, context),) = asks(small_world(), action, InstanceConnectEndpointId=ENDPOINT)
        assert (asked, resource) == (f"ec2:{action}", small_world().endpoint_arn(ENDPOINT))
        assert (context["aws:ResourceTag/Name"], context["ec2:SubnetID"]) == (("door",), (SUBNET,))


def test_describe_asks_about_everything():
    """Describe is authorised on `*`, as the service authorization reference has it."""
    assert asks(small_world(), "DescribeInstanceConnectEndpoints") == [
        ("ec2:DescribeInstanceConnectEndpoints", "*", {})
    ]
    assert call(small_world(), "x").now == NOW
