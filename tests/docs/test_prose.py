"""Docstrings and pages are written in the English of `docs/contributing.md`."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
PAGES = [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").glob("*.md") if path.name != "log.md")]
QUESTION_WORDS = re.compile(r"(What|How|Whether|Which|Where|Why|When)\b")
WHAT = re.compile(r"(?:^|[.!?:]\s+|\n\s*\n\s*[-*|]*\s*)What\s[^?]*?[.\n]")
"""A sentence that begins with What and asks nothing."""
COLUMN = 90
"""Characters of code that fit beside the menus of a page of the theme, at its widest."""
CHAPTERED = {"experiment", "images", "analysis", "measure", "claims", "plots", "report", "datasets"}
"""Rooms with a file for each chapter: what is configured, shuffled, measured, claimed, drawn, stored and shown."""


def strings_that_document(tree: ast.AST) -> list[str]:
    """Docstrings, and the strings below attributes and constants."""
    lone = [node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    return [node.value for node in lone if isinstance(node, ast.Constant) and isinstance(node.value, str)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src" / "transferscope")))
def test_docstrings(path: Path) -> None:
    """A docstring begins with a verb or a thing's name, and no sentence in it with What."""
    texts = strings_that_document(ast.parse(path.read_text()))
    assert not [text for text in texts if QUESTION_WORDS.match(text) or WHAT.search(text)]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages(path: Path) -> None:
    """No sentence, heading or row of a page begins with What unless it asks."""
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    lines = re.split(r"\n(?=\s*(?:\n|[-*|#]))", text)
    assert not [line for line in lines if re.search(r"(?:^|[.!:]\s+)[\s#*|-]*What\s[^?]*$", line)]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_no_command_is_cut_at_the_right_edge(path: Path) -> None:
    """A line of a command fits into the column of a page, with its comment."""
    code = "\n".join(re.findall(r"^```(?:bash|sh)\n(.*?)^```$", path.read_text(), flags=re.DOTALL | re.MULTILINE))
    assert [line for line in code.splitlines() if len(line) > COLUMN] == []


def test_files_of_one_name_are_of_one_thing() -> None:
    """Only the packages that treat a chapter one after the other have files of one name, and none has two of them."""
    by_name: dict[str, list[str]] = {}
    for path in SOURCES:
        inside = path.relative_to(ROOT / "src" / "transferscope")
        if path.name not in ("__init__.py", "nodes.py", "pipeline.py"):
            by_name.setdefault(path.name, []).append(inside.parts[0])
    shared = {name: places for name, places in by_name.items() if len(places) > 1}
    assert not {
        name: places for name, places in shared.items() if len(set(places)) < len(places) or set(places) - CHAPTERED
    }


def test_the_files_that_the_readme_names_exist() -> None:
    """Every file and package in its table "Where is what" lies where it says."""
    table = (ROOT / "README.md").read_text().partition("## Where is what")[2]
    named = set(re.findall(r"`([\w/]+(?:\.py|/))`", table)) - {"src/transferscope/", "tests/"}
    assert len(named) > 20
    assert [name for name in sorted(named) if not (ROOT / "src" / "transferscope" / name).exists()] == []
