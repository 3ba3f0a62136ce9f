"""The Condition element: operators with their prefixes and suffixes, evaluated against a request's context.

All conditions of a statement must hold; of the values of one key, any (of a negated operator: none) must match.
Source: IAM User Guide, reference_policies_elements_condition_operators and
reference_policies_condition-single-vs-multi-valued-context-keys.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, Final, Literal

import msgspec

from wicketgate.iam.operators import OPERATORS, Operator
from wicketgate.iam.patterns import Context, lookup
from wicketgate.model.verdict import Reason

Quantifier = Literal["", "ForAllValues", "ForAnyValue"]
_IF_EXISTS: Final = "IfExists"


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """One operator applied to one context key."""

    written: str
    """The operator as the policy has it, with prefix and suffix."""
    operator: Operator
    quantifier: Quantifier
    if_exists: bool
    key: str
    values: tuple[str, ...]
    """As written."""
    wanted: tuple[Any, ...]
    """The values as the operator reads them."""
    allows: bool
    """Whether the statement is an Allow; see `_value_holds`."""

    def holds(self, context: Context) -> bool:
        """Whether the condition is met. Missing keys are AWS's rules: a negated operator holds, a plain one does not,
        IfExists and ForAllValues hold, ForAnyValue does not."""
        found = lookup(context, self.key)
        if self.operator.name == "Null":
            return ("true" if found is None else "false") in self.wanted
        if found is None:
            if self.if_exists or self.quantifier == "ForAllValues":
                return True
            return self.operator.negated and self.quantifier != "ForAnyValue"
        if self.quantifier == "ForAllValues":
            return all(self._value_holds(value, context) for value in found)
        if self.quantifier == "ForAnyValue" or not self.operator.negated:
            return any(self._value_holds(value, context) for value in found)
        return all(self._value_holds(value, context) for value in found)

    def _value_holds(self, value: str, context: Context) -> bool:
        """Whether one of the request's values satisfies the operator.

        A policy value whose variable has no value matches nothing. AWS says such a statement may be invalid; so that
        neither reading opens a door, "matches nothing" satisfies a negated operator in a Deny but not in an Allow.
        """
        negated = self.operator.negated
        for wanted in self.wanted:
            matched = self.operator.compare(value, wanted, context)
            if matched or (matched is None and negated and self.allows):
                return not negated
        return negated

    def shortfall(self, context: Context) -> Reason:
        """Why the condition does not hold: `NumericEquals ec2-instance-connect:remotePort 3389 is not 22`."""
        found = lookup(context, self.key)
        wanted = " or ".join(self.values)
        if self.operator.name == "Null":
            return shortfall("missing" if found is None else "present", operator=self.written, name=self.key)
        if found is None:
            return shortfall("absent", operator=self.written, name=self.key, wanted=wanted)
        return shortfall(
            "value",
            operator=self.written,
            name=self.key,
            found=", ".join(found),
            relation=self.operator.wording,
            wanted=wanted,
        )


SHORTFALLS: Final = {
    "missing": "{operator} {name} is missing",
    "present": "{operator} {name} is present",
    "absent": "{operator} {name} is not in the request (wanted {wanted})",
    "value": "{operator} {name} {found} {relation} {wanted}",
    "resource": "the resource {resource} is not {named}",
    "not-resource": "the resource {resource} is in NotResource {named}",
}
"""Everything that can keep a statement of the right action from allowing a request, by its key."""


def shortfall(key: str, /, **facts: str) -> Reason:
    """One of them, with its facts."""
    return Reason(key, SHORTFALLS[key], facts)


def read_condition(written: str, key: str, values: tuple[str, ...], *, allows: bool, variables: bool) -> Condition:
    """A condition from its text; raises ValueError that says what would be right."""
    operator, quantifier, if_exists = _read_operator(written)
    if key != key.strip() or ":" not in key:
        # A key with blanks around it would never be found in a request: its Deny would deny nothing.
        raise ValueError(f"{key!r} is not a condition key; one has the form service:Key, such as aws:SourceIp")
    if not values:
        raise ValueError(f"{key}: the list of values is empty; name at least one")
    wanted = []
    for value in values:
        try:
            wanted.append(operator.read(value, variables))
        except ValueError as error:
            raise ValueError(f"{key}: {value!r} cannot be compared, {error}") from None
    return Condition(
        written=written,
        operator=operator,
        quantifier=quantifier,
        if_exists=if_exists,
        key=key,
        values=values,
        wanted=tuple(wanted),
        allows=allows,
    )


def _read_operator(written: str) -> tuple[Operator, Quantifier, bool]:
    prefix, colon, rest = written.partition(":")
    quantifier: Quantifier = ""
    if colon:
        if prefix == "ForAllValues":
            quantifier = "ForAllValues"
        elif prefix == "ForAnyValue":
            quantifier = "ForAnyValue"
        else:
            raise ValueError(f"prefix {prefix!r} is unknown; ForAllValues and ForAnyValue exist")
    name = rest if colon else written
    if_exists = name.endswith(_IF_EXISTS)
    operator = OPERATORS.get(name.removesuffix(_IF_EXISTS))
    if operator is None:
        close = get_close_matches(name.removesuffix(_IF_EXISTS), OPERATORS, n=1, cutoff=0.5)
        raise ValueError(f"operator {name!r} is unknown" + (f"; is {close[0]} meant?" if close else ""))
    if if_exists and operator.name == "Null":
        raise ValueError("NullIfExists does not exist; Null itself asks whether the key exists")
    return operator, quantifier, if_exists
