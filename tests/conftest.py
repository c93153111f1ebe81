"""What all tests share: one tiny study, run once from drawing to report."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
import torch

from tiny_project import Project, make_project


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The tiny study, run once from drawing to report. Tests may read it, not change it.

    One thread an operation, here and in the tests that run parts of it again: another number rounds differently.
    """
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DO_NOT_TRACK", "1")
        made = make_project(tmp_path_factory.mktemp("project"))
        made.run()
        # Tests run parts of it again, some to see them fail; this is the status after the whole run.
        shutil.copy(made.folder / ".viz" / "kedro_pipeline_events.json", made.folder / "events_of_whole_run.json")
        yield made


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
