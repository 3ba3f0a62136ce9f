"""Reads the EC2 Query and the `query` (IAM, STS) protocols: form parameters to input.

    bytes --parse_form--> {"Filter.1.Name": "x"} --tree--> {"Filter": {"1": {"Name": "x"}}} --parser--> input

The first two steps know no model. All work is linear in the size of the body; indexes are only sorted, never used as
positions, so a huge one costs nothing. EC2's lists are flat (`Filter.1`), the query protocol's have a level of their
own (`Tags.member.1`), its maps two (`Map.entry.1.key`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import unquote, unquote_plus

from wicketgate.api.constraints import check_of
from wicketgate.api.faults import MAX_FAULTS, Fault, Faults, Kind
from wicketgate.api.shapes import (
    EXPECTED,
    from_text,
    illegal_character,
    is_flattened,
    is_sensitive,
    not_allowed,
    query_name,
)
from wicketgate.model import ApiError

MAX_PARAMETERS: Final = 20_000
"""Form parameters of one request. A security group with all its rules needs a few hundred."""
MAX_DEPTH: Final = 32
"""Parts of a parameter's name. The deepest input of the models has 12."""
MAX_INDEX: Final = 100_000
"""The largest list index; gaps are allowed, order is by number."""

Tree = dict[str, Any]
"""Values are texts or trees."""
Parser = Callable[[Any, str, Faults], Any]
"""Turns a node of the tree, at a path, into a value; adds to the faults (and returns anything) if it cannot."""

_broken_escape = re.compile("%(?![0-9A-Fa-f]{2})").search
_is_index = re.compile("[1-9][0-9]{0,5}").fullmatch


# -- form to tree -----------------------------------------------------------------------------------------------------


def parse_form(encoded: bytes, *, plus_is_space: bool = True) -> dict[str, str]:
    """The decoded parameters of a form body, or of a query string (where a plus sign is itself, as SigV4 has it).

    Raises ApiError (MalformedQueryString) for what two readers could understand differently: a name given twice,
    broken percent encoding, bytes that are not UTF-8, characters that XML cannot carry; and for too many parameters.
    """
    count = encoded.count(b"&") + 1
    if count > MAX_PARAMETERS:
        raise malformed(f"The request has {count} parameters; at most {MAX_PARAMETERS} are read.")
    try:
        text = encoded.decode()
        if _broken_escape(text):
            raise malformed("The parameters are not percent-encoded; write '%' as %25.")
        form = _decode(text, unquote_plus if plus_is_space else unquote)
    except UnicodeDecodeError:
        raise malformed("The parameters do not decode to UTF-8.") from None
    return form


def malformed(message: str) -> ApiError:
    """The error of a request whose parameters cannot be taken apart."""
    return ApiError("MalformedQueryString", message)


def _decode(text: str, unquoted: Callable[..., str]) -> dict[str, str]:
    form: dict[str, str] = {}
    decoded = illegal_character(text)
    for pair in text.split("&"):
        if not pair:
            continue
        name, _, value = pair.partition("=")
        if "%" in pair or "+" in pair:
            name, value = unquoted(name, errors="strict"), unquoted(value, errors="strict")
            decoded = decoded or illegal_character(name) or illegal_character(value)
        if name in form:
            raise malformed(f"The parameter {name[:64]} is given twice; give it once.")
        form[name] = value
    if decoded:
        raise malformed(f"The parameters cannot be read. {not_allowed(decoded[0])}")
    return form


def merged(first: dict[str, str], second: dict[str, str]) -> dict[str, str]:
    """The parameters of the query string and of the body together; raises ApiError for a name in both."""
    if not first or not second:
        return first or second
    if both := first.keys() & second.keys():
        raise malformed(f"The parameter {min(both)[:64]} is given twice; give it once.")
    return {**first, **second}


def tree(form: dict[str, str], faults: Faults) -> Tree:
    """The parameters by the parts of their names. A name that is a value and a structure at once is a fault."""
    root: Tree = {}
    for name, value in form.items():
        *parents, last = name.split(".", MAX_DEPTH)
        if "." in last:
            faults.append(_syntax(f"The parameter {name[:64]}... has more than {MAX_DEPTH} parts."))
            break
        node: Any = root
        for part in parents:
            child = node.get(part)
            if child is None:
                child = node[part] = {}
            node = child
            if node.__class__ is str:
                break
        if node.__class__ is str or last in node:
            faults.append(_syntax(f"The parameter {name[:64]} has both a value and members."))
            break
        node[last] = value
    return root


def _syntax(text: str) -> Fault:
    return Fault(Kind.SYNTAX, "", limit=text)


# -- tree to input ----------------------------------------------------------------------------------------------------


