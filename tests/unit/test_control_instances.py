"""Instances: every refusal, the life of one, what is shown, what IAM is asked."""

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.net_world import (
    DEFAULT,
    ENDED,
    FREE_ENI,
    IMAGE,
    MODEL,
    NOW,
    OTHER_DEFAULT,
    OTHER_SUBNET,
    PENDING,
    RUNNING,
    SMALL,
    STOPPED,
    SUBNET,
    VPC,
    WEB,
    asks,
    check_refusal,
    golden_errors,
    number,
    run,
    small_world,
)
from wicketgate.control import instances, operations
from wicketgate.model import ApiError, Instance, apply_change

ACTIONS = {
    "RunInstances",
    "DescribeInstances",
    "DescribeInstanceStatus",
    "StartInstances",
    "StopInstances",
    "TerminateInstances",
    "ModifyInstanceAttribute",
}
ONE = {"ImageId": IMAGE, "MinCount": 1, "MaxCount": 1}


def shown(world, *ids):
    """Instances as DescribeInstances shows them, by id."""
    _, answer = run(world, "DescribeInstances", **({"InstanceIds": list(ids)} if ids else {}))
    return {one["InstanceId"]: one for reservation in answer["Reservations"] for one in reservation["Instances"]}


def states(world):
    """Instance id -> state, terminated ones included."""
    return {instance_id: one["State"]["Name"] for instance_id, one in shown(world).items()}


def settled(world, now=NOW, **how):
    """The World once the machines have followed."""
    change = instances.settle(world, now, **how)
    return world if change.empty else apply_change(world, change)


def test_actions_offered():
    """Every action of the family is offered under its name in the service model."""
    assert {("ec2", name) for name in ACTIONS} <= set(operations())
    assert set(MODEL.operation_names) >= ACTIONS


@golden_errors("instances")
def test_refusal(error):
    """A bad call is refused with the code and words that the golden file has."""
    check_refusal(error)


# -- run ---------------------------------------------------------------------------------------------------------------


def test_the_life_of_an_instance():
    """pending, running, stopping, stopped, pending, running, shutting-down, terminated, then not found."""
    world, answer = run(small_world(), "RunInstances", **ONE, SubnetId=SUBNET)
    (instance,) = answer["Instances"]
    instance_id, eni = instance["InstanceId"], instance["NetworkInterfaces"][0]["NetworkInterfaceId"]
    assert instance["State"] == {"Code": 0, "Name": "pending"}
    seen = []
    for action in (None, "StopInstances", "StartInstances", "TerminateInstances"):
        if action:
            world, _ = run(world, action, InstanceIds=[instance_id])
            seen.append(states(world)[instance_id])
        world = settled(world, done={instance_id})
        seen.append(states(world)[instance_id])
    assert seen == ["running", "stopping", "stopped", "pending", "running", "shutting-down", "terminated"]
    assert world.interface(eni) is None
    assert world.instance(instance_id) is None
    world = settled(world, NOW + 3599, done=())
    assert states(world)[instance_id] == "terminated"
    world = settled(world, NOW + 3600, done=())
    with pytest.raises(ApiError) as caught:
        shown(world, instance_id)
    assert caught.value.code == "InvalidInstanceID.NotFound"


