"""Kedro's own runners give the bytes of this project's, and what a run finds around it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from kedro.framework.project import pipelines
from kedro.pipeline import Node
from kedro.runner import AbstractRunner, ParallelRunner, SequentialRunner, ThreadRunner

from tiny_project import SMALL, Project, make_project
from transferscope.framework.runners import GpuRunner, RayRunner, gpu_runner, ray_cluster
from transferscope.framework.runners.gpu_processes import GpuProcesses
from transferscope.framework.runners.surroundings import TERMINATED, one_thread_an_operation
from transferscope.system.folder_lock import FolderLock
from without_times import TIMES, without_times

MADE_BY = "data/.made_by.json"


def run_with(folder: Path, runner: Callable[[], AbstractRunner], **options: Any) -> dict[str, bytes]:
    """Weights, tables, figures and the list of what made them, of the small study, by their files.

    `folder` is removed in the end, so that each runner may have the same: a part of the plan is where the images lie.
    """
    folder.mkdir()
    project = make_project(folder, SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OMP_NUM_THREADS", raising=False)
        patch.chdir(folder)
        project.run(runner=runner(), **options)
        assert "OMP_NUM_THREADS" not in os.environ
    made = [folder / MADE_BY, *folder.glob("data/06_models/**/*"), *folder.glob("data/0[78]*/**/*")]
    files = {
        str(path.relative_to(folder)): without_times(path) for path in made if path.is_file() and path.name not in TIMES
    }
    shutil.rmtree(folder)
    return files


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runners") / "project"


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, bytes]:
    return run_with(folder, lambda: GpuRunner(max_workers=max(2, os.cpu_count() or 1)))


RUNNERS: dict[str, tuple[Callable[[], AbstractRunner], str]] = {
    "sequential": (SequentialRunner, ""),
    "threads": (lambda: ThreadRunner(max_workers=2), ""),
    "fork": (lambda: ParallelRunner(max_workers=2), "fork"),
    "spawn": (lambda: ParallelRunner(max_workers=2), "spawn"),
}


@pytest.mark.xdist_group("kedro_runners")
@pytest.mark.parametrize("name", RUNNERS)
def test_kedros_runners_give_the_same_bytes(
    name: str, expected: dict[str, bytes], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of the list of what made them, though torch may use two threads; afterwards it may again."""
    runner, method = RUNNERS[name]
    monkeypatch.setenv("KEDRO_MP_CONTEXT", method)
    torch.set_num_threads(2)
    try:
        files = run_with(folder, runner)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert len(files) > 30
    assert files.keys() == expected.keys()
    assert [path for path in files if files[path] != expected[path]] == []


