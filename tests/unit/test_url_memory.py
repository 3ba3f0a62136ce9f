"""Who used a presigned URL before, and how much of it netd remembers."""

from wicketgate.netd import reuse
from wicketgate.netd.reuse import UrlMemory


def test_policies():
    """A URL is its first source's while it is good; with `once` it is used up; with `any` nobody asks."""
    memory = UrlMemory()
    assert memory.refusal("a", "one", 10.0, 0.0, "same-source") is None
    assert memory.refusal("a", "one", 10.0, 1.0, "same-source") is None
    assert "first used from one, now from two" in (memory.refusal("a", "two", 10.0, 1.0, "same-source") or "")
    assert "used before" in (memory.refusal("a", "one", 10.0, 1.0, "once") or "")
    assert memory.refusal("a", "two", 10.0, 1.0, "any") is None
    assert memory.refusal("a", "two", 30.0, 11.0, "same-source") is None


def test_no_more_than_that(monkeypatch):
    """However many are named, memory ends; who is known is still known, and what has ended makes room."""
    monkeypatch.setattr(reuse, "MOST", 3)
    memory = UrlMemory()
    for number in range(3):
        assert memory.refusal(f"{number}", "one", 10.0 + number, 0.0, "same-source") is None
    assert "3 presigned URLs are in use" in (memory.refusal("x", "one", 10.0, 0.0, "same-source") or "")
    assert memory.refusal("1", "one", 10.0, 0.0, "same-source") is None
    assert memory.refusal("x", "one", 20.0, 10.5, "same-source") is None
