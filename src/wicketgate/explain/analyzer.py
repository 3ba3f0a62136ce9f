"""Reachability Analyzer: does this reach that, which way, and if not, why not? By the code that also enforces.

A path is found when some packet that it asks about gets there (`paths.judge_flow`) and its reply comes back
(`paths.judge_packet`, by how each side tracks the connection), and when what it begins and ends at is running. IPv6 and
EC2 Instance Connect Endpoints as sources are ours; AWS's analyzer knows neither (Reachability Analyzer guide, how it
works).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from wicketgate import paths
from wicketgate.explain import analyzer_components as components
from wicketgate.explain import analyzer_explanations as explanations
from wicketgate.explain.analyzer_components import Item
from wicketgate.explain.analyzer_question import End, Probe, Wanted, ends, ends_with, probes, wanted
from wicketgate.model import NetworkInsightsPath, SecurityGroupRule, Step, Verdict, World


@dataclass(frozen=True)
class Finding:
    """What an analysis found out."""

    found: bool
    forward: tuple[Item, ...] = ()
    back: tuple[Item, ...] = ()
    explanations: tuple[Item, ...] = ()
    hints: tuple[str, ...] = ()
    """ARNs of what other paths traverse."""


@dataclass(frozen=True)
class Filters:
    """ARNs of what a path has to traverse, and of what it has to do without."""

    through: Collection[str] = ()
    without: Collection[str] = ()

    def pass_by(self, items: Sequence[Item]) -> bool:
        """Whether a way is one that was asked for."""
        traversed = _arns(items)
        return traversed.issuperset(self.through) and traversed.isdisjoint(self.without)


@dataclass
class _Tried:
    """What became of the packets that were tried."""

    ways: list[Finding] = field(default_factory=list)
    """Those that were found and asked for."""
    others: list[Finding] = field(default_factory=list)
    """Those that were found and filtered out."""
    nearest: tuple[int, Probe] | None = None
    """How many steps it passed, and the packet that got furthest."""


def analyze(world: World, path: NetworkInsightsPath, filters: Filters | None = None) -> Finding:
    """The answer to a path's question in this World."""
    filters = filters or Filters()
    asked = wanted(path)
    senders = ends(world, path.source, asked.source)
    hopeless = [explanations.plain(code) for code in asked.impossible]
    if not senders:
        hopeless.append(explanations.missing(world, path.source, "source"))
    receivers = _receivers(world, path, asked, senders)
    if not receivers and path.destination:
        hopeless.append(explanations.missing(world, path.destination, "destination"))
    elif not receivers and senders:
        hopeless.append(explanations.unknown_destination(world, senders[0], asked.destination))
    if hopeless:
        return Finding(False, explanations=tuple(hopeless))
    tried = _try_all(world, path, filters, probes(world, path, asked, senders, receivers))
    if tried.ways:
        return _with_hints(tried)
    if tried.others:
        return Finding(False, explanations=tuple(_filtered(world, filters, tried.others)))
    if tried.nearest is None:
        return Finding(False, explanations=(explanations.plain("NO_PATH"),))
    return Finding(False, explanations=tuple(explain(world, tried.nearest[1])))


def _receivers(world: World, path: NetworkInsightsPath, asked: Wanted, senders: Sequence[End]) -> tuple[End, ...]:
    if path.destination:
        return ends(world, path.destination, asked.destination)
    vpc_ids = [world.vpc_of_subnet(one.interface.subnet_id).id for one in senders]
    return ends_with(world, asked.destination, vpc_ids)


def _try_all(world: World, path: NetworkInsightsPath, filters: Filters, every: Iterator[Probe]) -> _Tried:
    """Try packets until one gets there by a way that was asked for; between single machines go on for other ways."""
    tried = _Tried()
    wide = "pcx" in (path.source[:3], path.destination[:3])
    for probe in every:
        verdict = judge(world, probe)
        if verdict.passed:
            for way in _ways(world, probe):
                (tried.ways if filters.pass_by(way.forward) else tried.others).append(way)
            if tried.ways and wide:
                break
        elif tried.nearest is None or len(verdict.steps) > tried.nearest[0]:
            tried.nearest = len(verdict.steps), probe
    return tried


