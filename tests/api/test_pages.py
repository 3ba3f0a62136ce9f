"""Pages: MaxResults and NextToken, stable while things are made and deleted between them."""

import pytest

from tests.api.worlds import IMAGE, call, code_of, endpoint, filters, refusal, tagged


class Kind:
    """Things of one kind in a VPC of their own, made with a tag by which they are listed."""

    def __init__(self, ec2):
        self.ec2 = ec2
        self.vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        self.subnet = ec2.create_subnet(VpcId=self.vpc, CidrBlock="10.0.255.0/24")["Subnet"]["SubnetId"]
        self.made = 0
        self.only = filters(vpc_id=self.vpc)
        self.begin()

    def begin(self):
        """Whatever is needed besides."""

    def make(self):
        """One more; its id."""
        self.made += 1
        return self._make(self.made)

    def delete(self, one):
        """End it."""


class Groups(Kind):
    action, path = "DescribeSecurityGroups", ("SecurityGroups", "GroupId")

    def begin(self):
        self.only = [*self.only, *filters(group_name="page-*")]

    def _make(self, number):
        return self.ec2.create_security_group(GroupName=f"page-{number}", Description="d", VpcId=self.vpc)["GroupId"]

    def delete(self, one):
        self.ec2.delete_security_group(GroupId=one)


class GroupsForVpc(Groups):
    action, path = "GetSecurityGroupsForVpc", ("SecurityGroupForVpcs", "GroupId")

    def begin(self):
        self.only, self.also = filters(group_name="page-*"), {"VpcId": self.vpc}


class Rules(Kind):
    action, path = "DescribeSecurityGroupRules", ("SecurityGroupRules", "SecurityGroupRuleId")

    def begin(self):
        self.group = self.ec2.create_security_group(GroupName="g", Description="d", VpcId=self.vpc)["GroupId"]
        (egress,) = self.ec2.describe_security_group_rules(Filters=filters(group_id=self.group))["SecurityGroupRules"]
        self.ec2.revoke_security_group_egress(GroupId=self.group, SecurityGroupRuleIds=[egress["SecurityGroupRuleId"]])
        self.only = filters(group_id=self.group)

    def _make(self, number):
        flat = {"IpProtocol": "tcp", "FromPort": number, "ToPort": number, "CidrIp": "192.0.2.0/24"}
        made = self.ec2.authorize_security_group_ingress(GroupId=self.group, **flat)
        return made["SecurityGroupRules"][0]["SecurityGroupRuleId"]

    def delete(self, one):
        self.ec2.revoke_security_group_ingress(GroupId=self.group, SecurityGroupRuleIds=[one])


class Vpcs(Kind):
    action, path = "DescribeVpcs", ("Vpcs", "VpcId")

    def begin(self):
        self.only = [{"Name": "tag:Page", "Values": [self.vpc]}]

    def _make(self, number):
        return self.ec2.create_vpc(CidrBlock="10.0.0.0/16", **tagged("vpc", {"Page": self.vpc}))["Vpc"]["VpcId"]

    def delete(self, one):
        self.ec2.delete_vpc(VpcId=one)


class Subnets(Kind):
    action, path = "DescribeSubnets", ("Subnets", "SubnetId")

    def begin(self):
        self.ec2.delete_subnet(SubnetId=self.subnet)

    def _make(self, number):
        return self.ec2.create_subnet(VpcId=self.vpc, CidrBlock=f"10.0.{number}.0/24")["Subnet"]["SubnetId"]

    def delete(self, one):
        self.ec2.delete_subnet(SubnetId=one)


class Interfaces(Kind):
    action, path = "DescribeNetworkInterfaces", ("NetworkInterfaces", "NetworkInterfaceId")

    def _make(self, number):
        return self.ec2.create_network_interface(SubnetId=self.subnet)["NetworkInterface"]["NetworkInterfaceId"]

    def delete(self, one):
        self.ec2.delete_network_interface(NetworkInterfaceId=one)


class Instances(Kind):
    action, path = "DescribeInstances", ("Reservations", "Instances", "InstanceId")

    def _make(self, number):
        made = self.ec2.run_instances(ImageId=IMAGE, MinCount=1, MaxCount=1, SubnetId=self.subnet)
        return made["Instances"][0]["InstanceId"]

    def delete(self, one):
        self.ec2.terminate_instances(InstanceIds=[one])


class Statuses(Instances):
    action, path = "DescribeInstanceStatus", ("InstanceStatuses", "InstanceId")

    def begin(self):
        self.only, self.also = [], {"IncludeAllInstances": True}


