"""The World that the tests of peering, route tables and references across peerings run in.

A 10.0.0.0/16 ──1 active── B 10.1.0.0/16      7 B ─> A pends beside it
A ──2 pends──> D 10.4.0.0/16                  3 B ─> D rejected
A ──4 failed── C 10.0.0.0/16                  5 D ─> B deleted
"""

from tests.unit.net_world import NOW, number
from wicketgate.control import group_references as _references  # noqa: F401  # offers its actions
from wicketgate.control import routes as _routes  # noqa: F401  # offers its actions
from wicketgate.control import security_group_rules as _rules  # noqa: F401  # offers its actions
from wicketgate.model import (
    Route,
    RouteTable,
    SecurityGroup,
    SecurityGroupRule,
    Subnet,
    Vpc,
    VpcPeeringConnection,
    World,
)

A, B, C, D = (f"vpc-{number(digit)}" for digit in "1234")
SUBNET_A, SUBNET_A2, SUBNET_B = (f"subnet-{number(digit)}" for digit in "123")
GROUP_A, GROUP_B, GROUP_D = (f"sg-{number(digit)}" for digit in "124")
ACTIVE, PENDING, REJECTED, FAILED, DELETED, BACK = (f"pcx-{number(digit)}" for digit in "123457")
TABLE_A, EMPTY_A, TABLE_B = (f"rtb-{number(digit)}" for digit in "123")
MAIN_A, MAIN_B = "rtb-1435face87471ed02", "rtb-62ecbcb36f902f3b0"
MAIN_ASSOCIATION_A, ASSOCIATION_A2 = "rtbassoc-57772906f9c5f9c4f", "rtbassoc-a4888debe9a09467d"
OUT, IN = f"sgr-{number('1')}", f"sgr-{number('2')}"
ACCOUNT = "123456789012"


def _peering(peering_id, requester, accepter, *, status, message, ended_at=0.0):
    return VpcPeeringConnection(
        id=peering_id,
        requester_vpc_id=requester,
        accepter_vpc_id=accepter,
        link=f"pcx{peering_id[-12:]}",
        status=status,
        status_message=message,
        created_at=NOW - 3600,
        ended_at=ended_at,
    )


def _reference(rule_id, **fields):
    return SecurityGroupRule(
        **{
            "id": rule_id,
            "is_egress": False,
            "ip_protocol": "tcp",
            "from_port": 22,
            "to_port": 22,
            "peering_id": ACTIVE,
            **fields,
        }
    )


def small_world():
    """As drawn above. Groups of A and B refer to each other; a subnet of A has a table with a route to B."""
    failed = "Failed due to incorrect VPC-ID, Account ID, or overlapping CIDR range"
    return World(
        vpcs=(
            Vpc(id=A, cidr_block="10.0.0.0/16", ipv6_cidr_blocks=("2001:db8:a::/56",)),
            Vpc(id=B, cidr_block="10.1.0.0/16"),
            Vpc(id=C, cidr_block="10.0.0.0/16"),
            Vpc(id=D, cidr_block="10.4.0.0/16", tags={"Stage": "test"}),
        ),
        subnets=(
            Subnet(id=SUBNET_A, vpc_id=A, cidr_block="10.0.1.0/24"),
            Subnet(id=SUBNET_A2, vpc_id=A, cidr_block="10.0.2.0/24"),
            Subnet(id=SUBNET_B, vpc_id=B, cidr_block="10.1.1.0/24"),
        ),
        groups=(
            SecurityGroup(
                id=GROUP_A,
                vpc_id=A,
                name="a",
                rules=(_reference(OUT, is_egress=True, referenced_group_id=GROUP_B, referenced_vpc_id=B),),
            ),
            SecurityGroup(
                id=GROUP_B,
                vpc_id=B,
                name="b",
                description="of B",
                rules=(_reference(IN, referenced_group_id=GROUP_A, referenced_vpc_id=A, description="from A"),),
            ),
            SecurityGroup(id=GROUP_D, vpc_id=D, name="d"),
        ),
        peerings=(
            _peering(ACTIVE, A, B, status="active", message="Active"),
            _peering(PENDING, A, D, status="pending-acceptance", message=f"Pending Acceptance by {ACCOUNT}"),
            _peering(REJECTED, B, D, status="rejected", message=f"Rejected by {ACCOUNT}", ended_at=NOW - 60),
            _peering(FAILED, A, C, status="failed", message=failed, ended_at=NOW - 3600),
            _peering(DELETED, D, B, status="deleted", message=f"Deleted by {ACCOUNT}", ended_at=NOW - 60),
            _peering(BACK, B, A, status="pending-acceptance", message=f"Pending Acceptance by {ACCOUNT}"),
        ),
        route_tables=(
            RouteTable(
                id=TABLE_A,
                vpc_id=A,
                subnet_ids=(SUBNET_A2,),
                routes=(Route(destination="10.1.0.0/16", peering_id=ACTIVE),),
            ),
            RouteTable(id=EMPTY_A, vpc_id=A),
            RouteTable(id=TABLE_B, vpc_id=B),
        ),
    )
