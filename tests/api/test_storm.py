"""A storm of calls while processes are killed: what was acknowledged is there, nothing else is, everywhere."""

import json
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import botocore.exceptions
import botocore.parsers
import pytest

from tests.api.deployment import ROOT
from tests.api.test_serve import arguments, client, environment
from wicketgate import rules
from wicketgate.kernel.fabric import Fabric
from wicketgate.store import open_store

CALLS = int(os.environ.get("WICKETGATE_STORM_CALLS", "1000"))
CLIENTS = 8
KILLS = ("wicketgate.api", "wicketgate.netd", "serve")
PAUSE = 0.7
"""Seconds between two kills, from the moment that the one before is made good: a Change gets through again."""
GIVEN = {"WICKETGATE_ROOT_ACCESS_KEY_ID": ROOT[0], "WICKETGATE_ROOT_SECRET_ACCESS_KEY": ROOT[1]}
UNSURE = (botocore.exceptions.HTTPClientError, botocore.parsers.ResponseParserError)


class Storm:
    """`wicketgate serve` that is killed and started again until it is told to end."""

    def __init__(self, place):
        self.place = place
        self.process = None
        self.kills = Counter()
        self.vpc = ""
        self.own_calls = 0
        self.over = threading.Event()

    def start(self):
        """Start it, and return when it serves."""
        self.process = subprocess.Popen(
            arguments(self.place, "--groups-per-region", "5000"),
            env=environment(**GIVEN),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        line = self.process.stderr.readline()
        assert "serves" in line, line

    def kill_in_turn(self):
        """Kill one kind of process after the other."""
        turn = 0
        while not self.over.wait(PAUSE):
            name = KILLS[turn % len(KILLS)]
            if name == "serve":
                self.process.kill()
                self.process.wait()
                self.start()
            else:
                for pid in below(self.process.pid, name):
                    os.kill(pid, signal.SIGKILL)
            self.kills[name] += 1
            turn += 1
            self.wait_until_made_good(turn)

    def wait_until_made_good(self, turn):
        """Return when a Change is acknowledged."""
        ec2 = client(self.place, "ec2", *ROOT)
        deadline = time.monotonic() + 60
        while True:
            self.own_calls += 1
            try:
                ec2.create_tags(Resources=[self.vpc], Tags=[{"Key": "turn", "Value": str(turn)}])
                return
            except (*UNSURE, botocore.exceptions.EndpointConnectionError, botocore.exceptions.ClientError):
                assert time.monotonic() < deadline, "it does not come back"
                time.sleep(0.05)

    def stop(self):
        """End it in order."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


def below(parent, name):
    """Process ids of the children of `parent` that run a module."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                of = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
                if of == parent and name.encode() in (path / "cmdline").read_bytes():
                    found.append(int(path.name))
            except OSError:
                continue
    return found


class Caller:
    """One client: random calls on groups of its own, and what it knows of their outcome."""

    def __init__(self, place, vpc, number, calls):
        self.ec2 = client(place, "ec2", *ROOT)
        self.vpc, self.number, self.calls = vpc, number, calls
        self.random = random.Random(number)
        self.groups = {}
        """Group id -> {rule id: port}; as acknowledged."""
        self.acknowledged = []
        """Request ids."""
        self.unsure_groups = set()
        """Names of groups that may or may not have been made."""
        self.unsure_ports = Counter()
        """(group id, port) of rules that may or may not have been made."""
        self.unsure_gone = set()
        """Group and rule ids that may or may not have been deleted."""
        self.unsure = self.refused = 0

    def run(self):
        """All calls."""
        for call in range(self.calls):
            kind = self.random.choices(("group", "rule", "revoke", "delete"), (3, 8, 3, 1))[0]
            if kind == "group" or not self.groups:
                self.make_group(f"storm-{self.number}-{call}")
                continue
            group = self.random.choice(list(self.groups))
            if kind == "rule" or (kind == "revoke" and not self.groups[group]):
                self.authorize(group, call)
            elif kind == "revoke":
                self.revoke(group, self.random.choice(list(self.groups[group])))
            else:
                self.delete(group)

    def _try(self, call, **parameters):
        """The answer; None when it was refused or nobody knows, and whether nobody knows."""
        try:
            answer = self._send(call, parameters)
        except UNSURE:
            self.unsure += 1
            time.sleep(0.05)
            return None, True
        except botocore.exceptions.ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status >= 500:
                self.unsure += 1
                time.sleep(0.05)
                return None, True
            self.refused += 1
            self.acknowledged.append(error.response["ResponseMetadata"]["RequestId"])
            return None, False
        self.acknowledged.append(answer["ResponseMetadata"]["RequestId"])
        return answer, False

    def _send(self, call, parameters):
        """Call; again, while nobody listens: such a call was never made."""
        deadline = time.monotonic() + 60
        while True:
            try:
                return call(**parameters)
            except botocore.exceptions.EndpointConnectionError:
                assert time.monotonic() < deadline, "it does not come back"
                time.sleep(0.05)

    def make_group(self, name):
        answer, unsure = self._try(self.ec2.create_security_group, GroupName=name, Description="x", VpcId=self.vpc)
        if answer:
            self.groups[answer["GroupId"]] = {}
        elif unsure:
            self.unsure_groups.add(name)

    def authorize(self, group, port):
        permission = {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}
        answer, unsure = self._try(self.ec2.authorize_security_group_ingress, GroupId=group, IpPermissions=[permission])
        if answer:
            self.groups[group][answer["SecurityGroupRules"][0]["SecurityGroupRuleId"]] = port
        elif unsure:
            self.unsure_ports[group, port] += 1

    def revoke(self, group, rule):
        answer, unsure = self._try(self.ec2.revoke_security_group_ingress, GroupId=group, SecurityGroupRuleIds=[rule])
        if answer or unsure:
            del self.groups[group][rule]
        if unsure:
            self.unsure_gone.add(rule)

    def delete(self, group):
        answer, unsure = self._try(self.ec2.delete_security_group, GroupId=group)
        if answer:
            del self.groups[group]
        elif unsure:
            self.unsure_gone.add(group)
            self.unsure_gone |= set(self.groups.pop(group))


@pytest.mark.usefixtures("alone")
def test_storm():
    """1,000 calls from 8 clients, api, netd and serve killed in turn: acknowledged = there = kernel = audit."""
    place = Path("/run/deployments") / f"storm-{time.monotonic_ns()}"
    place.parent.mkdir(exist_ok=True)
    storm = Storm(place)
    storm.start()
    vpc = client(place, "ec2", *ROOT).create_vpc(CidrBlock="10.7.0.0/16")["Vpc"]["VpcId"]
    storm.vpc = vpc
    callers = [Caller(place, vpc, number, CALLS // CLIENTS) for number in range(CLIENTS)]
    threads = [threading.Thread(target=caller.run) for caller in callers]
    killer = threading.Thread(target=storm.kill_in_turn)
    for thread in [killer, *threads]:
        thread.start()
    for thread in threads:
        thread.join()
    storm.over.set()
    killer.join()
    try:
        ec2 = client(place, "ec2", *ROOT)
        found = {one["GroupId"]: one for one in pages(ec2, "describe_security_groups", "SecurityGroups", vpc)}
        listed = pages(ec2, "describe_security_group_rules", "SecurityGroupRules", None)
    finally:
        storm.stop()
    there = {}
    for rule in listed:
        if not rule["IsEgress"] and rule["GroupId"] in found:
            there.setdefault(rule["GroupId"], {})[rule["SecurityGroupRuleId"]] = rule["FromPort"]
    assert set(storm.kills) == set(KILLS), storm.kills
    print(storm.kills, sum(caller.unsure for caller in callers), "unsure of", CALLS)
    assert sum(len(caller.acknowledged) for caller in callers) >= CALLS * 0.5
    _compare(callers, found, there)
    _compare_kernel(place, vpc)
    _compare_audit(place, callers, storm.own_calls)


def pages(ec2, operation, member, vpc):
    """All of it."""
    filters = [{"Name": "vpc-id", "Values": [vpc]}] if vpc else []
    return [one for page in ec2.get_paginator(operation).paginate(Filters=filters) for one in page[member]]


def _compare(callers, found, there):
    """What clients were told, and what is there."""
    known = set()
    for caller in callers:
        for group, expected in caller.groups.items():
            assert group in found, f"acknowledged group {group} is lost"
            rules_there = there.get(group, {})
            missing = set(expected) - set(rules_there)
            assert not missing, f"acknowledged rules of {group} are lost: {missing}"
            for rule, port in rules_there.items():
                told = rule in expected or rule in caller.unsure_gone or caller.unsure_ports[group, port]
                assert told, f"{rule} for port {port} of {group} was never acknowledged, and no call is unsure"
            known.add(group)
        for group in caller.unsure_gone & set(found):
            known.add(group)
        known |= {one for one, group in found.items() if group["GroupName"] in caller.unsure_groups}
    others = {one for one, group in found.items() if group["GroupName"] != "default"} - known
    assert not others, f"nobody made {others}"


def _compare_kernel(place, vpc):
    """The kernel enforces the World of the store, to the letter of its compiled ruleset."""
    store = open_store(place / "store")
    world = store.load()
    store.close()
    fabric = Fabric()
    nft = fabric._nftables(vpc)
    (mark,) = [
        one["rule"]["comment"] for one in nft.listing(f"list chain inet {rules.TABLE} {rules.APPLIED}") if "rule" in one
    ]
    assert mark == rules.fingerprint(rules.compile_vpc(world, vpc))
    in_kernel = Counter(one["rule"]["chain"] for one in nft.listing(f"list table inet {rules.TABLE}") if "rule" in one)
    compiled = {name: len(chain.rules) for name, chain in rules.compile_vpc(world, vpc).chains.items()}
    for name, count in compiled.items():
        if name.startswith(("in_", "out_")):
            assert in_kernel[name] == count, name
    fabric.close()


def _compare_audit(place, callers, others):
    """Each acknowledged call has its one line; every other line is of a call whose outcome nobody was told."""
    lines = Counter(
        json.loads(line)["requestID"] for line in (place / "audit" / "api" / "api.jsonl").read_text().splitlines()
    )
    acknowledged = [one for caller in callers for one in caller.acknowledged]
    assert all(lines[one] == 1 for one in acknowledged), "an acknowledged call has no line, or two"
    around = 8 + others  # the calls before and after the storm, and those of who kills
    assert len(lines) - len(acknowledged) <= sum(caller.unsure for caller in callers) + around
    store = open_store(place / "store")
    committed = {one.change.request_id for one in store.changes() if one.change.request_id}
    store.close()
    assert committed <= set(lines), "something was committed without an audit line"
