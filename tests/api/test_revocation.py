"""Immediate revocation, through everything: calls of the stock SDK, the kernel, live tunnels and streams, the audit."""

from __future__ import annotations

import json
import socket
import ssl
import time
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import pytest

from tests.api.deployment import REGION
from tests.api.people import User, allow
from tests.api.worlds import code_of, endpoint, run, until
from tests.wire.gateway_harness import BINARY, RawWebSocket, frame, upgrade
from wicketgate.kernel import netns
from wicketgate.sigv4 import Credentials, presign

MAY = (allow("ec2-instance-connect:OpenTunnel"), allow("ec2:DescribeSecurityGroupRules"))


class Place:
    """A VPC with an endpoint and two instances; alice, who may open tunnels; and what is open."""

    def __init__(self, deployment, ec2, iam, revocation):
        self.deployment, self.ec2, self.iam = deployment, ec2, iam
        self.vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        if revocation:
            ec2.create_tags(Resources=[self.vpc], Tags=[{"Key": "wicketgate:revocation", "Value": revocation}])
        self.subnet = ec2.create_subnet(VpcId=self.vpc, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]
        self.group, self.empty = (
            ec2.create_security_group(GroupName=name, Description="d", VpcId=self.vpc)["GroupId"]
            for name in ("open", "empty")
        )
        self.rules = [self.allow(port) for port in (22, 80)]
        self.target = run(ec2, SubnetId=self.subnet, SecurityGroupIds=[self.group])
        self.other = run(ec2, SubnetId=self.subnet, SecurityGroupIds=[self.group])
        self.door = endpoint(ec2, SubnetId=self.subnet, SecurityGroupIds=[self.group])
        self.alice = User(deployment, iam)
        self.alice.may(*MAY)

    def allow(self, port):
        """An inbound rule for the VPC; its id."""
        flat = {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "CidrIp": "10.0.0.0/16"}
        answer = self.ec2.authorize_security_group_ingress(GroupId=self.group, **flat)
        return answer["SecurityGroupRules"][0]["SecurityGroupRuleId"]

    @contextmanager
    def tunnel(self):
        """The client's end, the target's end."""
        host = self.door["DnsName"]
        parameters = {
            "instanceConnectEndpointId": self.door["InstanceConnectEndpointId"],
            "privateIpAddress": self.target["PrivateIpAddress"],
            "remotePort": "22",
        }
        url = presign(host, parameters, Credentials(*self.alice.key), region=REGION, now=time.time())
        context = ssl.create_default_context(cafile=str(self.deployment.serve.bundle))
        with self.listening(22) as listener, socket.create_connection(("127.0.0.1", 443), 5) as raw:
            sock = context.wrap_socket(raw, server_hostname=host)
            sock.sendall(upgrade(f"/openTunnel?{urlsplit(url).query}", Host=host))
            client = RawWebSocket(sock)
            peer, _ = listener.accept()
            with peer:
                peer.settimeout(2)
                yield client, peer

    @contextmanager
    def stream(self):
        """A TCP connection from the other instance to the target."""
        with self.listening(80) as listener:
            with netns.entered(self.other["InstanceId"]):
                ours = socket.socket()
            with ours:
                ours.settimeout(2)
                ours.connect((self.target["PrivateIpAddress"], 80))
                peer, _ = listener.accept()
                with peer:
                    yield ours, peer

    @contextmanager
    def listening(self, port):
        """A listener on the target."""
        with netns.entered(self.target["InstanceId"]):
            listener = socket.create_server(("0.0.0.0", port))
        with listener:
            listener.settimeout(2)
            yield listener


def tunnel_carries(client, peer):
    """Bytes pass both ways."""
    client.send(frame(BINARY, b"ping"))
    assert peer.recv(16) == b"ping"
    peer.sendall(b"pong")
    assert client.receive_bytes(4) == b"pong"


def stream_passes(ours, peer):
    """Whether bytes arrive within a second, retransmissions included."""
    ours.sendall(b"data")
    peer.settimeout(1)
    try:
        return peer.recv(16) == b"data"
    except TimeoutError:
        return False


