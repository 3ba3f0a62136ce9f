"""Pushed SSH keys on the lab's machines: as lines of a file that sshd reads, or by the command that sshd asks."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Final

import wicketgate
from wicketgate.lab.machines import ROOT
from wicketgate.lab.sshd import write
from wicketgate.model import FabricError, PushedKey

COMMAND: Final = Path(wicketgate.__file__).parents[2] / "keycommand" / "wicketgate_keycommand.py"
"""The key command of a checkout."""

_KEY = re.compile(r"(ssh-[a-z0-9-]{1,30} [A-Za-z0-9+/]{1,8192}={0,2})(?: [\x20-\x7e]*)?")


def line(key: PushedKey) -> str:
    """The key for an authorized_keys file; nothing for what is no key, for what else there is would be options."""
    match = _KEY.fullmatch(key.public_key)
    if match is None:
        return ""
    # sshd takes a key in the very second of its expiry-time still, and reads that as local time.
    last = time.strftime("%Y%m%d%H%M%S", time.localtime(int(key.expires) - 1))
    return f'expiry-time="{last}" {match[1]}\n'


def install_command(command: str, python: str, root: str) -> str:
    """Lay the key command out as sshd wants it, root's from / down; returns its command line.

    `command`: its file; `python`: the interpreter for it; `root`: PEM file of the SSH signer's root. Raises FabricError
    when one of the files is missing.
    """
    place = ROOT / "keycommand"
    place.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        _, _, code = Path(command).read_text().partition("\n")
        write(place / "wicketgate_keycommand.py", f"#!{python} -IS\n{code}", 0o755)
        write(place / "ssh-root.pem", Path(root).read_text())
    except OSError as error:
        raise FabricError(f"cannot lay out the key command: {error.filename}: {error.strerror}") from error
    return f"{place}/wicketgate_keycommand.py --root {place}/ssh-root.pem %u %f"
