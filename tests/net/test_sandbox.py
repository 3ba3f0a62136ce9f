"""The sandbox: nothing left behind whatever is killed, exit codes passed on, and one clear line where it cannot be."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path

import pytest

SANDBOX = [sys.executable, "-m", "wicketgate.lab.sandbox", "--"]
CLI = [sys.executable, "-m", "wicketgate.cli"]


def _machine(scratch):
    """Processes, mounts, namespaces, links, rules and files as they are now. `scratch`: where temporary files go."""
    processes = {path.name for path in Path("/proc").iterdir() if path.name.isdigit()}
    namespaces = set()
    for name in processes:
        for kind in ("net", "mnt", "pid", "user", "ipc"):
            with contextlib.suppress(OSError):  # it ended meanwhile
                namespaces.add(str(Path(f"/proc/{name}/ns/{kind}").readlink()))
    return {
        "processes": processes,
        "namespaces": namespaces,
        "links": subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout,
        "rules": subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout,
        "mounts": Path("/proc/self/mounts").read_text(),
        # /run/lab/code is this interpreter's own place, mounted by another test; its caches change as tests run.
        "files": {
            str(path)
            for top in ("/run", str(scratch))
            for path in Path(top).rglob("*")
            if "/run/lab/code" not in str(path)
        },
    }


def _start(scratch, **options):
    environment = {**os.environ, "TMPDIR": str(scratch), "HOME": str(scratch)}
    return subprocess.Popen([*CLI, "lab"], stdin=subprocess.DEVNULL, env=environment, cwd=scratch, **options)


def _settled(before, scratch, seconds=10):
    """The machine's state once it equals `before`, or after `seconds`."""
    deadline = time.monotonic() + seconds
    while (now := _machine(scratch)) != before and time.monotonic() < deadline:
        time.sleep(0.05)
    return now


def test_killed_at_twenty_moments_leaves_nothing(tmp_path):
    """`wicketgate lab` killed at 20 random moments: processes, namespaces, links, rules, mounts, files as before."""
    moments = random.Random(7)
    before = _machine(tmp_path)
    for _ in range(20):
        lab = _start(tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moments.uniform(0.0, 1.8))
        lab.kill()
        lab.wait()
        after = _settled(before, tmp_path)
        assert {key: after[key] for key in after if after[key] != before[key]} == {}


def test_ended_by_a_signal_leaves_nothing(tmp_path):
    """SIGTERM ends the lab in order: exit code 0 and nothing left."""
    before = _machine(tmp_path)
    lab = _start(tmp_path, stdout=subprocess.PIPE)
    assert b"The lab is up" in lab.stdout.readline()
    lab.send_signal(signal.SIGTERM)
    lab.stdout.read()
    assert lab.wait(10) == 0
    lab.stdout.close()
    assert _settled(before, tmp_path) == before


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)])
def test_exit_code_is_passed_on(script, code):
    """The sandbox ends with its command's exit code; 128 + n for signal n."""
    assert subprocess.run([*SANDBOX, "sh", "-c", script], check=False).returncode == code


def test_nothing_of_the_outside_is_seen():
    """Inside there is one process tree, one link and an empty /run."""
    script = "ls /proc | grep -c '^[0-9]*$'; ip -o link | wc -l; ls /run/netns | wc -l"
    done = subprocess.run([*SANDBOX, "sh", "-c", script], capture_output=True, text=True, check=True)
    processes, links, pins = (int(line) for line in done.stdout.split())
    assert (processes <= 6, links, pins) == (True, 1, 0)


FORBIDDEN = {
    "limit": "echo 0 > /proc/sys/user/max_user_namespaces && exec {cli} lab --tour",
    "chroot": "mkdir /run/plain && mount --rbind / /run/plain && exec chroot /run/plain {cli} lab --tour",
}


@pytest.mark.parametrize("how", FORBIDDEN)
def test_one_clear_line_where_user_namespaces_are_forbidden(how):
    """Where the kernel refuses user namespaces, or in a plain chroot: one line that says what is needed, exit 1."""
    script = FORBIDDEN[how].format(cli=" ".join(CLI))
    done = subprocess.run([*SANDBOX, "sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "user namespace" in line
    assert "max_user_namespaces" in line
    assert "pivot_root" in line


def test_bad_topology_names_line_and_column(tmp_path):
    """A bad topology file: exit code 2 and one line with file, line, column, what was found and what was expected."""
    path = tmp_path / "mine.yaml"
    path.write_text("gateway: 192.0.2.10\nclients:\n  office: 203.0.113.300\nvpcs: {}\nusers: {}\n")
    done = subprocess.run([*CLI, "lab", "--topology", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"{path}:3:11: found '203.0.113.300', expected a client's IPv4 address\n"


WHO = """
import json, pathlib, subprocess, boto3
there = boto3.client("ec2").describe_instances()["Reservations"]
print(json.dumps({
    "arn": boto3.client("sts").get_caller_identity()["Arn"],
    "instances": len(there),
    "addresses": subprocess.run(["ip", "-br", "a"], capture_output=True, text=True, check=True).stdout,
    "home": str(pathlib.Path.home()),
    "here": str(pathlib.Path.cwd()),
}))
"""
"""With nothing but what the shell's environment says: who am I, what is there, and where am I?"""


def test_shell_finds_the_lab(tmp_path):
    """`wicketgate lab shell` runs a command as a client of the lab, with the user's credentials; logins work in it."""
    lab = _start(tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        tries = []
        while len(tries) < 2:
            line = lab.stdout.readline()
            assert line, "the lab ended"
            tries += [line.strip()] * line.strip().startswith("ssh ")
        shell = [*CLI, "lab", "shell", "--", "sh", "-c", tries[0] + " hostname"]
        done = subprocess.run(shell, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        who = [*CLI, "lab", "shell", "--client", "home", "--user", "operator", "--", sys.executable, "-c", WHO]
        done = subprocess.run(who, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["arn"] == "arn:aws:iam::123456789012:user/operator"
        assert told["instances"] == 11
        assert "198.51.100.20/32" in told["addresses"]
        assert told["home"].startswith("/run/lab/")
        assert told["here"] == str(Path(__file__).parent)
        nowhere = subprocess.run(
            [*CLI, "lab", "shell", "--client", "moon"], capture_output=True, text=True, check=False
        )
        assert "no client moon" in nowhere.stderr
    finally:
        lab.terminate()
        lab.communicate()


def test_tour_as_json():
    """`--json` prints every row with expected and seen, and exits with 0 when all are as expected."""
    done = subprocess.run([*CLI, "lab", "--tour", "--json"], capture_output=True, text=True, timeout=120, check=False)
    told = json.loads(done.stdout)
    assert (done.returncode, told["failed"]) == (0, 0)
    assert len(told["rows"]) >= 60
    assert set(told["rows"][0]) == {"section", "what", "expected", "seen", "passed"}


def test_tour_with_a_mismatch(tmp_path):
    """A topology whose rules differ from what the tour states: plain table when not a terminal, FAIL rows, exit 1."""
    shipped = (resources.files("wicketgate.lab") / "topology.yaml").read_text()
    path = tmp_path / "mine.yaml"
    path.write_text(
        shipped.replace('inbound: ["tcp 22 from group endpoint"]', 'inbound: ["tcp 22 from 10.9.0.0/16"]', 1)
    )
    done = subprocess.run(
        [*CLI, "lab", "--tour", "--topology", str(path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert [line for line in done.stdout.splitlines() if line.startswith("FAIL | endpoint outbound | plain")]
    assert "not as expected" in done.stdout.splitlines()[-1]
