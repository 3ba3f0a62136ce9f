"""What should be on a host that wicketgate is installed on: a list of things, in the order they are made.

Pure: the same settings give the same list, whatever the host has already.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from wicketgate.configuration import SETTINGS, Configuration, example
from wicketgate.install.texts import text

ETC: Final = "/etc/wicketgate"
SETTINGS_FILE: Final = f"{ETC}/wicketgate.toml"
LINKS_FILE: Final = f"{ETC}/links.toml"
ROOT_CREDENTIAL: Final = f"{ETC}/root-credential"
UNITS: Final = "/etc/systemd/system"
WANTS: Final = f"{UNITS}/wicketgate.target.wants"
DROP_IN: Final = f"{UNITS}/wicketgate-gateway@.service.d/certificate.conf"
SYSUSERS: Final = "/etc/sysusers.d/wicketgate.conf"
LOGROTATE: Final = "/etc/logrotate.d/wicketgate"

API, GATEWAY, METADATA = "wicketgate-api", "wicketgate-gateway", "wicketgate-metadata"
ACCOUNTS: Final = (API, GATEWAY, METADATA)

SOCKETS: Final = tuple(f"wicketgate-{name}.socket" for name in ("dial", "listen", "api", "feed", "gateway"))
SERVICES: Final = tuple(f"wicketgate-{name}.service" for name in ("netd", "api", "metadata", "gateway"))
TEMPLATE: Final = "wicketgate-gateway@.service"
TARGET: Final = "wicketgate.target"
LETTERS: Final = string.ascii_lowercase
"""First letters of gateway instances. Each upgrade takes the next one that no process has: those before it may still
have tunnels."""
STATE_PARTS: Final = (
    "netd", "store", "audit", "public", "logs", "run", "ca.pem", "bundle.pem", "ssh-root.pem", "ssh-signer.pem",
)  # fmt: skip
"""What stands in a state directory because of us, `wicketgate serve` included."""


@dataclass(frozen=True)
class Account:
    """A system user with a group of its own and no way to log in."""

    name: str


@dataclass(frozen=True)
class Directory:
    """A directory with exactly this owner and mode."""

    path: str
    mode: int = 0o755
    owner: str = "root"
    group: str = "root"


@dataclass(frozen=True)
class TextFile:
    """A file with exactly this text, owner and mode."""

    path: str
    text: str = field(repr=False)
    mode: int = 0o644
    operators: bool = False
    """It is the operator's as soon as they have changed it: then it is left as it is."""
    theirs: bool = False
    """The text is the operator's own: it is there already, and was not written by us."""
    once: bool = False
    """It is made when it is not there and never written again: it holds a secret."""


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    path: str
    target: str


@dataclass(frozen=True)
class Handed:
    """All that lies below a directory belongs to this account, such as what `wicketgate serve` has left there."""

    path: str
    owner: str
    group: str
    readable: bool = False
    """The group may read its files."""


@dataclass(frozen=True)
class Gone:
    """Nothing is there under this path: an earlier version or other settings wanted it."""

    path: str


Thing = Account | Directory | TextFile | Link | Handed | Gone


@dataclass(frozen=True)
class Choice:
    """What the installation depends on."""

    configuration: Configuration
    settings_text: str = field(repr=False)
    """The settings file, as `settings_text` gives it or as the operator has it."""
    python: str
    """Absolute path of the environment's interpreter."""
    instances: int
    """Gateway processes."""
    letter: str = LETTERS[0]
    """First letter of the gateway instances that are started at boot."""
    root_credential: str = field(default="", repr=False)
    """Text of the file, should there be none yet."""
    settings_theirs: bool = False
    """The settings file is as the operator has it."""


def instances(letter: str, count: int) -> list[str]:
    """Names of the gateways' units."""
    return [TEMPLATE.replace("@", f"@{letter}{index}") for index in range(count)]


def plan(choice: Choice) -> list[Thing]:
    """Everything that should be there, in the order it is made."""
    return [
        Directory(ETC),  # first: the manifest is there
        TextFile(SYSUSERS, text("sysusers.conf")),
        *map(Account, ACCOUNTS),
        *_directories(choice.configuration),
        TextFile(SETTINGS_FILE, choice.settings_text, operators=True, theirs=choice.settings_theirs),
        TextFile(LINKS_FILE, text("links.toml"), operators=True),
        *_credential(choice),
        *_state(choice.configuration),
        *_units(choice),
        TextFile(LOGROTATE, text("logrotate.conf", STATE=choice.configuration.state_directory)),
        *_enabled(choice),
    ]


