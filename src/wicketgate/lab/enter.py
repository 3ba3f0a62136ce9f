"""`python -m wicketgate.lab.enter CLIENT USER DIRECTORY [COMMAND...]`: run a command at a client's place in the lab."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path

from wicketgate.kernel import netns
from wicketgate.lab.machines import ROOT
from wicketgate.model import FabricError

ENVIRONMENTS = ROOT / "environments.json"
"""User name -> environment of that user's programs; the lab writes it."""


def main() -> None:
    """Enter and execute; does not return."""
    client, user, directory, *argv = sys.argv[1:]
    try:
        environments = json.loads(ENVIRONMENTS.read_text())
    except (OSError, ValueError):
        sys.exit("wicketgate lab shell: the lab is not up yet: it says so when it is")
    if user not in environments:
        sys.exit(f"wicketgate lab shell: there is no user {user} in this lab; its users: {', '.join(environments)}")
    try:
        netns.enter(client)
    except FabricError:
        sys.exit(f"wicketgate lab shell: there is no client {client} in this lab")
    # `wicketgate` is to be found in there as well, wherever it is installed.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent), "/usr/sbin"])
    own = {name: os.environ[name] for name in ("TERM", "LANG", "COLORTERM") if name in os.environ}
    for place in (directory, environments[user]["HOME"]):  # the lab has a /run of its own: not all is there
        with contextlib.suppress(OSError):
            os.chdir(place)
            break
    argv = argv or [os.environ.get("SHELL", "/bin/sh")]
    try:
        os.execvpe(argv[0], argv, {**environments[user], **own, "PATH": path, "PS1": f"{user}@{client} $ "})
    except OSError as error:
        sys.exit(f"wicketgate lab shell: {argv[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
