"""`wicketgate rules`: the security groups that this host enforces, their members, and what their rules let through."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from wicketgate.model import NetworkInterface, SecurityGroup, SecurityGroupRule, World
    from wicketgate.netd.asking import Answer
    from wicketgate.netd.counters import Tally, Totals

_HEADINGS: Final = ("RULE", "DIRECTION", "PROTOCOL", "PORTS", "PEER", "DESCRIPTION")
_COUNTED: Final = ("CONNECTIONS", "PACKETS", "BYTES", "LIVE", "PACKETS", "BYTES")
_MEANING: Final = """\
CONNECTIONS began since {since}. Each counts for every rule that covers its first packet, at
both of its ends, so one connection may stand in many lines. PACKETS and BYTES are of both directions, with IP headers,
by the kernel's accounting: first those of connections that have ended, then, after LIVE, those of the ones that stand.
Not counted: what began while netd was not running, and {lost} beginnings or ends that came too fast to be read.
Without a rule, and so in no line: {elsewhere} connections to the VPC router itself (instance metadata) or passed on for
somebody else. {uncredited} connections ended whose beginning is not known; what they carried is in no line.
"""


@click.command()
@click.option("--counters", is_flag=True, help="Also what each rule let through.")
@click.option("--group", "group_id", metavar="ID", help="Only this security group, by id or name.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--directory", type=click.Path(file_okay=False, path_type=Path), help="The state directory.")
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="The settings file that names it.")
def command(counters: bool, group_id: str | None, as_json: bool, directory: Path | None, config: Path | None) -> int:
    """Show the security groups in force on this host: members and rules. Run it as root, where wicketgate serves."""
    answer = asked(directory or configured(config))
    if counters and answer.totals is None:
        raise click.ClickException("nothing is counted: the setting rule_counters is false")
    totals = answer.totals if counters else None
    groups = [one for one in answer.world.groups if group_id in (None, one.id, one.name)]
    if group_id is not None and not groups:
        raise click.ClickException(f"there is no security group {group_id} in revision {answer.world.revision}")
    shown = _as_json(answer.world, groups, totals) if as_json else _as_text(answer.world, groups, totals)
    try:
        sys.stdout.writelines(f"{_printable(line)}\n" for text in shown for line in text.split("\n"))
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _printable(line: str) -> str:
    """A line whose names, which anybody may have chosen, do nothing to a terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in line)


def configured(config: Path | None) -> Path:
    """The state directory that a settings file names. Raises ClickException."""
    from wicketgate.configuration import ConfigurationError, load

    try:
        return Path(load(file=config, environment=os.environ).state_directory)
    except ConfigurationError as error:
        raise click.ClickException(str(error)) from error


def asked(directory: Path) -> Answer:
    """What the netd with this state directory enforces and counted. Raises ClickException."""
    from wicketgate.model import FabricError
    from wicketgate.netd.asking import ask

    try:
        return ask(directory / "netd")
    except PermissionError as error:
        raise click.ClickException(f"{directory / 'netd'} is for root alone: try it with sudo") from error
    except FabricError as error:
        raise click.ClickException(f"{error}: is wicketgate serving with this state directory?") from error


# -- plain text --------------------------------------------------------------------------------------------------------


