"""Certificates: the private CA, its server certificates, the operator's files."""

from __future__ import annotations

import os
import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from wicketgate import pki
from wicketgate.gateway.config import GatewayError, tls_context

NAMES = ["*.0123abcd.ec2-instance-connect-endpoint.us-east-1.example.test", "Gateway.example.test"]
NOW = datetime.now(UTC)


def handshake(files: pki.ServerFiles, name: str, roots: Path) -> None:
    """A TLS handshake in memory, the server's name checked by OpenSSL."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.certificate, files.key)
    client = ssl.create_default_context(cafile=str(roots))
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(back, there, server_hostname=name)
    theirs = server.wrap_bio(there, back, server_side=True)
    for _ in range(4):
        for side in (ours, theirs):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue


def test_first_start_makes_what_tls_accepts(tmp_path: Path):
    """The CA and server certificate work for a wildcard's name and for the exact one, and for no other."""
    files = pki.ensure(tmp_path / "pki", NAMES)
    assert files.ca is not None
    handshake(files, "eice-1.0123abcd.ec2-instance-connect-endpoint.us-east-1.example.test", files.ca)
    handshake(files, "gateway.example.test", files.ca)
    with pytest.raises(ssl.SSLCertVerificationError, match=r"[Hh]ostname mismatch"):
        handshake(files, "other.example.test", files.ca)


def test_strict_verification_by_openssl(tmp_path: Path):
    """`openssl verify -x509_strict` has nothing to object to, for a server and a name."""
    files = pki.ensure(tmp_path, NAMES)
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", files.ca, files.certificate]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_keys_are_private_and_lives_are_short(tmp_path: Path):
    """Keys have mode 0600 in a 0700 directory; the server's certificate lives at most 398 days, the CA ten years."""
    files = pki.ensure(tmp_path / "pki", NAMES)
    assert (tmp_path / "pki").stat().st_mode & 0o777 == 0o700
    assert files.key.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "pki/ca.key").stat().st_mode & 0o777 == 0o600
    server = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    ca = x509.load_pem_x509_certificate((tmp_path / "pki/ca.pem").read_bytes())
    assert server.not_valid_after_utc - server.not_valid_before_utc <= timedelta(days=398)
    assert timedelta(days=3640) < ca.not_valid_after_utc - ca.not_valid_before_utc < timedelta(days=3660)
    assert ca.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0


def contents(directory: Path) -> dict[str, bytes]:
    """Every file's content."""
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_second_start_changes_nothing(tmp_path: Path):
    """With the same names and time to go, every file stays byte for byte."""
    pki.ensure(tmp_path, NAMES)
    before = contents(tmp_path)
    pki.ensure(tmp_path, NAMES)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("names", "when"),
    [([*NAMES, "new.example.test"], NOW), (NAMES, NOW + timedelta(days=368)), (NAMES, NOW + timedelta(days=500))],
)
def test_new_certificate_under_the_same_ca(tmp_path: Path, names: list[str], when: datetime):
    """Other names, or an end within 30 days, give a new certificate; the CA that clients trust stays."""
    pki.ensure(tmp_path, NAMES, NOW)
    before = contents(tmp_path)
    files = pki.ensure(tmp_path, names, when)
    after = contents(tmp_path)
    assert after["ca.pem"] == before["ca.pem"] and after["ca.key"] == before["ca.key"]
    assert after["server.pem"] != before["server.pem"]
    assert files.expires > when + timedelta(days=300)


def test_unfinished_first_start_begins_again(tmp_path: Path):
    """A key without certificate, as a crash leaves it, does not stop the next start."""
    files = pki.ensure(tmp_path, NAMES)
    (tmp_path / "ca.pem").unlink()
    files = pki.ensure(tmp_path, NAMES)
    assert files.ca is not None
    handshake(files, "gateway.example.test", files.ca)


@pytest.mark.parametrize("name", ["", "a b", "*.*.example.test", "x.*.test", "-a.test", "a..test", "x" * 64 + ".test"])
def test_bad_names(tmp_path: Path, name: str):
    """A name that no client would accept is refused by name before anything is written."""
    with pytest.raises(pki.CertificateError, match="not a DNS name"):
        pki.ensure(tmp_path / "pki", [name])
    assert not (tmp_path / "pki").exists()


def test_key_that_others_can_read(tmp_path: Path):
    """A key with a wider mode is not used any more; the error says how to go on."""
    pki.ensure(tmp_path, NAMES)
    (tmp_path / "ca.key").chmod(0o644)
    with pytest.raises(pki.CertificateError, match=r"mode 0644.*chmod 600"):
        pki.ensure(tmp_path, NAMES)


def test_foreign_ca_key(tmp_path: Path):
    """A CA key that is not its certificate's is an error, not a reason to make a new CA."""
    pki.ensure(tmp_path / "a", NAMES)
    pki.ensure(tmp_path / "b", NAMES)
    (tmp_path / "a/ca.key").write_bytes((tmp_path / "b/ca.key").read_bytes())
    with pytest.raises(pki.CertificateError, match="is not the key of"):
        pki.ensure(tmp_path / "a", NAMES)


