"""SSH public keys as callers send them: the OpenSSH line or the SSH2 block of RFC 4716, read strictly.

EC2 Instance Connect takes RSA and ED25519 (EC2 User Guide, "Connect to a Linux instance using EC2 Instance Connect").
Only the key itself is kept, never the text around it: an authorized_keys line may carry options, and nothing that a
caller wrote beside the key may reach sshd.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

RSA, ED25519 = "ssh-rsa", "ssh-ed25519"
MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 4096

_BEGIN, _END = "---- BEGIN SSH2 PUBLIC KEY ----", "---- END SSH2 PUBLIC KEY ----"
_is_header = re.compile(r"[\x21-\x39\x3b-\x7e]{1,64}:").match


class KeyProblem(ValueError):
    """The text is no key that is taken: says what is wrong, after the type of the key where that is known."""

    def __init__(self, reason: str, kind: str = "") -> None:
        super().__init__(reason)
        self.kind = kind
        """`RSA`, `ED25519` or empty."""


def key_line(text: str) -> str:
    """The key as one line `type base64`, without comment. Raises KeyProblem."""
    text = text.strip()
    if text.startswith(_BEGIN):
        blob = _decoded(_ssh2_body(text))
        kind = _name(blob)
    else:
        kind, blob = _openssh(text)
    if kind == RSA:
        _check_rsa(blob)
    elif kind == ED25519:
        _check_ed25519(blob)
    else:
        raise KeyProblem(f"its type is {kind!r}; {RSA} and {ED25519} are taken")
    return f"{kind} {base64.b64encode(blob).decode()}"


def _openssh(text: str) -> tuple[str, bytes]:
    if "PRIVATE KEY" in text:
        raise KeyProblem("this is a private key: keep it to yourself, and send the .pub file")
    if len(text.splitlines()) != 1:
        raise KeyProblem("it must be one line")
    kind, _, rest = text.partition(" ")
    # sshd would read what stands before the type as options; a key with options is not what is pushed.
    if not kind.startswith(("ssh-", "ecdsa-", "sk-")):
        raise KeyProblem(f"it must begin with its type, {RSA} or {ED25519}")
    if kind not in (RSA, ED25519):
        raise KeyProblem(f"its type is {kind[:40]!r}; {RSA} and {ED25519} are taken")
    blob = _decoded(rest.split(maxsplit=1)[0] if rest.strip() else "", kind)
    if _name(blob) != kind:
        raise KeyProblem(f"the line says {kind}, the key itself {_name(blob)!r}", _label(kind))
    return kind, blob


def _ssh2_body(text: str) -> str:
    """The base64 text of an SSH2 block, headers left out (RFC 4716 section 3)."""
    lines = text.splitlines()
    if lines[0].rstrip() != _BEGIN or lines[-1].rstrip() != _END or len(lines) < 3:
        raise KeyProblem(f"the SSH2 block must end with {_END!r}")
    body = [line.rstrip() for line in lines[1:-1]]
    continued = False
    while body and (continued or _is_header(body[0])):
        continued = body.pop(0).endswith("\\")
    return "".join(body)


def _decoded(text: str, kind: str = "") -> bytes:
    try:
        blob = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise KeyProblem("the key is not base64 text", _label(kind)) from None
    if base64.b64encode(blob).decode() != text:
        raise KeyProblem("the key is not base64 text in its one canonical form", _label(kind))
    return blob


def _name(blob: bytes) -> str:
    return _fields(blob, 1)[0].decode("ascii", "replace")[:40]


def _check_ed25519(blob: bytes) -> None:
    """RFC 8709 section 4: the name and 32 bytes."""
    fields = _fields(blob, 2, whole=True, kind=ED25519)
    if len(fields[1]) != 32:
        raise KeyProblem(f"the key has {len(fields[1])} bytes, not 32", _label(ED25519))


def _check_rsa(blob: bytes) -> None:
    """RFC 4253 section 6.6: the name, the exponent and the modulus."""
    _, exponent, modulus = _fields(blob, 3, whole=True, kind=RSA)
    for number in (exponent, modulus):
        # RFC 4251 section 5: positive, no zero byte that is not needed.
        if not number or number[0] & 0x80 or (number[0] == 0 and not (len(number) > 1 and number[1] & 0x80)):
            raise KeyProblem("a number in it is not written as RFC 4251 wants", _label(RSA))
    bits = int.from_bytes(modulus, "big").bit_length()
    if not MIN_RSA_BITS <= bits <= MAX_RSA_BITS:
        raise KeyProblem(f"the key has {bits} bits; {MIN_RSA_BITS} to {MAX_RSA_BITS} are taken", _label(RSA))
    odd = exponent[-1] & modulus[-1] & 1
    if not odd or int.from_bytes(exponent, "big") < 3 or len(exponent) > 32:
        raise KeyProblem("its numbers are no RSA key", _label(RSA))


def _fields(blob: bytes, count: int, *, whole: bool = False, kind: str = "") -> list[bytes]:
    """The first strings of an SSH blob (RFC 4251 section 5); `whole`: and nothing may follow."""
    fields, rest = [], blob
    for _ in range(count):
        length = int.from_bytes(rest[:4], "big")
        if len(rest) < 4 or length > len(rest) - 4:
            raise KeyProblem("the key is cut off", _label(kind))
        fields.append(rest[4 : 4 + length])
        rest = rest[4 + length :]
    if whole and rest:
        raise KeyProblem("something follows the key", _label(kind))
    return fields


def _label(kind: str) -> str:
    return {RSA: "RSA", ED25519: "ED25519"}.get(kind, "")
