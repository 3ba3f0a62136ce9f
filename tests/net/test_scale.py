"""Many groups: they load inside a user namespace, and a change of one rule touches nothing but rules."""

import msgspec
import pytest

from tests.net.worlds import VPC, attempt, listening, rule, sg, world
from wicketgate import rules
from wicketgate.kernel import ip, netns
from wicketgate.kernel.fabric import Fabric
from wicketgate.kernel.nftables import Nftables, TooLong
from wicketgate.model import Change, FabricError, apply_change

COUNT, RULES = 1000, 60


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
    listed = nft.run(f"list chain inet {rules.TABLE} in_{sg('other-999').removeprefix('sg-')}")
    nft.close()
    assert listed.count("accept") == RULES


def test_half_a_load_denies(fabric, monkeypatch):
    """A load that is cut off anywhere lets no connection through, and the next Fabric loads all again."""
    made = _many(60, 30)
    fabric.apply(world({"endpoint": [], "web": []}, {"web-1": ["web"], "other-1": ["web"]}))
    ruleset = rules.compile_vpc(made, VPC)
    parts = list(rules.batches(ruleset))
    assert len(parts) >= 4
    run = Nftables.run
    with listening(made, (22,)):
        for kept in range(1, len(parts)):
            left = iter([*[True] * kept, False])

            def cut(nft, commands, left=left):
                """Too long as a whole, as in a user namespace; the process ends after some batches."""
                if commands.startswith("list "):
                    return run(nft, commands)
                if len(commands) > rules.BATCH * 2:
                    raise TooLong("")
                if not next(left):
                    raise FabricError("killed")
                return run(nft, commands)

            monkeypatch.setattr(Nftables, "run", cut)
            with pytest.raises(FabricError, match="killed"):
                Fabric().apply(made)
            monkeypatch.setattr(Nftables, "run", run)
            assert attempt(made, made.interfaces[0], "10.0.1.11", 22, wait=0.02) != "connected"
        fresh = Fabric()
        fresh.apply(made)
        fresh.close()
        assert attempt(made, made.interfaces[0], "10.0.1.11", 22) == "connected"


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
