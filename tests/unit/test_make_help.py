"""`make help` and the README, which say how to begin."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_help_lists_every_target():
    """The list is made from the targets' own comments: none is missing, each says what it does."""
    done = subprocess.run(["make", "-C", ROOT, "--no-print-directory"], capture_output=True, text=True, check=True)
    told = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(told) == set(phony.split())
    assert {"lab", "test", "check", "bench", "help"} <= set(told)


def test_readme_names_what_a_minimal_debian_needs():
    """The three packages without which a clone cannot be made, or `make` not be run."""
    readme = (ROOT / "README.md").read_text()
    assert all(f"`{package}`" in readme for package in ("git", "make", "ca-certificates"))
