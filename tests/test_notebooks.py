"""The notebooks run from top to bottom on the results of a study, and are stored without outputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.util import run_sync

from tiny_project import ROOT, Project

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FRESH = """
get_ipython().extension_manager.loaded.discard("kedro.ipython")
%reset -f
"""
"""Begin without names, and let Kedro's extension load the project again, which imports the package anew."""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_stored_without_outputs(path: Path) -> None:
    """No output and no execution count is in the file."""
    for cell in nbformat.read(path, as_version=4).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.fixture(scope="module")
def kernel(project: Project) -> Iterator[Any]:
    """One for all notebooks, since each would import torch and Kedro anew; it starts in the project's notebooks."""
    folder = project.folder / "notebooks"
    folder.mkdir()
    client = NotebookClient(nbformat.v4.new_notebook(), kernel_name="python3")
    manager = client.create_kernel_manager()
    client.start_new_kernel(cwd=str(folder))
    yield manager
    run_sync(manager.shutdown_kernel)(now=True)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path: Path, kernel: Any) -> None:
    """Every cell runs, in a project whose study is tiny; below each figure stands in bold what it shows.

    It begins with no names but those of IPython and with no module of this package, as in a kernel of its own.
    """
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(FRESH))
    NotebookClient(notebook, km=kernel, timeout=300).execute()
    figures = [number for number, cell in enumerate(notebook.cells) if _shows_a_figure(cell)]
    assert figures
    for number in figures:
        below = notebook.cells[number + 1]
        assert (below.cell_type, below.source[:2]) == ("markdown", "**"), notebook.cells[number].source


def _shows_a_figure(cell: Any) -> bool:
    return any("image/png" in output.get("data", {}) for output in cell.get("outputs", ()))
