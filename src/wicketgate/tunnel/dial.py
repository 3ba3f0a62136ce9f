"""What the gateway asks netd, and what netd answers: the words of the socketpair between the two processes.

One request, one answer, matched by `id`, each one SOCK_SEQPACKET message of JSON. A granted dial's answer carries two
descriptors (SCM_RIGHTS): the target socket, non-blocking with its connect under way, and the lease. The tunnel's slot
lives exactly as long as the lease's open file description does, so a dead worker's slots free themselves.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

RefusalKind = Literal[
    "endpoint",  # no such endpoint, or its state admits no tunnels
    "limit",  # tunnels per endpoint
    "url-reused",  # the presigned URL was used before, against url_reuse
    "target",  # the address is none that this endpoint may reach
    "client-address",  # preservation is on and the client's address cannot be preserved
    "connect",  # the kernel refused at once; `errno` says why
]


class DialRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Connect from an endpoint to a target, for a client."""

    id: int
    endpoint_id: str
    address: str
    port: int
    client_address: Annotated[str, msgspec.Meta(max_length=64)]
    signature: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")] = ""
    """The presigned URL's signature, hex; the key of the url_reuse memory."""
    signature_expires: float = 0.0
    """When that URL ends, seconds since the epoch; netd forgets it then."""


class DialReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Granted (two descriptors come with it) when `refused` is None."""

    id: int
    revision: int = 0
    """The World that netd judged by."""
    source_address: str = ""
    """The address the target sees: the client's, or the endpoint's own."""
    refused: RefusalKind | None = None
    message: str = ""
    """One line for people, when refused."""
    errno: int = 0
