"""`wicketgate explain --prove --probe` in the lab: real sshd's and clients, both families, both kinds of endpoints."""

import json
import subprocess
import sys

import pytest

from wicketgate.kernel import netns


def proven(lab, client, user, *words):
    """The answer about one's own way, with the real connection beside it; exit code and data."""
    command = [sys.executable, "-m", "wicketgate.cli", "explain", *words, "--prove", "--probe", "--json"]
    with netns.entered(client):
        done = subprocess.run(
            command, env=lab.environment(user), capture_output=True, text=True, timeout=60, check=False
        )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("client", ["office", "home"])
def test_every_machine_as_explained(lab, client):
    """Whatever the explanation says of a machine of the lab, a real tunnel and a real sshd say too."""
    outcomes = []
    for instance in lab.world.instances:
        code, data = proven(lab, client, "admin", "--to", instance.id)
        proof = data["proof"]
        assert proof["agrees"], proof
        assert proof["happened"]["opened"] is (proof["explanation"]["outcome"] == "pass"), proof
        assert code == (0 if data["outcome"] == "pass" else 1)
        if data["outcome"] == "pass":
            assert data["steps"][-1]["text"].startswith("what answers says SSH-2.0-OpenSSH")
        elif proof["happened"]["code"] == 1011:
            assert data["oneLine"][:60] in proof["happened"]["told"]
        outcomes.append(data["outcome"])
    assert {"pass", "fail"} == set(outcomes)
    assert outcomes.count("pass") >= 3
