"""Each of several processes reads and transforms its own share of a batch, and no more than that needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from transferscope.experiment.options import AugmentationOptions
from transferscope.experiment.run import RunSpec
from transferscope.experiment.seeds import step_seed
from transferscope.images.augment import TrainingTransform
from transferscope.images.mixup import mixup
from transferscope.images.split import PackedSplit
from transferscope.models.initialisation import initialise
from transferscope.models.memory_layout import as_input
from transferscope.training.device import OneProcess
from transferscope.training.step import Setup, targets_of

Make = Callable[..., Any]

AUGMENTATIONS = [
    AugmentationOptions(),
    AugmentationOptions(flip=True),
    AugmentationOptions(mixup=0.7),
    AugmentationOptions(flip=True, random_resized_crop=(0.3, 1.0), mixup=0.7),
    AugmentationOptions(rotate=10, shift=0.1, scale=(0.9, 1.1), mixup=0.2),
]


def setup_of(run: RunSpec, split: PackedSplit, rank: int, size: int) -> Setup:
    """The setup of one of several processes, which need not run."""
    group = OneProcess()
    group.rank, group.size = rank, size
    model = initialise(run.model, split.num_classes, init_seed=0)
    model.to(memory_format=torch.channels_last)
    return Setup(run, split, 1, torch.device("cpu"), group, model, model, layers_draw=False)


def whole_batch(setup: Setup, batch: np.ndarray) -> tuple[Tensor, Tensor]:
    """Images and targets as one process makes them that transforms and mixes all of the batch."""
    options = setup.run.training.augmentation
    generator = torch.Generator().manual_seed(step_seed(setup.run.order_seed_in(2), 2, 3))
    transform = TrainingTransform(setup.split.pictures, options)
    images = as_input(transform(setup.split.gather(batch), generator), setup.weight)
    labels = setup.labels[torch.from_numpy(batch)]
    targets = targets_of(labels, 3, multi_label=setup.split.multi_label, mixed=options.mixup > 0)
    return mixup(images, targets, options.mixup, generator) if options.mixup else (images, targets)


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=["none", "flip", "mixup", "crop", "affine"])
@pytest.mark.parametrize("num_examples", [2, 19])
def test_shares_are_rows_of_the_whole_batch(
    size: int, augmentation: AugmentationOptions, num_examples: int, make_split: Make, make_run: Make
) -> None:
    """Bit for bit the images and targets that a process had which transformed the batch of all."""
    split = make_split(40)
    run = make_run(augmentation=augmentation, channels_last=True)
    batch = np.random.default_rng(0).permutation(40)[:num_examples]
    images, targets = whole_batch(setup_of(run, split, 0, 1), batch)
    for rank in range(size):
        setup = setup_of(run, split, rank, size)
        share = setup.share(2, 3, batch)
        own = share.images(setup.transform, split.gather(share.read), setup.weight)
        assert torch.equal(own, images[share.own])
        assert own.stride() == images[share.own].stride()
        labels = targets_of(setup.labels[torch.from_numpy(batch)], 3, multi_label=False, mixed=augmentation.mixup > 0)
        blended = labels if share.mixing is None else share.mixing.blend_targets(labels)
        assert torch.equal(blended, targets)


@pytest.mark.parametrize(("mixed", "most"), [(0.0, 1), (0.7, 2)])
def test_a_process_reads_its_own_examples_and_their_partners_alone(
    mixed: float, most: int, make_split: Make, make_run: Make
) -> None:
    """Of 8 processes each reads an eighth of the batch, with mixup at most two; none twice, all together all."""
    split = make_split(40)
    run = make_run(augmentation=AugmentationOptions(flip=True, mixup=mixed))
    shares = [setup_of(run, split, rank, 8).share(1, 0, np.arange(40)) for rank in range(8)]
    for share in shares:
        own = share.batch[share.own]
        assert share.read[: len(own)].tolist() == own.tolist()
        assert len(share.read) == len(set(share.read.tolist())) <= most * 5
    assert {row for share in shares for row in share.batch[share.own].tolist()} == set(range(40))
