"""`wicketgate lab`: two VPCs, real sshd's and two clients, in namespaces of their own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click


@click.command()
@click.option("--tour", is_flag=True, help="Try every statement with real logins, print expected and seen, and end.")
@click.option("--topology", type=click.Path(dir_okay=False), help="Another topology file than the one that ships.")
@click.option("--json", "as_json", is_flag=True, help="With --tour: the table as JSON.")
def command(*, tour: bool, topology: str | None, as_json: bool) -> int:
    """Bring the lab up; without --tour it stays until Ctrl-C. Works as root and as an ordinary user."""
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
    try:
        return sandbox.run([sys.executable, "-m", "wicketgate.lab", *options])
    except sandbox.SandboxError as error:
        click.echo(str(error), err=True)
        return 1
