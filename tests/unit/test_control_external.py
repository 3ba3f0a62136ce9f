"""Machines that exist without us: registering and forgetting them, subnets bound to a network of the host, images."""

import msgspec
import pytest

from tests.unit.net_world import (
    DEFAULT,
    FREE_ENI,
    IMAGE,
    NOW,
    PENDING,
    RUNNING,
    SMALL,
    STOPPED,
    SUBNET,
    VPC,
    WEB,
    call,
    run,
    settled,
    small_world,
)
from wicketgate.control import observed, operations
from wicketgate.control.endpoints import EndpointQuotas
from wicketgate.control.instance_connect import _running
from wicketgate.kernel.delta import delta
from wicketgate.model import EXTERNAL_IMAGE, ApiError, AttachedNetwork, apply_change
from wicketgate.model.observed import Machine, Observations

MANY = EndpointQuotas(endpoints_per_vpc=9, endpoints_per_subnet=9)
ONE = {"ImageId": EXTERNAL_IMAGE, "MinCount": 1, "MaxCount": 1}
BRIDGE = AttachedNetwork(mode="bridge")


def bound(world=None, subnet_id=SUBNET, attached=BRIDGE, **fields):
    """The World with a subnet that is bound to a network of the host."""
    world = small_world() if world is None else world
    subnets = [
        msgspec.structs.replace(one, attached=attached, **fields) if one.id == subnet_id else one
        for one in world.subnets
    ]
    return msgspec.structs.replace(world, subnets=tuple(subnets))


def registered(world=None, address="10.0.1.50", **parameters):
    """A World with one more machine, running, and its id."""
    wish = {"SubnetId": SUBNET, "PrivateIpAddress": address, **parameters}
    world, answer = run(bound() if world is None else world, "RunInstances", **ONE, **wish)
    return settled(world), answer["Instances"][0]["InstanceId"]


def refused(world, action, **parameters):
    """(code, message) of a refusal."""
    with pytest.raises(ApiError) as caught:
        run(world, action, **parameters)
    return caught.value.code, str(caught.value)


# -- registering -------------------------------------------------------------------------------------------------------


def test_a_machine_is_registered_at_its_addresses():
    """Id, type, groups and tags; the addresses named and no others, also where the subnet would give IPv6 by itself."""
    world = bound(ipv6_cidr_block="fd00::/64", assign_ipv6_on_creation=True)
    vpc = msgspec.structs.replace(world.vpcs[0], ipv6_cidr_blocks=("fd00::/56",))
    world = msgspec.structs.replace(world, vpcs=(vpc, *world.vpcs[1:]))
    wish = {
        "PrivateIpAddresses": [{"PrivateIpAddress": "10.0.1.60", "Primary": True}, {"PrivateIpAddress": "10.0.1.61"}]
    }
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "db"}]}]
    listed = [{"DeviceIndex": 0, "SubnetId": SUBNET, "Groups": [DEFAULT], **wish}]
    world, answer = run(world, "RunInstances", **ONE, NetworkInterfaces=listed, TagSpecifications=tags)
    (shown,) = answer["Instances"]
    assert (shown["State"]["Name"], shown["InstanceType"], shown["ImageId"]) == (
        "pending", "wicketgate.external", EXTERNAL_IMAGE,
    )  # fmt: skip
    world = settled(world)
    instance = world.instance(shown["InstanceId"])
    (eni,) = world.interfaces_of_instance(instance)
    assert (instance.state, instance.is_external, instance.tags) == ("running", True, {"Name": "db"})
    assert (eni.addresses, eni.group_ids) == (("10.0.1.60", "10.0.1.61"), (DEFAULT,))


@pytest.mark.parametrize("attached", [None, BRIDGE])
def test_a_subnet_need_not_be_bound(attached):
    """Bound or not, it is registered."""
    world, instance_id = registered(bound(attached=attached))
    assert world.instance(instance_id).state == "running"


def test_an_interface_that_exists_has_an_address():
    """It is enough to name it; together with a further one of a machine with several."""
    listed = [
        {"DeviceIndex": 0, "NetworkInterfaceId": FREE_ENI},
        {"DeviceIndex": 1, "SubnetId": SUBNET, "PrivateIpAddress": "10.0.1.70", "Groups": [WEB]},
    ]
    _, answer = run(bound(), "RunInstances", **ONE, NetworkInterfaces=listed)
    there = answer["Instances"][0]["NetworkInterfaces"]
    assert [one["PrivateIpAddress"] for one in there] == ["10.0.1.7", "10.0.1.70"]


