"""The settings of `serve`: where each comes from, which source wins, and what a mistake is answered with."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wicketgate.configuration import (
    ROOT_VARIABLES,
    SETTINGS,
    Configuration,
    ConfigurationError,
    Setting,
    example,
    given_root_credential,
    load,
)
from wicketgate.control.common import Quotas
from wicketgate.control.endpoints import EndpointQuotas
from wicketgate.model import Settings
from wicketgate.store import Identity

KEY_ID, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"

OTHER: dict[str, Any] = {
    "state_directory": "/srv/state",
    "links_file": "/srv/links.toml",
    "key_file": "/srv/seal.key",
    "root_credential_file": "/srv/root",
    "listen_addresses": ("192.0.2.1", "2001:db8::1"),
    "domain": "gate.example.com",
    "certificate_file": "/srv/cert.pem",
    "private_key_file": "/srv/key.pem",
    "log_level": "debug",
    "region": "eu-central-1",
    "account_id": "999999999999",
    "partition": "aws-cn",
    "allowed_ports": (22, 5432),
    "connect_timeout": 2.5,
    "url_reuse": "once",
    "unpreservable_client": "endpoint-address",
    "preserve_client_ipv6": True,
    "revocation": "immediate",
    "rule_counters": False,
    "guard_rules": False,
    "groups_per_interface": 6,
    "rules_per_interface": 1001,
}
"""A right value other than the default, where adding one to the default gives none."""


def other(setting: Setting) -> Any:
    """A right value of a setting that is not its default."""
    return OTHER[setting.name] if setting.name in OTHER else setting.default + 1


def toml(value: Any) -> str:
    """A value as TOML has it."""
    return msgspec.json.encode(value).decode()


def text(value: Any) -> str:
    """A value as variables and flags have it."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def write(tmp_path: Path, content: str) -> Path:
    """A configuration file."""
    file = tmp_path / "wicketgate.toml"
    file.write_text(content)
    return file


# -- sources and their order -------------------------------------------------------------------------------------------


def test_without_any_source_all_is_at_its_default() -> None:
    """AWS's numbers where AWS has them (EC2 Instance Connect Endpoint and VPC quotas)."""
    found = load()
    assert found == Configuration()
    assert (found.endpoints_per_region, found.endpoints_per_vpc, found.endpoints_per_subnet) == (5, 1, 1)
    assert (found.max_tunnels_per_endpoint, found.max_tunnel_duration, found.allowed_ports) == (20, 3600, (22, 3389))
    assert (found.groups_per_region, found.rules_per_group, found.groups_per_interface) == (2500, 60, 5)


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_every_setting_is_read_from_file_variable_and_flag(tmp_path: Path, name: str) -> None:
    """One name, three places, the same value."""
    setting = SETTINGS[name]
    value = other(setting)
    assert value != setting.default
    pair = ("certificate_file", "private_key_file")
    values = {**({one: OTHER[one] for one in pair} if name in pair else {}), name: value}
    file = write(tmp_path, "".join(f"{one} = {toml(its)}\n" for one, its in values.items()))
    variables = {SETTINGS[one].variable: text(its) for one, its in values.items()}
    flags = {one: text(its) for one, its in values.items()}
    for found in (load(file=file), load(environment=variables), load(flags=flags)):
        assert found == Configuration(**values)


@given(sources=st.sets(st.sampled_from(["file", "environment", "flags"])))
def test_flag_beats_variable_beats_file_beats_default(
    tmp_path_factory: pytest.TempPathFactory, sources: set[str]
) -> None:
    """With any set of sources given, the strongest of them decides."""
    file = write(tmp_path_factory.mktemp("c"), "port = 1001" if "file" in sources else "")
    found = load(
        file=file,
        environment={"WICKETGATE_PORT": "1002"} if "environment" in sources else {},
        flags={"port": "1003"} if "flags" in sources else {},
    )
    strongest = next((one for one in ("flags", "environment", "file") if one in sources), "default")
    assert found.port == {"default": 443, "file": 1001, "environment": 1002, "flags": 1003}[strongest]


