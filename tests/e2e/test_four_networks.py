"""Real sshd's on networks of hosts that nobody here made, bound in each of the four modes, by the whole deployment:
reached or refused as the groups say, from the address that they ought to see, and nothing of theirs is touched.

home, where netd runs   br0, the hosts' bridge, or nic0, a NIC whose cable ends at their switch
m1 .11                  its router is the network's own, .3
m2 .12                  its router is the gateway, .1 (routed: as m1; the site's router leads back to home)
m3 .13                  as m1, in a group that lets nobody in
"""

import json
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.machines.reach import CLIENT, Reach
from tests.e2e.machines.site import Host
from tests.net import lan_rig
from tests.net.lan_rig import ip
from wicketgate.lab.build import POOL
from wicketgate.lab.lab import KEY, wicketgate_command
from wicketgate.lab.machines import ACCOUNT
from wicketgate.model.resources import EXTERNAL_IMAGE

DEVICES = {"own": "nic0", "bridge": "br0", "macvlan": "nic0", "routed": "to-gate"}
ENDPOINT, ENDPOINT6 = "10.9.0.250", "fd09::250"
FORWARDING = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")
GROUPS = {"m1": "machines", "m2": "machines", "m3": "closed"}


class Site(lan_rig.Site):
    """The network as it is for a mode, with OpenSSH's sshd on each machine."""

    def __init__(self, mode, directory):
        self.mode, self.hosts, self.directory, self.undo = mode, [], directory, ExitStack()
        self.forwarding = {key: lan_rig.inside(None, "sysctl", "-n", key).strip() for key in FORWARDING}
        # Routed: endpoints' addresses are no neighbours, but reached by way of the router and home.
        prefixes = (25, 120) if mode == "routed" else (24, 64)
        super().__init__("home" if mode == "bridge" else "away", tuple(GROUPS), prefixes)
        if mode != "bridge":
            ip(f"addr add 10.9.0.2/{prefixes[0]} dev nic0")
            ip(f"addr add fd09::2/{prefixes[1]} dev nic0 nodad")
        if mode == "routed":
            lan_rig.inside(None, "sysctl", "-qw", *(f"{key}=1" for key in FORWARDING))
            ip("route add default via 10.9.0.2", namespace="rtr")
            ip("route add default via fd09::2", namespace="rtr")

    def _host(self, name, number, router):
        super()._host(name, number, "1" if name == "m2" and self.mode != "routed" else router)

    def _serve(self, name):
        if name not in GROUPS:
            return
        host = Host(name, f"10.9.0.1{name[1:]}", self.directory / name, name)
        host.directory.mkdir()
        self.hosts.append(host)
        host.serve_ssh(KEY.with_suffix(".pub").read_text(), f"fd09::1{name[1:]}")

    def lead_replies(self):
        """Routed: the operator's rule by which what machines answer to clients goes to the gateway, until `undo`."""
        if self.mode == "routed":
            ip("route add default dev", DEVICES["routed"], "table 77")
            ip("rule add iif nic0 lookup 77")
            self.undo.callback(ip, "rule del iif nic0 lookup 77")

    def of_the_host(self):
        """The host's own part of it: link-layer address, state, bridge and lasting addresses of each link."""
        return {
            one["ifname"]: (
                one["address"],
                "UP" in one["flags"],
                one.get("master"),
                {each["local"] for each in one["addr_info"] if each["scope"] == "global"},
            )
            for one in json.loads(ip("-j addr show"))
        }

    def close(self):
        """Remove all of it."""
        self.undo.close()
        for host in self.hosts:
            host.end()
        super().close()
        lan_rig.inside(None, "sysctl", "-qw", *(f"{key}={value}" for key, value in self.forwarding.items()))