def test_run_gives_interface_group_and_tags():
    """One interface each in the subnet, with the groups named; tags reach instance and interface by their type."""
    tags = [
        {"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "x"}]},
        {"ResourceType": "network-interface", "Tags": [{"Key": "Role", "Value": "y"}]},
        {"ResourceType": "volume", "Tags": [{"Key": "None", "Value": "z"}]},
    ]
    world, answer = run(
        small_world(),
        "RunInstances",
        **ONE | {"MaxCount": 3},
        SubnetId=SUBNET,
        SecurityGroupIds=[WEB, DEFAULT],
        TagSpecifications=tags,
        InstanceType="t3.micro",
        ClientToken="token-1",
    )
    made = answer["Instances"]
    assert [one["PrivateIpAddress"] for one in made] == ["10.0.1.9", "10.0.1.10", "10.0.1.11"]
    assert [one["AmiLaunchIndex"] for one in made] == [0, 1, 2]
    for one in made:
        assert [group["GroupName"] for group in one["SecurityGroups"]] == ["web", "default"]
        assert (one["VpcId"], one["SubnetId"], one["InstanceType"]) == (VPC, SUBNET, "t3.micro")
        assert (one["Tags"], one["ClientToken"]) == ([{"Key": "Name", "Value": "x"}], "token-1")
        assert one["Placement"]["AvailabilityZone"] == "us-east-1a"
        interface = world.interface(one["NetworkInterfaces"][0]["NetworkInterfaceId"])
        assert interface.tags == {"Role": "y"}
    assert len({eni.link for eni in world.interfaces}) == len(world.interfaces)
    filters = [{"Name": "reservation-id", "Values": [answer["ReservationId"]]}]
    assert run(world, "DescribeInstances", Filters=filters)[1]["Reservations"] == [answer]


def test_run_takes_as_many_as_fit():
    """Between MinCount and MaxCount the free addresses decide; the last address of the subnet stays reserved."""
    _, answer = run(small_world(), "RunInstances", ImageId=IMAGE, MinCount=3, MaxCount=20, SubnetId=SMALL)
    assert [one["PrivateIpAddress"] for one in answer["Instances"]] == [f"10.0.2.{host}" for host in range(4, 15)]


def test_run_by_interface_specification():
    """NetworkInterfaces[0] says the same as the parameters at the instance's level, and more."""
    specification = {
        "DeviceIndex": 0,
        "SubnetId": SUBNET,
        "Groups": [DEFAULT],
        "PrivateIpAddress": "10.0.1.77",
        "Description": "first",
        "DeleteOnTermination": False,
    }
    _, answer = run(small_world(), "RunInstances", **ONE, NetworkInterfaces=[specification])
    (interface,) = answer["Instances"][0]["NetworkInterfaces"]
    assert (interface["PrivateIpAddress"], interface["Description"]) == ("10.0.1.77", "first")
    assert interface["Attachment"]["DeleteOnTermination"] is False
    plain = {"SubnetId": SUBNET, "SecurityGroupIds": [DEFAULT], "PrivateIpAddress": "10.0.1.77"}
    _, other = run(small_world(), "RunInstances", **ONE, **plain)
    assert other["Instances"][0]["PrivateIpAddress"] == "10.0.1.77"
    assert other["Instances"][0]["SecurityGroups"] == answer["Instances"][0]["SecurityGroups"]


def test_an_interface_of_its_own_outlives_its_instance():
    """An existing interface is attached, kept on termination and free for the next instance."""
    wish = {"NetworkInterfaces": [{"DeviceIndex": 0, "NetworkInterfaceId": FREE_ENI}]}
    world, answer = run(small_world(), "RunInstances", **ONE, **wish)
    (instance,) = answer["Instances"]
    assert (instance["PrivateIpAddress"], world.interface(FREE_ENI).attached_at) == ("10.0.1.7", NOW)
    world, _ = run(world, "TerminateInstances", InstanceIds=[instance["InstanceId"]])
    world = settled(world)
    assert world.interface(FREE_ENI).attached_at is None
    assert world.instance(instance["InstanceId"]) is None
    run(world, "RunInstances", **ONE, **wish)


def test_run_without_a_subnet_uses_the_default_vpc():
    """The first subnet of the default VPC; group names are looked up there. Without one: VPCIdNotSpecified."""
    _, answer = run(small_world(), "RunInstances", **ONE, SecurityGroups=["default"])
    (instance,) = answer["Instances"]
    assert instance["SubnetId"] == OTHER_SUBNET
    assert instance["SecurityGroups"] == [{"GroupId": OTHER_DEFAULT, "GroupName": "default"}]
    world = small_world()
    world = msgspec.structs.replace(
        world, vpcs=(world.vpcs[0], msgspec.structs.replace(world.vpcs[1], is_default=False))
    )
    with pytest.raises(ApiError) as caught:
        run(world, "RunInstances", **ONE)
    assert caught.value.code == "VPCIdNotSpecified"


def test_run_makes_nothing_when_one_thing_is_wrong():
    """A bad tag after good parameters leaves no Change behind: the action raises before it makes one."""
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "aws:x", "Value": ""}]}]
    with pytest.raises(ApiError) as caught:
        run(small_world(), "RunInstances", **ONE, SubnetId=SUBNET, TagSpecifications=tags)
    assert caught.value.code == "InvalidParameterValue"


def test_what_only_tunes_hardware_is_accepted():
    """Parameters that clients send by habit, at values that change nothing here."""
    harmless = {
        "Monitoring": {"Enabled": False},
        "EbsOptimized": False,
        "DisableApiTermination": False,
        "InstanceInitiatedShutdownBehavior": "stop",
        "MetadataOptions": {"HttpTokens": "required"},
        "Placement": {"AvailabilityZone": "us-east-1a", "Tenancy": "default"},
        "CreditSpecification": {"CpuCredits": "standard"},
    }
    run(small_world(), "RunInstances", **ONE, SubnetId=SUBNET, **harmless)


