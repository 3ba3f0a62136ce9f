"""Each EC2 operation that is offered: what its caller needs to be allowed, a dry run, and the call itself.

NEEDS is typed from the Service Authorization Reference, Amazon EC2. A user with exactly those permissions may; without
any one of them the call is refused, and the refusal names it.
"""

import itertools

import pytest

from tests.api.people import User, allow
from tests.api.worlds import IMAGE, POOL, call, endpoint, refusal, run, tagged, wait_for_state
from wicketgate.api.offers import offered

TAGS = {"Team": "red"}
TAG_LIST = [{"Key": "Team", "Value": "red"}]
SSH = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "192.0.2.0/24"}]}
DRY_RUN = ("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)


class Scene:
    """New things of every kind, in a VPC of their own."""

    def __init__(self, ec2):
        self.ec2 = ec2
        self._numbers = itertools.count(1)
        self.vpc = self.new_vpc()
        self.subnet = self.new_subnet()
        self.group = self.new_group()
        self.arn = f"arn:aws:ec2:us-east-1:123456789012:vpc/{self.vpc}"

    def new_vpc(self):
        return self.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]

    def new_subnet(self, vpc=None):
        cidr = f"10.0.{next(self._numbers)}.0/24"
        return self.ec2.create_subnet(VpcId=vpc or self.vpc, CidrBlock=cidr)["Subnet"]["SubnetId"]

    def new_ipv6_range(self):
        """A /64 of the VPC, which has an IPv6 range from then on."""
        made = self.ec2.associate_vpc_cidr_block(VpcId=self.vpc, AmazonProvidedIpv6CidrBlock=True)
        return made["Ipv6CidrBlockAssociation"]["Ipv6CidrBlock"].replace("/56", "/64")

    def new_group(self):
        name = f"group {next(self._numbers)}"
        return self.ec2.create_security_group(GroupName=name, Description="d", VpcId=self.vpc)["GroupId"]

    def new_rule(self, *, egress=False):
        add = self.ec2.authorize_security_group_egress if egress else self.ec2.authorize_security_group_ingress
        self.group = self.new_group()
        return add(GroupId=self.group, IpPermissions=[SSH])["SecurityGroupRules"][0]["SecurityGroupRuleId"]

    def new_interface(self):
        made = self.ec2.create_network_interface(SubnetId=self.subnet, Groups=[self.group])
        return made["NetworkInterface"]["NetworkInterfaceId"]

    def new_instance(self):
        return run(self.ec2, SubnetId=self.subnet, SecurityGroupIds=[self.group])["InstanceId"]

    def stopped_instance(self):
        instance = self.new_instance()
        self.ec2.stop_instances(InstanceIds=[instance])
        wait_for_state(self.ec2, instance, "stopped")
        return instance

    def new_prefix_list(self):
        made = self.ec2.create_managed_prefix_list(PrefixListName="new", MaxEntries=5, AddressFamily="IPv4")
        return made["PrefixList"]["PrefixListId"]

    def new_peering(self, *, active=True):
        """Of the scene's VPC with a new one, `peer`."""
        self.peer = self.ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
        made = self.ec2.create_vpc_peering_connection(VpcId=self.vpc, PeerVpcId=self.peer)
        peering = made["VpcPeeringConnection"]["VpcPeeringConnectionId"]
        if active:
            self.ec2.accept_vpc_peering_connection(VpcPeeringConnectionId=peering)
        return peering

    def new_route_table(self):
        return self.ec2.create_route_table(VpcId=self.vpc)["RouteTable"]["RouteTableId"]

    def new_route(self):
        """The parameters of a route that there is."""
        route = {"RouteTableId": self.new_route_table(), "DestinationCidrBlock": "10.1.0.0/16"}
        self.ec2.create_route(**route, VpcPeeringConnectionId=self.new_peering())
        return route

    def new_association(self):
        """Its id and its table."""
        table = self.new_route_table()
        return self.ec2.associate_route_table(RouteTableId=table, SubnetId=self.subnet)["AssociationId"], table

    def new_path(self):
        """Of Reachability Analyzer."""
        ends = {"Source": self.new_interface(), "Destination": self.new_interface()}
        made = self.ec2.create_network_insights_path(**ends, Protocol="tcp")
        return made["NetworkInsightsPath"]["NetworkInsightsPathId"]

    def new_endpoint(self):
        subnet = self.new_subnet(self.new_vpc())
        return endpoint(self.ec2, SubnetId=subnet)["InstanceConnectEndpointId"]


