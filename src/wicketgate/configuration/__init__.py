"""The settings of `wicketgate serve`: one TOML file, an environment variable and a flag for each.

A flag is stronger than the environment, that than the file, that than the default. Every setting has one name:
`max_tunnels_per_endpoint` in the file is WICKETGATE_MAX_TUNNELS_PER_ENDPOINT and --max-tunnels-per-endpoint. Where a
list is meant, variable and flag take its items with commas between.
"""

from wicketgate.configuration.documented import example
from wicketgate.configuration.reading import DEFAULT_FILE, FILE_VARIABLE, load
from wicketgate.configuration.root import given_root_credential, root_credential_in
from wicketgate.configuration.settings import ROOT_VARIABLES, SETTINGS, Configuration, ConfigurationError, Setting

__all__ = [
    "DEFAULT_FILE",
    "FILE_VARIABLE",
    "ROOT_VARIABLES",
    "SETTINGS",
    "Configuration",
    "ConfigurationError",
    "Setting",
    "example",
    "given_root_credential",
    "load",
    "root_credential_in",
]
