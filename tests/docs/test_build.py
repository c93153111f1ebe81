"""Check that the pages build without a warning and that they cover what the project has."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tiny_project import ROOT

FROM_ELSEWHERE = re.compile(r'<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)="((?:https?:)?//[^"]+)"')


def test_the_pages_are_built_strictly(tmp_path: Path) -> None:
    """No warning: every reference resolves, every page is reached, every docstring can be read; formulas are drawn.

    Notebooks are among them, and no page loads anything from another machine.
    """
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-E", "-d", str(tmp_path / "trees"), "docs", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "<math" in (tmp_path / "similarity.html").read_text()
    assert "barrier_alpha" in (tmp_path / "catalog.html").read_text()
    assert "linear_cka" in (tmp_path / "api" / "transferscope.analysis.html").read_text()
    notebooks = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert {path.stem for path in (tmp_path / "notebooks").glob("*.html")} == notebooks
    assert {
        path.name: addresses
        for path in tmp_path.rglob("*.html")
        if (addresses := FROM_ELSEWHERE.findall(path.read_text()))
    } == {}


def test_every_pattern_of_the_catalog_is_explained() -> None:
    """docs/catalog.md has a row for each entry of conf/base/catalog.yml."""
    patterns = re.findall(r'^"?([\w{}.]+)"?:$', (ROOT / "conf" / "base" / "catalog.yml").read_text(), re.MULTILINE)
    page = (ROOT / "docs" / "catalog.md").read_text()
    assert [pattern for pattern in patterns if f"`{pattern}`" not in page] == []


def test_the_readme_leads_to_every_page() -> None:
    """It links all pages of docs/ but their index and the library's reference, and no page that is not there."""
    linked = set(re.findall(r"\]\(docs/([\w/]+\.md)\)", (ROOT / "README.md").read_text()))
    assert linked == {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
