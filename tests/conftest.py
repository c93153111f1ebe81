"""What all tests share: one tiny study, run once from drawing to report."""

from __future__ import annotations

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
        yield made
