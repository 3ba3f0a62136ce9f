"""Reach of a running deployment: its answer is what real tunnels do, now, before, and after a plan is carried out."""

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest

from tests.api.deployment import ACCOUNT, API, REGION, ROOT
from tests.api.people import allow
from tests.api.test_explain import OPEN, Scene, permission, serving


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


def reach(scene, **more):
    """The document of an answer, asked by root."""
    asked = {"Principal": scene.alice.name, "Target": scene.i_web} | more
    return json.loads(scene.client().ask("Reach", asked)["Reach"])


def verb(scene, *words, key):
    """Our command line."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {"AWS_ENDPOINT_URL": f"https://{API}", "AWS_CA_BUNDLE": os.environ["AWS_CA_BUNDLE"]}
    environment |= {"AWS_ACCESS_KEY_ID": key[0], "AWS_SECRET_ACCESS_KEY": key[1], "AWS_REGION": REGION, "LANG": "C"}
    command = [sys.executable, "-m", "wicketgate.cli", "reach", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_what_is_reached_opens_and_what_is_not_does_not(scene):
    """Port 22 is in the answer and passes; a plan says what it would take away, and when it is carried out, it does."""
    data = reach(scene)
    (cell,) = data["cells"]
    assert (cell["endpoint"], cell["principals"]) == (scene.eice, [scene.alice.name])
    assert [one["ports"] for one in cell["reach"]] == [[[22, 22]]]
    assert scene.tried(scene.asked()).opened
    call = {"GroupId": scene.door, "IpPermissions": [permission(scene.web, 22)]}
    (shift,) = reach(scene, Plan=json.dumps([{"Action": "RevokeSecurityGroupEgress", **call}]))["shifts"]
    assert (shift["lost"], shift["gained"]) == (cell["reach"], [])
    before = datetime.now(UTC)
    scene.ec2.revoke_security_group_egress(**call)
    assert reach(scene)["cells"] == []
    assert not scene.tried(scene.asked()).opened
    (since,) = reach(scene, Time=before.timestamp(), LaterTime=time.time() + 60)["shifts"]
    assert since["lost"] == cell["reach"]


def test_instances_among_each_other(scene):
    """All traffic: what the groups of both let pass."""
    scene.let_out(scene.db, scene.web, 5432)
    scene.let_in(scene.web, scene.db, 5432)
    (one,) = reach(scene, AllTraffic=True)["arrivals"]
    assert ([sender["instance"] for sender in one["senders"]], one["packets"]) == ([scene.i_db], ["tcp 5432"])


def test_the_verb(scene):
    """Without --world the deployment answers; alice only about herself, once she may."""
    done = verb(scene, "--to", scene.i_web, key=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert any(line.startswith("root") and scene.i_web in line for line in done.stdout.splitlines())
    assert scene.alice.name in done.stdout
    refused = verb(scene, "--principal", scene.alice.name, key=scene.alice.key)
    assert refused.returncode == 255
    assert "AccessDenied" in refused.stderr or "not authorized" in refused.stderr
    own = f"arn:aws:iam::{ACCOUNT}:user/{scene.alice.name}"
    scene.may(allow(OPEN), {"Effect": "Allow", "Action": "wicketgate:Reach", "Resource": own})
    assert verb(scene, "--principal", scene.alice.name, key=scene.alice.key).returncode == 0
    assert verb(scene, key=scene.alice.key).returncode == 255
    missing = verb(scene, "--to", "i-gone", key=ROOT)
    assert (missing.returncode, "--to: there is no such instance" in missing.stderr) == (2, True)
