"""`wicketgate serve`: the AWS APIs and the endpoints, on this host's network."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

BACKLOG = 1024


def _with_settings(command: Callable[..., int]) -> Callable[..., int]:
    """One flag for each setting, in the order of the documentation."""
    from wicketgate.configuration import SETTINGS

    for setting in reversed(list(SETTINGS.values())):
        about = f"{setting.description.splitlines()[0]} [{setting.variable}]"
        command = click.option(setting.flag, setting.name, metavar="VALUE", help=about)(command)
    return command


@click.command()
@click.option("--config", type=click.Path(dir_okay=False), help="TOML file; default: /etc/wicketgate/wicketgate.toml.")
@click.option("--print-config", is_flag=True, help="Print a documented file with every setting's default, and end.")
@_with_settings
def command(config: str | None, print_config: bool, **flags: str | None) -> int:
    """Serve the AWS APIs and EC2 Instance Connect Endpoints until SIGTERM or Ctrl-C.

    SIGHUP has the file of bound networks (links_file) read again.

    Every setting has a line in the TOML file, an environment variable and a flag; the flag is the strongest.
    """
    from wicketgate import configuration
    from wicketgate.model import WicketgateError

    if print_config:
        click.echo(configuration.example(), nl=False)
        return 0
    try:
        chosen = configuration.load(
            file=Path(config) if config else None,
            environment=os.environ,
            flags={name: value for name, value in flags.items() if value is not None},
        )
        root = configuration.given_root_credential(chosen, os.environ)
        for name in configuration.ROOT_VARIABLES:  # netd has no use for them
            os.environ.pop(name, None)
        _check_privileges()
        _check_readable()
        return _serve(chosen, (root.access_key_id, root.secret_access_key) if root else None)
    except WicketgateError as error:
        click.echo(f"wicketgate serve: {error}", err=True)
        return 1


def _check_privileges() -> None:
    from wicketgate.model import FabricError

    if os.geteuid() != 0:
        raise FabricError(
            "it makes network namespaces and rulesets on this host, so it has to be started as root (its parts that "
            "face clients give all privileges up); without root there is: wicketgate lab"
        )


def _check_readable() -> None:
    """What faces clients runs with ids of its own, which must be able to read interpreter and package."""
    import wicketgate
    from wicketgate.model import FabricError

    for path in (Path(sys.executable), Path(sys.prefix), Path(wicketgate.__file__)):
        for place in (path, *path.parents):
            if not place.stat().st_mode & (0o001 if place.is_dir() else 0o004):
                raise FabricError(
                    f"{place} cannot be read by everybody, and the processes that face clients run with ids of their "
                    "own: install wicketgate where they can read it, such as a virtual environment in /opt"
                )


def _serve(chosen: Any, root: tuple[str, str] | None) -> int:
    """Run until a signal; the exit code."""
    import resource

    from wicketgate.daemon import Serve

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # our memory holds every secret there is
    logging.basicConfig(level=chosen.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    environment = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ}
    serve = Serve(
        configuration=chosen,
        listeners=[_listener(address, chosen.port) for address in chosen.listen_addresses],
        environment=environment,
        root=root,
        on_root_made=_show_root,
    )
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: ended.set())
    attended = _has_terminal() and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN  # nohup(1) ignores it
    signal.signal(
        signal.SIGHUP, lambda _number, _frame: ended.set() if attended and not _has_terminal() else serve.reload()
    )
    serve.start()
    try:
        click.echo(f"wicketgate serves https://api.{chosen.domain} and its endpoints on port {chosen.port}", err=True)
        ended.wait()
    finally:
        serve.stop()
    return 0


def _has_terminal() -> bool:
    """Whether there is a controlling terminal: when that is gone, SIGHUP says so."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _show_root(access_key_id: str, secret: str) -> None:
    click.echo(
        "A root credential was made. It is shown this once; keep it, and make users with it:\n"
        f"  AWS_ACCESS_KEY_ID={access_key_id}\n  AWS_SECRET_ACCESS_KEY={secret}"
    )
    sys.stdout.flush()


def _listener(address: str, port: int) -> socket.socket:
    from wicketgate.model import FabricError

    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.ExitStack() as undo:
        try:
            listener = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((address, port))
            listener.listen(BACKLOG)
        except OSError as error:
            no_family = error.errno == errno.EAFNOSUPPORT
            more = ": this kernel has no IPv6, so leave it out of listen_addresses" if no_family else ""
            raise FabricError(f"cannot listen on {address} port {port}: {error.strerror}{more}") from error
        undo.pop_all()
    return listener
