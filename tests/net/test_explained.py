"""Explanations, their remedies and the kernel: the same connections pass, and a remedy opens what it says alone."""

import dataclasses
import importlib

import msgspec
import pytest

from tests.net.explained import Wrong, run, run_across
from wicketgate.explain import allowed, opened, sent
from wicketgate.paths.groups import Packet
from wicketgate.rules import groups

pytestmark = pytest.mark.once

SEED = "explained"
WORLDS = 26
"""Twenty seconds' worth of work."""

remedies = importlib.import_module("wicketgate.explain.remedies")
steps = importlib.import_module("wicketgate.explain.steps")
"""The modules; in the package their names are those of their functions."""


@pytest.fixture(autouse=True)
def cells_however_few(monkeypatch):
    """A single rule that overlaps no other is a cell: the groups here are small."""
    monkeypatch.setattr(groups, "FEWEST_CELLS", 1)


@pytest.mark.slow
def test_explanations_and_remedies_agree_with_the_kernel():
    """What passes by the explanation connects, what fails is stopped where it says, each remedy lets it pass, and all
    else that passes then is what the remedy says."""
    tally = run(SEED, worlds=WORLDS)
    print(f"seed {SEED!r}: {tally}")
    assert tally.outcomes.total() >= 300
    for kind, least in (("pass", 60), ("endpoint-outbound", 40), ("target-inbound", 40), ("both", 40)):
        assert tally.outcomes[kind] >= least, kind
    assert tally.outcomes["source-address"] >= 8
    assert tally.outcomes["target"] >= 8
    assert tally.dialled["connected"] == tally.outcomes["pass"]
    assert tally.dialled["EHOSTUNREACH"] >= 40
    assert tally.dialled["EACCES"] >= 40
    assert tally.remedies.total() >= 100
    assert tally.remedies["rules"] >= 90
    assert tally.remedies["preservation"] + tally.remedies["both"] >= 4
    assert tally.wide >= 50
    assert tally.wide <= tally.remedies.total() - 5, "some open nothing else"
    assert tally.gained >= 500


@pytest.mark.slow
def test_what_opens_across_a_peering_is_said():
    """A rule for a client's address lets in the machine of a peered VPC that has the same one."""
    assert run_across(SEED, worlds=2).peered == 2


@pytest.mark.slow
def test_who_looks_at_one_vpc_is_caught(monkeypatch):
    """What opens across a peering connection is missed by whoever does not look there."""

    def wrong(before, after, vpc_id):
        for gain in opened.gains(before, after, vpc_id):
            if {after.vpc_of_subnet(one.subnet_id).id for one in (gain.sender, gain.receiver)} == {vpc_id}:
                yield gain

    monkeypatch.setattr(remedies, "gains", wrong)
    with pytest.raises(Wrong):
        run_across(SEED, worlds=2)


# -- wrong explainers --------------------------------------------------------------------------------------------------


def _next_port(monkeypatch):
    """A remedy's rule is for the port beside."""
    right = remedies._rule

    def wrong(asked, group, **peer):
        way = right(asked, group, **peer)
        (put,) = way.puts
        *rest, new = put.rules
        new = msgspec.structs.replace(new, from_port=new.from_port + 1, to_port=new.to_port + 1)
        return remedies._Way(way.commands, (msgspec.structs.replace(put, rules=(*rest, new)),))

    monkeypatch.setattr(remedies, "_rule", wrong)


def _one_receiver(monkeypatch):
    """Of receivers that are alike only the first one is told about."""

    def wrong(before, after, vpc_id):
        told = set()
        for gain in opened.gains(before, after, vpc_id):
            key = gain.sender.id, frozenset(gain.receiver.group_ids)
            if key not in told:
                told.add(key)
                yield gain

    monkeypatch.setattr(remedies, "gains", wrong)


def _only_new_pairs(monkeypatch):
    """Between interfaces between which something passed before, nothing is told about."""

    def wrong(before, after, vpc_id):
        for gain in opened.gains(before, after, vpc_id):
            pair = gain.sender, gain.receiver
            if not any(sent.sent(before, *pair, address) for address in gain.receiver.addresses):
                yield gain

    monkeypatch.setattr(remedies, "gains", wrong)


def _whole_target(monkeypatch):
    """What else opens to the target's other addresses is not told about."""
    right = remedies._wanted
    monkeypatch.setattr(remedies, "_wanted", lambda *where: dataclasses.replace(right(*where), address=""))


def _own_source(monkeypatch):
    """The target is thought to see the endpoint's address always."""
    right = steps.source_of
    monkeypatch.setattr(steps, "source_of", lambda *where: (right(*where)[1],) * 2)


def _inbound_by_any_reference(monkeypatch):
    """Inbound references are thought to hold for every interface."""
    right = steps.covering

    def wrong(world, group_ids, packet, *, egress):
        everybody = frozenset(group.id for group in world.groups)
        inbound = Packet(packet.protocol, packet.port, packet.code, packet.peer, everybody)
        return right(world, group_ids, packet if egress else inbound, egress=egress)

    monkeypatch.setattr(steps, "covering", wrong)


def _no_lists(monkeypatch):
    """Prefix lists are thought to allow nothing when it is computed what a change opens."""
    right = allowed.peers_of

    def wrong(world, group, rule, peers):
        return () if rule.prefix_list_id else right(world, group, rule, peers)

    monkeypatch.setattr(allowed, "peers_of", wrong)


@pytest.mark.slow
@pytest.mark.parametrize(
    "mistake",
    [_next_port, _one_receiver, _only_new_pairs, _whole_target, _own_source, _inbound_by_any_reference, _no_lists],
    ids=lambda one: one.__name__.strip("_"),
)
def test_a_wrong_explainer_is_caught(monkeypatch, mistake):
    """What an explainer with one mistake says does not survive a run."""
    mistake(monkeypatch)
    with pytest.raises(Wrong):
        run(SEED, worlds=WORLDS)
