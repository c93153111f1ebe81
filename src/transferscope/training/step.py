"""One optimizer step: which examples, which draws, which loss, which learning rate.

The order of the examples and the seeds of all draws are functions of (order_seed, epoch, step), and of nothing else, so
a training that was stopped goes on as if it had not been (`experiment.seeds`). The loss is kept as a sum and
the number that it is divided by, so that the shares of several processes add up to the whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transferscope.experiment.run import RunSpec
from transferscope.experiment.seeds import step_seed
from transferscope.images.augment import Draws, TrainingTransform
from transferscope.images.mixup import Mixing
from transferscope.images.split import PackedSplit
from transferscope.models.layers import image_channels
from transferscope.models.memory_layout import as_input, first_weight
from transferscope.training.device import OneProcess, autocast, seed_layers
from transferscope.training.evaluation import IGNORED
from transferscope.training.optim import learning_rate, set_learning_rate


@dataclass(frozen=True)
class Share:
    """The part of a global batch that this process computes, and the draws that it needs."""

    batch: np.ndarray
    """Indices of the examples of all processes."""
    read: np.ndarray
    """Indices of the examples that this process reads: its own first, then their partners in mixup."""
    own: slice
    """The own examples in `batch`."""
    factor: float
    """Of the loss of the own examples: 0 where there are none and the first stands in for them."""
    draws: Draws
    """Of the images in `read`."""
    mixing: Mixing | None
    """Of the whole batch."""
    others: Tensor | None
    """Positions in `read` of the partners of the own examples."""

    @classmethod
    def joined(cls, several: Sequence[Share]) -> Share:
        """The whole batches of several runs of one augmentation and batch size as of one batch; of one, its share."""
        if len(several) == 1:
            return several[0]
        count = len(several[0].batch)
        mixings = [share.mixing for share in several if share.mixing is not None]
        mixing = Mixing.joined(mixings, count) if mixings else None
        batch, read = (np.concatenate(parts) for parts in zip(*((one.batch, one.read) for one in several), strict=True))
        draws = Draws.joined([share.draws for share in several])
        return cls(batch, read, slice(0, len(batch)), 1.0, draws, mixing, None if mixing is None else mixing.partners)

    def images(self, transform: TrainingTransform, stored: Tensor, weight: Tensor) -> Tensor:
        """The network's inputs of the own examples from the stored images of `read`, in the form of `weight`."""
        images = as_input(transform.apply(stored, self.draws), weight)
        if self.mixing is None or self.others is None:
            return images
        others = images[self.others.to(images.device, non_blocking=True)]
        return self.mixing.blend(images[: len(self.others)], others)


