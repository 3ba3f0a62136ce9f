"""The Worlds that tests/golden/errors.toml speaks of, made in a deployment by its API; and how calls are made there."""

from __future__ import annotations

import json
import re
import time
import tomllib
from pathlib import Path

import pytest
from botocore import xform_name
from botocore.exceptions import ClientError

GOLDEN = Path(__file__).parent.parent / "golden" / "errors.toml"
IMAGE = "ami-00000000000000001"
POOL = "ipv6pool-ec2-00000000000000001"
LOOK = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*"}]}
)


def id_of(prefix, digit, last=None):
    """An id of the golden file: seventeen times a digit, or sixteen and another one."""
    return f"{prefix}-{digit * 16}{last or digit}"


def call(client, action, parameters):
    """Make a call by the action's name in the service model."""
    return getattr(client, xform_name(action))(**parameters)


def refusal(client, action, parameters):
    """The error that a call is answered: (code, message, HTTP status)."""
    with pytest.raises(ClientError) as caught:
        call(client, action, parameters)
    answer = caught.value.response
    return answer["Error"]["Code"], answer["Error"]["Message"], answer["ResponseMetadata"]["HTTPStatusCode"]


def code_of(client, action, **parameters):
    """The code alone."""
    return refusal(client, action, parameters)[0]


def golden(*families):
    """Parametrises a test by the calls of these families that can be made from outside."""
    table = tomllib.loads(GOLDEN.read_text(encoding="utf-8"))
    rows = [row for family in families for row in table[family] if "inside" not in row]
    return pytest.mark.parametrize("row", rows, ids=lambda row: f"{row.get('action', '')}: {row['does']}")


class Made:
    """What stands in a deployment for the golden file's ids."""

    def __init__(self, ec2):
        self.ec2 = ec2
        self.ids = {}

    def __setitem__(self, golden_id, real_id):
        self.ids[golden_id] = real_id

    def __getitem__(self, golden_id):
        return self.ids[golden_id]

    def translated(self, value):
        """Text, or parameters, with the real ids."""
        names = "|".join(re.escape(golden_id) for golden_id in self.ids)
        text = re.sub(rf"(?<![\w-])(?:{names})(?![\w-])", lambda match: self.ids[match[0]], json.dumps(value))
        return json.loads(text)

    # -- making --------------------------------------------------------------------------------------------------------

    def vpc(self, golden_id, default_group, cidr="10.0.0.0/16", tags=None, six=None):
        ipv6 = {"Ipv6Pool": POOL, "Ipv6CidrBlock": six} if six else {}
        made = self.ec2.create_vpc(CidrBlock=cidr, **tagged("vpc", tags), **ipv6)["Vpc"]["VpcId"]
        self[golden_id] = made
        groups = self.ec2.describe_security_groups(Filters=filters(vpc_id=made))["SecurityGroups"]
        self[default_group] = groups[0]["GroupId"]

    def subnet(self, golden_id, vpc, cidr, zone="us-east-1a", six=None):
        ranges = ({"CidrBlock": cidr} if cidr else {"Ipv6Native": True}) | ({"Ipv6CidrBlock": six} if six else {})
        made = self.ec2.create_subnet(VpcId=self[vpc], AvailabilityZone=zone, **ranges)
        self[golden_id] = made["Subnet"]["SubnetId"]

    def group(self, golden_id, vpc, name):
        made = self.ec2.create_security_group(GroupName=name, Description="front", VpcId=self[vpc])
        self[golden_id] = made["GroupId"]

    def rules(self, golden_group, golden_ids, *permissions):
        made = self.ec2.authorize_security_group_ingress(GroupId=self[golden_group], IpPermissions=list(permissions))
        for golden_id, rule in zip(golden_ids, made["SecurityGroupRules"], strict=True):
            self[golden_id] = rule["SecurityGroupRuleId"]

    def interface(self, golden_id, subnet, group, address=None, **wish):
        wish |= {"PrivateIpAddress": address} if address else {}
        made = self.ec2.create_network_interface(SubnetId=self[subnet], Groups=[self[group]], **wish)
        self[golden_id] = made["NetworkInterface"]["NetworkInterfaceId"]

    def instance(self, golden_id, golden_eni, subnet, group, address, **wish):
        place = {"SubnetId": self[subnet], "SecurityGroupIds": [self[group]], "PrivateIpAddress": address}
        made = run(self.ec2, **place, **wish)
        self[golden_id] = made["InstanceId"]
        if golden_eni:
            self[golden_eni] = made["NetworkInterfaces"][0]["NetworkInterfaceId"]

    def endpoint(self, golden_id, golden_eni, subnet, group):
        made = endpoint(self.ec2, SubnetId=self[subnet], SecurityGroupIds=[self[group]])
        self[golden_id] = made["InstanceConnectEndpointId"]
        self[golden_eni] = made["NetworkInterfaceIds"][0]


def filters(**values):
    """The Filters parameter: `vpc_id="vpc-..."` becomes the filter vpc-id."""
    named = {name.replace("_", "-"): value for name, value in values.items()}
    return [{"Name": n, "Values": value if isinstance(value, list) else [value]} for n, value in named.items()]