class Endpoints(Kind):
    action, path = "DescribeInstanceConnectEndpoints", ("InstanceConnectEndpoints", "InstanceConnectEndpointId")

    def begin(self):
        self.only = [{"Name": "tag:Page", "Values": [self.vpc]}]

    def _make(self, number):
        vpc = self.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnet = self.ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
        tags = tagged("instance-connect-endpoint", {"Page": self.vpc})
        return endpoint(self.ec2, SubnetId=subnet, **tags)["InstanceConnectEndpointId"]

    def delete(self, one):
        self.ec2.delete_instance_connect_endpoint(InstanceConnectEndpointId=one)


class Tags(Kind):
    action, path = "DescribeTags", ("Tags", "Key")

    def begin(self):
        self.only = filters(resource_id=self.vpc)

    def _make(self, number):
        self.ec2.create_tags(Resources=[self.vpc], Tags=[{"Key": f"k{number:03}", "Value": "v"}])
        return f"k{number:03}"

    def delete(self, one):
        self.ec2.delete_tags(Resources=[self.vpc], Tags=[{"Key": one}])


class PrefixLists(Kind):
    action, path = "DescribeManagedPrefixLists", ("PrefixLists", "PrefixListId")

    def begin(self):
        self.only = filters(prefix_list_name=self.vpc)

    def _make(self, number):
        new = {"PrefixListName": self.vpc, "MaxEntries": 1, "AddressFamily": "IPv4"}
        return self.ec2.create_managed_prefix_list(**new)["PrefixList"]["PrefixListId"]

    def delete(self, one):
        self.ec2.delete_managed_prefix_list(PrefixListId=one)


class Peerings(Kind):
    action, path = "DescribeVpcPeeringConnections", ("VpcPeeringConnections", "VpcPeeringConnectionId")

    def begin(self):
        self.only = [{"Name": "requester-vpc-info.vpc-id", "Values": [self.vpc]}]

    def _make(self, number):
        peer = self.ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
        made = self.ec2.create_vpc_peering_connection(VpcId=self.vpc, PeerVpcId=peer)
        return made["VpcPeeringConnection"]["VpcPeeringConnectionId"]

    def delete(self, one):
        self.ec2.delete_vpc_peering_connection(VpcPeeringConnectionId=one)


class RouteTables(Kind):
    action, path = "DescribeRouteTables", ("RouteTables", "RouteTableId")

    def begin(self):
        self.only = [{"Name": "tag:Page", "Values": [self.vpc]}]  # but for the main one

    def _make(self, number):
        tags = tagged("route-table", {"Page": self.vpc})
        return self.ec2.create_route_table(VpcId=self.vpc, **tags)["RouteTable"]["RouteTableId"]

    def delete(self, one):
        self.ec2.delete_route_table(RouteTableId=one)


class InsightsPaths(Kind):
    action, path = "DescribeNetworkInsightsPaths", ("NetworkInsightsPaths", "NetworkInsightsPathId")

    def begin(self):
        made = [self.ec2.create_network_interface(SubnetId=self.subnet)["NetworkInterface"] for _ in range(2)]
        self.ends = {"Source": made[0]["NetworkInterfaceId"], "Destination": made[1]["NetworkInterfaceId"]}
        self.only = filters(source=self.ends["Source"])

    def _make(self, number):
        made = self.ec2.create_network_insights_path(**self.ends, Protocol="tcp")
        return made["NetworkInsightsPath"]["NetworkInsightsPathId"]

    def delete(self, one):
        self.ec2.delete_network_insights_path(NetworkInsightsPathId=one)


class InsightsAnalyses(Kind):
    action, path = "DescribeNetworkInsightsAnalyses", ("NetworkInsightsAnalyses", "NetworkInsightsAnalysisId")

    def begin(self):
        self.also = {"NetworkInsightsPathId": InsightsPaths(self.ec2).make()}
        self.only = filters(status="succeeded")

    def _make(self, number):
        made = self.ec2.start_network_insights_analysis(**self.also)
        return made["NetworkInsightsAnalysis"]["NetworkInsightsAnalysisId"]

    def delete(self, one):
        self.ec2.delete_network_insights_analysis(NetworkInsightsAnalysisId=one)


KINDS = [
    Groups,
    GroupsForVpc,
    Rules,
    Vpcs,
    Subnets,
    Interfaces,
    Instances,
    Statuses,
    Endpoints,
    Tags,
    PrefixLists,
    Peerings,
    RouteTables,
    InsightsPaths,
    InsightsAnalyses,
]
by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def ids_in(answer, path):
    """The ids of an answer."""
    found = [answer]
    for member in path:
        found = [value[member] for value in found]
        found = [item for value in found for item in (value if isinstance(value, list) else [value])]
    return found


