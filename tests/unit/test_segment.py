"""What is asked of machines on a bound network and when, and what follows from what they say, by the test's clock."""

import itertools
import logging
from ipaddress import ip_network

import pytest

from wicketgate.kernel.neighbour_frames import Claim, Echo, Wish
from wicketgate.netd.hosts import Host, Moment
from wicketgate.netd.segment import Assertion, Ping, Question, Segment

M1, M2, M3 = "02:00:00:00:00:11", "02:00:00:00:00:12", "02:00:00:00:00:13"
ENDPOINT, ROUTER, MACHINE = "10.9.0.250", "10.9.0.1", "10.9.0.11"
EPOCH = 1_800_000_000.0


class Rig:
    """A segment with a clock, that says what was sent and logged."""

    def __init__(self, *, routed=False, returning=False, own=((ENDPOINT, "eice-1"),), ranges=("10.9.0.0/16",)):
        self.now, self.log = 100.0, []
        self.segment = Segment("vpc-1", tuple(map(ip_network, ranges)), routed=routed, say=self._say)
        self.segment.answers_for(dict(own), self.now)
        self.segment.switch(probing=True, returning=returning, now=self.now)
        self.silent = set()
        """Addresses that do not answer."""
        self.asked = []
        """(time, what was sent)."""
        self.ways = {}
        """Address -> which echo requests it answers: "near", "far"."""
        self.macs = {}

    def _say(self, level, words, now):
        assert now == self.now
        self.log.append((logging.getLevelName(level), words))

    def add(self, address=MACHINE, mac=M1, instance="i-1", probed=True):
        host = Host(instance, address, probed=probed)
        self.macs[address] = mac
        self.segment.add(host, self.now)
        return host

    def hear(self, said):
        return self.segment.heard(said, Moment(self.now, EPOCH + self.now))

    def claim(self, address, mac):
        return self.hear(Claim(address, mac))

    def run(self, seconds):
        """Let time pass; machines answer at once."""
        until = self.now + seconds
        while (due := self.segment.next_due) is not None and due <= until:
            self.now = max(self.now, due)
            for one in self.segment.due(Moment(self.now, EPOCH + self.now), 1000):
                self.asked.append((self.now, one))
                self._answer(one)
        self.now = until

    def _answer(self, one):
        if one.address in self.silent or one.address not in self.macs:
            return
        mac = self.macs[one.address]
        if isinstance(one, Question) and one.to in (None, mac):
            self.claim(one.address, mac)
        elif isinstance(one, Ping):
            ways = self.ways.get(one.address, ())
            if ("near" if one.source in (ENDPOINT, ROUTER, "fe80::1") else "far") in ways:
                self.hear(Echo(one.address, one.source, one.sequence, b""))

    def questions(self):
        return [(round(at - 100, 1), one.to) for at, one in self.asked if isinstance(one, Question)]

    def changes(self):
        found = set(self.segment.changed)
        self.segment.changed.clear()
        return found


def test_a_machine_that_is_registered_is_looked_for_at_once_and_then_every_15_seconds():
    """First everybody is asked, then the machine alone; nothing is told again while nothing changes."""
    rig = Rig()
    host = rig.add()
    rig.run(0)
    assert (host.reach.reachable, host.reach.since, rig.changes()) == (True, EPOCH + 100, {"i-1"})
    rig.run(60)
    times = [at for at, _ in rig.questions()]
    assert rig.questions()[0] == (0, None) and {to for _, to in rig.questions()[1:]} == {M1}
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert len(gaps) >= 3 and all(13.4 <= gap <= 16.6 for gap in gaps)
    assert (host.reach.since, rig.changes()) == (EPOCH + 100, set())


def test_three_misses_and_it_is_gone_one_answer_and_it_is_back():
    """After the first miss it is asked each second, of everybody; when it is gone every 2 s for a while, then 15."""
    rig = Rig()
    host = rig.add()
    rig.run(0)
    rig.silent.add(MACHINE)
    rig.run(20)
    assert host.reach.reachable is False
    (first, _), (second, to), (third, _) = rig.questions()[1:4]
    assert (second - first, third - second, to) == (pytest.approx(1), pytest.approx(1), None)
    assert host.reach.since == pytest.approx(EPOCH + 100 + third + 1, abs=0.2)
    rig.asked.clear()
    rig.run(20)
    assert 8 <= len(rig.asked) <= 11
    rig.run(60)
    rig.asked.clear()
    rig.run(60)
    assert 3 <= len(rig.asked) <= 5
    rig.changes()
    rig.silent.clear()
    rig.run(17)
    assert (host.reach.reachable, rig.changes()) == (True, {"i-1"})


