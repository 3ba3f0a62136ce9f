"""The device `lan0` on the host's network, in each of the four modes: made, found again, taken back.

    own      the host's device itself, moved and renamed; given back under its name, up or down as it was and with its
             addresses (but for those that a DHCP client or a router gave it), as its alias remembers
    bridge   a veth whose other end is a port of the host's bridge
    macvlan  a macvlan in bridge mode on the host's NIC
    routed   a veth whose other end is in the host's namespace, under the name that the operator gave; no ARP between
             the two, since there is only the other one

Everything may be repeated and looks at the kernel first, so a process killed between any two steps loses no device: its
alias, the first thing that is done to it, says what it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from wicketgate.kernel import devices, ip, netns
from wicketgate.kernel.devices import Device
from wicketgate.kernel.netns import HERE
from wicketgate.model import FabricError

Mode = Literal["own", "bridge", "macvlan", "routed"]

LAN_DEVICE: Final = "lan0"
"""The device on the host's network, in every lan namespace."""

ALIAS: Final = "wicketgate|"
"""How the aliases of devices of ours begin: then the mode, the host's device and, for a moved one, how it was."""
LONGEST_ALIAS: Final = 255
"""Bytes (IFALIASZ less its end)."""

_logger = logging.getLogger("wicketgate.lan")


@dataclass(frozen=True)
class Binding:
    """What a subnet is bound to."""

    mode: Mode
    device: str
    """A link of the host: the one that is moved (own), the bridge, the NIC (macvlan), or how the host's end of the veth
    is to be called (routed)."""
    return_path: bool = False
    """Whether the subnet's router addresses are answered for."""

    @property
    def alias(self) -> str:
        """How the alias of `lan0` begins."""
        return f"{ALIAS}{self.mode}|{self.device}|"


class LinkProblem(FabricError):
    """The host's link cannot be used. `public` says so without a name of a link: it is for users of the API."""

    def __init__(self, message: str, public: str) -> None:
        super().__init__(message)
        self.public = public


def lan_namespace(subnet_id: str) -> str:
    """The namespace of a bound subnet's network."""
    return subnet_id.replace("subnet-", "lan-")


def attach(namespace: str, binding: Binding) -> Device:
    """The device `lan0` as it is to be, made or found; new ones are down. Raises LinkProblem, FabricError.

    Reads two or three devices, and writes nothing, when all is as it should be.
    """
    there = devices.read(namespace, LAN_DEVICE)
    if there is not None and not there.alias.startswith(binding.alias):
        release(namespace)
        there = None
    host = devices.read(HERE, binding.device)
    if binding.mode == "own":
        return there or _move(namespace, binding, _usable(binding, host))
    if binding.mode == "bridge":
        return _bridge(namespace, binding, there, _usable(binding, host))
    if binding.mode == "macvlan":
        return _macvlan(namespace, binding, there, _usable(binding, host))
    return _routed(namespace, binding, there, host)


def release(namespace: str) -> None:
    """Take `lan0` out of a namespace: what was the host's is given back. Raises FabricError."""
    there = devices.read(namespace, LAN_DEVICE)
    if there is None:
        return
    mode, device = [*there.alias.removeprefix(ALIAS).split("|"), ""][:2]
    if there.alias.startswith(ALIAS) and mode == "own":
        _give_back(namespace, device)
        restore_all(set())
    elif there.alias.startswith(ALIAS) or there.mac == _address(namespace):
        ip.delete_links(namespace, [LAN_DEVICE])  # a veth takes its other end with it
    else:  # somebody has taken its alias away, so nobody knows its name; it is not ours to delete
        _give_back(namespace, LAN_DEVICE)


def restore_all(bound: set[str]) -> None:
    """Make devices of the host that were given back what they were, if a kill came between, but for some that are to
    be moved again. Raises FabricError."""
    for link in ip.read(HERE, "link", "show"):
        name, alias = str(link["ifname"]), str(link.get("ifalias", ""))
        if not alias.startswith(f"{ALIAS}own|") or name in bound:
            continue
        _, _, old, state, addresses = (alias.split("|") + [""] * 5)[:5]
        if name != old:
            _logger.warning("link %s is back as %s: there is another %s now", old, name, old)
        lines = [f"address replace {one} dev {name}" for one in addresses.split()]
        lines += [f"link set dev {name} up"] if state == "up" else []
        for line in [*lines, f'link set dev {name} alias ""']:
            try:  # an address that somebody else has now must not keep the rest
                ip.batch(HERE, [line])
            except FabricError as error:
                _logger.warning("link %s is back, but not as it was: %s", name, error)


