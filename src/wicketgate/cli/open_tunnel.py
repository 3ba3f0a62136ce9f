"""`wicketgate open-tunnel`: the AWS CLI's `ec2-instance-connect open-tunnel`, with a quick start.

ssh -o ProxyCommand='wicketgate open-tunnel --instance-connect-endpoint-id eice-0123456789abcdef0
    --instance-connect-endpoint-dns-name NAME --private-ip-address %h' ec2-user@10.0.1.11
"""

from __future__ import annotations

import click

from wicketgate.cli.tunnelling import MAX_CONNECTIONS, open_tunnel


@click.command()
@click.option("--instance-connect-endpoint-id", "endpoint_id", metavar="ID", help="The endpoint: eice-...")
@click.option(
    "--instance-connect-endpoint-dns-name",
    "dns_name",
    metavar="NAME",
    help="The endpoint's DnsName; NAME:PORT for a gateway that does not listen on 443.",
)
@click.option("--private-ip-address", metavar="ADDRESS", help="The target's private address.")
@click.option("--instance-id", metavar="ID", help="The target by id; what the options above leave out is looked up.")
@click.option("--remote-port", type=int, default=22, show_default=True, help="The target's TCP port.")
@click.option("--local-port", type=click.IntRange(0, 65535), help="Listen on localhost; 0 lets the system choose.")
@click.option("--max-tunnel-duration", type=int, metavar="SECONDS", help="1 to 3600; the service's limit if not given.")
@click.option(
    "--max-websocket-connections",
    type=click.IntRange(min=1),
    default=MAX_CONNECTIONS,
    show_default=True,
    help="Tunnels open at once with --local-port.",
)
@click.option("--profile", help="A profile of the AWS credentials and config files.")
@click.option("--region", help="The region to sign for.")
@click.option("--ca-bundle", metavar="FILE", help="Trust the certificates in FILE and no others.")
@click.option("--endpoint-url", metavar="URL", help="Where the EC2 API is, for looking up.")
def command(  # noqa: PLR0917  # one parameter per option
    endpoint_id: str | None,
    dns_name: str | None,
    private_ip_address: str | None,
    instance_id: str | None,
    remote_port: int,
    local_port: int | None,
    max_tunnel_duration: int | None,
    max_websocket_connections: int,
    profile: str | None,
    region: str | None,
    ca_bundle: str | None,
    endpoint_url: str | None,
) -> int:
    """Open a tunnel to an instance or a private address through an EC2 Instance Connect Endpoint.

    Without --local-port the tunnel is standard input and output, as ssh's ProxyCommand wants it.

    Credentials, region and the API's URL come from where the AWS CLI takes them: environment variables and profiles.
    Certificates: --ca-bundle, else AWS_CA_BUNDLE and SSL_CERT_FILE, else the profile's ca_bundle, else the system's.
    """
    return open_tunnel(
        endpoint_id=endpoint_id,
        dns_name=dns_name,
        private_ip_address=private_ip_address,
        instance_id=instance_id,
        remote_port=remote_port,
        local_port=local_port,
        max_tunnel_duration=max_tunnel_duration,
        max_websocket_connections=max_websocket_connections,
        profile=profile,
        region=region,
        ca_bundle=ca_bundle,
        endpoint_url=endpoint_url,
    )
