"""Credentials of machines: who gets one, what is kept, how it ends, and what its bearer is told over TLS."""

import hashlib
import itertools
import logging

import msgspec
import pytest

from tests.unit.net_world import ENDED, NOW, ROOT, RUNNING, STOPPED, small_world
from tests.unit.test_control_instance_connect import KEY, SIGNER, pushed
from wicketgate.api.http import Peer, Request
from wicketgate.api.machines import BURST, LOG_SECONDS, MOST_LOGGED, RATE, Machines
from wicketgate.api.service import Catalogue
from wicketgate.audit.spelling import response_elements
from wicketgate.control import Call, Caller, instances, operations
from wicketgate.control.machine_credentials import MachineTrust, instance_of_token
from wicketgate.model import ApiError, apply_change

TRUST = MachineTrust(signer_root="the root", certificate_authority="the CA")
KEYS = "/machine/latest/meta-data/managed-ssh-keys/active-keys/ec2-user"
_numbers = itertools.count(1)


def call(world, action, **parameters):
    """A call by root."""
    return Call(
        world=world,
        action=action,
        parameters=parameters,
        caller=Caller(arn=ROOT, account_id="123456789012"),
        now=NOW,
        request_id="req-1",
        new_id=lambda prefix: f"{prefix}-{next(_numbers):017x}",
        random=lambda count: bytes([next(_numbers)]) * count,
    )


def run(world, action, **parameters):
    """The answer and the World after it."""
    trust = {"trust": TRUST} if action.startswith("Create") else {}
    outcome = operations()["wicketgate", action].run(call(world, action, **parameters), **trust)
    return outcome.answer, world if outcome.change.empty else apply_change(world, outcome.change)


def created(world=None, instance=RUNNING):
    """A token, its credential's id, and the World that has it."""
    answer, world = run(world or small_world(), "CreateMachineCredential", InstanceId=instance)
    return answer["MachineToken"], answer["MachineCredential"]["MachineCredentialId"], world


def refusal(world, action, **parameters):
    with pytest.raises(ApiError) as caught:
        run(world, action, **parameters)
    return caught.value.code, caught.value.message


# -- making and ending -------------------------------------------------------------------------------------------------


def test_the_answer_has_what_a_machine_needs_and_the_world_a_hash_alone():
    """Token, signer's root and CA are shown; of the secret only its SHA-256 is kept."""
    answer, world = run(small_world(), "CreateMachineCredential", InstanceId=RUNNING)
    credential_id, _, secret = answer["MachineToken"].partition(".")
    assert (answer["SignerRoot"], answer["CertificateAuthority"]) == ("the root", "the CA")
    assert answer["MachineCredential"]["MachineCredentialId"] == credential_id
    (kept,) = world.machine_credentials
    assert (kept.id, kept.instance_id, kept.created_by) == (credential_id, RUNNING, ROOT)
    assert kept.secret_hash == hashlib.sha256(secret.encode()).hexdigest()
    assert secret not in world.to_json().decode()
    assert len(secret) == 43


def test_the_audit_trail_never_has_the_token():
    """The answer goes into the audit line without it."""
    answer, _ = run(small_world(), "CreateMachineCredential", InstanceId=RUNNING)
    spelt = response_elements("wicketgate", answer)
    assert "signerRoot" in spelt
    assert answer["MachineToken"].partition(".")[2] not in str(spelt)


@pytest.mark.parametrize("instance", ["i-00000000000000000", ENDED])
def test_no_credential_for_what_is_not_there(instance):
    """Neither for an unknown instance nor for one that has ended."""
    expected = ("InstanceNotFoundException", f"There is no instance {instance}.")
    assert refusal(small_world(), "CreateMachineCredential", InstanceId=instance) == expected


def test_none_without_a_signer():
    """A server that signs no keys makes nobody ask for them."""
    with pytest.raises(ApiError) as caught:
        operations()["wicketgate", "CreateMachineCredential"].run(
            call(small_world(), "CreateMachineCredential", InstanceId=RUNNING)
        )
    assert (caught.value.code, caught.value.http_status) == ("ServiceException", 500)


