"""Rules for all tests: a test that cannot run has failed."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest


def _is_root() -> bool:
    """Whether this may become other users, as root of a user namespace with a single id may not."""
    ranges = Path("/proc/self/uid_map").read_text(encoding="ascii").splitlines()
    return os.geteuid() == 0 and sum(int(line.split()[2]) for line in ranges) > 1


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked `root` where this is not root; pytest counts it as deselected."""
    if _is_root():
        return
    left_out = [item for item in items if item.get_closest_marker("root")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip, or an expected failure, into a failure: neither proves anything about this machine."""
    report = yield
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else getattr(report, "wasxfail", "")
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} did not run, and a test that cannot run fails: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a module that skips itself."""
    report = yield
    if report.skipped:
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid} did not run, and a test that cannot run fails"
    return report
