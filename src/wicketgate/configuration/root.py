"""The root credential as the operator gives it."""

from __future__ import annotations

import configparser
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from wicketgate.configuration.settings import ROOT_VARIABLES, Configuration, ConfigurationError
from wicketgate.store import RootCredential


def given_root_credential(configuration: Configuration, environment: Mapping[str, str]) -> RootCredential | None:
    """The operator's root credential, from the environment or else the file; None when there is neither.

    Raises ConfigurationError. Values are never part of its message, for one of them is a secret.
    """
    given = [environment.get(name, "") for name in ROOT_VARIABLES]
    if any(given):
        if not all(given):
            missing = ROOT_VARIABLES[given.index("")]
            raise ConfigurationError(
                f"{missing} is not set: {' and '.join(ROOT_VARIABLES)} are needed both, or neither"
            )
        return _root(given[0], given[1], ROOT_VARIABLES)
    if not configuration.root_credential_file:
        return None
    return root_credential_in(Path(configuration.root_credential_file))


_FILE_KEYS: Final = ("aws_access_key_id", "aws_secret_access_key")


def root_credential_in(path: Path, *, private: bool = True) -> RootCredential:
    """The credential in a file that others must not be able to read, unless somebody else has seen to that (`private`).

    Raises ConfigurationError, in whose message there is nothing of the file.
    """
    parser = configparser.RawConfigParser(default_section="")
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            if private and mode & 0o077:
                raise ConfigurationError(
                    f"root credential file {path} has mode {stat.S_IMODE(mode):04o}: others may read it; "
                    f"run: chmod 600 {path}"
                )
            parser.read_file(file)
        values = [parser.get("default", key) for key in _FILE_KEYS]
    except OSError as error:
        raise ConfigurationError(f"root credential file {path}: {error.strerror}") from error
    except (configparser.Error, UnicodeDecodeError):  # their words would show lines of the file
        raise ConfigurationError(
            f"root credential file {path} should have a section [default] with {' and '.join(_FILE_KEYS)}, "
            "as an AWS credentials file has"
        ) from None
    return _root(values[0], values[1], (f"{path}: {_FILE_KEYS[0]}", f"{path}: {_FILE_KEYS[1]}"))


def _root(access_key_id: str, secret: str, places: tuple[str, str]) -> RootCredential:
    # the forms that IAM gives access keys (IAM API Reference, AccessKey); the secret's own length is not documented
    if not re.fullmatch("[A-Z0-9]{16,128}", access_key_id):
        raise ConfigurationError(
            f"{places[0]}: it should be 16 to 128 capital letters and digits, e.g. AKIA and 16 more"
        )
    if not re.fullmatch("[!-~]{16,128}", secret):
        raise ConfigurationError(f"{places[1]}: it should be 16 to 128 printable ASCII characters without spaces")
    return RootCredential(access_key_id=access_key_id, secret_access_key=secret)
