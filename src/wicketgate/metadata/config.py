"""What `serve` tells the metadata process at start."""

from __future__ import annotations

import msgspec

from wicketgate.model import WicketgateError


class MetadataError(WicketgateError):
    """The process cannot start: says what is wrong and what would be right."""


class MetadataConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The JSON in the first argument of `python -m wicketgate.metadata`."""

    feed_fd: int
    """Stream socket: Worlds come in, acknowledgements go out; its end is our end."""
    netd_fd: int
    """SOCK_SEQPACKET socket to netd (its `metadata_fds`)."""
    domain: str
    """What instances are told as `services/domain`; the same that the SSH signer's certificate is named by."""
    signer_chain: str
    """PEM file: the certificate of the SSH signer. Read for every request, so that a renewed one counts at once. Where
    the process may not walk to it, `/proc/self/fd/N/<name>` of an inherited descriptor of its directory."""
    log_level: str = "info"
    """The least important messages to log, as the setting has it."""