# Each function: a scene -> the call's parameters, and what its caller needs: resources, or (action, resource).


def authorize(scene):
    return {"GroupId": scene.group, "IpPermissions": [SSH]}, [f"security-group/{scene.group}"]


def authorize_tagged(scene):
    parameters, needs = authorize(scene)
    rule = "security-group-rule"
    return parameters | tagged(rule, TAGS), [*needs, f"{rule}/*", ("CreateTags", f"{rule}/*")]


def revoke(scene, *, egress=False):
    rule = scene.new_rule(egress=egress)
    return {"GroupId": scene.group, "SecurityGroupRuleIds": [rule]}, [f"security-group/{scene.group}"]


def update_descriptions(scene, *, egress=False):
    rule = scene.new_rule(egress=egress)
    descriptions = [{"SecurityGroupRuleId": rule, "Description": "from the office"}]
    parameters = {"GroupId": scene.group, "SecurityGroupRuleDescriptions": descriptions}
    return parameters, [f"security-group/{scene.group}"]


def modify_rules(scene):
    rule = scene.new_rule()
    request = {"IpProtocol": "udp", "FromPort": 53, "ToPort": 53, "CidrIpv4": "192.0.2.0/24"}
    parameters = {"SecurityGroupRules": [{"SecurityGroupRuleId": rule, "SecurityGroupRule": request}]}
    needs = [f"security-group/{scene.group}", f"security-group-rule/{rule}"]
    return parameters | {"GroupId": scene.group}, needs


def create_group(scene):
    parameters = {"GroupName": "new", "Description": "d", "VpcId": scene.vpc, **tagged("security-group", TAGS)}
    return parameters, ["security-group/*", f"vpc/{scene.vpc}", ("CreateTags", "security-group/*")]


def create_vpc(scene):
    return {"CidrBlock": "10.9.0.0/16", **tagged("vpc", TAGS)}, ["vpc/*", ("CreateTags", "vpc/*")]


def create_subnet(scene):
    parameters = {"VpcId": scene.vpc, "CidrBlock": "10.0.200.0/24", **tagged("subnet", TAGS)}
    return parameters, ["subnet/*", f"vpc/{scene.vpc}", ("CreateTags", "subnet/*")]


def create_interface(scene):
    kind = "network-interface"
    needs = [f"{kind}/*", f"subnet/{scene.subnet}", f"security-group/{scene.group}", ("CreateTags", f"{kind}/*")]
    return {"SubnetId": scene.subnet, "Groups": [scene.group], **tagged(kind, TAGS)}, needs


def create_endpoint(scene):
    scene.new_endpoint()  # the service-linked role comes with the first one
    kind, group, subnet = "instance-connect-endpoint", f"security-group/{scene.group}", f"subnet/{scene.subnet}"
    parameters = {"SubnetId": scene.subnet, "SecurityGroupIds": [scene.group], **tagged(kind, TAGS)}
    on_behalf = [("CreateNetworkInterface", one) for one in ("network-interface/*", subnet, group)]
    tagging = [("CreateTags", "network-interface/*"), ("CreateTags", f"{kind}/*")]
    return parameters, [f"{kind}/*", subnet, group, *on_behalf, *tagging]


def of_endpoint(scene, **parameters):
    made = scene.new_endpoint()
    return {"InstanceConnectEndpointId": made, **parameters}, [f"instance-connect-endpoint/{made}"]


