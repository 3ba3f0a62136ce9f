"""What install, upgrade and uninstall have in common on the command line."""

from __future__ import annotations

from collections.abc import Callable

import click


def told(verb: str, work: Callable[[], None]) -> int:
    """Do it; what goes wrong is one line and exit code 1."""
    from wicketgate.model import WicketgateError

    try:
        work()
    except WicketgateError as error:
        click.echo(f"wicketgate {verb}: {error}", err=True)
        return 1
    except OSError as error:
        click.echo(f"wicketgate {verb}: {f'{error.filename}: ' if error.filename else ''}{error.strerror}", err=True)
        return 1
    return 0
