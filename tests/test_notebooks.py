"""The notebooks run from top to bottom on the results of a study, and are stored without outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tiny_project import ROOT, Project

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_stored_without_outputs(path: Path) -> None:
    """No output and no execution count is in the file."""
    for cell in nbformat.read(path, as_version=4).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path: Path, project: Project) -> None:
    """Every cell runs, in a project whose study is tiny; below each figure stands in bold what it shows."""
    notebook = nbformat.read(path, as_version=4)
    folder = project.folder / "notebooks"
    folder.mkdir(exist_ok=True)
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    figures = [number for number, cell in enumerate(notebook.cells) if _shows_a_figure(cell)]
    assert figures
    for number in figures:
        below = notebook.cells[number + 1]
        assert (below.cell_type, below.source[:2]) == ("markdown", "**"), notebook.cells[number].source


def _shows_a_figure(cell: Any) -> bool:
    return any("image/png" in output.get("data", {}) for output in cell.get("outputs", ()))
