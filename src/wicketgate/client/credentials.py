"""Who is calling, and in which region: from options, the environment and the AWS CLI's own files.

The order is the AWS CLI's, for the sources that need no further request: with `--profile`, that profile only; otherwise
the environment's keys, then the profile named by AWS_PROFILE or `default`. In a profile: keys of the credentials file,
`credential_process`, keys of the config file. A profile that needs a request to be resolved (a role, IAM Identity
Center) is refused with the command that resolves it.
Source: AWS CLI User Guide, "Configuration and credential file settings" and "Environment variables".
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from wicketgate.client.errors import ConfigurationError
from wicketgate.sigv4.presign import Credentials

_NEEDS_A_REQUEST = ("role_arn", "sso_session", "sso_start_url", "web_identity_token_file", "login_session")

Profile = dict[str, str]


def resolve_region(region: str | None, profile: str | None, environment: Mapping[str, str]) -> str:
    """The region to sign for; raises ConfigurationError when nobody names one."""
    found = region or environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
    if not found:
        found = _Files(environment).config(_profile_name(profile, environment)).get("region")
    if not found:
        raise ConfigurationError(
            "No region: give --region, set AWS_REGION, or write `region = ...` into the profile of the AWS config file."
        )
    return found


def resolve_credentials(profile: str | None, environment: Mapping[str, str]) -> Credentials:
    """The caller's credentials; raises ConfigurationError saying where they were looked for."""
    if profile is None:
        found = _from_environment(environment)
        if found is not None:
            return found
    name = _profile_name(profile, environment)
    files = _Files(environment)
    stored, config = files.credentials(name), files.config(name)
    if not stored and not config and (profile or environment.get("AWS_PROFILE")):
        raise ConfigurationError(f"The profile {name!r} is neither in {files.credentials_path} nor in {files.path}.")
    indirect = next((key for key in _NEEDS_A_REQUEST if key in stored or key in config), None)
    if indirect:
        raise ConfigurationError(
            f"The profile {name!r} has {indirect}, which wicketgate does not resolve. Use a profile with "
            f"`credential_process = aws configure export-credentials --profile {name}`."
        )
    found = _from_profile(stored, name)
    if found is None and "credential_process" in (stored | config):
        found = _from_process((stored | config)["credential_process"], name)
    found = found or _from_profile(config, name)
    if found is None:
        raise ConfigurationError(
            "No credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            f"or write them for the profile {name!r} into {files.credentials_path}."
        )
    return found


def profile_settings(profile: str | None, environment: Mapping[str, str], section: str | None = None) -> Profile:
    """What the AWS config file says for a profile, or in a section of another name; empty without such a section."""
    files = _Files(environment)
    return _section(files.path, (section,)) if section else files.config(_profile_name(profile, environment))


def _profile_name(profile: str | None, environment: Mapping[str, str]) -> str:
    return profile or environment.get("AWS_PROFILE") or environment.get("AWS_DEFAULT_PROFILE") or "default"


def _from_environment(environment: Mapping[str, str]) -> Credentials | None:
    key = environment.get("AWS_ACCESS_KEY_ID")
    if not key:
        return None
    secret = environment.get("AWS_SECRET_ACCESS_KEY")
    if not secret:
        raise ConfigurationError("AWS_ACCESS_KEY_ID is set but AWS_SECRET_ACCESS_KEY is not: set both or none.")
    return Credentials(key, secret, environment.get("AWS_SESSION_TOKEN") or None)


def _from_profile(profile: Profile, name: str) -> Credentials | None:
    key = profile.get("aws_access_key_id")
    if not key:
        return None
    secret = profile.get("aws_secret_access_key")
    if not secret:
        raise ConfigurationError(f"The profile {name!r} has aws_access_key_id but no aws_secret_access_key.")
    return Credentials(key, secret, profile.get("aws_session_token") or None)


class _Files:
    """The AWS credentials and config files, read when asked for. A file that does not exist is empty."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.credentials_path = _path(environment, "AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
        self.path = _path(environment, "AWS_CONFIG_FILE", "~/.aws/config")

    def credentials(self, name: str) -> Profile:
        return _section(self.credentials_path, (name,))

    def config(self, name: str) -> Profile:
        sections = ("default", "profile default") if name == "default" else (f"profile {name}",)
        return _section(self.path, sections)


def _path(environment: Mapping[str, str], variable: str, default: str) -> str:
    return os.path.expanduser(environment.get(variable) or default)  # noqa: PTH111  # pathlib is a slow import


def _section(path: str, names: tuple[str, ...]) -> Profile:
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123
            text = file.read()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"Cannot read {path}: {error}.") from error
    import configparser  # callers without such a file never pay for it

    parser = configparser.RawConfigParser(default_section="", strict=False, allow_no_value=True)
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise ConfigurationError(f"Cannot read {path}: {' '.join(str(error).split())}.") from error
    for section in parser.sections():
        if " ".join(section.replace('"', " ").replace("'", " ").split()) in names:
            return {key: value for key, value in parser.items(section) if value is not None}
    return {}


def _from_process(command: str, name: str) -> Credentials:
    import json
    import shlex
    import subprocess

    what = f"The credential_process of the profile {name!r}"
    try:
        # The user's own configuration names the program, as for every AWS SDK; no shell is involved.
        done = subprocess.run(shlex.split(command), capture_output=True, check=True, stdin=subprocess.DEVNULL)
        answer = json.loads(done.stdout)
        if answer["Version"] != 1:
            raise ConfigurationError(f"{what} printed Version {answer['Version']!r}, expected 1.")
        return Credentials(answer["AccessKeyId"], answer["SecretAccessKey"], answer.get("SessionToken") or None)
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise ConfigurationError(f"{what} failed: {' '.join(said) or f'exit code {error.returncode}'}") from error
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{what} cannot be used: {error}") from error
    except (KeyError, TypeError) as error:
        raise ConfigurationError(f"{what} must print JSON with Version, AccessKeyId and SecretAccessKey.") from error
