"""VPC peering connections and references across them: every refusal, states and their ends, what IAM is asked."""

import dataclasses

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.net_world import MODEL, NOW, asks, call, golden_errors, number, run, run_with
from tests.unit.peering_world import (
    ACCOUNT,
    ACTIVE,
    BACK,
    DELETED,
    FAILED,
    GROUP_A,
    GROUP_B,
    IN,
    OUT,
    PENDING,
    REJECTED,
    A,
    B,
    C,
    D,
    small_world,
)
from wicketgate.control import operations, peering
from wicketgate.control.common import Quotas
from wicketgate.model import ApiError, World, apply_change

CREATE, ACCEPT, REJECT, DELETE, OPTIONS = (
    "CreateVpcPeeringConnection",
    "AcceptVpcPeeringConnection",
    "RejectVpcPeeringConnection",
    "DeleteVpcPeeringConnection",
    "ModifyVpcPeeringConnectionOptions",
)
DESCRIBE = "DescribeVpcPeeringConnections"
ACTIONS = {CREATE, ACCEPT, REJECT, DELETE, OPTIONS, DESCRIBE, "DescribeStaleSecurityGroups"}
HOUR, DAY = 3600.0, 86_400.0
ARN = f"arn:aws:ec2:us-east-1:{ACCOUNT}:"


def test_actions_offered():
    """Every action of the family is offered under its name in the service model."""
    assert {("ec2", name) for name in ACTIONS} <= set(operations())
    assert set(MODEL.operation_names) >= ACTIONS


@golden_errors("peering")
def test_refusal(error):
    """A bad call is refused with the code, words and status that the golden file has."""
    with pytest.raises(ApiError) as caught:
        run(small_world(), error["action"], **error["parameters"])
    expected = (error["code"], error["message"], error.get("status", 400))
    assert (caught.value.code, str(caught.value), caught.value.http_status) == expected


def shown(world, peering_id):
    """The connection as DescribeVpcPeeringConnections shows it."""
    (one,) = run(world, DESCRIBE, VpcPeeringConnectionIds=[peering_id])[1]["VpcPeeringConnections"]
    return one


def refused(world, action, **parameters):
    """The code that a call is refused with."""
    with pytest.raises(ApiError) as caught:
        run(world, action, **parameters)
    return caught.value.code


def status(world, peering_id):
    """Its status and message."""
    answer = shown(world, peering_id)["Status"]
    return answer["Code"], answer["Message"]


# -- request, acceptance, end ------------------------------------------------------------------------------------------


def test_request_and_acceptance():
    """It pends, its accepter's ranges untold and with the time it expires; accepted, both ranges are told."""
    tags = [{"ResourceType": "vpc-peering-connection", "Tags": [{"Key": "Name", "Value": "n"}]}]
    world, answer = run(small_world(), CREATE, VpcId=D, PeerVpcId=C, TagSpecifications=tags)
    made = answer["VpcPeeringConnection"]
    peering_id = made["VpcPeeringConnectionId"]
    assert made["Status"] == {"Code": "pending-acceptance", "Message": f"Pending Acceptance by {ACCOUNT}"}
    assert made["ExpirationTime"].timestamp() == NOW + 7 * DAY
    assert made["RequesterVpcInfo"]["CidrBlock"] == "10.4.0.0/16"
    assert made["AccepterVpcInfo"] == {"OwnerId": ACCOUNT, "VpcId": C, "Region": "us-east-1"}
    assert made["Tags"] == [{"Key": "Name", "Value": "n"}]
    assert shown(world, peering_id) == made
    world, answer = run(world, ACCEPT, VpcPeeringConnectionId=peering_id)
    accepted = answer["VpcPeeringConnection"]
    assert accepted == shown(world, peering_id)
    assert accepted["Status"] == {"Code": "active", "Message": "Active"}
    assert accepted["AccepterVpcInfo"]["CidrBlockSet"] == [{"CidrBlock": "10.0.0.0/16"}]
    assert accepted["AccepterVpcInfo"]["PeeringOptions"]["AllowDnsResolutionFromRemoteVpc"] is False
    assert "ExpirationTime" not in accepted
    assert [one.id for one in world.active_peerings(C)] == [peering_id]


