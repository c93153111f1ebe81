"""Estimate work that puts no image through a network, in seconds of one core: drawing, packing, spectra, figures.

The constants are of an EPYC core (docs/log.md); another machine differs by its speed, which is seldom more than twice.
"""

from __future__ import annotations

import os
from typing import Any

from transferscope.cost.passes import Sizes, num_checkpoints
from transferscope.experiment.plan import Plan
from transferscope.experiment.study import pictures_of

DRAWN = {"source": 0.7e-3, "domains": 0.8e-3, "chest": 1.9e-3}
"""Seconds for an image of 48 pixels by what is drawn."""
PACKED_DRAWING, PACKED_FILE = 0.4e-3, 3e-3
"""Seconds for an image that is decoded, resized and hashed: a drawn one of 48 pixels, and a photo."""
FIGURE, NODE, START = 0.4, 0.015, 15.0
"""Seconds for a figure as PNG and PDF, for any node beside its work, and for the start of a run."""
OPERATIONS = 6e9
"""Operations a second of decompositions: the circular spectrum of ResNet-50 at 224 pixels takes 10 CPU seconds."""
OWN_PADDING = 5.5
"""Times that a spectrum with the network's own padding takes beside the circular one."""


def cores() -> int:
    """Cores that this process may use, on which such work is spread."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def drawing_seconds(plan: Plan) -> float:
    """Seconds for all generated images."""
    return sum(
        DRAWN[drawn.draws] * len(drawn.tasks) * (drawn.num_train + drawn.num_test)
        for drawn in plan.study.generated.values()
    )


def packing_seconds(plan: Plan, sizes: Sizes) -> float:
    """Seconds for the images of all tasks that have their own."""
    drawn = {task for item in plan.study.generated.values() for task in item.tasks}
    return sum(
        sum(sizes[task]) * (PACKED_DRAWING if task in drawn else PACKED_FILE)
        for task, options in plan.study.tasks.items()
        if not options.union
    )


def spectrum_seconds(plan: Plan) -> tuple[int, float]:
    """Checkpoints whose spectra are measured, and the seconds for all of them."""
    options = plan.study.analyses.spectrum
    if options is None:
        return 0, 0.0
    count, operations = 0, 0.0
    known: dict[tuple[str, int], float] = {}
    for run in plan.runs.values():
        if run.kind not in options.kinds or run.task in plan.views:
            continue
        side = options.input_size or pictures_of(plan.study, run.task).seen_size
        key = run.model.model_dump_json(), side
        known[key] = known.get(key) or spectrum_operations(run.model.name, run.model.options, side)
        of_run = num_checkpoints(run.training) if options.along_training else len(options.epochs)
        count += of_run
        own = options.padding == "network" and (options.network_tasks is None or run.task in options.network_tasks)
        operations += (of_run + OWN_PADDING * own) * known[key]
    return count, operations / OPERATIONS


def spectrum_operations(name: str, options: dict[str, Any], side: int) -> float:
    """Floating-point operations of the circular spectrum of a network's convolutions and linear layers."""
    from torch import nn

    from transferscope.models.layers import trace_conv_inputs
    from transferscope.models.zoo import build_model

    network, total = build_model(name, 2, **options), 0.0
    for path, entering in trace_conv_inputs(network, side).items():
        layer = network.get_submodule(path)
        if isinstance(layer, nn.Linear):
            blocks, rows, columns = 1.0, layer.out_features, layer.in_features
        else:
            assert isinstance(layer, nn.Conv2d)
            strides = entering.stride[0] * entering.stride[1]
            real = 0.5 if entering.height * entering.width > 1 else 1.0
            # A 1x1 kernel is the same at every frequency.
            same = layer.kernel_size == (1, 1)
            blocks = 1.0 if same else real * entering.height * entering.width / strides
            rows, columns = layer.out_channels, layer.in_channels // layer.groups * (1 if same else strides)
            blocks *= layer.groups
            rows //= layer.groups
        small, large = sorted((rows, columns))
        total += blocks * (8.0 * small**2 * large + 40.0 * small**3)
    return total
