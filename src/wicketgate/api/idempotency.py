"""ClientTokens, and what an action answered, as it is kept under one: JSON, with points in time marked as such.

Source: EC2 API Reference, "Ensuring idempotency in Amazon EC2 API requests".
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from wicketgate.api.faults import shown
from wicketgate.model import ApiError

_TIME: Final = "$time"


MAX_TOKEN: Final = 64
"""ASCII characters of a ClientToken."""


def check_token(token: str) -> None:
    """Raise ApiError for what is no ClientToken."""
    if len(token) > MAX_TOKEN or not token.isascii():
        raise ApiError(
            "InvalidParameterValue",
            f"Value ({shown(token)}) for parameter clientToken is invalid. "
            f"A client token has at most {MAX_TOKEN} ASCII characters.",
        )


def kept(answer: Mapping[str, Any]) -> str:
    """An answer as text."""
    return msgspec.json.encode(_plain(answer)).decode()


def given(text: str) -> dict[str, Any]:
    """The answer again."""
    found: dict[str, Any] = _meant(msgspec.json.decode(text))
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return {_TIME: value.timestamp()}
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def _meant(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {_TIME}:
            return datetime.fromtimestamp(value[_TIME], UTC)
        return {key: _meant(one) for key, one in value.items()}
    return [_meant(one) for one in value] if isinstance(value, list) else value
