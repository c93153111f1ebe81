"""The runner of one machine: what runs beside what, on which devices, and what a failure stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kedro.framework.hooks import hook_impl
from kedro.framework.hooks.manager import _create_hook_manager
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline
from threadpoolctl import threadpool_info, threadpool_limits

from transferscope.framework.config import CommandLineError
from transferscope.framework.runners import GpuRunner, gpu_runner
from transferscope.framework.runners import node_runner as steps_runner
from transferscope.framework.runners.failures import NodesFailed
from transferscope.system.errors import UserError
from transferscope.system.gpu_grants import granted_gpus, visible_to_child
from transferscope.training.device import choose_device
from transferscope.training.distributed.launch import OUTPUT, _environment, _run_launcher, count_processes


def step(function: Callable[..., Any], name: str, *, inputs: Any = None, gpus: int | str | None = None) -> Node:
    tags = [] if gpus is None else [f"gpus-{gpus}"]
    return Node(function, inputs=inputs, outputs=f"{name}.out", name=name, tags=tags)


def run(nodes: list[Node], **options: Any) -> DataCatalog:
    catalog = DataCatalog({f"{node.name}.out": MemoryDataset() for node in nodes})
    GpuRunner(**options).run(Pipeline(nodes), catalog)
    return catalog


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that believes to have four."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)


@pytest.mark.usefixtures("four_gpus")
def test_each_step_sees_its_own_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A request of two and two of one at once: disjoint devices, in a process that each launches and in this one."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3,6,7")
    together = threading.Barrier(3, timeout=30)

    def look() -> dict[str, Any]:
        together.wait()
        job = Path(tempfile.mkdtemp(dir=tmp_path))
        command = [sys.executable, "-c", "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"]
        assert _run_launcher(command, _environment(1, "cuda"), job, lambda: None) == 0
        child = (job / OUTPUT).read_text().strip()
        auto = count_processes("auto", "cuda")
        return {"gpus": granted_gpus(), "child": child, "here": str(choose_device(None)), "auto": auto}

    seen = run([step(look, "pair", gpus=2), step(look, "a", gpus=1), step(look, "b", gpus=1)])
    values = {name: seen.load(f"{name}.out") for name in ("a", "b", "pair")}
    assert values["a"] == {"gpus": (0,), "child": "2", "here": "cuda:0", "auto": 1}
    assert values["b"] == {"gpus": (1,), "child": "3", "here": "cuda:1", "auto": 1}
    assert values["pair"] == {"gpus": (2, 3), "child": "6,7", "here": "cuda:2", "auto": 2}
    assert granted_gpus() is None
    assert visible_to_child() == {}


@given(st.lists(st.tuples(st.sampled_from([1, 2, 8]), st.sampled_from([0, 1, 4])), min_size=1, max_size=25))
@settings(max_examples=15, deadline=None)
def test_sixteen_gpus_and_mixed_steps(wishes: list[tuple[int, int]]) -> None:
    """Steps that ask for 1, 2 or 8 and take some milliseconds: each gets its number, no GPU is held by two at once."""
    held: list[int] = []
    lock = threading.Lock()

    def work(count: int, milliseconds: int) -> Callable[[], int]:
        def inside() -> int:
            mine = granted_gpus()
            assert mine is not None
            assert len(mine) == count
            with lock:
                held.extend(mine)
                assert len(held) == len(set(held))
                assert set(held) <= set(range(16))
            time.sleep(milliseconds / 1000)
            with lock:
                for gpu in mine:
                    held.remove(gpu)
            return 1

        return inside

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "device_count", lambda: 16)
        run([step(work(*wish), f"step_{index}", gpus=wish[0]) for index, wish in enumerate(wishes)])


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize("gpus", [None, 2])
def test_a_training_gets_at_most_all_gpus(gpus: int | None) -> None:
    """One that asks for more than there are, or than the runner may use, trains on those in as many processes."""

    def ask() -> int:
        return count_processes(5, "cuda")

    assert run([step(ask, "a", gpus=5)], gpus=gpus).load("a.out") == (gpus or 4)


def test_what_the_longest_work_hangs_from_starts_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the plan's costs, on GPUs and on cores alike, whatever the names; results do not change."""
    order: list[str] = []

    def note(name: str) -> Callable[..., str]:
        def inside(*_: Any) -> str:
            order.append(name)
            return name

        return inside

    costs = {"a": 10.0, "b": 1.0, "c": 500.0, "d": 20.0}
    monkeypatch.setattr(steps_runner, "_costs", lambda: costs)
    nodes = [step(note(name), name, gpus=1) for name in "abd"] + [step(note("c"), "c", inputs="b.out", gpus=1)]
    seen = run(nodes, max_workers=1)
    assert order == ["b", "c", "d", "a"]
    assert [seen.load(f"{name}.out") for name in "acd"] == ["a", "c", "d"]


