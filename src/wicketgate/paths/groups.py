"""What one rule and one set of groups allow. Source: EC2 User Guide, security group rules.

Rules only allow. A network interface's policy in a direction is the union of the rules of all its groups.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from wicketgate.model import PROTOCOL_NUMBERS, SecurityGroupRule, World

_ICMP_FAMILY = {1: 4, 58: 6}


def allows(
    rule: SecurityGroupRule, *, protocol: int, port: int, code: int, peer_address: str, peer_groups: frozenset[str]
) -> bool:
    """Whether a rule covers a packet: protocol number, port (ICMP: type), code, and the far end.

    `peer_groups` are the groups of the network interface that really sent or will receive the packet.
    """
    address = ipaddress.ip_address(peer_address)
    if rule.referenced_group_id is not None:
        at_peer = rule.referenced_group_id in peer_groups
    else:
        network = ipaddress.ip_network(rule.cidr_ipv4 or rule.cidr_ipv6 or "", strict=False)
        at_peer = address.version == network.version and address in network
    return at_peer and _covers(rule, protocol, port, code, address.version)


def _covers(rule: SecurityGroupRule, protocol: int, port: int, code: int, version: int) -> bool:
    if rule.ip_protocol == "-1":
        return True
    number = PROTOCOL_NUMBERS.get(rule.ip_protocol) or int(rule.ip_protocol)
    if number != protocol:
        return False
    if number in (6, 17):
        return rule.from_port <= port <= rule.to_port
    if number in _ICMP_FAMILY:
        typed = rule.from_port in (-1, port) and (rule.from_port == -1 or rule.to_port in (-1, code))
        return typed and version == _ICMP_FAMILY[number]
    return True  # other protocols: ports are ignored, "allows traffic on all ports" (EC2 API, IpPermission)


def first_match(
    world: World,
    group_ids: Iterable[str],
    *,
    egress: bool,
    protocol: int,
    port: int,
    code: int,
    peer_address: str,
    peer_groups: frozenset[str],
) -> SecurityGroupRule | None:
    """The first rule of the groups, in order, that allows the packet; None when none does."""
    for group_id in group_ids:
        group = world.group(group_id)
        for rule in group.rules if group else ():
            if rule.is_egress is egress and allows(
                rule,
                protocol=protocol,
                port=port,
                code=code,
                peer_address=peer_address,
                peer_groups=peer_groups,
            ):
                return rule
    return None
