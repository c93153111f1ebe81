"""Tables on the terminal before and after a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import pandas as pd
from kedro.io import CatalogProtocol
from kedro.pipeline.node import Node

from transferscope.experiment.names import EntryName, Namespace
from transferscope.experiment.plan import Plan
from transferscope.experiment.run import printed_names
from transferscope.framework.runners.failures import reason
from transferscope.framework.runners.node_progress import NodeProgress

METRICS = ("train_loss", "test_accuracy", "test_auc")
METRICS_OF_FILES = ("test_accuracy", "test_auc", "test_loss")


def plan_table(nodes: Iterable[Node]) -> pd.DataFrame:
    """Number of nodes of each part of the study that will run, in the order of the first of each."""
    counts = Counter(Namespace.parse(node.namespace or "other").pipeline for node in nodes)
    return pd.DataFrame({"part": list(counts), "nodes": list(counts.values())})


def runs_table(seconds: Mapping[Node, float], catalog: CatalogProtocol) -> pd.DataFrame:
    """A row per training that is done: its final metrics and the time that it took now, its share of a group's."""
    rows = []
    for node, spent in seconds.items():
        histories = _histories(node)
        for name in histories:
            history = catalog.load(name)
            last = history.iloc[-1]
            row: dict[str, object] = {"run": EntryName.parse(name).owner, "epochs": int(last["epoch"])}
            if pd.isna(last["train_loss"]) and pd.notna(last.get("lr")):  # a checkpoint file has neither
                row["epochs"] = f"{row['epochs']}, diverged"
            row |= {metric: last[metric] for metric in METRICS if metric in history}
            rows.append(row | {"seconds": round(spent / len(histories), 1)})
    table = pd.DataFrame(rows)
    return table[[*table.columns.drop("seconds"), "seconds"]] if rows else table


def tables_after(seconds: Mapping[Node, float], catalog: CatalogProtocol, plan: Plan | None) -> dict[str, pd.DataFrame]:
    """The trainings that are done, or the checkpoint files that were read, under their heading; nothing of neither."""
    if plan is not None and plan.compares_files:
        tables = {"Models": models_table(seconds, catalog, plan)}
    else:
        tables = {"Trainings": runs_table(seconds, catalog)}
    return {title: table for title, table in tables.items() if len(table)}


def models_table(nodes: Iterable[Node], catalog: CatalogProtocol, plan: Plan) -> pd.DataFrame:
    """A row per checkpoint file that was read, on the images of each task: its name and its metrics."""
    names, rows = printed_names(plan.runs.values()), []
    for name in (name for node in nodes for name in _histories(node)):
        owner = EntryName.parse(name).owner
        last = catalog.load(name).iloc[-1]
        metrics = {metric: last[metric] for metric in METRICS_OF_FILES if pd.notna(last.get(metric))}
        if metrics:
            rows.append({"model": names[owner], "images": plan.runs[owner].task, **metrics})
    table = pd.DataFrame(rows)
    return table.drop(columns="images") if rows and table["images"].nunique() == 1 else table


def _histories(node: Node) -> list[str]:
    return [name for name in node.outputs if EntryName.parse(name).form == "history"]


def failures_table(progress: NodeProgress) -> pd.DataFrame:
    """A row per node that failed: why, and how many nodes could not run for it."""
    rows = [
        {"failed": node.name, "why": reason(error), "nodes_not_run": list(progress.skipped.values()).count(node)}
        for node, error in progress.failed.items()
    ]
    return pd.DataFrame(rows)