@pytest.mark.xdist_group("kedro_runners")
def test_analyses_in_a_process_for_each_gpu_give_the_same_bytes(
    expected: dict[str, bytes], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine that believes to have two GPUs, of which torch finds none; trainings stay here."""
    carried: list[str] = []
    original = GpuProcesses.carry_out

    def carry_out(self: GpuProcesses, node: Node) -> None:
        carried.append(node.name)
        original(self, node)

    monkeypatch.setattr(GpuProcesses, "carry_out", carry_out)
    monkeypatch.setattr(gpu_runner, "gpus_there", lambda: 2)
    wanted = [f"clipart.landscape.{name}" for name in ("criticality_rit_1", "interpolate_rit_1__rit_2")]
    files = run_with(folder, lambda: GpuRunner(max_workers=2), to_nodes=wanted)
    assert sorted(carried) == wanted
    assert len([path for path in files if "landscape" in path or "criticality" in path]) > 2
    assert [path for path in files if path != MADE_BY and files[path] != expected[path]] == []


@pytest.mark.xdist_group("kedro_runners")
def test_ray_gives_the_same_bytes_on_loopback_and_leaves_nothing(
    expected: dict[str, bytes], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a cluster of its own, without a process or a file of it afterwards."""
    system = Path(tempfile.mkdtemp(prefix="ts-", dir="/tmp"))  # sockets have short names
    # Tests in another process may have a cluster at the same time; the folder of a session ends with its process.
    monkeypatch.setattr(ray_cluster, "_known", lambda: None)
    own = f"session_*_{os.getpid()}"
    before = set(Path("/tmp/ray").glob(own))
    monkeypatch.setattr(tempfile, "tempdir", str(system))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    files = run_with(folder, RayRunner)
    assert [path for path in files if files[path] != expected[path]] == []
    assert files.keys() == expected.keys()
    assert not list(system.iterdir())
    system.rmdir()
    assert set(Path("/tmp/ray").glob(own)) == before


def test_every_node_of_every_study_can_be_sent_to_another_process(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ParallelRunner asks for it; no study of `conf` has a node that is a closure."""
    monkeypatch.chdir(project.folder)
    for env in (None, "paper", "own_images"):
        with project.session(env=env) as session:
            session.load_context()
            nodes = pipelines["__default__"].nodes
            assert len(nodes) > 100
            ParallelRunner._validate_nodes(nodes)


def test_after_ctrl_c_in_a_notebook_another_may_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the session and the interrupt are still there, data folder, threads and SIGTERM are as before the run."""

    def interrupt(*_: object) -> list[object]:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(gpu_runner._Threads, "ended", interrupt)
    before = signal.getsignal(signal.SIGTERM)
    with make_project(tmp_path, SMALL).session() as session, pytest.raises(KeyboardInterrupt) as interrupted:
        session.run(runner=GpuRunner(max_workers=1), node_names=["clipart.data_prep.draw_domains"])
    assert interrupted.value is not None
    FolderLock(tmp_path / "data").release()
    assert "OMP_NUM_THREADS" not in os.environ
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_number_of_threads_that_the_user_gives_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    torch.set_num_threads(2)
    try:
        one_thread_an_operation()()
        assert torch.get_num_threads() == 2
        assert os.environ["OMP_NUM_THREADS"] == "2"
        monkeypatch.delenv("OMP_NUM_THREADS")
        restore = one_thread_an_operation()
        assert torch.get_num_threads() == 1
        restore()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


TERMINATED_RUN = """
import os, sys, time
from pathlib import Path
from kedro.framework.hooks.manager import _create_hook_manager
from kedro.io import DataCatalog
from kedro.pipeline import Node, Pipeline
from kedro import runner as kedro_runners
from transferscope.framework import runners
from transferscope.system.atomic import atomic_file
from transferscope.system.processes import elsewhere
from transferscope.framework.runners.gpu_processes import GpuProcesses
from transferscope.framework.runners.surroundings import Surroundings
from transferscope.system.temporaries import work_folder

def work():
    with work_folder(), atomic_file(Path("table.csv")) as file:
        file.write_text("half")
        Path("begun").touch()
        while True:
            time.sleep(0.05)

if __name__ == "__main__":
    surroundings, manager = Surroundings(), _create_hook_manager()
    manager.register(surroundings)
    surroundings.before_pipeline_run()
    kind = sys.argv[1]
    runner = getattr(runners, kind, None) or getattr(kedro_runners, kind)
    catalog = DataCatalog()
    if kind == "ParallelRunner":
        from kedro.io import SharedMemoryDataCatalog
        catalog = SharedMemoryDataCatalog()
    runner().run(Pipeline([Node(work, None, "out", name="work")]), catalog, manager)
"""


@pytest.fixture
def system() -> Iterator[Path]:
    """A system's temporary folder of a short path: the socket of Python's process manager may have 107 bytes."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.mark.xdist_group("kedro_runners")
@pytest.mark.parametrize("kind", ["GpuRunner", "SequentialRunner", "ThreadRunner", "ParallelRunner"])
def test_sigterm_ends_in_order(tmp_path: Path, system: Path, kind: str) -> None:
    """As a scheduler sends it: the node is unwound, and neither a file beside its place nor a work folder is left."""
    script = tmp_path / "run.py"
    script.write_text(TERMINATED_RUN)
    process = subprocess.Popen(
        [sys.executable, str(script), kind],
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(system)},
        stderr=subprocess.PIPE,
    )
    while not (tmp_path / "begun").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    assert [path for path in system.iterdir() if path.name.startswith("transferscope-")]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == TERMINATED
    assert not list(tmp_path.glob(".*.tmp"))
    assert not [path for path in system.iterdir() if path.name.startswith(("transferscope-", "pymp-"))]