class QueryCompiler:
    """Makes the parser of each input shape, once. Structures are shared, so recursive shapes end."""

    def __init__(self, *, ec2: bool) -> None:
        self._ec2 = ec2
        self._structures: dict[str, Parser] = {}

    def parser(self, shape: Any) -> Parser:
        """The parser of a shape."""
        match shape.type_name:
            case "structure":
                return self._structure(shape)
            case "list":
                return self._list(shape)
            case "map":
                return self._map(shape)
        return _scalar(shape)

    def _structure(self, shape: Any) -> Parser:
        if shape.name in self._structures:
            return self._structures[shape.name]
        members: dict[str, tuple[str, Parser]] = {}
        required: list[tuple[str, str]] = []
        needs_text: set[str] = set()  # EC2 answers MissingParameter to an empty value too
        union = shape.is_tagged_union

        def parse(node: Any, path: str, faults: Faults) -> dict[str, Any]:
            if node.__class__ is str:
                _wrong_type(node, path, faults, "structure")
                return {}
            value: dict[str, Any] = {}
            prefix = f"{path}." if path else ""
            for wire, child in node.items():
                member = members.get(wire)
                if member is None:
                    faults.append(Fault(Kind.UNKNOWN, prefix + wire))
                elif child or wire not in needs_text:
                    value[member[0]] = member[1](child, prefix + wire, faults)
            for name, wire in required:
                if name not in value:
                    faults.append(Fault(Kind.MISSING, prefix + wire))
            if union and len(value) != 1:
                faults.append(Fault(Kind.UNION, path, str(len(value)), ", ".join(members)))
            return value

        self._structures[shape.name] = parse
        for name, member in shape.members.items():
            members[query_name(member, name, ec2=self._ec2)] = (name, self.parser(member))
        required += [(name, query_name(shape.members[name], name, ec2=self._ec2)) for name in shape.required_members]
        needs_text.update(wire for _, wire in required if self._ec2)
        return parse

    def _list(self, shape: Any) -> Parser:
        parse_item = self.parser(shape.member)
        check = check_of(shape)
        flat = self._ec2 or is_flattened(shape)
        level = "" if flat else shape.member.serialization.get("name", "member")

        def parse(node: Any, path: str, faults: Faults) -> list[Any]:
            if level:
                node, path = _below(node, level, path, faults)
            elif node.__class__ is str:
                _wrong_type(node, path, faults, "list")
                node = {}
            prefix = f"{path}."
            value = []
            for index, child in _in_order(node, path, faults):
                value.append(parse_item(child, prefix + index, faults))
                if len(faults) > MAX_FAULTS:
                    break
            if check is not None and (broken := check(value)):
                faults.append(Fault(broken[0], path, str(len(value)), broken[1]))
            return value

        return parse

    def _map(self, shape: Any) -> Parser:
        parse_key, parse_value = self.parser(shape.key), self.parser(shape.value)
        check = check_of(shape)
        level = "" if is_flattened(shape) else "entry"
        key_name = shape.key.serialization.get("name", "key")
        value_name = shape.value.serialization.get("name", "value")

        def parse(node: Any, path: str, faults: Faults) -> dict[str, Any]:
            if level:
                node, path = _below(node, level, path, faults)
            elif node.__class__ is str:
                _wrong_type(node, path, faults, "map")
                node = {}
            value: dict[str, Any] = {}
            for index, entry in _in_order(node, path, faults):
                place = f"{path}.{index}"
                if entry.__class__ is str or entry.keys() != {key_name, value_name}:
                    faults.append(_syntax(f"The parameter {place} needs exactly {key_name} and {value_name}."))
                    continue
                key = parse_key(entry[key_name], f"{place}.{key_name}", faults)
                if key in value:
                    faults.append(_syntax(f"The parameter {place}.{key_name} repeats a key."))
                value[key] = parse_value(entry[value_name], f"{place}.{value_name}", faults)
            if check is not None and (broken := check(value)):
                faults.append(Fault(broken[0], path, str(len(value)), broken[1]))
            return value

        return parse


def _below(node: Any, level: str, path: str, faults: Faults) -> tuple[Tree, str]:
    """The node under a list's or map's own level (`member`, `entry`). Clients write an empty list as an empty value."""
    if node.__class__ is str:
        if node:
            _wrong_type(node, path, faults, "list" if level != "entry" else "map")
        return {}, f"{path}.{level}"
    for name in node:
        if name != level:
            faults.append(Fault(Kind.UNKNOWN, f"{path}.{name}"))
    below = node.get(level, {})
    if below.__class__ is str:
        _wrong_type(below, f"{path}.{level}", faults, "list")
        below = {}
    return below, f"{path}.{level}"


def _in_order(node: Tree, path: str, faults: Faults) -> list[tuple[str, Any]]:
    """A list's items by index. Indexes with a leading zero are refused: `1` and `01` would be the same place."""
    for index in node:
        if not _is_index(index) or int(index) > MAX_INDEX:
            faults.append(
                Fault(Kind.INDEX, f"{path}.{index[:64]}", limit=f"Indexes are numbers from 1 to {MAX_INDEX}.")
            )
            return []
    return sorted(node.items(), key=lambda item: int(item[0])) if len(node) > 1 else list(node.items())


def _scalar(shape: Any) -> Parser:
    convert = from_text(shape.type_name)
    check = check_of(shape)
    hidden = is_sensitive(shape)
    type_name = shape.type_name
    if convert is None and check is None:
        return _plain_string

    def parse(node: Any, path: str, faults: Faults) -> Any:
        if node.__class__ is not str:
            return _plain_string(node, path, faults)
        value = node
        if convert is not None:
            try:
                value = convert(node)
            except ValueError:
                _wrong_type(None if hidden else node, path, faults, type_name)
                return node
        if check is not None and (broken := check(value)):
            faults.append(Fault(broken[0], path, None if hidden else node, broken[1]))
        return value

    return parse


def _plain_string(node: Any, path: str, faults: Faults) -> Any:
    if node.__class__ is not str:
        faults.append(Fault(Kind.UNKNOWN, f"{path}.{next(iter(node))}"))
    return node


def _wrong_type(node: str | None, path: str, faults: Faults, type_name: str) -> None:
    faults.append(Fault(Kind.TYPE, path, node, EXPECTED[type_name]))
