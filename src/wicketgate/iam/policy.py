"""Policy documents: read once, strictly, into frozen statements.

Source: IAM User Guide, reference_policies_grammar and reference_policies_elements_*. The policies of identities and
sessions are here; a role's trust policy has a `Reader` of its own (`trust`) for what it has instead of resources.
What AWS would refuse to store is refused here, with the place and what would be right.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import lru_cache
from typing import Any, Final, TypeVar

import msgspec

from wicketgate.iam.conditions import Condition, read_condition
from wicketgate.iam.patterns import Context, Template, template, wildcard_match
from wicketgate.model import Policy, WicketgateError

VERSIONS: Final = ("2012-10-17", "2008-10-17")
_OLDEST: Final = "2008-10-17"
T = TypeVar("T")
Reader = Callable[[str, int, Any, bool], T]
"""(policy's name, index, one statement's JSON data, whether variables exist) -> the statement, or MalformedPolicy."""
_STATEMENT_ELEMENTS: Final = frozenset({"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"})


class MalformedPolicy(WicketgateError):
    """A policy document that is none. `str(error)` names policy, statement, element and what would be right."""

    code = "MalformedPolicyDocument"
    http_status = 400


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """One statement, ready to be matched."""

    name: str
    """`policy/Sid`, or `policy/3` for the fourth statement when it has no Sid."""
    allows: bool
    """Effect: Allow, otherwise Deny."""
    actions: tuple[str, ...]
    """Patterns in lower case: action names are not case-sensitive."""
    not_action: bool
    resources: tuple[Template, ...]
    not_resource: bool
    conditions: tuple[Condition, ...]

    def names_action(self, action: str) -> bool:
        """Whether the statement is about this action (in lower case)."""
        for pattern in self.actions:
            if pattern == "*" or wildcard_match(pattern, action):
                return not self.not_action
        return self.not_action

    def names_resource(self, resource: str, context: Context) -> bool:
        """Whether the statement is about this resource (an ARN, or `*` where an action has none).

        A pattern whose variable has no value fits nothing; in NotResource of an Allow it fits everything, so that a
        missing tag never widens what is allowed.
        """
        for pattern in self.resources:
            fits = pattern.fits(resource, context)
            if fits or (fits is None and self.not_resource and self.allows):
                return not self.not_resource
        return self.not_resource

    def applies(self, action: str, resource: str, context: Context) -> bool:
        """Whether the statement decides about this request."""
        if not (self.names_action(action) and self.names_resource(resource, context)):
            return False
        for condition in self.conditions:  # noqa: SIM110  # a loop costs half of all() over a generator
            if not condition.holds(context):
                return False
        return True


def read_policies(policies: Iterable[Policy]) -> tuple[Statement, ...]:
    """All statements of the policies in order; raises MalformedPolicy for the first that cannot be read.

    Documents are remembered by their content, so this is quick for those seen before.
    """
    return tuple(
        statement for policy in policies for statement in _remembered(policy.name, msgspec.json.encode(policy.document))
    )


@lru_cache(maxsize=4096)
def _remembered(name: str, document: bytes) -> tuple[Statement, ...]:
    return read_document(name, msgspec.json.decode(document))


def read_document(name: str, document: Any) -> tuple[Statement, ...]:
    """The statements of one document (JSON data); `name` is for messages. Raises MalformedPolicy."""
    return read_statements(name, document, _read_statement, lambda statement: statement.name)


def read_statements(name: str, document: Any, read: Reader[T], name_of: Callable[[T], str]) -> tuple[T, ...]:
    """The statements of a document of any kind, each read by `read`. Raises MalformedPolicy."""
    if not isinstance(document, dict):
        raise malformed(f"policy {name}", "the document must be a JSON object with Version and Statement")
    version = document.get("Version", _OLDEST)
    if version not in VERSIONS:
        raise malformed(f"policy {name}: Version {version!r}", f"must be {VERSIONS[0]} (or {VERSIONS[1]})")
    for element in document:
        if element not in ("Version", "Id", "Statement"):
            raise malformed(f"policy {name}: element {element!r}", "is unknown; Version, Id, Statement exist")
    listed = document.get("Statement")
    if isinstance(listed, dict):
        listed = [listed]
    if not isinstance(listed, list) or not listed:
        raise malformed(f"policy {name}: Statement", "must be a statement or a list of at least one")
    statements = tuple(read(name, index, one, version != _OLDEST) for index, one in enumerate(listed))
    names = [name_of(statement) for statement in statements]
    for index, one in enumerate(names):
        if one in names[:index]:
            raise malformed(f"policy {name}: statement {index}: Sid", f"{one!r} is used twice; a Sid must be unique")
    return statements


def _read_statement(policy: str, index: int, data: Any, variables: bool) -> Statement:
    where = f"policy {policy}: statement {index}"
    check_elements(where, data, _STATEMENT_ELEMENTS, "Effect, Action and Resource")
    resources, not_resource = _either(where, data, "Resource")
    for resource in resources:
        if not resource.startswith(("arn:", "*")):
            raise malformed(f"{where}: Resource {resource!r}", "must be * or an ARN, which starts with arn:")
    read = tuple(template(resource, variables) for resource in resources)
    return read_rest(policy, index, data, variables=variables, resources=read, not_resource=not_resource)


def check_elements(where: str, data: Any, known: Collection[str], needed: str) -> None:
    """Raise MalformedPolicy unless a statement is an object of elements that this kind of policy has."""
    if not isinstance(data, dict):
        raise malformed(where, f"must be a JSON object with {needed}")
    for element in data:
        if element in ("Principal", "NotPrincipal") and "Resource" in known:
            raise malformed(f"{where}: {element}", "has no place in an identity-based policy")
        if element not in known:
            raise malformed(f"{where}: element {element!r}", f"is unknown; {_join(known)} exist")


def read_rest(
    policy: str,
    index: int,
    data: dict[str, Any],
    *,
    variables: bool,
    resources: tuple[Template, ...],
    not_resource: bool = False,
) -> Statement:
    """What statements of all kinds have: Sid, Effect, Action and Condition. Raises MalformedPolicy."""
    where = f"policy {policy}: statement {index}"
    sid = data.get("Sid", "")
    if not isinstance(sid, str):
        raise malformed(f"{where}: Sid", f"must be a string, not {sid!r}")
    effect = data.get("Effect")
    if effect not in ("Allow", "Deny"):
        raise malformed(f"{where}: Effect", f"must be Allow or Deny, not {effect!r}")
    allows = effect == "Allow"
    actions, not_action = _either(where, data, "Action")
    for action in actions:
        if action != "*" and not all(action.partition(":")):
            raise malformed(f"{where}: Action {action!r}", "must be * or service:Action, such as ec2:Describe*")
    return Statement(
        name=f"{policy}/{sid or index}",
        allows=allows,
        actions=tuple(action.lower() for action in actions),
        not_action=not_action,
        resources=resources,
        not_resource=not_resource,
        conditions=_read_conditions(where, data.get("Condition", {}), allows, variables),
    )


def _either(where: str, data: dict[str, Any], element: str) -> tuple[tuple[str, ...], bool]:
    """The strings of Action or NotAction (Resource or NotResource), and whether it is the negated one."""
    present = [name for name in (element, f"Not{element}") if name in data]
    if len(present) != 1:
        raise malformed(where, f"exactly one of {element} and Not{element} is needed, not {len(present)}")
    strings = data[present[0]]
    strings = [strings] if isinstance(strings, str) else strings
    if not isinstance(strings, list) or not strings or not all(isinstance(one, str) and one for one in strings):
        raise malformed(f"{where}: {present[0]}", "must be a string or a list of at least one")
    return tuple(strings), present[0] != element


def _read_conditions(where: str, data: Any, allows: bool, variables: bool) -> tuple[Condition, ...]:
    if not isinstance(data, dict) or not all(isinstance(keys, dict) for keys in data.values()):
        raise malformed(f"{where}: Condition", 'must have the form {"Operator": {"key": "value"}}')
    conditions = []
    for operator, keys in data.items():
        for key, values in keys.items():
            place = f"{where}: Condition: {operator}"
            listed = values if isinstance(values, list) else [values]
            texts = tuple(_text(f"{place}: {key}", value) for value in listed)
            try:
                conditions.append(read_condition(operator, key, texts, allows=allows, variables=variables))
            except ValueError as error:
                raise malformed(place, str(error)) from None
    return tuple(conditions)


def _text(where: str, value: Any) -> str:
    """A condition value as text; JSON numbers and truth values may stand without quotation marks."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise malformed(where, f"values are strings, numbers, true and false, not {value!r}")


def malformed(where: str, problem: str) -> MalformedPolicy:
    """The error for a place of a policy, and what would be right there."""
    return MalformedPolicy(f"{where}: {problem}")


def _join(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
