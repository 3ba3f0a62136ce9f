"""The fabric: desired World -> namespaces, links, routes and rulesets, idempotently.

    vpc-...   router namespace of a VPC: one veth per network interface, /32 host routes, proxy ARP, the ruleset
              `void`, a link to nowhere, takes what no interface holds: it too is judged, counted and refused by the
              forward chain, so a dial to an address without a machine fails at once instead of after ARP's 3 s
    eice-...  an endpoint's own namespace: eth0 with the endpoint's address; netd opens tunnel sockets here
    i-...     an instance's namespace: eth0 with the instance's address

A new link carries nothing before the ruleset knows it: unknown interfaces fall to the forward chain's policy, drop, and
the ruleset is in the kernel before the first link is. Every step may be repeated, and a process killed between any two
is made good by the next `apply` of a fresh Fabric.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from wicketgate import rules
from wicketgate.kernel import conntrack, ip, netns
from wicketgate.kernel.nftables import Nftables, TooLong
from wicketgate.model import NetworkInterface, World
from wicketgate.model.world import changed_pairs

OURS = re.compile(r"^(vpc|eice|i)-[0-9a-f]{8,17}$")
"""Names of namespaces that we make, and so may remove. Others are not touched."""

RETURN_PRIORITY = 100
"""Endpoint n's return rule has priority 100 + n; the rule before them all is for what the router itself sends."""
RETURN_TABLE = 1000
"""Routing table 1000 + n leads back to endpoint n."""
VOID = ("void", "void-peer")
"""The link to nowhere and its other end, both in the VPC's namespace."""
LOCAL_TABLE = 100
"""In an endpoint's namespace: the table that makes every address local."""

ROUTER_SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
    "net/ipv6/conf/all/disable_ipv6": "1",
    "net/ipv6/conf/default/disable_ipv6": "1",
    # A refused dial is told by ICMP, and refusals come in bursts: with the stock limits half of 20 time out instead.
    "net/ipv4/icmp_ratelimit": "0",
    "net/ipv4/icmp_msgs_per_sec": "1000000",
    "net/ipv4/icmp_msgs_burst": "100000",
    # The ICMP error takes the mark of the packet it answers, and by it the route back to a preserved client address.
    "net/ipv4/fwmark_reflect": "1",
}
TRACKING_SYSCTLS = {
    # Without an entry there is no way in for a segment in the middle of a connection, from either side: what was
    # forgotten stays so. Entries are the kernel's, so netd may come and go.
    "net/netfilter/nf_conntrack_tcp_loose": "0",
    "net/netfilter/nf_conntrack_acct": "1",
    # Idle time-outs (EC2 User Guide, security group connection tracking): 180 s is not Linux's default.
    "net/netfilter/nf_conntrack_tcp_timeout_established": "432000",
    "net/netfilter/nf_conntrack_udp_timeout": "30",
    "net/netfilter/nf_conntrack_udp_timeout_stream": "180",
    "net/netfilter/nf_conntrack_generic_timeout": "600",
}
HOST_SYSCTLS = {
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv6/conf/all/disable_ipv6": "1",
    "net/ipv6/conf/default/disable_ipv6": "1",
}


Compile = Callable[[World, str, tuple[World, rules.Ruleset] | None], rules.Ruleset]
"""`rules.compile_vpc`, or what a test has in its place."""


@dataclass(frozen=True)
class _Attachment:
    """How one network interface is plugged in. Changes of it re-plug the link."""

    link: str
    address: str
    router: str
    prefix_length: int
    namespace: str
    of_endpoint: bool

    @property
    def alias(self) -> str:
        """What the link carries as its alias in the kernel."""
        return f"{self.address}|{self.namespace}|{self.router}/{self.prefix_length}"