@pytest.mark.parametrize(
    ("wish", "code", "words"),
    [
        ({}, "MissingParameter", f"PrivateIpAddress: the image {EXTERNAL_IMAGE} registers a machine at the address"),
        ({"MaxCount": 3, "PrivateIpAddress": "10.0.1.50"}, "InvalidParameterValue", "MaxCount 3 is invalid: the image"),
        ({"PrivateIpAddress": "10.0.1.4"}, "InvalidIPAddress.InUse", "Address 10.0.1.4 is in use."),
        ({"PrivateIpAddress": "10.0.9.4"}, "InvalidParameterValue", "does not fall within"),
        ({"PrivateIpAddress": "10.0.1.50", "KeyName": "k"}, "InvalidKeyPair.NotFound", "The key pair 'k'"),
        ({"PrivateIpAddress": "10.0.1.50", "UserData": "x"}, "UnsupportedOperation", "UserData"),
        ({"PrivateIpAddress": "10.0.1.50", "Ipv6AddressCount": 1}, "InvalidParameterCombination", "name each of them"),
    ],
)
def test_what_is_refused(wish, code, words):
    """No address is ever chosen, one machine a call, and what no machine takes from us."""
    found = refused(bound(), "RunInstances", **ONE | {"SubnetId": SUBNET} | wish)
    assert found[0] == code
    assert words in found[1]


def test_addresses_that_a_call_counts_are_refused():
    """With the launch, and later."""
    listed = [
        {"DeviceIndex": 0, "SubnetId": SUBNET, "PrivateIpAddress": "10.0.1.50", "SecondaryPrivateIpAddressCount": 1}
    ]
    code, words = refused(bound(), "RunInstances", **ONE, NetworkInterfaces=listed)
    assert (code, "name each of them" in words) == ("InvalidParameterCombination", True)
    world, instance_id = registered()
    eni = world.instance(instance_id).interface_id
    wish = {"NetworkInterfaceId": eni, "SecondaryPrivateIpAddressCount": 1}
    code, words = refused(world, "AssignPrivateIpAddresses", **wish)
    assert (code, "name the addresses that it has" in words) == ("InvalidParameterCombination", True)
    world, _ = run(world, "AssignPrivateIpAddresses", NetworkInterfaceId=eni, PrivateIpAddresses=["10.0.1.51"])
    assert world.interface(eni).addresses == ("10.0.1.50", "10.0.1.51")


def test_an_ipv6_only_subnet_wants_the_ipv6_address():
    """It has no other."""
    world = bound(subnet_id=SMALL, cidr_block="", ipv6_cidr_block="fd00::/64")
    vpc = msgspec.structs.replace(world.vpcs[0], ipv6_cidr_blocks=("fd00::/56",))
    world = msgspec.structs.replace(world, vpcs=(vpc, *world.vpcs[1:]))
    code, words = refused(world, "RunInstances", **ONE, SubnetId=SMALL)
    assert (code, "the parameter Ipv6Addresses: " in words) == ("MissingParameter", True)
    wish = {"Ipv6Addresses": [{"Ipv6Address": "FD00::0:50"}]}
    _, answer = run(world, "RunInstances", **ONE, SubnetId=SMALL, **wish)
    shown = answer["Instances"][0]["NetworkInterfaces"][0]["Ipv6Addresses"]
    assert [one["Ipv6Address"] for one in shown] == ["fd00::50"]


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("10.0.1.0", "InvalidParameterValue"),
        ("10.0.1.1", "InvalidParameterValue"),
        ("10.0.1.2", None),
        ("10.0.1.3", None),
        ("10.0.1.255", "InvalidParameterValue"),
    ],
)
def test_hosts_of_a_network_stand_at_its_third_and_fourth_address(address, code):
    """There, and nowhere else; the base, the router's and the last address are nobody's."""
    wish = {**ONE, "SubnetId": SUBNET, "PrivateIpAddress": address}
    assert refused(bound(attached=None), "RunInstances", **wish)[0] == "InvalidParameterValue"
    if code:
        assert refused(bound(), "RunInstances", **wish)[0] == code
    else:
        assert registered(address=address)


