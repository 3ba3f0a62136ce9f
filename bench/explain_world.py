"""The Worlds that `bench/explain.py` measures: many machines in groups of many rules, and many principals."""

from __future__ import annotations

import ipaddress
import random
from typing import Any

from wicketgate.model import (
    AccessKey,
    Endpoint,
    Instance,
    NetworkInterface,
    Policy,
    SecurityGroup,
    SecurityGroupRule,
    Subnet,
    User,
    Vpc,
    World,
)

RULES = 10
"""Of each group, beside one outbound rule."""
ENDPOINTS = 5
KEY = "ec2-instance-connect:"
PORTS = (22, 22, 22, 3389, 80, 443, 5432)


def hexadecimal(prefix: str, number: int) -> str:
    """An id of AWS's shape."""
    return f"{prefix}-{number:017x}"


def made(interfaces: int, groups: int = 200, principals: int = 100, seed: int = 1) -> World:
    """One VPC of 10.0.0.0/16 with machines of one to three groups each; every second principal has conditions."""
    pick = random.Random(seed)
    vpc, subnet = hexadecimal("vpc", 1), hexadecimal("subnet", 1)
    base = ipaddress.IPv4Address("10.0.0.0")
    enis = [
        NetworkInterface(
            id=hexadecimal("eni", number),
            subnet_id=subnet,
            private_ip_address=str(base + 10 + number),
            group_ids=tuple(hexadecimal("sg", one) for one in sorted(pick.sample(range(groups), pick.randint(1, 3)))),
            link=f"l{number}",
        )
        for number in range(interfaces + ENDPOINTS)
    ]
    world = World(
        vpcs=(Vpc(id=vpc, cidr_block="10.0.0.0/16"),),
        subnets=(Subnet(id=subnet, vpc_id=vpc, cidr_block="10.0.0.0/16"),),
        groups=tuple(
            SecurityGroup(id=hexadecimal("sg", one), vpc_id=vpc, name=f"g{one}", rules=tuple(_rules(pick, one, groups)))
            for one in range(groups)
        ),
        interfaces=tuple(enis),
        instances=tuple(
            Instance(id=hexadecimal("i", number), interface_id=enis[number + ENDPOINTS].id)
            for number in range(interfaces)
        ),
        endpoints=tuple(
            Endpoint(
                id=hexadecimal("eice", number),
                subnet_id=subnet,
                interface_id=enis[number].id,
                dns_name=f"e{number}",
                index=number + 1,
                preserve_client_ip=number % 2 == 1,
                tags={"team": ("red", "blue")[number % 2]},
            )
            for number in range(ENDPOINTS)
        ),
        users=tuple(
            User(name=f"user{number}", id=f"AIDA{number}", policies=(_policy(pick, number),), tags={"team": "red"})
            for number in range(principals)
        ),
        access_keys=tuple(
            AccessKey(id=f"AKIA{number:012}", secret="s", user_name=f"user{number}") for number in range(principals)
        ),
    )
    world.check()
    return world


def _rules(pick: random.Random, group: int, groups: int) -> list[SecurityGroupRule]:
    found = [
        SecurityGroupRule(
            id=hexadecimal("sgr", group << 8),
            is_egress=True,
            ip_protocol="-1",
            cidr_ipv4=pick.choice(["0.0.0.0/0", "10.0.0.0/16"]),
        )
    ]
    for number in range(1, RULES + 1):
        port = pick.choice(PORTS)
        named = pick.random() < 0.5
        source = f"{pick.choice([10, 192, 203])}.{pick.randint(0, 9)}.{pick.randint(0, 9)}.0/24"
        found.append(
            SecurityGroupRule(
                id=hexadecimal("sgr", (group << 8) + number),
                is_egress=False,
                ip_protocol="tcp",
                from_port=port,
                to_port=port,
                cidr_ipv4=None if named else pick.choice([source, "10.0.0.0/16"]),
                referenced_group_id=hexadecimal("sg", pick.randrange(groups)) if named else None,
            )
        )
    return found


def _policy(pick: random.Random, number: int) -> Policy:
    statement: dict[str, Any] = {"Effect": "Allow", "Action": f"{KEY}OpenTunnel", "Resource": "*"}
    conditions: list[dict[str, Any]] = [
        {},
        {"NumericEquals": {f"{KEY}remotePort": "22"}},
        {"IpAddress": {"aws:SourceIp": f"203.0.{number}.0/24"}},
        {"IpAddress": {f"{KEY}privateIpAddress": f"10.0.{pick.randrange(4)}.0/24"}},
        {"NumericLessThanEquals": {f"{KEY}maxTunnelDuration": "900"}},
        {"StringEquals": {"aws:ResourceTag/team": "${aws:PrincipalTag/team}"}},
    ]
    condition = {**conditions[number % 6], **conditions[pick.randrange(5)]}
    denied = {
        "Effect": "Deny",
        "Action": "*",
        "Resource": "*",
        "Condition": {"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}},
    }
    statements = [{**statement, "Condition": condition}, denied]
    return Policy(name=f"p{number}", document={"Version": "2012-10-17", "Statement": statements})
