"""The `wicketgate` command. One module per verb, imported when the verb is used: `ssh` waits for every import here.

A verb `open-tunnel` is the attribute `command` of the module `wicketgate.cli.open_tunnel`. Exit codes are the AWS
CLI's: 252 for a wrong command line, 253 for missing configuration, 255 for what failed, 128 + n for signal n.
"""

from __future__ import annotations

import sys

VERBS = {
    "install": "Install on this host what runs under systemd, and start it.",
    "upgrade": "Put this version in the place of the one that is installed, without cutting a tunnel.",
    "uninstall": "Take away what install made.",
    "serve": "Serve the AWS APIs and endpoints on this host's network.",
    "ssh": "Log in to an instance through an endpoint, with a key made for this once.",
    "open-tunnel": "Open a tunnel through an endpoint: standard input and output, or a local port.",
    "ssh-config": "Print what makes plain `ssh i-...`, scp, rsync and editors work.",
    "proxy": "Push a key and open a tunnel: the ProxyCommand that ssh-config prints.",
    "host-setup": "Let a machine without instance metadata take pushed SSH keys.",
    "machines": "Register machines that exist, one or a file of them; list them; forget them.",
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

HOST_VERBS = frozenset({"install", "upgrade", "uninstall", "serve", "rules", "lab"})
"""Verbs for the host that serves: Linux alone."""


def main() -> None:
    """Run the command line and exit."""
    from wicketgate.cli.quick import quick

    try:
        try:
            code = quick(sys.argv[1:])
        except ModuleNotFoundError:  # is met there again, and worded
            code = None
        if code is None:
            from wicketgate.cli.group import run

            code = run()
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
