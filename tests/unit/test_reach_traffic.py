"""Who reaches an address within VPCs and across peerings, against the judge of single packets."""

import random

import pytest

from tests.net.random_flows import random_plans
from tests.net.random_worlds import random_world
from wicketgate import paths
from wicketgate.explain.reach_network import targets_of
from wicketgate.explain.reach_traffic import arriving
from wicketgate.explain.region import span_of
from wicketgate.paths.routes import hop


def told(world, flow):
    """Whether the packet is in what arrives, and the arrival that has it."""
    target = next(one for one in targets_of(world, flow.receiver) if one.address == flow.destination)
    own = flow.source_address in flow.sender.addresses
    port = flow.port << 8 | flow.code if flow.protocol in (1, 58) else flow.port
    point = span_of(flow.source_address)[0], flow.protocol, port
    for arrival in arriving(world, target):
        if any(
            one.interface == flow.sender.id and one.address == (flow.source_address if own else "")
            for one in arrival.senders
        ):
            return point in arrival.region, arrival
    return False, None


@pytest.mark.parametrize("seed", range(60))
def test_what_arrives_is_what_the_judge_lets_through(seed):
    """Random packets of random Worlds: of both families, across peerings, forged, of every protocol."""
    drawn = random.Random(seed)
    world = random_world(drawn)
    for plan in random_plans(drawn, world, 40):
        flow = plan.flow(world)
        if world.endpoint_of_interface(flow.sender.id) is not None or flow.destination not in flow.receiver.addresses:
            continue
        found, arrival = told(world, flow)
        assert found is paths.judge_flow(world, flow).passed, flow
        if found and flow.source_address in flow.sender.addresses:
            back = hop(world, flow.receiver, flow.sender, flow.source_address)
            assert arrival.answered is back.arrives
            assert arrival.peering == (back.peering.id if back.peering else arrival.peering)


def test_enough_of_it_arrives():
    """Within the VPC, across a peering, forged, unanswered: everything occurs."""
    seen = set()
    for seed in range(60):
        world = random_world(random.Random(seed))
        for eni in world.interfaces:
            for target in targets_of(world, eni):
                for one in arriving(world, target):
                    seen.add((bool(one.peering), one.answered, bool(one.senders[0].address)))
    assert seen == {(False, True, True), (True, True, True), (True, False, True), (False, False, False)}
