"""`wicketgate check`: who never reaches what, and who always does, for continuous integration.

Asked of a running deployment by its API, or of a World in a file. Exit code 0: all checks hold; 1: one does not; 2:
that cannot be told, and why.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import click

from wicketgate import __version__
from wicketgate.cli.explain_words import Language, language_of
from wicketgate.cli.lint import Untold, read_world, write
from wicketgate.client.errors import printable

CANNOT_TELL: Final = 2
_EXIT: Final = {"pass": 0, "fail": 1, "unknown": CANNOT_TELL}


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--world", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Check a World in a file."
)
@click.option("--json", "as_json", is_flag=True, help="The results as JSON (docs/check.md).")
@click.option("--junit", metavar="FILE", help="Write the results as JUnit XML; - is standard output.")
@click.option("--sarif", metavar="FILE", help="Write the results as SARIF 2.1.0; - is standard output.")
@click.option("--lang", type=click.Choice(["en", "ja"]), help="The language.  [default: by LC_ALL, LC_MESSAGES, LANG]")
@click.option("--profile", help="A profile of the AWS credentials and config files.")
@click.option("--region", help="The region to sign for.")
@click.option("--ca-bundle", metavar="FILE", help="Trust the certificates in FILE and no others.")
@click.option("--endpoint-url", metavar="URL", help="Where the APIs are.")
def command(  # noqa: PLR0917  # one parameter per option
    file: Path,
    world: Path | None,
    as_json: bool,
    junit: str | None,
    sarif: str | None,
    lang: str | None,
    profile: str | None,
    region: str | None,
    ca_bundle: str | None,
    endpoint_url: str | None,
) -> int:
    """Run the checks in FILE: who never reaches what, and who always does."""
    language = cast(Language, lang) if lang else language_of(os.environ)
    if [as_json, junit == "-", sarif == "-"].count(True) > 1:
        raise click.UsageError("only one of --json, --junit - and --sarif - can have standard output")
    from wicketgate.client.errors import ClientError

    try:
        content = _read(file)
        if world is not None:
            answer = _of_file(world, content, file, language)
        else:
            from wicketgate.client.explaining import Deployment

            deployment = Deployment.resolve(
                os.environ, profile=profile, region=region, ca_bundle=ca_bundle, endpoint_url=endpoint_url
            )
            question = {"Document": content, "DocumentName": file.as_posix(), "Language": language}
            answer = deployment.ask("Check", question)
    except Untold as untold:
        click.echo(f"wicketgate: {printable(str(untold))}", err=True)
        return CANNOT_TELL
    except ClientError as error:
        if getattr(error, "code", "") == "UnanswerableException":
            click.echo(f"wicketgate: {printable(getattr(error, 'message', '').partition(': ')[2])}", err=True)
            return CANNOT_TELL
        click.echo(f"wicketgate: {error}", err=True)
        return error.exit_code
    return show(answer, as_json=as_json, junit=junit, sarif=sarif)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Untold(f"{file}: {getattr(error, 'strerror', None) or error}") from error


def _of_file(world: Path, content: str, file: Path, language: Language) -> dict[str, Any]:
    from wicketgate.explain.check import Mistake, answer_of, check

    try:
        results = check(read_world(world), content, file.as_posix(), time.time())
    except Mistake as mistake:
        raise Untold(mistake.worded(language)) from mistake
    return answer_of(results, __version__, language)


def show(answer: Mapping[str, Any], *, as_json: bool, junit: str | None, sarif: str | None) -> int:
    """Print and write an answer (`explain.check.answer_of`); the exit code. Raises ClickException for a bad file."""
    report = answer["Report"]
    for name, content in ((junit, answer["JUnit"]), (sarif, answer["Sarif"])):
        if name is not None:
            write(name, content.rstrip("\n"))
    if as_json:
        told = {key: value for key, value in report.items() if key != "lines"}
        click.echo(json.dumps(told, ensure_ascii=False, indent=2))
    elif "-" not in (junit, sarif):
        for line in report["lines"]:
            click.echo(printable(line))
    return _EXIT[report["outcome"]]
