"""The constraints of the models: every pattern compiles and means what AWS's dialect means."""

from __future__ import annotations

import re
import sys
import unicodedata
from typing import Any

import pytest
from botocore.model import Shape

from wicketgate.api import Catalogue
from wicketgate.api.constraints import IMPOSSIBLE, check_of, compile_pattern
from wicketgate.api.faults import Kind
from wicketgate.api.service import VERSIONS

CATALOGUE = Catalogue.load()


def shapes() -> list[Any]:
    """All shapes of all services."""
    return [
        service.model.shape_for(name) for service in CATALOGUE.services.values() for name in service.model.shape_names
    ]


def test_every_pattern_of_the_models_compiles() -> None:
    """No pattern is skipped, and the ones with Java's own classes are among them."""
    patterns = {shape.metadata["pattern"] for shape in shapes() if "pattern" in shape.metadata}
    assert len(patterns) > 70
    assert any("\\p{L}" in pattern for pattern in patterns)
    for pattern in patterns:
        assert compile_pattern(pattern)


def test_impossible_patterns_are_in_the_models_and_are_those_that_match_nothing() -> None:
    """An exemption whose pattern AWS has corrected must go; a `^` in the middle is what makes a pattern impossible."""
    patterns = {shape.metadata["pattern"] for shape in shapes() if "pattern" in shape.metadata}
    unreachable = re.compile(r"[^\[(|\\]\^")
    assert {pattern for pattern in patterns if unreachable.search(pattern)} == set(IMPOSSIBLE)


def test_letters_numbers_and_separators_are_unicodes() -> None:
    """`\\p{L}`, `\\p{N}` and `\\p{Z}` hold exactly the characters of those categories, over all of Unicode."""
    matches = compile_pattern("[\\p{L}\\p{Z}\\p{N}_]").fullmatch
    wrong = [
        f"U+{code:04X}"
        for code in range(sys.maxunicode + 1)
        if bool(matches(chr(code))) != (unicodedata.category(chr(code))[0] in "LNZ" or chr(code) == "_")
    ]
    assert wrong == []


def test_word_characters_and_digits_are_ascii() -> None:
    """IAM's names take no `é` and no Arabic digit, as in Java."""
    assert not compile_pattern("[\\w]+").fullmatch("é")
    assert not compile_pattern("\\d+").fullmatch("٥")
    assert compile_pattern("[\\u0020-\\uD7FF\\uE000-\\uFFFD\\uD800\\uDC00-\\uDBFF\\uDFFF\\t]*").fullmatch("é\t😀")


@pytest.mark.parametrize(
    ("model", "value", "broken"),
    [
        ({"type": "string", "min": 2, "max": 3}, "a", (Kind.MIN_LENGTH, "2")),
        ({"type": "string", "min": 2, "max": 3}, "abcd", (Kind.MAX_LENGTH, "3")),
        ({"type": "string", "min": 2, "max": 3}, "😀😀", None),
        ({"type": "string", "min": 2, "max": 3}, "abc", None),
        ({"type": "string", "min": 1, "pattern": "a*"}, "", (Kind.MIN_LENGTH, "1")),
        ({"type": "string", "pattern": "a+"}, "aab", (Kind.PATTERN, "a+")),
        ({"type": "string", "pattern": "^a+$"}, "aa\n", (Kind.PATTERN, "^a+$")),
        ({"type": "string", "enum": ["x", "y"]}, "z", (Kind.ENUM, "x, y")),
        ({"type": "string", "enum": ["x", "y"]}, "x", None),
        ({"type": "integer", "min": 0}, -1, (Kind.MIN_VALUE, "0")),
        ({"type": "integer", "max": 0}, 1, (Kind.MAX_VALUE, "0")),
        ({"type": "double", "min": 0.5, "max": 1.5}, 1.5, None),
        ({"type": "list", "member": {"shape": "S"}, "max": 1}, ["a", "b"], (Kind.MAX_SIZE, "1")),
        ({"type": "map", "key": {"shape": "S"}, "value": {"shape": "S"}, "min": 1}, {}, (Kind.MIN_SIZE, "1")),
        ({"type": "blob", "max": 1}, b"ab", (Kind.MAX_LENGTH, "1")),
    ],
)
def test_each_constraint_holds_at_its_limit(model: dict[str, Any], value: Any, broken: Any) -> None:
    """Limits are inclusive, lengths count characters, a pattern must match the whole value."""
    from botocore.model import ListShape, MapShape, StringShape

    kinds = {"string": StringShape, "list": ListShape, "map": MapShape}
    check = check_of(kinds.get(model["type"], Shape)("X", model))
    assert check is not None
    assert check(value) == broken


def test_a_shape_without_constraints_has_no_check() -> None:
    """What is not constrained costs nothing."""
    from botocore.model import StringShape

    assert check_of(StringShape("X", {"type": "string"})) is None
    assert check_of(Shape("X", {"type": "boolean"})) is None


def test_a_long_enum_is_cut_in_its_message() -> None:
    """EC2 has over a thousand instance types; the message lists twenty and says how many there are."""
    types = CATALOGUE.services["ec2"].model.shape_for("InstanceType")
    check = check_of(types)
    assert check is not None
    kind, limit = check("x9.huge")
    assert kind is Kind.ENUM
    assert limit.endswith(f"... ({len(types.enum)} values)")
    assert len(limit) < 400


def test_the_services_are_those_of_the_versions() -> None:
    """Each model is of the one version that is spoken."""
    assert {name: service.version for name, service in CATALOGUE.services.items()} == VERSIONS
