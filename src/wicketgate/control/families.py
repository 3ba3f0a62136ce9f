"""All actions that are offered: every family of this package, imported."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping

from wicketgate import control
from wicketgate.control.call import Operation, operations


def offered() -> Mapping[tuple[str, str], Operation]:
    """(service, action) -> Operation. A family offers its actions when it is imported; none can be forgotten here."""
    for module in pkgutil.walk_packages(control.__path__, f"{control.__name__}."):
        importlib.import_module(module.name)
    return operations()