def test_two_misses_are_nothing():
    """It is asked again, answers, and nobody is told."""
    rig = Rig()
    host = rig.add()
    rig.run(0)
    rig.changes()
    rig.silent.add(MACHINE)
    while len(rig.questions()) < 3:
        rig.run(0.5)
    rig.silent.clear()
    rig.run(5)
    assert (host.reach.reachable, host.reach.misses, rig.changes()) == (True, 0, set())


def test_a_machine_that_never_answers_is_not_reachable_after_three_seconds():
    """Nothing is said of it before."""
    rig = Rig()
    rig.silent.add(MACHINE)
    host = rig.add()
    rig.run(2.9)
    assert host.reach.reachable is None
    rig.run(0.2)
    assert (host.reach.reachable, host.reach.since) == (False, EPOCH + 103)


def test_what_a_machine_says_by_itself_counts():
    """It is back as soon as it asks for anybody's address, and is not asked for 15 s."""
    rig = Rig()
    rig.silent.add(MACHINE)
    host = rig.add()
    rig.run(200)
    rig.asked.clear()
    rig.claim(MACHINE, M1)
    assert host.reach.reachable is True
    rig.run(1)
    assert len(rig.asked) <= 1, "what was owed already"
    rig.asked.clear()
    rig.run(12)
    assert rig.asked == []


def test_nobody_is_blamed_for_silence_while_frames_were_lost():
    """Misses count from when all was heard again."""
    rig = Rig()
    host = rig.add()
    rig.run(0)
    rig.silent.add(MACHINE)
    for _ in range(80):
        rig.run(0.5)
        rig.segment.disturbed(rig.now)
    assert host.reach.reachable is True
    rig.run(4)
    assert host.reach.reachable is False


def test_ten_thousand_machines_make_no_bursts():
    """All at once registered: what is asked is spread, and each stays within its interval."""
    rig = Rig()
    hosts = [rig.add(f"10.9.{n >> 8}.{n & 255}", M1, f"i-{n}") for n in range(300, 10_300)]
    busiest, step = 0, 0.05
    for _ in range(int(60 / step)):
        rig.now += step
        found = rig.segment.due(Moment(rig.now, rig.now), 50)
        busiest = max(busiest, len(found))
        for one in found:
            rig._answer(one)
    assert busiest <= 50
    assert all(host.reach.reachable for host in hosts)
    assert all(rig.now - host.reach.heard_at < 17 for host in hosts)


def test_without_an_address_of_ours_questions_are_few():
    """A probe can make a machine that just starts believe its address is another's: every minute is enough."""
    rig = Rig(own=())
    host = rig.add()
    rig.run(130)
    assert (host.reach.reachable, len(rig.asked)) == (True, 3)
    assert {one.sender for _, one in rig.asked} == {None}
    rig.segment.answers_for({ENDPOINT: "eice-1"}, rig.now)
    rig.asked.clear()
    rig.run(130)
    assert {one.sender for _, one in rig.asked} == {ENDPOINT}


def test_a_moved_address_is_told_once_with_both_link_layer_addresses():
    """For an hour; another answer under the new one is no news."""
    rig = Rig()
    host = rig.add()
    rig.run(100)
    rig.changes()
    rig.claim(MACHINE, M2)
    rig.claim(MACHINE, M2)
    words = f"i-1: {MACHINE} moved from {M1} to {M2}: the machine was replaced, or its address stolen"
    assert rig.log == [("WARNING", words)]
    assert (host.note(rig.now), rig.changes()) == (f"{MACHINE} moved from {M1} to {M2}", {"i-1"})
    rig.macs[MACHINE] = M2
    rig.run(3599)
    assert rig.changes() == set()
    rig.run(2)
    assert (host.note(rig.now), rig.changes()) == ("", {"i-1"})
    assert len(rig.log) == 1


def test_a_machine_replaced_in_silence_is_found_by_asking_everybody():
    """The old one's link-layer address does not answer; the second question goes to all."""
    rig = Rig()
    host = rig.add()
    rig.run(10)
    rig.macs[MACHINE] = M2
    rig.run(20)
    assert (host.reach.reachable, host.tenure.mac) == (True, M2)
    assert "moved from" in rig.log[0][1]


