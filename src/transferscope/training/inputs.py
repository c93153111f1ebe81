"""What a training starts from: its splits and initial weights, whether they fit, and the digests that name them."""

from __future__ import annotations

import copy
import hashlib

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from transferscope.images.augment import EvaluationTransform
from transferscope.images.split import PackedSplit
from transferscope.models.checkpoint import Checkpoint
from transferscope.models.layers import image_channels
from transferscope.system.errors import UserError
from transferscope.training.device import as_input, first_weight
from transferscope.training.run import RunLike


def by_part(train: PackedSplit, test: PackedSplit, validation: PackedSplit | None) -> dict[str, PackedSplit]:
    """The splits under the names of their parts."""
    return {"train": train, "test": test} | ({} if validation is None else {"validation": validation})


def check_inputs(run: RunLike, splits: dict[str, PackedSplit], initial: Checkpoint | None) -> None:
    """Raise UserError for splits without examples or of different classes, and for a wrong start."""
    name, train = f"{run.task}.{run.name}", splits["train"]
    for part, split in splits.items():
        if len(split) == 0:
            raise UserError(f"run '{name}': the {part} split of '{split.name}' is empty")
        if tuple(split.class_names) != tuple(train.class_names) or split.multi_label != train.multi_label:
            raise UserError(f"run '{name}': the {part} split of '{split.name}' has other classes than the train split")
    if run.initialisation == "checkpoint":
        raise UserError(f"run '{name}' is a checkpoint file: there is nothing to train")
    if (run.initialisation == "pretrained") != (initial is not None):
        expected = "needs the checkpoint it starts from" if initial is None else "takes no checkpoint to start from"
        raise UserError(f"run '{name}' has initialisation '{run.initialisation}' and {expected}")


def check_last_batch(model: nn.Module, split: PackedSplit, batch_size: int) -> None:
    """Raise UserError where an epoch ends with one image on which the model's BatchNorm cannot train."""
    norms = any(isinstance(module, _BatchNorm) for module in model.modules())
    if not norms or (len(split) % batch_size or batch_size) != 1:
        return
    trial, weight = copy.deepcopy(model).train(), first_weight(model)
    image = EvaluationTransform(split.pictures, image_channels(model))(split.gather([0])).to(weight.device)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            trial(as_input(image, weight))
        except ValueError as error:
            raise UserError(
                f"training.batch_size: {batch_size} leaves one of the {len(split)} images of {split.name} over, and "
                f"BatchNorm cannot train on one ({error}); choose another"
            ) from None


def inputs_of(run: RunLike, splits: dict[str, PackedSplit], initial: Checkpoint | None) -> dict[str, str]:
    """Digests of all that decides what a training leaves: its plan, its images, the weights it starts from."""
    weights = {} if initial is None else {"initial": _digest(initial)}
    return {"fingerprint": run.fingerprint} | {part: split.digest for part, split in splits.items()} | weights


def _digest(checkpoint: Checkpoint) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(checkpoint.state_dict.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
