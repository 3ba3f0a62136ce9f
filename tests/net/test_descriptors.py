"""More namespaces than libnftables can have descriptors for: select(2) takes none above 1023."""

import contextlib
from pathlib import Path

import pytest

from wicketgate.kernel import netns, nftables
from wicketgate.kernel.descriptors import FD_SETSIZE, allow_many
from wicketgate.kernel.nftables import Nftables
from wicketgate.kernel.outlines import Happenings


@pytest.fixture
def namespace():
    netns.create("vpc-0123456789abcdef0")
    yield "vpc-0123456789abcdef0"
    netns.delete("vpc-0123456789abcdef0")


def low_descriptors():
    return sum(int(path.name) < FD_SETSIZE for path in Path("/proc/self/fd").iterdir())


def test_many_namespaces(namespace, monkeypatch):
    """Each of 40 has sockets of ours, none of them in the way; contexts are made anew when they are needed again."""
    monkeypatch.setattr(nftables, "MOST_CONTEXTS", 8)
    allow_many()
    before = low_descriptors()
    with contextlib.ExitStack() as stack:
        handles = [stack.enter_context(contextlib.closing(Nftables(namespace))) for _ in range(40)]
        for one in handles:
            one.generation()
            stack.enter_context(contextlib.closing(Happenings(namespace)))
        assert low_descriptors() - before <= 8
        for number, one in enumerate(handles):
            one.run(f"add table inet t{number}")
        assert len(handles[0].listing("list tables")) == 41
    assert low_descriptors() == before


def test_a_context_above_what_select_takes_is_not_made(namespace):
    """The reason: with many descriptors open already, below as above the number, there is still room for a context."""
    allow_many()
    with contextlib.ExitStack() as stack:
        for _ in range(600):
            one = stack.enter_context(contextlib.closing(Nftables(namespace)))
            one.generation()
            stack.enter_context(contextlib.closing(Happenings(namespace)))
        one.run("add table inet t")
        assert one.listing("list table inet t")
