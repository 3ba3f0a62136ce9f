"""Tracked and untracked connections through everything: calls of the stock SDK, the kernel, instances' own sockets."""

from __future__ import annotations

import socket
from contextlib import ExitStack, contextmanager

import pytest

from tests.api.deployment import deployed
from tests.api.worlds import run, wait_for_state
from wicketgate.kernel import conntrack, netns

pytestmark = pytest.mark.slow  # that a packet is dropped is told by silence

PORT = 7400
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
VERSIONS = pytest.mark.parametrize("version", [4, 6])
KINDS = pytest.mark.parametrize("kind", [TCP, UDP])


def allowing(protocol, cidr, first=PORT, last=None):
    """A permission for a range of either family."""
    ranges = {"Ipv6Ranges": [{"CidrIpv6": cidr}]} if ":" in cidr else {"IpRanges": [{"CidrIp": cidr}]}
    ports = {} if protocol == "-1" else {"FromPort": first, "ToPort": first if last is None else last}
    return {"IpProtocol": protocol, **ports, **ranges}


class Place:
    """A dual-stack VPC with two instances, each in a group of its own, whose rules are what a test makes them."""

    def __init__(self, ec2):
        self.ec2 = ec2
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16", AmazonProvidedIpv6CidrBlock=True)["Vpc"]
        self.vpc = vpc["VpcId"]
        self.six = vpc["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"].replace("/56", "/64")
        ranges = {"CidrBlock": "10.0.1.0/24", "Ipv6CidrBlock": self.six}
        self.subnet = ec2.create_subnet(VpcId=self.vpc, **ranges)["Subnet"]["SubnetId"]
        self.near = {4: "10.0.0.0/16", 6: self.six}
        self.any = {4: "0.0.0.0/0", 6: "::/0"}
        self.client_group, self.server_group, self.empty = (self.new_group(name) for name in ("c", "s", "empty"))
        self.client, self.server = self.instance(self.client_group), self.instance(self.server_group)

    def new_group(self, name):
        """A group without rules."""
        group = self.ec2.create_security_group(GroupName=name, Description="d", VpcId=self.vpc)["GroupId"]
        (shown,) = self.ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
        self.ec2.revoke_security_group_egress(GroupId=group, IpPermissions=shown["IpPermissionsEgress"])
        return group

    def instance(self, group, **wish):
        """An instance that runs, as its only interface is shown."""
        made = run(self.ec2, SubnetId=self.subnet, SecurityGroupIds=[group], **{"Ipv6AddressCount": 1, **wish})
        (eni,) = made["NetworkInterfaces"]
        ids = [eni["NetworkInterfaceId"]]
        return self.ec2.describe_network_interfaces(NetworkInterfaceIds=ids)["NetworkInterfaces"][0]

    def inbound(self, group, *permissions):
        """Authorise inbound rules; their ids."""
        answer = self.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=list(permissions))
        return [one["SecurityGroupRuleId"] for one in answer["SecurityGroupRules"]]

    def outbound(self, group, *permissions):
        """The same for outbound rules."""
        answer = self.ec2.authorize_security_group_egress(GroupId=group, IpPermissions=list(permissions))
        return [one["SecurityGroupRuleId"] for one in answer["SecurityGroupRules"]]

    def regroup(self, eni, *groups):
        """Give an interface other groups."""
        self.ec2.modify_network_interface_attribute(NetworkInterfaceId=eni["NetworkInterfaceId"], Groups=list(groups))

    def tracked(self, protocol=None):
        """What is tracked in the VPC."""
        return [one for one in conntrack.dump(self.vpc) if protocol in (None, one.protocol)]


@pytest.fixture
def place(ec2):
    """A place of the test's own."""
    return Place(ec2)


def owner(eni):
    """The instance that an interface is attached to."""
    return eni["Attachment"]["InstanceId"]


def address(eni, version):
    """Of an interface."""
    return eni["PrivateIpAddress"] if version == 4 else eni["Ipv6Addresses"][0]["Ipv6Address"]


