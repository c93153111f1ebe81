"""Options of the loss landscape: lines, planes, basins, connections, criticality."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from transferscope.experiment.names import CheckpointName
from transferscope.experiment.options.common import (
    MAX_BATCH,
    MAX_DRAWS,
    MAX_RESAMPLES,
    MAX_SHOWN,
    MAX_SIDE,
    BestOrFinal,
    Draws,
    Epoch,
    GridOptions,
    KindPair,
    LookOptions,
    Options,
    Points,
    PositiveInt,
)


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


BARRIER_MARGIN = 0.05
"""A barrier is one if it costs more than this part of what the ends have learned, and none if it costs less."""


class UntilDecidedOptions(LookOptions):
    """Lines are measured on as few examples as it takes to decide whether there is a barrier.

    The examples come in growing batches; after each an interval that holds at every look decides or asks for more, on
    accuracy (AUC where images have several labels) and on the loss. A line stops when one of them shows a barrier or
    both show none. At most 5 % of lines are decided wrongly, in the loss as long as 2 % of the images or more make the
    barrier (of those that 1 % make 10 % are wrong). That the loss shows no barrier so takes 200 images at least. A line
    that decides nothing takes all examples.
    """

    margin: Annotated[float, Field(gt=0, lt=1)] = BARRIER_MARGIN
    """Height of a barrier, as a part of what the ends have learned, above which it is one; that of the claims."""
    least_across: Annotated[float, Field(ge=0, le=1)] = 0.6
    """Part of the examples that a line between models of two tasks always takes.

    Claims on a few such lines compare their heights and the accuracies of their ends, for which it is not enough to
    know on which side of the margin each lies."""


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
