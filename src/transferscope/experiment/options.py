"""Typed options of the whole study: what may be written in the parameters, with its limits and defaults.

Knows neither torch nor Kedro, so that the plan is validated before anything heavy is imported.
Unknown keys are refused everywhere.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from transferscope.experiment.names import CheckpointName

PositiveInt = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]

# Counts have limits far above any study, so that a mistyped one is refused before it takes memory without end.
MAX_EPOCHS = 100_000
MAX_POINTS = 10_000
"""Points of a line, or values in any list of them."""
MAX_SIDE = 1_000
"""Points of each side of a plane."""
MAX_DRAWS = 100_000
"""Random points, rays and draws."""
MAX_RESAMPLES = 100_000
MAX_IMAGES = 100_000_000
MAX_PIXELS = 8_192
"""Side of an image."""
MAX_BATCH = 1_000_000
MAX_PROCESSES = 4_096
"""Processes, threads, machines."""
MAX_SHOWN = 1_000
"""Classes, rows and pairs in one figure."""

Epochs = Annotated[int, Field(gt=0, le=MAX_EPOCHS)]
Epoch = Annotated[int, Field(ge=0, le=MAX_EPOCHS)]
Points = Annotated[int, Field(ge=2, le=MAX_POINTS)]
Draws = Annotated[int, Field(gt=0, le=MAX_DRAWS)]
Resamples = Annotated[int, Field(gt=0, le=MAX_RESAMPLES)]
Images = Annotated[int, Field(gt=0, le=MAX_IMAGES)]
Pixels = Annotated[int, Field(gt=0, le=MAX_PIXELS)]
Processes = Annotated[int, Field(gt=0, le=MAX_PROCESSES)]
Shown = Annotated[int, Field(gt=0, le=MAX_SHOWN)]
Precision = Literal["float32", "bfloat16", "auto"]
"""Of analyses. auto: bfloat16 on GPUs that have it, else float32."""
TrainingPrecision = Literal["float32", "bfloat16", "float16", "auto"]
Transfer = Literal["weights", "statistics"]


def _path(text: str) -> str:
    if not text.strip():
        raise ValueError("the path is empty")
    if "\0" in text:
        raise ValueError("a path holds no NUL character")
    return text


PathText = Annotated[str, AfterValidator(_path)]
"""The path of a file or folder; relative ones begin at the project's folder."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Options(BaseModel):
    """Base of all options: immutable, unknown keys refused, as are numbers that are infinite or not a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def keys(cls) -> list[str]:
        """Keys that a user may write."""
        return list(cls.model_fields)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false (in YAML also yes, no, on, off) where pydantic would read 1 and 0."""
        inside = value if isinstance(value, list | tuple) else (value,)
        if any(isinstance(part, bool) for part in inside) and not _takes_truth(
            cls.model_fields[str(info.field_name)].annotation
        ):
            raise ValueError("true and false (in YAML also yes, no, on and off) are no value here")
        return value


def _takes_truth(annotation: Any) -> bool:
    """True if true and false are values of an annotation such as `bool | None`."""
    return annotation in (bool, Any) or any(map(_takes_truth, getattr(annotation, "__args__", ())))


