"""What `serve` tells the API process at start."""

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

    feed_fd: int
    """Stream socket: our Opening and Updates go out, acknowledgements come in; its end is our end."""
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
