"""What an installation made, so that the next one and `uninstall` know their own from the operator's."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

import msgspec

from wicketgate.model import WicketgateError

MANIFEST: Final = "/etc/wicketgate/.installed.json"


class InstallError(WicketgateError):
    """It cannot be installed here: says what is in the way and what would help."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What is there because of us."""

    version: str = ""
    python: str = ""
    """Interpreter that the units start."""
    letter: str = "a"
    """First letter of the gateway instances in service."""
    instances: int = 0
    accounts: list[str] = []
    directories: list[str] = []
    links: list[str] = []
    files: dict[str, str] = {}
    """Path -> SHA-256 of the text that was written, hexadecimal."""
    state: str = "/var/lib/wicketgate"
    """The state directory, whatever the settings file has said since."""
    unfinished: bool = False
    """A run has begun that did not come to its end: some of this may not be there, or may not have been restarted."""
    layout: int = 0
    """Arrangement of the store's tables that this version writes."""
    schemas: dict[str, int] = {}
    """Kind of resource -> number of the form that this version writes."""


def digest(text: str) -> str:
    """How the manifest names a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def read_manifest(root: Path) -> Manifest | None:
    """The manifest of the installation below `root`; None when there is none. Raises InstallError."""
    path = root / MANIFEST.lstrip("/")
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise InstallError(f"{path} cannot be read: {error}") from error


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Write it whole, for root alone. Raises InstallError."""
    path = root / MANIFEST.lstrip("/")
    new = path.with_name(path.name + ".new")
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        raise InstallError(f"{path} cannot be written: {error.strerror}") from error
