"""Flows that are tried, packets that are sent for them, and how a run of them ended."""

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from tests.net.conversations import ANSWERS
from wicketgate.model import SecurityGroupRule, Verdict
from wicketgate.paths.routes import in_vpc


class Mismatch(AssertionError):
    """Reading, model and kernel disagree."""

    def __init__(self, plans, words):
        super().__init__("\n".join([*map(str, plans), words]))
        self.plans = plans


@dataclass
class Tally:
    """How the packets of a run ended, and what decided; a run that only ever passes or fails proves little."""

    outcomes: Counter = field(default_factory=Counter)
    """Where flows' first packets ended: `pass`, `sender`, `receiver`, `route`."""
    later: Counter = field(default_factory=Counter)
    """(kind, where it ended) of answers, later packets and ICMP errors."""
    sources: Counter = field(default_factory=Counter)
    """Kinds of source or destination of rules that admitted a flow."""
    protocols: Counter = field(default_factory=Counter)
    connections: Counter = field(default_factory=Counter)
    """Outcomes of connections that real sockets tried."""
    expired: int = 0
    """Packets that expired at the router."""
    natures: Counter = field(default_factory=Counter)
    """Flows by how many sides track them."""

    @property
    def flows(self):
        """Flows tried."""
        return sum(self.outcomes.values())


@dataclass
class Trial:
    """A flow, and what is known of it in a World."""

    plan: Any
    answered: bool
    sides: Any = None
    own: bool = False
    """Whether it was sent under an address of its sender's."""
    marks: dict = field(default_factory=dict)
    """VPC -> the connection's mark there, once its first packet has passed; by the model."""
    decided_by: str = ""
    """The rule that decided last, by the model."""
    replied: set = field(default_factory=set)
    """VPCs that have seen an answer."""


@dataclass
class Shot:
    """One packet to send, and what reading and model say of it."""

    trial: Trial
    kind: str
    sender: Any
    receiver: Any
    packets: Any
    """number -> the packets, more than one for fragments."""
    verdict: Verdict
    counted: list | None
    """(VPC, counter) that the model says rise; None when the kernel's routes end it and no model knows."""
    told: bool | None
    """Whether the sender gets an ICMP error; None = either is right."""


def where_seen(shot):
    """Where something must be seen of a packet."""
    if shot.verdict.passed:
        return shot.receiver.link
    return shot.sender.link if shot.told else None


def as_said(shot, seen):
    arrived = seen - {shot.sender.link}
    told = shot.sender.link in seen
    return arrived == ({shot.receiver.link} if shot.verdict.passed else set()) and shot.told in (None, told)


def trackable(flow):
    """Whether connection tracking knows this as the beginning of a flow: of ICMP, only requests of its own family."""
    if flow.protocol in (1, 58):
        return (flow.protocol, flow.port) in ANSWERS and (flow.protocol == 58) is (":" in flow.source_address)
    return True


def of_new_owner(trial, made):
    """A flow with the addresses and ports of an earlier one whose address somebody else has now, in either direction;
    None for others, and for protocols of which connection tracking wants to see a beginning."""
    plan = trial.plan
    holders = [eni for eni in made.interfaces if {plan.source, plan.destination} & {*eni.addresses}]
    ends = {address: eni.link for eni in holders for address in eni.addresses}
    sender, receiver = ends.get(plan.source), ends.get(plan.destination)
    if plan.protocol not in (17, 47, 50, 136, 253) or None in (sender, receiver) or sender == receiver:
        return None
    if (sender, receiver) == (plan.sender, plan.receiver) or not trial.own:
        return None
    plan = replace(plan, sender=sender, receiver=receiver, fragmented=False)
    if plan.source_port % 2:
        return plan
    back = {"source": plan.destination, "destination": plan.source, "sender": receiver, "receiver": sender}
    return replace(plan, **back, port=plan.source_port, source_port=plan.port)


def returns(trial, made):
    """Whether an answer would go to whoever sent the first packet: not if it forged its source."""
    flow = trial.plan.flow(made)
    borrowed = made.endpoint_of_interface(flow.sender.id) is not None
    return borrowed or flow.source_address in flow.sender.addresses


def of_another_vpc(trial, made):
    """Whether a flow's source address is not of the VPC that it was sent in, but of another one."""
    flow = trial.plan.flow(made)
    here = made.vpc_of_subnet(flow.sender.subnet_id)
    return any(in_vpc(vpc, flow.source_address) for vpc in made.vpcs if vpc is not here)


def kind_of(one: SecurityGroupRule):
    """What kind of source or destination a rule has."""
    if one.prefix_list_id:
        return "prefix list"
    if one.referenced_group_id:
        return "peered reference" if one.referenced_vpc_id else "reference"
    if one.peer in ("0.0.0.0/0", "::/0"):
        return "any"
    return "cidr6" if one.cidr_ipv6 else "cidr4"
