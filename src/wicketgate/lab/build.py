"""Make a topology's world by calls of the AWS APIs through boto3, and put back what was changed since.

`python -m wicketgate.lab.build`: topology and earlier access keys as JSON on standard input, all access keys as JSON on
standard output. The lab runs it at a client's place on its internet; the environment is that of any AWS client.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import boto3
import botocore.config
import msgspec

from wicketgate.lab.topology import ENDPOINT_NAME, EndpointPlan, GroupPlan, RulePlan, Topology, VpcPlan
from wicketgate.model import FabricError

IMAGE: Final = "ami-00000000000000001"
POOL: Final = "ipv6pool-ec2-00000000000000001"
"""The address pool of ranges that are the operator's own."""
"""The one image there is: a network namespace with a real sshd."""
WAIT_SECONDS: Final = 30.0
_SETTLED: Final = ("create-complete", "update-complete", "update-failed")

Rules = Collection[RulePlan]


class AccessKey(msgspec.Struct, frozen=True):
    """An access key as CreateAccessKey answered it."""

    id: str
    secret: str


class Order(msgspec.Struct, frozen=True):
    """What is read from standard input."""

    topology: Topology
    keys: dict[str, AccessKey] = {}
    """User name -> the key made before."""


@dataclass
class Builder:
    """Calls of an administrator. The topology's names stand for ids, which are looked up by `look`."""

    ec2: Any
    iam: Any
    topology: Topology
    keys: dict[str, AccessKey] = field(default_factory=dict)
    """User name -> its access key."""
    _ids: dict[tuple[str, ...], str] = field(default_factory=dict)
    """(kind, VPC name, name) -> id."""

    @classmethod
    def connected(cls, topology: Topology, environment: Mapping[str, str]) -> Builder:
        """A Builder with an AWS client's environment: its credentials, region, URL of the APIs and whom to trust."""
        key = environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]
        session = boto3.session.Session(*key, region_name=environment["AWS_REGION"])
        place = {"endpoint_url": environment["AWS_ENDPOINT_URL"], "verify": environment["AWS_CA_BUNDLE"]}
        config = botocore.config.Config(proxies={})
        ec2, iam = (session.client(service, config=config, **place) for service in ("ec2", "iam"))
        return cls(ec2, iam, topology)

    def id(self, kind: str, *names: str) -> str:
        """Id of what the topology names, e.g. ("group", "plain", "web"). Raises KeyError."""
        if not self._ids:
            self.look()
        return self._ids[kind, *names]

    # -- looking -------------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Find the ids of what there is."""
        ids: dict[tuple[str, ...], str] = {}
        vpcs = {one["VpcId"]: _name(one) for one in self.ec2.describe_vpcs()["Vpcs"] if _name(one)}
        ids |= {("vpc", name): vpc_id for vpc_id, name in vpcs.items()}
        for one in self.ec2.describe_subnets()["Subnets"]:
            ids["subnet", vpcs.get(one["VpcId"], ""), _name(one)] = one["SubnetId"]
        for one in self.ec2.describe_security_groups()["SecurityGroups"]:
            ids["group", vpcs.get(one["VpcId"], ""), one["GroupName"]] = one["GroupId"]
        for one in self._instances():
            ids["instance", vpcs.get(one["VpcId"], ""), _name(one)] = one["InstanceId"]
        for one in self._endpoints():
            ids["endpoint", vpcs.get(one["VpcId"], ""), _name(one)] = one["InstanceConnectEndpointId"]
        self._ids = ids

    def _instances(self) -> list[dict[str, Any]]:
        reservations = self.ec2.describe_instances()["Reservations"]
        there = [one for reservation in reservations for one in reservation["Instances"]]
        return [one for one in there if one["State"]["Name"] != "terminated"]

    def _endpoints(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ec2.describe_instance_connect_endpoints()["InstanceConnectEndpoints"]
        return found

    # -- all that the topology says ------------------------------------------------------------------------------------

    def build(self) -> None:
        """Make what is missing and put back what differs; returns when all of it is in force. Raises FabricError."""
        self._wait(self._instances, lambda one: one["State"]["Name"] in ("running", "stopped"))
        self._wait(self._endpoints, lambda one: one["State"] in _SETTLED)
        self.look()
        for vpc in self.topology.vpcs:
            self._build_network(vpc)
        self._build_rules()
        for vpc in self.topology.vpcs:
            self._build_instances(vpc)
            self._build_endpoint(vpc.name, vpc.endpoint)
        self._wait(self._instances, lambda one: one["State"]["Name"] == "running")
        self._wait(self._endpoints, lambda one: one["State"] in _SETTLED)
        self._build_users()

    def _build_network(self, vpc: VpcPlan) -> None:
        if ("vpc", vpc.name) not in self._ids:
            ipv6 = {"Ipv6Pool": POOL, "Ipv6CidrBlock": vpc.ranges.ipv6} if vpc.ranges.ipv6 else {}
            made = self.ec2.create_vpc(CidrBlock=vpc.ranges.ipv4, TagSpecifications=_tagged("vpc", vpc.name), **ipv6)
            self._ids["vpc", vpc.name] = made["Vpc"]["VpcId"]
        vpc_id = self._ids["vpc", vpc.name]
        for name, ranges in vpc.subnets.items():
            if ("subnet", vpc.name, name) not in self._ids:
                wanted = {"CidrBlock": ranges.ipv4, "Ipv6CidrBlock": ranges.ipv6, "Ipv6Native": not ranges.ipv4}
                given = {parameter: value for parameter, value in wanted.items() if value}
                made = self.ec2.create_subnet(VpcId=vpc_id, TagSpecifications=_tagged("subnet", name), **given)
                self._ids["subnet", vpc.name, name] = made["Subnet"]["SubnetId"]
        for group in vpc.groups:
            if ("group", vpc.name, group.name) not in self._ids:
                made = self.ec2.create_security_group(VpcId=vpc_id, GroupName=group.name, Description=group.name)
                self._ids["group", vpc.name, group.name] = made["GroupId"]

    def _build_rules(self) -> None:
        """The rules of all groups; of a new group the outbound rule for everything, which it comes with, goes."""
        there = self._rules()
        for vpc in self.topology.vpcs:
            for group in vpc.groups:
                self._set_rules(vpc.name, group, there)

    def _build_instances(self, vpc: VpcPlan) -> None:
        there = {one["InstanceId"]: one for one in self._instances()}
        for plan in vpc.instances:
            instance_id = self._ids.get(("instance", vpc.name, plan.name), "")
            if instance_id not in there:
                self._launch(vpc.name, plan.name)
                continue
            found = there[instance_id]
            if found["State"]["Name"] == "stopped":
                self.ec2.start_instances(InstanceIds=[instance_id])
            if {one["GroupName"] for one in found["SecurityGroups"]} != set(plan.groups):
                self.set_groups(vpc.name, plan.name, plan.groups)

    def _launch(self, vpc: str, name: str) -> None:
        plan = next(one for one in self._plan(vpc).instances if one.name == name)
        addresses: dict[str, Any] = {"PrivateIpAddress": plan.address} if plan.address else {}
        if plan.ipv6_address:
            addresses["Ipv6Addresses"] = [{"Ipv6Address": plan.ipv6_address}]
        made = self.ec2.run_instances(
            ImageId=IMAGE,
            MinCount=1,
            MaxCount=1,
            SubnetId=self._ids["subnet", vpc, plan.subnet],
            SecurityGroupIds=self._group_ids(vpc, plan.groups),
            TagSpecifications=_tagged("instance", name),
            **addresses,
        )
        self._ids["instance", vpc, name] = made["Instances"][0]["InstanceId"]

    def _build_endpoint(self, vpc: str, plan: EndpointPlan) -> None:
        endpoint_id = self._ids.get(("endpoint", vpc, plan.name))
        found = next((one for one in self._endpoints() if one["InstanceConnectEndpointId"] == endpoint_id), None)
        groups = self._group_ids(vpc, plan.groups)
        if found is None:
            made = self.ec2.create_instance_connect_endpoint(
                SubnetId=self._ids["subnet", vpc, plan.subnet],
                SecurityGroupIds=groups,
                PreserveClientIp=plan.preserve_client_ip,
                TagSpecifications=_tagged("instance-connect-endpoint", plan.name, plan.tags),
            )
            self._ids["endpoint", vpc, plan.name] = made["InstanceConnectEndpoint"]["InstanceConnectEndpointId"]
        elif (found["PreserveClientIp"], set(found["SecurityGroupIds"])) != (plan.preserve_client_ip, set(groups)):
            self.modify_endpoint(vpc, SecurityGroupIds=groups, PreserveClientIp=plan.preserve_client_ip)

    def _build_users(self) -> None:
        names = {one["UserName"] for one in self.iam.list_users()["Users"]}
        for user in self.topology.users:
            if user.name not in names:
                self.iam.create_user(UserName=user.name)
            self._build_key(user.name)
            for policy, document in user.policies.items():
                wanted = self._document(document)
                if self._policy(user.name, policy) != wanted:
                    self.iam.put_user_policy(UserName=user.name, PolicyName=policy, PolicyDocument=json.dumps(wanted))

    def _build_key(self, user: str) -> None:
        there = {one["AccessKeyId"]: one for one in self.iam.list_access_keys(UserName=user)["AccessKeyMetadata"]}
        known = self.keys.get(user)
        if known is None or known.id not in there:
            made = self.iam.create_access_key(UserName=user)["AccessKey"]
            self.keys[user] = AccessKey(made["AccessKeyId"], made["SecretAccessKey"])
        elif there[known.id]["Status"] != "Active":
            self.set_key_active(user, active=True)

    def _policy(self, user: str, name: str) -> Any:
        try:
            return self.iam.get_user_policy(UserName=user, PolicyName=name)["PolicyDocument"]
        except self.iam.exceptions.NoSuchEntityException:
            return None

    def _document(self, document: Mapping[str, Any]) -> Any:
        """A policy document with the ARNs of endpoints in the place of their names."""
        arns = {_name(one): one["InstanceConnectEndpointArn"] for one in self._endpoints()}

        def filled(value: Any) -> Any:
            if isinstance(value, str):
                return ENDPOINT_NAME.sub(lambda match: arns[match[1]], value)
            if isinstance(value, list):
                return [filled(one) for one in value]
            return {key: filled(one) for key, one in value.items()} if isinstance(value, dict) else value

        return filled(dict(document))

    # -- single changes ------------------------------------------------------------------------------------------------

    def set_rules(self, vpc: str, group: str, inbound: Rules | None = None, outbound: Rules | None = None) -> None:
        """Give a group these rules instead of its own, in the directions that are given."""
        plan = GroupPlan(name=group, inbound=tuple(inbound or ()), outbound=tuple(outbound or ()))
        there = [
            one
            for one in self._rules(self.id("group", vpc, group))
            if (outbound if one["IsEgress"] else inbound) is not None
        ]
        self._set_rules(vpc, plan, there)

    def stop_instance(self, vpc: str, instance: str) -> None:
        """StopInstances; returns when it is stopped."""
        self.ec2.stop_instances(InstanceIds=[self.id("instance", vpc, instance)])
        self._wait(self._instances, lambda one: one["State"]["Name"] in ("running", "stopped"))

    def start_instance(self, vpc: str, instance: str) -> None:
        """StartInstances; returns when all that is not stopped runs."""
        self.ec2.start_instances(InstanceIds=[self.id("instance", vpc, instance)])
        self._wait(self._instances, lambda one: one["State"]["Name"] in ("running", "stopped"))

    def set_groups(self, vpc: str, instance: str, groups: Collection[str]) -> None:
        """Give an instance's network interface these groups instead of its own."""
        (found,) = self.ec2.describe_instances(InstanceIds=[self.id("instance", vpc, instance)])["Reservations"]
        (interface,) = found["Instances"][0]["NetworkInterfaces"]
        self.ec2.modify_network_interface_attribute(
            NetworkInterfaceId=interface["NetworkInterfaceId"], Groups=self._group_ids(vpc, groups)
        )

    def modify_endpoint(self, vpc: str, **attributes: object) -> None:
        """ModifyInstanceConnectEndpoint of a VPC's endpoint; returns when it is in force."""
        endpoint_id = self.id("endpoint", vpc, self._plan(vpc).endpoint.name)
        self.ec2.modify_instance_connect_endpoint(InstanceConnectEndpointId=endpoint_id, **attributes)
        self._wait(self._endpoints, lambda one: one["State"] in _SETTLED)

    def delete_endpoint(self, vpc: str) -> None:
        """Begin to delete a VPC's endpoint."""
        endpoint_id = self.id("endpoint", vpc, self._plan(vpc).endpoint.name)
        self.ec2.delete_instance_connect_endpoint(InstanceConnectEndpointId=endpoint_id)

    def set_key_active(self, user: str, *, active: bool) -> None:
        """Activate or deactivate a user's access key."""
        status = "Active" if active else "Inactive"
        self.iam.update_access_key(UserName=user, AccessKeyId=self.keys[user].id, Status=status)

    def _set_rules(self, vpc: str, plan: GroupPlan, there: list[dict[str, Any]]) -> None:
        """Authorise what `there` (rules of any groups, as described) lacks and revoke what it has too many."""
        group_id = self.id("group", vpc, plan.name)
        for egress, rules in ((False, plan.inbound), (True, plan.outbound)):
            found = {
                _of(one): one["SecurityGroupRuleId"]
                for one in there
                if one["GroupId"] == group_id and one["IsEgress"] == egress
            }
            wanted = {(rule.ip_protocol, rule.from_port, rule.to_port, self._peer(vpc, rule)): rule for rule in rules}
            way = "egress" if egress else "ingress"
            if stale := [rule_id for key, rule_id in found.items() if key not in wanted]:
                revoke = getattr(self.ec2, f"revoke_security_group_{way}")
                revoke(GroupId=group_id, SecurityGroupRuleIds=stale)
            if missing := [self._permission(vpc, rule) for key, rule in wanted.items() if key not in found]:
                authorize = getattr(self.ec2, f"authorize_security_group_{way}")
                authorize(GroupId=group_id, IpPermissions=missing)

    def _rules(self, group_id: str | None = None) -> list[dict[str, Any]]:
        only = {"Filters": [{"Name": "group-id", "Values": [group_id]}]} if group_id else {}
        found: list[dict[str, Any]] = self.ec2.describe_security_group_rules(**only)["SecurityGroupRules"]
        return found

    def _peer(self, vpc: str, rule: RulePlan) -> str:
        return self.id("group", vpc, rule.group) if rule.group else rule.cidr

    def _permission(self, vpc: str, rule: RulePlan) -> dict[str, Any]:
        """A rule as IpPermission."""
        ports = {} if rule.ip_protocol == "-1" else {"FromPort": rule.from_port, "ToPort": rule.to_port}
        peer: dict[str, Any] = {"IpRanges": [{"CidrIp": rule.cidr}]}
        if rule.group:
            peer = {"UserIdGroupPairs": [{"GroupId": self.id("group", vpc, rule.group)}]}
        elif ":" in rule.cidr:
            peer = {"Ipv6Ranges": [{"CidrIpv6": rule.cidr}]}
        return {"IpProtocol": rule.ip_protocol, **ports, **peer}

    def _group_ids(self, vpc: str, names: Collection[str]) -> list[str]:
        return [self.id("group", vpc, name) for name in names]

    def _plan(self, vpc: str) -> VpcPlan:
        found = self.topology.vpc(vpc)
        assert found is not None, vpc
        return found

    def _wait(self, describe: Callable[[], list[dict[str, Any]]], settled: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until all that is described is settled."""
        deadline = time.monotonic() + WAIT_SECONDS
        while restless := [one for one in describe() if not settled(one)]:
            if time.monotonic() > deadline:
                raise FabricError(f"still on its way after {WAIT_SECONDS:g} s: {restless[0]}")
            time.sleep(0.01)


def _name(described: Mapping[str, Any]) -> str:
    """The Name tag of what Describe answers."""
    return next((tag["Value"] for tag in described.get("Tags") or () if tag["Key"] == "Name"), "")


def _tagged(kind: str, name: str, tags: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    given = {"Name": name, **(tags or {})}
    return [{"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in given.items()]}]


def _of(described: Mapping[str, Any]) -> tuple[str, int, int, str]:
    """Protocol, ports and peer of what DescribeSecurityGroupRules answers."""
    peer = described.get("CidrIpv4") or described.get("CidrIpv6") or described["ReferencedGroupInfo"]["GroupId"]
    return described["IpProtocol"], described["FromPort"], described["ToPort"], peer


def main() -> int:
    """Build, once standard input has said what; the exit code."""
    import os

    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    builder = Builder.connected(order.topology, os.environ)
    builder.keys.update(order.keys)
    try:
        builder.build()
    except FabricError as error:
        print(f"wicketgate lab: {error}", file=sys.stderr)
        return 1
    sys.stdout.buffer.write(msgspec.json.encode(builder.keys))
    return 0


if __name__ == "__main__":
    sys.exit(main())
