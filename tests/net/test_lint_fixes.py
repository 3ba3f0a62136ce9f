"""Fixes of lint against the kernel: with one that keeps every flow the same packets arrive, whatever it takes away."""

import itertools
from collections import Counter
from random import Random

import msgspec
import pytest

from tests.net.answers import Pairs, arriving
from tests.net.explained import askable
from tests.net.random_worlds import random_world
from tests.net.rig import Rig
from wicketgate.explain.lint import lint
from wicketgate.model import PROTOCOL_NUMBERS, Change, PrefixList, SecurityGroup, apply_change
from wicketgate.paths import judge_flow, tracking

pytestmark = pytest.mark.once

SEED = "lint"
WORLDS, WORLDS_PER_PLACE = 24, 5
FLOWS = 250
"""Flows tried about the rules of a fix."""
RULES = 12
"""How many of their rules are looked at."""
SINGLE = 2
"""Fixes of a World of each effect that are applied by themselves, beside all that keep everything at once."""

_numbers = itertools.count(1)


class Cut(AssertionError):
    """A fix changes what passes."""


def changed_rules(made, fix):
    """Group id -> rules that go, and rules that come."""
    found = {}
    for put in fix.change.puts:
        if isinstance(put, SecurityGroup):
            then = made.group(put.id).rules
            gone = [one for one in then if one not in put.rules]
            found[put.id] = gone, [one for one in put.rules if one not in then]
    return found


def together(made, fixes):
    """One Change of several fixes, each new rule with an id of its own."""
    groups, lists, deletes = {}, {}, []
    for fix in fixes:
        deletes += fix.change.deletes
        lists |= {put.id: put for put in fix.change.puts if isinstance(put, PrefixList)}
        for group_id, (gone, new) in changed_rules(made, fix).items():
            group = groups.get(group_id) or made.group(group_id)
            named = [msgspec.structs.replace(one, id=f"sgr-{next(_numbers):017x}") for one in new]
            rest = [one for one in group.rules if one not in gone]
            groups[group_id] = msgspec.structs.replace(group, rules=(*rest, *named))
    return Change(puts=(*groups.values(), *lists.values()), deletes=tuple(deletes))