def bound(instance, kind, ends):
    """A socket on an instance."""
    with netns.entered(instance):
        sock = socket.socket(socket.AF_INET6 if ":" in ends[0] else socket.AF_INET, kind)
    sock.settimeout(3)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(ends)
    return sock


@contextmanager
def flow(client, server, version, kind):
    """A flow from one interface to another that has carried something both ways."""
    source, target = address(client, version), (address(server, version), PORT)
    with ExitStack() as stack:
        one = stack.enter_context(bound(owner(client), kind, (source, 0)))
        other = stack.enter_context(bound(owner(server), kind, target))
        if kind == TCP:
            other.listen()
            one.connect(target)
            other = stack.enter_context(other.accept()[0])
        else:
            one.connect(target)
            other.connect(one.getsockname()[:2])
        assert passes(one, other, 3)
        assert passes(other, one, 3)
        yield one, other


def passes(sender, receiver, wait=0.3):
    """Whether what one end sends gets to the other."""
    receiver.settimeout(wait)
    sender.send(b"something")
    try:
        return receiver.recv(64).startswith(b"something")
    except TimeoutError:
        return False


# -- rules that go -----------------------------------------------------------------------------------------------------


CASES = {
    "near": ("near", "any", True),
    "any": ("any", "any", False),
    "any, and nothing out": ("any", None, True),
    "any, and most ports out": ("any", "most", True),
}


@VERSIONS
@KINDS
@pytest.mark.parametrize("case", CASES)
def test_revoked(ec2, place, version, kind, case):
    """RevokeSecurityGroupIngress leaves a tracked flow alone and cuts an untracked one before it is answered;
    authorised again, that goes on."""
    inbound, out, survives = CASES[case]
    protocol = {TCP: "tcp", UDP: "udp"}[kind]
    place.outbound(place.client_group, allowing("-1", place.near[version]))
    permission = allowing(protocol, getattr(place, inbound)[version])
    rules = place.inbound(place.server_group, permission)
    if out is not None:
        first = 1 if out == "most" else 0
        place.outbound(place.server_group, allowing(protocol, place.any[version], first, 65535))
    with flow(place.client, place.server, version, kind) as (one, other):
        ec2.revoke_security_group_ingress(GroupId=place.server_group, SecurityGroupRuleIds=rules)
        assert passes(one, other) is survives
        place.inbound(place.server_group, permission)
        assert passes(one, other, 3)
        assert passes(other, one, 3)


@VERSIONS
def test_narrowed(ec2, place, version):
    """ModifySecurityGroupRules to other ports: an untracked flow is cut, one that is still covered goes on."""
    place.outbound(place.client_group, allowing("-1", place.near[version]))
    (rule,) = place.inbound(place.server_group, allowing("tcp", place.any[version], 0, 65535))
    place.outbound(place.server_group, allowing("-1", place.any[version]))

    def narrowed(first, last, cidr):
        change = {"IpProtocol": "tcp", "FromPort": first, "ToPort": last}
        change["CidrIpv6" if version == 6 else "CidrIpv4"] = cidr
        update = {"SecurityGroupRuleId": rule, "SecurityGroupRule": change}
        ec2.modify_security_group_rules(GroupId=place.server_group, SecurityGroupRules=[update])

    with flow(place.client, place.server, version, TCP) as (one, other):
        narrowed(PORT, PORT, place.near[version])
        assert passes(one, other)
        narrowed(PORT + 1, PORT + 1, place.any[version])
        assert not passes(one, other)
        narrowed(PORT, PORT, place.any[version])
        assert passes(one, other, 3)


