"""Metadata for machines that link-local addresses do not reach: below /machine, over TLS, with a bearer token.

    GET /machine/latest/meta-data/managed-ssh-keys/active-keys/admin
    Authorization: Bearer mc-....<secret>

The tree is the one that `metadata` shows; session tokens (IMDSv2) have nothing to add to a bearer's. Whoever shows no
token in force is answered 401 and nothing else. Reading is no event for the audit trail, which would have some lines
for each login of each machine; refused tokens are logged, once a minute and address.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote

from wicketgate.api.http import Request
from wicketgate.api.service import Reply
from wicketgate.control.machine_credentials import instance_of_token
from wicketgate.metadata.answers import text_at
from wicketgate.metadata.tree import tree
from wicketgate.model import World

PREFIX: Final = "/machine/"
RATE: Final = 50.0
"""Requests a second of one instance, in the long run. A login takes five, one without pushed keys two."""
BURST: Final = 600.0
"""Requests that may come at once."""
LOG_SECONDS: Final = 60.0
MOST_LOGGED: Final = 64
"""Addresses whose refusals are logged within LOG_SECONDS."""

_logger = logging.getLogger("wicketgate.api")


@dataclass
class _Bucket:
    """What is left for an instance (token bucket)."""

    left: float
    at: float


@dataclass
class Machines:
    """The answers to machines."""

    domain: str
    signer_chain: str
    """PEM: the certificate of the SSH signer."""
    clock: Callable[[], float] = time.monotonic
    """Seconds that only grow."""
    _buckets: dict[str, _Bucket] = field(default_factory=dict)
    _refused: set[str] = field(default_factory=set)
    _refused_since: float = 0.0

    def answer(self, world: World, request: Request, now: float) -> Reply:
        """Answer a request below PREFIX by a World; `now` is seconds since the epoch."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        instance = instance_of_token(world, token.strip()) if scheme.lower() == "bearer" else None
        if instance is None:
            self._log(request.peer.source_ip)
            return _reply(HTTPStatus.UNAUTHORIZED, ("WWW-Authenticate", 'Bearer realm="wicketgate"'))
        if not self._may(instance.id):
            return _reply(HTTPStatus.TOO_MANY_REQUESTS, ("Retry-After", "1"))
        if request.method not in ("GET", "HEAD"):
            return _reply(HTTPStatus.METHOD_NOT_ALLOWED, ("Allow", "GET, HEAD"))
        names = tuple(unquote(name) for name in request.path.removeprefix(PREFIX).split("/") if name)
        text = text_at(names, lambda: tree(world, instance, now, domain=self.domain, signer_chain=self.signer_chain))
        return _reply(HTTPStatus.NOT_FOUND) if text is None else _reply(HTTPStatus.OK, body=text)

    def _may(self, instance_id: str) -> bool:
        now = self.clock()
        bucket = self._buckets.setdefault(instance_id, _Bucket(BURST, now))
        bucket.left, bucket.at = min(BURST, bucket.left + RATE * (now - bucket.at)), now
        if bucket.left < 1:
            return False
        bucket.left -= 1
        return True

    def _log(self, source_ip: str) -> None:
        now = self.clock()
        if now - self._refused_since >= LOG_SECONDS:
            self._refused.clear()
            self._refused_since = now
        if source_ip not in self._refused and len(self._refused) < MOST_LOGGED:
            self._refused.add(source_ip)
            _logger.warning("a machine at %s shows no credential in force", source_ip)


def _reply(status: HTTPStatus, *headers: tuple[str, str], body: str = "") -> Reply:
    plain = (("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store"))
    return Reply(status, (*plain, *headers), body.encode())
