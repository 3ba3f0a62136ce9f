"""What was decided, on disk: a journal of Changes and the World they add up to.

The API process alone opens it. SQLite now; whatever takes its place is another `Store`.
"""

from wicketgate.store.contract import TOKEN_LIFE, Identity, Recorded, Store, TokenUse
from wicketgate.store.errors import RevisionConflict, StoreError
from wicketgate.store.root import RootCredential, root_credential, root_credential_shown
from wicketgate.store.sqlite import SqliteStore, open_store

__all__ = [
    "TOKEN_LIFE",
    "Identity",
    "Recorded",
    "RevisionConflict",
    "RootCredential",
    "SqliteStore",
    "Store",
    "StoreError",
    "TokenUse",
    "open_store",
    "root_credential",
    "root_credential_shown",
]
