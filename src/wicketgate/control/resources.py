"""Resources by id, with the EC2 API's own words when there is none, and what IAM is asked about each kind.

Codes from the EC2 API Reference, "Error codes"; condition keys from the Service Authorization Reference, Amazon EC2.
Nothing here refuses inside a question to IAM: what does not exist is asked about by the name the caller gave it, so
that a caller without permission does not learn what exists.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from wicketgate.control import common
from wicketgate.control.call import Ask, Call
from wicketgate.control.security_groups import default_group_of
from wicketgate.model import (
    ApiError,
    Endpoint,
    Instance,
    NetworkInsightsAnalysis,
    NetworkInsightsPath,
    NetworkInterface,
    PrefixList,
    SecurityGroup,
    Subnet,
    Vpc,
    World,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Kind(Generic[T]):
    """A kind of resource: how its ids look and what is said when one is wrong."""

    prefix: str
    noun: str
    """As EC2's messages have it: `The <noun> ID 'x' does not exist`."""
    get: Callable[[World, str], T | None]
    not_found: str
    malformed: str


VPC = Kind[Vpc]("vpc", "vpc", World.vpc, "InvalidVpcID.NotFound", "InvalidVpcID.Malformed")
SUBNET = Kind[Subnet]("subnet", "subnet", World.subnet, "InvalidSubnetID.NotFound", "InvalidSubnetID.Malformed")
INTERFACE = Kind[NetworkInterface](
    "eni",
    "networkInterface",
    World.interface,
    "InvalidNetworkInterfaceID.NotFound",
    "InvalidNetworkInterfaceId.Malformed",
)
INSTANCE = Kind[Instance]("i", "instance", World.instance, "InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed")
ENDPOINT = Kind[Endpoint](
    "eice",
    "instance connect endpoint",
    World.endpoint,
    "InvalidInstanceConnectEndpointId.NotFound",
    "InvalidInstanceConnectEndpointId.Malformed",
)
GROUP = Kind[SecurityGroup](
    "sg", "securityGroup", World.group, "InvalidSecurityGroupID.NotFound", "InvalidSecurityGroupId.Malformed"
)
PREFIX_LIST = Kind[PrefixList](
    "pl", "prefix list", World.prefix_list, "InvalidPrefixListID.NotFound", "InvalidPrefixListId.Malformed"
)
INSIGHTS_PATH = Kind[NetworkInsightsPath](
    "nip",
    "networkInsightsPath",
    World.insights_path,
    "InvalidNetworkInsightsPathId.NotFound",
    "InvalidNetworkInsightsPathId.Malformed",
)
INSIGHTS_ANALYSIS = Kind[NetworkInsightsAnalysis](
    "nia",
    "networkInsightsAnalysis",
    World.insights_analysis,
    "InvalidNetworkInsightsAnalysisId.NotFound",
    "InvalidNetworkInsightsAnalysisId.Malformed",
)


# -- by id -------------------------------------------------------------------------------------------------------------


def found(kind: Kind[T], world: World, resource_id: str) -> T:
    """The resource with this id; raises the kind's `.NotFound` or `.Malformed`."""
    return several(kind, world, (resource_id,))[0]


def several(
    kind: Kind[T], world: World, ids: Sequence[str], get: Callable[[World, str], T | None] | None = None
) -> list[T]:
    """The resources with these ids, in that order, each once. Every missing id is named in one error."""
    wanted = list(dict.fromkeys(ids))
    resources = {one: (get or kind.get)(world, one) for one in wanted}
    missing = [one for one in wanted if resources[one] is None]
    for one in missing:
        common.check_id(kind.prefix, one, kind.malformed)
    if len(missing) > 1:
        raise ApiError(kind.not_found, f"The {kind.noun} IDs '{', '.join(missing)}' do not exist")
    if missing:
        raise ApiError(kind.not_found, f"The {kind.noun} ID '{missing[0]}' does not exist")
    return [resource for resource in resources.values() if resource is not None]


