"""What an instance is told about itself: a tree of names, its leaves texts (EC2 User Guide, "Instance metadata
categories"). Everything is read from the World at the moment of the request."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from wicketgate.control.interfaces import mac_address, private_dns_name
from wicketgate.control.regions import zone_of
from wicketgate.model import Instance, NetworkInterface, Subnet, World

Tree = Mapping[str, "Tree | str"]
"""Name -> subtree or text."""


def tree(world: World, instance: Instance, now: float, *, domain: str, signer_chain: str) -> Tree:
    """What is below `/latest/`. `signer_chain`: PEM; empty where there is none.

    `user-data`, `tags/instance` and what else is switched off at AWS unless somebody switches it on, is not there.
    """
    interface, subnet = placed(world, instance)
    zone = zone_of(world.region, subnet.availability_zone)
    name = _host_name(world, instance, interface)
    managed: dict[str, Tree | str] = {"active-keys": active_keys(world, instance, now)}
    if signer_chain:
        managed["signer-cert"] = signer_chain
    meta_data: Tree = {
        "ami-id": instance.image_id,
        "hostname": name,
        "instance-id": instance.id,
        "instance-type": instance.instance_type,
        "local-hostname": name,
        "mac": _mac(interface),
        "managed-ssh-keys": managed,
        "network": {
            "interfaces": {
                "macs": {_mac(one): _interface(world, instance, one) for one in world.interfaces_of_instance(instance)}
            }
        },
        "placement": {"availability-zone": zone, "region": world.region},
        "security-groups": _group_names(world, interface),
        "services": {"domain": domain, "partition": world.partition},
        **_first_addresses(interface),
    }
    document = _document(world, instance, interface, zone)
    return {"dynamic": {"instance-identity": {"document": document}}, "meta-data": meta_data}


def found(root: Tree, names: Sequence[str]) -> str | None:
    """The text at a path, or the listing of a subtree, subtrees in it ending in `/`; None when there is nothing."""
    here: Tree | str = root
    for name in names:
        if isinstance(here, str) or name not in here:
            return None
        here = here[name]
    if isinstance(here, str):
        return here
    return "\n".join(name if isinstance(below, str) else f"{name}/" for name, below in sorted(here.items()))


def active_keys(world: World, instance: Instance, now: float) -> Tree:
    """User -> the signed forms of the keys pushed for it that are not over, each followed by an empty line."""
    users: dict[str, str] = {}
    for key in world.pushed_keys:
        if key.instance_id == instance.id and key.expires > now:
            users[key.os_user] = users.get(key.os_user, "") + key.blob + "\n"
    return users


def placed(world: World, instance: Instance) -> tuple[NetworkInterface, Subnet]:
    """The instance's interface and subnet."""
    interface = world.interface(instance.interface_id)
    assert interface is not None, "World.check"
    subnet = world.subnet(interface.subnet_id)
    assert subnet is not None, "World.check"
    return interface, subnet


def _first_addresses(interface: NetworkInterface) -> Tree:
    """The first address of each family that there is."""
    first = {"local-ipv4": interface.private_ip_address, "ipv6": next(iter(interface.ipv6_addresses), "")}
    return {name: address for name, address in first.items() if address}


def _host_name(world: World, instance: Instance, interface: NetworkInterface) -> str:
    """After the IPv4 address; without one after the instance (EC2 User Guide, hostname types)."""
    name = private_dns_name(world.region, interface.private_ip_address)
    return name if interface.private_ip_address else f"{instance.id}.{name.partition('.')[2]}"


def _mac(interface: NetworkInterface) -> str:
    return interface.mac_address or mac_address(interface.id)


def _interface(world: World, instance: Instance, interface: NetworkInterface) -> Tree:
    subnet = world.subnet(interface.subnet_id)
    assert subnet is not None, "World.check"
    vpc = world.vpc_of_subnet(subnet.id)
    texts = {
        "device-number": str(interface.device_index if interface.attached_to else 0),
        "interface-id": interface.id,
        "ipv6s": "\n".join(interface.ipv6_addresses),
        "local-hostname": _host_name(world, instance, interface),
        "local-ipv4s": "\n".join(one for one in interface.addresses if ":" not in one),
        "mac": _mac(interface),
        "owner-id": world.account_id,
        "security-group-ids": "\n".join(interface.group_ids),
        "security-groups": _group_names(world, interface),
        "subnet-id": subnet.id,
        "subnet-ipv4-cidr-block": subnet.cidr_block,
        "subnet-ipv6-cidr-blocks": subnet.ipv6_cidr_block,
        "vpc-id": vpc.id,
        "vpc-ipv4-cidr-block": vpc.cidr_block,
        "vpc-ipv4-cidr-blocks": vpc.cidr_block,
        "vpc-ipv6-cidr-blocks": "\n".join(vpc.ipv6_cidr_blocks),
    }
    return {name: text for name, text in texts.items() if text}


def _group_names(world: World, interface: NetworkInterface) -> str:
    groups = (world.group(group_id) for group_id in interface.group_ids)
    return "\n".join(group.name for group in groups if group is not None)


def _document(world: World, instance: Instance, interface: NetworkInterface, zone: str) -> str:
    """The instance identity document, which nobody has signed: it proves nothing to others."""
    return json.dumps(
        {
            "accountId": world.account_id,
            "availabilityZone": zone,
            "imageId": instance.image_id,
            "instanceId": instance.id,
            "instanceType": instance.instance_type,
            "pendingTime": f"{datetime.fromtimestamp(instance.launched_at, UTC):%Y-%m-%dT%H:%M:%SZ}",
            "privateIp": interface.private_ip_address or None,
            "region": world.region,
            "version": "2017-09-30",
        },
        indent=2,
    )
