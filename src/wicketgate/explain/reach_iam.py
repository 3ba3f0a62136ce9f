"""What a principal's policies allow of tunnels, as a set instead of an answer about one request.

For one endpoint and one target address the answer is a `Region` over the client's address, the tunnel's duration in
seconds and the port: TCP alone comes out of tunnels, so the axis that elsewhere is the protocol is the duration here.
Where a condition starts and stops to hold is read from its values; whether it holds there is asked of the condition
itself, which is the one that is enforced. `tests/unit/test_reach.py` holds both against each other.

What cannot be known beforehand (the user agent; of a role that nobody has assumed, who will be who) or is no set of
spans makes two answers: what is allowed for certain, and what may be.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

from wicketgate import iam
from wicketgate.admit import OPEN_TUNNEL, caller_context, tunnel_context
from wicketgate.explain.reach_principals import Who
from wicketgate.explain.region import EVERY_SOURCE, IPV4_END, NOTHING, Box, Region, Span, address_at, span_of
from wicketgate.iam.conditions import Condition
from wicketgate.iam.operators import Block
from wicketgate.iam.patterns import ANY, ONE, Template, lookup
from wicketgate.model import Endpoint, World
from wicketgate.tunnel.targets import parse_address

SOURCE: Final = "aws:sourceip"
DURATION: Final = "ec2-instance-connect:maxtunnelduration"
PORT: Final = "ec2-instance-connect:remoteport"
ADDRESS: Final = "ec2-instance-connect:privateipaddress"
AXES: Final = (SOURCE, DURATION, PORT)
"""In the order of a region's axes."""
MOST_SPANS: Final = 256
"""A condition that holds on more spans than this, such as a port like `*2`, is told as one that it depends on."""
_ACTION: Final = OPEN_TUNNEL.lower()
_octets = re.compile(r"(?:[0-9]{1,3}\.){1,3}").fullmatch
_LITERAL: Final = ("StringEquals", "StringNotEquals", "StringEqualsIgnoreCase", "StringNotEqualsIgnoreCase")
_PATTERN: Final = ("StringLike", "StringNotLike")

Spans = tuple[Span, ...]


class Allowance(NamedTuple):
    """What policies allow: for certain, and at most."""

    certain: Region
    possible: Region
    depends: frozenset[str] = frozenset()
    """What decides about the rest: context keys and statements, `aws:UserAgent (ops/Sid)`."""


class Universe(NamedTuple):
    """Everything that a tunnel may be asked for."""

    durations: Span
    ports: Spans

    def region(self, sources: Spans = (EVERY_SOURCE,)) -> Region:
        """All of it, from some clients."""
        return Region(Box(source, self.durations, ports) for source in sources for ports in self.ports)


def universe(world: World) -> Universe:
    """What the settings offer. A duration that is left out is the longest."""
    settings = world.settings
    ports = tuple((port, port) for port in sorted(set(settings.allowed_ports))) or ((1, 65535),)
    return Universe((1, settings.max_tunnel_duration), ports)


class _Held(NamedTuple):
    """Where a condition holds on one axis; `axis` None: everywhere or nowhere, `spans` then is one or none."""

    axis: int | None
    spans: Spans


