"""`wicketgate reach`: who reaches what by tunnels, exactly; what instances reach a machine; and what a change shifts.

Asked of a running deployment by its API, or of a World in a file. Exit code 0: somebody reaches something, or nothing
shifts; 1: nobody does, or something shifts; 2: that cannot be told, and what is missing.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from wicketgate.cli.audit import moment_of
from wicketgate.client.errors import printable

if TYPE_CHECKING:
    from wicketgate.client.explaining import Deployment

CANNOT_TELL = 2
_OPTIONS: Final = {
    "Principal": "--principal",
    "SourceIp": "--from",
    "Target": "--to",
    "EndpointId": "--endpoint",
    "Time": "--at",
    "Plan": "--with",
}
"""What the API calls the parts of a question, and what they are called here."""
_FIELDS: Final = {
    "Principal": "principal",
    "SourceRange": "source",
    "EndpointId": "endpoint_id",
    "Target": "target",
    "Port": "port",
}
"""The API's parameters, and the fields of a `Wish`."""
_file = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.option("--principal", metavar="WHO", help="Only what this user, role/NAME, root, ARN or key's owner reaches.")
@click.option("--from", "source", metavar="RANGE", help="Only from clients of this address or range.")
@click.option("--endpoint", metavar="ID", help="Only by this endpoint.")
@click.option("--to", "target", metavar="TARGET", help="Only this instance or network interface, or private address.")
@click.option("--port", type=click.IntRange(1, 65535), help="Only this TCP port.")
@click.option("--at", metavar="TIME", help="When: ISO 8601, or 10m, 2h, 1d ago. The answer is about the state of then.")
@click.option("--all-traffic", is_flag=True, help="What instances reach --to, of its VPC and of peered ones.")
@click.option("--world", type=_file, metavar="FILE", help="Ask a World in a file.")
@click.option("--diff", "later", metavar="TIME", help="What differs at this time; with --world: in this other FILE.")
@click.option("--with", "plan", type=_file, metavar="FILE", help="What the API calls in this file would shift.")
@click.option("--svg", type=_file, metavar="FILE", help="Draw the matrix.")
@click.option("--html", type=_file, metavar="FILE", help="Write the matrix as a page.")
@click.option("--json", "as_json", is_flag=True, help="The answer as JSON (docs/reach.md).")
@click.option("--profile", help="A profile of the AWS credentials and config files.")
@click.option("--region", help="The region to sign for.")
@click.option("--ca-bundle", metavar="FILE", help="Trust the certificates in FILE and no others.")
@click.option("--endpoint-url", metavar="URL", help="Where the APIs are.")
def command(  # noqa: PLR0917  # one parameter per option
    principal: str | None,
    source: str | None,
    endpoint: str | None,
    target: str | None,
    port: int | None,
    at: str | None,
    all_traffic: bool,
    world: Path | None,
    later: str | None,
    plan: Path | None,
    svg: Path | None,
    html: Path | None,
    as_json: bool,
    profile: str | None,
    region: str | None,
    ca_bundle: str | None,
    endpoint_url: str | None,
) -> int:
    """Say who reaches what: principals, endpoints, targets, ports and clients' addresses, as exact sets."""
    kinds = [name for name, given in (("--all-traffic", all_traffic), ("--diff", later), ("--with", plan)) if given]
    if len(kinds) > 1:
        raise click.UsageError(f"{' and '.join(kinds)} exclude each other")
    if kinds and (svg or html):
        raise click.UsageError(f"--svg and --html draw the matrix: they exclude {kinds[0]}")
    if all_traffic and any((principal, source, endpoint, port)):
        raise click.UsageError("--all-traffic is about instances: of the other options it takes --to")
    asked = {
        "Principal": principal,
        "SourceRange": source,
        "EndpointId": endpoint,
        "Target": target,
        "Port": port,
        "Time": moment_of("--at", at, time.time()),
    }
    asked = {name: value for name, value in asked.items() if value is not None}
    from wicketgate.client.errors import ClientError

    try:
        if world is not None:
            data = _of_files(world, asked, later, plan, all_traffic)
        else:
            from wicketgate.client.explaining import Deployment

            deployment = Deployment.resolve(
                os.environ, profile=profile, region=region, ca_bundle=ca_bundle, endpoint_url=endpoint_url
            )
            data = _of_deployment(deployment, asked, later, plan, all_traffic)
    except _Missing as missing:
        return _tell_missing(missing, as_json)
    except ClientError as error:
        if getattr(error, "code", "") == "UnanswerableException":
            place, _, words = getattr(error, "message", "").partition(": ")
            return _tell_missing(_Missing(_OPTIONS.get(place, place), words), as_json)
        click.echo(f"wicketgate: {error}", err=True)
        return error.exit_code
    _draw(data, svg, html)
    return _show(data, as_json=as_json)


