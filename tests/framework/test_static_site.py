"""The documentation in the site: notebooks are executed for it, and what cannot be built is one line."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from transferscope.experiment.plan import make_plan
from transferscope.framework.publish.static_site import build_site, check_place, hide_places, write_docs
from transferscope.system.errors import UserError

CONF = """
extensions = ["myst_nb"]
html_theme = "basic"
nb_execution_mode = "off"
nb_execution_raise_on_error = True
"""


def make_docs(project: Path, *code: str) -> None:
    """A page and a notebook with these cells."""
    (project / "docs").mkdir()
    (project / "docs" / "conf.py").write_text(CONF)
    (project / "docs" / "index.md").write_text("# Pages\n\n```{toctree}\ntour\n```\n")
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_markdown_cell("# Tour"), *map(nbformat.v4.new_code_cell, code)]
    nbformat.write(notebook, project / "docs" / "tour.ipynb")


def test_notebooks_are_executed_for_the_site_alone(tmp_path: Path) -> None:
    """The page has the output; the notebook itself stays without; nothing but pages is left."""
    make_docs(tmp_path, "print(6 * 7)")
    before = (tmp_path / "docs" / "tour.ipynb").read_text()
    write_docs(tmp_path, tmp_path / "site", notebooks=False)
    assert ">42" not in (tmp_path / "site" / "tour.html").read_text()
    write_docs(tmp_path, tmp_path / "site", notebooks=True)
    assert ">42" in (tmp_path / "site" / "tour.html").read_text()
    assert (tmp_path / "docs" / "tour.ipynb").read_text() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["docs", "site"]
    assert not list((tmp_path / "site").rglob("*doctree*"))


def test_a_notebook_that_fails_is_one_line(tmp_path: Path) -> None:
    """With the notebook's name, and how to do without."""
    make_docs(tmp_path, "raise ValueError('no such run')")
    with pytest.raises(UserError, match=r"tour.*`--no-notebooks` executes none") as error:
        write_docs(tmp_path, tmp_path / "site", notebooks=True)
    assert not re.search(r"\n|Traceback", str(error.value))


def test_only_an_earlier_site_is_replaced(tmp_path: Path) -> None:
    """Or an empty folder; one with anything else in it is refused, as the clone of a repository of pages."""
    check_place(tmp_path / "new")
    check_place(tmp_path)
    (tmp_path / "index.html").write_text("mine")
    for place in (tmp_path, tmp_path / "index.html"):
        with pytest.raises(UserError, match="this is there and is no site"):
            check_place(place)
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "index.html").write_text("")
    for name in ("docs", "report.html"):
        (tmp_path / name).mkdir()
    check_place(tmp_path)
    (tmp_path / ".git").mkdir()
    with pytest.raises(UserError, match=r"\.git is no part of a site and would be lost"):
        check_place(tmp_path)


def test_pages_name_no_place_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths become relative to the project or to the home folder; other paths, names and images stay."""
    project, pages = tmp_path / "me" / "study", tmp_path / "pages" / "api"
    pages.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    given = {
        f'"{project}/data/a.csv"': '"data/a.csv"',
        f'"{project}"': '"."',
        f"<a href='file://{project}/a'>": "<a href='file://a'>",
        f'"warning\\n{project}/a.py:3"': '"warning\\na.py:3"',
        f'"{project}_2/a"': '"~/study_2/a"',
        f'"{tmp_path}/me/images"': '"~/images"',
        f'"{tmp_path}/mean"': f'"{tmp_path}/mean"',
        f"data:image/png;base64,aB{project}/cD": f"data:image/png;base64,aB{project}/cD",
    }
    (pages / "main.js").write_text("\n".join(given))
    (pages.parent / "curve.png").write_bytes(str(project).encode())
    hide_places(pages.parent, project)
    assert (pages / "main.js").read_text().split("\n") == list(given.values())
    assert (pages.parent / "curve.png").read_bytes() == str(project).encode()


def test_there_is_no_site_of_a_study_without_report(tmp_path: Path) -> None:
    """The command that makes it is named, and nothing is written."""
    tasks = {"photos": {"format": "image_folder", "root": "photos"}}
    analyses = dict.fromkeys(("mistakes", "similarity", "landscape", "spectrum"))
    plan = make_plan({"tasks": tasks, "runs": {"rit": {"label": "RI-T", "tasks": ["photos"]}}, "analyses": analyses})
    with pytest.raises(UserError, match=r"report\.html does not exist: .*`kedro run`"):
        build_site(plan, tmp_path / "report.html", tmp_path, tmp_path / "site", env=None)
    assert not (tmp_path / "site").exists()