def subnet_of(world: World, interface: NetworkInterface) -> Subnet:
    """The subnet of an interface; `World.check` has seen to it that there is one."""
    subnet = world.subnet(interface.subnet_id)
    assert subnet is not None, "World.check"
    return subnet


def interface_of(world: World, owner: Instance | Endpoint) -> NetworkInterface:
    """The interface of an instance that has not ended, or of an endpoint."""
    interface = world.interface(owner.interface_id)
    assert interface is not None, "World.check"
    return interface


def default_group(world: World, vpc_id: str) -> SecurityGroup:
    """The group that an interface gets when none is named; raises InvalidGroup.NotFound in a VPC without one."""
    group = default_group_of(world, vpc_id)
    if group is None:
        raise ApiError(
            "InvalidGroup.NotFound", f"The security group 'default' does not exist in VPC '{vpc_id}'. Name a group."
        )
    return group


def moment(seconds: float) -> datetime:
    """Seconds since the epoch as answers carry times."""
    return datetime.fromtimestamp(seconds, UTC)


def derived(prefix: str, *names: str) -> str:
    """An id for what AWS shows with an id and we do not store: the same for the same names in every answer."""
    return prefix + hashlib.sha256("/".join(names).encode()).hexdigest()[:17]


def paged(
    call: Call, items: Sequence[T], key: Callable[[T], str], minimum: int = 5, maximum: int = 1000
) -> tuple[list[T], dict[str, str]]:
    """One page by MaxResults and NextToken, and what the answer then carries for the next. Raises as `common.page`."""
    size, token = call.parameters.get("MaxResults"), call.parameters.get("NextToken")
    shown, following = common.page(items, size, token, minimum=minimum, maximum=maximum, key=key, scope=call.action)
    return shown, {"NextToken": following} if following else {}


def not_both(call: Call, ids: str, shown_as: str) -> None:
    """Raise InvalidParameterCombination when a Describe call has both ids and MaxResults, where EC2 has it so."""
    if call.parameters.get(ids) and call.parameters.get("MaxResults") is not None:
        raise ApiError(
            "InvalidParameterCombination", f"The parameter {shown_as} cannot be used with the parameter maxResults"
        )


def refuse_parameters(parameters: Mapping[str, Any], names: Iterable[str], action: str) -> None:
    """Raise UnsupportedOperation for the first of these parameters that asks for something; false and empty do not."""
    for name in names:
        if parameters.get(name):
            raise ApiError(
                "UnsupportedOperation", f"The parameter {name} of {action} is not offered here. Leave it out."
            )


def one_attribute(parameters: Mapping[str, Any], names: Iterable[str]) -> str:
    """Which one of these attributes a Modify call changes: EC2 takes exactly one per call.

    Raises InvalidParameterCombination for none and for more than one.
    """
    given = [name for name in names if parameters.get(name) is not None]
    if not given:
        raise ApiError("InvalidParameterCombination", "No attributes specified.")
    if len(given) > 1:
        listed = ", ".join(name[0].lower() + name[1:] for name in given)
        raise ApiError("InvalidParameterCombination", f"Fields for multiple attribute types specified: {listed}")
    return given[0]


# -- questions to IAM --------------------------------------------------------------------------------------------------


def about_vpc(call: Call, action: str, vpc_id: str) -> Ask:
    """May this be done to an existing VPC?"""
    vpc = call.world.vpc(vpc_id)
    context = common.ec2_context(call, vpc.tags if vpc else None, VpcID=vpc_id, Tenancy="default" if vpc else None)
    return Ask(f"ec2:{action}", call.arn(f"vpc/{vpc_id}"), context)


def about_subnet(call: Call, action: str, subnet_id: str) -> Ask:
    """May this be done to or in an existing subnet?"""
    subnet = call.world.subnet(subnet_id)
    context = common.ec2_context(
        call,
        subnet.tags if subnet else None,
        SubnetID=subnet_id,
        Vpc=call.arn(f"vpc/{subnet.vpc_id}") if subnet else None,
        AvailabilityZone=subnet.availability_zone or None if subnet else None,
    )
    return Ask(f"ec2:{action}", call.arn(f"subnet/{subnet_id}"), context)


