"""Who used a presigned URL before: `url_reuse`. A stock client opens two tunnels of one second with one URL."""

from __future__ import annotations

import heapq
from typing import Final

MOST: Final = 500_000
"""URLs remembered at once, some 175 MB: 1,400 new ones a second for as long as they can be good. A gateway taken
over could name any number."""


class UrlMemory:
    """Signature -> the source address that first used it, until the URL ends."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}
        self._ends: list[tuple[float, str]] = []

    def refusal(self, signature: str, source: str, expires: float, now: float, policy: str) -> str | None:
        """Why this use is refused, or None; a first use is remembered until `expires` (seconds since the epoch)."""
        while self._ends and self._ends[0][0] < now:
            del self._first[heapq.heappop(self._ends)[1]]
        if policy == "any" or not signature:
            return None
        first = self._first.get(signature)
        if first is None and len(self._first) >= MOST:
            return f"{MOST} presigned URLs are in use, more cannot be told apart (url_reuse = {policy})"
        if first is None:
            self._first[signature] = source
            heapq.heappush(self._ends, (max(expires, now), signature))
            return None
        if first != source:
            return f"this presigned URL was first used from {first}, now from {source} (url_reuse = {policy})"
        return "this presigned URL was used before (url_reuse = once)" if policy == "once" else None
