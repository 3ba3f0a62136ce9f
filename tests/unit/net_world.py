"""The World that the tests of network, instance, endpoint and tag actions run in, and how they call."""

import itertools
import tomllib
from pathlib import Path

import botocore.session
import msgspec
import pytest
from botocore.validate import ParamValidator

from wicketgate.control import Call, Caller, operations
from wicketgate.control import endpoints as _endpoints
from wicketgate.control import instances as _instances
from wicketgate.control import network as _network  # noqa: F401  # offers its actions
from wicketgate.control import tags as _tags  # noqa: F401  # offers its actions
from wicketgate.control.security_groups import default_security_group
from wicketgate.model import (
    ApiError,
    Endpoint,
    Instance,
    NetworkInterface,
    SecurityGroup,
    Subnet,
    Vpc,
    World,
    apply_change,
)


def number(digit):
    """Seventeen times the same hex digit: the tests' ids."""
    return digit * 17


VPC, OTHER_VPC = f"vpc-{number('1')}", f"vpc-{number('2')}"
SUBNET, SMALL, OTHER_SUBNET = f"subnet-{number('1')}", f"subnet-{number('2')}", f"subnet-{number('3')}"
DEFAULT, WEB, OTHER_DEFAULT = f"sg-{number('1')}", f"sg-{number('2')}", f"sg-{number('3')}"
RUNNING, STOPPED, PENDING, ENDED = (f"i-{number(digit)}" for digit in "1234")
FREE_ENI, ENDPOINT_ENI = f"eni-{number('8')}", f"eni-{number('9')}"
ENDPOINT = f"eice-{number('1')}"
IMAGE = "ami-00000000000000001"
NOW = 1_800_000_000.0
ROOT = "arn:aws:iam::123456789012:root"

MODEL = botocore.session.get_session().get_service_model("ec2")
GOLDEN = Path(__file__).parent.parent / "golden"


def _default(vpc_id, group_id):
    made = default_security_group(vpc_id, lambda prefix: f"{prefix}-{next(_numbers):017x}")
    return msgspec.structs.replace(made, id=group_id, rules=made.rules[1:])


def _eni(digit, address, subnet=SUBNET, groups=(WEB,), **fields):
    link = f"eni{digit * 12}"
    eni_id = f"eni-{number(digit)}"
    return NetworkInterface(
        id=eni_id, subnet_id=subnet, private_ip_address=address, group_ids=groups, link=link, **fields
    )


_numbers = itertools.count(0xA000)


def small_world():
    """Two VPCs with the same range, the second the default one. In the first: instances in each state at rest, a free
    interface and an endpoint."""
    ended = Instance(
        id=ENDED, interface_id="", state="terminated", terminated_at=NOW - 60, reservation_id=f"r-{number('1')}"
    )
    return World(
        vpcs=(
            Vpc(id=VPC, cidr_block="10.0.0.0/16", tags={"Name": "lab", "Stage": "test"}, terminated_instances=(ended,)),
            Vpc(id=OTHER_VPC, cidr_block="10.0.0.0/16", is_default=True),
        ),
        subnets=(
            Subnet(id=SUBNET, vpc_id=VPC, cidr_block="10.0.1.0/24", availability_zone="us-east-1a", tags={"Tier": "x"}),
            Subnet(id=SMALL, vpc_id=VPC, cidr_block="10.0.2.0/28", availability_zone="us-east-1b"),
            Subnet(id=OTHER_SUBNET, vpc_id=OTHER_VPC, cidr_block="10.0.0.0/24"),
        ),
        groups=(
            _default(VPC, DEFAULT),
            SecurityGroup(id=WEB, vpc_id=VPC, name="web", tags={"Name": "web"}),
            _default(OTHER_VPC, OTHER_DEFAULT),
        ),
        interfaces=(
            _eni("1", "10.0.1.4"),
            _eni("2", "10.0.1.5"),
            _eni("3", "10.0.1.6"),
            _eni("8", "10.0.1.7", delete_on_termination=False),
            _eni(
                "9",
                "10.0.1.8",
                interface_type="ec2_instance_connect_endpoint",
                requester_managed=True,
                tags={"InstanceConnectEndpointId": ENDPOINT},
            ),
        ),
        instances=(
            Instance(
                id=RUNNING,
                interface_id=f"eni-{number('1')}",
                tags={"Name": "web-1"},
                launched_at=NOW - 3600,
                reservation_id=f"r-{number('1')}",
            ),
            Instance(id=STOPPED, interface_id=f"eni-{number('2')}", state="stopped"),
            Instance(id=PENDING, interface_id=f"eni-{number('3')}", state="pending"),
        ),
        endpoints=(
            Endpoint(
                id=ENDPOINT,
                subnet_id=SUBNET,
                interface_id=ENDPOINT_ENI,
                dns_name=f"{ENDPOINT}.0123abcd.ec2-instance-connect-endpoint.us-east-1.wicketgate.test",
                created_at=NOW - 3600,
                tags={"Name": "door"},
            ),
        ),
    )