def test_two_at_most_so_that_one_can_replace_the_other():
    """Both hold; a third is refused, and says which there are; one deleted makes room and holds no longer."""
    first, first_id, world = created()
    second, second_id, world = created(world)
    assert instance_of_token(world, first).id == instance_of_token(world, second).id == RUNNING
    code, words = refusal(world, "CreateMachineCredential", InstanceId=RUNNING)
    assert code == "MachineCredentialLimitExceededException"
    assert first_id in words
    assert second_id in words
    _, world = run(world, "DeleteMachineCredential", InstanceId=RUNNING, MachineCredentialId=first_id)
    assert instance_of_token(world, first) is None
    assert instance_of_token(world, second).id == RUNNING
    created(world)


def test_another_instances_credential_cannot_be_deleted_under_ones_own_name():
    """IAM was asked about the instance named, so it has to be that one's."""
    _, credential_id, world = created()
    code, _ = refusal(world, "DeleteMachineCredential", InstanceId=STOPPED, MachineCredentialId=credential_id)
    assert code == "MachineCredentialNotFoundException"


def test_described_without_secrets():
    """Of those named, or of all."""
    _, first, world = created()
    _, second, world = created(world, STOPPED)
    answer, _ = run(world, "DescribeMachineCredentials")
    assert [one["MachineCredentialId"] for one in answer["MachineCredentials"]] == [first, second]
    answer, _ = run(world, "DescribeMachineCredentials", InstanceIds=[STOPPED])
    (only,) = answer["MachineCredentials"]
    assert set(only) == {"MachineCredentialId", "InstanceId", "CreatedAt", "CreatedBy"}
    assert (only["MachineCredentialId"], only["CreatedAt"].timestamp()) == (second, NOW)


def test_it_ends_with_its_instance():
    """What replaces a machine at the same address has another id, and the old credential is nobody's."""
    token, _, world = created()
    other, _, world = created(world, STOPPED)
    ending = msgspec.structs.replace(world.instance(RUNNING), state="shutting-down")
    world = msgspec.structs.replace(
        world, instances=tuple(ending if one.id == RUNNING else one for one in world.instances)
    )
    after = apply_change(world, instances.settle(world, NOW))
    assert instance_of_token(after, token) is None
    assert instance_of_token(after, other).id == STOPPED
    assert [one.instance_id for one in after.machine_credentials] == [STOPPED]


def test_iam_is_asked_about_the_instance_with_its_tags():
    """A policy may say whose machines one may set up."""
    world = small_world()
    for action, more in (("CreateMachineCredential", {}), ("DeleteMachineCredential", {"MachineCredentialId": "mc-1"})):
        (ask,) = operations()["wicketgate", action].asks(call(world, action, InstanceId=RUNNING, **more))
        assert ask.action == f"wicketgate:{action}"
        assert ask.resource == f"arn:aws:ec2:us-east-1:123456789012:instance/{RUNNING}"
        tags = {name.partition("/")[2] for name in ask.context if name.startswith("aws:ResourceTag/")}
        assert tags == set(world.instance(RUNNING).tags)
    asks = operations()["wicketgate", "DescribeMachineCredentials"].asks
    assert [ask.resource for ask in asks(call(world, "DescribeMachineCredentials"))] == ["*"]
    named = asks(call(world, "DescribeMachineCredentials", InstanceIds=[RUNNING, STOPPED, RUNNING]))
    assert [ask.resource.rpartition("/")[2] for ask in named] == [RUNNING, STOPPED]


def test_the_model_has_what_is_offered():
    """Answers fit the service model."""
    service = Catalogue.load({"wicketgate": "2026-11-26"}).services["wicketgate"]
    answer, world = run(small_world(), "CreateMachineCredential", InstanceId=RUNNING)
    assert answer["MachineToken"].encode() in service.answer("CreateMachineCredential", dict(answer), "r").body
    answer, _ = run(world, "DescribeMachineCredentials")
    assert RUNNING.encode() in service.answer("DescribeMachineCredentials", dict(answer), "r").body


