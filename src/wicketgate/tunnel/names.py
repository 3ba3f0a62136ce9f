"""The DNS names under which clients reach one endpoint."""

from __future__ import annotations

from typing import Final, NamedTuple

SERVICE_LABEL: Final = "ec2-instance-connect-endpoint"


class PublicNames(NamedTuple):
    """PublicDnsNames of an endpoint, by address family, the second of each for FIPS clients."""

    ipv4: str
    ipv4_fips: str
    dualstack: str
    dualstack_fips: str


def public_names(name: str) -> PublicNames:
    """The names of the endpoint whose IPv4 name this is.

    AWS's documents have no sample of a dual-stack name; ours has a label more, as AWS's FIPS name has.
    """
    head, _, place = name.partition(f".{SERVICE_LABEL}.")
    tail = f"{SERVICE_LABEL}.{place}"
    return PublicNames(name, f"{head}.fips.{tail}", f"{head}.dualstack.{tail}", f"{head}.dualstack-fips.{tail}")
