"""The command line's group: verbs are imported when they are used, and what a verb misses is said in one line."""

from __future__ import annotations

import importlib
import sys

import click

from wicketgate import __version__
from wicketgate.cli import HOST_VERBS, VERBS

INVALID_USE = 252
MISSING = 253
"""The AWS CLI's exit code for a configuration that is not there."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the verbs in the order people meet them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb; None if there is none of that name. Raises Unavailable for one that cannot run here."""
        if cmd_name not in VERBS:
            return None
        if cmd_name in HOST_VERBS and sys.platform != "linux":
            raise Unavailable(f"`wicketgate {cmd_name}` works on Linux alone.")
        module = importlib.import_module(f"wicketgate.cli.{cmd_name.replace('-', '_')}")
        command = module.command
        if not isinstance(command, click.Command):
            raise TypeError(f"{module.__name__}.command is no click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of verbs for `--help`."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


class Unavailable(click.ClickException):
    """A verb that this installation or system does not have all of."""

    exit_code = MISSING


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, message="wicketgate %(version)s")
def wicketgate() -> None:
    """A self-hosted EC2 Instance Connect Endpoint: reach private machines with an identity and nothing else."""


def run() -> int:
    """Run the command line as click reads it: the exit code."""
    try:
        try:
            # On Windows click would expand `*`, `~` and `$NAME`, also in a command that is for the other side.
            code = wicketgate(prog_name="wicketgate", standalone_mode=False, windows_expand_args=False)
        except ModuleNotFoundError as error:
            raise _unavailable(error) from error
    except click.ClickException as error:
        error.show()
        return INVALID_USE if isinstance(error, click.UsageError) else error.exit_code
    except click.Abort:
        return 130
    return code if isinstance(code, int) else 0


def _unavailable(error: ModuleNotFoundError) -> click.ClickException:
    """A missing package in words; raises the error again when it is none that is left out on purpose."""
    verb = next((word for word in sys.argv[1:] if word in VERBS), "")
    name = (error.name or "").partition(".")[0]
    if name in sys.stdlib_module_names:
        return Unavailable(f"`wicketgate {verb}` cannot do this here: this system's Python has no module {name}.")
    if name in ("", "wicketgate"):
        raise error
    hint = " On a client, give --endpoint-url, --region and --ca-bundle." if verb == "env" else ""
    return Unavailable(
        f"`wicketgate {verb}` needs the server's packages for this ({name} is missing): "
        f"pip install 'wicketgate[server]'.{hint}"
    )
