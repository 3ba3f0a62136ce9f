"""`wicketgate lint` on a World in a file, and what the API answers."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.test_layers import TOO_HEAVY_FOR_THE_CLIENT
from tests.unit.test_api_explanations import asking
from tests.unit.test_cli_verbs import run
from tests.unit.test_explain import IN, OUT, allow, rule, world
from tests.unit.test_lint import SARIF
from wicketgate.api.explanations import OPERATIONS
from wicketgate.api.service import Catalogue
from wicketgate.control.common import Quotas
from wicketgate.model import ApiError, World

CATALOGUE = Catalogue.load({"wicketgate": "2026-11-26"})
BROAD = rule(3, "in", "0.0.0.0/0")
NARROW = [rule(3, "in", "10.0.0.0/16"), rule(4, "in", "10.0.0.12/32")]


def kept(directory: Path, made: World) -> str:
    """A World in a file."""
    file = directory / "world.json"
    file.write_bytes(made.to_json())
    return str(file)


def linted(file: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The verb about a file."""
    return run("lint", "--world", file, *words, **{"LC_ALL": "", "LANG": "C.UTF-8", **environment})


@pytest.fixture
def broad(tmp_path: Path) -> str:
    """One error."""
    return kept(tmp_path, world(door=[OUT], web=[IN, BROAD], policy=allow()))


@pytest.fixture
def clean(tmp_path: Path) -> str:
    """Nothing at all."""
    return kept(tmp_path, world(door=[OUT], web=[IN], policy=allow()))


def test_exit_codes_and_lines(broad: str, tmp_path: Path) -> None:
    """1 for what is as grave as --fail-on, 0 for less; each finding with its id, sentence and command."""
    done = linted(broad)
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("WG001 error: sgr-3 inbound tcp 22 from 0.0.0.0/0 of sg-web (web) lets every address")
    assert "      aws ec2 revoke-security-group-ingress --group-id sg-web --security-group-rule-ids sgr-3" in lines
    assert lines[-1] == "Errors: 1. Warnings: 0. Notes: 0. Revision 7."
    assert linted(broad, "--fail-on", "never").returncode == 0
    shadowed = kept(tmp_path, world(door=[OUT], web=[IN, rule(5, "in", "10.0.0.0/16")], db=[IN], policy=allow()))
    assert "WG008 note" in linted(shadowed, "--ignore", "WG007", "--ignore", "WG023").stdout
    assert linted(shadowed, "--ignore", "WG007").returncode == 0
    assert linted(shadowed, "--ignore", "WG007", "--fail-on", "note").returncode == 1


def test_what_to_leave_out(broad: str) -> None:
    """A kind, or one at a resource; anything else is wrong use."""
    assert linted(broad, "--ignore", "WG001:sgr-3").returncode == 0
    assert linted(broad, "--ignore", "WG001:sgr-9").returncode == 1
    assert linted(broad, "--ignore", "everything").returncode == 252


def test_a_clean_world(clean: str) -> None:
    """Says what was not looked at, and that there is nothing."""
    done = linted(clean)
    assert done.returncode == 0
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == ["Not looked at", "Not looked at", "Errors"]


def test_in_japanese(broad: str) -> None:
    """By the locale and by the option."""
    assert "エラー: 1 件" in linted(broad, LANG="ja_JP.UTF-8").stdout
    assert "エラー: 1 件" in linted(broad, "--lang", "ja").stdout


def test_as_json(broad: str) -> None:
    """What docs/lint.md says it is."""
    data = json.loads(linted(broad, "--json").stdout)
    assert (data["schema"], data["revision"], data["counts"]) == (1, 7, {"note": 0, "warning": 0, "error": 1})
    (finding,) = data["findings"]
    assert (finding["id"], finding["resource"], finding["within"]) == ("WG001", "sgr-3", "sg-web")
    assert finding["page"] == "docs/lint.md#wg001"
    assert finding["fix"]["effect"] == "narrows"
    assert len(data["notLookedAt"]) == 2
    assert "lines" not in data


