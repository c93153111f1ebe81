"""Runs by kind and learning rate: how the figures of training name them and what they look like."""

from __future__ import annotations

import pandas as pd

from transferscope.plots.roles import kind_of, present_labels
from transferscope.plots.rows import in_order, kinds_of
from transferscope.plots.style import DASHES, Look, in_usual_order, looks_for


def by_kind_and_rate(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows under names such as `P-T, lr 0.01`, smallest rate first within a kind; without a rate under `P-T`.

    A variant of a kind at another rate stands under the kind's own label, because the rate tells them apart.

    table: columns run and lr, the largest of a run's schedule counts, nan for a checkpoint file; and label, or names
    of runs that name the kind.
    """
    largest = table["run"].map(table.groupby("run")["lr"].max())
    rates = largest.map("{:.3g}".format).astype(float)
    kinds = _without_rates(kinds_of(table), rates)
    groups = {}
    for kind in in_usual_order(in_order(kinds)):
        unknown = (kinds == kind) & rates.isna()
        if unknown.any():
            groups[kind] = table[unknown]
        for rate in sorted(rates[kinds == kind].dropna().unique()):
            groups[f"{kind}, lr {rate:g}"] = table[(kinds == kind) & (rates == rate)]
    return groups


def _without_rates(kinds: pd.Series, rates: pd.Series) -> pd.Series:
    own = {text: set(rates[kinds == text].dropna()) for text in kinds.unique()}
    names = {}
    for text, of_kind in own.items():
        kind = kind_of(text)
        first = present_labels().first(kind.roles[0])
        names[text] = first if kind.variant and of_kind and not of_kind & own.get(first, set()) else text
    return kinds.map(names)


def looks_by_kind_and_rate(groups: dict[str, pd.DataFrame]) -> dict[str, Look]:
    """The colour of the kind of run; a dash for each learning rate of it, solid for the smallest."""
    kinds = [name.rsplit(", lr ", 1)[0] for name in groups]
    plain = looks_for(kinds)
    ranks = [kinds[:index].count(kind) for index, kind in enumerate(kinds)]
    return {
        name: Look(plain[kind].colour, plain[kind].marker, DASHES[rank % len(DASHES)])
        for name, kind, rank in zip(groups, kinds, ranks, strict=True)
    }
