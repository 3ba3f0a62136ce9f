"""Random Worlds and flows: what the pure reading says, what the model says, and what the kernel did with real packets.

Of each World many flows are tried at once: all first packets, then answers, then the World changes and later packets go
both ways, with ICMP errors about them. Every packet carries a number; where it arrived, and which counters rose, is
compared with the reading and the model. Only what should not arrive costs a wait, once for all.
"""

import time
from collections import Counter
from random import Random

from hypothesis import strategies as st

from tests.net.conversations import ANSWERS, ERRORS, complains, says
from tests.net.packets import fragments
from tests.net.random_flows import end_of
from tests.net.rig import connect, forget_flows, namespace_of
from tests.net.trials import (
    Mismatch,
    Shot,
    Trial,
    as_said,
    kind_of,
    of_another_vpc,
    of_new_owner,
    returns,
    trackable,
    where_seen,
)
from tests.net.worlds import rule, world
from wicketgate import rules
from wicketgate.paths import covering, judge_flow, judge_packet, tracking
from wicketgate.paths.routes import hop

GROUPS = ("endpoint", "a", "b", "c")
INSTANCES = ("m-1", "m-2", "m-3", "m-4")

_RANGES = [(22, 22), (80, 80), (0, 65535), (22, 80), (80, 9000), (443, 443), (8080, 8080)]
_TO = ["0.0.0.0/0", "10.0.1.0/24", "10.0.1.8/30", "sg:a", "sg:b", "sg:c"]
_FROM = ["0.0.0.0/0", "10.0.1.0/24", "10.0.1.12/31", "203.0.113.0/24", "sg:endpoint", "sg:endpoint", "sg:a", "sg:b"]


@st.composite
def worlds(draw):
    """A VPC with random rules, memberships and client IP preservation, for tests without a kernel.

    Hypothesis draws the seed and an ordinary generator the World: its own draws repeat small values so often that a
    run's flows would be too much alike.
    """
    random = Random(draw(st.integers(0, 2**64)))

    def some(direction, peers, number):
        protocols = random.choices(["tcp", "udp", "-1"], [6, 1, 1], k=number)
        return [rule(direction, protocol, random.choice(_RANGES), random.choice(peers)) for protocol in protocols]

    groups = {name: some("out", _TO, random.randint(1, 3)) + some("in", _FROM, random.randint(1, 2)) for name in GROUPS}
    members = {name: random.sample(["a", "b", "c"], random.randint(1, 3)) for name in INSTANCES}
    endpoint_groups = random.choice([("endpoint",), ("endpoint", "a")])
    return world(groups, members, preserve=random.random() < 0.5, endpoint_groups=endpoint_groups)


REFUSED = ("EHOSTUNREACH", "EACCES")
"""How Linux words to a socket that its packets are administratively prohibited, of IPv4 and of IPv6."""

TELLING = (1, 6, 17, 47, 50, 58, 132, 136)
"""Protocols about which Linux sends ICMP errors: of others it wants to verify a checksum that they do not have."""


