"""Sealing: what is at rest opens in its own place, under its own key, and nowhere else."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wicketgate.seal import Seal, SealError, ensure_key

KEY = bytes(range(32))
PLACE = ("access-key", "AKIAIOSFODNN7EXAMPLE", "secret")


@pytest.fixture
def seal() -> Seal:
    """A seal with a known key."""
    return Seal(KEY, "test.key")


@given(st.lists(st.text()).map(tuple), st.binary())
def test_what_was_sealed_opens_in_its_place(place: tuple[str, ...], data: bytes) -> None:
    """Any bytes, empty included, come back under the same key and context."""
    assert Seal(KEY, "").unseal(place, Seal(KEY, "").seal(place, data)) == data


@given(st.lists(st.text()).map(tuple), st.lists(st.text()).map(tuple))
def test_no_other_place_opens_it(place: tuple[str, ...], other: tuple[str, ...]) -> None:
    """A ciphertext copied to any other context, however similar its parts, does not open."""
    seal = Seal(KEY, "")
    if place != other:
        with pytest.raises(SealError, match="altered, or copied here from another place"):
            seal.unseal(other, seal.seal(place, b"secret"))


def test_parts_of_a_place_do_not_run_together(seal: Seal) -> None:
    """("a", "bc") and ("ab", "c") are two places."""
    with pytest.raises(SealError, match="ab/c does not open"):
        seal.unseal(("ab", "c"), seal.seal(("a", "bc"), b"secret"))


def test_every_sealing_differs(seal: Seal) -> None:
    """Equal secrets cannot be told by equal ciphertexts."""
    assert len({seal.seal(PLACE, b"secret") for _ in range(100)}) == 100


def test_any_altered_byte_is_noticed(seal: Seal) -> None:
    """A bit flipped anywhere in nonce, ciphertext or tag: it does not open."""
    head, _, text = seal.seal(PLACE, b"secret").rpartition(":")
    raw = base64.urlsafe_b64decode(text)
    for index in range(len(raw)):
        flipped = raw[:index] + bytes([raw[index] ^ 1]) + raw[index + 1 :]
        with pytest.raises(SealError, match="it was altered"):
            seal.unseal(PLACE, f"{head}:{base64.urlsafe_b64encode(flipped).decode()}")


@pytest.mark.parametrize("text", ["", "wJalrXUtnFEMI", "sealed:1:", "sealed:2:0011223344556677:AAAA"])
def test_what_is_not_sealed_is_refused(seal: Seal, text: str) -> None:
    """A secret in clear where a sealed one should be is an error, never used as it stands, and is not shown."""
    with pytest.raises(SealError, match="access-key/AKIAIOSFODNN7EXAMPLE/secret is not a sealed value"):
        seal.unseal(PLACE, text)


@pytest.mark.parametrize("text", ["", "AAAA", "no base64!", "é"])
def test_a_stump_is_refused(seal: Seal, text: str) -> None:
    """A sealed value that was cut off, or is no base64, gives words and no crash."""
    with pytest.raises(SealError, match="does not open"):
        seal.unseal(PLACE, f"sealed:1:{seal.key_id}:{text}")


def test_another_key_is_named(seal: Seal) -> None:
    """The message says which key is needed and which one the file holds."""
    other = Seal(bytes(32), "other.key")
    with pytest.raises(SealError, match=f"sealed with key {seal.key_id}, but other.key holds key {other.key_id}"):
        other.unseal(PLACE, seal.seal(PLACE, b"secret"))


def test_the_key_file_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    """First start makes it, mode 0600 whatever the umask; the second reads the same key; nothing else is left."""
    path = tmp_path / "seal.key"
    before = os.umask(0)
    try:
        first = ensure_key(path, may_create=True)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o7777 == 0o600
    assert ensure_key(path, may_create=True).unseal(PLACE, first.seal(PLACE, b"secret")) == b"secret"
    assert list(tmp_path.iterdir()) == [path]


def test_two_key_files_hold_two_keys(tmp_path: Path) -> None:
    """Keys are drawn, not fixed."""
    keys = {ensure_key(tmp_path / name, may_create=True).key_id for name in "abc"}
    assert len(keys) == 3


def test_a_missing_key_file_is_not_replaced(tmp_path: Path) -> None:
    """Where secrets are sealed already, a new key would open none of them: the old one is asked for."""
    with pytest.raises(SealError, match=r"seal\.key does not exist, but there are secrets sealed with it: put it back"):
        ensure_key(tmp_path / "seal.key", may_create=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    """Any right of group or others is too much, and the message says what to run."""
    path = tmp_path / "seal.key"
    ensure_key(path, may_create=True)
    path.chmod(mode)
    with pytest.raises(SealError, match=f"mode {mode:04o}: others may read it; run: chmod 600 {path}"):
        ensure_key(path, may_create=False)


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"wicketgate-seal-key:1:AAAA\n", b"A" * 44, b"wicketgate-seal-key:1:" + b"A" * 42 + b"!!\n"],
)
def test_a_damaged_key_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """What is not one line of the right form and length is no key, and is left as it is."""
    path = tmp_path / "seal.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SealError, match="is damaged: it should be one line"):
        ensure_key(path, may_create=True)
    assert path.read_bytes() == content


def test_a_key_file_that_is_none_is_refused(tmp_path: Path) -> None:
    """A directory and a place that cannot hold a file are named with the system's words."""
    with pytest.raises(SealError, match="Is a directory"):
        ensure_key(tmp_path, may_create=True)
    with pytest.raises(SealError, match="No such file or directory"):
        ensure_key(tmp_path / "no" / "seal.key", may_create=True)