# -- what a machine is told --------------------------------------------------------------------------------------------


class Clock:
    """A clock that a test moves."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def machines():
    return Machines("wicketgate.test", SIGNER.chain.decode(), Clock())


def ask(asked, world, token, path=KEYS, *, method="GET", source="192.0.2.9", scheme="Bearer "):
    """One request; (status, text)."""
    headers = {} if token is None else {"authorization": f"{scheme}{token}"}
    request = Request(method=method, path=path, query="", headers=headers, body=b"", peer=Peer(source_ip=source))
    reply = asked.answer(world, request, NOW + 1)
    return reply.status, reply.body.decode()


def test_a_machine_reads_its_own_tree_and_no_other():
    """Key, signer and id are the instance's of the token; the path names no instance."""
    token, _, world = created(pushed(small_world()))
    other, _, world = created(world, STOPPED)
    status, text = ask(machines(), world, token)
    assert (status, KEY in text, f"#Instance={RUNNING}" in text) == (200, True, True)
    assert ask(machines(), world, token, "/machine/latest/meta-data/instance-id/") == (200, RUNNING)
    assert ask(machines(), world, token, "/machine/2021-07-15/meta-data/services/domain")[1] == "wicketgate.test"
    chain = ask(machines(), world, token, "/machine/latest/meta-data/managed-ssh-keys/signer-cert")[1]
    assert chain == SIGNER.chain.decode()
    assert ask(machines(), world, other) == (404, "")
    assert ask(machines(), world, other, "/machine/latest/meta-data/instance-id") == (200, STOPPED)
    assert ask(machines(), world, token, method="POST")[0] == 405
    assert ask(machines(), world, token, "/machine/later/meta-data") == (404, "")


def test_without_a_credential_in_force_nothing_is_learnt():
    """No token, a wrong one, one of an unknown id, of another scheme: one and the same answer."""
    token, credential_id, world = created(pushed(small_world()))
    wrong = f"{credential_id}.{'A' * 43}"
    unknown = f"mc-{'0' * 17}.{token.partition('.')[2]}"
    answers = {ask(machines(), world, one) for one in (None, "", "x", wrong, unknown, f"{token}x", token[:-1])}
    answers |= {ask(machines(), world, token, scheme="Basic ")}
    answers |= {ask(machines(), world, wrong, path, method="PUT") for path in (KEYS, "/machine/no")}
    assert answers == {(401, "")}


def test_refusals_are_logged_once_a_minute_and_address(caplog):
    """However many come, from however many addresses, the log grows by a bounded number of lines."""
    asked, world = machines(), small_world()
    with caplog.at_level(logging.WARNING, "wicketgate.api"):
        for number in range(2 * MOST_LOGGED):
            ask(asked, world, "secret-of-somebody", source=f"192.0.2.{number}")
            ask(asked, world, None, source=f"192.0.2.{number}")
        assert len(caplog.records) == MOST_LOGGED
        asked.clock.now += LOG_SECONDS
        ask(asked, world, None, source="192.0.2.1")
    assert len(caplog.records) == MOST_LOGGED + 1
    assert "secret-of-somebody" not in caplog.text


def test_a_machine_that_asks_without_end_is_slowed_and_others_are_not():
    """429 once what may come at once has come; after a second as much as the rate gives."""
    token, _, world = created()
    other, _, world = created(world, STOPPED)
    asked = machines()
    statuses = [ask(asked, world, token)[0] for _ in range(int(BURST) + 1)]
    assert (statuses.count(404), statuses[-1]) == (int(BURST), 429)
    assert ask(asked, world, other)[0] == 404
    asked.clock.now += 1
    assert [ask(asked, world, token)[0] for _ in range(int(RATE) + 1)] == [404] * int(RATE) + [429]
