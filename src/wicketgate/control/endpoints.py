"""EC2 Instance Connect Endpoints: create, describe, modify, delete; and `settle`, which ends what those began.

Create, Modify and Delete are asynchronous as at AWS (EC2 User Guide, "EC2 Instance Connect Endpoint"): the action puts
a `*-in-progress` state, and once the kernel has followed, the server commits what `settle` says:

    create-in-progress -> create-complete | create-failed
    update-in-progress -> update-complete | update-failed      the old configuration is in force until then
    delete-in-progress -> gone            | delete-failed

CreateInstanceConnectEndpoint takes a ClientToken. An endpoint's IpAddressType says which addresses it reaches; its
network interface has an IPv6 address unless that is ipv4.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from wicketgate.control import common, interfaces, regions, resources
from wicketgate.control.addresses import Addresses, Pool
from wicketgate.control.call import Ask, Call, Outcome, operation
from wicketgate.control.regions import DOMAIN
from wicketgate.control.resources import ENDPOINT, SUBNET, found, interface_of, moment
from wicketgate.model import ApiError, Change, Endpoint, NetworkInterface, Subnet, World
from wicketgate.model.change import Resource
from wicketgate.model.resources import EndpointSettings
from wicketgate.tunnel.names import SERVICE_LABEL, public_names

MAX_GROUPS: Final = 16
"""Security groups of one endpoint (EC2 API Reference, CreateInstanceConnectEndpoint)."""
MAX_INDEX: Final = 4095
MIN_RESULTS, MAX_RESULTS = 1, 50
"""Bounds of MaxResults of DescribeInstanceConnectEndpoints (EC2 API Reference)."""
SERVICE_ROLE: Final = "aws-service-role/ec2-instance-connect.amazonaws.com/AWSServiceRoleForEc2InstanceConnect"

_MODIFIABLE: Final = frozenset({"create-complete", "update-complete", "update-failed"})
_UNSEEN: Final = frozenset({"create-in-progress", "delete-in-progress"})
"""States in which AWS shows no network interface."""
_NO_PRESERVATION: Final = (
    "Client IP preservation isn't supported for Dualstack and IPv6 EC2 Instance Connect Endpoints. "
    "To use client IP preservation, create an IPv4 EC2 Instance Connect Endpoint."
)


AddressType = Literal["ipv4", "dualstack", "ipv6"]


class EndpointQuotas(msgspec.Struct, frozen=True, kw_only=True):
    """Limits on endpoints, with AWS's values (EC2 User Guide, "Quotas for EC2 Instance Connect Endpoint").

    An endpoint counts until it is gone, whatever its state.
    """

    endpoints_per_region: int = 5
    endpoints_per_vpc: int = 1
    endpoints_per_subnet: int = 1


AWS_QUOTAS: Final = EndpointQuotas()


# -- create ------------------------------------------------------------------------------------------------------------


def _ask_create(call: Call) -> Sequence[Ask]:
    """Create itself, and what it does on the caller's behalf (EC2 User Guide, "Grant permissions ...")."""
    subnet_id, action = call.parameters["SubnetId"], "CreateInstanceConnectEndpoint"
    groups = resources.groups_or_default(call, call.parameters.get("SecurityGroupIds"), subnet_id)
    context = common.ec2_context(call, SubnetID=subnet_id)
    asked = [
        Ask(f"ec2:{action}", call.world.endpoint_arn("*"), context | _request_tags(call)),
        resources.about_subnet(call, action, subnet_id),
        *resources.about_groups(call, action, groups),
        resources.about_new_interface(call, "CreateNetworkInterface", subnet_id, {}),
        resources.about_subnet(call, "CreateNetworkInterface", subnet_id),
        *resources.about_groups(call, "CreateNetworkInterface", groups),
        Ask(
            "ec2:CreateTags",
            call.arn("network-interface/*"),
            common.ec2_context(call, CreateAction="CreateNetworkInterface")
            | {"aws:RequestTag/InstanceConnectEndpointId": ("eice-*",), "aws:TagKeys": ("InstanceConnectEndpointId",)},
        ),
        *resources.about_tagging(call, "instance-connect-endpoint"),
    ]
    if not call.world.endpoints:  # the role is made with the first endpoint
        role = f"arn:{call.world.partition}:iam::{call.world.account_id}:role/{SERVICE_ROLE}"
        service = {"iam:AWSServiceName": ("ec2-instance-connect.amazonaws.com",)}
        asked.append(Ask("iam:CreateServiceLinkedRole", role, service))
    return asked


def _request_tags(call: Call) -> dict[str, Sequence[str]]:
    return common.request_tags(call, "instance-connect-endpoint")


