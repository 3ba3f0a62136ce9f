"""What the actions of several families share: filters, pages, tags, ids, quotas and the context of IAM questions.

Filters: the values of one filter are OR-ed, the filters AND-ed; `*` stands for any characters, `?` for exactly one, a
backslash takes the next character literally; all is case-sensitive (EC2 User Guide, "Filter Amazon EC2 resources").
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import msgspec

from wicketgate.control.call import Call
from wicketgate.model import REVOCATION_TAG, ApiError

T = TypeVar("T")

MAX_FILTERS = 50
MAX_FILTER_VALUES = 200
"""Per request, and per filter (EC2 User Guide, "Filter Amazon EC2 resources")."""
MAX_TAGS = 50
MAX_TAG_KEY = 128
MAX_TAG_VALUE = 256
"""Tags per resource; Unicode characters of a key and of a value (EC2 User Guide, "Tag restrictions")."""
REVOCATIONS = ("aws", "immediate")
"""What the tag `wicketgate:revocation` may say."""


class Quotas(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of the VPC service, with AWS's defaults (VPC User Guide, "Amazon VPC quotas")."""

    groups_per_region: int = 2500
    rules_per_group: int = 60
    """Per direction, and separately for IPv4 and IPv6; group references and prefix lists count in both families."""
    groups_per_interface: int = 5
    rules_per_interface: int = 1000
    """Upper bound of rules_per_group x groups_per_interface, and of the rules that count on an interface."""
    vpcs_per_region: int = 5
    subnets_per_vpc: int = 200
    interfaces_per_region: int = 5000
    peerings_per_vpc: int = 50
    """Active VPC peering connections."""
    peering_requests_per_vpc: int = 25
    """VPC peering connections that a VPC has asked for and that nobody has accepted."""
    route_tables_per_vpc: int = 200
    """The main one included."""
    routes_per_table: int = 500
    """For IPv4 and IPv6 separately; local routes do not count."""
    prefix_lists_per_region: int = 100
    insights_paths_per_region: int = 1000
    insights_analyses_per_region: int = 10_000
    """Paths and analyses of Reachability Analyzer."""


AWS_QUOTAS = Quotas()
"""The quotas of a new AWS account."""


# -- filters -----------------------------------------------------------------------------------------------------------

Plain = str | bool | int | None
Values = Plain | Iterable[Plain]
"""What a resource has for a filter: one value, several, or none. Booleans compare as `true` and `false`."""
Filters = Sequence[Mapping[str, Any]] | None
"""The `Filters` parameter: `[{"Name": ..., "Values": [...]}]`."""
Fields = Mapping[str, Any]
"""Filter name -> Values, or a function that gives them. A name that ends in `:` stands for a family of filters
(`tag:Owner`): its entry is, or gives, a mapping from the rest of the name to Values."""


def matches_filters(filters: Filters, fields: Fields) -> bool:
    """Whether a resource with these fields passes every filter.

    A function among the fields is called only when its filter is used. Raises InvalidParameterValue for a filter that
    `fields` does not have; where there may be no resource to test, use `select`, which refuses it all the same.
    """
    check_filters(filters, fields)
    return all(_passes(one, fields) for one in filters or ())


def select(items: Iterable[T], filters: Filters, getters: Mapping[str, Callable[[T], Any]]) -> list[T]:
    """The items that pass every filter, in order. `getters` maps a filter's name to what gives an item's Values.

    Raises InvalidParameterValue for a filter that is not among `getters`, even when there are no items.
    """
    check_filters(filters, getters)
    if not filters:
        return list(items)
    tests = [(*_field(one["Name"], getters), _patterns(one)) for one in filters]
    return [item for item in items if all(_hit(_got(get(item), rest), wanted) for get, rest, wanted in tests)]


def check_filters(filters: Filters, names: Collection[str]) -> None:
    """Refuse unknown filters, filters without values, and too many of either (FilterLimitExceeded)."""
    for one in filters or ():
        name = one.get("Name")
        if not name or not (name in names or _family(name) in names):
            raise ApiError("InvalidParameterValue", f"The filter '{name or 'null'}' is invalid")
        values = one.get("Values")
        if not values:
            raise ApiError("InvalidParameterValue", f"The filter '{name}' has no values. Specify at least one value.")
        if len(values) > MAX_FILTER_VALUES:
            raise ApiError(
                "FilterLimitExceeded",
                f"The filter '{name}' has {len(values)} values. The maximum is {MAX_FILTER_VALUES}.",
            )
    if len(filters or ()) > MAX_FILTERS:
        raise ApiError("FilterLimitExceeded", f"The maximum number of filters is {MAX_FILTERS}.")


def tag_filters(tags: Mapping[str, str]) -> dict[str, Any]:
    """Fields for `tag:<key>`, `tag-key` and `tag-value`, to be merged into a resource's own."""
    return {"tag:": tags, "tag-key": tuple(tags), "tag-value": tuple(tags.values())}


