"""Audit lines and the file that holds them."""

from __future__ import annotations

import errno
import gzip
import json
import os
import resource
import threading
import time
from pathlib import Path

import pytest

from tests.unit.net_world import ENDPOINT, FREE_ENI, RUNNING, small_world
from wicketgate.audit import Attempt, AuditError, AuditLog, Outcome, close_event, open_event, user_identity
from wicketgate.audit.events import line
from wicketgate.model import Principal, Role, World

WORLD = World(account_id="111122223333", region="eu-west-1")
USER = Principal(type="IAMUser", arn="arn:aws:iam::111122223333:user/ann", id="AIDAEXAMPLE", name="ann")
PARAMETERS = {
    "instanceConnectEndpointId": "eice-1",
    "remotePort": "22",
    "privateIpAddress": "10.0.1.1",
    "maxTunnelDuration": "3600",
}


def opened(request_id: str = "r-1", **more: object) -> dict[str, object]:
    """An OpenTunnel record."""
    values: dict[str, object] = {
        "request_id": request_id,
        "source_ip": "192.0.2.1",
        "user_agent": "aws-cli/2",
        "access_key_id": "AKIA1",
        "principal": USER,
        "parameters": PARAMETERS,
    }
    return open_event(WORLD, Attempt(**(values | more)), event_id="e-1", now=1_700_000_000.5)


def test_a_tunnel_is_found_by_its_instance():
    """What holds the target's address stands beside the endpoint; an address that nothing holds adds nothing."""
    world = small_world()
    instance = world.instance(RUNNING)
    assert instance is not None
    interface = world.interface(instance.interface_id)
    assert interface is not None

    def kinds(endpoint_id: str, address: str) -> list[str]:
        parameters = {"instanceConnectEndpointId": endpoint_id, "privateIpAddress": address}
        attempt = Attempt(request_id="r", source_ip="192.0.2.1", parameters=parameters)
        event = open_event(world, attempt, event_id="e", now=1_700_000_000.5)
        return [one["ARN"].rpartition(":")[2] for one in event["resources"]]

    endpoint = f"instance-connect-endpoint/{ENDPOINT}"
    whole = [endpoint, f"network-interface/{interface.id}", f"instance/{RUNNING}"]
    assert kinds(ENDPOINT, interface.private_ip_address) == whole
    free = world.interface(FREE_ENI)
    assert free is not None
    assert kinds(ENDPOINT, free.private_ip_address) == [endpoint, f"network-interface/{FREE_ENI}"]
    for address in ("10.0.1.250", "not an address", ""):
        assert kinds(ENDPOINT, address) == [endpoint]
    assert kinds("eice-1", interface.private_ip_address) == ["instance-connect-endpoint/eice-1"]


def ended(event: dict[str, object]) -> dict[str, object]:
    """The CloseTunnel record to an OpenTunnel record."""
    outcome = Outcome(close_code=1000, close_reason="done", bytes_from_client=1, bytes_to_client=2, duration=3.14159)
    return close_event(event, outcome, event_id="e-2", now=1_700_000_003.0)


def test_open_event_is_awss():
    """The record has the fields of AWS's example, in its order, with request parameters as strings."""
    assert opened() == {
        "eventVersion": "1.08",
        "userIdentity": {
            "type": "IAMUser",
            "principalId": "AIDAEXAMPLE",
            "arn": "arn:aws:iam::111122223333:user/ann",
            "accountId": "111122223333",
            "accessKeyId": "AKIA1",
            "userName": "ann",
        },
        "eventTime": "2023-11-14T22:13:20Z",
        "eventSource": "ec2-instance-connect.amazonaws.com",
        "eventName": "OpenTunnel",
        "awsRegion": "eu-west-1",
        "sourceIPAddress": "192.0.2.1",
        "userAgent": "aws-cli/2",
        "requestParameters": PARAMETERS,
        "responseElements": None,
        "requestID": "r-1",
        "eventID": "e-1",
        "readOnly": False,
        "resources": [
            {
                "accountId": "111122223333",
                "type": "AWS::EC2::InstanceConnectEndpoint",
                "ARN": "arn:aws:ec2:eu-west-1:111122223333:instance-connect-endpoint/eice-1",
            }
        ],
        "eventType": "AwsApiCall",
        "additionalEventData": {"worldRevision": 0},
        "managementEvent": True,
        "recipientAccountId": "111122223333",
        "eventCategory": "Management",
    }


