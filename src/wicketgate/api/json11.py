"""Reads and writes AWS's JSON 1.1 protocol (CloudTrail, EC2 Instance Connect).

Stricter than JSON parsers are by default: a name given twice, NaN, lone surrogates and members that the model does not
have are refused. A member that is null is absent. Timestamps are seconds since the epoch; ISO 8601 is read as well.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, NoReturn

import msgspec

from wicketgate.api.constraints import check_of
from wicketgate.api.faults import MAX_FAULTS, Fault, Faults, Kind
from wicketgate.api.shapes import (
    EXPECTED,
    INT_RANGES,
    epoch_seconds,
    finite,
    from_epoch,
    illegal_character,
    is_sensitive,
    not_allowed,
    read_blob,
    read_timestamp,
    write_blob,
)
from wicketgate.model import ApiError

Parser = Callable[[Any, str, Faults], Any]
Converter = Callable[[Any], Any]
"""A value of an answer to what the JSON encoder takes; raises TypeError or ValueError for our bugs."""

_encode = msgspec.json.Encoder().encode


def parse_document(body: bytes, faults: Faults) -> dict[str, Any]:
    """The object that a body holds; an empty body is an empty object."""
    if not body:
        return {}
    try:
        document = json.loads(body.decode(), object_pairs_hook=_once, parse_constant=_no_constant)
    except UnicodeDecodeError:
        faults.append(_syntax("The request body is not UTF-8."))
    except RecursionError:
        faults.append(_syntax("The request body is nested too deeply."))
    except ValueError as error:
        faults.append(_syntax(f"The request body is not valid JSON: {error}."))
    else:
        if isinstance(document, dict):
            return document
        faults.append(_syntax("The request body is not a JSON object."))
    return {}


def _syntax(text: str) -> Fault:
    return Fault(Kind.SYNTAX, "", limit=text)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the name {twice[:64]!a} is given twice")
    return members


def _no_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


# -- input ------------------------------------------------------------------------------------------------------------


class JsonCompiler:
    """Makes the parser of input shapes and the converter of output shapes, once."""

    def __init__(self) -> None:
        self._parsers: dict[str, Parser] = {}
        self._converters: dict[str, Converter] = {}

    def parser(self, shape: Any) -> Parser:
        """The parser of a shape."""
        match shape.type_name:
            case "structure":
                return self._structure_parser(shape)
            case "list":
                return self._list_parser(shape)
            case "map":
                return self._map_parser(shape)
        return _scalar_parser(shape)

    def _structure_parser(self, shape: Any) -> Parser:
        if shape.name in self._parsers:
            return self._parsers[shape.name]
        members: dict[str, tuple[str, Parser]] = {}
        required: list[tuple[str, str]] = []
        union = shape.is_tagged_union

        def parse(node: Any, path: str, faults: Faults) -> dict[str, Any]:
            if not isinstance(node, dict):
                _wrong_type(node, path, faults, "structure")
                return {}
            value: dict[str, Any] = {}
            prefix = f"{path}." if path else ""
            for wire, child in node.items():
                member = members.get(wire)
                if member is None:
                    faults.append(Fault(Kind.UNKNOWN, prefix + wire[:64]))
                elif child is not None:
                    value[member[0]] = member[1](child, prefix + wire, faults)
            for name, wire in required:
                if name not in value:
                    faults.append(Fault(Kind.MISSING, prefix + wire))
            if union and len(value) != 1:
                faults.append(Fault(Kind.UNION, path, str(len(value)), ", ".join(members)))
            return value

        self._parsers[shape.name] = parse
        for name, member in shape.members.items():
            members[_wire(member, name)] = (name, self.parser(member))
        required += [(name, _wire(shape.members[name], name)) for name in shape.required_members]
        return parse

    def _list_parser(self, shape: Any) -> Parser:
        parse_item = self.parser(shape.member)
        check = check_of(shape)

        def parse(node: Any, path: str, faults: Faults) -> list[Any]:
            if not isinstance(node, list):
                _wrong_type(node, path, faults, "list")
                return []
            value = []
            for place, item in enumerate(node, 1):
                value.append(parse_item(item, f"{path}.member.{place}", faults))
                if len(faults) > MAX_FAULTS:
                    break
            if check is not None and (broken := check(value)):
                faults.append(Fault(broken[0], path, str(len(value)), broken[1]))
            return value

        return parse

    def _map_parser(self, shape: Any) -> Parser:
        parse_key, parse_value = self.parser(shape.key), self.parser(shape.value)
        check = check_of(shape)

        def parse(node: Any, path: str, faults: Faults) -> dict[str, Any]:
            if not isinstance(node, dict):
                _wrong_type(node, path, faults, "map")
                return {}
            value = {}
            for key, item in node.items():
                place = f"{path}.{key[:64]}"
                value[parse_key(key, f"{place}.key", faults)] = parse_value(item, place, faults)
            if check is not None and (broken := check(value)):
                faults.append(Fault(broken[0], path, str(len(value)), broken[1]))
            return value

        return parse

    # -- output -------------------------------------------------------------------------------------------------------

    def converter(self, shape: Any) -> Converter:
        """The converter of a shape."""
        match shape.type_name:
            case "structure":
                return self._structure_converter(shape)
            case "list":
                convert_item = self.converter(shape.member)
                return lambda value: [convert_item(item) for item in value]
            case "map":
                convert_value = self.converter(shape.value)
                return lambda value: {_write_string(key): convert_value(item) for key, item in value.items()}
        return _SCALAR_CONVERTERS[shape.type_name]

    def _structure_converter(self, shape: Any) -> Converter:
        if shape.name in self._converters:
            return self._converters[shape.name]
        members: dict[str, tuple[str, Converter]] = {}
        shape_name = shape.name

        def convert(value: Any) -> dict[str, Any]:
            converted = {}
            for name, item in value.items():
                if item is None:
                    continue
                if name not in members:
                    raise TypeError(f"{shape_name} has no member {name}")
                wire, convert_member = members[name]
                converted[wire] = convert_member(item)
            return converted

        self._converters[shape.name] = convert
        for name, member in shape.members.items():
            members[name] = (_wire(member, name), self.converter(member))
        return convert


def _wire(member: Any, name: str) -> str:
    return str(member.serialization.get("name", name))


def _scalar_parser(shape: Any) -> Parser:
    convert = _SCALAR_READERS[shape.type_name]
    check = check_of(shape)
    hidden = is_sensitive(shape)
    type_name = shape.type_name

    def parse(node: Any, path: str, faults: Faults) -> Any:
        try:
            value = convert(node)
        except (TypeError, ValueError, OverflowError):
            _wrong_type(node, path, faults, type_name)
            return node
        if node.__class__ is str and (found := illegal_character(node)):
            faults.append(Fault(Kind.CHARACTER, path, limit=not_allowed(found[0])))
        elif check is not None and (broken := check(value)):
            faults.append(Fault(broken[0], path, None if hidden else str(node), broken[1]))
        return value

    return parse


def _wrong_type(node: Any, path: str, faults: Faults, type_name: str) -> None:
    faults.append(Fault(Kind.TYPE, path, _token(node), EXPECTED[type_name]))


def _token(node: Any) -> str:
    """What AWS's deserializer calls a JSON value; the value itself is not repeated, it may be sensitive."""
    if isinstance(node, bool):
        return "TRUE_VALUE" if node else "FALSE_VALUE"
    names = {str: "STRING_VALUE", int: "NUMBER_VALUE", float: "DECIMAL_VALUE", dict: "OBJECT", list: "ARRAY"}
    return names.get(type(node), "NULL_VALUE")


