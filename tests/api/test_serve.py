"""`wicketgate serve` as an operator runs it: first start, wrong settings, state it cannot use, a full disk."""

import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path

import botocore.exceptions
import pytest

from tests.api.deployment import API, DOMAIN, ROOT, client_of, readable

pytestmark = pytest.mark.usefixtures("alone")

PORT = "8443"


def arguments(directory, *more):
    """The command line of a small deployment."""
    python, _ = readable()
    flags = ["--state-directory", str(directory), "--listen-addresses", "127.0.0.1", "--port", PORT]
    return [python, "-m", "wicketgate.cli", "serve", *flags, "--domain", DOMAIN, "--workers", "1", *more]


def environment(**more):
    _, environment = readable()
    return {**environment, "PATH": os.environ["PATH"], **more}


def refused(*command, **more):
    """Exit code and words of a start that must fail."""
    done = subprocess.run(
        command,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 1, done
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.stderr


@contextmanager
def serving(directory, *more, **variables):
    """A running `wicketgate serve`; yields the process and what it printed."""
    command = arguments(directory, *more)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment(**variables), stdin=subprocess.DEVNULL, **pipes) as process:
        try:
            line = process.stderr.readline()
            assert "serves" in line, line + process.stderr.read()
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


@pytest.fixture
def place():
    """A state directory."""
    path = Path("/run/deployments") / f"serve-{time.monotonic_ns()}"
    path.parent.mkdir(exist_ok=True)
    return path


def client(directory, service, key, secret):
    return client_of(service, key, secret, endpoint=f"https://{API}:{PORT}", verify=str(directory / "bundle.pem"))


def test_first_start_shows_a_root_credential_once(place):
    """Without a credential one is made and shown once; it works, and works after a restart that does not show it."""
    with serving(place) as process:
        process.send_signal(signal.SIGTERM)
        words = dict(line.strip().split("=", 1) for line in process.stdout.read().splitlines() if "=" in line)
    pair = words["AWS_ACCESS_KEY_ID"], words["AWS_SECRET_ACCESS_KEY"]
    with serving(place) as process:
        identity = client(place, "sts", *pair).get_caller_identity()
        assert identity["Arn"] == "arn:aws:iam::123456789012:root"
        process.send_signal(signal.SIGTERM)
        assert "AWS_SECRET" not in process.stdout.read()


def test_root_from_the_environment_wins(place):
    """WICKETGATE_ROOT_* is the root credential of this start, and the one before it is none any more."""
    given = {"WICKETGATE_ROOT_ACCESS_KEY_ID": ROOT[0], "WICKETGATE_ROOT_SECRET_ACCESS_KEY": ROOT[1]}
    other = {"WICKETGATE_ROOT_ACCESS_KEY_ID": "AKIAOTHEROTHEROTHERO", "WICKETGATE_ROOT_SECRET_ACCESS_KEY": "x" * 40}
    with serving(place, **given):
        client(place, "sts", *ROOT).get_caller_identity()
    with serving(place, **other):
        client(place, "sts", "AKIAOTHEROTHEROTHERO", "x" * 40).get_caller_identity()
        with pytest.raises(botocore.exceptions.ClientError, match="InvalidClientTokenId"):
            client(place, "sts", *ROOT).get_caller_identity()


def test_secrets_are_not_on_the_disk_in_clear(place):
    """Neither the CA's key nor an access key's secret stands in any file of the state directory."""
    given = {"WICKETGATE_ROOT_ACCESS_KEY_ID": ROOT[0], "WICKETGATE_ROOT_SECRET_ACCESS_KEY": ROOT[1]}
    with serving(place, **given):
        iam = client(place, "iam", *ROOT)
        iam.create_user(UserName="somebody")
        made = iam.create_access_key(UserName="somebody")["AccessKey"]
        client(place, "sts", made["AccessKeyId"], made["SecretAccessKey"]).get_caller_identity()
    files = [path for path in place.rglob("*") if path.is_file()]
    assert any(path.name.endswith(".db") or "sqlite" in path.name for path in files), files
    for path in files:
        data = path.read_bytes()
        assert made["SecretAccessKey"].encode() not in data, path
        assert ROOT[1].encode() not in data, path
        assert b"PRIVATE KEY" not in data, path
    key = place / "store" / "seal.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--region", "nowhere"], "--region: found 'nowhere'; it should be a Region name"),
        (["--account-id", "12"], "--account-id: found '12'; it should be twelve digits"),
        (["--certificate-file", "/nonexistent/a.pem"], "private_key_file is not set"),
        (["--certificate-file", "/nonexistent/a.pem", "--private-key-file", "/nonexistent/a.key"], "No such file"),
        (["--config", "/nonexistent/w.toml"], "configuration file /nonexistent/w.toml: No such file"),
        (["--listen-addresses", "192.0.2.77"], "cannot listen on 192.0.2.77 port 8443"),
    ],
)
def test_bad_settings(place, flags, words):
    """A wrong setting is one line that names it and what would be right; nothing is left running."""
    assert words in refused(*arguments(place, *flags))


