"""Training in several processes, started by torch's elastic launcher; the caller's process never touches a GPU."""

from __future__ import annotations

import json
import logging
import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import psutil
import torch

import transferscope
from transferscope.experiment.run import RunSpec
from transferscope.images.split import PackedSplit
from transferscope.models.checkpoint import Checkpoint, save_checkpoint
from transferscope.system.folder_lock import FolderLock
from transferscope.system.gpu_grants import granted_gpus, visible_to_child
from transferscope.system.progress import progress_bar
from transferscope.system.temporaries import work_folder
from transferscope.training.distributed.failure import failure
from transferscope.training.loop import Advance, Result, train_runs
from transferscope.training.record import Inputs, RunFolder, by_part, name_of

log = logging.getLogger(__name__)

PACKAGE = "transferscope.training.distributed"
OUTPUT = "output.txt"
POLL_SECONDS = 0.2
STOP_SECONDS = 30
MEETING_SECONDS = 600
"""Seconds for which a machine waits for the others, whichever comes first."""


def train(
    run: RunSpec,
    train_split: PackedSplit,
    test_split: PackedSplit,
    *,
    initial: Checkpoint | None,
    folder: str | Path,
    validation_split: PackedSplit | None = None,
    device_type: Literal["cpu", "cuda"] | None = None,
) -> Result:
    """Train like `train_run`, in as many processes and on as many machines as `run.training` asks for.

    One process on the CPU is this one, and one on a GPU is a worker of its own; of several, torch's elastic launcher
    starts one for each GPU (NCCL), or each share of the CPU's cores (gloo). Where GPUs were granted to this thread, the
    workers see those alone.
    Batches, their order, and up to rounding the weights are those of one process. Workers that die are started
    again `max_restarts` times and go on from the last snapshot.

    On several machines call it on each, with the same arguments: `run.training.num_nodes` of them meet at
    `run.training.rendezvous`, the `host:port` of one. `folder` and the splits must be on storage that all of them see.

    Raises UserError for what the user can fix, such as machines that do not meet, or another training in `folder`;
    WorkerError, one line, for anything else that goes wrong in a worker. When this process is interrupted or dies, so
    do the workers.
    """
    kind = device_type or ("cuda" if torch.cuda.is_available() else "cpu")
    num_processes, num_nodes = count_processes(run.training.num_processes, kind), run.training.num_nodes
    inputs = Inputs.of(run, by_part(train_split, test_split, validation_split), initial)
    here = kind == "cpu" and num_processes * num_nodes == 1
    carry_out = None if here else partial(_launch, kind=kind, num_processes=num_processes)
    (result,) = train_runs([inputs], [folder], device=kind, carry_out=carry_out, on_several_machines=num_nodes > 1)
    return result


def train_together(
    runs: Sequence[RunSpec],
    train_split: PackedSplit,
    test_split: PackedSplit,
    *,
    initial: Sequence[Checkpoint | None],
    folders: Sequence[str | Path],
    validation_split: PackedSplit | None = None,
    device_type: Literal["cpu", "cuda"] | None = None,
) -> list[Result]:
    """Train runs as one like `loop.train_runs`, on a GPU in a worker of its own.

    On the CPU, runs with `training.together: gpu` are trained one after the other in this process.

    Raises UserError, and WorkerError, as `train`.
    """
    kind = device_type or ("cuda" if torch.cuda.is_available() else "cpu")
    splits = by_part(train_split, test_split, validation_split)
    several = [Inputs.of(run, splits, start) for run, start in zip(runs, initial, strict=True)]
    if kind == "cpu" and runs[0].training.together == "gpu":
        return [train_runs([one], [folder], device=kind)[0] for one, folder in zip(several, folders, strict=True)]
    carry_out = None if kind == "cpu" else partial(_launch, kind=kind, num_processes=1)
    return train_runs(several, folders, device=kind, carry_out=carry_out)


