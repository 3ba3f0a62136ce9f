"""Machines that exist, in a real deployment: by boto3, the stock CLI and our own; and what is found out about them."""

import json

import msgspec
import pytest

from tests.api.test_lint_and_check import verb
from tests.api.test_stock_cli import CommandLine
from tests.api.worlds import IMAGE, code_of, refusal, tagged, until, wait_for_state
from wicketgate.model import AttachedNetwork
from wicketgate.model.observed import Machine, Observations

EXTERNAL = "ami-00000000000000002"
ONE = {"ImageId": EXTERNAL, "MinCount": 1, "MaxCount": 1}


class Scene:
    """A subnet and a group of a VPC of its own, with a range that no other VPC has."""

    numbers = iter(range(1, 100))

    def __init__(self, ec2):
        self.ec2, self.range = ec2, f"10.77.{next(self.numbers)}"
        self.vpc = ec2.create_vpc(CidrBlock=f"{self.range}.0/24")["Vpc"]["VpcId"]
        self.subnet = ec2.create_subnet(VpcId=self.vpc, CidrBlock=f"{self.range}.0/24")["Subnet"]["SubnetId"]
        made = ec2.create_security_group(GroupName="web", Description="d", VpcId=self.vpc)
        self.group = made["GroupId"]

    def register(self, last, **wish):
        """A machine, running; its id."""
        address = f"{self.range}.{last}"
        made = self.ec2.run_instances(**ONE, SubnetId=self.subnet, PrivateIpAddress=address, **wish)
        wait_for_state(self.ec2, made["Instances"][0]["InstanceId"], "running")
        return made["Instances"][0]["InstanceId"]

    def listed(self):
        """Our own list of this subnet's machines, by address."""
        done = verb("machines", "list", "--json")
        assert done.stderr == ""
        return {one["addresses"][0]: one for one in json.loads(done.stdout) if one["subnet"] == self.subnet}


@pytest.fixture
def scene(ec2):
    """Anew for each test."""
    return Scene(ec2)


@pytest.fixture(scope="module")
def aws(deployment, tmp_path_factory):
    """The stock CLI, as root."""
    return CommandLine(tmp_path_factory.mktemp("home"))


@pytest.mark.slow
def test_the_life_of_a_machine_by_the_stock_cli(aws, scene):
    """Found by its image, registered, described, neither stopped nor started, forgotten by a waiter."""
    shown = aws("ec2", "describe-images", "--owners", "self", "--filters", "Name=name,Values=wicketgate/external")
    assert [one["ImageId"] for one in shown["Images"]] == [EXTERNAL]
    place = ("--subnet-id", scene.subnet, "--security-group-ids", scene.group)
    address = f"{scene.range}.20"
    made = aws("ec2", "run-instances", "--image-id", EXTERNAL, *place, "--private-ip-address", address)
    instance = made["Instances"][0]
    assert (instance["InstanceType"], instance["PrivateIpAddress"]) == ("wicketgate.external", address)
    assert aws("ec2", "wait", "instance-running", "--instance-ids", instance["InstanceId"]) is None
    for what in ("stop", "start"):
        said = aws.fails("ec2", f"{what}-instances", "--instance-ids", instance["InstanceId"])
        assert "(UnsupportedOperation)" in said
        assert "is a machine that exists by itself: it cannot be" in said
    aws("ec2", "terminate-instances", "--instance-ids", instance["InstanceId"])
    assert aws("ec2", "wait", "instance-terminated", "--instance-ids", instance["InstanceId"]) is None
    scene.register(20)


def test_refusals(scene, ec2):
    """Without an address, several at once, an address in use; nothing is left of them."""
    assert code_of(ec2, "RunInstances", **ONE, SubnetId=scene.subnet) == "MissingParameter"
    several = ONE | {"MaxCount": 2, "SubnetId": scene.subnet, "PrivateIpAddress": f"{scene.range}.20"}
    assert code_of(ec2, "RunInstances", **several) == "InvalidParameterValue"
    scene.register(20)
    again = {**ONE, "SubnetId": scene.subnet, "PrivateIpAddress": f"{scene.range}.20"}
    assert code_of(ec2, "RunInstances", **again) == "InvalidIPAddress.InUse"
    assert list(scene.listed()) == [f"{scene.range}.20"]


