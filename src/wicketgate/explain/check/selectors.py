"""Whom and what the words of a check mean in a World.

A selector is a text or a list of texts; what one of them means counts, and what a text after `not` means does not.
With such texts alone everything else counts. A text that means nothing is a mistake: a check of nothing cannot fail.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from wicketgate.explain.check.language import Word
from wicketgate.explain.reach_principals import Who
from wicketgate.explain.region import EVERY_SOURCE, NOTHING, Box, Region, span_of
from wicketgate.iam import wildcard_match
from wicketgate.model import Endpoint, NetworkInterface, World
from wicketgate.tunnel.targets import SPECIAL

_T = TypeVar("_T")
_is_machine_id = re.compile(r"(?:i|eni|sg|subnet|vpc)-[0-9a-zA-Z]+").fullmatch
_is_range = re.compile(r"[0-9a-fA-F:.]+(?:/[0-9]{1,3})?").fullmatch
_tag = re.compile(r"tag ([^=]{1,128})=(.*)").fullmatch

PRIVATE: Final = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7", "fec0::/10")
"""What is not routed on the internet beside what names no ordinary host (RFC 1918, RFC 6598, RFC 4193, RFC 3879)."""


def is_about_clients(words: Iterable[Word]) -> bool:
    """Whether a `from` means clients' addresses, by its first text; otherwise it means machines."""
    first = next(iter(words)).text.removeprefix("not ")
    return first in ("anywhere", "internet") or bool(_is_range(first))


def principals(everybody: Sequence[Who], world: World, words: tuple[Word, ...], *, sessions: bool) -> tuple[Who, ...]:
    """The principals meant. `sessions`: whether a role's name means the sessions that it has as well."""
    anyone = [who for who in everybody if who.name != "root" and (sessions or not _is_session(who))]
    return _chosen(words, anyone, everybody, lambda word: _meant_principals(world, word, sessions), "nobody")


def _is_session(who: Who) -> bool:
    return who.principal.type == "AssumedRole" and who.credentials != "to-assume"


def _meant_principals(world: World, word: Word, sessions: bool) -> Callable[[Who], bool]:
    kind, _, name = word.text.partition(" ")
    if word.text in ("anyone", "root"):
        return (lambda who: who.name != "root") if word.text == "anyone" else (lambda who: who.name == "root")
    if kind == "user" and name:
        return lambda who: who.principal.type == "IAMUser" and wildcard_match(name, who.name)
    if kind == "role" and name:
        alone = "/" not in name and not sessions
        return lambda who: _is_of_role(who, name) and not (alone and _is_session(who))
    if kind == "iam-group" and name:
        return lambda who: who.principal.type == "IAMUser" and _is_in(world, who.name, name)
    if tag := _tag(word.text):
        return lambda who: _has_tag(who.principal.tags, *tag.groups()) and (sessions or not _is_session(who))
    raise word.wrong("who")


def _is_of_role(who: Who, name: str) -> bool:
    """A role by its name with all its sessions, or a session by both names."""
    if who.principal.type != "AssumedRole":
        return False
    role, _, session = who.principal.name.partition("/")
    return wildcard_match(name, f"{role}/{session}" if "/" in name else role)


def _is_in(world: World, user_name: str, group: str) -> bool:
    user = world.user(user_name)
    return user is not None and any(wildcard_match(group, one) for one in user.groups)


def _has_tag(tags: dict[str, str], key: str, value: str) -> bool:
    return key in tags and wildcard_match(value, tags[key])


# -- machines and endpoints --------------------------------------------------------------------------------------------


def machines(world: World, words: tuple[Word, ...]) -> tuple[NetworkInterface, ...]:
    """The network interfaces meant. Endpoints' own are never: tunnels alone come out of them, and nothing goes in."""
    every = [eni for eni in world.interfaces if world.endpoint_of_interface(eni.id) is None]
    return _chosen(words, every, every, lambda word: _meant_machines(world, word), "machine")


def _meant_machines(world: World, word: Word) -> Callable[[NetworkInterface], bool]:
    given = word.text
    kind, _, name = given.partition(" ")
    if given == "everything":
        return lambda eni: True
    if _is_machine_id(given):
        return lambda eni: given in _ids(world, eni)
    if _is_range(given):
        span = _span(word)
        return lambda eni: any(span[0] <= span_of(one)[0] <= span[1] for one in eni.addresses)
    if kind == "group" and name:
        return lambda eni: any(
            wildcard_match(name, group.name) for group in filter(None, map(world.group, eni.group_ids))
        )
    if kind == "instance" and name:
        return lambda eni: any(wildcard_match(name, one) for one in _names(world, eni))
    if tag := _tag(given):
        return lambda eni: any(_has_tag(tags, *tag.groups()) for tags in _tags(world, eni))
    raise word.wrong("machines")


