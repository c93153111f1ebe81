"""Runs by kind and learning rate: how the figures of training name them and what they look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from transferscope.plots.roles import present_labels
from transferscope.plots.rows import in_order, kinds_of
from transferscope.plots.style import DASHES, Look, in_usual_order, looks_for


@dataclass(frozen=True)
class KindAtRate:
    """A kind of run at a learning rate: `P-T, lr 0.01`, or `P-T` of a checkpoint file."""

    kind: str
    rate: float | None = None

    def __str__(self) -> str:
        return self.kind if self.rate is None else f"{self.kind}, lr {self.rate:g}"


def by_kind_and_rate(table: pd.DataFrame) -> dict[KindAtRate, pd.DataFrame]:
    """Rows by kind and rate, smallest rate first within a kind.

    A kind that differs from another in its rate alone stands under that one's label, because the rate tells them apart.

    table: columns run and lr, the largest of a run's schedule counts, nan for a checkpoint file; and label, or names
    of runs that name the kind.
    """
    largest = table["run"].map(table.groupby("run")["lr"].max())
    rates = largest.map("{:.3g}".format).astype(float)
    kinds = _without_rates(kinds_of(table), rates)
    groups: dict[KindAtRate, pd.DataFrame] = {}
    for kind in in_usual_order(in_order(kinds)):
        unknown = (kinds == kind) & rates.isna()
        if unknown.any():
            groups[KindAtRate(kind)] = table[unknown]
        for rate in sorted(rates[kinds == kind].dropna().unique()):
            groups[KindAtRate(kind, rate)] = table[(kinds == kind) & (rates == rate)]
    return groups


def _without_rates(kinds: pd.Series, rates: pd.Series) -> pd.Series:
    own = {text: set(rates[kinds == text].dropna()) for text in kinds.unique()}
    names = {}
    for text, of_kind in own.items():
        first = present_labels().other_rates.get(text, text)
        names[text] = text if not of_kind or of_kind & own.get(first, set()) else first
    return kinds.map(names)


def looks_by_kind_and_rate(groups: Sequence[KindAtRate]) -> dict[KindAtRate, Look]:
    """The colour of the kind of run; a dash for each learning rate of it, solid for the smallest."""
    kinds = [group.kind for group in groups]
    plain = looks_for(kinds)
    ranks = [kinds[:index].count(kind) for index, kind in enumerate(kinds)]
    return {
        group: Look(plain[kind].colour, plain[kind].marker, DASHES[rank % len(DASHES)])
        for group, kind, rank in zip(groups, kinds, ranks, strict=True)
    }
