"""A subnet bound to a network of hosts that nobody here made, the whole way: the operator's file and SIGHUP, machines
imported, logins, groups, machines that go and come back, and what is said of each thing that cannot be."""

import json
import time
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.e2e.machines.reach import Reach
from tests.e2e.machines.site import ARCHIVE, BRIDGE, Site, ip
from wicketgate.lab.lab import BUILDER, KEY, wicketgate_command
from wicketgate.lab.machines import ACCOUNT

ENDPOINT = "10.9.0.251"


class Operator(Reach):
    """Binds and registers with the file and the command line, and lets netd read the file by a signal."""

    links: Path

    def write(self, text):
        """Write the file and have it read."""
        self.links.write_text(text)
        self.links.chmod(0o644)
        self.lab.serve.reload()

    def bind(self, addresses=(ENDPOINT,), **more):
        """Bind the subnet to the bridge; returns when the API knows."""
        lines = [f"{key} = {json.dumps(value)}\n" for key, value in more.items()]
        self.write(
            f'[[link]]\nsubnet = "{self.subnet}"\nmode = "bridge"\ndevice = "{BRIDGE}"\n'
            f"endpoint_addresses = {json.dumps(list(addresses))}\n{''.join(lines)}"
        )

        def known():
            there = self.attached()
            return there is not None and (there.endpoint_addresses, there.problem) == (tuple(addresses), "")

        self.until(known)

    def attached(self):
        """What the API knows of the binding."""
        return self.lab.world.subnet(self.subnet).attached

    def own(self, *words, check=True):
        """Our command line, as root of the account."""
        return self.run(*wicketgate_command(), *words, environment=self.lab.environment(BUILDER), check=check)

    def machine(self, address):
        """What `machines list` and DescribeInstances say of a machine; they say the same."""
        for _ in range(3):
            (told,) = [
                one
                for one in json.loads(self.own("machines", "list", "--json").stdout)
                if one["addresses"][0] == address
            ]
            (found,) = self.ec2("describe_instances", InstanceIds=[told["id"]])["Reservations"]
            if found["Instances"][0]["State"]["Name"] == told["state"]:
                return told
        raise AssertionError("they differ")

    def instance(self, address):
        """The state of the machine in the World, without a call."""
        eni = next(one for one in self.lab.world.interfaces if one.private_ip_address == address)
        return self.lab.world.instance_of_interface(eni.id)

    def until(self, holds, seconds=10.0):
        """Wait for something."""
        self._until(holds, seconds)

    def log(self):
        """What netd has said."""
        return (self.lab.serve.directory / "logs" / "netd.log").read_text()


@pytest.fixture(scope="module")
def place(running, aws):
    """A site with two machines that have an sshd, bound, imported and with an endpoint."""
    directory = Path("/run/real-machines")
    directory.mkdir(mode=0o755)
    site = Site(directory / "hosts")
    made = Operator(running, site, aws, directory)
    made.links = directory / "links.toml"
    try:
        site.build()
        for host in site.hosts[:2]:
            host.serve_ssh(KEY.with_suffix(".pub").read_text())
        _make(made)
        yield made
    finally:
        made.forget()
        site.end()


