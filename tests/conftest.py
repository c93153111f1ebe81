"""What all tests share: one tiny study, run once from drawing to report."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
import torch

from every_package import pytest_collectreport, pytest_runtest_logreport, pytest_sessionfinish  # noqa: F401
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
