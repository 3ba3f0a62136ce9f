"""`wicketgate explain`: why can, or can't, this connection be made?

Asked of a running deployment by its API, or of a World in a file. Exit code 0: it can; 1: it cannot; 2: that cannot be
told, and what is missing.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, cast

import click

from wicketgate.cli.audit import moment_of
from wicketgate.cli.explain_words import Language, language_of
from wicketgate.client.errors import printable

CANNOT_TELL = 2
_EXIT = {"pass": 0, "fail": 1, "unknown": CANNOT_TELL}
_OPTIONS = {
    "Principal": "--principal",
    "SourceIp": "--from",
    "Target": "--to",
    "EndpointId": "--endpoint",
    "Port": "--port",
    "Time": "--at",
    "RequestId": "--request-id",
    "World": "--world",
}
"""What the API calls the parts of a question, and what they are called here."""
_NEEDED: Final[tuple[tuple[Literal["Principal", "SourceIp", "Target"], str], ...]] = (
    ("Principal", "ask-nobody"),
    ("SourceIp", "ask-client"),
    ("Target", "ask-target-missing"),
)
"""What a question about a file has to say, and the sentence that asks for it."""


@click.command()
@click.option(
    "--principal", metavar="WHO", help="A user, role/NAME, root, an ARN or an access key's id.  [default: you]"
)
@click.option("--from", "source_ip", metavar="ADDRESS", help="The client's address.  [default: yours]")
@click.option("--endpoint", metavar="ID", help="The endpoint.  [default: the one that the AWS CLI would choose]")
@click.option("--to", "target", metavar="TARGET", help="An instance or network interface by id, or a private address.")
@click.option("--port", type=click.IntRange(1, 65535), help="The target's TCP port.  [default: 22]")
@click.option(
    "--duration", type=click.IntRange(min=1), metavar="SECONDS", help="maxTunnelDuration, if it is to be given."
)
@click.option("--at", metavar="TIME", help="When: ISO 8601, or 10m, 2h, 1d ago. The answer is about the state of then.")
@click.option(
    "--ssh", is_flag=True, help="May it be `ec2-instance-connect ssh`, which looks things up and pushes a key?"
)
@click.option("--os-user", metavar="NAME", help="Who to be on the instance, with --ssh.  [default: ec2-user]")
@click.option("--request-id", metavar="ID", help="Explain an attempt of the audit trail, by the state of its moment.")
@click.option("--probe", is_flag=True, help="Open a tunnel with your own credentials: does an SSH server answer?")
@click.option("--prove", is_flag=True, help="Open a tunnel with your own credentials, and compare.")
@click.option("--world", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Ask a World in a file.")
@click.option("--json", "as_json", is_flag=True, help="The answer as JSON (docs/explain.md).")
@click.option("--lang", type=click.Choice(["en", "ja"]), help="The language.  [default: by LC_ALL, LC_MESSAGES, LANG]")
@click.option("--profile", help="A profile of the AWS credentials and config files.")
@click.option("--region", help="The region to sign for.")
@click.option("--ca-bundle", metavar="FILE", help="Trust the certificates in FILE and no others.")
@click.option("--endpoint-url", metavar="URL", help="Where the APIs are.")
def command(  # noqa: PLR0917  # one parameter per option
    principal: str | None,
    source_ip: str | None,
    endpoint: str | None,
    target: str | None,
    port: int | None,
    duration: int | None,
    at: str | None,
    ssh: bool,
    os_user: str | None,
    request_id: str | None,
    probe: bool,
    prove: bool,
    world: Path | None,
    as_json: bool,
    lang: str | None,
    profile: str | None,
    region: str | None,
    ca_bundle: str | None,
    endpoint_url: str | None,
) -> int:
    """Say why a connection can, or cannot, be made: every step, what decided it, and what would help."""
    language = cast(Language, lang) if lang else language_of(os.environ)
    question = {
        "Principal": principal,
        "SourceIp": source_ip,
        "Target": target,
        "EndpointId": endpoint,
        "Port": port,
        "MaxTunnelDuration": duration,
        "Time": moment_of("--at", at, time.time()),
        "Ssh": ssh or None,
        "InstanceOSUser": os_user,
        "RequestId": request_id,
    }
    question = {name: value for name, value in question.items() if value is not None}
    _check(question, online=probe or prove, offline=world is not None)
    from wicketgate.client.errors import ClientError

    try:
        if world is not None:
            return show(_of_file(world, question, language), as_json=as_json)
        from wicketgate.cli.explain_proof import with_connection
        from wicketgate.client.explaining import Deployment

        deployment = Deployment.resolve(
            os.environ, profile=profile, region=region, ca_bundle=ca_bundle, endpoint_url=endpoint_url
        )
        data = deployment.explain({**question, "Language": language})
        if probe or prove:
            data = with_connection(deployment, question, data, language, probe=probe, prove=prove)
        return show(data, as_json=as_json)
    except _Missing as missing:
        return _tell_missing(missing, as_json)
    except ClientError as error:
        if getattr(error, "code", "") == "UnanswerableException":
            place, _, words = getattr(error, "message", "").partition(": ")
            return _tell_missing(_Missing(place, words), as_json)
        click.echo(f"wicketgate: {error}", err=True)
        return error.exit_code


def _check(question: Mapping[str, Any], *, online: bool, offline: bool) -> None:
    """What options exclude each other; raises UsageError."""
    if "RequestId" in question and len(question) > 1:
        raise click.UsageError("--request-id says by itself who, from where and to what: give no such option beside it")
    if offline and "RequestId" in question:
        raise click.UsageError("--request-id needs the audit trail of a deployment: it excludes --world")
    if online and offline:
        raise click.UsageError("--probe and --prove need a deployment: they exclude --world")
    if online and ("RequestId" in question or "Time" in question):
        raise click.UsageError("--probe and --prove are about now: they exclude --request-id and --at")


class _Missing(Exception):  # never leaves this module
    """The question cannot be answered as it stands."""

    def __init__(self, place: str, words: str) -> None:
        self.option, self.words = _OPTIONS.get(place, place), words


def _of_file(file: Path, question: Mapping[str, Any], language: Language) -> dict[str, Any]:
    """Asked of the World in a file. Raises _Missing."""
    from wicketgate.explain import Question, Unanswerable, as_data, explain
    from wicketgate.model import World, WorldError

    try:
        world = World.from_json(file.read_bytes())
        world.check()
        for name, key in _NEEDED:
            if name not in question:
                raise Unanswerable(name, key)
        asked = Question(
            principal=question["Principal"],
            source_ip=question["SourceIp"],
            target=question["Target"],
            endpoint_id=question.get("EndpointId", ""),
            port=question.get("Port", 22),
            duration=question.get("MaxTunnelDuration"),
            ssh=question.get("Ssh", False),
            os_user=question.get("InstanceOSUser", "ec2-user"),
            at=question.get("Time", time.time()),
        )
        return as_data(explain(world, asked), language)
    except (OSError, WorldError) as error:
        reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        raise _Missing("World", f"{file}: {reason}") from error
    except Unanswerable as error:
        raise _Missing(error.place, error.worded(language).partition(": ")[2]) from error


# -- telling -----------------------------------------------------------------------------------------------------------


def show(data: Mapping[str, Any], *, as_json: bool) -> int:
    """Print an answer; the exit code."""
    if as_json:
        click.echo(json.dumps(data, ensure_ascii=False, indent=2))
    else:
        for line in data["lines"]:
            click.echo(printable(line))
    return _EXIT[data["outcome"]]


def _tell_missing(missing: _Missing, as_json: bool) -> int:
    if as_json:
        told = {"schema": 1, "outcome": "unknown", "missing": {"option": missing.option, "text": missing.words}}
        click.echo(json.dumps(told, ensure_ascii=False, indent=2))
    else:
        click.echo(f"wicketgate: {missing.option}: {printable(missing.words)}", err=True)
    return CANNOT_TELL
