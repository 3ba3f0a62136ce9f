"""Explanations against the kernel: random questions about random Worlds, dialled for real, and their remedies applied.

Of a question three things are proved. It passes exactly if a real connection from the endpoint's namespace does, and
what fails is counted at the side that the explanation names. With a remedy applied, that very connection passes. And
between all pairs of network interfaces, no packet passes then and did not before but those that the remedy says.
"""

import itertools
import time
from collections import Counter
from dataclasses import dataclass, field
from random import Random

import msgspec

from tests.net.answers import CLIENTS, OTHER_CLIENTS, Pairs, arriving
from tests.net.random_worlds import A, B, random_world, vpc_of
from tests.net.rig import Rig, connect
from tests.net.said import says_of
from wicketgate import explain
from wicketgate.explain.question import understood
from wicketgate.explain.remedies import SHOWN
from wicketgate.explain.sent import sends
from wicketgate.explain.steps import steps
from wicketgate.model import AccessKey, Change, Settings, apply_change
from wicketgate.paths import Flow, judge_flow
from wicketgate.paths.routes import in_vpc

WORLDS_PER_PLACE = 5
REMEDIES, AT_MOST = 5, 3
"""Remedies applied in each World, and of one question."""
JUDGED = ("pass", "endpoint-outbound", "target-inbound", "both")
WANTED = {**dict(zip(JUDGED, (4, 3, 4, 3), strict=True)), "source-address": 1, "target": 1}
"""Questions of a World by what fails; `both`: either side's rules."""
OTHERS = 60
"""Flows of other protocols and ports that are looked at for each question, beside all of the asked port's."""
TCP_ALIKE = ("tcp", "6", "-1")


class Wrong(AssertionError):
    """An explanation and the kernel disagree."""


@dataclass
class Tally:
    """How a run's explanations came out; one that only ever passes proves little."""

    outcomes: Counter = field(default_factory=Counter)
    """What fails: a key of WANTED."""
    dialled: Counter = field(default_factory=Counter)
    """Outcomes of real connections."""
    remedies: Counter = field(default_factory=Counter)
    """Remedies applied, by what they put: `rules`, `preservation`, `both`."""
    wide: int = 0
    """Remedies that opened something else."""
    gained: int = 0
    """Flows beside what was asked for that passed with a remedy and had not before."""
    peered: int = 0
    """Remedies that opened something across a peering connection."""


@dataclass
class Case:
    """A question with its explanation."""

    question: explain.Question
    answer: explain.Explanation
    kind: str
    endpoint: object
    sender: object
    receiver: object
    address: str

    def __str__(self):
        lines = "\n".join(explain.lines_of(self.answer))
        return f"{self.question}\n{lines}"

    def way(self, made):
        """How netd would connect: (sender, source, borrowed or not, destination, port); None where it would not."""
        client, six = self.question.source_ip, ":" in self.address
        own = next((one for one in self.sender.addresses if (":" in one) is six), None)
        borrowed = made.endpoint(self.endpoint.id).preserve_client_ip
        same_family = (":" in client) is six
        if borrowed and made.settings.unpreservable_client == "endpoint-address":
            borrowed = same_family and not in_vpc(made.vpc_of_subnet(self.sender.subnet_id), client)
        if own is None or (borrowed and not same_family):
            return None
        return self.sender, client if borrowed else own, borrowed, self.address, self.question.port


# -- Worlds and questions ----------------------------------------------------------------------------------------------


def askable(random, made):
    """The World with somebody who may ask everything, so that only packets decide."""
    refused = random.choice(["refuse", "refuse", "endpoint-address"])
    settings = Settings(preserve_client_ipv6=True, allowed_ports=(), unpreservable_client=refused)
    root = AccessKey(id="AKIAROOT00000001", secret="of nobody")
    made = msgspec.structs.replace(made, settings=settings, access_keys=(root,))
    made.check()
    return made


def cases(random, made):
    """Questions in the mix that is wanted, with their explanations."""
    left = Counter(WANTED)
    found = []
    for _ in range(600):
        question = _question(random, made)
        kind = _kind(steps(made, understood(made, question)))
        if left[kind]:
            left[kind] -= 1
            found.append(_explained(made, question))
    return found


