"""`wicketgate upgrade`: this version in the place of the one that is installed, without cutting a tunnel."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--gateways", "gateways_only", is_flag=True,
              help="Replace the gateways alone: they take a renewed certificate into use.")  # fmt: skip
@click.option("--root", type=click.Path(file_okay=False, exists=True, path_type=Path), default=Path("/"),
              help="The system below this directory; nothing is restarted.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
def command(gateways_only: bool, root: Path, dry_run: bool) -> int:
    """Upgrade the installation to this version: run it as root, from the new version's environment.

    netd and the API process are restarted, gateways replaced one set by another: tunnels go on in the old ones until
    they end by themselves, and no new connection is refused meanwhile.
    """
    from wicketgate.cli.installing import told
    from wicketgate.install.work import Work

    return told(
        "upgrade",
        lambda: Work(root.absolute(), dry_run=dry_run, say=click.echo).upgrade(gateways_only=gateways_only),
    )
