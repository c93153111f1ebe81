"""Names of runs, checkpoints, pairs, nodes and entries of the catalog as types: `parse` reads what `str` writes.

| type | written as |
|---|---|
| `RunName(task, run)` | `clipart.pt_1` |
| `CheckpointName(task, run, epoch)` | `clipart.pt_1@final` |
| `PairName(first, second)` | `clipart.pt_1@final & clipart.rit_1@final` |
| `NodeName(pipeline, node, task)` | `clipart.mistakes.draw_mistakes`, `report.write_report` |
| `Namespace(pipeline, task)` | `clipart.mistakes`, `report` |
| `EntryName(form, task, of)` | `clipart.pt_1.history`, `clipart.mistakes.table`, `clipart.source`, `claims` |

All are immutable and may be keys of a dict. A name that cannot be is a `UserError` that shows the name and the form.
Namespaces and entries may be of the user's own pipelines, so every text is read as one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast

from transferscope.system.errors import UserError

Epoch = int | Literal["best", "final"]
"""A number of epochs trained, or the name of one."""

NAMED_EPOCHS = ("best", "final")
_WORD = re.compile(r"[a-z][a-z0-9_]*")
_RUN = re.compile(r"(?:(?P<task>[^.@& ]+)\.)?(?P<run>[^.@& ]+)")
_CHECKPOINT = re.compile(rf"{_RUN.pattern}(?:@(?P<epoch>[^.@& ]+))?")
_REPLICA = re.compile(r"(?P<kind>.+?)(?:_(?P<replica>\d+))?")
_NODE = re.compile(r"(?:(?P<task>[^.@& ]+)\.)?(?P<pipeline>[^.@& ]+)\.(?P<node>[^.@& ]+)")


VIEW_SIGN = "__"
"""Between a task and its view in the name of a task that only shows the images of another: `clipart__blocks_4`."""


def split_view(task: str) -> tuple[str, str]:
    """The task whose images are shown, and the view; empty of a task of its own."""
    base, _, view = task.partition(VIEW_SIGN)
    return base, view


CHECKPOINT_SUFFIXES = (".safetensors", ".pt", ".pth", ".tar", ".ckpt", ".bin")


def is_checkpoint_path(text: str) -> bool:
    """True if a text is the path of a checkpoint rather than a run's name; a file of another suffix needs a folder."""
    return "/" in text or "\\" in text or text.lower().endswith(CHECKPOINT_SUFFIXES)


@dataclass(frozen=True, order=True)
class RunName:
    """A run of a task: `clipart.pt_1`."""

    task: str
    run: str

    def __post_init__(self) -> None:
        _check_word("task", self.task)
        _check_word("run", self.run)

    def __str__(self) -> str:
        return f"{self.task}.{self.run}"

    @classmethod
    def parse(cls, text: str, task: str | None = None) -> RunName:
        """Read `clipart.pt_1`; with `task` given, `pt_1` is a run of that task.

        Raises:
            UserError: the text has another form, or names no task where none is given.
        """
        match = _match(_RUN, text, "a run's name", "task.run, as in clipart.pt_1")
        return cls(_task_of(match, task, text), match["run"])

    @property
    def runs(self) -> tuple[RunName, ...]:
        """The run itself, so that runs and pairs can be counted alike."""
        return (self,)

    @property
    def kind(self) -> str:
        """The name without the number of the replica: `pt` of `pt_1`."""
        return cast(re.Match[str], _REPLICA.fullmatch(self.run))["kind"]

    @property
    def replica(self) -> str:
        """The number of the replica as it is written: `1` of `pt_1`; empty where there is none."""
        return cast(re.Match[str], _REPLICA.fullmatch(self.run))["replica"] or ""

    @property
    def node(self) -> NodeName:
        """The node that trains the run, or takes in its file: `clipart.training.pt_1`.

        That of a run on a view of a task's images, `clipart__blocks_4`, is in the box of the task.
        """
        task, view = split_view(self.task)
        return NodeName("feature_reuse", f"{view}_{self.run}", task) if view else NodeName("training", self.run, task)

    def at(self, epoch: Epoch) -> CheckpointName:
        """The checkpoint of the run at an epoch."""
        return CheckpointName(self.task, self.run, epoch)


@dataclass(frozen=True)
class CheckpointName:
    """The weights of a run at an epoch: `clipart.pt_1@final`, `clipart.pt_1@best`, `clipart.pt_1@0`."""

    task: str
    run: str
    epoch: Epoch = "final"

    def __post_init__(self) -> None:
        _check_word("task", self.task)
        _check_word("run", self.run)
        is_number = isinstance(self.epoch, int) and not isinstance(self.epoch, bool) and self.epoch >= 0
        if not is_number and self.epoch not in NAMED_EPOCHS:
            raise UserError(f"epoch {self.epoch!r} of {self.task}.{self.run}: give best, final or a number from 0 on")

    def __str__(self) -> str:
        return f"{self.task}.{self.run}@{self.epoch}"

    @classmethod
    def parse(cls, text: str, task: str | None = None) -> CheckpointName:
        """Read `clipart.pt_1@final`; without `@` it is the final epoch, and with `task` given the task may be missing.

        Raises:
            UserError: the text has another form, or names no task where none is given.
        """
        match = _match(_CHECKPOINT, text, "a checkpoint's name", "task.run@epoch, as in clipart.pt_1@final")
        epoch = match["epoch"] or "final"
        number = int(epoch) if epoch.isascii() and epoch.isdigit() else epoch
        return cls(_task_of(match, task, text), match["run"], cast(Epoch, number))  # checked by the class

    @property
    def run_name(self) -> RunName:
        """The run that the weights belong to."""
        return RunName(self.task, self.run)


