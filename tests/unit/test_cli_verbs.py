"""`wicketgate audit` and `wicketgate env` as processes; the client's verbs stay light."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.test_layers import TOO_HEAVY_FOR_THE_CLIENT
from wicketgate.audit.events import event_time

INSTANCE = "i-0123456789abcdef0"


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A verb to its end."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "WICKETGATE_"))}
    return subprocess.run(
        [sys.executable, "-m", "wicketgate.cli", *words],
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def record(before: float, name: str, user: str = "alice", **more: object) -> bytes:
    """One line of the trail, some seconds ago."""
    event = {
        "eventTime": event_time(time.time() - before),
        "eventID": f"{name}-{before}",
        "eventName": name,
        "sourceIPAddress": "192.0.2.1",
        "userIdentity": {
            "type": "IAMUser",
            "userName": user,
            "arn": f"arn:aws:iam::1:user/{user}",
            "accessKeyId": "AK",
        },
        **more,
    }
    return json.dumps(event).encode() + b"\n"


@pytest.fixture
def trail(tmp_path: Path) -> Path:
    """An audit directory with two processes' files."""
    directory = tmp_path / "audit"
    for name in ("api", "gateway"):
        (directory / name).mkdir(parents=True)
    pushed = {"requestParameters": {"instanceId": INSTANCE}}
    denied = {"errorCode": "AccessDenied", "errorMessage": "User: bob is not\x1b[2J authorized"}
    (directory / "api" / "api.jsonl").write_bytes(
        record(7200, "CreateVpc", resources=[{"ARN": "arn:aws:ec2:us-east-1:1:vpc/vpc-1"}])
        + record(600, "SendSSHPublicKey", **pushed)
        + record(60, "SendSSHPublicKey", user="bob", **denied)
    )
    opened = {"requestParameters": {"privateIpAddress": "10.0.0.5", "remotePort": "22"}}
    ended = {"closeCode": 1000, "closeReason": "", "bytesFromClient": 5, "bytesToClient": 7, "durationSeconds": 1.5}
    (directory / "gateway" / "gateway-0.jsonl").write_bytes(
        record(500, "OpenTunnel", **opened) + record(400, "CloseTunnel", **opened, serviceEventDetails=ended)
    )
    return directory


