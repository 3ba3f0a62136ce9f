"""The operator's file of links: what it may say, and the one line that names each mistake."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wicketgate.kernel.lan import Binding
from wicketgate.model import Subnet
from wicketgate.netd.links import Link, LinksError, parse_links, read_links

SUBNET = "subnet-0123456789abcdef0"
GOOD = f'[[link]]\nsubnet = "{SUBNET}"\nmode = "bridge"\ndevice = "br0"\n'


def test_a_link_with_everything() -> None:
    """Every key is taken; addresses are kept in their canonical spelling."""
    text = GOOD + 'return_path = true\nendpoint_addresses = ["10.9.0.250", "FD09:0::5"]\nprobe = false\n'
    (link,) = parse_links(text, "links.toml")
    assert link == Link(SUBNET, "bridge", "br0", True, ("10.9.0.250", "fd09::5"), False)
    assert link.binding == Binding("bridge", "br0", return_path=True)


def test_addresses_that_no_endpoint_can_have() -> None:
    """They are named, in either family."""
    (link,) = parse_links(GOOD + 'endpoint_addresses = ["10.9.0.250", "10.9.1.5", "fd09::5"]\n', "links.toml")
    four = Subnet(id=SUBNET, vpc_id="vpc-1", cidr_block="10.9.0.0/24")
    assert link.outside(four) == ["10.9.1.5", "fd09::5"]
    assert link.outside(Subnet(id=SUBNET, vpc_id="vpc-1", cidr_block="10.9.0.0/16", ipv6_cidr_block="fd09::/64")) == []


@pytest.mark.parametrize("mode", ["own", "bridge", "macvlan", "routed"])
def test_only_machines_of_an_own_link_answer_by_way_of_the_gateway_unless_said(mode: str) -> None:
    """`own` has the gateway as its machines' only router; in every other mode the operator has to say so."""
    (link,) = parse_links(GOOD.replace("bridge", mode), "links.toml")
    assert (link.return_path, link.endpoint_addresses, link.probe) == (mode == "own", (), True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[link]\n", "links.toml: not TOML"),
        ("port = 5\n", "links.toml: there is no 'port' here"),
        ("link = 5\n", "links.toml: link must be written as tables"),
        ("[link]\nmode = 1\n", "links.toml: link must be written as tables"),
        (GOOD + "vlan = 5\n", "links.toml:1: there is no 'vlan' in a [[link]]"),
        ("\n\n" + GOOD.replace(SUBNET, "vpc-1"), "links.toml:3: subnet must be a subnet's id, not 'vpc-1'"),
        (GOOD.replace("bridge", "vlan"), "links.toml:1: mode must be own or bridge or macvlan or routed, not 'vlan'"),
        (GOOD.replace("br0", "a-name-too-long-"), "device must be a link's name"),
        (GOOD.replace("br0", "a/b"), "device must be a link's name"),
        *((GOOD.replace("br0", name), "device must be a link's name") for name in ("..", "-4", "a#b", "a|b", "w%d")),
        (GOOD.replace('"br0"', "'a\"b'"), "device must be a link's name"),
        (GOOD.replace('"br0"', "'a;reboot'"), "device must be a link's name"),
        (GOOD.replace("br0", "br0\\n"), "device must be a link's name"),
        (GOOD.replace('"br0"', "7"), "device must be a link's name of at most 15 letters, digits and ._+-, not 7"),
        (GOOD.replace('device = "br0"\n', ""), "links.toml:1: device is missing"),
        (GOOD + "return_path = 1\n", "return_path must be true or false, not 1"),
        (GOOD + 'endpoint_addresses = "10.9.0.5"\n', "endpoint_addresses must be a list"),
        (GOOD + 'endpoint_addresses = ["10.9.0"]\n', "endpoint_addresses must be IP addresses, not '10.9.0'"),
        (GOOD + "endpoint_addresses = [5]\n", "endpoint_addresses must be IP addresses, not 5"),
        (GOOD + GOOD.replace("br0", "br1"), f"links.toml:5: subnet '{SUBNET}' is bound twice, first at links.toml:1"),
        (GOOD + GOOD.replace("f0", "f1"), "links.toml:5: device 'br0' is bound twice, first at links.toml:1"),
    ],
)
def test_mistakes_are_named_with_their_place(text: str, words: str) -> None:
    """One line, with the file, the line of the table and what would be right."""
    with pytest.raises(LinksError) as caught:
        parse_links(text, "links.toml")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_file_binds_nothing(tmp_path: Path) -> None:
    """A file that is missing is no mistake."""
    found = read_links(tmp_path / "links.toml")
    assert (found.by_subnet, found.problem) == ({}, "")


def test_one_mistake_leaves_out_the_whole_file(tmp_path: Path) -> None:
    """The right half of a wrong file binds nothing either."""
    file = tmp_path / "links.toml"
    file.write_text(GOOD)
    assert set(read_links(file).bindings) == {SUBNET}
    file.write_text(GOOD + "[[link]]\n")
    found = read_links(file)
    assert (found.by_subnet, found.problem) == ({}, f"{file}:5: subnet is missing; it must be a subnet's id")


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_a_file_that_others_can_write_binds_nothing(tmp_path: Path, mode: int) -> None:
    """Who can write it decides which networks are reached."""
    file = tmp_path / "links.toml"
    file.write_text(GOOD)
    file.chmod(mode)
    assert "others than its owner can write it" in read_links(file).problem


@pytest.mark.root  # nobody else can give files away
def test_a_file_of_somebody_else_binds_nothing(tmp_path: Path) -> None:
    """It must belong to root, or to whom netd runs as."""
    file = tmp_path / "links.toml"
    file.write_text(GOOD)
    os.chown(file, 65534, 65534)
    assert "belongs to user id 65534" in read_links(file).problem


@pytest.mark.parametrize(
    ("content", "words"), [(b"\xff", "not UTF-8 at byte 0"), (b"#" * (1 << 20) + b"#", "longer than 1048576 bytes")]
)
def test_what_is_no_such_file(tmp_path: Path, content: bytes, words: str) -> None:
    """Neither does other content, nor a directory."""
    file = tmp_path / "links.toml"
    file.write_bytes(content)
    assert words in read_links(file).problem
    assert "Is a directory" in read_links(tmp_path).problem
