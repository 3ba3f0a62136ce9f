"""botocore reads what the codec writes, and the codec reads what botocore writes, over the shapes of the models.

Each run takes a random sample of operations; WICKETGATE_SOAK=1 takes all of them (`-k Name` for one).
"""

from __future__ import annotations

import os
import random
import string
from datetime import UTC, datetime
from functools import cache
from typing import Any

import pytest
from botocore.awsrequest import AWSRequest
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wicketgate.api import ApiError, Catalogue, Message
from wicketgate.api.constraints import IMPOSSIBLE, compile_pattern
from wicketgate.api.shapes import illegal_character

SOAK = os.environ.get("WICKETGATE_SOAK") == "1"
SAMPLE = {"ec2": 10, "iam": 6, "sts": 3, "cloudtrail": 4, "ec2-instance-connect": 2, "wicketgate": 4}
ALWAYS = {
    "ec2": {"AuthorizeSecurityGroupIngress", "DescribeSecurityGroups", "RunInstances", "CreateInstanceConnectEndpoint"},
    "iam": {"CreateRole", "GetAccountSummary", "SimulateCustomPolicy"},
}
CATALOGUE = Catalogue.load()
REQUEST_ID = "6f7d6a2e-5a0e-4a6f-9b0b-8f0e2d1c3b4a"


def operations() -> list[tuple[str, str]]:
    """(service, operation) pairs to test in this run."""
    chosen: list[tuple[str, str]] = []
    for name, service in CATALOGUE.services.items():
        actions = sorted(service.actions)
        if not SOAK:
            actions = sorted({*random.sample(actions, min(SAMPLE[name], len(actions))), *ALWAYS.get(name, ())})
        chosen += [(name, action) for action in actions]
    return chosen


OPERATIONS = operations()
EXAMPLES = settings(
    max_examples=15 if SOAK else 25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)

TEXT = st.text(
    st.one_of(
        st.sampled_from("&<>\"'+%=. \t\r\n-_/é日😀]"),
        st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff"),
    ),
    max_size=12,
)
MOMENTS = st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1), timezones=st.just(UTC))
FINITE = {"allow_nan": False, "allow_infinity": False}


