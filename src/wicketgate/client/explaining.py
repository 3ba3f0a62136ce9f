"""A deployment to be asked for explanations, and to be tried."""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from wicketgate.client.api import Connection, Wicketgate
from wicketgate.client.credentials import resolve_credentials, resolve_region
from wicketgate.client.errors import TunnelFailed
from wicketgate.client.proof import Happened, attempt
from wicketgate.client.request import TunnelRequest
from wicketgate.client.settings import resolve_endpoint, resolve_trust
from wicketgate.sigv4.presign import Credentials

TIMEOUT = 90.0
"""Seconds for an answer, above what the service takes at most."""


class Deployment(NamedTuple):
    """Where it is, who asks, and whom he trusts."""

    url: str
    credentials: Credentials
    region: str
    context: ssl.SSLContext

    @classmethod
    def resolve(
        cls,
        environment: Mapping[str, str],
        *,
        profile: str | None = None,
        region: str | None = None,
        ca_bundle: str | None = None,
        endpoint_url: str | None = None,
    ) -> Deployment:
        """From options, environment and AWS's files; raises ConfigurationError."""
        return cls(
            resolve_endpoint("wicketgate", endpoint_url, profile, environment),
            resolve_credentials(profile, environment),
            resolve_region(region, profile, environment),
            resolve_trust(ca_bundle, profile, environment),
        )

    def ask(self, action: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """One call of the service `wicketgate`. Raises ApiRefused, TunnelFailed, ConfigurationError."""
        connection = Connection(self.url, "wicketgate", self.credentials, self.region, self.context, timeout=TIMEOUT)
        try:
            return Wicketgate(connection).call(action, parameters)
        finally:
            connection.close()

    def explain(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Explain: the explanation as `docs/explain.md` describes it. Raises what `ask` does."""
        found = self.ask("Explain", question).get("Explanation")
        if not isinstance(found, dict):
            raise TunnelFailed("The answer to Explain has no explanation in it.")
        return found

    def attempt(self, asked: Mapping[str, str], duration: int | None, *, banner: bool) -> Happened:
        """Open a tunnel along the way of an explanation; see `proof.attempt`."""
        request = TunnelRequest(
            asked["endpoint"], asked["endpointDnsName"], asked["address"], int(asked["port"]), duration
        )
        url = request.url(self.credentials, region=self.region, now=time.time())
        return attempt(url, request.address, self.context, banner=banner)
