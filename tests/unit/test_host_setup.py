"""The script of `wicketgate host-setup`: what is in it, and that nothing of a server's answer is read as a command.

That it does what it says: tests/api/test_host_setup.py.
"""

import subprocess

import pytest
from click.testing import CliRunner

from tests.unit.test_keycommand import FILE
from wicketgate.cli.host_setup import command
from wicketgate.client.errors import InvalidUse, TunnelFailed
from wicketgate.client.host_setup import Machine, setup_script, undo_script

INSTANCE = "i-11111111111111111"
ANSWER = {"MachineToken": "mc-1.secret", "SignerRoot": "ROOT\n", "CertificateAuthority": "CA\n"}


def machine(answer=ANSWER, *, url="https://api.wicketgate.test", ca=None, address=""):
    return Machine.of(INSTANCE, answer, url, ca, address)


def printed(script, name):
    """What a function of the script prints, by the shell."""
    wanted = script.replace('main "$@" </dev/null', name)
    done = subprocess.run(["sh", "-s"], input=wanted, capture_output=True, text=True, check=True)
    return done.stdout


def test_the_shell_reads_what_was_put_in():
    """Each payload comes out of the script as it went in; the key command but for its first line."""
    script = setup_script(machine())
    assert printed(script, "payload_credential") == "mc-1.secret\n"
    assert printed(script, "payload_signer_root") == "ROOT\n"
    assert printed(script, "payload_ca") == "CA\n"
    assert printed(script, "payload_command") == FILE.read_text().partition("\n")[2]
    undo = printed(script, "payload_undo")
    subprocess.run(["sh", "-n"], input=undo, text=True, check=True)
    assert undo.startswith("#!/bin/sh\n")


def test_it_says_first_what_it_does():
    """Comments come before the first command, and name each file that is written, who is asked, and the way back."""
    script = setup_script(machine(address="192.0.2.1:8443"))
    about = script.partition("set -eu")[0]
    assert all(line.startswith("#") for line in about.splitlines())
    for word in ("10-wicketgate.conf", "credential", "ssh-root.pem", "wicketgate_keycommand.py", "sshd -t", "--undo"):
        assert word in about
    assert "https://api.wicketgate.test at 192.0.2.1:8443" in about
    assert "secret" not in about
    assert max(map(len, about.splitlines())) <= 120


def test_what_arrives_in_part_does_nothing(tmp_path):
    """Cut off anywhere, the script makes nothing and changes nothing: its last line is the first that acts."""
    script = setup_script(machine()).removesuffix('main "$@" </dev/null\n')
    for length in (len(script), len(script) * 2 // 3, len(script) // 3):
        done = subprocess.run(
            ["sh", "-x", "-s"], input=script[:length], capture_output=True, text=True, check=False, cwd=tmp_path
        )
        acted = [line for line in done.stderr.splitlines() if line.startswith("+ ") and "=" not in line]
        assert set(acted) <= {"+ set -eu", "+ export PATH"}


@pytest.mark.parametrize(
    ("ca", "address", "expected"),
    [
        (None, "", "--ca=/etc/wicketgate/machine/ca.pem"),
        ("", "", "--credential=/etc/wicketgate/machine/credential"),
        (None, "[2001:db8::1]:444", "--address=[2001:db8::1]:444"),
    ],
)
def test_the_key_commands_options(ca, address, expected):
    """The last one by what is given; where the machine's own roots count there is no CA."""
    made = machine(ca=ca, address=address)
    assert made.options.split()[-1] == expected
    assert made.options.startswith(
        "--root=/etc/wicketgate/machine/ssh-root.pem --server=https://api.wicketgate.test/machine "
        f"--instance={INSTANCE} --credential=/etc/wicketgate/machine/credential"
    )


@pytest.mark.parametrize(
    "more",
    [{"url": "http://a.test"}, {"url": "https://a.test/$(id)"}, {"url": "https://a b"}]
    + [{"address": one} for one in ("a.test", "192.0.2.1;id", "192.0.2.1:", "::1")],
)
def test_what_a_machine_cannot_be_given(more):
    """URLs and addresses that the key command would not read, or that a shell would."""
    with pytest.raises(InvalidUse):
        machine(**more)


@pytest.mark.parametrize("instance", ["i-1", "i-11111111111111111\nid", "i-11111111 --server=https://b.test", "$(id)"])
def test_what_is_no_instance(instance):
    """It stands in comments of the script, in sshd's configuration and in words of a shell."""
    with pytest.raises(InvalidUse, match="is no instance's id"):
        Machine.of(instance, ANSWER, "https://a.test", None, "")


def test_a_ca_that_would_be_more_than_text():
    """A file of the administrator's own, which need not be read line by line before."""
    with pytest.raises(InvalidUse, match="CA"):
        machine(ca="-----BEGIN CERTIFICATE-----\nEND-OF-WICKETGATE\nid\n")


@pytest.mark.parametrize(
    "change",
    [
        {"MachineToken": ""},
        {"MachineToken": None},
        {"SignerRoot": "x\nEND-OF-WICKETGATE\nid\n"},
        {"CertificateAuthority": "\x1b[2J"},
    ],
)
def test_an_answer_that_would_be_more_than_text(change):
    """A server cannot put a command into the script that an administrator runs as root."""
    with pytest.raises(TunnelFailed):
        machine(ANSWER | change)


def test_undo_where_nothing_is():
    """Says so."""
    done = subprocess.run(["sh", "-s"], input=undo_script(), capture_output=True, text=True, check=True)
    assert "nothing to undo" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--renew", "--undo"], "--renew and --undo exclude one another"),
        (["--os-user", "admin"], "go with --apply"),
        (["--machine-ca", "/no/such"], "--machine-ca /no/such"),
        (["--machine-ca", "/dev/null"], "there is no certificate in it"),
        (["--address", "a.test"], "expected IP[:PORT]"),
    ],
)
def test_a_wrong_command_line(words, said, capfd):
    """In words, and before anything is asked of a deployment: there is none here."""
    environment = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "s", "AWS_REGION": "us-east-1"}
    environment |= {"AWS_ENDPOINT_URL": "https://127.0.0.1:1", "AWS_CONFIG_FILE": "/dev/null"}
    done = CliRunner().invoke(command, [*words, INSTANCE], env=environment)
    assert said in done.output + capfd.readouterr().err
