"""What is asked, in the words people use, and what it means in a World."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from wicketgate.explain.answer import Say
from wicketgate.explain.words import Language, text
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


Place = Literal["Principal", "SourceIp", "Target", "EndpointId", "Port", "Time", "RequestId", "World"]
"""Which part of a question is meant, by the API's names."""


class Unanswerable(WicketgateError):
    """A question that cannot be answered as it stands; `str(error)` says what is missing and what would be right."""

    code = "Unanswerable"
    http_status = 400

    def __init__(self, place: Place, key: str, /, **facts: str) -> None:
        self.place: Place = place
        self.say = Say(key, facts)
        super().__init__(self.worded())

    def worded(self, language: Language = "en") -> str:
        """The place, and what is wrong there."""
        return f"{self.place}: {text(self.say, language)}"


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


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """From a client's address to a target: what packets are judged by, whoever sends them."""

    vpc: Vpc
    address: str
    interface: NetworkInterface | None
    """What holds the target's address, if anything does."""
    instance: Instance | None
    port: int
    source_ip: str


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

    @property
    def way(self) -> Way:
        """The part of it that is about packets."""
        return Way(
            vpc=self.vpc,
            address=self.address,
            interface=self.interface,
            instance=self.instance,
            port=self.question.port,
            source_ip=self.source_ip,
        )


def understood(world: World, question: Question) -> Asked:
    """Find what a question is about. Raises Unanswerable naming what is not there or what to add."""
    source = parse_address(question.source_ip)
    if source is None:
        raise Unanswerable("SourceIp", "ask-address", given=question.source_ip)
    if not 1 <= question.port <= 65535:
        raise Unanswerable("Port", "ask-port", given=str(question.port))
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


def principal_arn(world: World, given: str) -> str:
    """The ARN of a principal, however it is called, of a role itself where no session is named; empty for nobody."""
    try:
        principal, _ = _principal(world, given)
        kind, name, session = ("", "", "") if _is_key_id(given) else _named(world, given)
    except Unanswerable:
        return ""
    role = world.role(name) if kind == "role" and not session else None
    return principal.arn if role is None else world.role_arn(role)


# -- principals --------------------------------------------------------------------------------------------------------


def _principal(world: World, given: str) -> tuple[Principal, tuple[AccessKey, ...]]:
    if _is_key_id(given):
        key = world.access_key(given)
        found = None if key is None else world.principal(key)
        if key is None or found is None:
            raise Unanswerable("Principal", "ask-key", given=given)
        return found, (key,)
    kind, name, session = _named(world, given)
    probe = AccessKey(
        id="",
        secret="",
        user_name=name if kind == "user" else "",
        role_name=name if kind == "role" else "",
        session_name=session or ("explained" if kind == "role" else ""),
    )
    owner = world.principal(probe)
    if owner is None or (kind != "root" and not name):
        raise Unanswerable("Principal", f"ask-no-{kind}", name=name)
    keys = tuple(
        one
        for one in world.access_keys
        if (one.user_name, one.role_name) == (probe.user_name, probe.role_name)
        and (not session or one.session_name == session)
    )
    if kind == "role" and session and keys:  # the session itself, with its own policies and tags
        return world.principal(keys[-1]) or owner, keys
    return owner, keys


def _named(world: World, given: str) -> tuple[str, str, str]:
    """(kind, name, session) that a text means; an empty session is any."""
    if given == "root":
        return "root", "", ""
    if given.startswith("arn:"):
        return _of_arn(world, given)
    if given.startswith("role/"):
        name, _, session = given.removeprefix("role/").partition("/")
        return "role", name, session
    return "user", given.removeprefix("user/"), ""


def _of_arn(world: World, given: str) -> tuple[str, str, str]:
    parts = given.split(":", 5)
    if len(parts) < 6:
        raise Unanswerable("Principal", "ask-arn", given=given)
    _, partition, service, _, account, resource = parts
    kind, _, rest = resource.partition("/")
    named = {
        ("iam", "root"): ("root", "", ""),
        ("iam", "user"): ("user", rest.rpartition("/")[2], ""),
        ("iam", "role"): ("role", rest.rpartition("/")[2], ""),
        ("sts", "assumed-role"): ("role", rest.partition("/")[0], rest.partition("/")[2]),
    }.get((service, kind))
    if named is None:
        raise Unanswerable("Principal", "ask-arn", given=given)
    if (partition, account) != (world.partition, world.account_id):
        raise Unanswerable("Principal", "ask-account", given=given, partition=world.partition, account=world.account_id)
    return named


# -- places ------------------------------------------------------------------------------------------------------------


def _named_endpoint(world: World, endpoint_id: str) -> Endpoint:
    endpoint = world.endpoint(endpoint_id)
    if endpoint is None:
        there = ", ".join(one.id for one in world.endpoints)
        raise Unanswerable(
            "EndpointId", "ask-endpoint" if there else "ask-endpoint-none", given=endpoint_id, there=there
        )
    return endpoint


def _target(
    world: World, given: str, endpoint: Endpoint | None
) -> tuple[Vpc, NetworkInterface | None, Instance | None, str]:
    if _is_instance_id(given):
        instance = world.instance(given)
        interface = None if instance is None else world.interface(instance.interface_id)
        if interface is None:
            raise Unanswerable("Target", "ask-instance", given=given)
        return _vpc(world, interface, endpoint), interface, instance, _address_for(interface, endpoint)
    if _is_interface_id(given):
        interface = world.interface(given)
        if interface is None:
            raise Unanswerable("Target", "ask-interface", given=given)
        instance = world.instance_of_interface(interface.id)
        return _vpc(world, interface, endpoint), interface, instance, _address_for(interface, endpoint)
    address = parse_address(given)
    if address is None:
        raise Unanswerable("Target", "ask-target", given=given)
    vpc = _vpc_of_address(world, str(address), endpoint)
    interface = world.interface_at(vpc.id, str(address))
    return vpc, interface, None if interface is None else world.instance_of_interface(interface.id), str(address)


def _vpc(world: World, interface: NetworkInterface, endpoint: Endpoint | None) -> Vpc:
    """Where the connection would be made. A target of another VPC than the endpoint's is one that it does not reach."""
    return world.vpc_of_subnet(interface.subnet_id if endpoint is None else endpoint.subnet_id)


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
        raise Unanswerable("Target", "ask-several", given=address, vpcs=names)
    raise Unanswerable("Target", "ask-nowhere", given=address)
