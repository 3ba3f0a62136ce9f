"""`wicketgate proxy`: what `wicketgate ssh-config` writes as ProxyCommand, for plain ssh, scp, rsync and editors."""

from __future__ import annotations

import click

from wicketgate.cli.tunnelling import proxy


@click.command()
@click.option("--key", metavar="FILE", help="The private key that ssh uses: FILE.pub is pushed.")
@click.option("--profile", help="A profile of the AWS credentials and config files.")
@click.option("--region", help="The region to sign for.")
@click.option("--ca-bundle", metavar="FILE", help="Trust the certificates in FILE and no others.")
@click.option("--endpoint-url", metavar="URL", help="Where the APIs are.")
@click.argument("instance_id", metavar="INSTANCE")
@click.argument("port", type=click.IntRange(1, 65535))
@click.argument("user")
def command(  # noqa: PLR0917  # one parameter per option
    key: str | None,
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
    return proxy(
        instance_id=instance_id,
        port=port,
        user=user,
        key=key,
        profile=profile,
        region=region,
        ca_bundle=ca_bundle,
        endpoint_url=endpoint_url,
    )
