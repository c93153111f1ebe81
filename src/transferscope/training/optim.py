"""The optimizer, and which parameters move at which learning rate, and when.

Appendix A: SGD with momentum 0.9, weight decay 1e-4 on everything, a constant or piecewise constant learning rate.
The warm-up and the clipping are ours; small Fixup networks stay at chance without them. Other optimizers of torch take
the same schedule and groups.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from transferscope.experiment.options import OptimizerOptions, TrainingOptions
from transferscope.models.plain_sgd import PlainSGD
from transferscope.system.errors import UserError
from transferscope.system.near import near_matches

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


def make_optimizer(
    model: nn.Module, options: TrainingOptions, *, may_be_left_out: bool = False
) -> torch.optim.Optimizer:
    """The optimizer over `parameter_groups`; `set_learning_rate` comes before each update.

    torch's SGD, fused into one kernel, or the class of torch that `training.optimizer` names. may_be_left_out: true
    where a scaled loss may overflow; torch's fused SGD goes on with memory that it has not written if its first update
    is left out.

    Raises UserError for an optimizer or an option that torch does not have, and for values that it refuses.
    """
    return optimizer_over(parameter_groups(model, options), options, may_be_left_out=may_be_left_out)


def optimizer_over(
    groups: list[dict[str, Any]], options: TrainingOptions, *, may_be_left_out: bool = False
) -> torch.optim.Optimizer:
    """The optimizer of `make_optimizer` over groups of parameters that each have their `lr_factor`."""
    if options.optimizer is not None:
        return _named(groups, options.optimizer, options.lr, options.weight_decay)
    return PlainSGD(
        groups,
        lr=options.lr,
        momentum=options.momentum,
        weight_decay=options.weight_decay,
        fused=None if may_be_left_out else True,
    )


OTHER_UPDATES = ("LBFGS", "SparseAdam")
"""Optimizers that need more than one pass for an update, or sparse gradients."""


def _named(
    groups: list[dict[str, Any]], wanted: OptimizerOptions, lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    classes = _optimizers()
    if wanted.name not in classes:
        near = near_matches(wanted.name, classes)
        raise UserError(f"training.optimizer: torch.optim has no {wanted.name!r} for trainings{near}")
    constructor = classes[wanted.name]
    known = [name for name in inspect.signature(constructor).parameters if name not in ("params", "lr", "weight_decay")]
    for option in wanted.options:
        if option not in known:
            raise UserError(f"training.optimizer: {wanted.name} has no option {option!r}{near_matches(option, known)}")
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in wanted.options.items()
    }
    if "weight_decay" in inspect.signature(constructor).parameters:
        values["weight_decay"] = weight_decay
    try:
        made = constructor(groups, **values | {"lr": lr})
    except (TypeError, ValueError, IndexError, RuntimeError, AssertionError) as error:
        raise UserError(f"training.optimizer: {wanted.name} refuses its options {wanted.options}: {error}") from error
    return made


def _optimizers() -> dict[str, type[torch.optim.Optimizer]]:
    """torch's optimizers by name."""
    classes = {name: value for name, value in vars(torch.optim).items() if inspect.isclass(value)}
    return {
        name: value
        for name, value in classes.items()
        if issubclass(value, torch.optim.Optimizer) and name not in ("Optimizer", *OTHER_UPDATES)
    }


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give each group its factor of `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]
