"""Compare checkpoints in a notebook: tables, figures and answers in one call, without a plan and without Kedro."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from torch import nn

from transferscope.answers.answer import Answer, AnswerCard
from transferscope.answers.card import answer_questions
from transferscope.answers.compared import Compared, Model, TaskFacts
from transferscope.answers.drawn_figures import DrawnFigures, drawable
from transferscope.answers.given_images import Images, take_images, tasks_of
from transferscope.answers.given_models import Given, GivenModel, labels_for, take
from transferscope.answers.given_networks import shown
from transferscope.answers.measured_models import MERGE, MeasuredModels, merged, merging_table
from transferscope.experiment.names import RunName
from transferscope.experiment.options import AnalysesOptions, ReplaceOptions
from transferscope.images.split import PackedSplit
from transferscope.measure.merging import Merging
from transferscope.measure.stopping import guessing_of
from transferscope.models.checkpoint import Checkpoint, save_checkpoint
from transferscope.models.logits import check_outputs
from transferscope.system.atomic import atomic_folder
from transferscope.system.errors import UserError, one_line
from transferscope.system.nested import laid_over
from transferscope.system.temporaries import work_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ALL_PAIRS = 5
"""Models up to which every two are compared unless `pairs` says otherwise; of more, each with the first."""

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
        return DrawnFigures(self.compared)

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
                files = {**self.compared.merged, MERGE: str(folder / "merged.safetensors")}
                card = answer_questions(replace(self.compared, merged=files), self.title)
            (made / "answers.json").write_text(card.to_json(), encoding="utf-8")
        return folder

    def __str__(self) -> str:
        return str(self.card)

    def _repr_html_(self) -> str:
        """The card in a notebook, and what else there is by name."""
        parts = {"figures": self.figures, "tables": self.tables}
        names = "; ".join(f"<code>.{part}</code> {', '.join(sorted(named))}" for part, named in parts.items() if named)
        return f"{self.card._repr_html_()}<p><small>{names}</small></p>"


def compare(
    first: Given,
    second: Given,
    *others: Given,
    images: Images | Mapping[str, Images] | None = None,
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
            mapping of these with the parts train and test. All but a folder give what the networks take. A mapping of
            other names has a task under each, such as `{"photos": "photos", "sketches": (images, labels)}`. None: only
            what follows from weights.
        model: Architecture of files and state dicts, a name for `build_model` or a network; None: recognised.
        names: Labels of the models; None: A, B, C and so on.
        pairs: Pairs of labels that are compared; None: all of up to five models, else each with the first.
        analyses: Changes of `DEFAULTS`, such as `{"landscape": None}` to leave an analysis out.
        max_images: Largest number of images of a task, half of which judge; drawn by a fixed seed.
        class_list: File with a class per line in the order of the outputs, for a folder that has some of them.

    Raises:
        UserError: A model cannot be read or recognised, images do not fit the models, or options are wrong.
    """
    given = (first, second, *others)
    labels = labels_for(len(given), names)
    options = AnalysesOptions.model_validate(laid_over(DEFAULTS, analyses or {}))
    by_task = tasks_of(images)
    task = next(iter(by_task))
    runs = [f"{_kind(index)}_1" for index in range(len(given))]
    models = {run: take(one, label, task, run, model) for run, one, label in zip(runs, given, labels, strict=True)}
    chosen = _pairs(runs, labels, pairs)
    with ExitStack() as stack:
        folder = stack.enter_context(work_folder())
        splits: dict[str, Mapping[str, PackedSplit]] = {name: {} for name in by_task}
        for name, of_task in by_task.items():
            if of_task is not None:
                classes, side = _one_size(list(models.values()))
                splits[name] = take_images(of_task, name, folder / name, classes, max_images, class_list, side)
                _check_outputs(list(models.values()), splits[name]["test"].pictures.seen_size)
        measured = [MeasuredModels(_on(name, models), splits[name], options, _named(name, chosen), name)
                    for name in by_task]  # fmt: skip
        tables = [one.tables() for one in measured]
        facts = {one.task: _facts(one, own) for one, own in zip(measured, tables, strict=True)}
        scores = {run: score for one in measured for run, score in one.scores().items()}
        merging = merged(measured)
    joined = {name: pd.concat([own[name] for own in tables if name in own], ignore_index=True)
              for name in dict.fromkeys(name for own in tables for name in own)}  # fmt: skip
    if merging is not None:
        joined["merging"] = merging_table(merging, models)
    drawn = drawable({name: table for name, table in joined.items() if name == "merging"}, [])
    if len(by_task) == 1:
        facts[task] = replace(facts[task], figures=facts[task].figures | drawn)
    compared = Compared(
        tasks=facts,
        models={run: _model(one) for own in measured for run, one in own.models.items()},
        tables=joined,
        accepted_loss=_accepted_loss(options),
        across=drawn if len(by_task) > 1 else frozenset(),
        scores=scores,
    )
    return Comparison(compared, "", merging, {one.label: one.checkpoint for one in models.values()})