def peers_in(random, made):
    """Cases whose client has the address of a machine in a peered VPC, each with a remedy that lets in that machine as
    well, by the reading."""
    for _ in range(300):
        question = _question(random, made)
        asked = understood(made, question)
        client = next((eni for eni in made.interfaces if question.source_ip in eni.addresses), None)
        if client is None or made.vpc_of_subnet(client.subnet_id) is asked.vpc:
            continue
        if _kind(steps(made, asked)) != "target-inbound":
            continue
        flow = Flow(client, asked.interface, question.source_ip, 6, question.port, 0, asked.address)
        failure = judge_flow(made, flow).failure
        if failure is None or failure.name != "target-inbound":
            continue
        case = _explained(made, question)
        for remedy in case.answer.remedies:
            if judge_flow(apply_change(made, Change(puts=remedy.puts)), flow).passed:
                yield case, remedy
                break


def _explained(made, question):
    asked = understood(made, question)
    answer = explain.explain(made, question)
    sender = made.interface(asked.endpoint.interface_id)
    return Case(question, answer, _kind(answer.lines), asked.endpoint, sender, asked.interface, asked.address)


def _question(random, made):
    endpoint = random.choice(made.endpoints)
    sender = made.interface(endpoint.interface_id)
    vpc = made.vpc_of_subnet(endpoint.subnet_id)
    machines = [eni for eni in made.interfaces_of_vpc(vpc.id) if eni is not sender]
    receiver = random.choice([one for one in machines if made.endpoint_of_interface(one.id) is None])
    instance = made.instance_of_interface(receiver.id)
    targets = [*receiver.addresses * 2, receiver.id]
    if instance.interface_id == receiver.id:
        targets.append(instance.id)
    if random.random() < 0.05:
        targets = ["10.0.1.77" if vpc.id == A else "10.1.1.77"]
    inside = random.choice(random.choice(made.interfaces).addresses)
    near = [one for eni in made.interfaces_of_vpc(B if vpc.id == A else A) for one in eni.addresses]
    clients = [*CLIENTS.values()] * 4 + [*OTHER_CLIENTS.values(), inside, random.choice(near), random.choice(near)]
    return explain.Question(
        principal="root",
        source_ip=random.choice(clients),
        target=random.choice(targets),
        endpoint_id=endpoint.id,
        port=_port(random, made, sender, receiver),
    )


def _port(random, made, sender, receiver):
    """A port that some rule of either side covers, or just beside."""
    ports = [22, 80, 443, 8080]
    for group in map(made.group, (*sender.group_ids, *receiver.group_ids)):
        for one in group.rules:
            if one.ip_protocol in ("tcp", "6"):
                ports += [one.from_port, one.from_port - 1, min(one.to_port + 1, 9001)]
    return random.choice([port for port in ports if 0 < port <= 9001])


def _kind(lines):
    """What fails: a key of WANTED."""
    failing = {line.step for line in lines if line.outcome == "fail"}
    groups = failing & {*JUDGED}
    others = failing - groups
    if others - {"target", "source-address"}:
        raise Wrong(f"only packets should decide: {failing}")
    return (
        min(others, key=list(WANTED)[::-1].index)
        if others
        else "both"
        if len(groups) == 2
        else min(groups, default="pass")
    )


# -- against the kernel ------------------------------------------------------------------------------------------------


