"""What a user sees at the command line: one line that says what is wrong, and no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tiny_project import make_project
from transferscope.system.folder_lock import FolderLock

pytestmark = pytest.mark.xdist_group("command_line")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("commands")).folder


def kedro(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"DO_NOT_TRACK": "1"}
    return subprocess.run(
        [sys.executable, "-m", "kedro", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["run", "--params", "runs.pt.replica=3"],
            "Error: parameters: runs.pt.replica: unknown key; allowed: checkpoint",
        ),
        (["run", "--pipelines", "mistakes"], "not there yet; make it with `kedro run --pipelines training`"),
        (["run", "--pipelines", "trainin"], "named 'trainin'. It needs to be generated"),
        (["run", "--namespaces", "clipart.mistake"], "['clipart.mistake']: did you mean clipart.mistakes"),
        (["run", "--nodes", "clipart.training.pt_9"], "['clipart.training.pt_9']: did you mean clipart.training.pt_"),
        (["run", "--tags", "nothing"], "`kedro registry describe` lists the steps"),
        (["run", "--env", "paper"], "chexpert does not exist: put the images there (nor do "),
        (
            ["run", "--params", "training.num_nodes=2,training.rendezvous=localhost:29400"],
            "training.num_nodes is 2 for shapes.p_1: run that training alone",
        ),
        (["run", "--params", "model.name=resnet51"], "model resnet51: unknown model 'resnet51'"),
        (["run", "--params", "training.num_processes=999"], "training.num_processes is 999, but there are"),
        (["run", "--runner-params", "gpus=99"], "--runner-params gpus=99: there are"),
        (["run", "--runner-params", "gpu=1"], "--runner-params gpu: GpuRunner has only gpus, max_workers"),
        (
            ["run", "--env", "nowhere"],
            "conf/nowhere does not exist; there are: base, local, own_checkpoints, own_images, paper",
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
    """Listing pipelines needs no data; the plan of base gives the eight pipelines."""
    done = kedro(folder, "registry", "list")
    assert done.returncode == 0
    for name in ("data_prep", "training", "mistakes", "similarity", "landscape", "spectrum", "report"):
        assert f"- {name}" in done.stdout
