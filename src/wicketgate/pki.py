"""Certificates of the gateway: a private CA made on first start, or the operator's own files, checked.

The CA and its key live in a Vault: the API process's store, sealed, or one directory, keys with mode 0600, every file
written whole and brought to the disk before it counts. A server certificate is made anew when the names asked for
change or its end is near; clients trust the CA, so they notice nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Protocol

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import (
    CertificatePublicKeyTypes,
    PrivateKeyTypes,
    PublicKeyTypes,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from wicketgate.model import WicketgateError

CA_LIFE: Final = timedelta(days=3650)
SERVER_LIFE: Final = timedelta(days=397)
"""Below the 398 days that TLS clients accept at most (CA/Browser Forum baseline requirements 6.3.2)."""
RENEW_BEFORE: Final = timedelta(days=30)
_BACKDATE: Final = timedelta(hours=1)
"""For clients whose clocks are behind."""

SYSTEM_BUNDLES: Final = (
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
    Path("/etc/ssl/ca-bundle.pem"),
    Path("/etc/pki/tls/cacert.pem"),
    Path("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"),
    Path("/etc/ssl/cert.pem"),
)
"""Where distributions keep the system's roots, in the order in which the AWS CLI's TLS stack looks."""

_is_name = re.compile(r"(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?").fullmatch


class CertificateError(WicketgateError):
    """A certificate, key or their files cannot be used: says which, and what would be right."""


class ServerFiles(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway serves TLS with."""

    certificate: Path
    key: Path
    names: tuple[str, ...]
    """DNS names in the certificate, wildcards included."""
    expires: datetime
    ca: Path | None = None
    """Our own CA's certificate; None for the operator's files."""


class Vault(Protocol):
    """Where PEM data is kept by name: `ca.pem`, `ca.key`, `server.pem`, `server.key`."""

    def get(self, name: str) -> bytes | None:
        """What was kept under this name; None when there is nothing. Raises CertificateError."""

    def put(self, name: str, data: bytes) -> None:
        """Keep it, in place of what was there; on disk when it returns."""


class Directory:
    """A Vault of files: keys with mode 0600, certificates 0644."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, name: str) -> bytes | None:
        """The file's content; None when it does not exist. Raises CertificateError for a key that others may read."""
        path = self.path / name
        if not path.exists():
            return None
        return _read_private(path) if name.endswith(".key") else path.read_bytes()

    def put(self, name: str, data: bytes) -> None:
        """Write the file, in a directory made for it if need be."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(self.path / name, data, mode=0o600 if name.endswith(".key") else 0o644)


class Issued(msgspec.Struct, frozen=True, kw_only=True):
    """A server certificate of our own CA, in PEM."""

    certificate: bytes
    key: bytes
    ca: bytes
    names: tuple[str, ...]
    expires: datetime


def issue(vault: Vault, names: Sequence[str], now: datetime | None = None) -> Issued:
    """The CA and a server certificate for `names` out of `vault`, made as far as missing or outdated.

    `now` has a time zone; None is the present. Raises CertificateError for bad names, unsafe files or an ended CA.
    """
    now = now or datetime.now(UTC)
    wanted = _checked_names(names)
    ca_certificate, ca_key = _ensure_ca(vault, now)
    current = _current_server(vault, wanted, ca_certificate, now)
    if current is None:
        current = _make_server(vault, wanted, ca_certificate, ca_key, now)
    certificate, key, ca = (vault.get(name) or b"" for name in ("server.pem", "server.key", "ca.pem"))
    return Issued(certificate=certificate, key=key, ca=ca, names=wanted, expires=current.not_valid_after_utc)


def ensure(directory: Path, names: Sequence[str], now: datetime | None = None) -> ServerFiles:
    """`issue` with files in a directory."""
    issued = issue(Directory(directory), names, now)
    return ServerFiles(
        certificate=directory / "server.pem",
        key=directory / "server.key",
        names=issued.names,
        expires=issued.expires,
        ca=directory / "ca.pem",
    )


def check_files(certificate: Path, key: Path, now: datetime | None = None) -> ServerFiles:
    """The operator's own files, checked: readable, belonging together, in force. Raises CertificateError."""
    now = now or datetime.now(UTC)
    chain = _read_certificates(certificate)
    private = _read_key(key)
    leaf = chain[0]
    if _public(leaf.public_key()) != _public(private.public_key()):
        raise CertificateError(f"{key} is not the key of the first certificate in {certificate}")
    if leaf.not_valid_after_utc <= now:
        raise CertificateError(f"{certificate} ended at {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; renew it")
    if leaf.not_valid_before_utc > now:
        raise CertificateError(f"{certificate} is valid from {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC only")
    names = _dns_names(leaf)
    if not names:
        raise CertificateError(f"{certificate} has no DNS name (subjectAltName); clients would refuse it")
    return ServerFiles(certificate=certificate, key=key, names=names, expires=leaf.not_valid_after_utc)


