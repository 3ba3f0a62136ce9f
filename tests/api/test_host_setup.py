"""`wicketgate host-setup` on a machine of its own with a real sshd, which reaches the gateway over TLS."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.api.deployment import API, ROOT
from tests.api.machine import GATEWAY, Machine, public_line
from tests.api.people import User, allow
from tests.api.worlds import code_of, endpoint, run
from wicketgate import api
from wicketgate.lab.machines import client_home

pytestmark = pytest.mark.root  # sshd and its key command run as several users

UNDO = "/usr/local/libexec/wicketgate/undo"
DROP_IN = "/etc/ssh/sshd_config.d/10-wicketgate.conf"


class Scene:
    """An instance, the machine that it stands for, and another instance."""

    def __init__(self, deployment, ec2, directory):
        self.deployment, self.ec2 = deployment, ec2
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]
        (group,) = ec2.describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["SecurityGroups"]
        self.instance, self.other = (run(ec2, SubnetId=subnet)["InstanceId"] for _ in range(2))
        made = endpoint(ec2, SubnetId=subnet, SecurityGroupIds=[group["GroupId"]], PreserveClientIp=False)
        with Path("/etc/hosts").open("a") as hosts:
            hosts.write(f"127.0.0.1 {made['DnsName']}\n")
        self.connect = deployment.client("ec2-instance-connect")
        self.own = deployment.client("wicketgate")
        self.machine = Machine(directory, self.instance)

    def host_setup(self, *words, start=("-m", "wicketgate.cli")):
        """Run the verb; (exit code, standard output, standard error)."""
        command = [sys.executable, *start, "host-setup", *words, self.instance]
        environment = {**os.environ, "AWS_ACCESS_KEY_ID": ROOT[0], "AWS_SECRET_ACCESS_KEY": ROOT[1]}
        environment |= {"AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": f"https://{API}"}
        done = subprocess.run(
            command, capture_output=True, env=environment, check=False, stdin=subprocess.DEVNULL, timeout=60
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def push(self, instance=None, user="admin"):
        """Push the machine's key."""
        line = public_line(self.machine.pushed)
        self.connect.send_ssh_public_key(InstanceId=instance or self.instance, InstanceOSUser=user, SSHPublicKey=line)

    def set_up(self, *words):
        """Print the script and run it on the machine; what it said."""
        code, script, said = self.host_setup(*words)
        assert code == 0, said
        return self.machine.run(script).stderr

    def credentials(self):
        """Ids of the instance's credentials."""
        answer = self.own.describe_machine_credentials(InstanceIds=[self.instance])
        return [one["MachineCredentialId"] for one in answer["MachineCredentials"]]


