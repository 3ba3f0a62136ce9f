"""Reachability Analyzer through the stock SDK and CLI, and what it says against real packets."""

import itertools
import subprocess
import sys

import pytest

from tests.api.deployment import ACCOUNT, REGION
from tests.api.people import User, allow
from tests.api.test_prefix_lists import CONNECT
from tests.api.test_stock_cli import CommandLine
from tests.api.worlds import filters, golden, id_of, network_world, refusal, run, tagged


def arn(resource):
    """An ARN of the deployment."""
    return f"arn:aws:ec2:{REGION}:{ACCOUNT}:{resource}"


def new_path(ec2, source, destination=None, **more):
    """A path of TCP; its id."""
    ends = {"Source": source} | ({"Destination": destination} if destination else {})
    made = ec2.create_network_insights_path(**{**ends, "Protocol": "tcp", **more})
    return made["NetworkInsightsPath"]["NetworkInsightsPathId"]


def analysis(ec2, *ends, filters_in=(), **more):
    """What an analysis of a new path says."""
    through = {"FilterInArns": list(filters_in)} if filters_in else {}
    made = ec2.start_network_insights_analysis(NetworkInsightsPathId=new_path(ec2, *ends, **more), **through)
    return made["NetworkInsightsAnalysis"]


def codes(found):
    """The codes of an analysis that found no path."""
    assert not found["NetworkPathFound"]
    return [one["ExplanationCode"] for one in found["Explanations"]]


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(ec2):
    """The World of the golden file: that of the network, with a path and its analysis."""
    made = network_world(ec2)
    path = new_path(ec2, made[id_of("i", "1")], made[id_of("eni", "8")])
    found = ec2.start_network_insights_analysis(NetworkInsightsPathId=path)["NetworkInsightsAnalysis"]
    made[id_of("nip", "1")] = path
    made[id_of("nia", "1")] = found["NetworkInsightsAnalysisId"]
    return made


@golden("insights")
def test_refusal(plain, world, row):
    """Every refusal of the golden file, with DryRun too."""
    parameters = world.translated(row["parameters"])
    expected = row["code"], world.translated(row["message"]), 400
    for more in ({}, {"DryRun": True}):
        token = {"ClientToken": f"{row['does']} {len(more)}"} if "ClientToken" in parameters else {}
        assert refusal(plain, row["action"], parameters | more | token) == expected


# -- the life of a path ------------------------------------------------------------------------------------------------