def test_interpreter_out_of_reach(place):
    """An installation that only root can read is refused by the place that is closed."""
    python, _ = readable()
    closed = Path("/run/deployments/closed")
    closed.mkdir(parents=True, exist_ok=True)
    (closed / "python").symlink_to(python)
    closed.chmod(0o700)
    command = [str(closed / "python"), *arguments(place)[1:]]
    words = refused(*command, PYTHONHOME="", PYTHONPATH=f"{readable()[1]['PYTHONPATH']}:{_packages()}")
    assert f"{closed} cannot be read by everybody" in words


def _packages():
    return next(path for path in sys.path if path.endswith("site-packages"))


def test_port_taken(place):
    """A port that somebody has is said so."""
    with socket.create_server(("127.0.0.1", int(PORT))):
        assert f"cannot listen on 127.0.0.1 port {PORT}: Address already in use" in refused(*arguments(place))


def test_state_that_cannot_be_used(place):
    """Another account's, a newer or a damaged state is refused in words, and nothing of it is changed."""
    with serving(place):
        pass
    file = next(path for path in (place / "store").iterdir() if path.suffix in (".db", ".sqlite"))
    before = _dump(file)
    assert "account 123456789012" in refused(*arguments(place, "--account-id", "210987654321"))
    _set(file, "schemas", '{"vpc": 99}')
    assert "a newer wicketgate wrote" in refused(*arguments(place))
    _set(file, "schemas", before["schemas"])
    _set(file, "revision", "7")
    assert "damaged" in refused(*arguments(place))
    _set(file, "revision", before["revision"])
    audit = place / "audit" / "api" / "api.jsonl"
    audit.unlink(missing_ok=True)
    audit.mkdir()  # whatever it is that cannot be written to
    assert f"audit file {audit}: Is a directory" in refused(*arguments(place))
    audit.rmdir()
    with serving(place):
        pass


def _dump(file):
    with closing(sqlite3.connect(file)) as database:
        return dict(database.execute("SELECT name, value FROM meta"))


def _set(file, name, value):
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE meta SET value = ? WHERE name = ?", (value, name))


def test_wrong_seal_key(place):
    """Another key file is refused by name; the right one put back, all is there again."""
    with serving(place):
        pass
    key = place / "store" / "seal.key"
    right = key.read_bytes()
    owner = key.stat()
    key.unlink()
    words = refused(*arguments(place))
    assert "seal.key" in words
    key.write_bytes(right)
    key.chmod(0o600)
    os.chown(key, owner.st_uid, owner.st_gid)
    with serving(place):
        pass


def test_two_on_one_state(place):
    """A second `serve` on the same state directory is refused, and the first goes on."""
    given = {"WICKETGATE_ROOT_ACCESS_KEY_ID": ROOT[0], "WICKETGATE_ROOT_SECRET_ACCESS_KEY": ROOT[1]}
    with serving(place, **given):
        words = refused(*arguments(place, "--port", "8444"))
        assert "in use" in words or "another" in words
        client(place, "sts", *ROOT).get_caller_identity()


def test_two_in_one_network_namespace(place):
    """A second `serve` with a state of its own is refused as well: it would take the first one's namespaces."""
    given = {"WICKETGATE_ROOT_ACCESS_KEY_ID": ROOT[0], "WICKETGATE_ROOT_SECRET_ACCESS_KEY": ROOT[1]}
    with serving(place, **given):
        other = place.with_name(f"{place.name}-other")
        assert "another netd runs in this network namespace" in refused(*arguments(other, "--port", "8444"))
        vpc = client(place, "ec2", *ROOT).create_vpc(CidrBlock="10.7.0.0/16")["Vpc"]["VpcId"]
        assert (Path("/run/netns") / vpc).exists()


