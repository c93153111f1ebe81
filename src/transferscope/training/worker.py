"""One process of a training in several: the other end of `launch`, started by torch's elastic launcher."""

from __future__ import annotations

import json
import logging
import os
import pickle
import signal
import sys
import time
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from transferscope.models.checkpoint import load_checkpoint
from transferscope.system.errors import UserError
from transferscope.training.group import OneProcess
from transferscope.training.loop import train_run
from transferscope.training.run import TrainingRun

log = logging.getLogger("transferscope")

TELL_SECONDS = 0.5
PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others in any exchange: the leader writes files meanwhile."""


class ProcessGroup(OneProcess):
    """The processes of `torch.distributed`'s default group, on one device each."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()

    def wrap(self, model: nn.Module) -> nn.Module:
        """DistributedDataParallel; on GPUs BatchNorm takes its statistics over the whole batch.

        Raises UserError for BatchNorm on the CPU, where each process would normalise by its own share.
        """
        if any(isinstance(module, _BatchNorm) for module in model.modules()):
            if self.device.type == "cpu":
                raise UserError("training.num_processes: a model with BatchNorm trains in one process on the CPU")
            nn.SyncBatchNorm.convert_sync_batchnorm(model)
        devices = [self.device.index] if self.device.type == "cuda" else None
        # Else it would order its buckets anew after the first step of each process, and gradients of three and more
        # would then be added in another order after a restart.
        return DistributedDataParallel(
            model, device_ids=devices, gradient_as_bucket_view=True, find_unused_parameters=True
        )

    def sum_(self, tensor: Tensor) -> Tensor:
        dist.all_reduce(tensor)
        return tensor

    def wait(self) -> None:
        dist.barrier(device_ids=[self.device.index] if self.device.type == "cuda" else None)


def main(job: Path) -> None:
    """Train as `job` says; an error is left in a file, for the process that launched us."""
    content = json.loads((job / "job.json").read_text())
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # die at once, also inside a collective operation
    rank, restart = int(os.environ["RANK"]), int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if any(json.loads(path.read_text())["user"] for path in job.glob("error_*.json")):
        sys.exit(1)  # a restart does not fix the user's mistake
    if _tells():
        _log_to(job / "messages.txt")
        if restart:
            log.warning("a worker died: all were started again (%d of %d)", restart, content["max_restarts"])
    try:
        _train(job, content)
    except Exception as error:
        user = isinstance(error, UserError)
        text = " ".join(str(error).split())
        told = {"user": user, "message": text if user else f"{type(error).__name__}: {text}"}
        told |= {"restart": restart, "time": time.time()}
        told |= {"traceback": f"\nprocess {rank}, restart {restart}\n{traceback.format_exc()}"}
        (job / f"error_{restart}_{rank}.json").write_text(json.dumps(told))
        os._exit(1)  # at once: destructors would wait for the other processes


def _train(job: Path, content: dict[str, Any]) -> None:
    run = TrainingRun.from_dict(content["run"])
    splits = pickle.loads((job / "splits.pickle").read_bytes())
    initial = load_checkpoint(job / "initial.safetensors") if (job / "initial.safetensors").exists() else None
    device = torch.device(content["kind"])
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    _join(job, "nccl" if device.type == "cuda" else "gloo", on_one_machine=content["num_nodes"] == 1)
    train_run(
        run,
        splits["train"],
        splits["test"],
        initial=initial,
        folder=Path(content["folder"]),
        validation_split=splits.get("validation"),
        device=device,
        group=ProcessGroup(device),
        progress=_Teller(job / "progress.json") if _tells() else None,
    )
    dist.destroy_process_group()


def _join(job: Path, backend: str, *, on_one_machine: bool) -> None:
    """Meet the other processes: by a file on one machine, where torch's own way listens on all interfaces."""
    if not on_one_machine:
        dist.init_process_group(backend, timeout=PATIENCE)
        return
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    meeting = job / f"workers_{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    store = dist.FileStore(str(meeting), size)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)


def _tells() -> bool:
    """One process of each machine tells the one that launched it how training goes on."""
    return os.environ["LOCAL_RANK"] == "0"


class _Teller:
    """Writes how far training is, now and then."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.steps = 0
        self.last = 0.0

    def __call__(self, steps: int, note: str) -> None:
        self.steps += steps
        if time.monotonic() - self.last > TELL_SECONDS:
            self.last = time.monotonic()
            temporary = self.path.with_suffix(".new")
            temporary.write_text(json.dumps({"steps": self.steps, "note": note}))
            temporary.replace(self.path)


def _log_to(path: Path) -> None:
    """Our own messages, to be passed on to the user."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(levelno)d %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