@VERSIONS
def test_a_prefix_list_is_no_range(ec2, place, version):
    """A rule for a list that holds every address tracks its flows: they outlive the entry and the rule."""
    family = "IPv4" if version == 4 else "IPv6"
    made = ec2.create_managed_prefix_list(
        PrefixListName=f"any{version}", AddressFamily=family, MaxEntries=2, Entries=[{"Cidr": place.any[version]}]
    )["PrefixList"]
    permission = {"IpProtocol": "tcp", "FromPort": PORT, "ToPort": PORT}
    permission["PrefixListIds"] = [{"PrefixListId": made["PrefixListId"]}]
    place.outbound(place.client_group, allowing("-1", place.near[version]))
    rules = place.inbound(place.server_group, permission)
    place.outbound(place.server_group, allowing("-1", place.any[version]))
    with flow(place.client, place.server, version, TCP) as ends:
        ec2.revoke_security_group_ingress(GroupId=place.server_group, SecurityGroupRuleIds=rules)
        assert passes(*ends)


# -- other groups, and ends --------------------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize("untracked", [False, True])
def test_other_groups(place, version, untracked):
    """ModifyNetworkInterfaceAttribute is like other rules: tracked flows go on, untracked ones are judged anew."""
    reach = place.any if untracked else place.near
    place.outbound(place.client_group, allowing("-1", place.near[version]))
    place.inbound(place.server_group, allowing("tcp", reach[version]))
    place.outbound(place.server_group, allowing("-1", reach[version]))
    with flow(place.client, place.server, version, TCP) as ends:
        place.regroup(place.server, place.empty)
        assert passes(*ends) is not untracked
        place.regroup(place.server, place.empty, place.server_group)
        assert passes(*ends, 3)


@VERSIONS
def test_detached(ec2, place, version):
    """DetachNetworkInterface forgets what is tracked for the interface; the instance that has it next begins anew."""
    rule = allowing("udp", place.near[version])
    place.outbound(place.client_group, rule)
    place.inbound(place.server_group, rule)
    wish = {"SubnetId": place.subnet, "Groups": [place.server_group], "Ipv6AddressCount": 1}
    eni = ec2.create_network_interface(**wish)["NetworkInterface"]["NetworkInterfaceId"]

    def attached(instance):
        made = ec2.attach_network_interface(NetworkInterfaceId=eni, InstanceId=instance, DeviceIndex=1)
        (shown,) = ec2.describe_network_interfaces(NetworkInterfaceIds=[eni])["NetworkInterfaces"]
        return made["AttachmentId"], shown

    attachment, shown = attached(owner(place.server))
    with flow(place.client, shown, version, UDP) as (one, other):
        assert place.tracked(17)
        ec2.detach_network_interface(AttachmentId=attachment)
        assert place.tracked(17) == []
        _, shown = attached(owner(place.instance(place.empty)))
        target = (address(shown, version), PORT)
        with bound(owner(shown), UDP, target) as heir:
            heir.connect(one.getsockname()[:2])
            assert not passes(heir, one), "an answer to nothing that it was asked"
            assert passes(one, heir)
            assert passes(heir, one)
        assert other.fileno() >= 0


@VERSIONS
def test_stopped_and_started(ec2, place, version):
    """StopInstances forgets when the instance has stopped."""
    rule = allowing("udp", place.near[version])
    place.outbound(place.client_group, rule)
    place.inbound(place.server_group, rule)
    with flow(place.client, place.server, version, UDP) as (one, other):
        ec2.stop_instances(InstanceIds=[owner(place.client)])
        wait_for_state(ec2, owner(place.client), "stopped")
        assert place.tracked(17) == []
        ec2.start_instances(InstanceIds=[owner(place.client)])
        wait_for_state(ec2, owner(place.client), "running")
        with bound(owner(place.client), UDP, one.getsockname()[:2]) as again:
            again.connect((address(place.server, version), PORT))
            assert not passes(other, again)


