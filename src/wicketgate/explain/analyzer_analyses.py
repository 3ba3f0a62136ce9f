"""Analyses of Reachability Analyzer: start, describe, delete.

An analysis is finished when it is started: it is never seen `running`. It says how things were then, and is kept for
120 days.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from wicketgate.control import common, resources
from wicketgate.control.call import Ask, Call, Outcome, operation
from wicketgate.control.common import AWS_QUOTAS, TAG_GETTERS, Quotas, ec2_context, request_tags, tag_list, tags_from
from wicketgate.control.resources import INSIGHTS_ANALYSIS, INSIGHTS_PATH, moment
from wicketgate.explain.analyzer import Filters, analyze
from wicketgate.explain.analyzer_paths import ANALYSIS, about_path, current, existing_path, outlived
from wicketgate.model import ApiError, NetworkInsightsAnalysis

SEES: Final = (
    "DescribeInstances",
    "DescribeNetworkInterfaces",
    "DescribeRouteTables",
    "DescribeSecurityGroups",
    "DescribeSubnets",
    "DescribeVpcPeeringConnections",
    "DescribeVpcs",
)
"""What a caller of StartNetworkInsightsAnalysis must be allowed to see as well: the answer shows it all (Reachability
Analyzer guide, required API permissions)."""


# -- what IAM is asked -------------------------------------------------------------------------------------------------


def _ask_start(call: Call) -> Sequence[Ask]:
    context = ec2_context(call) | request_tags(call, ANALYSIS)
    new = Ask(f"ec2:{call.action}", call.arn(f"{ANALYSIS}/*"), context)
    seen = (Ask(f"ec2:{action}") for action in SEES)
    return (new, about_path(call), *resources.about_tagging(call, ANALYSIS), *seen)


def _ask_delete(call: Call) -> Sequence[Ask]:
    analysis_id = call.parameters["NetworkInsightsAnalysisId"]
    analysis = call.world.insights_analysis(analysis_id)
    context = ec2_context(call, None if analysis is None else analysis.tags)
    return (Ask(f"ec2:{call.action}", call.arn(f"{ANALYSIS}/{analysis_id}"), context),)


# -- start, describe, delete -------------------------------------------------------------------------------------------


@operation("ec2", asks=_ask_start)
def start_network_insights_analysis(call: Call, quotas: Quotas = AWS_QUOTAS) -> Outcome:
    """Answer a path's question by the present World. Raises NetworkInsightsAnalysis.LimitExceeded.

    The path has to traverse everything in FilterInArns and nothing in FilterOutArns.
    """
    asked, world = call.parameters, call.world
    path = existing_path(call)
    resources.refuse_parameters(asked, ("AdditionalAccounts",), call.action)
    tags = tags_from(asked, ANALYSIS)
    if len(current(world, call.now)) >= quotas.insights_analyses_per_region:
        raise ApiError(
            "NetworkInsightsAnalysis.LimitExceeded", "The maximum number of network insights analyses is reached."
        )
    through, without = (tuple(dict.fromkeys(asked.get(name) or ())) for name in ("FilterInArns", "FilterOutArns"))
    finding = analyze(world, path, Filters(through, without))
    made = NetworkInsightsAnalysis(
        id=call.new_id("nia"),
        path_id=path.id,
        started_at=call.now,
        path_found=finding.found,
        filter_in=through,
        filter_out=without,
        forward=finding.forward,
        back=finding.back,
        explanations=finding.explanations,
        hints=finding.hints,
        tags=tags,
    )
    change = call.change(made, deletes=outlived(world, call.now))
    return Outcome({"NetworkInsightsAnalysis": _item(call, made)}, change)


def _item(call: Call, analysis: NetworkInsightsAnalysis) -> dict[str, Any]:
    """An analysis as a NetworkInsightsAnalysis of the API."""
    item: dict[str, Any] = {
        "NetworkInsightsAnalysisId": analysis.id,
        "NetworkInsightsAnalysisArn": call.arn(f"{ANALYSIS}/{analysis.id}"),
        "NetworkInsightsPathId": analysis.path_id,
        "StartDate": moment(analysis.started_at),
        "Status": "succeeded",
        "NetworkPathFound": analysis.path_found,
        "Tags": tag_list(analysis.tags),
    }
    lists = {
        "FilterInArns": analysis.filter_in,
        "FilterOutArns": analysis.filter_out,
        "ForwardPathComponents": analysis.forward,
        "ReturnPathComponents": analysis.back,
        "Explanations": analysis.explanations,
        "AlternatePathHints": [{"ComponentId": arn.rpartition("/")[2], "ComponentArn": arn} for arn in analysis.hints],
    }
    return item | {name: list(value) for name, value in lists.items() if value}


@operation("ec2")
def describe_network_insights_analyses(call: Call) -> Outcome:
    """The analyses by their ids, of a path, of a time, or all. Raises InvalidNetworkInsightsAnalysisId.NotFound."""
    asked = call.parameters
    there = {one.id: one for one in current(call.world, call.now)}
    ids = asked.get("NetworkInsightsAnalysisIds")
    analyses: Sequence[NetworkInsightsAnalysis] = list(there.values())
    if ids:
        analyses = resources.several(INSIGHTS_ANALYSIS, call.world, ids, lambda _world, one: there.get(one))
    if asked.get("NetworkInsightsPathId"):
        path = resources.found(INSIGHTS_PATH, call.world, asked["NetworkInsightsPathId"])
        analyses = [one for one in analyses if one.path_id == path.id]
    first, last = asked.get("AnalysisStartTime"), asked.get("AnalysisEndTime")
    analyses = [
        one
        for one in analyses
        if (first is None or moment(one.started_at) >= first) and (last is None or moment(one.started_at) <= last)
    ]
    getters = {"path-found": lambda one: one.path_found, "status": lambda _one: "succeeded", **TAG_GETTERS}
    chosen = common.select(analyses, asked.get("Filters"), getters)
    shown, following = resources.paged(call, chosen, lambda one: one.id, minimum=1, maximum=100)
    return Outcome({"NetworkInsightsAnalyses": [_item(call, one) for one in shown]} | following)


@operation("ec2", asks=_ask_delete)
def delete_network_insights_analysis(call: Call) -> Outcome:
    """Forget an answer. Raises InvalidNetworkInsightsAnalysisId.NotFound."""
    there = {one.id: one for one in current(call.world, call.now)}
    ids = (call.parameters["NetworkInsightsAnalysisId"],)
    (analysis,) = resources.several(INSIGHTS_ANALYSIS, call.world, ids, lambda _world, one: there.get(one))
    deletes = [(ANALYSIS, analysis.id), *outlived(call.world, call.now)]
    return Outcome({"NetworkInsightsAnalysisId": analysis.id}, call.change(deletes=deletes))
