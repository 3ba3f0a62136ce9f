"""Open tunnels and changes that would not let them open any more: by default they go on, as at AWS; where revocation is
immediate they are closed before the change is acknowledged, with a reason."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
import pytest

from tests.wire.conftest import open_tunnel
from tests.wire.gateway_harness import (
    BINARY,
    ENDPOINT,
    GatewayProcess,
    RawWebSocket,
    Target,
    frame,
    make_world,
    policy,
    signed_path,
    statement,
    upgrade,
)
from wicketgate import ipc
from wicketgate.model import (
    AccessKey,
    Change,
    ManagedPolicy,
    PrefixList,
    PrefixListEntry,
    Role,
    SecurityGroup,
    SecurityGroupRule,
    Settings,
    User,
    UserGroup,
    World,
)
from wicketgate.model.resources import REVOCATION_TAG, PolicyVersion

OUT = SecurityGroupRule(
    id="sgr-out", is_egress=True, ip_protocol="tcp", from_port=1, to_port=65535, cidr_ipv4="10.0.0.0/8"
)
IN = SecurityGroupRule(
    id="sgr-in", is_egress=False, ip_protocol="tcp", from_port=1, to_port=65535, cidr_ipv4="0.0.0.0/0"
)
EVERY_DESCRIBE = statement("ec2:Describe*")
OPEN_TUNNEL = statement("ec2-instance-connect:OpenTunnel")


def base(revision: int = 1, *, revocation: str = "immediate", tags: dict[str, str] | None = None) -> World:
    """The harness's World with groups that pass a tunnel; `alice` may open tunnels and look at rules."""
    made = make_world(revision, settings=Settings(allowed_ports=(), revocation=revocation))
    return msgspec.structs.replace(
        made,
        vpcs=tuple(msgspec.structs.replace(vpc, tags=tags or {}) for vpc in made.vpcs),
        groups=(
            SecurityGroup(id="sg-e", vpc_id="vpc-1", name="endpoint", rules=(OUT,)),
            SecurityGroup(id="sg-t", vpc_id="vpc-1", name="target", rules=(IN,)),
            SecurityGroup(id="sg-0", vpc_id="vpc-1", name="nothing"),
        ),
        users=(*made.users, User(name="alice", id="AIDAALICE", policies=policy(OPEN_TUNNEL, EVERY_DESCRIBE))),
        access_keys=(
            *made.access_keys,
            AccessKey(id="AKIAALICE", secret=made.access_keys[0].secret, user_name="alice"),
        ),
    )


def changed(before: World, field: str, resource_id: str, **values: object) -> World:
    """The next World, with other values of one resource."""
    there = getattr(before, field)
    key = "name" if field == "users" else "id"
    assert resource_id in {getattr(one, key) for one in there}
    new = tuple(msgspec.structs.replace(one, **values) if getattr(one, key) == resource_id else one for one in there)
    return msgspec.structs.replace(before, revision=before.revision + 1, **{field: new})


def without(before: World, field: str, resource_id: str) -> World:
    """The next World without one resource."""
    kept = tuple(one for one in getattr(before, field) if one.id != resource_id)
    return msgspec.structs.replace(before, revision=before.revision + 1, **{field: kept})


NOT_ANY_MORE = "no policy allows ec2-instance-connect:OpenTunnel any more"
CHANGES = {
    "rule removed": (
        lambda world: changed(world, "groups", "sg-t", rules=()),
        "no inbound rule of sg-t allows tcp",
    ),
    "group swapped": (
        lambda world: changed(world, "interfaces", "eni-t", group_ids=("sg-0",)),
        "no inbound rule of sg-0 allows tcp",
    ),
    "endpoint's rule removed": (
        lambda world: changed(world, "groups", "sg-e", rules=()),
        "no outbound rule of sg-e allows tcp",
    ),
    "policy removed": (lambda world: changed(world, "users", "alice", policies=policy(EVERY_DESCRIBE)), NOT_ANY_MORE),
    "policy denies": (
        lambda world: changed(world, "users", "alice", policies=policy(OPEN_TUNNEL, {**OPEN_TUNNEL, "Effect": "Deny"})),
        "a policy denies ec2-instance-connect:OpenTunnel",
    ),
    "key inactive": (
        lambda world: changed(world, "access_keys", "AKIAALICE", active=False),
        "access key AKIAALICE is inactive",
    ),
    "key deleted": (
        lambda world: without(world, "access_keys", "AKIAALICE"),
        "access key AKIAALICE is deleted, or its session has ended",
    ),
    "user deleted": (
        lambda world: msgspec.structs.replace(
            without(world, "access_keys", "AKIAALICE"), users=tuple(one for one in world.users if one.name != "alice")
        ),
        "access key AKIAALICE is deleted, or its session has ended",
    ),
}
"""What a change does, and the start of the words for it."""


