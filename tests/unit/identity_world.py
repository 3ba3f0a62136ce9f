"""The World that the tests of IAM's and STS's actions run in, and how they call."""

import hashlib
import itertools
import tomllib
from pathlib import Path
from urllib.parse import unquote

import botocore.session
import msgspec
import pytest
from botocore.validate import ParamValidator

from wicketgate.api.service import VERSIONS, Catalogue
from wicketgate.control import Call, Caller, identity, operations  # noqa: F401  # identity offers its actions
from wicketgate.model import (
    AccessKey,
    ApiError,
    ManagedPolicy,
    Policy,
    PolicyVersion,
    Role,
    User,
    UserGroup,
    World,
    apply_change,
)

ACCOUNT = "123456789012"
ROOT = f"arn:aws:iam::{ACCOUNT}:root"
NOW = 1_800_000_000.25
ADMIN = "arn:aws:iam::aws:policy/AdministratorAccess"
READ, WRITE = f"arn:aws:iam::{ACCOUNT}:policy/Read", f"arn:aws:iam::{ACCOUNT}:policy/ops/Write"
ALLOW = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*"}]}
ALLOW_TEXT = msgspec.json.encode(ALLOW).decode()

GOLDEN = Path(__file__).parent.parent / "golden"
_session = botocore.session.get_session()
MODELS = {service: _session.get_service_model(service) for service in ("iam", "sts")}
CATALOGUE = Catalogue.load({service: VERSIONS[service] for service in ("iam", "sts")})


def trust(named, action="sts:AssumeRole", effect="Allow", **more):
    """A trust policy of one statement."""
    statement = {"Effect": effect, "Principal": named, "Action": action, **more}
    return {"Version": "2012-10-17", "Statement": [statement]}


def versions(*numbers):
    """Versions of a managed policy."""
    return tuple(PolicyVersion(id=f"v{number}", document=ALLOW, created_at=NOW - 9) for number in numbers)


def small_world():
    """alice in a group, with a key, an inline and a managed policy; bob with nothing; a role that trusts the account,
    one that trusts bob, one that trusts a service; a session of the first."""
    return World(
        users=(
            User(
                name="alice",
                id="AIDAALICE000000000000",
                path="/ops/",
                policies=(Policy(name="Own", document=ALLOW),),
                attached=(READ,),
                groups=("admins",),
                created_at=NOW - 100,
                tags={"Team": "blue"},
            ),
            User(name="bob", id="AIDABOB00000000000000", created_at=NOW - 90),
            User(name="carol", id="AIDACAROL000000000000", groups=("guests",)),
            User(name="dave", id="AIDADAVE0000000000000"),
        ),
        user_groups=(
            UserGroup(name="admins", id="AGPAADMINS00000000000", attached=(ADMIN,)),
            UserGroup(name="guests", id="AGPAGUESTS00000000000", path="/ext/"),
            UserGroup(name="empty", id="AGPAEMPTY000000000000"),
        ),
        roles=(
            Role(
                name="ops",
                id="AROAOPS00000000000000",
                path="/net/",
                trust=trust({"AWS": ACCOUNT}, ["sts:AssumeRole", "sts:TagSession"]),
                policies=(Policy(name="Own", document=ALLOW),),
                max_session_duration=7200,
                tags={"Stage": "test"},
            ),
            Role(
                name="direct",
                id="AROADIRECT00000000000",
                trust=trust({"AWS": f"arn:aws:iam::{ACCOUNT}:user/bob"}),
                attached=(WRITE,),
            ),
            Role(name="service", id="AROASERVICE0000000000", trust=trust({"Service": "ec2.amazonaws.com"})),
        ),
        managed_policies=(
            ManagedPolicy(
                arn=READ,
                name="Read",
                id="ANPAREAD0000000000000",
                description="reads",
                versions=versions(1, 3),
                next_version=4,
                tags={"Kind": "x"},
            ),
            ManagedPolicy(arn=WRITE, name="Write", id="ANPAWRITE000000000000", path="/ops/", versions=versions(1)),
            ManagedPolicy(
                arn=f"arn:aws:iam::{ACCOUNT}:policy/Full",
                name="Full",
                id="ANPAFULL0000000000000",
                versions=versions(1, 2, 3, 4, 5),
                next_version=6,
            ),
        ),
        access_keys=(
            AccessKey(id="AKIAALICE00000000000", secret="a", user_name="alice", created_at=NOW - 50),
            AccessKey(id="AKIADAVE000000000001", secret="d", user_name="dave"),
            AccessKey(id="AKIADAVE000000000002", secret="e", user_name="dave", active=False),
            AccessKey(id="AKIAROOT000000000000", secret="r"),
            AccessKey(
                id="session", secret="s", session_token="t", expires=NOW + 60, role_name="ops", session_name="s0"
            ),
        ),
    )