def create_prefix_list(scene):
    parameters = {"PrefixListName": "new", "MaxEntries": 5, "AddressFamily": "IPv4", **tagged("prefix-list", TAGS)}
    return parameters, ["prefix-list/*", ("CreateTags", "prefix-list/*")]


def of_prefix_list(scene, **parameters):
    made = scene.new_prefix_list()
    return {"PrefixListId": made, **parameters}, [f"prefix-list/{made}"]


def run_instances(scene):
    image = f"arn:aws:ec2:us-east-1::image/{IMAGE}"
    needs = [image, "instance/*", "network-interface/*", f"subnet/{scene.subnet}", f"security-group/{scene.group}"]
    parameters = {"ImageId": IMAGE, "MinCount": 1, "MaxCount": 1, "SubnetId": scene.subnet}
    parameters |= {"SecurityGroupIds": [scene.group], **tagged("instance", TAGS)}
    return parameters, [*needs, ("CreateTags", "instance/*")]


def of_instance(scene, made):
    return {"InstanceIds": [made]}, [f"instance/{made}"]


def associate_vpc(scene):
    range_of = {"Ipv6Pool": POOL, "Ipv6CidrBlock": "fd55:5555::/56"}
    return {"VpcId": scene.vpc, **range_of}, [f"vpc/{scene.vpc}", f"ipv6pool-ec2/{POOL}"]


def disassociate_vpc(scene):
    made = scene.ec2.associate_vpc_cidr_block(VpcId=scene.vpc, AmazonProvidedIpv6CidrBlock=True)
    return {"AssociationId": made["Ipv6CidrBlockAssociation"]["AssociationId"]}, [f"vpc/{scene.vpc}"]


def associate_subnet(scene):
    parameters = {"SubnetId": scene.subnet, "Ipv6CidrBlock": scene.new_ipv6_range()}
    return parameters, [f"subnet/{scene.subnet}"]


def disassociate_subnet(scene):
    made = scene.ec2.associate_subnet_cidr_block(SubnetId=scene.subnet, Ipv6CidrBlock=scene.new_ipv6_range())
    return {"AssociationId": made["Ipv6CidrBlockAssociation"]["AssociationId"]}, [f"subnet/{scene.subnet}"]


def assign_four(scene):
    interface = scene.new_interface()
    parameters = {"NetworkInterfaceId": interface, "SecondaryPrivateIpAddressCount": 1}
    return parameters, [f"network-interface/{interface}"]


def unassign_four(scene):
    parameters, needs = assign_four(scene)
    made = scene.ec2.assign_private_ip_addresses(**parameters)["AssignedPrivateIpAddresses"]
    interface = parameters["NetworkInterfaceId"]
    return {"NetworkInterfaceId": interface, "PrivateIpAddresses": [one["PrivateIpAddress"] for one in made]}, needs


def assign_six(scene):
    scene.ec2.associate_subnet_cidr_block(SubnetId=scene.subnet, Ipv6CidrBlock=scene.new_ipv6_range())
    interface = scene.new_interface()
    return {"NetworkInterfaceId": interface, "Ipv6AddressCount": 1}, [f"network-interface/{interface}"]


def unassign_six(scene):
    parameters, needs = assign_six(scene)
    made = scene.ec2.assign_ipv6_addresses(**parameters)
    interface = parameters["NetworkInterfaceId"]
    return {"NetworkInterfaceId": interface, "Ipv6Addresses": made["AssignedIpv6Addresses"]}, needs


def attach(scene):
    instance, interface = scene.new_instance(), scene.new_interface()
    parameters = {"InstanceId": instance, "NetworkInterfaceId": interface, "DeviceIndex": 1}
    return parameters, [f"instance/{instance}", f"network-interface/{interface}"]


def detach(scene):
    parameters, needs = attach(scene)
    return {"AttachmentId": scene.ec2.attach_network_interface(**parameters)["AttachmentId"]}, needs


def modify_instance(scene):
    instance, group = scene.new_instance(), scene.new_group()
    return {"InstanceId": instance, "Groups": [group]}, [f"instance/{instance}", f"security-group/{group}"]


