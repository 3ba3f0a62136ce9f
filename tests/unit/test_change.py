"""Changes: the incremental check refuses exactly what the whole one does, and carried look-ups are the right ones."""

from collections import Counter
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wicketgate.model import (
    KINDS,
    AccessKey,
    Change,
    Endpoint,
    Instance,
    MachineCredential,
    ManagedPolicy,
    NetworkInsightsAnalysis,
    NetworkInsightsPath,
    NetworkInterface,
    PolicyVersion,
    PrefixList,
    PrefixListEntry,
    PrefixListVersion,
    PushedKey,
    Role,
    Route,
    RouteTable,
    SecurityGroup,
    SecurityGroupRule,
    Settings,
    Subnet,
    User,
    UserGroup,
    Vpc,
    VpcPeeringConnection,
    World,
    WorldError,
    apply_change,
)
from wicketgate.model.change import id_of, inverse, kind_of

FIELDS = {
    "vpc": "vpcs",
    "subnet": "subnets",
    "security-group": "groups",
    "network-interface": "interfaces",
    "instance": "instances",
    "instance-connect-endpoint": "endpoints",
    "user": "users",
    "user-group": "user_groups",
    "role": "roles",
    "policy": "managed_policies",
    "access-key": "access_keys",
    "pushed-key": "pushed_keys",
    "machine-credential": "machine_credentials",
    "prefix-list": "prefix_lists",
    "prefix-list-version": "prefix_list_versions",
    "vpc-peering-connection": "peerings",
    "route-table": "route_tables",
    "network-insights-path": "insights_paths",
    "network-insights-analysis": "insights_analyses",
}