_numbers = itertools.count(1)


def unpredictable(size):
    """Bytes that no two calls share."""
    return hashlib.shake_256(str(next(_numbers)).encode()).digest(size)


def caller(world, who="root", **keys):
    """Root, a user by name, or the session of a temporary key by the key's id."""
    key = world.access_key(who) or AccessKey(
        id="AKIACALLER0000000000", secret="c", user_name="" if who == "root" else who
    )
    principal = world.principal(key)
    name = principal.name if principal.type == "IAMUser" else ""
    return Caller(
        arn=principal.arn, account_id=ACCOUNT, user_name=name, principal=principal, access_key_id=key.id, **keys
    )


def call(world, action, who="root", now=NOW, **parameters):
    """A call by somebody of the World."""
    return Call(
        world=world,
        action=action,
        parameters=parameters,
        caller=caller(world, who, source_ip="192.0.2.1", user_agent="cli"),
        now=now,
        request_id="req-1",
        new_id=lambda prefix: pytest.fail("IAM's ids have another form"),
        random=unpredictable,
    )


def run(world, action, who="root", now=NOW, *, settings=None, **parameters):
    """The World after the action, and its answer: checked to be what the output shape of botocore allows."""
    service = "sts" if ("sts", action) in operations() else "iam"
    outcome = operations()[service, action].run(call(world, action, who, now, **parameters), **(settings or {}))
    of_root = who == "root" and action in ("GetUser", "CreateAccessKey") and "UserName" not in parameters
    _check_shape(service, action, outcome.answer, of_root)
    return (world if outcome.change.empty else apply_change(world, outcome.change)), outcome.answer


def _check_shape(service, action, answer, of_root):
    shape = MODELS[service].operation_model(action).output_shape
    CATALOGUE.services[service].answer(action, dict(answer), "req-1")  # the wire can carry it
    if shape is None:
        assert answer == {}
        return
    if not of_root:  # AWS leaves out what root has not, though the model requires it
        report = ParamValidator().validate(dict(answer), shape)
        assert not report.has_errors(), report.generate_report()
    _check_members(shape, answer, action)


def _check_members(shape, value, place):
    if shape.type_name == "list":
        for one in value:
            _check_members(shape.member, one, place)
    elif shape.type_name == "structure":
        unknown = set(value) - set(shape.members)
        assert not unknown, f"{place}: {sorted(unknown)} not in {shape.name}"
        for name, one in value.items():
            _check_members(shape.members[name], one, f"{place}.{name}")


def asks(world, action, who="root", **parameters):
    """What IAM is asked: (action, resource, context) of each question."""
    service = "sts" if ("sts", action) in operations() else "iam"
    found = operations()[service, action].asks(call(world, action, who, **parameters))
    return [(one.action, one.resource, dict(one.context)) for one in found]


def refused(world, action, who="root", **parameters):
    """Code, words and status with which a call is refused."""
    with pytest.raises(ApiError) as caught:
        run(world, action, who, **parameters)
    return caught.value.code, str(caught.value), caught.value.http_status


def read(text):
    """A document of an answer, as boto3 reads it."""
    return msgspec.json.decode(unquote(text))


def pages(world, action, member, **parameters):
    """All items of a list in pages of one."""
    found, marker = [], {}
    for _ in range(100):
        _, answer = run(world, action, MaxItems=1, **marker, **parameters)
        assert len(answer[member]) <= 1
        found += answer[member]
        if not answer["IsTruncated"]:
            return found
        assert len(answer["Marker"]) <= 320
        marker = {"Marker": answer["Marker"]}
    raise AssertionError("the pages do not end")


def golden_errors(family):
    """Parametrises a test by the bad calls of this family in tests/golden/errors.toml."""
    errors = tomllib.loads((GOLDEN / "errors.toml").read_text(encoding="utf-8"))[family]
    return pytest.mark.parametrize("error", errors, ids=lambda one: f"{one['action']}: {one['does']}")