def modify_interface(scene):
    interface, group = scene.new_interface(), scene.new_group()
    needs = [f"network-interface/{interface}", f"security-group/{group}"]
    return {"NetworkInterfaceId": interface, "Groups": [group]}, needs


def tags(scene):
    parameters = {"Resources": [scene.vpc, scene.group], "Tags": TAG_LIST}
    return parameters, [f"vpc/{scene.vpc}", f"security-group/{scene.group}"]


def of_new(kind, member):
    def build(scene):
        made = getattr(scene, f"new_{kind}")()
        names = {"group": "security-group", "interface": "network-interface", "route_table": "route-table"}
        resource = names.get(kind, kind)
        return {member: made}, [f"{resource}/{made}"]

    return build


def create_peering(scene):
    kind, peer = "vpc-peering-connection", scene.new_vpc()
    parameters = {"VpcId": scene.vpc, "PeerVpcId": peer, **tagged(kind, TAGS)}
    return parameters, [f"{kind}/*", f"vpc/{scene.vpc}", ("CreateTags", f"{kind}/*")]


def accept_peering(scene):
    made = scene.new_peering(active=False)
    return {"VpcPeeringConnectionId": made}, [f"vpc-peering-connection/{made}", f"vpc/{scene.peer}"]


def of_peering(scene, *, active=True, **parameters):
    made = scene.new_peering(active=active)
    return {"VpcPeeringConnectionId": made, **parameters}, [f"vpc-peering-connection/{made}"]


def create_route_table(scene):
    kind = "route-table"
    needs = [f"{kind}/*", f"vpc/{scene.vpc}", ("CreateTags", f"{kind}/*")]
    return {"VpcId": scene.vpc, **tagged(kind, TAGS)}, needs


def create_route(scene):
    table, peering = scene.new_route_table(), scene.new_peering()
    parameters = {"RouteTableId": table, "DestinationCidrBlock": "10.1.0.0/16", "VpcPeeringConnectionId": peering}
    return parameters, [f"route-table/{table}"]


def replace_route(scene):
    route = scene.new_route()
    table = scene.ec2.describe_route_tables(RouteTableIds=[route["RouteTableId"]])["RouteTables"][0]
    peering = table["Routes"][1]["VpcPeeringConnectionId"]
    return {**route, "VpcPeeringConnectionId": peering}, [f"route-table/{route['RouteTableId']}"]


def delete_route(scene):
    route = scene.new_route()
    return route, [f"route-table/{route['RouteTableId']}"]


def associate_route_table(scene):
    table = scene.new_route_table()
    needs = [f"route-table/{table}", f"subnet/{scene.subnet}"]
    return {"RouteTableId": table, "SubnetId": scene.subnet}, needs


def disassociate_route_table(scene):
    association, table = scene.new_association()
    return {"AssociationId": association}, [f"route-table/{table}", f"subnet/{scene.subnet}"]


def replace_association(scene):
    (association, table), other = scene.new_association(), scene.new_route_table()
    needs = [f"route-table/{table}", f"route-table/{other}", f"subnet/{scene.subnet}"]
    return {"AssociationId": association, "RouteTableId": other}, needs


def create_path(scene):
    kind, source, destination = "network-insights-path", scene.new_interface(), scene.new_instance()
    needs = [f"{kind}/*", f"network-interface/{source}", f"instance/{destination}", ("CreateTags", f"{kind}/*")]
    return {"Source": source, "Destination": destination, "Protocol": "tcp", **tagged(kind, TAGS)}, needs


def start_analysis(scene):
    kind, made = "network-insights-analysis", scene.new_path()
    seen = (
        "Instances",
        "NetworkInterfaces",
        "RouteTables",
        "SecurityGroups",
        "Subnets",
        "VpcPeeringConnections",
        "Vpcs",
    )
    shown = [(f"Describe{one}", "*") for one in seen]
    needs = [f"{kind}/*", f"network-insights-path/{made}", ("CreateTags", f"{kind}/*"), *shown]
    return {"NetworkInsightsPathId": made, **tagged(kind, TAGS)}, needs