# -- start, stop, terminate --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "member", "moves"),
    [
        ("StartInstances", "StartingInstances", {RUNNING: None, STOPPED: "pending", PENDING: None}),
        ("StopInstances", "StoppingInstances", {RUNNING: "stopping", STOPPED: None}),
        (
            "TerminateInstances",
            "TerminatingInstances",
            {RUNNING: "shutting-down", STOPPED: "shutting-down", PENDING: "shutting-down", ENDED: None},
        ),
    ],
)
def test_transitions(action, member, moves):
    """Who may move moves, who is there already stays; the answer tells both states in the order asked."""
    before = states(small_world())
    world, answer = run(small_world(), action, InstanceIds=list(moves))
    got = [(one["InstanceId"], one["PreviousState"]["Name"], one["CurrentState"]["Name"]) for one in answer[member]]
    assert got == [(one, before[one], state or before[one]) for one, state in moves.items()]
    assert states(world) == before | {one: state for one, state in moves.items() if state}


def test_one_wrong_state_moves_none():
    """Stopping a running and a pending one is refused as a whole."""
    with pytest.raises(ApiError) as caught:
        run(small_world(), "StopInstances", InstanceIds=[RUNNING, PENDING])
    assert caught.value.code == "IncorrectInstanceState"


def test_why_an_instance_stopped_is_shown():
    """StateReason and StateTransitionReason after a stop, gone after the next start."""
    world, _ = run(small_world(), "StopInstances", InstanceIds=[RUNNING])
    world = settled(world)
    one = shown(world, RUNNING)[RUNNING]
    assert one["StateReason"] == {
        "Code": "Client.UserInitiatedShutdown",
        "Message": "Client.UserInitiatedShutdown: User initiated shutdown",
    }
    assert one["StateTransitionReason"] == "User initiated (2027-01-15 08:00:00 GMT)"
    world, _ = run(world, "StartInstances", InstanceIds=[RUNNING])
    one = shown(world, RUNNING)[RUNNING]
    assert ("StateReason" in one, one["StateTransitionReason"]) == (False, "")


def test_what_did_not_start_is_stopped_and_says_why():
    """A failed start ends in stopped with the reason; it can be started again."""
    world = settled(small_world(), failed={PENDING: "sshd ended"})
    one = shown(world, PENDING)[PENDING]
    assert one["State"]["Name"] == "stopped"
    assert one["StateReason"] == {"Code": "Server.InternalError", "Message": "sshd ended"}
    world, _ = run(world, "StartInstances", InstanceIds=[PENDING])
    assert states(settled(world))[PENDING] == "running"


def test_settle_waits_for_those_not_done():
    """Only those named done end their transition; with none under way nothing changes."""
    world, _ = run(small_world(), "TerminateInstances", InstanceIds=[RUNNING, STOPPED])
    world = settled(world, done={STOPPED})
    assert (states(world)[RUNNING], states(world)[STOPPED]) == ("shutting-down", "terminated")
    assert states(world)[PENDING] == "pending"
    world = settled(settled(world))
    assert instances.settle(world, NOW).empty


@given(
    st.lists(st.tuples(st.sampled_from(("Start", "Stop", "Terminate", "settle", "fail", "later")), st.integers(0, 2)))
)
def test_any_order_of_calls_leaves_a_whole_world(steps):
    """Whatever is called in whatever order: states are AWS's six, terminated ones never return, the World checks."""
    world, now, over = small_world(), NOW, set()
    everyone = (RUNNING, STOPPED, PENDING)
    for step, index in steps:
        if step == "later":
            now += 900
        elif step in ("settle", "fail"):
            how = {"done": {everyone[index]}} if step == "settle" else {"failed": {everyone[index]: "x"}, "done": ()}
            world = settled(world, now, **how)
        else:
            try:
                world, _ = run(world, f"{step}Instances", InstanceIds=[everyone[index]])
            except ApiError as error:
                assert error.code in ("IncorrectInstanceState", "InvalidInstanceID.NotFound")
        world.check()
        ended = {one for one, state in states(world).items() if state == "terminated"}
        assert not over & {one.id for one in world.instances}
        over |= ended
        assert None not in [world.interface(one.interface_id) for one in world.instances]


# -- modify ------------------------------------------------------------------------------------------------------------


