"""Every command of the README and of docs/ does what the page says, on a tiny study."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from forked_kedro import kedro
from markdown_blocks import PAGES, blocks, commands
from tiny_project import ROOT, Project, make_project
from transferscope.experiment.plan import make_plan

KEDRO = "uv run kedro "

ELSEWHERE = {
    "pip install uv": "it needs the package index; .ci/run does it",
    "uv run kedro run": "the whole of the tiny study is run by the fixture `project`",
    "uv run pytest": "it is running",
    "uv run kedro cost": "it is run with two speeds; tests/cost/test_plan_cost.py measures them",
    "uv run kedro viz run": "a server; tests/framework/test_viz_offline.py starts it and asks it",
    "uv run kedro site": "tests/framework/test_kedro_viz.py and test_static_site.py write it",
    "uv run --with jupyterlab jupyter lab": "a server; tests/test_notebooks.py runs every notebook",
    "uv run tensorboard --logdir data/06_models": "a server; tests/training/test_events.py reads the events",
    "uv run sphinx-build -W -q docs docs/_build": "test_build.py builds the pages",
    "uv run --extra ray ray start --head --port=6379": "a server",
    "uv run --extra ray ray start --address=HEAD:6379": "a server",
    "uv run --extra ray kedro run --runner RayRunner --runner-params address=HEAD:6379": (
        "tests/framework/runners/test_ray_runner.py runs a study on a cluster of its own, where Ray is installed"
    ),
    "uv run python -m transferscope.benchmarks.gpu --json speeds.json": (
        "tests/package_benchmarks/test_gpu.py makes every measurement"
    ),
    "uv run kedro package": "it needs the package index; tests/framework/test_packaged.py runs the wheel, by -m large",
    "uv run kedro server start --env own_images": "a server; tests/framework/test_server.py asks it",
    "MLFLOW_TRACKING_URI=mlruns uv run --extra mlflow kedro run": (
        "tests/framework/test_tracking.py records runs in such a folder"
    ),
    "uv sync": "sets up the environment that the tests run in",
    "uv run pre-commit install": "writes into the checkout's own git folder",
    "uv run kedro compare a.pth b.pth --images photos": "tests/framework/test_comparing.py runs one of three files",
    "uv run kedro compare a.pth b.pth --images photos --parent p.pth": "as above",
    "uv run kedro compare epochs/*.pth --images photos --pairs consecutive": "as above",
    "uv run kedro compare a.pth b.pth --model nets.py:resnet20 --images photos": "as above",
    "uv run kedro run --env my_study": "data_prep of it is run; training and analyses are those of the tiny study",
    "uv run kedro run --env my_study --only-missing-outputs": "as above",
}
"""Commands that are not run here, and why."""

OWN_CHECKPOINTS = "uv run kedro run --env own_checkpoints --params tasks.images.root=photos"
SMALLER = f"{OWN_CHECKPOINTS},model.name=fixup_resnet_small,pictures.store_size=32"
SHORTENED = {
    "uv run kedro run --params training.epochs=20": "--nodes clipart.training.rit_small_lr_1",
    "uv run kedro run --runner-params max_workers=2": (
        "--nodes generated.draw_domains,clipart.data_prep.pack_train,real.data_prep.pack_train"
    ),
    SMALLER: "--pipelines data_prep,training",
}
"""Commands that would take too long on all of a study, and what is added to them."""

INSTEAD = {OWN_CHECKPOINTS: SMALLER}
"""Commands that are run with a smaller network."""

REFUSED = {
    "uv run kedro run --runner-params gpus=4": "--runner-params gpus=4: there are 0 GPUs here",
    "uv run kedro run --env paper --nodes imagenet.training.p_1 --params "
    "training.num_nodes=2,training.rendezvous=HOST0:29400": "--pipelines data_prep`",
    "uv run kedro run --env own_images": "office_caltech10 does not exist: put the images there",
    "uv run kedro run --env paper": "chexpert does not exist: put the images there",
    "uv run kedro run --config smaller.yml": "chexpert does not exist: put the images there",
    "uv run kedro run --env paper --pipelines data_prep": "chexpert does not exist: put the images there",
    "uv run kedro run --env paper --only-missing-outputs": "chexpert does not exist: put the images there",
    "uv run kedro run --env paper --nodes imagenet.training.p_1 "
    "--params training.num_nodes=2,training.rendezvous=first:29500": "--pipelines data_prep`",
}
"""Commands for data sets that are not there, and what is said of them."""

ON_RESULTS = [
    "uv run kedro run --pipelines training",
    "uv run kedro run --only-missing-outputs",
    "uv run kedro run --params training.epochs=20",
    "uv run kedro run --namespaces clipart.mistakes",
    "uv run kedro run --tags cka",
    "uv run kedro run --nodes clipart.training.pt_1",
]
"""Commands that go on from a finished study."""

FOUND = commands()
WITHOUT_RESULTS = [command for command in FOUND if command not in {*ELSEWHERE, *ON_RESULTS}]


def run(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the pages in a project's folder, without uv."""
    command = INSTEAD.get(command, command)
    assert command.startswith(KEDRO), f"say in this file how to check {command!r}"
    words = shlex.split(f"{command.removeprefix(KEDRO)} {SHORTENED.get(command, '')}")
    return kedro(folder, *words, COLUMNS="200")


