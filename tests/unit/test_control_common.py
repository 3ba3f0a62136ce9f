"""Filters, pages, tags and ids of the control plane."""

import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.sg_world import call, small_world
from wicketgate.control.common import (
    MAX_FILTER_VALUES,
    MAX_FILTERS,
    MAX_TAGS,
    Quotas,
    check_id,
    check_tag_count,
    checked_tags,
    ec2_context,
    matches_filters,
    page,
    request_tags,
    select,
    tag_filters,
    tag_list,
    tags_from,
)
from wicketgate.model import ApiError


def filters(**wanted):
    """Filters by name; `__` stands for a colon, `_` for a dash."""
    return [{"Name": n.replace("__", ":").replace("_", "-"), "Values": v} for n, v in wanted.items()]


FIELDS = {
    "vpc-id": "vpc-1",
    "is-default": True,
    "port": 22,
    "nothing": None,
    "several": ["one", "two", None],
    "later": lambda: ("computed",),
    **tag_filters({"Owner": "TeamA", "aws:made": "yes", "": "odd"}),
}


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ([], True),
        (None, True),
        (filters(vpc_id=["vpc-1"]), True),
        (filters(vpc_id=["vpc-2", "vpc-1"]), True),
        (filters(vpc_id=["vpc-2"]), False),
        (filters(vpc_id=["VPC-1"]), False),
        (filters(vpc_id=["vpc"]), False),
        (filters(vpc_id=["vpc-1"], port=["23"]), False),
        (filters(vpc_id=["vpc-1"], port=["22"]), True),
        (filters(is_default=["true"]), True),
        (filters(is_default=["True"]), False),
        (filters(nothing=["*"]), False),
        (filters(several=["two"]), True),
        (filters(several=["None"]), False),
        (filters(later=["comp*"]), True),
        (filters(tag__Owner=["TeamA"]), True),
        (filters(tag__Owner=["Team?"]), True),
        (filters(tag__owner=["TeamA"]), False),
        (filters(tag__Missing=["*"]), False),
        ([{"Name": "tag:aws:made", "Values": ["yes"]}], True),
        (filters(tag_key=["Owner"]), True),
        (filters(tag_value=["TeamB"]), False),
    ],
)
def test_filters(wanted, expected):
    """Values are OR-ed, filters AND-ed, exact in case; booleans and numbers compare as text, absent never matches."""
    assert matches_filters(wanted, FIELDS) is expected


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("*amazon?", "an amazonX", True),
        ("*amazon?", "amazon", False),
        (r"\*amazon\?\\", "*amazon?\\", True),
        (r"\*amazon\?\\", "xamazonx\\", False),
        ("a.c", "abc", False),
        ("[a]", "a", False),
        ("*", "", True),
        ("?", "", False),
        ("a\\", "a\\", True),
        ("*", "two\nlines", True),
        ("a", "a\n", False),
    ],
)
def test_wildcards(pattern, text, expected):
    """`*` is any text, `?` one character, a backslash takes the next one literally, nothing else is special."""
    assert matches_filters(filters(name=[pattern]), {"name": text}) is expected


@given(st.text(alphabet="ab*?", max_size=8), st.text(alphabet="ab", max_size=8))
def test_wildcards_as_fnmatch(pattern, text):
    """Without escapes and brackets our wildcards are the shell's."""
    assert matches_filters(filters(n=[pattern]), {"n": text}) == fnmatch.fnmatchcase(text, pattern)


@given(st.text(max_size=12))
def test_escaped_text_matches_itself_only(text):
    """A value with every special character escaped matches that text and no longer one."""
    escaped = re.sub(r"([*?\\])", r"\\\1", text)
    assert matches_filters(filters(n=[escaped]), {"n": text})
    assert not matches_filters(filters(n=[escaped]), {"n": text + "x"})


def test_many_stars_are_quick():
    """A filter of many `*` does not make matching take exponential time."""
    for value in ("*" * 200 + "b", "*a" * 100 + "*b", "*?" * 100 + "b"):
        assert not matches_filters(filters(n=[value]), {"n": "a" * 256})