def count_processes(asked: int | Literal["auto"], kind: str) -> int:
    """Count the processes on this machine: those asked for, as far as they fit; "auto" is one per GPU, one on the CPU.

    At most one for each GPU or core: fewer than asked for are a warning and no error, for the weights do not depend on
    it but for rounding. GPUs are those that were granted to this thread; without a grant, all.
    """
    granted = granted_gpus()
    gpus = torch.cuda.device_count() if granted is None else len(granted)
    available = gpus if kind == "cuda" else _num_cores()
    if asked == "auto":
        return available if kind == "cuda" else 1
    if asked > available:
        unit = "GPUs" if kind == "cuda" else "CPU cores"
        log.warning("training.num_processes is %d, but there are %d %s here: one process each", asked, available, unit)
    return min(asked, max(1, available))


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _launch(records: Sequence[RunFolder], locks: Sequence[FolderLock], kind: str, num_processes: int) -> None:
    """Train in workers, to the end: one run, or several as one."""
    run = records[0].inputs.run
    with work_folder() as job, progress_bar(name_of(records), records[0].inputs.num_steps) as advance:
        _hand_over(job, records, kind)
        environment = _environment(num_processes, kind, run.training.num_nodes)
        listen = _Listener(job, advance)
        if num_processes * run.training.num_nodes == 1:
            restarts = max(record.inputs.run.training.max_restarts for record in records)
            return_code = _run_alone(restarts, environment, job, listen, locks)
        else:
            return_code = _run_launcher(_command(run, num_processes, job), environment, job, listen, locks)
        if return_code != 0:
            output = (job / OUTPUT).read_text(errors="replace")
            raise failure(run, output, job, records[0].folder, others=len(records) - 1)


def _run_alone(
    max_restarts: int, environment: dict[str, str], job: Path, listen: Callable[[], None], locks: Sequence[FolderLock]
) -> int:
    """Run the one worker of a training, again after it died as often as it may; the last return code.

    There is nobody to meet, so it needs no launcher, which is a start of Python and of torch more; nor does it wrap
    its network to exchange gradients.
    """
    command = [sys.executable, *_ending_with_us(), f"{PACKAGE}.worker", str(job)]
    code = 0
    for restart in range(1 + max_restarts):
        place = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "TORCHELASTIC_RESTART_COUNT": str(restart)}
        code = _run_launcher(command, {**environment, **place}, job, listen, locks)
        if code == 0:
            return 0
    with (job / OUTPUT).open("a") as stream:
        stream.write(f"\nFAILED\nexitcode : {code}\n")  # as the launcher says it
    return code


def _ending_with_us() -> tuple[str, ...]:
    """Arguments of Python before the module that it runs, and that is to end when this process has."""
    return "-m", f"{PACKAGE}.parents", str(os.getpid())


def _hand_over(job: Path, records: Sequence[RunFolder], kind: str) -> None:
    """Write the job of the workers. A split is pickled as the folder it lies in, not as its images."""
    runs = [
        {
            "run": record.inputs.run.model_dump(mode="json"),
            "digests": record.inputs.digests,
            "folder": str(record.folder.resolve()),
        }
        for record in records
    ]
    (job / "job.json").write_text(json.dumps({"runs": runs, "kind": kind}))
    (job / "splits.pickle").write_bytes(pickle.dumps(records[0].inputs.splits))
    for index, record in enumerate(records):
        if record.inputs.initial is not None:
            save_checkpoint(record.inputs.initial, job / f"initial_{index}.safetensors")