class Fabric:
    """What one netd has put into the kernel. Close it to free handles; the kernel keeps everything."""

    def __init__(self, compile_vpc: Compile = rules.compile_vpc) -> None:
        self._compile_vpc = compile_vpc
        self._world: World | None = None
        """The World that is wholly in force; None before the first, and after a failure."""
        self._nft: dict[str, Nftables] = {}
        self._applied: dict[str, rules.Ruleset] = {}
        self._plugged: dict[str, dict[str, _Attachment]] = {}
        self._returns: dict[str, dict[int, tuple[str, str]]] = {}

    def apply(self, world: World) -> None:
        """Make the kernel enforce `world`.

        Raises FabricError, and then may stop half way: apply the World before again, with a fresh Fabric.
        """
        before, self._world = self._world, None
        vpc_ids = None if before is None else _vpcs_of_changed_groups(before, world)
        if vpc_ids is None:
            self._apply_all(world, before)
        else:  # nothing is plugged in otherwise than before: a change of rules costs rules alone
            for vpc_id in vpc_ids:
                self._apply_ruleset(vpc_id, self._compiled(world, vpc_id, before))
        self._world = world

    def _apply_all(self, world: World, before: World | None) -> None:
        wanted = set()
        for vpc in world.vpcs:
            if before is None or _differs(before, world, vpc.id):
                self._apply_vpc(world, vpc.id, before)
            wanted |= {vpc.id, *(attachment.namespace for attachment in self._plugged[vpc.id].values())}
        for name in netns.names():
            if OURS.match(name) and name not in wanted:
                self._forget(name)
                netns.delete(name)

    def _compiled(self, world: World, vpc_id: str, before: World | None) -> rules.Ruleset:
        known = self._applied.get(vpc_id)
        return self._compile_vpc(world, vpc_id, None if before is None or known is None else (before, known))

    def counters(self, namespace: str) -> dict[str, int]:
        """Packets of every named counter in a namespace."""
        return self._nftables(namespace).counters(rules.TABLE)

    def close(self) -> None:
        """Free the handles. Nothing in the kernel changes."""
        for nft in self._nft.values():
            nft.close()
        self._nft.clear()

    # -- one VPC ---------------------------------------------------------------------------------------------------

    def _apply_vpc(self, world: World, vpc_id: str, before: World | None) -> None:
        plan = {eni.id: _attachment(world, eni) for eni in world.interfaces_of_vpc(vpc_id)}
        known = vpc_id in self._plugged
        if not known:
            netns.create(vpc_id)
            ip.sysctl(vpc_id, ROUTER_SYSCTLS)
        # Rules before links: whatever comes up next is already judged.
        self._apply_ruleset(vpc_id, self._compiled(world, vpc_id, before))
        if not known:
            ip.sysctl(vpc_id, TRACKING_SYSCTLS)  # which are there once a ruleset has asked for connection tracking
            self._plugged[vpc_id] = {}
            self._lay_void(vpc_id)
        self._plug(world, vpc_id, plan)
        for attachment in plan.values():
            if attachment.of_endpoint:
                self._apply_ruleset(attachment.namespace, rules.compile_endpoint())
        self._apply_returns(world, vpc_id, plan)

    def _apply_ruleset(self, namespace: str, ruleset: rules.Ruleset) -> None:
        nft = self._nftables(namespace)
        before = self._applied.get(namespace)
        commands: str | bytes
        if before is not None:
            batch = rules.rewriting(before, ruleset)
            commands = rules.changes(before, ruleset) if batch is None else batch
        elif _applied_fingerprint(nft) == rules.fingerprint(ruleset):
            commands = ""
        else:
            commands = rules.render(ruleset)
        if commands:
            self._applied.pop(namespace, None)  # if this fails, the next attempt starts from what the kernel says
            try:
                nft.run(commands) if isinstance(commands, str) else nft.send(commands)
            except TooLong:
                for part in rules.batches(ruleset):
                    nft.run(part)
        self._applied[namespace] = ruleset

    def _plug(self, world: World, vpc_id: str, plan: dict[str, _Attachment]) -> None:
        plugged = self._plugged[vpc_id]
        wanted = {attachment.link: attachment for attachment in plan.values()}
        if wanted == plugged:
            return
        routers = {one.router_address or "" for one in world.subnets if one.vpc_id == vpc_id} - {""}
        ip.batch(vpc_id, [f"address replace {address}/32 dev lo" for address in sorted(routers)])
        there = {str(link["ifname"]): str(link.get("ifalias", "")) for link in ip.read(vpc_id, "link", "show")}
        for name in ("lo", *VOID):
            there.pop(name, None)
        # A link says in its alias what it is for, so that a netd without memory never takes one for another's.
        stale = {link for link, alias in there.items() if link not in wanted or alias != wanted[link].alias}
        ip.batch(vpc_id, [f"link delete dev {link}" for link in sorted(stale)])
        # A new owner of an address never inherits a flow: what is tracked for one that goes or comes is forgotten.
        moved = {there[link].partition("|")[0] for link in stale} - {""}
        for link, attachment in wanted.items():
            exists = link in there and link not in stale
            if plugged.get(link) != attachment or not exists:
                _plug_one(vpc_id, attachment, exists=exists)
                plugged[link] = attachment
            if not exists:
                moved.add(attachment.address)
        conntrack.forget(vpc_id, moved)
        self._plugged[vpc_id] = wanted

    def _apply_returns(self, world: World, vpc_id: str, plan: dict[str, _Attachment]) -> None:
        wanted = {
            endpoint.index: (plan[endpoint.interface_id].address, plan[endpoint.interface_id].link)
            for endpoint in world.endpoints
            if endpoint.interface_id in plan
        }
        if self._returns.get(vpc_id) == wanted:
            return
        there = {rule["priority"] for rule in ip.read(vpc_id, "rule", "show")}
        ours = {priority for priority in there if RETURN_PRIORITY < priority <= RETURN_PRIORITY + 4095}
        lines = [f"rule delete priority {p}" for p in sorted(ours) if p - RETURN_PRIORITY not in wanted]
        if RETURN_PRIORITY not in there:
            # An ICMP error bears the mark of the packet it answers: one about a reply is for the target all the same.
            vpc = world.vpc(vpc_id)
            assert vpc is not None, "it is being applied"
            lines.append(f"rule add priority {RETURN_PRIORITY} iif lo to {vpc.cidr_block} lookup main")
        old = {
            table
            for table in _tables(vpc_id)
            if 0 < table - RETURN_TABLE <= 4095 and table - RETURN_TABLE not in wanted
        }
        lines += [f"route flush table {table}" for table in sorted(old)]
        for index, (address, link) in sorted(wanted.items()):
            # `via ... onlink`, not `dev` alone: else every client address becomes a neighbour entry of its own.
            lines.append(f"route replace default via {address} dev {link} onlink table {RETURN_TABLE + index}")
            if RETURN_PRIORITY + index not in ours:
                mark = f"{index << rules.compile.ENDPOINT_MARK_SHIFT:#x}/{rules.ENDPOINT_MARK_MASK:#x}"
                lines.append(f"rule add priority {RETURN_PRIORITY + index} fwmark {mark} lookup {RETURN_TABLE + index}")
        ip.batch(vpc_id, lines)
        self._returns[vpc_id] = wanted

    def _lay_void(self, vpc_id: str) -> None:
        there = {link["ifname"] for link in ip.read(vpc_id, "link", "show")}
        lines = [] if VOID[0] in there else [f"link add {VOID[0]} type veth peer name {VOID[1]}"]
        # Without ARP nothing is looked up there: else each address tried would take a place in the neighbour table,
        # which all namespaces of the host share.
        lines += [f"link set {link} arp off" for link in VOID]
        lines += [f"link set {link} up" for link in ("lo", *VOID)]
        # Scope host: the router must not choose this address for what it sends itself, such as ICMP errors.
        lines.append(f"address replace {rules.METADATA_ADDRESS}/32 dev lo scope host")
        ip.batch(vpc_id, [*lines, f"route replace default dev {VOID[0]}"])

    # -- handles ---------------------------------------------------------------------------------------------------

    def _nftables(self, namespace: str) -> Nftables:
        if namespace not in self._nft:
            self._nft[namespace] = Nftables(namespace)
        return self._nft[namespace]

    def _forget(self, namespace: str) -> None:
        nft = self._nft.pop(namespace, None)
        if nft is not None:
            nft.close()
        for memory in (self._applied, self._plugged, self._returns):
            memory.pop(namespace, None)


