"""Merges of a study, spelled out: which runs, their parent, and what the result is held against."""

from __future__ import annotations

from collections.abc import Iterator

from transferscope.experiment import options as opt
from transferscope.experiment.names import Epoch, RunName
from transferscope.experiment.run import RunSpec
from transferscope.experiment.study import Study, is_multi_label

Runs = dict[str, RunSpec]

ACROSS = "cross_domain"
"""The scope of results that belong to several tasks."""


class MergeSpec(opt.Options):
    """Runs that are merged, by full name."""

    name: str
    """That of the options, with the replica's number where kinds of run are merged."""
    group: str
    """That of the options."""
    label: str
    """The printed name of the candidates: `P-T`."""
    candidates: tuple[str, ...]
    parent: str | None = None
    parent_epoch: Epoch = "final"
    union: str | None = None
    tasks: tuple[str, ...]
    """Tasks on whose images the merge is judged."""
    methods: tuple[opt.MergeMethod, ...] | None = None

    @property
    def scope(self) -> str:
        """The task that the results belong to, or `cross_domain`."""
        return self.tasks[0] if len(self.tasks) == 1 else ACROSS


def merges_of(study: Study, runs: Runs) -> list[MergeSpec]:
    """Every merge of a valid study, in its order."""
    merging = study.analyses.merging
    return [spec for options in (merging.merges if merging else ()) for spec in _specs(study, runs, options)]


def _specs(study: Study, runs: Runs, options: opt.MergeOptions) -> Iterator[MergeSpec]:
    merging = study.analyses.merging
    assert merging is not None
    for replica in _replicas(runs, options):
        names = tuple(_named(name, replica, runs) for name in options.candidates)
        first = [runs[name] for name in names]
        parent, epoch = _parent(first, options)
        methods = options.methods or merging.methods
        yield MergeSpec(
            name=options.name if replica is None else f"{options.name}_{replica}",
            group=options.name,
            label=" & ".join(dict.fromkeys(run.label for run in first)),
            candidates=names,
            parent=parent,
            parent_epoch=epoch,
            union=None if options.union is None else _nearest(options.union, replica, runs),
            tasks=tuple(dict.fromkeys(options.evaluated_on or (run.task for run in first))),
            methods=methods,
        )


def _replicas(runs: Runs, options: opt.MergeOptions) -> list[int | None]:
    """The replicas of which there is a merge each; none of them where runs are named."""
    if all(name in runs for name in options.candidates):
        return [None]
    number = min(_count(name, runs) for name in options.candidates)
    return list(range(1, number + 1))


def _count(kind: str, runs: Runs) -> int:
    named = RunName.parse(kind)
    return sum(run.task == named.task and run.kind == named.run for run in runs.values())


def _named(name: str, replica: int | None, runs: Runs) -> str:
    return name if name in runs else f"{name}_{replica}"


def _nearest(name: str, replica: int | None, runs: Runs) -> str:
    """A run, or that of a kind with the replica's number, or the first where there are fewer."""
    if name in runs:
        return name
    return f"{name}_{replica}" if f"{name}_{replica}" in runs else f"{name}_1"


def _parent(candidates: list[RunSpec], options: opt.MergeOptions) -> tuple[str | None, Epoch]:
    """The parent and its epoch; shared: what all candidates start from, if it is a run and there is one."""
    starts = {(run.pretrained, run.pretrained_epoch) for run in candidates}
    if options.parent != "shared":
        epochs = {epoch for start, epoch in starts if start == options.parent}
        return options.parent, epochs.pop() if len(epochs) == 1 else "final"
    (parent, epoch) = next(iter(starts)) if len(starts) == 1 else (None, "final")
    return parent, epoch


def faults_of_merging(study: Study, runs: Runs) -> Iterator[str]:
    """Names that do not exist, merges that cannot be, and names that are there twice."""
    merging = study.analyses.merging
    for options in merging.merges if merging else ():
        yield from _faults_of_merge(study, runs, options)
    names = [options.name for options in merging.merges] if merging else []
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            yield f"analyses.merging.merges: the name {name} is there {names.count(name)} times; give each its own"


def _faults_of_merge(study: Study, runs: Runs, options: opt.MergeOptions) -> Iterator[str]:
    where = f"analyses.merging.merges ({options.name})"
    named = {"candidates": options.candidates}
    named["parent"] = (options.parent,) if options.parent not in (None, "shared") else ()
    named["union"] = (options.union,) if options.union is not None else ()
    unknown = False
    for key, names in named.items():
        for name in names:
            if name not in runs and (key == "parent" or not _count(name, runs)):
                unknown = True
                task = RunName.parse(name).task
                known = [run.full_name for run in runs.values() if run.task == task] or sorted(study.tasks)
                sort = "no run" if key == "parent" else "no run or kind of run"
                yield f"{where}.{key}: {name} is {sort}; there are: {', '.join(known[:MOST_LISTED])}"
    for task in options.evaluated_on or ():
        if task not in study.tasks:
            unknown = True
            yield f"{where}.evaluated_on: '{task}' is unknown; allowed: {', '.join(sorted(study.tasks))}"
    if unknown:
        return
    single = [name in runs for name in options.candidates]
    if any(single) != all(single):
        yield f"{where}.candidates: give either runs, as {options.candidates[single.index(True)]}, or kinds of run"
        return
    for spec in _specs(study, runs, options):
        fault = _fault_of_spec(study, runs, spec)
        if fault:
            yield f"{where}: {fault}"
            return


MOST_LISTED = 20


def _fault_of_spec(study: Study, runs: Runs, spec: MergeSpec) -> str | None:
    """List reasons for which a merge cannot be, as far as the plan knows."""
    first = runs[spec.candidates[0]]
    for name in spec.candidates:
        if runs[name].model != first.model:
            return f"{first.full_name} and {name} have different networks: merge runs of one architecture"
    if len(spec.candidates) == 1 and spec.parent is None:
        return "one candidate has nothing to be merged with: give another one, or its parent"
    orphans = [method for method in spec.methods or () if method in opt.FROM_PARENT] if spec.parent is None else []
    if orphans:
        return f"{', '.join(orphans)} start from a parent, and the candidates have none in common: name it as parent"
    if len(spec.candidates) == 1 and set(spec.methods or ()) - set(opt.FROM_PARENT):
        return "one candidate can only be merged with its parent, by wise_ft, task_arithmetic or ties"
    if spec.parent is not None and spec.parent not in runs:
        return f"the parent {spec.parent} is a file: name a run that takes it in (key checkpoint), or give parent: null"
    blind = [task for task in spec.tasks if not study.tasks[task].has_images]
    if len(blind) == len(study.tasks):  # weights alone are compared, and the merge is left out as all that needs images
        return None
    if blind:
        return f"{blind[0]} has no images, by which a merge is judged: give evaluated_on"
    kinds = {is_multi_label(study, task): task for task in reversed(spec.tasks)}
    if len(kinds) > 1:
        single, several = kinds[False], kinds[True]
        return f"images of {single} have one label each and those of {several} several: give evaluated_on"
    return None
