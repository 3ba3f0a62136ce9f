"""From file, environment and flags to a Configuration, or to a line that says where the mistake is."""

from __future__ import annotations

import difflib
import ipaddress
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from wicketgate.configuration.settings import (
    PREFIX,
    ROOT_VARIABLES,
    SETTINGS,
    Configuration,
    ConfigurationError,
    Setting,
)

DEFAULT_FILE: Final = Path("/etc/wicketgate/wicketgate.toml")
"""Read when no other is named, if it exists."""

FILE_VARIABLE: Final = "WICKETGATE_CONFIG"


def load(
    *, file: Path | None = None, environment: Mapping[str, str] | None = None, flags: Mapping[str, str] | None = None
) -> Configuration:
    """All settings, from the file, then the environment, then flags (setting name -> text), the later the stronger.

    The file is the one named, or WICKETGATE_CONFIG's, or `DEFAULT_FILE` if it exists. What is overridden is checked
    all the same. Raises ConfigurationError.
    """
    environment = environment or {}
    chosen: dict[str, Any] = {}
    places: dict[str, str] = {}
    for source in (_from_file(_file(file, environment)), _from_environment(environment), _from_flags(flags or {})):
        for name, (value, place) in source.items():
            chosen[name] = _checked(SETTINGS[name], value, place)
            places[name] = place
    configuration = Configuration(**chosen)
    _check_together(configuration, places)
    return configuration


_Source = dict[str, tuple[Any, str]]


def _file(named: Path | None, environment: Mapping[str, str]) -> Path | None:
    if named is not None:
        return named
    if environment.get(FILE_VARIABLE):
        return Path(environment[FILE_VARIABLE])
    return DEFAULT_FILE if DEFAULT_FILE.exists() else None


def _from_file(file: Path | None) -> _Source:
    if file is None:
        return {}
    try:
        text = file.read_text(encoding="utf-8")
        found = tomllib.loads(text)
    except OSError as error:
        raise ConfigurationError(f"configuration file {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{file}: not TOML: {error}") from error
    source: _Source = {}
    for name, value in found.items():
        line = _line_of(name, text)
        place = f"{file}:{line}" if line else str(file)
        if name not in SETTINGS:
            tables = "; settings stand at the top, in no [table]" if isinstance(value, dict) else ""
            raise ConfigurationError(f"{place}: there is no setting {name!r}{tables}{_meant(name, SETTINGS)}")
        source[name] = (value, f"{place}: {name}")
    return source


def _line_of(name: str, text: str) -> int:
    """The line that sets a name, or that opens the table of that name; 0 when it is not found."""
    key = rf"""["']?{re.escape(name)}["']?\s*"""
    found = re.search(rf"^[ \t]*(\[+\s*{key}[].]|{key}[.=])", text, re.MULTILINE)
    return text.count("\n", 0, found.start()) + 1 if found else 0


def _from_environment(environment: Mapping[str, str]) -> _Source:
    names = {setting.variable: setting.name for setting in SETTINGS.values()}
    known = {*names, FILE_VARIABLE, *ROOT_VARIABLES}
    for variable in environment:
        # Others may have variables of this prefix (a container runtime makes some for a service of our name), so only
        # what looks like a slip of the pen is refused.
        if variable.startswith(PREFIX) and variable not in known and (meant := _meant(variable, known)):
            raise ConfigurationError(f"{variable}: there is no such environment variable{meant}")
    # An empty variable is one that is not set, as usual.
    return {
        name: (_Text(environment[variable]), variable) for variable, name in names.items() if environment.get(variable)
    }


def _from_flags(flags: Mapping[str, str]) -> _Source:
    for name in flags:
        if name not in SETTINGS:
            raise ConfigurationError(f"--{name.replace('_', '-')}: there is no such setting{_meant(name, SETTINGS)}")
    return {name: (_Text(value), SETTINGS[name].flag) for name, value in flags.items()}


class _Text(str):
    """A value that came as text and not with a TOML type."""

    __slots__ = ()


def _meant(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    return f"; did you mean {close[0]}?" if close else ""


# -- checking ----------------------------------------------------------------------------------------------------------


def _checked(setting: Setting, value: Any, place: str) -> Any:
    plain: Any = value
    if isinstance(value, _Text):
        plain = str(value).strip()
        if setting.is_list:
            plain = [] if plain == "[]" else [item.strip() for item in plain.split(",")]
    try:
        found = msgspec.convert(plain, setting.type, strict=not isinstance(value, _Text))
    except msgspec.ValidationError:
        raise _wrong(setting, value, place) from None
    if setting.name == "listen_addresses" and not all(map(_is_address, found)):
        raise _wrong(setting, value, place)
    return found


def _wrong(setting: Setting, value: Any, place: str) -> ConfigurationError:
    shown = repr(str(value)) if isinstance(value, str) else repr(value)
    return ConfigurationError(f"{place}: found {shown}; it should be {setting.expected}")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _check_together(configuration: Configuration, places: Mapping[str, str]) -> None:
    pair = ("certificate_file", "private_key_file")
    missing = [name for name in pair if not getattr(configuration, name)]
    if len(missing) == 1:
        given = next(name for name in pair if name not in missing)
        raise ConfigurationError(
            f"{places[given]}: found {getattr(configuration, given)!r}, but {missing[0]} is not set: "
            "certificate and key are needed both, or neither"
        )
    bound, rules, groups = (
        getattr(configuration, name) for name in ("rules_per_interface", "rules_per_group", "groups_per_interface")
    )
    if rules * groups > bound:
        place = next(
            places[name]
            for name in ("rules_per_group", "groups_per_interface", "rules_per_interface")
            if name in places
        )
        raise ConfigurationError(
            f"{place}: rules_per_group times groups_per_interface is {rules} x {groups} = {rules * groups}, "
            f"it should be at most rules_per_interface, which is {bound}"
        )
