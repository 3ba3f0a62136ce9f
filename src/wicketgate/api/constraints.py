"""The constraints of botocore's shapes: enums, lengths, ranges, patterns.

A shape's constraints become one function, once; requests only run it. Where the models are silent or wrong:
- a pattern must match the whole value, as AWS's framework has it; `\\w` and `\\d` mean ASCII;
- an enum is enforced wherever the model has one;
- lengths count code points;
- a pattern that no value can match is not enforced (`IMPOSSIBLE`);
- what EC2 refuses in words of its own, or what we offer beyond the model, is left to the action (`IN_OTHER_WORDS`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Final

from wicketgate.api.faults import Kind

IMPOSSIBLE: Final = frozenset({"^arn:aws([a-z-]+)?:ec2:[a-z\\d-]+:\\d{12}:placement-group/^.{1,255}$"})
"""Patterns of the models that match nothing: a `^` in their middle."""

IN_OTHER_WORDS: Final = frozenset({"AddPrefixListEntries", "RemovePrefixListEntries", "IpAddress", "Protocol"})
"""What the actions check: lengths of lists; of Reachability Analyzer addresses, which here may be IPv6, and protocols,
which in AWS's own examples are in capitals."""

Broken = tuple[Kind, str]
"""A violated constraint and its limit."""
Check = Callable[[Any], Broken | None]

# Unicode's separators (category Z); letters and numbers are what Python's own `\w` means.
_SEPARATORS: Final = " \\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000"
_SURROGATE_PAIRS: Final = "\\uD800\\uDC00-\\uDBFF\\uDFFF"


def check_of(shape: Any) -> Check | None:
    """A function that finds the violated constraint of a value of this shape; None if the shape has no constraint.

    Lengths come before patterns, so that no pattern ever sees more text than the model allows.
    """
    if shape.name in IN_OTHER_WORDS:
        return None
    if shape.type_name in ("string", "character"):
        return _all_of(_enum_check(shape), _size_check(shape, Kind.MIN_LENGTH, Kind.MAX_LENGTH), _pattern_check(shape))
    if shape.type_name in ("integer", "long", "float", "double"):
        return _value_check(shape)
    if shape.type_name == "blob":
        return _size_check(shape, Kind.MIN_LENGTH, Kind.MAX_LENGTH)
    if shape.type_name in ("list", "map"):
        return _size_check(shape, Kind.MIN_SIZE, Kind.MAX_SIZE)
    return None


def _all_of(*checks: Check | None) -> Check | None:
    present = [check for check in checks if check is not None]
    if len(present) < 2:
        return present[0] if present else None

    def check_all(value: Any) -> Broken | None:
        return next((broken for check in present if (broken := check(value))), None)

    return check_all


def _enum_check(shape: Any) -> Check | None:
    values = frozenset(shape.enum)
    if not values:
        return None
    named = shape.enum if len(shape.enum) <= 20 else [*shape.enum[:20], f"... ({len(shape.enum)} values)"]
    broken = (Kind.ENUM, ", ".join(named))
    return lambda value: None if value in values else broken


def _size_check(shape: Any, too_small: Kind, too_large: Kind) -> Check | None:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if not least and most is None:
        return None
    small, large = (too_small, str(least)), (too_large, str(most))
    floor, ceiling = least or 0, math.inf if most is None else most

    def check(value: Any) -> Broken | None:
        size = len(value)
        if floor <= size <= ceiling:
            return None
        return small if size < floor else large

    return check


def _value_check(shape: Any) -> Check | None:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is None and most is None:
        return None
    small, large = (Kind.MIN_VALUE, str(least)), (Kind.MAX_VALUE, str(most))
    floor, ceiling = -math.inf if least is None else least, math.inf if most is None else most

    def check(value: Any) -> Broken | None:
        if floor <= value <= ceiling:
            return None
        return small if value < floor else large

    return check


def _pattern_check(shape: Any) -> Check | None:
    pattern = shape.metadata.get("pattern")
    if pattern is None or pattern in IMPOSSIBLE:
        return None
    matches = compile_pattern(pattern).fullmatch
    broken = (Kind.PATTERN, pattern)
    return lambda value: None if matches(value) else broken


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A model's pattern (Java's dialect) as Python's; to be used with `fullmatch`.

    All `\\p{..}` of the models are L, N and Z inside a class that also has `_`, so `\\w` adds nothing.
    Surrogate pairs, which only UTF-16 has, stand for the characters beyond U+FFFF.
    """
    if "\\p{" in pattern:
        translated = pattern.replace("\\p{L}", "\\w").replace("\\p{N}", "\\d").replace("\\p{Z}", _SEPARATORS)
        return re.compile(translated)
    return re.compile(pattern.replace(_SURROGATE_PAIRS, "\U00010000-\U0010ffff"), re.ASCII)