class Network:
    """Two VPCs that are not peered yet: instances a and b, of groups of the same names, in one, c in the other."""

    def __init__(self, ec2):
        self.ec2 = ec2
        cidrs = ("10.0.0.0/16", "10.1.0.0/16")
        self.vpcs = [ec2.create_vpc(CidrBlock=cidr)["Vpc"]["VpcId"] for cidr in cidrs]
        self.groups, self.instances, self.addresses, self.interfaces = {}, {}, {}, {}
        for name, vpc, cidr in (("a", 0, "10.0.1.0/24"), ("b", 0, "10.0.2.0/24"), ("c", 1, "10.1.1.0/24")):
            subnet = ec2.create_subnet(VpcId=self.vpcs[vpc], CidrBlock=cidr)["Subnet"]["SubnetId"]
            group = ec2.create_security_group(GroupName=name, Description="d", VpcId=self.vpcs[vpc])["GroupId"]
            tags = tagged("instance", {"Name": name})
            made = run(ec2, SubnetId=subnet, SecurityGroupIds=[group], **tags)
            self.groups[name], self.instances[name] = group, made["InstanceId"]
            self.addresses[name] = made["PrivateIpAddress"]
            self.interfaces[name] = made["NetworkInterfaces"][0]["NetworkInterfaceId"]

    def allow(self, name, source, ports=(7400, 7400)):
        """Let a range or a group in."""
        ports = {"IpProtocol": "tcp", "FromPort": ports[0], "ToPort": ports[1]}
        peer = {"UserIdGroupPairs": [{"GroupId": source}]} if "sg-" in source else {"IpRanges": [{"CidrIp": source}]}
        self.ec2.authorize_security_group_ingress(GroupId=self.groups[name], IpPermissions=[ports | peer])

    def forget(self, name, *, egress=False):
        """Revoke all rules of one direction."""
        only = filters(group_id=self.groups[name])
        rules = self.ec2.describe_security_group_rules(Filters=only)["SecurityGroupRules"]
        ids = [one["SecurityGroupRuleId"] for one in rules if one["IsEgress"] is egress]
        revoke = self.ec2.revoke_security_group_egress if egress else self.ec2.revoke_security_group_ingress
        revoke(GroupId=self.groups[name], SecurityGroupRuleIds=ids)

    def peer(self):
        """Peer the VPCs; the connection."""
        one, other = self.vpcs
        made = self.ec2.create_vpc_peering_connection(VpcId=one, PeerVpcId=other)["VpcPeeringConnection"]
        self.peering = made["VpcPeeringConnectionId"]
        self.ec2.accept_vpc_peering_connection(VpcPeeringConnectionId=self.peering)
        return self.peering

    def route(self, vpc, cidr):
        """A route of a VPC by the peering connection."""
        tables = self.ec2.describe_route_tables(Filters=filters(vpc_id=self.vpcs[vpc]))["RouteTables"]
        where = {"DestinationCidrBlock": cidr, "VpcPeeringConnectionId": self.peering}
        self.ec2.create_route(RouteTableId=tables[0]["RouteTableId"], **where)

    def arrivals(self, ports):
        """(from, to, port) -> whether a connection gets there and what answers it comes back; all at once."""
        pairs = [(*pair, port) for pair in itertools.permutations(self.instances, 2) for port in ports]
        running = {}
        for sender, receiver, port in pairs:
            command = ["ip", "netns", "exec", self.instances[sender], sys.executable, "-c", CONNECT]
            command += [self.addresses[receiver], str(port), "1"]
            running[sender, receiver, port] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        words = {key: one.communicate(timeout=20)[0].strip() for key, one in running.items()}
        return {key: {"arrived": True, "dropped": False}[word] for key, word in words.items()}


@pytest.fixture(scope="module")
def network(ec2):
    """The two VPCs; b lets a in at 5432."""
    made = Network(ec2)
    made.allow("b", made.groups["a"], (5432, 5432))
    return made


