"""What holds for a site whatever protocol is spoken: groups decide, and nothing on the machines is touched."""


def test_groups_decide(reach):
    """Without the rule for the endpoint's group a machine is not reached, in words; with it again, it is."""
    host, group = reach.hosts[7], reach.groups["machines"]
    assert reach.ssh(host.name, "true", check=False).returncode == 0
    peer = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": reach.groups["endpoint"]}]}
    reach.ec2("revoke_security_group_ingress", GroupId=group, IpPermissions=[peer])
    try:
        refused = reach.ssh(host.name, "true", check=False)
    finally:
        reach.ec2("authorize_security_group_ingress", GroupId=group, IpPermissions=[peer])
    assert refused.returncode != 0
    assert f"no inbound rule of {group} allows tcp 22 from {reach.source}" in refused.stderr
    assert reach.ssh(host.name, "true", check=False).returncode == 0


def test_only_through_the_endpoint(reach):
    """No machine is reached from the office directly, nor is any in another way than by a registered address."""
    direct = reach.run("ssh", "-F", "none", "-o", "ConnectTimeout=1", reach.hosts[0].address, "true", check=False)
    assert direct.returncode == 255
    archive = reach.run(*reach.tunnel("wicketgate", reach.site.archive.address, 22), check=False)
    assert archive.returncode != 0
    assert "Unable to connect to target" in archive.stderr


def test_machines_are_as_they_were(reach):
    """Addresses, links, routes and rules of every machine and of their router are those from before they were known."""
    now = reach.site.configuration()
    assert len(now) == len(reach.hosts) + 2
    for name, text in reach.before.items():
        assert now[name].splitlines() == text.splitlines(), name
