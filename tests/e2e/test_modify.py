"""ModifyInstanceConnectEndpoint and DeleteInstanceConnectEndpoint under an open ssh session."""

import subprocess
import time
from contextlib import contextmanager

import pytest

from wicketgate.lab.edits import edits, endpoint_deleted, preservation_set


@contextmanager
def _session(lab, vpc):
    """An ssh session with `cat` at the far end."""
    target = lab.address(vpc, "web-1")
    command = [*lab.ssh_command(lab.tunnel_command(vpc, target), target), "cat"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = lab.popen("office", "admin", command, **pipes)
    with process:
        try:
            assert _echo(process, b"up\n") == b"up\n"
            yield process
        finally:
            process.kill()


def _echo(process, line):
    process.stdin.write(line)
    process.stdin.flush()
    return process.stdout.readline()


def _endpoint_groups_set(vpc, *names):
    """An edit that replaces the groups of a VPC's endpoint."""
    return lambda builder: builder.modify_endpoint(
        vpc, SecurityGroupIds=[builder.id("group", vpc, name) for name in names]
    )


@pytest.mark.parametrize("vpc", ["plain", "kept"])
def test_session_outlives_every_modify(lab, vpc):
    """Preservation switched to and fro, groups that allow nothing and back: the session goes on, and each new login is
    as the endpoint then is."""
    before = lab.endpoint(vpc).preserve_client_ip
    with _session(lab, vpc) as session:
        for number, on in enumerate((not before, before, not before)):
            lab.change(preservation_set(vpc, preserve=on))
            assert _echo(session, b"preservation %d\n" % on) == b"preservation %d\n" % on
            assert lab.endpoint(vpc).state == "update-complete"
            done = lab.login(vpc, "web-1", max_tunnel_duration=str(3000 + number))
            own = lab.interface(lab.endpoint(vpc)).private_ip_address
            assert done.source == (lab.topology.clients["office"] if on else own), done.stderr
        lab.change(_endpoint_groups_set(vpc, "closed"))
        assert "no outbound rule" in lab.login(vpc, "web-1", max_tunnel_duration="3100").stderr
        assert _echo(session, b"without a rule\n") == b"without a rule\n"
        lab.change(edits(preservation_set(vpc, preserve=before), _endpoint_groups_set(vpc, "endpoint")))
        assert lab.login(vpc, "web-1", max_tunnel_duration="3200").source == lab.source(vpc)
        assert _echo(session, b"as before\n") == b"as before\n"
        session.stdin.close()
        assert session.wait(20) == 0


def test_delete_closes_what_a_modify_kept(lab):
    """A session that a Modify left alone ends when its endpoint is deleted, and both its ends say why."""
    with _session(lab, "kept") as session:
        endpoint = lab.endpoint("kept")
        lab.change(preservation_set("kept", preserve=False))
        assert _echo(session, b"kept\n") == b"kept\n"
        lab.change(endpoint_deleted("kept"))
        assert session.wait(10) != 0
        why = f"The EC2 Instance Connect Endpoint {endpoint.id} was deleted"
        assert why in session.stderr.read().decode()
    deadline = time.monotonic() + 5
    while not (closed := _closed(lab, endpoint.id)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [one["serviceEventDetails"]["closeReason"] for one in closed] == [why]


def _closed(lab, endpoint_id):
    """CloseTunnel lines of an endpoint."""
    lines = lab.audit()
    opened = {
        one["requestID"]
        for one in lines
        if one["eventName"] == "OpenTunnel" and one["requestParameters"]["instanceConnectEndpointId"] == endpoint_id
    }
    ours = [one for one in lines if one["eventName"] == "CloseTunnel" and one["requestID"] in opened]
    return [one for one in ours if "deleted" in one["serviceEventDetails"]["closeReason"]]
