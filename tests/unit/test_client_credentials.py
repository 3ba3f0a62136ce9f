"""Where the client takes credentials and region from: the AWS CLI's places, in its order."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from wicketgate.client import ConfigurationError, resolve_credentials, resolve_region
from wicketgate.sigv4.presign import Credentials

ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "env"}

CREDENTIALS = """
[default]
aws_access_key_id = AKIADEFAULT
aws_secret_access_key = d%fault
[work]
aws_access_key_id = AKIAWORK
aws_secret_access_key = work
aws_session_token = token
[half]
aws_access_key_id = AKIAHALF
"""
CONFIG = f"""
[default]
region = eu-west-1
s3 =
    max_queue_size = 10
[profile work]
region = ap-northeast-1
[profile "in config"]
aws_access_key_id = AKIACONFIG
aws_secret_access_key = config
[profile role]
role_arn = arn:aws:iam::123456789012:role/r
source_profile = default
[profile process]
credential_process = {sys.executable} -c 'print(\"\"\"{{"Version": 1, "AccessKeyId": "AKIAPROC",
  "SecretAccessKey": "p", "SessionToken": "t"}}\"\"\")'
[profile broken process]
credential_process = {sys.executable} -c 'import sys; sys.exit("no token today")'
[profile silent process]
credential_process = {sys.executable} -c 'print(1)'
"""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """An environment that names the two files."""
    (tmp_path / "credentials").write_text(CREDENTIALS)
    (tmp_path / "config").write_text(CONFIG)
    return {
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
    }


@pytest.mark.parametrize(
    ("profile", "environment", "expected"),
    [
        (None, {}, Credentials("AKIADEFAULT", "d%fault")),
        (None, ENVIRONMENT, Credentials("AKIAENV", "env")),
        (None, {**ENVIRONMENT, "AWS_SESSION_TOKEN": "t"}, Credentials("AKIAENV", "env", "t")),
        (None, {**ENVIRONMENT, "AWS_PROFILE": "work"}, Credentials("AKIAENV", "env")),
        (None, {"AWS_PROFILE": "work"}, Credentials("AKIAWORK", "work", "token")),
        ("work", ENVIRONMENT, Credentials("AKIAWORK", "work", "token")),
        ("in config", {}, Credentials("AKIACONFIG", "config")),
        ("process", {}, Credentials("AKIAPROC", "p", "t")),
    ],
)
def test_credentials_come_from_the_first_place_that_has_them(
    files: dict[str, str], profile: str | None, environment: dict[str, str], expected: Credentials
) -> None:
    """The environment goes before files, but not before a profile named on the command line."""
    assert resolve_credentials(profile, {**files, **environment}) == expected


@pytest.mark.parametrize(
    ("profile", "environment", "words"),
    [
        ("nobody", {}, "The profile 'nobody' is neither in"),
        ("half", {}, "has aws_access_key_id but no aws_secret_access_key"),
        ("role", {}, "has role_arn, which wicketgate does not resolve.*export-credentials --profile role"),
        ("broken process", {}, "failed: no token today"),
        ("silent process", {}, "must print JSON with Version, AccessKeyId and SecretAccessKey"),
        (None, {"AWS_ACCESS_KEY_ID": "AKIA"}, "AWS_SECRET_ACCESS_KEY is not"),
        (None, {"AWS_SHARED_CREDENTIALS_FILE": "/nonexistent"}, "No credentials: set AWS_ACCESS_KEY_ID"),
    ],
)
def test_missing_credentials_say_what_would_help(
    files: dict[str, str], profile: str | None, environment: dict[str, str], words: str
) -> None:
    """Every way to have none is one line that names the place."""
    with pytest.raises(ConfigurationError, match=words):
        resolve_credentials(profile, {**files, **environment})


def test_an_unreadable_file_is_named(files: dict[str, str], tmp_path: Path) -> None:
    """A file that is no INI file is an error, not an empty profile."""
    (tmp_path / "credentials").write_text("[default\naws_access_key_id")
    with pytest.raises(ConfigurationError, match=r"Cannot read .*credentials"):
        resolve_credentials(None, files)


@pytest.mark.parametrize(
    ("region", "profile", "environment", "expected"),
    [
        ("us-west-2", "work", {"AWS_REGION": "r"}, "us-west-2"),
        (None, "work", {"AWS_REGION": "r", "AWS_DEFAULT_REGION": "d"}, "r"),
        (None, "work", {"AWS_DEFAULT_REGION": "d"}, "d"),
        (None, "work", {}, "ap-northeast-1"),
        (None, None, {}, "eu-west-1"),
    ],
)
def test_the_region_comes_from_the_first_that_names_one(
    files: dict[str, str], region: str | None, profile: str | None, environment: dict[str, str], expected: str
) -> None:
    """Option, AWS_REGION, AWS_DEFAULT_REGION, profile."""
    assert resolve_region(region, profile, {**files, **environment}) == expected


def test_no_region_is_an_error_with_the_three_ways_out(files: dict[str, str]) -> None:
    """Nothing is guessed: a signature for the wrong region is refused far less clearly."""
    with pytest.raises(ConfigurationError, match=r"--region.*AWS_REGION.*config file"):
        resolve_region(None, "role", files)
