"""A file of checks (YAML) as it is written: every value with its place, nothing looked up yet.

    checks:
      - never: nobody outside ops reaches the databases      # never or always: the name
        who: not iam-group ops                               # principals
        from: internet                                       # clients' addresses, or machines
        through: eice-0123456789abcdef0                      # endpoints
        to: tag Tier=db                                      # machines
        port: 22

`docs/check.md` describes it. Mistakes are told with line, column, what was found and what would be right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, Literal, NamedTuple

import yaml

from wicketgate.explain.answer import Say
from wicketgate.explain.check.words import text
from wicketgate.explain.region import EVERY_PORT, EVERY_PROTOCOL, EVERY_SOURCE, Box
from wicketgate.explain.words import Language
from wicketgate.model import PROTOCOL_NUMBERS, WicketgateError

Verb = Literal["never", "always"]
VERBS: Final[tuple[Verb, ...]] = ("never", "always")
KEYS: Final = ("who", "from", "through", "to", "port", "duration")
_port = re.compile(r"(?:(tcp|udp) )?(\d{1,5})(?:-(\d{1,5}))?").fullmatch
_type = re.compile(r"(icmp|icmpv6)(?: (\d{1,3}))?").fullmatch
_protocol = re.compile(r"protocol (\d{1,3})").fullmatch


class Place(NamedTuple):
    """Where something is written; counted from 1."""

    line: int
    column: int


class Mistake(WicketgateError):
    """A file of checks that cannot be run; `str(error)` says where, what was found and what would be right."""

    code = "InvalidChecks"
    http_status = 400

    def __init__(self, file: str, place: Place, say: Say) -> None:
        self.file, self.place, self.say = file, place, say
        super().__init__(self.worded())

    def worded(self, language: Language = "en") -> str:
        """One line: file, line, column, and what is wrong there."""
        return f"{self.file}:{self.place.line}:{self.place.column}: {text(self.say, language)}"


class Word(NamedTuple):
    """One text of the file."""

    text: str
    place: Place
    file: str

    def wrong(self, expected: str, /, **facts: str) -> Mistake:
        """The mistake of standing here instead of what was expected, a key of the words."""
        say = Say("found", {"found": repr(self.text)}, {"expected": (Say(f"expected-{expected}", facts),)})
        return Mistake(self.file, self.place, say)


class Written(NamedTuple):
    """One check as it is written."""

    verb: Verb
    name: Word
    values: Mapping[str, tuple[Word, ...]]
    """Key -> its texts; a single one is a list of one."""

    @property
    def place(self) -> Place:
        """Where it begins."""
        return self.name.place


def read(content: str, file: str) -> tuple[Written, ...]:
    """The checks of a file. Raises Mistake for the first thing that is wrong."""
    try:
        node = yaml.compose(content, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = Place(mark.line + 1, mark.column + 1) if mark else Place(1, 1)
        raise Mistake(file, place, Say("not-yaml", {"reason": str(error.problem or error.context)})) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise Mistake(file, Place(1, 1), Say("not-yaml", {"reason": str(error)})) from error
    if node is None:
        raise Mistake(file, Place(1, 1), Say("found-nothing", parts={"expected": (Say("expected-file"),)}))
    return tuple(_Reader(file).checks(node))


class _Reader:
    """Walks the file once."""

    def __init__(self, file: str) -> None:
        self._file = file

    def checks(self, node: yaml.Node) -> Iterator[Written]:
        top = self._mapping(node, "file")
        for key in top:
            if key.text != "checks":
                raise key.wrong("file")
        listed = next(iter(top.values()), None)
        if not isinstance(listed, yaml.SequenceNode) or not listed.value:
            raise self._wrong(listed or node, "checks")
        names: set[str] = set()
        for one in listed.value:
            check = self._check(one)
            if check.name.text in names:
                raise check.name.wrong("name")
            names.add(check.name.text)
            yield check

    def _check(self, node: yaml.Node) -> Written:
        values: dict[str, tuple[Word, ...]] = {}
        for key, value in self._mapping(node, "check").items():
            if key.text not in (*VERBS, *KEYS):
                raise key.wrong("key", keys=", ".join((*VERBS, *KEYS)))
            values[key.text] = self._words(value)
        verbs = [verb for verb in VERBS if verb in values]
        if len(verbs) != 1:
            raise self._wrong(node, "verb")
        verb = verbs[0]
        needed = ("to",) if verb == "never" else ("to", "port")
        lacking = [one for one in needed if one not in values]
        if lacking or not {"who", "from"} & set(values):
            raise self._wrong(node, "needed", key=lacking[0] if lacking else "who")
        name, *more = values.pop(verb)
        if more or not name.text.strip():
            raise name.wrong("name")
        return Written(verb, name, values)

    def _mapping(self, node: yaml.Node, expected: str) -> dict[Word, yaml.Node]:
        if not isinstance(node, yaml.MappingNode) or not node.value:
            raise self._wrong(node, expected)
        found: dict[Word, yaml.Node] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._wrong(key, expected)
            word = self._word(key)
            if any(word.text == other.text for other in found):
                raise word.wrong("once")
            found[word] = value
        return found

    def _words(self, node: yaml.Node) -> tuple[Word, ...]:
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for one in nodes:
            if not isinstance(one, yaml.ScalarNode) or not one.value:
                raise self._wrong(one, "texts")
        if not nodes:
            raise self._wrong(node, "texts")
        return tuple(map(self._word, nodes))

    def _word(self, node: yaml.ScalarNode) -> Word:
        return Word(str(node.value), _place(node), self._file)

    def _wrong(self, node: yaml.Node, expected: str, **facts: str) -> Mistake:
        key = "found-mapping" if isinstance(node, yaml.MappingNode) else "found-list"
        say = Say(key, parts={"expected": (Say(f"expected-{expected}", facts),)})
        if isinstance(node, yaml.ScalarNode):
            return self._word(node).wrong(expected, **facts)
        return Mistake(self._file, _place(node), say)


def _place(node: yaml.Node) -> Place:
    return Place(node.start_mark.line + 1, node.start_mark.column + 1)


# -- ports -------------------------------------------------------------------------------------------------------------


def packets(words: tuple[Word, ...]) -> list[Box]:
    """The protocols and ports that texts mean, from every source. Raises Mistake."""
    return [_packets(word) for word in words]


def _packets(word: Word) -> Box:
    if word.text == "any":
        return Box()
    if found := _port(word.text):
        protocol, first, last = found.groups()
        ports = (int(first), int(last or first))
        if ports[0] > ports[1] or ports[1] > EVERY_PORT[1]:
            raise word.wrong("port")
        number = PROTOCOL_NUMBERS[protocol or "tcp"]
        return Box(EVERY_SOURCE, (number, number), ports)
    if found := _type(word.text):
        number, kind = PROTOCOL_NUMBERS[found[1]], found[2]
        if kind is not None and int(kind) > 255:
            raise word.wrong("port")
        ports = EVERY_PORT if kind is None else (int(kind) << 8, int(kind) << 8 | 255)
        return Box(EVERY_SOURCE, (number, number), ports)
    if (found := _protocol(word.text)) and int(found[1]) <= EVERY_PROTOCOL[1]:
        return Box(EVERY_SOURCE, (int(found[1]), int(found[1])), EVERY_PORT)
    raise word.wrong("port")


def seconds(words: tuple[Word, ...], most: int) -> int:
    """A duration. Raises Mistake."""
    (word, *more) = words
    if more or not re.fullmatch(r"[1-9][0-9]{0,8}", word.text) or int(word.text) > most:
        raise word.wrong("duration", most=str(most))
    return int(word.text)
