"""The World that the tests of security group actions run in, and how they call."""

import itertools
import json

import botocore.session
from botocore.validate import ParamValidator

from wicketgate.control import Call, Caller, operations
from wicketgate.control import group_references as _references  # noqa: F401  # offers its actions
from wicketgate.control import security_group_rules as _rules  # noqa: F401  # offers its actions
from wicketgate.model import (
    Endpoint,
    NetworkInterface,
    SecurityGroup,
    SecurityGroupRule,
    Subnet,
    Vpc,
    World,
    apply_change,
)
from wicketgate.model.resources import EndpointSettings

VPC, OTHER_VPC = "vpc-11111111111111111", "vpc-22222222222222222"
DEFAULT, WEB = "sg-10000000000000000", "sg-11111111111111111"
APP, DB, NEXT = "sg-22222222222222221", "sg-22222222222222222", "sg-22222222222222223"
SSH_RULE = "sgr-11111111111111111"

MODEL = botocore.session.get_session().get_service_model("ec2")


def _rule(number, **fields):
    return SecurityGroupRule(**{"id": f"sgr-{number}", "is_egress": False, "ip_protocol": "-1", **fields})


def small_world():
    """Two VPCs, the first the default one; an interface carries `web`, an endpoint in the other is to get `next`."""
    return World(
        vpcs=(
            Vpc(id=VPC, cidr_block="172.31.0.0/16", is_default=True, tags={"Stage": "prod"}),
            Vpc(id=OTHER_VPC, cidr_block="10.0.0.0/16"),
        ),
        subnets=(
            Subnet(id="subnet-1", vpc_id=VPC, cidr_block="172.31.1.0/24"),
            Subnet(id="subnet-2", vpc_id=OTHER_VPC, cidr_block="10.0.1.0/24"),
        ),
        groups=(
            SecurityGroup(id=DEFAULT, vpc_id=VPC, name="default", description="default VPC security group"),
            SecurityGroup(
                id=WEB,
                vpc_id=VPC,
                name="web",
                description="front",
                rules=(
                    _rule("11111111111111111", ip_protocol="tcp", from_port=22, to_port=22, cidr_ipv4="0.0.0.0/0"),
                    _rule("11111111111111112", cidr_ipv6="2001:db8::/32", description="six", tags={"Kind": "v6"}),
                    _rule("11111111111111113", ip_protocol="50", cidr_ipv4="10.0.0.0/8"),
                    _rule("1111111111111111e", is_egress=True, cidr_ipv4="0.0.0.0/0"),
                ),
                tags={"Name": "web", "Team": "a"},
            ),
            SecurityGroup(
                id=APP,
                vpc_id=OTHER_VPC,
                name="app",
                rules=(
                    _rule("22222222222222221", ip_protocol="tcp", from_port=443, to_port=443, referenced_group_id=DB),
                    _rule("22222222222222222", ip_protocol="icmp", from_port=8, cidr_ipv4="10.0.0.0/8"),
                    _rule("2222222222222222e", is_egress=True, cidr_ipv4="0.0.0.0/0"),
                ),
            ),
            SecurityGroup(id=DB, vpc_id=OTHER_VPC, name="db"),
            SecurityGroup(id=NEXT, vpc_id=OTHER_VPC, name="next"),
        ),
        interfaces=(
            NetworkInterface(
                id="eni-1", subnet_id="subnet-1", private_ip_address="172.31.1.10", group_ids=(WEB,), link="a"
            ),
            NetworkInterface(
                id="eni-2", subnet_id="subnet-2", private_ip_address="10.0.1.10", group_ids=(APP,), link="b"
            ),
        ),
        endpoints=(
            Endpoint(
                id="eice-1",
                subnet_id="subnet-2",
                interface_id="eni-2",
                dns_name="e.example",
                state="update-in-progress",
                pending=EndpointSettings(group_ids=(NEXT,)),
            ),
        ),
    )


_numbers = itertools.count(0xA000)  # far from what tests number by hand: one id would be two rules


def call(world, action, **parameters):
    """A call by root; the ids it makes are numbered."""
    return Call(
        world=world,
        action=action,
        parameters=parameters,
        caller=Caller(arn="arn:aws:iam::123456789012:root", account_id="123456789012"),
        now=1.0,
        request_id="req-1",
        new_id=lambda prefix: f"{prefix}-{next(_numbers):017x}",
    )


def run(world, action, **parameters):
    """The World after the action, and its answer: checked to be JSON data that the output shape of botocore allows."""
    return run_with(world, action, {}, **parameters)


def run_with(world, action, settings, **parameters):
    """As `run`, with settings for the action's function, such as quotas."""
    outcome = operations()["ec2", action].run(call(world, action, **parameters), **settings)
    report = ParamValidator().validate(dict(outcome.answer), MODEL.operation_model(action).output_shape)
    assert not report.has_errors(), report.generate_report()
    json.dumps(outcome.answer)
    return (world if outcome.change.empty else apply_change(world, outcome.change)), outcome.answer


def asks(world, action, **parameters):
    """What IAM is asked: (action, resource, context) of each question."""
    found = operations()["ec2", action].asks(call(world, action, **parameters))
    return [(one.action, one.resource, dict(one.context)) for one in found]
