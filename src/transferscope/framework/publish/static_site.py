"""`kedro site`: report, pipelines and documentation of a finished study in one folder."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

import transferscope
from transferscope.experiment.plan import Plan
from transferscope.framework.publish.drawn_pipelines import write_pipelines
from transferscope.system.atomic import atomic_folder
from transferscope.system.errors import UserError, one_line

DOCS = Path("docs")
FIRST_PAGE = "index.html"

WITH_PATHS = {".html", ".js"}
"""Suffixes of pages that may hold paths; what stands in a figure or an archive is as it was made."""


@dataclass(frozen=True)
class Part:
    """A part of the site, as its first page names it."""

    address: str
    name: str
    text: str


REPORT = Part(
    "report.html", "The report", "Claims with their verdicts, every table and figure, and how they were made."
)
PIPELINES = Part("pipelines/index.html", "The pipelines", "Kedro-Viz with previews of images, tables and figures.")
NOTEBOOKS = Part("docs/notebooks/tour.html", "The notebooks", "Executed on this study, with their figures.")
PAGES = Part("docs/index.html", "The documentation", "How to use it, the analyses, and the reference of the library.")


def build_site(
    plan: Plan, report: Path, project: Path, folder: Path, *, env: str | None, docs: bool = True, notebooks: bool = True
) -> None:
    """Write the site into `folder`, in place of what was there; on failure that stays.

    Args:
        plan: Of the study whose results are shown.
        report: Its page, which `kedro run` has written.
        project: Folder of the project.
        folder: Where the site is to be.
        env: Kedro's environment of the study.
        docs: Add the documentation, where the project has any.
        notebooks: Execute the notebooks for it; else they have no outputs.

    Raises:
        UserError: there is no report, a notebook fails, or Sphinx is not installed.
    """
    if not report.is_file():
        raise UserError(f"{report} does not exist: the site shows a finished study, so first `kedro run`")
    docs = docs and (project / DOCS / "conf.py").is_file()
    if docs and find_spec("sphinx") is None:
        raise UserError("the documentation needs Sphinx: pip install -e '.[docs]', or `kedro site --no-docs`")
    check_place(folder)
    with atomic_folder(folder) as site:
        shutil.copyfile(report, site / REPORT.address)
        write_pipelines(project, env, site / Path(PIPELINES.address).parent)
        if docs:
            write_docs(project, site / Path(PAGES.address).parent, notebooks=notebooks)
        _write_first_page(plan, site, [REPORT, PIPELINES, *([NOTEBOOKS, PAGES] if docs else [])])
        hide_places(site, project)


def check_place(folder: Path) -> None:
    """UserError where anything but an earlier site is there, for it would be lost."""
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else {folder.name} if folder.exists() else set()
    if there and not (folder / PIPELINES.address).is_file():
        raise UserError(f"--output {folder}: this is there and is no site: name another folder, or remove it")
    others = sorted(there - {FIRST_PAGE, *(Path(part.address).parts[0] for part in (REPORT, PIPELINES, PAGES))})
    if others:
        raise UserError(f"--output {folder}: {others[0]} is no part of a site and would be lost: name another folder")


def write_docs(project: Path, folder: Path, *, notebooks: bool) -> None:
    """Build the pages of the project's documentation, with executed notebooks or as they are stored.

    UserError with the last line of what Sphinx says where it fails.
    """
    mode = f"nb_execution_mode={'force' if notebooks else 'off'}"
    with tempfile.TemporaryDirectory() as work:  # Sphinx and MyST-NB leave what they work with beside the pages
        pages = Path(work, "pages")
        options = ["-q", "-E", "-D", mode, "-d", str(Path(work, "trees"))]
        command = [sys.executable, "-m", "sphinx", *options, str(DOCS), str(pages)]
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise UserError(
                f"the documentation was not built ({_reason(done.stderr)}); `--no-notebooks` executes none, "
                "`--no-docs` leaves it out"
            )
        shutil.copytree(pages, folder, dirs_exist_ok=True)


def hide_places(folder: Path, project: Path) -> None:
    """Make paths on pages relative to the project, and begin others below the user's home with `~`.

    Kedro-Viz names the file of every entry by its whole path, and with it the user and the machine.
    """
    home = Path.home()
    shown = {str(project): "", str(project.resolve()): ""} | ({f"{home}": "~/"} if home != Path(home.anchor) else {})
    for page in folder.rglob("*"):
        if page.suffix not in WITH_PATHS or not page.is_file():
            continue
        text = before = page.read_text(encoding="utf-8")
        for place, instead in shown.items():
            if place in text:  # but not within the letters of an image
                start = rf"(?:(?<![\w+/~.-])|(?<=file://)|(?<=\\n)){re.escape(place)}"
                text = re.sub(rf"{start}/", instead, text)
                text = re.sub(rf"{start}(?![\w/.+-])", instead.rstrip("/") or ".", text)
        if text != before:
            page.write_text(text, encoding="utf-8")


def _reason(output: str) -> str:
    """The last line that names an error."""
    lines = [line.strip() for line in output.splitlines() if re.search(r"(Error|Exception): ", line)]
    return one_line(lines[-1] if lines else "Sphinx gives no reason")


def _write_first_page(plan: Plan, folder: Path, parts: list[Part]) -> None:
    from transferscope.report.provenance import plan_digest

    loader = PackageLoader("transferscope.framework.publish", "")
    environment = Environment(loader=loader, undefined=StrictUndefined, autoescape=select_autoescape(["j2"]))
    content = {"title": plan.study.report.title, "parts": parts, "version": transferscope.__version__}
    page = environment.get_template("index.html.j2").render(content | {"digest": plan_digest(plan)})
    (folder / FIRST_PAGE).write_text(page, encoding="utf-8")
