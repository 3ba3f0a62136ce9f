"""A short cut past the command line's library for the tunnels that ssh waits for.

Click takes longer to import than a tunnel takes to open. So `open-tunnel` on standard streams, and `proxy` as
`ssh-config` writes it, are read here when their words are plain: known options, each once, each with a value. All else,
mistakes and `--help` included, is click's, whose reading of the same words this one agrees with
(tests/unit/test_cli_quick.py holds them together).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

COMMON = {
    "--profile": "profile",
    "--region": "region",
    "--ca-bundle": "ca_bundle",
    "--endpoint-url": "endpoint_url",
}
OPEN_TUNNEL = COMMON | {
    "--instance-connect-endpoint-id": "endpoint_id",
    "--instance-connect-endpoint-dns-name": "dns_name",
    "--private-ip-address": "private_ip_address",
    "--instance-id": "instance_id",
    "--remote-port": "remote_port",
    "--max-tunnel-duration": "max_tunnel_duration",
}
"""Options and the parameters they are. `--local-port` is left out: who listens starts once."""
PROXY = COMMON | {"--key": "key"}
_NUMBERS = frozenset({"remote_port", "max_tunnel_duration"})

Options = dict[str, Any]


def options_of(words: Sequence[str], names: Mapping[str, str]) -> Options | None:
    """The parameters in `words`; None when click has to read them."""
    found: Options = {}
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if not equals:
            value = next(rest, "-")
        parameter = names.get(name)
        if parameter is None or parameter in found or value.startswith("-"):
            return None
        if parameter not in _NUMBERS:
            found[parameter] = value
        elif _is_number(value):
            found[parameter] = int(value)
        else:
            return None
    return found


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10


def read(words: Sequence[str]) -> tuple[str, Options] | None:
    """A verb and its parameters; None when click has to read the words."""
    verb, rest = words[:1], list(words[1:])
    if verb == ["open-tunnel"]:
        options = options_of(rest, OPEN_TUNNEL)
        return None if options is None else ("open-tunnel", options)
    if verb == ["proxy"] and rest[-4:-3] == ["--"]:
        instance_id, port, user = rest[-3:]
        options = options_of(rest[:-4], PROXY)
        if options is not None and _is_number(port) and 1 <= int(port) <= 65535:
            return "proxy", options | {"instance_id": instance_id, "port": int(port), "user": user}
    return None


def quick(words: Sequence[str]) -> int | None:
    """Run the command line without click: the exit code; None when nothing was done, because it is not plain."""
    found = read(words)
    if found is None:
        return None
    from wicketgate.cli.tunnelling import open_tunnel, proxy

    verb, options = found
    return open_tunnel(**options) if verb == "open-tunnel" else proxy(**options)