def settings_text(values: Mapping[str, object]) -> str:
    """The documented settings file with some settings set: name -> value."""
    lines = example().replace("`wicketgate serve`", "wicketgate", 1)
    for name, value in values.items():
        line = f"{name} = {msgspec.json.encode(value).decode()}"  # JSON's strings, numbers and lists are TOML's as well
        pattern = re.compile(rf"^#{re.escape(SETTINGS[name].name)} = .*$", re.MULTILINE)
        lines = pattern.sub(lambda _found, line=line: line, lines, count=1)  # type: ignore[misc]  # bound now
    return lines


def _directories(configuration: Configuration) -> list[Thing]:
    state = configuration.state_directory
    return [
        Directory(f"{ETC}/tls", 0o700),
        Directory(state),
        Directory(f"{state}/netd", 0o700),
        Directory(f"{state}/store", 0o700, API, API),
        Directory(f"{state}/audit"),
        Directory(f"{state}/audit/api", 0o700, API, API),
        # set-group-ID: gateways write there, and the API process reads what they wrote
        Directory(f"{state}/audit/gateway", 0o2750, GATEWAY, API),
        Directory(f"{state}/public", 0o755, API, API),
    ]


def _credential(choice: Choice) -> list[Thing]:
    own = choice.configuration.root_credential_file
    return [] if own else [TextFile(ROOT_CREDENTIAL, choice.root_credential, 0o600, once=True)]


def _state(configuration: Configuration) -> list[Thing]:
    state = configuration.state_directory
    # Where `wicketgate serve` publishes them, and `wicketgate env` looks.
    names = ("ca.pem", "bundle.pem", "ssh-root.pem")
    key = configuration.key_file
    return [
        Handed(f"{state}/store", API, API),
        Handed(f"{state}/audit/api", API, API),
        # those of `wicketgate serve` were passed to the API process open
        Handed(f"{state}/audit/gateway", GATEWAY, API, readable=True),
        *([Handed(key, API, API)] if key else []),
        *(Link(f"{state}/{name}", f"public/{name}") for name in names),
    ]


def _units(choice: Choice) -> list[Thing]:
    configuration = choice.configuration
    values = {
        "PYTHON": choice.python,
        "STATE": configuration.state_directory,
        "ROOT_CREDENTIAL": configuration.root_credential_file or ROOT_CREDENTIAL,
        "LISTEN": "\n".join(_listen(address, configuration.port) for address in configuration.listen_addresses),
    }
    units = [TextFile(f"{UNITS}/{name}", text(name, **values)) for name in (TARGET, *SOCKETS, *SERVICES, TEMPLATE)]
    return [*units, *_certificate(configuration)]


def _listen(address: str, port: int) -> str:
    return f"ListenStream=[{address}]:{port}" if ":" in address else f"ListenStream={address}:{port}"


def _certificate(configuration: Configuration) -> list[Thing]:
    """The operator's files, which systemd reads as root at each start of a gateway and hands to it in memory."""
    if not configuration.certificate_file:
        return [Gone(DROP_IN)]
    lines = (
        "[Service]",
        f"LoadCredential=certificate:{configuration.certificate_file}",
        f"LoadCredential=private-key:{configuration.private_key_file}",
    )
    return [Directory(DROP_IN.rpartition("/")[0]), TextFile(DROP_IN, "\n".join(lines) + "\n")]


def _enabled(choice: Choice) -> list[Thing]:
    """The links that `systemctl enable` would make."""
    wanted = [*SOCKETS, *SERVICES]
    return [
        Directory(f"{UNITS}/multi-user.target.wants"),
        Directory(WANTS),
        *(Link(f"{WANTS}/{name}", f"{UNITS}/{name}") for name in wanted),
        *(Link(f"{WANTS}/{name}", f"{UNITS}/{TEMPLATE}") for name in instances(choice.letter, choice.instances)),
        Link(f"{UNITS}/multi-user.target.wants/{TARGET}", f"{UNITS}/{TARGET}"),
    ]
