"""How long trainings took."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from transferscope.models.series import CheckpointSeries, repair_command
from transferscope.system.stored import DamagedError, read_json

TIMINGS, STORED_TIMINGS = "timings.csv", ".timings.json"
"""Of a run: the table to look at, and what it is written from."""
COLUMNS = ("task", "run", "epochs", "seconds", "images_per_second")


def gather_timings(series: Iterable[CheckpointSeries]) -> pd.DataFrame:
    """A row per run that was trained here: seconds in all, evaluations included, and the median training speed.

    A checkpoint that was made elsewhere has no times and no row.
    """
    rows = []
    for one in series:
        path = one.folder / STORED_TIMINGS if one.folder else None
        if path is None or not path.is_file():
            continue
        try:
            times = pd.DataFrame(read_json(path)["rows"])
        except DamagedError as error:
            raise DamagedError(path, error.reason, repair_command(one.name)) from None
        task, _, run = one.name.partition(".")
        speed = times["images_per_second"].median()
        rows.append((task, run, int(times["epoch"].max()), times["seconds"].sum(), speed))
    return pd.DataFrame(rows, columns=list(COLUMNS))