@pytest.fixture(scope="module")
def scene(deployment, ec2, tmp_path_factory):
    """One for the module; each test leaves the machine as it found it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_DATA_PATH", str(Path(api.__file__).parent / "models"))
        made = Scene(deployment, ec2, tmp_path_factory.mktemp("machine"))
        yield made
        made.machine.close()


@pytest.fixture
def machine(scene):
    """The machine, which at the end has to be what it was."""
    before = scene.machine.files()
    scene.machine.new_key()
    yield scene.machine
    if scene.machine.run(f"test -x {UNDO}", check=False).returncode == 0:
        scene.machine.run(UNDO)
    for credential in scene.credentials():
        scene.own.delete_machine_credential(InstanceId=scene.instance, MachineCredentialId=credential)
    assert scene.machine.files() == before
    assert scene.machine.log_in(scene.machine.own)[0]


def test_what_is_printed_where_lines_end_otherwise(scene, machine):
    """Windows ends them by CR LF: to a shell that would be another script."""
    windows = "import sys; sys.stdout.reconfigure(newline='\\r\\n'); from wicketgate.cli import main; main()"
    for words in ((), ("--undo",)):
        code, script, _ = scene.host_setup(*words, start=("-c", windows))
        assert code == 0
        assert script.startswith("#!/bin/sh\n")
        assert "\r" not in script


def test_from_script_to_login_and_back(scene, machine):
    """A pushed key logs in as its user alone, the own key always; run again nothing changes; undone it is over."""
    scene.push()
    assert not machine.log_in(machine.pushed)[0]
    said = scene.set_up()
    assert "done: sshd asks for keys" in said
    assert "but no key" not in said
    assert machine.log_in(machine.own)[0]
    scene.push()
    assert machine.log_in(machine.pushed)[0]
    assert not machine.log_in(machine.pushed, "root")[0]
    asked = machine.asks()
    assert asked.stdout.strip() == " ".join(public_line(machine.pushed).split()[:2])
    assert "pushed SSH key SHA256:" in asked.stderr
    refused = machine.run("setpriv --reuid nobody --clear-groups cat /etc/wicketgate/machine/credential", check=False)
    assert "Permission denied" in refused.stderr
    code, _, words = scene.host_setup()
    assert (code, "--renew" in words) == (255, True)
    machine.run(UNDO)
    time.sleep(0.3)
    assert not machine.log_in(machine.pushed)[0]


def test_run_again_it_changes_nothing(scene, machine):
    """The same script a second time; with a new credential only that file is another one."""
    _, script, _ = scene.host_setup()
    machine.run(script)
    files = machine.files()
    assert "nothing to do" in machine.run(script).stderr
    assert machine.files() == files
    (old,) = scene.credentials()
    scene.set_up("--renew")
    changed = {line.split()[-1] for line in set(machine.files().splitlines()) ^ set(files.splitlines())}
    assert changed == {"/etc/wicketgate/machine/credential"}
    (new,) = scene.credentials()
    assert new != old
    scene.push()
    assert machine.log_in(machine.pushed)[0]


def test_applied_and_undone_through_a_tunnel(scene, machine):
    """`--apply` logs in by `wicketgate ssh` with the user's own key; `--undo --apply` removes it and the credential."""
    config = client_home() / ".ssh" / "config"  # ssh goes by the account's, whatever HOME says
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text("StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\n")
    there = ["--apply", "--os-user", "root", "--private-key-file", str(machine.own)]
    code, _, said = scene.host_setup("--address", GATEWAY, *there)
    assert code == 0, said
    assert f"--address={GATEWAY}" in machine.run(f"cat {DROP_IN}").stdout
    scene.push()
    assert machine.log_in(machine.pushed)[0]
    code, _, said = scene.host_setup("--undo", *there)
    assert code == 0, said
    assert scene.credentials() == []
    # What does not come to run leaves no credential behind: nobody logs in by this key as this user.
    code, _, said = scene.host_setup("--apply", "--os-user", "root", "--private-key-file", str(machine.pushed))
    assert code != 0
    assert "has been deleted" in said
    assert scene.credentials() == []


def test_whose_keys_and_for_how_long(scene, machine, deployment):
    """Not another instance's, not after the credential's end; the log says why."""
    scene.set_up()
    scene.push(scene.other)
    assert not machine.log_in(machine.pushed)[0]
    scene.push()
    assert machine.log_in(machine.pushed)[0]
    machine.run("printf 'mc-%017d.%043d\\n' 1 1 >/etc/wicketgate/machine/credential")
    assert not machine.log_in(machine.pushed)[0]
    assert "does not take this machine's credential" in machine.asks().stderr
    assert "shows no credential in force" in (deployment.serve.directory / "logs" / "api.log").read_text()
    assert machine.log_in(machine.own)[0]


def test_a_gateway_that_is_gone_keeps_nobody_out(scene, machine):
    """A login with the own key waits two seconds at most for each key that the client offers before."""
    scene.set_up()
    subprocess.run(
        "nft add table ip gone && nft 'add chain ip gone in { type filter hook input priority 0; }'"
        " && nft add rule ip gone in iifname lan0 tcp dport 443 drop",
        shell=True,
        check=True,
    )
    try:
        own, seconds = machine.log_in(machine.own)
        assert own
        assert seconds < 6
        pushed, seconds = machine.log_in(machine.pushed)
        assert not pushed
        assert seconds < 6
    finally:
        subprocess.run(["nft", "delete", "table", "ip", "gone"], check=True)


