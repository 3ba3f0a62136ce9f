"""What the API process is told at start, by `serve` or as a unit."""

from __future__ import annotations

import msgspec

from wicketgate.control.common import Quotas
from wicketgate.control.endpoints import EndpointQuotas
from wicketgate.model import Settings
from wicketgate.store import Identity


class ApiConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The JSON in the first argument of `python -m wicketgate.api`.

    A root credential that the operator gave comes in the environment, which others cannot read.
    """

    feed_fd: int | None = None
    """Stream socket to `serve`: our Opening and Updates go out, acknowledgements come in; its end is our end."""
    followers_fd: int | None = None
    """Listening Unix socket for followers instead, where there is no `serve`."""
    netd_user: int = 0
    """User ids by which followers are told apart."""
    gateway_user: int = 0
    metadata_user: int = 0
    public_directory: str = ""
    """Where certificates are published that others need; empty = `serve` does that."""
    listen_fd: int
    """Listening Unix socket, on which gateways hand connections on."""
    store: str
    """Directory of the store."""
    key_file: str = ""
    """File of the sealing key; empty = in the store's directory."""
    audit_file: str
    """Our own audit file."""
    other_audit_fds: list[int] = []
    """The gateways' audit files, open for reading."""
    other_audit_directory: str = ""
    """Directory of the gateways' audit files instead."""
    identity: Identity
    settings: Settings
    quotas: Quotas
    endpoint_quotas: EndpointQuotas
    domain: str
    own_certificate: bool = False
    """The operator has certificate files: issue none."""
    observations: str = ""
    """File in which netd tells what it has found outside; empty = none."""
    log_level: str = "info"
    """The least important messages to log, as the setting has it."""
