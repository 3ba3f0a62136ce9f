"""The operator's own certificate files: root -> intermediate -> leaf, served to real clients; bad ones are refused."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.crtclient import CrtTunnel, crt_url
from tests.wire.gateway_harness import ENDPOINT, SECRET, TARGET, GatewayProcess, Target, make_world
from tests.wire.test_client import TIMEOUT, command, environment
from wicketgate import pki
from wicketgate.configuration import Configuration
from wicketgate.daemon import Serve

NAME = "localhost"
"""The DNS name in the leaf: one that our client's resolver knows."""

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
MAKE_KEY: dict[str, Callable[[], Key]] = {
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
    "ECDSA": lambda: ec.generate_private_key(ec.SECP384R1()),
}


class Authority:
    """An operator's CA of two levels and what it has issued, as files."""

    def __init__(self, directory: Path, kind: str) -> None:
        directory.mkdir()
        self._make_key = MAKE_KEY[kind]
        self._root_key, self._middle_key = self._make_key(), self._make_key()
        self.root = _certificate("root", self._root_key, "root", self._root_key, ca=True)
        self.middle = _certificate("intermediate", self._middle_key, "root", self._root_key, ca=True)
        self.root_file = directory / "root.pem"
        self.root_file.write_bytes(_pem(self.root))
        self._directory = directory

    def issue(self, name: str, *, days: int = 90, chain: bool = True, password: bytes = b"") -> tuple[Path, Path]:
        """Certificate file (leaf first, then the intermediate if `chain`) and key file, mode 0600."""
        key = self._make_key()
        leaf = _certificate(name, key, "intermediate", self._middle_key, ca=False, days=days)
        certificate_file, key_file = self._directory / f"{name}.pem", self._directory / f"{name}.key"
        certificate_file.write_bytes(_pem(leaf) + (_pem(self.middle) if chain else b""))
        key_file.touch(mode=0o600)
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption(),
            )
        )
        return certificate_file, key_file


def _certificate(subject: str, key: Key, issuer: str, issuer_key: Key, *, ca: bool, days: int = 90) -> x509.Certificate:
    now = datetime.now(UTC)
    end = now + timedelta(days=days)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, end) - timedelta(days=1))
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if not ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


class OperatorGateway(GatewayProcess):
    """A gateway that serves with files which the operator has given it."""

    def __init__(self, directory: Path, authority: Authority, files: tuple[Path, Path]) -> None:
        super().__init__(directory)
        self.authority = authority
        self.files = pki.check_files(*files)