def write_bundle(path: Path, ca: Path | None, system: Sequence[Path] = SYSTEM_BUNDLES) -> Path | None:
    """Write the system's roots and our CA to `path`, for SSL_CERT_FILE: clients go on trusting what they trusted.

    Returns the system's file that was taken, None when there is none (the bundle then holds our CA alone).
    """
    found = next((one for one in system if one.is_file()), None)
    roots = found.read_bytes() if found is not None else b""
    if roots and not roots.endswith(b"\n"):
        roots += b"\n"
    _write(path, roots + (ca.read_bytes() if ca is not None else b""), mode=0o644)
    return found


def publish(path: Path, data: bytes) -> None:
    """Write a file that everybody may read, whole. Raises OSError."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(data)
    temporary.chmod(0o644)
    temporary.replace(path)


def sealed_copy(name: str, data: bytes) -> int:
    """A descriptor of an unchangeable copy of `data` in memory.

    A process that may not open a 0600 file can be handed the descriptor and read `/proc/self/fd/N` instead, again and
    again. Close-on-exec: name it to `pass_fds`.
    """
    descriptor = os.memfd_create(name, os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    while data:
        data = data[os.write(descriptor, data) :]
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    return descriptor


# -- the CA ------------------------------------------------------------------------------------------------------------


def _ensure_ca(vault: Vault, now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    # The key is written first and the certificate last: a key alone is a first start that did not come to its end.
    kept = vault.get("ca.pem")
    if kept is None:
        return _make_ca(vault, now)
    certificate = _certificates("ca.pem", kept)[0]
    key = _key("ca.key", vault.get("ca.key") or b"")
    if not isinstance(key, ec.EllipticCurvePrivateKey) or _public(certificate.public_key()) != _public(
        key.public_key()
    ):
        raise CertificateError("ca.key is not the key of ca.pem; restore the pair from a backup")
    if certificate.not_valid_after_utc <= now + RENEW_BEFORE:
        raise CertificateError(
            f"the CA ca.pem ends at {certificate.not_valid_after_utc:%Y-%m-%d}: move ca.pem and ca.key away to "
            "have a new one made, then hand the new ca.pem to the clients"
        )
    return certificate, key


def _make_ca(vault: Vault, now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "wicketgate"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"wicketgate private CA {identifier.digest[:4].hex()}"),
        ]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    vault.put("ca.key", _pem(key))
    vault.put("ca.pem", certificate.public_bytes(serialization.Encoding.PEM))
    return certificate, key


# -- the server's certificate ------------------------------------------------------------------------------------------


def _current_server(
    vault: Vault, wanted: tuple[str, ...], ca: x509.Certificate, now: datetime
) -> x509.Certificate | None:
    """The certificate that is kept if it still serves, None when it has to be made."""
    kept, kept_key = vault.get("server.pem"), vault.get("server.key")
    if kept is None or kept_key is None:
        return None
    certificate = _certificates("server.pem", kept)[0]
    key = _key("server.key", kept_key)
    fits = (
        _public(certificate.public_key()) == _public(key.public_key())
        and certificate.issuer == ca.subject
        and _dns_names(certificate) == wanted
        and certificate.not_valid_after_utc > now + RENEW_BEFORE
        and certificate.not_valid_before_utc <= now
    )
    return certificate if fits else None


def _make_server(
    vault: Vault,
    names: tuple[str, ...],
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    now: datetime,
) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        # Names belong into subjectAltName (RFC 6125); ours can be longer than a common name may be.
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "wicketgate gateway")]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(min(now + SERVER_LIFE, ca.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    vault.put("server.key", _pem(key))
    vault.put("server.pem", certificate.public_bytes(serialization.Encoding.PEM))
    return certificate


def _checked_names(names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        raise CertificateError("a server certificate needs at least one DNS name")
    wanted = tuple(dict.fromkeys(name.lower() for name in names))
    for name in wanted:
        if len(name) > 253 or not _is_name(name):
            raise CertificateError(
                f"{name!r} is not a DNS name for a certificate: letters, digits, hyphens and dots, "
                "with `*.` at the beginning at most"
            )
    return wanted


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _dns_names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return tuple(extension.value.get_values_for_type(x509.DNSName))


# -- files -------------------------------------------------------------------------------------------------------------


def _read_certificates(path: Path) -> list[x509.Certificate]:
    try:
        return _certificates(str(path), path.read_bytes())
    except OSError as error:
        raise CertificateError(f"certificate {path}: {error.strerror}") from error


def _certificates(name: str, data: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError:
        raise CertificateError(f"{name} holds no certificate in PEM form") from None


def _read_key(path: Path) -> PrivateKeyTypes:
    return _key(str(path), _read_private(path))


def _read_private(path: Path) -> bytes:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise CertificateError(
                f"key {path} has mode {mode:04o}: others may have read it. If they may not have, run: "
                f"chmod 600 {path}; otherwise have the pair made anew"
            )
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(f"key {path}: {error.strerror}") from error


def _key(name: str, data: bytes) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(data, password=None)
    except TypeError:
        raise CertificateError(f"key {name} is encrypted; a gateway starts unattended: decrypt it") from None
    except ValueError:
        raise CertificateError(f"{name} holds no private key in PEM form") from None


def _public(key: CertificatePublicKeyTypes | PublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, data: bytes, *, mode: int) -> None:
    """Put a file in place whole: readers see the old one or the new one, power loss included."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        os.fchmod(descriptor, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
