"""What is shown on the terminal before and after a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd
from kedro.io import CatalogProtocol
from kedro.pipeline.node import Node

from transferscope.runners.failures import reason
from transferscope.runners.steps import Steps


def plan_table(nodes: Iterable[Node]) -> pd.DataFrame:
    """Steps that will be run: a row per task, a column per part of the study."""
    places = [_place(node) for node in nodes]
    counts = pd.DataFrame(places, columns=["task", "part"]).groupby(["task", "part"], sort=False).size()
    table = counts.unstack(fill_value=0).reset_index()
    return table.rename_axis(columns=None)


def _place(node: Node) -> tuple[str, str]:
    """`clipart.training` as task and part; what belongs to no task as `all`."""
    task, _, part = (node.namespace or node.name).rpartition(".")
    return task or "all", part


def runs_table(seconds: Mapping[Node, float], catalog: CatalogProtocol) -> pd.DataFrame:
    """A row per training that is done: its final metrics, the time that it took now, the folder of its checkpoints."""
    rows = []
    for node, spent in seconds.items():
        histories = [name for name in node.outputs if name.endswith(".history")]
        for name in histories:
            history = catalog.load(name)
            row: dict[str, object] = {"run": name.removesuffix(".history"), "epochs": history["epoch"].iloc[-1]}
            for metric in ("train_loss", "test_accuracy", "test_auc"):
                if metric in history:
                    row[metric] = history[metric].iloc[-1]
            series = catalog.get(name.replace(".history", ".checkpoints"))
            row |= {"seconds": round(spent, 1), "folder": _relative(series._describe()["filepath"]) if series else ""}
            rows.append(row)
    table = pd.DataFrame(rows)
    return table[[*table.columns.drop(["seconds", "folder"]), "seconds", "folder"]] if rows else table


def _relative(path: str) -> str:
    place = Path(path).resolve()
    return str(place.relative_to(Path.cwd())) if place.is_relative_to(Path.cwd()) else str(place)


def failures_table(steps: Steps) -> pd.DataFrame:
    """A row per step that failed: why, and how many steps could not run for it."""
    rows = [
        {"failed": node.name, "why": reason(error), "steps_not_run": list(steps.skipped.values()).count(node)}
        for node, error in steps.failed.items()
    ]
    return pd.DataFrame(rows)
