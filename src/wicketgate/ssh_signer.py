"""What pushed SSH keys are signed with, so that an instance trusts them: a private root and a signer of its own.

    root     RSA-3072, made once; its certificate is pinned on every instance (`wicketgate_keycommand.py --root`)
    signer   RSA-2048, certificate CN `managed-ssh-signer.<region>.<domain>`, renewed while it runs

RSA and not an elliptic curve, because the instance's side checks it with Python's integers and nothing else. Both stand
apart from the CA of `pki`: who trusts the one has no reason to trust the other. A renewal keeps the signer's key, so
that keys pushed a moment before stay valid; the key itself is replaced by deleting `ssh-signer.key` from the vault.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from wicketgate.pki import CertificateError, Vault

ROOT_LIFE: Final = timedelta(days=7300)
SIGNER_LIFE: Final = timedelta(days=397)
RENEW_BEFORE: Final = timedelta(days=30)
ROOT_BITS: Final = 3072
SIGNER_BITS: Final = 2048
MAX_COMMON_NAME: Final = 64
"""Characters (ITU-T X.520, ub-common-name)."""
_BACKDATE: Final = timedelta(hours=1)
"""For instances whose clocks are behind."""
_SALT: Final = 32


def common_name(region: str, domain: str) -> str:
    """The signer's name, which the instance expects for where it is."""
    return f"managed-ssh-signer.{region}.{domain}"


@dataclass(frozen=True)
class SshSigner:
    """The signer in force. Safe to use from several threads."""

    key: rsa.RSAPrivateKey
    chain: bytes
    """PEM: what instance metadata shows as `managed-ssh-keys/signer-cert`."""
    root: bytes
    """PEM: the certificate that instances pin."""
    expires: datetime
    """When the chain ends."""

    def sign(self, data: bytes) -> bytes:
        """RSA-PSS with SHA-256 and a salt of 32 bytes (RFC 8017 section 8.1)."""
        return self.key.sign(data, padding.PSS(padding.MGF1(hashes.SHA256()), _SALT), hashes.SHA256())

    def outdated(self, now: datetime) -> bool:
        """Whether it is time to call `ensure` again."""
        return self.expires <= now + RENEW_BEFORE


def ensure(vault: Vault, region: str, domain: str, now: datetime | None = None) -> SshSigner:
    """The signer out of `vault`, made or renewed as far as it is missing, of another name, or near its end.

    Kept there: `ssh-root.key`, `ssh-root.pem`, `ssh-signer.key`, `ssh-signer.pem`. `now` has a time zone; None is the
    present. Raises CertificateError for a name that is too long, data that cannot be read and a root that has ended.
    """
    now = now or datetime.now(UTC)
    name = common_name(region, domain)
    if len(name) > MAX_COMMON_NAME:
        raise CertificateError(
            f"the signer's name {name} has {len(name)} characters, {MAX_COMMON_NAME} are possible: use a shorter domain"
        )
    root_key, root = _root(vault, now)
    kept_key, kept = vault.get("ssh-signer.key"), vault.get("ssh-signer.pem")
    key = rsa.generate_private_key(65537, SIGNER_BITS) if kept_key is None else _read_key("ssh-signer.key", kept_key)
    certificate = None if kept is None else _read_certificate("ssh-signer.pem", kept)
    if certificate is None or not _serves(certificate, key, name, root, now):
        end = min(now + SIGNER_LIFE, root.not_valid_after_utc)
        certificate = _issue(name, key, root.subject, root_key, end=end, now=now)
        # The key first and the certificate last: a key alone is a start that did not come to its end.
        vault.put("ssh-signer.key", _pem(key))
        vault.put("ssh-signer.pem", _pem(certificate))
    return SshSigner(key=key, chain=_pem(certificate), root=_pem(root), expires=certificate.not_valid_after_utc)


def _root(vault: Vault, now: datetime) -> tuple[rsa.RSAPrivateKey, x509.Certificate]:
    kept = vault.get("ssh-root.pem")
    if kept is None:
        key = rsa.generate_private_key(65537, ROOT_BITS)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest[:4].hex()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"wicketgate SSH signer root {identifier}")])
        certificate = _issue(name, key, name, key, end=now + ROOT_LIFE, now=now)
        vault.put("ssh-root.key", _pem(key))
        vault.put("ssh-root.pem", _pem(certificate))
        return key, certificate
    certificate = _read_certificate("ssh-root.pem", kept)
    key = _read_key("ssh-root.key", vault.get("ssh-root.key") or b"")
    if certificate.public_key() != key.public_key():
        raise CertificateError("ssh-root.key is not the key of ssh-root.pem; restore the pair from a backup")
    if certificate.not_valid_after_utc <= now + RENEW_BEFORE:
        raise CertificateError(
            f"the root ssh-root.pem ends at {certificate.not_valid_after_utc:%Y-%m-%d}: delete ssh-root.pem and "
            "ssh-root.key to have a new one made, then pin the new ssh-root.pem on every instance"
        )
    return key, certificate


def _serves(
    certificate: x509.Certificate, key: rsa.RSAPrivateKey, name: str, root: x509.Certificate, now: datetime
) -> bool:
    return (
        certificate.public_key() == key.public_key()
        and certificate.subject == x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        and certificate.issuer == root.subject
        and certificate.not_valid_before_utc <= now
        and certificate.not_valid_after_utc > now + RENEW_BEFORE
    )


def _issue(
    subject: x509.Name | str,
    key: rsa.RSAPrivateKey,
    issuer: x509.Name,
    issuer_key: rsa.RSAPrivateKey,
    *,
    end: datetime,
    now: datetime,
) -> x509.Certificate:
    """A certificate of the root for itself or for a signer, by sha256WithRSAEncryption (RFC 8017 section 8.2)."""
    if isinstance(subject, str):
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    is_root = subject == issuer
    usage = x509.KeyUsage(
        digital_signature=not is_root,
        key_cert_sign=is_root,
        crl_sign=is_root,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=is_root, path_length=0 if is_root else None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


def _read_certificate(name: str, data: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(data)
    except ValueError:
        raise CertificateError(f"{name} holds no certificate in PEM form") from None


def _read_key(name: str, data: bytes) -> rsa.RSAPrivateKey:
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError):
        raise CertificateError(f"{name} holds no private key in plain PEM form") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise CertificateError(f"{name} holds no RSA key")
    return key


def _pem(thing: rsa.RSAPrivateKey | x509.Certificate) -> bytes:
    if isinstance(thing, x509.Certificate):
        return thing.public_bytes(serialization.Encoding.PEM)
    return thing.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
