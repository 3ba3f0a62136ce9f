"""The processes without `Serve`: each one a unit of systemd's, which makes their sockets and starts them again.

    python -P -m wicketgate.units netd               root
    python -P -m wicketgate.units api                wicketgate-api
    python -P -m wicketgate.units gateway INSTANCE   wicketgate-gateway; INSTANCE is the unit's %i: a0, a1, b0, ...
    python -P -m wicketgate.units metadata           wicketgate-metadata

    netd, gateways, metadata ── feed.sock ──> api      they follow what the API process commits
    gateways ── api.sock ──> api                       API calls
    gateways ── dial.sock ──> netd <── listen.sock ── metadata

Any of them may start, end and start again at any time: who needs another one connects to it again. The order netd,
api, gateways only saves waiting.

Sockets that a unit gets (sd_listen_fds(3): LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES), by FileDescriptorName:

    api       calls    /run/wicketgate/api.sock     stream           wicketgate-gateway   0600
    api       feed     /run/wicketgate/feed.sock    stream           root                 0666 (SO_PEERCRED tells who)
    gateway   tls      TCP, one for each listening address; all instances share them
    netd      dial     /run/wicketgate/dial.sock    SOCK_SEQPACKET   wicketgate-gateway   0600
    netd      listen   /run/wicketgate/listen.sock  SOCK_SEQPACKET   wicketgate-metadata  0600

Settings come from /etc/wicketgate/wicketgate.toml, or the file that WICKETGATE_CONFIG names; no other variable is
needed. Credentials (systemd.exec(5) LoadCredential=, CREDENTIALS_DIRECTORY):

    api       root-credential            needed; the form of an AWS credentials file
    gateway   certificate, private-key   the operator's PEM files, if `certificate_file` is set; else the API process
                                         gives its own

Directories, which have to be there (STATE is the setting `state_directory`):

    STATE                root                                0755
    STATE/netd           root                                0700   slots, counters, the copy of the World for boot
    STATE/store          wicketgate-api                      0700   and the file `key_file`, if set, has to be api's
    STATE/audit          root                                0755
    STATE/audit/api      wicketgate-api                      0700   api.jsonl
    STATE/audit/gateway  wicketgate-gateway:wicketgate-api   2750   gateway-INSTANCE.jsonl, 0640
    STATE/public         wicketgate-api                      0755   ca.pem, bundle.pem, ssh-root.pem, ssh-signer.pem
    /run/wicketgate      root                                0755   the sockets; netd writes observations.json
    /run/netns           root                                0755   netd's, as the host sees it

Signals: SIGTERM ends each in order. SIGHUP: api and gateways open their audit files anew (rename first, then signal),
netd reads `links_file` again. SIGUSR1 drains a gateway: it accepts no more, and ends with 0 when its last connection
has ended. Standard error is the log. What cannot start says why in one line and ends with 1.

With Type=notify (sd_notify(3)) netd is ready when the kernel enforces its copy of the World, api when it takes calls,
metadata when it has begun to follow, and a gateway when it takes connections, for which it needs api.
"""

from __future__ import annotations

import os
import pwd
import resource
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from wicketgate import configuration
from wicketgate.configuration import ROOT_VARIABLES, Configuration
from wicketgate.model import WicketgateError

API_USER: Final = "wicketgate-api"
GATEWAY_USER: Final = "wicketgate-gateway"
METADATA_USER: Final = "wicketgate-metadata"
RUN: Final = Path("/run/wicketgate")
FEED: Final = RUN / "feed.sock"
CALLS: Final = RUN / "api.sock"
DIAL: Final = RUN / "dial.sock"
LISTEN: Final = RUN / "listen.sock"
OBSERVATIONS: Final = RUN / "observations.json"
_FIRST: Final = 3
"""Number of the first descriptor that is passed (sd_listen_fds(3), SD_LISTEN_FDS_START)."""


class UnitError(WicketgateError):
    """A unit is not started as it has to be: says what is missing."""


def passed_descriptors(environment: Mapping[str, str], pid: int) -> dict[str, list[int]]:
    """The descriptors that this process was passed, by name (sd_listen_fds(3)); none if they are for another one."""
    if environment.get("LISTEN_PID") != str(pid):
        return {}
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    found: dict[str, list[int]] = {}
    for number in range(int(environment.get("LISTEN_FDS", "0"))):
        name = names[number] if number < len(names) else ""
        found.setdefault(name, []).append(_FIRST + number)
    return found