def test_only_used_fields_are_computed():
    """A field given as a function is called only when its filter is used."""
    assert matches_filters(filters(a=["1"]), {"a": "1", "b": lambda: 1 / 0})


@pytest.mark.parametrize(
    ("wanted", "code", "words"),
    [
        (filters(colour=["red"]), "InvalidParameterValue", "The filter 'colour' is invalid"),
        ([{"Name": "tag", "Values": ["x"]}], "InvalidParameterValue", "The filter 'tag' is invalid"),
        ([{"Values": ["x"]}], "InvalidParameterValue", "The filter 'null' is invalid"),
        (filters(port=[]), "InvalidParameterValue", "The filter 'port' has no values. Specify at least one value."),
        (filters(port=["1"] * (MAX_FILTER_VALUES + 1)), "FilterLimitExceeded", "The maximum is 200."),
        (filters(port=["1"]) * (MAX_FILTERS + 1), "FilterLimitExceeded", "The maximum number of filters is 50."),
    ],
)
def test_bad_filters(wanted, code, words):
    """A filter nobody knows is refused, also when there is nothing to filter."""
    for refuse in (lambda: matches_filters(wanted, FIELDS), lambda: select([], wanted, dict.fromkeys(FIELDS))):
        with pytest.raises(ApiError) as caught:
            refuse()
        assert caught.value.code == code
        assert words in str(caught.value)


def test_select_keeps_order():
    """`select` gives what passes, in the order it came."""
    getters = {"parity": lambda n: "odd" if n % 2 else "even", "tag:": lambda n: {"n": str(n)}}
    assert select([3, 1, 2, 5], filters(parity=["odd"]), getters) == [3, 1, 5]
    assert select([3, 1, 2], [{"Name": "tag:n", "Values": ["2", "3"]}], getters) == [3, 2]
    assert select([3, 1, 2], None, getters) == [3, 1, 2]


def one_page(items, size, token=None, scope="A"):
    """A page of strings that are their own keys."""
    return page(items, size, token, minimum=1, maximum=1000, key=lambda item: item, scope=scope)


def test_no_page_asked():
    """Without MaxResults everything comes at once, in the order given."""
    assert one_page(["b", "a"], None) == (["b", "a"], None)


@given(st.data())
def test_pages_under_change(data):
    """What exists throughout is seen exactly once, whatever is made or deleted between the pages."""
    stay = data.draw(st.sets(st.text("abcd", min_size=1, max_size=3), max_size=12))
    size = data.draw(st.integers(1, 5))
    others = st.sets(st.text("abcd", min_size=1, max_size=3), max_size=6)
    seen, token = [], None
    for _ in range(100):
        now = list(stay | data.draw(others))
        items, token = one_page(now, size, token)
        assert len(items) <= size
        seen += items
        if token is None:
            break
    assert token is None
    assert len(seen) == len(set(seen))
    assert stay <= set(seen)


@pytest.mark.parametrize("token", ["x", "WyJhIl0=", "é", "WzEsIkEiLCJhIl0", "WzIsIkEiLCJhIl0=", "!!!!"])
def test_bad_tokens(token):
    """A token we did not make is refused by name."""
    with pytest.raises(ApiError, match="is invalid") as caught:
        one_page(["a"], 1, token)
    assert caught.value.code == "InvalidNextToken"


def test_token_of_another_action():
    """A token of one action is no token of another."""
    _, token = one_page(["a", "b"], 1, scope="A")
    assert one_page(["a", "b"], 1, token, scope="A") == (["b"], None)
    with pytest.raises(ApiError, match="same action"):
        one_page(["a", "b"], 1, token, scope="B")


def spec(resource_type, **tags):
    """A TagSpecification."""
    return {"ResourceType": resource_type, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}


def test_tags_from():
    """The tags of one resource type are taken, of others the action makes they are checked and left alone."""
    given_tags = {"TagSpecifications": [spec("volume", x="1"), spec("instance", Name="web", Empty="")]}
    tags = tags_from(given_tags, "instance", also=("volume",))
    assert tags == {"Name": "web", "Empty": ""}
    assert tag_list(tags) == [{"Key": "Name", "Value": "web"}, {"Key": "Empty", "Value": ""}]
    assert tags_from({}, "instance") == {}