def _read_string(node: Any) -> str:
    if not isinstance(node, str):
        raise TypeError
    return node


def _integer_reader(least: int, most: int) -> Converter:
    def read(node: Any) -> int:
        if node.__class__ is not int or not least <= node <= most:
            raise ValueError
        return int(node)

    return read


def _read_number(node: Any) -> float:
    if node.__class__ not in (int, float) or not math.isfinite(value := float(node)):  # 1e999 reads as infinity
        raise ValueError
    return value


def _read_boolean(node: Any) -> bool:
    if not isinstance(node, bool):
        raise TypeError
    return node


def _read_moment(node: Any) -> datetime:
    if isinstance(node, str):
        return read_timestamp(node)
    if node.__class__ is int and abs(node) < 10**12:
        return from_epoch(timedelta(seconds=node))
    return from_epoch(timedelta(seconds=_read_number(node)))


_SCALAR_READERS: dict[str, Converter] = {
    "string": _read_string,
    "character": _read_string,
    "integer": _integer_reader(*INT_RANGES["integer"]),
    "long": _integer_reader(*INT_RANGES["long"]),
    "float": _read_number,
    "double": _read_number,
    "boolean": _read_boolean,
    "timestamp": _read_moment,
    "blob": lambda node: read_blob(_read_string(node)),
}


# -- output -----------------------------------------------------------------------------------------------------------


def _write_string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    return value


def _exactly(kind: type) -> Converter:
    def convert(value: Any) -> Any:
        if value.__class__ is not kind:
            raise TypeError(f"{value!r} is not of type {kind.__name__}")
        return value

    return convert


_SCALAR_CONVERTERS: dict[str, Converter] = {
    "string": _write_string,
    "character": _write_string,
    "integer": _exactly(int),
    "long": _exactly(int),
    "float": finite,
    "double": finite,
    "boolean": _exactly(bool),
    "timestamp": epoch_seconds,
    "blob": write_blob,
}


def json_answer(convert: Converter | None, output: dict[str, Any]) -> bytes:
    """An operation's answer; an operation without output answers with an empty object."""
    return _encode(convert(output) if convert is not None else {})


def json_error(error: ApiError, message_member: str) -> bytes:
    """An error's body. `message_member` is what the model calls the message, `message` or `Message`."""
    return _encode({"__type": error.code, message_member: error.message})
