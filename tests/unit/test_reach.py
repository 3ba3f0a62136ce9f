"""The matrix of `reach` against asking one by one, on small Worlds: every principal, target, address and port class."""

from __future__ import annotations

import random
import re
from itertools import product
from typing import Any

import msgspec
import pytest

from wicketgate import iam
from wicketgate.admit import OPEN_TUNNEL, caller_context, tunnel_context
from wicketgate.explain import Question, Unanswerable
from wicketgate.explain.question import understood
from wicketgate.explain.reach import Matrix, Wish, reach
from wicketgate.explain.reach_iam import Reading
from wicketgate.explain.reach_principals import Who, everybody
from wicketgate.explain.region import span_of
from wicketgate.explain.steps import steps
from wicketgate.model import (
    EXTERNAL_IMAGE,
    AccessKey,
    AttachedNetwork,
    Endpoint,
    Instance,
    NetworkInterface,
    Policy,
    PrefixList,
    PrefixListEntry,
    Role,
    SecurityGroup,
    SecurityGroupRule,
    Settings,
    Subnet,
    User,
    Vpc,
    World,
)

SOURCES = [
    "203.0.113.10", "203.0.113.11", "203.0.114.0", "198.51.100.7", "10.0.0.10", "10.0.1.11", "127.0.0.1", "192.0.2.255",
    "8.8.8.8", "240.0.0.1", "2001:db8::7", "2001:db8:1::", "fd00:1::11", "fe80::1", "255.255.255.255", "0.0.0.0",
]  # fmt: skip
"""Clients: inside and beside every range that a rule or a condition of these Worlds names."""
RANGES = ["203.0.113.0/24", "203.0.113.10/32", "0.0.0.0/0", "198.51.100.0/24", "10.0.0.0/16", "::/0", "2001:db8::/48"]
PORTS = [1, 21, 22, 23, 79, 80, 443, 2222, 3389, 3390, 65535]
DURATIONS = [1, 59, 60, 61, 899, 900, 901, 3600]

AGENTS = ["aws-cli/2.1", "curl/8"]
KEY = "ec2-instance-connect:"


def condition(pick: random.Random) -> dict[str, Any]:
    """A condition on one of the axes, or on something that is settled, or on what nobody knows."""
    port = [str(one) for one in pick.sample([22, 80, 443, 2222, 3389], pick.randint(1, 2))]
    some = pick.sample(RANGES, pick.randint(1, 2))
    span = pick.choice(["60", "900", "60.5", "901"])
    return pick.choice([
        {"NumericEquals": {f"{KEY}remotePort": port}},
        {"NumericNotEquals": {f"{KEY}RemotePort": port}},
        {"NumericNotEqualsIfExists": {f"{KEY}remotePort": port}},
        {"NumericLessThan": {f"{KEY}remotePort": port}},
        {"NumericGreaterThanEquals": {f"{KEY}remotePort": port}},
        {"StringEquals": {f"{KEY}remotePort": port}},
        {"StringLike": {f"{KEY}remotePort": ["22*", "?0"]}},
        {"ForAllValues:StringNotLike": {f"{KEY}remotePort": "*2"}},
        {"IpAddress": {"aws:SourceIp": some}},
        {"NotIpAddress": {"aws:sourceip": some}},
        {"StringEquals": {"aws:SourceIp": ["203.0.113.10", "${aws:PrincipalTag/home, '198.51.100.7'}"]}},
        {"StringLike": {"aws:SourceIp": pick.choice(["203.0.113.*", "10.*", "*", "999.*", "203.0.113.1*"])}},
        {"StringNotLike": {"aws:SourceIp": "203.0.*"}},
        {"NumericLessThanEquals": {f"{KEY}maxTunnelDuration": span}},
        {"NumericGreaterThan": {f"{KEY}maxTunnelDuration": span}},
        {"DateLessThan": {f"{KEY}maxTunnelDuration": "1970-01-01T00:15:00Z"}},
        {"IpAddress": {f"{KEY}privateIpAddress": pick.choice(["10.0.1.11", "10.0.1.0/28", "fd00:1::/64"])}},
        {"NotIpAddress": {f"{KEY}privateIpAddress": "10.0.1.11"}},
        {"StringLike": {f"{KEY}privateIpAddress": "10.0.1.1?"}},
        {"StringEquals": {f"{KEY}privateIpAddress": "${aws:PrincipalTag/box}"}},
        {"StringEquals": {"aws:ResourceTag/team": "${aws:PrincipalTag/team}"}},
        {"StringEquals": {"ec2:ResourceTag/Team": ["red", "blue"]}},
        {"StringNotEquals": {"aws:username": "alice"}},
        {"DateLessThan": {"aws:CurrentTime": pick.choice(["2020-01-01T00:00:00Z", "2030-01-01T00:00:00Z"])}},
        {"Null": {"aws:SourceIp": pick.choice(["true", "false"])}},
        {"Bool": {"aws:MultiFactorAuthPresent": "true"}},
        {"StringLike": {"aws:UserAgent": "aws-cli*"}},
        {"StringEquals": {"aws:SourceIp": "${ec2-instance-connect:privateIpAddress}"}},
        {"NumericEquals": {"aws:PrincipalTag/port": "22"}},
    ])  # fmt: skip


