"""What netd has found outside, as a Change: what subnets are bound to, and whether machines that exist answer.

Nothing is enforced by it; it is what is shown, worded and explained. An instance's state says what the last probe
found:

    running -> stopped      no answer: StateReason is `Server.Unreachable`
    stopped -> running      it answers, or it is not looked for any more

StateTransitionReason says since when. What an operator should know of a machine besides (its note) stands at the end of
the reason; a running one has a StateReason only for that, `Server.Notice`.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from wicketgate.control.resources import moment
from wicketgate.model import Change, Instance, Subnet, World
from wicketgate.model.change import Resource
from wicketgate.model.observed import Machine, Observations


def observed_change(world: World, observations: Observations, now: float) -> Change:
    """The Change after which the World shows what was observed; empty when it does already.

    Resources that are observed and are not in the World are left out: netd follows a World a moment later or earlier.
    """
    puts: list[Resource] = [*_subnets(world, observations), *_instances(world, observations)]
    return Change(puts=tuple(puts), time=now)


def _subnets(world: World, observations: Observations) -> Iterator[Subnet]:
    for subnet in world.subnets:
        attached = observations.subnets.get(subnet.id)
        if attached != subnet.attached:
            yield msgspec.structs.replace(subnet, attached=attached)


def _instances(world: World, observations: Observations) -> Iterator[Instance]:
    for instance in world.instances:
        if instance.is_external and instance.state in ("running", "stopped"):
            found = _seen(world, instance, observations.machines.get(instance.id))
            if found != instance:
                yield found


def _seen(world: World, instance: Instance, machine: Machine | None) -> Instance:
    """The instance as a probe found it; without probes nothing speaks against its being there."""
    if machine is None:
        return msgspec.structs.replace(instance, state="running", state_reason="", transition_reason="")
    since = f"{moment(machine.since):%Y-%m-%d %H:%M:%S} GMT"
    if machine.reachable:
        reason = f"Server.Notice: {machine.note}" if machine.note else ""
        return msgspec.structs.replace(
            instance, state="running", state_reason=reason, transition_reason=f"Reachable ({since})"
        )
    interface = world.interface(instance.interface_id)
    address = instance.id if interface is None else interface.addresses[0]
    words = f"{address} has not answered since {since}" + (f"; {machine.note}" if machine.note else "")
    return msgspec.structs.replace(
        instance,
        state="stopped",
        state_reason=f"Server.Unreachable: {words}",
        transition_reason=f"Unreachable ({since})",
    )