def _make(made):
    undo = made._undo
    vpc = made.ec2("create_vpc", CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    undo.callback(made.ec2, "delete_vpc", VpcId=vpc)
    made.subnet = made.ec2("create_subnet", VpcId=vpc, CidrBlock="10.9.0.0/24")["Subnet"]["SubnetId"]
    undo.callback(made.ec2, "delete_subnet", SubnetId=made.subnet)
    for name in ("endpoint", "machines"):
        group = made.ec2("create_security_group", VpcId=vpc, GroupName=name, Description=name)["GroupId"]
        made.groups[name] = group
        undo.callback(made.ec2, "delete_security_group", GroupId=group)
    peer = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": made.groups["endpoint"]}]}
    made.ec2("authorize_security_group_ingress", GroupId=made.groups["machines"], IpPermissions=[peer])
    undo.callback(made.ec2, "revoke_security_group_ingress", GroupId=made.groups["machines"], IpPermissions=[peer])
    made.lab.restart(links_file=str(made.links))  # there is no file yet
    undo.callback(made.lab.restart)
    made.bind()
    hosts = made.directory / "machines.csv"
    hosts.write_text(
        "address,name,groups\n" + "".join(f"{one.address},{one.name},machines\n" for one in made.hosts[:2])
    )
    assert made.own("machines", "import", str(hosts)).stderr == "2 registered\n"
    made.ids = {one.name: made.instance(one.address).id for one in made.hosts[:2]}
    undo.callback(made._forget_machines)
    made._make_endpoint()
    assert made.source == ENDPOINT


def test_login_and_groups(place):
    """By the stock CLI's tunnel, and by `wicketgate ssh` with a key of one's own and the instance's id; the machine
    sees the endpoint's address. Without the rule both are refused in words."""
    own = (*wicketgate_command(), "ssh", "--private-key-file", str(KEY), "--instance-id", place.ids["m1"])
    own += ("--os-user", ACCOUNT, "--", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null")
    seen = "echo $SSH_CONNECTION"
    assert place.ssh("m1", seen, program="aws").stdout.split()[0] == ENDPOINT
    assert place.run(*own, seen).stdout.split()[0] == ENDPOINT
    group = place.groups["machines"]
    peer = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": place.groups["endpoint"]}]}
    place.ec2("revoke_security_group_ingress", GroupId=group, IpPermissions=[peer])
    refused = place.run(*own, "true", check=False)
    place.ec2("authorize_security_group_ingress", GroupId=group, IpPermissions=[peer])
    assert f"no inbound rule of {group} allows tcp 22 from {ENDPOINT}" in refused.stderr


def test_a_machine_goes_comes_back_and_is_replaced(place):
    """Stopped within half a minute after its link went, whoever asks; running again soon; another link-layer address is
    noted."""
    host = place.hosts[1]
    place.until(lambda: place.lab.world and place.machine(host.address)["since"] != "-")
    ip("link", "set", f"s-{host.name}", "down")
    started = time.monotonic()
    place.until(lambda: place.instance(host.address).state == "stopped", 30)
    assert time.monotonic() - started < 25
    assert place.machine(host.address)["state"] == "stopped"
    ip("link", "set", f"s-{host.name}", "up")
    place.until(lambda: place.instance(host.address).state == "running", 10)
    assert place.machine(host.address)["note"] == ""
    ip("link", "set", "eth0", "address", "02:00:00:00:99:12", namespace=host.namespace)
    host.run("bash", "-c", f": </dev/tcp/{place.hosts[0].address}/22")  # so that it asks, and so says where it is
    place.until(lambda: "moved from" in place.machine(host.address)["note"], 20)
    assert "to 02:00:00:00:99:12" in place.machine(host.address)["note"]


def test_an_address_that_somebody_has(place):
    """No endpoint is made at the address of another host of the network: the caller is told which, and who has it."""
    place.bind([ARCHIVE])
    before = place.lab.world.endpoints
    with pytest.raises(ClientError) as caught:
        place.ec2("create_instance_connect_endpoint", SubnetId=place.subnet)
    error = caught.value.response["Error"]
    assert error["Code"] == "InvalidIPAddress.InUse"
    assert f"{ARCHIVE} is in use on the network of {place.subnet}, by " in error["Message"]
    assert place.lab.world.endpoints == before
    place.bind()


def test_no_client_is_preserved_without_the_way_back(place):
    """The gateway and `explain` refuse such a tunnel in the same words."""
    endpoint = place.endpoint["InstanceConnectEndpointId"]
    change = {"InstanceConnectEndpointId": endpoint, "PreserveClientIp": True}
    place.ec2("modify_instance_connect_endpoint", **change)
    words = f"{place.hosts[0].address} does not send its replies through this gateway, so a client's address cannot be"
    try:
        refused = place.run(*place.tunnel("aws", place.hosts[0].address, 22), check=False)
        assert words in refused.stderr
        told = place.run(*wicketgate_command(), "explain", "--endpoint", endpoint, "--to", place.ids["m1"], check=False)
        assert words in " ".join(told.stdout.split())
    finally:
        place.ec2("modify_instance_connect_endpoint", **{**change, "PreserveClientIp": False})


def test_a_wrong_file_changes_nothing_and_says_where(place):
    """The line of netd's log names file and line; machines stay reached."""
    place.write(place.links.read_text() + "probes = 1\n")
    place.until(lambda: f"{place.links}:1: there is no 'probes' in a [[link]]" in place.log())
    assert place.ssh("m1", "true").returncode == 0
    place.bind()


def test_the_network_is_down(place):
    """Whoever connects and whoever asks `explain` is told so, in the same words; when it is up again all is well."""
    endpoint = place.endpoint["InstanceConnectEndpointId"]
    words = f"the network of {place.subnet} cannot be used: its link is down"
    ip("link", "set", BRIDGE, "down")
    try:
        place.until(lambda: place.attached().problem != "")
        refused = place.run(*place.tunnel("aws", place.hosts[0].address, 22), check=False)
        told = place.run(*wicketgate_command(), "explain", "--endpoint", endpoint, "--to", place.ids["m1"], check=False)
    finally:
        ip("link", "set", BRIDGE, "up")
    assert f"Unable to connect to target: {words}" in refused.stderr
    assert words in " ".join(told.stdout.split())
    place.until(lambda: place.attached().problem == "")
    assert place.ssh("m1", "true").returncode == 0


def test_what_is_bound_no_more_leads_nowhere(place):
    """The binding is taken out: tunnels are refused at once; and put back."""
    place.write("")
    place.until(lambda: place.attached() is None)
    refused = place.run(*place.tunnel("aws", place.hosts[0].address, 22), check=False)
    assert "Unable to connect to target" in refused.stderr
    place.bind()
    assert place.ssh("m1", "true").returncode == 0