def test_ipv6_ranges_are_told():
    """Each IPv6 range of an active connection's VPCs."""
    assert shown(small_world(), ACTIVE)["RequesterVpcInfo"]["Ipv6CidrBlockSet"] == [
        {"Ipv6CidrBlock": "2001:db8:a::/56"}
    ]


@pytest.mark.parametrize("peer", [C, f"vpc-{number('9')}", A], ids=["overlap", "unknown", "itself"])
def test_what_cannot_be_peered_has_failed(peer):
    """No refusal: a connection that has failed and cannot become anything else."""
    world, answer = run(small_world(), CREATE, VpcId=A, PeerVpcId=peer)
    made = answer["VpcPeeringConnection"]
    message = "Failed due to incorrect VPC-ID, Account ID, or overlapping CIDR range"
    assert made["Status"] == {"Code": "failed", "Message": message}
    for action in (ACCEPT, REJECT, DELETE):
        assert refused(world, action, VpcPeeringConnectionId=made["VpcPeeringConnectionId"]) == "InvalidStateTransition"


def test_overlap_in_ipv6():
    """Overlapping IPv6 ranges alone are enough to fail."""
    world = small_world()
    other = msgspec.structs.replace(world.vpc(D), ipv6_cidr_blocks=("2001:db8:a:80::/60",))
    world = msgspec.structs.replace(world, vpcs=(*world.vpcs[:3], other))
    assert run(world, CREATE, VpcId=D, PeerVpcId=A)[1]["VpcPeeringConnection"]["Status"]["Code"] == "failed"
    _, answer = run(world, ACCEPT, VpcPeeringConnectionId=PENDING)
    assert answer["VpcPeeringConnection"]["Status"]["Code"] == "failed"


@pytest.mark.parametrize(("requester", "accepter", "there"), [(A, B, ACTIVE), (A, D, PENDING)])
def test_the_same_request_again(requester, accepter, there):
    """It is answered with the connection that is there, and changes nothing."""
    world, answer = run(small_world(), CREATE, VpcId=requester, PeerVpcId=accepter)
    assert answer["VpcPeeringConnection"] == shown(small_world(), there)
    assert world == small_world()


def test_the_other_way_round_is_another_request():
    """It pends beside the other one, and of the two only one can become active."""
    world, answer = run(small_world(), CREATE, VpcId=D, PeerVpcId=A)
    made = answer["VpcPeeringConnection"]["VpcPeeringConnectionId"]
    world, _ = run(world, ACCEPT, VpcPeeringConnectionId=made)
    assert refused(world, ACCEPT, VpcPeeringConnectionId=PENDING) == "VpcPeeringConnectionAlreadyExists"
    world, _ = run(world, DELETE, VpcPeeringConnectionId=made)
    world, _ = run(world, ACCEPT, VpcPeeringConnectionId=PENDING)
    assert status(world, PENDING) == ("active", "Active")


def test_again_after_the_end():
    """What has ended does not stand in the way of a new request."""
    world, _ = run(small_world(), DELETE, VpcPeeringConnectionId=ACTIVE)
    world, answer = run(world, CREATE, VpcId=A, PeerVpcId=B)
    made = answer["VpcPeeringConnection"]["VpcPeeringConnectionId"]
    assert made != ACTIVE
    world, _ = run(world, ACCEPT, VpcPeeringConnectionId=made)
    assert status(world, made)[0] == "active"


def test_rejected():
    """It is shown with who rejected it."""
    world, answer = run(small_world(), REJECT, VpcPeeringConnectionId=PENDING)
    assert (answer, status(world, PENDING)) == ({"Return": True}, ("rejected", f"Rejected by {ACCOUNT}"))