def test_the_file_may_be_named_by_a_variable(tmp_path: Path) -> None:
    """WICKETGATE_CONFIG names it, and a flag's file is stronger than that."""
    file = write(tmp_path, "port = 8443")
    assert load(environment={"WICKETGATE_CONFIG": str(file)}).port == 8443
    (tmp_path / "other").write_text("port = 9443")
    assert load(file=tmp_path / "other", environment={"WICKETGATE_CONFIG": str(file)}).port == 9443


def test_lists_in_variables_have_commas(tmp_path: Path) -> None:
    """Blanks around items do not count; `[]` is the empty list; an empty variable is one that is not set."""
    assert load(environment={"WICKETGATE_ALLOWED_PORTS": " 22 , 80 "}).allowed_ports == (22, 80)
    assert load(environment={"WICKETGATE_ALLOWED_PORTS": "[]"}).allowed_ports == ()
    assert load(environment={"WICKETGATE_ALLOWED_PORTS": ""}).allowed_ports == (22, 3389)
    assert load(file=write(tmp_path, "allowed_ports = []")).allowed_ports == ()


def test_foreign_variables_are_left_alone() -> None:
    """Container runtimes set variables of a service's name; they are no settings and no mistakes."""
    foreign = {"WICKETGATE_SERVICE_HOST": "10.0.0.1", "WICKETGATE_PORT_443_TCP_ADDR": "10.0.0.1", "PATH": "/bin"}
    assert load(environment={**foreign, "WICKETGATE_SANDBOX": "1"}) == Configuration()


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("\nport = 70000", ":2: port: found 70000; it should be a whole number from 1 to 65535"),
        ("port = 0", ":1: port: found 0; it should be a whole number from 1 to 65535"),
        ('port = "443"', ":1: port: found '443'; it should be a whole number"),
        ("port = true", ":1: port: found True; it should be a whole number"),
        ("port = 4.5", ":1: port: found 4.5; it should be a whole number"),
        ("# x\n\n  domain = 'UPPER'", ":3: domain: found 'UPPER'; it should be a DNS name in lower case"),
        ('domain = "a..b"', ":1: domain: found 'a..b'"),
        ('domain = "a.b\\n"', r":1: domain: found 'a.b\n'"),
        ('listen_addresses = ["localhost"]', r"found ['localhost']; it should be a list of IP addresses"),
        ("listen_addresses = []", r"found []; it should be a list of IP addresses"),
        ('listen_addresses = "::"', r"found '::'; it should be a list of IP addresses, e.g. ["),
        ("allowed_ports = [22, 0]", r"found [22, 0]; it should be a list of ports"),
        ("connect_timeout = nan", "found nan; it should be a number of seconds from 0.1 to 60"),
        ("account_id = 123456789012", "it should be twelve digits in quotes"),
        ('account_id = "12345678901²"', "it should be twelve digits in quotes"),
        ('region = "Frankfurt"', 'it should be a Region name, e.g. "us-east-1"'),
        ('partition = "azure"', """found 'azure'; it should be "aws", "aws-cn" or "aws-us-gov\""""),
        ('state_directory = "state"', "found 'state'; it should be an absolute path"),
        ('log_level = "INFO"', """found 'INFO'; it should be "debug", "info\""""),
        ("workers = -1", "found -1; it should be a whole number from 0 to 256"),
        ("prot = 443", ":1: there is no setting 'prot'; did you mean port?"),
        ("\n[limits]\nport = 443", ":2: there is no setting 'limits'; settings stand at the top, in no [table]"),
        ("xyz = 1", ":1: there is no setting 'xyz'"),
        ("port = 1\nport = 2\n", "not TOML: Cannot overwrite a value (at line 2, column 9)"),
        ("port: 443", "not TOML: Expected '=' after a key in a key/value pair (at line 1, column 5)"),
        ('certificate_file = "/c.pem"', "found '/c.pem', but private_key_file is not set: certificate and key are"),
        ('private_key_file = "/k.pem"', "found '/k.pem', but certificate_file is not set: certificate and key are"),
        ("rules_per_group = 201", "is 201 x 5 = 1005, it should be at most rules_per_interface, which is 1000"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_line(tmp_path: Path, content: str, words: str) -> None:
    """File and line, the setting, what was found, and what would be right."""
    file = write(tmp_path, content)
    with pytest.raises(ConfigurationError) as caught:
        load(file=file)
    assert str(caught.value).startswith(str(file))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "flags", "words"),
    [
        ({"WICKETGATE_PORT": "x"}, {}, "WICKETGATE_PORT: found 'x'; it should be a whole number from 1 to 65535"),
        ({"WICKETGATE_PORT": "tcp://10.0.0.1:443"}, {}, "WICKETGATE_PORT: found 'tcp://10.0.0.1:443'; it should be"),
        ({"WICKETGATE_ALLOWED_PORTS": "22,ssh"}, {}, "WICKETGATE_ALLOWED_PORTS: found '22,ssh'; it should be a list"),
        ({}, {"allowed_ports": "22,,80"}, "--allowed-ports: found '22,,80'; it should be a list of ports"),
        ({}, {"listen_addresses": "10.0.0"}, "--listen-addresses: found '10.0.0'; it should be a list of IP addresses"),
        ({}, {"url_reuse": "twice"}, """--url-reuse: found 'twice'; it should be "same-source", "once" or "any\""""),
        ({}, {"portt": "1"}, "--portt: there is no such setting; did you mean port?"),
        (
            {"WICKETGATE_STATE_DIRECTRY": "/x"},
            {},
            "STATE_DIRECTRY: there is no such environment variable; did you mean WICKETGATE_STATE_DIRECTORY?",
        ),
        (
            {"WICKETGATE_ROOT_ACCESS_KEY": "x"},
            {},
            "there is no such environment variable; did you mean WICKETGATE_ROOT_ACCESS_KEY_ID?",
        ),
        ({"WICKETGATE_CONFIG": "/nowhere.toml"}, {}, "configuration file /nowhere.toml: No such file or directory"),
    ],
)
def test_a_mistake_elsewhere_is_named_with_its_place(
    environment: dict[str, str], flags: dict[str, str], words: str
) -> None:
    """A variable and a flag are named as they are written."""
    with pytest.raises(ConfigurationError) as caught:
        load(environment=environment, flags=flags)
    assert words in str(caught.value)


