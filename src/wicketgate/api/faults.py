"""What was wrong with a request, and how each protocol words it.

Parsers collect `Fault`s and know no AWS texts; `worded` turns them into the one `ApiError` that is answered. Sources of
the words: EC2 API Reference "Error codes" (codes) and answers of AWS that users quoted in public bug reports ("The
parameter Item is not recognized", "Value ( 1 ) for parameter maxResults is invalid. Expecting a value greater than 5.",
"1 validation error detected: Value '0' at 'maxResults' failed to satisfy constraint: Member must have value greater
than or equal to 1", "STRING_VALUE can not be converted to an Integer"). EC2 stops at the first fault; the framework
behind IAM, STS and the JSON services lists all constraint violations in one message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from wicketgate.model.errors import ApiError, WicketgateError

MAX_SHOWN: Final = 256
"""Characters of a caller's text that an error repeats."""
MAX_LISTED: Final = 10
"""Constraint violations that one message lists."""
MAX_FAULTS: Final = 100
"""Faults after which the rest of a list is not looked at."""


class Protocol(StrEnum):
    """The wire formats, by botocore's names."""

    EC2 = "ec2"
    QUERY = "query"
    JSON = "json"


class OutputError(WicketgateError):
    """Our bug: an operation's answer does not fit its output shape."""


class Kind(StrEnum):
    """What can be wrong. The second block is what AWS calls constraints of a member."""

    SYNTAX = "syntax"
    UNKNOWN = "unknown"
    INDEX = "index"
    TYPE = "type"
    CHARACTER = "character"

    MISSING = "missing"
    MIN_LENGTH = "min length"
    MAX_LENGTH = "max length"
    MIN_SIZE = "min size"
    MAX_SIZE = "max size"
    MIN_VALUE = "min value"
    MAX_VALUE = "max value"
    PATTERN = "pattern"
    ENUM = "enum"
    UNION = "union"


class Fault(NamedTuple):
    """One thing wrong with one parameter."""

    kind: Kind
    path: str
    """Where, in the names of the wire: `IpPermissions.1.FromPort`, `Tags.member.2.Key`."""
    value: str | None = ""
    """As sent; None where the model marks the member as sensitive: it is not repeated."""
    limit: str = ""
    """What would be right: a number, a pattern, the expected type."""


Faults = list[Fault]

_CONSTRAINTS: Final = frozenset(Kind) - {Kind.SYNTAX, Kind.UNKNOWN, Kind.INDEX, Kind.TYPE, Kind.CHARACTER}

_CODES: Final[Mapping[Protocol, Mapping[Kind, str]]] = {
    Protocol.EC2: {
        Kind.SYNTAX: "MalformedQueryString",
        Kind.UNKNOWN: "UnknownParameter",
        Kind.MISSING: "MissingParameter",
    },
    Protocol.QUERY: {
        Kind.SYNTAX: "MalformedQueryString",
        Kind.UNKNOWN: "InvalidQueryParameter",
        Kind.INDEX: "MalformedInput",
        Kind.TYPE: "MalformedInput",
    },
    Protocol.JSON: {
        Kind.SYNTAX: "SerializationException",
        Kind.UNKNOWN: "SerializationException",
        Kind.TYPE: "SerializationException",
        Kind.CHARACTER: "SerializationException",
    },
}
_OTHERWISE: Final[Mapping[Protocol, str]] = {
    Protocol.EC2: "InvalidParameterValue",
    Protocol.QUERY: "ValidationError",
    Protocol.JSON: "ValidationException",
}
_OTHERWISE_BY_SERVICE: Final[Mapping[str, str]] = {"ec2-instance-connect": "InvalidArgsException"}
"""Services whose model has an exception of their own for bad arguments."""

_EC2_WORDS: Final[Mapping[Kind, str]] = {
    Kind.INDEX: "The list index of parameter {path} is invalid. {limit}",
    Kind.TYPE: "Value ({value}) for parameter {path} is invalid. Expecting {limit}.",
    Kind.CHARACTER: "Value for parameter {path} is invalid. {limit}",
    Kind.MISSING: "The request must contain the parameter {path}",
    Kind.MIN_LENGTH: "Value ({value}) for parameter {path} is invalid. Expecting at least {limit} characters.",
    Kind.MAX_LENGTH: "Value ({value}) for parameter {path} is invalid. Expecting at most {limit} characters.",
    Kind.MIN_SIZE: "The parameter {path} has {value} items. Expecting at least {limit}.",
    Kind.MAX_SIZE: "The parameter {path} has {value} items. Expecting at most {limit}.",
    Kind.MIN_VALUE: "Value ( {value} ) for parameter {camel} is invalid. Expecting a value greater than {limit}.",
    Kind.MAX_VALUE: "Value ( {value} ) for parameter {camel} is invalid. Expecting a value less than {limit}.",
    Kind.PATTERN: "Value ({value}) for parameter {path} is invalid. Expecting the pattern {limit}",
    Kind.ENUM: "Value ({value}) for parameter {path} is invalid. Expecting one of: {limit}.",
    Kind.UNION: "The parameter {path} has {value} members. Expecting exactly one of: {limit}.",
}
"""The limits themselves are allowed values; AWS says "greater than" all the same, and so do we."""

