"""What a training starts from: its splits and initial weights, whether they fit, and the digests that name them."""

from __future__ import annotations

import hashlib

from transferscope.errors import UserError
from transferscope.images.split import PackedSplit
from transferscope.models.checkpoint import Checkpoint
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


def inputs_of(run: RunLike, splits: dict[str, PackedSplit], initial: Checkpoint | None) -> dict[str, str]:
    """Digests of all that decides what a training leaves: its plan, its images, the weights it starts from."""
    weights = {} if initial is None else {"initial": _digest(initial)}
    return {"fingerprint": run.fingerprint} | {part: split.digest for part, split in splits.items()} | weights


def _digest(checkpoint: Checkpoint) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(checkpoint.state_dict.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