def test_two_hosts_with_one_address_are_a_dispute_said_once():
    """They answer by turns; the words name both in order, and end five minutes after the last change."""
    rig = Rig()
    host = rig.add()
    rig.run(0)
    for n in range(50):
        rig.run(0.3)
        rig.claim(MACHINE, (M2, M1)[n % 2])
    assert [words for _, words in rig.log] == [
        f"i-1: {MACHINE} moved from {M1} to {M2}: the machine was replaced, or its address stolen",
        f"i-1: {MACHINE} is claimed by two hosts: {M2} and {M1}",
    ]
    assert host.note(rig.now) == f"{MACHINE} is claimed by two hosts: {M1} and {M2}"
    assert len(rig.segment._owed) < 20, "what is owed does not grow with what is said"
    rig.changes()
    rig.run(310)
    assert host.note(rig.now) == f"{MACHINE} moved from {M2} to {M1}"
    assert rig.changes() == {"i-1"}


def test_questions_go_to_everybody_while_two_dispute():
    """Else only one would be heard of."""
    rig = Rig()
    rig.add()
    rig.run(0)
    rig.claim(MACHINE, M2)
    rig.claim(MACHINE, M1)
    rig.asked.clear()
    rig.run(20)
    assert {to for _, to in rig.questions()} == {None}


def test_who_claims_an_endpoints_address_is_an_error_once_and_a_problem_while_it_does():
    """We say once in ten seconds that it is ours, and ask after it; it ends when nothing was heard for a minute."""
    rig = Rig()
    assert rig.claim(ENDPOINT, M2) == [Assertion(ENDPOINT)]
    assert rig.claim(ENDPOINT, M2) == []
    words = f"{ENDPOINT} of eice-1 is claimed by another host too: {M2}"
    assert (rig.log, rig.segment.problem) == ([("ERROR", words)], words)
    rig.run(11)
    assert rig.claim(ENDPOINT, M2) == [Assertion(ENDPOINT)]
    rig.macs[ENDPOINT] = M2
    rig.run(200)
    assert len(rig.log) == 1, "it still claims it, which is no news"
    assert {one for _, one in rig.asked} == {Question(ENDPOINT, None)}
    rig.claim(ENDPOINT, M3)
    assert rig.segment.problem == f"{words}, {M3}"
    del rig.macs[ENDPOINT]
    rig.run(100)
    assert rig.segment.problem == ""
    assert rig.log[-1] == ("WARNING", f"{ENDPOINT} of eice-1 is not claimed by another host any more")


def test_no_question_bears_an_address_that_is_contested():
    """It would be one more claim."""
    rig = Rig(own=((ENDPOINT, "eice-1"), (ROUTER, "the router")))
    rig.claim(ENDPOINT, M2)
    rig.add()
    rig.run(0)
    assert rig.asked[0][1] == Question(MACHINE, ROUTER)


def test_who_probes_for_an_endpoints_address_is_told_that_it_is_taken():
    """Linux's proxy does not answer ARP probes (RFC 5227); of IPv6 it does."""
    rig = Rig(own=((ENDPOINT, "eice-1"), ("fd09::5", "eice-1")))
    assert rig.hear(Wish(ENDPOINT, M2)) == [Assertion(ENDPOINT, M2)]
    assert rig.hear(Wish("fd09::5", M2)) == []
    assert rig.hear(Wish(MACHINE, M2)) == []
    assert (rig.log, rig.segment.problem) == ([], "")


def test_claimers_beyond_a_few_are_forgotten():
    """A thousand liars take no room."""
    rig = Rig()
    for n in range(1000):
        rig.claim(ENDPOINT, f"02:00:00:00:{n >> 8:02x}:{n & 255:02x}")
    assert len(rig.segment._own[ENDPOINT].claimers) == 8


# -- the way back ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ways", "expected"),
    [({"near", "far"}, "seen"), ({"far"}, "seen"), ({"near"}, "not seen"), (set(), "unknown")],
)
def test_the_way_back_is_what_the_echoes_say(ways, expected):
    """Within a few seconds; who answers no echo is not judged."""
    rig = Rig(returning=True)
    rig.ways[MACHINE] = ways
    host = rig.add()
    rig.run(10)
    assert host.back.way == expected
    assert rig.segment.strays(MACHINE) == (expected == "not seen")
    assert host.note(rig.now) == (
        "10.9.0.11 does not send its replies through this gateway" if ways == {"near"} else ""
    )
    near, far = [one for _, one in rig.asked if isinstance(one, Ping)][:2]
    assert (near.source, far.source, near.to) == (ENDPOINT, "192.0.2.119", M1)


