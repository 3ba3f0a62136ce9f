"""The differential test for as long as SOAK_SECONDS says; SOAK_SEED, printed at the start, runs the same Worlds again.

SOAK_SECONDS=3600 make soak
SOAK_SEED=4711 SOAK_FIRST=120 make soak     the same from World 120 on
"""

import os
import secrets
import sys
import time

from tests.net.campaign import WORLDS_PER_PLACE, run
from tests.net.trials import Mismatch
from wicketgate.lab import sandbox


def main():
    """Exit with 1 and the smallest World when reading, model and kernel disagree."""
    if not sandbox.inside():
        sys.exit("run it in the sandbox: python -m wicketgate.lab.sandbox -- python -m tests.net.soak")
    seconds = float(os.environ.get("SOAK_SECONDS", "600"))
    seed = os.environ.get("SOAK_SEED") or secrets.token_hex(4)
    first = int(os.environ.get("SOAK_FIRST", "0")) // WORLDS_PER_PLACE * WORLDS_PER_PLACE
    print(f"random Worlds and real packets for {seconds:.0f} s: SOAK_SEED={seed} SOAK_FIRST={first}", flush=True)
    started = time.monotonic()
    try:
        tally = run(seed, seconds=seconds, first=first)
    except Mismatch as mismatch:
        sys.exit(f"SOAK_SEED={seed}\n{mismatch}")
    later, connections = sum(tally.later.values()), sum(tally.connections.values())
    took = time.monotonic() - started
    print(f"{tally.flows} flows, {later} later packets, {connections} connections in {took:.0f} s: no disagreement")
    for name in ("outcomes", "later", "sources", "protocols", "connections", "natures"):
        print(f"{name}: {dict(sorted(getattr(tally, name).items()))}")


if __name__ == "__main__":
    main()
