"""Feature reuse and source epochs: two short keys of the study, and the tasks and kinds of run that they stand for.

Sources: Figures 1, 3 and 7 of the main text; the controls are Raghu et al. 2019 (arXiv 1902.07208, statistics) and
Matsoukas et al. 2022 (arXiv 2203.01825, first modules).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from transferscope.experiment.names import VIEW_SIGN
from transferscope.experiment.options import BlockSize, FeatureReuseOptions, PictureOptions, block_sizes
from transferscope.experiment.study import RunKindOptions, Study

Series = Literal["blocks", "each", "control", "epoch"]
"""The thing that a run varies: the side of the blocks with one permutation for all images, the same with one for each
image, the part that is taken of the pre-trained model, or the epoch that it is taken from."""


@dataclass(frozen=True)
class Variant:
    """A kind of run that one of the keys stands for, on a view of a task's images.

    task: whose images they are. size: side of the blocks; the images' own side where they are whole. part: what is
    taken of the pre-trained model (`statistics`, `frozen`, or the last module). epoch: of the source run.
    """

    task: str
    view: str
    kind: str
    origin: str
    series: Series
    size: BlockSize | None = None
    part: str = ""
    epoch: int | None = None


def variants(study: Study) -> list[Variant]:
    """All kinds of run of both keys, in the order of the study."""
    return [*_reuse_variants(study), *_epoch_variants(study)]


def _reuse_variants(study: Study) -> Iterator[Variant]:
    options = study.feature_reuse
    if options is None:
        return
    for task in options.tasks:
        sizes = _sizes(study, task, options)
        for series, chosen in (("blocks", sizes), ("each", options.each_image)):
            for size in chosen:
                view = f"{task}{VIEW_SIGN}{series}_{size}"
                for kind in options.kinds:
                    yield Variant(task, view, f"{kind}_shuffled", kind, series, size)  # type: ignore[arg-type]
        start = _pretrained_kind(study, options)
        if start is None:
            continue
        for part in (*options.controls, *options.first_modules):
            name = re.sub(r"[^a-z0-9]+", "_", part.lower()).strip("_")
            yield Variant(task, f"{task}{VIEW_SIGN}controls", f"{start}_{name}", start, "control", None, part)


def _sizes(study: Study, task: str, options: FeatureReuseOptions) -> tuple[BlockSize, ...]:
    """The sizes that shuffle a task's images; the whole image is no shuffle."""
    side = _pictures(study, task).seen_size
    wanted = (*block_sizes(side), "values") if options.block_sizes == "all" else options.block_sizes
    sizes: list[BlockSize] = [size for size in wanted if size != side]  # type: ignore[misc]
    return (*sizes, side) if _augmented(study, task, options.kinds) else tuple(sizes)


def _augmented(study: Study, task: str, kinds: tuple[str, ...]) -> bool:
    """True where the runs of these kinds on a task see augmented images."""
    for kind in (study.runs[kind] for kind in kinds if kind in study.runs):
        overrides = (study.training, study.tasks[task].training, kind.training, kind.training_on.get(task, {}))
        given = [override["augmentation"] for override in overrides if "augmentation" in override]
        if given and given[-1]:
            return True
    return False


def _pretrained_kind(study: Study, options: FeatureReuseOptions) -> str | None:
    kinds = (kind for kind in options.kinds if kind in study.runs)
    return next((kind for kind in kinds if study.runs[kind].initialisation == "pretrained"), None)


def _scratch_kind(study: Study) -> RunKindOptions | None:
    """The first kind of feature reuse that starts from random weights, if there is one."""
    kinds = study.feature_reuse.kinds if study.feature_reuse else ()
    return next((study.runs[kind] for kind in kinds if study.runs[kind].initialisation == "random"), None)


def _epoch_variants(study: Study) -> Iterator[Variant]:
    options = study.source_epochs
    for task in options.tasks if options else ():
        for epoch in options.epochs if options else ():
            assert options is not None
            kind = f"{options.kind}_from_{epoch}"
            yield Variant(task, f"{task}{VIEW_SIGN}source_epochs", kind, options.kind, "epoch", epoch=epoch)


def expanded(study: Study) -> Study:
    """The study with a view for each way in which images are shown, and the kinds of run on them.

    An expanded study stays as it is. `faults` comes first.
    """
    every = variants(study)
    if not every:
        return study
    tasks, runs = dict(study.tasks), dict(study.runs)
    views: dict[str, dict[str, str]] = {}
    for one in every:
        views.setdefault(one.kind, {})[one.view] = one.task
        tasks[one.view] = _view(study, one)
    for one in every:
        runs[one.kind] = _kind(study, one, views[one.kind])
    return study.model_copy(update={"tasks": tasks, "runs": runs})


def _view(study: Study, variant: Variant) -> Any:
    pictures = _pictures(study, variant.task)
    if variant.size is not None:
        assert study.feature_reuse is not None
        each = variant.series == "each"
        shuffle = {"block_size": variant.size, "seed": study.feature_reuse.seed} | ({"per_image": True} if each else {})
        pictures = type(pictures).model_validate(pictures.model_dump() | {"shuffle": shuffle})
    base = study.tasks[variant.task]
    values = {"union": (variant.task,), "pictures": pictures, "training": base.training}
    if base.select_best_on != "test":
        values["select_best_on"] = base.select_best_on
    return type(base)(**values)


