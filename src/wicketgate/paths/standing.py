"""Would a connection that stands be let in now? Asked where revocation is immediate (`World.revocation`)."""

from __future__ import annotations

import dataclasses

import msgspec

from wicketgate.model import Step, Verdict, World
from wicketgate.paths.judge import Flow, judge_flow


def standing(world: World, flow: Flow) -> Verdict:
    """The verdict on the first packet of a connection that began earlier, by the present rules.

    What source address an endpoint connects from is decided when a tunnel opens: client IP preservation that was
    switched since is no reason to end it.
    """
    if world.endpoint_of_interface(flow.sender.id) is not None:
        unchecked = msgspec.structs.replace(flow.sender, source_dest_check=False)
        flow = dataclasses.replace(flow, sender=unchecked)
    return judge_flow(world, flow)


def standing_tunnel(world: World, *, endpoint_id: str, address: str, port: int, source_address: str) -> Verdict:
    """The same for a tunnel's connection; `source_address` is what its target sees."""
    endpoint = world.endpoint(endpoint_id)
    if endpoint is None:
        return Verdict((Step("endpoint", False, f"{endpoint_id} does not exist", endpoint_id),))
    sender = world.interface(endpoint.interface_id)
    assert sender is not None, "World.check has seen to it"
    vpc = world.vpc_of_subnet(endpoint.subnet_id)
    receiver = world.interface_at(vpc.id, address)
    if receiver is None:
        return Verdict((Step("route", False, f"no network interface of {vpc.id} has {address}", vpc.id),))
    return standing(world, Flow(sender, receiver, source_address, 6, port, destination_address=address))