class Place(Reach):
    """A site, and a subnet bound to it in its mode."""

    host_before: dict[str, object]
    """Of the host that netd runs on, before anything was bound."""

    def bind(self, *, return_path):
        """Have netd read that the subnet is bound so."""
        mode = self.site.mode
        path = "" if mode == "own" else f"return_path = {str(return_path).lower()}\n"  # own has it if nothing is said
        self._write(
            f'[[link]]\nsubnet = "{self.subnet}"\nmode = "{mode}"\ndevice = "{DEVICES[mode]}"\n{path}'
            f'endpoint_addresses = ["{ENDPOINT}", "{ENDPOINT6}"]\n'
        )

    def _write(self, text):
        links = Path(self.settings["links_file"])
        links.write_text(text)
        links.chmod(0o644)
        self.lab.serve.reload()

    def until(self, holds):
        """Wait for something."""
        self._until(holds)

    def bound(self):
        """Whether the API knows that it is bound, without a problem."""
        there = self.lab.world.subnet(self.subnet).attached
        return there is not None and (there.mode, there.return_path, there.problem) == (self.site.mode, True, "")

    def unbind(self):
        """Have it bound no more; returns when the host has all of its own back, and nothing of ours."""
        self._write("")
        self._until(lambda: self.site.of_the_host() == self.host_before)

    def make(self):
        """A VPC with the network's ranges, the binding, the machines, and an endpoint in both families."""
        undo = self._undo
        vpc = self.ec2("create_vpc", CidrBlock="10.9.0.0/16", Ipv6Pool=POOL, Ipv6CidrBlock="fd09::/56")["Vpc"]["VpcId"]
        undo.callback(self.ec2, "delete_vpc", VpcId=vpc)
        made = self.ec2("create_subnet", VpcId=vpc, CidrBlock="10.9.0.0/24", Ipv6CidrBlock="fd09::/64")
        self.subnet = made["Subnet"]["SubnetId"]
        undo.callback(self.ec2, "delete_subnet", SubnetId=self.subnet)
        self.bind(return_path=True)
        undo.callback(self.unbind)
        for name in ("endpoint", "machines", "closed"):
            group = self.ec2("create_security_group", VpcId=vpc, GroupName=name, Description=name)["GroupId"]
            self.groups[name] = group
            undo.callback(self.ec2, "delete_security_group", GroupId=group)
        self._let_in("authorize")
        undo.callback(self._let_in, "revoke")
        self.until(self.bound)
        self.site.lead_replies()  # before netd has machines whose way back it could look for
        undo.callback(self._forget_machines)
        for host in self.hosts:
            self.ids[host.name] = self._register(host)
        self._make_endpoint()
        assert self.lab.interface(self.lab.world.endpoint(self.endpoint_id)).addresses == (ENDPOINT, ENDPOINT6)

    def _let_in(self, verb):
        peer = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": self.groups["endpoint"]}]}
        self.ec2(f"{verb}_security_group_ingress", GroupId=self.groups["machines"], IpPermissions=[peer])

    def _register(self, host):
        made = self.ec2(
            "run_instances",
            ImageId=EXTERNAL_IMAGE,
            MinCount=1,
            MaxCount=1,
            SubnetId=self.subnet,
            PrivateIpAddress=host.address,
            Ipv6Addresses=[{"Ipv6Address": f"fd09::1{host.name[1:]}"}],
            SecurityGroupIds=[self.groups[GROUPS[host.name]]],
        )
        return made["Instances"][0]["InstanceId"]

    @property
    def endpoint_id(self):
        """The endpoint's id."""
        return self.endpoint["InstanceConnectEndpointId"]

    def modify(self, **wanted):
        """Modify the endpoint; returns when it is done."""
        self.ec2("modify_instance_connect_endpoint", InstanceConnectEndpointId=self.endpoint_id, **wanted)
        self._until(lambda: self.lab.world.endpoint(self.endpoint_id).state == "update-complete")

    def seen(self, address, program="wicketgate"):
        """Log in with ssh through open-tunnel; the address that the machine's sshd sees."""
        command = self.lab.ssh_command(self.tunnel(program, address, 22), address)
        return self.run(*command, "echo $SSH_CONNECTION").stdout.split()[0]

    def seen_by_id(self, name):
        """The same with `wicketgate ssh`, by the instance's id and with a key of one's own."""
        own = [*wicketgate_command(), "ssh", "--private-key-file", str(KEY), "--instance-id", self.ids[name]]
        quiet = ["--", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        return self.run(*own, "--os-user", ACCOUNT, *quiet, "echo $SSH_CONNECTION").stdout.split()[0]

    def refusal(self, address):
        """What open-tunnel says if a machine is not reached, else nothing."""
        done = self.run(*self.tunnel("wicketgate", address, 22), check=False)
        return done.stderr if done.returncode else ""


@pytest.fixture(scope="module")
def links(running):
    """The operator's file, which the lab's servers read while these tests run."""
    path = Path("/run/four-networks.toml")
    running.restart(links_file=str(path), preserve_client_ipv6=True)  # else an endpoint preserves IPv4 alone or nothing
    yield path
    running.restart()


@pytest.fixture
def place(request, running, aws, links):
    """A site for the mode, bound, registered and with an endpoint."""
    directory = Path("/run/four-networks", request.param)  # where the machines' account may read
    directory.mkdir(mode=0o755, parents=True)
    site = Site(request.param, directory)
    made = Place(running, site, aws, directory, settings={"links_file": str(links)})
    try:
        made.before, made.host_before = site.configuration(), site.of_the_host()
        made.make()
        yield made
    finally:
        try:
            made.forget()
        finally:
            site.close()


@pytest.mark.parametrize("place", DEVICES, indirect=True)
def test_real_machines_in_each_mode(place):
    """One network of each kind, from its binding to its release."""
    first, second, closed = (host.address for host in place.hosts)
    _clients_are_preserved(place, second)
    assert place.seen(first, "aws") == ENDPOINT
    assert place.seen("fd09::11") == ENDPOINT6
    assert place.seen_by_id("m2") == ENDPOINT
    assert f"Accepted publickey for {ACCOUNT} from {ENDPOINT}" in (place.hosts[0].directory / "sshd.log").read_text()
    for target, source in ((closed, ENDPOINT), ("fd09::13", ENDPOINT6)):
        assert f"no inbound rule of {place.groups['closed']} allows tcp 22 from {source}" in place.refusal(target)
    _outbound_rules_decide(place, first)
    assert "Connection from" not in (place.hosts[2].directory / "sshd.log").read_text(), "it heard of nothing"
    assert place.site.configuration() == place.before
    place.forget()
    assert place.site.configuration() == place.before


def _clients_are_preserved(place, target):
    """With client IP preservation a machine sees the client, if replies come back by the gateway; else it is refused in
    words."""
    place.modify(PreserveClientIp=True)
    assert place.seen(target) == place.lab.topology.clients[CLIENT]
    place.site.undo.close()
    if place.site.mode != "own":
        place.bind(return_path=False)
        place.until(lambda: f"{target} does not send its replies through this gateway, so" in place.refusal(target))
    place.modify(PreserveClientIp=False)


def _outbound_rules_decide(place, target):
    """While the endpoint's group lets nothing out, a machine is refused in words that say so."""
    every = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    group = place.groups["endpoint"]
    place.ec2("revoke_security_group_egress", GroupId=group, IpPermissions=every)
    refused = place.refusal(target)
    place.ec2("authorize_security_group_egress", GroupId=group, IpPermissions=every)
    assert f"no outbound rule of {group} allows tcp 22 to {target}" in refused