def _vpcs_of_changed_groups(before: World, world: World) -> set[str] | None:
    """The VPCs of groups that changed; None when anything else did that the kernel knows of."""
    kinds = ("vpcs", "subnets", "interfaces", "instances", "endpoints")
    if any(getattr(before, kind) is not getattr(world, kind) for kind in kinds):
        return None
    pairs = changed_pairs(before.groups, world.groups)
    if pairs is None:
        return None
    return {group.vpc_id for pair in pairs for group in pair}


def _differs(before: World, world: World, vpc_id: str) -> bool:
    """Whether anything of a VPC is not what it was."""
    return _parts_of(before, vpc_id) != _parts_of(world, vpc_id)


def _parts_of(world: World, vpc_id: str) -> tuple[object, ...]:
    """All of a VPC that the kernel knows of."""
    interfaces = world.interfaces_of_vpc(vpc_id)
    ids = {eni.id for eni in interfaces}
    return (
        world.vpc(vpc_id),
        [one for one in world.subnets if one.vpc_id == vpc_id],
        [one for one in world.groups if one.vpc_id == vpc_id],
        interfaces,
        [one for one in world.endpoints if one.interface_id in ids],
        [(one.id, one.interface_id) for one in world.instances if one.interface_id in ids],
    )


def _attachment(world: World, eni: NetworkInterface) -> _Attachment:
    subnet = world.subnet(eni.subnet_id)
    assert subnet is not None, "World.check has seen to it"
    network, router = subnet.network, subnet.router_address
    assert network is not None and router is not None, "IPv6-only subnets are not offered yet"
    owner = world.endpoint_of_interface(eni.id)
    instance = world.instance_of_interface(eni.id)
    return _Attachment(
        link=eni.link,
        address=eni.private_ip_address,
        router=router,
        prefix_length=network.prefixlen,
        namespace=owner.id if owner else instance.id if instance else eni.id.replace("eni-", "i-"),
        of_endpoint=owner is not None,
    )


