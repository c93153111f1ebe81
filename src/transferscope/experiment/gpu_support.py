"""Check that a GPU can do what a plan asks: a function of its compute capability, known before the run."""

from __future__ import annotations

import re
from collections.abc import Iterable

from transferscope.experiment.options import TrainingPrecision

BFLOAT16_SINCE = (8, 0)
"""The compute capability of the first GPUs with bfloat16 (Ampere); older ones emulate it slowly or not at all."""


def gpu_fault(
    name: str, capability: tuple[int, int], architectures: Iterable[str], precisions: Iterable[TrainingPrecision]
) -> str | None:
    """The reason why a GPU cannot compute a plan, as one line; None where it can.

    Kernels of `sm_80` run on GPUs of the same major version from that minor version on, those of `sm_90a` on that
    very version, and the intermediate code `compute_80` on all later ones.

    Args:
        name: As the driver calls it, e.g. Tesla V100.
        capability: Major and minor version, `torch.cuda.get_device_capability()`.
        architectures: GPUs that torch was built for, `torch.cuda.get_arch_list()`.
        precisions: Those that the plan asks for.
    """
    known = list(architectures)
    version = ".".join(map(str, capability))
    if known and not any(_runs(architecture, capability) for architecture in known):
        return (
            f"{name} (compute capability {version}): the installed torch has kernels for {', '.join(known)} only; "
            "install a torch that has them for this GPU, or hide it with CUDA_VISIBLE_DEVICES= and compute on the CPU"
        )
    if "bfloat16" in precisions and capability < BFLOAT16_SINCE:
        return (
            f"{name} (compute capability {version}) has no bfloat16, which training.precision or analyses.precision "
            "asks for: write auto there, which is float16 with a scaled loss in training and float32 in analyses"
        )
    return None


def _runs(architecture: str, capability: tuple[int, int]) -> bool:
    match = re.fullmatch(r"(sm|compute)_(\d+)(\d)([a-z]?)", architecture)
    if match is None:
        return False
    kind, major, minor, exact = match[1], int(match[2]), int(match[3]), bool(match[4])
    if exact:
        return (major, minor) == capability
    if kind == "compute":
        return (major, minor) <= capability
    return major == capability[0] and minor <= capability[1]
