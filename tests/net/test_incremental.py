"""A Fabric with memory, led through many Worlds, leaves what one without would: that one finds nothing to write."""

import itertools
from contextlib import closing
from random import Random

import msgspec
import pytest

from tests.net.test_ipv6 import written
from tests.net.test_netd import _state
from tests.net.test_peering import A, B, C, both, changed, group, machine, peered, table
from wicketgate.kernel import netns
from wicketgate.kernel.fabric import Fabric
from wicketgate.model import Change, World, WorldError, apply_change

STEPS = 40


def edits(random):
    """Changes of a World, each a function of the World; those that do not fit are left out by the caller."""

    def put(kind, **values):
        def edit(before):
            one = random.choice(getattr(before, kind))
            return changed(before, msgspec.structs.replace(one, **{key: value(one) for key, value in values.items()}))

        return edit

    def delete(kind, name):
        return lambda before: changed(before, deletes=[(name, random.choice(getattr(before, kind)).id)])

    def add_machine(before):
        return changed(before, *machine(random.choice((A, B, C)), random.choice((1, 2)), random.randint(12, 15)))

    def attach(before):
        eni, instance = random.choice(before.interfaces), random.choice(before.instances)
        return changed(before, msgspec.structs.replace(eni, attached_to=instance.id, device_index=random.randint(1, 3)))

    def remove_instance(before):
        instance = random.choice(before.instances)
        doomed = [("instance", instance.id)]
        if random.random() < 0.5:
            doomed.append(("network-interface", instance.interface_id))
        return changed(before, deletes=doomed)

    def remove_vpc(before):
        vpc_id = random.choice((A, B, C))
        there = {
            "route-table": [one.id for one in before.route_tables if one.vpc_id == vpc_id],
            "instance-connect-endpoint": [one.id for one in before.endpoints if one.subnet_id[-2] == vpc_id[-1]],
            "instance": [one.id for one in before.instances if before.interface(one.interface_id).id[4] == vpc_id[-1]],
            "network-interface": [one.id for one in before.interfaces_of_vpc(vpc_id)],
            "subnet": [one.id for one in before.subnets if one.vpc_id == vpc_id],
            "security-group": [one.id for one in before.groups if one.vpc_id == vpc_id],
            "vpc": [vpc_id],
        }
        over = [
            msgspec.structs.replace(one, status="deleted")
            for one in before.peerings
            if vpc_id in (one.requester_vpc_id, one.accepter_vpc_id)
        ]
        return apply_change(
            before, Change(puts=tuple(over), deletes=tuple((kind, one) for kind, ids in there.items() for one in ids))
        )

    def bring_vpc_back(before):
        missing = [one for one in peered().vpcs if before.vpc(one.id) is None]
        vpc = random.choice(missing)
        subnets = [one for one in peered().subnets if one.vpc_id == vpc.id]
        return changed(before, vpc, *subnets, group(vpc.id), *machine(vpc.id, 1, 11))

    return [
        put("interfaces", secondary_ip_addresses=lambda one: (one.private_ip_address.rpartition(".")[0] + ".99",)),
        put("interfaces", secondary_ip_addresses=lambda _: ()),
        put("interfaces", ipv6_addresses=lambda _: ()),
        put("interfaces", source_dest_check=lambda one: not one.source_dest_check),
        put("interfaces", attached_to=lambda _: "", device_index=lambda _: 0),
        put("interfaces", link=lambda _: f"renamed{random.randint(0, 3)}"),
        put(
            "endpoints", preserve_client_ip=lambda one: not one.preserve_client_ip, index=lambda _: random.randint(1, 9)
        ),
        put("peerings", status=lambda _: random.choice(("active", "deleted", "pending-acceptance"))),
        put("peerings", status=lambda _: "active"),
        put(
            "route_tables", routes=lambda one: table(one.vpc_id, random.choice(({}, both(A), both(B), both(C)))).routes
        ),
        put("route_tables", subnet_ids=lambda one: random.choice(((), (f"subnet-{one.vpc_id[-1]}2",)))),
        put("route_tables", main=lambda one: not one.main),
        put("groups", rules=lambda one: random.choice(((), group(one.vpc_id).rules, one.rules[:1]))),
        put(
            "vpcs", ipv6_cidr_blocks=lambda one: (*one.ipv6_cidr_blocks[:1], *random.choice(((), ("fd12:3456::/56",))))
        ),
        put("instances", state=lambda _: random.choice(("running", "stopping", "stopped"))),
        delete("endpoints", "instance-connect-endpoint"),
        delete("route_tables", "route-table"),
        add_machine,
        attach,
        remove_instance,
        remove_vpc,
        bring_vpc_back,
    ]


@pytest.mark.parametrize("seed", range(3))
def test_every_way_leads_to_the_same(fabric, monkeypatch, seed):
    """Addresses, attachments, names of links, endpoints, peering, routes, ranges and whole VPCs come, change and go."""
    random = Random(seed)
    made, tried, applied = peered(), edits(random), 0
    fabric.apply(made)
    for _ in itertools.count():
        edit = random.choice(tried)
        try:
            after = edit(made)
        except (WorldError, IndexError, AttributeError):  # what this World has not, or would contradict itself
            continue
        made, applied = after, applied + 1
        fabric.apply(made)
        assert written(made, monkeypatch) == [], f"step {applied}"
        if applied == STEPS:
            break
    grown = _state()
    fabric.apply(World(revision=made.revision + 1))
    assert netns.names() == set()
    with closing(Fabric()) as fresh:
        fresh.apply(made)
    assert [(name, one) for name, one in _state().items() if grown.pop(name) != one] == []
    assert grown == {}
