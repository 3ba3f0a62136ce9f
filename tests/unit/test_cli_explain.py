"""`wicketgate explain` on a World in a file, its words, and how it holds an explanation against a connection."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from string import Formatter

import pytest

from tests.test_layers import TOO_HEAVY_FOR_THE_CLIENT
from tests.unit.test_cli_verbs import run
from tests.unit.test_explain import IN, OUT, WEB, allow, world
from wicketgate.cli.explain_words import WORDS, language_of
from wicketgate.client.proof import Happened, compared
from wicketgate.explain.words import CATALOGUE
from wicketgate.model import World

CLIENT = "203.0.113.10"
UNABLE = "Unable to connect to target: "


def asked(file: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The verb about alice's way to web."""
    about = ("--principal", "alice", "--from", CLIENT, "--to", WEB)
    return run("explain", "--world", str(file), *about, *words, **{"LC_ALL": "", "LANG": "C.UTF-8", **environment})


def kept(directory: Path, made: World) -> Path:
    """A World in a file."""
    file = directory / "world.json"
    file.write_bytes(made.to_json())
    return file


@pytest.fixture
def passing(tmp_path: Path) -> Path:
    """A World in which it passes."""
    return kept(tmp_path, world(door=[OUT], web=[IN], policy=allow()))


def test_exit_codes_and_the_last_line(passing: Path, tmp_path: Path) -> None:
    """0 it can, 1 it cannot, 2 nobody can tell."""
    done = asked(passing)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "The connection can be made.")
    shut = kept(tmp_path, world(door=[OUT], policy=allow()))
    done = asked(shut)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "The connection cannot be made.")
    assert "FAIL target's inbound rules: no inbound rule of sg-web allows tcp 22 from 10.0.0.10" in done.stdout
    done = asked(kept(tmp_path, world(door=[OUT], web=[IN], policy=allow())), "--principal", "role/ops/nobody")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (
        2,
        "It cannot be told whether the connection can be made.",
    )


@pytest.mark.parametrize(
    ("environment", "words", "language"),
    [
        ({"LANG": "ja_JP.UTF-8"}, (), "ja"),
        ({"LANG": "ja_JP.UTF-8", "LC_ALL": "en_US.UTF-8"}, (), "en"),
        ({"LC_MESSAGES": "ja_JP.UTF-8"}, (), "ja"),
        ({"LANG": "ja_JP.UTF-8"}, ("--lang", "en"), "en"),
        ({}, ("--lang", "ja"), "ja"),
        ({"LANG": "de_DE.UTF-8"}, (), "en"),
    ],
)
def test_the_language(passing: Path, environment: dict[str, str], words: tuple[str, ...], language: str) -> None:
    """The option, else the locale by POSIX's order, else English."""
    last = asked(passing, *words, **environment).stdout.splitlines()[-1]
    assert last == {"en": "The connection can be made.", "ja": "接続できます。"}[language]


def test_no_variables_at_all() -> None:
    """English."""
    assert language_of({}) == "en"


def test_as_json(passing: Path) -> None:
    """What programs read has what people read in it."""
    data = json.loads(asked(passing, "--json", "--at", "2026-01-31T23:59:59Z").stdout)
    assert (data["schema"], data["outcome"], data["revision"]) == (1, "pass", 7)
    assert data["asked"]["at"] == "2026-01-31T23:59:59Z"
    assert data["lines"] == asked(passing).stdout.splitlines()