class _Missing(Exception):  # never leaves this module
    """The question cannot be answered as it stands."""

    def __init__(self, option: str, words: str) -> None:
        self.option, self.words = option, words


def _of_deployment(
    deployment: Deployment, asked: Mapping[str, Any], later: str | None, plan: Path | None, all_traffic: bool
) -> dict[str, Any]:
    """Asked of a deployment. Raises _Missing, ClientError."""
    question = dict(asked)
    if later is not None:
        question["LaterTime"] = moment_of("--diff", later, time.time())
    if plan is not None:
        question["Plan"] = _text("--with", plan)
    if all_traffic:
        question["AllTraffic"] = True
    found: dict[str, Any] = json.loads(deployment.ask("Reach", question)["Reach"])
    return found


def _of_files(
    file: Path, asked: Mapping[str, Any], later: str | None, plan: Path | None, all_traffic: bool
) -> dict[str, Any]:
    """Asked of Worlds in files. Raises _Missing."""
    from wicketgate.explain import Unanswerable
    from wicketgate.explain.reach import Wish
    from wicketgate.explain.reach_answers import answer, answer_plan, answer_traffic
    from wicketgate.explain.reach_change import PlanRefused

    wished = {field: asked[name] for name, field in _FIELDS.items() if name in asked}
    world, wish = _world("--world", file), Wish(**wished, at=asked.get("Time", time.time()))
    try:
        if all_traffic:
            return answer_traffic(world, wish)
        if plan is not None:
            from wicketgate.api.planning import read_plan
            from wicketgate.api.service import Catalogue

            return answer_plan(world, wish, read_plan(_text("--with", plan), Catalogue.load()))
        return answer(world, wish, later=None if later is None else _world("--diff", Path(later)))
    except PlanRefused as error:
        raise _Missing("--with", str(error)) from error
    except Unanswerable as error:
        words = error.worded().partition(": ")[2]
        raise _Missing(_OPTIONS.get(error.place, error.place), words) from error


def _world(option: str, file: Path) -> Any:
    from wicketgate.model import World, WorldError

    try:
        return World.from_json(file.read_bytes())
    except OSError as error:
        raise _Missing(option, f"{file}: {error.strerror}") from error
    except WorldError as error:
        raise _Missing(option, f"{file}: {error}") from error


def _text(option: str, file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _Missing(option, f"{file}: {getattr(error, 'strerror', None) or error}") from error


def _draw(data: Mapping[str, Any], svg: Path | None, html: Path | None) -> None:
    if svg is None and html is None:
        return
    from wicketgate.explain.reach_picture import as_html, as_svg

    for file, draw in ((svg, as_svg), (html, as_html)):
        if file is None:
            continue
        try:
            file.write_text(draw(data), encoding="utf-8")
        except OSError as error:
            raise click.ClickException(f"{file}: {error.strerror}") from error


def _show(data: Mapping[str, Any], *, as_json: bool) -> int:
    """Print an answer; the exit code."""
    if as_json:
        click.echo(json.dumps(data, ensure_ascii=False, indent=2))
    else:
        for line in data["lines"]:
            click.echo(printable(line))
    if "shifts" in data:
        return 1 if data["shifts"] else 0
    return 0 if data.get("cells") or data.get("arrivals") else 1


def _tell_missing(missing: _Missing, as_json: bool) -> int:
    if as_json:
        told = {"schema": 1, "missing": {"option": missing.option, "text": missing.words}}
        click.echo(json.dumps(told, ensure_ascii=False, indent=2))
    else:
        click.echo(f"wicketgate: {missing.option}: {printable(missing.words)}", err=True)
    return CANNOT_TELL