def delete_path(scene):
    made = scene.new_path()
    return {"NetworkInsightsPathId": made}, [f"network-insights-path/{made}"]


def delete_analysis(scene):
    made = scene.ec2.start_network_insights_analysis(NetworkInsightsPathId=scene.new_path())
    analysis = made["NetworkInsightsAnalysis"]["NetworkInsightsAnalysisId"]
    return {"NetworkInsightsAnalysisId": analysis}, [f"network-insights-analysis/{analysis}"]


def everything(**parameters):
    """An operation that is authorised on `*`."""
    return lambda scene: (parameters, ["*"])


NEEDS = {
    "AcceptVpcPeeringConnection": accept_peering,
    "AssignIpv6Addresses": assign_six,
    "AssignPrivateIpAddresses": assign_four,
    "AssociateRouteTable": associate_route_table,
    "AssociateSubnetCidrBlock": associate_subnet,
    "AssociateVpcCidrBlock": associate_vpc,
    "AttachNetworkInterface": attach,
    "AuthorizeSecurityGroupEgress": authorize,
    "AuthorizeSecurityGroupIngress": authorize_tagged,
    "CreateInstanceConnectEndpoint": create_endpoint,
    "CreateManagedPrefixList": create_prefix_list,
    "CreateNetworkInsightsPath": create_path,
    "CreateNetworkInterface": create_interface,
    "CreateRoute": create_route,
    "CreateRouteTable": create_route_table,
    "CreateSecurityGroup": create_group,
    "CreateSubnet": create_subnet,
    "CreateTags": tags,
    "CreateVpc": create_vpc,
    "CreateVpcPeeringConnection": create_peering,
    "DeleteInstanceConnectEndpoint": of_endpoint,
    "DeleteManagedPrefixList": of_prefix_list,
    "DeleteNetworkInsightsAnalysis": delete_analysis,
    "DeleteNetworkInsightsPath": delete_path,
    "DeleteNetworkInterface": of_new("interface", "NetworkInterfaceId"),
    "DeleteRoute": delete_route,
    "DeleteRouteTable": of_new("route_table", "RouteTableId"),
    "DeleteSecurityGroup": of_new("group", "GroupId"),
    "DeleteSubnet": of_new("subnet", "SubnetId"),
    "DeleteTags": tags,
    "DeleteVpc": of_new("vpc", "VpcId"),
    "DeleteVpcPeeringConnection": of_peering,
    "DescribeAccountAttributes": everything(),
    "DescribeAvailabilityZones": everything(),
    "DescribeImages": everything(),
    "DescribeInstanceConnectEndpoints": everything(),
    "DescribeInstanceStatus": everything(),
    "DescribeInstances": everything(),
    "DescribeManagedPrefixLists": everything(),
    "DescribeNetworkInsightsAnalyses": everything(),
    "DescribeNetworkInsightsPaths": everything(),
    "DescribeNetworkInterfaces": everything(),
    "DescribePrefixLists": everything(),
    "DescribeRegions": everything(),
    "DescribeRouteTables": everything(),
    "DescribeSecurityGroupReferences": lambda scene: ({"GroupId": [scene.group]}, ["*"]),
    "DescribeSecurityGroupRules": everything(),
    "DescribeSecurityGroups": everything(),
    "DescribeStaleSecurityGroups": lambda scene: ({"VpcId": scene.vpc}, ["*"]),
    "DescribeSubnets": everything(),
    "DescribeTags": everything(),
    "DescribeVpcAttribute": lambda scene: ({"VpcId": scene.vpc, "Attribute": "enableDnsSupport"}, [f"vpc/{scene.vpc}"]),
    "DescribeVpcPeeringConnections": everything(),
    "DescribeVpcs": everything(),
    "DetachNetworkInterface": detach,
    "DisassociateRouteTable": disassociate_route_table,
    "DisassociateSubnetCidrBlock": disassociate_subnet,
    "DisassociateVpcCidrBlock": disassociate_vpc,
    "GetManagedPrefixListAssociations": of_prefix_list,
    "GetManagedPrefixListEntries": of_prefix_list,
    "GetSecurityGroupsForVpc": lambda scene: ({"VpcId": scene.vpc}, [f"vpc/{scene.vpc}"]),
    "ModifyInstanceAttribute": modify_instance,
    "ModifyInstanceConnectEndpoint": lambda scene: of_endpoint(scene, PreserveClientIp=True),
    "ModifyManagedPrefixList": lambda scene: of_prefix_list(scene, AddEntries=[{"Cidr": "192.0.2.0/24"}]),
    "ModifyNetworkInterfaceAttribute": modify_interface,
    "ModifySecurityGroupRules": modify_rules,
    "ModifySubnetAttribute": lambda scene: (
        {"SubnetId": scene.subnet, "MapPublicIpOnLaunch": {"Value": True}},
        [f"subnet/{scene.subnet}"],
    ),
    "ModifyVpcAttribute": lambda scene: (
        {"VpcId": scene.vpc, "EnableDnsHostnames": {"Value": True}},
        [f"vpc/{scene.vpc}"],
    ),
    "ModifyVpcPeeringConnectionOptions": lambda scene: of_peering(
        scene, RequesterPeeringConnectionOptions={"AllowDnsResolutionFromRemoteVpc": False}
    ),
    "RejectVpcPeeringConnection": lambda scene: of_peering(scene, active=False),
    "ReplaceRoute": replace_route,
    "ReplaceRouteTableAssociation": replace_association,
    "RestoreManagedPrefixListVersion": lambda scene: of_prefix_list(scene, PreviousVersion=1, CurrentVersion=1),
    "RevokeSecurityGroupEgress": lambda scene: revoke(scene, egress=True),
    "RevokeSecurityGroupIngress": revoke,
    "RunInstances": run_instances,
    "StartInstances": lambda scene: of_instance(scene, scene.stopped_instance()),
    "StartNetworkInsightsAnalysis": start_analysis,
    "StopInstances": lambda scene: of_instance(scene, scene.new_instance()),
    "TerminateInstances": lambda scene: of_instance(scene, scene.new_instance()),
    "UnassignIpv6Addresses": unassign_six,
    "UnassignPrivateIpAddresses": unassign_four,
    "UpdateSecurityGroupRuleDescriptionsEgress": lambda scene: update_descriptions(scene, egress=True),
    "UpdateSecurityGroupRuleDescriptionsIngress": update_descriptions,
}


