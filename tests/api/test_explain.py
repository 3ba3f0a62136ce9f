"""`wicketgate explain` and a real deployment: what it says passes does, what it says fails fails, its remedies help.

Asked by the SDK, the stock CLI and our own; every connection is a real one through the gateway and the kernel.
"""

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.api.deployment import ACCOUNT, API, REGION, ROOT, client_of
from tests.api.people import User, allow
from tests.api.test_stock_cli import CommandLine
from tests.api.worlds import complete, endpoint, refusal, run, wait_for_state
from wicketgate import api
from wicketgate.audit import reading
from wicketgate.cli.explain_proof import with_connection
from wicketgate.client.explaining import Deployment
from wicketgate.client.proof import compared
from wicketgate.client.settings import resolve_trust
from wicketgate.explain import opened
from wicketgate.explain.region import Box, Region
from wicketgate.sigv4.presign import Credentials

OPEN = "ec2-instance-connect:OpenTunnel"
HERE = "127.0.0.1"
SERVE = """
import socket, sys
server = socket.create_server((sys.argv[1], 22))
print("listens", flush=True)
kept = []
while True:
    connection, _ = server.accept()
    kept.append(connection)
    connection.sendall(sys.argv[2].encode())
    if sys.argv[2]:
        connection.close()
"""
SSH = "SSH-2.0-explained\r\n"


@contextmanager
def serving(namespace, address, greeting=SSH):
    """Something that greets, by default like sshd; with an empty greeting it keeps its connections."""
    command = ["ip", "netns", "exec", namespace, sys.executable, "-c", SERVE, address, greeting]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "listens\n"
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