def test_nothing_is_made_in_a_bound_subnet():
    """Not by RunInstances, and no instance that is made gets an interface there."""
    words = f"The subnet '{SUBNET}' is bound to a network of this host, where no instance is made."
    code, said = refused(bound(), "RunInstances", **ONE | {"ImageId": IMAGE}, SubnetId=SUBNET)
    assert (code, said.startswith(words)) == ("UnsupportedOperation", True)
    wish = {"InstanceId": RUNNING, "NetworkInterfaceId": FREE_ENI, "DeviceIndex": 1}
    code, said = refused(bound(), "AttachNetworkInterface", **wish)
    assert (code, said.startswith(words)) == ("UnsupportedOperation", True)


# -- its life ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["StartInstances", "StopInstances"])
def test_it_cannot_be_started_or_stopped(action):
    """It exists by itself; nor is any other one of the call."""
    world, instance_id = registered()
    done = {"StartInstances": "started", "StopInstances": "stopped"}[action]
    assert refused(world, action, InstanceIds=[RUNNING, instance_id]) == (
        "UnsupportedOperation",
        f"The instance '{instance_id}' is a machine that exists by itself: it cannot be {done} from here.",
    )


def test_terminate_forgets_it():
    """Shown for a while, its address free."""
    world, instance_id = registered()
    world, _ = run(world, "TerminateInstances", InstanceIds=[instance_id])
    world = settled(world)
    assert world.interface_at(VPC, "10.0.1.50") is None
    _, answer = run(world, "DescribeInstances", InstanceIds=[instance_id])
    assert answer["Reservations"][0]["Instances"][0]["State"]["Name"] == "terminated"
    assert registered(world)[0].interface_at(VPC, "10.0.1.50") is not None


# -- what is observed --------------------------------------------------------------------------------------------------


def see(world, machines=None, subnets=None):
    """The World once it shows this."""
    seen = Observations(machines=machines or {}, subnets={SUBNET: BRIDGE} if subnets is None else subnets)
    change = observed.observed_change(world, seen, NOW)
    after = world if change.empty else apply_change(world, change)
    assert observed.observed_change(after, seen, NOW).empty, "once is enough"
    return after


def state_of(world, instance_id):
    """(state, StateTransitionReason, StateReason) as DescribeInstances shows them."""
    _, answer = run(world, "DescribeInstances", InstanceIds=[instance_id])
    shown = answer["Reservations"][0]["Instances"][0]
    reason = shown.get("StateReason", {})
    return shown["State"]["Name"], shown["StateTransitionReason"], reason.get("Code", ""), reason.get("Message", "")


def test_states_follow_the_probe():
    """running, stopped with a reason, running again; since when; a note in either."""
    world, one = registered()
    assert state_of(world, one) == ("running", "", "", "")
    world = see(world, {one: Machine(reachable=False, since=NOW)})
    since = "2027-01-15 08:00:00 GMT"
    assert state_of(world, one) == (
        "stopped", f"Unreachable ({since})", "Server.Unreachable", f"10.0.1.50 has not answered since {since}",
    )  # fmt: skip
    world = see(world, {one: Machine(reachable=False, since=NOW, note="it moved")})
    assert state_of(world, one)[3] == f"10.0.1.50 has not answered since {since}; it moved"
    world = see(world, {one: Machine(reachable=True, since=NOW + 60, note="it moved: a")})
    since = "2027-01-15 08:01:00 GMT"
    assert state_of(world, one) == ("running", f"Reachable ({since})", "Server.Notice", "it moved: a")
    world = see(world, {one: Machine(reachable=True, since=NOW + 60)})
    assert state_of(world, one) == ("running", f"Reachable ({since})", "", "")


def test_the_kernel_forgets_nothing_for_a_probe():
    """What is tracked for the machine goes on: it is there for those who are connected with it."""
    world, one = registered()
    gone = see(world, {one: Machine(reachable=False, since=NOW)})
    assert delta(world, gone).stopped == {}
    assert delta(world, gone).interfaces == {}


def test_without_probes_nothing_speaks_against_it():
    """A machine that is not looked for any more is running."""
    world, one = registered()
    world = see(see(world, {one: Machine(reachable=False, since=NOW)}))
    assert state_of(world, one) == ("running", "", "", "")


def test_others_are_left_alone():
    """Instances that are made here, whatever is said of them, and what is on its way."""
    world, one = registered()
    ending, _ = run(world, "TerminateInstances", InstanceIds=[one])
    seen = {each: Machine(reachable=False, since=NOW) for each in (RUNNING, STOPPED, PENDING, one, "i-gone")}
    after = see(ending, seen)
    assert list(after.instances) == list(ending.instances)


