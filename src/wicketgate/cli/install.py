"""`wicketgate install`: users, directories, settings and systemd units of a gateway host."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--domain", help="DNS domain below which the APIs and endpoints have their names (setting domain).")
@click.option("--listen", metavar="ADDRESSES", help="IP addresses to serve on, with commas (setting listen_addresses).")
@click.option("--instances", type=click.IntRange(1, 256), help="Gateway processes.  [default: one a processor core]")
@click.option("--root", type=click.Path(file_okay=False, exists=True, path_type=Path), default=Path("/"),
              help="Install into the system below this directory, and start nothing.")  # fmt: skip
@click.option("--no-start", is_flag=True, help="Start nothing.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
def command(  # noqa: PLR0917  # one parameter per option
    domain: str | None, listen: str | None, instances: int | None, root: Path, no_start: bool, dry_run: bool
) -> int:
    """Install on this host what runs under systemd, and start it. Run it as root, again as often as you like.

    Each thing is said that is made. What is as it should be is left alone, and so is a settings file that you changed.
    """
    from wicketgate.cli.installing import told
    from wicketgate.install.work import Work

    given: dict[str, object] = {}
    if domain is not None:
        given["domain"] = domain
    if listen is not None:
        given["listen_addresses"] = tuple(one.strip() for one in listen.split(","))
    return told("install", lambda: Work(root.absolute(), dry_run=dry_run, say=click.echo).install(
        given, instances, start=not no_start))  # fmt: skip