def test_refused_attempt_has_cloudtrails_error_code():
    """AccessDeniedException on the wire is AccessDenied in CloudTrail; the message is the caller's."""
    event = opened(error_code="AccessDeniedException", error_message="User: ... is not authorized")
    assert (event["errorCode"], event["errorMessage"]) == ("AccessDenied", "User: ... is not authorized")


def test_unproven_caller_is_nobody():
    """A claimed access key is written down, but names no user."""
    assert opened(principal=None)["userIdentity"] == {"type": "Unknown", "accessKeyId": "AKIA1"}
    assert opened(principal=None, access_key_id="")["userIdentity"] == {"type": "Unknown"}


def test_identity_of_root():
    """The root user has the account as its principal, and no name."""
    root = Principal(type="Root", arn="arn:aws:iam::111122223333:root", id="111122223333")
    assert user_identity(WORLD, root, "AKIAROOT") == {
        "type": "Root",
        "principalId": "111122223333",
        "arn": "arn:aws:iam::111122223333:root",
        "accountId": "111122223333",
        "accessKeyId": "AKIAROOT",
    }


def test_identity_of_an_assumed_role():
    """A session names its role as the issuer, by the role's own ARN, and when it began."""
    world = World(account_id="111122223333", roles=(Role(name="ops", id="AROAEXAMPLE", path="/net/"),))
    session = Principal(
        type="AssumedRole",
        arn="arn:aws:sts::111122223333:assumed-role/ops/ann",
        id="AROAEXAMPLE:ann",
        name="ops/ann",
        issued_at=1_700_000_000.9,
    )
    assert opened_in(world, session)["userIdentity"] == {
        "type": "AssumedRole",
        "principalId": "AROAEXAMPLE:ann",
        "arn": "arn:aws:sts::111122223333:assumed-role/ops/ann",
        "accountId": "111122223333",
        "accessKeyId": "ASIA1",
        "sessionContext": {
            "sessionIssuer": {
                "type": "Role",
                "principalId": "AROAEXAMPLE",
                "arn": "arn:aws:iam::111122223333:role/net/ops",
                "accountId": "111122223333",
                "userName": "ops",
            },
            "attributes": {"creationDate": "2023-11-14T22:13:20Z", "mfaAuthenticated": "false"},
        },
    }


def opened_in(world: World, principal: Principal) -> dict[str, object]:
    """An OpenTunnel record of this caller, with key ASIA1."""
    attempt = Attempt(request_id="r-1", source_ip="192.0.2.1", access_key_id="ASIA1", principal=principal)
    return open_event(world, attempt, event_id="e-1", now=1_700_000_000.5)


def test_only_the_tunnels_parameters_are_kept():
    """Whatever else is in the parameters (a signature, a token) does not reach the file."""
    event = opened(parameters={"remotePort": "22", "X-Amz-Security-Token": "secret"})
    assert event["requestParameters"] == {"remotePort": "22"}


def test_close_event_is_joined_by_request_id():
    """The close line carries who, where and what of its open line, and how it ended."""
    start = opened()
    event = ended(start)
    for name in ("userIdentity", "sourceIPAddress", "requestID", "requestParameters", "resources"):
        assert event[name] == start[name]
    assert (event["eventName"], event["eventType"]) == ("CloseTunnel", "AwsServiceEvent")
    assert event["serviceEventDetails"]["durationSeconds"] == 3.142


def test_no_client_can_start_a_line():
    """Line breaks of every kind in what a client sends stay inside the JSON string."""
    data = line(opened(user_agent='x\n{"eventName":"CloseTunnel"}\r\u2028\x85'))
    assert data.count(b"\n") == 1 and data.endswith(b"\n")
    assert len(data.decode().splitlines()) == 1


def test_no_client_can_fill_the_disk():
    """Whatever a caller sends and an error quotes is cut: no line is longer than 20 KB, and short text stays whole."""
    long = "\xff" * 32_768
    parameters = dict.fromkeys(PARAMETERS, long)
    event = opened(user_agent=long, access_key_id=long, parameters=parameters, error_code="X", error_message=long)
    assert len(line(event)) < 20_000
    assert len(line(opened(principal=None, user_agent=long, access_key_id=long, parameters=parameters))) < 20_000
    assert len(event["userAgent"]) == 256 and event["userAgent"].endswith("\xff…")
    assert opened(user_agent="y" * 256)["userAgent"] == "y" * 256