@pytest.mark.parametrize(
    ("specifications", "code", "words"),
    [
        ([spec("volume", a="b")], "InvalidParameterValue", "'volume' is not a valid taggable resource type"),
        ([{"Tags": [{"Key": "a"}]}], "InvalidParameterValue", "resource type must have a value"),
        ([spec("vpc")], "InvalidParameterValue", "Tag specification must have at least one tag"),
        ([spec("vpc", a="b"), spec("vpc", c="d")], "InvalidParameterValue", "more than once"),
        ([spec("vpc", **{"aws:x": "b"})], "InvalidParameterValue", "reserved for internal use"),
        ([spec("vpc", **{"AWS:x": "b"})], "InvalidParameterValue", "reserved for internal use"),
        ([spec("vpc", **{"": "b"})], "InvalidParameterValue", "cannot be null or empty"),
        ([spec("vpc", **{"k" * 129: "b"})], "InvalidParameterValue", "maximum length of 128"),
        ([spec("vpc", k="v" * 257)], "InvalidParameterValue", "maximum length of 256"),
        ([spec("vpc", **{f"k{n}": "" for n in range(MAX_TAGS + 1)})], "TagLimitExceeded", "has been reached: 50"),
    ],
)
def test_bad_tags(specifications, code, words):
    """Each restriction on tags is told in words."""
    with pytest.raises(ApiError, match=words) as caught:
        tags_from({"TagSpecifications": specifications}, "vpc")
    assert caught.value.code == code


def test_tag_bounds():
    """Keys of 128 characters, values of 256 and 50 tags pass; a key that comes twice does not."""
    tags = checked_tags([{"Key": "é" * 128, "Value": "é" * 256}, *({"Key": str(n)} for n in range(MAX_TAGS - 1))])
    assert len(tags) == MAX_TAGS
    with pytest.raises(ApiError, match="Duplicate tag key 'a' specified"):
        checked_tags([{"Key": "a"}, {"Key": "a"}])


def test_tags_of_aws_do_not_count():
    """Tags that a service put on a resource leave the caller's 50 alone."""
    check_tag_count([*(f"aws:{n}" for n in range(9)), *map(str, range(MAX_TAGS))])
    with pytest.raises(ApiError, match="has been reached"):
        check_tag_count([*map(str, range(MAX_TAGS + 1))])


@pytest.mark.parametrize("value", ["sg-12345678", "sg-0123456789abcdef0"])
def test_ids(value):
    """Both lengths of ids pass."""
    assert check_id("sg", value, "X") == value


@pytest.mark.parametrize(
    "value", ["", "sg", "sg-", "sg-1234567", "sg-123456789", "sg-0123456789ABCDEF0", "vpc-12345678", "xsg-12345678"]
)
def test_malformed_ids(value):
    """What is no id is refused with the code asked for, the text and the shape expected."""
    with pytest.raises(ApiError) as caught:
        check_id("sg", value, "InvalidGroupId.Malformed")
    assert caught.value.code == "InvalidGroupId.Malformed"
    assert str(caught.value) == f'Invalid id: "{value}" (expecting "sg-...")'


def test_contexts():
    """Condition keys: the resource's tags under both names, the request's tags unchecked, absent keys left out."""
    asked = call(small_world(), "X", TagSpecifications=[spec("vpc", a="b", c=""), spec("subnet", z="z")])
    assert ec2_context(asked, {"Name": "n"}, Vpc="arn:v", SubnetID=None) == {
        "ec2:Region": ("us-east-1",),
        "aws:ResourceTag/Name": ("n",),
        "ec2:ResourceTag/Name": ("n",),
        "ec2:Vpc": ("arn:v",),
    }
    assert request_tags(asked, "vpc") == {
        "aws:RequestTag/a": ("b",),
        "aws:RequestTag/c": ("",),
        "aws:TagKeys": ("a", "c"),
    }
    assert request_tags(asked, "instance") == {}


def test_quota_defaults():
    """The defaults are those of a new AWS account."""
    quotas = Quotas()
    assert (quotas.groups_per_region, quotas.rules_per_group, quotas.groups_per_interface) == (2500, 60, 5)
