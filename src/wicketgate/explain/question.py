"""What is asked, in the words people use, and what it means in a World."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from wicketgate.model import (
    CONNECTABLE_STATES,
    AccessKey,
    Endpoint,
    Instance,
    NetworkInterface,
    Principal,
    Vpc,
    WicketgateError,
    World,
)
from wicketgate.tunnel.targets import parse_address

_is_instance_id = re.compile(r"i-[0-9a-zA-Z]+").fullmatch
_is_interface_id = re.compile(r"eni-[0-9a-zA-Z]+").fullmatch
_is_key_id = re.compile(r"(?:AKIA|ASIA)[0-9A-Z]{12,}").fullmatch


class Unanswerable(WicketgateError):
    """A question that cannot be answered as it stands; `str(error)` says what is missing and what would be right."""

    code = "Unanswerable"
    http_status = 400


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """May this principal, from this address, open a tunnel to this target?"""

    principal: str
    """A user's name, `role/NAME` or `role/NAME/SESSION`, `root`, an ARN, or an access key's id."""
    source_ip: str
    target: str
    """An instance's or network interface's id, or a private address."""
    endpoint_id: str = ""
    """Empty: the one that the AWS CLI would choose."""
    port: int = 22
    duration: int | None = None
    """Seconds of maxTunnelDuration; None = not given."""
    ssh: bool = False
    """Whether it is to be `aws ec2-instance-connect ssh`, which looks things up and pushes a key first."""
    os_user: str = "ec2-user"
    at: float = 0.0
    """When, in seconds since the epoch: policies and sessions depend on it."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A question with everything in it found."""

    question: Question
    principal: Principal
    keys: tuple[AccessKey, ...]
    """The access keys that it could sign with, valid or not."""
    source_ip: str
    vpc: Vpc
    endpoint: Endpoint | None
    """None when none was named and there is none to choose."""
    named: bool
    """Whether the question named the endpoint."""
    address: str
    interface: NetworkInterface | None
    """What holds the target's address, if anything does."""
    instance: Instance | None


def understood(world: World, question: Question) -> Asked:
    """Find what a question is about. Raises Unanswerable naming what is not there or what to add."""
    source = parse_address(question.source_ip)
    if source is None:
        raise Unanswerable(f"--from {question.source_ip!r} is no IP address; give the client's, e.g. 203.0.113.10")
    if not 1 <= question.port <= 65535:
        raise Unanswerable(f"--port {question.port} is no TCP port; one is from 1 to 65535")
    principal, keys = _principal(world, question.principal)
    endpoint = _named_endpoint(world, question.endpoint_id) if question.endpoint_id else None
    vpc, interface, instance, address = _target(world, question.target, endpoint)
    if endpoint is None and interface is not None:
        endpoint = chosen(world, interface)
    return Asked(
        question=question,
        principal=principal,
        keys=keys,
        source_ip=str(source),
        vpc=vpc,
        endpoint=endpoint,
        named=bool(question.endpoint_id),
        address=address,
        interface=interface,
        instance=instance,
    )


def chosen(world: World, interface: NetworkInterface) -> Endpoint | None:
    """The endpoint that the AWS CLI takes when none is named: the first usable one of the instance's subnet, else of
    its VPC (aws-cli, `ec2-instance-connect open-tunnel`)."""
    vpc = world.vpc_of_subnet(interface.subnet_id)
    usable = [
        one
        for one in world.endpoints
        if one.state in CONNECTABLE_STATES and world.vpc_of_subnet(one.subnet_id).id == vpc.id
    ]
    return next((one for one in usable if one.subnet_id == interface.subnet_id), usable[0] if usable else None)


# -- principals --------------------------------------------------------------------------------------------------------

_ASK_FOR: Final = "give a user's name, role/NAME, root, an ARN or an access key's id"


