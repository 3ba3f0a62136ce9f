"""A desktop that somebody sees and types into: xrdp on the machine, FreeRDP in the office, and a tunnel between."""

import pytest

from tests.e2e.machines.site import DESKTOP, TEXT, WORKS

PORT = 13390


@pytest.fixture(scope="module")
def desktop(reach):
    """A machine with xrdp."""
    host = reach.hosts[0]
    host.serve_desktop()
    return host


@pytest.mark.parametrize("program", ["aws", "wicketgate"])
def test_desktop(reach, desktop, screen, program):
    """Through open-tunnel --local-port the machine's desktop is on the client's screen, and what is typed arrives."""
    asking = desktop.ask()
    tunnel = reach.tunnel(program, desktop.address, 3389, local_port=PORT)
    viewer = ["xfreerdp", f"/v:127.0.0.1:{PORT}", "/cert:ignore", "/u:somebody", "/p:-", "/size:800x600"]
    with reach.listening(PORT, *tunnel), reach.popen(*viewer, environment=screen.environment) as viewing:
        try:
            picture = screen.wait_for(DESKTOP, 0.4)
            assert picture.share(DESKTOP) > 0.4, picture.colours().most_common(4)
            left, top, right, bottom = picture.box(TEXT)
            assert right - left > 300, "the window is there"
            assert picture.share(TEXT) > 0.05
            assert len(picture.colours()) > 3, "and words in it"
            assert asking.poll() is None
            screen.press("Return", (left + right) // 2, (top + bottom) // 2)
            assert asking.wait(20) == WORKS
            assert screen.wait_for(DESKTOP, 0.6).share(DESKTOP) > 0.6, "the window has gone from the picture"
        finally:
            viewing.kill()