@pytest.mark.parametrize(
    ("words", "option", "text"),
    [
        (("--principal", "carol"), "--principal", "there is no user 'carol'"),
        (("--from", "here"), "--from", "'here' is no IP address"),
        (("--to", "web"), "--to", "'web' is no instance id"),
        (("--endpoint", "eice-9"), "--endpoint", "there is no such endpoint as eice-9; those that are: eice-1"),
    ],
)
def test_what_is_missing(passing: Path, words: tuple[str, ...], option: str, text: str) -> None:
    """Exit code 2; the option that is meant, and what would be right; as data on demand."""
    done = asked(passing, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"wicketgate: {option}: {text}")
    done = asked(passing, *words, "--json")
    assert done.returncode == 2
    missing = json.loads(done.stdout)["missing"]
    assert missing["option"] == option
    assert missing["text"].startswith(text)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"{", "not a World: "),
        (b'{"vpcs": 3}', "at `$.vpcs`"),
        (b'{"instances": [{"id": "i-1", "interface_id": "eni-1"}]}', "eni-1"),
    ],
)
def test_files_that_are_no_worlds(tmp_path: Path, content: bytes, text: str) -> None:
    """The file, and the place in it that is malformed or contradicts another."""
    file = tmp_path / "world.json"
    file.write_bytes(content)
    done = asked(file)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"wicketgate: --world: {file}: ")
    assert text in done.stderr


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Exit code 2 as well: nothing was found out."""
    done = asked(tmp_path / "none.json")
    assert (done.returncode, done.stderr) == (
        2,
        f"wicketgate: --world: {tmp_path}/none.json: No such file or directory\n",
    )


@pytest.mark.parametrize("needed", ["--principal", "--from", "--to"])
def test_a_file_knows_no_caller(passing: Path, needed: str) -> None:
    """Who, from where and to what have to be said."""
    about = {"--principal": "alice", "--from": CLIENT, "--to": WEB}
    words = [word for pair in about.items() if pair[0] != needed for word in pair]
    done = run("explain", "--world", str(passing), *words)
    assert done.returncode == 2
    assert done.stderr.startswith(f"wicketgate: {needed}: say ")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--request-id", "r", "--to", WEB), "--request-id says by itself"),
        (("--request-id", "r", "--world", "w"), "excludes --world"),
        (("--prove", "--to", WEB, "--world", "w"), "they exclude --world"),
        (("--probe", "--to", WEB, "--at", "1h"), "they exclude --request-id and --at"),
        (("--at", "yesterday"), "'yesterday' is no time"),
        (("--port", "0"), "--port"),
    ],
)
def test_options_that_exclude_each_other(words: tuple[str, ...], text: str) -> None:
    """Wrong use is told before anything is asked, with the AWS CLI's exit code."""
    done = run("explain", *words)
    assert done.returncode == 252
    assert text in done.stderr


def test_its_own_words_are_whole() -> None:
    """In both languages with the same facts; what the catalogue has too is said alike."""
    for key, sentences in WORDS.items():
        facts = [{name for _, name, _, _ in Formatter().parse(sentence) if name} for sentence in sentences]
        assert facts[0] == facts[1], key
        assert CATALOGUE.get(key, sentences) == sentences


def test_a_client_needs_no_more_than_a_client() -> None:
    """Asked of a deployment, the verb imports nothing that the client's dependencies do not bring."""
    code = (
        "import sys, wicketgate.cli.explain, wicketgate.cli.explain_proof, wicketgate.client.explaining;"
        f"print(*[name for name in {TOO_HEAVY_FOR_THE_CLIENT!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("explained", "happened", "expected"),
    [
        ("pass", Happened(True), ("opened", "pass")),
        ("unknown", Happened(True), ("opened", "pass")),
        ("fail", Happened(True), ("mismatch", "unknown")),
        ("fail", Happened(False, "AccessDeniedException: no (HTTP 403)"), ("not-opened", "fail")),
        ("fail", Happened(False, f"{UNABLE}timed out", 1011), ("not-opened", "fail")),
        ("pass", Happened(False, "AccessDeniedException: no (HTTP 403)"), ("mismatch", "unknown")),
        ("pass", Happened(False, f"{UNABLE}no inbound rule of sg-1 allows tcp 22", 1011), ("mismatch", "unknown")),
        ("pass", Happened(False, f"{UNABLE}connection refused (request id 1)", 1011), ("beyond", "fail")),
        ("pass", Happened(False, f"{UNABLE}no answer from 10.0.0.1 within 5 s, although", 1011), ("beyond", "fail")),
        ("pass", Happened(False, f"{UNABLE}no route (request id 1)", 1011), ("unclear", "unknown")),
        (
            "pass",
            Happened(False, f"{UNABLE}no route to 10.0.0.1, although routes and rules pass: the host is down", 1011),
            ("beyond", "fail"),
        ),
        ("pass", Happened(False, f"{UNABLE}eice-1 has 20 tunnels open, its limit", 1013), ("limit", "unknown")),
        ("unknown", Happened(False, "AccessDeniedException: no (HTTP 403)"), ("unclear", "unknown")),
    ],
)
def test_an_explanation_against_what_happened(explained: str, happened: Happened, expected: tuple[str, str]) -> None:
    """Only what cannot both be true is a contradiction."""
    assert compared(explained, happened) == expected
    assert expected[0] in WORDS
