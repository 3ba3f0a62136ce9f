"""Set algebra on boxes, against sets of points on small axes."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from wicketgate.explain.region import (
    EVERY_IPV4,
    EVERY_IPV6,
    EVERYTHING,
    IPV4_END,
    NOTHING,
    Box,
    Region,
    address_at,
    ranges_of,
    span_of,
)

AXIS = range(4)
spans = st.tuples(st.sampled_from(AXIS), st.sampled_from(AXIS)).map(lambda ends: (min(ends), max(ends)))
boxes = st.builds(Box, spans, spans, spans)
regions = st.lists(boxes, max_size=5)


def points(boxes):
    """All points of some boxes."""
    return {
        point
        for point in product(AXIS, AXIS, AXIS)
        if any(all(a <= v <= b for v, (a, b) in zip(point, box, strict=True)) for box in boxes)
    }


@given(regions, regions)
def test_regions_are_sets(some, others):
    """Union, intersection, difference, inclusion, equality, size and membership are those of the sets of points."""
    one, two, a, b = Region(some), Region(others), points(some), points(others)
    for made, expected in ((one, a), (one | two, a | b), (one & two, a & b), (one - two, a - b)):
        assert points(made.boxes) == expected
        assert made.size == len(expected) == sum(box.size for box in made.merged())
        assert points(made.merged()) == expected
        assert bool(made) is bool(expected)
        assert all((point in made) is (point in expected) for point in product(AXIS, AXIS, AXIS))
        assert Region(made.merged()) == made
        assert hash(Region(made.merged())) == hash(made)
    assert (one <= two) is (a <= b)
    assert (one == two) is (a == b)


@given(boxes, boxes)
def test_what_is_cut_from_a_box_is_disjoint(one, other):
    """A box without another is at most six boxes that do not overlap."""
    rest = list(one.without(other))
    assert len(rest) <= 6
    assert sum(box.size for box in rest) == len(points(rest)) == len(points([one]) - points([other]))
    assert one.covers(other) is (points([other]) <= points([one]))


def test_both_families_are_on_one_axis():
    """IPv4 first, IPv6 after it, and back to text."""
    assert span_of("0.0.0.0/0") == EVERY_IPV4
    assert span_of("::/0") == EVERY_IPV6
    assert span_of("10.0.0.0/30") == (10 << 24, (10 << 24) + 3)
    assert span_of("::1/128") == (IPV4_END + 1, IPV4_END + 1)
    assert address_at(span_of("203.0.113.7/32")[0]) == "203.0.113.7"
    assert address_at(span_of("2001:db8::7/128")[0]) == "2001:db8::7"
    assert ranges_of((EVERY_IPV4[0], EVERY_IPV6[1])) == ["0.0.0.0/0", "::/0"]
    assert ranges_of((1, 4)) == ["0.0.0.1/32", "0.0.0.2/31", "0.0.0.4/32"]
    assert ranges_of((EVERY_IPV4[1], EVERY_IPV6[0])) == ["255.255.255.255/32", "::/128"]


def test_everything_and_nothing():
    """The whole set and the empty one."""
    assert not NOTHING
    assert EVERYTHING - EVERYTHING == NOTHING
    assert NOTHING <= EVERYTHING
    assert (EVERYTHING - Region((Box((0, 9)),)) | Region((Box((0, 9)),))) == EVERYTHING
