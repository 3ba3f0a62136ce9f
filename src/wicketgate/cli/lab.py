"""`wicketgate lab`: two VPCs, real sshd's and two clients, in namespaces of their own. `lab shell`: be a client."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click


@click.group(invoke_without_command=True)
@click.option("--tour", is_flag=True, help="Try every statement with real logins, print expected and seen, and end.")
@click.option("--topology", type=click.Path(dir_okay=False), help="Another topology file than the one that ships.")
@click.option("--json", "as_json", is_flag=True, help="With --tour: the table as JSON.")
@click.pass_context
def command(context: click.Context, *, tour: bool, topology: str | None, as_json: bool) -> int | None:
    """Bring the lab up; without --tour it stays until Ctrl-C. Works as root and as an ordinary user."""
    if context.invoked_subcommand is not None:
        return None
    from wicketgate.lab import sandbox
    from wicketgate.lab.topology import TopologyError, load

    options = ["--tour"] * tour + ["--json"] * as_json
    if topology:
        try:
            load(Path(topology))
        except TopologyError as error:
            click.echo(str(error), err=True)
            return 2
        # The sandbox has a /run of its own, so the file's text goes in, not its name.
        held = os.memfd_create("topology", 0)
        os.write(held, Path(topology).read_bytes())
        options += ["--topology", f"/proc/self/fd/{held}"]
    # Credentials and settings of the caller's AWS clients are not for the lab's.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    try:
        return sandbox.run([sys.executable, "-m", "wicketgate.lab", *options], environment)
    except sandbox.SandboxError as error:
        click.echo(str(error), err=True)
        return 1


@command.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--client", default="office", show_default=True, help="Which client of the lab to be.")
@click.option("--user", default="admin", show_default=True, help="Whose credentials to have.")
@click.option("--lab", "process", type=int, help="Process id of the lab, when more than one runs.")
@click.argument("argv", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
def shell(*, client: str, user: str, process: int | None, argv: tuple[str, ...]) -> None:
    """Run COMMAND, or a shell, as a client on the running lab's internet.

    The stock AWS CLI, boto3 and ssh work in it as they are: names resolve, the lab's APIs are AWS's, and their
    certificates are trusted. Of this machine's network nothing is there.
    """
    found = [process] if process else _labs()
    if len(found) != 1:
        running = (
            f"these run: {', '.join(map(str, found))}; choose with --lab" if found else "start one: wicketgate lab"
        )
        raise click.ClickException(f"exactly one running lab is needed, {running}")
    nsenter = shutil.which("nsenter", path=f"{os.environ.get('PATH', '')}:/usr/bin:/bin")
    if nsenter is None:
        raise click.ClickException("nsenter is missing (Debian package util-linux)")
    into = ["-t", str(found[0]), "-U", "--preserve-credentials", "-m", "-p", "-i"]
    inside = [sys.executable, "-m", "wicketgate.lab.enter", client, user, str(Path.cwd()), *argv]
    os.execv(nsenter, [nsenter, *into, "--", *inside])


def _labs() -> list[int]:
    """Process ids of the labs that this user may enter."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            ours = process.stat().st_uid == os.geteuid()
        except (OSError, NotADirectoryError):
            continue
        if process.name.isdigit() and ours and words[1:3] == [b"-m", b"wicketgate.lab"]:
            found.append(int(process.name))
    return found