@pytest.mark.usefixtures("four_gpus")
def test_auto_is_every_gpu_and_cores_run_beside() -> None:
    """`gpus-auto` gets all that the runner has; a node without a tag runs at the same time, without any."""
    together = threading.Barrier(2, timeout=30)

    def look() -> dict[str, Any]:
        together.wait()
        return {"gpus": granted_gpus()}

    seen = run([step(look, "all", gpus="auto"), step(look, "plain")], gpus=3, max_workers=1)
    assert seen.load("all.out") == {"gpus": (0, 1, 2)}
    assert seen.load("plain.out") == {"gpus": None}


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpus": 8}, "--runner-params gpus=8: there are 4 GPUs here"),
    ],
)
def test_too_many_are_refused_before_anything_starts(options: dict[str, int], message: str) -> None:
    """The step that could run first has not run."""
    ran: list[str] = []
    nodes = [step(lambda: ran.append("first"), "first"), step(lambda: None, "a", gpus=5)]
    with pytest.raises(CommandLineError, match=message):
        run(nodes, **options)
    assert not ran


def test_without_gpus_a_step_takes_as_many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """On three slots a node of two processes and one without a tag run together, a second of two does not."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    running, most = [0], [0]
    lock = threading.Lock()

    def work(slots: int) -> Callable[[], int]:
        def inside() -> int:
            with lock:
                running[0] += slots
                most[0] = max(most[0], running[0])
            time.sleep(0.05)
            with lock:
                running[0] -= slots
            return slots

        return inside

    run(
        [*(step(work(2), f"pair_{k}", gpus=2) for k in range(3)), *(step(work(1), f"one_{k}") for k in range(4))],
        max_workers=3,
    )
    assert most[0] == 3


def test_a_failure_stops_only_what_needs_it() -> None:
    """The other branch is done; the error says what failed, what was skipped, and what of it was the user's mistake."""
    nodes = [
        step(lambda: 1, "good"),
        step(lambda _: 1, "after_good", inputs="good.out"),
        step(lambda: 1 / 0, "bad"),
        step(lambda _: 1, "after_bad", inputs="bad.out"),
        step(lambda *_: 1, "after_both", inputs=["after_bad.out", "after_good.out"]),
    ]
    with pytest.raises(NodesFailed, match="bad: ZeroDivisionError: division by zero") as caught:
        run(nodes, max_workers=2)
    steps = caught.value.progress
    assert {node.name for node in steps.seconds} == {"good", "after_good"}
    assert {node.name for node in steps.failed} == {"bad"}
    assert {node.name: bad.name for node, bad in steps.skipped.items()} == {"after_bad": "bad", "after_both": "bad"}


def test_a_users_mistake_keeps_its_own_words() -> None:
    def mistaken() -> None:
        raise UserError("images: 3 files cannot be read")

    with pytest.raises(NodesFailed, match=r"^images: 3 files cannot be read$"):
        run([step(mistaken, "a")])


def test_storage_that_takes_nothing_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """Also where it comes from within another error, as from Kedro's datasets; no traceback."""

    def save() -> None:
        try:
            Path("/dev/full").write_text("x")
        except OSError as error:
            raise RuntimeError("Failed while saving data") from error

    with pytest.raises(NodesFailed, match=r"^storage: No space left on device$"):
        run([step(save, "a")])
    assert "Traceback" not in caplog.text


def test_hooks_see_every_step() -> None:
    """As with the sequential runner: before and after each node, each dataset saved and loaded, each error."""
    seen: list[tuple[str, str]] = []

    class Watch:
        @hook_impl
        def before_node_run(self, node: Node) -> None:
            seen.append(("before", node.name))

        @hook_impl
        def after_node_run(self, node: Node) -> None:
            seen.append(("after", node.name))

        @hook_impl
        def after_dataset_saved(self, dataset_name: str) -> None:
            seen.append(("saved", dataset_name))

        @hook_impl
        def after_dataset_loaded(self, dataset_name: str) -> None:
            seen.append(("loaded", dataset_name))

        @hook_impl
        def on_node_error(self, node: Node) -> None:
            seen.append(("error", node.name))

    manager = _create_hook_manager()
    manager.register(Watch())
    nodes = [step(lambda: 1, "a"), step(lambda _: 1 / 0, "b", inputs="a.out")]
    with pytest.raises(NodesFailed):
        GpuRunner().run(Pipeline(nodes), DataCatalog({"a.out": MemoryDataset()}), hook_manager=manager)
    assert seen == [
        ("before", "a"), ("after", "a"), ("saved", "a.out"), ("loaded", "a.out"), ("before", "b"), ("error", "b"),
    ]  # fmt: skip


