"""SGD as in the study: which parameters move at which learning rate, and when.

Appendix A: momentum 0.9, weight decay 1e-4 on everything, a constant or piecewise constant learning rate.
The warm-up and the clipping are ours; small Fixup networks stay at chance without them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from transferscope.experiment.options import TrainingOptions

REFERENCE_BATCH = 256
"""`scale_lr_by_batch`: the batch size at which the learning rate is taken as written."""


def peak_learning_rate(options: TrainingOptions) -> float:
    """The largest learning rate of the schedule, whether or not a run comes to it."""
    return options.lr * (options.batch_size / REFERENCE_BATCH if options.scale_lr_by_batch else 1.0)


def learning_rate(options: TrainingOptions, step: int, steps_per_epoch: int) -> float:
    """Learning rate of an optimizer step (0-based, counted over the whole run); a pure function of its arguments.

    Between drops it is constant: after `m` whole epochs, for each milestone m, it is multiplied by `decay_factor`,
    as by torch's `MultiStepLR`. Step s of w warm-up steps takes the fraction (s + 1) / w of it, so that no step is lost
    at 0, and the last step of the warm-up takes all of it.
    """
    lr = peak_learning_rate(options)
    epoch = step // steps_per_epoch
    lr *= options.decay_factor ** sum(epoch >= milestone for milestone in options.milestones)
    warmup_steps = round(options.warmup_fraction * options.epochs * steps_per_epoch)
    return lr * min(1.0, (step + 1) / warmup_steps) if warmup_steps else lr


def is_scalar(name: str, parameter: torch.Tensor) -> bool:
    """True if a parameter is one of Fixup's scalar biases and scales, which learn more slowly.

    The authors' code goes by the name alone, and so slows the classifier's bias as well; Fixup's own rule is for
    the scalars, and a `(num_classes,)` bias is none.
    """
    leaf = name.rpartition(".")[2]
    return parameter.numel() == 1 and ("bias" in leaf or "scale" in leaf)


def parameter_groups(model: nn.Module, options: TrainingOptions) -> list[dict[str, Any]]:
    """Two groups, `lr_factor` 1 and `scalar_lr_factor`; an empty one is left out. Frozen parameters are in neither."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    scalars = [parameter for name, parameter in named if is_scalar(name, parameter)]
    others = [parameter for name, parameter in named if not is_scalar(name, parameter)]
    groups = [{"params": others, "lr_factor": 1.0}, {"params": scalars, "lr_factor": options.scalar_lr_factor}]
    return [group for group in groups if group["params"]]


def make_optimizer(model: nn.Module, options: TrainingOptions) -> torch.optim.SGD:
    """torch's SGD over `parameter_groups`, fused into one kernel; `set_learning_rate` comes before each update."""
    groups = parameter_groups(model, options)
    return torch.optim.SGD(
        groups, lr=options.lr, momentum=options.momentum, weight_decay=options.weight_decay, fused=True
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give each group its factor of `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]