@dataclass(frozen=True)
class Setup:
    """Everything that stays the same from the first optimizer step of a training to the last."""

    run: RunSpec
    split: PackedSplit
    """The images that are trained on."""
    steps_per_epoch: int
    device: torch.device
    group: OneProcess
    model: nn.Module
    forward: nn.Module
    """The model as it is called: compiled if asked, and wrapped so that several processes share their gradients."""
    layers_draw: bool
    """True if layers such as dropout draw random numbers."""
    scaler: torch.amp.GradScaler | None = None
    """Of the loss, in float16."""

    @cached_property
    def parameters(self) -> list[nn.Parameter]:
        """Those that are trained."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    @cached_property
    def weight(self) -> Tensor:
        """The first weight, whose type and memory format images take."""
        return first_weight(self.model)

    @cached_property
    def labels(self) -> Tensor:
        """Labels of all examples."""
        return torch.from_numpy(np.array(self.split.labels))

    @cached_property
    def transform(self) -> TrainingTransform:
        """From stored to augmented and normalised images."""
        return TrainingTransform(self.split.pictures, self.run.training.augmentation, image_channels(self.model))

    def has_finite_weights(self) -> bool:
        """True if no trained weight is infinite or not a number."""
        return all(bool(torch.isfinite(parameter).all()) for parameter in self.parameters)

    def share(self, epoch: int, step: int, batch: np.ndarray) -> Share:
        """This process's share of a global batch, `batch` being the indices of the examples of all processes.

        All that is random is drawn for the whole batch, in one order, so that it does not depend on how many processes
        share it. Read are the own examples and their partners in mixup alone.
        """
        options, generator = self.run.training.augmentation, torch.Generator()
        generator.manual_seed(step_seed(self.run.order_seed_in(epoch), epoch, step))
        draws = self.transform.draw(len(batch), self.split.images.shape[-1], generator)
        mixing = Mixing.draw(len(batch), options.mixup, generator) if options.mixup else None
        own, factor = self.group.share(len(batch))
        if self.group.size == 1:
            return Share(batch, batch, own, factor, draws, mixing, None if mixing is None else mixing.partners)
        rows = torch.arange(len(batch))[own]
        if mixing is None:
            return Share(batch, batch[own], own, factor, draws.of(rows), None, None)
        partners = mixing.partners[own]
        read = torch.cat([rows, partners[~torch.isin(partners, rows)]])
        place = torch.empty(len(batch), dtype=torch.int64)
        place[read] = torch.arange(len(read))
        return Share(batch, batch[read.numpy()], own, factor, draws.of(read), mixing, place[partners])

    def examples(self, share: Share, stored: Tensor) -> tuple[Tensor, Tensor]:
        """The network's inputs of the own examples, and the targets of the whole batch.

        Mixup weighs labels against each other, so it needs those of the whole batch.

        stored: the images of `share.read`, uint8.
        """
        mixing, multi_label = share.mixing, self.split.multi_label
        images = share.images(self.transform, stored.to(self.device), self.weight)
        labels = self.labels[torch.from_numpy(share.batch)].to(self.device, non_blocking=True)
        targets = targets_of(labels, self.split.num_classes, multi_label=multi_label, mixed=mixing is not None)
        return images, targets if mixing is None else mixing.blend_targets(targets)

    def learning_rate(self, epoch: int, step: int) -> float:
        """Learning rate of an optimizer step, both counted within the run: epochs from 1, the steps of each from 0."""
        return learning_rate(self.run.training, (epoch - 1) * self.steps_per_epoch + step, self.steps_per_epoch)


def take_step(
    setup: Setup, optimizer: torch.optim.Optimizer, epoch: int, step: int, share: Share, stored: Tensor
) -> Tensor:
    """Update the weights once.

    share: `setup.share(epoch, step, batch)`. stored: the images of `share.read`, uint8.

    Returns `(2,)` float64: the loss summed over this process's share, and the number that the loss of the whole batch
    is divided by. They stay on the device, so that nothing waits for it.
    """
    options, group, multi_label = setup.run.training, setup.group, setup.split.multi_label
    if setup.layers_draw:
        seed_layers(step_seed(setup.run.order_seed_in(epoch), epoch, step) + group.rank, setup.device)

    images, targets = setup.examples(share, stored)
    weight = loss_weight(targets, multi_label=multi_label)

    # The loss of this process's share. The mean of gradients over processes is that of the batch's mean loss, for each
    # share is divided by the weight of the whole batch.
    with autocast(setup.device, options.precision):
        logits = setup.forward(images)
    smoothing, own = options.label_smoothing, targets[share.own]
    loss = share.factor * summed_loss(logits, own, multi_label=multi_label, label_smoothing=smoothing)
    optimizer.zero_grad()
    mean, scaler = loss * (group.size / weight), setup.scaler
    (mean if scaler is None else scaler.scale(mean)).backward()

    # The update. In float16 it is left out where a gradient has overflowed, the same in every process.
    if scaler is not None:
        scaler.unscale_(optimizer)
    if options.clip_norm is not None:
        nn.utils.clip_grad_norm_(setup.parameters, options.clip_norm, foreach=True)
    set_learning_rate(optimizer, setup.learning_rate(epoch, step))
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()
    return torch.stack([loss.detach().double(), weight.double()])


def targets_of(labels: Tensor, num_classes: int, *, multi_label: bool, mixed: bool) -> Tensor:
    """Labels as the loss takes them.

    Single label: class indices `(n,)`, or, if they will be mixed, one-hot rows `(n, num_classes)`.
    Multi-label: `(n, num_classes)` floats in [0, 1], or -1 for ignored.
    """
    if multi_label:
        return labels.float()
    return F.one_hot(labels, num_classes).float() if mixed else labels


def loss_weight(targets: Tensor, *, multi_label: bool) -> Tensor:
    """The number that the loss is divided by, float64: of examples, or of known findings; at least 1."""
    if not multi_label:
        return torch.tensor(len(targets), dtype=torch.float64).to(targets.device, non_blocking=True)
    return (targets != IGNORED).sum().clamp(min=1).double()


def summed_loss(logits: Tensor, targets: Tensor, *, multi_label: bool, label_smoothing: float = 0.0) -> Tensor:
    """Cross entropy summed over examples, or binary cross entropy summed over known findings, in nats.

    Divided by `loss_weight` it is the mean that the study minimises. Smoothing moves a share `label_smoothing` of each
    target to the uniform distribution over the classes, or over yes and no.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    targets = targets.to(logits.dtype) if targets.is_floating_point() else targets
    if not multi_label:
        return F.cross_entropy(logits, targets, reduction="sum", label_smoothing=label_smoothing)
    smoothed = targets * (1 - label_smoothing) + label_smoothing / 2
    each = F.binary_cross_entropy_with_logits(logits, smoothed, reduction="none")
    return torch.where(targets != IGNORED, each, 0.0).sum()