def tagged(kind, tags):
    """The TagSpecifications parameter, as a dictionary to be merged into a call's; {} without tags."""
    listed = [{"Key": key, "Value": value} for key, value in (tags or {}).items()]
    return {"TagSpecifications": [{"ResourceType": kind, "Tags": listed}]} if listed else {}


def run(ec2, **parameters):
    """A new instance, running."""
    made = ec2.run_instances(ImageId=IMAGE, MinCount=1, MaxCount=1, **parameters)["Instances"][0]
    wait_for_state(ec2, made["InstanceId"], "running")
    return made


def wait_for_state(ec2, instance_id, state):
    """Until the instance is in this state."""

    def found():
        (reservation,) = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"]
        return reservation["Instances"][0]["State"]["Name"] == state

    until(found)


def endpoint(ec2, **parameters):
    """A new endpoint, complete."""
    made = ec2.create_instance_connect_endpoint(**parameters)["InstanceConnectEndpoint"]
    return complete(ec2, made["InstanceConnectEndpointId"])


def complete(ec2, endpoint_id):
    """The endpoint once nothing is on its way."""
    shown = {}

    def found():
        answer = ec2.describe_instance_connect_endpoints(InstanceConnectEndpointIds=[endpoint_id])
        shown.update(answer["InstanceConnectEndpoints"][0])
        return shown["State"].endswith("-complete")

    until(found)
    return shown