@by_kind
def test_pages(ec2, kind):
    """What is there throughout is listed exactly once, in pages of the size asked for, whatever comes and goes."""
    things = kind(ec2)
    there = [things.make() for _ in range(13)]
    asked = {"Filters": things.only, "MaxResults": 5, **getattr(things, "also", {})}
    seen, pages, token, gone = [], 0, None, set()
    while True:
        answer = call(ec2, kind.action, asked | ({"NextToken": token} if token else {}))
        page = ids_in(answer, kind.path)
        assert len(page) <= 5
        seen += page
        pages += 1
        token = answer.get("NextToken")
        if not token:
            break
        gone |= {page[-1], min(set(there) - set(seen), default=page[-1])}
        for one in gone & set(there):
            things.delete(one)
            there.remove(one)
        things.make()
    assert pages >= 3
    assert len(seen) == len(set(seen))
    assert set(there) <= set(seen)


@by_kind
def test_one_page(ec2, kind):
    """A page that holds everything has no token; and without MaxResults everything comes at once."""
    things = kind(ec2)
    made = {things.make() for _ in range(5)}
    whole = {"Filters": things.only, **getattr(things, "also", {})}
    for asked in (whole, whole if kind is Statuses else whole | {"MaxResults": 5}):
        answer = call(ec2, kind.action, asked)
        assert made <= set(ids_in(answer, kind.path))
        assert "NextToken" not in answer


@pytest.fixture(scope="module")
def tokens(ec2):
    """A token of each of two actions."""
    for kind in (Vpcs, Subnets):
        things = kind(ec2)
        for _ in range(6):
            things.make()
    return {kind.action: call(ec2, kind.action, {"MaxResults": 5})["NextToken"] for kind in (Vpcs, Subnets)}


@by_kind
def test_bad_token(ec2, tokens, kind):
    """A token of another action, or of nobody, is refused."""
    also = {"VpcId": Kind(ec2).vpc} if kind is GroupsForVpc else {}
    asked = {"MaxResults": 5, **also}
    assert refusal(ec2, kind.action, asked | {"NextToken": "bm8="}) == (
        "InvalidNextToken",
        "The token 'bm8=' is invalid. Use the NextToken of an earlier answer to the same action as it was given.",
        400,
    )
    foreign = next(token for action, token in tokens.items() if action != kind.action)
    assert code_of(ec2, kind.action, **asked, NextToken=foreign) == "InvalidNextToken"


@pytest.mark.parametrize(
    ("action", "least", "most"),
    [
        ("DescribeSecurityGroups", 5, 1000),
        ("DescribeSecurityGroupRules", 5, 1000),
        ("GetSecurityGroupsForVpc", 5, 1000),
        ("DescribeVpcs", 5, 1000),
        ("DescribeSubnets", 5, 1000),
        ("DescribeNetworkInterfaces", 5, 1000),
        ("DescribeInstances", 5, 1000),
        ("DescribeInstanceStatus", 5, 1000),
        ("DescribeTags", 5, 1000),
        ("DescribeInstanceConnectEndpoints", 1, 50),
        ("DescribeManagedPrefixLists", 1, 100),
        ("DescribePrefixLists", 5, 1000),
        ("DescribeNetworkInsightsPaths", 1, 100),
        ("DescribeNetworkInsightsAnalyses", 1, 100),
        ("DescribeVpcPeeringConnections", 5, 1000),
        ("DescribeRouteTables", 5, 100),
        ("DescribeStaleSecurityGroups", 5, 255),
    ],
)
def test_bounds(plain, ec2, action, least, most):
    """MaxResults outside its bounds is refused, at them it is not."""
    client = plain
    also = {"VpcId": Kind(ec2).vpc} if action in ("GetSecurityGroupsForVpc", "DescribeStaleSecurityGroups") else {}
    for size, bound in ((least - 1, f"greater than {least}"), (most + 1, f"less than {most}")):
        words = f"Value ( {size} ) for parameter maxResults is invalid. Expecting a value {bound}."
        assert refusal(client, action, also | {"MaxResults": size}) == ("InvalidParameterValue", words, 400)
    for size in (least, most):
        call(client, action, also | {"MaxResults": size})


def test_paginator(ec2):
    """boto3's paginator, with a page size, finds everything."""
    things = Groups(ec2)
    made = {things.make() for _ in range(12)}
    paginator = ec2.get_paginator("describe_security_groups")
    pages = list(paginator.paginate(Filters=things.only, PaginationConfig={"PageSize": 5}))
    assert [len(page["SecurityGroups"]) for page in pages] == [5, 5, 2]
    assert {group["GroupId"] for page in pages for group in page["SecurityGroups"]} == made
