"""iproute2: batches of ip(8) commands in a namespace, and what there is, as data."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from wicketgate.kernel import netns
from wicketgate.model import FabricError


def batch(namespace: str, lines: list[str], version: Literal[4, 6] = 4) -> None:
    """Run ip(8) commands in order in a namespace; stops at the first that fails and raises FabricError naming it.

    `version`: what commands are for that bear no address, such as a rule about marks, or that flush.
    """
    if not lines:
        return
    done = _ip(namespace, [*(["-6"] if version == 6 else []), "-batch", "-"], "\n".join(lines) + "\n")
    if done.returncode != 0:
        # ip reports "Command failed -:N"; the line itself is what a reader needs.
        last = done.stderr.strip().splitlines()[-1:] or [""]
        number = last[0].rpartition(":")[2]
        line = lines[int(number) - 1] if number.isdigit() and int(number) <= len(lines) else ""
        raise FabricError(f"ip {line!r} in namespace {namespace}: {done.stderr.strip().splitlines()[0]}")


def delete_links(namespace: str, links: Iterable[str]) -> None:
    """Delete network devices; one that is gone, be it only now, is no error. Raises FabricError."""
    for link in links:
        try:
            batch(namespace, [f"link delete dev {link}"])
        except FabricError as error:
            if "Cannot find device" not in str(error):
                raise


def read(namespace: str, *arguments: str) -> list[dict[str, Any]]:
    """The JSON answer of an ip(8) command in a namespace. Raises FabricError."""
    done = _ip(namespace, ["-json", *arguments])
    if done.returncode != 0:
        raise FabricError(f"ip {' '.join(arguments)} in namespace {namespace}: {done.stderr.strip()}")
    answer: list[dict[str, Any]] = json.loads(done.stdout or "[]")
    return answer


def _ip(namespace: str, arguments: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    with netns.entered(namespace):
        try:
            return subprocess.run(
                ["ip", *arguments], input=text, capture_output=True, text=True, check=False, env={"PATH": path}
            )
        except FileNotFoundError:
            raise FabricError("the program ip is missing (Debian package iproute2)") from None


def sysctl(namespace: str, values: Mapping[str, str], *, missing_ok: bool = False) -> None:
    """Set sysctls of the network stack in a namespace, e.g. `net/ipv4/ip_forward`; nothing is written that is so.

    `missing_ok`: leave out those that this kernel does not have. Raises FabricError.
    """
    with netns.entered(namespace):
        for key, value in values.items():
            try:
                _set(f"/proc/sys/{key}", value.encode())
            except OSError as error:
                if missing_ok and isinstance(error, FileNotFoundError):
                    continue
                raise FabricError(f"sysctl {key}={value} in namespace {namespace}: {error.strerror}") from error


def _set(path: str, value: bytes) -> None:
    """Opened once for both: in a namespace that is new, finding the file is what takes long."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except PermissionError:  # one that cannot be written may be as it should be
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.read(file, 4096).strip() != value:
            os.pwrite(file, value, 0)
    finally:
        os.close(file)