def test_full_disk(place):
    """On a full disk a call is refused in words and changes nothing; with room again all goes on, nothing is lost."""
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], check=True)
    given = {"WICKETGATE_ROOT_ACCESS_KEY_ID": ROOT[0], "WICKETGATE_ROOT_SECRET_ACCESS_KEY": ROOT[1]}
    try:
        with serving(place, **given):
            ec2 = client(place, "ec2", *ROOT)
            vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
            filler = place / "filler"
            with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
                while True:
                    file.write(b"\0" * 4096)
            with pytest.raises(botocore.exceptions.ClientError, match="ServiceUnavailable") as caught:
                for number in range(50):
                    ec2.create_security_group(GroupName=f"full-{number}", Description="x" * 200, VpcId=vpc)
            assert "disk" in str(caught.value) or "audit" in str(caught.value), caught.value
            refused_at = number
            filler.unlink()
            ec2.create_security_group(GroupName="after", Description="x", VpcId=vpc)
        with serving(place, **given):
            found = client(place, "ec2", *ROOT).describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [vpc]}])[
                "SecurityGroups"
            ]
            names = {group["GroupName"] for group in found}
            assert names >= {"default", "after", *(f"full-{number}" for number in range(refused_at))}
            assert f"full-{refused_at + 1}" not in names
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


def test_killed_processes_come_back(place):
    """api, netd and gateway killed one after the other: each comes back, and what was acknowledged is there."""
    given = {"WICKETGATE_ROOT_ACCESS_KEY_ID": ROOT[0], "WICKETGATE_ROOT_SECRET_ACCESS_KEY": ROOT[1]}
    with serving(place, **given) as process:
        ec2 = client(place, "ec2", *ROOT)
        made = []
        for name in ("wicketgate.api", "wicketgate.netd", "wicketgate.gateway"):
            (victim,) = [pid for pid in _children(process.pid) if name.encode() in _words(pid)]
            os.kill(victim, signal.SIGKILL)
            deadline = time.monotonic() + 20
            while True:
                try:
                    made.append(ec2.create_vpc(CidrBlock="10.8.0.0/16")["Vpc"]["VpcId"])
                    break
                except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError):
                    assert time.monotonic() < deadline, "it does not come back"
                    time.sleep(0.1)
        assert {vpc["VpcId"] for vpc in ec2.describe_vpcs()["Vpcs"]} >= set(made)


def _children(parent):
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                if int((path / "stat").read_text().rsplit(")", 1)[1].split()[1]) == parent:
                    found.append(int(path.name))
            except OSError:
                continue
    return found


def _words(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.parametrize(
    ("level", "debug", "warnings"), [("debug", True, True), ("info", False, True), ("error", False, False)]
)
def test_log_level(place, level, debug, warnings):
    """Of a client without TLS the gateway speaks at `debug`; of an audit file with half a line two processes warn."""
    given = {"WICKETGATE_ROOT_ACCESS_KEY_ID": ROOT[0], "WICKETGATE_ROOT_SECRET_ACCESS_KEY": ROOT[1]}
    with serving(place, **given):
        client(place, "sts", *ROOT).get_caller_identity()
    for name in ("api/api", "gateway/gateway-0"):
        with (place / "audit" / f"{name}.jsonl").open("ab") as file:
            file.write(b'{"eventVersion"')
    with serving(place, "--log-level", level, **given):
        with socket.create_connection(("127.0.0.1", int(PORT)), timeout=5) as plain:
            plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
            plain.recv(100)
        assert _said(place, "gateway-0", "no TLS with a client") is debug
        assert [_said(place, name, "half line") for name in ("gateway-0", "api")] == [warnings, warnings]


def _said(directory, process, words):
    """Whether a process's log says something within a moment."""
    log = directory / "logs" / f"{process}.log"
    deadline = time.monotonic() + 1
    while words not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    return words in log.read_text()


def test_serve_killed_while_nothing_is_asked(place):
    """With `serve` killed its processes end by themselves, idle as they are, and the next one starts at once."""
    given = {"WICKETGATE_ROOT_ACCESS_KEY_ID": ROOT[0], "WICKETGATE_ROOT_SECRET_ACCESS_KEY": ROOT[1]}
    with serving(place, **given) as process:
        client(place, "sts", *ROOT).get_caller_identity()
        children = _children(process.pid)
        process.kill()
        process.wait()
        deadline = time.monotonic() + 10
        while any(Path(f"/proc/{pid}").exists() for pid in children):
            assert time.monotonic() < deadline, [_words(pid) for pid in children if Path(f"/proc/{pid}").exists()]
            time.sleep(0.05)
    with serving(place, **given):
        client(place, "sts", *ROOT).get_caller_identity()
