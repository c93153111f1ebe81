"""Runs by kind and learning rate: how the figures of training name them and what they look like."""

from __future__ import annotations

import re

import pandas as pd

from transferscope.plots.series import in_order, kinds_of
from transferscope.plots.style import DASHES, Look, in_usual_order, looks_for

RATE_WORDS = re.compile(r"( \w+)? lr\b.*")
"""What a kind's name says of the learning rate; the figures give the number instead."""


def by_kind_and_rate(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows under names such as `P-T, lr 0.01`, smallest rate first within a kind; without a rate under `P-T`.

    table: columns run and lr, the largest of a run's schedule counts, nan for a checkpoint file; and label, or names
    of runs that tell the kind.
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


def _without_rates(labels: pd.Series, rates: pd.Series) -> pd.Series:
    """Labels without what they say of the learning rate, where no two of them then stand for one kind and rate."""
    short = labels.map(lambda label: RATE_WORDS.sub("", label).strip() or label)
    meant = labels.groupby([short, rates], dropna=False).transform("nunique")
    return short.where(~short.isin(set(short[meant > 1])), labels)


def looks_by_kind_and_rate(groups: dict[str, pd.DataFrame]) -> dict[str, Look]:
    """The colour of the kind of run; a dash for each learning rate of it, solid for the smallest."""
    kinds = [name.rsplit(", lr ", 1)[0] for name in groups]
    plain = looks_for(kinds)
    ranks = [kinds[:index].count(kind) for index, kind in enumerate(kinds)]
    return {
        name: Look(plain[kind].colour, plain[kind].marker, DASHES[rank % len(DASHES)])
        for name, kind, rank in zip(groups, kinds, ranks, strict=True)
    }
