"""ClientToken: a call that comes again makes nothing new (EC2 API Reference, "Ensuring idempotency ...")."""

import threading
from functools import cached_property

import pytest

from tests.api.people import User, allow
from tests.api.worlds import IMAGE, call, code_of, filters, refusal, tagged, until, wait_for_state
from wicketgate.api.offers import offered


class Place:
    """A VPC and a subnet."""

    def __init__(self, ec2):
        self.ec2 = ec2
        self.vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        self.subnet = ec2.create_subnet(VpcId=self.vpc, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]

    def interfaces(self, ec2):
        """How many network interfaces are in it."""
        return len(ec2.describe_network_interfaces(Filters=filters(vpc_id=self.vpc))["NetworkInterfaces"])

    @cached_property
    def ends(self):
        """Two network interfaces elsewhere, between which a path can be asked about."""
        other = Place(self.ec2)
        made = [self.ec2.create_network_interface(SubnetId=other.subnet)["NetworkInterface"] for _ in range(2)]
        return {"Source": made[0]["NetworkInterfaceId"], "Destination": made[1]["NetworkInterfaceId"]}

    @cached_property
    def path(self):
        """A path of Reachability Analyzer."""
        made = self.ec2.create_network_insights_path(**self.ends, Protocol="tcp")["NetworkInsightsPath"]
        return {"NetworkInsightsPathId": made["NetworkInsightsPathId"]}

    def insights(self, ec2):
        """How many paths have its name as a tag, and how many analyses its path has."""
        only = [{"Name": "tag:Place", "Values": [self.vpc]}]
        paths = ec2.describe_network_insights_paths(Filters=only)["NetworkInsightsPaths"]
        return len(paths) + len(ec2.describe_network_insights_analyses(**self.path)["NetworkInsightsAnalyses"])

    def things(self, ec2):
        """How many network interfaces and further route tables are in it, and how many prefix lists, paths and analyses
        are its own."""
        lists = ec2.describe_managed_prefix_lists(Filters=filters(prefix_list_name=self.vpc))["PrefixLists"]
        tables = ec2.describe_route_tables(Filters=filters(vpc_id=self.vpc))["RouteTables"]
        count = self.interfaces(ec2) + len(lists) + self.insights(ec2)
        return count + sum(not table["Associations"] for table in tables)


@pytest.fixture
def place(ec2):
    """A place of the test's own."""
    return Place(ec2)


def in_subnet(**parameters):
    """Parameters of something in the subnet of a place."""
    return lambda place: {"SubnetId": place.subnet, **parameters}


ACTIONS = {
    "CreateInstanceConnectEndpoint": (in_subnet(), {"PreserveClientIp": True}),
    "CreateManagedPrefixList": (
        lambda place: {"PrefixListName": place.vpc, "MaxEntries": 1, "AddressFamily": "IPv4"},
        {"MaxEntries": 2},
    ),
    "CreateNetworkInsightsPath": (
        lambda place: {**place.ends, "Protocol": "tcp", **tagged("network-insights-path", {"Place": place.vpc})},
        {"Protocol": "udp"},
    ),
    "CreateNetworkInterface": (in_subnet(Description="a"), {"Description": "b"}),
    "CreateRouteTable": (lambda place: {"VpcId": place.vpc}, tagged("route-table", {"k": "v"})),
    "RunInstances": (in_subnet(ImageId=IMAGE, MinCount=1, MaxCount=2), {"MaxCount": 3}),
    "StartNetworkInsightsAnalysis": (lambda place: place.path, tagged("network-insights-analysis", {"k": "v"})),
}
"""Action -> its parameters in a place, and what to change in them."""
by_action = pytest.mark.parametrize("action", ACTIONS)


def asked(action, place, token):
    """A call of the action with a token, which is the place's own."""
    return {"ClientToken": f"{token} {place.vpc}", **ACTIONS[action][0](place)}


def told(answer):
    """The answer, without what differs between two requests."""
    return {name: value for name, value in answer.items() if name != "ResponseMetadata"}


def test_actions(ec2):
    """No other offered action of EC2 takes a ClientToken."""
    model = ec2.meta.service_model
    taking = {
        action
        for service, action in offered()
        if service == "ec2" and "ClientToken" in getattr(model.operation_model(action).input_shape, "members", {})
    }
    assert taking == set(ACTIONS)


