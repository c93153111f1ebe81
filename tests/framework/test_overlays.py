"""Environments that extend others, and the folders that `kedro study new` writes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from forked_kedro import kedro
from markdown_blocks import blocks
from tiny_project import ROOT, make_project
from transferscope.experiment.plan import Plan
from transferscope.experiment.study import Study
from transferscope.framework.config import CommandLineError, PlanConfigLoader
from transferscope.framework.new_study import copy_study, extend_study
from transferscope.settings import CONFIG_LOADER_ARGS
from transferscope.system.errors import UserError

pytestmark = pytest.mark.usefixtures("base_again")

ENVIRONMENTS = ("base", "own_images", "paper", "width")


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A folder of configuration with links to some of the project's environments."""
    for name in ENVIRONMENTS:
        (tmp_path / name).symlink_to(ROOT / "conf" / name)
    return tmp_path


def write(conf: Path, name: str, parameters: str, data: str | None = "data: data/{name}") -> None:
    """An environment of a parameters file, and of a globals file unless `data` is None."""
    (conf / name).mkdir()
    (conf / name / "parameters.yml").write_text(parameters)
    if data is not None:
        (conf / name / "globals.yml").write_text(data.format(name=name))


def load(conf: Path, env: str) -> PlanConfigLoader:
    return PlanConfigLoader(str(conf), env=env, **CONFIG_LOADER_ARGS)


def plan(conf: Path, env: str) -> Plan:
    return load(conf, env).plan


def without_place(made: Plan) -> tuple[Study, object]:
    """The study and its runs, without the folder in which their weights lie."""
    return made.study.model_copy(update={"models_folder": ""}), made.runs


def test_a_rehearsal_of_the_paper_is_five_lines(conf: Path) -> None:
    """The page's overlay leaves every run of the paper and its names, with two epochs each, and a folder of its own."""
    parameters, globals_ = blocks(ROOT / "docs" / "paper.md", "yaml")[:2]
    lines = [line for block in (parameters, globals_) for line in block.splitlines() if not line.startswith("#")]
    assert len(lines) <= 5
    write(conf, "rehearsal", parameters, globals_)
    paper, loader = plan(conf, "paper"), load(conf, "rehearsal")
    made = loader.plan
    views = {run.full_name for run in made.runs.values() if run.task in made.views}
    assert set(made.runs) - views == {run.full_name for run in paper.runs.values() if run.task not in paper.views}
    assert {run.training.epochs for run in made.runs.values()} == {2}
    assert made.study.model == paper.study.model
    assert loader["globals"]["data"] == "data/rehearsal"
    assert loader["catalog"]["claims"]["filepath"] == "data/rehearsal/08_reporting/claims.csv"


def test_an_overlay_says_the_same_as_a_copy_with_its_changes(conf: Path) -> None:
    """Two overlays on each other give the plan of one file that holds all keys; `inherit_study: false` stays."""
    write(conf, "first", "extends: own_images\ntraining: {epochs: 3}\nruns: {rit: {replicas: 3}}")
    write(conf, "second", "extends: first\ntraining: {batch_size: 8}")
    whole = yaml.safe_load((ROOT / "conf" / "own_images" / "parameters.yml").read_text())
    whole["training"] |= {"epochs": 3, "batch_size": 8}
    whole["runs"]["rit"] |= {"replicas": 3}
    write(conf, "copy", yaml.safe_dump(whole))
    assert without_place(plan(conf, "second")) == without_place(plan(conf, "copy"))
    assert "amazon.rit_3" in plan(conf, "second").runs


