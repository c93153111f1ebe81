"""The checkpoints of one run: which epochs there are, which is best and final, and whether a copy has the same."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from transferscope.experiment.names import CheckpointName, Epoch, RunName
from transferscope.experiment.run_groups import present_node
from transferscope.models.checkpoint import Checkpoint, load_checkpoint
from transferscope.models.hub_cache import local_path
from transferscope.system.errors import UserError
from transferscope.system.references import allow, is_reference
from transferscope.system.stored import DamagedError, check, read_json, seal_of, write_json

log = logging.getLogger(__name__)

INDEX = "series.json"
Status = Literal["finished", "diverged"]


@dataclass(frozen=True)
class CheckpointSeries:
    """Checkpoints of a run by epoch; nothing is read before `load`."""

    name: str
    """`task.run`, as in `clipart.pt_1`."""
    files: Mapping[int, Path]
    best: int
    final: int
    fingerprint: str | None = None
    """Digest of the part of the plan that made the run."""
    status: Status = "finished"
    folder: Path | None = None
    about: Mapping[str, Any] | None = None
    """Metadata that files made elsewhere lack; what contradicts a file is an error."""
    weights: str | None = None
    """Key of the weights in files that hold several, e.g. `model_ema`."""
    prefix: str | None = None
    """Prefix of the names that are taken from files made elsewhere."""
    digests: Mapping[int, str] = field(default_factory=dict)
    """The digest that the file of each epoch must bear; empty for files made elsewhere."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Digests of what the run was trained on, by part (`train`, `test`, ...), and of what it started from."""

    @classmethod
    def open(cls, folder: str | Path) -> CheckpointSeries:
        """Open a folder with an index (`write_series`).

        Raises UserError if it has none or lacks a file it lists, DamagedError where the index is not as written.
        Checkpoints are verified when they are loaded, or all by `check`.
        """
        folder = Path(folder)
        index = read_index(folder)
        name = f"{index['task']}.{index['run']}"
        files = {epoch: folder / epoch_file(epoch) for epoch in index["epochs"]}
        for path in files.values():
            if not path.is_file():
                raise DamagedError(path, f"it is missing, and {INDEX} lists it", repair_command(name))
        return cls(
            name,
            files,
            index["best"],
            index["final"],
            index["fingerprint"],
            index["status"],
            folder,
            digests={int(epoch): digest for epoch, digest in index["digests"].items()},
            inputs=index.get("inputs", {}),
        )

    @classmethod
    def from_file(
        cls, path: str | Path, name: str, *, weights: str | None = None, prefix: str | None = None, **about: Any
    ) -> CheckpointSeries:
        """A series of the one checkpoint in a file, which is its best and its final.

        `weights` and `prefix` choose among what the file holds, as for `load_checkpoint`.

        `about` fills metadata that the file lacks (`architecture`, `model_options`, `num_classes`, `class_names`, ...).
        A file that does not say its epoch counts as epoch 1: 0 would mean untrained. Metadata that contradict the file
        are a UserError when it is loaded.
        """
        metadata = load_checkpoint(path, weights=weights, prefix=prefix, values=False).metadata
        epoch = 1 if metadata.epoch is None else metadata.epoch
        fingerprint = metadata.fingerprint
        return cls.from_files({epoch: path}, name, fingerprint=fingerprint, weights=weights, prefix=prefix, **about)

    @classmethod
    def from_files(
        cls,
        files: Mapping[int, str | Path],
        name: str,
        *,
        best: int | None = None,
        final: int | None = None,
        fingerprint: str | None = None,
        weights: str | None = None,
        prefix: str | None = None,
        **about: Any,
    ) -> CheckpointSeries:
        """A series of files made elsewhere, by epoch; `final` is the last unless given, `best` the final.

        With `architecture` among `about`, the weights are loaded under the architecture's own names.
        """
        if not files:
            raise UserError(f"{name} has no files: give the path of a checkpoint for each epoch")
        paths = {epoch: local_path(files[epoch]) for epoch in sorted(files)}
        for path in paths.values():
            if not path.exists():
                raise UserError(f"checkpoint {path} of {name} does not exist: check the path")
        if is_reference(about.get("architecture") or ""):
            allow(about["architecture"])
        last = max(paths) if final is None else final
        return cls(
            name, paths, last if best is None else best, last, fingerprint, about=about, weights=weights, prefix=prefix
        )

    @property
    def epochs(self) -> tuple[int, ...]:
        """Saved epochs in order; 0 is the untrained model."""
        return tuple(self.files)

    def epoch(self, which: Epoch) -> int:
        """The number of an epoch that exists. Raises UserError that lists those which do."""
        number = {"best": self.best, "final": self.final}.get(which, which) if isinstance(which, str) else which
        if number not in self.files:
            known = ", ".join(str(epoch) for epoch in self.epochs)
            raise UserError(f"{self.name} has no checkpoint of epoch {which}: there are {known}, best and final")
        assert isinstance(number, int)
        return number

    def reached(self, epochs: Iterable[int]) -> list[int]:
        """Those of `epochs` that a run came to before it diverged; of a run that did not, all."""
        return [epoch for epoch in epochs if self.status != "diverged" or epoch <= self.final]

    def path(self, which: Epoch) -> Path:
        """File of an epoch."""
        return self.files[self.epoch(which)]

    def load(self, which: Epoch = "final") -> Checkpoint:
        """Read the checkpoint of an epoch."""
        self._check_epoch(self.epoch(which))
        checkpoint = load_checkpoint(self.path(which), weights=self.weights, prefix=self.prefix)
        known = checkpoint.metadata
        for key, value in (self.about or {}).items():
            if getattr(known, key) not in (None, (), {}, value):
                raise UserError(f"checkpoint {checkpoint.path} has {key} {getattr(known, key)!r}, not {value!r}")
        changes: dict[str, Any] = {"epoch": self.epoch(which) if known.epoch is None else known.epoch}
        if isinstance(which, str):
            changes["epoch_name"] = which
        described = checkpoint.with_metadata(**(self.about or {}), **changes)
        return described.fitted() if (self.about or {}).get("architecture") else described

    def check(self) -> None:
        """Raise DamagedError where the file of an epoch is missing, damaged, or another than the run has written."""
        for epoch in self.digests:
            self._check_epoch(epoch)

    def _check_epoch(self, epoch: int) -> None:
        if not self.digests:
            return
        path, fix = self.files[epoch], repair_command(self.name)
        try:
            check(path)
        except FileNotFoundError:
            raise DamagedError(path, "it is missing", fix) from None
        except DamagedError as error:
            raise DamagedError(path, error.reason, fix) from None
        if seal_of(path) != self.digests[epoch]:
            raise DamagedError(path, f"it is another file than {INDEX} lists", fix)