def test_modify_groups_and_source_check():
    """Both forms of the source/destination check and the groups reach the instance's interface."""
    world, _ = run(small_world(), "ModifyInstanceAttribute", InstanceId=RUNNING, Groups=[DEFAULT])
    world, _ = run(world, "ModifyInstanceAttribute", InstanceId=RUNNING, SourceDestCheck={"Value": False})
    one = shown(world, RUNNING)[RUNNING]
    assert ([group["GroupId"] for group in one["SecurityGroups"]], one["SourceDestCheck"]) == ([DEFAULT], False)
    legacy = {"Attribute": "sourceDestCheck", "Value": "true"}
    world, _ = run(world, "ModifyInstanceAttribute", InstanceId=RUNNING, **legacy)
    assert shown(world, RUNNING)[RUNNING]["SourceDestCheck"] is True
    same, _ = run(world, "ModifyInstanceAttribute", InstanceId=RUNNING, DisableApiTermination={"Value": False})
    assert same is world


# -- describe ----------------------------------------------------------------------------------------------------------


def test_reservations_hold_their_instances():
    """What one call launched stands in one reservation, terminated ones too; a stray one has its own."""
    _, answer = run(small_world(), "DescribeInstances")
    by_id = {one["ReservationId"]: {i["InstanceId"] for i in one["Instances"]} for one in answer["Reservations"]}
    assert by_id[f"r-{number('1')}"] == {RUNNING, ENDED}
    assert len(by_id) == 3
    assert run(small_world(), "DescribeInstances")[1] == answer


def test_a_terminated_instance_has_no_network():
    """Nothing of the network is shown once it has ended."""
    one = shown(small_world(), ENDED)[ENDED]
    assert one["State"] == {"Code": 48, "Name": "terminated"}
    assert (one["NetworkInterfaces"], one["SecurityGroups"]) == ([], [])
    assert not {"SubnetId", "VpcId", "PrivateIpAddress"} & set(one)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("instance-state-name", "running", {RUNNING}),
        ("instance-state-code", "80", {STOPPED}),
        ("instance-state-name", "*", {RUNNING, STOPPED, PENDING, ENDED}),
        ("vpc-id", VPC, {RUNNING, STOPPED, PENDING}),
        ("subnet-id", SMALL, set()),
        ("private-ip-address", "10.0.1.5", {STOPPED}),
        ("network-interface.addresses.private-ip-address", "10.0.1.5", {STOPPED}),
        ("network-interface.network-interface-id", f"eni-{number('1')}", {RUNNING}),
        ("instance.group-name", "web", {RUNNING, STOPPED, PENDING}),
        ("instance.group-id", DEFAULT, set()),
        ("tag:Name", "web-*", {RUNNING}),
        ("tag-key", "Name", {RUNNING}),
        ("availability-zone", "us-east-1a", {RUNNING, STOPPED, PENDING}),
        ("launch-time", "2027-01-15T07:*", {RUNNING}),
        ("reservation-id", f"r-{number('1')}", {RUNNING, ENDED}),
        ("image-id", IMAGE, {RUNNING, STOPPED, PENDING, ENDED}),
        ("ip-address", "*", set()),
        ("source-dest-check", "true", {RUNNING, STOPPED, PENDING}),
    ],
)
def test_instance_filters(name, value, expected):
    """Each filter picks the instances whose answer has the value."""
    _, answer = run(small_world(), "DescribeInstances", Filters=[{"Name": name, "Values": [value]}])
    assert {one["InstanceId"] for group in answer["Reservations"] for one in group["Instances"]} == expected


def test_pages_count_instances():
    """Pages of five over twelve instances of one reservation: 5, 5, 2, each once, in their reservation each time."""
    world = msgspec.structs.replace(small_world(), instances=(), endpoints=())
    world = msgspec.structs.replace(
        world, vpcs=tuple(msgspec.structs.replace(vpc, terminated_instances=()) for vpc in world.vpcs)
    )
    world, made = run(world, "RunInstances", ImageId=IMAGE, MinCount=12, MaxCount=12, SubnetId=SUBNET)
    seen, token = [], {}
    for _ in range(3):
        _, answer = run(world, "DescribeInstances", MaxResults=5, **token)
        (reservation,) = answer["Reservations"]
        assert reservation["ReservationId"] == made["ReservationId"]
        seen.append([one["InstanceId"] for one in reservation["Instances"]])
        token = {"NextToken": answer.get("NextToken")}
    assert [len(one) for one in seen] == [5, 5, 2]
    assert token == {"NextToken": None}
    assert set(itertools.chain(*seen)) == {one["InstanceId"] for one in made["Instances"]}


