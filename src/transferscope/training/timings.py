"""How long trainings took."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from transferscope.models.series import CheckpointSeries
from transferscope.training.record import TIMINGS

COLUMNS = ("task", "run", "epochs", "seconds", "images_per_second")


def gather_timings(series: Iterable[CheckpointSeries]) -> pd.DataFrame:
    """A row per run that was trained here: seconds in all, evaluations included, and the median training speed.

    A checkpoint that was made elsewhere has no times and no row.
    """
    rows = []
    for one in series:
        path = one.folder / TIMINGS if one.folder else None
        if path is None or not path.is_file():
            continue
        times = pd.read_csv(path)
        task, _, run = one.name.partition(".")
        speed = times["images_per_second"].median()
        rows.append((task, run, int(times["epoch"].max()), times["seconds"].sum(), speed))
    return pd.DataFrame(rows, columns=list(COLUMNS))
