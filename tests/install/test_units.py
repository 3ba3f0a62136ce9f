"""What systemd thinks of the units, of which none is started here."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.test_install import Place, choice

SCORES = {"wicketgate-gateway@.service": 2.0, "wicketgate-api.service": 2.0, "wicketgate-metadata.service": 2.0}
"""The worst exposure that each may have (systemd-analyze security); docs/install.md lists what keeps it from lower."""


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    place = Place(tmp_path)
    place.install(choice())
    found = place.root / "etc/systemd/system"
    return sorted(path for path in found.iterdir() if path.is_file())


def test_systemd_verifies_the_units(units):
    """No word of complaint: no unknown setting, no missing program, no unit that is named and not there."""
    paths = [str(path).replace("@.service", "@a0.service") for path in units]
    template = next(path for path in units if "@" in path.name)
    shutil.copy(template, str(template).replace("@.service", "@a0.service"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *paths], capture_output=True, text=True
    )
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "wicketgate" in line]
    assert (done.returncode, ours) == (0, [])


@pytest.mark.parametrize("name", [*SCORES])
def test_systemd_thinks_well_of_what_faces_clients(units, name):
    """The exposure that systemd computes of the units is no higher than what is promised."""
    path = next(path for path in units if path.name == name)
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", f"--threshold={SCORES[name] * 10:.0f}", str(path)],
        capture_output=True, text=True,
    )  # fmt: skip
    score = re.search(r"Overall exposure level for .*: ([0-9.]+)", done.stdout)
    assert score is not None, done.stderr
    print(name, score[1])
    assert float(score[1]) <= SCORES[name], done.stdout
    assert done.returncode == 0