def _plug_one(vpc_id: str, attachment: _Attachment, *, exists: bool) -> None:
    """Make one veth: `link` in the VPC's namespace, eth0 in the interface's own, addressed and routed."""
    name, link = attachment.namespace, attachment.link
    netns.create(name)
    ip.sysctl(name, HOST_SYSCTLS)
    if not exists:
        # An eth0 that a killed run left without its other end's right name is of no use to anybody.
        if any(one["ifname"] == "eth0" for one in ip.read(name, "link", "show")):
            ip.batch(name, ["link delete eth0"])
        ip.batch(vpc_id, [f"link add name {link} type veth peer name eth0 netns {name}"])
    conf = f"net/ipv4/conf/{link}"
    ip.sysctl(vpc_id, {f"{conf}/proxy_arp": "1", f"{conf}/rp_filter": "0", f"{conf}/send_redirects": "0"})
    # Stock kernels hold a proxied ARP answer back for up to 0.8 s, which the first connection would wait for.
    ip.sysctl(vpc_id, {f"net/ipv4/neigh/{link}/proxy_delay": "0"})
    ip.batch(
        vpc_id,
        [
            f"link set dev {link} up",
            f"route replace {attachment.address}/32 dev {link}",
            f"link set dev {link} alias {attachment.alias}",
        ],
    )
    # The address is a host's alone and the rest of the subnet is behind the router, as in a VPC; the router answers
    # every ARP request, so a machine configured with the subnet's prefix length works unchanged.
    inside = f"{attachment.address}/{attachment.prefix_length}"
    ip.batch(
        name,
        [
            "link set lo up",
            f"address replace {inside} dev eth0",
            "link set eth0 up",
            f"route replace default via {attachment.router}",
        ],
    )
    if attachment.of_endpoint:
        _make_all_local(name)


def _make_all_local(name: str) -> None:
    """All that arrives is local, whatever its address: replies to clients whose address a socket borrowed.

    With client IP preservation off too: tunnels that were opened while it was on go on.
    """
    there = any(rule.get("iif") == "eth0" for rule in ip.read(name, "rule", "show"))
    lines = [f"route replace local default dev lo table {LOCAL_TABLE}"]
    ip.batch(name, lines + ([] if there else [f"rule add iif eth0 lookup {LOCAL_TABLE}"]))


def _tables(namespace: str) -> set[int]:
    """Numbers of the routing tables that hold a route; named tables left out."""
    routes = ip.read(namespace, "-4", "route", "show", "table", "all")
    return {int(route["table"]) for route in routes if str(route.get("table", "")).isdigit()}


def _applied_fingerprint(nft: Nftables) -> str:
    for one in nft.listing(f"list chain inet {rules.TABLE} {rules.APPLIED}"):
        if "rule" in one:
            return str(one["rule"].get("comment", ""))
    return ""