@pytest.fixture(scope="module", params=list(MAKE_KEY))
def authority(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A CA with one kind of keys throughout."""
    return Authority(tmp_path_factory.mktemp("authority") / request.param, request.param)


@pytest.fixture(scope="module")
def operated(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorGateway]:
    """A gateway with a chain that is complete."""
    process = OperatorGateway(tmp_path_factory.mktemp("gateway"), authority, authority.issue("leaf"))
    process.start(make_world(dns_name=NAME))
    yield process
    process.close()


def log_in(gateway: GatewayProcess, target: Target, ca_bundle: Path | None, ssl_cert_file: Path | None) -> None:
    """Our client as a process: bytes both ways, to a clean end."""
    more = ("--ca-bundle", str(ca_bundle)) if ca_bundle else ()
    client = subprocess.Popen(
        command(gateway.port, target.port, *more),
        env=environment(ssl_cert_file),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert client.stdin is not None
    client.stdin.write(b"question")
    client.stdin.flush()
    with target.accept() as far:
        assert far.recv(100) == b"question"
        far.sendall(b"answer")
    out, err = client.communicate(timeout=TIMEOUT)
    assert (out, err, client.returncode) == (b"answer", b"", 0)


def test_our_client_by_environment_and_by_option(operated: OperatorGateway, target: Target) -> None:
    """SSL_CERT_FILE and --ca-bundle with the operator's root alone are enough: the gateway sends the intermediate."""
    root = operated.authority.root_file
    log_in(operated, target, ca_bundle=None, ssl_cert_file=root)
    log_in(operated, target, ca_bundle=root, ssl_cert_file=None)


def test_awscrt(operated: OperatorGateway, target: Target) -> None:
    """The TLS of the AWS CLI takes the chain too."""
    parameters = {"instanceConnectEndpointId": ENDPOINT, "remotePort": str(target.port), "privateIpAddress": TARGET}
    tunnel = CrtTunnel()
    url = crt_url(NAME, parameters, "AKIAALL", SECRET)
    connected = tunnel.connect(url, operated.port, operated.authority.root_file)
    assert (connected.error, connected.status) == ("", 101)
    with target.accept() as far:
        tunnel.send(b"question")
        assert far.recv(100) == b"question"
        far.sendall(b"answer")
        assert tunnel.receive(6) == b"answer"
    assert tunnel.close_frame()[0] == 1000


def _mistrusts(gateway: GatewayProcess, root: Path) -> str:
    done = subprocess.run(
        command(gateway.port, 22, "--ca-bundle", str(root)),
        env=environment(None),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    return line


def test_the_chain_and_the_root_both_count(operated: OperatorGateway, authority: Authority, tmp_path: Path) -> None:
    """Without the intermediate in the file, or with another root, clients refuse, in one line."""
    stranger = Authority(tmp_path / "stranger", "ECDSA")
    assert "certificate" in _mistrusts(operated, stranger.root_file)
    incomplete = OperatorGateway(tmp_path, authority, authority.issue("incomplete", chain=False))
    incomplete.start(make_world(dns_name=NAME))
    try:
        assert "certificate" in _mistrusts(incomplete, authority.root_file)
    finally:
        incomplete.close()


# -- files that cannot serve -------------------------------------------------------------------------------------------


def _bad_files(authority: Authority, case: str) -> tuple[Path, Path]:
    name = case.replace(" ", "-")
    if case == "wrong pair":
        return authority.issue(f"{name}-1")[0], authority.issue(f"{name}-2")[1]
    if case == "encrypted key":
        return authority.issue(name, password=b"secret")
    if case == "expired":
        return authority.issue(name, days=-1)
    certificate, key = authority.issue(name)
    key.chmod(0o644)
    return certificate, key


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("wrong pair", "is not the key of the first certificate in"),
        ("encrypted key", "is encrypted; a gateway starts unattended: decrypt it"),
        ("expired", "ended at"),
        ("mode 0644", "has mode 0644: others may have read it"),
    ],
)
def test_bad_files_are_refused_in_one_line(authority: Authority, case: str, words: str) -> None:
    """What `serve` asks before it starts anything names the file and what would be right."""
    certificate, key = _bad_files(authority, case)
    with pytest.raises(pki.CertificateError, match=words) as refused:
        pki.check_files(certificate, key)
    assert "\n" not in str(refused.value)
    assert str(certificate if case == "expired" else key) in str(refused.value)


@pytest.mark.parametrize(("case", "words"), [("wrong pair", "do not fit together"), ("encrypted key", "is encrypted")])
def test_worker_ends_before_it_serves(authority: Authority, tmp_path: Path, case: str, words: str) -> None:
    """A worker given such files all the same ends with one line, without a question on a terminal or a connection."""
    certificate, key = _bad_files(authority, case)
    listener = socket.create_server(("127.0.0.1", 0))
    feed, netd = socket.socketpair(), socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    config = {
        "feed_fd": feed[1].fileno(),
        "netd_fd": netd[1].fileno(),
        "listen_fds": [listener.fileno()],
        "certificate": str(certificate),
        "key": str(key),
        "audit_file": str(tmp_path / "audit.jsonl"),
        "allow_capabilities": True,
    }
    with listener, feed[0], feed[1], netd[0], netd[1]:
        done = subprocess.run(
            [sys.executable, "-m", "wicketgate.gateway", json.dumps(config)],
            pass_fds=[feed[1].fileno(), netd[1].fileno(), listener.fileno()],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert words in line
    assert str(key) in line
    assert not (tmp_path / "audit.jsonl").exists()


@pytest.mark.parametrize("case", ["wrong pair", "encrypted key", "expired", "mode 0644"])
def test_serve_starts_nothing_with_bad_files(authority: Authority, tmp_path: Path, case: str) -> None:
    """Refused before there is a process, a directory or a store: the operator mends the file and starts again."""
    certificate, key = _bad_files(authority, case)
    state = tmp_path / "state"
    configuration = Configuration(
        state_directory=str(state), certificate_file=str(certificate), private_key_file=str(key)
    )
    serve = Serve(configuration, [])
    with pytest.raises(pki.CertificateError):
        serve.start()
    assert not state.exists()
    assert serve.children == []