@pytest.fixture(scope="module")
def user(deployment, iam):
    """One user, whose policy each test sets."""
    return User(deployment, iam)


def test_all_operations():
    """No operation of EC2 is offered that is not called here."""
    assert {action for service, action in offered() if service == "ec2"} == set(NEEDS)


@pytest.mark.parametrize("action", NEEDS)
def test_operation(ec2, user, action):
    """Refused without any one permission, which is named; a dry run with all of them changes nothing; then it works."""
    parameters, needs = NEEDS[action](Scene(ec2))
    pairs = [(action, need) if isinstance(need, str) else need for need in needs]
    statements = [allow(f"ec2:{name}", resource) for name, resource in pairs]
    client = user.ec2
    takes_dry_run = "DryRun" in client.meta.service_model.operation_model(action).input_shape.members
    for missing, pair in enumerate(pairs):
        user.may(allow("ec2:Nothing"), *statements[:missing], *statements[missing + 1 :])
        assert refusal(client, action, parameters) == user.denied(*pair)
        if takes_dry_run:
            assert refusal(client, action, parameters | {"DryRun": True}) == user.denied(*pair)
    user.may(*statements)
    if takes_dry_run:
        for _ in range(2):
            assert refusal(client, action, parameters | {"DryRun": True}) == DRY_RUN
    answer = call(client, action, parameters)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert answer.get("Return", True) is True
