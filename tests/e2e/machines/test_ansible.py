"""Ansible, unchanged, on ten machines at once: ssh with a ProxyCommand each."""

import re
import sys
from pathlib import Path

import pytest

from tests.e2e.machines.reach import OWN

PROGRAMS = ["wicketgate", OWN, "aws"]
LIMIT = 20
"""Tunnels of one endpoint, as at AWS and by default."""


def _opened(reach):
    """The targets of the tunnels that were opened so far."""
    lines = [line for line in reach.lab.audit() if line["eventName"] == "OpenTunnel"]
    return [line["requestParameters"]["privateIpAddress"] for line in lines if "errorCode" not in line]


@pytest.mark.parametrize("program", PROGRAMS)
def test_ping(reach, program, tmp_path):
    """All ten answer `ping` at once, within an endpoint's limit, each through tunnels of its own."""
    assert reach.lab.serve.configuration.max_tunnels_per_endpoint == LIMIT
    names = [host.name for host in reach.hosts]
    (tmp_path / "inventory").write_text(
        "\n".join(names) + "\n[all:vars]\nansible_python_interpreter=/usr/bin/python3\n"
        f'ansible_ssh_common_args="-F {reach.ssh_config(program)}"\n'
    )
    before = len(_opened(reach))
    # As Ansible has it, but for how long a connection stays open for further tasks: the default is a minute.
    environment = {"ANSIBLE_SSH_ARGS": "-C -o ControlMaster=auto -o ControlPersist=2s"}
    environment["ANSIBLE_SSH_CONTROL_PATH_DIR"] = str(reach.directory / f"cp{PROGRAMS.index(program)}")
    ansible = [sys.executable, str(Path(sys.executable).with_name("ansible"))]
    command = [*ansible, "all", "-i", str(tmp_path / "inventory"), "--forks", "10", "-m", "ping"]
    done = reach.run(*command, environment=environment, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert sorted(re.findall(r"^(\S+) \| SUCCESS", done.stdout, re.MULTILINE)) == sorted(names)
    assert done.stdout.count('"ping": "pong"') == len(names)
    assert set(_opened(reach)[before:]) == {host.address for host in reach.hosts}
