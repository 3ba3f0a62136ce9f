"""One request of one instance -> the answer, by the rules of IMDSv2 (EC2 User Guide, "Use the Instance Metadata
Service to access instance metadata"). The old protocol without tokens (IMDSv1) is not offered."""

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus

from wicketgate.metadata.http import Request, Response
from wicketgate.metadata.tokens import MAX_TTL, Tokens
from wicketgate.metadata.tree import Tree, found

TTL_HEADER = "x-aws-ec2-metadata-token-ttl-seconds"
TOKEN_HEADER = "x-aws-ec2-metadata-token"
_is_version = re.compile(r"latest|20\d\d-\d\d-\d\d").fullmatch
_is_number = re.compile(r"[0-9]{1,5}").fullmatch


def answer(request: Request, instance_id: str, now: float, tokens: Tokens, tree: Callable[[], Tree]) -> Response:
    """The answer to an instance. `tree` makes what is below `/latest/`; it is called when the token holds."""
    if "x-forwarded-for" in request.headers:
        # Through an open proxy on the instance others would ask in its name.
        return Response(HTTPStatus.FORBIDDEN)
    if request.method == "PUT":
        return _token(request, instance_id, now, tokens)
    if request.method not in ("GET", "HEAD"):
        return Response(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": "GET, HEAD, PUT"})
    expires = tokens.expiry(request.headers.get(TOKEN_HEADER, ""), instance_id, now)
    if expires is None:
        return Response(HTTPStatus.UNAUTHORIZED)
    text = text_at(request.names, tree)
    if text is None:
        return Response(HTTPStatus.NOT_FOUND)
    return Response(HTTPStatus.OK, text, {"X-Aws-Ec2-Metadata-Token-Ttl-Seconds": str(int(expires - now))})


def _token(request: Request, instance_id: str, now: float, tokens: Tokens) -> Response:
    if request.names[1:] != ("api", "token") or not _is_version(request.names[0]):
        return Response(HTTPStatus.NOT_FOUND)
    wanted = request.headers.get(TTL_HEADER, "")
    if not _is_number(wanted) or not 1 <= int(wanted) <= MAX_TTL:
        return Response(HTTPStatus.BAD_REQUEST)
    token = tokens.issue(instance_id, int(now) + int(wanted))
    return Response(HTTPStatus.OK, token, {"X-Aws-Ec2-Metadata-Token-Ttl-Seconds": wanted})


def text_at(names: tuple[str, ...], tree: Callable[[], Tree]) -> str | None:
    """The text at a path that begins with a version; None when there is nothing. `tree` as in `answer`.

    Every dated version is the latest; tools ask for the one they were written for.
    """
    if not names:
        return "latest"
    return found(tree(), names[1:]) if _is_version(names[0]) else None
