"""VPC peering connections within the account and Region: request, accept, reject, delete, describe.

    CreateVpcPeeringConnection ──> pending-acceptance ──Accept──> active ──Delete──> deleted
                └> failed             ├─Reject──> rejected
             (ranges overlap)         ├─Delete──> deleted
                                      └─7 days──> expired

What has ended is shown for a while: two hours, expired ones for two days (VPC Peering Guide, "VPC peering connection
lifecycle", for VPCs of one account). Time ends things by itself: `present` says what a connection is at a moment, and
the server commits what `settle` says. None of these actions takes a ClientToken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from msgspec.structs import replace

from wicketgate.control import common, resources
from wicketgate.control.call import Ask, Call, Outcome, operation
from wicketgate.control.common import AWS_QUOTAS, Quotas
from wicketgate.control.interfaces import time_text
from wicketgate.control.permissions import peering_between
from wicketgate.control.resources import VPC, Kind, found, moment
from wicketgate.model import ApiError, Change, Vpc, VpcPeeringConnection, World

PEERING = Kind[VpcPeeringConnection](
    "pcx",
    "vpcPeeringConnection",
    World.peering,
    "InvalidVpcPeeringConnectionID.NotFound",
    "InvalidVpcPeeringConnectionId.Malformed",
)

ACCEPTABLE_FOR: Final = 7 * 86_400.0
"""Seconds after which a request expires (EC2 API Reference, CreateVpcPeeringConnection)."""
_SHOWN_FOR: Final = {"failed": 7_200.0, "rejected": 7_200.0, "deleted": 7_200.0, "expired": 2 * 86_400.0}
"""Status -> seconds that a connection is shown after its end."""
_DIGITS_OF_LINK: Final = 12

_OPTIONS: Final = ("RequesterPeeringConnectionOptions", "AccepterPeeringConnectionOptions")
_OPTIONS_OFF: Final = {
    "AllowDnsResolutionFromRemoteVpc": False,
    "AllowEgressFromLocalClassicLinkToRemoteVpc": False,
    "AllowEgressFromLocalVpcToRemoteClassicLink": False,
}


# -- time --------------------------------------------------------------------------------------------------------------


def present(peering: VpcPeeringConnection | None, now: float) -> VpcPeeringConnection | None:
    """What a connection is at a moment (seconds since the epoch); None once it is no longer shown."""
    if peering is None or peering.status == "active":
        return peering
    expires = peering.created_at + ACCEPTABLE_FOR
    if peering.status == "pending-acceptance" and expires <= now:
        peering = replace(peering, status="expired", status_message="Expired", ended_at=expires)
    shown_for = _SHOWN_FOR.get(peering.status)
    return peering if shown_for is None or now < peering.ended_at + shown_for else None


def settle(world: World, now: float) -> Change:
    """The Change that lets requests expire and forgets what was shown long enough; empty when there is none."""
    pairs = [(peering, present(peering, now)) for peering in world.peerings]
    return Change(
        puts=tuple(after for before, after in pairs if after is not None and after is not before),
        deletes=tuple(("vpc-peering-connection", before.id) for before, after in pairs if after is None),
        time=now,
    )


def _existing(call: Call, peering_ids: Sequence[str]) -> list[VpcPeeringConnection]:
    """The connections with these ids as they are now. Raises InvalidVpcPeeringConnectionID.NotFound."""
    return resources.several(PEERING, call.world, peering_ids, lambda world, one: present(world.peering(one), call.now))


def _named(call: Call) -> VpcPeeringConnection:
    return _existing(call, [call.parameters["VpcPeeringConnectionId"]])[0]


# -- questions to IAM --------------------------------------------------------------------------------------------------


def _ask(call: Call) -> Sequence[Ask]:
    return (_about(call),)


def _about(call: Call) -> Ask:
    peering_id = call.parameters["VpcPeeringConnectionId"]
    peering = call.world.peering(peering_id)
    context = common.ec2_context(
        call,
        peering.tags if peering else None,
        VpcPeeringConnectionID=peering_id,
        RequesterVpc=call.arn(f"vpc/{peering.requester_vpc_id}") if peering else None,
        AccepterVpc=call.arn(f"vpc/{peering.accepter_vpc_id}") if peering else None,
    )
    return Ask(f"ec2:{call.action}", call.arn(f"vpc-peering-connection/{peering_id}"), context)


def _ask_accept(call: Call) -> Sequence[Ask]:
    """The connection, and the VPC that is to accept it."""
    peering = call.world.peering(call.parameters["VpcPeeringConnectionId"])
    return (_about(call), resources.about_vpc(call, call.action, peering.accepter_vpc_id if peering else "*"))


def _ask_create(call: Call) -> Sequence[Ask]:
    """The connection to be made, and the VPC that requests it; not the other one, whose owner accepts."""
    vpc_id, peer_id = call.parameters["VpcId"], call.parameters.get("PeerVpcId")
    context = common.ec2_context(
        call, RequesterVpc=call.arn(f"vpc/{vpc_id}"), AccepterVpc=call.arn(f"vpc/{peer_id}") if peer_id else None
    )
    kind = "vpc-peering-connection"
    new = Ask(f"ec2:{call.action}", call.arn(f"{kind}/*"), context | common.request_tags(call, kind))
    return (new, resources.about_vpc(call, call.action, vpc_id), *resources.about_tagging(call, kind))


# -- request -----------------------------------------------------------------------------------------------------------


@operation("ec2", asks=_ask_create)
def create_vpc_peering_connection(call: Call, quotas: Quotas = AWS_QUOTAS) -> Outcome:
    """Asks for a connection of two VPCs. The same request again, while it pends or is active, answers what is there.

    Overlapping ranges and an unknown peer give a connection that has failed, as at AWS. Raises UnsupportedOperation for
    another account or Region, OutstandingVpcPeeringConnectionLimitExceeded.
    """
    world, parameters = call.world, call.parameters
    _refuse_elsewhere(call)
    requester = found(VPC, world, parameters["VpcId"])
    peer_id = parameters.get("PeerVpcId")
    if not peer_id:
        raise ApiError("MissingParameter", "The request must contain the parameter peerVpcId")
    accepter = world.vpc(peer_id)
    if accepter is None:
        common.check_id("vpc", peer_id, VPC.malformed)
    tags = common.tags_from(parameters, "vpc-peering-connection")
    requests = [one for one in _under_way(call) if one.requester_vpc_id == requester.id]
    for one in requests:
        if one.accepter_vpc_id == peer_id:
            return Outcome({"VpcPeeringConnection": _answer(world, one)})
    if sum(one.status != "active" for one in requests) >= quotas.peering_requests_per_vpc:
        raise ApiError(
            "OutstandingVpcPeeringConnectionLimitExceeded",
            f"The maximum number of outstanding VPC peering connection requests of {requester.id} has been reached.",
        )
    peering_id = call.new_id("pcx")
    peering = VpcPeeringConnection(
        id=peering_id,
        requester_vpc_id=requester.id,
        accepter_vpc_id=peer_id,
        link=_link_name(world, peering_id, (requester.id, peer_id)),
        status_message=f"Pending Acceptance by {world.account_id}",
        created_at=call.now,
        tags=tags,
    )
    if accepter is None or _overlap(requester, accepter):
        peering = _failed(peering, call.now)
    return Outcome({"VpcPeeringConnection": _answer(world, peering)}, call.change(peering))


def _refuse_elsewhere(call: Call) -> None:
    """Raise UnsupportedOperation for a peer in another account or Region, and for options."""
    parameters, world = call.parameters, call.world
    resources.refuse_parameters(parameters, ("RequesterPeeringConnectionOptions",), call.action)
    for name, here in (("PeerOwnerId", world.account_id), ("PeerRegion", world.region)):
        if parameters.get(name) not in (None, "", here):
            raise ApiError(
                "UnsupportedOperation",
                f"VPCs are peered within one account and Region here: {name} can only be {here}.",
            )


def _under_way(call: Call) -> list[VpcPeeringConnection]:
    """The connections that pend or are active."""
    now = [present(one, call.now) for one in call.world.peerings]
    return [one for one in now if one is not None and one.status in ("pending-acceptance", "active")]


def _overlap(one: Vpc, other: Vpc) -> bool:
    return any(a.version == b.version and a.overlaps(b) for a in one.networks for b in other.networks)


def _failed(peering: VpcPeeringConnection, now: float) -> VpcPeeringConnection:
    message = "Failed due to incorrect VPC-ID, Account ID, or overlapping CIDR range"
    return replace(peering, status="failed", status_message=message, ended_at=now)


def _link_name(world: World, peering_id: str, vpc_ids: Sequence[str]) -> str:
    """The name of the connection's device on both routers: `pcx` and twelve digits of its id, 15 bytes as Linux allows.

    The last twelve, unless another link of either VPC has them: then an earlier run of them.
    """
    taken = {eni.link for vpc_id in vpc_ids for eni in world.interfaces_of_vpc(vpc_id)}
    taken |= {one.link for one in world.peerings}
    digits = peering_id.removeprefix("pcx-")
    for start in range(max(0, len(digits) - _DIGITS_OF_LINK), -1, -1):
        name = f"pcx{digits[start : start + _DIGITS_OF_LINK]}"
        if name not in taken:
            return name
    raise ApiError("InternalError", f"No free device name for {peering_id}. Try again: another id is made.", 500)


# -- answer to a request, and end --------------------------------------------------------------------------------------


@operation("ec2", asks=_ask_accept)
def accept_vpc_peering_connection(call: Call, quotas: Quotas = AWS_QUOTAS) -> Outcome:
    """Makes a requested connection active; one whose VPCs have come to overlap fails.

    Raises InvalidStateTransition unless it pends, VpcPeeringConnectionAlreadyExists when the VPCs have an active one,
    ActiveVpcPeeringConnectionPerVpcLimitExceeded.
    """
    world, peering = call.world, _named(call)
    _check_pends(peering, "provisioning")
    ends = [found(VPC, world, vpc_id) for vpc_id in (peering.requester_vpc_id, peering.accepter_vpc_id)]
    if peering_between(world, ends[0].id, ends[1].id) is not None:
        raise ApiError("VpcPeeringConnectionAlreadyExists", "A VPC peering connection between the VPCs already exists.")
    for vpc in ends:
        if len(world.active_peerings(vpc.id)) >= quotas.peerings_per_vpc:
            raise ApiError(
                "ActiveVpcPeeringConnectionPerVpcLimitExceeded",
                f"The maximum number of active VPC peering connections of {vpc.id} has been reached.",
            )
    if _overlap(*ends):
        peering = _failed(peering, call.now)
    else:
        peering = replace(peering, status="active", status_message="Active")
    return Outcome({"VpcPeeringConnection": _answer(world, peering)}, call.change(peering))


@operation("ec2", asks=_ask)
def reject_vpc_peering_connection(call: Call) -> Outcome:
    """Refuses a requested connection. Raises InvalidStateTransition unless it pends."""
    peering = _named(call)
    _check_pends(peering, "rejected")
    message = f"Rejected by {call.world.account_id}"
    rejected = replace(peering, status="rejected", status_message=message, ended_at=call.now)
    return Outcome({"Return": True}, call.change(rejected))


@operation("ec2", asks=_ask)
def delete_vpc_peering_connection(call: Call) -> Outcome:
    """Ends a connection that is active or pends; routes over it become blackholes, references across it stale.

    Raises InvalidStateTransition for one that has ended.
    """
    peering = _named(call)
    if peering.status not in ("pending-acceptance", "active"):
        raise _no_transition(peering, "deleting")
    return Outcome({"Return": True}, call.change(deleted(peering, call.world.account_id, call.now)))


def deleted(peering: VpcPeeringConnection, account_id: str, now: float) -> VpcPeeringConnection:
    """The connection once the account has deleted it."""
    return replace(peering, status="deleted", status_message=f"Deleted by {account_id}", ended_at=now)


def ended_requests(world: World, vpc_id: str, now: float) -> list[VpcPeeringConnection]:
    """The requests that pend at either end of a VPC, as its deletion leaves them."""
    return [
        deleted(one, world.account_id, now)
        for one in world.peerings
        if one.status == "pending-acceptance" and vpc_id in (one.requester_vpc_id, one.accepter_vpc_id)
    ]


def _check_pends(peering: VpcPeeringConnection, wanted: str) -> None:
    if peering.status != "pending-acceptance":
        raise _no_transition(peering, wanted)


def _no_transition(peering: VpcPeeringConnection, wanted: str) -> ApiError:
    return ApiError(
        "InvalidStateTransition",
        f"Invalid state transition for {peering.id}, attempted to transition from {peering.status} to {wanted}",
    )


@operation("ec2", asks=_ask)
def modify_vpc_peering_connection_options(call: Call) -> Outcome:
    """Options of an active connection. They may only be off, as they are: there is no DNS here to resolve names by.

    Raises OperationNotPermitted unless it is active, UnsupportedOperation for an option that is on.
    """
    peering = _named(call)
    if peering.status != "active":
        raise ApiError(
            "OperationNotPermitted",
            f"Peering {peering.id} is not active. Peering options can be added only to active peerings.",
        )
    given = {name: call.parameters[name] for name in _OPTIONS if call.parameters.get(name) is not None}
    if not given:
        raise ApiError("MissingParameter", "Specify the peering options of the requester or of the accepter.")
    for options in given.values():
        resources.refuse_parameters(options, options, call.action)
    return Outcome({name: dict.fromkeys(options, False) for name, options in given.items()})


# -- describe ----------------------------------------------------------------------------------------------------------


def _answer(world: World, peering: VpcPeeringConnection) -> dict[str, Any]:
    """VpcPeeringConnection. The ranges of the accepter are told while it is active, as at AWS."""
    active, pends = peering.status == "active", peering.status == "pending-acceptance"
    answer: dict[str, Any] = {
        "VpcPeeringConnectionId": peering.id,
        "RequesterVpcInfo": _end_answer(world, peering.requester_vpc_id, ranges=active or pends, options=active),
        "AccepterVpcInfo": _end_answer(world, peering.accepter_vpc_id, ranges=active, options=active),
        "Status": {"Code": peering.status, "Message": peering.status_message},
        "Tags": common.tag_list(peering.tags),
    }
    return answer | ({"ExpirationTime": moment(peering.created_at + ACCEPTABLE_FOR)} if pends else {})


def _end_answer(world: World, vpc_id: str, *, ranges: bool, options: bool) -> dict[str, Any]:
    answer: dict[str, Any] = {"OwnerId": world.account_id, "VpcId": vpc_id, "Region": world.region}
    vpc = world.vpc(vpc_id)
    if ranges and vpc is not None:
        answer |= {"CidrBlock": vpc.cidr_block, "CidrBlockSet": [{"CidrBlock": vpc.cidr_block}]}
        answer["Ipv6CidrBlockSet"] = [{"Ipv6CidrBlock": one} for one in vpc.ipv6_cidr_blocks]
    return answer | ({"PeeringOptions": _OPTIONS_OFF} if options else {})


@operation("ec2")
def describe_vpc_peering_connections(call: Call) -> Outcome:
    """DescribeVpcPeeringConnections, those that ended a while ago included."""
    ids = call.parameters.get("VpcPeeringConnectionIds")
    now = [present(one, call.now) for one in call.world.peerings]
    peerings = _existing(call, ids) if ids else [one for one in now if one is not None]
    chosen = common.select(peerings, call.parameters.get("Filters"), _filters(call.world))
    shown, following = resources.paged(call, chosen, lambda one: one.id)
    return Outcome({"VpcPeeringConnections": [_answer(call.world, one) for one in shown]} | following)


def _filters(world: World) -> Mapping[str, Callable[[VpcPeeringConnection], Any]]:
    def shown(*path: str) -> Callable[[VpcPeeringConnection], Any]:
        def get(peering: VpcPeeringConnection) -> Any:
            answer: Any = _answer(world, peering)
            for member in path:
                answer = answer.get(member) if answer else None
            return answer

        return get

    ends = {"accepter": "AccepterVpcInfo", "requester": "RequesterVpcInfo"}
    members = {"cidr-block": "CidrBlock", "owner-id": "OwnerId", "vpc-id": "VpcId"}
    return {
        **{f"{end}-vpc-info.{name}": shown(ends[end], member) for end in ends for name, member in members.items()},
        "expiration-time": lambda peering: time_text(shown("ExpirationTime")(peering)),
        "status-code": lambda peering: peering.status,
        "status-message": lambda peering: peering.status_message,
        "vpc-peering-connection-id": lambda peering: peering.id,
        **common.TAG_GETTERS,
    }
