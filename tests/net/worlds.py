"""Small Worlds for network tests, and the connection attempts to make in them."""

import errno
import hashlib
import select
import socket
from contextlib import ExitStack, contextmanager

import msgspec

from wicketgate.kernel import netns
from wicketgate.kernel.dial import IP_TRANSPARENT, dial
from wicketgate.model import (
    Endpoint,
    Instance,
    NetworkInterface,
    PrefixList,
    PrefixListEntry,
    SecurityGroup,
    SecurityGroupRule,
    Subnet,
    Vpc,
    World,
)

VPC = "vpc-00000000000000001"
SUBNET = "subnet-00000000000000001"
ENDPOINT = "eice-00000000000000001"
CLIENT = "203.0.113.10"


def resource_id(kind, *names):
    """An id of AWS's shape, the same for the same names in every run."""
    return f"{kind}-{hashlib.sha256('/'.join((kind, *names)).encode()).hexdigest()[:17]}"


def sg(name):
    """Id of a group by name."""
    return resource_id("sg", name)


def pl(name):
    """Id of a prefix list by name."""
    return resource_id("pl", name)


def rule(direction, protocol, ports, peer):
    """A rule: ("in", "tcp", (22, 22), "sg:web", "pl:offices", a CIDR, or "sg:web@vpc-..." across a peering)."""
    kind, _, name = peer.partition(":") if peer[:3] in ("sg:", "pl:") else ("", "", "")
    name, _, peered_vpc = name.partition("@")
    return SecurityGroupRule(
        id=resource_id("sgr", direction, protocol, str(ports), peer),
        is_egress=direction == "out",
        ip_protocol=protocol,
        from_port=ports[0],
        to_port=ports[1],
        cidr_ipv4=peer if not kind and ":" not in peer else None,
        cidr_ipv6=peer if not kind and ":" in peer else None,
        prefix_list_id=pl(name) if kind == "pl" else None,
        referenced_group_id=sg(name) if kind == "sg" else None,
        referenced_vpc_id=peered_vpc,
    )


def prefix_list(name, *ranges, max_entries=20):
    """A prefix list of ranges of one family."""
    family = "IPv6" if any(":" in one for one in ranges) else "IPv4"
    entries = tuple(PrefixListEntry(cidr=one) for one in ranges)
    return PrefixList(id=pl(name), name=name, address_family=family, max_entries=max_entries, entries=entries)


def world(groups, members, *, preserve=False, revision=1, endpoint_groups=("endpoint",)):
    """One VPC with an endpoint at .10 and an instance at .11, .12, ... per entry of `members` (name -> groups)."""
    interfaces = [
        NetworkInterface(
            id="eni-00000000000000010",
            subnet_id=SUBNET,
            private_ip_address="10.0.1.10",
            group_ids=tuple(sg(name) for name in endpoint_groups),
            link="endpoint",
            interface_type="ec2_instance_connect_endpoint",
        )
    ]
    instances = []
    for number, (name, names) in enumerate(members.items(), start=11):
        interface = NetworkInterface(
            id=f"eni-000000000000000{number}",
            subnet_id=SUBNET,
            private_ip_address=f"10.0.1.{number}",
            group_ids=tuple(sg(one) for one in names),
            link=name,
        )
        interfaces.append(interface)
        instances.append(Instance(id=resource_id("i", name), name=name, interface_id=interface.id))
    made = World(
        revision=revision,
        vpcs=(Vpc(id=VPC, cidr_block="10.0.0.0/16"),),
        subnets=(Subnet(id=SUBNET, vpc_id=VPC, cidr_block="10.0.1.0/24"),),
        groups=tuple(
            SecurityGroup(id=sg(name), vpc_id=VPC, name=name, rules=_unique(rules)) for name, rules in groups.items()
        ),
        interfaces=tuple(interfaces),
        instances=tuple(instances),
        endpoints=(
            Endpoint(
                id=ENDPOINT,
                subnet_id=SUBNET,
                interface_id=interfaces[0].id,
                dns_name="eice.wicketgate.test",
                preserve_client_ip=preserve,
            ),
        ),
    )
    made.check()
    return made


def _unique(rules):
    return tuple({one.id: one for one in rules}.values())


def preserving(before, on):
    """The same World with client IP preservation switched."""
    endpoints = tuple(msgspec.structs.replace(one, preserve_client_ip=on) for one in before.endpoints)
    return msgspec.structs.replace(before, endpoints=endpoints)


@contextmanager
def listening(made, ports):
    """TCP listeners in every instance's namespace."""
    with ExitStack() as stack:
        for instance in made.instances:
            for port in ports:
                with netns.entered(instance.id):
                    listener = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(("0.0.0.0", port))
                listener.listen(512)
        yield


def attempt(made, sender, address, port, *, wait=0.05, client=CLIENT, source=None):
    """Send a real SYN from an interface's owner: "connected", an errno's name, or "nothing" within `wait` seconds."""
    endpoint = made.endpoint_of_interface(sender.id)
    if endpoint is not None:
        sock, _ = dial(endpoint.id, address, port, client if endpoint.preserve_client_ip else None)
    else:
        instance = next(one for one in made.instances if one.interface_id == sender.id)
        with netns.entered(instance.id):
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        if source is not None:
            sock.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
            sock.bind((source, 0))
        number = sock.connect_ex((address, port))
        if number not in (0, errno.EINPROGRESS):
            sock.close()
            return errno.errorcode[number]
    with sock:
        _, writable, _ = select.select([], [sock], [], wait)
        if not writable:
            return "nothing"
        number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return errno.errorcode[number] if number else "connected"
