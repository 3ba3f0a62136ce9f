"""What can go wrong with the store."""

from __future__ import annotations

from wicketgate.model import WicketgateError


class StoreError(WicketgateError):
    """The store cannot be used, or did not keep what it was given: says what is wrong and what would be right.

    Unless its words say otherwise, what was committed before is untouched and nothing of the present call was kept.
    """


class RevisionConflict(StoreError):
    """The World moved on since the caller read it: read again, decide again, commit again."""

    def __init__(self, expected: int, actual: int) -> None:
        """The caller decided on revision `expected`, the store is at `actual`."""
        super().__init__(
            f"the change was decided on revision {expected}, but the store is at revision {actual}: "
            "read the World again, decide again and commit that"
        )
        self.expected = expected
        self.actual = actual