class Trial:
    """A World in force, and the questions asked about it."""

    def __init__(self, rig, random, made, tally):
        self._rig, self._random, self._made, self._tally = rig, random, made, tally
        rig.apply(made)

    def dial(self, asked):
        """Dial all questions: what passes, and who stops the rest."""
        told = [case for case in asked if case.kind in JUDGED]
        before = self._rig.counters(self._made)
        self._compare_dials(told)
        wanted = Counter(self._stop(case) for case in told if case.kind != "pass")
        for pause in (0, 0.2, 1):  # on a busy host what is refused may be counted later than it was sent
            time.sleep(pause)
            now = self._rig.counters(self._made)
            rises = Counter({name: n - before[name] for name, n in now.items() if "_stop_" in name[1]})
            if +rises == wanted:
                break
        else:
            words = f"stopped, by the explanations: {wanted}; by the kernel: {+rises}"
            raise Wrong("\n".join([words, *map(str, told)]))
        self._compare_dials([case for case in asked if case not in told])

    def _stop(self, case):
        """The counter that rises when a packet is stopped where an explanation says first."""
        first = next(line.step for line in case.answer.lines if line.outcome == "fail")
        name = f"snd_stop_{case.sender.link}" if first == "endpoint-outbound" else f"rcv_stop_{case.receiver.link}"
        return self._made.vpc_of_subnet(case.sender.subnet_id).id, name

    def _compare_dials(self, asked):
        ways = [case.way(self._made) for case in asked]
        attempts = [(*way, case.kind == "pass") for way, case in zip(ways, asked, strict=True) if way is not None]
        outcomes = iter(connect(self._made, attempts))
        for case, way in zip(asked, ways, strict=True):
            outcome = "not dialled" if way is None else next(outcomes)
            self._tally.dialled[outcome] += 1
            self._tally.outcomes[case.kind] += 1
            if (outcome == "connected") is not (case.answer.outcome == "pass"):
                raise Wrong(f"kernel: {outcome} by {way}\n{case}")

    def mend(self, case, some):
        """Apply these remedies of a question, each by itself, and see what passes then; the World is put back."""
        whole, others = self._sample(case, switched=any(map(_switches, some)))
        plans = whole + self._random.sample(others, min(len(others), OTHERS))
        passed = sendable(self._made, arriving(self._rig, self._made, plans))
        for remedy in some:
            after = apply_change(self._made, Change(puts=remedy.puts))
            self._rig.apply(after)
            way = case.way(after)
            outcome = "not dialled" if way is None else connect(after, [(*way, True)])[0]
            if outcome != "connected":
                raise Wrong(f"with {_words(remedy)}\nthe kernel says {outcome} to {way}\n{case}")
            gained = sendable(after, arriving(self._rig, after, plans)) - passed
            self._note(remedy, Gained(after, case, remedy, gained).compared(sendable(after, whole)))
        self._rig.apply(self._made)

    def _sample(self, case, *, switched):
        """Flows between all pairs: all those that a remedy may let pass, and some that it must not."""
        port = case.question.port
        vpc = self._made.vpc_of_subnet(case.sender.subnet_id)
        between = Pairs(self._random, self._made, vpc, {case.question.source_ip, *case.sender.addresses})
        whole = between.flows([(6, port, 0)])
        if switched:  # then every port may change for the endpoint: what rules allow begins where one of them does
            rules_ = (one for group in self._made.groups for one in group.rules if one.ip_protocol in TCP_ALIKE)
            ports = {max(1, one.from_port) for one in rules_} - {port}
            more = between.flows([(6, one, 0) for one in sorted(ports)])
            whole += [one for one in more if one.sender == case.sender.link]
        else:
            there = sendable(self._made, whole)
            whole = [one for one in whole if one in there]
        contents = [(17, port, 0), (6, port + 1, 0), (6, max(port - 1, 1), 0)]
        return whole, between.flows(contents)

    def _note(self, remedy, more):
        kinds = {"preservation"} if _switches(remedy) else set()
        kinds |= {"rules"} if len(remedy.puts) > len(kinds) else set()
        self._tally.remedies["both" if len(kinds) == 2 else kinds.pop()] += 1
        pairs = {(one.sender, one.receiver) for one in more}
        self._tally.wide += bool(pairs)
        self._tally.gained += len(more)
        self._tally.peered += any(vpc_of(one) != vpc_of(two) for one, two in pairs)


