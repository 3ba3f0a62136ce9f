"""OpenSSH's programs as `wicketgate ssh` and `wicketgate ssh-config` use them: command lines, and keys for the push."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from wicketgate.client.errors import ConfigurationError, printable

MAX_PUBLIC_KEY = 4096
"""Characters (EC2 Instance Connect API Reference, SendSSHPublicKey)."""


def program(name: str) -> str:
    """The path of `ssh` or `ssh-keygen`; raises ConfigurationError when it is not installed."""
    found = shutil.which(name)
    if found is None:
        raise ConfigurationError(f"{name} is not on the PATH: install OpenSSH's client.")
    return found


def make_key(path: Path) -> str:
    """Make an Ed25519 key pair in `path` and `path`.pub, without a passphrase: the public key's line.

    Raises ConfigurationError.
    """
    command = [program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", "wicketgate", "-f", str(path)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        raise ConfigurationError(f"ssh-keygen cannot make the key {path}: {printable(said)}")
    return public_key(path)


def public_key(path: Path) -> str:
    """The public half of a private key's file, from `path`.pub; raises ConfigurationError."""
    beside = path.with_name(f"{path.name}.pub")
    try:
        if not path.exists():
            raise ConfigurationError(f"There is no key {path}: `wicketgate ssh-config` makes it.")
        line = beside.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The public key {beside} cannot be read: {error}.") from error
    if not line.startswith(("ssh-ed25519 ", "ssh-rsa ")) or "\n" in line or len(line) > MAX_PUBLIC_KEY:
        raise ConfigurationError(f"{beside} is no key that can be pushed: one line of ssh-ed25519 or ssh-rsa.")
    return line


def own_command(verb: str, *words: str) -> list[str]:
    """A command line that runs a verb of this very installation, whatever the PATH and the working directory."""
    return [sys.executable, "-P", "-m", "wicketgate.cli", verb, *words]


def proxy_command(words: Sequence[str], *tokens: str) -> str:
    """Words as ssh's ProxyCommand, which a shell reads, with ssh's own `tokens` (`%h`) at the end.

    Tokens are quoted, so that nothing in a user's or host's name is a command.
    """
    escaped = [word.replace("%", "%%") for word in words]
    if sys.platform == "win32":
        return " ".join([subprocess.list2cmdline(escaped), *(f'"{token}"' for token in tokens)])
    return " ".join([shlex.join(escaped), *(f"'{token}'" for token in tokens)])


def ssh_command(
    *, instance_id: str, os_user: str, proxy: str, key: Path, port: int | None, more: Sequence[str]
) -> list[str]:
    """The command line of ssh. `more`: options and command as the user gave them.

    The host is the instance's id, which never comes back: its key is known under this name, at any port.
    """
    options = ["-o", f"ProxyCommand={proxy}", "-o", f"HostKeyAlias={instance_id}"]
    options += ["-i", str(key), "-o", "IdentitiesOnly=yes"]
    if port is not None:
        options += ["-p", str(port)]
    return [program("ssh"), *options, f"{os_user}@{instance_id}", *more]


def stanza(pattern: str, os_user: str, key: Path, proxy: str) -> str:
    """What ssh_config(5) needs so that plain `ssh i-...` works."""
    return (
        f"Host {pattern}\n"
        f"    User {os_user}\n"
        f'    IdentityFile "{key}"\n'
        f"    IdentitiesOnly yes\n"
        f"    ProxyCommand {proxy}\n"
    )
