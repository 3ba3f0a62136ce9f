"""One lab for all end-to-end tests, inside the sandbox (`make test-net`); each test gets the world of the file."""

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
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]  # whose ever they are, nothing here is for them
    lab = Lab(load())
    lab.start()
    yield lab
    lab.stop()


@pytest.fixture
def lab(running):
    """The running lab in the world of its topology file."""
    running.serve.wait_alive()
    running.restore()
    return running


@pytest.fixture
def configured(lab):
    """A function that starts the lab's servers again with other settings; its own are put back afterwards."""
    yield lab.restart
    lab.restart()


@pytest.fixture(scope="session")
def aws():
    """Path of the stock AWS CLI v2."""
    from tests import stockcli

    return str(stockcli.aws())