def test_the_page_on_own_images_has_a_kind_in_the_place_of_another() -> None:
    """The page's study with the fourth kind of run laid over it is a plan that compares that kind."""
    _, parameters, fourth_kind = map(yaml.safe_load, blocks(ROOT / "docs" / "your_own_images.md", "yaml")[:3])
    study = {key: value for key, value in parameters.items() if key != "inherit_study"}
    study["runs"] |= fourth_kind["runs"]
    study["analyses"] = study.get("analyses", {}) | fourth_kind["analyses"]
    plan = make_plan(study)
    assert [run.kind for run in plan.compared("sketches", "fine_tuned")] == ["pt_frozen"] * 2


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which nothing was run, with what the pages tell a user to bring: images, checkpoints, a study."""
    folder = make_project(tmp_path_factory.mktemp("unfinished")).folder
    globals_, parameters = blocks(ROOT / "docs" / "your_own_images.md", "yaml")[:2]
    study = folder / "conf" / "my_study"
    study.mkdir()
    (study / "globals.yml").write_text(globals_)
    (study / "parameters.yml").write_text(parameters)
    *_, overlay = blocks(ROOT / "docs" / "paper.md", "yaml")
    (folder / "smaller.yml").write_text(overlay)
    for part in ("train", "val"):
        _draw(folder / "data" / "01_raw" / "photos" / part)
    sketches = _draw(folder / "data" / "01_raw" / "mine" / "sketches")
    for part in ("train", "test"):
        lines = [f"sketches/{path.parent.name}/{path.name} {'ab'.index(path.parent.name)}" for path in sketches]
        half = lines[::2] if part == "train" else lines[1::2]
        (folder / "data" / "01_raw" / "mine" / f"sketches_{part}.txt").write_text("\n".join(half))
    _draw(folder / "photos")
    _save_networks(folder)
    return folder


def _draw(folder: Path) -> list[Path]:
    """Eight images in each of two class folders."""
    paths = [folder / name / f"{index}.png" for name in "ab" for index in range(8)]
    for seed, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return paths


def _save_networks(folder: Path) -> None:
    import torch

    from transferscope.models import build_model

    for seed, name in enumerate("ab"):
        torch.save(build_model("fixup_resnet_small", 2, seed=seed).state_dict(), folder / f"{name}.pth")


@pytest.fixture(scope="module")
def finished(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tiny study with its results."""
    folder = make_project(tmp_path_factory.mktemp("finished")).folder
    shutil.copytree(project.folder / "data", folder / "data", dirs_exist_ok=True)
    return folder


@pytest.mark.parametrize("script", [text for page in PAGES for text in blocks(page, "sh")])
def test_scripts_for_a_cluster_are_shell(script: str) -> None:
    """They need Slurm to be run; that the shell can read them is checked."""
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_the_tables_above_are_about_commands_that_exist() -> None:
    """A command that no page has any more leaves the tables, too."""
    assert {*ELSEWHERE, *REFUSED, *ON_RESULTS, *INSTEAD} <= FOUND.keys()
    assert {INSTEAD.get(command, command) for command in FOUND} >= SHORTENED.keys()


@pytest.mark.xdist_group("commands_of_the_pages")
@pytest.mark.parametrize("command", WITHOUT_RESULTS)
def test_it_runs_or_says_what_is_missing(unfinished: Path, command: str) -> None:
    """In a project in which nothing was run."""
    done = run(unfinished, command)
    output = done.stdout + done.stderr
    assert done.returncode == (1 if command in REFUSED else 0), output
    assert REFUSED.get(command, "") in " ".join(output.split())
    assert "Traceback" not in output


@pytest.mark.parametrize("command", ON_RESULTS)
def test_it_goes_on_from_results(finished: Path, command: str) -> None:
    """In a project whose study is finished."""
    done = run(finished, command)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.relative_to(ROOT).as_posix()
)
def test_python_of_a_page_runs(finished: Path, page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks of a page, one after the other, as a user would type them in the project's folder."""
    monkeypatch.chdir(finished)
    names: dict[str, Callable[..., object]] = {}
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), names)