def drop_empties(value: Any) -> Any:
    """The value without what a form cannot carry: None and empty structures and lists."""
    if isinstance(value, dict):
        kept = {key: drop_empties(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item is not None and item not in ({}, [])}
    if isinstance(value, list):
        return [item for item in map(drop_empties, value) if item not in ({}, [])]
    return value


# -- values from shapes -----------------------------------------------------------------------------------------------


def input_strings(shape: Any) -> st.SearchStrategy[str]:
    """Strings that keep the shape's enum, length and pattern; not empty, because EC2 takes empty as missing."""
    if shape.enum:
        return st.sampled_from(shape.enum)
    least, most = max(shape.metadata.get("min", 1), 1), shape.metadata.get("max", 2**31)
    pattern = shape.metadata.get("pattern")
    if pattern is None or pattern in IMPOSSIBLE:
        bound = min(most, least + 10)
        return st.builds(lambda text: text.ljust(least, "x")[:bound], TEXT)
    return patterned(pattern, least, most)


@cache
def patterned(pattern: str, least: int, most: int) -> st.SearchStrategy[str]:
    """Strings that match a pattern whole, of a length within bounds."""
    matches = compile_pattern(pattern).fullmatch
    candidates = [*string.printable.strip("\x0b\x0c"), *"é日 \u00ff"]
    alphabet = [
        character for character in candidates if matches(character * least) and matches(character * (least + 1))
    ]
    if least > 3 and alphabet:
        made = st.text(alphabet, min_size=least, max_size=min(most, least + 8))
    else:
        made = st.from_regex(compile_pattern(pattern), fullmatch=True)
    return made.filter(
        lambda text: least <= len(text) <= most and matches(text) is not None and not illegal_character(text)
    )


def scalars(shape: Any, *, constrained: bool, precision: int) -> st.SearchStrategy[Any]:
    """Values of a scalar shape. Timestamps are cut to `precision` microseconds."""
    least, most = (shape.metadata.get("min"), shape.metadata.get("max")) if constrained else (None, None)
    match shape.type_name:
        case "boolean":
            return st.booleans()
        case "integer":
            return st.integers(-(2**31) if least is None else least, 2**31 - 1 if most is None else most)
        case "long":
            return st.integers(-(2**63) if least is None else least, 2**63 - 1 if most is None else most)
        case "float" | "double":
            return st.floats(-1e30 if least is None else least, 1e30 if most is None else most, **FINITE)
        case "timestamp":
            return MOMENTS.map(lambda at: at.replace(microsecond=at.microsecond // precision * precision))
        case "blob":
            return st.binary(min_size=max(least or 0, 1), max_size=20)
    return input_strings(shape) if constrained else TEXT


def values(shape: Any, *, constrained: bool, precision: int, depth: int = 0) -> st.SearchStrategy[Any]:
    """Values of any shape. Constrained ones are valid input and nowhere empty; others are any output."""

    def inner(below: Any) -> st.SearchStrategy[Any]:
        return st.deferred(lambda: values(below, constrained=constrained, precision=precision, depth=depth + 1))

    fewest = 1 if constrained else 0
    if shape.type_name == "structure":
        return structures(shape, inner, fewest, 6 if depth == 0 else 3)
    if shape.type_name in ("list", "map"):
        least = max(shape.metadata.get("min", 0), fewest) if constrained else 0
        most = max(min(shape.metadata.get("max", 2), 2) if constrained else 2, least)
        if shape.type_name == "list":
            return st.lists(inner(shape.member), min_size=least, max_size=most)
        return st.dictionaries(inner(shape.key), inner(shape.value), min_size=least, max_size=most)
    return scalars(shape, constrained=constrained, precision=precision)


def structures(shape: Any, inner: Any, fewest: int, most: int) -> st.SearchStrategy[dict[str, Any]]:
    """Structures with their required members and some of the others; a union with one."""
    if shape.is_tagged_union:
        return st.sampled_from(sorted(shape.members)).flatmap(
            lambda name: st.fixed_dictionaries({name: inner(shape.members[name])})
        )
    required = set(shape.required_members)
    optional = sorted(set(shape.members) - required)
    missing = 0 if required or not optional else fewest
    some = (
        st.lists(st.sampled_from(optional), unique=True, min_size=missing, max_size=most) if optional else st.just([])
    )
    return some.flatmap(
        lambda names: st.fixed_dictionaries({name: inner(shape.members[name]) for name in sorted({*required, *names})})
    )


# -- the properties ---------------------------------------------------------------------------------------------------


def sent_by_botocore(service: Any, action: str, parameters: dict[str, Any]) -> Message:
    """The request as botocore puts it on the wire, signature apart."""
    serializer = create_serializer(service.protocol.value)
    made = serializer.serialize_to_request(parameters, service.model.operation_model(action))
    request = AWSRequest(method="POST", url="https://localhost/", headers=made["headers"], data=made["body"]).prepare()
    body = request.body.encode() if isinstance(request.body, str) else request.body
    headers = {
        name.lower(): value.decode() if isinstance(value, bytes) else value for name, value in request.headers.items()
    }
    scope = f"AKIDEXAMPLE/20260131/us-east-1/{service.name}/aws4_request"
    headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=00"
    return Message(headers, "", body)


@pytest.mark.parametrize(("name", "action"), OPERATIONS)
@EXAMPLES
@given(data=st.data())
def test_the_codec_reads_what_botocore_writes(name: str, action: str, data: st.DataObject) -> None:
    """Any valid input, serialised by botocore, is parsed to itself, empties apart."""
    service = CATALOGUE.services[name]
    shape = service.model.operation_model(action).input_shape
    parameters = data.draw(values(shape, constrained=True, precision=1)) if shape is not None else {}
    call = CATALOGUE.identify(sent_by_botocore(service, action, parameters))
    assert (call.service.name, call.operation) == (name, action)
    assert drop_empties(call.parse()) == drop_empties(parameters)


@pytest.mark.parametrize(("name", "action"), OPERATIONS)
@EXAMPLES
@given(data=st.data())
def test_botocore_reads_what_the_codec_writes(name: str, action: str, data: st.DataObject) -> None:
    """Any output, serialised by the codec, is parsed by botocore to itself, empty lists and strings included."""
    service = CATALOGUE.services[name]
    shape = service.model.operation_model(action).output_shape
    precision = {"ec2": 1_000, "query": 1_000_000, "json": 1_000}[service.protocol.value]
    output = data.draw(values(shape, constrained=False, precision=precision)) if shape is not None else {}
    reply = service.answer(action, output, REQUEST_ID)
    response = {"status_code": reply.status, "headers": dict(reply.headers), "body": reply.body}
    parsed = create_parser(service.protocol.value).parse(response, shape)
    metadata = parsed.pop("ResponseMetadata")
    assert metadata.get("RequestId", metadata["HTTPHeaders"]["x-amzn-requestid"]) == REQUEST_ID
    assert parsed == output


@pytest.mark.parametrize("name", list(CATALOGUE.services))
@settings(deadline=None)
@given(
    code=st.from_regex(r"[A-Z][A-Za-z.]{0,40}", fullmatch=True), message=TEXT, status=st.sampled_from([400, 403, 503])
)
def test_botocore_reads_the_errors_that_the_codec_writes(name: str, code: str, message: str, status: int) -> None:
    """Code, message and request id of an error reach the client unchanged, whatever characters they have."""
    reply = CATALOGUE.services[name].error(ApiError(code, message, status), REQUEST_ID)
    response = {"status_code": reply.status, "headers": {k.lower(): v for k, v in reply.headers}, "body": reply.body}
    parsed = create_parser(CATALOGUE.services[name].protocol.value).parse(response, None)
    assert reply.status == status
    assert (parsed["Error"]["Code"], parsed["Error"]["Message"] or "") == (code, message)
    assert parsed["ResponseMetadata"]["RequestId"] == REQUEST_ID


# -- input that nobody should send -------------------------------------------------------------------------------------


def wire_names(shape: Any, ec2: bool, depth: int = 0) -> list[str]:
    """Names of a shape's members on the wire, a few levels down: words to make hostile parameters of."""
    if shape.type_name == "list":
        return wire_names(shape.member, ec2, depth + 1)
    if shape.type_name != "structure" or depth > 4:
        return []
    names = [
        member.serialization.get("queryName", member.serialization.get("name", name))
        for name, member in shape.members.items()
    ]
    below = [name for member in shape.members.values() for name in wire_names(member, ec2, depth + 1)]
    return [name[0].upper() + name[1:] if ec2 else name for name in names] + below


JUNK = ["1", "2", "0", "-1", "01", "99999999", "member", "entry", "key", "value", "", "Item", "١", "²", "é"]


@pytest.mark.parametrize(("name", "action"), [pair for pair in OPERATIONS if pair[0] in ("ec2", "iam", "sts")])
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_no_form_makes_the_codec_fail(name: str, action: str, data: st.DataObject) -> None:
    """Names put together from real and hostile parts are input or an ApiError, never another exception."""
    service = CATALOGUE.services[name]
    shape = service.model.operation_model(action).input_shape
    words = sorted({*JUNK, *(wire_names(shape, name == "ec2") if shape is not None else [])})
    names = st.lists(st.sampled_from(words), min_size=1, max_size=6).map(".".join)
    leaves = st.one_of(TEXT, st.sampled_from(["", "1", "-1", "true", "1e999", "9" * 5000, "2026-02-30T00:00:00Z"]))
    form = data.draw(st.dictionaries(names, leaves, max_size=6))
    call = CATALOGUE.identify(
        sent_by_botocore(service, action, {}) if shape is None else message_of(service, action, form)
    )
    try:
        assert isinstance(call.parse(), dict)
    except ApiError as error:
        assert error.code and str(error)


def message_of(service: Any, action: str, form: dict[str, str]) -> Message:
    """A form request with any parameters."""
    request = AWSRequest(
        method="POST", url="https://localhost/", data={**form, "Action": action, "Version": service.version}
    ).prepare()
    scope = f"AKIDEXAMPLE/20260131/us-east-1/{service.name}/aws4_request"
    return Message(
        {"authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host"}, "", request.body.encode()
    )


JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.just(10**400), TEXT, st.just("\ud800")),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=8,
)


@pytest.mark.parametrize(("name", "action"), [pair for pair in OPERATIONS if pair[0] not in ("ec2", "iam", "sts")])
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_no_document_makes_the_codec_fail(name: str, action: str, data: st.DataObject) -> None:
    """Real members with any JSON as value are input or an ApiError, never another exception."""
    import json

    service = CATALOGUE.services[name]
    members = sorted(service.model.operation_model(action).input_shape.members)
    names = st.one_of(st.sampled_from(members), TEXT) if members else TEXT
    document = data.draw(st.dictionaries(names, JSON_VALUES, max_size=4))
    target = f"{service.model.metadata['targetPrefix']}.{action}"
    call = CATALOGUE.identify(Message({"x-amz-target": target}, "", json.dumps(document).encode()))
    try:
        assert isinstance(call.parse(), dict)
    except ApiError as error:
        assert error.code and str(error)
