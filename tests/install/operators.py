"""What operators do beside installing, as steps of scenario.py.

Certificates, log rotation, interrupted runs, a state of `wicketgate serve`.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import re
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path

import boto3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

SETTINGS = Path("/etc/wicketgate/wicketgate.toml")
TLS = Path("/etc/wicketgate/tls")
DAY = datetime.timedelta(days=1)


class Authority:
    """A CA that has nothing to do with wicketgate."""

    def __init__(self):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self.signed("somebody's CA", self.key, [], authority=True)

    def signed(self, name, key, names, *, days=9, authority=False):
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody's CA")]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 10 * DAY)
            .not_valid_after(now + days * DAY)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(list(map(x509.DNSName, names))), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def write(self, names, *, days=9, key=None):
        """A certificate and its key in the files that the settings name; the certificate's SHA-256."""
        own = ec.generate_private_key(ec.SECP256R1())
        made = self.signed("gate", own, names, days=days)
        put(TLS / "chain.pem", made.public_bytes(serialization.Encoding.PEM))
        put(TLS / "key.pem", (key or own).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))  # fmt: skip
        return hashlib.sha256(made.public_bytes(serialization.Encoding.DER)).hexdigest()


def put(path, data):
    path.write_bytes(data)
    path.chmod(0o600)


def served():
    """SHA-256 of the certificate that a client is shown."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", 443), 5) as raw, context.wrap_socket(raw) as tls:
        return hashlib.sha256(tls.getpeercert(binary_form=True)).hexdigest()


def certificates(instance):
    """The operator's certificate: refused while it cannot serve, used without a bundle, renewed with a tunnel open."""
    from scenario import TRUST, Tunnel, ec2, ok, pids, run

    endpoint = ec2().describe_instance_connect_endpoints()["InstanceConnectEndpoints"][0]["DnsName"]
    names = ["api.gate.test", f"*.{endpoint.partition('.')[2]}"]
    authority, before, text = Authority(), pids(), SETTINGS.read_text()
    own = text.replace('#certificate_file = ""', f'certificate_file = "{TLS}/chain.pem"')
    own = own.replace('#private_key_file = ""', f'private_key_file = "{TLS}/key.pem"')
    assert own != text
    SETTINGS.write_text(own)
    for verb in ("install", "upgrade"):
        assert f"{TLS}/chain.pem" in run("wicketgate", verb, code=1)
    authority.write(names, key=authority.key)
    assert "is not the key of" in run("wicketgate", "install", code=1)
    authority.write(names, days=-1)
    assert "ended at" in run("wicketgate", "upgrade", code=1)
    assert before == pids(), "refused before anything was restarted"
    tunnel = Tunnel(instance)
    first = authority.write(names)
    said = run("wicketgate", "install")
    assert "does not name" not in said
    assert served() == first
    private = dict(TRUST)
    # where OpenSSL looks by itself: clients are told nothing; boto3 brings roots of its own
    system = Path(ssl.get_default_verify_paths().openssl_cafile)
    system.parent.mkdir(parents=True, exist_ok=True)
    system.write_bytes(authority.certificate.public_bytes(serialization.Encoding.PEM))
    TRUST.clear()
    for name in private:
        os.environ.pop(name, None)
    Tunnel(instance).close()
    TRUST["AWS_CA_BUNDLE"] = str(system)
    assert ec2().describe_vpcs()["Vpcs"]
    tunnel.echo(b"while the certificate is changed")
    ok("the operator's certificate: wrong ones are refused in words, a right one needs no bundle")

    second = authority.write(names)
    run("systemctl", "reload", "wicketgate-gateway.service")
    assert served() == second != first
    authority.write(names, days=-1)
    assert "ended at" in run("systemctl", "reload", "wicketgate-gateway.service", code=1)
    assert served() == second, "those that serve go on"
    tunnel.echo(b"while it is renewed")
    Tunnel(instance).close()
    tunnel.close()
    SETTINGS.write_text(text)
    run("wicketgate", "install")
    system.unlink()
    TRUST.clear()
    TRUST.update(private)
    assert ec2().describe_vpcs()["Vpcs"]
    ok("renewed by the deploy hook with a tunnel open; a bad one changes nothing; then back to the private CA")


def events(name):
    """How many events of a name LookupEvents finds."""
    from scenario import ec2

    ec2()
    found = boto3.client("cloudtrail", region_name="us-east-1").lookup_events(
        LookupAttributes=[{"AttributeKey": "EventName", "AttributeValue": name}], MaxResults=50
    )
    return len(found["Events"])


def rotate(instance):
    """The installed file, by logrotate itself."""
    from scenario import STATE, Tunnel, ec2, ok, run

    tunnel = Tunnel(instance)
    calls, opened, closed = events("DescribeVpcs"), events("OpenTunnel"), events("CloseTunnel")
    run("logrotate", "--force", "/etc/logrotate.d/wicketgate")
    rotated = sorted(path.name for path in (STATE / "audit").rglob("*.jsonl-*"))
    assert len(rotated) > 3, rotated
    assert not [name for name in rotated if name.endswith(".gz")], "delaycompress"
    ec2().describe_vpcs()
    tunnel.close()
    Tunnel(instance).close()
    deadline = time.monotonic() + 10
    while events("CloseTunnel") < closed + 2:
        assert time.monotonic() < deadline
    assert (events("DescribeVpcs"), events("OpenTunnel")) == (calls + 1, opened + 1)
    for path in (STATE / "audit").rglob("*.jsonl"):
        assert path.stat().st_mode & 0o777 == (0o600 if path.name == "api.jsonl" else 0o640), path
    ok("rotated by logrotate with a tunnel open: lines from before and after are found")