IN_THE_WAY = {
    "command": (
        r"printf 'AuthorizedKeysCommand /bin/true\nAuthorizedKeysCommandUser nobody\n' >/etc/ssh/sshd_config.d/50.conf",
        "sshd has an AuthorizedKeysCommand already",
        "rm /etc/ssh/sshd_config.d/50.conf",
    ),
    "no include": (
        "sed -i 's/^Include/#Include/' /etc/ssh/sshd_config",
        "Add these two lines",
        "sed -i 's/^#Include/Include/' /etc/ssh/sshd_config",
    ),
    "broken": (
        "echo Nonsense yes >>/etc/ssh/sshd_config",
        "sshd does not take its own configuration as it is",
        "sed -i /^Nonsense/d /etc/ssh/sshd_config",
    ),
    "writable": ("chmod 777 /usr/local", "others than root may write", "chmod 755 /usr/local"),
    "python": (
        "for one in /usr/bin/python3.[0-9]*; do [ -L $one ] || mount --bind /bin/false $one; done",
        "Python 3.9 or later is needed",
        "for one in /usr/bin/python3.[0-9]*; do [ -L $one ] || umount $one; done",
    ),
}
"""Name -> what is done to the machine, the words of the script, and what undoes it."""


@pytest.mark.parametrize(("before", "words", "after"), IN_THE_WAY.values(), ids=list(IN_THE_WAY))
def test_where_it_cannot_work_nothing_is_changed(scene, machine, before, words, after):
    """Each in words."""
    _, script, _ = scene.host_setup()
    machine.run(before)
    try:
        files = machine.files()
        done = machine.run(script, check=False)
        assert done.returncode == 1
        assert words in done.stderr
        assert machine.files() == files
    finally:
        machine.run(after)


def test_all_is_put_back_when_sshd_does_not_take_it(scene, machine):
    """Here another drop-in's AuthorizedKeysCommandUser stands before ours."""
    _, script, _ = scene.host_setup()
    machine.run("echo AuthorizedKeysCommandUser nobody >/etc/ssh/sshd_config.d/05-own.conf")
    try:
        files = machine.files()
        done = machine.run(script, check=False)
        assert done.returncode == 1
        assert "everything is as it was before" in done.stderr
        assert machine.files() == files
    finally:
        machine.run("rm /etc/ssh/sshd_config.d/05-own.conf")


def test_two_lines_by_hand_do_as_well(scene, machine):
    """Where drop-ins are not read, the script says what to add, and goes on once that is there."""
    _, script, _ = scene.host_setup()
    machine.run("cp -p /etc/ssh/sshd_config /root/kept && sed -i 's/^Include/#Include/' /etc/ssh/sshd_config")
    try:
        lines = machine.run(script, check=False).stderr.splitlines()[-2:]
        machine.run(
            "cat >>/etc/ssh/sshd_config <<'EOF'\n{}\nEOF\nkill -HUP $(cat /run/sshd.pid)".format("\n".join(lines))
        )
        machine.run(script)
        scene.push()
        assert machine.log_in(machine.pushed)[0]
        assert "remove the AuthorizedKeysCommand" in machine.run(UNDO).stderr
    finally:
        machine.run("mv /root/kept /etc/ssh/sshd_config && kill -HUP $(cat /run/sshd.pid)")
        time.sleep(0.3)


def test_who_may(scene, deployment, iam, machine):
    """By a policy about the instance."""
    anna = User(deployment, iam)
    client = deployment.client("wicketgate", *anna.key)
    anna.may(
        allow("wicketgate:CreateMachineCredential", f"arn:aws:ec2:us-east-1:123456789012:instance/{scene.instance}")
    )
    made = client.create_machine_credential(InstanceId=scene.instance)
    assert code_of(client, "CreateMachineCredential", InstanceId=scene.other) == "AccessDeniedException"
    credential = made["MachineCredential"]["MachineCredentialId"]
    wish = {"InstanceId": scene.instance, "MachineCredentialId": credential}
    assert code_of(client, "DeleteMachineCredential", **wish) == "AccessDeniedException"
    assert code_of(client, "DescribeMachineCredentials") == "AccessDeniedException"
    line = next(
        one
        for one in reversed(deployment.audit())
        if one["eventName"] == "CreateMachineCredential" and "errorCode" not in one
    )
    assert line["responseElements"]["machineCredential"]["machineCredentialId"] == credential
    assert made["MachineToken"].partition(".")[2] not in str(deployment.audit())
