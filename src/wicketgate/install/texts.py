"""The files that are installed, as they lie in the package: `@NAME@` stands for a value."""

from __future__ import annotations

import re
from importlib import resources


def text(name: str, **values: str) -> str:
    """A file's text with its values put in; KeyError for one that is not given."""
    source = resources.files("wicketgate.install").joinpath("files", name).read_text(encoding="utf-8")
    return re.sub(r"@([A-Z_]+)@", lambda found: values[found[1]], source)