def test_a_way_back_that_is_mended_is_seen_soon():
    """One reply is proof; its loss is none before the third time."""
    rig = Rig(returning=True)
    rig.ways[MACHINE] = {"near"}
    host = rig.add()
    rig.run(10)
    rig.ways[MACHINE] = {"near", "far"}
    rig.run(18)
    assert (host.back.way, rig.segment.strays(MACHINE)) == ("seen", False)
    rig.ways[MACHINE] = {"near"}
    while not rig.segment.strays(MACHINE):
        assert host.back.way == "seen"
        rig.run(1)
        assert rig.now < 300
    assert host.back._times == 3
    levels = [level for level, _ in rig.log]
    assert levels == ["WARNING", "INFO", "WARNING"]


def test_lost_frames_prove_nothing_about_the_way_back():
    """Replies that were not read are not replies that went elsewhere."""
    rig = Rig(returning=True)
    rig.ways[MACHINE] = {"near"}
    host = rig.add()
    for _ in range(60):
        rig.run(0.5)
        rig.segment.disturbed(rig.now)
    assert host.back.way == "unknown"


def test_no_echo_is_sent_without_a_claim_of_the_way_back_or_without_probing():
    """Only where the operator says that machines reply this way."""
    for rig in (Rig(), Rig(returning=True, routed=True, own=())):
        rig.add()
        rig.run(100)
        assert [one for _, one in rig.asked if isinstance(one, Ping)] == []
    rig = Rig(returning=True)
    rig.segment.switch(probing=False, returning=True, now=rig.now)
    rig.add()
    rig.run(100)
    assert rig.asked == []


def test_the_borrowed_source_is_never_the_vpcs():
    """The first range of documentation that the VPC has nothing of; none if it has of all."""
    for ranges, source in (
        (("192.0.2.0/24",), "198.51.100.119"),
        (("192.0.0.0/16", "198.51.100.128/25"), "203.0.113.119"),
        (("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"), None),
    ):
        assert Rig(ranges=ranges).segment._foreign[4] == source
    assert Rig(ranges=("10.0.0.0/16", "2001:db8:7::/56")).segment._foreign[6] == "3fff::77"
    assert Rig().segment._foreign[6] == "2001:db8::77"


# -- routed networks ---------------------------------------------------------------------------------------------------


def test_on_a_routed_network_echoes_are_all_there_is():
    """From the endpoint's address, by the kernel's routes; silence of who has never answered says nothing."""
    rig = Rig(routed=True)
    rig.ways[MACHINE] = set()
    host = rig.add()
    rig.run(100)
    assert host.reach.reachable is None
    assert {(one.source, one.to) for _, one in rig.asked} == {(ENDPOINT, None)}
    assert len(rig.asked) < 12
    rig.ways[MACHINE] = {"near"}
    rig.run(17)
    assert host.reach.reachable is True
    rig.ways[MACHINE] = set()
    rig.run(20)
    assert host.reach.reachable is False


def test_without_an_endpoint_a_routed_network_is_not_asked():
    """There is no address to ask from; when there is one, it begins."""
    rig = Rig(routed=True, own=())
    rig.ways[MACHINE] = {"near"}
    host = rig.add()
    rig.run(100)
    assert (rig.asked, host.reach.reachable) == ([], None)
    rig.segment.answers_for({ENDPOINT: "eice-1"}, rig.now)
    rig.run(1)
    assert host.reach.reachable is True


# -- coming and going --------------------------------------------------------------------------------------------------


def test_a_machine_that_is_forgotten_is_asked_no_more():
    """And one that takes its address over is another: nothing of the first is told of it."""
    rig = Rig()
    rig.add()
    rig.run(1)
    rig.segment.remove("i-1", MACHINE)
    rig.asked.clear()
    rig.run(60)
    assert rig.asked == []
    first = rig.add()
    second = rig.add(mac=M2, instance="i-2")
    rig.segment.remove("i-1", MACHINE)
    rig.run(1)
    assert (first.gone, second.reach.reachable, second.tenure.mac, rig.log) == (True, True, M2, [])
    assert list(rig.segment.hosts.values()) == [second]


def test_further_addresses_are_watched_and_not_asked():
    """A move of one is told; the machine's state does not go by it."""
    rig = Rig()
    rig.add("10.9.0.77", M1, probed=False)
    rig.run(60)
    assert rig.asked == []
    rig.claim("10.9.0.77", M1)
    rig.claim("10.9.0.77", M2)
    assert len(rig.log) == 1