def test_life(ec2, network):
    """A path asked about twice, with a rule in between; found by its ends; both forgotten."""
    a, b = network.instances["a"], network.instances["b"]
    tags = tagged("network-insights-path", {"Name": "a to b"})
    made = ec2.create_network_insights_path(
        Source=arn(f"instance/{a}"), Destination=b, Protocol="tcp", DestinationPort=5433, **tags
    )["NetworkInsightsPath"]
    path = {"NetworkInsightsPathId": made["NetworkInsightsPathId"]}
    assert (made["Source"], made["SourceArn"], made["DestinationPort"]) == (a, arn(f"instance/{a}"), 5433)
    assert made["NetworkInsightsPathArn"] == arn(f"network-insights-path/{made['NetworkInsightsPathId']}")
    (shown,) = ec2.describe_network_insights_paths(Filters=filters(source=a, destination=b))["NetworkInsightsPaths"]
    assert shown == made
    first = ec2.start_network_insights_analysis(**path)["NetworkInsightsAnalysis"]
    assert (first["Status"], codes(first)) == ("succeeded", ["ENI_SG_RULES_MISMATCH"])
    (told,) = first["Explanations"]
    assert (told["Direction"], told["NetworkInterface"]["Id"]) == ("ingress", network.interfaces["b"])
    network.allow("b", "10.0.1.0/24", (5433, 5433))
    second = ec2.start_network_insights_analysis(**path)["NetworkInsightsAnalysis"]
    assert second["NetworkPathFound"]
    assert [one["Component"]["Id"] for one in second["ForwardPathComponents"]] == [
        a,
        network.interfaces["a"],
        network.groups["a"],
        second["ForwardPathComponents"][3]["Component"]["Id"],
        network.groups["b"],
        network.interfaces["b"],
        b,
    ]
    assert second["ForwardPathComponents"][3]["RouteTableRoute"]["GatewayId"] == "local"
    pages = ec2.get_paginator("describe_network_insights_analyses").paginate(**path, PaginationConfig={"PageSize": 1})
    assert sorted(one["NetworkInsightsAnalysisId"] for page in pages for one in page["NetworkInsightsAnalyses"]) == (
        sorted(one["NetworkInsightsAnalysisId"] for one in (first, second))
    )
    only = {**path, "Filters": filters(path_found="true")}
    assert ec2.describe_network_insights_analyses(**only)["NetworkInsightsAnalyses"] == [second]
    for one in (first, second):
        ids = {"NetworkInsightsAnalysisId": one["NetworkInsightsAnalysisId"]}
        assert refusal(ec2, "DeleteNetworkInsightsPath", path)[0] == "AnalysisExistsForNetworkInsightsPath"
        ec2.delete_network_insights_analysis(**ids)
    ec2.delete_network_insights_path(**path)
    assert refusal(ec2, "DeleteNetworkInsightsPath", path)[0] == "InvalidNetworkInsightsPathId.NotFound"


def test_beyond_aws(plain, world):
    """IPv6 addresses and endpoints are taken, where AWS's model of the call has only IPv4."""
    ec2, instance = plain, world[id_of("i", "1")]
    refused = analysis(ec2, instance, DestinationIp="2001:db8::1")
    assert codes(refused) == ["NO_POSSIBLE_DESTINATION"]
    endpoint = world[id_of("eice", "1")]
    through = [arn(f"instance-connect-endpoint/{endpoint}")]
    assert codes(analysis(ec2, endpoint, instance, DestinationPort=22)) == ["SG_HAS_NO_RULES"]
    ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "CidrIp": "10.0.0.0/16"}
    ec2.authorize_security_group_ingress(GroupId=world[id_of("sg", "2")], **ssh)
    found = analysis(ec2, endpoint, instance, DestinationPort=22, filters_in=through)
    assert found["NetworkPathFound"]
    assert found["ForwardPathComponents"][0]["Component"]["Arn"] == through[0]
    stopped = analysis(ec2, endpoint, world[id_of("i", "2")], DestinationPort=22)
    assert codes(stopped) == ["BAD_STATE"]


def test_what_an_analysis_shows_needs_permission(deployment, iam, ec2, network):
    """Who may analyse but not see groups learns nothing of them."""
    user = User(deployment, iam)
    path = new_path(ec2, network.instances["a"], network.instances["b"])
    user.may(allow("ec2:StartNetworkInsightsAnalysis"))
    code, message, _ = refusal(user.ec2, "StartNetworkInsightsAnalysis", {"NetworkInsightsPathId": path})
    assert (code, "ec2:Describe" in message) == ("UnauthorizedOperation", True)


def test_audit(deployment, ec2, network):
    """The audit line of an analysis names path and analysis."""
    path = new_path(ec2, network.instances["a"], network.instances["b"])
    made = ec2.start_network_insights_analysis(NetworkInsightsPathId=path)
    request = made["ResponseMetadata"]["RequestId"]
    (line,) = (one for one in deployment.audit() if one["requestID"] == request)
    analysis_id = made["NetworkInsightsAnalysis"]["NetworkInsightsAnalysisId"]
    named = {one["ARN"] for one in line["resources"]}
    assert {arn(f"network-insights-path/{path}"), arn(f"network-insights-analysis/{analysis_id}")} <= named


