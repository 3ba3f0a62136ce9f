"""What the client gives up with. `str(error)` is one line for people; exit codes are the AWS CLI's.

    ClientError              255
    |-- InvalidUse           252  the command line is wrong
    |-- ConfigurationError   253  no credentials, region or certificate file to work with
    |-- Refused                   the service answered, and the answer is no: asking again gives the same
    `-- TunnelFailed              no answer, or a tunnel that ended other than well: asking again may help

The model's tree is not used: importing it costs more time than opening a tunnel.
"""

from __future__ import annotations

from typing import ClassVar


class ClientError(Exception):
    """The client gives up, on purpose."""

    exit_code: ClassVar[int] = 255


class InvalidUse(ClientError):
    """An option is missing, malformed or out of range."""

    exit_code = 252


class ConfigurationError(ClientError):
    """Something that the environment or the AWS files should provide is missing or unreadable."""

    exit_code = 253


class Refused(ClientError):
    """The handshake was answered with an HTTP error that will not change by itself."""


class TunnelFailed(ClientError):
    """The service could not be reached, did not answer as one, or ended the tunnel with a reason."""


def printable(text: str) -> str:
    """Text from the network, safe on a terminal: what is not printable is escaped."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
