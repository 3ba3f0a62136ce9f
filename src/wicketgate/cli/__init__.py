"""The `wicketgate` command. One module per verb, imported when the verb is used: `ssh` waits for every import here.

A verb `open-tunnel` is the attribute `command` of the module `wicketgate.cli.open_tunnel`. Exit codes are the AWS
CLI's: 252 for a wrong command line, 253 for missing configuration, 255 for what failed, 128 + n for signal n.
"""

from __future__ import annotations

import importlib
import sys

import click

from wicketgate import __version__

VERBS = {
    "serve": "Serve the AWS APIs and endpoints on this host's network.",
    "ssh": "Log in to an instance through an endpoint, with a key made for this once.",
    "open-tunnel": "Open a tunnel through an endpoint: standard input and output, or a local port.",
    "ssh-config": "Print what makes plain `ssh i-...`, scp, rsync and editors work.",
    "proxy": "Push a key and open a tunnel: the ProxyCommand that ssh-config prints.",
    "env": "Print the environment that AWS's own clients need for a deployment.",
    "explain": "Say why a connection can, or cannot, be made, and what would help.",
    "reach": "Say who reaches what, exactly, and what a change would shift.",
    "check": "Run checks for continuous integration: who never reaches what, and who always does.",
    "lint": "Say what is too broad, without effect or not what it seems in groups and policies.",
    "audit": "Show the audit trail of a deployment.",
    "rules": "Show the security groups in force on this host, and what their rules let through.",
    "lab": "Build a made-up network with endpoints and real machines to try things on.",
}
"""Name and one line of help, so that `--help` imports no verb."""

INVALID_USE = 252


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the verbs in the order people meet them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb; None if there is none of that name."""
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"wicketgate.cli.{cmd_name.replace('-', '_')}")
        command = module.command
        if not isinstance(command, click.Command):
            raise TypeError(f"{module.__name__}.command is no click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of verbs for `--help`."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, message="wicketgate %(version)s")
def wicketgate() -> None:
    """A self-hosted EC2 Instance Connect Endpoint: reach private machines with an identity and nothing else."""


def main() -> None:
    """Run the command line and exit."""
    try:
        code = wicketgate(prog_name="wicketgate", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(INVALID_USE if isinstance(error, click.UsageError) else error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)