class ShuffleOptions(Options):
    """One permutation of all images of a task, train and test alike (feature reuse, Figure 3 of the main text)."""

    block_size: Pixels | Literal["values"]
    """Side in pixels of the blocks that move as wholes (1: pixels), or "values": all values, across channels."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    per_image: bool = False
    """A permutation of its own for each image, which follows from its pixels: no position means anything."""


class PictureOptions(Options):
    """Size and style of stored images, and the part of them that the network sees."""

    store_size: Pixels = 32
    """Side in pixels of the stored square, at most 8,192.

    In the study's `pictures` also auto: the median short side of the images, and at most 224."""
    crop_size: Pixels | None = None
    """Side that the network sees (centre crop in evaluation); None: all of the stored square."""
    style: Literal["photo", "chest"] = "photo"
    """`photo`: RGB, short side to store_size, centre square. `chest`: equalised, grey, padded with 128, blurred."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    """Per channel, or one for all, in units of [0, 1]."""
    shuffle: ShuffleOptions | None = None
    """The last thing that happens to an image, after crop and normalisation; None: nothing is shuffled."""

    @property
    def seen_size(self) -> int:
        """Side of what the network sees."""
        return self.crop_size or self.store_size

    @model_validator(mode="after")
    def _crop_fits(self) -> PictureOptions:
        if self.crop_size is not None and self.crop_size > self.store_size:
            raise ValueError(f"crop_size {self.crop_size} is larger than store_size {self.store_size}")
        return self

    @model_validator(mode="after")
    def _normalises(self) -> PictureOptions:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, 3):
                raise ValueError(f"{name}: give one number for each of red, green and blue, or a single one")
            if max(values) > 1:
                raise ValueError(f"{name}: is in units of [0, 1]: divide what is in units of [0, 255] by 255")
        if min(self.std) <= 0 or min(self.mean) < 0:
            raise ValueError("std must be greater than 0, and mean not below 0")
        return self

    @model_validator(mode="after")
    def _blocks_tile(self) -> PictureOptions:
        block = self.shuffle.block_size if self.shuffle else "values"
        if block != "values" and self.seen_size % block:
            sizes = ", ".join(map(str, block_sizes(self.seen_size)))
            raise ValueError(f"shuffle.block_size {block} does not tile {self.seen_size} pixels: give one of {sizes}")
        return self


def block_sizes(side: int) -> tuple[int, ...]:
    """All sides of square blocks that tile a square of `side` pixels, the square itself last."""
    return tuple(size for size in range(1, side + 1) if side % size == 0)


class AugmentationOptions(Options):
    """Augmentation of a training batch; all off by default."""

    flip: bool = False
    """Mirror each example left to right with probability 1/2."""
    random_resized_crop: tuple[float, float] | None = None
    """Range of the area that is cut out and resized (ImageNet practice: [0.08, 1])."""
    rotate: Annotated[float, Field(ge=0)] = 0.0
    """Largest rotation in degrees."""
    shift: Fraction = 0.0
    """Largest shift as a fraction of the side."""
    scale: tuple[float, float] | None = None
    """Range of an isotropic zoom."""
    fill: Annotated[int, Field(ge=0, le=255)] = 128
    """Grey value of what an affine map uncovers."""
    mixup: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of the Beta distribution of mixup; 0: off."""

    @property
    def moving(self) -> list[str]:
        """The options in use that move pixels."""
        return [key for key in ("flip", "random_resized_crop", "rotate", "shift", "scale") if getattr(self, key)]


class ModelOptions(Options):
    """An architecture by name and its keyword arguments."""

    name: str = "fixup_resnet_small"
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("options")
    @classmethod
    def _not_what_follows(cls, options: dict[str, Any]) -> dict[str, Any]:
        for option, source in (("num_classes", "the classes of the images"), ("seed", "the study's seed")):
            if option in options:
                raise ValueError(f"{option} is not taken: it follows from {source}")
        return options


class OptimizerOptions(Options):
    """An optimizer of torch by name, `{name: AdamW, betas: [0.9, 0.98]}`; its own options stand beside the name."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    name: Annotated[str, Field(pattern=r"^[A-Z]\w*$")]
    """That of the class in `torch.optim`."""

    @property
    def options(self) -> dict[str, Any]:
        """The optimizer's own options."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _not_what_the_training_says(self) -> OptimizerOptions:
        for option in ("lr", "params", "weight_decay"):
            if option in self.options:
                raise ValueError(f"{option} does not stand here: training.lr and training.weight_decay are for all")
        return self


