"""The parts of Kedro that are not public are used in one file, on the versions that it names."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import kedro
import pytest
from kedro.framework.project import find_pipelines
from kedro.io import MemoryDataset

from tiny_project import ROOT, make_project
from transferscope.framework import kedro_private

SOURCE = ROOT / "src" / "transferscope"


@pytest.mark.parametrize(("package", "version"), kedro_private.CHECKED_ON.items())
def test_the_installed_version_is_the_one_that_was_checked(package: str, version: str) -> None:
    """An upgrade must pass through this file."""
    assert importlib.metadata.version(package) == version


def test_nothing_else_imports_or_touches_private_parts_of_kedro() -> None:
    """No other file imports an underscored name from Kedro or asks an entry to describe itself."""
    private = re.compile(r"from kedro[\w.]* import .*\b_\w+|dataset\._describe|pipelines\._|\]\._describe")
    users = {path.name for path in SOURCE.rglob("*.py") if private.search(path.read_text())}
    assert users == {"kedro_private.py"}


def test_the_selecting_files_exist() -> None:
    """Messages of mistyped names are recognised by the file that raises them."""
    site = Path(kedro.__file__).parent.parent
    assert all((site / name).is_file() for name in kedro_private.SELECTING_FILES)


def test_pipelines_are_made_anew_after_they_were_forgotten(tmp_path: Path) -> None:
    """The registry is asked again, so that another environment has other pipelines."""
    from kedro.framework.project import pipelines

    project = make_project(tmp_path)
    with project.session() as session:
        session.load_context()
        before = set(pipelines)
        kedro_private.forget_pipelines()
        assert not pipelines._content
        assert set(pipelines) == before
    assert callable(find_pipelines)


def test_the_place_of_an_entry(tmp_path: Path) -> None:
    """An entry in memory has no place, and one with a file has its path."""
    entry = make_project(tmp_path).catalog.get("clipart.mistakes.table")
    assert kedro_private.place_of(MemoryDataset()) is None
    assert kedro_private.place_of(None) is None
    assert kedro_private.place_of(entry).name == "mistakes.csv"
