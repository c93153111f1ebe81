"""From what, with what and in what time the results were computed."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

from transferscope.claims.results import TaskResults
from transferscope.report.grids.common import each
from transferscope.tables import formats

CPU_FILE = Path("/proc/cpuinfo")

PACKAGES = ("transferscope", "torch", "torchvision", "kedro", "numpy", "scipy", "pandas", "scikit-learn", "matplotlib")

DIGITS = 16
"""Of a digest, as many as are shown."""


def provenance(study: Mapping[str, Any], results: Mapping[str, TaskResults]) -> dict[str, Any]:
    """Versions, hardware, digests of plan, images and weights, durations; nothing that names a machine or a person."""
    return {
        "versions": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "seed": study["seed"],
        "plan_digest": hashlib.sha256(json.dumps(study, sort_keys=True).encode()).hexdigest()[:DIGITS],
        "hardware": _hardware(),
        "durations of the trainings": _durations(results),
        "digests of the images": _digests(results),
        "fingerprints of the runs": _fingerprints(study),
    }


def _hardware() -> dict[str, str]:
    """What this page was written on; trainings may have run elsewhere."""
    found = {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
    }
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return found | ({"GPUs": ", ".join(names)} if names else {})


def _processor() -> str:
    """The model's name where the system tells it."""
    lines = CPU_FILE.read_text().splitlines() if CPU_FILE.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _durations(results: Mapping[str, TaskResults]) -> dict[str, str]:
    """Time of all trainings by task."""
    return {
        task: f"{formats.duration(table['seconds'].sum())} for {len(table)} run{'s' if len(table) > 1 else ''}"
        for task, table in each(results, "timings")
    }


def _digests(results: Mapping[str, TaskResults]) -> dict[str, str]:
    """Of every split, what its pixels and labels are told by."""
    return {
        f"{task}, {row['part']}": str(row["digest"])[:DIGITS]
        for task, table in each(results, "splits")
        if "digest" in table
        for row in table.to_dict("records")
    }


def _fingerprints(study: Mapping[str, Any]) -> dict[str, str]:
    """Of every run of the plan, what all that decides its weights is told by."""
    runs = (study.get("plan") or {}).get("runs") or {}
    return {f"{task}.{name}": run["fingerprint"] for task, named in runs.items() for name, run in named.items()}
