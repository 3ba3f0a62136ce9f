"""`wicketgate shell`: a command at a client's place in the running lab's network."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--client", default="office", show_default=True, help="Which client of the lab to be.")
@click.option("--user", default="admin", show_default=True, help="Whose credentials to have.")
@click.option("--lab", "process", type=int, help="Process id of the lab, when more than one runs.")
@click.argument("argv", nargs=-1, type=click.UNPROCESSED)
def command(*, client: str, user: str, process: int | None, argv: tuple[str, ...]) -> None:
    """Run ARGV, or a shell, inside the running lab as one of its clients and users."""
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
    inside = [sys.executable, "-m", "wicketgate.lab.enter", client, user, *argv]
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
