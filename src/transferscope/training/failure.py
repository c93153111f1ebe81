"""The one error to show when training processes failed."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

from transferscope.system.errors import UserError
from transferscope.training.run import RunLike

DEADLY_SIGNALS = {6: "abort", 7: "bus error", 9: "killed; often the memory ran out", 11: "segmentation fault"}
INTERRUPT = {2: "interrupt"}


class WorkerError(RuntimeError):
    """A training process failed; one line, and the path of the log with the rest."""


def failure(run: RunLike, output: str, job: Path, folder: Path) -> Exception:
    """The user's error, machines that did not meet, a deadly signal, or the first that a worker raised at last.

    output: of the launcher. job: where the workers left their errors, which go with the output into a file in `folder`.
    """
    errors = [json.loads(path.read_text()) for path in job.glob("error_*.json")]
    errors.sort(key=lambda error: (-error["restart"], error["time"]))
    for error in errors:
        if error["user"]:
            return UserError(error["message"])
    folder.mkdir(parents=True, exist_ok=True)
    details = folder / (f"workers_{socket.gethostname()}.log" if run.training.num_nodes > 1 else "workers.log")
    details.write_text(output + "".join(error["traceback"] for error in errors))
    name = f"{run.task}.{run.name}"
    if not errors and re.search(r"Rendezvous(Timeout|Connection|Closed)Error", output):
        return UserError(
            f"{name}: {run.training.num_nodes} machines did not meet at {run.training.rendezvous} within ten minutes: "
            "run the same command with the same parameters on each; the host must be one of them, its port free and in "
            f"reach; the rest is in {details}"
        )
    raised = [f"raised {error['message']}" for error in errors]
    what = [*_ended_by(DEADLY_SIGNALS, output), *raised, *_ended_by(INTERRUPT, output), "ended before training began"][
        0
    ]
    return WorkerError(f"training of {name}: a worker process {what}; the rest is in {details}")


def _ended_by(signals: dict[int, str], output: str) -> list[str]:
    """Those of `signals` that ended processes of the last attempt, by the launcher's summary."""
    summary = output.rpartition("FAILED")[2]
    codes = [int(code) for code in re.findall(r"exitcode\s*:\s*-(\d+)", summary)]
    return [f"was ended by signal {code} ({signals[code]})" for code in codes if code in signals]