def _ids(world: World, eni: NetworkInterface) -> set[str]:
    instance = world.instance_of_interface(eni.id)
    found = {eni.id, eni.subnet_id, world.vpc_of_subnet(eni.subnet_id).id, *eni.group_ids}
    return found if instance is None else found | {instance.id}


def _names(world: World, eni: NetworkInterface) -> set[str]:
    instance = world.instance_of_interface(eni.id)
    return set() if instance is None else {instance.name, instance.tags.get("Name", "")} - {""}


def _tags(world: World, eni: NetworkInterface) -> list[dict[str, str]]:
    instance = world.instance_of_interface(eni.id)
    return [eni.tags] if instance is None else [eni.tags, instance.tags]


def endpoints(world: World, words: tuple[Word, ...]) -> frozenset[str]:
    """Ids of the endpoints meant."""
    found = _chosen(words, world.endpoints, world.endpoints, _meant_endpoints, "endpoint")
    return frozenset(one.id for one in found)


def _meant_endpoints(word: Word) -> Callable[[Endpoint], bool]:
    if word.text == "any":
        return lambda endpoint: True
    if word.text.startswith("eice-"):
        return lambda endpoint: endpoint.id == word.text
    if tag := _tag(word.text):
        return lambda endpoint: _has_tag(endpoint.tags, *tag.groups())
    raise word.wrong("endpoints")


def _chosen(
    words: tuple[Word, ...],
    every: Sequence[_T],
    nameable: Sequence[_T],
    meant: Callable[[Word], Callable[[_T], bool]],
    nothing: str,
) -> tuple[_T, ...]:
    """Of all things those that the words mean. `nameable`: those that a word may name beside `every`."""
    wanted: list[int] = []
    without: set[int] = set()
    positive = False
    for word in words:
        negative = word.text.startswith("not ")
        test = meant(word._replace(text=word.text.removeprefix("not ")))
        found = [number for number, one in enumerate(nameable) if test(one)]
        if not found:
            raise word.wrong(nothing)
        if negative:
            without.update(found)
        else:
            positive = True
            wanted += found
    if not positive:
        wanted = [number for number, one in enumerate(nameable) if any(one is other for other in every)]
    chosen = tuple(nameable[number] for number in dict.fromkeys(wanted) if number not in without)
    if not chosen:
        raise words[0].wrong(nothing)
    return chosen


# -- clients -----------------------------------------------------------------------------------------------------------


def clients(words: tuple[Word, ...]) -> Region:
    """The clients' addresses meant, as a region."""
    wanted, without = NOTHING, NOTHING
    for word in words:
        negative = word.text.startswith("not ")
        region = _addresses(word._replace(text=word.text.removeprefix("not ")))
        if negative:
            without |= region
        else:
            wanted |= region
    everyone = Region((_box(EVERY_SOURCE),))
    if all(word.text.startswith("not ") for word in words):
        wanted = everyone
    chosen = wanted - without
    if not chosen:
        raise words[0].wrong("clients")
    return chosen


def _addresses(word: Word) -> Region:
    if word.text == "anywhere":
        return Region((_box(EVERY_SOURCE),))
    if word.text == "internet":
        return Region((_box(EVERY_SOURCE),)) - not_internet()
    return Region((_box(_span(word)),))


def not_internet() -> Region:
    """Addresses that no client on the internet has."""
    ranges = (*PRIVATE, *(str(network) for network, _ in SPECIAL))
    return Region(_box(span_of(one)) for one in ranges)


def special() -> Region:
    """Addresses that name no ordinary host."""
    return Region(_box(span_of(str(network))) for network, _ in SPECIAL)


def _box(span: tuple[int, int]) -> Box:
    """All clients of a span, on the axes of `reach`: address, duration, port."""
    return Box(span, EVERY_SOURCE)


def _span(word: Word) -> tuple[int, int]:
    try:
        return span_of(word.text)
    except ValueError as error:
        raise word.wrong("clients") from error
