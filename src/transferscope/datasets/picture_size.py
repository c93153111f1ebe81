"""The size at which images are stored where the study leaves it to the images: `store_size: auto`."""

from __future__ import annotations

from kedro.io.core import DatasetError

from transferscope.datasets.image_source import ImageSourceDataset
from transferscope.experiment.study import TaskOptions
from transferscope.system.errors import UserError

AUTO = "auto"


def choose_size(tasks: dict[str, TaskOptions]) -> int:
    """The median short side of some images of all tasks, and at most 224; 224 where there are none to look at."""
    from transferscope.images.auto_size import auto_size

    return auto_size([side for name, options in tasks.items() for side in _short_sides(name, options)])


def _short_sides(name: str, options: TaskOptions) -> list[int]:
    """Of a task's images; none where the folder cannot be read, which the checks before a run report."""
    from transferscope.images.auto_size import short_sides

    if options.root is None:
        return []
    try:
        return short_sides(
            ImageSourceDataset(filepath=options.root, task=name, options=options.source_options()).load()
        )
    except (DatasetError, UserError, OSError):
        return []
