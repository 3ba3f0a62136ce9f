"""What the metadata process is told at start, by `serve` or as a unit."""

from __future__ import annotations

import msgspec

from wicketgate.model import WicketgateError


class MetadataError(WicketgateError):
    """The process cannot start: says what is wrong and what would be right."""


class MetadataConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The JSON in the first argument of `python -m wicketgate.metadata`."""

    feed_fd: int | None = None
    """Stream socket: Worlds come in, acknowledgements go out; its end is our end."""
    feed_path: str = ""
    """Where the API process listens instead: we connect there, and again when that ends."""
    feed_owner: int = 0
    """User id of the API process."""
    netd_fd: int | None = None
    """SOCK_SEQPACKET socket to netd (its `metadata_fds`)."""
    netd_path: str = ""
    """Where netd listens instead."""
    domain: str
    """What instances are told as `services/domain`; the same that the SSH signer's certificate is named by."""
    signer_chain: str
    """PEM file: the certificate of the SSH signer. Read for every request, so that a renewed one counts at once. Where
    the process may not walk to it, `/proc/self/fd/N/<name>` of an inherited descriptor of its directory."""
    log_level: str = "info"
    """The least important messages to log, as the setting has it."""