# -- the file ----------------------------------------------------------------------------------------------------------


def write_all(log: AuditLog, events: list[dict[str, object]]) -> list[Exception | None]:
    """Hand in events; wait until each is answered for."""
    answers: list[Exception | None] = []
    done = threading.Semaphore(0)

    def answered(error: Exception | None) -> None:
        answers.append(error)
        done.release()

    for event in events:
        log.append(event, answered)
    for _ in events:
        assert done.acquire(timeout=10)
    return answers


def test_lines_are_whole_and_in_order(tmp_path: Path):
    """1000 events handed in at once come out as 1000 lines in order; the file is private to its owner."""
    path = tmp_path / "audit"
    log = AuditLog(path)
    log.start()
    answers = write_all(log, [opened(f"r-{number}") for number in range(1000)])
    log.stop()
    assert answers == [None] * 1000
    found = [json.loads(text)["requestID"] for text in path.read_text().splitlines()]
    assert found == [f"r-{number}" for number in range(1000)]
    assert path.stat().st_mode & 0o777 == 0o600


def test_stop_writes_what_was_handed_in(tmp_path: Path):
    """A line without anyone waiting for it is on disk after stop."""
    log = AuditLog(tmp_path / "audit")
    log.start()
    log.append(opened())
    log.stop()
    assert len((tmp_path / "audit").read_text().splitlines()) == 1


def test_missing_close_lines_are_written_at_start(tmp_path: Path):
    """Exactly the tunnels that opened and have no close line get one; refused attempts and closed ones none."""
    path = tmp_path / "audit"
    events = [
        opened("r-1"),
        opened("r-2"),
        ended(opened("r-2")),
        opened("r-3", error_code="AccessDenied"),
        opened("r-4"),
    ]
    path.write_bytes(b"".join(map(line, events)))
    path.chmod(0o600)
    log = AuditLog(path)
    assert log.start().closed == ("r-1", "r-4")
    log.stop()
    last = [json.loads(text) for text in path.read_text().splitlines()[-2:]]
    assert [event["requestID"] for event in last] == ["r-1", "r-4"]
    assert last[0]["serviceEventDetails"]["closeReason"] == "gateway ended unexpectedly"
    again = AuditLog(path)
    assert again.start().closed == (), "written once"
    again.stop()


@pytest.mark.parametrize("cut", range(1, 40, 7))
def test_half_line_is_taken_out(tmp_path: Path, cut: int):
    """A file that ends inside a line, as after a power loss, is cut to whole lines before anything is appended."""
    path = tmp_path / "audit"
    whole, torn = line(ended(opened("r-0"))), line(opened("r-1"))[:-cut]
    path.write_bytes(whole + torn)
    path.chmod(0o600)
    log = AuditLog(path)
    recovery = log.start()
    write_all(log, [opened("r-2")])
    log.stop()
    assert recovery.torn == torn
    assert [json.loads(text)["requestID"] for text in path.read_text().splitlines()] == ["r-0", "r-2"]


def test_unreadable_lines_are_left_alone(tmp_path: Path):
    """Whole lines that are no JSON objects are counted, kept, and hide nothing that comes after them."""
    path = tmp_path / "audit"
    path.write_bytes(b"\0\0\0\n[1]\nnonsense\n" + line(opened("r-1")))
    path.chmod(0o600)
    log = AuditLog(path)
    recovery = log.start()
    log.stop()
    assert (recovery.unreadable, recovery.closed) == (3, ("r-1",))
    assert path.read_bytes().startswith(b"\0\0\0\n[1]\nnonsense\n")