class Scene:
    """A World in force, and the flows tried in it."""

    def __init__(self, rig, made, trials, tally):
        self._rig = rig
        self._tally = tally
        self._trials = trials
        self._made = made
        self._rulesets = rig.apply(made)

    def connections(self):
        """Connect with real sockets wherever a flow is TCP and does not forge its source: the reading has to know."""
        flows = [trial.plan.flow(self._made) for trial in self._trials if trial.plan.protocol == 6]
        flows = [flow for flow in flows if self._borrows(flow) or flow.source_address in flow.sender.addresses]
        # A machine reaches its own interfaces without a router.
        flows = [
            flow for flow in flows if len({namespace_of(self._made, e) for e in (flow.sender, flow.receiver)}) == 2
        ]
        attempts, wanted = [], []
        for flow in flows:
            wanted.append(self._connection(flow))
            ends = (flow.sender, flow.source_address, self._borrows(flow), flow.destination, flow.port)
            attempts.append((*ends, "nothing" not in wanted[-1]))
        for flow, outcome, answer in zip(flows, connect(self._made, attempts), wanted, strict=True):
            if outcome not in answer:
                plans = [trial.plan for trial in self._trials if trial.plan.flow(self._made) == flow]
                raise Mismatch(plans, f"connection: reading: {judge_flow(self._made, flow)}\nkernel: {outcome}")
            self._tally.connections[outcome] += 1

    def _connection(self, flow):
        """How a connection may end, by the reading: its packets there, and the answers back."""
        there = judge_flow(self._made, flow)
        if there.passed:
            back = judge_packet(self._made, flow, sides=tracking(self._made, flow), reply=True)
            return ("connected",) if back.passed else ("nothing",)
        if self._made.endpoint_of_interface(flow.sender.id) is None:
            return ("nothing",)
        told = there.failure.name in ("endpoint-outbound", "target-inbound")
        return REFUSED if told else (*REFUSED, "nothing")

    def _borrows(self, flow):
        endpoint = self._made.endpoint_of_interface(flow.sender.id)
        own = flow.source_address in flow.sender.addresses
        return not own and endpoint is not None and endpoint.preserve_client_ip

    def expiring_packets(self):
        """What expires at the router is answered, whatever the rules: its own ICMP errors always arrive."""
        plans, shots = [], []
        for trial in self._trials[::8]:
            flow = trial.plan.flow(self._made)
            forged = flow.source_address not in flow.sender.addresses
            if (
                forged
                or not trackable(flow)
                or not hop(self._made, flow.sender, flow.receiver, flow.destination).arrives
            ):
                continue
            shots.append((flow.sender.link, lambda number, flow=flow: [says(flow, number, hops=1)], flow.sender.link))
            self._tally.expired += 1
            plans.append(trial.plan)
        for plan, seen in zip(plans, self._rig.fire(shots), strict=True):
            if seen != {plan.sender}:
                raise Mismatch([plan], f"expiring packet: seen at {seen}, its sender should be told")

    def first_packets(self):
        """Send every flow's first packet; those that pass are open from then on."""
        shots = [self._first(trial) for trial in self._trials]
        self._fire(shots)
        for shot in shots:
            self._tally.outcomes[end_of(shot.verdict)] += 1
            self._tally.protocols[shot.trial.plan.protocol] += 1
            if shot.verdict.passed:
                self._note(shot.trial)

    def later_packets(self, made):
        """The World becomes another: send later packets both ways, and ICMP errors about them."""
        ended = self._made.peerings != made.peerings
        self._made = made
        self._rulesets = self._rig.apply(made)
        trials = [trial for trial in self._trials if trial.sides is not None]
        if ended:  # with a peering connection goes all that was tracked for addresses beyond it, forged ones too
            trials = [trial for trial in trials if not of_another_vpc(trial, made)]
        self._fire([self._later(trial, reply=False) for trial in trials])
        self._fire([self._later(trial, reply=True) for trial in trials if returns(trial, made)])
        some = trials[::3]
        self._fire([self._error(trial, reply=True) for trial in some if returns(trial, made)])
        self._fire([self._error(trial, reply=False) for trial in some if trial.replied])

    def new_owners(self, made):
        """Addresses go to other interfaces: what passes between them and the old peers begins anew."""
        self._made = made
        self._rulesets = self._rig.apply(made)
        plans = [of_new_owner(trial, made) for trial in self._trials if trial.sides is not None]
        shots = [self._first(Trial(plan, answered=False)) for plan in plans if plan is not None]
        self._fire(shots)
        for shot in shots:
            self._tally.later["new owner", end_of(shot.verdict)] += 1

    def answers(self):
        """Whoever got a first packet answers, most of the time."""
        trials = [trial for trial in self._trials if trial.sides is not None and trial.answered]
        self._fire([self._later(trial, reply=True, kind="answer") for trial in trials if returns(trial, self._made)])

    def _note(self, trial):
        flow = trial.plan.flow(self._made)
        trial.own = flow.source_address in flow.sender.addresses
        if trackable(flow):
            trial.sides = tracking(self._made, flow)
            self._tally.natures[sum(side.tracked for side in trial.sides)] += 1
        for one in (found for side in covering(self._made, flow) for found in side):
            self._tally.sources[kind_of(one)] += 1

    # -- shots ---------------------------------------------------------------------------------------------------------

    def _first(self, trial):
        flow = trial.plan.flow(self._made)
        verdict = judge_flow(self._made, flow)
        way = hop(self._made, flow.sender, flow.receiver, flow.destination)
        state = "new" if trackable(flow) else "invalid"
        packet = {"saddr": flow.source_address, "daddr": flow.destination, "protocol": flow.protocol}
        packet |= {"dport": flow.port, "code": flow.code, "ct_state": state}
        outcome, counted = self._walk(trial, flow, way, packet)
        self._compare(trial, "first packet", verdict, outcome, counted)
        self._compare_rules(trial, flow, verdict)
        endpoint = self._made.endpoint_of_interface(flow.sender.id) is not None
        told = endpoint and not verdict.passed and verdict.failure.name in ("endpoint-outbound", "target-inbound")
        vague = endpoint and (end_of(verdict) == "route" or not trackable(flow) or flow.protocol not in TELLING)

        def packets(number):
            whole = says(flow, number, extended=trial.plan.extended)
            return fragments(whole, number & 0xFFFF) if trial.plan.fragmented and not trial.plan.extended else [whole]

        told = None if vague else told
        return Shot(trial, "first packet", flow.sender, flow.receiver, packets, verdict, counted, told)

    def _later(self, trial, *, reply, kind=""):
        flow = trial.plan.flow(self._made)
        verdict = judge_packet(self._made, flow, sides=trial.sides, reply=reply)
        # What goes on as if there had been an answer is no part of a connection where none was seen.
        answered = self._made.vpc_of_subnet(flow.sender.subnet_id).id in trial.replied and kind != "answer"
        port = flow.source_port if reply and flow.protocol in (6, 17) else flow.port
        if reply and (flow.protocol, flow.port) in ANSWERS:
            port = ANSWERS[flow.protocol, flow.port]
        return self._moving(
            trial,
            kind or ("back" if reply else "forth"),
            verdict,
            lambda number: [says(flow, number, reply=reply, later=answered)],
            reply=reply,
            packet={"protocol": flow.protocol, "dport": port, "code": flow.code},
        )

    def _error(self, trial, *, reply):
        flow = trial.plan.flow(self._made)
        six = ":" in flow.source_address
        kind, code = ERRORS[6 if six else 4][flow.source_port % 4]
        verdict = judge_packet(self._made, flow, sides=trial.sides, reply=reply, icmp_error=(kind, code))
        return self._moving(
            trial,
            "error back" if reply else "error forth",
            verdict,
            lambda number: [complains(flow, number, kind, code, reply=reply)],
            reply=reply,
            packet={"protocol": 58 if six else 1, "dport": kind, "code": code, "ct_state": "related"},
        )

    def _moving(self, trial, kind, verdict, packets, *, reply, packet):
        flow = trial.plan.flow(self._made)
        sender, receiver = (flow.receiver, flow.sender) if reply else (flow.sender, flow.receiver)
        addresses = (flow.source_address, flow.destination)
        source, destination = addresses[::-1] if reply else addresses
        way = hop(self._made, sender, receiver, destination)
        if reply and self._made.endpoint_of_interface(receiver.id) is not None:
            way = way._replace(step=None)
        packet = {"ct_state": "established", **packet, "saddr": source, "daddr": destination, "ct_reply": reply}
        outcome, counted = self._walk(trial, flow, way, packet, ends=(sender, receiver))
        self._compare(trial, kind, verdict, outcome, counted)
        told = None if self._made.endpoint_of_interface(sender.id) is not None else False
        self._tally.later[kind, end_of(verdict)] += 1
        return Shot(trial, kind, sender, receiver, packets, verdict, counted, told)

    # -- the model -----------------------------------------------------------------------------------------------------

    def _walk(self, trial, flow, way, packet, ends=None):
        """What the model says of a packet in the one or two VPCs that it passes: outcome, and what is counted."""
        sender, receiver = ends or (flow.sender, flow.receiver)
        here, there = (self._made.vpc_of_subnet(eni.subnet_id).id for eni in (sender, receiver))
        if not way.arrives:
            outcome, counted = self._walk_in(trial, here, packet, sender.link, "void")
            return ("drop", counted) if outcome != "accept" and "forged_source" in str(counted) else ("drop", None)
        if way.peering is None:
            return self._walk_in(trial, here, packet, sender.link, receiver.link)
        outcome, counted = self._walk_in(trial, here, packet, sender.link, way.peering.link)
        if outcome != "accept":
            return outcome, counted
        outcome, more = self._walk_in(trial, there, packet, way.peering.link, receiver.link)
        return outcome, counted + more

    def _walk_in(self, trial, vpc_id, packet, iif, oif):
        known = vpc_id in trial.marks
        state = packet["ct_state"]
        if state == "established":
            trial.replied |= {vpc_id} if packet["ct_reply"] else set()
            state = "established" if vpc_id in trial.replied else "new"
        packet = {**packet, "ct_state": state, "ct_mark": trial.marks.get(vpc_id, 0), "ct_confirmed": known}
        seen = rules.walk(self._rulesets[vpc_id], rules.Packet(iif=iif, oif=oif, **packet))
        trial.decided_by = seen.decided_by
        if seen.outcome == "accept" and state == "new":
            trial.marks[vpc_id] = seen.ct_mark
        return seen.outcome, [(vpc_id, name) for name in seen.counted]

    def _compare(self, trial, kind, verdict, outcome, counted):
        """Reading against model, by the side that decides."""
        if verdict.passed is not (outcome == "accept"):
            raise Mismatch([trial.plan], f"{kind}: reading: {verdict}\nmodel: {outcome}, counted {counted}")
        if verdict.passed or counted is None:
            return
        stops = {name.split("_")[0] for _, name in counted if "_stop_" in name}
        step = verdict.failure.name
        wanted = {"snd"} if step.endswith("-outbound") else {"rcv"} if step.endswith("-inbound") else set()
        if stops != wanted:
            raise Mismatch([trial.plan], f"{kind}: reading: {verdict}\nmodel: {outcome}, counted {counted}")

    def _compare_rules(self, trial, flow, verdict):
        """The rule that let a first packet in, by the model, is one of those that cover it, as is the reading's."""
        if verdict.passed:
            ids = {one.id for one in covering(self._made, flow)[1]}
            if {trial.decided_by, verdict.steps[-1].decided_by} - ids:
                raise Mismatch([trial.plan], f"reading: {verdict}\nmodel: {trial.decided_by}\ncovering: {ids}")

    # -- the kernel ----------------------------------------------------------------------------------------------------

    def _fire(self, shots):
        before = self._rig.counters(self._made)
        seen = self._rig.fire([(shot.sender.link, shot.packets, where_seen(shot)) for shot in shots])
        wrong = [shot for shot, links in zip(shots, seen, strict=True) if not as_said(shot, links)]
        if wrong:
            links = seen[shots.index(wrong[0])]
            words = f"{wrong[0].kind}: reading and model: {wrong[0].verdict}, told: {wrong[0].told}; kernel: {links}"
            raise Mismatch([shot.trial.plan for shot in wrong[:3]], words)
        words, name = "", None
        for pause in (0, 0.2, 1):  # on a busy host what is refused may be counted later than it was sent
            time.sleep(pause)
            words, name = self._miscounted(shots, before)
            if not words:
                return
        raise Mismatch([shot.trial.plan for shot in shots if name in (shot.counted or ())], words)

    def _miscounted(self, shots, before):
        """Where the kernel has not counted what the model counts: words, and the counter."""
        rises = {name: n - before.get(name, 0) for name, n in self._rig.counters(self._made).items()}
        sums = Counter(name for shot in shots for name in shot.counted or ())
        vague = any(shot.counted is None for shot in shots)
        for name in sorted({*sums, *rises}):
            more = rises.get(name, 0) - sums[name]
            if ("_stop_" in name[1] or name[1] == "to_endpoint") and (more < 0 or (more > 0 and not vague)):
                return f"{name} rose by {rises.get(name, 0)}, by the model {sums[name]}", name
        return "", None


def compare(rig, worlds, plans, tally):
    """Try flows in a World and in what becomes of it: another one, and perhaps one in which addresses have moved.

    Raises Mismatch at the first disagreement.
    """
    before, after, *moved = worlds
    trials = [Trial(plan, answered=plan.source_port % 5 != 0) for plan in plans]
    scene = Scene(rig, before, trials, tally)
    scene.connections()
    scene.expiring_packets()
    forget_flows(before)
    scene.first_packets()
    scene.answers()
    scene.later_packets(after)
    for made in moved:
        scene.new_owners(made)