def document(pick: random.Random) -> dict[str, Any]:
    """A policy of a few statements."""
    statements = []
    for _ in range(pick.randint(1, 3)):
        conditions: dict[str, Any] = {}
        for _ in range(pick.randint(0, 2)):
            conditions |= condition(pick)
        statements.append({
            "Effect": "Allow" if not statements or pick.random() < 0.6 else "Deny",
            "Action": pick.choice(["ec2-instance-connect:OpenTunnel", "ec2-instance-connect:*", "*"]),
            "Resource": pick.choice(["*", "*", "arn:aws:ec2:*:*:instance-connect-endpoint/eice-1"]),
            "Condition": conditions,
        })  # fmt: skip
    return {"Version": "2012-10-17", "Statement": statements}


def policies(pick: random.Random, most: int = 2) -> tuple[Policy, ...]:
    """Some policies; seldom one that cannot be read."""
    if pick.random() < 0.05:
        return (Policy(name="bad", document={"Version": "2012-10-17", "Statement": [{"Effect": "Perhaps"}]}),)
    return tuple(Policy(name=f"p{n}", document=document(pick)) for n in range(pick.randint(1, most)))


def rules(pick: random.Random, group: int) -> tuple[SecurityGroupRule, ...]:
    """Some rules of a group, in both directions."""
    found = []
    for number in range(pick.randint(3, 6)):
        first, last = sorted((pick.choice(PORTS[:5]), pick.choice(PORTS[3:])))
        protocol = pick.choice(["tcp", "tcp", "tcp", "-1", "udp", "6"])
        peer = pick.choice(["cidr", "cidr", "group", "list"])
        cidr = pick.choice([*RANGES, "0.0.0.0/0", "::/0", "10.0.1.0/24", "fd00:1::/64"])
        ports = (-1, -1) if protocol == "-1" else (first, last)
        found.append(
            SecurityGroupRule(
                id=f"sgr-{group}x{number}",
                is_egress=pick.random() < 0.5,
                ip_protocol=protocol,
                from_port=ports[0],
                to_port=ports[1],
                cidr_ipv4=cidr if peer == "cidr" and ":" not in cidr else None,
                cidr_ipv6=cidr if peer == "cidr" and ":" in cidr else None,
                referenced_group_id=f"sg-{pick.randint(0, 3)}" if peer == "group" else None,
                prefix_list_id="pl-1" if peer == "list" else None,
            )
        )
    return tuple(found)


