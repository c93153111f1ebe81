"""Pairs of runs that are compared, the kinds of pair by which tables are grouped, and the nodes that measure them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from transferscope.experiment.run import RunSpec


@dataclass(frozen=True)
class Pair:
    """Two runs that are compared; `kind` is the row of the paper's tables that it belongs to."""

    kind: str
    run_a: RunSpec
    run_b: RunSpec

    @property
    def name(self) -> str:
        a, b = self.run_a, self.run_b
        return f"{a.name}__{b.name}" if a.task == b.task else f"{a.task}_{a.name}__{b.task}_{b.name}"

    @property
    def same_network(self) -> bool:
        """True if the two have one architecture with the same options, so that their weights may be compared."""
        return self.run_a.model == self.run_b.model

    @property
    def is_of_parent(self) -> bool:
        """True if one is a checkpoint file and the other what it was fine-tuned from."""
        a, b = self.run_a, self.run_b
        return any(one.checkpoint and one.pretrained == other.full_name for one, other in ((a, b), (b, a)))

    @property
    def split_epoch(self) -> int | None:
        """The epoch after which the two go their own ways, where one is a copy of the other."""
        a, b = self.run_a, self.run_b
        copy = next((one for one, other in ((a, b), (b, a)) if one.split_from == other.full_name), None)
        return None if copy is None else copy.split_epoch


def pair_of(a: RunSpec, b: RunSpec) -> Pair:
    """Two runs as a pair of the kind that their labels make."""
    return Pair(pair_kind(a.label, b.label), a, b)


def pair_kind(label_a: str, label_b: str) -> str:
    """The kind of a pair as tables and figures name it: `P-T & RI-T`; a label with that sign in it is put in quotes."""
    return " & ".join(map(_quoted, (label_a, label_b)))


def start_kind(label: str) -> str:
    """The kind of a run beside its own initial weights: `P-T to init`, which is no name of a kind of pair."""
    return f"{_quoted(label)} to init"


def _quoted(label: str) -> str:
    left, right = "\N{LEFT DOUBLE QUOTATION MARK}", "\N{RIGHT DOUBLE QUOTATION MARK}"
    return f"{left}{label}{right}" if " & " in f" {label} " or label.startswith(left) else label


def labels_in(kind: str) -> tuple[str, ...]:
    """The labels in the name of a kind of run or pair, as `pair_kind` puts them together."""
    return tuple(quoted or plain for quoted, plain in re.findall(r"“(.*?)”(?: & |$)|(.+?)(?: & |$)", kind))


@dataclass(frozen=True)
class PairGroup:
    """Pairs of two kinds of run on a task that one node of each analysis measures: one of them, or all."""

    name: str
    """That of the pair, `pt_1__rit_2`, or of the two kinds, `pt__rit`."""
    pairs: tuple[Pair, ...]
    together: bool
    """True if the group stands for all pairs of the two kinds."""

    @property
    def runs(self) -> list[RunSpec]:
        """The runs of the pairs, each once."""
        return list({run.full_name: run for pair in self.pairs for run in (pair.run_a, pair.run_b)}.values())