class Reading:
    """The policies of one principal, and the keys of a request that they ask about."""

    def __init__(self, world: World, who: Who, at: float) -> None:
        self.who = who
        self._world = world
        self._universe = universe(world)
        context = caller_context(world, who.principal, "", "", at)
        self._caller = context
        self.sets: list[tuple[iam.Statement, ...]] | None = []
        principal = who.principal
        try:
            for policies in (principal.policies, principal.session_policies):
                if policies is not None:
                    self.sets.append(tuple(one for one in iam.read_policies(policies) if one.names_action(_ACTION)))
        except iam.MalformedPolicy:
            self.sets = None
        self.root = principal.type == "Root"
        self.asks_address = ADDRESS in self.asked_keys()
        self._signatures: dict[str, tuple[Any, ...]] = {}
        self._known: dict[tuple[Any, ...], _Held | None] = {}

    def _statements(self) -> Iterator[iam.Statement]:
        for statements in self.sets or ():
            yield from statements

    def asked_keys(self) -> set[str]:
        """Every context key that some statement looks at."""
        found: set[str] = set()
        for statement in self._statements():
            for resource in statement.resources:
                found |= _variables(resource)
            for condition in statement.conditions:
                found |= depends_on(condition)
        return found

    @property
    def likeness(self) -> tuple[Any, ...]:
        """Equal for principals to whom the same statements apply in the same way."""
        statements = None if self.sets is None else tuple(tuple(map(id, one)) for one in self.sets)
        values = tuple(sorted((key, lookup(self._caller, key)) for key in self.asked_keys() - set(AXES)))
        return self.root, statements, values, self.who.unsettled if self.asked_keys() & self.who.unsettled else ()

    def signature(self, address: str) -> tuple[Any, ...]:
        """Equal for target addresses that no statement tells apart."""
        if address not in self._signatures:
            self._signatures[address] = self._sign(address)
        return self._signatures[address]

    def _sign(self, address: str) -> tuple[Any, ...]:
        context = {**self._caller, ADDRESS: address}
        found: list[Any] = []
        for statement in self._statements():
            if any(ADDRESS in _variables(one) for one in statement.resources):
                return (address,)
            for condition in statement.conditions:
                if ADDRESS in depends_on(condition):
                    if depends_on(condition) != {ADDRESS}:
                        return (address,)
                    found.append(condition.holds(context))
        return tuple(found)

    def allowance(self, endpoint: Endpoint, address: str) -> Allowance:
        """What the policies allow towards a target by an endpoint."""
        if self.root:
            whole = self._universe.region()
            return Allowance(whole, whole)
        if self.sets is None:
            return Allowance(NOTHING, NOTHING)
        context = self._caller | tunnel_context(0, address, 0, endpoint)
        resource = self._world.endpoint_arn(endpoint.id)
        found: Allowance | None = None
        for statements in self.sets:
            one = self._set(statements, resource, context)
            found = one if found is None else _both(found, one)
        assert found is not None, "every principal has identity-based policies, be it none"
        return found if found.possible != found.certain else Allowance(found.certain, found.certain)

    def _set(self, statements: Sequence[iam.Statement], resource: str, context: dict[str, str]) -> Allowance:
        allowed: tuple[list[Box], list[Box]] = ([], [])
        denied: tuple[list[Box], list[Box]] = ([], [])
        depends: set[str] = set()
        for statement in statements:
            certain, possible, why = self._statement(statement, resource, context)
            sides = allowed if statement.allows else denied
            sides[0].extend(certain)
            sides[1].extend(possible)
            depends |= why
        return Allowance(
            Region(allowed[0]) - Region(denied[1]), Region(allowed[1]) - Region(denied[0]), frozenset(depends)
        )

    def _statement(
        self, statement: iam.Statement, resource: str, context: dict[str, str]
    ) -> tuple[list[Box], list[Box], set[str]]:
        """Where a statement applies for certain, and where it may; why these differ."""
        axes: list[Spans] = [(EVERY_SOURCE,), (self._universe.durations,), self._universe.ports]
        unknown: set[str] = set()
        varying = {key for one in statement.resources for key in _variables(one)} & self._open
        if varying:
            unknown |= varying
        elif not statement.names_resource(resource, context):
            return [], [], set()
        for condition in statement.conditions:
            held = self._held(condition, context)
            if held is None:
                unknown.add(condition.key)
            elif held.axis is not None:
                axes[held.axis] = _common(axes[held.axis], held.spans)
            elif not held.spans:
                return [], [], set()
        boxes = [Box(source, duration, port) for source in axes[0] for duration in axes[1] for port in axes[2]]
        if not unknown or not boxes:
            return boxes, boxes, set()
        return [], boxes, {f"{key} ({statement.name})" for key in unknown}

    @property
    def _open(self) -> frozenset[str]:
        """What is not settled by who asks for which endpoint and address."""
        return frozenset(AXES) | self.who.unsettled

    def _held(self, condition: Condition, context: dict[str, str]) -> _Held | None:
        keys = depends_on(condition)
        known = (id(condition), *(lookup(context, key) for key in sorted(keys - self._open)))
        if known not in self._known:
            self._known[known] = self._find(condition, keys, context)
        return self._known[known]

    def _find(self, condition: Condition, keys: frozenset[str], context: dict[str, str]) -> _Held | None:
        """Where a condition holds; None when that is no set of spans of one axis."""
        varying = keys & set(AXES)
        if keys & self.who.unsettled or len(varying) > 1:
            return None
        if not varying:
            return _Held(None, (EVERY_SOURCE,) if condition.holds(context) else ())
        (key,) = varying
        axis = AXES.index(key)
        whole = (EVERY_SOURCE, self._universe.durations, (1, 65535))[axis]
        starts = _source_starts(condition, context) if key == SOURCE else _number_starts(condition, context, whole)
        if starts is None:
            return None
        spans = _where(condition, context, key, sorted(starts), whole)
        return _Held(axis, spans) if len(spans) <= MOST_SPANS else None


