"""Paths of Reachability Analyzer: create, describe, delete. (Their analyses: `analyzer_analyses`.)

Sources and destinations are instances, network interfaces and VPC peering connections; EC2 Instance Connect Endpoints
and IPv6 are beyond AWS's. There are no internet gateways, transit gateways or VPC endpoints here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from wicketgate.control import common, resources
from wicketgate.control.call import Ask, Call, Outcome, operation
from wicketgate.control.common import AWS_QUOTAS, TAG_GETTERS, Quotas, ec2_context, request_tags, tag_list, tags_from
from wicketgate.control.peering import present
from wicketgate.control.resources import INSIGHTS_PATH, moment
from wicketgate.explain.analyzer_components import arn_of, id_in
from wicketgate.explain.region import Span
from wicketgate.model import ApiError, HeaderFilter, NetworkInsightsAnalysis, NetworkInsightsPath, World

PATH: Final = "network-insights-path"
ANALYSIS: Final = "network-insights-analysis"
KEPT: Final = 120 * 86400.0
"""Seconds for which an analysis is kept (Reachability Analyzer guide, getting started)."""
ENDS: Final = ("i", "eni", "pcx", "eice")
"""Prefixes of what a path can begin and end at."""


def current(world: World, now: float) -> list[NetworkInsightsAnalysis]:
    """The analyses that have not run out."""
    return [one for one in world.insights_analyses if one.started_at + KEPT > now]


def outlived(world: World, now: float) -> list[tuple[str, str]]:
    """What to delete of those that have: they go with the next change."""
    return [(ANALYSIS, one.id) for one in world.insights_analyses if one.started_at + KEPT <= now]


def existing_path(call: Call) -> NetworkInsightsPath:
    """The path that the call names. Raises InvalidNetworkInsightsPathId.NotFound or .Malformed."""
    return resources.found(INSIGHTS_PATH, call.world, call.parameters["NetworkInsightsPathId"])


# -- what IAM is asked -------------------------------------------------------------------------------------------------


def about_path(call: Call) -> Ask:
    """May this be done to the path that the call names?"""
    path_id = call.parameters["NetworkInsightsPathId"]
    path = call.world.insights_path(path_id)
    context = ec2_context(call, None if path is None else path.tags)
    return Ask(f"ec2:{call.action}", call.arn(f"{PATH}/{path_id}"), context)


def _ask_path(call: Call) -> Sequence[Ask]:
    return (about_path(call),)


def _ask_create(call: Call) -> Sequence[Ask]:
    """The path to be made, and what it begins and ends at (Service Authorization Reference, Amazon EC2)."""
    new = Ask(f"ec2:{call.action}", call.arn(f"{PATH}/*"), ec2_context(call) | request_tags(call, PATH))
    named = (id_in(call.world, call.parameters.get(name) or "") for name in ("Source", "Destination"))
    about = (ask for one in dict.fromkeys(named) for ask in _about_end(call, one))
    return (new, *about, *resources.about_tagging(call, PATH))


def _about_end(call: Call, resource_id: str) -> Iterator[Ask]:
    match resource_id.partition("-")[0]:
        case "i":
            yield resources.about_instance(call, call.action, resource_id)
        case "eni":
            yield resources.about_interface(call, call.action, resource_id)
        case "eice":
            yield resources.about_endpoint(call, call.action, resource_id)
        case "pcx":
            yield _about_peering(call, resource_id)


def _about_peering(call: Call, peering_id: str) -> Ask:
    peering = call.world.peering(peering_id)
    context = ec2_context(
        call,
        None if peering is None else peering.tags,
        VpcPeeringConnectionID=peering_id,
        RequesterVpc=None if peering is None else call.arn(f"vpc/{peering.requester_vpc_id}"),
        AccepterVpc=None if peering is None else call.arn(f"vpc/{peering.accepter_vpc_id}"),
    )
    return Ask(f"ec2:{call.action}", call.arn(f"vpc-peering-connection/{peering_id}"), context)


# -- create ------------------------------------------------------------------------------------------------------------


@operation("ec2", asks=_ask_create)
def create_network_insights_path(call: Call, quotas: Quotas = AWS_QUOTAS) -> Outcome:
    """A question that can be asked again and again. What it begins and ends at has to exist now.

    Raises NetworkInsightsSource.NotFound, NetworkInsightsDestination.NotFound, MissingParameter,
    InvalidParameterCombination, InvalidParameterValue, NetworkInsightsPath.LimitExceeded.
    """
    asked = call.parameters
    _check_combination(asked)
    at_source = _header_filter(asked.get("FilterAtSource"), "filterAtSource")
    at_destination = _header_filter(asked.get("FilterAtDestination"), "filterAtDestination")
    path = NetworkInsightsPath(
        id=call.new_id("nip"),
        source=_end(call, "Source"),
        destination=_end(call, "Destination") if asked.get("Destination") else "",
        source_ip=_address(asked.get("SourceIp"), "sourceIp"),
        destination_ip=_address(asked.get("DestinationIp"), "destinationIp"),
        protocol=_protocol(asked["Protocol"]),
        destination_port=asked.get("DestinationPort"),
        at_source=at_source,
        at_destination=at_destination,
        created_at=call.now,
        tags=tags_from(asked, PATH),
    )
    _check_meaning(path)
    if len(call.world.insights_paths) >= quotas.insights_paths_per_region:
        raise ApiError("NetworkInsightsPath.LimitExceeded", "The maximum number of network insights paths is reached.")
    return Outcome({"NetworkInsightsPath": path_item(call.world, path)}, call.change(path))


def _check_combination(asked: Mapping[str, Any]) -> None:
    """What may not stand together (EC2 API Reference, CreateNetworkInsightsPath)."""
    excluded = {"FilterAtSource": ("SourceIp", "DestinationPort"), "FilterAtDestination": ("DestinationIp",)}
    for name, others in excluded.items():
        for other in others:
            if asked.get(name) and asked.get(other) is not None:
                pair = f"{other[0].lower()}{other[1:]} cannot be used with the parameter {name[0].lower()}{name[1:]}"
                raise ApiError("InvalidParameterCombination", f"The parameter {pair}")


def _check_meaning(path: NetworkInsightsPath) -> None:
    filters = [one for one in (path.at_source, path.at_destination) if one is not None]
    destinations = [path.destination_ip, *(one.destination_address for one in filters)]
    if not path.destination and not any(destinations):
        raise ApiError("MissingParameter", "The request must contain the parameter destination or destinationIp")
    if path.source == path.destination:
        raise _bad("destination", path.destination, "It is the source as well.")
    given = [path.source_ip, *destinations, *(one.source_address for one in filters)]
    if len({":" in one for one in given if one}) > 1:
        raise ApiError("InvalidParameterCombination", "The addresses of a path must be of one family, IPv4 or IPv6.")


def _end(call: Call, name: Literal["Source", "Destination"]) -> str:
    """The id of what a path begins or ends at."""
    text: str = call.parameters[name]
    resource_id = id_in(call.world, text)
    prefix = resource_id.partition("-")[0]
    if prefix not in ENDS:
        valid = "It must be the ID or ARN of an instance, network interface, VPC peering connection or EC2 Instance "
        raise _bad(name.lower(), text, f"{valid}Connect Endpoint of this account and Region.")
    world = call.world
    looked_up = (world.instance, world.interface, world.endpoint, lambda one: present(world.peering(one), call.now))
    if all(look_up(resource_id) is None for look_up in looked_up):
        raise ApiError(f"NetworkInsights{name}.NotFound", f"The {name.lower()} '{resource_id}' does not exist")
    return resource_id


def _address(text: str | None, name: str) -> str:
    if not text:
        return ""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        raise _bad(name, text, "It must be an IPv4 or IPv6 address.") from None
    if isinstance(found, ipaddress.IPv6Address) and found.scope_id is not None:
        raise _bad(name, text, "It must be an IPv4 or IPv6 address.")
    return str(found)


def _protocol(text: str) -> Literal["tcp", "udp"]:
    match text.lower():
        case "tcp":
            return "tcp"
        case "udp":
            return "udp"
    raise _bad("protocol", text, "Valid values: tcp, udp.")


def _header_filter(given: Mapping[str, Any] | None, name: str) -> HeaderFilter | None:
    if not given:
        return None
    return HeaderFilter(
        source_address=_address(given.get("SourceAddress"), f"{name}.sourceAddress"),
        source_ports=_port_range(given.get("SourcePortRange"), f"{name}.sourcePortRange"),
        destination_address=_address(given.get("DestinationAddress"), f"{name}.destinationAddress"),
        destination_ports=_port_range(given.get("DestinationPortRange"), f"{name}.destinationPortRange"),
    )


def _port_range(given: Mapping[str, Any] | None, name: str) -> Span | None:
    if not given:
        return None
    first, last = given.get("FromPort"), given.get("ToPort")
    if first is None or last is None:
        missing = "fromPort" if first is None else "toPort"
        raise ApiError("MissingParameter", f"The request must contain the parameter {name}.{missing}")
    if first > last:
        raise _bad(name, f"{first}-{last}", "The first port must not be above the last one.")
    return first, last


def _bad(name: str, value: str, why: str) -> ApiError:
    return ApiError("InvalidParameterValue", f"Value ({value}) for parameter {name} is invalid. {why}")


# -- describe and delete -----------------------------------------------------------------------------------------------


def path_item(world: World, path: NetworkInsightsPath) -> dict[str, Any]:
    """A path as a NetworkInsightsPath of the API."""
    item: dict[str, Any] = {
        "NetworkInsightsPathId": path.id,
        "NetworkInsightsPathArn": f"arn:{world.partition}:ec2:{world.region}:{world.account_id}:{PATH}/{path.id}",
        "CreatedDate": moment(path.created_at),
        "Source": path.source,
        "SourceArn": arn_of(world, path.source),
        "Protocol": path.protocol,
        "Tags": tag_list(path.tags),
    }
    if path.destination:
        item |= {"Destination": path.destination, "DestinationArn": arn_of(world, path.destination)}
    optional = {
        "SourceIp": path.source_ip,
        "DestinationIp": path.destination_ip,
        "FilterAtSource": path.at_source and _filter_item(path.at_source),
        "FilterAtDestination": path.at_destination and _filter_item(path.at_destination),
    }
    item |= {name: value for name, value in optional.items() if value}
    return item | ({} if path.destination_port is None else {"DestinationPort": path.destination_port})


def _filter_item(one: HeaderFilter) -> dict[str, Any]:
    def ports(span: Span | None) -> dict[str, int] | None:
        return None if span is None else {"FromPort": span[0], "ToPort": span[1]}

    members = {
        "SourceAddress": one.source_address,
        "SourcePortRange": ports(one.source_ports),
        "DestinationAddress": one.destination_address,
        "DestinationPortRange": ports(one.destination_ports),
    }
    return {name: value for name, value in members.items() if value}


@operation("ec2")
def describe_network_insights_paths(call: Call) -> Outcome:
    """The paths of the account."""
    world, ids = call.world, call.parameters.get("NetworkInsightsPathIds")
    paths = resources.several(INSIGHTS_PATH, world, ids) if ids else world.insights_paths
    chosen = common.select(paths, call.parameters.get("Filters"), _FILTERS)
    shown, following = resources.paged(call, chosen, lambda one: one.id, minimum=1, maximum=100)
    return Outcome({"NetworkInsightsPaths": [path_item(world, one) for one in shown]} | following)


def _filters() -> dict[str, Callable[[NetworkInsightsPath], Any]]:
    def ports(span: Span | None) -> str | None:
        return None if span is None else f"{span[0]}-{span[1]}"

    found: dict[str, Callable[[NetworkInsightsPath], Any]] = {
        "destination": lambda one: one.destination or None,
        "protocol": lambda one: one.protocol,
        "source": lambda one: one.source,
        **TAG_GETTERS,
    }
    sides: dict[str, Callable[[NetworkInsightsPath], HeaderFilter]] = {
        "source": lambda one: one.at_source or HeaderFilter(),
        "destination": lambda one: one.at_destination or HeaderFilter(),
    }
    for name, side in sides.items():
        of: dict[str, Callable[[HeaderFilter], Any]] = {
            "source-address": lambda one: one.source_address or None,
            "source-port-range": lambda one: ports(one.source_ports),
            "destination-address": lambda one: one.destination_address or None,
            "destination-port-range": lambda one: ports(one.destination_ports),
        }
        for member, get in of.items():
            found[f"filter-at-{name}.{member}"] = lambda one, side=side, get=get: get(side(one))  # type: ignore[misc]
    return found


_FILTERS: Final = _filters()


@operation("ec2", asks=_ask_path)
def delete_network_insights_path(call: Call) -> Outcome:
    """Forget a question that has no answers any more. Raises AnalysisExistsForNetworkInsightsPath."""
    path = existing_path(call)
    analyses = [one for one in current(call.world, call.now) if one.path_id == path.id]
    if analyses:
        raise ApiError(
            "AnalysisExistsForNetworkInsightsPath",
            f"The network insights path '{path.id}' has analyses ({analyses[0].id}). Delete them first.",
        )
    deletes = [(PATH, path.id), *outlived(call.world, call.now)]
    return Outcome({"NetworkInsightsPathId": path.id}, call.change(deletes=deletes))
