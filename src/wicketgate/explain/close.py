"""Why a tunnel's connection does not come about, in one line: what a gateway tells whom it closes a tunnel to."""

from __future__ import annotations

from wicketgate.explain.answer import Say
from wicketgate.explain.question import Way
from wicketgate.explain.report import one_line
from wicketgate.explain.steps import network_steps
from wicketgate.explain.words import text
from wicketgate.model import World


def why_not(world: World, *, endpoint_id: str, address: str, port: int, client_address: str) -> str:
    """The first step of the packets that fails, in English; empty when the World lets them all pass.

    The words are those of `wicketgate explain`: it is the same step. Addresses are in canonical text.
    """
    endpoint = world.endpoint(endpoint_id)
    if endpoint is None:
        return text(Say("endpoint-gone", {"endpoint": endpoint_id}))
    vpc = world.vpc_of_subnet(endpoint.subnet_id)
    interface = world.interface_at(vpc.id, address)
    way = Way(
        vpc=vpc,
        address=address,
        interface=interface,
        instance=None if interface is None else world.instance_of_interface(interface.id),
        port=port,
        source_ip=client_address,
    )
    return one_line(tuple(network_steps(world, endpoint, way)))