def test_inputs_are_released_when_nobody_needs_them_any_more() -> None:
    """What lies in memory between steps is dropped after its last reader."""
    nodes = [step(lambda: 1, "a"), step(lambda _: 1, "b", inputs="a.out")]
    catalog = run(nodes)
    assert not catalog.exists("a.out")
    assert catalog.load("b.out") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpu": 1}, "--runner-params gpu: GpuRunner has only gpus, max_workers"),
        ({"gpus": 0}, "--runner-params gpus=0: give a whole number above 0"),
        ({"max_workers": "many"}, "--runner-params max_workers=many: give a whole number above 0"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CommandLineError, match=message):
        GpuRunner(**options)


INTERRUPTED = """
import os, signal, subprocess, sys, time
from kedro.io import DataCatalog
from kedro.pipeline import Node, Pipeline
from transferscope.framework.runners import node_runner as steps_runner
from transferscope.framework.runners import GpuRunner, gpu_runner

def busy(name):
    def work():
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        try:
            with open(f"{name}.tmp", "w") as file:
                file.write(str(child.pid))
            os.rename(f"{name}.tmp", f"{name}.child")
            while True:
                time.sleep(0.05)
        finally:
            child.kill()
    return Node(work, None, f"{name}.out", name=name)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job inherits that it is ignored
    GpuRunner(max_workers=2).run(Pipeline([busy("a"), busy("b")]), DataCatalog())
"""


def test_ctrl_c_ends_all_at_once(tmp_path: Path) -> None:
    """An interrupt of the process alone: steps are unwound, and their processes gone."""
    script = tmp_path / "run.py"
    script.write_text(INTERRUPTED)
    process = subprocess.Popen([sys.executable, str(script)], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while len(marks := list(tmp_path.glob("*.child"))) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    children = [int(path.read_text()) for path in marks]
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert "KeyboardInterrupt" in errors
    assert process.returncode != 0
    for child in children:
        assert not _alive(child)


class Holder:
    """Hooks that hold something until it is given back."""

    held = True

    def let_go(self) -> None:
        self.held = False


@pytest.mark.parametrize("stubborn", [False, True])
def test_after_ctrl_c_in_a_notebook_nothing_is_held(stubborn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kedro calls no hook after an interrupt, and the process lives on; what cannot be interrupted keeps its folder."""
    monkeypatch.setattr(gpu_runner, "PATIENCE_SECONDS", 0.5)
    begun, end = threading.Event(), threading.Event()

    def work() -> int:
        begun.set()
        while not end.is_set():
            end.wait(None if stubborn else 0.05)
        return 1

    def interrupt(*_: object) -> list[object]:
        assert begun.wait(60)
        raise KeyboardInterrupt

    holder, manager = Holder(), _create_hook_manager()
    manager.register(holder)
    monkeypatch.setattr(gpu_runner._Threads, "ended", interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            GpuRunner(max_workers=1).run(Pipeline([step(work, "a")]), DataCatalog(), manager)
        assert holder.held is stubborn
    finally:
        end.set()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.usefixtures("four_gpus")
def test_memory_of_a_gpu_is_given_back_after_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next step on that GPU may be a training in a process of its own. Without CUDA in use there is nothing to do."""
    calls: list[str] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append(threading.current_thread().name))
    run([step(lambda: 1, "a", gpus=1)])
    assert not calls
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    run([step(lambda: 1, "a", gpus=1), step(lambda: 1, "b"), step(lambda: 1, "c", gpus=4)])
    assert sorted(calls) == ["a", "c"]
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: 1 / 0)  # CUDA, broken by the node before
    assert run([step(lambda: 1, "a", gpus=1)]).load("a.out") == 1


def test_steps_have_one_blas_thread_whatever_their_neighbours_do() -> None:
    """The limit belongs to the process: a node that sets one of its own and takes it back changes nothing."""
    limited, taken_back = threading.Event(), threading.Event()

    def decompose() -> str:
        with threadpool_limits(1, "blas"):
            limited.set()
        taken_back.set()
        return ""

    def look() -> set[int]:
        assert limited.wait(30)
        assert taken_back.wait(30)
        return blas_threads()

    with threadpool_limits(2, "blas"):
        seen = run([step(decompose, "a"), step(look, "b")], max_workers=2)
        assert seen.load("b.out") == {1}
        assert blas_threads() == {2}


def blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}