_CONSTRAINT_WORDS: Final[Mapping[Kind, str]] = {
    Kind.MISSING: "Member must not be null",
    Kind.MIN_LENGTH: "Member must have length greater than or equal to {limit}",
    Kind.MAX_LENGTH: "Member must have length less than or equal to {limit}",
    Kind.MIN_SIZE: "Member must have length greater than or equal to {limit}",
    Kind.MAX_SIZE: "Member must have length less than or equal to {limit}",
    Kind.MIN_VALUE: "Member must have value greater than or equal to {limit}",
    Kind.MAX_VALUE: "Member must have value less than or equal to {limit}",
    Kind.PATTERN: "Member must satisfy regular expression pattern: {limit}",
    Kind.ENUM: "Member must satisfy enum value set: [{limit}]",
    Kind.UNION: "Member must have exactly one of [{limit}] set",
}

_FRAMEWORK_WORDS: Final[Mapping[Kind, str]] = {
    Kind.INDEX: "The list index at '{camel}' is invalid. {limit}",
    Kind.TYPE: "{value} can not be converted to {limit} at '{camel}'",
    Kind.CHARACTER: "The value at '{camel}' is invalid. {limit}",
    Kind.UNKNOWN: "The parameter {path} is not recognized",
}

_index_after_member = re.compile(r"\.(member|entry)\.(\d+)").sub


def shown(text: str) -> str:
    """A caller's text for use in a message, cut at MAX_SHOWN characters."""
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def camel(path: str) -> str:
    """A path as AWS's messages write it: `Tags.member.6.Value` is `tags.6.member.value`."""
    return ".".join(part[:1].lower() + part[1:] for part in _index_after_member(r".\2.\1", path).split("."))


def worded(faults: Sequence[Fault], protocol: Protocol, service: str) -> ApiError:
    """The error that answers a request with these faults (at least one), in the order found."""
    # A misspelt name explains the missing one that comes with it, so what is not a constraint is told first.
    first = next((fault for fault in faults if fault.kind not in _CONSTRAINTS), faults[0])
    code = _CODES[protocol].get(first.kind) or _OTHERWISE_BY_SERVICE.get(service, _OTHERWISE[protocol])
    if first.kind is Kind.SYNTAX:
        return ApiError(code, first.limit)
    if protocol is Protocol.EC2:
        return ApiError(code, _ec2_words(first))
    if first.kind in _CONSTRAINTS:
        return ApiError(code, _constraints([fault for fault in faults if fault.kind in _CONSTRAINTS]))
    if protocol is Protocol.QUERY:  # what a form holds is always text; the text itself may be sensitive
        first = first._replace(value="STRING_VALUE")
    return ApiError(code, _filled(_FRAMEWORK_WORDS[first.kind], first))


def _ec2_words(fault: Fault) -> str:
    if fault.kind is Kind.UNKNOWN:
        # AWS names the root of what it does not know: `Item.1.Key` is "The parameter Item is not recognized".
        return f"The parameter {shown(fault.path)} is not recognized"
    return _filled(_EC2_WORDS[fault.kind], fault)


def _filled(words: str, fault: Fault) -> str:
    value = "hidden: it is sensitive" if fault.value is None else shown(fault.value)
    path = shown(fault.path)
    return words.format(path=path, camel=camel(path), value=value, limit=fault.limit)


def _constraints(faults: Sequence[Fault]) -> str:
    """The framework's one line for all violated constraints."""
    count = len(faults)
    errors = "1 validation error" if count == 1 else f"{count} validation errors"
    listed = "; ".join(_constraint(fault) for fault in faults[:MAX_LISTED])
    return f"{errors} detected: {listed}"


def _constraint(fault: Fault) -> str:
    value = f"Value '{shown(fault.value)}'" if fault.value is not None else "Value"
    if fault.kind is Kind.MISSING:
        value = "Value null"
    rule = _filled(_CONSTRAINT_WORDS[fault.kind], fault)
    return f"{value} at '{camel(shown(fault.path))}' failed to satisfy constraint: {rule}"
