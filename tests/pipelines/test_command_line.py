"""What a user sees at the command line: one line that says what is wrong, and no traceback."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from kedro.framework.project import configure_project, pipelines
from PIL import Image

from forked_kedro import kedro
from tiny_project import ROOT, make_project
from transferscope.framework.config import PlanConfigLoader
from transferscope.models.zoo import build_model
from transferscope.settings import CONFIG_LOADER_ARGS
from transferscope.system.folder_lock import FolderLock

pytestmark = pytest.mark.xdist_group("command_line")


def _png() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (16, 16)).save(stream, "PNG")
    return stream.getvalue()


PIXEL = _png()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_project(tmp_path_factory.mktemp("commands")).folder
    (made / "overlay.yml").write_text("run:\n  envv: paper\n")
    return made


def kedro_in_a_new_python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kedro", *arguments]
    environment = os.environ | {"DO_NOT_TRACK": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["run", "--params", "runs.pt.replica=3"],
            "Error: parameters: runs.pt.replica: unknown key; allowed: checkpoint",
        ),
        (["run", "--pipelines", "mistakes"], "not there yet; make it with `kedro run --pipelines training`"),
        (["run", "--pipelines", "trainin"], "there is no pipeline 'trainin': did you mean training?"),
        (["run", "--namespaces", "clipart.mistake"], "['clipart.mistake']: did you mean clipart.mistakes"),
        (["run", "--nodes", "clipart.training.pt_9"], "['clipart.training.pt_9']: did you mean clipart.training.pt_"),
        (["run", "--tags", "nothing"], "`kedro registry describe` lists the nodes"),
        (["run", "--env", "paper"], "chexpert does not exist: put the images there"),
        (
            ["run", "--params", "training.num_nodes=2,training.rendezvous=localhost:29400"],
            "training.num_nodes is 2 for shapes.p_1: run that training alone",
        ),
        (["run", "--params", "model.name=resnet51"], "model resnet51: unknown model 'resnet51'"),
        (["run", "--params", "runs.rit.replicas=1000000000"], "runs.rit.replicas: Input should be less than or equal"),
        (["run", "--params", "training={a: b"], "--params: cannot be read"),
        (["run", "--load-versions", "claims"], "--load-versions: cannot be read"),
        (
            ["run", "--load-versions", "claims:2020-01-01T00.00.00.000Z", "--pipelines", "report"],
            "--load-versions claims: this entry keeps no versions: leave the option out",
        ),
        (["run", "--config", "overlay.yml"], "overlay.yml: run.envv: unknown option; did you mean env?"),
        (
            ["run", "--nodes", "generated.draw_domains", "--params", "tasks.clipart.root=/dev/null"],
            "tasks.clipart.root: /dev/null is a file, where a folder is to be written: name another",
        ),
        (["cost", "--env", "nowhere"], "--env nowhere: the folder"),
        (["run", "--runner-params", "gpus=99"], "--runner-params gpus=99: there are"),
        (["run", "--runner", "my_runners.Fast"], "--runner my_runners.Fast: no runner has this name; give GpuRunner, "),
        (["run", "--runner", "pathlib.Path"], "--runner pathlib.Path: no runner has this name"),
        (
            ["run", "--runner", "ThreadRunner", "--runner-params", "gpus=1"],
            "--runner-params gpus: ThreadRunner has only max_workers, is_async",
        ),
        (["run", "--runner", "GpuRunner", "--runner-params", "gpu=1"], "--runner-params gpu: GpuRunner has only gpus"),
        (["run", "--runner-params", "gpu=1"], "--runner-params gpu: GpuRunner has only gpus, max_workers"),
        (
            ["run", "--env", "nowhere"],
            "conf/nowhere does not exist; there are: base, feature_reuse, local, merging, own_checkpoints, own_images",
        ),
    ],
)
def test_a_mistake_ends_in_one_line(folder: Path, arguments: list[str], message: str) -> None:
    """Exit code 1, the message, and no traceback."""
    done = kedro(folder, *arguments)
    output = done.stdout + done.stderr
    assert done.returncode == 1
    assert message in output
    assert "Traceback" not in output


def test_all_faults_of_a_run_are_listed_and_paths_begin_at_the_project(folder: Path) -> None:
    """From a folder below: a class list and two checkpoints that are not there, before any image is packed."""
    below = folder / "notes" / "deep"
    below.mkdir(parents=True, exist_ok=True)
    for name in ("cat", "dog"):
        place = folder / "data/01_raw/images" / name
        place.mkdir(parents=True, exist_ok=True)
        for index in range(2):
            (place / f"{index}.png").write_bytes(PIXEL)
    values = "model.name=resnet18,runs.a.checkpoint=no/a.pth,runs.b.checkpoint=no/b.pth,tasks.images.class_list=no.txt"
    done = kedro_in_a_new_python(below, "run", "--env", "own_checkpoints", "--params", values)
    assert done.returncode == 1
    assert "Error: 3 faults" in done.stderr
    for fault in (
        f"tasks.images: class_list {folder}/no.txt",
        f"runs.a.checkpoint: checkpoint {folder}/no/a.pth does not exist",
        f"runs.b.checkpoint: checkpoint {folder}/no/b.pth does not exist",
    ):
        assert fault in done.stderr
    assert not (folder / "data/own_checkpoints/05_model_input").exists()
    assert "Loading data" not in done.stdout, "the project's logging is used below its folder, too"
    assert not list(below.iterdir())


@pytest.mark.parametrize(
    ("of_before", "mistake", "message"),
    [
        ("version: 1", "version: 1\nroot: [", "logging.yml, line"),
        ("kedro.logging.RichHandler", "kedro.logging.NoHandler", "Class 'NoHandler' not found in module"),
    ],
)
def test_a_mistake_in_the_logging_is_one_line(folder: Path, of_before: str, mistake: str, message: str) -> None:
    """It names the file; Kedro itself reads only conf/logging.yml, which holds nothing to change."""
    file = folder / "conf/base/logging.yml"
    content = file.read_text()
    assert of_before in content
    try:
        file.write_text(content.replace(of_before, mistake))
        done = kedro_in_a_new_python(folder, "registry", "list")
    finally:
        file.write_text(content)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"Error: {file}")
    assert message in done.stderr


def test_spectra_of_files_need_no_folder_of_images(folder: Path) -> None:
    """The documented command alone: the missing folder is named, and input_size is the size of the layers' inputs."""
    for seed, name in enumerate("ab"):
        model = build_model("fixup_resnet_small", 2, seed=seed)
        torch.save(model.state_dict(), folder / f"{name}.pth")
    shutil.rmtree(folder / "data/01_raw/images", ignore_errors=True)  # of the test before
    values = "model.name=fixup_resnet_small,runs.a.checkpoint=a.pth,analyses.spectrum.input_size=12"
    asked = ["--env", "own_checkpoints", "--params", values, "--pipelines", "spectrum"]
    done = kedro(folder, "run", *asked)
    assert done.returncode == 0, done.stderr
    words = "".join(done.stdout.split())
    assert "imagesdoesnotexist:spectraofcheckpointfilesneednoimages" in words
    table = pd.read_csv(folder / "data/own_checkpoints/07_model_output/images/spectrum.csv")
    first = table[table["module"] == "conv1"]
    assert set(first["num_values"]) == {3 * 12 * 12}
    done = kedro(folder, "run", *asked[:4])
    assert done.returncode == 1
    assert "images does not exist: put the images there" in done.stdout + done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["registry", "list"],
        ["catalog", "list-patterns"],
        ["cost", "--train-speed", "100", "--forward-speed", "300"],
        ["run", "--nodes", "generated.draw_domains"],
    ],
)
def test_commands_work_below_the_projects_folder(folder: Path, arguments: list[str]) -> None:
    """As in the folder itself, and nothing is written there."""
    below = folder / "below"
    below.mkdir(exist_ok=True)
    done = kedro(below, *arguments)
    assert done.returncode == 0, done.stderr
    assert not list(below.iterdir())


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "local/parameters.yml",
            b"training: {lr: 1}\ntraining: {}\n",
            "parameters.yml, line 2: the key 'training' is there",
        ),
        ("local/globals.yml", b"dat: elsewhere\n", "globals.yml: unknown key 'dat': nothing refers to it"),
        ("local/catalog.yml", b"a: [1\n", "catalog.yml, line 2, column 1: expected ',' or ']'"),
        ("local/parameters.yml", "a: é".encode("latin-1"), "parameters.yml, line 1: the file is not UTF-8"),
        ("local/parameters.yml", b"a: ${globals:none}\n", "none"),
    ],
)
def test_a_mistake_in_a_file_is_one_line(folder: Path, file: str, content: bytes, message: str) -> None:
    """In parameters, globals and catalog alike; the file is named, and its line."""
    path = folder / "conf" / file
    before = path.read_bytes() if path.exists() else None
    path.write_bytes(content)
    try:
        done = kedro(folder, "run", "--nodes", "generated.draw_domains")
    finally:
        path.write_bytes(before) if before is not None else path.unlink()
    assert done.returncode == 1
    assert message in " ".join((done.stdout + done.stderr).split())
    assert "Traceback" not in done.stdout + done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("Error: ")]) == 1


