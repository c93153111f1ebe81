"""Rows of a table of pairs that a claim reads, the run of the first role as side `a`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pandas as pd

from transferscope.claims.comparisons import Measured, Unit
from transferscope.experiment.names import PairName

NORMAL_975 = 1.959964
"""Half the length of a normal interval of 95 %, in standard errors."""


@dataclass(frozen=True)
class PairRows:
    """Rows of a table of pairs, all of one kind of pair, and the runs that were left out with the reason.

    The column `pair` holds each `PairName` as text, the one of the first role first.
    """

    rows: pd.DataFrame
    left_out: Mapping[str, str] = field(default_factory=dict)

    def where(self, column: str, value: object) -> PairRows:
        """The rows with that value."""
        return PairRows(self.rows[self.rows[column] == value] if len(self.rows) else self.rows, self.left_out)

    def mean(self, values: Callable[[pd.DataFrame], pd.Series]) -> Measured:
        """Mean over the rows of each pair of what `values` makes of the rows (a number per row)."""
        return Measured(self._mean(values), self.left_out)

    def _mean(self, values: Callable[[pd.DataFrame], pd.Series]) -> dict[Unit, float]:
        if self.rows.empty:
            return {}
        means = values(self.rows).astype(float).groupby(self.rows["pair"], sort=False).mean()
        return {PairName.parse(str(name)): float(value) for name, value in means.items()}

    def mean_with_error(
        self, values: Callable[[pd.DataFrame], pd.Series], low: str, high: str, scale: float | pd.Series = 1.0
    ) -> Measured:
        """As `mean`, with standard errors over images from the columns of an interval of 95 %, where there are such.

        The interval is of the number times `scale`. Rows of one pair count as measured on the same images.
        """
        errors: dict[Unit, float] = {}
        if {low, high} <= set(self.rows.columns):
            errors = self._mean(lambda rows: (rows[high] - rows[low]) / (2 * NORMAL_975) / scale)
        return Measured(self._mean(values), self.left_out, errors=errors)


def other_side(column: str) -> str:
    """`kappa_low` as it is, `accuracy_a` as `accuracy_b`, `accuracy_a_low` as `accuracy_b_low`."""
    for own, other in (("_a", "_b"), ("_b", "_a")):
        if column.endswith(own):
            return column.removesuffix(own) + other
        if f"{own}_" in column:
            return column.replace(f"{own}_", f"{other}_")
    return column
