"""The World that the tests of IPv6, further addresses and further interfaces act in."""

from tests.unit.net_world import ENDPOINT, NOW, number
from wicketgate.control.security_groups import default_security_group
from wicketgate.model import Endpoint, Instance, NetworkInterface, SecurityGroup, Subnet, Vpc, World

VPC, OTHER_VPC = f"vpc-{number('1')}", f"vpc-{number('2')}"
DUAL, NATIVE, FOUR, ELSEWHERE = (f"subnet-{number(digit)}" for digit in "1234")
"""A dual-stack subnet, an IPv6-only one, an IPv4-only one in another zone; one in the other VPC."""
RANGE = "fd12:3456:789a::/56"
SIX = "fd12:3456:789a:1::"
"""What addresses of the dual-stack subnet begin with."""
WEB = f"sg-{number('2')}"
FIRST, FURTHER, ALONE, NATIVE_ENI, OTHER_ENI, FOUR_ENI, FREE, ENDPOINT_ENI = (
    f"eni-{number(digit)}" for digit in "12356789"
)
TWO, ONE = f"i-{number('1')}", f"i-{number('2')}"
"""A running instance with two interfaces, and one with one."""


def _default(vpc_id, digit):
    ids = iter((f"sg-{number(digit)}", f"sgr-{number(digit)}", f"sgr-{digit * 16}0"))
    return default_security_group(vpc_id, lambda prefix: next(ids))


def _eni(eni_id, subnet, address="", six=(), **fields):
    group = f"sg-{number('3')}" if subnet == ELSEWHERE else WEB
    return NetworkInterface(
        id=eni_id,
        subnet_id=subnet,
        private_ip_address=address,
        ipv6_addresses=six,
        group_ids=(group,),
        link=f"eni{eni_id[-12:]}",
        **fields,
    )


def address_world():
    """Two VPCs, the first with IPv6; instances, free interfaces of each kind of subnet, a dual-stack endpoint."""
    free = {"delete_on_termination": False}
    return World(
        vpcs=(
            Vpc(id=VPC, cidr_block="10.0.0.0/16", ipv6_cidr_blocks=(RANGE,)),
            Vpc(id=OTHER_VPC, cidr_block="10.0.0.0/16"),
        ),
        subnets=(
            Subnet(id=DUAL, vpc_id=VPC, cidr_block="10.0.1.0/24", ipv6_cidr_block=f"{SIX}/64"),
            Subnet(id=NATIVE, vpc_id=VPC, ipv6_cidr_block="fd12:3456:789a:2::/64", assign_ipv6_on_creation=True),
            Subnet(id=FOUR, vpc_id=VPC, cidr_block="10.0.3.0/28", availability_zone="us-east-1b"),
            Subnet(id=ELSEWHERE, vpc_id=OTHER_VPC, cidr_block="10.0.0.0/24"),
        ),
        groups=(
            _default(VPC, "1"),
            SecurityGroup(id=WEB, vpc_id=VPC, name="web"),
            _default(OTHER_VPC, "3"),
        ),
        interfaces=(
            _eni(FIRST, DUAL, "10.0.1.4", (f"{SIX}4",), attached_at=NOW - 60),
            _eni(
                FURTHER,
                DUAL,
                "10.0.1.5",
                secondary_ip_addresses=("10.0.1.20",),
                attached_to=TWO,
                device_index=1,
                attached_at=NOW - 50,
                **free,
            ),
            _eni(ALONE, DUAL, "10.0.1.6", attached_at=NOW - 40),
            _eni(NATIVE_ENI, NATIVE, six=("fd12:3456:789a:2::4",), **free),
            _eni(OTHER_ENI, ELSEWHERE, "10.0.0.4", **free),
            _eni(FOUR_ENI, FOUR, "10.0.3.4", **free),
            _eni(FREE, DUAL, "10.0.1.7", **free),
            _eni(
                ENDPOINT_ENI,
                DUAL,
                "10.0.1.8",
                (f"{SIX}5",),
                interface_type="ec2_instance_connect_endpoint",
                requester_managed=True,
                attached_at=NOW - 30,
            ),
        ),
        instances=(Instance(id=TWO, interface_id=FIRST), Instance(id=ONE, interface_id=ALONE)),
        endpoints=(
            Endpoint(
                id=ENDPOINT,
                subnet_id=DUAL,
                interface_id=ENDPOINT_ENI,
                dns_name=f"{ENDPOINT}.0123abcd.ec2-instance-connect-endpoint.us-east-1.wicketgate.test",
                ip_address_type="dualstack",
            ),
        ),
    )
