"""What test_install.py does inside the tree; each step ends with a line `ok: ...`."""

from __future__ import annotations

import configparser
import contextlib
import os
import pwd
import re
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
from pathlib import Path

import boto3
import operators

from wicketgate.kernel import netns

STATE = Path("/var/lib/wicketgate")
BEGUN = time.monotonic()
TRUST = dict.fromkeys(("AWS_CA_BUNDLE", "SSL_CERT_FILE"), str(STATE / "bundle.pem"))
"""What clients are told to trust."""
SERVER = """
import socket, threading
listener = socket.create_server(("0.0.0.0", 22), backlog=64)
def echo(one):
    one.sendall(b"hello\\n")
    while data := one.recv(4096):
        one.sendall(data)
    one.close()
while True:
    threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()
"""


def run(*words, code=0):
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
    return done.stdout + done.stderr


def ok(words):
    print(f"ok: {words} ({time.monotonic() - BEGUN:.0f} s)", flush=True)


def credential():
    parser = configparser.ConfigParser()
    parser.read("/etc/wicketgate/root-credential")
    return dict(parser["default"])


def environment():
    key = credential()
    return {
        "PATH": os.environ["PATH"],
        "HOME": "/root",
        "AWS_ACCESS_KEY_ID": key["aws_access_key_id"],
        "AWS_SECRET_ACCESS_KEY": key["aws_secret_access_key"],
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": "https://api.gate.test",
        **TRUST,
    }


def ec2():
    os.environ.update(environment())
    return boto3.client("ec2", region_name="us-east-1")