def world(seed: int) -> World:
    """A small World: two endpoints, four instances of one or both families, users, a role and a session of it."""
    pick = random.Random(seed)
    interfaces = [
        NetworkInterface(
            id=f"eni-{at}",
            subnet_id="subnet-1",
            private_ip_address=f"10.0.1.{at}",
            secondary_ip_addresses=("10.0.1.50",) if at == 12 else (),
            ipv6_addresses=(f"fd00:1::{at}",) if at in (8, 11, 13) else (),
            group_ids=tuple(sorted(pick.sample(["sg-0", "sg-1", "sg-2", "sg-3"], pick.randint(1, 2)))),
            link=f"l{at}",
        )
        for at in (8, 9, 11, 12, 13, 14)
    ]
    made = World(
        settings=Settings(
            allowed_ports=pick.choice([(), (22, 3389), (22, 80, 2222)]),
            preserve_client_ipv6=pick.random() < 0.5,
            unpreservable_client=pick.choice(["refuse", "endpoint-address"]),
        ),
        vpcs=(Vpc(id="vpc-1", cidr_block="10.0.0.0/16", ipv6_cidr_blocks=("fd00:1::/56",)),),
        subnets=(Subnet(id="subnet-1", vpc_id="vpc-1", cidr_block="10.0.1.0/24", ipv6_cidr_block="fd00:1::/64"),),
        prefix_lists=(
            PrefixList(
                id="pl-1",
                name="office",
                address_family="IPv4",
                max_entries=5,
                entries=(PrefixListEntry(cidr="203.0.113.0/25"), PrefixListEntry(cidr="10.0.1.8/29")),
            ),
        ),
        groups=tuple(SecurityGroup(id=f"sg-{n}", vpc_id="vpc-1", name=f"g{n}", rules=rules(pick, n)) for n in range(4)),
        interfaces=tuple(interfaces),
        instances=tuple(
            Instance(id=f"i-{at}", interface_id=f"eni-{at}", state="stopped" if at == 14 else "running")
            for at in (11, 12, 13, 14)
        ),
        endpoints=(
            Endpoint(
                id="eice-1",
                subnet_id="subnet-1",
                interface_id="eni-8",
                dns_name="a",
                preserve_client_ip=pick.random() < 0.5,
                ip_address_type=pick.choice(["ipv4", "dualstack", "ipv6"]),
                tags={"team": "red"},
            ),
            Endpoint(
                id="eice-2",
                subnet_id="subnet-1",
                interface_id="eni-9",
                dns_name="b",
                index=2,
                preserve_client_ip=pick.random() < 0.5,
                state=pick.choice(["create-complete", "update-in-progress", "delete-in-progress"]),
            ),
        ),
        users=(
            User(
                name="alice",
                id="AIDA1",
                policies=policies(pick),
                tags={"team": "red", "box": "10.0.1.12", "port": "22"},
            ),
            User(name="bob", id="AIDA2", policies=policies(pick), tags={"home": "203.0.113.11"}),
            User(name="carol", id="AIDA3"),
        ),
        roles=(Role(name="ops", id="AROA1", policies=policies(pick)),),
        access_keys=(
            AccessKey(id="AKIAALICE0000001", secret="s", user_name="alice"),
            AccessKey(
                id="ASIAOPS000000001",
                secret="s",
                role_name="ops",
                session_name="x",
                session_token="t",
                session_policies=policies(pick, 1),
                session_tags={"team": "blue"},
            ),
        ),
    )
    made.check()
    return with_external_machines(made, seed)


def with_external_machines(made: World, seed: int) -> World:
    """Some of the instances exist without us, on a network that leads back here or does not."""
    pick = random.Random(-1 - seed)
    attached = pick.choice([None, AttachedNetwork(mode="bridge"), AttachedNetwork(mode="own", return_path=True)])
    external = pick.sample([11, 12, 13, 14], pick.choice([0, 0, 1, 2]))
    instances = tuple(
        msgspec.structs.replace(one, image_id=EXTERNAL_IMAGE, state=pick.choice(["running", "stopped"]))
        if int(one.id.removeprefix("i-")) in external
        else one
        for one in made.instances
    )
    (subnet,) = made.subnets
    return msgspec.structs.replace(
        made, instances=instances, subnets=(msgspec.structs.replace(subnet, attached=attached),)
    )