class TrainingOptions(Options):
    """One training: SGD with momentum, as in appendix A, or another optimizer of torch."""

    epochs: Epochs = 15
    """Passes over the training images, at most 100,000."""
    batch_size: Annotated[int, Field(gt=0, le=MAX_BATCH)] = 32
    """Images of an optimizer step, over all processes; at most 1,000,000."""
    lr: Annotated[float, Field(gt=0)] = 0.05
    scale_lr_by_batch: bool = False
    """Multiply lr by batch_size / 256, as the authors' code does."""
    optimizer: OptimizerOptions | None = None
    """Another one of torch's than SGD, e.g. {name: AdamW, betas: [0.9, 0.98]}; the schedule of lr is the same."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of SGD."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Of SGD, and of any other optimizer that has one."""
    scalar_lr_factor: Annotated[float, Field(gt=0)] = 0.1
    """Factor on the learning rate of Fixup's scalar biases and scales."""
    milestones: tuple[Epochs, ...] = ()
    """Epochs after which the learning rate is multiplied by decay_factor."""
    decay_factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    warmup_fraction: Fraction = 0.0
    """Part of all optimizer steps over which the learning rate rises linearly from 0."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Largest global l2 norm of the gradient; None: no clipping."""
    label_smoothing: Fraction = 0.0
    frozen: Literal["features"] | tuple[str, ...] = ()
    """Parts that are not trained: features (all but the classifier), or modules, starts of tensors' names, globs."""
    augmentation: AugmentationOptions = AugmentationOptions()
    evaluate_every: Epochs = 1
    """Epochs between evaluations of train and test."""
    evaluate_train_on: Images | None = None
    """Training images, drawn once for each task, on which the train metrics of an epoch are measured; None: all.

    The test images are always all measured, since they choose the best epoch."""
    keep_epochs: Literal["all"] | tuple[Epoch, ...] = ()
    """Epochs whose weights are kept beside 0, best and final."""
    precision: TrainingPrecision = "float32"
    """Of matrix products and convolutions; weights stay float32. In float16 the loss is scaled, and an optimizer step
    whose gradients overflow is left out. auto: bfloat16 on GPUs that have it, float16 on others, float32 on the CPU."""
    channels_last: bool = False
    compile: bool = False
    deterministic: bool = True
    num_processes: Processes | Literal["auto"] = 1
    """Processes on each machine, a GPU each (or a core); auto: one for each GPU that the runner grants, one on the CPU.

    Where there are fewer GPUs or cores it is what there is, with a note: the weights do not depend on it but for
    rounding, and fingerprints do not count it. At most 4,096."""
    num_nodes: Processes = 1
    """Machines that train one run together, each by the same `kedro run`; the data lie on storage that all see."""
    rendezvous: str | None = None
    """Meeting place of these machines: `host:port` of one of them."""
    max_restarts: Annotated[int, Field(ge=0, le=1000)] = 0
    """Restarts of workers that died, each from the last snapshot."""
    snapshot_seconds: Annotated[float, Field(ge=0)] = 300.0
    """Seconds between snapshots of a training: what a kill loses at most, beside the epoch or the 16 optimizer steps
    that end meanwhile. The weights do not depend on it."""
    tensorboard: bool = False
    """Write every row of the history as TensorBoard events, too: `tensorboard --logdir <the models folder>`."""

    @model_validator(mode="after")
    def _machines_have_a_place_to_meet(self) -> TrainingOptions:
        if (self.num_nodes > 1) != (self.rendezvous is not None):
            raise ValueError("num_nodes above 1 and rendezvous (host:port of one of the machines) go together")
        return self


NOT_IN_WEIGHTS = {"num_processes", "num_nodes", "rendezvous", "max_restarts", "snapshot_seconds", "tensorboard"}
"""Options of a training that do not decide its weights."""


KindPair = tuple[str, str]
"""Two kinds of run by name, e.g. ("pt", "rit")."""


Pairing = Literal["first", "consecutive", "all"]
"""Pairs of runs of one kind: each with the first one, each with the next one, or all."""

GalleryClasses = Shown | tuple[str, ...]
"""Names of classes, or how many (at most 1,000): those with the most uncommon mistakes."""


GroupColumn = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
"""A column of the example list in lower case, e.g. sex, view."""


class ReplaceOptions(Options):
    """Options of the question whether one model can replace another: flips, agreement, calibration."""

    groups: tuple[GroupColumn, ...] | dict[str, tuple[GroupColumn, ...]] = ()
    """Columns of the example list by whose values flips are counted, of all tasks, or of some by `{task: [...]}`.

    CheXpert: sex, view, projection, support_devices and all other columns of the CSV; a union: domain, and what its
    parts have."""
    margin: Fraction = 0.02
    """The largest loss of accuracy with which the second model still replaces the first."""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """The probability above which a finding is predicted, where an image has several labels."""
    bins: Annotated[int, Field(ge=2, le=MAX_SHOWN)] = 10
    """Bins of equal width of the reliability diagram and the calibration error."""
    gallery: Shown = 4
    """Images of either kind of flip in the gallery, those on which the wrong model is surest."""

    def groups_of(self, task: str) -> tuple[str, ...]:
        """The columns by which a task's examples are grouped."""
        return self.groups.get(task, ()) if isinstance(self.groups, dict) else self.groups


class LookOptions(Options):
    """Examples come in growing batches until they decide; one looks after each."""

    first: Annotated[int, Field(ge=16)] = 32
    """Examples after which one looks for the first time."""
    growth: Annotated[float, Field(gt=1, le=10)] = 1.5
    """Factor from the examples of one look to those of the next."""


