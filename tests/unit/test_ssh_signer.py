"""The signer of pushed SSH keys: made once, renewed in time, its key kept, refusals worded."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.x509.oid import NameOID

from wicketgate import ssh_signer
from wicketgate.pki import CertificateError

NOW = datetime(2026, 11, 1, tzinfo=UTC)


class Memory(dict):
    """A Vault in memory."""

    def put(self, name, data):
        """Keep it."""
        self[name] = data


@pytest.fixture(scope="module")
def made():
    """A vault with a root and a signer in it."""
    vault = Memory()
    ssh_signer.ensure(vault, "us-east-1", "wicketgate.test", NOW)
    return vault


def test_chain_and_signature(made):
    """The root signs the signer, of the expected name; the signer's signature verifies under its certificate."""
    signer = ssh_signer.ensure(Memory(made), "us-east-1", "wicketgate.test", NOW)
    root, leaf = (x509.load_pem_x509_certificate(one) for one in (signer.root, signer.chain))
    leaf.verify_directly_issued_by(root)
    root.verify_directly_issued_by(root)
    (name,) = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert name.value == "managed-ssh-signer.us-east-1.wicketgate.test"
    assert leaf.not_valid_after_utc == NOW + ssh_signer.SIGNER_LIFE == signer.expires
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    leaf.public_key().verify(signer.sign(b"text"), b"text", pss, hashes.SHA256())
    constraints = [c.extensions.get_extension_for_class(x509.BasicConstraints).value.ca for c in (root, leaf)]
    assert constraints == [True, False]


def test_what_is_kept_is_used_again(made):
    """A second start finds the first one's signer and writes nothing."""
    vault = Memory(made)
    signer = ssh_signer.ensure(vault, "us-east-1", "wicketgate.test", NOW + timedelta(days=300))
    assert vault == made
    assert signer.chain == made["ssh-signer.pem"]
    assert set(made) == {"ssh-root.key", "ssh-root.pem", "ssh-signer.key", "ssh-signer.pem"}


def test_renewal_keeps_root_and_key(made):
    """Near its end the certificate is made anew for the same key: what was signed a moment before stays valid."""
    vault = Memory(made)
    soon = NOW + ssh_signer.SIGNER_LIFE - ssh_signer.RENEW_BEFORE
    assert ssh_signer.ensure(vault, "us-east-1", "wicketgate.test", soon - timedelta(hours=1)).outdated(soon)
    signer = ssh_signer.ensure(vault, "us-east-1", "wicketgate.test", soon)
    assert signer.expires == soon + ssh_signer.SIGNER_LIFE
    assert not signer.outdated(soon)
    assert {name for name in vault if vault[name] != made[name]} == {"ssh-signer.pem"}


def test_another_name_gets_another_certificate(made):
    """A changed domain is a changed name."""
    signer = ssh_signer.ensure(Memory(made), "us-east-1", "other.test", NOW)
    leaf = x509.load_pem_x509_certificate(signer.chain)
    assert leaf.subject.rfc4514_string() == "CN=managed-ssh-signer.us-east-1.other.test"


def test_a_deleted_key_is_replaced(made):
    """The way to a new signing key."""
    vault = Memory(made)
    del vault["ssh-signer.key"]
    signer = ssh_signer.ensure(vault, "us-east-1", "wicketgate.test", NOW)
    leaf = x509.load_pem_x509_certificate(signer.chain)
    assert (
        leaf.public_key()
        == signer.key.public_key()
        != x509.load_pem_x509_certificate(made["ssh-signer.pem"]).public_key()
    )


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"ssh-root.key": b""}, "ssh-root.key holds no private key"),
        ({"ssh-root.pem": b"junk"}, "ssh-root.pem holds no certificate"),
        ({"ssh-signer.key": b"junk"}, "ssh-signer.key holds no private key"),
        ({"ssh-root.key": "ssh-signer.key"}, "not the key of ssh-root.pem"),
    ],
)
def test_damage_is_worded(made, changed, words):
    """Damaged or mixed-up data is refused, never replaced: the root is pinned elsewhere."""
    vault = Memory(made) | {name: made.get(data, data) for name, data in changed.items()}
    with pytest.raises(CertificateError, match=words):
        ssh_signer.ensure(Memory(vault), "us-east-1", "wicketgate.test", NOW)


def test_an_ended_root_is_not_replaced_by_itself(made):
    """Every instance would have to pin the new one."""
    with pytest.raises(CertificateError, match="pin the new"):
        ssh_signer.ensure(Memory(made), "us-east-1", "wicketgate.test", NOW + ssh_signer.ROOT_LIFE)


def test_too_long_a_name_is_refused():
    """A common name has 64 characters at most."""
    with pytest.raises(CertificateError, match="shorter domain"):
        ssh_signer.ensure(Memory(), "us-east-1", "d" * 60, NOW)
