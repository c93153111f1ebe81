"""Options of a training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from transferscope.experiment.options.common import (
    MAX_BATCH,
    Epoch,
    Epochs,
    Fraction,
    Images,
    Options,
    Processes,
    TrainingPrecision,
)
from transferscope.experiment.options.pictures import AugmentationOptions


class OptimizerOptions(Options):
    """An optimizer of torch by name, `{name: AdamW, betas: [0.9, 0.98]}`; its own options stand beside the name."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    name: Annotated[str, Field(pattern=r"^[A-Z]\w*$")]
    """That of the class in `torch.optim`."""

    @property
    def options(self) -> dict[str, Any]:
        """The optimizer's own options."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _not_what_the_training_says(self) -> OptimizerOptions:
        for option in ("lr", "params", "weight_decay"):
            if option in self.options:
                raise ValueError(f"{option} does not stand here: training.lr and training.weight_decay are for all")
        return self


class TrainingOptions(Options):
    """One training: SGD with momentum, as in appendix A, or another optimizer of torch."""

    epochs: Epochs = 15
    """Passes over the training images, at most 100,000."""
    batch_size: Annotated[int, Field(gt=0, le=MAX_BATCH)] = 32
    """Images of an optimizer step, over all processes; at most 1,000,000."""
    lr: Annotated[float, Field(gt=0)] = 0.05
    scale_lr_by_batch: bool = False
    """Multiply lr by batch_size / 256, as the authors' code does."""
    optimizer: OptimizerOptions | None = None
    """Another one of torch's than SGD, e.g. {name: AdamW, betas: [0.9, 0.98]}; the schedule of lr is the same."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of SGD."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Of SGD, and of any other optimizer that has one."""
    scalar_lr_factor: Annotated[float, Field(gt=0)] = 0.1
    """Factor on the learning rate of Fixup's scalar biases and scales."""
    milestones: tuple[Epochs, ...] = ()
    """Epochs after which the learning rate is multiplied by decay_factor."""
    decay_factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    warmup_fraction: Fraction = 0.0
    """Part of all optimizer steps over which the learning rate rises linearly from 0."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Largest global l2 norm of the gradient; None: no clipping."""
    label_smoothing: Fraction = 0.0
    frozen: Literal["features"] | tuple[str, ...] = ()
    """Parts that are not trained: features (all but the classifier), or modules, starts of tensors' names, globs."""
    augmentation: AugmentationOptions = AugmentationOptions()
    evaluate_every: Epochs = 1
    """Epochs between evaluations of train and test."""
    evaluate_train_on: Images | None = None
    """Training images, drawn once for each task, on which the train metrics of an epoch are measured; None: all.

    Images of test and validation are always all measured, since they choose the best epoch. Another number trains the
    runs again: their histories would mix two measurements."""
    keep_epochs: Literal["all"] | tuple[Epoch, ...] = ()
    """Epochs whose weights are kept beside 0, best and final."""
    precision: TrainingPrecision = "float32"
    """Of matrix products and convolutions; weights stay float32. In float16 the loss is scaled, and an optimizer step
    whose gradients overflow is left out. auto: bfloat16 on GPUs that have it, float16 on others, float32 on the CPU."""
    channels_last: bool = False
    """Keep images and weights of convolutions with channels as the fastest axis: faster for most CNNs on GPUs."""
    compile: bool = False
    """Train the network that `torch.compile` makes: faster on GPUs after a minute; needs a C++ compiler."""
    deterministic: bool = True
    """Choose algorithms that give the same bytes at every run on one machine; on GPUs others may be faster."""
    num_processes: Processes | Literal["auto"] = 1
    """Processes on each machine, a GPU each (or a core); auto: one for each GPU that the runner grants, one on the CPU.

    Where there are fewer GPUs or cores it is what there is, with a note: the weights do not depend on it but for
    rounding, and fingerprints do not count it. At most 4,096."""
    num_nodes: Processes = 1
    """Machines that train one run together, each by the same `kedro run`; the data lie on storage that all see."""
    rendezvous: str | None = None
    """Meeting place of these machines: `host:port` of one of them."""
    max_restarts: Annotated[int, Field(ge=0, le=1000)] = 0
    """Restarts of workers that died, each from the last snapshot."""
    snapshot_seconds: Annotated[float, Field(ge=0)] = 300.0
    """Seconds between snapshots of a training: what a kill loses at most, beside the epoch or the 16 optimizer steps
    that end meanwhile. The weights do not depend on it."""
    together: Literal["gpu"] | bool = False
    """Train runs of a task as one that differ in nothing but seeds, start and schedule of lr.

    Every kernel then computes all of them; weights are those of each run alone but for rounding. true: on any device;
    gpu: on a GPU, and one after the other on the CPU."""
    tensorboard: bool = False
    """Write every row of the history as TensorBoard events, too: `tensorboard --logdir <the models folder>`."""

    @model_validator(mode="after")
    def _machines_have_a_place_to_meet(self) -> TrainingOptions:
        if (self.num_nodes > 1) != (self.rendezvous is not None):
            raise ValueError("num_nodes above 1 and rendezvous (host:port of one of the machines) go together")
        return self


NOT_IN_WEIGHTS = {
    "num_processes", "num_nodes", "rendezvous", "max_restarts", "snapshot_seconds", "together", "tensorboard",
}  # fmt: skip
"""Options of a training that do not decide its weights."""