def test_full_disk(tmp_path: Path):
    """When the file cannot grow: the waiting are told, no half line stays, and an owed close line comes first later."""
    path = tmp_path / "audit"
    log = AuditLog(path)
    log.start()
    write_all(log, [opened("r-1")])
    size = path.stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, limits[1]))
    try:
        log.append(ended(opened("r-1")))
        (failure,) = write_all(log, [opened("r-2")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert isinstance(failure, OSError) and failure.errno == errno.EFBIG
    assert path.stat().st_size == size
    assert write_all(log, [opened("r-3")]) == [None]
    log.stop()
    events = [json.loads(text) for text in path.read_text().splitlines()]
    assert [(event["eventName"], event["requestID"]) for event in events] == [
        ("OpenTunnel", "r-1"),
        ("CloseTunnel", "r-1"),
        ("OpenTunnel", "r-3"),
    ]


def test_two_processes_may_not_share_a_file(tmp_path: Path):
    """A second log on the same file is refused by name: it would take the first one's tunnels for dead."""
    first = AuditLog(tmp_path / "audit")
    first.start()
    with pytest.raises(AuditError, match="in use by another process"):
        AuditLog(tmp_path / "audit").start()
    first.stop()


def test_readable_by_others_is_refused(tmp_path: Path):
    """A file with a wider mode is refused, with the command that puts it right."""
    path = tmp_path / "audit"
    path.touch(mode=0o600)
    path.chmod(0o640)
    with pytest.raises(AuditError, match="chmod 600"):
        AuditLog(path).start()


@pytest.mark.parametrize("kind", ["symlink", "directory", "fifo"])
def test_only_regular_files(tmp_path: Path, kind: str):
    """A symbolic link, a directory or a pipe in its place is refused."""
    path = tmp_path / "audit"
    if kind == "symlink":
        (tmp_path / "elsewhere").touch(mode=0o600)
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "directory":
        path.mkdir()
    else:
        os.mkfifo(path, 0o600)
    with pytest.raises(AuditError, match=str(path)):
        AuditLog(path).start()


def test_inherited_descriptor(tmp_path: Path):
    """A process that may not open the file works with the descriptor it was handed, if that appends."""
    path = tmp_path / "audit"
    log = AuditLog(path, descriptor=os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600))
    log.start()
    write_all(log, [opened()])
    log.stop()
    assert len(path.read_text().splitlines()) == 1
    with pytest.raises(AuditError, match="O_APPEND"):
        AuditLog(path, descriptor=os.open(path, os.O_RDWR)).start()


def test_reopened_under_load(tmp_path: Path):
    """Renamed and reopened while lines come: each stands in one of the files, once."""
    path = tmp_path / "gateway.jsonl"
    log = AuditLog(path)
    log.start()
    written = threading.Semaphore(0)
    for number in range(300):
        log.append(opened(f"r-{number}"), lambda _failed: written.release())
        if number in (100, 200):
            while not path.exists():
                time.sleep(0.001)
            path.rename(tmp_path / f"gateway.jsonl-2026112{number // 100}")
            log.reopen()
        if number == 250:
            log.reopen()  # of a file that was not renamed: nothing happens
    for _ in range(300):
        assert written.acquire(timeout=5)
    log.stop()
    files = sorted(tmp_path.iterdir(), key=lambda file: (file == path, file))
    ids = [json.loads(text)["requestID"] for file in files for text in file.read_text().splitlines()]
    assert ids == [f"r-{number}" for number in range(300)]
    assert len(files) == 3


def test_tunnels_left_open_in_renamed_files(tmp_path: Path):
    """A start writes the close lines of tunnels that were opened before the file was renamed, dated, or packed."""
    path = tmp_path / "gateway.jsonl"
    old = tmp_path / "gateway.jsonl-20261120.gz"
    old.write_bytes(gzip.compress(line(opened("packed")) + line(opened("ended"))))
    (tmp_path / "gateway.jsonl-20261121").write_bytes(line(ended(opened("ended"))) + line(opened("dated")))
    path.write_bytes(line(opened("present")))
    path.chmod(0o600)
    log = AuditLog(path)
    assert log.start().closed == ("packed", "dated", "present")
    log.stop()
    log = AuditLog(path)
    assert log.start().closed == ()
    log.stop()


def test_shared_with_the_group(tmp_path: Path):
    """A shared file is made readable for its group, and refused if others may read it."""
    path = tmp_path / "gateway.jsonl"
    log = AuditLog(path, shared=True)
    log.start()
    log.stop()
    assert path.stat().st_mode & 0o777 == 0o640
    path.chmod(0o644)
    with pytest.raises(AuditError, match="run: chmod 640"):
        AuditLog(path, shared=True).start()
    path.chmod(0o640)
    with pytest.raises(AuditError, match="run: chmod 600"):
        AuditLog(path).start()


def test_a_file_that_cannot_be_opened_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """The one before is written to, and it is said; no line is lost."""
    path = tmp_path / "gateway.jsonl"
    log = AuditLog(path)
    log.start()
    before = path.rename(tmp_path / "gateway.jsonl-20261121")
    path.mkdir()
    log.reopen()
    log.append(opened("kept"))
    log.stop()
    assert "kept" in before.read_text()
    assert "cannot be opened anew, so the one before is written to" in caplog.text
