"""From an instance's id to its address and an endpoint that reaches it, chosen as the AWS CLI chooses.

The endpoint is the first in the instance's subnet, else the first of its VPC, among those in a state in which tunnels
open (EC2 User Guide, connect-using-eice).
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import NamedTuple

from wicketgate.client.api import Connection, Ec2, Element, InstanceConnect
from wicketgate.client.credentials import resolve_credentials, resolve_region
from wicketgate.client.errors import InvalidUse, Refused
from wicketgate.client.settings import resolve_endpoint, resolve_trust
from wicketgate.sigv4.presign import Credentials

CONNECTABLE_STATES = ("create-complete", "update-in-progress", "update-complete", "update-failed")


class Caller(NamedTuple):
    """Who asks, where, and whom he trusts."""

    credentials: Credentials
    region: str
    context: ssl.SSLContext
    ec2_url: str
    instance_connect_url: str

    @classmethod
    def resolve(
        cls,
        environment: Mapping[str, str],
        *,
        profile: str | None = None,
        region: str | None = None,
        ca_bundle: str | None = None,
        endpoint_url: str | None = None,
    ) -> Caller:
        """From options, environment and AWS's files; raises ConfigurationError."""
        return cls(
            resolve_credentials(profile, environment),
            resolve_region(region, profile, environment),
            resolve_trust(ca_bundle, profile, environment),
            resolve_endpoint("ec2", endpoint_url, profile, environment),
            resolve_endpoint("ec2-instance-connect", endpoint_url, profile, environment),
        )

    def connection(self, service: str) -> Connection:
        """A connection to the API of `ec2` or `ec2-instance-connect`; raises ConfigurationError for a bad URL."""
        url = self.ec2_url if service == "ec2" else self.instance_connect_url
        return Connection(url, service, self.credentials, self.region, self.context)

    def push_key(self, instance_id: str, os_user: str, public_key: str) -> None:
        """SendSSHPublicKey: let `public_key` log in as `os_user` for 60 seconds; raises ApiRefused, TunnelFailed."""
        connection = self.connection("ec2-instance-connect")
        parameters = {"InstanceId": instance_id, "InstanceOSUser": os_user, "SSHPublicKey": public_key}
        try:
            InstanceConnect(connection).call("SendSSHPublicKey", parameters)
        finally:
            connection.close()


class Instance(NamedTuple):
    """Where an instance is."""

    id: str
    vpc_id: str
    subnet_id: str
    private_ip_address: str
    """Its IPv4 address, else its IPv6 address."""


class Endpoint(NamedTuple):
    """An endpoint that admits tunnels."""

    id: str
    dns_name: str


def find_instance(ec2: Ec2, instance_id: str) -> Instance:
    """DescribeInstances; raises Refused when it has no address, and what Ec2.call raises."""
    root = ec2.call("DescribeInstances", {"InstanceId.1": instance_id})
    found = root.find("{*}reservationSet/{*}item/{*}instancesSet/{*}item")
    if found is None:
        raise Refused(f"There is no instance {instance_id}.")
    address = _text(found, "privateIpAddress") or _text(found, "ipv6Address")
    if not address:
        state = found.findtext("{*}instanceState/{*}name") or "unknown"
        raise Refused(f"Unable to find any IP address on the instance {instance_id} to connect to; it is {state}.")
    return Instance(instance_id, _text(found, "vpcId"), _text(found, "subnetId"), address)


def find_endpoint(ec2: Ec2, instance: Instance | None, endpoint_id: str | None) -> Endpoint:
    """DescribeInstanceConnectEndpoints: the one named, or one for the instance; raises Refused when there is none."""
    parameters = {"Filter.1.Name": "state"}
    parameters |= {f"Filter.1.Value.{place}": state for place, state in enumerate(CONNECTABLE_STATES, 1)}
    if endpoint_id:
        parameters |= {"InstanceConnectEndpointId.1": endpoint_id}
    elif instance is not None:
        parameters |= {"Filter.2.Name": "vpc-id", "Filter.2.Value.1": instance.vpc_id}
    else:
        raise InvalidUse("Give the target by --instance-id, or the endpoint by --instance-connect-endpoint-id.")
    first: Element | None = None
    for page in ec2.pages("DescribeInstanceConnectEndpoints", parameters):
        for item in page.iterfind("{*}instanceConnectEndpointSet/{*}item"):
            if endpoint_id or (instance is not None and _text(item, "subnetId") == instance.subnet_id):
                return _endpoint(item)
            first = item if first is None else first
    if first is not None:
        return _endpoint(first)
    if endpoint_id:
        raise Refused(f"There are no available instance connect endpoints with {endpoint_id}.")
    where = instance.vpc_id if instance is not None else ""
    raise Refused(f"There are no available instance connect endpoints in {where}.")


def _endpoint(item: Element) -> Endpoint:
    endpoint = Endpoint(_text(item, "instanceConnectEndpointId"), _text(item, "dnsName"))
    if not endpoint.dns_name:
        raise Refused(f"The endpoint {endpoint.id} has no DNS name to connect to.")
    return endpoint


def _text(element: Element, name: str) -> str:
    return element.findtext(f"{{*}}{name}") or ""


def find_route(
    caller: Caller,
    endpoint_id: str | None,
    dns_name: str | None,
    private_ip_address: str | None,
    instance_id: str | None,
) -> tuple[str, str, str]:
    """The endpoint's id and DNS name and the target's address: what is given, and the rest by the EC2 API.

    Raises Refused, TunnelFailed, InvalidUse.
    """
    connection = caller.connection("ec2")
    ec2 = Ec2(connection)
    try:
        instance = None
        # With address and endpoint given, the instance has nothing to add.
        if instance_id and not (private_ip_address and endpoint_id):
            instance = find_instance(ec2, instance_id)
        address = private_ip_address or (instance.private_ip_address if instance is not None else "")
        if endpoint_id and dns_name:
            return endpoint_id, dns_name, address
        endpoint = find_endpoint(ec2, instance, endpoint_id)
        return endpoint.id, endpoint.dns_name, address
    finally:
        connection.close()
