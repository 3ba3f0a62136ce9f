"""Many groups: they load inside a user namespace, and a change of one rule touches nothing but rules."""

import itertools
import os
import subprocess
from collections import Counter
from random import Random

import msgspec
import pytest

from tests.net.random_worlds import A, random_world
from tests.net.small_changes import FOLLOWED, LESS, edited
from tests.net.worlds import VPC, attempt, listening, prefix_list, rule, sg, world
from wicketgate import rules
from wicketgate.kernel import ip, netns
from wicketgate.kernel.fabric import Fabric
from wicketgate.kernel.nftables import Nftables, TooLong
from wicketgate.model import Change, FabricError, apply_change
from wicketgate.rules import groups, load

COUNT, RULES = 1000, 60
STEP_BY_STEP, AT_ONCE = "step-by-step", "at-once"
IN_MESSAGES = FOLLOWED | {"another interface", LESS}


def _many(count, per_group):
    """An endpoint's group, one that lets it in, and many more, each with many rules."""
    ranges = [f"10.{number // 250}.{number % 250}.0/24" for number in range(per_group)]
    other = [rule("in", "tcp", (1000 + number, 2000 + number), one) for number, one in enumerate(ranges)]
    groups = {
        "endpoint": [rule("out", "tcp", (22, 22), "sg:web")],
        "web": [rule("in", "tcp", (22, 22), "sg:endpoint")],
        **{f"other-{number}": other for number in range(count)},
    }
    return world(groups, {"web-1": ["web"], "other-1": ["other-1"]})


def test_a_thousand_groups_load(fabric):
    """1,000 groups of 60 rules load, inside a user namespace too, and are then in force and marked as whole."""
    made = _many(COUNT, RULES)
    fabric.apply(made)
    with listening(made, (22,)):
        assert attempt(made, made.interfaces[0], "10.0.1.11", 22) == "connected"
        assert attempt(made, made.interfaces[0], "10.0.1.12", 22) == "EHOSTUNREACH"
    fresh = Fabric()
    before = fabric.counters(VPC)
    fresh.apply(made)
    fresh.close()
    assert fabric.counters(VPC) == before != {}
    nft = Nftables(VPC)
    listed = nft.run(f"list set inet {rules.TABLE} in_tcp4_{sg('other-999').removeprefix('sg-')}")
    nft.close()
    assert listed.count("comment") == RULES


def test_half_a_load_denies(fabric, monkeypatch):
    """A load that is cut off anywhere lets no connection through, and the next Fabric loads all again."""
    made = _many(60, 30)
    fabric.apply(world({"endpoint": [], "web": []}, {"web-1": ["web"], "other-1": ["web"]}))
    monkeypatch.setattr(load, "MESSAGES", 30_000)
    ruleset = rules.compile_vpc(made, VPC)
    parts = list(rules.loading(ruleset))
    assert [isinstance(part, str) for part in parts[:2]] == [True, False]
    assert len(parts) >= 8
    run, send = Nftables.run, Nftables.send
    whole = rules.render(ruleset)
    with listening(made, (22,)):
        for kept in range(1, len(parts)):
            left = iter([*[True] * kept, False])

            def cut(nft, commands, left=left):
                """Too long as a whole, as in a user namespace; the process ends after some batches."""
                if isinstance(commands, str) and commands.startswith("list "):
                    return run(nft, commands)
                if commands == whole:
                    raise TooLong("")
                if not next(left):
                    raise FabricError("killed")
                return run(nft, commands) if isinstance(commands, str) else send(nft, commands)

            monkeypatch.setattr(Nftables, "run", cut)
            monkeypatch.setattr(Nftables, "send", cut)
            with pytest.raises(FabricError, match="killed"):
                Fabric().apply(made)
            monkeypatch.setattr(Nftables, "run", run)
            monkeypatch.setattr(Nftables, "send", send)
            assert attempt(made, made.interfaces[0], "10.0.1.11", 22, wait=0.02) != "connected"
        fresh = Fabric()
        fresh.apply(made)
        fresh.close()
        assert attempt(made, made.interfaces[0], "10.0.1.11", 22) == "connected"


