"""Where the APIs are and whom to trust, from the environment and the AWS config file, in the AWS CLI's order.

Source: AWS SDKs and Tools Reference Guide, "Service-specific endpoints" and "Shared config and credentials files".
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping

from wicketgate.client.credentials import profile_settings
from wicketgate.client.errors import ConfigurationError
from wicketgate.client.handshake import trust

_SERVICES = {"ec2": "EC2", "ec2-instance-connect": "EC2_INSTANCE_CONNECT", "wicketgate": "WICKETGATE"}


def resolve_endpoint(service: str, given: str | None, profile: str | None, environment: Mapping[str, str]) -> str:
    """The URL of a service's API: `given`, the variables, the profile; raises ConfigurationError when nobody says.

    There is no default: keys of a wicketgate are of no use at AWS, and what they sign need not be shown there.
    """
    if given:
        return given
    name = _SERVICES[service]
    ignored = environment.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true"
    if not ignored:
        found = environment.get(f"AWS_ENDPOINT_URL_{name}") or environment.get("AWS_ENDPOINT_URL")
        found = found or _of_profile(name.lower(), profile, environment)
        if found:
            return found
    if ignored:
        raise ConfigurationError("No URL of the APIs: AWS_IGNORE_CONFIGURED_ENDPOINT_URLS is set; give --endpoint-url.")
    raise ConfigurationError(
        "No URL of the APIs: set AWS_ENDPOINT_URL (`wicketgate env` prints it), give --endpoint-url, or write "
        "`endpoint_url = ...` into the profile."
    )


def resolve_trust(ca_bundle: str | None, profile: str | None, environment: Mapping[str, str]) -> ssl.SSLContext:
    """Whom to believe: as `trust` says, with the profile's `ca_bundle` where AWS_CA_BUNDLE is not set."""
    if not ca_bundle and not environment.get("AWS_CA_BUNDLE"):
        bundle = profile_settings(profile, environment).get("ca_bundle")
        if bundle:
            environment = {**environment, "AWS_CA_BUNDLE": bundle}
    return trust(ca_bundle, environment)


def _of_profile(service: str, profile: str | None, environment: Mapping[str, str]) -> str | None:
    """`endpoint_url` of the profile; that of the service in the profile's `services` section goes before it."""
    settings = profile_settings(profile, environment)
    if services := settings.get("services"):
        nested = profile_settings(profile, environment, section=f"services {services}").get(service, "")
        for line in nested.splitlines():
            name, _, value = line.partition("=")
            if name.strip() == "endpoint_url":
                return value.strip()
    return settings.get("endpoint_url")
