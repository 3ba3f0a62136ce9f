"""`wicketgate proxy`: what `wicketgate ssh-config` writes as ProxyCommand, for plain ssh, scp, rsync and editors."""

from __future__ import annotations

import os
from pathlib import Path

import click

from wicketgate.cli.open_tunnel import complain, stop_on_signals


@click.command()
@click.option("--key", type=click.Path(path_type=Path), help="The private key that ssh uses: FILE.pub is pushed.")
@click.option("--profile", help="A profile of the AWS credentials and config files.")
@click.option("--region", help="The region to sign for.")
@click.option("--ca-bundle", metavar="FILE", help="Trust the certificates in FILE and no others.")
@click.option("--endpoint-url", metavar="URL", help="Where the APIs are.")
@click.argument("instance_id", metavar="INSTANCE")
@click.argument("port", type=click.IntRange(1, 65535))
@click.argument("user")
def command(  # noqa: PLR0917  # one parameter per option
    key: Path | None,
    profile: str | None,
    region: str | None,
    ca_bundle: str | None,
    endpoint_url: str | None,
    instance_id: str,
    port: int,
    user: str,
) -> int:
    """Push the public key for USER on INSTANCE, then carry standard input and output to PORT there.

    Without --key nothing is pushed: for keys that the instance knows.
    """
    from wicketgate.client import ClientError, TunnelRequest
    from wicketgate.client.lookup import Caller, find_route
    from wicketgate.client.ssh import public_key
    from wicketgate.client.tunnel import Opener, carry_standard_streams

    stop_on_signals()
    try:
        line = public_key(key.expanduser()) if key is not None else ""
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
