"""Secrets at rest: AES-256-GCM under a key file that the operator keeps.

What is sealed is bound to its context (kind, id, field): a ciphertext moved to another place does not open there. A
sealed value names its key, so the wrong key file is told from a damaged value. Copying a state directory without its
key file gives away no secret; losing the key file loses them all.

A sealed value is text: `sealed:1:<key id>:<base64url of 12 bytes of nonce, ciphertext, 16 bytes of tag>`. Nonces are
random: NIST SP 800-38D section 8.3 allows 2^32 of them under one key.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from wicketgate.model import WicketgateError

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_KEY_PREFIX: Final = "wicketgate-seal-key:1:"
_SEALED_PREFIX: Final = "sealed:1:"

Context = tuple[str, ...]
"""Where a sealed value belongs, e.g. `("access-key", "AKIA...", "secret")`."""


class SealError(WicketgateError):
    """A key file or a sealed value cannot be used: says which, and what would be right."""


class Seal:
    """Seals and opens values with one key."""

    def __init__(self, key: bytes, source: str) -> None:
        """Use this 32-byte key; `source` is its file, for messages."""
        self._cipher = AESGCM(key)
        self.source = source
        self.key_id = hashlib.sha256(b"wicketgate key id\0" + key).hexdigest()[:16]
        """Public name of the key: kept beside every sealed value, tells nothing about the key."""

    def seal(self, context: Context, data: bytes) -> str:
        """Encrypt `data` so that it opens under the same key and context only."""
        nonce = os.urandom(_NONCE_BYTES)
        ciphertext = self._cipher.encrypt(nonce, data, _bound(context))
        return f"{_SEALED_PREFIX}{self.key_id}:{base64.urlsafe_b64encode(nonce + ciphertext).decode()}"

    def unseal(self, context: Context, sealed: str) -> bytes:
        """Decrypt; raises SealError when it is no sealed value, another key's, altered or from another place."""
        what = "/".join(context)
        key_id, separator, text = sealed.removeprefix(_SEALED_PREFIX).partition(":")
        if not sealed.startswith(_SEALED_PREFIX) or not separator:
            raise SealError(f"{what} is not a sealed value; it was written by something else than wicketgate")
        if key_id != self.key_id:
            raise SealError(
                f"{what} was sealed with key {key_id}, but {self.source} holds key {self.key_id}: "
                "put the key file back that was there when it was written"
            )
        try:
            raw = base64.urlsafe_b64decode(text)
            return self._cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], _bound(context))
        except (InvalidTag, ValueError) as error:  # binascii.Error is a ValueError, and so is a value that is too short
            raise SealError(f"{what} does not open: it was altered, or copied here from another place") from error


def ensure_key(path: Path, *, may_create: bool) -> Seal:
    """The key in a file; made first, mode 0600, when there is none and `may_create` says that nothing is sealed yet.

    Raises SealError for a missing, damaged or too widely readable file.
    """
    try:
        if may_create and not path.exists():
            _create(path)
        return Seal(_read(path), str(path))
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not may_create:
            raise SealError(
                f"key file {path} does not exist, but there are secrets sealed with it: "
                "put it back from where you keep it"
            ) from None
        raise SealError(f"key file {path}: {error.strerror}") from error


def _bound(context: Context) -> bytes:
    return json.dumps(context).encode()  # unambiguous: ("a/b",) and ("a", "b") differ


def _create(path: Path) -> None:
    """Put a new key in place whole, never over another, on disk before it is used."""
    text = _KEY_PREFIX + base64.urlsafe_b64encode(os.urandom(_KEY_BYTES)).decode() + "\n"
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # somebody else was first: theirs is the key
            os.link(temporary, path)
    finally:
        Path(temporary).unlink()
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise SealError(f"key file {path} is not a regular file")
        if status.st_mode & 0o077:
            raise SealError(
                f"key file {path} has mode {stat.S_IMODE(status.st_mode):04o}: others may read it; "
                f"run: chmod 600 {path}"
            )
        text = file.read(256)
    try:
        key = base64.urlsafe_b64decode(text.decode("ascii").strip().removeprefix(_KEY_PREFIX))
    except (UnicodeDecodeError, binascii.Error):
        key = b""
    if not text.startswith(_KEY_PREFIX.encode()) or len(key) != _KEY_BYTES:
        raise SealError(
            f"key file {path} is damaged: it should be one line, {_KEY_PREFIX} and 32 bytes in base64; "
            "put it back from where you keep it"
        )
    return key
