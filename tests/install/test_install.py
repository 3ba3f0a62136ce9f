"""Installed from the Debian package on a Debian of its own: started, rebooted, upgraded, removed.

systemd does not run there: `unit_runner.py`, which is no systemd, starts the units as they are installed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
BASE = ROOT / ".cache" / "bookworm-gateway.tar"
PACKAGES = "python3,libnftables1,iproute2,nftables,passwd,logrotate,libseccomp2"
ENTER = Path(__file__).with_name("enter_tree.sh")
STEPS = 18

pytestmark = [
    pytest.mark.once,
    pytest.mark.slow,
    pytest.mark.root,  # it needs a system of its own
    pytest.mark.skipif(
        not all(map(shutil.which, ("mmdebstrap", "systemd-analyze", "dpkg-deb"))),
        reason="mmdebstrap or systemd-analyze is missing: scripts/bootstrap test installs them",
    ),
]


def filters() -> dict[str, list[str]]:
    """systemd's sets of system calls."""
    found: dict[str, list[str]] = {}
    told = subprocess.run(["systemd-analyze", "syscall-filter", "--no-pager"], capture_output=True, text=True).stdout
    for line in told.splitlines():
        if line.startswith("@"):
            name = line.strip()
            found[name] = []
        elif line.startswith("    ") and not line.strip().startswith("#") and found:
            found[name].append(line.strip())
    return found


@pytest.fixture
def tree(tmp_path_factory):
    """A fresh Debian with what the package depends on."""
    if not BASE.exists():
        BASE.parent.mkdir(exist_ok=True)
        part = BASE.with_suffix(".part")
        subprocess.run(
            ["mmdebstrap", "--quiet", "--format=tar", "--variant=minbase", f"--include={PACKAGES}", "bookworm", part],
            check=True,
        )
        part.rename(BASE)
    tree = tmp_path_factory.mktemp("debian")
    tree.chmod(0o755)
    subprocess.run(["tar", "-C", tree, "-xf", BASE], check=True)
    yield tree
    shutil.rmtree(tree)


@pytest.mark.timeout(600)
def test_install(tree, tmp_path):
    """netd first, a tunnel, a reboot, an upgrade with the tunnel open, uninstalled, installed again, purged."""
    # as `make deb`, but for the compression, which takes a minute
    subprocess.run([ROOT / "packaging" / "build-deb", sys.executable, tmp_path, "-Zgzip", "-z1"], check=True)
    (package,) = tmp_path.glob("*.deb")
    shutil.copy(package, tree / "root" / "wicketgate.deb")
    (tree / "root" / "filters.json").write_text(json.dumps(filters()))
    for name in ("unit_runner.py", "scenario.py", "operators.py"):
        shutil.copy(Path(__file__).with_name(name), tree / "root" / name)
    # not in PATH before the package is installed: until then systemd does not run
    policy = tree / "usr" / "sbin" / "policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child", "--propagation", "private",
         "bash", ENTER, tree],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    print(done.stdout, done.stderr)
    steps = [line for line in done.stdout.splitlines() if line.startswith("ok: ")]
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(steps) == STEPS, steps