@dataclass(frozen=True)
class PairName:
    """Two checkpoints that are compared: `clipart.pt_1@final & clipart.rit_1@final`."""

    first: CheckpointName
    second: CheckpointName

    def __str__(self) -> str:
        return f"{self.first} & {self.second}"

    @classmethod
    def parse(cls, text: str) -> PairName:
        """Read two checkpoints with ` & ` between them.

        Raises:
            UserError: there are not two of them, or one has another form.
        """
        sides = text.split(" & ")
        if len(sides) != 2:
            raise UserError(f"'{text}' is not a pair's name: give two checkpoints, as in clipart.pt_1 & clipart.rit_1")
        return cls(CheckpointName.parse(sides[0]), CheckpointName.parse(sides[1]))

    @property
    def runs(self) -> tuple[RunName, RunName]:
        """The runs of both checkpoints."""
        return self.first.run_name, self.second.run_name

    @property
    def stem(self) -> str:
        """The pair in names of files and catalog entries: `pt_1__rit_1`, across tasks `clipart_pt_1__shapes_p_1`."""
        a, b = self.runs
        return f"{a.run}__{b.run}" if a.task == b.task else f"{a.task}_{a.run}__{b.task}_{b.run}"


@dataclass(frozen=True)
class NodeName:
    """A node of a pipeline, of one task or of all: `clipart.mistakes.draw_mistakes`, `report.write_report`."""

    pipeline: str
    node: str
    task: str | None = None

    def __post_init__(self) -> None:
        _check_word("pipeline", self.pipeline)
        _check_word("node", self.node)
        if self.task is not None:
            _check_word("task", self.task)

    def __str__(self) -> str:
        return f"{self.namespace}.{self.node}"

    @classmethod
    def parse(cls, text: str) -> NodeName:
        """Read `task.pipeline.node`, or `pipeline.node` of a node that belongs to no task.

        Raises:
            UserError: the text has another form.
        """
        match = _match(_NODE, text, "a node's name", "task.pipeline.node or pipeline.node")
        return cls(match["pipeline"], match["node"], match["task"])

    @property
    def namespace(self) -> Namespace:
        """Kedro's namespace of the node."""
        return Namespace(self.pipeline, self.task)


@dataclass(frozen=True)
class Namespace:
    """The nodes of a pipeline for one task, or for all: `clipart.mistakes`, `report`."""

    pipeline: str
    task: str | None = None

    def __str__(self) -> str:
        return self.pipeline if self.task is None else f"{self.task}.{self.pipeline}"

    @classmethod
    def parse(cls, text: str) -> Namespace:
        """Read `task.pipeline` or `pipeline`."""
        task, _, pipeline = text.rpartition(".")
        return cls(pipeline, task or None)

    @classmethod
    def of_node(cls, name: str) -> Namespace | None:
        """The namespace of the node with this full name; None of a node that is in none."""
        space = cls.parse(name).task
        return None if space is None else cls.parse(space)

    @property
    def levels(self) -> tuple[str, ...]:
        """This namespace and those around it, the outermost first: `clipart`, `clipart.mistakes`."""
        return (str(self),) if self.task is None else (*Namespace.parse(self.task).levels, str(self))


@dataclass(frozen=True)
class EntryName:
    """An entry of the catalog: a form, and the task and the run, pair or analysis that it is of.

    `clipart.pt_1.history`, `clipart.mistakes.table`, `clipart.source`, `claims`.
    """

    form: str
    task: str | None = None
    of: str | None = None

    def __str__(self) -> str:
        return ".".join(part for part in (self.task, self.of, self.form) if part is not None)

    @classmethod
    def parse(cls, text: str) -> EntryName:
        """Read `form`, `task.form` or `task.of.form`."""
        rest, _, form = text.rpartition(".")
        task, _, of = rest.partition(".")
        return cls(form, task or None, of or None)

    @property
    def owner(self) -> str:
        """The task, run, pair or analysis of a task that the entry is of: `clipart.pt_1` of `clipart.pt_1.history`."""
        return ".".join(part for part in (self.task, self.of) if part is not None)


def _check_word(part: str, text: str) -> None:
    if not isinstance(text, str) or not _WORD.fullmatch(text):
        raise UserError(f"{part} {text!r}: give lower-case letters, digits and _, beginning with a letter")


def _match(pattern: re.Pattern[str], text: str, kind: str, form: str) -> re.Match[str]:
    match = pattern.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise UserError(f"{text!r} is not {kind}: give {form}")
    return match


def _task_of(match: re.Match[str], task: str | None, text: str) -> str:
    if match["task"] is None and task is None:
        raise UserError(f"'{text}' names no task: give task.run, as in clipart.pt_1")
    return match["task"] or str(task)