class _Maker:
    """Random resources with ids from small pools, so that they clash and refer to one another often enough."""

    def __init__(self, random):
        self.random = random
        self.world = World()

    def _any(self, prefix, count):
        return f"{prefix}-{self.random.randrange(count)}"

    def _there(self, field, prefix, count):
        """Mostly the id of something that is there."""
        known = [id_of(one) for one in getattr(self.world, field)]
        return self._rarely(self._any(prefix, count), self.random.choice(known) if known else f"{prefix}-0")

    def _rarely(self, bad, good):
        return bad if self.random.random() < 0.04 else good

    def vpc(self):
        number = self.random.randrange(3)
        bad = self.random.choice(["10.0.0.0/33", "10.9.0.0/16"])
        six = self.random.choice([(), (f"fd00:{number}::/56",), (self._rarely("fd00::/56%1", f"fd00:{number}::/56"),)])
        return Vpc(id=f"vpc-{number}", cidr_block=self._rarely(bad, f"10.{number}.0.0/16"), ipv6_cidr_blocks=six)

    def subnet(self):
        number = self.random.randrange(6)
        vpc = self._rarely(1 - number % 2, number % 2)
        bad = self.random.choice(["10.0.2.0/23", "nonsense", "10.9.0.0/24"])
        cidr = self._rarely(bad, f"10.{self._rarely(1 - vpc, vpc)}.{number}.0/24")
        six = self._rarely("fd00:0:0:9::/64", f"fd00:{vpc}:0:{number}::/64") if self.random.random() < 0.3 else ""
        cidr = self._rarely("", cidr)
        return Subnet(id=f"subnet-{number}", vpc_id=f"vpc-{vpc}", cidr_block=cidr, ipv6_cidr_block=six)

    def group(self):
        number = self.random.randrange(6)
        vpc = self._rarely(1 - number % 2, number % 2)
        rules = tuple(self._rule(number) for _ in range(self.random.randrange(3)))
        return SecurityGroup(id=self._rarely("sg 9", f"sg-{number}"), vpc_id=f"vpc-{vpc}", name="n", rules=rules)

    def _rule(self, number):
        other = self._rarely(self._any("sg", 6), self._group_of(number % 2))
        far = {"referenced_group_id": self._any("sg", 6), "referenced_vpc_id": f"vpc-{1 - number % 2}"}
        listed = {"prefix_list_id": self._there("prefix_lists", "pl", 3)}
        peer = self.random.choice([{"cidr_ipv4": "10.0.0.0/8"}, {"referenced_group_id": other}, far, listed])
        ports = {"from_port": 1, "to_port": self._rarely(0, 1)}
        return SecurityGroupRule(id=self._any("sgr", 99), is_egress=False, ip_protocol="tcp", **peer, **ports)

    def interface(self):
        number = self.random.randrange(6)
        subnet = int(self._there("subnets", "subnet", 6)[-1])
        vpc = subnet % 2
        place = self._rarely(5, 4 + number)
        return NetworkInterface(
            id=f"eni-{number}",
            subnet_id=f"subnet-{subnet}",
            private_ip_address=f"10.{vpc}.{subnet}.{place}",
            link=self._rarely("lo", f"l{self._rarely(5, number)}"),
            group_ids=self._rarely((), (self._rarely("sg-0", self._group_of(vpc)),)),
            secondary_ip_addresses=self._rarely((f"10.{vpc}.{subnet}.{self.random.randrange(4, 9)}",), ()),
            ipv6_addresses=self._rarely((f"fd00:{vpc}:0:{subnet}::{self.random.randrange(3, 6)}",), ()),
            attached_to=self._rarely(self._any("i", 3), ""),
            device_index=self.random.randrange(1, 3),
        )

    def _group_of(self, vpc):
        known = [one.id for one in self.world.groups if one.vpc_id == f"vpc-{vpc}"]
        return self.random.choice(known or ["sg-0"])

    def instance(self):
        return Instance(id=self._any("i", 3), interface_id=self._there("interfaces", "eni", 6))

    def endpoint(self):
        return Endpoint(
            id=self._any("eice", 3),
            subnet_id=self._there("subnets", "subnet", 6),
            interface_id=self._there("interfaces", "eni", 6),
            dns_name="door",
            index=self._rarely(0, self.random.randrange(1, 5)),
            ip_address_type=self._rarely("dualstack", "ipv4"),
        )

    def prefix_list(self):
        entries = (PrefixListEntry(cidr=f"10.{one}.0.0/16") for one in (1, self._rarely(1, 2)))
        family = self._rarely("IPv6", "IPv4")
        return PrefixList(id=self._any("pl", 3), name="n", max_entries=9, address_family=family, entries=tuple(entries))

    def prefix_list_version(self):
        return PrefixListVersion(id=self._any("pl-0:", 3), prefix_list_id="pl-0", number=1)

    def peering(self):
        return VpcPeeringConnection(
            id=self._any("pcx", 3),
            requester_vpc_id=self._rarely("vpc-1", "vpc-0"),
            accepter_vpc_id=self._any("vpc", 2),
            link=f"{self._rarely('l', 'p')}{self.random.randrange(3)}",
            status=self.random.choice(["active", "active", "pending-acceptance", "rejected", "deleted"]),
        )

    def route_table(self):
        number = self.random.randrange(4)
        bad = self.random.choice(["subnet-0", "subnet-1"])
        destinations = {"10.8.0.0/16", self._rarely("nonsense", "fd00:9::/56")}
        return RouteTable(
            id=f"rtb-{number}",
            vpc_id=f"vpc-{self._rarely(1 - number % 2, number % 2)}",
            main=number < 2,
            subnet_ids=(self._rarely(bad, f"subnet-{number % 2 + 2 * self.random.randrange(3)}"),),
            routes=tuple(Route(destination=one, peering_id="pcx-0") for one in destinations),
        )

    def insights_path(self):
        return NetworkInsightsPath(id=self._any("nip", 3), source=self._any("i", 3), protocol="tcp")

    def insights_analysis(self):
        path = self._there("insights_paths", "nip", 3)
        return NetworkInsightsAnalysis(id=self._any("nia", 3), path_id=path, path_found=self.random.random() < 0.5)

    def user(self):
        name = self._any("user", 3)
        return User(
            name=self._rarely(name.upper(), name),
            id="AIDA",
            groups=tuple(self._there("user_groups", "group", 2) for _ in range(self.random.randrange(2))),
            attached=tuple(self._there("managed_policies", "arn", 2) for _ in range(self.random.randrange(2))),
        )

    def user_group(self):
        return UserGroup(name=self._any("group", 2), id="AGPA")

    def role(self):
        return Role(name=self._any("role", 2), id="AROA")

    def managed_policy(self):
        arn = self._any("arn", 2)
        return ManagedPolicy(
            arn=arn, name=arn, id="ANPA", versions=(PolicyVersion(id=self._rarely("v2", "v1"), document={}),)
        )

    def access_key(self):
        user, role = self._there("users", "user", 3), self._there("roles", "role", 2)
        whose = self.random.choice([{"user_name": user}, {"role_name": role}, {}])
        return AccessKey(id=self._any("AKIA", 3), secret="s", **whose)

    def pushed_key(self):
        return PushedKey(id=self._any("key", 2), instance_id="i-0", os_user="u", public_key="k", expires=1.0)

    def machine_credential(self):
        return MachineCredential(id=self._any("mc", 2), instance_id="i-0", secret_hash="0" * 64)

    def settings(self):
        return Settings(max_tunnels_per_endpoint=self.random.randrange(1, 9))

    def change(self, world):
        """A few puts of anything and deletions of what is mostly there."""
        makers = (
            [self.vpc, self.subnet, self.group] * 2
            + [self.interface] * 4
            + [self.instance, self.endpoint] * 2
            + [self.user, self.user_group, self.role, self.managed_policy]
            + [self.access_key, self.pushed_key, self.machine_credential, self.settings]
            + [self.prefix_list, self.prefix_list_version, self.peering, self.route_table]
            + [self.insights_path, self.insights_analysis, self.insights_analysis]
        )
        self.world = world
        puts = [self.random.choice(makers)() for _ in range(self.random.choice([0, 1, 1, 1, 2, 3]))]
        if self.random.random() < 0.3:  # a change of rules alone, and a group without any
            puts += [msgspec.structs.replace(one, rules=()) for one in world.groups[:1]]
        there = [(kind, id_of(one)) for kind, field in FIELDS.items() for one in getattr(world, field)]
        gone = self.random.sample(there, min(len(there), self.random.choice([0, 0, 0, 0, 1, 1, 2])))
        return Change(puts=tuple(puts), deletes=(*gone, *self._rarely([("subnet", "subnet-9")], [])))


