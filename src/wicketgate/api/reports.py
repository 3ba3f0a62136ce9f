"""Reports of the service `wicketgate` about all there is: what lint finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wicketgate import __version__
from wicketgate.control.common import Quotas
from wicketgate.control.endpoints import EndpointQuotas
from wicketgate.explain.lint import Facts, answer_of, lint

if TYPE_CHECKING:
    from wicketgate.api.explanations import Asking


def lint_world(asking: Asking) -> dict[str, Any]:
    """Lint. It names every group and policy, so it is about `*`."""
    asking.authorize("*")
    given = asking.parameters
    facts = Facts(
        quotas=next((one for one in asking.limits if isinstance(one, Quotas)), Quotas()),
        endpoint_quotas=next((one for one in asking.limits if isinstance(one, EndpointQuotas)), EndpointQuotas()),
        connections=given.get("Connections"),
        since=given.get("CountedSince", ""),
    )
    report = lint(asking.world, facts, given.get("Ignore", ()))
    return answer_of(report, __version__, asking.language)
