"""Small changes of a World, as one call of the API makes each, by name."""

import msgspec

from wicketgate.model import Change, ConnectionTracking, NetworkInterface, PrefixListEntry, WorldError, apply_change


def _replaced(random, things, **change):
    """One of some resources with a change."""
    one = random.choice(things)
    return (msgspec.structs.replace(one, **{name: made(one) for name, made in change.items()}),)


def _regrouped(random, made, eni):
    vpc = made.vpc_of_subnet(eni.subnet_id).id
    there = [group.id for group in made.groups if group.vpc_id == vpc]
    return tuple(random.sample(there, random.randint(1, len(there))))


def _fewer(random, things):
    return tuple(random.sample(things, random.randint(0, len(things))))


def _more(random, prefix_list):
    """The list's entries and some others, in another order."""
    six = prefix_list.address_family == "IPv6"
    new = {
        f"2001:db8:7::{random.randrange(99):x}/128" if six else f"10.7.0.{random.randrange(99)}/32" for _ in range(9)
    }
    entries = {one.cidr: one for one in (*(PrefixListEntry(cidr=cidr) for cidr in sorted(new)), *prefix_list.entries)}
    return tuple(random.sample(list(entries.values()), len(entries)))


def _new_interface(random, made):
    """One beside another, with an address and groups of its own."""
    beside = random.choice([eni for eni in made.interfaces if eni.private_ip_address])
    number = random.randrange(200, 250)
    return (
        NetworkInterface(
            id=f"eni-{random.randrange(10**9):017x}",
            subnet_id=beside.subnet_id,
            private_ip_address=f"{beside.private_ip_address.rpartition('.')[0]}.{number}",
            group_ids=_regrouped(random, made, beside),
            link=f"new-{number}",
        ),
    )


EDITS = {
    "rules of a group": lambda random, made: _replaced(
        random, made.groups, rules=lambda one: _fewer(random, one.rules)
    ),
    "rules of another": lambda random, made: _replaced(
        random,
        made.groups,
        rules=lambda one: random.choice([two for two in made.groups if two.vpc_id == one.vpc_id]).rules,
    ),
    "entries": lambda random, made: _replaced(
        random, made.prefix_lists, entries=lambda one: _fewer(random, one.entries)
    ),
    "more entries": lambda random, made: _replaced(random, made.prefix_lists, entries=lambda one: _more(random, one)),
    "size of a list": lambda random, made: _replaced(
        random, made.prefix_lists, max_entries=lambda _: random.choice([10, 130, 200])
    ),
    "groups of an interface": lambda random, made: _replaced(
        random, made.interfaces, group_ids=lambda one: _regrouped(random, made, one)
    ),
    "further addresses": lambda random, made: _replaced(
        random, made.interfaces, secondary_ip_addresses=lambda one: one.secondary_ip_addresses[1:]
    ),
    "IPv6 addresses": lambda random, made: _replaced(
        random, made.interfaces, ipv6_addresses=lambda one: tuple(reversed(one.ipv6_addresses))[:1]
    ),
    "tags": lambda random, made: _replaced(random, made.interfaces, tags=lambda _: {"a": str(random.random())}),
    "source check": lambda random, made: _replaced(random, made.interfaces, source_dest_check=lambda _: False),
    "time-outs": lambda random, made: _replaced(
        random,
        made.interfaces,
        connection_tracking=lambda _: ConnectionTracking(
            tcp_established=random.randint(60, 70), udp=random.randint(30, 33)
        ),
    ),
    "peering": lambda random, made: _replaced(
        random, made.peerings, status=lambda _: random.choice(["active", "deleted"])
    ),
    "endpoint": lambda random, made: _replaced(
        random, made.endpoints, preserve_client_ip=lambda one: not one.preserve_client_ip
    ),
    "another interface": _new_interface,
    "another group": lambda random, made: (
        msgspec.structs.replace(random.choice(made.groups), id=f"sg-{random.randrange(10**9):017x}", name="new"),
    ),
}
FOLLOWED = {
    "rules of a group",
    "rules of another",
    "entries",
    "more entries",
    "size of a list",
    "groups of an interface",
    "further addresses",
    "tags",
}
"""Edits whose rulesets are made from the one before, part by part."""


def edited(random, made):
    """The World after one to three small changes, and which they were."""
    few, one = random.sample(sorted([*EDITS, LESS]), random.randint(1, 3)), [random.choice(sorted(FOLLOWED))]
    chosen = random.choice([few, few, one])
    for name in chosen:
        try:
            made = apply_change(made, _change(name, random, made))
        except WorldError:
            continue  # one address too few, or a group that lies elsewhere
    return made, set(chosen)


LESS = "one interface less"


def _change(name, random, made):
    if name != LESS:
        return Change(puts=EDITS[name](random, made))
    new = [eni for eni in made.interfaces if eni.link.startswith("new-")]
    return Change(deletes=tuple(("network-interface", eni.id) for eni in new[:1]))
