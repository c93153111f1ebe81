"""Training through torch's elastic launcher."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from transferscope.experiment.options import ModelOptions
from transferscope.models.series import CheckpointSeries
from transferscope.system.errors import UserError
from transferscope.system.folder_lock import run_folder_held
from transferscope.system.temporaries import LOCK, NAME, remove_dead_work
from transferscope.training import record
from transferscope.training.distributed import launch
from transferscope.training.distributed.failure import WorkerError, failure
from transferscope.training.distributed.launch import count_processes, train
from transferscope.training.loop import train_run
from transferscope.training.record import RunFolder

Make = Callable[..., Any]

PATIENCE = 300


def workers_of(jobs: Path) -> list[psutil.Process]:
    """Training processes whose job lies in the folder `jobs`, the launcher left out."""
    workers = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if any(str(jobs) in word for word in command) and "torch.distributed.run" not in command:
            workers.append(process)
    return workers


def left_in(jobs: Path) -> list[Path]:
    """Folders of jobs. The one that torch makes for its compiler, wherever temporary files lie at the time, is none."""
    return [path for path in jobs.iterdir() if not path.name.startswith("torchinductor")]


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.1)


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where launched jobs lie."""
    folder = tmp_path / "jobs"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_num_cores", lambda: 2)


def test_a_worker_that_dies_is_started_again(
    make_split: Make, make_run: Make, jobs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of two processes one is killed; both go on from the snapshot, the log says so, and the result is one process's."""
    caplog.set_level(logging.INFO, "transferscope")
    parts = make_split(40, folder=tmp_path / "train"), make_split(24, part="test", folder=tmp_path / "test")
    run = make_run(epochs=25, batch_size=16, lr=0.01, num_processes=2, max_restarts=1, snapshot_seconds=0)
    with ThreadPoolExecutor(1) as thread:
        training = thread.submit(train, run, *parts, initial=None, folder=tmp_path / "two", device_type="cpu")
        wait_for(lambda: (tmp_path / "two" / "epoch_0001.safetensors").exists() or training.done())
        workers_of(jobs)[-1].kill()
        series, history = training.result(PATIENCE)
    assert "all were started again (1 of 1)" in caplog.text
    assert "goes on after epoch" in caplog.text
    one, expected = train_run(run, *parts, initial=None, folder=tmp_path / "one")
    assert history["train_loss"].tolist()[1:] == pytest.approx(expected["train_loss"].tolist()[1:], rel=1e-3)
    for name, value in one.load("final").state_dict.items():
        torch.testing.assert_close(series.load("final").state_dict[name], value, rtol=1e-3, atol=1e-4, msg=name)
    assert not workers_of(jobs)


def test_one_worker_needs_no_launcher(
    make_split: Make, make_run: Make, jobs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As on one GPU: it is the only process, is started again when it is killed, and leaves the bytes of `train_run`."""
    caplog.set_level(logging.INFO, "transferscope")
    parts = make_split(40, folder=tmp_path / "train"), make_split(24, part="test", folder=tmp_path / "test")
    run = make_run(epochs=25, batch_size=16, lr=0.01, max_restarts=1, snapshot_seconds=0)
    given = record.Inputs.of(run, record.by_part(*parts, None), None)
    started: set[int] = set()
    others = {process.pid for process in psutil.Process().children(recursive=True)}  # of tests before this one
    with ThreadPoolExecutor(1) as thread, run_folder_held(tmp_path / "alone") as lock:
        training = thread.submit(launch._launch, [RunFolder(tmp_path / "alone", given)], [lock], "cpu", 1)
        wait_for(lambda: (tmp_path / "alone" / "epoch_0001.safetensors").exists() or training.done())
        (first,) = workers_of(jobs)
        first.kill()
        while not training.done():
            started |= {process.pid for process in psutil.Process().children(recursive=True)}
            time.sleep(0.1)
        training.result(PATIENCE)
    assert len(started - others - {first.pid}) == 1
    assert "all were started again (1 of 1)" in caplog.text
    assert "goes on after epoch" in caplog.text
    series = CheckpointSeries.open(tmp_path / "alone")
    one, _ = train_run(run, *parts, initial=None, folder=tmp_path / "one", device="cpu")
    for name, value in one.load("final").state_dict.items():
        assert torch.equal(series.load("final").state_dict[name], value)


def test_one_worker_that_fails_is_one_line(make_split: Make, make_run: Make, jobs: Path, tmp_path: Path) -> None:
    """Killed once more than it may be started again, it is named with the signal."""
    parts = make_split(40, folder=tmp_path / "train"), make_split(24, part="test", folder=tmp_path / "test")
    given = record.Inputs.of(make_run(epochs=100000), record.by_part(*parts, None), None)
    with ThreadPoolExecutor(1) as thread, run_folder_held(tmp_path / "alone") as lock:
        training = thread.submit(launch._launch, [RunFolder(tmp_path / "alone", given)], [lock], "cpu", 1)
        wait_for(lambda: workers_of(jobs) or training.done())
        workers_of(jobs)[0].kill()
        with pytest.raises(WorkerError, match=r"was ended by signal 9 \(killed; often the memory ran out\)"):
            training.result(PATIENCE)


def test_ctrl_c_leaves_no_process(make_split: Make, make_run: Make, jobs: Path, tmp_path: Path) -> None:
    """An interrupt from the terminal, which goes to the whole foreground group, ends launcher and workers."""
    parts = make_split(40, folder=tmp_path / "train"), make_split(24, part="test", folder=tmp_path / "test")
    run = make_run(epochs=100000, num_processes=2, max_restarts=3, snapshot_seconds=0)

    def interrupted() -> None:
        os.setsid()
        train(run, *parts, initial=None, folder=tmp_path / "run", device_type="cpu")

    process = multiprocessing.get_context("fork").Process(target=interrupted)
    process.start()
    assert process.pid is not None
    wait_for(lambda: (tmp_path / "run" / "epoch_0001.safetensors").exists() or not process.is_alive())
    assert len(workers_of(jobs)) == 2
    os.killpg(process.pid, signal.SIGINT)
    process.join(PATIENCE)
    assert process.exitcode not in (0, None)
    wait_for(lambda: not workers_of(jobs))
    assert not left_in(jobs)


def test_a_training_that_is_killed_leaves_no_process_and_no_lock(
    make_split: Make, make_run: Make, jobs: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """While it runs another training in its folder is refused, in one line, and every socket listens on loopback.

    After SIGKILL its launcher and workers end by themselves, and the next training waits for that, goes on from the
    snapshot, and ends as one that was never disturbed.
    """
    parts = make_split(40, folder=tmp_path / "train"), make_split(24, part="test", folder=tmp_path / "test")
    run, folder = make_run(epochs=40, num_processes=2, snapshot_seconds=0), tmp_path / "run"

    def training() -> None:
        train(run, *parts, initial=None, folder=folder, device_type="cpu")

    process = multiprocessing.get_context("fork").Process(target=training)
    process.start()
    assert process.pid is not None
    wait_for(lambda: (folder / "epoch_0001.safetensors").exists() or not process.is_alive())
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) == 3
    listening = [
        connection.laddr.ip
        for child in children
        for connection in child.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    assert {address.removeprefix("::ffff:") for address in listening} <= {"127.0.0.1", "::1"}
    stopped = [psutil.Process(process.pid), *children]  # so that all that happens in its folder is others' doing
    for one in stopped:
        one.suspend()
    before = {path.name for path in folder.iterdir()}
    for other in (run, make_run(epochs=1), make_run(epochs=1, lr=0.01)):
        with pytest.raises(UserError, match=rf"is in use by another run \(process {process.pid} on .*`models_folder`"):
            train(other, *parts, initial=None, folder=folder, device_type="cpu")
    assert {path.name for path in folder.iterdir()} == before
    for one in stopped:
        one.resume()
    process.kill()
    process.join()
    again, _ = train(run, *parts, initial=None, folder=folder, device_type="cpu")
    assert not any(child.is_running() for child in children)
    request.getfixturevalue("forked")  # the same two processes, which need not import torch again
    undisturbed, _ = train(run, *parts, initial=None, folder=tmp_path / "other", device_type="cpu")
    for name, value in undisturbed.load("final").state_dict.items():
        assert torch.equal(again.load("final").state_dict[name], value), name
    assert not [path for path in folder.iterdir() if NAME.fullmatch(path.name) or path.name == LOCK]
    assert len(left_in(jobs)) == 1
    remove_dead_work()
    assert not left_in(jobs)


def test_two_trainings_in_one_process_do_not_share_a_folder(make_split: Make, make_run: Make, tmp_path: Path) -> None:
    """Threads of one run, as well: the second is refused before it has written anything."""
    parts = make_split(40), make_split(24, part="test")
    with run_folder_held(tmp_path), pytest.raises(UserError, match="is in use by another run"):
        train(make_run(), *parts, initial=None, folder=tmp_path, device_type="cpu")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("forked")
def test_workers_get_all_that_train_run_gets(make_split: Make, make_run: Make, jobs: Path, tmp_path: Path) -> None:
    """Initial weights, validation split, and a split that is a view of another: two processes do as one would."""
    whole = make_split(60, folder=tmp_path / "train")
    train_part, validation, test = whole.subset(range(40)), whole.subset(range(40, 60)), make_split(24, part="test")
    source, _ = train_run(make_run(), train_part, test, initial=None, folder=tmp_path / "source")
    run = make_run(epochs=2, num_processes=2).model_copy(update={"initialisation": "pretrained"})
    given = {"initial": source.load("final"), "validation_split": validation}
    two, history = train(run, train_part, test, folder=tmp_path / "two", device_type="cpu", **given)
    one, expected = train_run(run, train_part, test, folder=tmp_path / "one", **given)
    assert history.columns.tolist() == expected.columns.tolist()
    assert history["train_loss"].tolist()[1:] == pytest.approx(expected["train_loss"].tolist()[1:], rel=1e-4)
    for name, value in one.load("final").state_dict.items():
        torch.testing.assert_close(two.load("final").state_dict[name], value, rtol=1e-3, atol=1e-5, msg=name)
    assert not left_in(jobs)


@pytest.mark.usefixtures("forked", "jobs")
@pytest.mark.parametrize("num_processes", [1, 2])
def test_inputs_are_checked_once(
    num_processes: int, make_split: Make, make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the loop nor the workers, which are forks of this process, gather or check what the launcher has."""
    calls, digest, check = tmp_path / "calls", record.state_digest, record.Inputs.check

    def noted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            with calls.open("a") as stream:
                stream.write(f"{function.__name__} ")
            return function(*args)

        return call

    parts = make_split(40), make_split(24, part="test")
    source, _ = train_run(make_run(epochs=1), *parts, initial=None, folder=tmp_path / "source")
    monkeypatch.setattr(record, "state_digest", noted(digest))
    monkeypatch.setattr(record.Inputs, "check", noted(check))
    run = make_run(epochs=1, num_processes=num_processes).model_copy(update={"initialisation": "pretrained"})
    train(run, *parts, initial=source.load("final"), folder=tmp_path / "run", device_type="cpu")
    assert sorted(calls.read_text().split()) == ["check", "state_digest"]


@pytest.mark.usefixtures("forked")
def test_the_users_mistake_reaches_the_user(make_split: Make, make_run: Make, jobs: Path, tmp_path: Path) -> None:
    """A mistake that shows in the workers is raised here with its own line, and nothing is left of the job."""
    run = make_run(num_processes=2)
    bad = run.model_copy(update={"model": ModelOptions(name="fixup_resnet_smal")})
    with pytest.raises(UserError, match="unknown model 'fixup_resnet_smal'"):
        train(
            bad, make_split(40), make_split(24, part="test"), initial=None, folder=tmp_path / "run", device_type="cpu"
        )
    assert not left_in(jobs)
    assert not (tmp_path / "run").exists()


def test_one_line_tells_why_workers_failed(make_run: Make, tmp_path: Path) -> None:
    """The first error counts, a deadly signal before it, the user's mistake before all; the rest is in a file."""
    job = tmp_path / "job"
    job.mkdir()

    def shown(output: str) -> Exception:
        return failure(make_run(), output, job, tmp_path / "run")

    for number, message in enumerate(["OSError: earlier attempt", "KeyError: 'x'", "RuntimeError: closed"]):
        error = {"user": False, "message": message, "time": number, "restart": min(number, 1), "traceback": message}
        (job / f"error_{number}.json").write_text(json.dumps(error))
    first = shown("exitcode : -9 of an earlier attempt. FAILED Root cause: exitcode  : 1 (pid: 2)")
    assert isinstance(first, WorkerError)
    assert "toy.rit_1: a worker process raised KeyError: 'x'" in str(first)
    assert "RuntimeError: closed" in (tmp_path / "run" / "workers.log").read_text()
    ended = shown("FAILED\nexitcode  : -15 (pid: 1)\nexitcode  : -9 (pid: 2)")
    assert "was ended by signal 9 (killed; often" in str(ended)
    several = failure(make_run(), "FAILED\nexitcode  : -9 (pid: 2)", job, tmp_path / "run", others=3)
    assert "toy.rit_1 and 3 more: a worker process was ended by signal 9" in str(several)
    assert "training.together: false takes that of one run" in str(several)
    for path in job.iterdir():
        path.unlink()
    assert "was ended by signal 2 (interrupt)" in str(
        shown("FAILED\nexitcode  : -15 (pid: 1)\nexitcode  : -2 (pid: 2)")
    )
    user = {"user": True, "message": "no such model", "time": 3, "restart": 0, "traceback": ""}
    (job / "error_3.json").write_text(json.dumps(user))
    assert isinstance(shown("exitcode  : -9 (pid: 2)"), UserError)


def test_machines_that_do_not_meet_are_one_line(
    make_split: Make, make_run: Make, jobs: Path, free_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of two machines gives up; the line names the place, and nothing is left."""
    monkeypatch.setattr(launch, "MEETING_SECONDS", 1)
    place = f"localhost:{free_port}"
    run = make_run(num_nodes=2, rendezvous=place)
    with pytest.raises(UserError, match=f"2 machines did not meet at {place}"):
        train(run, make_split(40), make_split(24), initial=None, folder=tmp_path / "run", device_type="cpu")
    assert not workers_of(jobs)
    assert not left_in(jobs)


def test_processes_are_at_most_one_for_each_core_or_gpu(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning names the key and how many there are; auto takes every GPU, and one process on the CPU."""
    monkeypatch.setattr(launch, "_num_cores", lambda: 2)
    assert count_processes(2, "cpu") == 2
    assert count_processes("auto", "cpu") == 1
    assert not caplog.text
    assert count_processes(3, "cpu") == 2
    assert "training.num_processes is 3, but there are 2 CPU cores here" in caplog.text
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert count_processes("auto", "cuda") == 4
    assert count_processes(5, "cuda") == 4
    assert "there are 4 GPUs here" in caplog.text


def test_one_process_on_the_cpu_is_this_one(
    make_split: Make, make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is launched, and the result is that of `train_run`."""
    monkeypatch.setattr(launch, "_run_launcher", lambda *_: pytest.fail("launched"))
    parts = make_split(40), make_split(24, part="test")
    _, history = train(make_run(epochs=1), *parts, initial=None, folder=tmp_path / "a", device_type="cpu")
    _, expected = train_run(make_run(epochs=1), *parts, initial=None, folder=tmp_path / "b")
    assert history.equals(expected)


def test_two_machines_train_one_run(make_split: Make, make_run: Make, free_port: int, tmp_path: Path) -> None:
    """Two launchers that meet at one port, as on two machines, give what one process gives; both return it."""
    parts = make_split(40), make_split(24, part="test")
    run = make_run(epochs=1, num_nodes=2, rendezvous=f"localhost:{free_port}")
    with ThreadPoolExecutor(2) as machines:
        started = [
            machines.submit(train, run, *parts, initial=None, folder=tmp_path / "two", device_type="cpu")
            for _ in range(2)
        ]
        (two, history), (_, same) = (future.result(PATIENCE) for future in started)
    one, expected = train_run(make_run(epochs=1), *parts, initial=None, folder=tmp_path / "one")
    assert history.equals(same)
    assert history["test_loss"].tolist() == pytest.approx(expected["test_loss"].tolist(), rel=1e-4)
    for name, value in one.load("final").state_dict.items():
        torch.testing.assert_close(two.load("final").state_dict[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_messages_of_workers_are_passed_on_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A line that is half written waits, a message of several lines keeps them all, whatever they begin with."""
    caplog.set_level(logging.INFO)
    listener = launch._Listener(tmp_path, lambda *_: None)
    written = tmp_path / "messages.txt"
    written.write_text("30 loss is large:\nepoch 3\n² of it\n20 epo")
    listener()
    assert [(line.levelno, line.message) for line in caplog.records] == [
        (logging.WARNING, "loss is large:"),
        (logging.INFO, "epoch 3"),
        (logging.INFO, "² of it"),
    ]
    written.write_text(written.read_text() + "ch 4\n")
    listener()
    listener()
    assert [line.message for line in caplog.records][3:] == ["epoch 4"]