def _usable(binding: Binding, host: Device | None) -> Device:
    """The host's link, if one like it can be bound. Raises LinkProblem."""
    if host is None:
        raise LinkProblem(f"there is no link {binding.device} on this host", "its link is not there")
    if binding.mode == "bridge" and host.kind != "bridge":
        raise LinkProblem(f"link {host.name} is no bridge", "its link is of the wrong kind")
    if not host.ethernet:
        raise LinkProblem(f"link {host.name} is no Ethernet link", "its link is of the wrong kind")
    if binding.mode == "own" and host.master:
        raise LinkProblem(f"link {host.name} is a part of another link", "its link is used by another one")
    if binding.mode != "own" and not host.up:
        raise LinkProblem(f"link {host.name} is down", "its link is down")
    return host


def _address(namespace: str) -> str:
    """The link-layer address of a `lan0` that we make: always the same, so that nobody's cache is ever wrong."""
    digest = hashlib.sha256(f"wicketgate {namespace}".encode()).digest()
    return "02:" + digest[:5].hex(":")  # locally administered, unicast


# -- own ---------------------------------------------------------------------------------------------------------------


def _move(namespace: str, binding: Binding, host: Device) -> Device:
    if not host.alias.startswith(binding.alias):  # else a kill came between, and it says already how it was
        if _is_only_way_out(host.name):
            raise LinkProblem(
                f"link {host.name} has the only default route of this host, which would be cut off: give it another "
                "one first, or take this one away",
                "its link cannot be moved",
            )
        lasting = _addresses(host.name)
        alias = f"{binding.alias}{'up' if host.up else 'down'}|{' '.join(lasting)}"
        while len(alias.encode()) > LONGEST_ALIAS:
            _logger.warning("link %s will be given back without its address %s", host.name, lasting.pop())
            alias = f"{binding.alias}{'up' if host.up else 'down'}|{' '.join(lasting)}"
        _set_alias(HERE, host.name, alias)
    try:
        ip.batch(HERE, [f"link set dev {host.name} netns {namespace} name {LAN_DEVICE}"])
    except FabricError as error:
        _set_alias(HERE, host.name, "")
        raise LinkProblem(f"link {host.name} cannot be moved: {error}", "its link cannot be moved") from error
    return _made(namespace)


def _is_only_way_out(device: str) -> bool:
    """Whether this host's default routes, of both families, are all by one device. Raises FabricError."""
    routes = [
        route
        for version in ("-4", "-6")
        for route in ip.read(HERE, version, "route", "show", "default", "table", "main")
    ]
    return {str(hop["dev"]) for one in routes for hop in [one, *one.get("nexthops", [])] if "dev" in hop} == {device}


def _addresses(device: str) -> list[str]:
    """The addresses of the host's device that somebody gave it for good."""
    return [
        f"{one['local']}/{one['prefixlen']}"
        for link in ip.read(HERE, "address", "show", "dev", device)
        for one in link.get("addr_info", [])
        if one["scope"] == "global" and not one.get("dynamic")
    ]


def _give_back(namespace: str, device: str) -> None:
    names = [device, *(f"{device[:13]}-{number}" for number in range(1, 10))]
    with netns.path_here() as here:
        for name in names:
            if devices.read(HERE, name) is None:
                ip.batch(
                    namespace,
                    [f"link set dev {LAN_DEVICE} down", f"link set dev {LAN_DEVICE} netns {here} name {name}"],
                )
                return
    raise FabricError(f"link {device} cannot be given back: there are others of all names like it")


# -- bridge ------------------------------------------------------------------------------------------------------------


def port_name(namespace: str) -> str:
    """The port of a bridge that leads to a lan namespace."""
    return "wg" + hashlib.sha256(namespace.encode()).hexdigest()[:13]


def _bridge(namespace: str, binding: Binding, there: Device | None, bridge: Device) -> Device:
    name = port_name(namespace)
    port = devices.read(HERE, name)
    if there is None or port is None:
        _unmake(namespace, name)
        _make_veth(namespace, binding, name, bridge.mtu)
        there, port = _made(namespace), devices.read(HERE, name)
        assert port is not None, "just made"
    if port.master != bridge.index or not port.up:
        ip.batch(HERE, [f"link set dev {name} master {bridge.name}", f"link set dev {name} up"])
    return there


