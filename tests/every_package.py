"""Hooks of pytest: no test is skipped for want of a package where all are promised to be there."""

from __future__ import annotations

import os

import pytest

WITHOUT = ("could not import", "is not installed")
"""In the reason of a test that is skipped for want of a package."""

_without: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _note_skip(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    _note_skip(report)


def _note_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and any(reason in str(report.longrepr) for reason in WITHOUT):
        _without.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With EVERY_PACKAGE set, as in CI, a test that is skipped for want of a package is a failure."""
    if os.environ.get("EVERY_PACKAGE") and _without:
        print(f"\nskipped for want of a package: {', '.join(_without)}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