def answers():
    """Whether anybody speaks TLS on port 443."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection(("127.0.0.1", 443), 0.7) as raw, context.wrap_socket(raw):
            return True
    except OSError:
        return False


def serve_in(instance):
    return subprocess.Popen(["ip", "netns", "exec", instance, sys.executable, "-c", SERVER])


class Tunnel:
    def __init__(self, instance):
        self.process = subprocess.Popen(
            ["wicketgate", "open-tunnel", "--instance-id", instance],
            env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        line = self.process.stdout.readline()
        assert line == b"hello\n", (line, self.process.stderr.read())

    def echo(self, word):
        self.process.stdin.write(word + b"\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == word + b"\n"

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(20) == 0


def world(network="10.0", image="ami-00000000000000001", before=lambda _subnet: None, **more):
    """A VPC with a machine and an endpoint; `before` is told the subnet before there is either."""
    client = ec2()
    vpc = client.create_vpc(CidrBlock=f"{network}.0.0/16")["Vpc"]["VpcId"]
    subnet = client.create_subnet(VpcId=vpc, CidrBlock=f"{network}.1.0/24")["Subnet"]["SubnetId"]
    before(subnet)
    group = client.create_security_group(GroupName="open", Description="d", VpcId=vpc)["GroupId"]
    client.authorize_security_group_ingress(
        GroupId=group, IpProtocol="tcp", FromPort=22, ToPort=22, CidrIp=f"{network}.0.0/16"
    )
    made = client.create_instance_connect_endpoint(SubnetId=subnet, SecurityGroupIds=[group])
    identity = made["InstanceConnectEndpoint"]["InstanceConnectEndpointId"]

    def door():
        asked = client.describe_instance_connect_endpoints(InstanceConnectEndpointIds=[identity])
        return asked["InstanceConnectEndpoints"][0]

    wait(lambda: door()["State"] == "create-complete")
    with Path("/etc/hosts").open("a") as hosts:
        hosts.write(f"127.0.0.1 {door()['DnsName']}\n")
    instance = client.run_instances(
        **more, ImageId=image, MinCount=1, MaxCount=1, SubnetId=subnet, SecurityGroupIds=[group]
    )["Instances"][0]["InstanceId"]
    return vpc, instance


def pids():
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"wicketgate.units" in words:
            found[int(path.parent.name)] = b" ".join(words[4:]).decode().strip()
    return found


def wait(what, seconds=15):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def lan():
    """A machine that was not made by us on a bridge of the host, and a device that is moved."""
    for line in (
        "link add br0 type bridge", "link set br0 up", "netns add machine", "link add port type veth peer name eth0",
        "link set eth0 netns machine", "link set port master br0 up", "-n machine link set lo up",
        "-n machine link set eth0 up", "-n machine address add 10.9.1.11/24 dev eth0",
        "link add own0 type veth peer name own1",
    ):  # fmt: skip
        run("ip", *line.split())
    server = serve_in("machine")

    def bind(subnet):
        Path("/etc/wicketgate/links.toml").write_text(
            f'[[link]]\nsubnet = "{subnet}"\nmode = "bridge"\ndevice = "br0"\n'
            f'[[link]]\nsubnet = "{other}"\nmode = "own"\ndevice = "own0"\n'
        )
        run("systemctl", "reload", "wicketgate-netd.service")

    client = ec2()
    vpc = client.create_vpc(CidrBlock="10.8.0.0/16")["Vpc"]["VpcId"]
    other = client.create_subnet(VpcId=vpc, CidrBlock="10.8.1.0/24")["Subnet"]["SubnetId"]
    _, machine = world("10.9", "ami-00000000000000002", bind, PrivateIpAddress="10.9.1.11")
    wait(lambda: "own0" not in run("ip", "-o", "link", "show"))
    tunnel = Tunnel(machine)
    tunnel.echo(b"eight")
    tunnel.close()
    script = run("wicketgate", "host-setup", machine)  # with all files that the package has to have for it
    assert "AuthorizedKeysCommand" in script and "def main(" in script
    server.kill()


def refuse_newer(verb):
    """A store of a later arrangement of tables is not touched."""
    store = STATE / "store" / "store.db"
    with contextlib.closing(sqlite3.connect(store)) as database:
        (layout,) = database.execute("PRAGMA user_version").fetchone()
        database.execute("PRAGMA user_version=99")
    assert "in a form that a newer wicketgate wrote" in run("wicketgate", verb, code=1)
    assert not Path("/etc/systemd/system/wicketgate.target").exists()
    with contextlib.closing(sqlite3.connect(store)) as database:
        database.execute(f"PRAGMA user_version={layout}")


def main():
    package = sys.argv[1]
    for unit in ("netd", "api"):
        assert Path(f"/etc/systemd/system/wicketgate-{unit}.service").is_file()
    assert "wicketgate-gateway" in Path("/etc/passwd").read_text()
    assert pids() == {}, "policy-rc.d said that nothing may be started"
    said = run("wicketgate", "install", "--domain", "gate.test", "--instances", "2", "--no-start")
    assert "write again /etc/wicketgate/wicketgate.toml" in said, said
    first = Path("/etc/wicketgate/root-credential").read_text()
    dry = run("wicketgate", "install", "--no-start", "--dry-run")
    assert dry.strip().startswith("nothing was started"), dry
    ok("installed by the package, then given a domain; a third run has nothing to do")

    run("systemctl", "start", "wicketgate-gateway.socket", "wicketgate-netd.service")
    assert sorted(pids().values()) == ["netd"]
    assert not answers()
    ok("netd is up first, and nothing answers before the API process and gateways are")

    said = run("wicketgate", "install")
    assert sorted(pids().values()) == ["api", "gateway a0", "gateway a1", "metadata", "netd"], (pids(), said)
    assert first == Path("/etc/wicketgate/root-credential").read_text()
    for name, user in (("netd", "root"), ("api", "wicketgate-api"), ("gateway a0", "wicketgate-gateway")):
        pid = next(pid for pid, one in pids().items() if one == name)
        status = Path(f"/proc/{pid}/status").read_text()
        uid = re.search(r"^Uid:\s+(\d+)", status, re.MULTILINE)[1]
        assert int(uid) == pwd.getpwnam(user).pw_uid
        capabilities = int(re.search(r"^CapEff:\s+(\w+)", status, re.MULTILINE)[1], 16)
        assert (capabilities == 0) == (user != "root"), (name, capabilities)
        assert re.search(r"^Seccomp:\s+2", status, re.MULTILINE), name
    vpc, instance = world()
    server = serve_in(instance)
    time.sleep(0.5)
    tunnel = Tunnel(instance)
    tunnel.echo(b"one")
    ok("a tunnel leads to a machine, by processes that are confined as their units say")

    server.kill()
    for pid in pids():
        os.kill(pid, signal.SIGKILL)
    tunnel.process.wait(10)
    wait(lambda: pids() == {})
    for name in sorted(netns.names()):
        netns.delete(name)
    run("systemctl", "stop", "wicketgate.target")
    run("systemctl", "start", "wicketgate-netd.service")
    assert sorted(pids().values()) == ["netd"]
    assert {vpc, instance} <= netns.names()
    with netns.entered(vpc):
        rules = run("nft", "list", "ruleset")
    assert "policy drop" in rules
    ok("after a reboot netd alone has rebuilt namespaces and rules from its own copy")
    run("systemctl", "start", "wicketgate.target")
    assert ec2().describe_instances()["Reservations"][0]["Instances"][0]["InstanceId"] == instance
    server = serve_in(instance)
    time.sleep(0.5)
    tunnel = Tunnel(instance)
    tunnel.echo(b"two")
    ok("then the API process and gateways: the state is kept, and a tunnel leads there again")

    old = pids()
    said = run("wicketgate", "upgrade")
    assert "start gateways b0 to b1" in said, said
    tunnel.echo(b"three")
    second = Tunnel(instance)
    second.echo(b"four")
    now = pids()
    assert {"gateway b0", "gateway b1", "netd", "api", "metadata"} <= set(now.values()), now
    assert not {pid for pid, name in old.items() if "gateway" not in name} & now.keys(), "restarted"
    tunnel.echo(b"five")
    wanted = sorted(path.name for path in Path("/etc/systemd/system/wicketgate.target.wants").glob("*@*"))
    assert wanted == ["wicketgate-gateway@b0.service", "wicketgate-gateway@b1.service"]
    ok("upgraded with a tunnel open: it goes on in the old gateway; new ones go to the new")

    said = run("wicketgate", "upgrade", "--gateways")
    assert "start gateways c0 to c1" in said, said
    assert {"gateway c0", "gateway c1"} <= set(pids().values())
    third = Tunnel(instance)
    for open_one in (tunnel, second, third):
        open_one.echo(b"six")
        open_one.close()
    wait(lambda: sorted(pids().values()) == ["api", "gateway c0", "gateway c1", "metadata", "netd"])
    ok("upgraded again while the first gateways had a tunnel: three sets, and the old ones end with their tunnels")

    operators.certificates(instance)
    operators.rotate(instance)
    operators.interrupt(instance)

    lan()
    ok("a machine of the host's own bridge is reached, and a device moved, by a netd that is confined")

    server.kill()
    said = run("wicketgate", "uninstall")
    assert "giving its device back to the host" in said
    run("ip", "link", "show", "own0")
    ports = run("ip", "-o", "link", "show", "master", "br0").splitlines()
    assert len(ports) == 1, ports
    assert pids() == {}
    assert not {vpc, instance} & netns.names()
    assert "wicketgate" not in Path("/etc/passwd").read_text()
    left = list(Path("/etc").rglob("*wicketgate*"))
    assert left == [Path("/etc/wicketgate"), Path("/etc/wicketgate/wicketgate.toml")], left
    assert "keep /var/lib/wicketgate" in said
    assert {path.stat().st_uid for path in STATE.rglob("*") if not path.is_symlink()} == {0}
    ok("uninstalled: what it kept it said, and it is root's")
    refuse_newer("install")
    run("wicketgate", "install")
    assert ec2().describe_instances()["Reservations"][0]["Instances"][0]["InstanceId"] == instance
    ok("installed again on the state that was kept")
    before = pids()
    manifest = Path("/etc/wicketgate/.installed.json")
    text = manifest.read_text()
    assert '"layout": 1' in text
    manifest.write_text(text.replace('"layout": 1', '"layout": 99'))
    assert "in a form that a newer wicketgate wrote" in run("wicketgate", "upgrade", code=1)
    assert before == pids(), "refused before anything was restarted"
    manifest.write_text(text)
    ok("a store that a newer version wrote is refused, while it is in use and while it is not")

    run("dpkg", "--purge", package)
    assert pids() == {}
    assert [*Path("/etc").rglob("*wicketgate*"), *Path("/var/lib").glob("wicketgate*")] == []
    ok("purged: nothing is left")
    operators.take_over()


if __name__ == "__main__":
    sys.modules["scenario"] = sys.modules["__main__"]
    main()