class MistakesOptions(Options):
    """Common and uncommon mistakes (appendix B.2)."""

    pairs: tuple[KindPair, ...] = (("pt", "pt"), ("pt", "rit"), ("rit", "rit"))
    epoch: Literal["best", "final"] = "final"
    gallery_classes: GalleryClasses | dict[str, GalleryClasses] = 5
    """Classes or findings in the gallery of uncommon mistakes; of one task by `{task: ...}`, where others have 5."""
    gallery_rows_of: Shown = 1
    """Images per class and model in the gallery."""
    bootstrap: Resamples = 1000
    """Samples from which intervals are made, at most 100,000."""
    replace: ReplaceOptions | None = ReplaceOptions()
    """The question whether the second run of a pair can replace the first; None: left out."""
    until_decided: LookOptions | None = None
    """Predict as few test images as it takes to answer that of every pair, in an order drawn once; None: all."""

    @model_validator(mode="after")
    def _decides_something(self) -> MistakesOptions:
        if self.until_decided and not self.replace:
            raise ValueError("until_decided stops when replace is answered: give replace as well, for example {}")
        return self

    def gallery_of(self, task: str) -> GalleryClasses:
        """The classes in a task's gallery, or how many."""
        return self.gallery_classes.get(task, 5) if isinstance(self.gallery_classes, dict) else self.gallery_classes


class SimilarityOptions(Options):
    """Feature similarity and distances (appendix B.3)."""

    pairs: tuple[KindPair, ...] = (("pt", "p"), ("pt", "pt"), ("pt", "rit"), ("rit", "rit"), ("rit", "rit_same_init"))
    epoch: Literal["best", "final"] = "final"
    features: Annotated[tuple[Literal["pooled", "flattened"], ...], Field(min_length=1)] = ("pooled", "flattened")
    """Averaged over pixels, or every value; the first one also makes the heat map."""
    layers: tuple[str, ...] | None = None
    """Paths of submodules, e.g. layer1.0; None: conv1 and the end of each stage, or five blocks of other models."""
    estimators: Annotated[tuple[Literal["biased", "debiased", "minibatch"], ...], Field(min_length=1)] = (
        "debiased",
        "biased",
        "minibatch",
    )
    """Of pooled features; flattened ones are always compared by `minibatch`, whose memory does not grow with them."""
    heat_map_pairs: Annotated[int, Field(ge=0, le=MAX_SHOWN)] = 1
    """Pairs of each kind whose blocks are all compared with each other (`minibatch`); 0: no heat map."""
    max_examples: PositiveInt | None = 512
    """Examples of the test split; None: all."""
    batch_size: Annotated[int, Field(ge=4, le=MAX_BATCH)] = 64
    """Images in a batch."""

    def feature_tables(self) -> list[str]:
        """Tables that come from the features: CKA, and as chosen its heat map and other measures beside it."""
        exact = "pooled" in self.features and set(self.estimators) != {"minibatch"}
        return ["cka", *(["cka_layers"] if self.heat_map_pairs else []), *(["second_opinion"] if exact else [])]


class GridOptions(Options):
    """Evenly spaced points from `start` to `stop`, both included, or any list of points."""

    start: float = 0.0
    stop: float = 1.0
    points: Points = 11
    """At most 10,000."""
    at: Annotated[tuple[float, ...], Field(min_length=1, max_length=MAX_POINTS)] | None = None
    """These points instead of even ones."""

    def values(self) -> list[float]:
        if self.at is not None:
            return list(self.at)
        step = (self.stop - self.start) / (self.points - 1)
        return [round(self.start + step * index, 10) for index in range(self.points)]


class ExtrapolationOptions(GridOptions):
    """Points on the line through two models, beyond them (Figure 18)."""

    start: float = -1.0
    stop: float = 2.0
    points: Points = 13

    def outside(self) -> list[float]:
        """The points that do not lie between the models."""
        return [alpha for alpha in self.values() if not 0 <= alpha <= 1]


class CriticalityOptions(Options):
    """Module criticality and rewinding (appendix B.9, Figure 30)."""

    runs: tuple[str, ...] = ("pt_1", "rit_1")
    tasks: tuple[str, ...] | None = None
    """Tasks that are analysed; None: every task that has the runs."""
    positions: GridOptions = GridOptions(points=5)
    sigmas: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(max_length=MAX_SHOWN)] = (0.0, 0.01, 0.03, 0.1)
    draws: Draws = 2
    """Of the noise at each place, at most 100,000."""
    paths: tuple[Literal["direct", "optimization"], ...] = ("direct", "optimization")
    ends: tuple[Literal["best", "final"], ...] = ("final",)
    max_examples: PositiveInt | None = 256
    max_draws: Draws = 32
    """Of the noise at places that decide mu, where `draws` leave it open; at most 100,000."""
    epsilon_share: Annotated[float, Field(gt=0)] = 0.1
    """Largest rise of the train loss, as a share of what was learned.

    Learned is the loss of a model that knows the frequencies of the classes alone, minus that of the unperturbed model,
    on the same examples; so one number means the same for accuracies and findings, and for all kinds of run."""
    rewind_epochs: tuple[Epoch, ...] = (0,)
    """Saved epochs to which each module is set back."""
    pages: bool = True
    """A PDF with the heat maps of every module of each run; half a second per module."""


