"""Instances: start, stop, terminate, modify; and `settle`, which ends what those began.

(RunInstances stands in `launches`, what is shown in `instance_answers`; both are offered by importing this module.)
The actions put a state on the way, and once the machine has followed, the server commits what `settle` says:

    pending -> running | stopped (when it did not start)
    stopping -> stopped
    shutting-down -> terminated        its interfaces go with it, unless they were made by themselves

A terminated instance has no interface any more; its VPC remembers it (`Vpc.terminated_instances`) for an hour, as
AWS shows one for a while, and until the VPC is deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

import msgspec

from wicketgate.control import attachments, interfaces, resources
from wicketgate.control import images as _images  # noqa: F401  # offers DescribeImages
from wicketgate.control import launches as _launches  # noqa: F401  # offers RunInstances
from wicketgate.control.call import Ask, Call, Outcome, operation
from wicketgate.control.common import AWS_QUOTAS, Quotas
from wicketgate.control.instance_answers import CODES, State, instance_or_ended, state_answer
from wicketgate.control.resources import INSTANCE, moment, subnet_of
from wicketgate.model import ApiError, Change, Instance, NetworkInterface, World
from wicketgate.model.change import Resource

SHOWN_AFTER_END: Final = 3600.0
"""Seconds for which a terminated instance is described; AWS says "a short time, usually less than one hour"."""
_BY_USER: Final = "Client.UserInitiatedShutdown: Client.UserInitiatedShutdown: User initiated shutdown"

_OFF: Final = ("DisableApiTermination", "DisableApiStop", "EbsOptimized")
"""Attributes that may be set to what they always are."""


# -- start, stop, terminate --------------------------------------------------------------------------------------------


def _ask_of_instances(call: Call) -> Sequence[Ask]:
    ids = dict.fromkeys(call.parameters.get("InstanceIds") or ())
    return [resources.about_instance(call, call.action, instance_id) for instance_id in ids]


@operation("ec2", asks=_ask_of_instances)
def start_instances(call: Call) -> Outcome:
    """stopped -> pending. Running and pending ones stay as they are; else IncorrectInstanceState.

    UnsupportedOperation for machines that exist without us, in StopInstances too.
    """

    def started(instance: Instance) -> Instance:
        _check_ours(instance, "started")
        if instance.state in ("pending", "running"):
            return instance
        if instance.state != "stopped":
            raise ApiError(
                "IncorrectInstanceState",
                f"The instance '{instance.id}' is not in a state from which it can be started.",
            )
        return msgspec.structs.replace(
            instance, state="pending", launched_at=call.now, state_reason="", transition_reason=""
        )

    return _transition(call, started, "StartingInstances")


@operation("ec2", asks=_ask_of_instances)
def stop_instances(call: Call) -> Outcome:
    """running -> stopping. Stopping and stopped ones stay as they are; else IncorrectInstanceState."""
    resources.refuse_parameters(call.parameters, ("Hibernate",), "StopInstances")

    def stopped(instance: Instance) -> Instance:
        _check_ours(instance, "stopped")
        if instance.state in ("stopping", "stopped"):
            return instance
        if instance.state == "pending":
            raise ApiError(
                "IncorrectInstanceState",
                f"Instance '{instance.id}' cannot be stopped as it has never reached the 'running' state.",
            )
        if instance.state != "running":
            raise ApiError(
                "IncorrectInstanceState",
                f"This instance '{instance.id}' is not in a state from which it can be stopped.",
            )
        return _by_user(instance, "stopping", call.now)

    return _transition(call, stopped, "StoppingInstances")


@operation("ec2", asks=_ask_of_instances)
def terminate_instances(call: Call) -> Outcome:
    """Any state -> shutting-down; what has ended stays so."""

    def ended(instance: Instance) -> Instance:
        return instance if CODES[instance.state] in (32, 48) else _by_user(instance, "shutting-down", call.now)

    return _transition(call, ended, "TerminatingInstances")


def _check_ours(instance: Instance, what: str) -> None:
    if instance.is_external:
        raise ApiError(
            "UnsupportedOperation",
            f"The instance '{instance.id}' is a machine that exists by itself: it cannot be {what} from here.",
        )


def _by_user(instance: Instance, state: State, now: float) -> Instance:
    when = f"User initiated ({moment(now):%Y-%m-%d %H:%M:%S} GMT)"
    return msgspec.structs.replace(instance, state=state, state_reason=_BY_USER, transition_reason=when)


def _transition(call: Call, step: Callable[[Instance], Instance], member: str) -> Outcome:
    """Takes the step for each instance named, all or none."""
    ids = call.parameters.get("InstanceIds")
    if not ids:
        raise ApiError("MissingParameter", "The request must contain the parameter InstanceId")
    before = resources.several(INSTANCE, call.world, ids, get=instance_or_ended)
    after = [step(instance) for instance in before]
    changes = [
        {"InstanceId": old.id, "CurrentState": state_answer(new), "PreviousState": state_answer(old)}
        for old, new in zip(before, after, strict=True)
    ]
    moved = [new for old, new in zip(before, after, strict=True) if new is not old]
    return Outcome({member: changes}, call.change(*moved))


# -- modify ------------------------------------------------------------------------------------------------------------


def _ask_modify(call: Call) -> Sequence[Ask]:
    return (
        resources.about_instance(call, "ModifyInstanceAttribute", call.parameters["InstanceId"]),
        *resources.about_groups(call, "ModifyInstanceAttribute", call.parameters.get("Groups") or ()),
    )


@operation("ec2", asks=_ask_modify)
def modify_instance_attribute(call: Call, quotas: Quotas = AWS_QUOTAS) -> Outcome:
    """Sets the groups (the whole set) or the source/destination check of the instance's one interface.

    Raises InvalidParameterCombination for none or several attributes, UnsupportedOperation for others,
    IncorrectInstanceState for a terminated instance, InvalidInstanceID for one with several interfaces.
    """
    parameters = call.parameters
    (instance,) = resources.several(INSTANCE, call.world, (parameters["InstanceId"],), get=instance_or_ended)
    given = {
        name: value
        for name, value in parameters.items()
        if name not in ("InstanceId", "DryRun", "Attribute", "Value") and value not in (None, [])
    }
    if parameters.get("Attribute"):
        attribute = parameters["Attribute"]
        given[attribute[:1].upper() + attribute[1:]] = {"Value": (parameters.get("Value") or "").lower() == "true"}
    attribute = resources.one_attribute(given, given)
    if attribute in _OFF and not given[attribute].get("Value"):
        return Outcome()
    if attribute not in ("Groups", "SourceDestCheck"):
        raise ApiError("UnsupportedOperation", f"The attribute {attribute} of an instance cannot be changed here.")
    interface = _only_interface(call.world, instance)
    if attribute == "Groups":
        changed = interfaces.replaced_groups(call.world, interface, given["Groups"], quotas)
        return Outcome({}, call.change(changed))
    check = bool(given["SourceDestCheck"].get("Value"))
    return Outcome({}, call.change(msgspec.structs.replace(interface, source_dest_check=check)))


def _only_interface(world: World, instance: Instance) -> NetworkInterface:
    there = world.interfaces_of_instance(instance)
    if not there:
        raise ApiError("IncorrectInstanceState", f"The instance '{instance.id}' is terminated: it has no interface.")
    if len(there) > 1:
        raise ApiError(
            "InvalidInstanceID",
            f"There are multiple interfaces attached to instance '{instance.id}'. "
            "Please specify an interface ID for the operation instead.",
        )
    return there[0]


# -- what follows ------------------------------------------------------------------------------------------------------


def settle(
    world: World, now: float, done: Collection[str] | None = None, failed: Mapping[str, str] | None = None
) -> Change:
    """The Change that ends transitions which the machines have followed; empty when there is nothing to end.

    `done`: ids of instances whose machine has followed; None = of all in this World. `failed`: id -> reason, of pending
    ones whose machine did not start: they end in `stopped` with the reason shown, so that they can be started again.
    Terminated instances that were shown for an hour are forgotten.
    """
    change = _Settled(world, now)
    for instance in world.instances:
        reason = (failed or {}).get(instance.id)
        if instance.state == "pending" and reason is not None:
            change.puts[instance.id] = msgspec.structs.replace(
                instance, state="stopped", state_reason=f"Server.InternalError: {reason}"
            )
        elif reason is None and (done is None or instance.id in done):
            change.follow(instance)
    change.forget()
    return Change(puts=tuple(change.puts.values()), deletes=tuple(change.deletes), time=now)


class _Settled:
    """Puts and deletes, gathered."""

    def __init__(self, world: World, now: float) -> None:
        self.world, self.now = world, now
        self.puts: dict[str, Resource] = {}
        self.deletes: list[tuple[str, str]] = []
        self.ended = {vpc.id: vpc.terminated_instances for vpc in world.vpcs}

    def follow(self, instance: Instance) -> None:
        """End the transition that the instance is in, if any."""
        if instance.state == "pending":
            self.puts[instance.id] = msgspec.structs.replace(instance, state="running")
        elif instance.state == "stopping":
            self.puts[instance.id] = msgspec.structs.replace(instance, state="stopped")
        elif instance.state == "shutting-down":
            self.end(instance)

    def end(self, instance: Instance) -> None:
        """Take the instance out, and its interfaces, or leave them attached to nothing."""
        vpc_id = subnet_of(self.world, resources.interface_of(self.world, instance)).vpc_id
        over = msgspec.structs.replace(instance, state="terminated", interface_id="", terminated_at=self.now)
        self.ended[vpc_id] = (*self.ended[vpc_id], over)
        self.deletes.append(("instance", instance.id))
        for interface in self.world.interfaces_of_instance(instance):
            if interface.delete_on_termination:
                self.deletes.append(("network-interface", interface.id))
            else:
                self.puts[interface.id] = attachments.detached(interface)
        mine = (one for one in self.world.machine_credentials if one.instance_id == instance.id)
        self.deletes += [("machine-credential", one.id) for one in mine]

    def forget(self) -> None:
        """Keep, of the terminated ones, those that are still shown."""
        for vpc in self.world.vpcs:
            kept = tuple(one for one in self.ended[vpc.id] if self.now - one.terminated_at < SHOWN_AFTER_END)
            if kept != vpc.terminated_instances:
                self.puts[vpc.id] = msgspec.structs.replace(vpc, terminated_instances=kept)
