"""The client side of openTunnel: standard input and output, or a local port, through an EC2 Instance Connect Endpoint.

Every connection of `ssh` pays for each import made here, so this room uses the standard library alone: no botocore, no
model, no event loop. One tunnel is one thread with one `poll`; OpenSSL works outside the interpreter's lock.
"""

from wicketgate.client.credentials import resolve_credentials, resolve_region
from wicketgate.client.errors import ClientError, ConfigurationError, InvalidUse, Refused, TunnelFailed
from wicketgate.client.request import TunnelRequest

__all__ = [
    "ClientError",
    "ConfigurationError",
    "InvalidUse",
    "Refused",
    "TunnelFailed",
    "TunnelRequest",
    "resolve_credentials",
    "resolve_region",
]