CheckpointOfTask = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*(@(best|final|\d+))?$")]
"""A run of a task, by its final epoch or by the one after the sign: pt_1, pt_1@best, pt_1@0."""


class PlaneOptions(Options):
    """Metrics on the plane through three models of a task (beyond the paper)."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    """Names the table and the figure."""
    task: str
    checkpoints: tuple[CheckpointOfTask, CheckpointOfTask, CheckpointOfTask]
    """P has a classifier of another shape, so it takes part as epoch 0 of a P-T: P with the P-T's new classifier."""
    points: Annotated[int, Field(ge=2, le=MAX_SIDE)] = 15
    """Points of each side of the grid; at most 1,000."""
    margin: Annotated[float, Field(ge=0, le=100)] = 0.3
    """Extent of the grid beyond the three models, as a fraction of theirs."""
    max_examples: PositiveInt | None = 500
    """Largest number of test examples; None: all."""

    @property
    def names(self) -> list[CheckpointName]:
        """The three checkpoints with task and epoch."""
        return [CheckpointName.parse(checkpoint, self.task) for checkpoint in self.checkpoints]


class BasinOptions(Options):
    """(epsilon, delta) of the convex hull of all runs of a kind (Definition 3.1)."""

    tasks: tuple[str, ...] | None = None
    """Tasks that are analysed; None: every task that has two runs of a kind."""
    kinds: tuple[str, ...] = ("pt", "rit")
    epoch: Literal["best", "final"] = "final"
    points: Annotated[int, Field(ge=2, le=MAX_DRAWS)] = 32
    """Points of the hull, at most 100,000: of two runs an even grid between them, of more stratified draws."""
    rays: Draws = 32
    """Rays that leave it, at most 100,000."""
    deltas: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(max_length=MAX_SHOWN)] = (0.25, 0.5, 1.0)
    """Lengths to begin with, beside 0, as fractions of the largest distance between two of the runs.

    Where none is enough the largest is doubled up to 6 times; the smallest that is enough is narrowed down."""
    resamples: Annotated[int, Field(ge=0, le=MAX_RESAMPLES)] = 300
    """Bootstrap resamples of the test examples behind the intervals, at most 100,000; 0: over the draws alone."""
    max_examples: PositiveInt | None = 500
    """Largest number of test examples; None: all."""


class CrossDomainOptions(Options):
    """Interpolation between models of two tasks, measured on one (appendix B.7, B.8)."""

    figure: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    """Names the figure: that of the paper, as in figure_19, or a name of one's own."""
    evaluated_on: str
    tasks: tuple[str, str]


BestOrFinal = Literal["best", "final"]


BARRIER_MARGIN = 0.05
"""A barrier is one if it costs more than this part of what the ends have learned, and none if it costs less."""


class UntilDecidedOptions(LookOptions):
    """Lines are measured on as few examples as it takes to decide whether there is a barrier.

    The examples come in growing batches; after each an interval that holds at every look, on accuracy (AUC where
    images have several labels), decides or asks for more. Wrong decisions are at most 5 %. A line that decides nothing
    takes all examples.
    """

    margin: Annotated[float, Field(gt=0, lt=1)] = BARRIER_MARGIN
    """Height of a barrier, as a part of what the ends have learned, above which it is one; that of the claims."""


Way = Literal[
    "straight",
    "tempered",
    "rescaled",
    "aligned",
    "aligned_rescaled",
    "aligned_repaired",
    "curve",
    "aligned_curve",
    "modules",
    "aligned_modules",
]


class CurveOptions(Options):
    """Training of the bend of a quadratic Bezier curve between two models."""

    epochs: Annotated[int, Field(gt=0, le=10_000)] = 10
    batch_size: Annotated[int, Field(ge=2, le=MAX_BATCH)] = 64
    lr: Annotated[float, Field(gt=0)] = 0.2
    """Peak learning rate of SGD with momentum .9, which falls linearly to 0 after a warm-up of a tenth."""


