"""Compilers with one mistake each: what a run of the differential test has to notice."""

import dataclasses
import ipaddress

import msgspec

from wicketgate import rules
from wicketgate.rules import ir


def by_source_address():
    """Inbound references are judged by the members' addresses, not by the interface that sent the packet."""

    def wrong(right, world):
        addresses = {eni.link: [ipaddress.ip_network(one) for one in eni.addresses] for eni in world.interfaces}

        def expand(rule):
            for match in rule.matches:
                if isinstance(match, ir.InterfaceIn) and match.side == "iif" and match.set_name.startswith("members_"):
                    rest = tuple(one for one in rule.matches if one is not match)
                    for link in sorted(right.interface_sets[match.set_name]):
                        for network in addresses[link]:
                            if all(getattr(one, "version", network.version) == network.version for one in rest):
                                yield dataclasses.replace(rule, matches=(ir.Address("saddr", network), *rest))
                    return
            yield rule

        return _each_rule(right, "in_", expand)

    return _compiling(wrong)


def untracked_ignored():
    """Every flow is tracked at both sides."""

    def wrong(right, _world):
        def forget(rule):
            kept = tuple(one for one in rule.statements if not isinstance(one, ir.SetCtMark))
            yield dataclasses.replace(rule, statements=kept)

        return _each_rule(right, "untrack_", forget)

    return _compiling(wrong)


def replies_unjudged():
    """Of an untracked flow only packets of the first direction are judged."""

    def wrong(right, _world):
        accept = ir.Rule((ir.CtDirection("reply"),), verdict=ir.Accept())
        chain = right.chains["again"]
        return _with_chain(right, "again", dataclasses.replace(chain, rules=(accept, *chain.rules)))

    return _compiling(wrong)


def icmp_family_ignored():
    """ICMP is known by its protocol number alone."""

    def wrong(right, _world):
        def forget(rule):
            icmp = any(isinstance(one, ir.Protocol) and one.number in (1, 58) for one in rule.matches)
            kept = tuple(one for one in rule.matches if not (icmp and isinstance(one, ir.Family)))
            yield dataclasses.replace(rule, matches=kept)

        return _each_rule(right, ("in_", "out_"), forget)

    return _compiling(wrong)


def icmp_code_ignored():
    """An ICMP rule matches every code of its type."""

    def wrong(right, _world):
        def forget(rule):
            matches = (dataclasses.replace(one, code=None) if isinstance(one, ir.Icmp) else one for one in rule.matches)
            yield dataclasses.replace(rule, matches=tuple(matches))

        return _each_rule(right, ("in_", "out_"), forget)

    return _compiling(wrong)


def prefix_list_not_followed():
    """Prefix lists stay as they were first seen."""
    first = {}

    def compile_vpc(world, vpc_id, _before=None):
        lists = tuple(first.setdefault(one.id, one) for one in world.prefix_lists)
        return rules.compile_vpc(msgspec.structs.replace(world, prefix_lists=lists), vpc_id)

    return compile_vpc


def secondary_addresses_forgotten():
    """An interface may send under its first address of each family alone."""

    def wrong(right, world):
        kept = {(eni.link, eni.private_ip_address) for eni in world.interfaces}
        kept |= {(eni.link, eni.ipv6_addresses[0]) for eni in world.interfaces if eni.ipv6_addresses}
        sets = {
            name: dataclasses.replace(one, pairs=one.pairs & kept) if name.startswith("sources") else one
            for name, one in right.pair_sets.items()
        }
        return dataclasses.replace(right, pair_sets=sets)

    return _compiling(wrong)


def first_group_only():
    """Of an interface's groups only the first one counts for what it receives."""

    def wrong(right, world):
        chains = dict(right.chains)
        for eni in world.interfaces:
            name = f"rcv_{eni.link}"
            if name in chains:
                first = eni.group_ids[0].removeprefix("sg-")
                kept = (
                    one
                    for one in chains[name].rules
                    if not isinstance(one.verdict, ir.Jump) or one.verdict.chain.endswith(first)
                )
                chains[name] = ir.Chain(tuple(kept))
        return dataclasses.replace(right, chains=chains)

    return _compiling(wrong)


def last_port_left_out():
    """A port range ends before its last port."""

    def wrong(right, _world):
        def shorten(rule):
            def shorter(one):
                return dataclasses.replace(one, last=one.last - 1) if isinstance(one, ir.Ports) else one

            ports = [one for one in rule.matches if isinstance(one, ir.Ports)]
            if not any(one.first == one.last for one in ports):
                yield dataclasses.replace(rule, matches=tuple(map(shorter, rule.matches)))

        return _each_rule(right, ("in_", "out_"), shorten)

    return _compiling(wrong)


def anyone_across_the_peering():
    """A reference to a peered VPC's group is taken for everything that comes by the peering link."""

    def wrong(right, world):
        link = next(one.link for one in world.peerings)

        def widen(rule):
            matches = (
                ir.InterfaceIs(one.side, link)
                if isinstance(one, ir.PairIn) and one.set_name.startswith("remote")
                else one
                for one in rule.matches
            )
            yield dataclasses.replace(rule, matches=tuple(matches))

        return _each_rule(right, ("in_", "out_"), widen)

    return _compiling(wrong)


def endpoints_open():
    """Whoever is allowed by its own rules connects to an endpoint."""

    def wrong(right, _world):
        def let(rule):
            if ir.Count("to_endpoint") not in rule.statements:
                yield rule

        return _each_rule(right, "forward", let)

    return _compiling(wrong)


def source_check_of_one_family():
    """IPv6 sources are not checked."""

    def wrong(right, _world):
        accept = ir.Rule((ir.Family(6),), verdict=ir.Accept())
        chain = right.chains["source_check"]
        return _with_chain(right, "source_check", dataclasses.replace(chain, rules=(accept, *chain.rules)))

    return _compiling(wrong)


WRONG = (
    by_source_address,
    untracked_ignored,
    replies_unjudged,
    icmp_family_ignored,
    icmp_code_ignored,
    prefix_list_not_followed,
    secondary_addresses_forgotten,
    first_group_only,
    last_port_left_out,
    anyone_across_the_peering,
    endpoints_open,
    source_check_of_one_family,
)


def _compiling(wrong):
    def compile_vpc(world, vpc_id, _before=None):
        return wrong(rules.compile_vpc(world, vpc_id), world)

    return compile_vpc


def _each_rule(right, prefix, expand):
    chains = {
        name: dataclasses.replace(chain, rules=tuple(new for old in chain.rules for new in expand(old)))
        if name.startswith(prefix)
        else chain
        for name, chain in right.chains.items()
    }
    return dataclasses.replace(right, chains=chains)


def _with_chain(right, name, chain):
    return dataclasses.replace(right, chains={**right.chains, name: chain})
