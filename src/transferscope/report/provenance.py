"""Versions, hardware, digests and durations behind the results."""

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

from transferscope.claims.evidence import Evidence, TaskResults
from transferscope.experiment.plan import Plan
from transferscope.tables import formats

CPU_FILE = Path("/proc/cpuinfo")

PACKAGES = ("transferscope", "torch", "torchvision", "kedro", "numpy", "scipy", "pandas", "scikit-learn", "matplotlib")

DIGITS = 16
"""Of a digest, as many as are shown."""


def provenance(plan: Plan, results: Mapping[str, TaskResults]) -> dict[str, Any]:
    """Versions, hardware, digests of plan, images and weights, durations; nothing that names a machine or a person."""
    evidence = Evidence(plan, results)
    return {
        "versions": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "seed": plan.study.seed,
        "plan_digest": plan_digest(plan),
        "hardware": _hardware(),
        "durations of the trainings": _durations(evidence),
        "digests of the images": _digests(evidence),
        "fingerprints of the runs": {name: run.fingerprint for name, run in plan.runs.items()},
    }


def plan_digest(plan: Plan) -> str:
    """Of the study with all its values, written or by default."""
    study = json.dumps(plan.study.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(study.encode()).hexdigest()[:DIGITS]


def _hardware() -> dict[str, str]:
    """The machine on which this page was written; trainings may have run elsewhere."""
    known = {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
    }
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return known | ({"GPUs": ", ".join(names)} if names else {})


def _processor() -> str:
    """The model's name where the system has it."""
    lines = CPU_FILE.read_text().splitlines() if CPU_FILE.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _durations(evidence: Evidence) -> dict[str, str]:
    """Time of all trainings by task."""
    return {
        task: f"{formats.duration(table['seconds'].sum())} for {len(table)} run{'s' if len(table) > 1 else ''}"
        for task, table in evidence.each("timings")
    }


def _digests(evidence: Evidence) -> dict[str, str]:
    """Of every split, the digest of its pixels and labels."""
    return {
        f"{task}, {row['part']}": str(row["digest"])[:DIGITS]
        for task, table in evidence.each("splits")
        if "digest" in table
        for row in table.to_dict("records")
    }


def provenance_groups(provenance: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Headings with names and values: nested mappings become groups of their own, after the plain values."""
    plain = [(_title(key), _text(value)) for key, value in provenance.items() if not isinstance(value, Mapping)]
    nested = [
        (_title(key), [(str(name), _text(inner)) for name, inner in value.items()])
        for key, value in provenance.items()
        if isinstance(value, Mapping) and value
    ]
    return ([("Run", plain)] if plain else []) + nested


def _title(key: str) -> str:
    words = str(key).replace("_", " ")
    return words[:1].upper() + words[1:]


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_text(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_text(inner) for inner in value)
    return f"{value:,.6g}" if isinstance(value, float) else str(value)
