"""`wicketgate lint`: what is not as it should be in security groups, endpoints and policies.

Asked of a running deployment by its API, or of a World in a file. Exit code 0: nothing as grave as `--fail-on`; 1:
something; 2: that cannot be told.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import click

from wicketgate import __version__
from wicketgate.cli.explain_words import Language, language_of
from wicketgate.client.errors import printable

if TYPE_CHECKING:
    from wicketgate.explain.lint import Facts
    from wicketgate.model import World

CANNOT_TELL: Final = 2
_is_ignorable = re.compile(r"WG[0-9]{3}(?::.+)?").fullmatch
_SEVERITIES: Final = ("note", "warning", "error")


@click.command()
@click.option(
    "--world", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Look at a World in a file."
)
@click.option("--counters", is_flag=True, help="Also rules that nobody uses: as root, on the host where netd runs.")
@click.option(
    "--directory", type=click.Path(file_okay=False, path_type=Path), help="Its state directory, for --counters."
)
@click.option(
    "--config", type=click.Path(dir_okay=False, path_type=Path), help="The settings file, for --counters and quotas."
)
@click.option(
    "--fail-on",
    type=click.Choice([*_SEVERITIES, "never"]),
    default="warning",
    help="From which severity on the exit code is 1.  [default: warning]",
)
@click.option("--ignore", multiple=True, metavar="ID[:RESOURCE]", help="Leave out a kind, or a kind at one resource.")
@click.option("--json", "as_json", is_flag=True, help="The report as JSON (docs/lint.md).")
@click.option("--sarif", metavar="FILE", help="Write the report as SARIF 2.1.0; - is standard output.")
@click.option("--lang", type=click.Choice(["en", "ja"]), help="The language.  [default: by LC_ALL, LC_MESSAGES, LANG]")
@click.option("--profile", help="A profile of the AWS credentials and config files.")
@click.option("--region", help="The region to sign for.")
@click.option("--ca-bundle", metavar="FILE", help="Trust the certificates in FILE and no others.")
@click.option("--endpoint-url", metavar="URL", help="Where the APIs are.")
def command(  # noqa: PLR0917  # one parameter per option
    world: Path | None,
    counters: bool,
    directory: Path | None,
    config: Path | None,
    fail_on: str,
    ignore: tuple[str, ...],
    as_json: bool,
    sarif: str | None,
    lang: str | None,
    profile: str | None,
    region: str | None,
    ca_bundle: str | None,
    endpoint_url: str | None,
) -> int:
    """Say what is too broad, without effect or not what it seems, and how to mend it."""
    language = cast(Language, lang) if lang else language_of(os.environ)
    for one in ignore:
        if not _is_ignorable(one):
            raise click.UsageError(f"--ignore {one}: give a kind, as WG008, or a kind at a resource, as WG008:sgr-1")
    from wicketgate.client.errors import ClientError

    try:
        counted = _counted(directory, config) if counters else None
        if world is not None:
            answer = _of_file(world, config, counted, ignore, language)
        else:
            from wicketgate.client.explaining import Deployment

            deployment = Deployment.resolve(
                os.environ, profile=profile, region=region, ca_bundle=ca_bundle, endpoint_url=endpoint_url
            )
            answer = deployment.ask("Lint", _question(ignore, language, counted))
    except Untold as untold:
        click.echo(f"wicketgate: {printable(str(untold))}", err=True)
        return CANNOT_TELL
    except ClientError as error:
        click.echo(f"wicketgate: {error}", err=True)
        return error.exit_code
    return show(answer, fail_on, as_json=as_json, sarif=sarif)


class Untold(Exception):  # never leaves the command line
    """It cannot be told; says why."""


def _question(ignore: Sequence[str], language: Language, counted: Mapping[str, Any] | None) -> dict[str, Any]:
    found: dict[str, Any] = {"Language": language}
    if ignore:
        found["Ignore"] = list(ignore)
    return found if counted is None else {**found, **counted}


def _counted(directory: Path | None, config: Path | None) -> dict[str, Any]:
    """What netd counted, by the API's names. Raises Untold."""
    from wicketgate.cli.rules import asked, configured

    answer = asked(directory or configured(config))
    if answer.totals is None:
        raise Untold("--counters: nothing is counted: the setting rule_counters is false")
    since = datetime.fromtimestamp(answer.totals.since, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    connections = {rule_id: max(tally.connections, tally.live) for rule_id, tally in answer.totals.rules.items()}
    return {"Connections": connections, "CountedSince": since}


def read_world(file: Path) -> World:
    """The World in a file. Raises Untold."""
    from wicketgate.model import World, WorldError

    try:
        return World.from_json(file.read_bytes())
    except OSError as error:
        raise Untold(f"--world: {file}: {error.strerror or error}") from error
    except WorldError as error:
        raise Untold(f"--world: {file}: {error}") from error


def _of_file(
    file: Path, config: Path | None, counted: Mapping[str, Any] | None, ignore: Sequence[str], language: Language
) -> dict[str, Any]:
    from wicketgate.explain.lint import answer_of, lint

    report = lint(read_world(file), _facts(config, counted or {}), ignore)
    return answer_of(report, __version__, language, file.as_posix())


def _facts(config: Path | None, counted: Mapping[str, Any]) -> Facts:
    from wicketgate.explain.lint import Facts

    known = {"connections": counted.get("Connections"), "since": counted.get("CountedSince", "")}
    if config is None:
        return Facts(**known)
    from wicketgate.configuration import ConfigurationError, load

    try:
        settings = load(file=config, environment={})
    except ConfigurationError as error:
        raise Untold(f"--config: {error}") from error
    return Facts(**known, quotas=settings.quotas, endpoint_quotas=settings.endpoint_quotas)


# -- telling -----------------------------------------------------------------------------------------------------------


def show(answer: Mapping[str, Any], fail_on: str, *, as_json: bool, sarif: str | None) -> int:
    """Print and write an answer (`explain.lint.answer_of`); the exit code. Raises ClickException for a bad file."""
    report = answer["Report"]
    if sarif is not None:
        write(sarif, answer["Sarif"])
    if as_json:
        told = {key: value for key, value in report.items() if key != "lines"}
        click.echo(json.dumps(told, ensure_ascii=False, indent=2))
    elif sarif != "-":
        for line in report["lines"]:
            click.echo(printable(line))
    grave = _SEVERITIES[_SEVERITIES.index(fail_on) :] if fail_on != "never" else ()
    return int(any(report["counts"].get(severity) for severity in grave))


def write(name: str, text: str) -> None:
    """Write a file; `-` is standard output. Raises ClickException."""
    if name == "-":
        sys.stdout.write(f"{text}\n")
        return
    try:
        Path(name).write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{name}: {error.strerror or error}") from error
