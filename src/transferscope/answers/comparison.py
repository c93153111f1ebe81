"""Compare checkpoints in a notebook: tables, figures and answers in one call, without a plan and without Kedro."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib import import_module
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import nn

from transferscope.answers.answer import Answer, AnswerCard
from transferscope.answers.card import answer_questions
from transferscope.answers.compared import Compared, Model
from transferscope.answers.given_images import Images, take_images
from transferscope.answers.given_models import Given, GivenModel, labels_for, take
from transferscope.answers.given_networks import shown
from transferscope.claims.merging import with_verdicts
from transferscope.experiment.names import EntryName, RunName
from transferscope.experiment.options import AnalysesOptions, LandscapeOptions, ReplaceOptions
from transferscope.experiment.pairs import pair_kind
from transferscope.experiment.seeds import derive_seed
from transferscope.images.auto_size import LARGEST
from transferscope.images.split import PackedSplit
from transferscope.measure.bench import Bench, network
from transferscope.measure.connection import connect
from transferscope.measure.criticalities import modules_of
from transferscope.measure.identities import identity
from transferscope.measure.lines import line
from transferscope.measure.merging import Merging, merge
from transferscope.measure.predictions import mistakes, predict
from transferscope.measure.replacements import replacement
from transferscope.measure.similarity import cka
from transferscope.measure.stopping import chance_of
from transferscope.measure.weights import distance
from transferscope.models.checkpoint import Checkpoint, save_checkpoint
from transferscope.models.layers import image_channels
from transferscope.system.atomic import atomic_folder
from transferscope.system.errors import UserError
from transferscope.system.nested import laid_over
from transferscope.system.temporaries import work_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

TASK = "images"
"""Name of the task in tables and seeds, where splits have no other."""
MERGE = "average"
ALL_PAIRS = 5
"""Models up to which every two are compared unless `pairs` says otherwise; of more, each with the first."""
SIDES = (LARGEST, 64, 32, 28)
"""Sides in pixels of noise images, of which the first is taken that a network takes."""

PAIR: tuple[tuple[str, str], ...] = (("a", "b"),)
DEFAULTS: Mapping[str, Any] = {
    "mistakes": {"pairs": PAIR},
    "similarity": {"pairs": PAIR, "batch_size": 16, "max_examples": 256},
    "landscape": {
        "pairs": PAIR,
        "max_examples": 256,
        "extrapolation": {"points": 7},
        "basin": None,
        "criticality": None,
        "connection": {
            "ways": ["straight", "tempered", "rescaled", "aligned", "aligned_rescaled", "modules"],
            "max_examples": 192,
            "statistics": 128,
        },
    },
    "merging": {"methods": ["uniform", "aligned_rescaled"]},
    "spectrum": None,
}
"""Options of `compare`, those of conf/own_checkpoints but for spectra."""

FIGURES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "mistakes": ("mistakes:mistake_bars", ("mistakes",)),
    "flips": ("replacement:flip_bars", ("flips",)),
    "cka": ("cka:cka_bars", ("cka",)),
    "distance_per_module": ("distances:distance_per_module", ("distances",)),
    "barrier": ("barriers:barrier_panels", ("interpolation",)),
    "merging": ("merging:merge_scores", ("merging",)),
}
"""Figures by name, with the function of `plots` and the tables that it draws."""
CONNECTION = ("connection_points", "connection", "connection_modules")
CARD_OF_WAYS = "connections:connection_card"


@dataclass(frozen=True)
class Comparison:
    """Models that were compared: `answers` and `card`, and the `tables` and `figures` that they come from."""

    compared: Compared = field(repr=False)
    title: str = ""
    """Of the card; empty: the labels of the models."""
    merging: Merging | None = field(default=None, repr=False)
    """Merges, with the chosen one as a `Checkpoint`; None where nothing was merged."""
    checkpoints: Mapping[str, Checkpoint] = field(default_factory=dict, repr=False)
    """By label."""

    @property
    def tables(self) -> Mapping[str, pd.DataFrame]:
        """Tables by name, with the columns of those of a study."""
        return self.compared.tables

    @cached_property
    def card(self) -> AnswerCard:
        """At most eight answers, one sentence each."""
        return answer_questions(self.compared, self.title)

    @property
    def answers(self) -> list[Answer]:
        """The answers of the card."""
        return list(self.card.answers)

    @cached_property
    def figures(self) -> Mapping[str, Figure]:
        """Figures by name, also by the name that `Answer.figure` gives; each is drawn when it is first asked for."""
        return _Figures(self.compared)

    def save(self, folder: str | Path) -> Path:
        """Write answers.json, every table as CSV, every figure as PNG, and the merged weights to a new folder.

        Raises UserError where the folder exists.
        """
        folder = Path(folder)
        if folder.exists():
            raise UserError(f"{folder} exists: give the name of a new folder")
        with atomic_folder(folder) as made:
            for name, table in self.tables.items():
                table.to_csv(made / f"{name}.csv", index=False, lineterminator="\n")
            for name, figure in self.figures.items():
                figure.savefig(made / f"{name}.png", dpi=200)
            card = self.card
            if self.merging is not None:
                save_checkpoint(self.merging.checkpoint, made / "merged.safetensors")
                merged = {**self.compared.merged, MERGE: str(folder / "merged.safetensors")}
                card = answer_questions(Compared(**{**vars_of(self.compared), "merged": merged}), self.title)
            (made / "answers.json").write_text(card.to_json(), encoding="utf-8")
        return folder

    def __str__(self) -> str:
        return str(self.card)

    def _repr_html_(self) -> str:
        return self.card._repr_html_()


def vars_of(compared: Compared) -> dict[str, Any]:
    """The fields of what is compared, without what follows from them."""
    return {name: getattr(compared, name) for name in compared.__dataclass_fields__}


def compare(
    first: Given,
    second: Given,
    *others: Given,
    images: Images | None = None,
    model: str | nn.Module | None = None,
    names: Sequence[str] | None = None,
    pairs: Iterable[tuple[str, str]] | None = None,
    analyses: Mapping[str, Any] | None = None,
    max_images: int = 1000,
    class_list: str | Path | None = None,
) -> Comparison:
    """Compare two or more trained networks, and answer in sentences.

    In a notebook, `transferscope.compare("a.pth", "b.pth", images="photos")` shows them.

    Args:
        first, second, others: Paths of checkpoint files, state dicts, networks, or objects of `Checkpoint`.
        images: A folder of classes, a tuple of images and labels, a Dataset or a DataLoader of pairs of both, or a
            mapping of these with the parts train and test. All but a folder give what the networks take. None: only
            what follows from weights.
        model: Architecture of files and state dicts, a name for `build_model` or a network; None: recognised.
        names: Labels of the models; None: A, B, C and so on.
        pairs: Pairs of labels that are compared; None: all of up to five models, else each with the first.
        analyses: Changes of `DEFAULTS`, such as `{"landscape": None}` to leave an analysis out.
        max_images: Largest number of images, half of which judge; drawn by a fixed seed.
        class_list: File with a class per line in the order of the outputs, for a folder that has some of them.

    Raises:
        UserError: A model cannot be read or recognised, images do not fit the models, or options are wrong.
    """
    given = (first, second, *others)
    labels = labels_for(len(given), names)
    options = AnalysesOptions.model_validate(laid_over(DEFAULTS, analyses or {}))
    models = {}
    for index, (one, label) in enumerate(zip(given, labels, strict=True)):
        run = RunName(TASK, f"{_kind(index)}_1")
        models[str(run)] = take(one, label, run.task, run.run, model)
    chosen = _pairs(models, labels, pairs)
    with ExitStack() as stack:
        splits: dict[str, PackedSplit] = {}
        if images is not None:
            classes, side = _one_size(list(models.values()))
            folder = stack.enter_context(work_folder())
            splits = take_images(images, TASK, folder, classes, max_images, class_list, side)
        found = _Measured(models, splits, options, chosen)
        found.measure()
    return found.comparison()


def _one_size(models: Sequence[GivenModel]) -> tuple[int, int | None]:
    """The number of classes of all models, and the side of images that they demand; None where any will do.

    Raises UserError where two differ, because no image and no label suits both.
    """
    first, side = models[0], None
    for model in models:
        known, classes = first.checkpoint.metadata.num_classes, model.checkpoint.metadata.num_classes
        if classes != known:
            raise UserError(
                f"{first.label} has {known} classes and {model.label} {classes}: compare them without images"
            )
        if None not in (side, model.side) and side != model.side:
            raise UserError(
                f"{model.label} takes images of {model.side} px only, and another model {side} px: compare them "
                "without images"
            )
        side = model.side if side is None else side
    return first.checkpoint.metadata.num_classes or 0, side


def _kind(index: int) -> str:
    """Names of kinds of run, as the configuration of two files has them: a, b, c."""
    return chr(ord("a") + index) if index < 26 else f"m{index + 1}"


def _pairs(
    models: Mapping[str, GivenModel], labels: Sequence[str], pairs: Iterable[tuple[str, str]] | None
) -> list[tuple[str, str]]:
    runs = dict(zip(labels, models, strict=True))
    if pairs is None:
        every = list(combinations(models, 2))
        return every if len(models) <= ALL_PAIRS else every[: len(models) - 1]
    chosen = [tuple(pair) for pair in pairs]
    if not chosen or any(len(set(pair)) != 2 or len(pair) != 2 for pair in chosen):
        raise UserError(f"pairs: give pairs of two different labels, as {[(labels[0], labels[1])]}")
    if len({frozenset(pair) for pair in chosen}) < len(chosen):
        raise UserError("pairs: two models are paired twice: name each pair once")
    unknown = [label for pair in chosen for label in pair if label not in runs]
    if unknown:
        raise UserError(f"pairs: {unknown[0]} is no model; there are {', '.join(labels)}")
    return [(runs[a], runs[b]) for a, b in chosen]


class _Measured:
    """The tables of all pairs, one analysis after the other."""

    def __init__(
        self,
        models: Mapping[str, GivenModel],
        splits: Mapping[str, PackedSplit],
        options: AnalysesOptions,
        pairs: Sequence[tuple[str, str]],
    ) -> None:
        self.models, self.options, self.pairs = models, options, pairs
        self.splits = splits
        self.store: dict[str, dict[str, Any]] = {}
        self.parts: dict[str, list[pd.DataFrame]] = {}
        self.tables: dict[str, pd.DataFrame] = {}
        self.merging: Merging | None = None

    def measure(self) -> None:
        """Fill the tables."""
        for pair in self.pairs:
            self._pair(pair)
        if self.splits and self.options.similarity is not None:
            self._features()
        self.tables |= {name: pd.concat(parts, ignore_index=True) for name, parts in self.parts.items()}
        if self.splits and self.options.merging is not None:
            self._merges()

    def comparison(self) -> Comparison:
        """The result, which keeps no images."""
        models = {
            run: Model(one.label, one.file, shown(one.checkpoint.metadata.architecture or ""))
            for run, one in self.models.items()
        }
        figures = {name for name, (_, tables) in FIGURES.items() if all(self._has(table) for table in tables)}
        if self._has("connection"):
            figures |= {f"connection_{_short(a)}__{_short(b)}" for a, b in self.pairs if self._has_ways(a, b)}
        mistakes_options = self.options.mistakes
        replace = mistakes_options.replace if mistakes_options is not None else None
        compared = Compared(
            task=TASK,
            models=models,
            tables=self.tables,
            figures=frozenset(figures),
            chance=chance_of(self.splits["test"]) if self.splits else math.nan,
            has_images=bool(self.splits),
            accepted_loss=(replace or ReplaceOptions()).margin,
        )
        by_label = {one.label: one.checkpoint for one in self.models.values()}
        return Comparison(compared, "", self.merging, by_label)

    def _has(self, table: str) -> bool:
        return table in self.tables and len(self.tables[table]) > 0

    def _has_ways(self, a: str, b: str) -> bool:
        table = self.tables["connection"]
        return bool(((table["checkpoint_a"] == _final(a)) & (table["checkpoint_b"] == _final(b))).any())

    def _bench(self, max_examples: int | None = None, resamples: int = 0) -> Bench:
        return Bench(self.splits, self.store, self.options.precision, resamples).limited(max_examples)

    def _add(self, name: str, pair: tuple[str, str], table: pd.DataFrame) -> None:
        """A table of a pair with the columns that name it, as a study has them."""
        names = self._names(pair)
        columns = [column for column in table.columns if column not in ("task", *names)]
        self.parts.setdefault(name, []).append(table[columns].assign(task=TASK, **names)[["task", *names, *columns]])

    def _names(self, pair: tuple[str, str]) -> dict[str, str]:
        kind = pair_kind(*(self.models[run].label for run in pair))
        return {"pair_kind": kind, "checkpoint_a": _final(pair[0]), "checkpoint_b": _final(pair[1])}

    def _pair(self, pair: tuple[str, str]) -> None:
        a, b = (self.models[run].checkpoint for run in pair)
        bench = self._bench() if self.splits else None
        side = None if bench is not None else self._side(pair)
        same = identity(a, b, self.options.modules, bench=bench, side=side)
        self._add("identity", pair, same.summary)
        if len(same.matched):
            self._add("aligned_distances", pair, same.matched)
        comparable = bool(same.summary["comparable"].iloc[0])
        if comparable and self.options.similarity is not None:
            self._add("distances", pair, distance(a, b, self.options.modules))
        if bench is None:
            return
        if self.options.mistakes is not None:
            self._mistakes(pair)
        if comparable and self.options.landscape is not None:
            self._ways(pair, self.options.landscape)

    def _side(self, pair: tuple[str, str]) -> int:
        """Of noise images, in pixels: as a network demands, or the first that both take."""
        demanded = [side for run in pair if (side := self.models[run].side) is not None]
        takes = partial(_take, [self.models[run].checkpoint for run in pair])
        return next((side for side in (*demanded, *SIDES) if takes(side)), SIDES[0])

    def _mistakes(self, pair: tuple[str, str]) -> None:
        chosen, test = self.options.mistakes, self.splits["test"]
        assert chosen is not None
        first, second = (self._logits(run) for run in pair)
        if first.shape != second.shape:
            log.warning(
                "%s: no mistakes are compared, for the outputs differ in number", self._names(pair)["pair_kind"]
            )
            return
        seeds = {name: derive_seed(*map(_final, pair), name) for name in ("bootstrap", "replacement")}
        table = mistakes(test, first, second, resamples=chosen.bootstrap, seed=seeds["bootstrap"])
        self._add("mistakes", pair, table)
        if chosen.replace is not None:
            whole, flips = replacement(test, first, second, chosen.replace, seed=seeds["replacement"])
            self._add("replacement", pair, whole)
            self._add("flips", pair, flips)

    def _logits(self, run: str) -> torch.Tensor:
        if run not in self._predicted:
            self._predicted[run] = predict(self._bench(), self.models[run].checkpoint)
        return self._predicted[run]

    @cached_property
    def _predicted(self) -> dict[str, torch.Tensor]:
        return {}

    def _ways(self, pair: tuple[str, str], options: LandscapeOptions) -> None:
        a, b = (self.models[run].checkpoint for run in pair)
        name = self._names(pair)["pair_kind"]
        outside = options.extrapolation.outside() if options.extrapolation else []
        try:
            bench = self._bench(options.max_examples, options.resamples)
            points, barriers = line(
                bench, a, b, options.alphas_for(TASK), outside=outside, until_decided=options.until_decided, name=name
            )
            self._add("interpolation", pair, points)
            self._add("barriers", pair, barriers)
            if options.connection is not None:
                modules = modules_of(a, self.options.modules)
                bench = self._bench(resamples=options.resamples)
                found = connect(bench, a, b, options=options.connection, modules=modules, name=name)
                for table, rows in zip(CONNECTION, (found.points, found.barriers, found.modules), strict=True):
                    self._add(table, pair, rows)
        except UserError as error:
            log.warning("%s: no way between these two: %s", name, error)

    def _features(self) -> None:
        checkpoints = {_final(run): one.checkpoint for run, one in self.models.items()}
        kinds = {(_final(a), _final(b)): self._names((a, b))["pair_kind"] for a, b in self.pairs}
        try:
            tables = cka(self._bench(), checkpoints, kinds, self.options.similarity)
        except UserError as error:
            log.warning("features are not compared: %s", error)
            return
        self.tables |= tables

    def _merges(self) -> None:
        assert self.options.merging is not None
        architectures = {
            (one.checkpoint.metadata.architecture, str(one.checkpoint.metadata.model_options))
            for one in self.models.values()
        }
        if len(architectures) > 1:
            return
        candidates = {_final(run): one.checkpoint for run, one in self.models.items()}
        methods = self.options.merging.methods
        try:
            self.merging = merge([self._bench()], candidates, self.options.merging, methods=methods)
        except UserError as error:
            log.warning("nothing is merged: %s", error)
            return
        label = " & ".join(one.label for one in self.models.values())
        table = with_verdicts(self.merging.table).assign(merge=MERGE, label=label)
        self.tables["merging"] = table[["merge", "label", *table.columns.drop(["merge", "label"])]]


def _take(checkpoints: Sequence[Checkpoint], side: int) -> bool:
    """True if all networks take images of a side."""
    for checkpoint in checkpoints:
        model = network(checkpoint)
        try:
            with torch.inference_mode():
                device = next(model.parameters()).device
                model(torch.zeros(1, image_channels(model), side, side, device=device))
        except (RuntimeError, ValueError, AssertionError):
            return False
    return True


def _final(run: str) -> str:
    return str(RunName.parse(run).at("final"))


def _short(run: str) -> str:
    return RunName.parse(run).run


class _Figures(Mapping[str, "Figure"]):
    """Figures that are drawn when they are asked for."""

    def __init__(self, compared: Compared) -> None:
        self._compared = compared
        self._drawn: dict[str, Figure] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._compared.figures))

    def __len__(self) -> int:
        return len(self._compared.figures)

    def __getitem__(self, name: str) -> Figure:
        short = EntryName.parse(name).of or name  # also the name of the catalog, as answers have it
        if short not in self._compared.figures:
            raise KeyError(f"{name}: there are {', '.join(self)}")
        if short not in self._drawn:
            self._drawn[short] = self._draw(short)
        return self._drawn[short]

    def _draw(self, name: str) -> Figure:
        from transferscope.plots.roles import labelled

        compared = self._compared
        runs = {run: model.label for run, model in compared.models.items()}
        with labelled(dict.fromkeys(runs.values(), "file"), runs):
            if name in FIGURES:
                plot, tables = FIGURES[name]
                options = {"between": True} if name == "barrier" else {}
                return _function(plot)(*(compared.tables[table] for table in tables), title=compared.task, **options)
            a, b = name.removeprefix("connection_").split("__")
            ends = [_final(f"{compared.task}.{run}") for run in (a, b)]
            chosen = [
                table[(table["checkpoint_a"] == ends[0]) & (table["checkpoint_b"] == ends[1])]
                for table in (compared.tables[one] for one in CONNECTION)
            ]
            title = " & ".join(runs[f"{compared.task}.{run}"] for run in (a, b))
            return _function(CARD_OF_WAYS)(*chosen, title=title)


def _function(reference: str) -> Callable[..., Figure]:
    module, _, name = reference.partition(":")
    function: Callable[..., Figure] = getattr(import_module(f"transferscope.plots.{module}"), name)
    return function