CHANGES = {
    "rule revoked": lambda here: here.ec2.revoke_security_group_ingress(
        GroupId=here.group, SecurityGroupRuleIds=here.rules
    ),
    "groups swapped": lambda here: here.ec2.modify_instance_attribute(
        InstanceId=here.target["InstanceId"], Groups=[here.empty]
    ),
    "policy deleted": lambda here: here.iam.delete_user_policy(UserName=here.alice.name, PolicyName="p"),
    "key inactive": lambda here: here.iam.update_access_key(
        UserName=here.alice.name, AccessKeyId=here.alice.key[0], Status="Inactive"
    ),
    "key deleted": lambda here: here.iam.delete_access_key(UserName=here.alice.name, AccessKeyId=here.alice.key[0]),
}
OF_PACKETS = ("rule revoked", "groups swapped")
"""These concern streams between instances too."""
WORDS = {
    "rule revoked": "no inbound rule of sg-",
    "groups swapped": "no inbound rule of sg-",
    "policy deleted": "no policy allows ec2-instance-connect:OpenTunnel any more",
    "key inactive": "access key {} is inactive",
    "key deleted": "access key {} is deleted, or its session has ended",
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_open_goes_on_by_default(deployment, ec2, iam, change):
    """As at AWS: tracked connections and admitted tunnels outlive everything that let them begin."""
    here = Place(deployment, ec2, iam, None)
    with here.tunnel() as (client, peer), here.stream() as (ours, theirs):
        CHANGES[change](here)
        tunnel_carries(client, peer)
        assert stream_passes(ours, theirs)
        time.sleep(1.2)
        tunnel_carries(client, peer)
        assert stream_passes(ours, theirs)


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_open_is_cut_at_once(deployment, ec2, iam, change):
    """The tunnel is closed with the reason, which the audit has too, and its target reset; the stream is dead if the
    change is about packets, and untouched if not. All when the call is answered."""
    here = Place(deployment, ec2, iam, "immediate")
    with ExitStack() as opened:
        client, peer = opened.enter_context(here.tunnel())
        ours, theirs = opened.enter_context(here.stream())
        tunnel_carries(client, peer)
        assert stream_passes(ours, theirs)
        CHANGES[change](here)
        answered = time.monotonic()
        code, reason = client.receive_close()
        assert code == 4403
        assert reason.startswith(f"Access revoked: {WORDS[change].format(here.alice.key[0])}")
        with pytest.raises(ConnectionResetError):
            peer.recv(1)
        assert time.monotonic() - answered < 0.5
        assert stream_passes(ours, theirs) is (change not in OF_PACKETS)

    def closed():
        lines = deployment.serve.audit_files[1].read_text().splitlines()
        found = [json.loads(line) for line in lines if here.alice.key[0] in line]
        return [one["serviceEventDetails"] for one in found if one["eventName"] == "CloseTunnel"]

    until(closed)
    (details,) = closed()
    assert details["closeCode"] == 4403
    known = "iam: " if change == "policy deleted" else WORDS[change].format(here.alice.key[0])
    assert known in details["closeReason"]


def test_unrelated_changes_cut_nothing(deployment, ec2, iam):
    """Somebody else's key and policy, another group, a rule beside, another instance."""
    here = Place(deployment, ec2, iam, "immediate")
    bob = User(deployment, iam)
    bob.may(*MAY)
    with here.tunnel() as (client, peer), here.stream() as (ours, theirs):
        bob.may(allow("ec2:DescribeVpcs"))
        iam.delete_access_key(UserName=bob.name, AccessKeyId=bob.key[0])
        ec2.revoke_security_group_egress(
            GroupId=here.empty, IpPermissions=[{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
        )
        here.allow(443)
        run(ec2, SubnetId=here.subnet, SecurityGroupIds=[here.empty])
        tunnel_carries(client, peer)
        assert stream_passes(ours, theirs)
        time.sleep(1.2)
        tunnel_carries(client, peer)
        assert stream_passes(ours, theirs)


def test_the_tag_takes_two_words(ec2):
    """And the refusal names them."""
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    tags = [{"Key": "wicketgate:revocation", "Value": "now"}]
    assert code_of(ec2, "CreateTags", Resources=[vpc], Tags=tags) == "InvalidParameterValue"
