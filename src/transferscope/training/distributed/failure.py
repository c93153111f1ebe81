"""The one error to show when training processes failed."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

from transferscope.experiment.run import RunSpec
from transferscope.system.errors import UserError

DEADLY_SIGNALS = {6: "abort", 7: "bus error", 9: "killed; often the memory ran out", 11: "segmentation fault"}
INTERRUPT = {2: "interrupt"}


class WorkerError(RuntimeError):
    """A training process failed; one line, and the path of the log with the rest."""


def failure(run: RunSpec, output: str, job: Path, folder: Path, others: int = 0) -> Exception:
    """Choose the error to raise: the user's, machines that did not meet, a deadly signal, or the first of a worker.

    output: of the launcher. job: the folder of the workers' errors, which go with the output into a file in `folder`.
    others: runs that were trained as one with `run`.
    """
    errors = [json.loads(path.read_text()) for path in job.glob("error_*.json")]
    errors.sort(key=lambda error: (-error["restart"], error["time"]))
    for error in errors:
        if error["user"]:
            return UserError(error["message"])
    folder.mkdir(parents=True, exist_ok=True)
    details = folder / (f"workers_{socket.gethostname()}.log" if run.training.num_nodes > 1 else "workers.log")
    details.write_text(output + "".join(error["traceback"] for error in errors))
    if not errors and re.search(r"Rendezvous(Timeout|Connection|Closed)Error", output):
        return UserError(
            f"{run.full_name}: {run.training.num_nodes} machines did not meet at {run.training.rendezvous} within ten "
            "minutes: run the same command with the same parameters on each; the host must be one of them, its port "
            f"free and in reach; the rest is in {details}"
        )
    raised = [f"raised {error['message']}" for error in errors]
    deadly, interrupts = _ended_by(DEADLY_SIGNALS, output), _ended_by(INTERRUPT, output)
    cause = next(iter([*deadly, *raised, *interrupts]), "ended before training began")
    if not others:
        return WorkerError(f"training of {run.full_name}: a worker process {cause}; the rest is in {details}")
    return WorkerError(
        f"training of {run.full_name} and {others} more: a worker process {cause}; where memory ran out, "
        f"training.together: false takes that of one run for the same weights up to rounding; the rest is in {details}"
    )


def _ended_by(signals: dict[int, str], output: str) -> list[str]:
    """Those of `signals` that ended processes of the last attempt, by the launcher's summary."""
    summary = output.rpartition("FAILED")[2]
    codes = [int(code) for code in re.findall(r"exitcode\s*:\s*-(\d+)", summary)]
    return [f"was ended by signal {code} ({signals[code]})" for code in codes if code in signals]
