"""The script that lets sshd of a machine take keys pushed for it, for machines that link-local metadata does not reach.

It is one file for the machine's own /bin/sh, to be read before it is run: first what it does, then what is of this
machine, then how (`host_setup.sh`, the same everywhere). What undoes it (`host_undo.sh`) is left on the machine.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, Final, NamedTuple

from wicketgate.client.errors import InvalidUse, TunnelFailed

PLACE: Final = "/usr/local/libexec/wicketgate"
FILES: Final = "/etc/wicketgate/machine"
USER: Final = "wicketgate-keys"
PATH: Final = "/machine"
"""Below which machines are answered, on the APIs' host."""
_HERE: Final = Path(__file__).parent
_END: Final = "END-OF-WICKETGATE"
_is_instance = re.compile(r"i-[0-9a-f]{8,32}").fullmatch
_is_address = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[0-9]{1,3}(?:\.[0-9]{1,3}){3})(?::[0-9]{1,5})?").fullmatch
_is_url = re.compile(r"https://[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?/?").fullmatch
_is_text = re.compile(r"[\x20-\x7e\n]*").fullmatch


class Machine(NamedTuple):
    """What a machine is told."""

    instance_id: str
    token: str
    url: str
    """Of the APIs, as the machine is to call them: https://HOST[:PORT]."""
    signer_root: str
    """PEM: what pushed keys are checked by."""
    ca: str
    """PEM: what the server's certificate is checked by; empty = the machine's own roots."""
    address: str = ""
    """`IP[:PORT]` where the name does not lead there; empty = where the name leads."""

    @classmethod
    def of(cls, instance_id: str, answer: dict[str, Any], url: str, ca: str | None, address: str) -> Machine:
        """From the answer to CreateMachineCredential. `ca`: PEM in the place of the answer's; empty = the machine's own
        roots. Raises InvalidUse for what is no instance's id, no URL, no address or no text, TunnelFailed for an answer
        that is none."""
        if not _is_instance(instance_id):
            raise InvalidUse(f"{instance_id!r} is no instance's id: expected i-...")
        if not _is_url(url):
            raise InvalidUse(
                f"{url!r} is no address of APIs that a machine can be given: expected https://HOST[:PORT]."
            )
        if address and not _is_address(address):
            raise InvalidUse(f"--address {address!r}: expected IP[:PORT], an IPv6 address in brackets.")
        if ca and not (_is_text(ca) and _END not in ca):
            raise InvalidUse("The machine's CA is more than plain lines of PEM.")
        given = [answer.get(name, "") for name in ("MachineToken", "SignerRoot", "CertificateAuthority")]
        if not all(isinstance(one, str) and _is_text(one) and _END not in one for one in given) or not given[0]:
            raise TunnelFailed("The answer to CreateMachineCredential is not what a machine can be given.")
        token, root, own = given
        return cls(instance_id, token, url.rstrip("/"), root, own if ca is None else ca, address)

    @property
    def options(self) -> str:
        """Of the key command: words without anything that a shell or sshd_config(5) would read otherwise."""
        found = [f"--root={FILES}/ssh-root.pem", f"--server={self.url}{PATH}", f"--instance={self.instance_id}"]
        found += [f"--credential={FILES}/credential"]
        found += [f"--ca={FILES}/ca.pem"] if self.ca else []
        return " ".join([*found, *([f"--address={self.address}"] if self.address else [])])


def setup_script(machine: Machine) -> str:
    """The script for a machine. It holds the machine's credential."""
    trusted = f"the CA in {FILES}/ca.pem" if machine.ca else "this machine's own root certificates"
    where = f" at {machine.address}" if machine.address else ""
    _, _, command = (_HERE / "keycommand.txt").read_text(encoding="utf-8").partition("\n")
    payloads = {
        "credential": machine.token,
        "signer_root": machine.signer_root,
        "ca": machine.ca,
        "command": command,
        "undo": (_HERE / "host_undo.sh").read_text(encoding="utf-8"),
    }
    return "".join(
        [
            _ABOUT.format(
                instance=machine.instance_id,
                server=f"{machine.url}{where}",
                trusted=trusted,
                place=PLACE,
                files=FILES,
                user=USER,
            ),
            "set -eu\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\nexport PATH\n\n",
            "# -- what is of this machine " + "-" * 92 + "\n\n",
            f"instance={shlex.quote(machine.instance_id)}\noptions={shlex.quote(machine.options)}\n",
            f"has_ca={'1' if machine.ca else ''}\n\n",
            *(_payload(name, text) for name, text in payloads.items()),
            (_HERE / "host_setup.sh").read_text(encoding="utf-8"),
        ]
    )


def undo_script() -> str:
    """The script that runs what was left on a machine, as root."""
    return (
        "#!/bin/sh\n# Undoes wicketgate host-setup: runs what it left on the machine. As root.\n"
        f"if [ -x {PLACE}/undo ]; then exec {PLACE}/undo; fi\n"
        f"echo 'host-setup: {PLACE}/undo is not there: nothing to undo.' >&2\n"
    )


def _payload(name: str, text: str) -> str:
    body = text if text.endswith("\n") or not text else f"{text}\n"
    return f"payload_{name}() {{\n    cat <<'{_END}'\n{body}{_END}\n}}\n\n"


_ABOUT: Final = """\
#!/bin/sh
# wicketgate host-setup: lets sshd on this machine take the SSH keys that are pushed for {instance},
# each for 60 seconds. KEEP THIS FILE TO YOURSELF: it holds the machine's credential.
#
# Run as root it does this, and touches nothing else:
#
#   1. looks whether sshd, its configuration and Python (3.9 or later) are such that it can work. Else it says what is
#      wrong, and nothing was changed.
#   2. makes the system user {user}, as which the key command runs: nobody else is to read the credential.
#   3. writes
#        {place}/wicketgate_keycommand.py    what sshd asks for keys
#        {place}/undo, made                  what undoes it, and what there was not before
#        {files}/credential                       this machine's credential, for {user} alone
#        {files}/ssh-root.pem, ca.pem             what keys and the server are checked by
#        /etc/ssh/sshd_config.d/10-wicketgate.conf               AuthorizedKeysCommand and AuthorizedKeysCommandUser
#   4. has sshd check its configuration (sshd -t), puts everything back if it does not take it, else has it reloaded.
#
# Keys that could log in before still can. The key command asks {server} over TLS,
# checked by {trusted}, for at most 5 seconds a key. Run again it changes nothing.
#
# To undo it: sudo {place}/undo
# To end the credential, too: wicketgate host-setup {instance} --undo
#
"""
