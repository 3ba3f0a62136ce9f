"""`wicketgate audit`: who did what, from the audit files of a deployment."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import click

_ago = re.compile(r"([0-9]{1,9})([smhdw])").fullmatch
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_NOT_PERMITTED = "its files are readable by wicketgate's own users and by root; try it with sudo"

Event = dict[str, Any]


@click.command()
@click.option("--directory", type=click.Path(file_okay=False, path_type=Path), help="The audit directory.")
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="The settings file that names it.")
@click.option("--principal", metavar="WHO", help="A user's or session's name, an ARN, or an access key's id.")
@click.option("--resource", metavar="ID", help="An id, name or ARN anywhere in parameters and resources.")
@click.option("--event", "event_name", metavar="NAME", help="The action: OpenTunnel, CreateSecurityGroup, ...")
@click.option("--since", metavar="TIME", help="ISO 8601 (UTC if it does not say), or how long ago: 10m, 2h, 1d.")
@click.option("--until", metavar="TIME", help="The same.")
@click.option("--errors", is_flag=True, help="Only what was refused or failed.")
@click.option("--follow", is_flag=True, help="Go on with what happens; without --since only that.")
@click.option("--json", "as_json", is_flag=True, help="Whole events, one line each.")
def command(  # noqa: PLR0917  # one parameter per option
    directory: Path | None,
    config: Path | None,
    principal: str | None,
    resource: str | None,
    event_name: str | None,
    since: str | None,
    until: str | None,
    errors: bool,
    follow: bool,
    as_json: bool,
) -> int:
    """Show the audit trail, the oldest event first: API calls, tunnels opened and ended, refused or not."""
    now = time.time()
    bounds = (moment_of("--since", since, now), moment_of("--until", until, now))
    if follow and until:
        raise click.UsageError("--follow and --until exclude each other")
    match = _matcher(principal, resource, event_name, errors)
    show = _whole if as_json else _line
    from wicketgate.audit import AuditError

    try:
        for event in _events(directory or _configured(config), bounds, match, follow):
            sys.stdout.write(f"{show(event)}\n")
            if follow:
                sys.stdout.flush()
        sys.stdout.flush()
    except AuditError as error:
        denied = isinstance(error.__cause__, PermissionError)
        raise click.ClickException(f"{error}: {_NOT_PERMITTED}" if denied else str(error)) from error
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _configured(config: Path | None) -> Path:
    from wicketgate.configuration import ConfigurationError, load

    try:
        return Path(load(file=config, environment=os.environ).state_directory) / "audit"
    except ConfigurationError as error:
        raise click.ClickException(str(error)) from error


def _events(
    directory: Path, bounds: tuple[float | None, float | None], match: Callable[[Event], bool], follow: bool
) -> Iterator[Event]:
    from wicketgate.audit import reading

    sizes = reading.sizes_of(reading.audit_files(directory))
    since, until = bounds
    if not follow or since is not None:
        yield from reading.events(sizes, since=since, until=until, match=match, sizes=sizes)
    if follow:
        yield from reading.follow(directory, sizes, match=match)


# -- choosing ----------------------------------------------------------------------------------------------------------


def moment_of(option: str, text: str | None, now: float) -> float | None:
    """Seconds since the epoch of a time as people write it; raises BadParameter."""
    if text is None:
        return None
    if (ago := _ago(text)) is not None:
        return now - int(ago[1]) * _UNITS[ago[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        expected = "2026-01-31, 2026-01-31T23:59:59Z, or 10m, 2h, 1d ago"
        raise click.BadParameter(f"{text!r} is no time: expected {expected}", param_hint=option) from None
    if moment.tzinfo is None:
        moment = datetime.fromisoformat(f"{moment.isoformat()}+00:00")
    return moment.timestamp()


def _matcher(
    principal: str | None, resource: str | None, event_name: str | None, errors: bool
) -> Callable[[Event], bool]:
    from wicketgate.audit.reading import text_in

    def match(event: Event) -> bool:
        if event_name and str(event.get("eventName", "")).lower() != event_name.lower():
            return False
        if errors and not event.get("errorCode"):
            return False
        if principal and not text_in(_names(event), principal):
            return False
        places = [event.get(name) for name in ("resources", "requestParameters", "responseElements")]
        return not resource or text_in(places, resource)

    return match


def _names(event: Event) -> list[Any]:
    """What a caller may be asked for by."""
    identity = event.get("userIdentity") or {}
    issuer = (identity.get("sessionContext") or {}).get("sessionIssuer") or {}
    names = [identity.get(name) for name in ("arn", "userName", "accessKeyId", "principalId")]
    root = ["root"] if identity.get("type") == "Root" else []
    return [*names, *root, issuer.get("arn"), issuer.get("userName")]


# -- showing -----------------------------------------------------------------------------------------------------------


def _whole(event: Event) -> str:
    return json.dumps(event, separators=(",", ":"))


def _line(event: Event) -> str:
    """`2026-01-31T23:59:59Z alice CreateVpc vpc-1 from 192.0.2.1: ok`, whatever a caller wrote in it made printable."""
    parts = [event.get("eventTime"), _who(event), event.get("eventName"), *_what(event)]
    text = " ".join(str(part) for part in parts if part)
    where = f" from {event['sourceIPAddress']}" if event.get("sourceIPAddress") else ""
    shown = f"{text}{where}: {_how(event)}"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in shown)


def _who(event: Event) -> str:
    identity = event.get("userIdentity") or {}
    if identity.get("type") == "Root":
        return "root"
    if identity.get("type") == "AssumedRole":
        return str(identity.get("arn", "")).partition(":assumed-role/")[2] or "(a role)"
    return str(identity.get("userName") or f"(unproven {identity.get('accessKeyId', 'caller')})")


def _what(event: Event) -> list[str]:
    """The resources' names, and a tunnel's target."""
    names = [str(one.get("ARN", "")).rpartition("/")[2] for one in event.get("resources") or []]
    asked = event.get("requestParameters") or {}
    if event.get("eventName") in ("OpenTunnel", "CloseTunnel") and asked.get("privateIpAddress"):
        names.append(f"to {asked['privateIpAddress']}:{asked.get('remotePort', '')}")
    return names


def _how(event: Event) -> str:
    if event.get("errorCode"):
        return f"{event['errorCode']}: {event.get('errorMessage', '')}"
    details = event.get("serviceEventDetails")
    return _ended(details) if isinstance(details, Mapping) else "ok"


def _ended(details: Mapping[str, Any]) -> str:
    """How a tunnel ended. None stands for what nobody knows."""
    counted = [
        f"{details[name]} {words}"
        for name, words in (
            ("bytesFromClient", "bytes from client"),
            ("bytesToClient", "bytes to client"),
            ("durationSeconds", "s"),
        )
        if details.get(name) is not None
    ]
    code = details.get("closeCode")
    reason = details.get("closeReason")
    ended = " ".join(str(part) for part in ("ended", code, f"({reason})" if reason else "") if part)
    return ", ".join([ended, *counted])
