"""What a lint finding is, and the kinds there are. `docs/lint.md` has a section for each kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from wicketgate.control.common import AWS_QUOTAS, Quotas
from wicketgate.control.endpoints import EndpointQuotas
from wicketgate.explain.answer import Say
from wicketgate.model import Change, SecurityGroup, SecurityGroupRule

SCHEMA: Final = 1
"""Version of the JSON form. A field may be added under the same number; none goes or changes its meaning."""

Severity = Literal["note", "warning", "error"]
SEVERITIES: Final[tuple[Severity, ...]] = ("note", "warning", "error")
"""From the least on, by SARIF's names (SARIF 2.1.0, 3.27.10)."""

Effect = Literal["keeps", "narrows", "opens"]
"""What a fix does to flows: all pass as before; some no longer pass, which is its point; more pass than before."""

PAGE: Final = "docs/lint.md"


class Kind(msgspec.Struct, frozen=True):
    """A kind of finding."""

    id: str
    name: str
    severity: Severity

    @property
    def page(self) -> str:
        """Where it is documented."""
        return f"{PAGE}#{self.id.lower()}"


KINDS: Final[Mapping[str, Kind]] = {
    kind.id: kind
    for kind in (
        Kind("WG001", "open-high-risk-port", "error"),
        Kind("WG002", "open-to-all-traffic", "error"),
        Kind("WG003", "open-in-pieces", "warning"),
        Kind("WG004", "stale-reference", "warning"),
        Kind("WG005", "reference-without-members", "note"),
        Kind("WG006", "rule-never-matches", "warning"),
        Kind("WG007", "redundant-rule", "warning"),
        Kind("WG008", "shadowed-rule", "note"),
        Kind("WG009", "unused-rule", "note"),
        Kind("WG010", "untracked-by-accident", "note"),
        Kind("WG011", "idle-group", "note"),
        Kind("WG020", "endpoint-inbound-rule", "warning"),
        Kind("WG021", "endpoint-reaches-nothing", "warning"),
        Kind("WG022", "interface-unreached", "note"),
        Kind("WG023", "breaks-with-preservation", "note"),
        Kind("WG024", "breaks-without-preservation", "note"),
        Kind("WG025", "client-range-unseen", "warning"),
        Kind("WG030", "duration-capped", "warning"),
        Kind("WG031", "endpoint-missing", "warning"),
        Kind("WG032", "address-missing", "warning"),
        Kind("WG033", "port-not-offered", "warning"),
        Kind("WG034", "policy-unreadable", "error"),
        Kind("WG040", "rules-per-group-quota", "warning"),
        Kind("WG041", "rules-per-interface-quota", "warning"),
        Kind("WG042", "groups-per-interface-quota", "note"),
        Kind("WG043", "endpoints-quota", "warning"),
        Kind("WG044", "tunnels-limit", "warning"),
        Kind("WG045", "prefix-list-oversized", "note"),
    )
}
"""Id -> kind. An id keeps its meaning for good."""


class Fix(msgspec.Struct, frozen=True, kw_only=True):
    """What mends a finding."""

    commands: tuple[tuple[str, ...], ...]
    """Each a command line, word by word, in the order in which no flow that is to stay is cut."""
    change: Change
    """The same for trying it on a World. New rules have no ids of their own yet."""
    effect: Effect = "keeps"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not as it should be."""

    kind: str
    """Key of KINDS."""
    resource: str
    """Id of what it is about: a rule's, a group's, an endpoint's, `user/NAME`, ..."""
    say: Say
    within: str = ""
    """Id of what it is part of: the rule's group."""
    fix: Fix | None = None

    @property
    def severity(self) -> Severity:
        """That of its kind."""
        return KINDS[self.kind].severity


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known beside the World."""

    quotas: Quotas = AWS_QUOTAS
    endpoint_quotas: EndpointQuotas = EndpointQuotas()
    connections: Mapping[str, int] | None = None
    """Rule id -> connections that it let through, by netd's counters; None when they were not asked."""
    since: str = ""
    """When counting began."""
    tunnels: Mapping[str, int] | None = None
    """Endpoint id -> tunnels open; None when that was not asked."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was found, and what was not looked at."""

    findings: tuple[Finding, ...]
    unknown: tuple[Say, ...] = ()
    """What could not be looked at for want of facts."""
    revision: int = 0

    def at_least(self, severity: Severity) -> bool:
        """Whether there is a finding as grave as this."""
        least = SEVERITIES.index(severity)
        return any(SEVERITIES.index(one.severity) >= least for one in self.findings)


NEW_RULE: Final = "sgr-00000000000000000"
"""Id of a rule that is only thought of."""


def revoked(group: SecurityGroup, *rules: SecurityGroupRule) -> Fix:
    """Take rules out of a group."""
    commands = []
    for egress in (False, True):
        ids = [rule.id for rule in rules if rule.is_egress is egress]
        if ids:
            verb = f"revoke-security-group-{'egress' if egress else 'ingress'}"
            which = ("--group-id", group.id, "--security-group-rule-ids", *ids)
            commands.append(("aws", "ec2", verb, *which))
    rest = tuple(rule for rule in group.rules if rule not in rules)
    return Fix(commands=tuple(commands), change=Change(puts=(msgspec.structs.replace(group, rules=rest),)))


def authorize(group: SecurityGroup, rule: SecurityGroupRule) -> tuple[str, ...]:
    """The command that adds a rule of a range or a group reference to a group."""
    if rule.referenced_group_id is not None:
        peer = f"UserIdGroupPairs=[{{GroupId={rule.referenced_group_id}}}]"
    elif rule.cidr_ipv6 is not None:
        peer = f"Ipv6Ranges=[{{CidrIpv6={rule.cidr_ipv6}}}]"
    else:
        peer = f"IpRanges=[{{CidrIp={rule.cidr_ipv4}}}]"
    ports = "" if rule.ip_protocol == "-1" else f"FromPort={rule.from_port},ToPort={rule.to_port},"
    verb = f"authorize-security-group-{'egress' if rule.is_egress else 'ingress'}"
    permission = f"IpProtocol={rule.ip_protocol},{ports}{peer}"
    return "aws", "ec2", verb, "--group-id", group.id, "--ip-permissions", permission
