"""Lint and check of a running deployment: fixes are run by the stock CLI, counterexamples are real tunnels."""

import json
import os
import shlex
import subprocess
import sys

import pytest

from tests.api.deployment import API, REGION, ROOT
from tests.api.people import allow
from tests.api.test_explain import HERE, OPEN, Scene, serving
from tests.api.test_stock_cli import CommandLine


@pytest.fixture(scope="module")
def made(deployment, ec2, iam):
    """One scene for the module."""
    return Scene(deployment, ec2, iam)


@pytest.fixture
def scene(made):
    """In which alice's tunnel to web passes, and somebody is there."""
    made.ready()
    with serving(made.i_web, made.address):
        yield made


@pytest.fixture(scope="module")
def aws(deployment, tmp_path_factory):
    """The stock CLI, as root."""
    return CommandLine(tmp_path_factory.mktemp("home"))


def verb(name, *words, key=ROOT):
    """Our command line."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {"AWS_ENDPOINT_URL": f"https://{API}", "AWS_CA_BUNDLE": os.environ["AWS_CA_BUNDLE"]}
    environment |= {"AWS_ACCESS_KEY_ID": key[0], "AWS_SECRET_ACCESS_KEY": key[1], "AWS_REGION": REGION, "LANG": "C"}
    command = [sys.executable, "-m", "wicketgate.cli", name, *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def findings(scene):
    """Of the scene's own groups: other modules leave theirs."""
    done = verb("lint", "--json")
    assert done.stderr == ""
    ours = {scene.door, scene.web, scene.db}
    return [one for one in json.loads(done.stdout)["findings"] if {one["resource"], one["within"]} & ours]


def test_fixes_by_the_stock_cli(scene, aws):
    """Each finding's commands, as they are printed; then it is gone and the tunnel opens as before."""
    scene.let_in(scene.web, "0.0.0.0/0")
    scene.let_in(scene.door, "10.0.0.0/8")
    scene.let_in(scene.web, f"{scene.own_address}/32", 80)
    scene.let_in(scene.web, "10.0.1.0/24", 80)
    told = findings(scene)
    assert [one["id"] for one in told] == ["WG001", "WG007", "WG020"]
    for one in told:
        for command in one["fix"]["commands"]:
            assert command[0] == "aws"
            done = aws.run(*command[1:])
            assert done.returncode == 0, done.stderr
    assert findings(scene) == []
    assert scene.tried(scene.asked()).opened


def test_lint_names_everything(scene):
    """So it is for those whom IAM allows it on everything."""
    done = verb("lint", key=scene.alice.key)
    assert done.returncode == 255
    assert "not authorized to perform: wicketgate:Lint" in done.stderr
    scene.may(allow(OPEN), allow("wicketgate:Lint"))
    assert verb("lint", "--fail-on", "never", key=scene.alice.key).returncode == 0


def test_checks_and_real_tunnels(scene, tmp_path):
    """What never should pass does, by the very tunnel that is told; shut, the check holds and the tunnel fails."""
    file = tmp_path / "checks.yaml"
    who = scene.alice.name
    file.write_text(f"checks:\n  - never: a tunnel\n    who: user {who}\n    from: {HERE}\n    to: {scene.i_web}\n")
    done = verb("check", str(file), "--json")
    assert (done.returncode, done.stderr) == (1, "")
    (example,) = json.loads(done.stdout)["checks"][0]["counterexamples"]
    assert (example["principal"], example["source"]) == (scene.alice.name, HERE)
    explained = verb(*shlex.split(shlex.join(example["command"]))[1:])
    assert explained.returncode == 0, explained.stdout
    asked = {"Target": example["target"], "EndpointId": example["endpoint"], "Port": example["port"]}
    assert scene.tried(scene.asked(**asked)).opened
    scene.shut(scene.web)
    assert verb("check", str(file)).returncode == 0
    assert not scene.tried(scene.asked(**asked)).opened


def test_a_file_that_is_wrong(scene, tmp_path):
    """Told by the deployment with the file's name, line and column; alice may not check at all."""
    file = tmp_path / "checks.yaml"
    file.write_text(f"checks:\n  - never: it\n    who: user nobody\n    to: {scene.i_web}\n")
    done = verb("check", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"wicketgate: {file}:3:10: found 'user nobody', expected principals of which")
    assert verb("check", str(file), key=scene.alice.key).returncode == 255