def depends_on(condition: Condition) -> frozenset[str]:
    """The context keys that a condition looks at, tag keys as written, all others in lower case."""
    found = {_normal(condition.key)}
    for wanted in condition.wanted:
        for part in wanted if isinstance(wanted, tuple) else (wanted,):
            if isinstance(part, Template):
                found |= _variables(part)
    return frozenset(found)


def _variables(template: Template) -> set[str]:
    return {_normal(part.key) for part in template.parts if not isinstance(part, str) and part.key}


def _normal(key: str) -> str:
    prefix, slash, tag = key.partition("/")
    return f"{prefix.lower()}{slash}{tag}"


def _both(one: Allowance, other: Allowance) -> Allowance:
    return Allowance(one.certain & other.certain, one.possible & other.possible, one.depends | other.depends)


def _common(some: Spans, others: Spans) -> Spans:
    pairs = ((max(a, c), min(b, d)) for a, b in some for c, d in others)
    return tuple((first, last) for first, last in pairs if first <= last)


def _where(condition: Condition, context: dict[str, str], key: str, starts: Sequence[int], whole: Span) -> Spans:
    """The spans, of those that begin at `starts`, in which the condition holds; those that touch as one."""
    request = dict(context)
    found: list[Span] = []
    inside = [start for start in starts if whole[0] < start <= whole[1]]
    for first, after in zip([whole[0], *inside], [*inside, whole[1] + 1], strict=True):
        request[key] = address_at(first) if key == SOURCE else str(first)
        if not condition.holds(request):
            continue
        if found and found[-1][1] == first - 1:
            found[-1] = (found[-1][0], after - 1)
        else:
            found.append((first, after - 1))
    return tuple(found)


# -- where a condition can change its mind -----------------------------------------------------------------------------


def _source_starts(condition: Condition, context: dict[str, str]) -> set[int] | None:
    """On the axis of clients' addresses; None where the condition is no set of ranges."""
    if _normal(condition.key) != SOURCE:
        return None  # another key compared with ${aws:SourceIp}
    name, starts = condition.operator.name, {0, IPV4_END}
    if name.startswith("Arn"):
        return None  # the colons of an IPv6 address make parts
    for wanted in condition.wanted:
        if isinstance(wanted, Block):
            base = 0 if wanted.version == 4 else IPV4_END
            starts |= {base + wanted.first, base + wanted.last + 1}
        elif isinstance(wanted, Template):
            span = _literal_span(name, wanted, context)
            if span is None:
                return None
            starts |= {span[0], span[1] + 1}
    return starts


def _literal_span(name: str, wanted: Template, context: dict[str, str]) -> Span | None:
    """The addresses that a text means, as a span; all of them for one that means none or every one."""
    tokens = wanted.tokens(context) if name in _PATTERN else wanted.literal(context)
    if tokens is None or (tokens and all(token == ANY for token in tokens)):
        return EVERY_SOURCE
    text = "".join(tokens)
    if isinstance(tokens, str) or (ANY not in tokens and ONE not in tokens):
        return EVERY_SOURCE if parse_address(text) is None else span_of(str(parse_address(text)))
    octets = "".join(tokens[:-1])
    if tokens[-1] == ANY and _octets(octets):
        count = octets.count(".")
        block = f"{octets}{'0.' * (4 - count)}".rstrip(".") + f"/{8 * count}"
        return EVERY_SOURCE if _out_of_range(octets) else span_of(block)
    return None


def _out_of_range(octets: str) -> bool:
    """Whether no address begins so."""
    return any(part != str(int(part)) or int(part) > 255 for part in octets.rstrip(".").split("."))


def _number_starts(condition: Condition, context: dict[str, str], whole: Span) -> Iterable[int]:
    """On an axis of numbers: at each of them, where it cannot be read from the condition's values."""
    name, starts = condition.operator.name, set[int]()
    for wanted in condition.wanted:
        if isinstance(wanted, Decimal):
            starts |= {math.ceil(wanted), math.floor(wanted) + 1}
            continue
        if name not in _LITERAL or not isinstance(wanted, Template) or _variables(wanted) & set(AXES):
            return range(whole[0], whole[1] + 1)
        text = wanted.literal(context)
        if text is not None and text.isascii() and text.isdecimal():
            starts |= {int(text), int(text) + 1}
    return starts if _normal(condition.key) in AXES else range(whole[0], whole[1] + 1)
