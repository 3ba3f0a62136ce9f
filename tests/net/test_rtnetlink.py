"""What is configured by messages is what ip(8) sees and would have made."""

import pytest

from wicketgate.kernel import ip, netns
from wicketgate.kernel.rtnetlink import Routing
from wicketgate.model import FabricError

NAMES = ("wg-router", "wg-by-messages", "wg-by-ip")
DEVICE = "eth0"


@pytest.fixture
def hosts():
    """Two namespaces alike, each with a device that leads to a third."""
    router, *hosts = NAMES
    for name in NAMES:
        netns.create(name)
    for number, name in enumerate(hosts):
        ip.batch(
            router, [f"link add name h{number} type veth peer name {DEVICE} netns {name}", f"link set h{number} up"]
        )
    yield hosts
    for name in NAMES:
        netns.delete(name)


def _seen(namespace):
    """What ip(8) shows of a namespace, but for what differs from device to device."""
    varying = {
        "ifindex",
        "link_index",
        "link",
        "link_netnsid",
        "address",
        "operstate",
        "valid_life_time",
        "preferred_life_time",
    }

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(one) for key, one in value.items() if key not in varying}
        return [plain(one) for one in value] if isinstance(value, list) else value

    addresses = ip.read(namespace, "address", "show")
    for link in addresses:
        link["addr_info"] = [one for one in link["addr_info"] if one["scope"] == "global"]
    routes = [ip.read(namespace, version, "route", "show", "table", "all") for version in ("-4", "-6")]
    own = [one for one in routes[1] if "fe80:" not in one["dst"] and one["dst"] != "multicast"]
    return plain(addresses), plain(routes[0]), plain(own)


COMMANDS = [
    "link set lo up",
    "link set eth0 up",
    "address replace 10.0.1.5/24 dev eth0 nodad",
    "address replace 10.0.1.9/32 dev eth0 nodad noprefixroute",
    "address replace 2001:db8::5/128 dev eth0 nodad",
    "route replace default via 10.0.1.1 dev eth0 onlink",
    "route replace ::/0 via fe80::1 dev eth0",
    "route replace default via 10.0.1.1 dev eth0 onlink table 1001",
    "route replace ::/0 via fe80::1 dev eth0 table 1001",
    "route replace default via 10.0.1.1 dev eth0 onlink metric 3001",
]


def _configured(namespace):
    with Routing(namespace) as host:
        host.up("lo")
        host.up(DEVICE)
        host.replace_address(DEVICE, "10.0.1.5/24")
        host.replace_address(DEVICE, "10.0.1.9/32", prefix_route=False)
        host.replace_address(DEVICE, "2001:db8::5/128")
        for router in ("10.0.1.1", "fe80::1"):
            host.replace_default(DEVICE, router)
            host.replace_default(DEVICE, router, table=1001)
        host.replace_default(DEVICE, "10.0.1.1", metric=3001)
        return host.addresses(DEVICE)


def test_messages_do_what_commands_do(hosts):
    """Links, addresses and routes are the same by both ways, also when all is done twice; addresses go again."""
    by_messages, by_ip = hosts
    for _ in range(2):
        found = _configured(by_messages)
        ip.batch(by_ip, COMMANDS)
        assert found == {"10.0.1.5/24", "10.0.1.9/32", "2001:db8::5/128"}
        assert _seen(by_messages) == _seen(by_ip)
        assert len(_seen(by_ip)[1]) >= 5
    with Routing(by_messages) as host:
        for address in ("10.0.1.9/32", "2001:db8::5/128"):
            host.delete_address(DEVICE, address)
        assert host.addresses(DEVICE) == {"10.0.1.5/24"}


def test_what_cannot_be_is_told(hosts):
    """A device that is missing, and what the kernel refuses, in words that name the namespace."""
    with Routing(hosts[0]) as host:
        with pytest.raises(FabricError, match="there is no device eth7 in namespace wg-by-messages"):
            host.up("eth7")
        with pytest.raises(FabricError, match=r"address 10.0.1.77/24 in namespace wg-by-messages: Cannot assign"):
            host.delete_address(DEVICE, "10.0.1.77/24")