@operation("ec2", asks=_ask_create)
def create_instance_connect_endpoint(
    call: Call,
    quotas: EndpointQuotas = AWS_QUOTAS,
    domain: str = DOMAIN,
    vpc_quotas: common.Quotas = common.AWS_QUOTAS,
) -> Outcome:
    """An endpoint in create-in-progress, with a network interface that the service manages.

    Raises InvalidParameterValue for an IpAddressType that does not fit the subnet or PreserveClientIp,
    InstanceConnectEndpointLimitExceeded, InsufficientFreeAddressesInSubnet, and as the groups' checks do.
    """
    world, parameters = call.world, call.parameters
    subnet = found(SUBNET, world, parameters["SubnetId"])
    preserve = bool(parameters.get("PreserveClientIp"))
    kind = _address_type(world, subnet, parameters.get("IpAddressType") or _default_type(subnet), preserve=preserve)
    groups = interfaces.checked_groups(world, subnet, parameters.get("SecurityGroupIds"), vpc_quotas, MAX_GROUPS)
    tags = common.tags_from(parameters, "instance-connect-endpoint")
    _check_quotas(world, subnet, quotas)
    endpoint_id = call.new_id("eice")
    interface = _interface(call, subnet, endpoint_id, groups, kind)
    endpoint = Endpoint(
        id=endpoint_id,
        subnet_id=subnet.id,
        interface_id=interface.id,
        dns_name=dns_name(world, endpoint_id, domain),
        preserve_client_ip=preserve,
        state="create-in-progress",
        index=_free_index(world, subnet.vpc_id),
        tags=tags,
        created_at=call.now,
        ip_address_type=kind,
    )
    change = call.change(interface, endpoint)
    token = parameters.get("ClientToken")
    answer = {"InstanceConnectEndpoint": _answer(world, endpoint, interface)}
    return Outcome(answer | ({"ClientToken": token} if token else {}), change)


def _default_type(subnet: Subnet) -> AddressType:
    """The IpAddressType of an endpoint for which none is named: what the subnet has."""
    if subnet.network is None:
        return "ipv6"
    return "ipv4" if subnet.ipv6_network is None else "dualstack"


def _address_type(world: World, subnet: Subnet, wanted: AddressType, *, preserve: bool) -> AddressType:
    if preserve and wanted != "ipv4" and not world.settings.preserve_client_ipv6:
        raise ApiError("InvalidParameterValue", _NO_PRESERVATION)
    missing = "IPv4" if wanted != "ipv6" and subnet.network is None else ""
    missing = "IPv6" if wanted != "ipv4" and subnet.ipv6_network is None else missing
    if missing:
        raise ApiError(
            "InvalidParameterValue",
            f"The IP address type {wanted} is not compatible with subnet {subnet.id}, which has no {missing} CIDR "
            f"block. Use {_default_type(subnet)}.",
        )
    return wanted


def _check_quotas(world: World, subnet: Subnet, quotas: EndpointQuotas) -> None:
    subnets = {one.id for one in world.subnets if one.vpc_id == subnet.vpc_id}
    counts = (
        (
            sum(one.subnet_id == subnet.id for one in world.endpoints),
            quotas.endpoints_per_subnet,
            "subnet " + subnet.id,
        ),
        (sum(one.subnet_id in subnets for one in world.endpoints), quotas.endpoints_per_vpc, "VPC " + subnet.vpc_id),
        (len(world.endpoints), quotas.endpoints_per_region, "Region " + world.region),
    )
    for count, maximum, place in counts:
        if count >= maximum:
            raise ApiError(
                "InstanceConnectEndpointLimitExceeded",
                f"The maximum number of EC2 Instance Connect Endpoints for {place} has been reached: {maximum}.",
            )


def _interface(
    call: Call, subnet: Subnet, endpoint_id: str, groups: Sequence[str], kind: AddressType
) -> NetworkInterface:
    pool = Pool(call.world)
    first = [""] if subnet.network is None else pool.take_for_endpoint(subnet, 4)
    ipv6 = list[str]() if kind == "ipv4" else pool.take_for_endpoint(subnet, 6)
    if first is None or ipv6 is None:
        raise ApiError(
            "InsufficientFreeAddressesInSubnet",
            "The specified subnet does not have enough free addresses to satisfy the request.",
        )
    return msgspec.structs.replace(
        interfaces.new_interface(call, subnet, Addresses(primary=first[0], ipv6=tuple(ipv6)), groups),
        interface_type="ec2_instance_connect_endpoint",
        description=f"EC2 Instance Connect Endpoint {endpoint_id}",
        requester_managed=True,
        attached_at=call.now,
        tags={"InstanceConnectEndpointId": endpoint_id},
    )


def _free_index(world: World, vpc_id: str) -> int:
    subnets = {one.id for one in world.subnets if one.vpc_id == vpc_id}
    taken = {one.index for one in world.endpoints if one.subnet_id in subnets}
    free = next((index for index in range(1, MAX_INDEX + 1) if index not in taken), None)
    if free is None:
        raise ApiError(
            "InstanceConnectEndpointLimitExceeded",
            f"VPC {vpc_id} has {MAX_INDEX} EC2 Instance Connect Endpoints, as many as can be told apart.",
        )
    return free