def test_entries_of_the_catalog_and_globals_come_from_below_too(conf: Path) -> None:
    """An entry and a global key of the extended environment are there; those of the overlay win."""
    write(conf, "first", "inherit_study: true", "data: data/first\nplace: data/elsewhere")
    (conf / "first" / "catalog.yml").write_text(
        'mine: {type: transferscope.datasets.text.TextDataset, filepath: "${globals:place}/mine.txt"}\n'
    )
    write(conf, "second", "extends: first")
    catalog = load(conf, "second")["catalog"]
    assert catalog["mine"]["filepath"] == "data/elsewhere/mine.txt"
    assert catalog["claims"]["filepath"] == "data/second/08_reporting/claims.csv"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ("extends: papr", "x/parameters.yml: extends: there is no environment 'papr': near matches are paper"),
        ("extends: x", "x/parameters.yml: extends: x cannot extend itself: name another folder of conf/"),
        ("extends: base", "x/parameters.yml: extends: every environment is laid over base: leave the key out"),
        ("extends: [paper]", "extends: must be the name of another folder of conf/ (got ['paper'])"),
        ("extends:", "extends: must be the name of another folder of conf/ (got None)"),
        ("extends: y", "y/parameters.yml: extends: a circle, x → y → x: leave the key out of one of them"),
    ],
)
def test_a_wrong_name_is_one_line(conf: Path, parameters: str, message: str) -> None:
    """It names the file and the key; a circle is found whatever its length."""
    write(conf, "x", parameters)
    write(conf, "y", "extends: x")
    with pytest.raises(CommandLineError) as caught:
        load(conf, "x")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_overlay_needs_a_folder_of_its_own(conf: Path) -> None:
    """Else its results would lie among those of the study that it changes."""
    write(conf, "x", "extends: paper", None)
    with pytest.raises(CommandLineError, match=r"x/globals.yml: give the results a folder .* `data: data/x`"):
        load(conf, "x")


@pytest.mark.parametrize("of", ENVIRONMENTS)
def test_a_copied_study_is_the_same_plan_in_another_folder(conf: Path, of: str) -> None:
    """Comments are kept, and the command in them names the copy."""
    names = [path.relative_to(conf).as_posix() for path in copy_study(conf, "mine", of)]
    assert names == ["mine/globals.yml", "mine/parameters.yml"]
    text = (conf / "mine" / "parameters.yml").read_text()
    before = (ROOT / "conf" / of / "parameters.yml").read_text()
    assert text.count("#") == before.count("#") + 1
    assert f"--env {of}" not in text
    loader = load(conf, "mine")
    assert loader["globals"] == {"data": "data/mine"}
    assert set(loader.plan.runs) == set(plan(conf, of).runs)


def test_a_new_overlay_is_the_study_below(conf: Path) -> None:
    """Before anything is written into it."""
    extend_study(conf, "mine", "paper")
    assert without_place(plan(conf, "mine")) == without_place(plan(conf, "paper"))


@pytest.mark.parametrize(
    ("name", "of", "message"),
    [
        ("paper", "base", "paper exists: choose another name"),
        ("Mine", "base", "the study's name 'Mine': give lower-case letters"),
        ("../mine", "base", "the study's name '../mine': give lower-case letters"),
        ("mine", "papr", "there is no study 'papr': near matches are paper"),
    ],
)
def test_a_study_that_cannot_be_written_is_one_line(conf: Path, name: str, of: str, message: str) -> None:
    """Nothing is written."""
    for make in (copy_study, extend_study):
        with pytest.raises(UserError, match=message):
            make(conf, name, of)
    assert {path.name for path in conf.iterdir()} == set(ENVIRONMENTS)


def test_the_command_writes_a_study(tmp_path: Path) -> None:
    """It says what it wrote and how to run it; a second time it refuses, in one line."""
    folder = make_project(tmp_path).folder
    done = kedro(folder / "src", "study", "new", "mine", "--from", "own_images")
    assert done.returncode == 0, done.stderr
    assert "wrote conf/mine/globals.yml" in done.stdout
    assert "uv run kedro run --env mine" in done.stdout
    again = kedro(folder, "study", "new", "mine", "--extends", "paper")
    assert again.returncode == 1
    assert "conf/mine exists" in again.stderr
    assert "Traceback" not in again.stdout + again.stderr
    neither = kedro(folder, "study", "new", "other")
    assert "give --from STUDY for a copy, or --extends STUDY" in neither.stderr