TAG_GETTERS: Mapping[str, Callable[[Any], Any]] = {
    "tag:": lambda item: item.tags,
    "tag-key": lambda item: tuple(item.tags),
    "tag-value": lambda item: tuple(item.tags.values()),
}
"""The same for `select`, for resources of the model, which all have `tags`."""


def _family(name: str) -> str:
    head, colon, _ = name.partition(":")
    return head + colon


def _field(name: str, fields: Mapping[str, Any]) -> tuple[Any, str | None]:
    if name in fields and not name.endswith(":"):
        return fields[name], None
    family = _family(name)
    return fields[family], name.removeprefix(family)


def _passes(one: Mapping[str, Any], fields: Fields) -> bool:
    field, rest = _field(one["Name"], fields)
    return _hit(_got(field() if callable(field) else field, rest), _patterns(one))


def _got(values: Any, rest: str | None) -> Values:
    got: Values = values if rest is None else values.get(rest)
    return got


def _patterns(one: Mapping[str, Any]) -> re.Pattern[str]:
    return _compiled(tuple(str(value) for value in one["Values"]))


@lru_cache(maxsize=256)
def _compiled(values: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{_translated(value)})" for value in values), re.DOTALL)


def _translated(value: str) -> str:
    """The regular expression of a filter value.

    Each part between two `*` is taken at its first place for good (an atomic group), so that a value full of `*` cannot
    make matching take exponential time.
    """
    parts = [""]
    characters = iter(value)
    for character in characters:
        if character == "*":
            parts.append("")
        elif character == "\\":
            parts[-1] += re.escape(next(characters, "\\"))
        else:
            parts[-1] += "." if character == "?" else re.escape(character)
    if len(parts) == 1:
        return parts[0]
    return parts[0] + "".join(f"(?>.*?{part})" for part in parts[1:-1] if part) + ".*" + parts[-1]


def _hit(values: Values, wanted: re.Pattern[str]) -> bool:
    several = (values,) if values is None or isinstance(values, str | bool | int) else values
    return any(wanted.fullmatch(_text(value)) is not None for value in several if value is not None)


def _text(value: str | bool | int) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# -- pages -------------------------------------------------------------------------------------------------------------


def page(
    items: Sequence[T],
    max_results: int | None,
    next_token: str | None,
    *,
    minimum: int,
    maximum: int,
    key: Callable[[T], str],
    scope: str = "",
) -> tuple[list[T], str | None]:
    """One page of the items, and the token for the next one (None after the last).

    Without max_results and next_token: everything, in the order given. Otherwise the order is that of the keys and the
    token says after which key to go on, so that what exists throughout is seen exactly once, whatever is made or
    deleted between the pages. `scope` (the action's name) keeps a token from being used elsewhere.

    Raises InvalidParameterValue for max_results outside minimum..maximum, InvalidNextToken for a token not ours.
    """
    if max_results is not None and not minimum <= max_results <= maximum:
        # The bounds themselves are allowed; AWS says "greater than" all the same (as `api.faults` does).
        bound = f"less than {maximum}" if max_results > maximum else f"greater than {minimum}"
        raise ApiError(
            "InvalidParameterValue",
            f"Value ( {max_results} ) for parameter maxResults is invalid. Expecting a value {bound}.",
        )
    if max_results is None and not next_token:
        return list(items), None
    ordered = sorted(items, key=key)
    if next_token:
        after = _after(next_token, scope)
        ordered = [item for item in ordered if key(item) > after]
    if max_results is None or len(ordered) <= max_results:
        return ordered, None
    return ordered[:max_results], _token(key(ordered[max_results - 1]), scope)


def _token(after: str, scope: str) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode([1, scope, after])).decode()


def _after(token: str, scope: str) -> str:
    try:
        version, made_for, after = msgspec.json.decode(
            base64.b64decode(token.encode(), altchars=b"-_", validate=True), type=tuple[int, str, str]
        )
    except (binascii.Error, UnicodeError, msgspec.DecodeError) as error:
        raise _bad_token(token) from error
    if version != 1 or made_for != scope:
        raise _bad_token(token)
    return after


def _bad_token(token: str) -> ApiError:
    shown = token if len(token) <= 100 else token[:100] + "..."
    return ApiError(
        "InvalidNextToken",
        f"The token '{shown}' is invalid. Use the NextToken of an earlier answer to the same action as it was given.",
    )


# -- tags --------------------------------------------------------------------------------------------------------------


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as answers carry them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def tags_from(parameters: Mapping[str, Any], resource_type: str, also: Collection[str] = ()) -> dict[str, str]:
    """The tags that `TagSpecifications` gives to a resource of this type, checked; {} when there are none.

    `also` names other resource types that the action makes and that may be tagged in the same call. Raises
    InvalidParameterValue for a resource type the action does not make, one that comes twice, one without tags, and as
    `checked_tags` does.
    """
    found: dict[str, str] = {}
    seen: set[str] = set()
    for specification in parameters.get("TagSpecifications") or ():
        named = specification.get("ResourceType")
        if not named:
            raise ApiError("InvalidParameterValue", "Tag specification resource type must have a value")
        if named != resource_type and named not in also:
            raise ApiError(
                "InvalidParameterValue", f"'{named}' is not a valid taggable resource type for this operation."
            )
        if named in seen:
            raise ApiError(
                "InvalidParameterValue",
                f"The same resource type may not be specified more than once in tag specifications: '{named}'",
            )
        seen.add(named)
        if not specification.get("Tags"):
            raise ApiError("InvalidParameterValue", "Tag specification must have at least one tag")
        tags = checked_tags(specification["Tags"])
        found = tags if named == resource_type else found
    return found


