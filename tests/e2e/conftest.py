"""One lab for all end-to-end tests, inside the sandbox (`make test-net`); each test gets the World of the file."""

import os
from pathlib import Path

import pytest

from wicketgate.lab import sandbox
from wicketgate.lab.lab import Lab
from wicketgate.lab.topology import load


def pytest_configure(config):
    """Refuse to touch a real machine's network."""
    if not sandbox.inside():
        pytest.exit("run end-to-end tests through the sandbox: python -m wicketgate.lab.sandbox -- pytest tests/e2e", 3)


@pytest.fixture(scope="session")
def running():
    """The lab that ships with the package, up."""
    os.chdir(Path(__file__).parents[2])
    lab = Lab(load())
    lab.start()
    yield lab
    lab.stop()


@pytest.fixture
def lab(running):
    """The running lab in the World of its topology file."""
    running.change(lambda _world: running.topology.world)
    yield running
    running.serve.wait_alive()
    running.change(lambda _world: running.topology.world)


@pytest.fixture(scope="session")
def aws():
    """Path of the stock AWS CLI v2."""
    from tests import stockcli

    return str(stockcli.aws())