def test_an_unknown_type_of_an_entry_is_one_line(folder: Path) -> None:
    """The entry that is used and its type are named before any node runs."""
    path = folder / "conf/local/catalog.yml"
    path.write_text('"{task}.train_split":\n  type: no.such.Dataset\n')
    try:
        done = kedro(folder, "run", "--nodes", "generated.draw_domains,clipart.data_prep.pack_train")
    finally:
        path.unlink()
    assert done.returncode == 1
    assert re.search(r"^Error: .*'\w+\.train_split': .*no\.such\.Dataset", done.stderr, re.MULTILINE)
    assert "Traceback" not in done.stdout + done.stderr
    assert not re.search(r"\[1/\d+\]|Completed node", done.stdout + done.stderr)


def test_a_small_change_on_top_of_an_environment(folder: Path) -> None:
    """`--config` lays parameters over an environment, deeply: siblings of what it names stay."""
    overlay = folder / "two_ends.yml"
    overlay.write_text("run:\n  env: paper\n  params: {analyses: {landscape: {ends: [[best, final]], endd: 1}}}\n")
    done = kedro(folder, "run", "--config", "two_ends.yml")
    assert done.returncode == 1
    assert "Error: parameters: analyses.landscape.endd: unknown key; allowed: alphas" in done.stderr
    overlay.write_text("run:\n  env: paper\n  params: {analyses: {landscape: {ends: [[best, final]]}}}\n")
    done = kedro(folder, "run", "--config", "two_ends.yml")
    assert "imagenet does not exist: put the images there" in done.stderr


