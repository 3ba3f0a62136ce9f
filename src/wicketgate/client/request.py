"""What a caller asks for: one openTunnel request, checked before anything is sent.

The checks are those of the AWS CLI's `ec2-instance-connect open-tunnel`, and two more: the address must be one and the
port must be in range, because both would only fail later and less clearly.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import NamedTuple

from wicketgate.client.errors import InvalidUse
from wicketgate.sigv4.presign import Credentials, presign, tunnel_parameters

MAX_TUNNEL_DURATION = 3600
"""Seconds; AWS's upper bound, a gateway may set a lower one."""
DEFAULT_PORT = 443

Find = Callable[[str | None, str | None, str | None, str | None], tuple[str, str, str]]
"""Endpoint's id and name, target's address and instance's id as far as given -> the first three, looked up."""

_is_endpoint_id = re.compile(r"eice-[0-9a-zA-Z_]+").fullmatch
_is_instance_id = re.compile(r"i-[0-9a-zA-Z]+").fullmatch
_is_dns_name = re.compile(r"([0-9a-zA-Z.-]+)(?::([0-9]{1,5}))?").fullmatch


class TunnelRequest(NamedTuple):
    """A checked request; `make` is the way to one."""

    endpoint_id: str
    dns_name: str
    """Host of the endpoint; beyond the AWS CLI, `host:port` for a gateway that does not listen on 443."""
    private_ip_address: str
    remote_port: int = 22
    max_tunnel_duration: int | None = None
    """Seconds; None leaves the limit to the service."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to connect to."""
        host, _, port = self.dns_name.partition(":")
        return host, int(port or DEFAULT_PORT)

    def url(self, credentials: Credentials, *, region: str, now: float) -> str:
        """The presigned URL, good for 60 s from `now` (seconds since the epoch)."""
        parameters = tunnel_parameters(
            self.endpoint_id, self.remote_port, self.private_ip_address, self.max_tunnel_duration
        )
        return presign(self.dns_name, parameters, credentials, region=region, now=now)

    def options(self) -> dict[str, str]:
        """The options of `open-tunnel` that ask for the same, the remote port excepted."""
        found = {
            "--instance-connect-endpoint-id": self.endpoint_id,
            "--instance-connect-endpoint-dns-name": self.dns_name,
            "--private-ip-address": self.private_ip_address,
        }
        if self.max_tunnel_duration is not None:
            found["--max-tunnel-duration"] = str(self.max_tunnel_duration)
        return found

    @classmethod
    def make(
        cls,
        *,
        endpoint_id: str | None,
        dns_name: str | None,
        private_ip_address: str | None,
        instance_id: str | None = None,
        remote_port: int = 22,
        max_tunnel_duration: int | None = None,
        find: Find | None = None,
    ) -> TunnelRequest:
        """Check options as they were given; raises InvalidUse naming the option and what would be right.

        What is missing of endpoint and address is looked up by `find` once all the rest is found to be right; without
        `find` nothing may be missing.
        """
        _check(endpoint_id, _is_endpoint_id, "--instance-connect-endpoint-id", "eice- followed by letters and digits")
        _check(instance_id, _is_instance_id, "--instance-id", "i- followed by letters and digits")
        _check(dns_name, _is_dns_name, "--instance-connect-endpoint-dns-name", "a host name, or host:port")
        if not instance_id and not private_ip_address:
            raise InvalidUse("Give the target: --instance-id or --private-ip-address.")
        if (dns_name or private_ip_address) and not endpoint_id:
            raise InvalidUse(
                "--instance-connect-endpoint-dns-name and --private-ip-address need --instance-connect-endpoint-id."
            )
        if private_ip_address and not _is_address(private_ip_address):
            raise InvalidUse(f"--private-ip-address {private_ip_address!r} is not an IPv4 or IPv6 address.")
        _check_range(remote_port, "--remote-port", 1, 65535)
        port = (dns_name or "").partition(":")[2]
        _check_range(int(port or DEFAULT_PORT), "The port of the endpoint's name", 1, 65535)
        if max_tunnel_duration is not None:
            _check_range(max_tunnel_duration, "--max-tunnel-duration", 1, MAX_TUNNEL_DURATION)
        if not (endpoint_id and dns_name and private_ip_address):
            if find is None:
                raise InvalidUse(
                    "Nothing is looked up here. Give all of --instance-connect-endpoint-id, "
                    "--instance-connect-endpoint-dns-name and --private-ip-address."
                )
            endpoint_id, dns_name, private_ip_address = find(endpoint_id, dns_name, private_ip_address, instance_id)
        return cls(endpoint_id, dns_name, private_ip_address, remote_port, max_tunnel_duration)


def _check(value: str | None, matches: Callable[[str], object], option: str, right: str) -> None:
    if value is not None and not matches(value):
        raise InvalidUse(f"{option} {value!r} is malformed: expected {right}.")


def _check_range(value: int, what: str, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InvalidUse(f"{what} must be from {low} to {high}, not {value}.")


def _is_address(text: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, text)
        except OSError:
            continue
        return True
    return False