@pytest.mark.parametrize("number", range(6))
def test_a_load_in_parts_is_the_load_at_once(number, monkeypatch):
    """Random rulesets, loaded in parts over what was there before: the kernel holds what one transaction makes."""
    monkeypatch.setattr(groups, "FEWEST_CELLS", 1)
    monkeypatch.setattr(load, "MESSAGES", 2_000)
    for name in (STEP_BY_STEP, AT_ONCE):
        netns.create(name)
    step, whole = Nftables(STEP_BY_STEP), Nftables(AT_ONCE)
    try:
        for seed in range(3):
            ruleset = rules.compile_vpc(random_world(Random(f"{number} {seed}")), A)
            parts = list(rules.loading(ruleset))
            assert sum(isinstance(part, bytes) for part in parts) > 3
            step.carry_out(parts)
            whole.run(rules.render(ruleset))
            assert _held(STEP_BY_STEP) == _held(AT_ONCE)
    finally:
        for nft, name in ((step, STEP_BY_STEP), (whole, AT_ONCE)):
            nft.close()
            netns.delete(name)


def test_a_change_of_rules_touches_rules_alone(fabric, monkeypatch):
    """Neither ip(8) nor a listing of namespaces nor a look at other VPCs: one transaction, and it is enforced."""
    made = _many(3, 2)
    fabric.apply(made)
    web = made.group(sg("web"))
    without = apply_change(made, Change(puts=(msgspec.structs.replace(web, rules=()),)))

    def never(*_arguments, **_options):
        raise AssertionError("called for a change of rules")

    for module, name in ((ip, "_ip"), (ip, "sysctl"), (netns, "names"), (netns, "create"), (Nftables, "listing")):
        monkeypatch.setattr(module, name, never)
    fabric.apply(without)
    monkeypatch.undo()
    with listening(made, (22,)):
        assert attempt(made, made.interfaces[0], "10.0.1.11", 22) == "EHOSTUNREACH"
        fabric.apply(apply_change(without, Change(puts=(web,))))
        assert attempt(made, made.interfaces[0], "10.0.1.11", 22) == "connected"


PEERS = ["10.0.1.10/32", "10.0.1.8/30", "10.3.2.0/24", "10.0.0.0/8", "128.0.0.0/1", "0.0.0.0/0", "sg:web", "pl:four"]
PEERS += ["2001:db8::/32", "2001:db8::1/128", "fe80::/10", "::/0", "pl:six"]
PROTOCOLS = [
    ("-1", (-1, -1)),
    ("tcp", (22, 22)),
    ("udp", (0, 65535)),
    ("6", (80, 90)),
    ("47", (-1, -1)),
    ("icmp", (-1, -1)),
    ("icmp", (8, -1)),
    ("icmp", (3, 4)),
    ("icmpv6", (-1, -1)),
    ("icmpv6", (128, 0)),
]


def _held(namespace):
    """What the kernel holds: rules by chain, expression by expression and with user data, as nft(8) shows them for
    debugging, and all else as it lists it. Without handles, counts and any order but that of rules."""
    with netns.entered(namespace):
        done = subprocess.run(
            ["nft", "--debug=netlink", "list", "table", "inet", rules.TABLE],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"},
        )
    held, chain = {}, None
    for line in (done.stdout + done.stderr).splitlines():
        if line.startswith(f"inet {rules.TABLE} "):
            chain = held.setdefault(line.split()[2], [])
            chain.append("rule")
        elif chain is not None and line.startswith("  "):
            chain.append(line)
    nft = Nftables(namespace)
    for one in nft.listing(f"list table inet {rules.TABLE}"):
        ((kind, what),) = one.items()
        if kind in ("set", "map"):
            what["elem"] = sorted(map(str, what.get("elem", [])))
        if kind not in ("metainfo", "rule"):
            varying = ("handle", "packets", "bytes")
            held[kind, what["name"]] = {name: value for name, value in what.items() if name not in varying}
    nft.close()
    return held


