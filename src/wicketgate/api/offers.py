"""All actions that are offered: those of `control`, and those that stand below it in the house."""

from __future__ import annotations

from collections.abc import Mapping

from wicketgate.control.call import Operation
from wicketgate.control.families import offered as families
from wicketgate.explain import analyzer_analyses as _analyses  # noqa: F401  # offers its actions
from wicketgate.explain import analyzer_paths as _paths  # noqa: F401  # offers its actions


def offered() -> Mapping[tuple[str, str], Operation]:
    """(service, action) -> Operation. Explanations are made of everything that decides, `control` included, so their
    actions cannot be among its families; they register at the same table when they are imported."""
    return families()
