"""These tests change network namespaces, so they run inside the sandbox only (`make test-net`)."""

import pytest

from wicketgate.kernel.fabric import Fabric
from wicketgate.lab import sandbox
from wicketgate.model import World
from wicketgate.rules import groups


def pytest_configure(config):
    """Refuse to touch a real machine's network."""
    if not sandbox.inside():
        pytest.exit("run network tests through the sandbox: python -m wicketgate.lab.sandbox -- pytest tests/net", 3)


@pytest.fixture(autouse=True)
def cells_however_few(request, monkeypatch):
    """Where random Worlds are tried, a single rule that overlaps no other is a cell: their groups are small."""
    if "differential" in request.module.__name__:
        monkeypatch.setattr(groups, "FEWEST_CELLS", 1)


@pytest.fixture
def fabric():
    """A Fabric whose namespaces are removed again."""
    made = Fabric()
    yield made
    made.close()
    cleaner = Fabric()
    cleaner.apply(World())
    cleaner.close()