def alices(
    gateway: GatewayProcess, target: Target, world: World, key: str = "AKIAALICE"
) -> tuple[RawWebSocket, object]:
    """A tunnel in this World, and the target's end."""
    gateway.enforce(world)
    client = gateway.open(signed_path(target.port, key=key))
    return client, target.accept()


def carries(client: RawWebSocket, peer: object) -> None:
    """Bytes pass both ways."""
    client.send(frame(BINARY, b"ping"))
    assert peer.recv(16) == b"ping"
    peer.sendall(b"pong")
    assert client.receive()[1] == b"pong"


@pytest.mark.parametrize("change", CHANGES)
def test_tunnels_outlive_changes_by_default(gateway: GatewayProcess, target: Target, change: str):
    """As at AWS: a tunnel is admitted once."""
    world = base(2, revocation="aws")
    client, peer = alices(gateway, target, world)
    with peer:
        gateway.enforce(CHANGES[change][0](world))
        carries(client, peer)


@pytest.mark.parametrize("change", CHANGES)
def test_immediate_revocation_closes_tunnels(gateway: GatewayProcess, target: Target, change: str):
    """Closed with 4403 when the change is acknowledged; the target is reset, the audit trail says which step failed."""
    world = base(2)
    client, peer = alices(gateway, target, world)
    apply, words = CHANGES[change]
    with peer:
        carries(client, peer)
        gateway.enforce(apply(world))
        start = time.monotonic()
        code, reason = client.receive_close()
        assert (code, reason[: 16 + len(words)]) == (4403, f"Access revoked: {words}")
        with pytest.raises(ConnectionResetError):
            peer.recv(1)
        assert time.monotonic() - start < 0.5
    (event,) = gateway.wait_audit("CloseTunnel")
    details = event["serviceEventDetails"]
    assert (details["closeCode"], details["bytesFromClient"], details["bytesToClient"]) == (4403, 4, 4)
    steps = {"key": "credentials", "user": "credentials", "policy": "iam", "endpoint's": "endpoint-outbound"}
    step = steps.get(change.split(maxsplit=1)[0], "target-inbound")
    assert details["closeReason"].startswith(f"Access revoked: {step}: ")


LIST = PrefixList(
    id="pl-1", name="everywhere", address_family="IPv4", max_entries=1, entries=(PrefixListEntry(cidr="0.0.0.0/0"),)
)
ALL_OPEN = policy(OPEN_TUNNEL, EVERY_DESCRIBE)
MANAGED = ManagedPolicy(
    arn="arn:aws:iam::123456789012:policy/open",
    name="open",
    id="ANPAOPEN",
    versions=(PolicyVersion(id="v1", document=ALL_OPEN[0].document),),
)
NOTHING = policy(EVERY_DESCRIBE)


def by_list(world: World) -> World:
    """The target's rule names a prefix list."""
    listed = msgspec.structs.replace(IN, cidr_ipv4=None, prefix_list_id=LIST.id)
    return msgspec.structs.replace(changed(world, "groups", "sg-t", rules=(listed,)), prefix_lists=(LIST,))


