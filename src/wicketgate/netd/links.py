"""The operator's file that binds subnets to networks of the host. netd alone reads it: no API call names a link.

    [[link]]
    subnet = "subnet-0123456789abcdef0"
    mode = "bridge"                      # own | bridge | macvlan | routed
    device = "br0"
    return_path = false                  # machines answer by way of this gateway; true if not said with mode = "own"
    endpoint_addresses = ["10.9.0.250"]  # where endpoints' addresses are taken from; [] = any free one
    probe = true                         # whether machines are asked now and then if they are there

A mistake anywhere leaves the whole file out, with one line that says where it is: half a file would bind some subnets
and not others, and nobody would see which.
"""

from __future__ import annotations

import ipaddress
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, get_args

from wicketgate.kernel.lan import Binding, Mode
from wicketgate.model import WicketgateError, World
from wicketgate.model.resources import AttachedNetwork, Subnet

MODES: Final = get_args(Mode)
KEYS: Final = ("subnet", "mode", "device", "return_path", "endpoint_addresses", "probe")

MOST_BYTES: Final = 1 << 20

_SUBNET = re.compile(r"subnet-[0-9a-f]{8,17}")
_DEVICE = re.compile(r"\w[\w.+-]{0,14}", re.ASCII)
"""Less than Linux takes (IFNAMSIZ is 16 with its end): `#`, quotes and `%d` mean something else to ip(8)."""
_TABLE = re.compile(r"""^[ \t]*\[\[\s*["']?link["']?\s*\]\]""", re.MULTILINE)


class LinksError(WicketgateError):
    """The file cannot be used: says where the mistake is, what was found and what would be right."""


@dataclass(frozen=True)
class Link:
    """One `[[link]]`: a subnet and the network of the host that it is bound to."""

    subnet: str
    mode: Mode
    device: str
    return_path: bool = False
    endpoint_addresses: tuple[str, ...] = ()
    probe: bool = True
    """Whether machines are asked now and then if they are there."""

    @property
    def binding(self) -> Binding:
        """What the kernel is told of it."""
        return Binding(self.mode, self.device, self.return_path)

    def outside(self, subnet: Subnet) -> list[str]:
        """Those of `endpoint_addresses` that no endpoint can have, for they lie in no range of the subnet."""
        ranges = [one for one in (subnet.network, subnet.ipv6_network) if one is not None]
        return [
            one for one in self.endpoint_addresses if not any(ipaddress.ip_address(one) in there for there in ranges)
        ]

    def attached(self, problem: str = "", notice: str = "") -> AttachedNetwork:
        """What the API process is told of it, which is no name of a link."""
        return AttachedNetwork(
            mode=self.mode,
            return_path=self.return_path,
            endpoint_addresses=self.endpoint_addresses,
            problem=problem,
            notice=notice,
        )


@dataclass(frozen=True)
class Links:
    """What a file says."""

    by_subnet: Mapping[str, Link] = field(default_factory=dict)
    problem: str = ""
    """Why the file cannot be used, in one line; then it binds nothing."""

    @property
    def bindings(self) -> dict[str, Binding]:
        """Subnet id -> what it is bound to."""
        return {subnet: link.binding for subnet, link in self.by_subnet.items()}

    def client_refusal(self, world: World, vpc_id: str, target: str) -> str | None:
        """Why no client's address is preserved to a target, whatever the World says of its subnet; None if it may."""
        eni = world.interface_at(vpc_id, target)
        link = None if eni is None else self.by_subnet.get(eni.subnet_id)
        if eni is None or link is None or link.return_path:
            return None
        instance = world.instance_of_interface(eni.id)
        if instance is None or not instance.is_external:
            return None
        found = f"{target} does not send its replies through this gateway"
        return f"{found}, so a client's address cannot be preserved to it"


def read_links(path: Path | str) -> Links:
    """What the operator's file says; nothing when there is none. A file that cannot be used is told as a problem."""
    try:
        text = _read(Path(path))
        return Links({link.subnet: link for link in parse_links(text, str(path))})
    except LinksError as error:
        return Links(problem=str(error))