@pytest.mark.parametrize("peering_id", [ACTIVE, PENDING])
def test_deleted(peering_id):
    """It is shown with who deleted it, without ranges."""
    world, answer = run(small_world(), DELETE, VpcPeeringConnectionId=peering_id)
    assert (answer, status(world, peering_id)) == ({"Return": True}, ("deleted", f"Deleted by {ACCOUNT}"))
    assert shown(world, peering_id)["RequesterVpcInfo"] == {"OwnerId": ACCOUNT, "VpcId": A, "Region": "us-east-1"}


def test_options_that_are_off():
    """They may be set to what they are."""
    off = {"AllowDnsResolutionFromRemoteVpc": False}
    ends = {"RequesterPeeringConnectionOptions": off, "AccepterPeeringConnectionOptions": off}
    world, answer = run(small_world(), OPTIONS, VpcPeeringConnectionId=ACTIVE, **ends)
    assert (answer, world) == (ends, small_world())


# -- time --------------------------------------------------------------------------------------------------------------


def later(world, seconds):
    """The World when the server has settled after this time."""
    change = peering.settle(world, NOW + seconds)
    return world if change.empty else apply_change(world, change)


def test_nothing_to_settle():
    """At the moment of the World nothing has run out."""
    assert peering.settle(small_world(), NOW).empty


@pytest.mark.parametrize(
    ("peering_id", "end"),
    [(FAILED, HOUR), (REJECTED, 2 * HOUR - 60), (DELETED, 2 * HOUR - 60), (PENDING, 9 * DAY - HOUR), (ACTIVE, None)],
    ids=["failed", "rejected", "deleted", "expired", "active"],
)
def test_shown_for_a_while(peering_id, end):
    """Until its time it is there, then it is forgotten; an active one stays for ever."""
    if end is None:
        assert later(small_world(), 10_000 * DAY).peering(peering_id) == small_world().peering(peering_id)
    else:
        assert later(small_world(), end - 1).peering(peering_id) is not None
        assert later(small_world(), end).peering(peering_id) is None


def test_expiry():
    """A week after it was made a request can no longer be accepted, whether or not the server has settled."""
    world = small_world()
    expires = 7 * DAY - HOUR
    assert later(world, expires - 1).peering(PENDING).status == "pending-acceptance"
    assert later(world, expires).peering(PENDING).status == "expired"
    aged = msgspec.structs.replace(world.peering(PENDING), created_at=NOW - 7 * DAY)
    world = msgspec.structs.replace(world, peerings=(world.peerings[0], aged))
    assert status(world, PENDING) == ("expired", "Expired")
    assert refused(world, ACCEPT, VpcPeeringConnectionId=PENDING) == "InvalidStateTransition"
    world, answer = run(world, CREATE, VpcId=A, PeerVpcId=D)
    assert answer["VpcPeeringConnection"]["VpcPeeringConnectionId"] != PENDING


def test_forgotten_even_before_the_server_has_settled():
    """What has been shown long enough is not found."""
    world = small_world()
    over = msgspec.structs.replace(world.peering(REJECTED), ended_at=NOW - 2 * HOUR)
    world = msgspec.structs.replace(world, peerings=(over,))
    assert run(world, DESCRIBE)[1] == {"VpcPeeringConnections": []}
    assert refused(world, DELETE, VpcPeeringConnectionId=REJECTED) == "InvalidVpcPeeringConnectionID.NotFound"


@given(st.lists(st.floats(0, 12 * DAY), max_size=5))
def test_settling_often_or_seldom(moments):
    """Whenever the server settles in between, at the end there is the same."""
    world = small_world()
    for moment in sorted(moments):
        world = later(world, moment)
    direct = later(small_world(), max(moments, default=0.0))
    assert world.peerings == direct.peerings


# -- quotas and links --------------------------------------------------------------------------------------------------


def test_quota_of_requests():
    """Those of the requester that pend count."""
    for most, code in ((1, "OutstandingVpcPeeringConnectionLimitExceeded"), (2, None)):
        settings = {"quotas": Quotas(peering_requests_per_vpc=most)}
        if code is None:
            run_with(small_world(), CREATE, settings, VpcId=A, PeerVpcId=C)
        else:
            with pytest.raises(ApiError) as caught:
                run_with(small_world(), CREATE, settings, VpcId=A, PeerVpcId=C)
            assert caught.value.code == code


