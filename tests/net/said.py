"""What a remedy says that it opens, read back from its sentences: which flows are meant."""

import ipaddress
import re
from dataclasses import dataclass

from wicketgate.explain import text

NUMBERS = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58}


@dataclass(frozen=True)
class Part:
    """One sentence: a content and, perhaps, from where."""

    words: str
    protocols: range
    ports: range
    sources: tuple
    """Ranges, each a first and a last address; empty for whatever the sender sends from."""

    def covers(self, plan):
        """Whether the sentence means a flow."""
        if plan.protocol not in self.protocols or plan.port not in self.ports:
            return False
        if not self.sources:
            return True
        source = ipaddress.ip_address(plan.source)
        return any(first.version == source.version and first <= source <= last for first, last in self.sources)


@dataclass(frozen=True)
class Said:
    """All that is said of a pair of interfaces."""

    parts: tuple
    addresses: tuple
    """Which of the receiver's are meant; empty = all."""

    def covers(self, plan):
        """Whether a flow between them is meant."""
        if self.addresses and plan.destination not in self.addresses:
            return False
        return any(part.covers(plan) for part in self.parts)

    def __str__(self):
        return ", ".join(self.addresses) + " " + "; ".join(part.words for part in self.parts)


def says_of(opening):
    """What an Opening says, from its English words alone."""
    return Said(tuple(_part(text(one)) for one in opening.what), opening.addresses)


def _part(words):
    content, _, sources = words.partition(" from ")
    protocols, ports = _content(content)
    return Part(words, protocols, ports, tuple(_range(one) for one in sources.split(", ") if one))


def _content(content):
    every = range(65536)
    if content == "all traffic":
        return range(256), every
    if found := re.fullmatch(r"protocols (\d+)-(\d+)(?: (\d+)(?:-(\d+))?)?", content):
        first, last, low, high = found.groups()
        return range(int(first), int(last) + 1), every if low is None else range(int(low), int(high or low) + 1)
    name, _, rest = content.partition(" ")
    number = int(rest) if name == "protocol" else NUMBERS.get(name) or int(name)
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", rest) if name in ("tcp", "udp") else None
    ports = range(int(found[1]), int(found[2] or found[1]) + 1) if found else every
    return range(number, number + 1), ports


def _range(one):
    if "/" in one:
        network = ipaddress.ip_network(one)
        return network[0], network[-1]
    first, _, last = one.partition("-")
    return ipaddress.ip_address(first), ipaddress.ip_address(last or first)