def checked_tags(tags: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """`[{"Key", "Value"}]` as a mapping; a tag without a value has the empty one.

    Raises InvalidParameterValue for an empty or too long key, a too long value, the reserved prefix `aws:` (in any
    case), a key that comes twice and a value that a tag of ours does not take; TagLimitExceeded for more than 50 tags.
    (EC2 User Guide, "Tag restrictions".)
    """
    found: dict[str, str] = {}
    for tag in tags:
        key, value = tag.get("Key") or "", tag.get("Value") or ""
        if not key:
            raise ApiError("InvalidParameterValue", "Tag key cannot be null or empty")
        if key in found:
            raise ApiError("InvalidParameterValue", f"Duplicate tag key '{key}' specified.")
        check_tag_key(key)
        if len(value) > MAX_TAG_VALUE:
            raise ApiError(
                "InvalidParameterValue",
                f"Tag value exceeds the maximum length of {MAX_TAG_VALUE} characters: it has {len(value)}",
            )
        if key == REVOCATION_TAG and value not in REVOCATIONS:
            valid = ", ".join(REVOCATIONS)
            raise ApiError(
                "InvalidParameterValue",
                f"Value ({value}) for tag {REVOCATION_TAG} is invalid. Valid values: {valid}.",
            )
        found[key] = value
    check_tag_count(found)
    return found


def check_tag_key(key: str) -> None:
    """Refuse a key that is too long or that is reserved for AWS."""
    if key.lower().startswith("aws:"):
        raise ApiError("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use")
    if len(key) > MAX_TAG_KEY:
        raise ApiError(
            "InvalidParameterValue",
            f"Tag key exceeds the maximum length of {MAX_TAG_KEY} characters: it has {len(key)}",
        )


def check_tag_count(tags: Collection[str]) -> None:
    """Raise TagLimitExceeded when a resource would carry more than 50 tags; those of `aws:` do not count."""
    if sum(not key.startswith("aws:") for key in tags) > MAX_TAGS:
        raise ApiError("TagLimitExceeded", f"The maximum number of Tags for a resource has been reached: {MAX_TAGS}.")


# -- ids ---------------------------------------------------------------------------------------------------------------

_HEX = re.compile(r"[0-9a-f]{8}(?:[0-9a-f]{9})?")


def check_id(prefix: str, value: str, malformed_code: str) -> str:
    """The id as it is, if it has the shape of one: prefix, dash, 8 or 17 hex digits (EC2 User Guide, resource IDs).

    Raises `malformed_code` otherwise. Look the id up first: what exists is never malformed.
    """
    head, dash, digits = value.rpartition("-")
    if head != prefix or not dash or _HEX.fullmatch(digits) is None:
        raise ApiError(malformed_code, f'Invalid id: "{value}" (expecting "{prefix}-...")')
    return value


# -- context of IAM questions ------------------------------------------------------------------------------------------


def ec2_context(
    call: Call, tags: Mapping[str, str] | None = None, **keys: str | Sequence[str] | None
) -> dict[str, Sequence[str]]:
    """Condition keys of an existing EC2 resource: `ec2:Region`, its tags as `aws:ResourceTag/` and `ec2:ResourceTag/`.

    Further keys by name without the service: `Vpc=arn` gives `ec2:Vpc`; None leaves a key out (it then is absent, as
    IAM has it for what is unknown). Source: Service Authorization Reference, Amazon EC2.
    """
    context: dict[str, Sequence[str]] = {"ec2:Region": (call.world.region,)}
    for key, value in (tags or {}).items():
        context[f"aws:ResourceTag/{key}"] = context[f"ec2:ResourceTag/{key}"] = (value,)
    for name, given in keys.items():
        if given is not None:
            context[f"ec2:{name}"] = (given,) if isinstance(given, str) else tuple(given)
    return context


def request_tags(call: Call, resource_type: str) -> dict[str, Sequence[str]]:
    """`aws:RequestTag/...` and `aws:TagKeys` for a resource to be made; {} when the call gives it no tags.

    Nothing is validated: authorisation comes before validation.
    """
    tags = {
        tag["Key"]: tag.get("Value") or ""
        for specification in call.parameters.get("TagSpecifications") or ()
        if specification.get("ResourceType") == resource_type
        for tag in specification.get("Tags") or ()
        if tag.get("Key")
    }
    context: dict[str, Sequence[str]] = {f"aws:RequestTag/{key}": (value,) for key, value in tags.items()}
    return context | {"aws:TagKeys": tuple(tags)} if tags else context
