"""What `serve` tells a gateway worker at start, and what the worker makes sure of before it takes a connection."""

from __future__ import annotations

import ssl
from pathlib import Path

import msgspec

from wicketgate.model import WicketgateError


class GatewayError(WicketgateError):
    """The worker cannot start: says what is wrong and what would be right."""


class GatewayConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The JSON in the first argument of `python -m wicketgate.gateway`."""

    feed_fd: int | None = None
    """Stream socket: Worlds come in, acknowledgements go out; its end is our end."""
    feed_path: str = ""
    """Where the API process listens instead: we connect there, and again when that ends."""
    feed_owner: int = 0
    """User id of the API process."""
    netd_fd: int | None = None
    """SOCK_SEQPACKET socket to netd."""
    netd_path: str = ""
    """Where netd listens instead."""
    listen_fds: list[int]
    """Listening TCP sockets."""
    certificate: str = ""
    """PEM file: the server's certificate and what leads to its root. Where the worker may not open that file,
    `/proc/self/fd/N` of an inherited descriptor of its copy (`pki.sealed_copy`). Empty: the API process's Opening has
    it, and the key."""
    key: str = ""
    """PEM file of its private key, or a copy's descriptor likewise."""
    audit_file: str
    """This worker's own audit file."""
    audit_shared: bool = False
    """The group of that file, which is its directory's, may read it: the API process does."""
    audit_fd: int | None = None
    """That file, open for reading and appending, where the worker may not open it itself."""
    api_socket: str = ""
    """Unix socket of the API process; empty = there is none, and only tunnels are served."""
    worker: int = 0
    head_timeout: float = 10.0
    """Seconds for TLS handshake and, again, for the request head."""
    log_level: str = "info"
    """The least important messages to log, as the setting has it."""
    allow_capabilities: bool = False
    """For tests run as root: start although the process holds capabilities."""


def check_unprivileged(status: str) -> None:
    """Raise GatewayError if /proc/self/status, passed in, shows any capability (capabilities(7))."""
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name in ("CapPrm", "CapEff", "CapAmb") and int(value, 16) != 0:
            raise GatewayError(
                f"the gateway faces the network and must hold no capability, but {name} is {value.strip()}: "
                "start it through `serve`, or drop all capabilities first"
            )


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """A server's TLS context, 1.2 and later; raises GatewayError. Who starts us has checked the rest
    (`pki.check_files`)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION

    def encrypted() -> str:  # without this OpenSSL would ask on the terminal, and wait
        raise GatewayError(f"key {key} is encrypted; a gateway starts unattended: decrypt it")

    try:
        context.load_cert_chain(certificate, key, password=encrypted)
    except ssl.SSLError as error:
        raise GatewayError(f"certificate {certificate} and key {key} do not fit together: {error.reason}") from error
    except OSError as error:
        raise GatewayError(f"certificate {certificate} or key {key}: {error.strerror}") from error
    return context