# -- answers -----------------------------------------------------------------------------------------------------------


def dns_name(world: World, endpoint_id: str, domain: str = DOMAIN) -> str:
    """The IPv4 name of a new endpoint under a domain.

    The eight hex digits are the same for all endpoints of an account and region, so that one wildcard certificate
    covers each form of `public_dns_names`.
    """
    place = hashlib.sha256(f"{world.account_id}/{world.region}".encode()).hexdigest()[:8]
    return f"{endpoint_id}.{place}.{SERVICE_LABEL}.{world.region}.{domain}"


def public_dns_names(name: str) -> dict[str, dict[str, str]]:
    """PublicDnsNames of the endpoint with this IPv4 name, as Describe answers them."""
    names = public_names(name)
    return {
        "Ipv4": {"DnsName": names.ipv4, "FipsDnsName": names.ipv4_fips},
        "Dualstack": {"DnsName": names.dualstack, "FipsDnsName": names.dualstack_fips},
    }


def _answer(world: World, endpoint: Endpoint, interface: NetworkInterface) -> dict[str, Any]:
    subnet = resources.subnet_of(world, interface)
    zone = regions.zone_of(world.region, subnet.availability_zone)
    answer = {
        "OwnerId": world.account_id,
        "InstanceConnectEndpointId": endpoint.id,
        "InstanceConnectEndpointArn": world.endpoint_arn(endpoint.id),
        "State": endpoint.state,
        "StateMessage": endpoint.state_message,
        "NetworkInterfaceIds": [] if endpoint.state in _UNSEEN else [interface.id],
        "VpcId": subnet.vpc_id,
        "AvailabilityZone": zone,
        "AvailabilityZoneId": regions.zone_id(zone),
        "CreatedAt": moment(endpoint.created_at),
        "SubnetId": subnet.id,
        "PreserveClientIp": endpoint.preserve_client_ip,
        "SecurityGroupIds": list(interface.group_ids),
        "Tags": common.tag_list(endpoint.tags),
        "IpAddressType": endpoint.ip_address_type,
    }
    if endpoint.state not in ("create-in-progress", "create-failed"):
        names = public_dns_names(endpoint.dns_name)
        answer |= names["Ipv4"] | {"PublicDnsNames": names}
    return answer


@operation("ec2")
def describe_instance_connect_endpoints(call: Call) -> Outcome:
    """DescribeInstanceConnectEndpoints, in the order of creation unless it comes in pages."""
    world, ids = call.world, call.parameters.get("InstanceConnectEndpointIds")
    endpoints = resources.several(ENDPOINT, world, ids) if ids else world.endpoints
    chosen = common.select(endpoints, call.parameters.get("Filters"), _filters(world))
    shown, following = resources.paged(call, chosen, lambda one: one.id, MIN_RESULTS, MAX_RESULTS)
    answers = [_answer(world, one, interface_of(world, one)) for one in shown]
    return Outcome({"InstanceConnectEndpoints": answers} | following)


def _filters(world: World) -> Mapping[str, Callable[[Endpoint], Any]]:
    return {
        "instance-connect-endpoint-id": lambda one: one.id,
        "state": lambda one: one.state,
        "subnet-id": lambda one: one.subnet_id,
        "vpc-id": lambda one: world.vpc_of_subnet(one.subnet_id).id,
        **common.TAG_GETTERS,
    }


# -- modify and delete -------------------------------------------------------------------------------------------------


def _ask_of_endpoint(call: Call) -> Sequence[Ask]:
    return (resources.about_endpoint(call, call.action, call.parameters["InstanceConnectEndpointId"]),)


@operation("ec2", asks=_ask_of_endpoint)
def modify_instance_connect_endpoint(call: Call, vpc_quotas: common.Quotas = common.AWS_QUOTAS) -> Outcome:
    """Asks for other groups, another IpAddressType or PreserveClientIp: update-in-progress until `settle`.

    Raises IncorrectState unless the endpoint is complete, InvalidParameterValue as CreateInstanceConnectEndpoint does.
    """
    world, parameters = call.world, call.parameters
    endpoint = found(ENDPOINT, world, parameters["InstanceConnectEndpointId"])
    wish = EndpointSettings(
        preserve_client_ip=parameters.get("PreserveClientIp"),
        ip_address_type=parameters.get("IpAddressType"),
        group_ids=tuple(parameters.get("SecurityGroupIds") or ()) or None,
    )
    if wish == EndpointSettings():
        raise ApiError("InvalidParameterCombination", "No attributes specified.")
    if endpoint.state not in _MODIFIABLE:
        raise ApiError(
            "IncorrectState",
            f"The instance connect endpoint '{endpoint.id}' is in state {endpoint.state}. It can be modified in state "
            f"{', '.join(sorted(_MODIFIABLE))}.",
        )
    subnet = resources.subnet_of(world, interface_of(world, endpoint))
    preserve = endpoint.preserve_client_ip if wish.preserve_client_ip is None else wish.preserve_client_ip
    _address_type(world, subnet, wish.ip_address_type or endpoint.ip_address_type, preserve=preserve)
    if wish.group_ids is not None:
        checked = interfaces.checked_groups(world, subnet, wish.group_ids, vpc_quotas, MAX_GROUPS)
        wish = msgspec.structs.replace(wish, group_ids=checked)
    updating = msgspec.structs.replace(endpoint, state="update-in-progress", state_message="", pending=wish)
    return Outcome({"Return": True}, call.change(updating))