class Checkpoints(Mapping[str, Checkpoint]):
    """Checkpoints of several runs by name, `clipart.pt_1@final`; each is read when it is asked for, and not kept.

    With `epoch` only those of it, else all that were saved.
    """

    def __init__(self, series: Iterable[CheckpointSeries], epoch: Epoch | None = None) -> None:
        self.series, self.epoch = {one.name: one for one in series}, epoch

    def __getitem__(self, name: str) -> Checkpoint:
        checkpoint = CheckpointName.parse(name)
        return self.series[str(checkpoint.run_name)].load(checkpoint.epoch)

    def __iter__(self) -> Iterator[str]:
        return (str(RunName.parse(name).at(epoch)) for name, one in self.series.items() for epoch in self._epochs(one))

    def __len__(self) -> int:
        return sum(len(self._epochs(one)) for one in self.series.values())

    def _epochs(self, one: CheckpointSeries) -> tuple[Epoch, ...]:
        return one.epochs if self.epoch is None else (self.epoch,)


def write_series(
    folder: str | Path,
    *,
    task: str,
    run: str,
    fingerprint: str,
    epochs: Iterable[int],
    best: int,
    final: int,
    status: Status = "finished",
    **extra: Any,
) -> CheckpointSeries:
    """Declare the checkpoints in `folder` a series, by writing its index atomically, and open it.

    The files (`epoch_file`) are there before, so a reader finds a whole series or none. The index lists the digests
    that they bear, so that the file of another epoch or run is noticed. `extra` stays in the index.
    """
    folder, epochs = Path(folder), sorted(epochs)
    index: dict[str, Any] = {"task": task, "run": run, "fingerprint": fingerprint, "status": status}
    index |= {"epochs": epochs, "best": best, "final": final}
    index["digests"] = {str(epoch): seal_of(folder / epoch_file(epoch)) for epoch in epochs}
    write_json(folder / INDEX, index | extra)
    return CheckpointSeries.open(folder)


def report_difference(copy: CheckpointSeries, parent: CheckpointSeries, split_epoch: int) -> float:
    """The largest difference of a weight at the last epoch up to the split that both keep; not 0 is a warning.

    copy: of the run `parent`, which goes its own way from `split_epoch` on. It trains the shared epochs again, from the
    same seeds. On the CPU, and on one kind of GPU with `training.deterministic`, that gives the same bytes.
    """
    shared = [epoch for epoch in copy.epochs if epoch <= split_epoch and epoch in parent.epochs]
    epoch = max(shared)  # epoch 0 is always kept
    own, other = (series.load(epoch).state_dict for series in (copy, parent))
    largest = max(float((own[key].double() - other[key].double()).abs().max()) for key in other if other[key].numel())
    if not all(torch.equal(own[key], other[key]) for key in other):
        log.warning(
            "%s is no exact copy of %s: at epoch %d, before they split, weights differ by up to %.1e; they were "
            "trained on different hardware, with several processes, or without training.deterministic",
            copy.name,
            parent.name,
            epoch,
            largest,
        )
    return largest


def epoch_file(epoch: int) -> str:
    """Name of the file of an epoch."""
    return f"epoch_{epoch:04d}.safetensors"


def read_index(folder: Path) -> dict[str, Any]:
    """The index of a series. UserError where there is none, DamagedError where it is not as it was written."""
    path = folder / INDEX
    if not path.is_file():
        raise UserError(f"{folder} is no checkpoint series: it has no {INDEX}; train the run or check the path")
    try:
        return read_json(path)
    except DamagedError as error:
        raise DamagedError(path, error.reason, "`kedro run` trains the run again") from None


def repair_command(name: str) -> str:
    """The command that repairs the run `task.run`, by the node that trains it alone or with others."""
    return f"`kedro run --nodes {present_node(RunName.parse(name))}` repairs it"
