"""Tables on the terminal before and after a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import pandas as pd
from kedro.io import CatalogProtocol
from kedro.pipeline.node import Node

from transferscope.experiment.names import EntryName, Namespace
from transferscope.framework.runners.failures import reason
from transferscope.framework.runners.node_progress import NodeProgress

METRICS = ("train_loss", "test_accuracy", "test_auc")


def plan_table(nodes: Iterable[Node]) -> pd.DataFrame:
    """Number of nodes of each part of the study that will run, in the order of the first of each."""
    counts = Counter(Namespace.parse(node.namespace or "other").pipeline for node in nodes)
    return pd.DataFrame({"part": list(counts), "nodes": list(counts.values())})


def runs_table(seconds: Mapping[Node, float], catalog: CatalogProtocol) -> pd.DataFrame:
    """A row per training that is done: its final metrics and the time that it took now, its share of a group's."""
    rows = []
    for node, spent in seconds.items():
        histories = [name for name in node.outputs if EntryName.parse(name).form == "history"]
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


def failures_table(progress: NodeProgress) -> pd.DataFrame:
    """A row per node that failed: why, and how many nodes could not run for it."""
    rows = [
        {"failed": node.name, "why": reason(error), "nodes_not_run": list(progress.skipped.values()).count(node)}
        for node, error in progress.failed.items()
    ]
    return pd.DataFrame(rows)
