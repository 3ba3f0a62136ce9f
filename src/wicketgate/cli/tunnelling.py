"""What `open-tunnel` and `proxy` do, without the command line's library: every `ssh` waits for each import here."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from types import FrameType

MAX_CONNECTIONS = 10
"""Tunnels open at once behind a local port, the AWS CLI's default."""


def open_tunnel(
    *,
    endpoint_id: str | None = None,
    dns_name: str | None = None,
    private_ip_address: str | None = None,
    instance_id: str | None = None,
    remote_port: int = 22,
    local_port: int | None = None,
    max_tunnel_duration: int | None = None,
    max_websocket_connections: int = MAX_CONNECTIONS,
    profile: str | None = None,
    region: str | None = None,
    ca_bundle: str | None = None,
    endpoint_url: str | None = None,
) -> int:
    """Open a tunnel and carry until it ends: the exit code. What fails is said on standard error."""
    from wicketgate.client import ClientError, InvalidUse, TunnelRequest, resolve_credentials, resolve_region
    from wicketgate.client.settings import resolve_trust
    from wicketgate.client.tunnel import Listener, Opener, carry_standard_streams

    def find(*given: str | None) -> tuple[str, str, str]:
        from wicketgate.client.lookup import Caller, find_route  # only who looks up pays for http.client and XML

        caller = Caller.resolve(
            os.environ, profile=profile, region=region, ca_bundle=ca_bundle, endpoint_url=endpoint_url
        )
        return find_route(caller, *given)

    stop_on_signals()
    try:
        if local_port is None and os.isatty(0):
            raise InvalidUse("Standard input is a terminal: use this as ssh's ProxyCommand, or give --local-port.")
        request = TunnelRequest.make(
            endpoint_id=endpoint_id,
            dns_name=dns_name,
            private_ip_address=private_ip_address,
            instance_id=instance_id,
            remote_port=remote_port,
            max_tunnel_duration=max_tunnel_duration,
            find=find,
        )
        opener = Opener(
            request,
            resolve_credentials(profile, os.environ),
            resolve_region(region, profile, os.environ),
            resolve_trust(ca_bundle, profile, os.environ),
        )
        if local_port is None:
            carry_standard_streams(opener)
        else:
            Listener(opener, local_port, max_websocket_connections, _say, complain).run()
    except ClientError as error:
        complain(str(error))
        return error.exit_code
    return 0


def proxy(
    *,
    instance_id: str,
    port: int,
    user: str,
    key: str | None = None,
    profile: str | None = None,
    region: str | None = None,
    ca_bundle: str | None = None,
    endpoint_url: str | None = None,
) -> int:
    """Push a public key, if one is named, and carry standard input and output to the instance: the exit code."""
    from wicketgate.client import ClientError, TunnelRequest
    from wicketgate.client.lookup import Caller, find_route
    from wicketgate.client.tunnel import Opener, carry_standard_streams

    stop_on_signals()
    try:
        line = ""
        if key is not None:
            from pathlib import Path

            from wicketgate.client.ssh import public_key

            line = public_key(Path(key).expanduser())
        caller = Caller.resolve(
            os.environ, profile=profile, region=region, ca_bundle=ca_bundle, endpoint_url=endpoint_url
        )
        request = TunnelRequest.make(
            endpoint_id=None,
            dns_name=None,
            private_ip_address=None,
            instance_id=instance_id,
            remote_port=port,
            find=lambda *given: find_route(caller, *given),
        )
        if line:
            caller.push_key(instance_id, user, line)
        carry_standard_streams(Opener(request, caller.credentials, caller.region, caller.context))
    except ClientError as error:
        complain(str(error))
        return error.exit_code
    return 0


def _say(line: str) -> None:
    _write(1, line)


def complain(line: str) -> None:
    """One line of what failed, on standard error."""
    _write(2, f"wicketgate: {line}")


def _write(fd: int, line: str) -> None:
    """One line in one call: at once, whole among other threads' lines, and no lock that a thread could die with."""
    with contextlib.suppress(OSError):  # nobody listens: no reason to end a tunnel
        os.write(fd, f"{line}\n".encode(errors="replace"))


def stop_on_signals() -> None:
    """SIGINT, SIGTERM and ssh's SIGHUP unwind the stack, so that streams are restored and tunnels closed."""

    def stop(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):  # Windows has no SIGHUP
            signal.signal(getattr(signal, name), stop)
