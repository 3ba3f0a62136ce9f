"""Settings that an operator changes are in force, in the gateways, netd and the API, from the next start on."""

import subprocess

import boto3
import pytest
from botocore.exceptions import ClientError

from wicketgate.kernel import netns


def _refused(lab, port=22, **options):
    """What a tunnel to web-1 that is refused says."""
    command = lab.tunnel_command("plain", lab.address("plain", "web-1"), port, **options)
    with netns.entered("office"):
        done = subprocess.run(
            command, env=lab.environment("admin"), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30
        )
    assert done.returncode != 0
    return done.stderr


def test_tunnels(lab, configured):
    """Ports, longest and usual duration: refused before, offered after, and the other way round."""
    assert "Specify either 22 or 3389 as the RemotePort" in _refused(lab, 8022)
    configured(allowed_ports=(22, 8022, 8023), max_tunnel_duration=4)
    assert "Specify one of 22, 8022, 8023 as the RemotePort" in _refused(lab, 3389)
    assert "no outbound rule" in _refused(lab, 8022), "it was dialled, and judged by the kernel"
    assert "from 1 to 4" in _refused(lab, max_tunnel_duration="5")
    assert "4 seconds" in _refused_after(lab)
    configured(allowed_ports=())
    assert "no outbound rule" in _refused(lab, 3389)


def _refused_after(lab):
    """What a tunnel that nobody ends says at its end."""
    command = lab.tunnel_command("plain", lab.address("plain", "web-1"))
    with netns.entered("office"):
        tunnel = subprocess.Popen(
            command,
            env=lab.environment("admin"),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
    try:
        tunnel.wait(20)
    finally:
        tunnel.kill()
    return tunnel.communicate()[1].decode()


@pytest.fixture
def ec2(lab, monkeypatch):
    """A function that runs one call of the stock SDK as `admin`; the code of its error, or None."""
    for name, value in lab.environment("admin").items():
        if name.startswith(("AWS_", "SSL_")):
            monkeypatch.setenv(name, value)

    def call(action, **parameters):
        with netns.entered("office"):
            try:
                getattr(boto3.session.Session().client("ec2"), action)(**parameters)
            except ClientError as error:
                return error.response["Error"]["Code"]
        return None

    return call


def test_quotas(lab, configured, ec2):
    """Of endpoints, groups, rules and VPCs: what is there stays, the next one is too many."""
    endpoint, web = lab.endpoint("plain"), lab.instance("plain", "web-1")
    (group_id,) = lab.interface(web).group_ids
    vpc_id = lab.serve.world.vpc_of_subnet(endpoint.subnet_id).id
    rule = {"GroupId": group_id, "IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "CidrIp": "192.0.2.1/32"}
    calls = {
        "InstanceConnectEndpointLimitExceeded": ("create_instance_connect_endpoint", {"SubnetId": endpoint.subnet_id}),
        "RulesPerSecurityGroupLimitExceeded": ("authorize_security_group_ingress", rule),
        "SecurityGroupLimitExceeded": (
            "create_security_group",
            {"GroupName": "one-more", "Description": "x", "VpcId": vpc_id},
        ),
        "VpcLimitExceeded": ("create_vpc", {"CidrBlock": "10.77.0.0/16"}),
    }
    configured(endpoints_per_region=2, rules_per_group=1, groups_per_region=1, vpcs_per_region=2)
    for code, (action, parameters) in calls.items():
        assert ec2(action, **parameters) == code
    configured()
    action, parameters = calls["RulesPerSecurityGroupLimitExceeded"]
    assert ec2(action, **parameters) is None
    assert lab.login("plain", "web-1").source == lab.source("plain")
