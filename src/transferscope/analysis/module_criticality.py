"""Criticality mu_epsilon of modules and of a network, from the losses that `criticality` measured.

Chatterji, Neyshabur, Sedghi, "The intriguing role of module criticality" (ICLR 2020). `settle` takes further draws of
the noise where they decide mu.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import scipy

from transferscope.analysis.criticality import MEASUREMENTS
from transferscope.analysis.perturbation import Case
from transferscope.system.errors import UserError


def module_criticality(
    table: pd.DataFrame, epsilons: Sequence[float], *, split: str = "train", confidence: float = 0.95
) -> pd.DataFrame:
    """mu_epsilon of every module: the smallest distance² / sigma² at which the mean loss stays at epsilon or below.

    On the direct path distance² = alpha² ‖final - initial‖_F², so this is the published measure; on the optimization
    path it is the same with the distance that training had gone. The loss is the mean over draws on `split`. A module
    that can be set back to its initial value has mu 0; one that bears no measured noise at any place has mu infinite.

    mu is that of the means. With few draws it is too small more often than too large, since one lucky cell is enough.
    So there is an interval over draws: mu_low is the smallest ratio at which the loss was not shown to exceed epsilon,
    mu_high the smallest at which it was shown not to (infinite where none was). They meet where enough draws were taken
    (`settle`); the grid of places and sizes of noise is taken as it is. In 1,000 simulations it holds mu, one of a few
    places, in 99 %. Columns: what identifies a module, epsilon, mu, mu_low, mu_high, num_draws (the most in a cell).
    """
    if len(epsilons) == 0:
        raise UserError("epsilons is empty: give at least one bound on the loss")
    keys, cells = _cells(table, split)
    rows = []
    for epsilon in epsilons:
        judged = _judge(cells, keys, float(epsilon), confidence)
        for group, part in judged.groupby(keys, sort=False, dropna=False):
            bounds = [part.loc[chosen, "ratio"].min() for chosen in (part["below"], ~part["refused"], part["allowed"])]
            values = (np.inf if np.isnan(bound) else float(bound) for bound in bounds)
            rows.append((*group, float(epsilon), *values, int(part["count"].max())))
    return pd.DataFrame(rows, columns=[*keys, "epsilon", "mu", "mu_low", "mu_high", "num_draws"])


def _cells(table: pd.DataFrame, split: str) -> tuple[list[str], pd.DataFrame]:
    """Columns that identify a module, and mean, spread and number of the losses at every place and size of noise."""
    chosen = table[table["split"] == split]
    if chosen.empty:
        present = ", ".join(map(str, table["split"].unique()))
        raise UserError(f"no rows of split {split!r} in the table, only {present}")
    keys = [column for column in table.columns if column not in (*MEASUREMENTS, "split")]
    cases = chosen.groupby([*keys, "position", "distance", "sigma"], sort=False, dropna=False)["loss"]
    cells = pd.DataFrame({"mean": cases.agg(_mean_with_nan), "std": cases.std(), "count": cases.size()}).reset_index()
    cells["ratio"] = _ratio(cells["distance"].to_numpy(), cells["sigma"].to_numpy())
    return keys, cells


def _judge(cells: pd.DataFrame, keys: list[str], epsilon: float, confidence: float) -> pd.DataFrame:
    """below: the mean is at epsilon or below. allowed, refused: shown by the draws that it is, or that it is not.

    By Student's t, at levels so that an interval from the first cell that is not refused to the first that is allowed
    is right with `confidence`: half of the error is for refusing the one cell that counts, half for allowing any of the
    cells before it. Cells are judged after every doubling of their draws, the k-th time with 1 / (k (k + 1)) of the
    error, which sums to 1. A cell without noise is exact.
    """
    count = cells["count"].to_numpy()
    doublings = np.maximum(np.ceil(np.log2(count)), 1)
    error = (1 - confidence) / 2 / (doublings * (doublings + 1))
    num_cells = cells.groupby(keys, sort=False, dropna=False)["mean"].transform("size").to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = (cells["mean"].to_numpy() - epsilon) / (cells["std"].to_numpy() / np.sqrt(count))
        refused = scores > scipy.stats.t.ppf(1 - error, count - 1)
        allowed = scores < scipy.stats.t.ppf(error / num_cells, count - 1)
    exact = cells["sigma"].to_numpy() == 0
    below = cells["mean"].to_numpy() <= epsilon
    # A loss that is not finite is no draw away from being allowed.
    broken = ~np.isfinite(cells["mean"].to_numpy())
    return cells.assign(
        below=below, allowed=np.where(exact, below, allowed), refused=np.where(exact, ~below, refused | broken)
    )


More = Callable[[set[Case], int, int], pd.DataFrame]
"""(module, position, sigma) of cells, their first new draw and how many -> rows like those of `criticality`."""


def settle(
    table: pd.DataFrame, epsilon: float, more: More, *, max_draws: int, split: str = "train", confidence: float = 0.95
) -> pd.DataFrame:
    """The table with further draws of the noise where they decide mu_epsilon, until they do or there are max_draws.

    The cells that decide are those that are neither allowed nor refused yet, whose ratio is at most the present mu, as
    what lies above it does not matter, and below that of every cell that is allowed. Their draws are doubled until none
    is left. table: of one path and end.
    """
    while cases := deciding_cells(table, epsilon, max_draws=max_draws, split=split, confidence=confidence):
        new = [more(chosen, count, min(count, max_draws - count)) for count, chosen in cases.items()]
        table = pd.concat([table, *new], ignore_index=True)
    return table


def deciding_cells(
    table: pd.DataFrame, epsilon: float, *, max_draws: int, split: str = "train", confidence: float = 0.95
) -> dict[int, set[Case]]:
    """Cells that decide mu_epsilon and are not settled, by the number of draws that they have so far."""
    keys, cells = _cells(table, split)
    judged = _judge(cells, keys, epsilon, confidence)
    modules = [judged[key] for key in keys]
    mu, settled = (
        judged["ratio"].where(judged[chosen]).groupby(modules, dropna=False).transform("min").fillna(np.inf)
        for chosen in ("below", "allowed")
    )
    at_issue = (judged["ratio"] <= mu) & (judged["ratio"] < settled) & ~judged["allowed"] & ~judged["refused"]
    by_count: dict[int, set[Case]] = {}
    for row in judged[at_issue & (judged["count"] < max_draws)].to_dict("records"):
        by_count.setdefault(int(row["count"]), set()).add((str(row["module"]), row["position"], row["sigma"]))
    return by_count


def _mean_with_nan(values: pd.Series) -> float:
    return float(values.mean(skipna=False))


def _ratio(distance: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """distance² / sigma²: 0 where nothing is moved, infinite where something is and no noise is borne."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(distance == 0, 0.0, np.square(distance / sigma))


def network_criticality(mu: pd.DataFrame) -> pd.DataFrame:
    """The sum of mu over a network's modules, per epsilon: the published measure of the whole network."""
    keys = [column for column in mu.columns if column not in ("module", "mu", "mu_low", "mu_high", "num_draws")]
    return mu.groupby(keys, sort=False, dropna=False)["mu"].sum().reset_index()