class Gained:
    """What passes in the kernel with a remedy and did not before, against what the remedy says."""

    def __init__(self, after, case, remedy, gained):
        self._case, self._remedy = case, remedy
        sender, source, _, destination, port = case.way(after)
        self._asked = (sender.link, case.receiver.link, source, destination, 6, port)
        self._more = {one for one in gained if _ends(one) != self._asked}
        self._own = {eni.link: sends(after, eni) == "own" for eni in after.interfaces}
        links = {eni.id: eni.link for eni in after.interfaces}
        self._said = {(links[one.sender], links[one.receiver]): says_of(one) for one in remedy.opens}

    def compared(self, whole):
        """The flows that pass beside the one asked about. `whole`: those of which all of a kind were tried."""
        pairs = {(one.sender, one.receiver) for one in self._more}
        said = self._said.keys()
        if self._remedy.also_opens != len(pairs) or not said <= pairs or len(said) != min(len(pairs), SHOWN):
            raise self._wrong(f"pairs that get more: by the kernel {sorted(pairs)}, said {sorted(said)}")
        for one in self._more:
            if (one.sender, one.receiver) in said and not self._covers(one):
                raise self._wrong(f"not said: {one}")
        alike = {}
        for one in whole:
            if (one.sender, one.receiver) in said and _ends(one) != self._asked:
                # Of an interface that sends its own addresses alone, which of them is not said.
                source = ":" in one.source if self._own[one.sender] else one.source
                alike.setdefault((one.sender, one.receiver, source, one.port), []).append(one)
        for some in alike.values():
            if any(map(self._covers, some)) and not self._more & set(some):
                raise self._wrong(f"said, and not so: {some[0]}")
        return self._more

    def _covers(self, plan):
        return self._said[plan.sender, plan.receiver].covers(plan)

    def _wrong(self, words):
        flows = "\n".join(sorted(map(str, self._more)))
        return Wrong(f"{words}, with\n{_words(self._remedy)}\ngained:\n{flows}\n{self._case}")


def sendable(made, plans):
    """Flows without those that an endpoint's tunnels never are, though its namespace could send them."""
    endpoints = {made.interface(one.interface_id).link: one for one in made.endpoints}
    return {plan for plan in plans if plan.sender not in endpoints or _tunnel(made, endpoints[plan.sender], plan)}


def _tunnel(made, endpoint, plan):
    addresses = made.interface(endpoint.interface_id).addresses
    if plan.protocol != 6:
        return False
    if plan.source not in addresses:
        return endpoint.preserve_client_ip and not in_vpc(made.vpc_of_subnet(endpoint.subnet_id), plan.source)
    first = plan.source == next(one for one in addresses if (":" in one) is (":" in plan.source))
    return first and not (endpoint.preserve_client_ip and made.settings.unpreservable_client == "refuse")


def _switches(remedy):
    """Whether a remedy switches client IP preservation off."""
    return any("--no-preserve-client-ip" in command for command in remedy.commands)


def _words(remedy):
    opened = [f"{one.sender} -> {one.receiver}: {says_of(one)}" for one in remedy.opens]
    return "\n".join([*map(" ".join, remedy.commands), f"opens for {remedy.also_opens} pairs", *opened])


def _ends(plan):
    return (plan.sender, plan.receiver, plan.source, plan.destination, plan.protocol, plan.port)


def run(seed, *, worlds, first=0):
    """Ask, dial and mend in that many random Worlds; raises Wrong. The same seed means the same Worlds."""
    tally, rig, place = Tally(), Rig(), None
    try:
        for number in range(first, first + worlds):
            random = Random(f"{seed}/{number}")
            place = random_world(random, None if place is None or number % WORLDS_PER_PLACE == 0 else place)
            made = askable(random, place)
            trial, asked = Trial(rig, random, made, tally), cases(random, made)
            try:
                trial.dial(asked)
                left = REMEDIES
                for case in random.sample(asked, len(asked)):
                    some = random.sample(case.answer.remedies, min(len(case.answer.remedies), left, AT_MOST))
                    left -= len(some)
                    if some:
                        trial.mend(case, some)
            except Wrong as wrong:
                raise Wrong(f"seed {seed!r}, World {number}: {wrong}") from None
    finally:
        rig.close()
    return tally


def run_across(seed, *, worlds):
    """Of so many random Worlds at least one remedy each that lets in a machine of a peered VPC; raises Wrong."""
    tally, rig = Tally(), Rig()
    try:
        for number in itertools.count():
            random = Random(f"{seed}/{number}")
            made = askable(random, random_world(random))
            found = next(peers_in(random, made), None)
            if found is not None:
                case, remedy = found
                Trial(rig, random, made, tally).mend(case, [remedy])
            if tally.peered == worlds:
                return tally
    finally:
        rig.close()
