"""As much of HTTP/1.1 (RFC 9112) as metadata needs: a head, no bodies, one answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote

MAX_HEAD: Final = 16 * 1024
"""Bytes of a request line and its headers."""

_is_line = re.compile(r"([A-Z]{1,16}) (/[\x21-\x7e]*) HTTP/1\.([01])").fullmatch
_is_field = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*").fullmatch


class BadRequest(ValueError):
    """What came is no request that we read."""


@dataclass(frozen=True)
class Request:
    """A request's head."""

    method: str
    names: tuple[str, ...]
    """The path's parts, decoded; empty ones left out: a slash at the end means nothing here."""
    headers: Mapping[str, str]
    """Lower-case name -> value."""
    keep_alive: bool

    @property
    def has_body(self) -> bool:
        """Whether a body follows, which we do not read."""
        return "transfer-encoding" in self.headers or self.headers.get("content-length", "0") != "0"


@dataclass(frozen=True)
class Response:
    """An answer."""

    status: HTTPStatus
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


def parse(head: bytes) -> Request:
    """Read a head, its empty line included. Raises BadRequest."""
    line, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    match = _is_line(line)
    if match is None:
        raise BadRequest("the request line")
    headers: dict[str, str] = {}
    for one in lines:
        pair = _is_field(one)
        if pair is None or pair[1].lower() in headers:
            raise BadRequest("a header, or one that comes twice")
        headers[pair[1].lower()] = pair[2]
    path, _, _ = match[2].partition("?")
    wishes = headers.get("connection", "").lower()
    return Request(
        method=match[1],
        names=tuple(unquote(name) for name in path.split("/") if name),
        headers=headers,
        keep_alive="close" not in wishes if match[3] == "1" else "keep-alive" in wishes,
    )


def render(response: Response, *, head_only: bool = False, keep_alive: bool = True) -> bytes:
    """The answer as bytes; `head_only` for HEAD."""
    body = (response.body or _page(response.status)).encode()
    headers = {
        "Content-Type": "text/plain" if response.status is HTTPStatus.OK else "text/html",
        "Content-Length": str(len(body)),
        "Date": formatdate(usegmt=True),
        "Server": "wicketgate",
        "Connection": "keep-alive" if keep_alive else "close",
        **response.headers,
    }
    head = f"HTTP/1.1 {response.status.value} {response.status.phrase}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return head.encode("latin-1") + b"\r\n" + (b"" if head_only else body)


def _page(status: HTTPStatus) -> str:
    """Some tools show what comes with a refusal; a text of our own is all that AWS's has in common."""
    if status is HTTPStatus.OK:
        return ""
    title = f"{status.value} - {status.phrase}"
    return f"<!DOCTYPE html>\n<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>\n"