@pytest.mark.parametrize(
    ("tag", "parts"), [("cka", {"similarity"}), ("mistakes", {"mistakes"}), ("lines", {"landscape"})]
)
def test_tags_select_an_analysis(tag: str, parts: set[str]) -> None:
    """`--tags cka` is the CKA of every task with its figures, and nothing else."""
    configure_project("transferscope")
    PlanConfigLoader(str(ROOT / "conf"), **{**CONFIG_LOADER_ARGS, "default_run_env": "base"})
    nodes = pipelines["__default__"].only_nodes_with_tags(tag).nodes
    assert nodes
    assert {str(node.namespace).rpartition(".")[2] for node in nodes} == parts
    if tag == "cka":
        assert {node.name.rpartition(".")[2] for node in nodes} == {"measure_cka", "draw_cka", "draw_cka_heat_map"}


def test_a_failing_step_leaves_the_others_and_a_command_to_repeat_it(folder: Path) -> None:
    """A file where a folder should be: the task cannot be packed, the other is; the command given repeats the rest."""
    task = folder / "data/05_model_input/clipart"
    task.parent.mkdir(parents=True)
    task.touch()
    arguments = ["run", "--pipelines", "data_prep", "--params", "seed=7"]
    arguments += ["--nodes", "generated.draw_domains,clipart.data_prep.pack_train,real.data_prep.pack_train"]
    done = kedro(folder, *arguments)
    output = done.stdout + done.stderr
    assert done.returncode == 1
    assert "real.data_prep.pack_train" in done.stdout
    assert (folder / "data/05_model_input/real/train/images.npy").is_file()
    assert "What failed" in output
    assert "Error: " in output
    command = next(line for line in output.splitlines() if line.startswith("kedro run"))
    assert command.endswith("--from-nodes clipart.data_prep.pack_train")
    task.unlink()
    again = kedro(folder, *command.split()[1:])
    assert again.returncode == 0
    assert "the results: data/05_model_input/clipart" in " ".join(again.stdout.split())
    assert (task / "train/images.npy").is_file()


def test_two_runs_on_one_data_folder(folder: Path) -> None:
    """The second is refused in one line that names the first."""
    lock = FolderLock(folder / "data")
    try:
        done = kedro(folder, "run", "--nodes", "generated.draw_domains")
    finally:
        lock.release()
    assert done.returncode == 1
    assert f"is in use by another run (process {os.getpid()} on " in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_the_registry_follows_the_environment(folder: Path) -> None:
    """Listing pipelines needs no data; the plan of base gives its pipelines."""
    done = kedro_in_a_new_python(folder, "registry", "list")
    assert done.returncode == 0
    for name in ("data_prep", "training", "mistakes", "similarity", "landscape", "spectrum", "merging", "report"):
        assert f"- {name}" in done.stdout