class ConnectionOptions(Options):
    """Ways between two models of one task other than the straight line: is their barrier real?"""

    pairs: tuple[KindPair, ...] | None = None
    """Two kinds of run each; None: those of the lines."""
    tasks: tuple[str, ...] | None = None
    """Tasks that are analysed; None: every task that has a pair."""
    pairs_of_each: PositiveInt = 1
    """Pairs of each two kinds of run on a task, the first ones; of runs and their copies at every epoch of a split."""
    ways: Annotated[tuple[Way, ...], Field(min_length=1)] = (
        "straight",
        "tempered",
        "rescaled",
        "aligned",
        "aligned_rescaled",
        "aligned_repaired",
        "curve",
        "aligned_curve",
        "modules",
    )
    """`straight` is always measured, since every other way is compared with it."""
    alphas: GridOptions = GridOptions(points=5)
    matching: Literal["weights", "activations"] = "weights"
    """Matching of channels: by weights, without data, or by correlations on training images."""
    max_examples: PositiveInt | None = None
    """Largest number of examples of each part (train, test) that a point is measured on; None: all."""
    statistics: Annotated[int, Field(ge=2)] = 500
    """Largest number of training images from which means, deviations and correlations of channels are taken."""
    curve: CurveOptions = CurveOptions()

    @model_validator(mode="after")
    def _alphas_between_the_ends(self) -> ConnectionOptions:
        values = self.alphas.values()
        if not {0.0, 0.5, 1.0} <= set(values) or not all(0 <= alpha <= 1 for alpha in values):
            raise ValueError("alphas: 0, 0.5 and 1 must be among them and all others between 0 and 1")
        return self


class LandscapeOptions(Options):
    """Interpolation, barriers, criticality (appendix B.4 to B.9)."""

    pairs: tuple[KindPair, ...] = (("pt", "pt"), ("pt", "rit"), ("rit", "rit"), ("rit", "rit_same_init"))
    ends: Annotated[tuple[BestOrFinal | tuple[BestOrFinal, BestOrFinal], ...], Field(min_length=1)] = ("final",)
    """Epochs of the two models: of both, or of the first and the second, as in [best, final, [best, final]]."""
    alphas: GridOptions = GridOptions()
    alphas_on: dict[str, GridOptions] = Field(default_factory=dict)
    """Other alphas for lines that are measured on single tasks."""
    extrapolation: ExtrapolationOptions | None = ExtrapolationOptions()
    max_examples: PositiveInt | None = None
    """Largest number of examples of each part (train, test) that a point is measured on; None: all."""
    resamples: Annotated[int, Field(ge=0, le=MAX_RESAMPLES)] = 300
    """Bootstrap resamples of the examples behind the interval of every barrier, at most 100,000; 0: no intervals."""
    compile: bool = False
    """Compile the networks that lines measure, for GPUs: losses differ by rounding. It takes a minute for each node."""
    until_decided: UntilDecidedOptions | None = None
    """With {} lines stop as soon as their barriers are decided; None: all examples, as for the paper's numbers."""
    cross_domain: tuple[CrossDomainOptions, ...] = ()
    planes: tuple[PlaneOptions, ...] = ()
    basin: BasinOptions | None = BasinOptions()
    criticality: CriticalityOptions | None = CriticalityOptions()
    connection: ConnectionOptions | None = None

    def end_points(self) -> list[tuple[BestOrFinal, BestOrFinal]]:
        """Epochs of the first and the second model of a line."""
        return [(end, end) if isinstance(end, str) else end for end in self.ends]

    def alphas_for(self, task: str) -> list[float]:
        """Points between two models, measured on a task."""
        return self.alphas_on.get(task, self.alphas).values()

    @model_validator(mode="after")
    def _alphas_hold_the_ends(self) -> LandscapeOptions:
        for name, grid in {"alphas": self.alphas, **self.alphas_on}.items():
            if not {0.0, 1.0} <= set(grid.values()):
                raise ValueError(
                    f"{name}: 0 and 1 must be among the alphas, for a barrier is measured against both ends"
                )
        return self


