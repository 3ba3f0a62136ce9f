"""`wicketgate env`: what a shell needs so that AWS's own clients find a deployment. `eval "$(wicketgate env)"`."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from wicketgate.configuration import Configuration

API_HOST = "api"
"""First label of the APIs' name, below the configured domain."""


@click.command()
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="The settings file of the deployment.")
@click.option("--endpoint-url", metavar="URL", help="Where the APIs are.  [default: https://api.DOMAIN]")
@click.option("--region", help="The region.  [default: the configured one]")
@click.option("--ca-bundle", metavar="FILE", help="The certificates to trust.  [default: the state directory's bundle]")
def command(config: Path | None, endpoint_url: str | None, region: str | None, ca_bundle: str | None) -> None:
    """Print the environment of AWS's clients as lines for a POSIX shell.

    Values come from the settings of `wicketgate serve`. With all three options given none are read, which is for
    clients on other machines.
    """
    if not (endpoint_url and region and ca_bundle):
        settings = _configured(config)
        endpoint_url = endpoint_url or _url(settings)
        region = region or settings.region
        ca_bundle = ca_bundle or _bundle(settings)
    variables = {"AWS_ENDPOINT_URL": endpoint_url, "AWS_REGION": region, "AWS_DEFAULT_REGION": region}
    if ca_bundle:
        path = str(Path(ca_bundle).expanduser().absolute())
        if not Path(path).is_file():
            raise click.ClickException(
                f"there are no certificates in {path}: start `wicketgate serve`, or give --ca-bundle"
            )
        # The first is what the AWS CLI's and boto3's API calls obey, the second what the CLI's tunnels do.
        variables |= {"AWS_CA_BUNDLE": path, "SSL_CERT_FILE": path}
    for name, value in variables.items():
        click.echo(f"export {name}={shlex.quote(value)}")


def _configured(config: Path | None) -> Configuration:
    from wicketgate.configuration import ConfigurationError, load

    try:
        return load(file=config, environment=os.environ)
    except ConfigurationError as error:
        raise click.ClickException(str(error)) from error


def _url(settings: Configuration) -> str:
    port = "" if settings.port == 443 else f":{settings.port}"
    return f"https://{API_HOST}.{settings.domain}{port}"


def _bundle(settings: Configuration) -> str:
    """The bundle of our own CA and the system's roots; empty with a certificate that clients know by themselves."""
    return "" if settings.certificate_file else str(Path(settings.state_directory) / "bundle.pem")