def test_ended_ca(tmp_path: Path):
    """A CA at its end stops the start with the way out."""
    pki.ensure(tmp_path, NAMES)
    with pytest.raises(pki.CertificateError, match="to have a new one made"):
        pki.ensure(tmp_path, NAMES, NOW + timedelta(days=3640))


# -- the operator's own files ------------------------------------------------------------------------------------------


def test_operators_files_are_taken(tmp_path: Path):
    """A pair that fits is taken as it is, with the names in it."""
    made = pki.ensure(tmp_path, NAMES)
    files = pki.check_files(made.certificate, made.key)
    assert files.names == (NAMES[0], "gateway.example.test")
    assert files.ca is None


def test_operators_files_checked(tmp_path: Path):
    """Another's key, ended, not yet valid, absent, empty, swapped: each says which file and what is wrong."""
    ours = pki.ensure(tmp_path / "a", NAMES)
    other = pki.ensure(tmp_path / "b", NAMES)
    empty = tmp_path / "empty"
    empty.touch(mode=0o600)
    cases = [
        (ours.certificate, other.key, NOW, "is not the key of the first certificate"),
        (ours.certificate, ours.key, NOW + timedelta(days=400), "ended at"),
        (ours.certificate, ours.key, NOW - timedelta(days=2), "is valid from"),
        (tmp_path / "none", ours.key, NOW, "No such file"),
        (ours.certificate, tmp_path / "none", NOW, "No such file"),
        (empty, ours.key, NOW, "holds no certificate"),
        (ours.certificate, empty, NOW, "holds no private key"),
        (tmp_path / "a/ca.pem", tmp_path / "a/ca.key", NOW, "has no DNS name"),
    ]
    for certificate, key, when, words in cases:
        with pytest.raises(pki.CertificateError, match=words):
            pki.check_files(certificate, key, when)


def test_encrypted_key(tmp_path: Path):
    """A key under a passphrase is refused with the reason: nobody is there to type it."""
    made = pki.ensure(tmp_path, NAMES)
    locked = tmp_path / "locked.key"
    command = ["openssl", "pkcs8", "-topk8", "-in", made.key, "-out", locked, "-passout", "pass:x"]
    subprocess.run(command, check=True, capture_output=True)
    locked.chmod(0o600)
    with pytest.raises(pki.CertificateError, match="is encrypted"):
        pki.check_files(made.certificate, locked)


# -- for clients and workers -------------------------------------------------------------------------------------------


def test_bundle_holds_system_roots_and_our_ca(tmp_path: Path):
    """A client with the bundle trusts our gateway and everything it trusted before."""
    files = pki.ensure(tmp_path / "pki", NAMES)
    elsewhere = pki.ensure(tmp_path / "system", ["internet.example"])
    assert files.ca is not None and elsewhere.ca is not None
    system = tmp_path / "roots.pem"
    system.write_bytes(elsewhere.ca.read_bytes().rstrip(b"\n"))
    bundle = tmp_path / "bundle.pem"
    assert pki.write_bundle(bundle, files.ca, [tmp_path / "absent", system]) == system
    handshake(files, "gateway.example.test", bundle)
    handshake(elsewhere, "internet.example", bundle)
    assert bundle.stat().st_mode & 0o777 == 0o644


def test_bundle_without_system_roots(tmp_path: Path):
    """Where the system has no roots the bundle is our CA alone, and the caller can tell."""
    files = pki.ensure(tmp_path / "pki", NAMES)
    assert pki.write_bundle(tmp_path / "bundle.pem", files.ca, [tmp_path / "absent"]) is None
    handshake(files, "gateway.example.test", tmp_path / "bundle.pem")


def test_sealed_copy_serves_tls(tmp_path: Path):
    """A worker that may not open the key can load it from the descriptor's path, and nobody can change the copy."""
    files = pki.ensure(tmp_path, NAMES)
    descriptor = pki.sealed_copy("server.key", files.key.read_bytes())
    try:
        for _ in range(2):
            tls_context(files.certificate, Path(f"/proc/self/fd/{descriptor}"))
        with pytest.raises(PermissionError):
            os.write(descriptor, b"x")
    finally:
        os.close(descriptor)


def test_encrypted_key_is_an_error_and_no_question(tmp_path: Path):
    """A key under a passphrase is refused in words; the process does not wait for somebody to type."""
    files = pki.ensure(tmp_path, NAMES)
    key = serialization.load_pem_private_key(files.key.read_bytes(), password=None)
    encryption = serialization.BestAvailableEncryption(b"secret")
    form = serialization.PrivateFormat.PKCS8
    files.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, encryption))
    with pytest.raises(GatewayError, match="is encrypted"):
        tls_context(files.certificate, files.key)