def _rich():
    """A World with some of everything, to start from."""
    made = World(
        vpcs=tuple(Vpc(id=f"vpc-{v}", cidr_block=f"10.{v}.0.0/16") for v in range(3)),
        subnets=tuple(
            Subnet(id=f"subnet-{n}", vpc_id=f"vpc-{n % 2}", cidr_block=f"10.{n % 2}.{n}.0/24") for n in range(6)
        ),
        groups=tuple(SecurityGroup(id=f"sg-{n}", vpc_id=f"vpc-{n % 2}", name="n") for n in range(4)),
        interfaces=tuple(
            NetworkInterface(
                id=f"eni-{n}",
                subnet_id=f"subnet-{n}",
                private_ip_address=f"10.{n % 2}.{n}.{4 + n}",
                link=f"l{n}",
                group_ids=(f"sg-{n}",),
            )
            for n in range(4)
        ),
        instances=(Instance(id="i-0", interface_id="eni-0"),),
        prefix_lists=(PrefixList(id="pl-0", name="n", address_family="IPv4", max_entries=2),),
        endpoints=(Endpoint(id="eice-0", subnet_id="subnet-1", interface_id="eni-1", dns_name="door"),),
        insights_paths=(NetworkInsightsPath(id="nip-0", source="i-0", protocol="tcp"),),
        insights_analyses=(NetworkInsightsAnalysis(id="nia-0", path_id="nip-0", path_found=True),),
        users=(User(name="user-0", id="AIDA", groups=("group-0",), attached=("arn-0",)),),
        user_groups=(UserGroup(name="group-0", id="AGPA"),),
        managed_policies=(
            ManagedPolicy(arn="arn-0", name="arn-0", id="A", versions=(PolicyVersion(id="v1", document={}),)),
        ),
    )
    made.check()
    return made


def _whole(world, change):
    """The World after a Change in the plainest way, with the whole check."""
    fields = {"revision": world.revision + 1}
    for kind, field in FIELDS.items():
        found = {id_of(one): one for one in getattr(world, field)}
        puts = {id_of(one): one for one in change.puts if type(one) is KINDS[kind]}
        gone = {resource_id for deleted, resource_id in change.deletes if deleted == kind}
        if gone - found.keys():
            raise WorldError("does not exist")
        fields[field] = tuple(one for resource_id, one in (found | puts).items() if resource_id not in gone)
    fields["settings"] = next((one for one in reversed(change.puts) if isinstance(one, Settings)), world.settings)
    made = msgspec.structs.replace(world, **fields)
    made.check()
    return made


