"""The figures of a comparison, each drawn when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

import pandas as pd

from transferscope.answers.compared import Compared, final_of
from transferscope.claims.evidence import CROSS_DOMAIN
from transferscope.experiment.names import EntryName, RunName

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "mistakes": ("mistakes:mistake_bars", ("mistakes",)),
    "flips": ("replacement:flip_bars", ("flips",)),
    "cka": ("cka:cka_bars", ("cka",)),
    "distance_per_module": ("distances:distance_per_module", ("distances",)),
    "barrier": ("barriers:barrier_panels", ("interpolation",)),
    "merging": ("merging:merge_scores", ("merging",)),
}
"""Figures by name, with the function of `plots` and the tables that it draws."""
WAYS = "connections:connection_card"
"""The figure of the ways between two models, one per pair."""
WAYS_TABLES = ("connection_points", "connection", "connection_modules")


def drawable(tables: Mapping[str, pd.DataFrame], pairs: Iterable[tuple[str, str]]) -> frozenset[str]:
    """The names of the figures whose tables are there.

    pairs: names of the runs of each pair that was compared.
    """
    there = {name for name, table in tables.items() if len(table)}
    names = {name for name, (_, needed) in FIGURES.items() if there.issuperset(needed)}
    if "connection" in there:
        names |= {_ways_name(a, b) for a, b in pairs if len(_between(tables["connection"], a, b))}
    return frozenset(names)


class DrawnFigures(Mapping[str, "Figure"]):
    """Figures by name, of several tasks as `photos.flips`.

    Also of a single task by the name with the task, and by that of the entry as `Answer.figure` has it.
    """

    def __init__(self, compared: Compared) -> None:
        self._compared = compared
        self._several = len(compared.tasks) > 1
        figures = {task: facts.figures for task, facts in compared.tasks.items()} | {CROSS_DOMAIN: compared.across}
        self._entries = {
            (f"{scope}.{name}" if self._several else name): EntryName("figure", scope, name)
            for scope, names in figures.items() for name in names
        }  # fmt: skip
        self._names = {form: name for name, entry in self._entries.items() for form in (entry.owner, str(entry), name)}
        self._drawn: dict[str, Figure] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, name: str) -> Figure:
        if name not in self._names:
            raise KeyError(f"{name}: there are {', '.join(self)}")
        key = self._names[name]
        if key not in self._drawn:
            self._drawn[key] = self._draw(self._entries[key])
        return self._drawn[key]

    def _draw(self, entry: EntryName) -> Figure:
        from transferscope.plots.roles import labelled  # matplotlib is imported when a figure is drawn

        scope, name = str(entry.task), str(entry.of)
        labels = {run: model.label for run, model in self._compared.models.items()}
        with labelled(dict.fromkeys(labels.values(), "file"), labels):
            if name in FIGURES:
                plot, needed = FIGURES[name]
                options = {"between": True} if name == "barrier" else {}
                title = "all tasks" if scope == CROSS_DOMAIN else scope
                return _function(plot)(*(self._table(table, scope) for table in needed), title=title, **options)
            own = [run for run in labels if RunName.parse(run).task == scope]
            a, b = next((a, b) for a in own for b in own if _ways_name(a, b) == name)
            ways = [_between(self._compared.tables[table], a, b) for table in WAYS_TABLES]
            return _function(WAYS)(*ways, title=f"{labels[a]} & {labels[b]}")

    def _table(self, name: str, scope: str) -> pd.DataFrame:
        """The rows of a task; of merges, which are judged on all tasks, every row."""
        table = self._compared.tables[name]
        return table[table["task"] == scope] if self._several and scope != CROSS_DOMAIN else table


def _ways_name(a: str, b: str) -> str:
    return f"connection_{RunName.parse(a).run}__{RunName.parse(b).run}"


def _between(table: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    return table[(table["checkpoint_a"] == final_of(a)) & (table["checkpoint_b"] == final_of(b))]


def _function(reference: str) -> Callable[..., Figure]:
    module, _, name = reference.partition(":")
    function: Callable[..., Figure] = getattr(import_module(f"transferscope.plots.{module}"), name)
    return function
