"""The tour, and the mutation of the judge: were the kernel's verdicts other than they are, the tour would say so."""

import pytest

from wicketgate import rules
from wicketgate.kernel import ip
from wicketgate.kernel.nftables import Nftables
from wicketgate.lab.edits import edits, rules_set
from wicketgate.lab.tour import Tour

VPCS = ("plain", "kept", "dual")
FULL = VPCS[:2]
"""Those with machines and groups of every kind."""


def test_every_statement_holds(lab):
    """Every row of the tour is seen as expected: logins from the exact address, refusals for the exact reason."""
    rows = Tour(lab).run()
    assert [row for row in rows if not row.passed] == []
    assert len(rows) >= 60


class _AcceptAll(Tour):
    """The same tour where the kernel accepts everything: what a group refused must now come about."""

    def refused(self, what, vpc, name, reason, **options):
        if "rule of" not in reason:
            super().refused(what, vpc, name, reason, **options)
            return
        done = self.lab.login(vpc, name, **options)
        self._row(what, "login", f"login from {done.source}: {done.stderr}", done.source is not None)

    def dropped(self, what, vpc, sender, address, *, counter, source=None):
        before = _passed(self.lab, vpc)
        outcome = self.lab.connect(vpc, sender, address, source=source)
        if counter in ("forged_source", "to_endpoint"):
            # The reply goes to the address's owner, or the endpoint's own namespace refuses: the packet itself passed.
            self._row(what, "passed by the forward hook", outcome, _passed(self.lab, vpc) > before)
        else:
            self._row(what, "connected", outcome, outcome == "connected")


def _passed(lab, vpc):
    return lab.counters(lab.vpc(vpc).id)["mutant"]


def _mark(lab, vpc):
    """The rule by which an endpoint's flows are known: what the forward chain leads to sets it otherwise."""
    endpoint, others = lab.endpoint(vpc), 0xFFFFFFFF & ~rules.ENDPOINT_MARK_MASK
    link, mark = lab.interface(endpoint).link, rules.endpoint_mark(endpoint)
    return f'iifname "{link}" ct mark set ct mark & {others} | {mark}'


def _mutate(lab, verdict):
    """Replace the verdicts of source check and forward chain; marks, routes back, endpoints' own protection stay."""
    for vpc in VPCS:
        nft = Nftables(lab.vpc(vpc).id)
        nft.run(
            f"add counter inet {rules.TABLE} mutant\nflush chain inet {rules.TABLE} forward\n"
            f"flush chain inet {rules.TABLE} source_check\n"
            f"add rule inet {rules.TABLE} forward {_mark(lab, vpc)}\n"
            f"add rule inet {rules.TABLE} forward counter name mutant {verdict}"
        )
        nft.close()


@pytest.fixture
def restored(lab):
    """The right ruleset again after a mutation.

    Until then instances answer a SYN once: what a mutant lets in under a forged source address would be answered again
    for a minute, and each answer counted at the endpoint whose address that is.
    """
    machines = [one.id for one in lab.world.instances]
    for machine in machines:
        ip.sysctl(machine, {"net/ipv4/tcp_synack_retries": "0"})
    yield
    for machine in machines:
        ip.sysctl(machine, {"net/ipv4/tcp_synack_retries": "5"})
    for vpc in VPCS:
        nft = Nftables(lab.vpc(vpc).id)
        nft.run(rules.render(rules.compile_vpc(lab.world, lab.vpc(vpc).id)))
        nft.close()


def test_accept_all_is_noticed(lab, configured, restored):
    """With a kernel that accepts everything, all that the groups had refused succeeds: nothing else refused it."""
    configured(guard_rules=False)
    _mutate(lab, "accept")
    tour = _AcceptAll(lab)
    rows = tour.run()
    assert [row for row in rows if not row.passed] == []
    assert sum(row.expected in ("login", "connected", "passed by the forward hook") for row in rows) >= 25


def test_drop_all_is_noticed(lab, configured, restored):
    """With a kernel that drops everything and a world that allows everything, every login fails."""
    configured(connect_timeout=2.0, guard_rules=False)
    open_world = edits(
        *(
            rules_set(vpc, group, inbound=["all from 0.0.0.0/0"], outbound=["all to 0.0.0.0/0"])
            for vpc in FULL
            for group in ("endpoint", "web", "db", "closed")
        )
    )
    lab.change(open_world)
    names = [(vpc, name) for vpc in FULL for name in ("web-1", "db-1", "closed-1")]
    logins = [lab.login(vpc, name) for vpc, name in names]
    assert [done.stderr for done in logins if done.exit_code != 0] == []
    _mutate(lab, "drop")
    for vpc, name in names:
        done = lab.login(vpc, name)
        assert done.source is None
        assert "Unable to connect to target" in done.stderr


@pytest.mark.parametrize("vpc", FULL)
def test_two_hundred_refusals_are_quick(lab, vpc):
    """200 of 200 dials that the groups refuse are told so within 50 ms, preservation on and off."""
    import errno
    import select
    import socket
    import time

    from wicketgate.kernel.dial import dial

    endpoint = lab.endpoint(vpc)
    slow = []
    for _ in range(200):
        started = time.monotonic()
        sock, _ = dial(endpoint.id, lab.address(vpc, "db-1"), 22, "203.0.113.10" if vpc == "kept" else None)
        with sock:
            select.select([], [sock], [], 1)
            number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        took = time.monotonic() - started
        if number != errno.EHOSTUNREACH or took > 0.05:
            slow.append((errno.errorcode.get(number), took))
    assert slow == []