def by_group(world: World) -> World:
    """Alice may by her IAM group."""
    group = UserGroup(name="ops", id="AGPAOPS", policies=ALL_OPEN)
    return msgspec.structs.replace(
        changed(world, "users", "alice", policies=(), groups=(group.name,)), user_groups=(group,)
    )


def by_managed_policy(world: World) -> World:
    """Alice may by a managed policy."""
    return msgspec.structs.replace(
        changed(world, "users", "alice", policies=(), attached=(MANAGED.arn,)), managed_policies=(MANAGED,)
    )


def by_role(world: World) -> World:
    """Her key is of a session of a role that may."""
    role = Role(name="opener", id="AROAOPENER", policies=ALL_OPEN)
    key = {"user_name": "", "role_name": role.name, "session_name": "s"}
    return msgspec.structs.replace(changed(world, "access_keys", "AKIAALICE", **key), roles=(role,))


INDIRECT = {
    by_list: (msgspec.structs.replace(LIST, entries=()), "no inbound rule of sg-t allows tcp"),
    by_group: (UserGroup(name="ops", id="AGPAOPS", policies=NOTHING), NOT_ANY_MORE),
    by_managed_policy: (
        msgspec.structs.replace(MANAGED, versions=(PolicyVersion(id="v1", document=NOTHING[0].document),)),
        NOT_ANY_MORE,
    ),
    by_role: (Role(name="opener", id="AROAOPENER", policies=NOTHING), NOT_ANY_MORE),
}
"""What a tunnel may stand on beside the user's own policies and the groups' own ranges, and what it becomes."""


@pytest.mark.parametrize("standing", INDIRECT)
def test_what_is_named_decides_as_well(gateway: GatewayProcess, target: Target, standing: Callable[[World], World]):
    """A list, a group, a managed policy or a role that changes closes the tunnel with the change, not some time after:
    as time goes by tunnels are looked at every 5 s. Fed as a Change, since in a whole World everything is new."""
    world = standing(base(2))
    client, peer = alices(gateway, target, world)
    now, words = INDIRECT[standing]
    with peer:
        carries(client, peer)
        gateway.feed.sendall(ipc.frame(ipc.step(world.revision + 1, Change(puts=(now,)))))
        assert ipc.read_answer(gateway.feed) == world.revision + 1
        start = time.monotonic()
        code, reason = client.receive_close()
        assert (code, reason[: 16 + len(words)]) == (4403, f"Access revoked: {words}")
        assert time.monotonic() - start < 0.5


def test_the_tag_of_a_vpc_is_stronger_than_the_setting(gateway: GatewayProcess, target: Target):
    """Immediate by tag where the setting says aws, and the other way round."""
    revoke, words = CHANGES["key deleted"]
    world = base(2, revocation="aws", tags={REVOCATION_TAG: "immediate"})
    client, peer = alices(gateway, target, world)
    with peer:
        gateway.enforce(revoke(world))
        assert client.receive_close() == (4403, f"Access revoked: {words}")
    world = base(4, tags={REVOCATION_TAG: "aws"})
    client, peer = alices(gateway, target, world)
    with peer:
        gateway.enforce(revoke(world))
        carries(client, peer)
        gateway.enforce(changed(revoke(revoke_nothing(world)), "vpcs", "vpc-1", tags={}))  # and now it is immediate
        assert client.receive_close()[0] == 4403


def revoke_nothing(world: World) -> World:
    """The next revision of the same."""
    return msgspec.structs.replace(world, revision=world.revision + 1)


def test_unrelated_changes_close_nothing(gateway: GatewayProcess, target: Target):
    """Other people's keys and policies, groups that the tunnel does not meet, preservation, a rule beside another."""
    world = base(2)
    client, peer = alices(gateway, target, world)
    with peer:
        for step in (
            lambda one: without(one, "access_keys", "AKIAOPEN"),
            lambda one: changed(one, "users", "open", policies=()),
            lambda one: changed(one, "groups", "sg-0", rules=(IN,)),
            lambda one: changed(one, "groups", "sg-t", rules=(IN, msgspec.structs.replace(IN, id="sgr-2"))),
            lambda one: changed(one, "groups", "sg-t", rules=(msgspec.structs.replace(IN, id="sgr-2"),)),
            lambda one: changed(one, "interfaces", "eni-t", group_ids=("sg-0", "sg-t")),
            lambda one: changed(one, "endpoints", ENDPOINT, preserve_client_ip=True),
            lambda one: changed(one, "endpoints", ENDPOINT, preserve_client_ip=False, tags={"a": "b"}),
            lambda one: changed(one, "users", "alice", policies=policy(statement("*"))),
        ):
            world = step(world)
            gateway.enforce(world)
            carries(client, peer)


