"""The operation Reach inside the API process: whom IAM is asked about, the past, plans, and what is too much."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_api_explanations import asking
from wicketgate.api import reach as module
from wicketgate.api.explanations import Reasoning
from wicketgate.model import ApiError


def reached(directory: Path, asked: list[str], **parameters: Any) -> dict[str, Any]:
    """The answer's document."""
    own = directory / str(len(list(directory.iterdir())))  # a store serves one process, and closes with it
    own.mkdir()
    question = asking(own, asked.append, **parameters)

    async def answered() -> dict[str, Any]:
        found: dict[str, Any] = json.loads((await Reasoning().answer("Reach", question))["Reach"])
        return found

    return asyncio.run(answered())


def test_who_reaches_a_target_is_about_everybody(tmp_path: Path) -> None:
    """And about one where one is named."""
    asked: list[str] = []
    data = reached(tmp_path, asked)
    assert {name for cell in data["cells"] for name in cell["principals"]} >= {"root", "alice"}
    reached(tmp_path, asked, Principal="alice")
    reached(tmp_path, asked, AllTraffic=True, Principal="alice")
    assert asked == ["*", "arn:aws:iam::123456789012:user/alice", "*"]


def test_a_plan(tmp_path: Path) -> None:
    """What it shifts; a bad one is told by its place."""
    call = {"Action": "DeleteUserPolicy", "UserName": "alice", "PolicyName": "ops"}
    data = reached(tmp_path, [], Plan=json.dumps([call]))
    assert [(one["principals"], bool(one["lost"])) for one in data["shifts"]] == [(["alice"], True)]
    with pytest.raises(ApiError, match=r"Plan: call 1, Dance: no such action") as refused:
        reached(tmp_path, [], Plan='{"Action": "Dance"}')
    assert refused.value.code == "UnanswerableException"
    with pytest.raises(ApiError, match="exclude each other"):
        reached(tmp_path, [], Plan="[]", AllTraffic=True)


def test_too_much_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is refused before it is begun."""
    monkeypatch.setattr(module, "MOST", 3)
    with pytest.raises(ApiError, match="name one of them"):
        reached(tmp_path, [])
    assert reached(tmp_path, [], Principal="alice", Target="i-web")["cells"]


def test_nothing_is_told_before_iam_agrees(tmp_path: Path) -> None:
    """The refusal comes first, whatever is asked."""

    def refuse(resource: str) -> None:
        raise ApiError("AccessDeniedException", resource)

    async def answered() -> None:
        await Reasoning().answer("Reach", asking(tmp_path, refuse, Principal="nobody"))

    with pytest.raises(ApiError) as refused:
        asyncio.run(answered())
    assert refused.value.code == "AccessDeniedException"