def _as_text(world: World, groups: Iterable[SecurityGroup], totals: Totals | None) -> Iterator[str]:
    for group in groups:
        yield f"{group.id} {group.name} ({group.vpc_id})"
        members = world.members(group.id)
        yield f"  {len(members)} member{'' if len(members) == 1 else 's'}"
        for eni in members:
            yield f"    {eni.id}  {', '.join(eni.addresses)}  {_owner(world, eni)}"
        rows = [_row(world, group, rule) for rule in group.rules]
        if totals is not None:
            counted = [_counted(totals.rules.get(rule.id)) for rule in group.rules]
            rows = [[*row[:-1], *numbers, row[-1]] for row, numbers in zip(rows, counted, strict=True)]
        headings = [*_HEADINGS[:-1], *(_COUNTED if totals is not None else ()), _HEADINGS[-1]]
        yield from _table([headings, *rows]) if rows else ["  no rules: nothing passes"]
        yield ""
    if totals is not None:
        since = datetime.fromtimestamp(totals.since, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        yield _MEANING.format(
            since=since, lost=totals.lost_events, elsewhere=totals.elsewhere, uncredited=totals.uncredited
        )
    yield f"Revision {world.revision}."


def _table(rows: list[list[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = {index for index, heading in enumerate(rows[0]) if heading in _COUNTED}
    for row in rows:
        cells = [
            text.rjust(width) if index in right else text.ljust(width)
            for index, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield f"  {'  '.join(cells)}".rstrip()


def _row(world: World, group: SecurityGroup, rule: SecurityGroupRule) -> list[str]:
    direction = "outbound" if rule.is_egress else "inbound"
    protocol = "all" if rule.ip_protocol == "-1" else rule.ip_protocol
    return [rule.id, direction, protocol, _ports(rule), _peer(world, group, rule), rule.description]


def _ports(rule: SecurityGroupRule) -> str:
    if rule.ip_protocol in ("tcp", "udp"):
        return str(rule.from_port) if rule.from_port == rule.to_port else f"{rule.from_port}-{rule.to_port}"
    if rule.ip_protocol in ("icmp", "icmpv6") and rule.from_port != -1:
        return f"type {rule.from_port}" + (f" code {rule.to_port}" if rule.to_port != -1 else "")
    return "all"


def _peer(world: World, group: SecurityGroup, rule: SecurityGroupRule) -> str:
    """The peer, with its name where it has one, and whether it stands for nobody."""
    if rule.referenced_group_id is not None:
        other = world.referenced_group(group, rule)
        return f"{rule.peer} ({other.name if other is not None else 'stale: allows nothing'})"
    if rule.prefix_list_id is not None:
        found = world.prefix_list(rule.prefix_list_id)
        return f"{rule.peer} ({found.name}, {len(found.entries)} entries)" if found is not None else rule.peer
    return rule.peer


def _counted(tally: Tally | None) -> list[str]:
    if tally is None:
        return ["0"] * len(_COUNTED)
    ended = (tally.connections, tally.packets, tally.octets)
    return [str(number) for number in (*ended, tally.live, tally.live_packets, tally.live_octets)]


def _owner(world: World, eni: NetworkInterface) -> str:
    endpoint, instance = world.endpoint_of_interface(eni.id), world.instance_of_interface(eni.id)
    if endpoint is not None:
        return endpoint.id
    if instance is None:
        return "attached to nothing"
    name = instance.name or instance.tags.get("Name", "")
    return f"{instance.id} {name}".rstrip()


# -- JSON --------------------------------------------------------------------------------------------------------------


def _as_json(world: World, groups: Iterable[SecurityGroup], totals: Totals | None) -> Iterator[str]:
    shown: dict[str, Any] = {
        "revision": world.revision,
        "groups": [_group(world, group, totals) for group in groups],
    }
    if totals is not None:
        shown["counters"] = {
            "since": totals.since,
            "lostEvents": totals.lost_events,
            "withoutRule": totals.elsewhere,
            "uncredited": totals.uncredited,
        }
    yield json.dumps(shown, indent=2)


def _group(world: World, group: SecurityGroup, totals: Totals | None) -> dict[str, Any]:
    return {
        "groupId": group.id,
        "groupName": group.name,
        "vpcId": group.vpc_id,
        "members": [
            {"networkInterfaceId": eni.id, "addresses": eni.addresses, "owner": _owner(world, eni)}
            for eni in world.members(group.id)
        ],
        "rules": [_rule(world, group, rule, totals) for rule in group.rules],
    }


def _rule(world: World, group: SecurityGroup, rule: SecurityGroupRule, totals: Totals | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "securityGroupRuleId": rule.id,
        "isEgress": rule.is_egress,
        "ipProtocol": rule.ip_protocol,
        "fromPort": rule.from_port,
        "toPort": rule.to_port,
        "peer": rule.peer,
        "description": rule.description,
    }
    if rule.referenced_group_id is not None:
        found["stale"] = world.referenced_group(group, rule) is None
    if totals is not None:
        names = ("connections", "packets", "bytes", "live", "livePackets", "liveBytes")
        found["counters"] = dict(zip(names, map(int, _counted(totals.rules.get(rule.id))), strict=True))
    return found