def _command(run: RunSpec, num_processes: int, job: Path) -> list[str]:
    nodes, place = run.training.num_nodes, run.training.rendezvous
    # By a file, where torch's own way for one machine (`--standalone`) listens on all interfaces.
    meeting = ["--nnodes=1", "--rdzv-backend=c10d", f"--rdzv-endpoint={job / 'meeting'}", "--rdzv-id=training"]
    meeting += ["--rdzv-conf=store_type=file"]
    if nodes > 1:
        name = f"{run.full_name}.{run.fingerprint}"
        meeting = [f"--nnodes={nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={place}", f"--rdzv-id={name}"]
        meeting += [f"--rdzv-conf=join_timeout={MEETING_SECONDS},read_timeout={MEETING_SECONDS}"]
    return [
        *(sys.executable, *_ending_with_us(), "torch.distributed.run", *meeting),
        f"--log-dir={job / 'logs'}",
        *(f"--nproc-per-node={num_processes}", f"--max-restarts={run.training.max_restarts}", "--monitor-interval=0.1"),
        *(*_ending_with_us(), f"{PACKAGE}.worker", str(job)),
    ]


def _environment(num_processes: int, kind: str, num_nodes: int = 1) -> dict[str, str]:
    """Our variables, with this package in reach, the granted GPUs alone, and a share of the cores per process."""
    source = str(Path(transferscope.__file__).parents[1])
    # Beside a training run others: on the other GPUs, or on the cores that this thread was not given.
    shares = max(num_processes, torch.cuda.device_count()) if kind == "cuda" else num_processes
    threads = max(1, _num_cores() // shares)
    return {
        **os.environ,
        **visible_to_child(),
        **(_loopback() if num_nodes == 1 else {}),
        "PYTHONPATH": os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])]),
        "OMP_NUM_THREADS": str(threads if kind == "cuda" else min(threads, torch.get_num_threads())),
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "5",
        # Else workers that are started again read in the launcher's store the addresses of those that died.
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }


def _loopback() -> dict[str, str]:
    """Variables that keep gloo and NCCL to the interface that no other machine reaches."""
    local = [
        name
        for name, addresses in psutil.net_if_addrs().items()
        if any(address.family == socket.AF_INET and address.address == "127.0.0.1" for address in addresses)
    ]
    return {"GLOO_SOCKET_IFNAME": local[0], "NCCL_SOCKET_IFNAME": local[0]} if local else {}


def _run_launcher(
    command: list[str],
    environment: dict[str, str],
    job: Path,
    listen: Callable[[], None],
    locks: Sequence[FolderLock] = (),
) -> int:
    """Run the launcher to its end, listening; its return code.

    The lock of the run's folder becomes the standard input of launcher and workers, which read nothing: so where this
    process is killed, no process has the folder before the last of them has ended. Of several runs a worker of its own,
    which starts no other process, inherits the locks of the others beside it.
    """
    first, *others = [lock.fileno() for lock in locks] or [subprocess.DEVNULL]
    with (job / OUTPUT).open("wb") as stream:
        launcher = subprocess.Popen(
            command, stdin=first, stdout=stream, stderr=stream, env=environment, pass_fds=others
        )
        try:
            while launcher.poll() is None:
                time.sleep(POLL_SECONDS)
                listen()
        finally:
            _stop(launcher)
    return launcher.returncode


def _stop(launcher: subprocess.Popen[bytes]) -> None:
    """End the launcher if it still runs; it ends its workers, which also end themselves when it is gone."""
    if launcher.poll() is None:
        launcher.terminate()
        try:
            launcher.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            launcher.kill()
            launcher.wait()


class _Listener:
    """Passes on the messages and the progress of the leading worker, each time it is called."""

    def __init__(self, job: Path, advance: Advance) -> None:
        self.job = job
        self.advance = advance
        self.num_lines = self.num_steps = 0

    def __call__(self) -> None:
        lines = _read(self.job / "messages.txt").split("\n")[:-1]  # the last one may be half written
        for line in lines[self.num_lines :]:
            level, _, message = line.partition(" ")
            if level.isdecimal():
                log.log(int(level), "%s", message)
            else:  # of a message of several lines
                log.info("%s", line)
        self.num_lines = len(lines)
        report = json.loads(_read(self.job / "progress.json") or "null")
        if report is not None:
            self.advance(report["steps"] - self.num_steps, report["note"])
            self.num_steps = report["steps"]


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""
