"""What a store is to those who use it, whatever keeps the data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

import msgspec

from wicketgate.model import Change, World

TOKEN_LIFE: Final = 24 * 3600.0
"""Seconds that a ClientToken is remembered at least (EC2 API, Ensuring idempotency: at least 24 hours)."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Whose store it is: fixed when it is made, because every ARN in it says so."""

    account_id: str = "123456789012"
    region: str = "us-east-1"
    partition: str = "aws"


class Recorded(msgspec.Struct, frozen=True):
    """One line of the journal."""

    revision: int
    """The World's revision after the Change."""
    change: Change


class TokenUse(msgspec.Struct, frozen=True, kw_only=True):
    """A ClientToken that a caller used, and what it was answered."""

    caller: str
    """ARN. One caller's token says nothing about another's."""
    action: str
    token: str
    parameter_hash: str
    """Of the parameters without the token: another one under the same token is IdempotentParameterMismatch."""
    answer: str
    """What the action answered, as JSON text. Kept sealed."""
    time: float
    """Seconds since the epoch."""


class Store(Protocol):
    """A journal of Changes and the World they add up to. Every method raises StoreError; any thread may call any."""

    @property
    def revision(self) -> int:
        """The last committed revision; 0 when nothing ever was."""

    def load(self) -> World:
        """The World at the last revision, checked."""

    def commit(
        self,
        change: Change,
        expected_revision: int,
        *,
        token: TokenUse | None = None,
        forget: TokenUse | None = None,
        note: str = "",
        noted: Sequence[int] = (),
    ) -> int:
        """Keep a Change that `apply_change` accepted on the World of `expected_revision`; returns the new revision.

        When it returns, the Change is on disk, and with it `token`; when it raises, none of it is kept. `forget` takes
        a token out again, together with the inverse Change of what it stood for. `note` is a line that has to be
        written elsewhere because of this Change; it is kept with it until a later commit names its revision in `noted`.
        Raises RevisionConflict when `expected_revision` is not the last one.
        """

    def at(self, *, revision: int | None = None, time: float | None = None) -> World:
        """The World as it was at a revision, or after the last Change of at most `time` (seconds since the epoch)."""

    def changes(self, since: int = 0) -> Iterator[Recorded]:
        """The journal after revision `since`, in order."""

    def token_use(self, caller: str, action: str, token: str, now: float) -> TokenUse | None:
        """What this caller was answered under this ClientToken in the last 24 hours before `now`."""

    def notes(self) -> list[str]:
        """The notes that no commit has called written yet, in order."""

    def secret(self, name: str) -> bytes | None:
        """A sealed blob by name, e.g. the CA's private key; None when there is none."""

    def put_secret(self, name: str, data: bytes) -> None:
        """Keep a blob, sealed, in place of any other of that name; on disk when it returns."""

    def close(self) -> None:
        """Let go of the files. What was committed is on disk already."""