def cut_short(command, lines):
    """A run that is killed when it has said so many lines, which it has to."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = [process.stdout.readline() for _ in range(lines)]
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert said[-1] != b"", (command, said)


def interrupt(instance):
    """Whenever a run is killed, the next one finishes."""
    from scenario import Tunnel, ok, pids, run

    tree = Path("/tmp/tree")
    for lines in (6, 32):
        for path in ("etc", "usr/bin", "usr/sbin"):
            (tree / path).mkdir(parents=True)
        for name in ("passwd", "group", "shadow", "gshadow"):
            (tree / "etc" / name).write_text("")
        command = ["wicketgate", "install", "--root", str(tree), "--domain", "gate.test"]
        cut_short(command, lines)
        run(*command)
        assert '"unfinished": false' in (tree / "etc/wicketgate/.installed.json").read_text()
        left = run(*command, "--dry-run").splitlines()
        assert [line for line in left if not line.startswith(("nothing was started", "/usr/lib"))] == []
        cut_short(["wicketgate", "uninstall", "--purge", "--root", str(tree)], lines // 2)
        run("wicketgate", "uninstall", "--purge", "--root", str(tree))
        left = list(tree.rglob("*wicketgate*"))
        assert left == [], (lines, left)
        assert "wicketgate" not in (tree / "etc/passwd").read_text()
        subprocess.run(["rm", "-rf", tree], check=True)
    ok("install and uninstall killed in the middle: the second run finishes")

    tunnel = Tunnel(instance)
    for last in ("restart wicketgate-api",):
        process = subprocess.Popen(["wicketgate", "upgrade"], stdout=subprocess.PIPE, text=True)
        assert any(line.startswith(last) for line in process.stdout), last
        process.kill()
        process.wait()
        assert 'unfinished": true' in Path("/etc/wicketgate/.installed.json").read_text()
        tunnel.echo(last.encode())
    old = pids()
    run("wicketgate", "install")
    new = {name for pid, name in pids().items() if pid not in old}
    assert {"netd", "api", "metadata"} < new, "what was left undone is done"
    assert len([name for name in new if name.startswith("gateway")]) == 2, new
    tunnel.echo(b"interrupted")
    tunnel.close()
    Tunnel(instance).close()
    assert "everything is as it should be" in run("wicketgate", "install")
    ok("an upgrade killed in the middle: no tunnel is cut, and the next run finishes")


def take_over():
    """A state directory of `wicketgate serve`, with a sealing key of its own place, goes on under systemd."""
    import scenario
    from scenario import STATE, Tunnel, ec2, ok, pids, run, serve_in, wait, world

    run("dpkg", "-i", "/root/wicketgate.deb")
    run("wicketgate", "uninstall", "--purge")
    SETTINGS.parent.mkdir()
    text = '# mine\ndomain = "gate.test"\nkey_file = "/etc/wicketgate/seal.key"\nworkers = 2\n'
    SETTINGS.write_text(text)
    said = Path("/var/log/serve")
    with said.open("wb") as log:
        serve = subprocess.Popen(["wicketgate", "serve"], stdout=log, stderr=subprocess.STDOUT)
    wait(lambda: "wicketgate serves" in said.read_text(), 30)
    key_id, secret = re.findall(r"AWS_\w+KEY\w*=(\S+)", said.read_text())
    of_file = scenario.credential
    scenario.credential = lambda: {"aws_access_key_id": key_id, "aws_secret_access_key": secret}
    boto3.setup_default_session()  # which keeps the credential it first saw
    _, instance = world()
    server = serve_in(instance)
    time.sleep(0.5)
    tunnel = Tunnel(instance)
    tunnel.echo(b"serve")
    assert "end it first" in run("wicketgate", "install", code=1)
    serve.terminate()
    serve.wait(20)
    tunnel.process.wait(20)
    server.kill()
    assert "it takes the place of the one that the store had" in run("wicketgate", "install")
    scenario.credential = of_file
    boto3.setup_default_session()
    assert SETTINGS.read_text() == text
    assert sorted(pids().values()) == ["api", "gateway a0", "gateway a1", "metadata", "netd"]
    assert ec2().describe_instances()["Reservations"][0]["Instances"][0]["InstanceId"] == instance
    server = serve_in(instance)
    time.sleep(0.5)
    Tunnel(instance).close()
    server.kill()
    wait(lambda: (events("RunInstances"), events("OpenTunnel"), events("CloseTunnel")) == (1, 2, 2))
    users = {path.owner() for path in STATE.rglob("*") if path.is_file() or path.is_dir()}
    assert users == {"root", "wicketgate-api", "wicketgate-gateway"}, users
    assert Path("/etc/wicketgate/seal.key").owner() == "wicketgate-api"
    run("dpkg", "--remove", "wicketgate")
    assert "wicketgate" not in Path("/etc/passwd").read_text()
    run("dpkg", "--purge", "wicketgate")
    assert [*Path("/etc").rglob("*wicketgate*"), *Path("/var/lib").glob("wicketgate*")] == []
    ok("a state of wicketgate serve taken over: users, sealing key, root credential, what its gateways had recorded")