@pytest.mark.parametrize("fewest", [1, groups.FEWEST_CELLS])
def test_messages_make_what_the_text_makes(fabric, monkeypatch, fewest):
    """Every kind of rule, written as netlink messages, is in the kernel the very expressions that its text gives."""
    monkeypatch.setattr(groups, "FEWEST_CELLS", fewest)
    every = [
        rule(direction, protocol, ports, peer)
        for direction in ("in", "out")
        for (protocol, ports), peer in itertools.product(PROTOCOLS, PEERS)
    ]
    made = world({"endpoint": [], "web": []}, {"web-1": ["web"]})
    lists = prefix_list("four", "10.0.0.0/8", "10.1.2.3/32"), prefix_list("six", "2001:db8::/32", "::/0")
    made = msgspec.structs.replace(made, prefix_lists=lists)
    fabric.apply(made)
    netns.create(AT_ONCE)
    random, web, nft = Random(5), made.group(sg("web")), Nftables(AT_ONCE)
    cells = 0
    for chosen in (every, [], *(random.sample(every, 30) for _ in range(5))):
        before = rules.compile_vpc(made, VPC)
        made = apply_change(made, Change(puts=(msgspec.structs.replace(web, rules=tuple(chosen)),)))
        after = rules.compile_vpc(made, VPC)
        assert 0 < len(rules.rewriting(before, after) or b"") < 200_000  # else it would be too long for a namespace
        fabric.apply(made)
        written = _held(VPC)
        nft.run(rules.render(after))
        assert written == _held(AT_ONCE)
        now = sum(len(one.cells) for one in after.cell_sets.values())
        rule_count = sum(lines.count("rule") for lines in written.values() if isinstance(lines, list))
        assert rule_count + now >= len(chosen)
        cells += now
    assert cells > 20 or fewest > 1
    nft.close()
    netns.delete(AT_ONCE)


@pytest.mark.parametrize("seed", range(4))
def test_a_chain_of_changes_is_the_last_ruleset(seed, monkeypatch):
    """Change by change, as messages where they can say it and as text elsewhere: the kernel then holds what a fresh
    load makes. Rules, entries, memberships, addresses and interfaces need none."""
    monkeypatch.setattr(groups, "FEWEST_CELLS", 1 + seed % 2)
    random = Random(seed)
    made = random_world(random)
    ruleset = rules.compile_vpc(made, A)
    for name in (STEP_BY_STEP, AT_ONCE):
        netns.create(name)
    step, whole = Nftables(STEP_BY_STEP), Nftables(AT_ONCE)
    said = Counter()
    try:
        step.run(rules.render(ruleset))
        for number in range(60):
            other, edits = edited(random, made)
            new = rules.compile_vpc(other, A, (made, ruleset))
            batch = rules.rewriting(ruleset, new)
            # The first reference to a group of a peered VPC brings sets with it.
            said[batch is not None, edits <= IN_MESSAGES and ruleset.pair_sets.keys() == new.pair_sets.keys()] += 1
            if batch is None:
                step.run(rules.changes(ruleset, new))
            elif batch:
                step.send(batch)
            made, ruleset = other, new
            if number % 6 == 5:
                whole.run(rules.render(new))
                assert _held(STEP_BY_STEP) == _held(AT_ONCE)
    finally:
        for nft, name in ((step, STEP_BY_STEP), (whole, AT_ONCE)):
            nft.close()
            netns.delete(name)
    assert said[True, True] > 10
    assert said[False, True] == 0


def test_what_messages_cannot_say_is_text():
    """Sets that come or go, endpoints and hooks are left to the text."""
    made = world({"endpoint": [], "web": []}, {"web-1": ["web"]})
    others = [
        world({"endpoint": [], "web": [], "more": []}, {"web-1": ["web"]}),
        msgspec.structs.replace(made, endpoints=(), revision=2),
    ]
    before = rules.compile_vpc(made, VPC)
    assert rules.rewriting(before, rules.compile_vpc(made, VPC)) == b""
    for other in others:
        after = rules.compile_vpc(other, VPC)
        assert rules.rewriting(before, after) is None
        assert rules.rewriting(after, before) is None
        assert rules.changes(before, after) != ""


def test_refused_messages_change_nothing(fabric):
    """A batch that the kernel refuses in the middle leaves everything as it was, and says what the kernel said."""
    made = _many(3, 2)
    fabric.apply(made)
    web = made.group(sg("web"))
    more = msgspec.structs.replace(web, rules=(*web.rules, rule("in", "tcp", (23, 23), "sg:other-1")))
    without = msgspec.structs.replace(more, rules=())
    full, empty = (apply_change(made, Change(puts=(one,))) for one in (more, without))
    batch = rules.rewriting(rules.compile_vpc(empty, VPC), rules.compile_vpc(full, VPC))
    assert batch
    members = f"members_{sg('other-1').removeprefix('sg-')}".encode()
    assert members in batch
    before, nft = _held(VPC), Nftables(VPC)
    for _ in range(2):
        with pytest.raises(FabricError, match="No such file or directory"):
            nft.send(batch.replace(members, members[:-1] + b"x"))
        assert _held(VPC) == before
    nft.send(batch)
    assert _held(VPC) != before
    nft.close()
