"""Condition operators as a table: how each reads a policy's value, and how it compares a request's value with it.

Source: IAM User Guide, reference_policies_elements_condition_operators. A request's value that an operator cannot read
(a number that is none) equals nothing: it fails a plain operator and satisfies a negated one, as a missing key does.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

import msgspec

from wicketgate.iam.patterns import Context, Template, template
from wicketgate.model.addresses import ipv4_value

Read = Callable[[str, bool], Any]
"""(policy's text, whether variables exist) -> the value to compare with; raises ValueError saying what is needed."""
Compare = Callable[[str, Any, Context], bool | None]
"""(request's value, what Read made, context) -> whether they match; None if a variable has no value."""


class Operator(msgspec.Struct, frozen=True):
    """One condition operator, without prefix and suffix."""

    name: str
    read: Read
    compare: Compare
    wording: str
    """Says what did not hold, between the request's value and the policy's: `3389` *is not* `22`."""
    negated: bool = False
    """Holds when no value matches."""


# -- strings and ARNs: variables are replaced at comparison ------------------------------------------------------------


def _text(text: str, variables: bool) -> Template:
    return template(text, variables)


def _equals(value: str, wanted: Template, context: Context) -> bool | None:
    text = wanted.literal(context)
    return None if text is None else value == text


def _equals_ignoring_case(value: str, wanted: Template, context: Context) -> bool | None:
    text = wanted.literal(context)
    return None if text is None else value.lower() == text.lower()


def _like(value: str, wanted: Template, context: Context) -> bool | None:
    return wanted.fits(value, context)


def _arn(text: str, variables: bool) -> tuple[Template, ...]:
    """The six parts of an ARN, each a pattern of its own."""
    return tuple(template(part, variables) for part in _split_arn(text))


def _split_arn(text: str) -> list[str]:
    """Split at the first five colons that are not inside a variable."""
    masked = re.sub(r"\$\{[^}]*\}", lambda found: found.group().replace(":", "\0"), text)
    return [part.replace("\0", ":") for part in masked.split(":", 5)]


def _arn_like(value: str, wanted: tuple[Template, ...], context: Context) -> bool | None:
    parts = value.split(":", 5)
    if len(wanted) == 1 and wanted[0].text == "*":
        return True
    if len(parts) != len(wanted):
        return False
    fits = [pattern.fits(part, context) for pattern, part in zip(wanted, parts, strict=True)]
    return None if None in fits else all(fits)


# -- numbers, dates, addresses, truth values: read once, no variables --------------------------------------------------

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_is_number = re.compile(r"[+-]?[0-9]{1,40}(?:\.[0-9]{1,40})?").fullmatch
_w3c_date = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(Z|[+-]\d\d:\d\d)?)?)?)?", re.ASCII
).fullmatch


def _number(text: str, _: bool = False) -> Decimal:
    if not _is_number(text):
        raise ValueError("a number such as 22 is needed")
    return Decimal(text)


@lru_cache(maxsize=1024)
def _number_or_none(text: str) -> Decimal | None:
    return Decimal(text) if _is_number(text) else None


def _numeric(test: Callable[[Decimal, Decimal], bool]) -> Compare:
    def compare(value: str, wanted: Decimal, _: Context) -> bool:
        number = _number_or_none(value)
        return number is not None and test(number, wanted)

    return compare


def _date(text: str, _: bool = False) -> float:
    """Seconds since the epoch, from those or from a W3C date (NOTE-datetime); four digits are a year."""
    found = _w3c_date(text)
    if found is None:
        if _is_number(text):
            return float(text)
        raise ValueError("a date such as 2026-01-31T00:00:00Z or seconds since 1970 are needed")
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    iso = f"{year}-{month or '01'}-{day or '01'}T{hour or '00'}:{minute or '00'}:{second or '00'}"
    try:
        moment = datetime.fromisoformat(iso + ("+00:00" if zone in (None, "Z") else zone))
    except ValueError:
        raise ValueError("a date that exists is needed") from None
    return (moment - _EPOCH).total_seconds() + float(f"0.{fraction or 0}")


