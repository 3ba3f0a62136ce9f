"""How a client in the lab's office reaches the machines of a site: what an operator does once, then what users run."""

from __future__ import annotations

import subprocess
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import boto3

from tests.e2e.machines.site import BRIDGE, CIDR, ENDPOINT_ADDRESSES, Site
from wicketgate.kernel import netns
from wicketgate.lab.lab import BUILDER, KEY, Lab, wicketgate_command
from wicketgate.lab.machines import ACCOUNT
from wicketgate.model.resources import EXTERNAL_IMAGE

CLIENT, USER = "office", "admin"
OWN = "wicketgate ssh-config"
"""The program whose ssh_config is the one that `wicketgate ssh-config` prints."""


@dataclass
class Reach:
    """A site, and the VPC whose subnet is bound to it once it is registered."""

    lab: Lab
    site: Site
    aws: str
    """Path of the stock CLI."""
    directory: Path
    settings: dict[str, object] = field(default_factory=dict)
    """What the deployment needs for this site beside its own settings."""
    subnet: str = ""
    groups: dict[str, str] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    """Name of a machine -> id of the instance that it is registered as."""
    endpoint: dict[str, object] = field(default_factory=dict)
    """As DescribeInstanceConnectEndpoints has it."""
    before: dict[str, str] = field(default_factory=dict)
    """What was configured on the machines before they were registered."""
    _client: object = None
    _undo: ExitStack = field(default_factory=ExitStack)

    @property
    def hosts(self):
        """The machines."""
        return self.site.hosts

    @property
    def source(self):
        """The address that machines see: the endpoint's, for client IP preservation is off."""
        endpoint = self.lab.world.endpoint(self.endpoint["InstanceConnectEndpointId"])
        return self.lab.interface(endpoint).addresses[0]

    # -- what an operator does -----------------------------------------------------------------------------------------

    def restart(self, **settings):
        """The lab's servers again, with settings of one's own beside those that this site needs."""
        self.lab.restart(**{**self.settings, **settings})

    def ec2(self, action, **parameters):
        """One call as the account's root user, from the office."""
        if self._client is None:  # 0.2 s each
            environment = self.lab.environment(BUILDER)
            key = environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]
            session = boto3.session.Session(*key, region_name=environment["AWS_REGION"])
            place = {"endpoint_url": environment["AWS_ENDPOINT_URL"], "verify": environment["AWS_CA_BUNDLE"]}
            self._client = session.client("ec2", **place)
        with netns.entered(CLIENT):
            return getattr(self._client, action)(**parameters)

    def register(self):
        """Make a VPC, bind its subnet to the site's bridge, register all machines, and make an endpoint there."""
        self.before = self.site.configuration()
        vpc = self.ec2("create_vpc", CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
        self._undo.callback(self.ec2, "delete_vpc", VpcId=vpc)
        self.subnet = self.ec2("create_subnet", VpcId=vpc, CidrBlock=CIDR)["Subnet"]["SubnetId"]
        self._undo.callback(self.ec2, "delete_subnet", SubnetId=self.subnet)
        for name in ("endpoint", "machines"):
            made = self.ec2("create_security_group", VpcId=vpc, GroupName=name, Description=name)
            self.groups[name] = made["GroupId"]
            self._undo.callback(self.ec2, "delete_security_group", GroupId=made["GroupId"])
        peer = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": self.groups["endpoint"]}]}
        self.ec2("authorize_security_group_ingress", GroupId=self.groups["machines"], IpPermissions=[peer])
        self._undo.callback(
            self.ec2, "revoke_security_group_ingress", GroupId=self.groups["machines"], IpPermissions=[peer]
        )
        self._bind()
        self._undo.callback(self._forget_machines)
        for host in self.hosts:
            self.ids[host.name] = self._register(host)
        self._make_endpoint()

    def _bind(self):
        """Write the operator's file and have netd read it; returns when the API knows of it."""
        links = self.directory / "links.toml"
        links.write_text(
            f'[[link]]\nsubnet = "{self.subnet}"\nmode = "bridge"\ndevice = "{BRIDGE}"\n'
            f"endpoint_addresses = {list(ENDPOINT_ADDRESSES)}\n".replace("'", '"')
        )
        self.settings = {"links_file": str(links)}
        self.lab.restart(**self.settings)
        self._undo.callback(self.lab.restart)

        def attached():
            network = self.lab.world.subnet(self.subnet).attached
            return network is not None and not network.problem

        self._until(attached)

    def _register(self, host):
        """Register a machine; the id of its instance."""
        made = self.ec2(
            "run_instances",
            ImageId=EXTERNAL_IMAGE,
            MinCount=1,
            MaxCount=1,
            SubnetId=self.subnet,
            PrivateIpAddress=host.address,
            SecurityGroupIds=[self.groups["machines"]],
        )
        return made["Instances"][0]["InstanceId"]

    def _forget_machines(self):
        """Terminate all instances; returns when they are gone."""
        if self.ids:
            ids = list(self.ids.values())
            self.ec2("terminate_instances", InstanceIds=ids)
            self._until(lambda: self._states(ids) == {"terminated"})

    def _states(self, ids):
        found = self.ec2("describe_instances", InstanceIds=ids)["Reservations"]
        return {one["State"]["Name"] for each in found for one in each["Instances"]}

    def _make_endpoint(self):
        made = self.ec2(
            "create_instance_connect_endpoint",
            SubnetId=self.subnet,
            SecurityGroupIds=[self.groups["endpoint"]],
            PreserveClientIp=False,
        )["InstanceConnectEndpoint"]
        wanted = {"InstanceConnectEndpointId": made["InstanceConnectEndpointId"]}

        def described():
            found = self.ec2("describe_instance_connect_endpoints")["InstanceConnectEndpoints"]
            return next((one for one in found if wanted.items() <= one.items()), None)

        self._undo.callback(self._until, lambda: described() is None)
        self._undo.callback(self.ec2, "delete_instance_connect_endpoint", **wanted)
        self._until(lambda: described()["State"] == "create-complete")
        self.endpoint = described()

    def _until(self, holds, seconds=20.0):
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def forget(self):
        """Take down what `register` made, as far as it came."""
        self._undo.close()

    # -- what users run ------------------------------------------------------------------------------------------------

    def environment(self, **more):
        """Of the client's programs."""
        return {**self.lab.environment(USER), **more}

    def popen(self, *command, environment=None, **options):
        """Start a program in the office; of its streams it has those that are given."""
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        with netns.entered(CLIENT):
            return subprocess.Popen(command, env=self.environment(**(environment or {})), **{**streams, **options})

    def run(self, *command, environment=None, check=True, timeout=60):
        """Run a program in the office to its end."""
        with netns.entered(CLIENT):
            done = subprocess.run(
                command,
                env=self.environment(**(environment or {})),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        assert not check or done.returncode == 0, (command, done.returncode, done.stdout[-2000:], done.stderr[-2000:])
        return done

    def tunnel(self, program, address, port, **options):
        """The command line of open-tunnel, of the stock CLI (`aws`) or ours (`wicketgate`)."""
        own = [*wicketgate_command(), "open-tunnel"]
        words = {"aws": [self.aws, "ec2-instance-connect", "open-tunnel"], "wicketgate": own}[program]
        arguments = {
            "instance-connect-endpoint-id": self.endpoint["InstanceConnectEndpointId"],
            "instance-connect-endpoint-dns-name": self.endpoint["DnsName"],
            "private-ip-address": address,
            "remote-port": str(port),
            **{name.replace("_", "-"): str(value) for name, value in options.items()},
        }
        return [*words, *(part for name, value in arguments.items() for part in (f"--{name}", value))]

    @contextmanager
    def listening(self, port, *command):
        """A program in the office, while it listens on this port."""
        process = self.popen(*command)
        try:
            self.await_listening(port, process)
            yield
        finally:
            process.kill()
            process.wait()

    def await_listening(self, port, process):
        """Return when a program in the office listens on this port."""

        def listens():
            assert process.poll() is None, "it ended"
            return self.run("ss", "-Hltn", "sport", "=", f":{port}").stdout.strip()

        self._until(listens)

    def ssh_config(self, program):
        """A file for `ssh -F`, by which ssh reaches the machine of a name through this program's ProxyCommand."""
        path = self.directory / f"{program.replace(' ', '-')}.ssh_config"
        if not path.exists():
            path.write_text(self._own_config() if program == OWN else self._tunnel_config(program))
            with path.open("a") as file:
                file.write("    BatchMode yes\n    ConnectTimeout 20\n    LogLevel ERROR\n")
                file.write("    StrictHostKeyChecking no\n    UserKnownHostsFile /dev/null\n")
        return path

    def _own_config(self):
        """The stanza that `wicketgate ssh-config` prints, for all hosts, after the ids of their names."""
        stanza = self.run(*wicketgate_command(), "ssh-config", "--host", "*", "--os-user", ACCOUNT).stdout
        return "".join(f"Host {name}\n    HostName {instance}\n" for name, instance in self.ids.items()) + stanza

    def _tunnel_config(self, program):
        commands = {host.name: " ".join(self.tunnel(program, host.address, 22)) for host in self.hosts}
        hosts = "".join(f"Host {name}\n    ProxyCommand {command}\n" for name, command in commands.items())
        return f"{hosts}Host *\n    User {ACCOUNT}\n    IdentityFile {KEY}\n"

    def ssh(self, *words, program="wicketgate", **options):
        """Run ssh by such a file."""
        return self.run("ssh", "-F", str(self.ssh_config(program)), *words, **options)