# -- the stock CLI -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_cli(deployment, network, tmp_path):
    """As in the guide's first steps: create, analyse, look, delete."""
    aws = CommandLine(tmp_path)
    made = aws(
        *("ec2", "create-network-insights-path", "--source", network.instances["a"]),
        *("--destination", network.instances["b"], "--destination-port", "5432", "--protocol", "TCP"),
    )["NetworkInsightsPath"]
    path = ("--network-insights-path-id", made["NetworkInsightsPathId"])
    started = aws("ec2", "start-network-insights-analysis", *path)["NetworkInsightsAnalysis"]
    ids = ("--network-insights-analysis-ids", started["NetworkInsightsAnalysisId"])
    (shown,) = aws("ec2", "describe-network-insights-analyses", *ids)["NetworkInsightsAnalyses"]
    assert (shown, shown["NetworkPathFound"]) == (started, True)
    rules = [one.get("SecurityGroupRule", {}).get("SecurityGroupId") for one in shown["ForwardPathComponents"]]
    assert network.groups["a"] in rules
    failed = aws.fails("ec2", "delete-network-insights-path", *path)
    assert "(AnalysisExistsForNetworkInsightsPath) when calling the DeleteNetworkInsightsPath operation" in failed
    ids = ("--network-insights-analysis-id", started["NetworkInsightsAnalysisId"])
    aws("ec2", "delete-network-insights-analysis", *ids)
    assert aws("ec2", "delete-network-insights-path", *path) == {"NetworkInsightsPathId": made["NetworkInsightsPathId"]}


# -- against packets ---------------------------------------------------------------------------------------------------

PORTS = (7400, 7401)


@pytest.mark.slow
def test_packets(ec2):
    """Between three machines in two VPCs, step by step: a path is found exactly when a connection gets through."""
    network = Network(ec2)
    paths = {
        (one, other, port): new_path(ec2, network.instances[one], network.instances[other], DestinationPort=port)
        for one, other in itertools.permutations(network.instances, 2)
        for port in PORTS
    }

    def found():
        started = {
            key: ec2.start_network_insights_analysis(NetworkInsightsPathId=path)["NetworkInsightsAnalysis"]
            for key, path in paths.items()
        }
        return {key: one["NetworkPathFound"] for key, one in started.items()}

    groups, listed = (
        network.groups,
        ec2.create_managed_prefix_list(
            PrefixListName="c", MaxEntries=1, AddressFamily="IPv4", Entries=[{"Cidr": "10.1.1.0/28"}]
        )["PrefixList"]["PrefixListId"],
    )
    everywhere = {"IpProtocol": "-1", "PrefixListIds": [{"PrefixListId": listed}]}
    steps = (
        lambda: None,
        lambda: network.allow("b", groups["a"]),
        lambda: network.allow("a", f"{network.addresses['b']}/32", PORTS),
        lambda: network.allow("c", "10.0.0.0/16", PORTS),
        network.peer,
        lambda: network.route(0, "10.1.0.0/16"),
        lambda: network.route(1, "10.0.1.0/24"),  # a's subnet alone is found back to
        lambda: (network.forget("c"), network.allow("c", groups["a"])),
        lambda: (
            network.forget("a", egress=True),
            ec2.authorize_security_group_egress(GroupId=groups["a"], IpPermissions=[everywhere]),
        ),
        lambda: ec2.stop_instances(InstanceIds=[network.instances["b"]]),
        lambda: ec2.delete_vpc_peering_connection(VpcPeeringConnectionId=network.peering),
    )
    seen = []
    for number, step in enumerate(steps):
        step()
        expected = found()
        if number < 9:  # a machine that is stopped has no namespace to send from
            assert network.arrivals(PORTS) == expected, number
        seen.append(sum(expected.values()))
    assert seen == [0, 1, 3, 3, 3, 3, 5, 4, 1 + 2, 1, 0]