def _looked_up(world):
    """Every look-up of a World."""
    by_id = {field: dict(world.by_id(field)) for field in FIELDS.values()}
    interfaces = [f"eni-{number}" for number in range(6)]
    places = [(f"vpc-{v}", f"10.{v}.{s}.{n}") for v in range(2) for s in range(6) for n in range(4, 11)]
    return (
        by_id,
        [world.members(f"sg-{number}") for number in range(6)],
        [world.interfaces_of_vpc(f"vpc-{number}") for number in range(2)],
        [world.interface_at(*place) for place in places],
        [(world.endpoint_of_interface(one), world.instance_of_interface(one)) for one in interfaces],
        [world.active_peerings(f"vpc-{number}") for number in range(2)],
        {one.id: world.groups_naming(one.id) for one in world.prefix_lists},
        [world.interfaces_of_instance(one) for one in world.instances],
    )


def _outcome(apply, world, change):
    try:
        return apply(world, change)
    except WorldError:
        return None


def test_incremental_check_is_the_whole_check():
    """On random Worlds and Changes, good and bad, both refuse the same ones, and the Worlds and look-ups are equal."""
    seen, refused = Counter(), Counter()

    @settings(max_examples=300, deadline=None, database=None)
    @given(st.integers(0, 2**64))
    def walk(seed):
        maker, world = _Maker(Random(seed)), _rich()
        for _ in range(40):
            change = maker.change(world)
            made = _outcome(apply_change, world, change)
            expected = _outcome(_whole, world, change)
            assert made == expected, (world, change)
            kinds = {kind_of(one) for one in change.puts} | {f"-{kind}" for kind, _ in change.deletes}
            (refused if made is None else seen).update(kinds)
            if made is None:
                continue
            fresh = World.from_json(made.to_json())
            assert _looked_up(made) == _looked_up(fresh)
            back = apply_change(made, inverse(world, change))
            assert all(back.by_id(field) == world.by_id(field) for field in FIELDS.values())
            world = made

    walk()
    # A kind that is never accepted, or never refused, would prove nothing.
    assert min(seen[kind] for kind in [*KINDS, *(f"-{kind}" for kind in FIELDS)]) >= 20, seen
    assert min(refused[kind] for kind in ("subnet", "security-group", "network-interface", "-vpc", "-subnet")) >= 50
    kinds = ("security-group", "network-interface", "user", "policy", "network-insights-path")
    assert min(refused[f"-{kind}"] for kind in kinds) >= 20


def test_untouched_resources_and_look_ups_are_shared():
    """A change of one group costs no more than the group's own tuple and look-up: all else is the same object."""
    vpcs = (Vpc(id="vpc-1", cidr_block="10.0.0.0/16"),)
    groups = tuple(SecurityGroup(id=f"sg-{number}", vpc_id="vpc-1", name="n") for number in range(3))
    world = World(vpcs=vpcs, groups=groups)
    world.check()
    before = _looked_up(world)
    made = apply_change(world, Change(puts=(msgspec.structs.replace(groups[1], name="m"),)))
    assert made.vpcs is world.vpcs
    assert [one is other for one, other in zip(made.groups, groups, strict=True)] == [True, False, True]
    assert made.by_id("vpcs") is world.by_id("vpcs")
    assert made._places is world._places
    assert _looked_up(world) == before


@pytest.mark.parametrize("kind", ["settings", "nonsense"])
def test_what_cannot_be_deleted(kind):
    """A deletion of no kind of resource is refused, not passed over."""
    with pytest.raises(WorldError, match="cannot be deleted"):
        apply_change(World(), Change(deletes=((kind, ""),)))


def test_inverse_leads_back():
    """A Change and its inverse leave what was there, in content."""
    vpc = Vpc(id="vpc-1", cidr_block="10.0.0.0/16")
    group = SecurityGroup(id="sg-1", vpc_id="vpc-1", name="n")
    world = apply_change(World(), Change(puts=(vpc, group)))
    change = Change(
        puts=(msgspec.structs.replace(vpc, name="other"), Settings(max_tunnels_per_endpoint=3)),
        deletes=(("security-group", "sg-1"),),
    )
    back = apply_change(apply_change(world, change), inverse(world, change))
    assert msgspec.structs.replace(back, revision=world.revision) == world
