"""The short cut past click reads what click reads, and leaves to click what is not plain."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wicketgate.cli import open_tunnel, proxy, quick

COMMANDS = {"open-tunnel": open_tunnel.command, "proxy": proxy.command}
WORD = st.sampled_from(
    [*quick.OPEN_TUNNEL, *quick.PROXY, "--local-port", "--help", "--", "-x", "", "i-1", "22", "0", "070", "²", "1e3"]
) | st.text(max_size=3)
PLAIN = st.tuples(st.sampled_from([*quick.OPEN_TUNNEL, *quick.PROXY]), st.sampled_from(["a", "22", "3600", "x=y", ""]))


def by_click(verb: str, words: list[str]) -> dict[str, object] | None:
    """The parameters that click finds in the words; None when it refuses them."""
    command = COMMANDS[verb]
    try:
        with command.make_context(verb, list(words)) as context:
            given = click.core.ParameterSource.COMMANDLINE
            return {
                name: value for name, value in context.params.items() if context.get_parameter_source(name) is given
            }
    except (click.ClickException, click.exceptions.Exit):
        return None


def agreed(words: list[str]) -> bool:
    """Whether the short cut took the words; fails where click reads them otherwise."""
    found = quick.read(words)
    if found is None:
        return False
    verb, options = found
    assert verb == words[0]
    assert options == by_click(verb, words[1:])
    return True


@settings(deadline=None)
@given(st.sampled_from([*COMMANDS]), st.lists(WORD, max_size=8))
def test_whatever_is_taken_is_read_as_click_reads_it(verb: str, words: list[str]) -> None:
    """Any words: taken with click's meaning, or left to click."""
    agreed([verb, *words])


@settings(deadline=None)
@given(st.lists(PLAIN, max_size=4, unique_by=lambda pair: pair[0]), st.booleans())
def test_plain_words_are_taken_with_clicks_meaning(pairs: list[tuple[str, str]], joined: bool) -> None:
    """Options with values, in both spellings."""
    words = [f"{name}={value}" for name, value in pairs] if joined else [word for pair in pairs for word in pair]
    own = all(name in quick.OPEN_TUNNEL for name, _ in pairs)
    right = all(value.isdecimal() for name, value in pairs if name in ("--remote-port", "--max-tunnel-duration"))
    assert agreed(["open-tunnel", *words]) == (own and right)


@pytest.mark.parametrize(
    ("words", "taken"),
    [
        (["open-tunnel", "--instance-id", "i-1"], True),
        (["proxy", "--key", "/k", "--region", "r", "--", "i-1", "22", "me"], True),
        (["proxy", "--", "i-1", "22", "-me"], True),
        (["proxy", "--", "i-1", "0", "me"], False),
        (["proxy", "i-1", "22", "me"], False),
        (["open-tunnel", "--instance-id", "i-1", "--local-port", "0"], False),
        (["open-tunnel", "--help"], False),
        (["open-tunnel", "--instance-id"], False),
        (["open-tunnel", "--instance-id", "i-1", "--instance-id", "i-2"], False),
        (["ssh", "i-1"], False),
        ([], False),
    ],
)
def test_what_the_short_cut_takes(words: list[str], taken: bool) -> None:
    """The command lines that ssh runs; all else is click's."""
    assert agreed(words) == taken


def test_no_option_but_the_listeners_is_left_out() -> None:
    """A new option of `open-tunnel` or `proxy` is either here, or named below as one that may start slowly."""
    slow = {"--local-port", "--max-websocket-connections"}
    for command, names in ((open_tunnel.command, quick.OPEN_TUNNEL), (proxy.command, quick.PROXY)):
        options = {name: parameter.name for parameter in command.params for name in parameter.opts if name[0] == "-"}
        assert {name: parameter for name, parameter in options.items() if name not in slow} == dict(names)


@pytest.mark.parametrize(
    "words", [["open-tunnel", "--instance-id", "i-1"], ["proxy", "--key", "/nowhere/k", "--", "i-1", "22", "me"]]
)
def test_the_short_cut_imports_no_click(words: list[str]) -> None:
    """Down to where the API is asked for, which fails without credentials."""
    code = f"""
import sys
from wicketgate.cli.quick import quick
status = quick({words!r})
print(status, [name for name in ("click", "pathlib", "encodings.idna") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={"AWS_CONFIG_FILE": "/nowhere", "AWS_SHARED_CREDENTIALS_FILE": "/nowhere", "AWS_ACCESS_KEY_ID": "a"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("253 "), done.stderr
    assert "'click'" not in done.stdout


def run(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line after some code, in a process of its own."""
    code = f"import sys\nsys.argv = ['wicketgate', *sys.argv[1:]]\n{code}\nfrom wicketgate.cli import main\nmain()"
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("more", [[], ["--local-port", "0"]])
def test_a_python_without_a_module_is_told_either_way(more: list[str]) -> None:
    """A Python that was built without TLS, for example: one line, and the code for what is missing."""
    done = run("sys.modules['ssl'] = None", "open-tunnel", "--instance-id", "i-1", "--region", "r", *more)
    assert done.returncode == 253
    said = "`wicketgate open-tunnel` cannot do this here: this system's Python has no module ssl."
    assert done.stderr == f"Error: {said}\n"


def test_words_are_taken_as_they_are_on_windows(tmp_path: Path) -> None:
    """Also by click, which expands them there by default: a command for the other side may have a `*`."""
    windows = "import os, types, click.core\nclick.core.os = types.SimpleNamespace(**vars(os) | {'name': 'nt'})"
    (tmp_path / "ca.pem").touch()
    done = run(windows, "env", "--endpoint-url", "$HOME", "--region", "/etc/host*", "--ca-bundle", f"{tmp_path}/ca.pem")
    assert done.stdout.splitlines()[:2] == ["export AWS_ENDPOINT_URL='$HOME'", "export AWS_REGION='/etc/host*'"]