class Scene:
    """An endpoint (group door), two machines (groups web and db), and alice, who asks; nothing is allowed yet."""

    def __init__(self, deployment, ec2, iam):
        self.deployment, self.ec2 = deployment, ec2
        self.vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        self.subnet = ec2.create_subnet(VpcId=self.vpc, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]
        self.door, self.web, self.db = map(self._group, ("door", "web", "db"))
        self.i_web, self.i_db = self._instance(self.web), self._instance(self.db)
        made = endpoint(ec2, SubnetId=self.subnet, SecurityGroupIds=[self.door], PreserveClientIp=False)
        self.eice = made["InstanceConnectEndpointId"]
        (shown,) = ec2.describe_network_interfaces(NetworkInterfaceIds=made["NetworkInterfaceIds"])["NetworkInterfaces"]
        self.own_address, self.eni = shown["PrivateIpAddress"], shown["NetworkInterfaceId"]
        with Path("/etc/hosts").open("a") as hosts:
            hosts.write(f"127.0.0.1 {made['DnsName']}\n")
        self.alice = User(deployment, iam)
        self.iam = iam

    def _group(self, name):
        made = self.ec2.create_security_group(GroupName=name, Description="d", VpcId=self.vpc)
        return made["GroupId"]

    def _instance(self, group):
        return run(self.ec2, SubnetId=self.subnet, SecurityGroupIds=[group])["InstanceId"]

    def shown(self, instance):
        """An instance as it is shown."""
        (reservation,) = self.ec2.describe_instances(InstanceIds=[instance])["Reservations"]
        return reservation["Instances"][0]

    @property
    def address(self):
        """Of web."""
        return self.shown(self.i_web)["PrivateIpAddress"]

    # -- arranging -----------------------------------------------------------------------------------------------------

    def clear(self):
        """Allow nothing again, and have everything stand."""
        for group in (self.door, self.web, self.db):
            (shown,) = self.ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
            if shown["IpPermissions"]:
                self.ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=shown["IpPermissions"])
            if shown["IpPermissionsEgress"]:
                self.ec2.revoke_security_group_egress(GroupId=group, IpPermissions=shown["IpPermissionsEgress"])
        for name in self.iam.list_user_policies(UserName=self.alice.name)["PolicyNames"]:
            self.iam.delete_user_policy(UserName=self.alice.name, PolicyName=name)
        self.preserve(False)
        self.start()
        self.key("Active")

    def ready(self):
        """All that web's port 22 needs."""
        self.clear()
        self.may(allow(OPEN))
        self.let_out(self.door, self.web)
        self.let_in(self.web, self.door)

    def may(self, *statements):
        self.alice.may(*statements, allow("ec2:DescribeSecurityGroupRules"))

    def let_out(self, group, peer, port=22):
        self.ec2.authorize_security_group_egress(GroupId=group, IpPermissions=[permission(peer, port)])

    def let_in(self, group, peer, port=22):
        self.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[permission(peer, port)])

    def shut(self, group):
        """Take the inbound rules away."""
        (shown,) = self.ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
        self.ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=shown["IpPermissions"])

    def preserve(self, wanted):
        if complete(self.ec2, self.eice)["PreserveClientIp"] is not wanted:
            self.ec2.modify_instance_connect_endpoint(InstanceConnectEndpointId=self.eice, PreserveClientIp=wanted)
            complete(self.ec2, self.eice)

    def start(self):
        if self.shown(self.i_web)["State"]["Name"] != "running":
            self.ec2.start_instances(InstanceIds=[self.i_web])
            wait_for_state(self.ec2, self.i_web, "running")

    def stop(self):
        self.ec2.stop_instances(InstanceIds=[self.i_web])
        wait_for_state(self.ec2, self.i_web, "stopped")

    def key(self, status):
        self.iam.update_access_key(UserName=self.alice.name, AccessKeyId=self.alice.key[0], Status=status)

    # -- asking and trying ---------------------------------------------------------------------------------------------

    def client(self, key=ROOT):
        """Our own client."""
        trust = resolve_trust(None, None, os.environ)
        return Deployment(f"https://{API}", Credentials(*key), REGION, trust)

    def asked(self, **more):
        """The explanation for alice's tunnel to web, asked by root."""
        question = {"Principal": self.alice.name, "SourceIp": HERE, "Target": self.i_web, "EndpointId": self.eice}
        return self.client().explain(question | more)

    def tried(self, answer, *, banner=False, duration=None):
        """What becomes of alice's real tunnel along the way of an answer."""
        return self.client(self.alice.key).attempt(answer["asked"], duration, banner=banner)

    def verb(self, *words, key=None):
        """Our command line, as alice or another."""
        access, secret = key or self.alice.key
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        environment |= {"AWS_ENDPOINT_URL": f"https://{API}", "AWS_CA_BUNDLE": os.environ["AWS_CA_BUNDLE"]}
        environment |= {"AWS_ACCESS_KEY_ID": access, "AWS_SECRET_ACCESS_KEY": secret, "AWS_REGION": REGION, "LANG": "C"}
        command = [sys.executable, "-m", "wicketgate.cli", "explain", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    def attempts(self, **wanted):
        """Audit lines of the gateways, oldest first."""
        paths = self.deployment.serve.gateway_audit_files
        return [one for one in reading.events(paths) if all(one.get(name) == value for name, value in wanted.items())]


def permission(peer, port):
    """To or from a group, a prefix list or a range."""
    kind = {"sg-": ("UserIdGroupPairs", "GroupId"), "pl-": ("PrefixListIds", "PrefixListId")}
    name, member = kind.get(peer[:3], ("IpRanges", "CidrIp"))
    return {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, name: [{member: peer}]}


@pytest.fixture(scope="module")
def made(deployment, ec2, iam):
    """One scene for the module."""
    return Scene(deployment, ec2, iam)


@pytest.fixture
def scene(made):
    """In which alice's tunnel to web passes, and somebody is there."""
    made.ready()
    with serving(made.i_web, made.address):
        yield made


@pytest.fixture(scope="module")
def aws(deployment, tmp_path_factory):
    """The stock CLI, as root, knowing our service by its model."""
    found = CommandLine(tmp_path_factory.mktemp("home"))
    found.environment["AWS_DATA_PATH"] = str(Path(api.__file__).parent / "models")
    return found


def failed(answer):
    """The steps that fail, by name and sentence."""
    return [(one["step"], one["key"]) for one in answer["steps"] if one["outcome"] == "fail"]


# -- situations --------------------------------------------------------------------------------------------------------


def by_prefix_list(scene):
    """A range with the endpoint's address, by name."""
    made = scene.ec2.create_managed_prefix_list(
        PrefixListName=f"doors-{time.monotonic_ns()}",
        MaxEntries=1,
        AddressFamily="IPv4",
        Entries=[{"Cidr": f"{scene.own_address}/32"}],
    )
    scene.shut(scene.web)
    scene.let_in(scene.web, made["PrefixList"]["PrefixListId"])


def deny(scene):
    scene.may(allow(OPEN), allow(OPEN) | {"Effect": "Deny"})


def reshut(scene, *peer_and_port):
    scene.shut(scene.web)
    scene.let_in(scene.web, *peer_and_port)


PORT_3389 = {"NumericEquals": {"ec2-instance-connect:remotePort": "3389"}}
SITUATIONS = {
    "nothing is in the way": (lambda scene: None, {}, []),
    "no policy": (lambda scene: scene.may(), {}, [("iam", "iam-nothing")]),
    "an explicit deny": (deny, {}, [("iam", "iam-denied")]),
    "another port": (lambda scene: scene.may(allow(OPEN, **PORT_3389)), {}, [("iam", "iam-nothing")]),
    "an inactive key": (lambda scene: scene.key("Inactive"), {}, [("credentials", "key-inactive")]),
    "no inbound rule": (lambda scene: scene.shut(scene.web), {}, [("target-inbound", "inbound-nothing")]),
    "the endpoint's address": (lambda scene: reshut(scene, f"{scene.own_address}/32"), {}, []),
    "another range": (lambda scene: reshut(scene, "10.0.2.0/24"), {}, [("target-inbound", "inbound-nothing")]),
    "another port's rule": (lambda scene: reshut(scene, scene.door, 23), {}, [("target-inbound", "inbound-nothing")]),
    "a prefix list": (by_prefix_list, {}, []),
    "another machine": (
        lambda scene: None,
        {"Target": "db"},
        [("endpoint-outbound", "outbound-nothing"), ("target-inbound", "inbound-nothing")],
    ),
    "a port that is not offered": (
        lambda scene: (scene.let_out(scene.door, scene.web, 80), scene.let_in(scene.web, scene.door, 80)),
        {"Port": 80},
        [("limits", "port-not-offered")],
    ),
    "too long": (lambda scene: None, {"MaxTunnelDuration": 7200}, [("limits", "duration-over")]),
    "an address that cannot be preserved": (
        lambda scene: scene.preserve(True),
        {},
        [("source-address", "source-refused")],
    ),
    "nobody's address": (lambda scene: None, {"Target": "10.0.1.200"}, [("target", "target-nobody")]),
    "the router": (lambda scene: None, {"Target": "10.0.1.1"}, [("target", "target-refused")]),
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_it_passes_if_and_only_if_a_real_tunnel_does(scene, name):
    """The explanation is what is expected, and what happens is what it says."""
    arrange, more, expected = SITUATIONS[name]
    arrange(scene)
    more = more | ({"Target": scene.i_db} if more.get("Target") == "db" else {})
    answer = scene.asked(**more)
    assert failed(answer) == expected
    assert answer["outcome"] == ("fail" if expected else "pass")
    happened = scene.tried(answer, duration=more.get("MaxTunnelDuration"), banner=not expected)
    assert happened.opened is not bool(expected), happened
    assert compared(answer["outcome"], happened)[0] != "mismatch"
    if not expected:
        assert happened.banner == "SSH-2.0-explained"
    elif happened.code == 1011:  # a dial that failed: alice may see the rules, so she is told the same
        told = happened.told.removeprefix("Unable to connect to target: ")
        assert told.removesuffix("...") in answer["oneLine"]


def test_a_stopped_machine(made):
    """It has its address still, and rules that pass."""
    made.ready()
    made.stop()
    answer = made.asked()
    assert failed(answer) == [("target", "target-not-running")]
    assert not made.tried(answer).opened
    assert [one["commands"] for one in answer["remedies"]] == [
        [["aws", "ec2", "start-instances", "--instance-ids", made.i_web]]
    ]
    made.start()


def test_nobody_listens(made):
    """All of it passes, and the connection is refused all the same: by the target, which is beyond it."""
    made.ready()
    answer = made.asked()
    assert answer["outcome"] == "pass"
    happened = made.tried(answer)
    assert (happened.opened, compared("pass", happened)) == (False, ("beyond", "fail"))


# -- remedies ----------------------------------------------------------------------------------------------------------


def only_allowed(scene):
    """As a beginner has it: alice may, but no rule lets anything through."""
    scene.clear()
    scene.may(allow(OPEN))


def nothing(scene):
    scene.clear()


def db_like_web(scene):
    """The other machine has web's group as well, so that what opens web may open it too."""
    only_allowed(scene)
    scene.ec2.modify_instance_attribute(InstanceId=scene.i_db, Groups=[scene.db, scene.web])


def preserving(scene):
    scene.ready()
    scene.preserve(True)


def inactive(scene):
    scene.ready()
    scene.key("Inactive")


def remedied(scene, aws, arrange, number):
    """Arrange, ask, run the commands of one remedy by the stock CLI: (remedy, World before, World after)."""
    arrange(scene)
    remedies = scene.asked()["remedies"]
    if number >= len(remedies):
        return None
    before = scene.deployment.serve.world
    for command in remedies[number]["commands"]:
        assert command[0] == "aws"
        done = aws.run(*command[1:])
        assert done.returncode == 0, done.stderr
    complete(scene.ec2, scene.eice)
    return remedies[number], before, scene.deployment.serve.world


@pytest.mark.slow
@pytest.mark.parametrize(
    "arrange", [only_allowed, nothing, db_like_web, preserving, inactive], ids=lambda one: one.__name__
)
def test_each_remedy_helps_and_opens_what_it_says(scene, aws, arrange):
    """Its commands run as they stand; then the real tunnel opens, and no more passes than was said."""
    count = 0
    while (found := remedied(scene, aws, arrange, count)) is not None:
        remedy, before, after = found
        count += 1
        answer = scene.asked()
        assert answer["outcome"] == "pass", (remedy, answer["lines"])
        assert scene.tried(answer).opened, remedy
        receiver = after.instance(scene.i_web).interface_id
        port = Region((Box(protocols=(6, 6), ports=(22, 22)),))
        wanted = opened.Gain(after.interface(scene.eni), after.interface(receiver), port)
        gained = opened.without(list(opened.gains(before, after, scene.vpc)), wanted)
        said = {(one["from"], one["to"], one["what"]) for one in remedy["opens"]}
        if remedy["changesRules"]:
            assert said == {
                (one.sender.id, one.receiver.id, opened.joined(opened.shown(after, one, wanted))) for one in gained
            }
        else:
            assert (said, gained) == (set(), [])
        assert remedy["alsoOpens"] == len(gained)
    assert count >= 1
    scene.ec2.modify_instance_attribute(InstanceId=scene.i_db, Groups=[scene.db])


def test_a_remedy_overwrites_no_policy(scene):
    """Run for one target and then for another, both are allowed."""
    scene.clear()
    scene.iam.put_user_policy(
        UserName=scene.alice.name,
        PolicyName="allow-opentunnel",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [allow("ec2:DescribeVpcs")]}),
    )
    (command, *_), *_ = [one["commands"] for one in scene.asked()["remedies"]]
    assert command[command.index("--policy-name") + 1] == "allow-opentunnel-2"


