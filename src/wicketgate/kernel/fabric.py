"""The fabric: desired World -> namespaces, links, routes and rulesets, idempotently.

    vpc-...   router namespace of a VPC (router.py): one veth per network interface (plug.py), host routes, proxy ARP,
              the ruleset; ways back to endpoints (returns.py); links to peered VPCs and routes there (peering.py)
              `void`, a link to nowhere, takes what no interface holds: it too is judged, counted and refused by the
              forward chain, so a dial to an address without a machine fails at once instead of after ARP's 3 s
    eice-...  an endpoint's own namespace: eth0 with the endpoint's address; netd opens tunnel sockets here
    i-...     an instance's namespace: eth0, eth1, ... with the instance's addresses
    lan-...   the network of the host that a subnet is bound to, and the links of the machines there (lan.py)

A new link carries nothing before the ruleset knows it: unknown interfaces fall to the forward chain's policy, drop, and
the ruleset is in the kernel before the first link is. Every step may be repeated, and a process killed between any two
is made good by the next `apply` of a fresh Fabric. One with memory (delta.py) looks only at what changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping

from wicketgate import rules
from wicketgate.kernel import conntrack, generation, netns, plug, refill, returns, router
from wicketgate.kernel.delta import OVER, Delta, delta
from wicketgate.kernel.lan import Binding, InUse, Lan
from wicketgate.kernel.lans import Lans, nobody
from wicketgate.kernel.nftables import Nftables, TooLong
from wicketgate.kernel.peering import Peerings
from wicketgate.model import NetworkInterface, Vpc, World
from wicketgate.model.resources import IPv4or6Network

OURS = re.compile(r"^(vpc|eice|i)-[0-9a-f]{8,17}$")
"""Names of namespaces that we make, and so may remove. Others are not touched; those of bound subnets, in which there
may be a link of the host, are removed by `Lan.release` alone."""

Compile = Callable[[World, str, tuple[World, rules.Ruleset] | None], rules.Ruleset]
"""`rules.compile_vpc`, or what a test has in its place."""


class Fabric:
    """What one netd has put into the kernel. Close it to free handles; the kernel keeps everything."""

    def __init__(
        self,
        compile_vpc: Compile = rules.compile_vpc,
        bindings: Mapping[str, Binding] | None = None,
        in_use: InUse = nobody,
    ) -> None:
        """`bindings`: subnet id -> the network of the host that it is bound to. `in_use`: who is asked before an
        address is answered for on such a network."""
        self._compile_vpc = compile_vpc
        self._lans = Lans(bindings or {}, in_use)
        self._world: World | None = None
        """The World that is wholly in force; None before the first, and after a failure."""
        self._nft: dict[str, Nftables] = {}
        self._applied: dict[str, rules.Ruleset] = {}
        self._guard = True
        """The setting `guard_rules` of the last World."""
        self._generations: dict[str, int] = {}
        """Namespace -> the generation of its ruleset that is ours; another one is somebody else's work."""
        self._links: dict[str, plug.Links] = {}
        self._returns: dict[str, tuple[returns.Returns, tuple[IPv4or6Network, ...]]] = {}
        self._peerings = Peerings()

    def apply(self, world: World) -> None:
        """Make the kernel enforce `world`.

        Raises FabricError, and then may stop half way: apply the World before again, with a fresh Fabric.
        """
        before, self._world = self._world, None
        self._guard = world.settings.guard_rules
        found = _everything(world) if before is None else delta(before, world)
        self._lans.prepare(world, found, fresh=before is None)
        if found.routing:
            self._peerings.unplug(world)
        for vpc_id in sorted(found.touched):
            vpc = world.vpc(vpc_id)
            assert vpc is not None, "those that are gone are not touched"
            self._apply_vpc(world, vpc, before, found)
        if found.routing:
            self._peerings.lay(world)
        if before is None:
            used = {name for links in self._links.values() for name in links.namespaces()} | self._links.keys()
            self._remove(netns.names() - used)
        for vpc_id in found.gone:
            self._remove([*self._links.pop(vpc_id).namespaces(), vpc_id])
        self._lans.finish(world, fresh=before is None)
        self._world = world

    def rebind(self, bindings: Mapping[str, Binding]) -> None:
        """Bind subnets to other networks of the host than before. Raises FabricError, as `apply`."""
        world, self._world = self._world, None
        concerned = self._lans.rebind(bindings, world or World())
        if world is not None:
            for vpc_id in concerned:
                self._plug_all(world, vpc_id)
            self._lans.finish(world, fresh=False)
        self._world = world

    def look(self) -> None:
        """See whether the networks of the host that subnets are bound to are there. Raises FabricError."""
        resized = self._lans.look()
        if self._world is not None:
            for vpc_id in {self._world.vpc_of_subnet(one).id for one in resized}:
                self._plug_all(self._world, vpc_id)

    @property
    def lans(self) -> Mapping[str, Lan]:
        """Subnet id -> the network of the host that it is bound to."""
        return self._lans.by_subnet

    @property
    def whole(self) -> bool:
        """Whether the last World is wholly in force."""
        return self._world is not None

    def mend(self) -> list[str]:
        """Put back our table where somebody else has changed the ruleset; returns the namespaces.

        Asks the kernel for one number for each namespace. Whatever else was changed there is left alone. Raises
        FabricError. The setting `guard_rules` switches it off.
        """
        if not self._guard:
            return []
        changed = [
            name
            for name, number in self._generations.items()
            if name in self._applied and self._nftables(name).generation() != number
        ]
        for name in changed:
            self._apply_ruleset(name, self._applied[name])
        return changed + [lan.namespace for lan in self.lans.values() if lan.mend()]

    def counters(self, namespace: str) -> dict[str, int]:
        """Packets of every named counter in a namespace."""
        return self._nftables(namespace).counters(rules.TABLE)

    def close(self) -> None:
        """Free the handles. Nothing in the kernel changes."""
        for nft in self._nft.values():
            nft.close()
        self._nft.clear()
        self._lans.close()

    # -- one VPC ---------------------------------------------------------------------------------------------------

    def _apply_vpc(self, world: World, vpc: Vpc, before: World | None, found: Delta) -> None:
        known = vpc.id in self._links
        if not known:
            router.make_router(vpc.id)
        # Rules before links: whatever comes up next is already judged.
        self._apply_ruleset(vpc.id, self._compiled(world, vpc.id, before))
        if not known:
            router.set_tracking(vpc.id)
            router.lay_void(vpc.id)
            self._links[vpc.id] = plug.Links(vpc.id)
            self._links[vpc.id].read()
        if vpc.id in found.whole:
            router.lay_addresses(world, vpc)
            self._plug_all(world, vpc.id)
        elif vpc.id in found.interfaces:
            self._replug(world, vpc, before or world, found.interfaces[vpc.id])
        if vpc.id in found.stopped:
            for one in (vpc.id, *_peers(world, vpc.id)):
                conntrack.forget(one, found.stopped[vpc.id])
        if vpc.id in found.whole | found.returns:
            self._apply_returns(world, vpc)
            self._lans.answer(world, vpc.id)

    def _plug_all(self, world: World, vpc_id: str) -> None:
        vpc, links = world.vpc(vpc_id), self._links[vpc_id]
        assert vpc is not None, "its links are there"
        wanted = self._attachments(world, world.interfaces_of_vpc(vpc_id))
        self._plug(world, vpc, links.names() - {one.link for one in wanted}, wanted)
        self._lans.keep(world, vpc_id, wanted)

    def _attachments(self, world: World, interfaces: Iterable[NetworkInterface]) -> list[plug.Attachment]:
        found = (plug.attachment(world, eni, self._lans.sizes) for eni in interfaces)
        return [one for one in found if one is not None]

    def _replug(self, world: World, vpc: Vpc, before: World, interface_ids: Collection[str]) -> None:
        """Look at some interfaces again."""
        old, new = (
            [
                eni
                for one in interface_ids
                if (eni := place.interface(one)) is not None and place.vpc_of_subnet(eni.subnet_id).id == vpc.id
            ]
            for place in (before, world)
        )
        if any(router.resolver(vpc) in eni.addresses for eni in (*old, *new)):
            router.lay_addresses(world, vpc)
        wanted = self._attachments(world, new)
        # A link that changed hands is in both.
        self._plug(world, vpc, {eni.link for eni in old} - {one.link for one in wanted}, wanted)
        if any(one.of_endpoint for one in wanted):
            self._apply_returns(world, vpc)
            self._lans.answer(world, vpc.id)

    def _plug(self, world: World, vpc: Vpc, gone: Collection[str], wanted: Collection[plug.Attachment]) -> None:
        links = self._links[vpc.id]
        places = {links.place(link) for link in (*gone, *(one.link for one in wanted))} if self.lans else set()
        left = links.change(gone, wanted, _peers(world, vpc.id))
        for one in wanted:
            if one.of_endpoint:
                self._apply_ruleset(one.namespace, rules.compile_endpoint())
        if self.lans:
            self._lans.change(places, wanted)
        if left:
            self._remove(left - links.namespaces())

    def _apply_returns(self, world: World, vpc: Vpc) -> None:
        wanted = returns.wanted_returns(world, vpc.id)
        if self._returns.get(vpc.id) != (wanted, vpc.networks):
            returns.lay_returns(vpc, wanted)
            self._returns[vpc.id] = (wanted, vpc.networks)

    def _compiled(self, world: World, vpc_id: str, before: World | None) -> rules.Ruleset:
        known = self._applied.get(vpc_id)
        return self._compile_vpc(world, vpc_id, None if before is None or known is None else (before, known))

    def _apply_ruleset(self, namespace: str, ruleset: rules.Ruleset) -> None:
        nft = self._nftables(namespace)
        # If this fails, the next attempt starts from what the kernel says.
        before, known = self._applied.pop(namespace, None), self._generations.pop(namespace, None)
        found = nft.generation()
        if known is None or before is None:
            ours = found == generation.noted(namespace)
        else:
            ours = found == known or not self._guard
        try:
            done = _put(nft, before, ruleset, ours=ours)
        except TooLong:
            done = nft.carry_out(rules.loading(ruleset))
        self._generations[namespace] = found
        self._applied[namespace] = ruleset
        if done:
            self._note_generation(namespace, nft, found, done)

    def _note_generation(self, namespace: str, nft: Nftables, before: int, transactions: int) -> None:
        now = nft.generation()
        if (now - before) % generation.MODULUS <= transactions:  # else somebody else wrote meanwhile: to be mended
            generation.note(namespace, now)
            self._generations[namespace] = now

    # -- handles ---------------------------------------------------------------------------------------------------

    def _nftables(self, namespace: str) -> Nftables:
        if namespace not in self._nft:
            self._nft[namespace] = Nftables(namespace)
        return self._nft[namespace]

    def _remove(self, namespaces: Iterable[str]) -> None:
        """Those that are ours: a link that somebody put into a VPC's namespace may name any in its alias."""
        for name in filter(OURS.match, namespaces):
            nft = self._nft.pop(name, None)
            if nft is not None:
                nft.close()
            self._applied.pop(name, None)
            self._generations.pop(name, None)
            self._returns.pop(name, None)
            netns.delete(name)


