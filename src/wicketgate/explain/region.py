"""Sets of packets, exactly: unions of boxes over source address, protocol and destination port.

Security group rules only allow, and each is such a box, so whatever groups allow is a union of boxes: asking who can
reach what is set algebra, not sampling.

Three axes, each of whole numbers: the source address, all of IPv4 first and all of IPv6 after it; the protocol number;
the destination port. For ICMP and ICMPv6 the third is type and code (`type << 8 | code`), for other protocols than
these, TCP and UDP, it means nothing and every box has all of it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

IPV4_END = 2**32
"""The first number on the source axis that is no IPv4 address."""
SOURCE_END = IPV4_END + 2**128

Span = tuple[int, int]
"""From the first to the last, both in it."""

EVERY_SOURCE: Span = (0, SOURCE_END - 1)
EVERY_IPV4: Span = (0, IPV4_END - 1)
EVERY_IPV6: Span = (IPV4_END, SOURCE_END - 1)
EVERY_PROTOCOL: Span = (0, 255)
EVERY_PORT: Span = (0, 65535)


class Box(NamedTuple):
    """All packets within three spans."""

    sources: Span = EVERY_SOURCE
    protocols: Span = EVERY_PROTOCOL
    ports: Span = EVERY_PORT

    @property
    def size(self) -> int:
        """How many points it has."""
        count = 1
        for first, last in self:
            count *= last - first + 1
        return count

    def __and__(self, other: Box) -> Box | None:
        """What is in both; None for nothing."""
        spans = []
        for (first, last), (low, high) in zip(self, other):  # noqa: B905  # three and three: this is asked most of all
            if low > last or first > high:
                return None
            spans.append((first if first > low else low, last if last < high else high))
        return Box._make(spans)

    def without(self, other: Box) -> Iterator[Box]:
        """Disjoint boxes that together are what is in this and not in the other, at most six."""
        common = self & other
        if common is None:
            yield self
            return
        rest = list(self)
        for axis, ((first, last), (low, high)) in enumerate(zip(self, common, strict=True)):
            # What sticks out on this axis goes; what is left is within `common` here and is cut on the next axis.
            if first < low:
                yield Box._make((*rest[:axis], (first, low - 1), *rest[axis + 1 :]))
            if high < last:
                yield Box._make((*rest[:axis], (high + 1, last), *rest[axis + 1 :]))
            rest[axis] = (low, high)

    def covers(self, other: Box) -> bool:
        """Whether all of the other is in this."""
        return all(a <= c and d <= b for (a, b), (c, d) in zip(self, other, strict=True))


class Region:
    """A set of packets as disjoint boxes. Immutable; compared by content."""

    __slots__ = ("boxes",)

    def __init__(self, boxes: Iterable[Box] = ()) -> None:
        """The union of the boxes, which may overlap."""
        disjoint: list[Box] = []
        for box in sorted(boxes, key=lambda one: -one.size):  # large ones first: most small ones then vanish
            rest = [box]
            for there in disjoint:
                rest = [piece for one in rest for piece in one.without(there)]
                if not rest:
                    break
            disjoint += rest
        self.boxes = tuple(disjoint)

    @classmethod
    def of_disjoint(cls, boxes: Iterable[Box]) -> Region:
        """Boxes that are known to be disjoint."""
        region = cls.__new__(cls)
        region.boxes = tuple(boxes)
        return region

    def __bool__(self) -> bool:
        """Whether there is anything in it."""
        return bool(self.boxes)

    def __or__(self, other: Region) -> Region:
        """What is in either."""
        return Region.of_disjoint((*self.boxes, *(other - self).boxes))

    def __and__(self, other: Region) -> Region:
        """What is in both."""
        return Region.of_disjoint(
            common for one in self.boxes for two in other.boxes if (common := one & two) is not None
        )

    def __sub__(self, other: Region) -> Region:
        """What is in this and not in the other."""
        rest = list(self.boxes)
        for there in other.boxes:
            rest = [piece for one in rest for piece in one.without(there)]
            if not rest:
                break
        return Region.of_disjoint(rest)

    def __le__(self, other: Region) -> bool:
        """Whether all of this is in the other."""
        return not self - other

    def __eq__(self, other: object) -> bool:
        """Whether both are the same set, however it is cut into boxes."""
        return isinstance(other, Region) and self.size == other.size and self <= other

    def __hash__(self) -> int:
        """By size: the same set may be cut into other boxes."""
        return hash(self.size)

    def __repr__(self) -> str:
        return f"Region({list(self.merged())!r})"

    @property
    def size(self) -> int:
        """How many points it has."""
        return sum(box.size for box in self.boxes)

    def __contains__(self, point: tuple[int, int, int]) -> bool:
        """Whether a packet (source, protocol, port) is in it."""
        return any(
            all(first <= value <= last for value, (first, last) in zip(point, box, strict=True)) for box in self.boxes
        )

    def merged(self) -> tuple[Box, ...]:
        """The same in fewer boxes, in order, for showing: boxes that differ on one axis alone and touch become one."""
        boxes = list(self.boxes)
        for axis in (2, 1, 0, 2, 1) if len(boxes) > 1 else ():
            boxes = _joined(boxes, axis)
        return tuple(sorted(boxes))


EVERYTHING = Region((Box(),))
NOTHING = Region()


def _joined(boxes: list[Box], axis: int) -> list[Box]:
    """Boxes that are the same but for one axis, and touch there, as one."""
    rows: dict[tuple[Span, ...], list[Span]] = {}
    for box in boxes:
        rows.setdefault((*box[:axis], *box[axis + 1 :]), []).append(box[axis])
    found = []
    for others, spans in rows.items():
        spans.sort()
        joined = [spans[0]]
        for first, last in spans[1:]:
            if first <= joined[-1][1] + 1:
                joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
            else:
                joined.append((first, last))
        found += [Box._make((*others[:axis], span, *others[axis:])) for span in joined]
    return found


# -- addresses on the source axis --------------------------------------------------------------------------------------


@lru_cache(maxsize=65536)
def span_of(text: str) -> Span:
    """An address or a range, e.g. `10.0.0.0/8`, on the source axis. Raises ValueError for neither."""
    network = ipaddress.ip_network(text)
    start = 0 if network.version == 4 else IPV4_END
    first = start + int(network.network_address)
    return first, first + network.num_addresses - 1


def address_at(number: int) -> str:
    """The address at a place of the source axis."""
    if number < IPV4_END:
        return str(ipaddress.IPv4Address(number))
    return str(ipaddress.IPv6Address(number - IPV4_END))


def ranges_of(span: Span) -> list[str]:
    """A span of the source axis as the fewest ranges in CIDR notation, IPv4 first."""
    first, last = span
    found: list[str] = []
    if first < IPV4_END:
        end = min(last, IPV4_END - 1)
        networks = ipaddress.summarize_address_range(ipaddress.IPv4Address(first), ipaddress.IPv4Address(end))
        found += map(str, networks)
    if last >= IPV4_END:
        start = max(first, IPV4_END) - IPV4_END
        found += map(
            str,
            ipaddress.summarize_address_range(ipaddress.IPv6Address(start), ipaddress.IPv6Address(last - IPV4_END)),
        )
    return found
