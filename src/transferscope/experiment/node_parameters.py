"""Parts of the plan as the parameters hold them; Kedro validates them into these types before any node runs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import RootModel

from transferscope.experiment import options as opt
from transferscope.experiment.names import Epoch, PairName, RunName
from transferscope.experiment.pairs import Pair
from transferscope.experiment.plan import Plan
from transferscope.experiment.run import Role, RunSpec
from transferscope.experiment.study import pictures_of


class PairSpec(opt.Options):
    """Two runs that are compared, by name."""

    kind: str
    """Row of the paper's tables that the pair belongs to."""
    run_a: str
    """Full name, `clipart.pt_1`."""
    run_b: str
    label_a: str
    label_b: str
    scenario: str | None = None
    """Figure of a pair that lies across two tasks."""
    evaluated_on: str | None = None
    """Task on whose images such a pair is measured."""

    @classmethod
    def of(cls, pair: Pair, **more: str) -> PairSpec:
        """Describe a pair of the plan."""
        a, b = pair.run_a, pair.run_b
        return cls(kind=pair.kind, run_a=a.full_name, run_b=b.full_name, label_a=a.label, label_b=b.label, **more)

    def as_parameters(self) -> dict[str, Any]:
        """The fields that are set, as parameters hold them."""
        return self.model_dump(mode="json", exclude_none=True)

    def at(self, epoch_a: Epoch, epoch_b: Epoch | None = None) -> PairName:
        """The checkpoints of both runs at an epoch, or at one each."""
        second = epoch_a if epoch_b is None else epoch_b
        return PairName(RunName.parse(self.run_a).at(epoch_a), RunName.parse(self.run_b).at(second))

    def columns(self, epoch_a: Epoch, epoch_b: Epoch | None = None) -> dict[str, str]:
        """Columns that name the pair in a table: pair_kind, checkpoint_a, checkpoint_b."""
        names = self.at(epoch_a, epoch_b)
        return {"pair_kind": self.kind, "checkpoint_a": str(names.first), "checkpoint_b": str(names.second)}


class Pairs(RootModel[tuple[PairSpec, ...]]):
    """Pairs that one node measures."""


class VariedRun(opt.Options):
    """A run of feature reuse or of source epochs, and what it varies; `whole` are those that the others vary."""

    run: str
    """Full name, `clipart__blocks_4.pt_shuffled_1`."""
    origin: str
    """The kind that is varied, `pt`."""
    label: str
    """That of the kind that is varied, `P-T`."""
    role: Role
    replica: int
    series: Literal["whole", "blocks", "each", "control", "epoch"]
    size: opt.BlockSize
    """Side of the blocks in pixels; of whole images their own side."""
    side: int
    part: str = ""
    """Taken of the pre-trained model, or trained: statistics, frozen, or the last module; empty: everything."""
    source_epoch: Epoch | None = None
    """The epoch of the pre-trained model that the run starts from."""

    @classmethod
    def of(cls, plan: Plan, task: str) -> list[VariedRun]:
        """The runs that vary those of a task, and before them those that are varied and those from scratch."""
        own = [variant for variant in plan.variants if variant.task == task]
        side = pictures_of(plan.study, task).seen_size
        origins, scratch = {variant.origin for variant in own}, plan.compared(task, "from_scratch")
        runs = [
            cls._of(run, origin=run.kind, label=run.label, series="whole", size=side, side=side)
            for run in plan.runs_of(task)
            if run.kind in origins or run in scratch
        ]
        for variant in own:
            values = {"origin": variant.origin, "label": plan.study.runs[variant.origin].label, "part": variant.part}
            runs += [
                cls._of(run, series=variant.series, size=variant.size or side, side=side, **values)
                for run in plan.runs_of(variant.view)
                if run.kind == variant.kind
            ]
        return runs

    @classmethod
    def _of(cls, run: RunSpec, **values: Any) -> VariedRun:
        epoch = run.pretrained_epoch if run.initialisation == "pretrained" else None
        return cls(run=run.full_name, role=run.role, replica=run.replica, source_epoch=epoch, **values)


class VariedRuns(RootModel[tuple[VariedRun, ...]]):
    """All runs of a task's feature reuse and source epochs."""


class Runs(RootModel[tuple[RunSpec, ...]]):
    """All runs of a task, in the order of the plan."""


class PartSpec(opt.Options):
    """Settings under which one part of a task is packed."""

    task: str
    part: str
    pictures: opt.PictureOptions
    on_bad_image: Literal["stop", "drop"]
    num_workers: int | None
    value_range: tuple[float, float] | None = None
