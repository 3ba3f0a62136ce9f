"""`wicketgate check` on a World in a file, and what the API answers."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from tests.test_layers import TOO_HEAVY_FOR_THE_CLIENT
from tests.unit.test_api_explanations import asking
from tests.unit.test_cli_lint import CATALOGUE, kept
from tests.unit.test_cli_verbs import run
from tests.unit.test_explain import IN, OUT, allow, world
from tests.unit.test_lint import SARIF
from wicketgate.api.explanations import OPERATIONS
from wicketgate.model import ApiError, World

PASSING = world(door=[OUT], web=[IN], policy=allow())
HOLDS = "checks:\n  - always: alice gets in\n    who: user alice\n    to: i-web\n    port: 22\n"
FAILS = HOLDS + "  - never: anybody gets in\n    who: anyone\n    to: i-web\n"
AGENT = allow(Condition={"StringLike": {"aws:UserAgent": "aws-cli/*"}})


class Files:
    """A World and a file of checks."""

    def __init__(self, directory: Path, made: World, content: str) -> None:
        self.directory = directory
        self.world = kept(directory, made)
        self.checks = directory / "checks.yaml"
        self.checks.write_text(content)

    def checked(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """The verb about them."""
        clean = {"LC_ALL": "", "LANG": "C.UTF-8", **environment}
        return run("check", str(self.checks), "--world", self.world, *words, **clean)


def test_exit_codes(tmp_path: Path) -> None:
    """0 all hold, 1 one does not, 2 it cannot be told."""
    done = Files(tmp_path, PASSING, HOLDS).checked()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "ok   always: alice gets in",
        "Hold: 1. Do not hold: 0. Cannot be told: 0. Revision 7.",
    ]
    assert Files(tmp_path, PASSING, FAILS).checked().returncode == 1
    done = Files(tmp_path, world(door=[OUT], web=[IN], policy=AGENT), HOLDS).checked()
    assert done.returncode == 2
    assert "?    always: alice gets in" in done.stdout
    assert "it depends on what cannot be known beforehand: aws:UserAgent (ops/0)" in done.stdout


def test_the_command_that_it_prints(tmp_path: Path) -> None:
    """Run as printed, it says that the connection can be made."""
    files = Files(tmp_path, PASSING, FAILS)
    line = next(line for line in files.checked().stdout.splitlines() if "wicketgate explain" in line)
    words = line.split()[1:]
    done = run(*words, "--world", files.world, LC_ALL="", LANG="C.UTF-8")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "The connection can be made.")


def test_in_japanese(tmp_path: Path) -> None:
    """By the locale and by the option."""
    files = Files(tmp_path, PASSING, FAILS)
    assert "不合格 禁止: anybody gets in" in files.checked(LANG="ja_JP.UTF-8").stdout
    assert "不合格 禁止: anybody gets in" in files.checked("--lang", "ja").stdout


def test_for_programs(tmp_path: Path) -> None:
    """JSON, JUnit and SARIF, into files and to standard output."""
    files = Files(tmp_path, PASSING, FAILS)
    data = json.loads(files.checked("--json").stdout)
    assert (data["schema"], data["outcome"], [one["outcome"] for one in data["checks"]]) == (
        1,
        "fail",
        ["pass", "fail"],
    )
    example = data["checks"][1]["counterexamples"][0]
    assert (example["principal"], example["target"], example["port"]) == ("alice", "10.0.0.11", 22)
    assert example["command"][:4] == ["wicketgate", "explain", "--principal", "alice"]
    junit, sarif = tmp_path / "junit.xml", tmp_path / "check.sarif"
    done = files.checked("--junit", str(junit), "--sarif", str(sarif))
    assert "FAIL never: anybody gets in" in done.stdout
    assert ET.parse(junit).getroot().get("failures") == "1"
    told = json.loads(sarif.read_text())
    assert not list(SARIF.iter_errors(told))
    assert json.loads(files.checked("--sarif", "-").stdout) == told
    assert ET.fromstring(files.checked("--junit", "-").stdout).get("tests") == "2"
    assert files.checked("--junit", "-", "--sarif", "-").returncode == 252


def test_mistakes(tmp_path: Path) -> None:
    """File, line and column on standard error, exit code 2; so for files that cannot be read."""
    files = Files(tmp_path, PASSING, HOLDS.replace("user alice", "user dave"))
    done = files.checked()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"wicketgate: {files.checks}:3:10: found 'user dave', expected principals of which there is at least one\n"
    )
    assert "3:10: 'user dave' は使えません" in files.checked("--lang", "ja").stderr
    files.checks.unlink()
    assert files.checked().stderr == f"wicketgate: {files.checks}: No such file or directory\n"
    files.checks.write_bytes(b"\xff")
    assert files.checked().returncode == 2
    files.checks.write_text(HOLDS)
    Path(files.world).write_text("{")
    done = files.checked()
    assert done.returncode == 2
    assert done.stderr.startswith(f"wicketgate: --world: {files.world}: not a World")


def test_a_client_needs_no_more_than_a_client() -> None:
    """Asked of a deployment, the verb imports nothing that the client's dependencies do not bring."""
    code = (
        "import sys, wicketgate.cli.check, wicketgate.client.explaining;"
        f"print(*[name for name in {(*TOO_HEAVY_FOR_THE_CLIENT, 'yaml')!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def answered(directory: Path, **parameters: Any) -> dict[str, Any]:
    """The answer of the operation, as it goes over the wire."""
    question = asking(Path(tempfile.mkdtemp(dir=directory)), lambda resource: None)
    question = type(question)(**{**vars(question), "world": PASSING, "parameters": parameters})
    reply = CATALOGUE.services["wicketgate"].answer("Check", OPERATIONS["Check"](question), "r")
    told: dict[str, Any] = json.loads(reply.body)
    return told


def test_the_api_answers_the_same(tmp_path: Path) -> None:
    """Everything that the verb shows comes over the wire."""
    files = Files(tmp_path, PASSING, FAILS)
    told = answered(tmp_path, Document=FAILS, DocumentName=str(files.checks))
    lines = told["Report"].pop("lines")
    assert lines == files.checked().stdout.splitlines()
    assert told["Report"] == json.loads(files.checked("--json").stdout)
    assert told["JUnit"] == files.checked("--junit", "-").stdout
    assert json.loads(told["Sarif"]) == json.loads(files.checked("--sarif", "-").stdout)


def test_the_api_tells_mistakes(tmp_path: Path) -> None:
    """With the document's place, in the language asked for."""
    with pytest.raises(ApiError, match=r"Document: checks\.yaml:1:1: found 'a', expected") as refused:
        answered(tmp_path, Document="a")
    assert refused.value.code == "UnanswerableException"
    with pytest.raises(ApiError, match="使えません"):
        answered(tmp_path, Document="a", Language="ja")


def test_the_api_asks_about_everything(tmp_path: Path) -> None:
    """Counterexamples name people and machines: who is not allowed that gets nothing."""
    asked: list[str] = []

    def refuse(resource: str) -> None:
        asked.append(resource)
        raise ApiError("AccessDeniedException", "no")

    with pytest.raises(ApiError):
        OPERATIONS["Check"](asking(tmp_path, refuse, Document=HOLDS))
    assert asked == ["*"]