class _Unit:
    """What all have in common."""

    def __init__(self, name: str) -> None:
        """Read settings and environment. Raises ConfigurationError and UnitError."""
        self.name = name
        self.settings: Configuration = configuration.load(environment=os.environ)
        self.state = Path(self.settings.state_directory)
        self._passed = passed_descriptors(os.environ, os.getpid())
        for descriptors in self._passed.values():
            for descriptor in descriptors:
                os.set_inheritable(descriptor, False)

    def sockets(self, name: str) -> list[int]:
        """The descriptors of this name. Raises UnitError when there are none."""
        found = self._passed.get(name)
        if not found:
            raise UnitError(f"it is passed no socket {name!r} (LISTEN_FDS): start it through its systemd units")
        return found

    def credential(self, name: str) -> Path:
        """The file of a credential. Raises UnitError when there is none."""
        path = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent")) / name
        if not path.exists():
            raise UnitError(f"there is no credential {name!r}: its unit needs LoadCredential={name}:FILE")
        return path


def user_id(name: str) -> int:
    """The id of a user. Raises UnitError."""
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise UnitError(f"there is no user {name}: wicketgate install makes it") from None


def _netd() -> int:
    from wicketgate.netd.__main__ import serve
    from wicketgate.netd.server import NetdConfig

    unit = _Unit("netd")
    return serve(
        NetdConfig(
            state_directory=str(unit.state / "netd"),
            feed_path=str(FEED),
            feed_owner=user_id(API_USER),
            dial_fd=unit.sockets("dial")[0],
            dial_user=user_id(GATEWAY_USER),
            listen_fd=unit.sockets("listen")[0],
            listen_user=user_id(METADATA_USER),
            links_file=unit.settings.links_file,
            observations=str(OBSERVATIONS),
            log_level=unit.settings.log_level,
        )
    )


def _api() -> int:
    from wicketgate.api.__main__ import serve
    from wicketgate.api.config import ApiConfig

    unit = _Unit("api")
    settings = unit.settings
    root = configuration.root_credential_in(unit.credential("root-credential"), private=False)
    os.environ |= dict(zip(ROOT_VARIABLES, (root.access_key_id, root.secret_access_key), strict=True))
    return serve(
        ApiConfig(
            followers_fd=unit.sockets("feed")[0],
            netd_user=0,
            gateway_user=user_id(GATEWAY_USER),
            metadata_user=user_id(METADATA_USER),
            public_directory=str(unit.state / "public"),
            listen_fd=unit.sockets("calls")[0],
            store=str(unit.state / "store"),
            key_file=settings.key_file,
            audit_file=str(unit.state / "audit" / "api" / "api.jsonl"),
            other_audit_directory=str(unit.state / "audit" / "gateway"),
            identity=settings.identity,
            settings=settings.settings,
            quotas=settings.quotas,
            endpoint_quotas=settings.endpoint_quotas,
            domain=settings.domain,
            own_certificate=bool(settings.certificate_file),
            observations=str(OBSERVATIONS),
            log_level=settings.log_level,
        )
    )


def _gateway(instance: str) -> int:
    from wicketgate.gateway.__main__ import serve
    from wicketgate.gateway.config import GatewayConfig

    unit = _Unit("gateway")
    own = bool(unit.settings.certificate_file)
    return serve(
        GatewayConfig(
            feed_path=str(FEED),
            feed_owner=user_id(API_USER),
            netd_path=str(DIAL),
            listen_fds=unit.sockets("tls"),
            certificate=str(unit.credential("certificate")) if own else "",
            key=str(unit.credential("private-key")) if own else "",
            audit_file=str(unit.state / "audit" / "gateway" / f"gateway-{instance}.jsonl"),
            audit_shared=True,
            api_socket=str(CALLS),
            log_level=unit.settings.log_level,
        )
    )


def _metadata() -> int:
    from wicketgate.metadata.__main__ import serve
    from wicketgate.metadata.config import MetadataConfig

    unit = _Unit("metadata")
    return serve(
        MetadataConfig(
            feed_path=str(FEED),
            feed_owner=user_id(API_USER),
            netd_path=str(LISTEN),
            domain=unit.settings.domain,
            signer_chain=str(unit.state / "public" / "ssh-signer.pem"),
            log_level=unit.settings.log_level,
        )
    )


_UNITS: Final[Mapping[str, Callable[..., int]]] = {
    "netd": _netd,
    "api": _api,
    "gateway": _gateway,
    "metadata": _metadata,
}


def main(arguments: list[str]) -> int:
    """Run the unit that is named; the exit code."""
    name, *rest = arguments or [""]
    if name not in _UNITS or len(rest) != (name == "gateway") or not all(one.isalnum() for one in rest):
        sys.stderr.write("usage: python -m wicketgate.units netd | api | gateway INSTANCE | metadata\n")
        return 2
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # our memory holds what nobody else is to read
    try:
        return _UNITS[name](*rest)
    except WicketgateError as error:
        sys.stderr.write(f"wicketgate {name}: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
