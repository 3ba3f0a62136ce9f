"""Wildcards and policy variables: the two ways in which a policy's text is more than itself.

A value that replaces a variable is always taken literally: a user named `*` matches only itself. Variables exist in
policies of version 2012-10-17; in older ones `${aws:username}` is plain text. Source: IAM User Guide,
reference_policies_variables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

Context = Mapping[str, str | tuple[str, ...]]
"""The request context: values by key name. Names are in lower case, but for what follows the slash of a tag key, which
is there as written and, for look-ups in another case, once more in lower case; see `lookup`."""

ANY: Final = "any run of characters"
ONE: Final = "any one character"
Tokens = Sequence[str]
"""A pattern to match: single characters, and the wildcards ANY and ONE, which no single character equals."""

_variable = re.compile(r"\$\{\s*([^}]*?)\s*\}")
_with_default = re.compile(r"([^,]*?)\s*,\s*'([^']*)'")
_WILDCARDS: Final = {"*": ANY, "?": ONE}


def lookup(context: Context, key: str) -> tuple[str, ...] | None:
    """The values of a context key, None if the request has no such key.

    Key names are not case-sensitive, tag keys in them neither; where two tags differ in case only, the one spelled as
    the policy has it is meant.
    """
    prefix, slash, tag = key.partition("/")
    value = context.get(f"{prefix.lower()}/{tag}") if slash else None
    if value is None:
        value = context.get(key.lower())
    return (value,) if isinstance(value, str) else value


def matches(tokens: Tokens, text: str) -> bool:
    """Whether the whole text fits the pattern.

    Each run of characters between two ANY is taken at its first place for good, which is always right, and found by
    the standard library's search: the time is that of reading the text a few times, whoever wrote pattern and text.
    """
    first, *others = _runs(tokens)
    if not others:
        return len(first) == len(text) and _is_at(first, text, 0)
    *middle, last = others
    at, end = len(first), len(text) - len(last)
    if at > end or not _is_at(first, text, 0) or not _is_at(last, text, end):
        return False
    for run in middle:
        place = _find(run, text, at, end)
        if place < 0:
            return False
        at = place + len(run)
    return True


def _runs(tokens: Tokens) -> list[list[str]]:
    """What stands before, between and behind the ANYs."""
    runs: list[list[str]] = [[]]
    for token in tokens:
        if token == ANY:
            runs.append([])
        else:
            runs[-1].append(token)
    return runs


def _is_at(run: Tokens, text: str, place: int) -> bool:
    return all(token in (ONE, text[place + index]) for index, token in enumerate(run))


def _find(run: Tokens, text: str, start: int, end: int) -> int:
    """Where the run stands first in `text[start:end]`; -1 for nowhere."""
    if ONE not in run:
        return text.find("".join(run), start, end)
    written = "".join("." if token == ONE else re.escape(token) for token in run)
    found = re.compile(written, re.DOTALL).search(text, start, end)
    return -1 if found is None else found.start()


def wildcard_match(pattern: str, text: str) -> bool:
    """Whether the whole text fits a pattern with `*` (any run) and `?` (any one character); case-sensitive."""
    if "?" not in pattern:
        head, star, tail = pattern.partition("*")
        if not star:
            return pattern == text
        if not tail:
            return text.startswith(head)
    return matches([_WILDCARDS.get(character, character) for character in pattern], text)


class Variable(msgspec.Struct, frozen=True):
    """A reference to a context key: `${aws:username}` or `${aws:username, 'nobody'}`."""

    key: str
    default: str | None = None


class Template(msgspec.Struct, frozen=True):
    """A policy's text with its variables found. Without any, `parts` is empty and `text` is all there is."""

    text: str
    parts: tuple[str | Variable, ...] = ()
    """Plain text and variables in turn; `${*}`, `${?}` and `${$}` are variables whose value is known."""

    def literal(self, context: Context) -> str | None:
        """The text with variables replaced; None if one has no value. Wildcards have no meaning here."""
        if not self.parts:
            return self.text
        values = [part if isinstance(part, str) else resolve(part, context) for part in self.parts]
        return None if None in values else "".join(value for value in values if value is not None)

    def tokens(self, context: Context) -> Tokens | None:
        """The pattern with variables replaced by literal text; None if one has no value."""
        found: list[str] = []
        for part in self.parts or (self.text,):
            if isinstance(part, str):
                found += [_WILDCARDS.get(character, character) for character in part]
                continue
            value = resolve(part, context)
            if value is None:
                return None
            found += value
        return found

    def fits(self, text: str, context: Context) -> bool | None:
        """Whether `text` fits this pattern; None if a variable has no value."""
        if not self.parts:
            return wildcard_match(self.text, text)
        tokens = self.tokens(context)
        return None if tokens is None else matches(tokens, text)


def resolve(variable: Variable, context: Context) -> str | None:
    """The value of a variable, its default without one; a key with several values has none to use here."""
    values = lookup(context, variable.key)
    return values[0] if values is not None and len(values) == 1 else variable.default


def template(text: str, variables: bool) -> Template:
    """Find the variables of a text; none are looked for in policies whose version knows none."""
    if not variables or "${" not in text:
        return Template(text)
    parts: list[str | Variable] = []
    end = 0
    for found in _variable.finditer(text):
        parts += [text[end : found.start()], _read_variable(found.group(1))]
        end = found.end()
    return Template(text, (*parts, text[end:])) if parts else Template(text)


def _read_variable(inside: str) -> Variable:
    if inside in ("*", "?", "$"):
        return Variable("", inside)
    defaulted = _with_default.fullmatch(inside)
    return Variable(defaulted.group(1), defaulted.group(2)) if defaulted else Variable(inside)
