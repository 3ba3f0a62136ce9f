"""Where the APIs are, which endpoint is chosen, and what becomes of answers that are none."""

from __future__ import annotations

import ssl
from pathlib import Path
from xml.etree import ElementTree

import pytest

from wicketgate.client import ConfigurationError, Refused
from wicketgate.client.api import Connection
from wicketgate.client.lookup import Instance, find_endpoint, find_instance
from wicketgate.client.settings import resolve_endpoint, resolve_trust
from wicketgate.sigv4.presign import Credentials

HERE = Instance("i-1", "vpc-1", "subnet-1", "10.0.1.11")


class Answers:
    """EC2 as `find_*` see it: pages of prepared elements, and what was asked for."""

    def __init__(self, *pages: str) -> None:
        self._pages = [ElementTree.fromstring(f'<r xmlns="http://ec2.test/">{page}</r>') for page in pages]
        self.asked: list[dict[str, str]] = []

    def call(self, action, parameters):
        """The first page."""
        self.asked.append(parameters)
        return self._pages[0]

    def pages(self, action, parameters):
        """All pages."""
        self.asked.append(parameters)
        yield from self._pages


def endpoints(*pairs: tuple[str, str]) -> str:
    """A page of endpoints (id, subnet)."""
    items = "".join(
        f"<item><instanceConnectEndpointId>{one}</instanceConnectEndpointId><dnsName>{one}.test</dnsName>"
        f"<subnetId>{subnet}</subnetId></item>"
        for one, subnet in pairs
    )
    return f"<instanceConnectEndpointSet>{items}</instanceConnectEndpointSet>"


@pytest.mark.parametrize(
    ("pages", "expected"),
    [
        ([endpoints(("eice-a", "subnet-2"), ("eice-b", "subnet-1"))], "eice-b"),
        ([endpoints(("eice-a", "subnet-2")), endpoints(("eice-b", "subnet-1"))], "eice-b"),
        ([endpoints(("eice-a", "subnet-2"), ("eice-b", "subnet-3"))], "eice-a"),
    ],
)
def test_the_endpoint_of_the_subnet_goes_first(pages, expected):
    """Then the first of the VPC; a later page may hold the better one."""
    assert find_endpoint(Answers(*pages), HERE, None).id == expected


def test_an_endpoint_that_is_named_is_asked_for():
    """By its id, not by the VPC."""
    answers = Answers(endpoints(("eice-a", "subnet-9")))
    assert find_endpoint(answers, HERE, "eice-a").dns_name == "eice-a.test"
    assert answers.asked[0]["InstanceConnectEndpointId.1"] == "eice-a"
    assert "Filter.2.Name" not in answers.asked[0]


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        ("<privateIpAddress>10.0.0.5</privateIpAddress><ipv6Address>2001:db8::5</ipv6Address>", "10.0.0.5"),
        ("<ipv6Address>2001:db8::5</ipv6Address>", "2001:db8::5"),
    ],
)
def test_the_address_is_ipv4_if_there_is_one(addresses, expected):
    """Else IPv6, as in the AWS CLI."""
    instance = f"<reservationSet><item><instancesSet><item>{addresses}</item></instancesSet></item></reservationSet>"
    assert find_instance(Answers(instance), "i-1").private_ip_address == expected


def test_an_instance_without_an_address_is_refused_with_its_state():
    """A terminated one, for example."""
    state = "<instanceState><name>terminated</name></instanceState>"
    answers = Answers(
        f"<reservationSet><item><instancesSet><item>{state}</item></instancesSet></item></reservationSet>"
    )
    with pytest.raises(Refused, match="Unable to find any IP address on the instance i-1 to connect to; it is termin"):
        find_instance(answers, "i-1")


CONFIG = """
[default]
endpoint_url = https://profile.test
[profile nested]
endpoint_url = https://profile.test
services = local
[services local]
ec2 =
  endpoint_url = https://ec2.profile.test
"""


@pytest.mark.parametrize(
    ("variables", "profile", "ec2", "eic"),
    [
        ({"AWS_ENDPOINT_URL": "https://all.test"}, None, "https://all.test", "https://all.test"),
        (
            {"AWS_ENDPOINT_URL": "https://all.test", "AWS_ENDPOINT_URL_EC2": "https://ec2.test"},
            None,
            "https://ec2.test",
            "https://all.test",
        ),
        (
            {"AWS_ENDPOINT_URL_EC2_INSTANCE_CONNECT": "https://eic.test"},
            None,
            "https://profile.test",
            "https://eic.test",
        ),
        ({}, None, "https://profile.test", "https://profile.test"),
        ({}, "nested", "https://ec2.profile.test", "https://profile.test"),
    ],
)
def test_urls_come_from_where_sdks_take_them(tmp_path: Path, variables, profile, ec2, eic):
    """The service's variable, the common one, the profile's services, the profile."""
    (tmp_path / "config").write_text(CONFIG)
    environment = {"AWS_CONFIG_FILE": str(tmp_path / "config"), **variables}
    assert resolve_endpoint("ec2", None, profile, environment) == ec2
    assert resolve_endpoint("ec2-instance-connect", None, profile, environment) == eic
    assert resolve_endpoint("ec2", "https://given.test", profile, environment) == "https://given.test"


def test_configured_urls_can_be_ignored(tmp_path: Path):
    """AWS_IGNORE_CONFIGURED_ENDPOINT_URLS leaves the option alone."""
    environment = {
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_ENDPOINT_URL": "https://all.test",
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
    }
    with pytest.raises(ConfigurationError, match="give --endpoint-url"):
        resolve_endpoint("ec2", None, None, environment)


def test_the_profiles_bundle_is_trusted_where_no_variable_names_one(tmp_path: Path):
    """`ca_bundle` of the profile, as with the AWS CLI; a file that is none is named."""
    (tmp_path / "config").write_text("[default]\nca_bundle = /nowhere/ca.pem\n")
    environment = {"AWS_CONFIG_FILE": str(tmp_path / "config")}
    with pytest.raises(ConfigurationError, match=r"no certificates can be read from /nowhere/ca\.pem"):
        resolve_trust(None, None, environment)


@pytest.mark.parametrize(
    "url", ["http://api.test", "api.test", "https://", "https://api.test/x", "https://api.test:99999", "https://a?b=c"]
)
def test_urls_must_be_https_and_nothing_more(url):
    """What is signed is the path `/` of a host."""
    with pytest.raises(ConfigurationError, match="should be https://HOST"):
        Connection(url, "ec2", Credentials("a", "b"), "us-east-1", ssl.create_default_context())
