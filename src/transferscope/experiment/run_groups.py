"""Groups of runs that are trained as one, where `training.together` asks for it.

A group is of one task and one network, and its runs may start at the same time. Their trainings differ in nothing but
the learning rate, its schedule, and what is kept. `training.together` has the training itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from transferscope.experiment.names import NodeName, RunName
from transferscope.experiment.run import RunSpec

SCHEDULE = ("lr", "scale_lr_by_batch", "milestones", "decay_factor", "warmup_fraction")
"""Options of the learning rate, in which runs of a group may differ."""

OF_THE_RUN = {*SCHEDULE, "keep_epochs", "snapshot_seconds", "max_restarts", "channels_last"}
"""Options of a training in which runs of a group may differ. The memory format is that of all runs side by side."""

UPDATE_BY_ELEMENT = (
    "SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Adagrad", "Adadelta", "Rprop", "ASGD",
)  # fmt: skip
"""torch's optimizers that update each weight by its own gradients, so that it does not matter what lies beside it."""


@dataclass(frozen=True)
class RunGroup:
    """Runs of one task that are trained as one, two or more; those of one schedule are neighbours."""

    runs: tuple[RunSpec, ...]

    @property
    def node(self) -> NodeName:
        """The node that trains them: `clipart.training.pt_1_and_3_more`."""
        first = self.runs[0]
        return NodeName("training", f"{first.name}_and_{len(self.runs) - 1}_more", first.task)


def run_groups(runs: Mapping[str, RunSpec]) -> list[RunGroup]:
    """The groups of a plan, in the order of their first runs.

    Runs that start from random weights are not in one group with those that start from another run, and those with
    none of their copies. So no group waits for itself, and no run from scratch for another one.

    runs: by full name, what others start from first.
    """
    depths: dict[str, int] = {}
    groups: dict[object, list[RunSpec]] = {}
    for name, run in runs.items():
        before = [depths[parent] for parent in (run.pretrained, run.split_from) if parent in depths]
        depths[name] = 1 + max(before) if before else 0
        if run.checkpoint is None and run.training.together:
            training = run.training.model_dump_json(exclude=OF_THE_RUN)
            key = (run.task, depths[name], run.model.model_dump_json(), training)
            groups.setdefault(key, []).append(run)
    return [RunGroup(_by_schedule(group)) for group in groups.values() if len(group) > 1]


def _by_schedule(runs: list[RunSpec]) -> tuple[RunSpec, ...]:
    first: dict[str, int] = {}
    places = [first.setdefault(run.training.model_dump_json(include=set(SCHEDULE)), i) for i, run in enumerate(runs)]
    return tuple(runs[i] for i in sorted(range(len(runs)), key=places.__getitem__))


def group_faults(runs: Mapping[str, RunSpec]) -> Iterator[str]:
    """A line for each kind of run that is to be trained together, and has an option for runs that are trained alone."""
    for run in {run.kind: run for run in runs.values() if run.checkpoint is None and run.training.together}.values():
        training = run.training
        optimizer = "SGD" if training.optimizer is None else training.optimizer.name
        alone = {
            "compile: true": training.compile,
            f"num_processes: {training.num_processes}": training.num_processes != 1,
            f"num_nodes: {training.num_nodes}": training.num_nodes != 1,
            "precision: float16": training.precision == "float16",
            f"optimizer: {optimizer}": optimizer not in UPDATE_BY_ELEMENT,
        }
        found = next((option for option, asked in alone.items() if asked), None)
        if found is not None:
            yield (
                f"runs.{run.kind}: training.{found} is for runs that are trained alone: change it, or set "
                "training.together to false"
            )


def node_names(runs: Mapping[str, RunSpec], groups: list[RunGroup]) -> dict[str, NodeName]:
    """The node that trains, or takes in, each run by its full name."""
    grouped = {run.full_name: group.node for group in groups for run in group.runs}
    return {name: grouped.get(name, RunName(run.task, run.name).node) for name, run in runs.items()}


_present: Callable[[], Mapping[str, NodeName]] = dict


def present_nodes(find: Callable[[], Mapping[str, NodeName]]) -> None:
    """Take the nodes of a plan for those that messages name. `find` is called for a message alone."""
    global _present
    _present = find


def present_node(run: RunName) -> NodeName:
    """The node that trains a run in the present plan; that of the run alone where no plan has it."""
    return _present().get(str(run), run.node)