def _dated(test: Callable[[float, float], bool]) -> Compare:
    def compare(value: str, wanted: float, _: Context) -> bool:
        try:
            return test(_date(value), wanted)
        except ValueError:
            return False

    return compare


class Block(msgspec.Struct, frozen=True):
    """A CIDR block as numbers."""

    version: int
    first: int
    last: int


_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")


def _block(text: str, _: bool = False) -> Block:
    try:
        network = ipaddress.ip_network(text, strict=False)  # host bits are masked off
    except ValueError:
        raise ValueError("an address or CIDR block such as 10.0.1.0/24 is needed") from None
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        # ::ffff:a.b.c.d is the IPv4 address a.b.c.d, in policies as in requests.
        mapped = int(network.network_address) & 0xFFFFFFFF
        network = ipaddress.ip_network((mapped, network.prefixlen - 96))
    return Block(network.version, int(network.network_address), int(network.broadcast_address))


@lru_cache(maxsize=8192)
def _address(text: str) -> tuple[int, int] | None:
    if (value := ipv4_value(text)) is not None:
        return 4, value
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    address = getattr(address, "ipv4_mapped", None) or address
    return address.version, int(address)


def _inside(value: str, block: Block, _: Context) -> bool:
    address = _address(value)
    return address is not None and address[0] == block.version and block.first <= address[1] <= block.last


def _truth(text: str, _: bool = False) -> str:
    if text.lower() not in ("true", "false"):
        raise ValueError("true or false is needed")
    return text.lower()


def _same_truth(value: str, wanted: str, _: Context) -> bool:
    return value.lower() == wanted


def _bytes(text: str, _: bool = False) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("base64 is needed") from None


def _same_bytes(value: str, wanted: bytes, _: Context) -> bool:
    """Binary values are in the context as base64 text."""
    try:
        return _bytes(value) == wanted
    except ValueError:
        return False


# -- the table ---------------------------------------------------------------------------------------------------------

_NUMERIC_TESTS: Final[tuple[tuple[str, Callable[[Any, Any], bool], str], ...]] = (
    ("Equals", lambda value, wanted: value == wanted, "is not"),
    ("LessThan", lambda value, wanted: value < wanted, "is not less than"),
    ("LessThanEquals", lambda value, wanted: value <= wanted, "is more than"),
    ("GreaterThan", lambda value, wanted: value > wanted, "is not more than"),
    ("GreaterThanEquals", lambda value, wanted: value >= wanted, "is less than"),
)

_ALL: Final = (
    Operator("StringEquals", _text, _equals, "is not"),
    Operator("StringNotEquals", _text, _equals, "is", True),
    Operator("StringEqualsIgnoreCase", _text, _equals_ignoring_case, "is not"),
    Operator("StringNotEqualsIgnoreCase", _text, _equals_ignoring_case, "is", True),
    Operator("StringLike", _text, _like, "is not like"),
    Operator("StringNotLike", _text, _like, "is like", True),
    *(Operator(f"Numeric{name}", _number, _numeric(test), words) for name, test, words in _NUMERIC_TESTS),
    Operator("NumericNotEquals", _number, _numeric(lambda value, wanted: value == wanted), "is", True),
    *(Operator(f"Date{name}", _date, _dated(test), words) for name, test, words in _NUMERIC_TESTS),
    Operator("DateNotEquals", _date, _dated(lambda value, wanted: value == wanted), "is", True),
    Operator("Bool", _truth, _same_truth, "is not"),
    Operator("BinaryEquals", _bytes, _same_bytes, "is not"),
    Operator("IpAddress", _block, _inside, "is not in"),
    Operator("NotIpAddress", _block, _inside, "is in", True),
    Operator("ArnEquals", _arn, _arn_like, "is not like"),
    Operator("ArnLike", _arn, _arn_like, "is not like"),
    Operator("ArnNotEquals", _arn, _arn_like, "is like", True),
    Operator("ArnNotLike", _arn, _arn_like, "is like", True),
    Operator("Null", _truth, _same_truth, "is not"),
)

OPERATORS: Final = {operator.name: operator for operator in _ALL}
"""Every operator by name."""