def call(world, action, **parameters):
    """A call by root; the ids it makes are numbered."""
    return Call(
        world=world,
        action=action,
        parameters=parameters,
        caller=Caller(arn=ROOT, account_id="123456789012"),
        now=NOW,
        request_id="req-1",
        new_id=lambda prefix: f"{prefix}-{next(_numbers):017x}",
    )


def run(world, action, **parameters):
    """The World after the action, and its answer: checked to be what the output shape of botocore allows."""
    return run_with(world, action, {}, **parameters)


def run_with(world, action, settings, **parameters):
    """As `run`, with settings for the action's function, such as quotas."""
    outcome = operations()["ec2", action].run(call(world, action, **parameters), **settings)
    check_shape(action, outcome.answer)
    assert (outcome.change.caller, outcome.change.time) in ((ROOT, NOW), ("", 0.0))
    return (world if outcome.change.empty else apply_change(world, outcome.change)), outcome.answer


def check_shape(action, answer):
    """Refuse an answer that has a member or a type which the action's output shape has not."""
    shape = MODEL.operation_model(action).output_shape
    if shape is None:
        assert answer == {}
        return
    report = ParamValidator().validate(dict(answer), shape)
    assert not report.has_errors(), report.generate_report()
    _check_members(shape, answer, action)


def _check_members(shape, value, place):
    if shape.type_name == "list":
        for one in value:
            _check_members(shape.member, one, place)
    elif shape.type_name == "structure":
        unknown = set(value) - set(shape.members)
        assert not unknown, f"{place}: {sorted(unknown)} not in {shape.name}"
        for name, one in value.items():
            _check_members(shape.members[name], one, f"{place}.{name}")


def asks(world, action, **parameters):
    """What IAM is asked: (action, resource, context) of each question."""
    found = operations()["ec2", action].asks(call(world, action, **parameters))
    return [(one.action, one.resource, dict(one.context)) for one in found]


def settled(world, **how):
    """The World once all transitions have ended."""
    for settle in (_endpoints.settle, _instances.settle):
        change = settle(world, how.pop("now", NOW), **how)
        world = world if change.empty else apply_change(world, change)
    return world


def golden_errors(family):
    """Parametrises a test by the bad calls of this family in tests/golden/errors.toml."""
    errors = tomllib.loads((GOLDEN / "errors.toml").read_text(encoding="utf-8"))[family]
    return pytest.mark.parametrize("error", errors, ids=lambda one: f"{one['action']}: {one['does']}")


def check_refusal(error, world=None):
    """The bad call is refused with the code, words and status that the golden file has."""
    with pytest.raises(ApiError) as caught:
        run(small_world() if world is None else world, error["action"], **error["parameters"])
    expected = (error["code"], error["message"], error.get("status", 400))
    assert (caught.value.code, str(caught.value), caught.value.http_status) == expected