def flows_about(random, made, fixes):
    """Flows that rules of these fixes cover, from and to those who carry their groups, and some beside."""
    changed = [one for fix in fixes for one in changed_rules(made, fix).items()]
    rules = [(group_id, one) for group_id, pair in changed for one in itertools.chain(*pair)]
    found = []
    for group_id, one in random.sample(rules, min(len(rules), RULES)):
        vpc = made.vpc(made.group(group_id).vpc_id)
        carriers = {eni.link for eni in made.members(group_id)}
        flows = Pairs(random, made, vpc, ()).flows([_content(random, one), _content(random, one)])
        near = [flow for flow in flows if (flow.sender if one.is_egress else flow.receiver) in carriers]
        passing = [flow for flow in near if judge_flow(made, flow.flow(made)).passed]
        # The other way the rule may be why flows are not tracked.
        back = [flow for flow in flows if (flow.receiver if one.is_egress else flow.sender) in carriers]
        back = [flow for flow in back if judge_flow(made, flow.flow(made)).passed]
        share = max(FLOWS // min(len(rules), RULES), 1)
        for some, part in ((passing, 2), (back, 1), (near, 1)):
            found += random.sample(some, min(len(some), max(share * part // 4, 1)))
    return found


def _content(random, one):
    """A protocol, port and code that a rule allows, most of the time at its edge."""
    if one.ip_protocol == "-1":
        return random.choice([(6, 22, 0), (17, 53, 0), (6, 8080, 0), (47, 0, 0)])
    number = PROTOCOL_NUMBERS.get(one.ip_protocol) or int(one.ip_protocol)
    if number in (6, 17):
        ports = [one.from_port, one.to_port, one.from_port - 1, one.to_port + 1]
        return number, random.choice([port for port in ports if 0 < port <= 9001] or [9001]), 0
    if number in (1, 58):
        return number, max(one.from_port, 8 if number == 1 else 128), max(one.to_port, 0)
    return number, 0, 0


class Fixing:
    """A World in force, and what fixes do to it."""

    def __init__(self, rig, random, made, tally):
        self._rig, self._random, self._made, self._tally = rig, random, made, tally

    def try_out(self, findings):
        """Apply fixes of these findings and compare what arrives before and after."""
        flows = flows_about(self._random, self._made, [one.fix for one in findings])
        self._rig.apply(self._made)
        before = arriving(self._rig, self._made, flows)
        after_world = apply_change(self._made, together(self._made, [one.fix for one in findings]))
        self._rig.apply(after_world)
        after = arriving(self._rig, after_world, flows)
        effects = {one.fix.effect for one in findings}
        kinds = ", ".join(f"{one.kind} {one.resource}" for one in findings)
        lost, won = before - after, after - before
        if (lost and "narrows" not in effects) or (won and "opens" not in effects):
            raise Cut(f"{kinds}: {effects}\nlost: {[*map(str, lost)][:3]}\nwon: {[*map(str, won)][:3]}")
        self._tally["flows"] += len(flows)
        self._tally["passed"] += len(before & after)
        self._tally["lost"] += len(lost)
        self._tally.update(one.kind for one in findings)
        self._same_tracking(findings, after_world, before & after, kinds)

    def _same_tracking(self, findings, after, flows, kinds):
        """Which sides track a connection is the same, but for the finding that is about it (WG010)."""
        if any(one.kind == "WG010" or one.fix.effect != "keeps" for one in findings):
            return
        for one in flows:
            then, now = (tracking(made, one.flow(made)) for made in (self._made, after))
            if [side.tracked for side in then] != [side.tracked for side in now]:
                raise Cut(f"{kinds}: tracked otherwise: {one}\n{then}\n{now}")


def run(*, worlds=WORLDS, wrong=None):
    """Lint that many random Worlds and apply what it offers; raises Cut. `wrong` alters what is found."""
    tally, rig, place = Counter(), Rig(), None
    try:
        for number in range(worlds):
            random = Random(f"{SEED}/{number}")
            place = random_world(random, place if number % WORLDS_PER_PLACE else None)
            made = askable(random, place)
            found = [one for one in lint(made).findings if one.fix is not None]
            found = found if wrong is None else wrong(made, found)
            fixing = Fixing(rig, random, made, tally)
            keeping = [one for one in found if one.fix.effect == "keeps"]
            others = [one for one in found if one not in keeping]
            single = [one for some in (keeping, others) for one in random.sample(some, min(len(some), SINGLE))]
            try:
                for some in [keeping, *([one] for one in single)]:
                    fixing.try_out(some)
                    tally["applied"] += len(some)
            except Cut as cut:
                raise Cut(f"seed {SEED!r}, World {number}: {cut}") from None
    finally:
        rig.close()
    return tally


@pytest.mark.slow
def test_fixes_keep_what_they_say():
    """Fixes that keep every flow do so, alone and all at once; those that narrow take away only."""
    tally = run()
    print(f"seed {SEED!r}: {tally}")
    assert tally["applied"] >= 200
    assert tally["passed"] >= 1500
    assert tally["lost"] >= 50
    for kind in ("WG001", "WG002", "WG004", "WG006", "WG007", "WG008", "WG010", "WG020", "WG025", "WG045"):
        assert tally[kind] >= 2, kind


@pytest.mark.slow
def test_a_fix_that_cuts_is_caught():
    """A fix that narrows and says that it keeps does not survive a run."""

    def wrong(_made, found):
        return [
            msgspec.structs.replace(one, fix=msgspec.structs.replace(one.fix, effect="keeps"))
            for one in found
            if one.fix.effect == "narrows"
        ]

    with pytest.raises(Cut):
        run(wrong=wrong)
