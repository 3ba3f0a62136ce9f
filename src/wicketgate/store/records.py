"""How a resource is written down: its kind, its kind's schema number, its id, its JSON with the secrets sealed.

Schema numbers start at 1. A change of a resource's form that old JSON does not fit appends one upgrader to its kind:
a pure function from the old JSON object to the next one. What is stored stays as it is until it is put again. (A new
field that has a default needs none.) Upgraders see sealed fields sealed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from wicketgate.model import KINDS, Resource
from wicketgate.model.change import id_of, kind_of
from wicketgate.seal import Seal, SealError
from wicketgate.store.errors import StoreError

Upgrader = Callable[[dict[str, Any]], dict[str, Any]]

UPGRADERS: Final[Mapping[str, tuple[Upgrader, ...]]] = {}
"""Kind -> how to get from schema 1 to 2, from 2 to 3, ..."""

SEALED_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {"access-key": ("secret", "session_token")}
"""Kind -> its fields of type `str` that are never written in clear."""


class Record(msgspec.Struct, frozen=True):
    """A resource as stored."""

    kind: str
    id: str
    schema: int
    body: msgspec.Raw
    """The resource as a JSON object."""


class Codec:
    """Resources to records and back."""

    def __init__(self, seal: Seal, upgraders: Mapping[str, tuple[Upgrader, ...]] = UPGRADERS) -> None:
        """Seal with `seal`, read old schemas through `upgraders`."""
        self._seal = seal
        self._upgraders = upgraders
        self._decoders = {kind: msgspec.json.Decoder(cls) for kind, cls in KINDS.items()}

    def schema(self, kind: str) -> int:
        """The present schema number of a kind."""
        return 1 + len(self._upgraders.get(kind, ()))

    def schemas(self) -> dict[str, int]:
        """The present schema number of every kind."""
        return {kind: self.schema(kind) for kind in KINDS}

    def record(self, resource: Resource) -> Record:
        """Write a resource down."""
        kind, resource_id = kind_of(resource), id_of(resource)
        sealed = {
            field: self._seal.seal((kind, resource_id, field), value.encode())
            for field in SEALED_FIELDS.get(kind, ())
            if (value := getattr(resource, field)) is not None
        }
        written = msgspec.structs.replace(resource, **sealed) if sealed else resource
        return Record(kind, resource_id, self.schema(kind), msgspec.Raw(msgspec.json.encode(written)))

    def resource(self, record: Record) -> Resource:
        """Read a resource; raises StoreError naming it."""
        name = f"{record.kind} {record.id}".strip()
        if record.kind not in KINDS or record.schema > self.schema(record.kind):
            raise StoreError(
                f"{name} has schema {record.schema}, "
                f"this wicketgate knows {self._known(record.kind)}: it was written by a newer one; run that"
            )
        try:
            found = self._unsealed(record.kind, record.id, self._decoded(record))
        except (msgspec.DecodeError, SealError) as error:  # a ValidationError is a DecodeError
            raise StoreError(f"{name} cannot be read: {error}") from error
        if id_of(found) != record.id:
            raise StoreError(f"{name} cannot be read: what is stored under it calls itself {id_of(found)!r}")
        return found

    def _known(self, kind: str) -> str:
        return f"schemas 1 to {self.schema(kind)} of it" if kind in KINDS else f"no {kind}"

    def _decoded(self, record: Record) -> Resource:
        if record.schema == self.schema(record.kind):
            found: Resource = self._decoders[record.kind].decode(record.body)
            return found
        old = msgspec.json.decode(record.body, type=dict[str, Any])
        for upgrade in self._upgraders[record.kind][max(record.schema, 1) - 1 :]:
            old = upgrade(old)
        return msgspec.convert(old, KINDS[record.kind])

    def _unsealed(self, kind: str, resource_id: str, resource: Resource) -> Resource:
        opened = {
            field: self._seal.unseal((kind, resource_id, field), value).decode()
            for field in SEALED_FIELDS.get(kind, ())
            if (value := getattr(resource, field)) is not None
        }
        return msgspec.structs.replace(resource, **opened) if opened else resource