def test_what_subnets_are_bound_to_is_shown():
    """As found, with its problem; the binding removed, it is none again."""
    world = see(small_world(), subnets={SUBNET: BRIDGE, "subnet-gone": BRIDGE})
    assert world.subnet(SUBNET).attached == BRIDGE
    broken = msgspec.structs.replace(BRIDGE, problem="its link is missing")
    world = see(world, subnets={SUBNET: broken})
    assert world.subnet(SUBNET).attached == broken
    assert see(world, subnets={}).subnet(SUBNET).attached is None


def test_keys_may_be_pushed_to_a_machine_that_did_not_answer():
    """A probe may err; to an instance that is stopped none is pushed."""
    world, one = registered()
    world = see(world, {one: Machine(reachable=False, since=NOW)})
    assert _running(world, one).id == one
    with pytest.raises(ApiError):
        _running(world, STOPPED)


# -- endpoints ---------------------------------------------------------------------------------------------------------


def address_of_endpoint(world):
    """The address of a new endpoint in SMALL, and the World."""
    endpoint = call(world, "CreateInstanceConnectEndpoint", SubnetId=SMALL)
    outcome = operations()["ec2", "CreateInstanceConnectEndpoint"].run(endpoint, MANY)
    interface = next(put for put in outcome.change.puts if hasattr(put, "link"))
    return apply_change(world, outcome.change), interface.private_ip_address


def test_endpoints_take_the_addresses_that_are_meant_for_them():
    """In their order, those that are free and in the range; when all are used there are none."""
    meant = ("10.9.9.9", "10.0.2.1", "10.0.2.13", "10.0.2.2")
    world = bound(subnet_id=SMALL, attached=msgspec.structs.replace(BRIDGE, endpoint_addresses=meant))
    world, first = address_of_endpoint(world)
    world, second = address_of_endpoint(world)
    assert (first, second) == ("10.0.2.13", "10.0.2.2")
    with pytest.raises(ApiError) as caught:
        address_of_endpoint(world)
    assert caught.value.code == "InsufficientFreeAddressesInSubnet"


def test_without_such_addresses_any_free_one_is_taken():
    """As in other subnets."""
    assert address_of_endpoint(bound(subnet_id=SMALL))[1] == "10.0.2.4"
    six = msgspec.structs.replace(BRIDGE, endpoint_addresses=("fd00::9",))
    assert address_of_endpoint(bound(subnet_id=SMALL, attached=six))[1] == "10.0.2.4"


# -- images ------------------------------------------------------------------------------------------------------------


def images(**parameters):
    """Ids that DescribeImages shows."""
    _, answer = run(small_world(), "DescribeImages", **parameters)
    return [one["ImageId"] for one in answer["Images"]]


@pytest.mark.parametrize(
    ("parameters", "shown"),
    [
        ({}, [IMAGE, EXTERNAL_IMAGE]),
        ({"ImageIds": [EXTERNAL_IMAGE]}, [EXTERNAL_IMAGE]),
        ({"Owners": ["self"]}, [IMAGE, EXTERNAL_IMAGE]),
        ({"Owners": ["123456789012", "amazon"]}, [IMAGE, EXTERNAL_IMAGE]),
        ({"Owners": ["amazon"]}, []),
        ({"ExecutableUsers": ["self"]}, []),
        ({"Filters": [{"Name": "name", "Values": ["wicketgate/ext*"]}]}, [EXTERNAL_IMAGE]),
        ({"Filters": [{"Name": "state", "Values": ["available"]}, {"Name": "platform", "Values": ["*"]}]}, []),
        ({"Filters": [{"Name": "is-public", "Values": ["false"]}]}, [IMAGE, EXTERNAL_IMAGE]),
        ({"Filters": [{"Name": "tag:Name", "Values": ["*"]}]}, []),
        ({"MaxResults": 1}, [IMAGE]),
    ],
)
def test_images_shown(parameters, shown):
    """The two, by id, owner, filter and page."""
    assert images(**parameters) == shown


@pytest.mark.parametrize(
    ("image_id", "code"), [("ami-00000000000000009", "InvalidAMIID.NotFound"), ("x", "InvalidAMIID.Malformed")]
)
def test_images_that_are_not_there(image_id, code):
    """In AWS's words for RunInstances and DescribeImages alike."""
    assert refused(small_world(), "DescribeImages", ImageIds=[image_id])[0] == code
    assert refused(small_world(), "RunInstances", **ONE | {"ImageId": image_id}, SubnetId=SUBNET)[0] == code
