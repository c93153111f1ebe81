"""The time that a comparison of checkpoint files will take, noted before the first node runs."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping

from transferscope.experiment.options import ModelOptions
from transferscope.experiment.plan import Plan
from transferscope.experiment.run import RunSpec
from transferscope.experiment.study import pictures_of
from transferscope.tables.formats import duration

NOTED_SECONDS = 120
TIMED_IMAGES = 4
TIMED_PASSES = 3


def cost_note(
    plan: Plan, runs: Iterable[RunSpec], nodes: Iterable[str], sizes: Mapping[str, tuple[int, int]]
) -> str | None:
    """The time that a comparison of checkpoint files will take on a CPU, from a few timed images.

    None where nothing is taken from files, where no image goes through a network, and on a GPU.

    runs: those that are adopted or trained. nodes: names of all nodes that will run. sizes: images in train and test.
    """
    import torch

    from transferscope.cost.node_costs import node_costs

    adopted = [run for run in runs if run.checkpoint is not None]
    if not adopted or torch.cuda.is_available():
        return None
    names = set(nodes)
    passes = sum(images for node, images in node_costs(plan, sizes).items() if node in names)
    side = pictures_of(plan.study, adopted[0].task).seen_size
    seconds = passes * _seconds_an_image(adopted[0].model, side)
    if not passes:
        return None
    less = "; pictures.store_size and analyses.landscape.max_examples make it less" if seconds >= NOTED_SECONDS else ""
    names_of_networks = dict.fromkeys(run.model.name for run in adopted)
    return (
        f"at least {passes:,.0f} passes of an image of {side} px through {', '.join(names_of_networks)}: about "
        f"{duration(seconds)} on one core of this CPU{less}"
    )


def _seconds_an_image(model: ModelOptions, side: int) -> float:
    """The seconds of a forward pass of one image on one core, the shortest of some, as other programs may run, too."""
    import torch
    from threadpoolctl import threadpool_limits

    from transferscope.models.layers import image_channels
    from transferscope.models.zoo import build_model

    network = build_model(model.name, 2, seed=0, **model.options).eval()
    images = torch.zeros(TIMED_IMAGES, image_channels(network), side, side)
    shortest = math.inf
    with torch.inference_mode(), threadpool_limits(1):
        for _ in range(1 + TIMED_PASSES):  # the first one sets things up
            started = time.perf_counter()
            network(images)
            shortest = min(shortest, time.perf_counter() - started)
    return shortest / TIMED_IMAGES