def test_quota_of_active_ones():
    """Those of either VPC count."""
    with pytest.raises(ApiError) as caught:
        run_with(small_world(), ACCEPT, {"quotas": Quotas(peerings_per_vpc=1)}, VpcPeeringConnectionId=PENDING)
    assert caught.value.code == "ActiveVpcPeeringConnectionPerVpcLimitExceeded"
    run_with(small_world(), ACCEPT, {"quotas": Quotas(peerings_per_vpc=2)}, VpcPeeringConnectionId=PENDING)


def test_links_differ():
    """Two connections whose ids end alike have devices of different names, of 15 bytes at most."""
    ids = iter([f"pcx-aaaa1{'b' * 12}", f"pcx-aaaa2{'b' * 12}"])
    world, links = small_world(), []
    for pair in ((D, B), (D, C)):
        asked = dataclasses.replace(call(world, CREATE, VpcId=pair[0], PeerVpcId=pair[1]), new_id=lambda _: next(ids))
        world = apply_change(world, operations()["ec2", CREATE].run(asked).change)
        links.append(world.peerings[-1].link)
    assert links == ["pcx" + "b" * 12, "pcx2" + "b" * 11]


# -- describe ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("status-code", "pending-*", {PENDING, BACK}),
        ("status-message", "Active", {ACTIVE}),
        ("requester-vpc-info.vpc-id", B, {REJECTED, BACK}),
        ("accepter-vpc-info.vpc-id", B, {ACTIVE, DELETED}),
        ("requester-vpc-info.cidr-block", "10.0.0.0/16", {ACTIVE, PENDING}),
        ("accepter-vpc-info.cidr-block", "10.1.0.0/16", {ACTIVE}),
        ("accepter-vpc-info.owner-id", ACCOUNT, {ACTIVE, PENDING, REJECTED, FAILED, DELETED, BACK}),
        ("expiration-time", "2027-*", {PENDING, BACK}),
        ("vpc-peering-connection-id", FAILED, {FAILED}),
        ("tag-key", "x", set()),
    ],
)
def test_filters(name, value, expected):
    """Each filter finds what the answers show."""
    _, answer = run(small_world(), DESCRIBE, Filters=[{"Name": name, "Values": [value]}])
    assert {one["VpcPeeringConnectionId"] for one in answer["VpcPeeringConnections"]} == expected


def test_tags():
    """They are put on a connection and found by filters."""
    world, _ = run(small_world(), "CreateTags", Resources=[ACTIVE], Tags=[{"Key": "k", "Value": "v"}])
    _, answer = run(world, DESCRIBE, Filters=[{"Name": "tag:k", "Values": ["v"]}])
    assert [one["VpcPeeringConnectionId"] for one in answer["VpcPeeringConnections"]] == [ACTIVE]
    _, answer = run(world, "DescribeTags", Filters=[{"Name": "resource-type", "Values": ["vpc-peering-connection"]}])
    assert [tag["ResourceId"] for tag in answer["Tags"]] == [ACTIVE]


# -- with the VPC ------------------------------------------------------------------------------------------------------


def test_requests_end_with_a_vpc():
    """A VPC that is asked to peer, or asks, may go; the requests are then shown as deleted, by id alone."""
    world = small_world()
    world = msgspec.structs.replace(world, groups=world.groups[:2])
    world, _ = run(world, "DeleteVpc", VpcId=D)
    assert status(world, PENDING) == ("deleted", f"Deleted by {ACCOUNT}")
    assert shown(world, PENDING)["AccepterVpcInfo"]["VpcId"] == D


# -- references --------------------------------------------------------------------------------------------------------


def pairs(world, group_id, direction="IpPermissions"):
    """The UserIdGroupPairs that DescribeSecurityGroups shows."""
    (group,) = run(world, "DescribeSecurityGroups", GroupIds=[group_id])[1]["SecurityGroups"]
    return [pair for permission in group[direction] for pair in permission["UserIdGroupPairs"]]


