"""Every refusal of the golden file, through the stock SDK: code, words and status; and a dry run is refused alike."""

import pytest

from tests.api.worlds import Identities, address_world, golden, groups_world, network_world, refusal


@pytest.fixture(scope="module")
def network(ec2):
    """The World of network, instances and endpoints."""
    return network_world(ec2)


@pytest.fixture(scope="module")
def addresses(ec2):
    """The World of IPv6, further addresses and interfaces."""
    return address_world(ec2)


@pytest.fixture(scope="module")
def groups(ec2):
    """The World of security groups."""
    return groups_world(ec2)


def check(client, world, row):
    """The call is refused as the row has it, with DryRun too: what is wrong comes before what would succeed."""
    parameters = world.translated(row["parameters"])
    expected = row["code"], world.translated(row["message"]), row.get("status", 400)
    assert refusal(client, row["action"], parameters) == expected
    if "DryRun" in client.meta.service_model.operation_model(row["action"]).input_shape.members:
        assert refusal(client, row["action"], parameters | {"DryRun": True}) == expected


@golden("network", "instances", "endpoints")
def test_network(plain, network, row):
    """Calls on VPCs, subnets, interfaces, tags, instances and endpoints."""
    check(plain, network, row)


@golden("addresses")
def test_addresses(plain, addresses, row):
    """Calls on IPv6 ranges, further addresses and interfaces, idle time-outs."""
    check(plain, addresses, row)


@golden("security-groups")
def test_security_groups(plain, groups, row):
    """Calls on groups and their rules."""
    check(plain, groups, row)


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"


@pytest.fixture(scope="module")
def instance_connect(deployment):
    """A client of Instance Connect that sends whatever it is given."""
    return deployment.client("ec2-instance-connect", parameter_validation=False)


@golden("instance-connect")
def test_instance_connect(instance_connect, network, row):
    """Pushes of SSH keys."""
    good = {"InstanceId": "i-11111111111111111", "InstanceOSUser": "ec2-user", "SSHPublicKey": KEY}
    parameters = network.translated(good | row["parameters"])
    client = instance_connect
    assert refusal(client, "SendSSHPublicKey", parameters) == (row["code"], network.translated(row["message"]), 400)


@pytest.fixture(scope="module")
def identities(iam):
    """The World of users, groups, roles and policies."""
    return Identities(iam)


@pytest.fixture(scope="module")
def callers(deployment, identities):
    """Clients of IAM and STS by whose they are."""
    keys = {"root": (), "alice": identities.keys["alice"], "bob": identities.keys["bob"]}
    return {
        (who, service): deployment.client(service, *key, parameter_validation=False)
        for who, key in keys.items()
        for service in ("iam", "sts")
    }


@golden("iam")
def test_identities(callers, identities, row):
    """Calls on users, groups, roles, policies and keys, and for sessions."""
    service = "sts" if row["action"] in ("AssumeRole", "GetCallerIdentity") else "iam"
    client = callers[row.get("who", "root"), service]
    expected = row["code"], identities.made.translated(row["message"]), row.get("status", 400)
    assert refusal(client, row["action"], identities.made.translated(row["parameters"])) == expected
