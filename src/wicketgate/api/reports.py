"""Reports of the service `wicketgate` about all there is: what lint finds, and whether checks hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wicketgate import __version__
from wicketgate.control.common import Quotas
from wicketgate.control.endpoints import EndpointQuotas
from wicketgate.explain import check, lint
from wicketgate.model import ApiError

if TYPE_CHECKING:
    from wicketgate.api.explanations import Asking


def lint_world(asking: Asking) -> dict[str, Any]:
    """Lint. It names every group and policy, so it is about `*`."""
    asking.authorize("*")
    given = asking.parameters
    facts = lint.Facts(
        quotas=next((one for one in asking.limits if isinstance(one, Quotas)), Quotas()),
        endpoint_quotas=next((one for one in asking.limits if isinstance(one, EndpointQuotas)), EndpointQuotas()),
        connections=given.get("Connections"),
        since=given.get("CountedSince", ""),
    )
    report = lint.lint(asking.world, facts, given.get("Ignore", ()))
    return lint.answer_of(report, __version__, asking.language)


def check_world(asking: Asking) -> dict[str, Any]:
    """Check. Counterexamples can name everything there is, so it is about `*`."""
    asking.authorize("*")
    content, name = asking.parameters["Document"], asking.parameters.get("DocumentName", "checks.yaml")
    try:
        results = check.check(asking.world, content, name, asking.now)
    except check.Mistake as mistake:
        raise ApiError("UnanswerableException", f"Document: {mistake.worded(asking.language)}") from mistake
    return check.answer_of(results, __version__, asking.language)