@by_action
def test_again(ec2, place, action):
    """The same call: the first answer, to the letter, and nothing new; another token makes something new."""
    first = call(ec2, action, asked(action, place, "one"))
    count = place.things(ec2)
    for _ in range(2):
        again = call(ec2, action, asked(action, place, "one"))
        assert told(again) == told(first)
        assert again["ResponseMetadata"]["RequestId"] != first["ResponseMetadata"]["RequestId"]
    assert place.things(ec2) == count
    if action != "CreateInstanceConnectEndpoint":  # of which a VPC has one
        assert told(call(ec2, action, asked(action, place, "two"))) != told(first)
        assert place.things(ec2) == 2 * count


@by_action
def test_other_parameters(ec2, place, action):
    """The same token with other parameters is refused, and changes nothing."""
    call(ec2, action, asked(action, place, "one"))
    count = place.things(ec2)
    assert refusal(ec2, action, asked(action, place, "one") | ACTIONS[action][1]) == (
        "IdempotentParameterMismatch",
        f"The client token 'one {place.vpc}' was used before with other parameters. Use a new one for another request.",
        400,
    )
    assert place.things(ec2) == count


def test_of_each_action(ec2, place):
    """A token is of one action: another one may use the same."""
    made = [call(ec2, action, asked(action, place, "shared")) for action in ACTIONS]
    assert place.things(ec2) == 8
    assert [told(call(ec2, action, asked(action, place, "shared"))) for action in ACTIONS] == [
        told(one) for one in made
    ]


def test_after_the_end(ec2, place):
    """What was made and is gone again is not made a second time: the answer is still the first one."""
    first = ec2.create_network_interface(**asked("CreateNetworkInterface", place, "one"))
    ec2.delete_network_interface(NetworkInterfaceId=first["NetworkInterface"]["NetworkInterfaceId"])
    assert told(ec2.create_network_interface(**asked("CreateNetworkInterface", place, "one"))) == told(first)
    assert place.interfaces(ec2) == 0


def test_instances_by_token(ec2, place):
    """Instances can be found by their token."""
    made = ec2.run_instances(**asked("RunInstances", place, "find me"))["Instances"]
    wait_for_state(ec2, made[0]["InstanceId"], "running")
    found = ec2.describe_instances(Filters=filters(client_token="find me *", vpc_id=place.vpc))["Reservations"]
    assert {one["InstanceId"] for one in found[0]["Instances"]} == {one["InstanceId"] for one in made}


def test_dry_run_and_refusal_use_nothing(ec2, place):
    """A dry run and a refused call leave the token unused."""
    right = asked("CreateNetworkInterface", place, "one")
    assert code_of(ec2, "CreateNetworkInterface", **right, DryRun=True) == "DryRunOperation"
    wrong = right | {"PrivateIpAddress": "192.0.2.1"}
    assert code_of(ec2, "CreateNetworkInterface", **wrong) == "InvalidParameterValue"
    assert place.interfaces(ec2) == 0
    ec2.create_network_interface(**right)
    assert code_of(ec2, "CreateNetworkInterface", **right, DryRun=True) == "DryRunOperation"


def test_of_each_caller(deployment, ec2, iam, place):
    """Tokens of two callers are two; and whoever may not any more gets no old answer either."""
    user, right = User(deployment, iam), asked("CreateNetworkInterface", place, "one")
    user.may(allow("ec2:CreateNetworkInterface"))
    made = user.ec2.create_network_interface(**right)
    assert told(ec2.create_network_interface(**right)) != told(made)
    assert told(user.ec2.create_network_interface(**right)) == told(made)
    user.may(allow("ec2:Describe*"))
    assert code_of(user.ec2, "CreateNetworkInterface", **right) == "UnauthorizedOperation"


@pytest.mark.parametrize("token", ["x" * 65, "\N{KEY}"], ids=["65 characters", "beyond ASCII"])
def test_no_token(ec2, place, token):
    """A token has at most 64 ASCII characters."""
    right = asked("CreateNetworkInterface", place, "")
    code, message, status = refusal(ec2, "CreateNetworkInterface", right | {"ClientToken": token})
    assert (code, status) == ("InvalidParameterValue", 400)
    assert "clientToken" in message
    call(ec2, "CreateNetworkInterface", right | {"ClientToken": place.vpc.ljust(64, "x")})


def test_at_once(deployment, ec2, place):
    """Eight times the same call at the same time: one interface, eight times the same answer."""
    clients = [deployment.client("ec2") for _ in range(8)]
    answers, barrier = [], threading.Barrier(8)

    def ask(client):
        barrier.wait()
        answers.append(told(client.create_network_interface(**asked("CreateNetworkInterface", place, "one"))))

    threads = [threading.Thread(target=ask, args=[client]) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(answers) == 8
    assert all(answer == answers[0] for answer in answers)
    until(lambda: place.interfaces(ec2) == 1)
