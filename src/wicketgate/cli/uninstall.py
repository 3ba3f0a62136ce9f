"""`wicketgate uninstall`: take away what `install` made."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--purge", is_flag=True, help="Also the state, the settings and the root credential.")
@click.option("--root", type=click.Path(file_okay=False, exists=True, path_type=Path), default=Path("/"),
              help="The system below this directory; nothing is stopped.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
def command(purge: bool, root: Path, dry_run: bool) -> int:
    """Stop everything and remove users, units and files that were installed; devices go back to the host.

    All open tunnels are cut. State and settings are kept, for root alone.
    """
    from wicketgate.cli.installing import told
    from wicketgate.install.work import Work

    return told("uninstall", lambda: Work(root.absolute(), dry_run=dry_run, say=click.echo).uninstall(purge=purge))