def test_what_is_found_outside_is_shown(deployment, ec2, scene):
    """A subnet bound, a machine that does not answer, and again: by the file, in which netd itself has nothing to say
    here."""
    one = scene.register(20)
    network = {"mode": "bridge", "endpoint_addresses": [f"{scene.range}.200"]}

    def tell(**machine):
        seen = Observations(machines={one: Machine(**machine)}, subnets={scene.subnet: AttachedNetwork(**network)})
        new = deployment.serve.directory / "run" / "new"
        new.write_bytes(msgspec.json.encode(seen))
        new.chmod(0o644)
        new.replace(deployment.serve.directory / "run" / "observations.json")

    tell(reachable=False, since=1_800_000_000.0, note="it moved")
    until(lambda: state(ec2, one)[0] == "stopped")
    since = "2027-01-15 08:00:00 GMT"
    assert state(ec2, one)[1:] == (
        f"Unreachable ({since})", f"{scene.range}.20 has not answered since {since}; it moved",
    )  # fmt: skip
    words = refusal(ec2, "RunInstances", ONE | {"ImageId": IMAGE, "SubnetId": scene.subnet})
    assert words[0] == "UnsupportedOperation"
    assert "is bound to a network of this host" in words[1]
    shown = scene.listed()[f"{scene.range}.20"]
    assert (shown["state"], shown["since"], shown["note"].endswith("; it moved")) == ("stopped", since, True)
    tell(reachable=True, since=1_800_000_060.0)
    until(lambda: state(ec2, one)[0] == "running")
    assert state(ec2, one)[1] == "Reachable (2027-01-15 08:01:00 GMT)"


def state(ec2, instance_id):
    """(state, since, why)."""
    shown = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]
    return shown["State"]["Name"], shown["StateTransitionReason"], shown.get("StateReason", {}).get("Message", "")


# -- our own command line ----------------------------------------------------------------------------------------------


def test_add_list_and_remove(scene):
    """One machine with all that can be said of it; adding it again changes nothing; by address it is forgotten."""
    address = f"{scene.range}.30"
    more = ("--name", "db-1", "--group", "web", "--tag", "Stage=test")
    done = verb("machines", "add", address, "--subnet", scene.subnet, *more)
    assert (done.returncode, done.stderr) == (0, "1 registered\n")
    (one,) = scene.listed().values()
    assert done.stdout == f"{address}: {one['id']}\n"
    assert (one["name"], one["groups"], one["tags"], one["state"]) == (
        "db-1", [scene.group], {"Stage": "test"}, "running",
    )  # fmt: skip
    again = verb("machines", "add", address, *more)
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert again.stderr == "0 registered, 1 there already; nothing changed\n"
    table = verb("machines", "list").stdout.splitlines()
    assert table[0].split() == ["ID", "NAME", "ADDRESS", "SUBNET", "STATE", "SINCE", "NOTE"]
    assert [one["id"], "db-1", address, scene.subnet, "running", "-", "-"] in [line.split() for line in table]
    gone = verb("machines", "remove", address)
    assert (gone.returncode, gone.stdout, gone.stderr) == (0, f"{address}: {one['id']} is forgotten\n", "")
    assert scene.listed() == {}
    assert verb("machines", "remove", address).stderr == f"wicketgate: There is no registered machine {address}.\n"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("10.77.0.999",), 252, "'10.77.0.999' is no IP address"),
        (("10.78.0.9",), 255, "wicketgate: 10.78.0.9 is in the range of no subnet"),
        (("{range}.9", "--subnet", "subnet-0"), 255, "wicketgate: there is no subnet subnet-0"),
        (("10.78.0.9", "--subnet", "{subnet}"), 255, "wicketgate: 10.78.0.9 is not in the range of {subnet}"),
        (("{range}.9", "--group", "db"), 255, "wicketgate: there is no security group db in {vpc}"),
        (("{range}.1",), 255, "InvalidParameterValue: Address {range}.1 is in subnet's reserved address range"),
        (("{range}.9", "--tag", "aws:x=1"), 255, "InvalidParameterValue: Tag keys starting with 'aws:'"),
        (("{range}.9", "--tag", "x"), 252, "the tag 'x' is not KEY=VALUE"),
    ],
)
def test_what_cannot_be_added(scene, words, code, said):
    """Each in one line, and nothing is registered."""
    known = {"range": scene.range, "subnet": scene.subnet, "vpc": scene.vpc}
    done = verb("machines", "add", *(word.format(**known) for word in words))
    assert (done.returncode, done.stdout) == (code, "")
    assert said.format(**known) in done.stderr
    assert scene.listed() == {}