@operation("ec2", asks=_ask_of_endpoint)
def delete_instance_connect_endpoint(call: Call) -> Outcome:
    """Begins to delete, from any state: no new tunnel opens; open ones are closed by who carries them."""
    endpoint = found(ENDPOINT, call.world, call.parameters["InstanceConnectEndpointId"])
    deleting = msgspec.structs.replace(endpoint, state="delete-in-progress", state_message="", pending=None)
    answer = {"InstanceConnectEndpoint": _answer(call.world, deleting, interface_of(call.world, endpoint))}
    return Outcome(answer, call.change() if deleting == endpoint else call.change(deleting))


# -- what follows ------------------------------------------------------------------------------------------------------


def settle(
    world: World, now: float, done: Collection[str] | None = None, failed: Mapping[str, str] | None = None
) -> Change:
    """The Change that ends transitions which the kernel has followed; empty when there is nothing to end.

    `done`: ids of endpoints whose `*-in-progress` state every server has acknowledged; None = of all in this World.
    `failed`: id -> reason, for StateMessage; these end in `*-failed`. Others are left alone.
    """
    puts: list[Resource] = []
    deletes: list[tuple[str, str]] = []
    pool = Pool(world)
    for endpoint in world.endpoints:
        reason = (failed or {}).get(endpoint.id)
        if not endpoint.state.endswith("-in-progress"):
            continue
        if reason is not None:
            puts.append(_ended(endpoint, "failed", reason))
        elif done is not None and endpoint.id not in done:
            continue
        elif endpoint.state == "delete-in-progress":
            deletes += [("instance-connect-endpoint", endpoint.id), ("network-interface", endpoint.interface_id)]
        elif endpoint.state == "update-in-progress":
            puts += _updated(pool, endpoint)
        else:
            puts.append(_ended(endpoint, "complete"))
    return Change(puts=tuple(puts), deletes=tuple(deletes), time=now)


def _ended(endpoint: Endpoint, how: str, message: str = "") -> Endpoint:
    state = endpoint.state.replace("in-progress", how)
    return msgspec.structs.replace(endpoint, state=state, state_message=message, pending=None)


def _updated(pool: Pool, endpoint: Endpoint) -> list[Resource]:
    """What a Modify asked for, in force; update-failed when a group or the subnet's IPv6 range has gone since."""
    wish, interface = endpoint.pending or EndpointSettings(), interface_of(pool.world, endpoint)
    gone = [group_id for group_id in wish.group_ids or () if pool.world.group(group_id) is None]
    if gone:
        return [_ended(endpoint, "failed", f"The security group {gone[0]} does not exist any more.")]
    ipv6 = _ipv6_of(pool, interface, wish.ip_address_type or endpoint.ip_address_type)
    if ipv6 is None:
        return [_ended(endpoint, "failed", f"The subnet {interface.subnet_id} has no free IPv6 address any more.")]
    changed = msgspec.structs.replace(
        _ended(endpoint, "complete"),
        preserve_client_ip=endpoint.preserve_client_ip if wish.preserve_client_ip is None else wish.preserve_client_ip,
        ip_address_type=wish.ip_address_type or endpoint.ip_address_type,
    )
    moved = msgspec.structs.replace(interface, group_ids=wish.group_ids or interface.group_ids, ipv6_addresses=ipv6)
    return [changed] if moved == interface else [changed, moved]


def _ipv6_of(pool: Pool, interface: NetworkInterface, kind: AddressType) -> tuple[str, ...] | None:
    """The IPv6 addresses of an endpoint's interface once it is of this type; None when it can have none."""
    if kind == "ipv4" or interface.ipv6_addresses:
        return () if kind == "ipv4" else interface.ipv6_addresses
    subnet = resources.subnet_of(pool.world, interface)
    taken = pool.take_for_endpoint(subnet, 6) if subnet.ipv6_network is not None else None
    return None if taken is None else tuple(taken)