def test_a_mistake_is_found_even_where_it_is_overridden(tmp_path: Path) -> None:
    """A wrong line in the file would bite on the day the flag goes away."""
    with pytest.raises(ConfigurationError, match=":1: port: found 0"):
        load(file=write(tmp_path, "port = 0"), flags={"port": "443"})


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    """The byte that does not fit is named."""
    (tmp_path / "wicketgate.toml").write_bytes(b'domain = "\xff"')
    with pytest.raises(ConfigurationError, match="not UTF-8 at byte 10; save it as UTF-8"):
        load(file=tmp_path / "wicketgate.toml")


# -- what the parts get ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "cls"),
    [("settings", Settings), ("quotas", Quotas), ("endpoint_quotas", EndpointQuotas), ("identity", Identity)],
)
def test_the_parts_get_what_was_set(part: str, cls: type[msgspec.Struct]) -> None:
    """Every field of World settings, quotas and identity is a setting, with the same default, and is handed on."""
    assert getattr(Configuration(), part) == cls()
    changed = {name: other(SETTINGS[name]) for name in cls.__struct_fields__}
    assert getattr(Configuration(**changed), part) == cls(**changed)


def test_workers_default_to_the_cores() -> None:
    """0 stands for as many as the machine has; a number for itself."""
    assert Configuration().worker_count >= 1
    assert Configuration(workers=3).worker_count == 3


# -- the example -------------------------------------------------------------------------------------------------------


def test_the_example_changes_nothing_as_it_stands() -> None:
    """It is a right file, and all of it is commented out."""
    assert tomllib.loads(example()) == {}


def test_the_example_shows_every_setting_with_its_default(tmp_path: Path) -> None:
    """With the # taken away it is a right file that says what is the default anyway, in the order of the table."""
    shown = re.sub(r"^#(?=\w+ = )", "", example(), flags=re.MULTILINE)
    assert list(tomllib.loads(shown)) == list(SETTINGS)
    assert load(file=write(tmp_path, shown)) == Configuration()


