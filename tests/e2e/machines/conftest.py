"""A site of machines that exist without us, and a deployment through which a client reaches it."""

from pathlib import Path

import pytest

from tests.e2e.machines.reach import CLIENT, OWN, Reach
from tests.e2e.machines.screen import Screen
from tests.e2e.machines.site import Site
from wicketgate.lab.lab import KEY


@pytest.fixture(scope="package")
def reach(running, aws):
    """The site, registered and reached through an endpoint; every machine has its sshd."""
    directory = Path("/run/site")  # the machines' account reads there, which it could not below pytest's own directory
    directory.mkdir(mode=0o755)
    site = Site(directory / "hosts")
    made = Reach(running, site, aws, directory)
    try:
        site.build()
        made.register()
        made.ssh_config(OWN)  # makes the key that it names
        pushed = Path(made.environment()["HOME"]) / ".ssh" / "wicketgate_ed25519.pub"
        for host in site.hosts:
            host.serve_ssh(KEY.with_suffix(".pub").read_text() + pushed.read_text())
        yield made
    finally:
        made.forget()
        site.end()


@pytest.fixture
def screen(reach, tmp_path):
    """A screen in the office."""
    made = Screen(CLIENT, tmp_path)
    made.start()
    yield made
    made.end()
