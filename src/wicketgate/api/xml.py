"""Writes EC2 Query and `query` (IAM, STS) answers and errors.

A shape becomes a writer once; a writer appends text to a list. Members stand in the order of the answer's own dict;
a member that is None is left out, an empty list is an empty element (EC2 clients read `<tagSet/>` as "no tags").
What XML 1.0 cannot carry becomes U+FFFD, so that an answer is always well-formed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from wicketgate.api.shapes import is_flattened, to_text, xml_name
from wicketgate.model import ApiError

DECLARATION: Final = '<?xml version="1.0" encoding="UTF-8"?>\n'

Append = Callable[[str], Any]
Writer = Callable[[Any, Append], None]
"""Appends a value's element, or elements."""
Fields = Callable[[dict[str, Any], Append], None]
"""Appends the elements of a structure's members, without one for the structure itself."""

_special = re.compile("[&<>\r\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]").search
_illegal = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]").sub


def escaped(text: str) -> str:
    """Text as XML character data. A carriage return is written as a reference: parsers turn a bare one into a newline
    (XML 1.0 section 2.11)."""
    if not _special(text):
        return text
    replaced = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", "&#13;")
    return _illegal("\ufffd", replaced)


class XmlCompiler:
    """Makes the writers of output shapes, once. Structures are shared, so recursive shapes end."""

    def __init__(self, *, ec2: bool) -> None:
        self._item = "item" if ec2 else "member"
        self._milliseconds = ec2
        self._structures: dict[str, Fields] = {}

    def fields(self, shape: Any) -> Fields:
        """Writes the members of a structure."""
        if shape.name in self._structures:
            return self._structures[shape.name]
        writers: dict[str, Writer] = {}
        texts: dict[str, tuple[str, str]] = {}
        name_of_shape = shape.name

        def write(value: dict[str, Any], append: Append) -> None:
            for name, member in value.items():
                if member is None:
                    continue
                # Strings are most of any answer; they are written here, without a call.
                if (tags := texts.get(name)) is not None:
                    append(f"{tags[0]}{escaped(member) if _special(member) else member}{tags[1]}")
                elif (writer := writers.get(name)) is not None:
                    writer(member, append)
                else:
                    raise TypeError(f"{name_of_shape} has no member {name}")

        self._structures[shape.name] = write
        for name, member in shape.members.items():
            tag = xml_name(member, name)
            if member.type_name in ("string", "character"):
                texts[name] = (f"<{tag}>", f"</{tag}>")
            else:
                writers[name] = self.element(member, tag)
        return write

    def element(self, shape: Any, tag: str) -> Writer:
        """Writes a value inside the element `tag`."""
        match shape.type_name:
            case "structure":
                return _structure(self.fields(shape), tag)
            case "list":
                return self._list(shape, tag)
            case "map":
                return self._map(shape, tag)
            case "string" | "character":
                return _text(escaped, tag)
        return _text(to_text(shape.type_name, milliseconds=self._milliseconds), tag)

    def _list(self, shape: Any, tag: str) -> Writer:
        if is_flattened(shape):
            write_each = self.element(shape.member, tag)

            def write_flat(value: Any, append: Append) -> None:
                for item in value:
                    write_each(item, append)

            return write_flat
        write_item = self.element(shape.member, shape.member.serialization.get("name", self._item))
        start, end, empty = f"<{tag}>", f"</{tag}>", f"<{tag}/>"

        def write(value: Any, append: Append) -> None:
            if value.__class__ not in (list, tuple):
                raise TypeError(f"{tag}: {value!r} is not a list")
            if not value:
                append(empty)
                return
            append(start)
            for item in value:
                write_item(item, append)
            append(end)

        return write

    def _map(self, shape: Any, tag: str) -> Writer:
        write_key = self.element(shape.key, shape.key.serialization.get("name", "key"))
        write_value = self.element(shape.value, shape.value.serialization.get("name", "value"))
        start, end, empty = f"<{tag}>", f"</{tag}>", f"<{tag}/>"
        entry_start, entry_end = ("", "") if is_flattened(shape) else ("<entry>", "</entry>")

        def write_entries(value: Any, append: Append, before: str, after: str) -> None:
            for key, item in value.items():
                append(before)
                write_key(key, append)
                write_value(item, append)
                append(after)

        def write(value: Any, append: Append) -> None:
            if not entry_start:
                write_entries(value, append, start, end)
            elif not value:
                append(empty)
            else:
                append(start)
                write_entries(value, append, entry_start, entry_end)
                append(end)

        return write


def _structure(write_fields: Fields, tag: str) -> Writer:
    start, end = f"<{tag}>", f"</{tag}>"

    def write(value: Any, append: Append) -> None:
        append(start)
        write_fields(value, append)
        append(end)

    return write


def _text(to_str: Callable[[Any], str], tag: str) -> Writer:
    start, end = f"<{tag}>", f"</{tag}>"
    return lambda value, append: append(f"{start}{to_str(value)}{end}")


# -- whole answers ----------------------------------------------------------------------------------------------------

Answer = Callable[[dict[str, Any], str], bytes]
"""Output and request id to body."""


def ec2_answer(operation: str, namespace: str, fields: Fields | None) -> Answer:
    """EC2's answers: the request id first, the members beside it; `<return>true</return>` where there are none."""
    start = f'{DECLARATION}<{operation}Response xmlns="{namespace}"><requestId>'

    def write(output: dict[str, Any], request_id: str) -> bytes:
        parts = [start, escaped(request_id), "</requestId>"]
        if fields is None:
            parts.append("<return>true</return>")
        else:
            fields(output, parts.append)
        parts.append(f"</{operation}Response>")
        return "".join(parts).encode()

    return write


def query_answer(operation: str, namespace: str, wrapper: str, fields: Fields | None) -> Answer:
    """IAM's and STS's answers: the members in a result of their own, the request id after it."""
    start = f'{DECLARATION}<{operation}Response xmlns="{namespace}">'

    def write(output: dict[str, Any], request_id: str) -> bytes:
        parts = [start]
        if fields is not None:
            parts.append(f"<{wrapper}>")
            fields(output, parts.append)
            parts.append(f"</{wrapper}>")
        parts.append(f"<ResponseMetadata><RequestId>{escaped(request_id)}</RequestId></ResponseMetadata>")
        parts.append(f"</{operation}Response>")
        return "".join(parts).encode()

    return write


def ec2_error(error: ApiError, request_id: str) -> bytes:
    """EC2's errors. The request id's element is `RequestID` here, `requestId` in answers."""
    return (
        f"{DECLARATION}<Response><Errors><Error><Code>{escaped(error.code)}</Code>"
        f"<Message>{escaped(error.message)}</Message></Error></Errors>"
        f"<RequestID>{escaped(request_id)}</RequestID></Response>"
    ).encode()


def query_error(error: ApiError, request_id: str, namespace: str) -> bytes:
    """IAM's and STS's errors, which say whose fault it is."""
    fault = "Sender" if error.http_status < 500 else "Receiver"
    return (
        f'{DECLARATION}<ErrorResponse xmlns="{namespace}"><Error><Type>{fault}</Type><Code>{escaped(error.code)}</Code>'
        f"<Message>{escaped(error.message)}</Message></Error>"
        f"<RequestId>{escaped(request_id)}</RequestId></ErrorResponse>"
    ).encode()