def about_groups(call: Call, action: str, group_ids: Iterable[str]) -> tuple[Ask, ...]:
    """May these security groups be used for this?"""
    asked = []
    for group_id in dict.fromkeys(group_ids):
        group = call.world.group(group_id)
        context = common.ec2_context(
            call,
            group.tags if group else None,
            SecurityGroupID=group_id,
            Vpc=call.arn(f"vpc/{group.vpc_id}") if group else None,
        )
        asked.append(Ask(f"ec2:{action}", call.arn(f"security-group/{group_id}"), context))
    return tuple(asked)


def groups_or_default(call: Call, group_ids: Sequence[str] | None, subnet_id: str) -> tuple[str, ...]:
    """The groups a call names, or the id of the default group of the subnet's VPC; () when that is unknown."""
    if group_ids:
        return tuple(group_ids)
    subnet = call.world.subnet(subnet_id)
    group = default_group_of(call.world, subnet.vpc_id) if subnet else None
    return (group.id,) if group else ()


def about_interface(call: Call, action: str, interface_id: str) -> Ask:
    """May this be done to an existing network interface?"""
    interface = call.world.interface(interface_id)
    return Ask(
        f"ec2:{action}",
        call.arn(f"network-interface/{interface_id}"),
        _placed(call, interface.tags if interface else None, interface.subnet_id if interface else None),
    )


def about_instance(call: Call, action: str, instance_id: str) -> Ask:
    """May this be done to an existing instance?"""
    instance = call.world.instance(instance_id)
    context = common.ec2_context(
        call,
        instance.tags if instance else None,
        InstanceID=instance_id,
        InstanceType=instance.instance_type if instance else None,
        Tenancy="default" if instance else None,
        AvailabilityZone=_zone(call, instance) if instance else None,
    )
    return Ask(f"ec2:{action}", call.arn(f"instance/{instance_id}"), context)


def about_endpoint(call: Call, action: str, endpoint_id: str) -> Ask:
    """May this be done to an existing EC2 Instance Connect Endpoint?"""
    endpoint = call.world.endpoint(endpoint_id)
    context = common.ec2_context(
        call, endpoint.tags if endpoint else None, SubnetID=endpoint.subnet_id if endpoint else None
    )
    return Ask(f"ec2:{action}", call.world.endpoint_arn(endpoint_id), context)


def about_new_interface(call: Call, action: str, subnet_id: str, tags: Mapping[str, Sequence[str]]) -> Ask:
    """May this make a network interface in a subnet? `tags`: the context that `common.request_tags` gives."""
    context = _placed(call, None, subnet_id or None) | dict(tags)
    return Ask(f"ec2:{action}", call.arn("network-interface/*"), context)


def about_tagging(call: Call, resource_type: str) -> tuple[Ask, ...]:
    """May what this call makes be tagged while it is made? No question when the call gives it no tags."""
    tags = common.request_tags(call, resource_type)
    if not tags:
        return ()
    context = common.ec2_context(call, CreateAction=call.action) | tags
    return (Ask("ec2:CreateTags", call.arn(f"{resource_type}/*"), context),)


def _placed(call: Call, tags: Mapping[str, str] | None, subnet_id: str | None) -> dict[str, Sequence[str]]:
    subnet = call.world.subnet(subnet_id) if subnet_id else None
    return common.ec2_context(
        call,
        tags,
        Subnet=call.arn(f"subnet/{subnet_id}") if subnet_id else None,
        Vpc=call.arn(f"vpc/{subnet.vpc_id}") if subnet else None,
        AvailabilityZone=subnet.availability_zone or None if subnet else None,
    )


def _zone(call: Call, instance: Instance) -> str | None:
    interface = call.world.interface(instance.interface_id)
    return subnet_of(call.world, interface).availability_zone or None if interface else None
