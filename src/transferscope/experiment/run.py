"""One run of a study: a training, or a checkpoint file that is taken in as one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import Field

from transferscope.experiment.names import Epoch, NodeName, RunName
from transferscope.experiment.options import ModelOptions, Options, TrainingOptions, Transfer

Initialisation = Literal["random", "pretrained", "checkpoint"]

Role = Literal["source", "fine_tuned", "from_scratch", "shared_init", "split", "control", "file"]
"""The part of a run in the comparison. It follows from its initialisation, never from its label:

`fine_tuned` starts from pre-trained weights, `source` gives such weights to others, `from_scratch` starts from random
weights of its own, `shared_init` from those that another run drew, `split` is a copy of another run that takes the
examples in another order from some epoch on, `control` starts from a part of what pre-trained weights hold, and `file`
is a checkpoint file.
"""


class RunSpec(Options):
    """One training, or one checkpoint file: everything that decides its weights.

    A plan fills in every field. By hand, as in a notebook, a task, a name, a model and a training are enough.
    """

    task: str
    name: str
    """The kind and the replica: `pt_1`."""
    kind: str = "run"
    label: str = ""
    """The printed name of the kind: `P-T`."""
    role: Role = "from_scratch"
    replica: int = 1
    initialisation: Initialisation = "random"
    pretrained: str | None = None
    """The run or the file whose weights, all but the classifier, this run starts from."""
    pretrained_epoch: Epoch = "final"
    transfer: Transfer = "weights"
    """Taken of the pre-trained model: its weights, or the mean and standard deviation of each tensor alone."""
    transfer_until: str | None = None
    """The last module of which anything is taken; those after it are drawn."""
    checkpoint: str | None = None
    """The file that is taken in instead of a training."""
    in_series: bool = False
    """True of a file that is one of several of its kind."""
    weights: str | None = None
    """Key of the weights in a file that holds several, e.g. `model_ema`."""
    prefix: str | None = None
    """Prefix of the names of tensors that are taken from the file."""
    init_seed: int = 0
    """Draws the initial weights."""
    order_seed: int = 0
    """Draws the order of the examples, their augmentation, and dropout."""
    split_from: str | None = None
    """The run of which this one is a copy for its first `split_epoch` epochs."""
    split_epoch: Annotated[int, Field(ge=0)] = 0
    shared_order_seed: int = 0
    """The order seed of the run that this one is a copy of, which draws in the epochs that both share."""
    model: ModelOptions = ModelOptions()
    training: TrainingOptions = TrainingOptions()
    fingerprint: str = ""
    """Digest of all that decides the weights: snapshots and series of another one are not used."""

    @property
    def full_name(self) -> str:
        """The name with the task: `clipart.pt_1`."""
        return f"{self.task}.{self.name}"

    def order_seed_in(self, epoch: int) -> int:
        """The seed that draws in an epoch, counted from 1: of a copy that of its parent up to the split."""
        return self.shared_order_seed if self.split_from is not None and epoch <= self.split_epoch else self.order_seed

    @property
    def node(self) -> NodeName:
        """The node that trains it, or takes in its file: `clipart.training.pt_1`."""
        return RunName(self.task, self.name).node

    @property
    def columns(self) -> dict[str, str]:
        """Columns that name the run in a table."""
        return {"task": self.task, "run": self.name, "label": self.label}


def printed_names(runs: Iterable[RunSpec]) -> dict[str, str]:
    """Labels of single runs by full name, and of files of one series as much of their paths as tells them apart."""
    names: dict[str, str] = {}
    series: dict[tuple[str, str], list[RunSpec]] = {}
    for run in runs:
        names[run.full_name] = run.label
        if run.in_series:
            series.setdefault((run.task, run.kind), []).append(run)
    for files in series.values():
        parts = [PurePath(str(run.checkpoint)).with_suffix("").parts for run in files]
        for length in range(1, max(map(len, parts)) + 1):
            ends = ["/".join(part[-length:]) for part in parts]
            if len(set(ends)) == len(ends):
                break
        names |= {run.full_name: end for run, end in zip(files, ends, strict=True)}
    return names
