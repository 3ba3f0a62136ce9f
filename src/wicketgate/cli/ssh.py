"""`wicketgate ssh i-...`: log in with a key that is made for this once and pushed for 60 seconds."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import click

from wicketgate.cli.tunnelling import complain

DEFAULT_USER = "ec2-user"
_EICE_OPTIONS = ("endpointId", "dnsName", "maxTunnelDuration")
_is_instance_id = re.compile(r"i-[0-9a-zA-Z]+").fullmatch
_is_user = re.compile(r"[A-Za-z0-9_@.][A-Za-z0-9_@.-]{0,30}[A-Za-z0-9_@.$-]?").fullmatch


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("--instance-id", metavar="ID", help="The instance, as the AWS CLI takes it; ssh's words then follow --.")
@click.option("--os-user", metavar="NAME", help=f"Who to be on the instance.  [default: {DEFAULT_USER}]")
@click.option("--private-key-file", metavar="FILE", help="Log in with this key; none is pushed then.")
@click.option("--ssh-port", type=click.IntRange(1, 65535), help="The port of the instance's sshd.")
@click.option(
    "--eice-options",
    metavar="OPTIONS",
    default="",
    help="endpointId=eice-...,dnsName=NAME,maxTunnelDuration=SECONDS, any of them.",
)
@click.option("--profile", help="A profile of the AWS credentials and config files.")
@click.option("--region", help="The region to sign for.")
@click.option("--ca-bundle", metavar="FILE", help="Trust the certificates in FILE and no others.")
@click.option("--endpoint-url", metavar="URL", help="Where the APIs are.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[USER@]INSTANCE [SSH OPTIONS] [--] [COMMAND]")
def command(  # noqa: PLR0917  # one parameter per option
    instance_id: str | None,
    os_user: str | None,
    private_key_file: str | None,
    ssh_port: int | None,
    eice_options: str,
    profile: str | None,
    region: str | None,
    ca_bundle: str | None,
    endpoint_url: str | None,
    words: tuple[str, ...],
) -> int:
    """Log in to an instance through an EC2 Instance Connect Endpoint.

    What follows the instance goes to ssh as it is: options, and after them a command.
    """
    from wicketgate.client import ClientError
    from wicketgate.client.lookup import Caller, find_route
    from wicketgate.client.request import TunnelRequest
    from wicketgate.client.ssh import make_key, own_command, program, proxy_command, ssh_command

    instance, user, more = _destination(instance_id, os_user, words)
    options = _eice_options(eice_options)
    try:
        program("ssh")
        caller = Caller.resolve(
            os.environ, profile=profile, region=region, ca_bundle=ca_bundle, endpoint_url=endpoint_url
        )
        duration = options.get("maxTunnelDuration")
        request = TunnelRequest.make(
            endpoint_id=options.get("endpointId"),
            dns_name=options.get("dnsName"),
            private_ip_address=None,
            instance_id=instance,
            max_tunnel_duration=int(duration) if duration else None,
            find=lambda *given: find_route(caller, *given),
        )
        shared = {"--profile": profile, "--region": region, "--ca-bundle": ca_bundle}
        tunnel = request.options() | {name: value for name, value in shared.items() if value}
        proxy = own_command("open-tunnel", *(word for pair in tunnel.items() for word in pair), "--remote-port")
        with tempfile.TemporaryDirectory(prefix="wicketgate-ssh-", ignore_cleanup_errors=True) as directory:
            key = Path(private_key_file) if private_key_file else Path(directory) / "key"
            if not private_key_file:
                caller.push_key(instance, user, make_key(key))
            return _run(
                ssh_command(
                    instance_id=instance,
                    os_user=user,
                    proxy=proxy_command(proxy, "%p"),
                    key=key,
                    port=ssh_port,
                    more=more,
                )
            )
    except ClientError as error:
        complain(str(error))
        return error.exit_code


def _destination(instance_id: str | None, os_user: str | None, words: Sequence[str]) -> tuple[str, str, list[str]]:
    """Instance, user and the words for ssh; raises UsageError."""
    more = list(words)
    named = instance_id or (more.pop(0) if more else "")
    user, at, instance = named.rpartition("@")
    if not _is_instance_id(instance):
        raise click.UsageError(
            f"{instance or 'Nothing'} is no instance's id: expected [USER@]i-... before ssh's words."
        )
    if at and os_user and user != os_user:
        raise click.UsageError(f"--os-user {os_user} and {named} name two users: give one.")
    user = user or os_user or DEFAULT_USER
    if not _is_user(user):
        raise click.UsageError(f"{user!r} is no user's name that a key can be pushed for.")
    if any(word.startswith("-l") for word in itertools.takewhile(lambda word: word.startswith("-"), more)):
        raise click.UsageError("ssh's -l comes too late, the key is pushed for the user: write USER@INSTANCE.")
    return instance, user, more


def _eice_options(text: str) -> dict[str, str]:
    """The AWS CLI's shorthand `name=value,...`; raises UsageError."""
    pairs = [part.strip().partition("=") for part in text.split(",") if part.strip()]
    found = {name.strip(): value.strip() for name, _, value in pairs}
    for name, value in found.items():
        if name not in _EICE_OPTIONS or not value:
            raise click.UsageError(f"--eice-options: {name!r}: expected NAME=VALUE with {', '.join(_EICE_OPTIONS)}.")
    if "dnsName" in found and "endpointId" not in found:
        raise click.UsageError("--eice-options: when specifying dnsName, you must specify endpointId.")
    if not found.get("maxTunnelDuration", "1").isdecimal():
        raise click.UsageError("--eice-options: maxTunnelDuration must be a number of seconds.")
    return found


def _run(argv: Sequence[str]) -> int:
    """Run ssh to its end: its exit code. What would end us ends it, so that the key is always removed."""
    with subprocess.Popen(argv) as process:

        def pass_on(number: int, _frame: FrameType | None) -> None:
            if number != signal.SIGINT:  # the terminal sends that to ssh by itself
                process.send_signal(number)

        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            if sys.platform != "win32" or name == "SIGINT":
                signal.signal(getattr(signal, name), pass_on)
        code = process.wait()
    return code if code >= 0 else 128 - code
