"""All that a training starts from: run, splits and initial weights, their digests, and whether they fit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from transferscope.experiment.run import RunSpec
from transferscope.experiment.seeds import derive_seed
from transferscope.images.seen_images import EvaluationTransform
from transferscope.images.split import PackedSplit
from transferscope.models.checkpoint import Checkpoint
from transferscope.models.duplicate import duplicate
from transferscope.models.frozen import freeze
from transferscope.models.initialisation import initialise
from transferscope.models.layers import image_channels
from transferscope.models.state_dicts import state_digest
from transferscope.system.errors import UserError
from transferscope.training.device import as_input, first_weight


def by_part(train: PackedSplit, test: PackedSplit, validation: PackedSplit | None) -> dict[str, PackedSplit]:
    """Name the splits by their parts."""
    return {"train": train, "test": test} | ({} if validation is None else {"validation": validation})


@dataclass(frozen=True)
class Inputs:
    """A run, its splits by part, the checkpoint it starts from, and the digests of all that decides its results.

    They are checked once, by `loop.train_runs`, before workers have them.
    """

    run: RunSpec
    splits: dict[str, PackedSplit]
    """`train`, `test` and, where the task has one, `validation`."""
    initial: Checkpoint | None
    digests: dict[str, str]

    @classmethod
    def of(cls, run: RunSpec, splits: dict[str, PackedSplit], initial: Checkpoint | None) -> Inputs:
        """Gather the inputs and compute the digests of plan, images and initial weights."""
        digests = {"fingerprint": run.fingerprint} | {part: split.digest for part, split in splits.items()}
        return cls(
            run, splits, initial, digests | ({} if initial is None else {"initial": state_digest(initial.state_dict)})
        )

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch; the last batch may be smaller."""
        return math.ceil(len(self.splits["train"]) / self.run.training.batch_size)

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.run.training.epochs * self.steps_per_epoch

    def check(self) -> None:
        """Raise UserError for splits without examples or of different classes, and for a wrong start."""
        run, train = self.run, self.splits["train"]
        name = run.full_name
        for part, split in self.splits.items():
            if len(split) == 0:
                raise UserError(f"run '{name}': the {part} split of '{split.name}' is empty")
            if tuple(split.class_names) != tuple(train.class_names) or split.multi_label != train.multi_label:
                raise UserError(
                    f"run '{name}': the {part} split of '{split.name}' has other classes than the train split"
                )
        if run.initialisation == "checkpoint":
            raise UserError(f"run '{name}' is a checkpoint file: there is nothing to train")
        if (run.initialisation == "pretrained") != (self.initial is not None):
            need = (
                "needs the checkpoint it starts from" if self.initial is None else "takes no checkpoint to start from"
            )
            raise UserError(f"run '{name}' has initialisation '{run.initialisation}' and {need}")


def untrained_model(inputs: Inputs) -> nn.Module:
    """The model with its initial weights on the CPU, its frozen parts taken out of training."""
    run = inputs.run
    model = initialise(
        run.model,
        inputs.splits["train"].num_classes,
        init_seed=run.init_seed,
        pretrained=inputs.initial,
        transfer=run.transfer,
        transfer_until=run.transfer_until,
    )
    freeze(model, run.training.frozen)
    return model


def check_last_batch(model: nn.Module, split: PackedSplit, batch_size: int) -> None:
    """Raise UserError where an epoch ends with one image on which the model's BatchNorm cannot train."""
    norms = any(isinstance(module, _BatchNorm) for module in model.modules())
    if not norms or (len(split) % batch_size or batch_size) != 1:
        return
    trial, weight = duplicate(model).train(), first_weight(model)
    image = EvaluationTransform(split.pictures, image_channels(model))(split.gather([0])).to(weight.device)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            trial(as_input(image, weight))
        except ValueError as error:
            raise UserError(
                f"training.batch_size: {batch_size} leaves one of the {len(split)} images of {split.name} over, and "
                f"BatchNorm cannot train on one ({error}); choose another"
            ) from None


def evaluated_examples(split: PackedSplit, limit: int | None) -> np.ndarray | None:
    """Positions of at most `limit` examples, the same for all epochs and runs on a split; None for all of them."""
    if limit is None or len(split) <= limit:
        return None
    generator = np.random.default_rng(derive_seed(split.name, split.part, "evaluation"))
    return np.sort(generator.choice(len(split), limit, replace=False))