@VERSIONS
@pytest.mark.parametrize("untracked", [False, True])
def test_an_address_given_again(ec2, place, version, untracked):
    """An instance is terminated and the next one is launched with its address: it has nothing of what was open."""
    reach = place.any if untracked else place.near
    for group in (place.client_group, place.server_group):
        place.outbound(group, allowing("-1", reach[version]))
        place.inbound(group, allowing("udp", reach[version], 0, 65535))
    with flow(place.client, place.server, version, UDP) as (one, _):
        ec2.terminate_instances(InstanceIds=[owner(place.server)])
        wait_for_state(ec2, owner(place.server), "terminated")
        same = {"PrivateIpAddress": address(place.server, 4), "Ipv6AddressCount": 0}
        heir = place.instance(place.empty, **same)
        if version == 6:
            six = [address(place.server, 6)]
            ec2.assign_ipv6_addresses(NetworkInterfaceId=heir["NetworkInterfaceId"], Ipv6Addresses=six)
        with bound(owner(heir), UDP, (address(place.server, version), PORT)) as next_one:
            next_one.connect(one.getsockname()[:2])
            assert not passes(one, next_one)
            assert not passes(next_one, one)


# -- idle time-outs ----------------------------------------------------------------------------------------------------


@VERSIONS
def test_time_outs(ec2, place, version):
    """ConnectionTrackingSpecification, on a new interface or later, is what the kernel gives the next flow."""
    place.outbound(place.client_group, allowing("-1", place.near[version]))
    place.inbound(place.server_group, allowing("-1", place.near[version]))

    def left(protocol):
        (entry,) = place.tracked(protocol)
        conntrack.delete(place.vpc, entry)
        return entry.timeout

    def seen():
        with flow(place.client, place.server, version, TCP):
            tcp = left(6)
        with flow(place.client, place.server, version, UDP):
            return tcp, left(17)

    tcp, udp = seen()
    assert (432_000 - 5 <= tcp <= 432_000, 25 <= udp <= 30) == (True, True)
    longer = {"UdpTimeout": 60}
    for eni, asked in ((place.client, longer), (place.server, {**longer, "TcpEstablishedTimeout": 350})):
        ec2.modify_network_interface_attribute(
            NetworkInterfaceId=eni["NetworkInterfaceId"], ConnectionTrackingSpecification=asked
        )
    tcp, udp = seen()
    assert (345 <= tcp <= 350, 55 <= udp <= 60) == (True, True)


# -- sixteen groups, a thousand rules ----------------------------------------------------------------------------------


def test_sixteen_groups_and_a_thousand_rules(deployment):
    """Under quotas that allow it: made by calls, one interface has both, and the last rule of the last group counts."""
    deployment.stop()
    try:
        quotas = {"groups_per_interface": 16, "rules_per_group": 63}
        with deployed("full", **quotas) as other:
            _fill(other.client("ec2"))
    finally:
        deployment.start()


def _fill(ec2):
    place = Place(ec2)
    place.outbound(place.client_group, allowing("-1", place.near[4]))
    groups = [place.new_group(f"full-{number}") for number in range(16)]
    sizes = [63] * 8 + [62] * 8
    for number, (group, size) in enumerate(zip(groups, sizes, strict=True)):
        place.inbound(group, *(allowing("tcp", f"198.51.{number}.{each}/32", 1000 + each) for each in range(size - 1)))
    for number, group in enumerate(groups[:-1]):
        place.inbound(group, allowing("tcp", f"198.51.{number}.99/32"))
    place.regroup(place.server, *groups)
    with bound(owner(place.server), TCP, (address(place.server, 4), PORT)) as listener:
        listener.listen()
        assert not _connects(place)
        (last,) = place.inbound(groups[-1], allowing("tcp", f"{address(place.client, 4)}/32"))
        assert _connects(place)
        full = {"GroupId": groups[-1], "IpPermissions": [allowing("tcp", "198.51.99.1/32")]}
        with pytest.raises(ec2.exceptions.ClientError) as refused:
            ec2.authorize_security_group_ingress(**full)
        assert refused.value.response["Error"]["Code"] == "RulesPerSecurityGroupLimitExceeded"
        ec2.revoke_security_group_ingress(GroupId=groups[-1], SecurityGroupRuleIds=[last])
        assert not _connects(place)


def _connects(place):
    with bound(owner(place.client), TCP, (address(place.client, 4), 0)) as sock:
        sock.settimeout(0.5)
        try:
            sock.connect((address(place.server, 4), PORT))
        except TimeoutError:
            return False
        return True
