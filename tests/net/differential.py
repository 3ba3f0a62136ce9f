"""Random Worlds and flows: what the pure reading says, what the model says, and what the kernel did with a real SYN."""

from collections import Counter
from dataclasses import dataclass, field
from random import Random

import msgspec
from hypothesis import strategies as st

from tests.net.worlds import CLIENT, VPC, attempt, listening, rule, world
from wicketgate import rules
from wicketgate.paths import Flow, judge_flow

GROUPS = ("endpoint", "a", "b", "c")
PORTS = (22, 80, 8080)
INSTANCES = ("m-1", "m-2", "m-3", "m-4")

_RANGES = [(22, 22), (80, 80), (0, 65535), (22, 80), (80, 9000), (443, 443), (8080, 8080)]
_TO = ["0.0.0.0/0", "10.0.1.0/24", "10.0.1.8/30", "sg:a", "sg:b", "sg:c"]
_FROM = ["0.0.0.0/0", "10.0.1.0/24", "10.0.1.12/31", "203.0.113.0/24", "sg:endpoint", "sg:endpoint", "sg:a", "sg:b"]


@st.composite
def worlds(draw):
    """A VPC with random rules, memberships and client IP preservation.

    Hypothesis draws the seed and an ordinary generator the World: its own draws repeat small values so often that a
    run's flows would be too much alike.
    """
    random = Random(draw(st.integers(0, 2**64)))

    def some(direction, peers, count):
        protocols = random.choices(["tcp", "udp", "-1"], [6, 1, 1], k=count)
        return [rule(direction, protocol, random.choice(_RANGES), random.choice(peers)) for protocol in protocols]

    groups = {name: some("out", _TO, random.randint(1, 3)) + some("in", _FROM, random.randint(1, 2)) for name in GROUPS}
    members = {name: random.sample(["a", "b", "c"], random.randint(1, 3)) for name in INSTANCES}
    endpoint_groups = random.choice([("endpoint",), ("endpoint", "a")])
    return world(groups, members, preserve=random.random() < 0.5, endpoint_groups=endpoint_groups)


@dataclass
class Tally:
    """How the flows of a run ended; a run that only ever passes or only ever fails proves little."""

    outcomes: Counter = field(default_factory=Counter)

    @property
    def flows(self):
        """Flows tried."""
        return sum(self.outcomes.values())


class Mismatch(AssertionError):
    """Reading, model and kernel disagree."""


def compare(fabric, made, tally, revision):
    """Try every flow from the endpoint and from two instances; raise Mismatch at the first disagreement."""
    random = Random(made.to_json())  # the same World means the same flows: hypothesis runs a failure again
    made = msgspec.structs.replace(made, revision=revision)
    fabric.apply(made)
    ruleset = rules.compile_vpc(made, VPC)
    with listening(made, PORTS):
        for sender in made.interfaces[:3]:
            for receiver in made.interfaces[1:]:
                if receiver is not sender:
                    tally.outcomes[_one(fabric, made, ruleset, (sender, receiver), random.choice(PORTS))] += 1


def _one(fabric, made, ruleset, pair, port):
    sender, receiver = pair
    endpoint = made.endpoint_of_interface(sender.id)
    kept = endpoint is not None and endpoint.preserve_client_ip
    source = CLIENT if kept else sender.private_ip_address
    verdict = judge_flow(made, Flow(sender, receiver, source, 6, port))
    packet = rules.Packet(sender.link, receiver.link, source, receiver.private_ip_address, 6, port)
    model = rules.walk(ruleset, packet)
    before = fabric.counters(VPC)
    outcome = attempt(made, sender, receiver.private_ip_address, port, wait=0.02)
    after = fabric.counters(VPC)
    stopped = {name for name in after if after[name] > before.get(name, 0) and "_stop_" in name}
    seen = "pass" if outcome == "connected" else ",".join(sorted(stopped)) or outcome
    step = verdict.failure
    said = "pass" if step is None else _counter_of(step.name, sender, receiver)
    ran = "pass" if model.outcome == "accept" else ",".join(name for name in model.counted if "_stop_" in name)
    if not said == ran == seen:
        raise Mismatch(f"{packet}\nreading: {said} ({verdict})\nmodel: {ran} ({model})\nkernel: {seen} ({outcome})")
    refused_at_once = endpoint is None or outcome in ("connected", "EHOSTUNREACH")
    if not refused_at_once:
        raise Mismatch(f"{packet}\na dial of the endpoint ended as {outcome}")
    return "pass" if step is None else "sender" if "snd_" in seen else "receiver"


def _counter_of(step_name, sender, receiver):
    return f"rcv_stop_{receiver.link}" if step_name == "target-inbound" else f"snd_stop_{sender.link}"