def _kind(study: Study, variant: Variant, views: dict[str, str]) -> RunKindOptions:
    """The kind that a variant is of, on views of tasks; shuffled images are not augmented.

    Statistics and first modules are trained as the kind from scratch is, since most of their weights are random: the
    small learning rate of fine-tuning would hide what they gain.
    """
    origin = study.runs[variant.origin]
    options = study.feature_reuse if variant.series != "epoch" else study.source_epochs
    assert options is not None
    values: dict[str, Any] = {key: getattr(origin, key) for key in origin.model_fields_set - {"compared"}}
    plain: dict[str, Any] = {"augmentation": {}} if variant.series in ("blocks", "each") else {}
    trained = _scratch_kind(study) if variant.part not in ("", "frozen") else None
    trained = trained or origin
    trainings = {view: {**trained.training_on.get(task, {}), **plain} for view, task in views.items()}
    values |= {"tasks": tuple(views), "replicas": options.replicas or origin.replicas, "training_on": trainings}
    values |= {"training": trained.training}
    if variant.part == "statistics":
        values |= {"transfer": "statistics", "label": f"{origin.label} statistics"}
    elif variant.part == "frozen":
        values |= {"training": {**trained.training, "frozen": "features"}, "label": f"{origin.label} frozen"}
    elif variant.part:
        values |= {"transfer_until": variant.part, "label": f"{origin.label} up to {variant.part}"}
    elif variant.epoch is not None:
        values |= {"pretrained_epoch": variant.epoch, "label": f"{origin.label} from epoch {variant.epoch}"}
    return type(origin)(**values)


def faults(study: Study) -> Iterator[str]:
    """List the faults of the two keys: names, sizes, and tasks that a kind lacks."""
    for key in ("feature_reuse", "source_epochs"):
        options = getattr(study, key)
        if options is None:
            continue
        kinds = {"kinds": options.kinds} if key == "feature_reuse" else {"kind": (options.kind,)}
        ((name, named),) = kinds.items()
        yield from (f"{key}.tasks: {_unknown(task, study.tasks)}" for task in options.tasks if task not in study.tasks)
        yield from (f"{key}.{name}: {_unknown(kind, study.runs)}" for kind in named if kind not in study.runs)
        yield from _faults_of_parts(study, key, options.tasks, named)
    if study.source_epochs and study.source_epochs.kind in study.runs:
        yield from _faults_of_source(study, study.source_epochs.kind)
    if study.feature_reuse:
        yield from _faults_of_sizes(study, study.feature_reuse)


def _faults_of_source(study: Study, kind: str) -> Iterator[str]:
    """A start that has no earlier epochs: random weights, or a file."""
    if study.runs[kind].initialisation != "pretrained":
        yield f"source_epochs.kind: '{kind}' does not start from a pre-trained run"
        return
    source = str(study.runs[kind].pretrained)
    trained = {
        f"{task}.{name}_{replica}"
        for name, options in study.runs.items()
        if options.checkpoint is None
        for task in options.tasks
        for replica in range(1, options.replicas + 1)
    }
    if source not in trained:
        yield (
            f"source_epochs.kind: '{kind}' starts from {source}, a checkpoint file, which holds one epoch: "
            "name a kind whose pretrained is a run that the study trains"
        )


def _faults_of_parts(study: Study, key: str, tasks: tuple[str, ...], kinds: tuple[str, ...]) -> Iterator[str]:
    for task in tasks:
        if task in study.tasks and study.tasks[task].union:
            yield f"{key}.tasks: '{task}' is a union; name the single tasks"
        for kind in kinds:
            if task in study.tasks and kind in study.runs and task not in study.runs[kind].tasks:
                yield f"{key}: runs.{kind}.tasks lacks {task}, whose whole images the others are compared with: add it"


def _faults_of_sizes(study: Study, options: FeatureReuseOptions) -> Iterator[str]:
    for task in options.tasks if {*options.tasks} <= {*study.tasks} else ():
        side = _pictures(study, task).seen_size
        sizes = options.block_sizes if options.block_sizes != "all" else ()
        for size in (*sizes, *options.each_image):
            if size != "values" and side % size:
                known = ", ".join(map(str, block_sizes(side)))
                yield (
                    f"feature_reuse.block_sizes: {size} does not tile the {side} pixels of {task}: "
                    f"give {known}, or values"
                )
    if (options.controls or options.first_modules) and _pretrained_kind(study, options) is None:
        yield "feature_reuse.kinds: the controls need a kind with initialisation: pretrained, and there is none"


def _unknown(name: str, known: Any) -> str:
    return f"'{name}' is unknown; allowed: {', '.join(sorted(known))}"


def _pictures(study: Study, task: str) -> PictureOptions:
    return study.tasks[task].pictures or study.pictures