def _everything(world: World) -> Delta:
    """What a Fabric without memory has to look at."""
    ids = {vpc.id for vpc in world.vpcs}
    found = Delta(whole=ids, returns=set(ids), routing=True)
    for instance in world.instances:
        if instance.state in OVER and not instance.may_answer:
            for eni in world.interfaces_of_instance(instance):
                found.stopped.setdefault(world.vpc_of_subnet(eni.subnet_id).id, set()).update(eni.addresses)
    return found


def _peers(world: World, vpc_id: str) -> list[str]:
    """The VPCs at the other ends of peering connections, which may know connections of this one's addresses."""
    others = [one.other(vpc_id) for one in world.active_peerings(vpc_id)] if world.peerings else []
    return [one for one in others if netns.exists(one)]


def _put(nft: Nftables, before: rules.Ruleset | None, ruleset: rules.Ruleset, *, ours: bool) -> int:
    """Lead to a ruleset, in one transaction unless nothing whole is in force; returns how many transactions it were.

    `ours`: nobody else has changed anything in the namespace; if somebody has, our mark proves nothing.
    """
    if before is not None and ours:
        batch = rules.rewriting(before, ruleset)
        step = rules.changes(before, ruleset) if batch is None else batch
        return nft.carry_out([step] if step else [])
    applied = _applied_fingerprint(nft)
    if not applied:
        return nft.carry_out(rules.loading(ruleset))
    if ours and applied == rules.fingerprint(ruleset):
        return 0
    refill.replace(nft, ruleset)
    return 1


def _applied_fingerprint(nft: Nftables) -> str:
    for one in nft.listing(f"list chain inet {rules.TABLE} {rules.APPLIED}"):
        if "rule" in one:
            return str(one["rule"].get("comment", ""))
    return ""