def test_status_of_running_and_of_all():
    """Only running ones without IncludeAllInstances; they are ok, others not applicable."""
    _, answer = run(small_world(), "DescribeInstanceStatus")
    (one,) = answer["InstanceStatuses"]
    assert (one["InstanceId"], one["InstanceStatus"]["Status"], one["SystemStatus"]["Status"]) == (RUNNING, "ok", "ok")
    assert one["AvailabilityZone"] == "us-east-1a"
    _, answer = run(small_world(), "DescribeInstanceStatus", IncludeAllInstances=True)
    assert {one["InstanceId"]: one["InstanceStatus"]["Status"] for one in answer["InstanceStatuses"]} == {
        RUNNING: "ok",
        STOPPED: "not-applicable",
        PENDING: "not-applicable",
        ENDED: "not-applicable",
    }
    filters = [{"Name": "instance-status.reachability", "Values": ["passed"]}]
    _, answer = run(small_world(), "DescribeInstanceStatus", Filters=filters)
    assert [one["InstanceId"] for one in answer["InstanceStatuses"]] == [RUNNING]


def test_instances_made_without_the_api_are_shown():
    """What a topology file made, with few fields set, is described like any other."""
    world = small_world()
    bare = Instance(id=f"i-{number('a')}", interface_id=FREE_ENI)
    world = msgspec.structs.replace(world, instances=(*world.instances, bare))
    assert shown(world, bare.id)[bare.id]["PrivateIpAddress"] == "10.0.1.7"


# -- IAM ---------------------------------------------------------------------------------------------------------------


def test_run_asks_about_all_it_touches():
    """Image, instance, groups, interface and subnet, each as ec2:RunInstances; tags as ec2:CreateTags."""
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "Team", "Value": "a"}]}]
    found = asks(small_world(), "RunInstances", **ONE, SubnetId=SUBNET, TagSpecifications=tags)
    assert [(action, resource.removeprefix("arn:aws:ec2:us-east-1:")) for action, resource, _ in found] == [
        ("ec2:RunInstances", f":image/{IMAGE}"),
        ("ec2:RunInstances", "123456789012:instance/*"),
        ("ec2:RunInstances", "123456789012:network-interface/*"),
        ("ec2:RunInstances", f"123456789012:subnet/{SUBNET}"),
        ("ec2:RunInstances", f"123456789012:security-group/{DEFAULT}"),
        ("ec2:CreateTags", "123456789012:instance/*"),
    ]
    assert found[1][2]["aws:RequestTag/Team"] == ("a",)
    assert found[1][2]["ec2:InstanceType"] == ("wicketgate.namespace",)
    assert found[5][2]["ec2:CreateAction"] == ("RunInstances",)


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        (
            {"NetworkInterfaces": [{"DeviceIndex": 0, "NetworkInterfaceId": FREE_ENI}]},
            {f"network-interface/{FREE_ENI}", f"subnet/{SUBNET}", f"security-group/{WEB}"},
        ),
        ({}, {"network-interface/*", f"subnet/{OTHER_SUBNET}", f"security-group/{OTHER_DEFAULT}"}),
        (
            {"SecurityGroups": ["Default"]},
            {"network-interface/*", f"subnet/{OTHER_SUBNET}", f"security-group/{OTHER_DEFAULT}"},
        ),
        (
            {"NetworkInterfaces": [{"DeviceIndex": 0, "SubnetId": SUBNET, "Groups": [WEB]}]},
            {"network-interface/*", f"subnet/{SUBNET}", f"security-group/{WEB}"},
        ),
        ({"Placement": {"AvailabilityZone": "us-east-1z"}}, {"network-interface/*", "subnet/*"}),
        (
            {"NetworkInterfaces": [{"DeviceIndex": 0, "NetworkInterfaceId": "eni-nope"}]},
            {"network-interface/eni-nope", "subnet/*"},
        ),
    ],
)
def test_run_asks_about_what_is_implied(wish, expected):
    """Interface, subnet and groups are asked about by id, however the call names or implies them."""
    found = asks(small_world(), "RunInstances", **ONE, **wish)
    about = {resource.rpartition(":")[2] for _, resource, _ in found}
    assert about == expected | {f"image/{IMAGE}", "instance/*"}


@pytest.mark.parametrize("action", ["StartInstances", "StopInstances", "TerminateInstances"])
def test_one_question_for_each_instance(action):
    """Each instance named, once, with its tags; unknown ones all the same."""
    found = asks(small_world(), action, InstanceIds=[RUNNING, "i-nope", RUNNING])
    assert [resource.rpartition("/")[2] for _, resource, _ in found] == [RUNNING, "i-nope"]
    assert found[0][2]["ec2:ResourceTag/Name"] == ("web-1",)
    assert {asked for asked, _, _ in found} == {f"ec2:{action}"}
