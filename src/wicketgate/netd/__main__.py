"""`python -m wicketgate.netd CONFIG`: started by `serve`, with its sockets inherited and its configuration as JSON."""

import signal
import sys

import msgspec

from wicketgate.netd.server import Netd, NetdConfig


def main() -> None:
    """Run until `serve` is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends `serve`, and its going ends us
    Netd(msgspec.json.decode(sys.argv[1], type=NetdConfig)).run()


if __name__ == "__main__":
    main()
