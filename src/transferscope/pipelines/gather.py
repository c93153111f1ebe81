"""The fan-in that every analysis ends with: many small tables into one."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
from kedro.pipeline import Node


def concatenate(*tables: pd.DataFrame) -> pd.DataFrame:
    """One table of all rows, in the order of the inputs."""
    return pd.concat([table for table in tables if len(table)] or list(tables[:1]), ignore_index=True)


def gather(step: str, task: str, name: str, inputs: Iterable[str]) -> Node:
    """The node that makes `{task}.{name}.table` of the tables of runs or pairs."""
    return Node(
        concatenate,
        inputs=list(inputs),
        outputs=f"{task}.{name}.table",
        name=f"gather_{name}",
        namespace=f"{task}.{step}",
    )
