"""Scalars of botocore's shapes from and to text, and the names that members have on the wire.

NaN and infinities are refused in both directions: they compare as neither too small nor too large.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
INT_RANGES: Final = {"integer": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}

EXPECTED: Final = {
    "integer": "an Integer",
    "long": "a Long",
    "float": "a Float",
    "double": "a Double",
    "boolean": "a Boolean, true or false",
    "timestamp": "a Timestamp such as 2026-01-31T23:59:59Z",
    "blob": "a Blob in base64",
    "string": "a String",
    "character": "a String",
    "structure": "a Structure",
    "list": "a List",
    "map": "a Map",
}
"""What a fault of kind TYPE says would be right, by botocore's type name."""

FromText = Callable[[str], Any]
ToText = Callable[[Any], str]

illegal_character = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]").search
"""What XML 1.0 cannot carry (section 2.2): refused in requests, because answers would have to repeat it."""

_is_integer = re.compile(r"[+-]?[0-9]{1,20}").fullmatch
_is_number = re.compile(r"[+-]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,3})?").fullmatch
_is_epoch = re.compile(r"-?[0-9]{1,12}(?:\.[0-9]{1,9})?").fullmatch
_iso_parts = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[Tt ]([0-9]{2}:[0-9]{2}(?::[0-9]{2})?)(\.[0-9]{1,9})?"
    r"([Zz]|[+-][0-9]{2}:?[0-9]{2})?)?"
).fullmatch


def not_allowed(character: str) -> str:
    """Why a value with such a character is refused."""
    return f"It contains the character U+{ord(character):04X}, which XML 1.0 cannot carry."


# -- names ------------------------------------------------------------------------------------------------------------


def query_name(member: Any, name: str, *, ec2: bool) -> str:
    """A structure member's name in a query: botocore's rules for `ec2` (capitalised) and for `query`."""
    if ec2:
        named: str = member.serialization.get("queryName", "")
        located: str = member.serialization.get("name", name)
        return named or located[:1].upper() + located[1:]
    if member.type_name == "list" and is_flattened(member):
        return str(member.member.serialization.get("name") or member.serialization.get("name", name))
    return str(member.serialization.get("name", name))


def xml_name(member: Any, name: str) -> str:
    """A structure member's element name in an answer."""
    if member.type_name == "list" and is_flattened(member) and member.member.serialization.get("name"):
        return str(member.member.serialization["name"])
    return str(member.serialization.get("name", name))


def is_flattened(shape: Any) -> bool:
    """Whether a list or map stands on the wire without an element of its own."""
    return bool(shape.serialization.get("flattened"))


def is_sensitive(shape: Any) -> bool:
    """Whether a value of this shape must not be repeated in messages."""
    return bool(shape.metadata.get("sensitive"))


# -- text to value ----------------------------------------------------------------------------------------------------


def from_text(type_name: str) -> FromText | None:
    """Reads a scalar's text, raising ValueError when it is none; None for strings, which are their text."""
    if type_name in INT_RANGES:
        return _integer_reader(*INT_RANGES[type_name])
    return {
        "float": _read_number,
        "double": _read_number,
        "boolean": _read_boolean,
        "timestamp": read_timestamp,
        "blob": read_blob,
    }.get(type_name)


def _integer_reader(least: int, most: int) -> FromText:
    def read(text: str) -> int:
        if not _is_integer(text) or not least <= (value := int(text)) <= most:
            raise ValueError(text)
        return value

    return read


def _read_number(text: str) -> float:
    if not _is_number(text) or math.isinf(value := float(text)):
        raise ValueError(text)
    return value


def _read_boolean(text: str) -> bool:
    lowered = text.lower()
    if lowered not in ("true", "false"):
        raise ValueError(text)
    return lowered == "true"


