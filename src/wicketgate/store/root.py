"""The root credential: the operator's, or one made on first start, shown once and kept sealed."""

from __future__ import annotations

import base64
import secrets
import string
from typing import Final

import msgspec

from wicketgate.store.contract import Store
from wicketgate.store.errors import StoreError

_NAME: Final = "root-credential"
_KEY_ID_ALPHABET: Final = string.ascii_uppercase + "234567"


class RootCredential(msgspec.Struct, frozen=True, kw_only=True):
    """The access key of the account's root user."""

    access_key_id: str
    secret_access_key: str
    to_be_shown: bool = False
    """It was made here and the operator has not seen it: show it, then call `root_credential_shown`."""

    def __repr__(self) -> str:
        """Without the secret: a repr ends in logs."""
        return f"RootCredential(access_key_id={self.access_key_id!r}, to_be_shown={self.to_be_shown})"


def root_credential(store: Store, given: RootCredential | None = None) -> RootCredential:
    """The root credential in force: the operator's, else the kept one, else a new one, kept before it is returned.

    A given one is not kept: without it, the next start falls back to the kept one. Raises StoreError.
    """
    if given is not None:
        return given
    kept = store.secret(_NAME)
    if kept is None:
        made = RootCredential(access_key_id=_new_key_id(), secret_access_key=_new_secret(), to_be_shown=True)
        store.put_secret(_NAME, msgspec.json.encode(made))
        return made
    try:
        return msgspec.json.decode(kept, type=RootCredential)
    except msgspec.DecodeError as error:
        raise StoreError(f"the kept root credential cannot be read: {error}") from error


def root_credential_shown(store: Store) -> None:
    """Note that the operator has seen the credential that was made; it is never to be shown again."""
    shown = msgspec.structs.replace(root_credential(store), to_be_shown=False)
    store.put_secret(_NAME, msgspec.json.encode(shown))


def _new_key_id() -> str:
    # AKIA and 16 characters of base32: the form of a long-term key (IAM User Guide, unique identifiers)
    return "AKIA" + "".join(secrets.choice(_KEY_ID_ALPHABET) for _ in range(16))


def _new_secret() -> str:
    return base64.b64encode(secrets.token_bytes(30)).decode()  # 40 characters, 240 bits
