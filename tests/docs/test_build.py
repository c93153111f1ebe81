"""The pages are built without a warning, and the library's reference is complete."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tiny_project import ROOT

PACKAGES = ("analysis", "claims", "images", "models", "plots", "report", "tables", "training")
SOURCE = ROOT / "src" / "transferscope"


def test_the_pages_are_built_strictly(tmp_path: Path) -> None:
    """No warning: every reference resolves, every page is reached, every docstring can be read; formulas are drawn."""
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-E", "-d", str(tmp_path / "trees"), "docs", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "<math" in (tmp_path / "similarity.html").read_text()
    assert "linear_cka" in (tmp_path / "api" / "analysis.html").read_text()


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_is_in_the_reference(package: str) -> None:
    """Each module of a package has its entry on the package's page."""
    modules = {
        ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)
        for path in (SOURCE / package).rglob("*.py")
        if not path.stem.startswith("_")
    }
    page = (ROOT / "docs" / "api" / f"{package}.md").read_text()
    assert set(re.findall(r"automodule:: (\S+)", page)) == modules


def test_every_pattern_of_the_catalog_is_explained() -> None:
    """docs/catalog.md has a row for each entry of conf/base/catalog.yml."""
    patterns = re.findall(r'^"?([\w{}.]+)"?:$', (ROOT / "conf" / "base" / "catalog.yml").read_text(), re.MULTILINE)
    page = (ROOT / "docs" / "catalog.md").read_text()
    assert [pattern for pattern in patterns if f"`{pattern}`" not in page] == []


def test_the_readme_leads_to_every_page() -> None:
    """It links all pages of docs/ but their index and the library's reference, and no page that is not there."""
    linked = set(re.findall(r"\]\(docs/([\w/]+\.md)\)", (ROOT / "README.md").read_text()))
    assert linked == {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
