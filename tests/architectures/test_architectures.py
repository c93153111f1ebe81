"""Every analysis gives right results for every network that is accepted, or refuses it by name.

`TRANSFERSCOPE_ARCHITECTURES=all` tries the whole matrix and writes docs/architectures.md, row by row; `new` tries those
that have no row there. Otherwise a dozen are tried and nothing is written.
"""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path

import pytest

from architectures.invariances import check_every_analysis
from architectures.matrix import MATRIX, Architecture

PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"
CHOICE = os.environ.get("TRANSFERSCOPE_ARCHITECTURES", "")
HEAD = """# Architectures

Every architecture below was tried with random weights, few classes and small images, on every analysis. The tests
check that a network has CKA 1, distance 0 and no barrier with itself, that swapped networks give the same distance
and the mirrored curve, that permuted images give the same features, that a module at its final value costs nothing,
and that no layer stretches an input by more than its largest singular value. The table is written by
`TRANSFERSCOPE_ARCHITECTURES=all pytest tests/architectures`.

| Architecture | Options | Image | Result |
|---|---|---|---|
"""


def _rows() -> dict[str, str]:
    """Rows of the page, by architecture."""
    rows = re.findall(r"^(\| `(.*?)` \|.*)$", PAGE.read_text() if PAGE.exists() else "", re.MULTILINE)
    return {name: row for row, name in rows}


def _start_of_row(one: Architecture) -> str:
    options = ", ".join(f"{key} {value}" for key, value in one.options.items())
    return f"| `{one.name}` | {options} | {one.side} px |"


def _chosen() -> list[Architecture]:
    if CHOICE == "":
        return [one for one in MATRIX if one.default]
    known = _rows() if CHOICE == "new" else {}
    return [one for one in MATRIX if not known.get(one.name, "").startswith(_start_of_row(one))]


@pytest.mark.slow
@pytest.mark.parametrize("architecture", _chosen(), ids=lambda one: one.name)
def test_an_architecture_passes_all_invariances_or_is_refused_by_name(architecture: Architecture) -> None:
    """A refusal is a UserError; it stands in the page. None of those of the default tests is refused."""
    refusals = check_every_analysis(architecture)
    assert not (architecture.default and refusals)
    if CHOICE:
        _write(architecture, f"{_start_of_row(architecture)} {'; '.join(refusals) or 'all analyses'} |")


def _write(architecture: Architecture, row: str) -> None:
    with PAGE.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # several processes of pytest-xdist share the page
        rows = _rows() | {architecture.name: row}
        file.truncate(0)
        file.write(HEAD + "".join(f"{rows[one.name]}\n" for one in MATRIX if one.name in rows))
        file.flush()


def test_the_page_is_that_of_the_matrix() -> None:
    """At least forty architectures stand in it, each with the options and the size of the matrix."""
    rows = _rows()
    known = {one.name: _start_of_row(one) for one in MATRIX}
    assert len(rows) >= 40
    assert all(row.startswith(known[name]) for name, row in rows.items())
