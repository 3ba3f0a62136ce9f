"""Session tokens of IMDSv2: good for one instance and a time, recognised without being remembered."""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from typing import Final

MAX_TTL: Final = 21600
"""Seconds (EC2 User Guide, "Use the Instance Metadata Service")."""
_NONCE = 8
_MAC = 24


class Tokens:
    """Makes tokens and knows its own again. A new object, so a restart, knows none of those before: 401."""

    def __init__(self) -> None:
        self._key = os.urandom(32)

    def issue(self, instance_id: str, expires: int) -> str:
        """A token for an instance until `expires`, seconds since the epoch."""
        body = expires.to_bytes(8, "big") + os.urandom(_NONCE)
        return base64.urlsafe_b64encode(body + self._mac(instance_id, body)).decode()

    def expiry(self, token: str, instance_id: str, now: float) -> int | None:
        """When a token ends; None for one that is over, another instance's, or none of ours."""
        try:
            data = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
        except (binascii.Error, UnicodeEncodeError, ValueError):
            return None
        body, mac = data[: 8 + _NONCE], data[8 + _NONCE :]
        if not hmac.compare_digest(mac, self._mac(instance_id, body)):
            return None
        expires = int.from_bytes(body[:8], "big")
        return expires if expires > now else None

    def _mac(self, instance_id: str, body: bytes) -> bytes:
        return hmac.digest(self._key, body + instance_id.encode(), "sha256")[:_MAC]
