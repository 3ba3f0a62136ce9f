"""Every refusal of the golden file, through the stock SDK: code, words and status; and a dry run is refused alike."""

import pytest

from tests.api.worlds import golden, groups_world, network_world, refusal


@pytest.fixture(scope="module")
def network(ec2):
    """The World of network, instances and endpoints."""
    return network_world(ec2)


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


@golden("security-groups")
def test_security_groups(plain, groups, row):
    """Calls on groups and their rules."""
    check(plain, groups, row)