def judge(world: World, probe: Probe) -> Verdict:
    """The verdict on one packet and its reply. What is not running, active or offered fails before anything is sent."""
    hindered = [Step("state", False, str(item["ExplanationCode"])) for item in explanations.states(world, probe)]
    if hindered:
        return Verdict(tuple(hindered[:1]))
    there = paths.judge_flow(world, probe.flow)
    if not there.passed:
        return there
    return there + paths.judge_packet(world, probe.flow, sides=paths.tracking(world, probe.flow), reply=True)


def explain(world: World, probe: Probe) -> Iterator[Item]:
    """Everything that hinders a packet and its reply; never nothing when the verdict fails."""
    flow, told = probe.flow, False
    for item in (*explanations.states(world, probe), *explanations.on_the_way(world, flow), *_no_return(world, flow)):
        told = True
        yield item
    if not told:
        yield explanations.plain("NO_PATH")


def _no_return(world: World, flow: paths.Flow) -> Iterator[Item]:
    """Why replies do not find back to another VPC; within one they always do."""
    if world.vpc_of_subnet(flow.sender.subnet_id) is world.vpc_of_subnet(flow.receiver.subnet_id):
        return
    back = paths.judge_packet(world, flow, sides=paths.tracking(world, flow), reply=True).failure
    if back is not None and back.name == "route":
        yield from explanations.route(world, flow.receiver, flow.sender, flow.source_address)


def _ways(world: World, probe: Probe) -> Iterator[Finding]:
    """The ways of a packet that gets there: one for each pair of groups whose rules let it out and in."""
    leaving, arriving = paths.covering(world, probe.flow)
    sides = paths.tracking(world, probe.flow)
    for out in _first_of_each_group(world, probe.sender, leaving):
        for into in _first_of_each_group(world, probe.receiver, arriving):
            yield Finding(
                True,
                components.forward(world, probe, (out, into)),
                components.back(world, probe, (out, into), sides),
            )


def _first_of_each_group(world: World, end: End, rules: Sequence[SecurityGroupRule]) -> Iterator[SecurityGroupRule]:
    seen: set[str] = set()
    for rule in rules:
        group_id = components.group_of(world, end.interface, rule).id
        if group_id not in seen:
            seen.add(group_id)
            yield rule


def _with_hints(tried: _Tried) -> Finding:
    """The shortest way, and what other ways traverse that it does not."""
    best = min(tried.ways, key=lambda one: len(one.forward))
    chosen = _arns(best.forward)
    others = {
        item["Component"]["Arn"]: None
        for way in tried.ways
        for item in way.forward
        if item["Component"]["Arn"] not in chosen
    }
    return Finding(True, best.forward, best.back, hints=tuple(others))


def _filtered(world: World, filters: Filters, ways: Sequence[Finding]) -> Iterator[Item]:
    """Which filters no way passes; when each has its ways, all of them together do not."""
    through = [arn for arn in filters.through if not any(arn in _arns(way.forward) for way in ways)]
    without = [arn for arn in filters.without if all(arn in _arns(way.forward) for way in ways)]
    if not through and not without:
        through, without = list(filters.through), list(filters.without)
    yield from (explanations.filtered(world, arn, removed=False) for arn in through)
    yield from (explanations.filtered(world, arn, removed=True) for arn in without)


def _arns(items: Sequence[Item]) -> set[str]:
    """Everything that a way traverses: its components, and the subnets and VPCs that they are in."""
    found = {item["Component"]["Arn"] for item in items}
    return found | {item[name]["Arn"] for item in items for name in ("Subnet", "Vpc") if name in item}
