"""`wicketgate ssh-config`: a stanza for ssh_config(5), so that plain `ssh i-...`, scp, rsync and editors work.

ssh reads its key while the ProxyCommand runs already, so the key pair is made here, once, and each connection pushes
its public half anew. The private key alone opens nothing: who has it needs an identity that may push it.
"""

from __future__ import annotations

from pathlib import Path

import click

from wicketgate.cli.tunnelling import complain

DEFAULT_KEY = Path("~/.ssh/wicketgate_ed25519")


@click.command()
@click.option("--host", "pattern", default="i-*", show_default=True, help="Which hosts it is for.")
@click.option("--os-user", default="ec2-user", show_default=True, help="Who to be where ssh is not told.")
@click.option("--key", type=click.Path(path_type=Path), default=DEFAULT_KEY, show_default=True, help="Made if missing.")
@click.option("--profile", help="Written into the stanza, as the three below: editors have no environment of a shell.")
@click.option("--region", help="The region to sign for.")
@click.option("--ca-bundle", metavar="FILE", help="Trust the certificates in FILE and no others.")
@click.option("--endpoint-url", metavar="URL", help="Where the APIs are.")
def command(  # noqa: PLR0917  # one parameter per option
    pattern: str,
    os_user: str,
    key: Path,
    profile: str | None,
    region: str | None,
    ca_bundle: str | None,
    endpoint_url: str | None,
) -> int:
    """Print what to put into ~/.ssh/config."""
    from wicketgate.client import ClientError
    from wicketgate.client.ssh import make_key, own_command, proxy_command, public_key, stanza

    key = key.expanduser().absolute()
    try:
        if key.exists():
            public_key(key)
        else:
            key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            make_key(key)
            complain(f"made the key {key}")
    except ClientError as error:
        complain(str(error))
        return error.exit_code
    except OSError as error:
        complain(f"The key {key} cannot be made: {error.strerror}.")
        return 255
    bundle = str(Path(ca_bundle).expanduser().absolute()) if ca_bundle else None
    given = {"--profile": profile, "--region": region, "--ca-bundle": bundle, "--endpoint-url": endpoint_url}
    options = [word for name, value in given.items() if value for word in (name, value)]
    proxy = own_command("proxy", "--key", str(key), *options, "--")
    click.echo(stanza(pattern, os_user, key, proxy_command(proxy, "%h", "%p", "%r")), nl=False)
    return 0
