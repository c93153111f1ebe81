"""All pairs of two kinds of run in one node: the same tables, in few nodes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tiny_project import Project

TABLES = ("mistakes", "mistakes_spread", "distances", "interpolation", "barriers", "cka")
FINAL = [f"clipart.{name}.table" for name in TABLES]


@pytest.fixture(scope="module")
def together(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of the project whose tables of pairs were made again, all pairs of two kinds in one node."""
    folder = tmp_path_factory.mktemp("together")
    shutil.copytree(project.folder, folder, dirs_exist_ok=True)
    for path in (folder / "conf").rglob("*.yml"):
        path.write_text(path.read_text().replace(str(project.folder), str(folder)))
    shutil.rmtree(folder / "data" / "07_model_output" / "landscape_measurements")
    for name in TABLES:
        (folder / "data" / "07_model_output" / "clipart" / f"{name}.csv").unlink()
    copy = Project(folder)
    with copy.session(params={"analyses": {"pairs_in_one_node": True}}) as session:
        session.run(
            to_outputs=FINAL,
            from_nodes=[
                *(f"clipart.mistakes.compare_{pair}" for pair in ("pt__pt", "pt__rit", "rit__rit")),
                *(
                    f"clipart.similarity.distance_{pair}"
                    for pair in ("pt__pt", "pt__rit", "rit__rit", "rit__rit_same_init")
                ),
                *(f"clipart.landscape.interpolate_{pair}" for pair in ("pt__pt", "pt__rit", "rit__rit")),
                "clipart.landscape.interpolate_rit__rit_same_init",
                "clipart.similarity.measure_cka",
            ],
        )
    return copy


@pytest.mark.parametrize("name", TABLES)
def test_the_tables_are_the_same_to_the_byte(project: Project, together: Project, name: str) -> None:
    """What is gathered of all pairs does not depend on how many nodes have measured them."""
    path = Path("data") / "07_model_output" / "clipart" / f"{name}.csv"
    assert (together.folder / path).read_bytes() == (project.folder / path).read_bytes()


def test_the_pairs_of_two_kinds_load_by_name(project: Project, together: Project) -> None:
    """`clipart.pt__rit.mistakes` holds the rows of all its pairs, those of `clipart.pt_1__rit_1.mistakes` first."""
    rows, first = together.load("clipart.pt__rit.mistakes"), project.load("clipart.pt_1__rit_1.mistakes")
    assert rows.head(len(first)).equals(first)
    assert len(rows) == 4 * len(first)