def test_import_is_all_or_nothing_and_idempotent(scene, tmp_path):
    """Every wrong line is named first; then all are registered; the same file again changes nothing; one that is
    another by now is told and left."""
    file = tmp_path / "machines.csv"

    def import_(text, *words):
        file.write_text(text.replace("R.", f"{scene.range}."))
        return verb("machines", "import", str(file), *words)

    good = "address,name,groups,Stage\nR.11,a,web,test\nR.12,b,,\nR.13,c,web,\n"
    done = import_(good + "R.1,d,,\nnone,e,,\nR.14,f,db,\n")
    assert (done.returncode, done.stdout) == (255, "")
    told = done.stderr.splitlines()
    assert [line.split(":")[2] for line in told[:-1]] == ["5", "6", "7"]
    assert told[-1] == "wicketgate: nothing was registered: 3 lines cannot be used"
    tried = import_(good, "--dry-run")
    assert (tried.returncode, tried.stderr) == (0, "3 to be registered\n")
    assert len(tried.stdout.splitlines()) == 3
    assert scene.listed() == {}
    done = import_(good, "--group", "default")
    assert (done.returncode, done.stderr) == (0, "3 registered\n")
    shown = scene.listed()
    assert [one["name"] for one in shown.values()] == ["a", "b", "c"]
    assert shown[f"{scene.range}.11"]["tags"] == {"Stage": "test"}
    assert [one["groups"] == [scene.group] for one in shown.values()] == [True, False, True]
    again = import_(good)
    assert (again.returncode, again.stderr) == (0, "0 registered, 3 there already; nothing changed\n")
    other = import_(good.replace("11,a,web,test", "11,z,web,prod") + "R.14,d,,\n")
    assert (other.returncode, other.stderr) == (1, "1 registered, 2 there already, 1 different\n")
    one = shown[f"{scene.range}.11"]["id"]
    assert f"{one} is registered with name a, not z; tag Stage=test, not Stage=prod; left as it is" in other.stdout
    assert scene.listed()[f"{scene.range}.11"] == shown[f"{scene.range}.11"]


def test_an_address_twice(scene, tmp_path):
    """Also where one row names the subnet and the other leaves it to be found: nothing is registered half."""
    file = tmp_path / "machines.csv"
    file.write_text(f"address,subnet\n{scene.range}.11,\n{scene.range}.11,{scene.subnet}\n")
    done = verb("machines", "import", str(file))
    assert (done.returncode, done.stdout) == (255, "")
    assert done.stderr.splitlines()[0] == f"wicketgate: {file}:3: {scene.range}.11 stands in line 2 already"
    assert scene.listed() == {}


def test_import_of_an_inventory(scene, tmp_path):
    """Ranges of INI, from standard input too; an address in use by something else is told with its line."""
    scene.ec2.create_network_interface(SubnetId=scene.subnet, PrivateIpAddress=f"{scene.range}.40")
    file = tmp_path / "hosts"
    file.write_text(f"[web]\n{scene.range}.[21:23]\n[web:vars]\nwicketgate_groups=web\n")
    assert verb("machines", "import", str(file), "--subnet", scene.subnet).stderr == "3 registered\n"
    assert {one["tags"].get("ansible:web") for one in scene.listed().values()} == {""}
    file.write_text(f"a ansible_host={scene.range}.40\n")
    done = verb("machines", "import", str(file))
    assert f"{file}:1: InvalidIPAddress.InUse: Address {scene.range}.40 is in use." in done.stderr


def test_tags_and_groups_of_a_machine_that_a_policy_names(scene, ec2):
    """It is an instance like others for DescribeInstances' filters."""
    one = scene.register(50, SecurityGroupIds=[scene.group], **tagged("instance", {"Team": "red"}))
    filters = [{"Name": "image-id", "Values": [EXTERNAL]}, {"Name": "tag:Team", "Values": ["red"]}]
    shown = ec2.describe_instances(Filters=filters)["Reservations"]
    assert [each["InstanceId"] for group in shown for each in group["Instances"]] == [one]