def test_a_change_of_a_key_concerns_its_own_tunnels(gateway: GatewayProcess, target: Target):
    """Fed as a Change, not as a whole World: alice's tunnel is closed, another user's goes on."""
    client, peer = alices(gateway, target, base(2))
    other, its_peer = open_tunnel(gateway, target)
    with peer, its_peer:
        change = Change(deletes=(("access-key", "AKIAALICE"),))
        gateway.feed.sendall(ipc.frame(ipc.step(3, change)))
        assert ipc.read_answer(gateway.feed) == 3
        assert client.receive_close()[0] == 4403
        carries(other, its_peer)


def test_who_may_not_see_rules_is_told_less(gateway: GatewayProcess, target: Target):
    """No group's name for a caller without ec2:DescribeSecurityGroupRules; the audit trail has it."""
    world = base(2)
    client, peer = alices(gateway, target, world, key="AKIAOPEN")
    with peer:
        gateway.enforce(changed(world, "groups", "sg-t", rules=()))
        assert client.receive_close() == (4403, "Access revoked: it may not pass the network any more")
    (event,) = gateway.wait_audit("CloseTunnel")
    assert "no inbound rule of sg-t allows" in event["serviceEventDetails"]["closeReason"]


def test_an_expired_session_ends_its_tunnels(gateway: GatewayProcess, target: Target):
    """No change is needed: the time passes."""
    world = base(2)
    soon = changed(world, "access_keys", "AKIAALICE", expires=time.time() + 2)
    client, peer = alices(gateway, target, soon)
    with peer:
        carries(client, peer)
        start = time.monotonic()
        assert client.receive_close() == (4403, "Access revoked: the session of access key AKIAALICE has expired")
        assert 1 < time.monotonic() - start < 8


def test_revoked_while_it_is_dialled(gateway: GatewayProcess, target: Target):
    """403 in place of the 101, one OpenTunnel record with the reason, and the slot is free."""
    world = base(2)
    gateway.enforce(world)
    gateway.netd.answer = lambda request: None
    with gateway.tls() as sock:
        sock.sendall(upgrade(signed_path(target.port, key="AKIAALICE")))
        while not gateway.netd.requests:
            time.sleep(0.01)
        gateway.enforce(CHANGES["key deleted"][0](world))
        answer = b""
        while chunk := sock.recv(65536):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"Access revoked: access key AKIAALICE is deleted" in answer
    (event,) = gateway.wait_audit("OpenTunnel")
    assert (event["errorCode"], "credentials" in event["errorMessage"]) == ("AccessDenied", True)


def test_every_tunnel_is_closed_when_the_change_is_acknowledged(gateway: GatewayProcess, target: Target):
    """More than one slice of work, and one tunnel that is not concerned among them."""
    gateway.enforce(base(2))
    tunnels = [alices_again(gateway, target) for _ in range(60)]
    other, its_peer = open_tunnel(gateway, target)
    gateway.enforce(CHANGES["key deleted"][0](base(2)))
    for client, peer in tunnels:
        with pytest.raises(ConnectionResetError):
            peer.settimeout(0.2)
            peer.recv(1)
        peer.close()
        assert client.receive_close()[0] == 4403
    carries(other, its_peer)
    its_peer.close()


def alices_again(gateway: GatewayProcess, target: Target) -> tuple[RawWebSocket, object]:
    """A further tunnel of hers."""
    client = gateway.open(signed_path(target.port, key="AKIAALICE"))
    return client, target.accept()