def _principal(world: World, text: str) -> tuple[Principal, tuple[AccessKey, ...]]:
    if _is_key_id(text):
        key = world.access_key(text)
        found = None if key is None else world.principal(key)
        if key is None or found is None:
            raise Unanswerable(f"--principal {text}: there is no such access key; {_ASK_FOR}")
        return found, (key,)
    kind, name, session = _named(world, text)
    probe = AccessKey(
        id="",
        secret="",
        user_name=name if kind == "user" else "",
        role_name=name if kind == "role" else "",
        session_name=session,
    )
    owner = world.principal(probe)
    if owner is None:
        raise Unanswerable(f"--principal {text}: there is no {kind} {name!r}; {_ASK_FOR}")
    keys = tuple(
        one
        for one in world.access_keys
        if (one.user_name, one.role_name) == (probe.user_name, probe.role_name)
        and (not session or one.session_name in ("", session))
    )
    return owner, keys


def _named(world: World, text: str) -> tuple[str, str, str]:
    """(kind, name, session) that a text means."""
    if text in ("root", f"arn:{world.partition}:iam::{world.account_id}:root"):
        return "root", "", ""
    if text.startswith("arn:"):
        service, _, resource = text.removeprefix("arn:").partition(":")[2].partition("::")
        kind, _, rest = resource.partition(":")[2].partition("/")
        if service == "iam" and kind in ("user", "role"):
            return kind, rest.rpartition("/")[2], "explained"
        if service == "sts" and kind == "assumed-role":
            name, _, session = rest.partition("/")
            return "role", name, session
        raise Unanswerable(f"--principal {text}: the ARN is of no user, role, session or root; {_ASK_FOR}")
    if text.startswith("role/"):
        name, _, session = text.removeprefix("role/").partition("/")
        return "role", name, session or "explained"
    return "user", text.removeprefix("user/"), ""


# -- places ------------------------------------------------------------------------------------------------------------


def _named_endpoint(world: World, endpoint_id: str) -> Endpoint:
    endpoint = world.endpoint(endpoint_id)
    if endpoint is None:
        there = ", ".join(one.id for one in world.endpoints) or "there are none"
        raise Unanswerable(f"--endpoint {endpoint_id}: there is no such endpoint; those that are: {there}")
    return endpoint


def _target(
    world: World, text: str, endpoint: Endpoint | None
) -> tuple[Vpc, NetworkInterface | None, Instance | None, str]:
    if _is_instance_id(text):
        instance = world.instance(text)
        interface = None if instance is None else world.interface(instance.interface_id)
        if interface is None:
            raise Unanswerable(f"--to {text}: there is no such instance, or it has ended and has no network interface")
        return world.vpc_of_subnet(interface.subnet_id), interface, instance, _address_for(interface, endpoint)
    if _is_interface_id(text):
        interface = world.interface(text)
        if interface is None:
            raise Unanswerable(f"--to {text}: there is no such network interface")
        instance = world.instance_of_interface(interface.id)
        return world.vpc_of_subnet(interface.subnet_id), interface, instance, _address_for(interface, endpoint)
    address = parse_address(text)
    if address is None:
        raise Unanswerable(f"--to {text!r} is no instance id, network interface id or IP address")
    vpc = _vpc_of_address(world, str(address), endpoint)
    interface = world.interface_at(vpc.id, str(address))
    return vpc, interface, None if interface is None else world.instance_of_interface(interface.id), str(address)


def _address_for(interface: NetworkInterface, endpoint: Endpoint | None) -> str:
    """The primary private address, unless the endpoint reaches the other family alone."""
    six = next(iter(interface.ipv6_addresses), "")
    if endpoint is not None and endpoint.ip_address_type == "ipv6" and six:
        return six
    return interface.private_ip_address or six


def _vpc_of_address(world: World, address: str, endpoint: Endpoint | None) -> Vpc:
    if endpoint is not None:
        return world.vpc_of_subnet(endpoint.subnet_id)
    holding = [vpc for vpc in world.vpcs if world.interface_at(vpc.id, address) is not None]
    if len(holding) == 1:
        return holding[0]
    if holding:
        names = ", ".join(vpc.id for vpc in holding)
        raise Unanswerable(f"--to {address} is in several VPCs ({names}); give --endpoint, or the instance's id")
    raise Unanswerable(f"--to {address}: no network interface has this address; give --endpoint to say in which VPC")