def _unmake(namespace: str, name: str) -> None:
    """Remove what is left of a pair of devices."""
    ip.delete_links(namespace, [LAN_DEVICE])
    ip.delete_links(HERE, [name])


def _make_veth(namespace: str, binding: Binding, name: str, mtu: int, more: str = "") -> None:
    peer = f"peer name {LAN_DEVICE} mtu {mtu} address {_address(namespace)} netns {namespace}"
    ip.batch(HERE, [f"link add name {name} mtu {mtu} {more} type veth {peer}"])
    _set_alias(HERE, name, f"{ALIAS}port|{namespace}")
    _set_alias(namespace, LAN_DEVICE, binding.alias)


# -- macvlan -----------------------------------------------------------------------------------------------------------


def _macvlan(namespace: str, binding: Binding, there: Device | None, nic: Device) -> Device:
    if there is not None and there.kind == "macvlan" and there.lower == nic.index:
        return there
    ip.delete_links(namespace, [LAN_DEVICE])
    # With the NIC's own queue discipline and MTU; `bridge` so that other macvlans of the host are reached as well.
    made = f"name {LAN_DEVICE} address {_address(namespace)} netns {namespace} type macvlan mode bridge"
    try:
        ip.batch(HERE, [f"link add link {nic.name} {made}"])
    except FabricError as error:
        raise LinkProblem(f"no macvlan can be made on {nic.name}: {error}", "its link cannot be shared") from error
    _set_alias(namespace, LAN_DEVICE, binding.alias)
    return _made(namespace)


# -- routed ------------------------------------------------------------------------------------------------------------


def _routed(namespace: str, binding: Binding, there: Device | None, host: Device | None) -> Device:
    ours = f"{ALIAS}port|{namespace}"
    if host is not None and host.alias != ours:
        raise LinkProblem(f"there is another link {host.name} on this host", "the name of its link is taken")
    if there is None or host is None:
        _unmake(namespace, binding.device)
        _make_veth(namespace, binding, binding.device, 1500, f"address {_address(namespace)}")
        ip.batch(namespace, [f"link set dev {LAN_DEVICE} arp off"])
        ip.batch(HERE, [f"link set dev {binding.device} arp off"])
        # Where packets come from is checked behind it, by address; this asks for the way back, which clients lack.
        ip.sysctl(HERE, {f"net/ipv4/conf/{binding.device}/rp_filter": "0"})
        there, host = _made(namespace), None
    if host is None or not host.up:
        ip.batch(HERE, [f"link set dev {binding.device} up"])
        # The host's routes by it are gone, which whoever brings the other end up lays again.
        ip.batch(namespace, [f"link set dev {LAN_DEVICE} down"])
        return _made(namespace)
    return there


def lay_host_routes(binding: Binding, addresses: Sequence[str]) -> None:
    """Routed: the host's routes by our device lead to these addresses and no others. Raises FabricError."""
    for version in ("-4", "-6"):
        wanted = {one for one in addresses if (":" in one) is (version == "-6")}
        there = {
            str(route["dst"])
            for route in ip.read(HERE, version, "route", "show", "dev", binding.device, "proto", "static")
        }
        lines = [f"route delete {one} dev {binding.device}" for one in sorted(there - wanted)]
        lines += [f"route replace {one} dev {binding.device} proto static" for one in sorted(wanted - there)]
        ip.batch(HERE, lines)
    for line in _switched_off(addresses):
        _logger.warning(
            "%s is 0 on this host, so nothing gets from %s to other links: set it to 1", line, binding.device
        )


def _switched_off(addresses: Sequence[str]) -> list[str]:
    """Sysctls without which the host forwards nothing of the families of some addresses."""
    found = []
    for name, is_family in (
        ("net.ipv4.ip_forward", lambda one: ":" not in one),
        ("net.ipv6.conf.all.forwarding", lambda one: ":" in one),
    ):
        value = "1"
        with contextlib.suppress(OSError):
            value = Path("/proc/sys", *name.split(".")).read_text(encoding="ascii").strip()
        if value == "0" and any(map(is_family, addresses)):
            found.append(name)
    return found


# -- all ---------------------------------------------------------------------------------------------------------------


def _made(namespace: str) -> Device:
    found = devices.read(namespace, LAN_DEVICE)
    if found is None:
        raise FabricError(f"link {LAN_DEVICE} in namespace {namespace} is gone as soon as it was made")
    return found


def _set_alias(namespace: str, device: str, alias: str) -> None:
    ip.batch(namespace, [f'link set dev {device} alias "{alias}"'])