class SpectrumOptions(Options):
    """Singular values of every layer (appendix C)."""

    kinds: tuple[str, ...] = ("pt", "rit", "p")
    epochs: tuple[Literal["best", "final"] | Epoch, ...] = (0, "final")
    """Epochs whose singular values are kept. Those of 0 (untrained) and of the last one are drawn."""
    along_training: bool = True
    """True if norms, ranks and counts are tabled for every saved epoch, not only for `epochs`."""
    honour_stride: bool = True
    """False reproduces the published method, which treats a strided convolution as if its stride were 1."""
    thresholds: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(max_length=MAX_SHOWN)] = (
        0.01,
        0.03,
        0.1,
        0.3,
        1.0,
    )
    """Values below which singular values are counted."""
    bootstrap: Resamples = 1000
    """Resamples (at most 100,000) of the interval of "RI-T has more small singular values"."""
    padding: Literal["circular", "network"] = "circular"
    """`network` also measures the maps that networks compute, with their own padding, beside the paper's circular ones:
    `<task>.network_spectrum.table` has both, at the last epoch. Figures 31 to 33 stay circular."""
    network_tasks: tuple[str, ...] | None = None
    """Tasks measured with the network's own padding; None: all."""
    vector_layers: tuple[str, ...] = ()
    """2-d convolutions, by dotted path, whose singular vectors are drawn (the inputs that they stretch most, with the
    network's own padding) for the tasks in `network_tasks`."""
    input_size: Pixels | None = None
    """Side in pixels of the images that layers are measured at; None: what the network sees of the task's images."""
    layer_pages: tuple[str, ...] | None = None
    """Tasks that get a PDF with the spectrum of every layer; None: all. The paper has it for CheXpert and clipart."""


MergeMethod = Literal[
    "uniform",
    "greedy",
    "wise_ft",
    "task_arithmetic",
    "ties",
    "fisher",
    "regmean",
    "aligned",
    "aligned_rescaled",
]
MERGE_METHODS: tuple[MergeMethod, ...] = get_args(MergeMethod)
FROM_PARENT: tuple[MergeMethod, ...] = ("wise_ft", "task_arithmetic", "ties")
"""Methods that need the weights that the candidates started from."""


def _run_or_kind(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*", text):
        raise ValueError("give a run, as real.pt_1, or a kind of run on a task, as real.pt")
    return text


RunOrKind = Annotated[str, AfterValidator(_run_or_kind)]
"""A run by its full name, real.pt_1, or a kind of run on a task, real.pt."""


class MergeOptions(Options):
    """Models that are merged into one, and what the result is held against."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    """Names the results."""
    candidates: Annotated[tuple[RunOrKind, ...], Field(min_length=1)]
    """Runs as `real.pt_1`, or kinds of run on a task as `real.pt`: then there is a merge for each replica, of the runs
    of that number. One alone can only be brought nearer to its parent."""
    parent: RunOrKind | Literal["shared"] | None = "shared"
    """The run that the candidates started from. shared: that of all of them, where they have one in common."""
    union: RunOrKind | None = None
    """A run, or kind, that was trained on the images of all candidates at once; the merge is compared with it."""
    evaluated_on: tuple[str, ...] | None = None
    """Tasks on whose images the merge is judged; None: those of the candidates."""
    methods: Annotated[tuple[MergeMethod, ...], Field(min_length=1)] | None = None
    """None: those of `analyses.merging`."""

    @model_validator(mode="after")
    def _candidates_differ(self) -> MergeOptions:
        if len(set(self.candidates)) < len(self.candidates):
            raise ValueError("candidates: one is there twice")
        return self


class MergingOptions(Options):
    """Merges of several models into one: does averaging pay?"""

    merges: Annotated[tuple[MergeOptions, ...], Field(max_length=MAX_SHOWN)] = ()
    """At most 1,000 names."""
    methods: Annotated[tuple[MergeMethod, ...], Field(min_length=1)] | None = None
    """None: all that apply; those that start from the parent need one."""
    epoch: BestOrFinal = "final"
    choice: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Part of the test images on which settings and methods are chosen; the others judge. Where the task has validation
    images they choose, and all test images judge."""
    alphas: Annotated[tuple[Fraction, ...], Field(min_length=1, max_length=MAX_SHOWN)] = (0.25, 0.5, 0.75)
    """Places between parent (0) and candidates (1) that WiSE-FT chooses from."""
    scales: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1, max_length=MAX_SHOWN)] = (
        0.3,
        0.5,
        1.0,
    )
    """Factors on sums of task vectors that task arithmetic and TIES choose from."""
    density: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Part of each task vector that TIES keeps."""
    non_diagonal: Fraction = 0.9
    """Factor on what is not on the diagonal of RegMean's Gram matrices."""
    statistics: Annotated[int, Field(ge=2, le=MAX_IMAGES)] = 500
    """Largest number of training images of each task for BatchNorm's statistics, Gram matrices, the variance of
    channels and the refitted classifier."""
    fisher_examples: Annotated[int, Field(gt=0, le=MAX_IMAGES)] = 128
    """Largest number of training images of each task for Fisher information; each takes a backward pass of its own."""
    resamples: Resamples = 300
    """Bootstrap resamples behind intervals of an AUC, at most 100,000; those of an accuracy follow from counts."""