def read_timestamp(text: str) -> datetime:
    """ISO 8601 (a missing zone is UTC, a missing time midnight, nanoseconds are cut) or seconds since the epoch.

    Raises ValueError for anything else, and for what the calendar or the years 1 to 9999 do not have.
    """
    if parts := _iso_parts(text):
        day, clock, fraction, zone = parts.groups()
        parsed = datetime.fromisoformat(f"{day}T{clock or '00:00'}{_zone(zone)}")
        micros = int((fraction or ".0")[1:7].ljust(6, "0"))
        return _in_utc(parsed.replace(microsecond=micros))
    if _is_epoch(text):
        whole, _, fraction = text.partition(".")
        micros = int(fraction[:6].ljust(6, "0"))
        return from_epoch(timedelta(seconds=int(whole), microseconds=-micros if text.startswith("-") else micros))
    raise ValueError(text)


def _zone(zone: str | None) -> str:
    if zone is None or zone in "Zz":
        return "+00:00"
    return zone if ":" in zone else f"{zone[:3]}:{zone[3:]}"


def from_epoch(since: timedelta) -> datetime:
    """The moment so long after 1970; raises ValueError beyond the years 1 to 9999."""
    try:
        return EPOCH + since
    except OverflowError:
        raise ValueError(f"{since} after 1970 is beyond the calendar") from None


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{moment} is beyond the calendar in UTC") from None


def read_blob(text: str) -> bytes:
    """Base64 with its padding, line breaks allowed; raises ValueError."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("not base64") from None


# -- value to text ----------------------------------------------------------------------------------------------------


def to_text(type_name: str, *, milliseconds: bool) -> ToText:
    """Writes a scalar other than a string; raises TypeError or ValueError for a value that does not fit (our bug)."""
    if type_name in INT_RANGES:
        return _write_integer
    if type_name in ("float", "double"):
        return _write_number
    if type_name == "timestamp":
        return write_milliseconds if milliseconds else write_seconds
    return {"boolean": _write_boolean, "blob": write_blob}[type_name]


def _write_integer(value: Any) -> str:
    if value.__class__ is not int:
        raise TypeError(f"{value!r} is not an integer")
    return str(value)


def _write_number(value: Any) -> str:
    return repr(finite(value))


def finite(value: Any) -> float:
    """The value, if it is a number that every client can read; raises TypeError or ValueError."""
    if value.__class__ not in (int, float):
        raise TypeError(f"{value!r} is not a number")
    if not math.isfinite(value):
        raise ValueError(f"{value!r} is not finite")
    return float(value)


def _write_boolean(value: Any) -> str:
    if value.__class__ is not bool:
        raise TypeError(f"{value!r} is not a boolean")
    return "true" if value else "false"


def write_milliseconds(value: datetime) -> str:
    """EC2's timestamps: `2026-01-31T23:59:59.000Z`; raises ValueError without a time zone."""
    utc = _aware(value)
    return f"{_to_the_second(utc)}.{utc.microsecond // 1000:03d}Z"


def write_seconds(value: datetime) -> str:
    """IAM's and STS's timestamps: `2026-01-31T23:59:59Z`, fractions cut; raises ValueError without a time zone."""
    return f"{_to_the_second(_aware(value))}Z"


def _to_the_second(utc: datetime) -> str:
    return utc.replace(tzinfo=None).isoformat(timespec="seconds")  # strftime does not pad the years before 1000


def _aware(value: datetime) -> datetime:
    if not isinstance(value, datetime):
        raise TypeError(f"{value!r} is not a datetime")
    if value.tzinfo is None:
        raise ValueError(f"{value!r} has no time zone")
    return value.astimezone(UTC)


def epoch_seconds(value: datetime) -> float | int:
    """JSON 1.1's timestamps: seconds since the epoch, to the millisecond; raises ValueError without a time zone."""
    milliseconds = (_aware(value) - EPOCH) // timedelta(milliseconds=1)
    return milliseconds / 1000 if milliseconds % 1000 else milliseconds // 1000


def write_blob(value: Any) -> str:
    """Base64; raises TypeError for anything but bytes."""
    return base64.b64encode(value).decode("ascii")