def parse_links(text: str, path: str) -> list[Link]:
    """The links of a file's text; `path` is for words. Raises LinksError."""
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise LinksError(f"{path}: not TOML: {error}") from error
    for name in found.keys() - {"link"}:
        raise LinksError(f"{path}: there is no {name!r} here; networks are written as [[link]] tables")
    tables = found.get("link", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise LinksError(f"{path}: link must be written as tables, each with the line [[link]]")
    lines = [text.count("\n", 0, match.start()) + 1 for match in _TABLE.finditer(text)]
    # Tables can be written inline too; then nobody knows their lines.
    places = [f"{path}:{line}" for line in lines] if len(lines) == len(tables) else [path] * len(tables)
    links = [_link(table, place) for table, place in zip(tables, places, strict=True)]
    for key in ("subnet", "device"):
        seen: dict[str, str] = {}
        for link, place in zip(links, places, strict=True):
            value = getattr(link, key)
            if value in seen:
                raise LinksError(f"{place}: {key} {value!r} is bound twice, first at {seen[value]}")
            seen[value] = place
    return links


def _read(path: Path) -> str:
    """The file's text; empty when there is no file. Raises LinksError."""
    try:
        with path.open("rb") as file:
            _check_owner(path, os.fstat(file.fileno()))
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise LinksError(f"{path}: {error.strerror}") from error
    if len(data) > MOST_BYTES:
        raise LinksError(f"{path}: longer than {MOST_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise LinksError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from error


def _check_owner(path: Path, status: os.stat_result) -> None:
    """Whoever can write the file decides which networks are reached. Raises LinksError."""
    if not stat.S_ISREG(status.st_mode):
        raise LinksError(f"{path}: no plain file")
    if status.st_uid not in (0, os.geteuid()):
        raise LinksError(f"{path}: belongs to user id {status.st_uid}; it must belong to root (chown root)")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise LinksError(f"{path}: others than its owner can write it (chmod go-w)")


def _link(table: dict[str, Any], place: str) -> Link:
    for key in table.keys() - set(KEYS):
        raise LinksError(f"{place}: there is no {key!r} in a [[link]]; there are {', '.join(KEYS)}")
    subnet = _text(table, "subnet", place, "a subnet's id", _SUBNET)
    mode = _text(table, "mode", place, " or ".join(MODES), re.compile("|".join(MODES)))
    device = _text(table, "device", place, "a link's name of at most 15 letters, digits and ._+-", _DEVICE)
    addresses = table.get("endpoint_addresses", [])
    if not isinstance(addresses, list):
        raise LinksError(f'{place}: endpoint_addresses must be a list, e.g. ["10.9.0.250"], not {addresses!r}')
    return Link(
        subnet=subnet,
        mode=mode,  # type: ignore[arg-type]  # one of MODES, as has been seen
        device=device,
        return_path=_flag(table, "return_path", place, default=mode == "own"),
        endpoint_addresses=tuple(_address(one, place) for one in addresses),
        probe=_flag(table, "probe", place, default=True),
    )


def _text(table: dict[str, Any], key: str, place: str, expected: str, pattern: re.Pattern[str]) -> str:
    if key not in table:
        raise LinksError(f"{place}: {key} is missing; it must be {expected}")
    value = table[key]
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise LinksError(f"{place}: {key} must be {expected}, not {value!r}")
    return value


def _flag(table: dict[str, Any], key: str, place: str, *, default: bool) -> bool:
    value = table.get(key, default)
    if not isinstance(value, bool):
        raise LinksError(f"{place}: {key} must be true or false, not {value!r}")
    return value


def _address(value: object, place: str) -> str:
    try:
        return str(ipaddress.ip_address(value if isinstance(value, str) else ""))
    except ValueError:
        raise LinksError(f"{place}: endpoint_addresses must be IP addresses, not {value!r}") from None
