"""The benchmark's own topology is one that the lab takes: nothing else in the tests reads it."""

from __future__ import annotations

import runpy
from pathlib import Path

from wicketgate.lab.topology import parse

BENCH = Path(__file__).parent.parent.parent / "bench" / "tunnel.py"


def test_the_lab_takes_it():
    """It has the VPC, target and jump host that the program speaks of."""
    program = runpy.run_path(str(BENCH))
    topology = parse(program["TOPOLOGY"], "bench/tunnel.py")
    vpc = topology.vpc(program["VPC"])
    assert vpc is not None
    assert {one.name for one in vpc.instances} == {program["TARGET"], "jump"}
    assert program["CLIENT"] in topology.clients