def until(holds, seconds=10.0):
    """Wait until it holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


def network_world(ec2):
    """As tests/unit/net_world.py, without a default VPC; i-3..., pending there, has come to run."""
    made = Made(ec2)
    made.vpc(id_of("vpc", "1"), id_of("sg", "1"), tags={"Name": "lab", "Stage": "test"})
    made.vpc(id_of("vpc", "2"), id_of("sg", "3"))
    made.subnet(id_of("subnet", "1"), id_of("vpc", "1"), "10.0.1.0/24")
    made.subnet(id_of("subnet", "2"), id_of("vpc", "1"), "10.0.2.0/28", "us-east-1b")
    made.subnet(id_of("subnet", "3"), id_of("vpc", "2"), "10.0.0.0/24")
    made.group(id_of("sg", "2"), id_of("vpc", "1"), "web")
    for digit in "123":
        place = id_of("subnet", "1"), id_of("sg", "2"), f"10.0.1.{3 + int(digit)}"
        made.instance(id_of("i", digit), id_of("eni", digit), *place)
    made.interface(id_of("eni", "8"), id_of("subnet", "1"), id_of("sg", "2"), "10.0.1.7")
    made.instance(id_of("i", "4"), None, id_of("subnet", "1"), id_of("sg", "2"), "10.0.1.99")
    made.endpoint(id_of("eice", "1"), id_of("eni", "9"), id_of("subnet", "1"), id_of("sg", "2"))
    ec2.stop_instances(InstanceIds=[made[id_of("i", "2")]])
    ec2.terminate_instances(InstanceIds=[made[id_of("i", "4")]])
    wait_for_state(ec2, made[id_of("i", "2")], "stopped")
    wait_for_state(ec2, made[id_of("i", "4")], "terminated")
    return made


def groups_world(ec2):
    """As tests/unit/sg_world.py, without a default VPC."""
    made = Made(ec2)
    made.vpc(id_of("vpc", "1"), "sg-10000000000000000", "172.31.0.0/16")
    made.vpc(id_of("vpc", "2"), "sg-20000000000000000")
    made.subnet("subnet-1", id_of("vpc", "1"), "172.31.1.0/24")
    made.subnet("subnet-2", id_of("vpc", "2"), "10.0.1.0/24")
    made.group(id_of("sg", "1"), id_of("vpc", "1"), "web")
    made.group(id_of("sg", "2", "1"), id_of("vpc", "2"), "app")
    made.group(id_of("sg", "2", "2"), id_of("vpc", "2"), "db")
    made.group(id_of("sg", "2", "3"), id_of("vpc", "2"), "next")
    made.rules(
        id_of("sg", "1"),
        [id_of("sgr", "1", last) for last in "123"],
        {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]},
        {"IpProtocol": "-1", "Ipv6Ranges": [{"CidrIpv6": "2001:db8::/32", "Description": "six"}]},
        {"IpProtocol": "50", "IpRanges": [{"CidrIp": "10.0.0.0/8"}]},
    )
    db = [{"GroupId": made[id_of("sg", "2", "2")]}]
    made.rules(
        id_of("sg", "2", "1"),
        [id_of("sgr", "2", last) for last in "12"],
        {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "UserIdGroupPairs": db},
        {"IpProtocol": "icmp", "FromPort": 8, "ToPort": -1, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]},
    )
    made.interface("eni-1", "subnet-1", id_of("sg", "1"), "172.31.1.10")
    made.endpoint("eice-1", "eni-2", "subnet-2", id_of("sg", "2", "1"))
    next_group = made[id_of("sg", "2", "3")]
    ec2.modify_instance_connect_endpoint(InstanceConnectEndpointId=made["eice-1"], SecurityGroupIds=[next_group])
    complete(ec2, made["eice-1"])
    return made


def address_world(ec2):
    """As tests/unit/address_world.py."""
    made = Made(ec2)
    first, second, dual, native = id_of("vpc", "1"), id_of("vpc", "2"), id_of("subnet", "1"), id_of("subnet", "2")
    made.vpc(first, id_of("sg", "1"), six="fd12:3456:789a::/56")
    made.vpc(second, id_of("sg", "3"))
    made.subnet(dual, first, "10.0.1.0/24", six="fd12:3456:789a:1::/64")
    made.subnet(native, first, None, six="fd12:3456:789a:2::/64")
    made.subnet(id_of("subnet", "3"), first, "10.0.3.0/28", "us-east-1b")
    made.subnet(id_of("subnet", "4"), second, "10.0.0.0/24")
    web = id_of("sg", "2")
    made.group(web, first, "web")
    made.instance(id_of("i", "1"), id_of("eni", "1"), dual, web, "10.0.1.4", Ipv6AddressCount=1)
    secondary = {"PrivateIpAddresses": [{"PrivateIpAddress": "10.0.1.20"}]}
    made.interface(id_of("eni", "2"), dual, web, "10.0.1.5", **secondary)
    ids = {"InstanceId": made[id_of("i", "1")], "NetworkInterfaceId": made[id_of("eni", "2")]}
    ec2.attach_network_interface(DeviceIndex=1, **ids)
    made.instance(id_of("i", "2"), id_of("eni", "3"), dual, web, "10.0.1.6")
    made.interface(id_of("eni", "5"), native, web)
    made.interface(id_of("eni", "6"), id_of("subnet", "4"), id_of("sg", "3"), "10.0.0.4")
    made.interface(id_of("eni", "7"), id_of("subnet", "3"), web, "10.0.3.4")
    made.interface(id_of("eni", "8"), dual, web, "10.0.1.7")
    made.endpoint(id_of("eice", "1"), id_of("eni", "9"), dual, web)
    return made


class Identities:
    """As tests/unit/identity_world.py, but for ids and access keys; made by IAM's API."""

    users = ("alice", "bob", "carol", "dave")
    groups = ("admins", "guests", "empty")
    roles = ("ops", "direct", "service")
    account = "arn:aws:iam::123456789012:"

    def __init__(self, iam):
        self.iam = iam
        self.made = Made(None)
        self.keys = {}
        """User name -> (id, secret)."""
        self._make_policies()
        self._make_users()
        self._make_roles()

    def _make_policies(self):
        versions = {"policy/Read": 3, "policy/ops/Write": 1, "policy/Full": 5}
        for resource, count in versions.items():
            path, _, name = resource.removeprefix("policy").rpartition("/")
            self.iam.create_policy(PolicyName=name, Path=f"{path}/", PolicyDocument=LOOK)
            for _ in range(count - 1):
                self.iam.create_policy_version(PolicyArn=self.account + resource, PolicyDocument=LOOK)
        self.iam.delete_policy_version(PolicyArn=f"{self.account}policy/Read", VersionId="v2")

    def _make_users(self):
        for name in self.groups:
            self.iam.create_group(GroupName=name)
        admin = "arn:aws:iam::aws:policy/AdministratorAccess"
        self.iam.attach_group_policy(GroupName="admins", PolicyArn=admin)
        for name in self.users:
            self.iam.create_user(UserName=name, Path="/ops/" if name == "alice" else "/")
        self.iam.put_user_policy(UserName="alice", PolicyName="Own", PolicyDocument=LOOK)
        self.iam.attach_user_policy(UserName="alice", PolicyArn=f"{self.account}policy/Read")
        self.iam.add_user_to_group(UserName="alice", GroupName="admins")
        self.iam.add_user_to_group(UserName="carol", GroupName="guests")
        for name in ("alice", "bob", "dave", "dave"):
            key = self.iam.create_access_key(UserName=name)["AccessKey"]
            self.keys[name] = key["AccessKeyId"], key["SecretAccessKey"]
        self.made["AKIAALICE00000000000"] = self.keys["alice"][0]

    def _make_roles(self):
        account = {"AWS": "123456789012"}
        trusted = account, {"AWS": f"{self.account}user/bob"}, {"Service": "ec2.amazonaws.com"}
        for name, principal in zip(self.roles, trusted, strict=True):
            action = ["sts:AssumeRole", "sts:TagSession"] if name == "ops" else "sts:AssumeRole"
            statement = {"Effect": "Allow", "Principal": principal, "Action": action}
            trust = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
            path = "/net/" if name == "ops" else "/"
            self.iam.create_role(RoleName=name, Path=path, AssumeRolePolicyDocument=trust, MaxSessionDuration=7200)
        self.iam.put_role_policy(RoleName="ops", PolicyName="Own", PolicyDocument=LOOK)
        self.iam.attach_role_policy(RoleName="direct", PolicyArn=f"{self.account}policy/ops/Write")
