"""The pipelines by name; what they hold follows from the plan."""

from __future__ import annotations

from kedro.pipeline import Pipeline

from transferscope.framework.config import active_plan
from transferscope.framework.kedro_private import is_kedro_viz
from transferscope.framework.viz_offline import stay_on_this_machine
from transferscope.framework.viz_view import drawn
from transferscope.pipelines import (
    data_prep,
    feature_reuse,
    landscape,
    merging,
    mistakes,
    own,
    report,
    similarity,
    spectrum,
    training,
)
from transferscope.pipelines.wiring import without_images


def register_pipelines() -> dict[str, Pipeline]:
    """The pipelines, and all of them as the default."""
    plan = active_plan()
    modules = (data_prep, training, mistakes, similarity, landscape, spectrum, feature_reuse, merging, own)
    made = {
        module.__name__.removeprefix("transferscope.pipelines."): module.create_pipeline(plan) for module in modules
    }
    pipelines = without_images(plan, made)
    pipelines["report"] = report.create_pipeline(plan, pipelines.values())
    pipelines["__default__"] = sum(pipelines.values(), Pipeline([]))
    if not is_kedro_viz():
        return pipelines
    stay_on_this_machine()
    return {name: drawn(pipeline) for name, pipeline in pipelines.items()}
