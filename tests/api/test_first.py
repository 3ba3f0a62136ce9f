"""The tutorial's steps through boto3."""


def test_groups_and_endpoint(deployment, ec2):
    vpc = ec2.create_vpc(CidrBlock="10.5.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.5.1.0/24")["Subnet"]["SubnetId"]
    group = ec2.create_security_group(GroupName="web", Description="web", VpcId=vpc)["GroupId"]
    ec2.authorize_security_group_ingress(
        GroupId=group,
        IpPermissions=[{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "10.5.0.0/16"}]}],
    )
    print(ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"])
    made = ec2.create_instance_connect_endpoint(SubnetId=subnet)["InstanceConnectEndpoint"]
    print(made)
    import time

    for _ in range(100):
        found = ec2.describe_instance_connect_endpoints(InstanceConnectEndpointIds=[made["InstanceConnectEndpointId"]])[
            "InstanceConnectEndpoints"
        ][0]
        if found["State"] == "create-complete":
            break
        time.sleep(0.01)
    print(found)
    assert found["State"] == "create-complete"
    for line in deployment.audit():
        print(line)
