"""What people do with ssh, to machines that know nothing of us: files, SOCKS, X11, agents, jumps."""

import hashlib
import os
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.machines.reach import OWN
from tests.e2e.machines.site import ARCHIVE, TEXT, WORKS, question
from wicketgate.lab import sandbox
from wicketgate.lab.machines import ACCOUNT, ACCOUNT_ID

SOCKS_PORT = 1080
PROGRAMS = ["aws", "wicketgate", OWN]


@pytest.fixture
def theirs():
    """A directory on disk where the machines' account may write as well: /run, where all else is, is too small."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="wicketgate-test-") as name:
        place = Path(name)
        place.chmod(0o755)
        (place / "there").mkdir()
        if sandbox.all_ids():
            os.chown(place / "there", ACCOUNT_ID, ACCOUNT_ID)
        yield place


@pytest.mark.parametrize("program", PROGRAMS)
def test_proxy_command(reach, program):
    """Each ProxyCommand there is logs in with the user's own key; the machine sees the endpoint's address."""
    host = reach.hosts[1]
    said = reach.ssh(host.name, "echo $USER $SSH_CONNECTION", program=program).stdout.split()
    assert said == [ACCOUNT, reach.source, said[2], host.address, "22"]
    assert f"Accepted publickey for {ACCOUNT} from {reach.source}" in (host.directory / "sshd.log").read_text()


@pytest.mark.once
@pytest.mark.timeout(240)
def test_a_gigabyte(reach, theirs):
    """scp of 1 GB arrives whole; how long it took is printed."""
    digest = hashlib.sha256()
    with (theirs / "file").open("wb") as file:
        for _ in range(10):
            block = os.urandom(100_000_000)
            digest.update(block)
            file.write(block)
    config, host = reach.ssh_config("wicketgate"), reach.hosts[2]
    started = time.monotonic()
    reach.run("scp", "-F", str(config), str(theirs / "file"), f"{host.name}:{theirs}/there/file", timeout=180)
    print(f"scp of 1 GB: {time.monotonic() - started:.1f} s")
    (theirs / "file").unlink()
    with (theirs / "there" / "file").open("rb") as file:
        assert hashlib.file_digest(file, "sha256").digest() == digest.digest()
    assert (theirs / "there" / "file").stat().st_size == 1_000_000_000


def _synchronised(reach, source, there):
    """One rsync of a directory; what it says of the file data that it sent."""
    shell = f"ssh -F {reach.ssh_config('wicketgate')}"
    done = reach.run("rsync", "-a", "--stats", "-e", shell, f"{source}/", f"{reach.hosts[3].name}:{there}/copy/")
    numbers = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    return {
        "files": int(numbers["Number of regular files transferred"].replace(",", "")),
        "sent": int(numbers["Total bytes sent"].replace(",", "")),
    }


def test_rsync(reach, theirs, tmp_path):
    """rsync copies 200 files; the second time nothing but their list passes, then what changed alone."""
    files = tmp_path / "files"
    files.mkdir()
    for number in range(200):
        (files / f"{number}").write_bytes(os.urandom(50_000))
    first = _synchronised(reach, files, theirs / "there")
    assert first["files"] == 200
    assert first["sent"] > 200 * 50_000
    second = _synchronised(reach, files, theirs / "there")
    assert second["files"] == 0
    assert second["sent"] < 20_000
    (files / "7").write_bytes((files / "7").read_bytes() + b"more")
    third = _synchronised(reach, files, theirs / "there")
    assert third["files"] == 1
    assert third["sent"] < 30_000
    assert (theirs / "there" / "copy" / "7").read_bytes().endswith(b"more")


def test_socks(reach):
    """`ssh -D`: curl in the office reads from a server that the machine alone reaches, as the machine."""
    reach.site.serve_archive()
    url, host = f"http://{ARCHIVE}:8080/", reach.hosts[0]
    direct = reach.run("curl", "-s", "--connect-timeout", "1", url, check=False)
    assert direct.returncode != 0
    ssh = ["ssh", "-F", str(reach.ssh_config("wicketgate")), "-N", "-D", f"127.0.0.1:{SOCKS_PORT}", host.name]
    with reach.listening(SOCKS_PORT, *ssh):
        done = reach.run("curl", "-s", "--max-time", "10", "--socks5-hostname", f"127.0.0.1:{SOCKS_PORT}", url)
        assert done.stdout == f"the archive, asked by {host.address}"


def test_x11(reach, screen):
    """`ssh -X`: a program on the machine has its window on the client's screen, and gets what is typed there."""
    command = " ".join(f"'{word}'" for word in question("This window is a program on the machine."))
    ssh = ["ssh", "-X", "-F", str(reach.ssh_config("wicketgate")), reach.hosts[1].name, command]
    with reach.popen(*ssh, environment=screen.environment, stderr=subprocess.PIPE) as shown:
        try:
            picture = screen.wait_for(TEXT, 0.1)
            assert picture.share(TEXT) > 0.1, shown.poll() is not None and shown.stderr.read()
            left, top, right, bottom = picture.box(TEXT)
            screen.press("Return", (left + right) // 2, (top + bottom) // 2)
            assert shown.wait(20) == WORKS
        finally:
            shown.kill()


@contextmanager
def _agent(reach, key):
    """An ssh-agent that holds this key; its environment."""
    socket = key.with_name("agent.sock")
    agent = reach.popen("ssh-agent", "-D", "-a", str(socket))
    try:
        deadline = time.monotonic() + 10
        while not socket.exists():
            assert agent.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        reach.run("ssh-add", "-q", str(key), environment={"SSH_AUTH_SOCK": str(socket)})
        yield {"SSH_AUTH_SOCK": str(socket)}
    finally:
        agent.kill()
        agent.wait()


def test_agent_forwarding(reach, tmp_path):
    """`ssh -A`: the machine asks the client's agent for a key that is on no machine, and logs in further with it."""
    key, first, second = tmp_path / "key", reach.hosts[4], reach.hosts[5]
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "of the agent", "-f", key], check=True)
    with (second.directory / "authorized_keys").open("a") as keys:
        keys.write(key.with_suffix(".pub").read_text())
    fingerprint = subprocess.run(
        ["ssh-keygen", "-l", "-f", key], check=True, capture_output=True, text=True
    ).stdout.split()[1]
    onward = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o BatchMode=yes"
    further = f"ssh -F none {onward} {ACCOUNT}@{second.address} 'echo $SSH_CONNECTION'"
    without = reach.ssh(first.name, further, check=False)
    assert without.returncode != 0
    with _agent(reach, key) as environment:
        assert fingerprint in reach.ssh("-A", first.name, "ssh-add -l", environment=environment).stdout
        seen = reach.ssh("-A", first.name, further, environment=environment).stdout.split()
    assert (seen[0], seen[2]) == (first.address, second.address)
