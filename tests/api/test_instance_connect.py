"""SendSSHPublicKey: to whom a key may be pushed, as which user, and what is answered. (That it opens: tests/e2e.)"""

import pytest

from tests.api.people import User, allow
from tests.api.worlds import code_of, run, tagged, wait_for_state

ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
SEND = "ec2-instance-connect:SendSSHPublicKey"


@pytest.fixture(scope="module")
def instance(ec2):
    """A running instance with a tag."""
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    made = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.1.0/24", AvailabilityZone="us-east-1b")
    return run(ec2, SubnetId=made["Subnet"]["SubnetId"], **tagged("instance", {"Team": "red"}))["InstanceId"]


@pytest.fixture(scope="module")
def user(deployment, iam):
    """A user whose policy each test sets, with a client of Instance Connect."""
    made = User(deployment, iam)
    made.eic = deployment.client("ec2-instance-connect", *made.key)
    return made


@pytest.mark.parametrize("zone", [{}, {"AvailabilityZone": "us-east-1b"}], ids=["no zone", "its zone"])
def test_push(deployment, instance, zone):
    """Success, and a request id that is the header's and the audit trail's."""
    eic = deployment.client("ec2-instance-connect")
    answer = eic.send_ssh_public_key(InstanceId=instance, InstanceOSUser="admin", SSHPublicKey=ED25519, **zone)
    assert answer["Success"] is True
    assert answer["RequestId"] == answer["ResponseMetadata"]["RequestId"]
    (event,) = [one for one in deployment.audit() if one["requestID"] == answer["RequestId"]]
    assert event["requestParameters"]["instanceOSUser"] == "admin"
    assert event["responseElements"] == {"requestId": answer["RequestId"], "success": True}


@pytest.mark.parametrize(
    ("condition", "os_user", "allowed"),
    [
        ({"StringEquals": {"ec2:osuser": "admin"}}, "admin", True),
        ({"StringEquals": {"ec2:osuser": "admin"}}, "root", False),
        ({"StringEquals": {"aws:ResourceTag/Team": "red"}}, "root", True),
        ({"StringEquals": {"aws:ResourceTag/Team": "blue"}}, "root", False),
        ({"StringEquals": {"ec2:ResourceTag/Team": "red", "ec2:osuser": "admin"}}, "admin", True),
    ],
)
def test_conditions(user, instance, *, condition, os_user, allowed):
    """A policy by the user of the instance, and by the instance's tags (EC2 User Guide, reference policies)."""
    user.may(allow(SEND, "instance/*", **condition))
    asked = {"InstanceId": instance, "InstanceOSUser": os_user, "SSHPublicKey": ED25519}
    if allowed:
        assert user.eic.send_ssh_public_key(**asked)["Success"] is True
    else:
        assert code_of(user.eic, "SendSSHPublicKey", **asked) == "AccessDeniedException"


def test_of_one_instance(ec2, user, instance):
    """A policy for one instance is for no other."""
    user.may(allow(SEND, f"instance/{instance}"))
    asked = {"InstanceOSUser": "admin", "SSHPublicKey": ED25519}
    user.eic.send_ssh_public_key(InstanceId=instance, **asked)
    assert code_of(user.eic, "SendSSHPublicKey", InstanceId="i-99999999999999999", **asked) == "AccessDeniedException"
    user.may(allow(SEND, "instance/*"))
    code = code_of(user.eic, "SendSSHPublicKey", InstanceId="i-99999999999999999", **asked)
    assert code == "EC2InstanceNotFoundException"


def test_stopped(ec2, deployment, instance):
    """A stopped instance takes no key; started again it does."""
    eic = deployment.client("ec2-instance-connect")
    asked = {"InstanceId": instance, "InstanceOSUser": "admin", "SSHPublicKey": ED25519}
    ec2.stop_instances(InstanceIds=[instance])
    wait_for_state(ec2, instance, "stopped")
    assert code_of(eic, "SendSSHPublicKey", **asked) == "EC2InstanceStateInvalidException"
    ec2.start_instances(InstanceIds=[instance])
    wait_for_state(ec2, instance, "running")
    assert eic.send_ssh_public_key(**asked)["Success"] is True


def test_operation_is_called(deployment):
    """Instance Connect offers nothing else here."""
    model = deployment.client("ec2-instance-connect").meta.service_model
    serial = {"InstanceId": "i-99999999999999999", "SSHPublicKey": ED25519}
    assert set(model.operation_names) == {"SendSSHPublicKey", "SendSerialConsoleSSHPublicKey"}
    code = code_of(deployment.client("ec2-instance-connect"), "SendSerialConsoleSSHPublicKey", **serial)
    assert code == "UnsupportedOperationException"
