"""The host's network that a subnet is bound to, split by source address in a namespace before the VPC's router.

lan-...   one for each bound subnet: `lan0`, the device on the host's network, and one veth for each external
          interface, whose other end is `eni.link` in the VPC's namespace
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Mode = Literal["own", "bridge", "macvlan", "routed"]

LAN_DEVICE: Final = "lan0"
"""The device on the host's network, in every lan namespace."""


@dataclass(frozen=True)
class Binding:
    """What a subnet is bound to."""

    mode: Mode
    device: str
    """A link of the host: the one that is moved (own), the bridge, the NIC (macvlan), or how the host's end of the veth
    is to be called (routed)."""
    return_path: bool = False
    """Whether the subnet's router addresses are answered for."""


def lan_namespace(subnet_id: str) -> str:
    """The namespace of a bound subnet's network."""
    return subnet_id.replace("subnet-", "lan-")