def references(world, group_id):
    """(referring VPC, connection) of DescribeSecurityGroupReferences."""
    _, answer = run(world, "DescribeSecurityGroupReferences", GroupId=[group_id])
    return [(one["ReferencingVpcId"], one["VpcPeeringConnectionId"]) for one in answer["SecurityGroupReferenceSet"]]


def stale(world, vpc_id):
    """Group -> (inbound, outbound) groups that its stale rules name."""
    _, answer = run(world, "DescribeStaleSecurityGroups", VpcId=vpc_id)

    def named(permissions):
        return [pair["GroupId"] for permission in permissions for pair in permission["UserIdGroupPairs"]]

    return {
        one["GroupId"]: (named(one["StaleIpPermissions"]), named(one["StaleIpPermissionsEgress"]))
        for one in answer["StaleSecurityGroupSet"]
    }


PAIR = {"UserId": ACCOUNT, "VpcPeeringConnectionId": ACTIVE, "PeeringStatus": "active"}


def test_a_reference_is_made_and_shown():
    """With the other VPC and the connection, in every answer that shows rules."""
    world = small_world()
    permission = {"IpProtocol": "udp", "FromPort": 53, "ToPort": 53, "UserIdGroupPairs": [{"GroupId": GROUP_A}]}
    world, answer = run(world, "AuthorizeSecurityGroupIngress", GroupId=GROUP_B, IpPermissions=[permission])
    (rule,) = answer["SecurityGroupRules"]
    assert rule["ReferencedGroupInfo"] == {**PAIR, "GroupId": GROUP_A, "VpcId": A}
    assert pairs(world, GROUP_B) == [
        {**PAIR, "GroupId": GROUP_A, "VpcId": A, "Description": "from A"},
        {**PAIR, "GroupId": GROUP_A, "VpcId": A},
    ]
    made = world.group(GROUP_B).rules[-1]
    assert world.referenced_group(world.group(GROUP_B), made) == world.group(GROUP_A)
    assert references(world, GROUP_A) == [(B, ACTIVE)]
    assert references(world, GROUP_B) == [(A, ACTIVE)]


def test_modified_into_a_reference_across():
    """ModifySecurityGroupRules may name a group of the other VPC."""
    request = {"IpProtocol": "-1", "ReferencedGroupId": GROUP_A}
    update = [{"SecurityGroupRuleId": IN, "SecurityGroupRule": request}]
    world, _ = run(small_world(), "ModifySecurityGroupRules", GroupId=GROUP_B, SecurityGroupRules=update)
    (rule,) = world.group(GROUP_B).rules
    assert (rule.ip_protocol, rule.referenced_vpc_id, rule.peering_id) == ("-1", A, ACTIVE)


def test_stale_without_the_connection():
    """Both ends go stale with the connection, name it with its status, and count again with another one."""
    world, _ = run(small_world(), DELETE, VpcPeeringConnectionId=ACTIVE)
    assert stale(world, A) == {GROUP_A: ([], [GROUP_B])}
    assert stale(world, B) == {GROUP_B: ([GROUP_A], [])}
    assert pairs(world, GROUP_B)[0]["PeeringStatus"] == "deleted"
    assert references(world, GROUP_A) == []
    assert later(world, 3 * HOUR).peering(ACTIVE) is None
    assert pairs(later(world, 3 * HOUR), GROUP_B) == [
        {**PAIR, "GroupId": GROUP_A, "VpcId": A, "PeeringStatus": "deleted", "Description": "from A"}
    ]
    world, _ = run(world, ACCEPT, VpcPeeringConnectionId=BACK)
    assert stale(world, A) == stale(world, B) == {}
    assert pairs(world, GROUP_B)[0]["VpcPeeringConnectionId"] == BACK
    assert references(world, GROUP_A) == [(B, BACK)]


