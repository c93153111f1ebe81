"""One process of a training: the other end of `launch`, started by torch's elastic launcher where there are several."""

from __future__ import annotations

import json
import logging
import os
import pickle
import signal
import sys
import time
import traceback
from pathlib import Path

import torch
import torch.distributed as dist

from transferscope.experiment.run import RunSpec
from transferscope.models.checkpoint import Checkpoint, load_checkpoint
from transferscope.system.errors import UserError
from transferscope.training.device import OneProcess
from transferscope.training.distributed.group import PATIENCE, ProcessGroup
from transferscope.training.loop import Advance, fit
from transferscope.training.record import Inputs, RunFolder
from transferscope.training.together import several_runs
from transferscope.training.trainee import one_run

log = logging.getLogger("transferscope")

REPORT_SECONDS = 0.5


def main(job: Path) -> None:
    """Train as the files in `job` describe; an error is left in a file, for the process that launched us."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # die at once, also inside a collective operation
    rank, restart = int(os.environ["RANK"]), int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if any(json.loads(path.read_text())["user"] for path in job.glob("error_*.json")):
        sys.exit(1)  # a restart does not fix the user's mistake
    try:
        _train(job, restart)
    except Exception as error:
        user = isinstance(error, UserError)
        text = " ".join(str(error).split())
        content = {"user": user, "message": text if user else f"{type(error).__name__}: {text}"}
        content |= {"restart": restart, "time": time.time()}
        content |= {"traceback": f"\nprocess {rank}, restart {restart}\n{traceback.format_exc()}"}
        (job / f"error_{restart}_{rank}.json").write_text(json.dumps(content))
        os._exit(1)  # at once: destructors would wait for the other processes


def _train(job: Path, restart: int) -> None:
    content = json.loads((job / "job.json").read_text())
    runs = [RunSpec.model_validate(one["run"]) for one in content["runs"]]
    run = runs[0]
    reports = os.environ["LOCAL_RANK"] == "0"  # one process per machine, to the one that launched it
    if reports:
        _log_to(job / "messages.txt")
        if restart:
            log.warning("a worker died: all were started again (%d of %d)", restart, run.training.max_restarts)
    splits = pickle.loads((job / "splits.pickle").read_bytes())
    device = torch.device(content["kind"])
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    alone = os.environ["WORLD_SIZE"] == "1"
    if not alone:
        _join(job, "nccl" if device.type == "cuda" else "gloo", on_one_machine=run.training.num_nodes == 1)
    records = [
        RunFolder(one["folder"], Inputs(own, splits, _initial(job, index), one["digests"]))
        for index, (own, one) in enumerate(zip(runs, content["runs"], strict=True))
    ]
    # Workers that are started again may have come to the end: one that dies last takes the others with it.
    waiting = [record for record in records if not record.is_finished()]
    advance: Advance = _ProgressFile(job / "progress.json") if reports else lambda steps, note: None
    if waiting:
        group = OneProcess() if alone else ProcessGroup(device)
        with several_runs(waiting, device) if runs[1:] else one_run(waiting[0], device, group) as trainee:
            fit(trainee, advance)
    if not alone:
        dist.destroy_process_group()


def _initial(job: Path, index: int) -> Checkpoint | None:
    path = job / f"initial_{index}.safetensors"
    return load_checkpoint(path) if path.exists() else None


def _join(job: Path, backend: str, *, on_one_machine: bool) -> None:
    """Meet the other processes: by a file on one machine, where torch's own way listens on all interfaces."""
    if not on_one_machine:
        dist.init_process_group(backend, timeout=PATIENCE)
        return
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    meeting = job / f"workers_{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    store = dist.FileStore(str(meeting), size)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)


class _ProgressFile:
    """Writes the number of optimizer steps so far, twice a second at most."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.steps = 0
        self.last = 0.0

    def __call__(self, steps: int, note: str) -> None:
        self.steps += steps
        if time.monotonic() - self.last > REPORT_SECONDS:
            self.last = time.monotonic()
            temporary = self.path.with_suffix(".new")
            temporary.write_text(json.dumps({"steps": self.steps, "note": note}))
            temporary.replace(self.path)


def _log_to(path: Path) -> None:
    """Write our own messages to a file, from which the process that launched us logs them."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(levelno)d %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