def _on(task: str, models: Mapping[str, GivenModel]) -> dict[str, GivenModel]:
    """The models on a task, by the full name of the run."""
    return {
        str(RunName(task, run)): replace(one, checkpoint=one.checkpoint.with_metadata(task=task))
        for run, one in models.items()
    }


def _named(task: str, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(str(RunName(task, a)), str(RunName(task, b))) for a, b in pairs]


def _facts(measured: MeasuredModels, tables: Mapping[str, pd.DataFrame]) -> TaskFacts:
    splits = measured.splits
    chance, loss = (guessing_of(splits["test"], name) if splits else math.nan for name in ("accuracy", "loss"))
    return TaskFacts(chance, loss, drawable(tables, measured.pairs), bool(splits))


def _model(one: GivenModel) -> Model:
    return Model(one.label, one.file, shown(one.checkpoint.metadata.architecture or ""))


def _accepted_loss(options: AnalysesOptions) -> float:
    chosen = options.mistakes.replace if options.mistakes is not None else None
    return (chosen or ReplaceOptions()).margin


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


def _check_outputs(models: Sequence[GivenModel], side: int) -> None:
    """Raise UserError for a model whose outputs are no logits, or differ each time, or that takes no such images."""
    for model in {one.checkpoint.metadata.architecture: one for one in models}.values():
        try:
            check_outputs(model.checkpoint.build(), side)
        except UserError as error:
            raise UserError(f"{model.label}: {error}") from None
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            raise UserError(f"{model.label} takes no images of {side} pixels ({one_line(str(error))})") from error


def _kind(index: int) -> str:
    """Names of kinds of run, as the configuration of two files has them: a, b, c."""
    return chr(ord("a") + index) if index < 26 else f"m{index + 1}"


def _pairs(
    names: Sequence[str], labels: Sequence[str], pairs: Iterable[tuple[str, str]] | None
) -> list[tuple[str, str]]:
    runs = dict(zip(labels, names, strict=True))
    if pairs is None:
        every = list(combinations(names, 2))
        return every if len(names) <= ALL_PAIRS else every[: len(names) - 1]
    chosen = [tuple(pair) for pair in pairs]
    if not chosen or any(len(set(pair)) != 2 or len(pair) != 2 for pair in chosen):
        raise UserError(f"pairs: give pairs of two different labels, as {[(labels[0], labels[1])]}")
    if len({frozenset(pair) for pair in chosen}) < len(chosen):
        raise UserError("pairs: two models are paired twice: name each pair once")
    unknown = [label for pair in chosen for label in pair if label not in runs]
    if unknown:
        raise UserError(f"pairs: {unknown[0]} is no model; there are {', '.join(labels)}")
    return [(runs[a], runs[b]) for a, b in chosen]
