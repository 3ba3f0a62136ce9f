"""`wicketgate serve` told by SIGHUP that the operator's file of bound networks is another one."""

import signal
import time

import pytest

from tests.api.test_serve import place, serving

__all__ = ["place"]

pytestmark = pytest.mark.usefixtures("alone")


def test_hang_up_has_the_file_read_again(place, tmp_path):
    """What is wrong with it stands in netd's log, with its line; and serving goes on."""
    links = tmp_path / "links.toml"
    with serving(place, "--links-file", str(links)) as process:
        links.write_text("\n[[link]]\nsubnet = 1\n")
        links.chmod(0o644)
        process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 5
        words = f"{links}:2: subnet must be a subnet's id, not 1"
        while words not in (place / "logs" / "netd.log").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert process.poll() is None
