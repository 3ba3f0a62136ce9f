"""The documented example file, made from the table of settings."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from wicketgate.configuration.settings import SETTINGS

_HEADINGS: Final = {
    "state_directory": "Files that stay",
    "listen_addresses": "Where it is served",
    "region": "What it is to its clients",
    "allowed_ports": "Tunnels",
    "endpoints_per_region": "Quotas (the defaults are AWS's)",
}


def example() -> str:
    """A `wicketgate.toml` with every setting at its default, commented out, and what there is to know about it."""
    lines = [
        "# Settings of `wicketgate serve`. A line that starts with `#name =` shows a default: take the # away and",
        "# write what you want. The environment variable is stronger than this file, the flag stronger than both;",
        "# there, a list's items have commas between.",
    ]
    for setting in SETTINGS.values():
        if setting.name in _HEADINGS:
            lines += ["", f"# -- {_HEADINGS[setting.name]} --"]
        lines += ["", *(f"# {line}" for line in setting.description.splitlines())]
        lines += [f"# {setting.expected[0].upper()}{setting.expected[1:]}. {setting.variable}, {setting.flag}"]
        lines += [f"#{setting.name} = {_toml(setting.default)}"]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    # JSON's strings, numbers and lists of them are TOML's as well
    text = msgspec.json.encode(value).decode()
    return text.replace(",", ", ") if isinstance(value, tuple) else text