def opens(made: World, asked: tuple[str, str, str, str, int, int]) -> bool:
    """Whether one tunnel passes all that is judged step by step, but for having a key; no endpoint is a target."""
    principal, endpoint, address, source, duration, port = asked
    question = Question(
        principal=principal, source_ip=source, target=address, endpoint_id=endpoint, port=port, duration=duration
    )
    lines = steps(made, understood(made, question))
    if not all(line.outcome == "pass" for line in lines if line.step != "credentials"):
        return False
    receiver = made.interface_at("vpc-1", address)
    return made.endpoint_of_interface(receiver.id) is None  # `paths`: only the service connects to an endpoint


def told(matrix: Matrix, asked: tuple[str, str, str, str, int, int]) -> str:
    """`yes`, `no` or `depends`, by the matrix."""
    principal, endpoint, address, source, duration, port = asked
    point = span_of(source)[0], duration, port
    found = [
        "yes" if point in cell.region else "depends" if point in cell.doubtful else "no"
        for cell in matrix.cells
        if cell.endpoint == endpoint
        and principal in cell.principals
        and any(target.address == address for target in cell.targets)
    ]
    assert len(found) <= 1, "each principal and target is in one cell of an endpoint"
    return found[0] if found else "no"


@pytest.mark.parametrize("seed", range(20))
def test_the_matrix_is_what_asking_one_by_one_finds(seed: int) -> None:
    """Equal for every principal, endpoint and target, wherever something is certain."""
    made, pick = world(seed), random.Random(seed)
    matrix = reach(made, Wish())
    addresses = [address for eni in made.interfaces for address in eni.addresses]
    for who in matrix.principals:
        for endpoint, address in product(made.endpoints, addresses):
            for source, port in product(pick.sample(SOURCES, 4), pick.sample(PORTS, 4)):
                asked = who.name, endpoint.id, address, source, pick.choice(DURATIONS), port
                answer = told(matrix, asked)
                if answer != "depends":
                    assert (answer == "yes") is opens(made, asked), asked


@pytest.mark.parametrize("seed", range(20))
def test_policies_as_sets_are_what_iam_decides(seed: int) -> None:
    """At every client, duration and port of the pools: certain is allowed whatever the user agent, and what is not
    even possible never is."""
    made = world(seed)
    offered = made.settings.allowed_ports or PORTS
    for who, endpoint in product(everybody(made, 0.0), made.endpoints):
        reading = Reading(made, who, 0.0)
        address = random.Random(seed).choice(["10.0.1.11", "10.0.1.12", "10.0.1.50", "fd00:1::11"])
        allowance = reading.allowance(endpoint, address)
        for source, duration, port in product(SOURCES, DURATIONS, set(PORTS) & set(offered)):
            point = span_of(source)[0], duration, port
            allowed = {decided(made, who, endpoint, address, (source, duration, port, agent)) for agent in AGENTS}
            if point in allowance.certain:
                assert allowed == {True}, (who.name, point)
            elif point not in allowance.possible:
                assert allowed == {False}, (who.name, point)
            else:
                assert allowance.depends


def decided(made: World, who: Who, endpoint: Endpoint, address: str, point: tuple[str, int, int, str]) -> bool:
    """What IAM says about one tunnel."""
    source, duration, port, agent = point
    context = caller_context(made, who.principal, source, agent, 0.0)
    request = iam.Request(
        principal_arn=who.principal.arn,
        action=OPEN_TUNNEL,
        resource=made.endpoint_arn(endpoint.id),
        context=context | tunnel_context(port, address, duration, endpoint),
    )
    allowed = iam.decide(request, who.principal).allowed
    assert iam.allows(request, who.principal) is allowed
    return allowed