def test_stale_without_the_group():
    """A group that only a peered VPC refers to may be deleted; the rule stays, is stale, and can be revoked by name."""
    world, _ = run(small_world(), "DeleteSecurityGroup", GroupId=GROUP_A)
    assert stale(world, B) == {GROUP_B: ([GROUP_A], [])}
    assert pairs(world, GROUP_B) == [{**PAIR, "GroupId": GROUP_A, "VpcId": A, "Description": "from A"}]
    permission = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "UserIdGroupPairs": [{"GroupId": GROUP_A}]}
    world, answer = run(world, "RevokeSecurityGroupIngress", GroupId=GROUP_B, IpPermissions=[permission])
    assert [one["SecurityGroupRuleId"] for one in answer["RevokedSecurityGroupRules"]] == [IN]
    assert stale(world, B) == {}


def test_no_stale_rules_while_all_is_well():
    """Neither end, and no other VPC."""
    assert [stale(small_world(), vpc_id) for vpc_id in (A, B, C, D)] == [{}, {}, {}, {}]


def test_one_direction_is_stale_alone():
    """Without the group of B only the rule of A that names it is stale."""
    world = small_world()
    gone = msgspec.structs.replace(world.group(GROUP_B), id=f"sg-{number('8')}", rules=())
    world = msgspec.structs.replace(world, groups=(world.groups[0], gone))
    assert stale(world, A) == {GROUP_A: ([], [GROUP_B])}
    assert world.group(GROUP_A).rules[0].id == OUT
    assert stale(world, B) == {}


# -- what IAM is asked -------------------------------------------------------------------------------------------------


def ends(requester, accepter):
    """The condition keys of a connection."""
    return {
        "ec2:Region": ("us-east-1",),
        "ec2:RequesterVpc": (f"{ARN}vpc/{requester}",),
        "ec2:AccepterVpc": (f"{ARN}vpc/{accepter}",),
    }


def test_create_asks():
    """The connection to be made, the requesting VPC, and CreateTags for tags."""
    tags = [{"ResourceType": "vpc-peering-connection", "Tags": [{"Key": "k", "Value": "v"}]}]
    new, vpc, tagging = asks(small_world(), CREATE, VpcId=D, PeerVpcId=A, TagSpecifications=tags)
    requested = {"aws:RequestTag/k": ("v",), "aws:TagKeys": ("k",)}
    assert new == (f"ec2:{CREATE}", f"{ARN}vpc-peering-connection/*", ends(D, A) | requested)
    assert vpc[:2] == (f"ec2:{CREATE}", f"{ARN}vpc/{D}")
    assert vpc[2]["aws:ResourceTag/Stage"] == ("test",)
    assert tagging[:2] == ("ec2:CreateTags", f"{ARN}vpc-peering-connection/*")


def test_accept_asks():
    """The connection and the accepting VPC; for an unknown one no VPC's name will do."""
    one, vpc = asks(small_world(), ACCEPT, VpcPeeringConnectionId=PENDING)
    context = ends(A, D) | {"ec2:VpcPeeringConnectionID": (PENDING,)}
    assert one == (f"ec2:{ACCEPT}", f"{ARN}vpc-peering-connection/{PENDING}", context)
    assert vpc[:2] == (f"ec2:{ACCEPT}", f"{ARN}vpc/{D}")
    unknown = f"pcx-{number('9')}"
    assert [resource for _, resource, _ in asks(small_world(), ACCEPT, VpcPeeringConnectionId=unknown)] == [
        f"{ARN}vpc-peering-connection/{unknown}",
        f"{ARN}vpc/*",
    ]


@pytest.mark.parametrize("action", [REJECT, DELETE, OPTIONS])
def test_others_ask(action):
    """The connection alone."""
    context = ends(A, D) | {"ec2:VpcPeeringConnectionID": (PENDING,)}
    assert asks(small_world(), action, VpcPeeringConnectionId=PENDING) == [
        (f"ec2:{action}", f"{ARN}vpc-peering-connection/{PENDING}", context)
    ]


def test_the_world_of_these_tests_is_sound():
    """It passes its own check, and reads as it was written."""
    small_world().check()
    assert World.from_json(small_world().to_json()) == small_world()
