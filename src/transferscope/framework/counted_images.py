"""Count the images that lie in the folders of a plan's tasks, so that nobody has to say how many there are."""

from __future__ import annotations

from transferscope.cost.passes import Sizes
from transferscope.datasets.image_source import ImageSourceDataset
from transferscope.experiment.plan import Plan
from transferscope.framework.config import active_place
from transferscope.framework.input_checks import users_error


def counted_images(plan: Plan, given: Sizes) -> dict[str, tuple[int, int]]:
    """Images in train and in test of each task whose folder is there, as its limits leave them; no pixel is read.

    given: sizes of tasks that are not to be counted. Tasks that a study draws itself, and those that unite others,
    follow from the plan. Raises UserError for a folder that its format cannot read.
    """
    drawn = {task for item in plan.study.generated.values() for task in item.tasks}
    counted = dict(given)
    for name, task in plan.study.tasks.items():
        if task.root is None or name in drawn or name in given:
            continue
        options = task.placed(active_place).source_options()
        images = ImageSourceDataset(filepath=active_place(task.root), task=name, options=options)
        if images.exists():
            try:
                source = images.load()
            except Exception as error:  # of Kedro, around ours
                raise users_error(error) from error
            counted[name] = len(source.train), len(source.test)
    return counted