def test_the_example_says_all_there_is_to_know() -> None:
    """Description, what is expected, variable and flag of every setting; no line is longer than 120."""
    lines = example().splitlines()
    for setting in SETTINGS.values():
        start = lines.index(f"#{setting.name} = {toml(setting.default)}".replace(",", ", "))
        assert lines[start - 1].lower() == f"# {setting.expected}. {setting.variable}, {setting.flag}".lower()
        assert setting.description.splitlines()[-1] in lines[start - 2]
    assert max(map(len, lines)) <= 120


# -- the root credential -----------------------------------------------------------------------------------------------


def credentials_file(tmp_path: Path, content: str, mode: int = 0o600) -> Configuration:
    """A configuration that names a root credential file of this content."""
    file = tmp_path / "root"
    file.write_text(content)
    file.chmod(mode)
    return Configuration(root_credential_file=str(file))


RIGHT = f"[default]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {SECRET}\n"


def test_the_root_credential_comes_from_variables_then_file(tmp_path: Path) -> None:
    """Variables are stronger than the file; with neither there is none."""
    configuration = credentials_file(tmp_path, RIGHT)
    found = given_root_credential(configuration, {})
    assert found is not None
    assert (found.access_key_id, found.secret_access_key, found.to_be_shown) == (KEY_ID, SECRET, False)
    variables = dict(zip(ROOT_VARIABLES, ("AKIA0000000000000ENV", "s" * 40), strict=True))
    found = given_root_credential(configuration, variables)
    assert found is not None
    assert (found.access_key_id, found.secret_access_key) == ("AKIA0000000000000ENV", "s" * 40)
    assert given_root_credential(Configuration(), {}) is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((KEY_ID, ""), "WICKETGATE_ROOT_SECRET_ACCESS_KEY is not set: .* needed both, or neither"),
        (("", SECRET), "WICKETGATE_ROOT_ACCESS_KEY_ID is not set: .* needed both, or neither"),
        (("akia", SECRET), "WICKETGATE_ROOT_ACCESS_KEY_ID: it should be 16 to 128 capital letters and digits"),
        ((KEY_ID, SECRET + "\n"), "WICKETGATE_ROOT_SECRET_ACCESS_KEY: it should be 16 to 128 printable ASCII"),
        ((KEY_ID, "short"), "WICKETGATE_ROOT_SECRET_ACCESS_KEY: it should be 16 to 128 printable ASCII"),
    ],
)
def test_half_or_wrong_root_variables_are_refused(values: tuple[str, str], words: str) -> None:
    """One without the other, or a form that no client would send; the secret is never shown."""
    with pytest.raises(ConfigurationError, match=words) as caught:
        given_root_credential(Configuration(), dict(zip(ROOT_VARIABLES, values, strict=True)))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        (RIGHT, 0o640, "has mode 0640: others may read it; run: chmod 600"),
        (RIGHT.replace("[default]", "[root]"), 0o600, r"should have a section \[default\] with aws_access_key_id and"),
        (f"{SECRET}\n", 0o600, r"should have a section \[default\]"),
        (f"[default]\naws_access_key_id = {KEY_ID}\n", 0o600, r"should have a section \[default\]"),
        (RIGHT.replace("AKIA", "akia"), 0o600, "aws_access_key_id: it should be 16 to 128 capital letters"),
    ],
)
def test_a_wrong_root_credential_file_is_refused(tmp_path: Path, content: str, mode: int, words: str) -> None:
    """Mode, form and values are checked, and no line of the file is shown, for it may be the secret."""
    with pytest.raises(ConfigurationError, match=words) as caught:
        given_root_credential(credentials_file(tmp_path, content, mode), {})
    assert SECRET not in str(caught.value)


def test_a_missing_root_credential_file_is_named(tmp_path: Path) -> None:
    """The system's words and the path."""
    missing = Configuration(root_credential_file=str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match=r"root credential file .*/none: No such file"):
        given_root_credential(missing, {})