def test_enough_of_these_worlds_lets_something_through() -> None:
    """Comparing nothing with nothing would prove nothing."""
    matrices = [reach(world(seed), Wish()) for seed in range(40)]
    assert sum(any(cell.region for cell in one.cells) for one in matrices) >= 20
    assert sum(any(cell.doubtful for cell in one.cells) for one in matrices) >= 2


def test_a_wish_cuts_the_matrix() -> None:
    """One principal, target, endpoint, port or range of clients: the same matrix, less of it."""
    made = next(one for one in map(world, range(40)) if len(reach(one, Wish()).cells) > 5)
    whole = reach(made, Wish())
    cell = whole.cells[0]
    target = cell.targets[0]
    for wish in (Wish(principal=cell.principals[0]), Wish(target=target.address), Wish(endpoint_id=cell.endpoint)):
        part = reach(made, wish)
        assert any(cell.region == one.region and target in one.targets for one in part.cells)
        assert all(set(one.principals) <= {who.name for who in part.principals} for one in part.cells)
    near = reach(made, Wish(source="203.0.113.0/24", port=22))
    clients, port = span_of("203.0.113.0/24"), (22, 22)
    assert all(clients[0] <= a and b <= clients[1] and p == port for c in near.cells for (a, b), _, p in c.region.boxes)


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (Wish(principal="nobody"), "there is no user 'nobody'"),
        (Wish(principal="role/ops/nobody"), "there is no role 'ops/nobody'"),
        (Wish(target="i-nothing"), "there is no such instance as i-nothing"),
        (Wish(target="eni-nothing"), "there is no such network interface"),
        (Wish(target="web"), "'web' is no instance id"),
        (Wish(endpoint_id="eice-9"), "there is no such endpoint as eice-9; those that are: eice-1, eice-2"),
        (Wish(source="office"), "'office' is no IP address"),
        (Wish(port=0), "0 is no TCP port"),
    ],
)
def test_a_wish_for_what_is_not_there(wish: Wish, words: str) -> None:
    """The sentence names it."""
    with pytest.raises(Unanswerable, match=re.escape(words)):
        reach(world(0), wish)


@pytest.mark.parametrize(
    ("named", "name"),
    [
        ("alice", "alice"), ("user/alice", "alice"), ("arn:aws:iam::123456789012:user/alice", "alice"),
        ("AKIAALICE0000001", "alice"), ("root", "root"), ("role/ops", "role/ops"), ("role/ops/x", "role/ops/x"),
        ("arn:aws:iam::123456789012:role/ops", "role/ops"), ("ASIAOPS000000001", "role/ops/x"),
        ("arn:aws:sts::123456789012:assumed-role/ops/x", "role/ops/x"),
    ],
)  # fmt: skip
def test_principals_by_every_name(named: str, name: str) -> None:
    """One principal, however it is called; a role is not its session."""
    assert [who.name for who in reach(world(0), Wish(principal=named)).principals] == [name]


def test_sessions_of_one_name_are_told_apart_by_their_keys() -> None:
    """Each has policies of its own."""
    made = world(0)
    twin = msgspec.structs.replace(made.access_keys[1], id="ASIAOPS000000002", session_policies=())
    made = msgspec.structs.replace(made, access_keys=(*made.access_keys, twin))
    assert [who.name for who in everybody(made, 0.0)][-2:] == ["ASIAOPS000000001", "ASIAOPS000000002"]
    assert [who.name for who in reach(made, Wish(principal="ASIAOPS000000002")).principals] == ["ASIAOPS000000002"]


def test_a_session_that_has_ended_is_none() -> None:
    """At its end, seconds since the epoch, it is gone from the matrix."""
    made = world(0)
    ending = msgspec.structs.replace(made.access_keys[1], expires=100.0)
    made = msgspec.structs.replace(made, access_keys=(made.access_keys[0], ending))
    assert "role/ops/x" in [who.name for who in everybody(made, 99.9)]
    assert "role/ops/x" not in [who.name for who in everybody(made, 100.0)]