def names(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The actions of the lines shown."""
    assert done.returncode == 0, done.stderr
    return [line.split()[2] for line in done.stdout.splitlines()]


def test_audit_shows_one_readable_line_an_event(trail):
    """Oldest first across files, with what was done to what, and how it ended; control characters are escaped."""
    lines = [line.partition(" ")[2] for line in run("audit", "--directory", str(trail)).stdout.splitlines()]
    assert lines == [
        "alice CreateVpc vpc-1 from 192.0.2.1: ok",
        "alice SendSSHPublicKey from 192.0.2.1: ok",
        "alice OpenTunnel to 10.0.0.5:22 from 192.0.2.1: ok",
        "alice CloseTunnel to 10.0.0.5:22 from 192.0.2.1: ended 1000, 5 bytes from client, 7 bytes to client, 1.5 s",
        r"bob SendSSHPublicKey from 192.0.2.1: AccessDenied: User: bob is not\x1b[2J authorized",
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--principal", "bob"], ["SendSSHPublicKey"]),
        (["--principal", "arn:aws:iam::1:user/bob"], ["SendSSHPublicKey"]),
        (["--principal", "AK", "--event", "createvpc"], ["CreateVpc"]),
        (["--resource", INSTANCE], ["SendSSHPublicKey"]),
        (["--resource", "vpc-1"], ["CreateVpc"]),
        (["--resource", "pc-1"], []),
        (["--errors"], ["SendSSHPublicKey"]),
        (["--since", "15m", "--until", "450s"], ["SendSSHPublicKey", "OpenTunnel"]),
        (["--since", "2020-01-01", "--until", "2020-01-02T00:00:00Z"], []),
    ],
)
def test_audit_filters(trail, options, expected):
    """By caller, resource, action, time and outcome."""
    assert names(run("audit", "--directory", str(trail), *options)) == expected


def test_audit_as_json_is_whole_events(trail):
    """One object a line, as written."""
    shown = run("audit", "--directory", str(trail), "--json", "--event", "CreateVpc").stdout
    assert shown.encode() == (trail / "api" / "api.jsonl").read_bytes().splitlines(keepends=True)[0].replace(
        b'": ', b'":'
    ).replace(b', "', b',"')


def test_audit_finds_its_directory_by_the_settings(trail):
    """The state directory's."""
    assert len(names(run("audit", WICKETGATE_STATE_DIRECTORY=str(trail.parent)))) == 5


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--directory", "/nowhere"], 1, "audit directory /nowhere: No such file or directory"),
        (["--since", "soon"], 252, "'soon' is no time: expected"),
        (["--follow", "--until", "1h"], 252, "--follow and --until exclude each other"),
    ],
)
def test_audit_says_what_is_wrong(options, code, words):
    """One line, no traceback."""
    done = run("audit", *options)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_audit_follows(trail):
    """What was there is not shown again; what comes is, as it comes."""
    argv = [sys.executable, "-m", "wicketgate.cli", "audit", "--directory", str(trail), "--follow"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        deadline = time.monotonic() + 20
        file = trail / "api" / "api.jsonl"
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        shown = b""
        while b"Late" not in shown and time.monotonic() < deadline:
            with file.open("ab") as out:  # again and again: it may not be looking yet
                out.write(record(0, "LateCall"))
            time.sleep(0.1)
            shown += process.stdout.read() or b""
        process.terminate()
    assert shown.split()[2] == b"LateCall"


def test_env_prints_what_a_shell_evaluates(tmp_path):
    """URL, region and the bundle of the state directory, quoted for a shell."""
    state = tmp_path / "it's state"
    state.mkdir()
    (state / "bundle.pem").write_text("x")
    settings = {"WICKETGATE_STATE_DIRECTORY": str(state), "WICKETGATE_DOMAIN": "gate.test", "WICKETGATE_PORT": "8443"}
    done = run("env", **settings)
    assert done.returncode == 0, done.stderr
    show = 'echo "$AWS_ENDPOINT_URL|$AWS_REGION|$AWS_DEFAULT_REGION|$AWS_CA_BUNDLE|$SSL_CERT_FILE"'
    shown = subprocess.run(["sh", "-c", f"{done.stdout}\n{show}"], capture_output=True, text=True, check=True).stdout
    bundle = str(state / "bundle.pem")
    assert shown.strip().split("|") == ["https://api.gate.test:8443", "us-east-1", "us-east-1", bundle, bundle]


def test_env_with_an_own_certificate_names_no_bundle(tmp_path):
    """Clients know such a certificate's root by themselves."""
    files = {"WICKETGATE_CERTIFICATE_FILE": "/c.pem", "WICKETGATE_PRIVATE_KEY_FILE": "/k.pem"}
    done = run("env", WICKETGATE_STATE_DIRECTORY=str(tmp_path), **files)
    assert [shlex.split(line)[1].partition("=")[0] for line in done.stdout.splitlines()] == [
        "AWS_ENDPOINT_URL",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
    ]


def test_env_without_a_bundle_says_how_to_get_one(tmp_path):
    """Before the first start, or on another machine."""
    done = run("env", WICKETGATE_STATE_DIRECTORY=str(tmp_path))
    assert done.returncode == 1
    assert f"no certificates in {tmp_path}/bundle.pem: start `wicketgate serve`, or give --ca-bundle" in done.stderr
    (tmp_path / "ca.pem").write_text("x")
    given = ("--endpoint-url", "https://x.test", "--region", "eu-west-1", "--ca-bundle", str(tmp_path / "ca.pem"))
    assert "AWS_ENDPOINT_URL=https://x.test" in run("env", *given, WICKETGATE_PORT="nonsense").stdout


def test_the_verbs_of_a_client_start_light():
    """None of the modules behind `ssh`, `proxy` and `ssh-config` imports an SDK, the model or an event loop."""
    code = (
        "import sys, wicketgate.cli.ssh, wicketgate.cli.proxy, wicketgate.cli.ssh_config, wicketgate.client.lookup,"
        "wicketgate.client.ssh, wicketgate.client.tunnel;"
        f"print(*[name for name in {TOO_HEAVY_FOR_THE_CLIENT!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