class OwnOptions(Options):
    """Analyses and figures of the user's own."""

    modules: Annotated[tuple[str, ...], Field(min_length=1)]
    """Modules with functions that are decorated with `measure.own.analysis` or `measure.own.figure`."""
    pairs: tuple[KindPair, ...] | None = None
    """Kinds of run whose pairs are measured; None: those of all other analyses."""
    epoch: Literal["best", "final"] = "final"
    max_examples: PositiveInt | None = None
    """Largest number of examples of each part; None: all."""


class ReportOptions(Options):
    """The report."""

    title: str = "What is being transferred?"
    claims: tuple[str, ...] = ()
    """Modules with claims of your own, imported before the claims are decided: docs/claims.md."""


class ModulesOptions(Options):
    """Modules of a network: units whose weights are compared, moved and set back together."""

    granularity: Literal["blocks", "layers"] = "blocks"
    """Stem, residual blocks and classifier (of other architectures their units), or every convolution and linear."""
    groups: dict[str, tuple[str, ...]] | None = None
    """Modules of one's own: name -> names of tensors, starts of such up to a dot, or patterns (`layer4.*.conv2.*`)."""


PAIRS_APART = 100
"""Pairs of two kinds of run on one task that get a node each, unless `pairs_in_one_node` says otherwise."""


BlockSize = Pixels | Literal["values"]
Replicas = Annotated[int, Field(gt=0, le=10_000)]


class FeatureReuseOptions(Options):
    """Runs of some kinds on images whose blocks are shuffled, and with parts of the pre-trained model only."""

    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    """Whose images are shuffled; no image is stored again."""
    kinds: Annotated[tuple[str, ...], Field(min_length=1)] = ("pt", "rit")
    """Kinds of run that are trained on them; the first one that is pre-trained also starts the controls."""
    block_sizes: Literal["all"] | tuple[BlockSize, ...] = "all"
    """Sides of blocks in pixels, and `values`, all values across positions and channels; all: every side that divides
    the images', and values. Whole images are those of the task itself, or trained again where these are augmented:
    shuffled images never are, as in the paper."""
    each_image: tuple[BlockSize, ...] = ()
    """Sizes that are also tried with a permutation of its own for each image."""
    controls: tuple[Literal["statistics", "frozen"], ...] = ()
    """On whole images: random weights with the statistics of the pre-trained ones; only the classifier is trained."""
    first_modules: tuple[str, ...] = ()
    """On whole images: pre-trained up to each of these modules, the others random, e.g. [stem, layer2.0]."""
    replicas: Replicas | None = None
    """Runs of each kind on each size; None: as many as the kinds have."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Of the permutations."""


class SourceEpochsOptions(Options):
    """Runs that start from earlier epochs of the pre-trained model (Figure 7)."""

    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    epochs: Annotated[tuple[Epoch, ...], Field(min_length=1)]
    """Epochs that the source run keeps; its last one is that of the kind itself."""
    kind: str = "pt"
    replicas: Replicas | None = None
    """Runs from each epoch; None: as many as the kind has."""


class AnalysesOptions(Options):
    """Options of each analysis; None leaves it out."""

    pairs_in_one_node: bool | None = None
    """True if all pairs of two kinds of run on a task are one node of each analysis, with one table.

    None: where there are more than 100 such pairs. A matrix of pairs is then a few nodes; what is gathered of all
    pairs is the same either way, e.g. `clipart.mistakes.table`."""
    modules: ModulesOptions = ModulesOptions()
    precision: Precision = "float32"
    """Of the networks in similarity and landscape; in bfloat16 losses are off by up to a few percent.

    auto: bfloat16 on GPUs that have it, else float32."""

    mistakes: MistakesOptions | None = MistakesOptions()
    similarity: SimilarityOptions | None = SimilarityOptions()
    landscape: LandscapeOptions | None = LandscapeOptions()
    spectrum: SpectrumOptions | None = SpectrumOptions()
    merging: MergingOptions | None = None
    own: OwnOptions | None = None
