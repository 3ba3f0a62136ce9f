"""`python -m wicketgate.netd CONFIG`: started by `serve`, with its sockets inherited and its configuration as JSON."""

import logging
import signal
import sys

import msgspec

from wicketgate.kernel.descriptors import allow_many
from wicketgate.model import WicketgateError
from wicketgate.netd.server import Netd, NetdConfig


def serve(config: NetdConfig) -> int:
    """Run until the end; the exit code."""
    logging.basicConfig(level=config.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    allow_many()
    try:
        Netd(config).run()
    except WicketgateError as error:
        sys.stderr.write(f"wicketgate netd: {error}\n")
        return 1
    return 0


def main() -> int:
    """Run until `serve` is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends `serve`, and its going ends us
    return serve(msgspec.json.decode(sys.argv[1], type=NetdConfig))


if __name__ == "__main__":
    sys.exit(main())