# -- the verb ----------------------------------------------------------------------------------------------------------


def test_the_verb_proves(scene):
    """Alice asks about herself; the connection is made and agrees, and an SSH server answers."""
    scene.may(allow(OPEN), allow("wicketgate:Explain"))
    done = scene.verb("--to", scene.i_web, "--prove", "--probe")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"ok   credentials: user/{scene.alice.name} can sign with access key {scene.alice.key[0]}"
    assert lines[-4:] == [
        "ok   proof: a tunnel opened along this way",
        "ok   probe: what answers says SSH-2.0-explained",
        "",
        "The connection can be made.",
    ]
    scene.shut(scene.web)
    done = scene.verb("--to", scene.i_web, "--prove", "--json", "--lang", "ja")
    assert done.returncode == 1, done.stderr
    data = json.loads(done.stdout)
    assert data["text"] == "接続できません。"
    assert data["proof"]["agrees"] is True
    assert data["steps"][-1]["text"].startswith(
        "説明のとおり、トンネルは開きませんでした: Unable to connect to target: "
    )


def test_the_verb_proves_with_ones_own_credentials(scene):
    """About somebody else: the proof is one's own, and says so."""
    done = scene.verb(
        "--principal", scene.alice.name, "--from", "203.0.113.9", "--to", scene.i_web, "--prove", key=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert (
        "ok   proof: a tunnel opened along this way (with your own credentials, as root from 127.0.0.1" in done.stdout
    )


def test_the_verb_says_what_is_missing(scene):
    """Exit code 2, and the option that is meant."""
    done = scene.verb("--to", "i-00000000000000000", key=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "wicketgate: --to: there is no such instance as i-00000000000000000, or it has ended and has no network "
        "interface\n"
    )
    done = scene.verb("--principal", "nobody", "--to", scene.i_web, "--json", "--lang", "ja", key=ROOT)
    assert done.returncode == 2
    assert json.loads(done.stdout)["missing"]["option"] == "--principal"


class Lying(Deployment):
    """An explanation that is wrong, as ours would be with a bug."""

    def explain(self, question):
        """The opposite."""
        answer = super().explain(question)
        return answer | {"outcome": "fail" if answer["outcome"] == "pass" else "pass"}


@pytest.mark.parametrize("shut", [False, True])
def test_a_contradiction_is_loud(scene, capsys, shut):
    """Told with all that is needed to look into it, and the outcome is that nobody can tell."""
    scene.may(allow(OPEN), allow("wicketgate:Explain"))
    if shut:
        scene.shut(scene.web)
    liar = Lying(*scene.client(scene.alice.key))
    question = {"Target": scene.i_web}
    answer = with_connection(liar, question, liar.explain(question), "en", probe=False, prove=True)
    assert (answer["outcome"], answer["text"]) == ("unknown", "It cannot be told whether the connection can be made.")
    assert answer["steps"][-1]["key"] == "mismatch"
    told = capsys.readouterr().err
    assert told.startswith("THIS IS A BUG OF WICKETGATE.")
    report = json.loads(told[told.index("{") :])
    assert report["agrees"] is False
    assert report["question"] == {"Target": scene.address, "EndpointId": scene.eice, "Port": 22}
    assert report["revision"] == scene.deployment.serve.world.revision
    assert (report["explanation"]["outcome"], report["happened"]["opened"]) == (
        ("pass", False) if shut else ("fail", True)
    )


def test_a_change_in_between_is_no_contradiction(scene, capsys):
    """Explained before it and connected after it: both are done again."""
    scene.may(allow(OPEN), allow("wicketgate:Explain"))
    tries = []

    class Late(Deployment):
        def attempt(self, asked, duration, *, banner):
            tries.append(asked)
            if len(tries) == 1:
                scene.shut(scene.web)
            return super().attempt(asked, duration, banner=banner)

    late = Late(*scene.client(scene.alice.key))
    question = {"Target": scene.i_web}
    answer = with_connection(late, question, late.explain(question), "en", probe=False, prove=True)
    assert (answer["steps"][-1]["key"], answer["proof"]["agrees"], len(tries)) == ("not-opened", True, 2)
    assert capsys.readouterr().err == ""


def test_what_answers_is_looked_at(made):
    """Something that is no SSH server, and something that says nothing."""
    made.ready()
    made.may(allow(OPEN), allow("wicketgate:Explain"))
    for greeting, words in (
        ("220 smtp\r\n", "what answers is no SSH server: 220 smtp"),
        ("", "nothing was said for 5 s"),
    ):
        with serving(made.i_web, made.address, greeting):
            done = made.verb("--to", made.i_web, "--probe")
        assert done.returncode == 1
        assert words in done.stdout


# -- who may ask -------------------------------------------------------------------------------------------------------


def test_who_may_ask(scene):
    """About whom is the resource: with oneself's ARN one may ask about oneself, and about no other."""
    mine = scene.client(scene.alice.key)
    question = {"Target": scene.i_web}
    for statement, about_me, about_root in (
        (allow(OPEN), False, False),
        (allow("wicketgate:Explain", scene.alice.arn), True, False),
        (allow("wicketgate:Explain", "arn:aws:iam::123456789012:user/${aws:username}"), True, False),
        (allow("wicketgate:Explain"), True, True),
    ):
        scene.may(statement)
        for more, allowed in (
            ({}, about_me),
            ({"Principal": "root"}, about_root),
            ({"Principal": "carol"}, about_root),
        ):
            if allowed and more.get("Principal") != "carol":
                assert mine.explain(question | more)["asked"]["endpoint"] == scene.eice
                continue
            with pytest.raises(
                Exception, match=r"is not authorized to perform: wicketgate:Explain|there is no user"
            ) as no:
                mine.explain(question | more)
            assert ("there is no user" in str(no.value)) is allowed, "nothing is told before IAM allows"


def test_by_the_sdk_and_the_stock_cli(scene, aws, monkeypatch):
    """Both know the service once they are told where its model is."""
    models = Path(api.__file__).parent / "models"
    monkeypatch.setenv("AWS_DATA_PATH", str(models))
    sdk = client_of("wicketgate", *ROOT)
    answer = sdk.explain(Principal=scene.alice.name, SourceIp="203.0.113.9", Target=scene.i_web)["Explanation"]
    assert (answer["outcome"], answer["schema"]) == ("pass", 1)
    code, message, status = refusal(sdk, "Explain", {"Target": "web", "Language": "ja"})
    assert (code, status) == ("UnanswerableException", 400)
    assert message == (
        "Target: 'web' はインスタンス ID、ネットワークインターフェイス ID、IP アドレスのいずれでもありません"
    )
    by_cli = aws("wicketgate", "explain", "--principal", scene.alice.name, "--target", scene.i_web)["Explanation"]
    assert [one["key"] for one in by_cli["steps"]] == [one["key"] for one in answer["steps"]]


# -- the past ----------------------------------------------------------------------------------------------------------


def test_a_refused_attempt_by_the_state_of_its_moment(scene):
    """Mended since, it is still explained by what was in force then; a later one by what came later."""
    scene.shut(scene.web)
    scene.tried(scene.asked())
    refused = scene.attempts(eventName="OpenTunnel")[-1]
    scene.may()
    scene.tried(scene.asked())
    denied = scene.attempts(eventName="OpenTunnel")[-1]
    scene.ready()
    answer = scene.client().explain({"RequestId": refused["requestID"]})
    assert failed(answer) == [("target-inbound", "inbound-nothing")]
    assert answer["recorded"]["errorCode"] == "TargetUnreachable"
    assert answer["oneLine"][:80] in answer["recorded"]["errorMessage"], "the close reason is the same in one line"
    assert failed(scene.client().explain({"RequestId": denied["requestID"]})) == [
        ("iam", "iam-nothing"),
        ("target-inbound", "inbound-nothing"),
    ]
    assert scene.asked()["outcome"] == "pass"
    done = scene.verb("--request-id", denied["requestID"], key=ROOT)
    assert done.returncode == 1
    assert done.stdout.startswith(
        f"{denied['eventTime']}: request {denied['requestID']} was answered AccessDenied: User"
    )


def test_attempts_that_prove_nobody(scene):
    """A wrong signature is told from everything else; a key that never was has nothing behind it to explain."""
    asked = scene.asked()["asked"]
    for key, steps in ((scene.alice.key[0], ["credentials"]), ("AKIANOBODYNOBODYNOBO", ["credentials"])):
        assert not scene.client((key, "wrong")).attempt(asked, None, banner=False).opened
        (event,) = scene.attempts(eventName="OpenTunnel")[-1:]
        answer = scene.client().explain({"RequestId": event["requestID"]})
        assert [step for step, _ in failed(answer)] == steps
        assert answer["remedies"] == []


def test_a_target_that_did_not_answer(made):
    """The record says more than the state can: it is beyond it."""
    made.ready()
    assert not made.tried(made.asked()).opened
    (event,) = made.attempts(eventName="OpenTunnel")[-1:]
    answer = made.client().explain({"RequestId": event["requestID"]})
    assert (answer["outcome"], answer["steps"][-1]["key"]) == ("unknown", "recorded-beyond")
    assert "connection refused: the packet passed" in answer["steps"][-1]["text"]


def test_requests_that_are_no_attempts(scene):
    """One that is not there, another call's, one with something beside it."""
    call = scene.deployment.audit()[-1]["requestID"]
    for more, words in (
        ({"RequestId": "00000000-0000-0000-0000-000000000000"}, "the audit trail has no request"),
        ({"RequestId": call}, "not an attempt to open a tunnel"),
        ({"RequestId": call, "Port": 22}, "give nothing beside its id"),
    ):
        with pytest.raises(Exception, match=words):
            scene.client().explain(more)


def test_another_time(scene):
    """Why did it work then? Of a moment of the past the state of that moment; before all moments there is none."""
    time.sleep(0.01)
    then = time.time()
    time.sleep(0.01)
    scene.shut(scene.web)
    assert scene.asked()["outcome"] == "fail"
    assert scene.asked(Time=then)["outcome"] == "pass"
    with pytest.raises(Exception, match="the journal does not reach back to 2001-09-09T01:46:40Z"):
        scene.asked(Time=1_000_000_000)


def test_every_question_is_on_record(scene):
    """Like every call: who asked what; reading only."""
    scene.asked()
    line = scene.deployment.audit()[-1]
    assert (line["eventSource"], line["eventName"], line["readOnly"]) == ("wicketgate.amazonaws.com", "Explain", True)
    assert line["requestParameters"]["target"] == scene.i_web
    assert f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/{scene.i_web}" in {one["ARN"] for one in line["resources"]}
