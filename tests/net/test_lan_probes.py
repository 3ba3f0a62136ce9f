"""What netd's questions to machines leave in the VPC: nothing."""

import json
import time

import msgspec
import pytest

from tests.net.lan_rig import inside
from tests.net.test_lan import VPC, made, route_home, site, wait_for, write
from tests.net.test_netd import Process
from wicketgate.kernel import conntrack
from wicketgate.model.observed import Observations

__all__ = ["site"]


def counted():
    """What the VPC's rules have counted, and the flows that it knows."""
    listed = json.loads(inside(VPC, "nft", "-j", "list", "counters"))["nftables"]
    counters = {one["counter"]["name"]: one["counter"]["packets"] for one in listed if "counter" in one}
    del counters["from_endpoint"]  # its namespace's own reports of multicast listeners
    return counters, conntrack.dump(VPC)


@pytest.mark.parametrize(
    ("site", "mode"),
    [({"switch": "away"}, "macvlan"), ({"switch": "away", "prefixes": (25, 120)}, "routed")],
    indirect=["site"],
)
def test_answers_to_probes_are_nobodys_traffic(site, tmp_path, mode):
    """Machines' answers to pings under the endpoint's address, or under an address that is nobody's, and what routers
    say about those who are not there, are counted by no rule and begin no flow."""
    file, found = tmp_path / "links.toml", tmp_path / "observations.json"
    if mode == "routed":
        route_home(site)
    write(file, mode, "nic0" if mode == "macvlan" else "to-gate", more="return_path = true\n")
    process = Process(tmp_path, links_file=str(file), observations=str(found))
    process.apply(made([("m1", 11, "web"), ("m2", 12, "closed"), ("gone", 77, "web")], preserve=True))
    time.sleep(0.5)
    before = counted()

    def known():
        return found.exists() and len(msgspec.json.decode(found.read_bytes(), type=Observations).machines) >= 2

    try:
        wait_for(known, 10)
        time.sleep(5)  # hosts are looked for by ARP for three seconds
        assert counted() == before
    finally:
        process.stop()
