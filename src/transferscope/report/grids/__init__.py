"""Our tables beside the paper's: a grid of all tasks or one a task, numbers as means with their range."""

from transferscope.report.grids import (
    common,
    criticality,
    images,
    landscape,
    mistakes,
    similarity,
    spectrum,
    surfaces,
    training,
)

__all__ = ["common", "criticality", "images", "landscape", "mistakes", "similarity", "spectrum", "surfaces", "training"]
