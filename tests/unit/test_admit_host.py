"""The Host of a tunnel's URL: one of the endpoint's own names."""

import pytest

from tests.unit.test_sigv4 import KEY, signed_url
from wicketgate.admit import TunnelCall, admit
from wicketgate.model import Endpoint, NetworkInterface, Policy, SecurityGroup, Subnet, User, Vpc, World
from wicketgate.tunnel.names import public_names

NOW = 1_577_840_470.0
NAME = "eice-123.ec2-instance-connect-endpoint.us-west-2.amazonaws.com"
EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
WORLD = World(
    region="us-west-2",
    vpcs=(Vpc(id="vpc-1", cidr_block="10.0.0.0/16"),),
    subnets=(Subnet(id="subnet-1", vpc_id="vpc-1", cidr_block="10.0.0.0/24"),),
    groups=(SecurityGroup(id="sg-1", vpc_id="vpc-1", name="all"),),
    interfaces=(
        NetworkInterface(
            id="eni-1", subnet_id="subnet-1", private_ip_address="10.0.0.10", group_ids=("sg-1",), link="e"
        ),
    ),
    endpoints=(Endpoint(id="eice-123", subnet_id="subnet-1", interface_id="eni-1", dns_name=NAME),),
    users=(User(name="alice", id="AIDA1", policies=(Policy(name="all", document=EVERYTHING),)),),
    access_keys=(KEY,),
)


@pytest.mark.parametrize("host", [NAME, NAME.upper(), f"{NAME}:443", f"{NAME}.", *public_names(NAME)])
def test_own_name_in_any_spelling(host):
    """The endpoint's own names pass, FIPS and dual-stack ones too, with a port, a trailing dot or capitals."""
    said = _admitted(host)
    assert said.verdict.steps[-1].name == "target", said.error


@pytest.mark.parametrize("host", ["evil.example", "eice-999.ec2-instance-connect-endpoint.us-west-2.amazonaws.com"])
def test_another_name(host):
    """A URL signed for and sent to another name opens nothing, though its signature holds."""
    said = _admitted(host)
    assert said.grant is None
    assert "is not the name of eice-123" in str(said.error)


def _admitted(host):
    query = signed_url(host=host).partition("?")[2]
    return admit(WORLD, TunnelCall(query=query, host=host, source_ip="192.0.2.1"), NOW)
