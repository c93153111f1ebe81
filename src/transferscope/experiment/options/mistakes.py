"""Options of mistakes, and of the question whether one model can replace another."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from transferscope.experiment.options.common import (
    MAX_SHOWN,
    Fraction,
    KindPair,
    LookOptions,
    Options,
    Resamples,
    Shown,
)

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