def test_as_sarif(broad: str, tmp_path: Path) -> None:
    """Into a file beside the lines, or to standard output instead of them."""
    file = tmp_path / "lint.sarif"
    assert "WG001 error" in linted(broad, "--sarif", str(file)).stdout
    told = json.loads(linted(broad, "--sarif", "-").stdout)
    assert json.loads(file.read_text()) == told
    assert not list(SARIF.iter_errors(told))
    assert told["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == broad
    assert linted(broad, "--sarif", str(tmp_path / "none" / "x")).returncode == 1


def test_quotas_of_a_settings_file(tmp_path: Path) -> None:
    """Else they are AWS's; a file that is wrong is told."""
    rules = [IN, *(rule(f"q{n}", "in", f"10.0.{n}.0/24", (443, 443)) for n in range(50))]
    file = kept(tmp_path, world(door=[OUT], web=rules, policy=allow()))
    assert "WG040" in linted(file).stdout
    settings = tmp_path / "wicketgate.toml"
    settings.write_text("rules_per_group = 100\n")
    assert "WG040" not in linted(file, "--config", str(settings)).stdout
    settings.write_text("rules_per_group = 0\n")
    done = linted(file, "--config", str(settings))
    assert (done.returncode, done.stdout) == (2, "")
    assert "--config" in done.stderr


@pytest.mark.parametrize(("content", "text"), [(b"{", "not a World"), (b'{"vpcs": 3}', "at `$.vpcs`")])
def test_what_cannot_be_told(tmp_path: Path, content: bytes, text: str) -> None:
    """Exit code 2, the file and the place in it."""
    file = tmp_path / "world.json"
    file.write_bytes(content)
    done = linted(str(file))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"wicketgate: --world: {file}: ")
    assert text in done.stderr
    assert linted(str(tmp_path / "none.json")).returncode == 2


def test_a_client_needs_no_more_than_a_client() -> None:
    """Asked of a deployment, the verb imports nothing that the client's dependencies do not bring."""
    code = (
        "import sys, wicketgate.cli.lint, wicketgate.client.explaining;"
        f"print(*[name for name in {TOO_HEAVY_FOR_THE_CLIENT!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# -- the API's answer --------------------------------------------------------------------------------------------------


def answered(directory: Path, made: World, **more: Any) -> dict[str, Any]:
    """The answer of the operation, as it goes over the wire."""
    question = asking(Path(tempfile.mkdtemp(dir=directory)), lambda resource: None)
    question = type(question)(**{**vars(question), "world": made, "parameters": {}, **more})
    reply = CATALOGUE.services["wicketgate"].answer("Lint", OPERATIONS["Lint"](question), "r")
    told: dict[str, Any] = json.loads(reply.body)
    return told


def test_the_api_answers_the_same(tmp_path: Path) -> None:
    """Everything that the verb shows comes over the wire."""
    made = world(door=[OUT], web=[IN, *NARROW], policy=allow())
    told = answered(tmp_path, made)
    data = json.loads(linted(kept(tmp_path, made), "--json").stdout)
    lines = told["Report"].pop("lines")
    assert told["Report"] == data
    assert lines == linted(kept(tmp_path, made)).stdout.splitlines()
    assert not list(SARIF.iter_errors(json.loads(told["Sarif"])))


def test_the_api_knows_counters_and_quotas(tmp_path: Path) -> None:
    """Counters that a client brings along, the installation's quotas, what is to be left out."""
    made = world(door=[OUT], web=[IN], policy=allow())
    counted = {"Connections": {"sgr-1": 2}, "CountedSince": "2026-01-01T00:00:00Z"}
    told = answered(tmp_path, made, parameters=counted)
    assert [one["id"] for one in told["Report"]["findings"]] == ["WG009"]
    assert not answered(tmp_path, made, parameters={**counted, "Ignore": ["WG009"]})["Report"]["findings"]
    told = answered(tmp_path, made, limits=(Quotas(groups_per_interface=2),))
    assert [one["id"] for one in told["Report"]["findings"]] == ["WG042"]


def test_the_api_asks_about_everything(tmp_path: Path) -> None:
    """Lint names all groups and policies: who is not allowed that gets nothing."""
    asked: list[str] = []

    def refuse(resource: str) -> None:
        asked.append(resource)
        raise ApiError("AccessDeniedException", "no")

    with pytest.raises(ApiError):
        OPERATIONS["Lint"](asking(tmp_path, refuse))
    assert asked == ["*"]
