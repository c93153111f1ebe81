"""Find the faults that show when every run is spelled out: epochs that are not kept, pairs that do not exist."""

from __future__ import annotations

from collections.abc import Iterator

from transferscope.experiment import options as opt
from transferscope.experiment.merges import faults_of_merging
from transferscope.experiment.names import Epoch
from transferscope.experiment.plan_type import Plan, treatment
from transferscope.experiment.run import RunSpec
from transferscope.experiment.run_groups import group_faults
from transferscope.experiment.study import pictures_of
from transferscope.experiment.study_faults import MAX_LISTED, all_known, twice, unknown


def faults_of_plan(plan: Plan) -> Iterator[str]:
    """Epochs that are not kept or not reached, and runs that the analyses name and the plan lacks."""
    for run in plan.runs.values():
        if run.split_from is not None and run.split_epoch >= run.training.epochs and run.replica == 1:
            last = run.training.epochs
            yield f"runs.{run.kind}.split_epochs: {run.split_epoch}, but {run.split_from} ends at epoch {last}"
    of_epochs = {variant.kind for variant in plan.variants if variant.epoch is not None}
    for kind, options in plan.study.runs.items():
        if options.pretrained in plan.runs:
            key = "source_epochs.epochs" if kind in of_epochs else f"runs.{kind}.pretrained_epoch"
            yield from _not_saved(key, options.pretrained_epoch, plan.runs[options.pretrained])
    yield from _faults_of_labels(plan)
    yield from group_faults(plan.runs)
    yield from _faults_of_compared(plan)
    yield from _pairs_of_none(plan)
    yield from _faults_of_shuffles(plan)
    yield from faults_of_merging(plan.study, plan.runs)
    spectrum, landscape = plan.study.analyses.spectrum, plan.study.analyses.landscape
    if spectrum:
        yield from all_known("analyses.spectrum.layer_pages", spectrum.layer_pages or (), plan.targets())
        yield from all_known("analyses.spectrum.network_tasks", spectrum.network_tasks or (), plan.study.tasks)
        trained = [run for run in plan.runs.values() if run.kind in spectrum.kinds and run.checkpoint is None]
        yield from _faults_of_spectrum(plan, spectrum)
        for epoch in spectrum.epochs:
            faults = [next(_not_saved("analyses.spectrum.epochs", epoch, run), None) for run in trained]
            if faults and faults[0] is not None and None not in faults:
                yield faults[0]
    if landscape:
        yield from _faults_of_planes(plan, landscape)
        if landscape.criticality:
            yield from _faults_of_criticality(plan, landscape.criticality)


def _faults_of_labels(plan: Plan) -> Iterator[str]:
    """Kinds with one label, of which figures draw one line, though their runs are no replicas of each other.

    A task's figures show its runs and those that they start from. Kinds of one role that are trained alike may share
    a label, as may those on different tasks, and files.
    """
    named: set[tuple[str, str]] = set()
    for task in (name for name in plan.study.tasks if name not in plan.views):
        starts = dict.fromkeys(run.pretrained for run in plan.runs_of(task))
        shown = [*plan.runs_of(task), *(plan.runs[name] for name in starts if name in plan.runs)]
        kinds: dict[str, RunSpec] = {}
        for run in shown:
            kinds.setdefault(run.kind, run)
        first: dict[str, RunSpec] = {}
        for run in kinds.values():
            other = first.setdefault(run.label, run)
            if run is other or (run.kind, other.kind) in named:
                continue
            if run.role != other.role:
                why = f"whose part on {task} is another ({other.role}, not {run.role})"
            elif run.role != "file" and treatment(run) != treatment(other):
                why = f"which is trained otherwise on {task}"
            else:
                continue
            named.add((run.kind, other.kind))
            yield (
                f"runs.{run.kind}.label: '{run.label}' is the label of {other.kind}, too, {why}, and figures draw one "
                "line for a label: choose another"
            )


def _faults_of_compared(plan: Plan) -> Iterator[str]:
    """Kinds that are chosen to be compared though they have no part in a comparison, or another one has theirs."""
    for task in plan.study.tasks:
        chosen: dict[str, RunSpec] = {}
        for run in plan.runs_of(task):
            if not plan.study.runs[run.kind].compared or run.replica > 1:
                continue
            key = f"runs.{run.kind}.compared"
            if run.role in ("source", "split"):
                of = "what others start from" if run.role == "source" else "copies"
                yield f"{key}: its runs on {task} are {of}, all of which are compared: remove it"
            elif treatment(run) != treatment(chosen.setdefault(run.role, run)):
                other = chosen[run.role].kind
                yield f"{key}: on {task} {other} is compared, which is trained otherwise: set it for one of the two"
    yield from _compared_without_pairs(plan)


def _compared_without_pairs(plan: Plan) -> Iterator[str]:
    """Analyses with pairs of another kind of a role than that which is chosen, so that claims would get no rows."""
    for name in ("mistakes", "similarity", "landscape"):
        options = getattr(plan.study.analyses, name)
        paired = {kind for pair in options.pairs for kind in pair} if options else set()
        for kind in (kind for kind, run in plan.study.runs.items() if run.compared and kind not in paired):
            roles = {(run.task, run.role) for run in plan.runs.values() if run.kind == kind}
            others = (run.kind for task, role in roles for run in plan.in_role(task, role) if run.kind in paired)
            if (other := next(others, None)) is not None:
                yield (
                    f"analyses.{name}.pairs: there are pairs of {other}, and {kind}, which is compared in its place, "
                    f"has none: write {kind} for {other}, or add pairs of it"
                )


def _faults_of_shuffles(plan: Plan) -> Iterator[str]:
    """Augmentation that moves pixels before they are shuffled: then no pixel has one place in all images."""
    for run in plan.runs.values():
        moving = run.training.augmentation.moving
        if run.checkpoint is None and moving and run.replica == 1 and pictures_of(plan.study, run.task).shuffle:
            yield (
                f"runs.{run.kind}.training_on.{run.task}.augmentation: {', '.join(moving)} would move pixels before "
                f"the shuffle of {run.task}, which then has no fixed places: set augmentation: {{}}, as in the paper"
            )


def _faults_of_spectrum(plan: Plan, spectrum: opt.SpectrumOptions) -> Iterator[str]:
    """The first checkpoint file of which no epoch is asked for: it has one, that is the best and the final one."""
    files = [run for run in plan.runs.values() if run.kind in spectrum.kinds and run.checkpoint is not None]
    if files and all(isinstance(epoch, int) for epoch in spectrum.epochs):
        name = files[0].full_name
        yield f"analyses.spectrum.epochs: {name} is a checkpoint file and has the epoch final alone: add it"


def _pairs_of_none(plan: Plan) -> Iterator[str]:
    """Pairs that a user lists and that no task has."""
    for name in ("mistakes", "similarity", "landscape"):
        options = getattr(plan.study.analyses, name)
        for kinds in options.pairs if options and "pairs" in options.model_fields_set else ():
            if not any(plan.pairs(task, [kinds]) for task in plan.targets()):
                why = "it has one run a task" if kinds[0] == kinds[1] else "no task has runs of both"
                yield f"analyses.{name}.pairs: [{', '.join(kinds)}] gives no pair to compare: {why}"
    landscape = plan.study.analyses.landscape
    yield from _lines_of_none(plan)
    for kinds in (landscape.connection.pairs or ()) if landscape and landscape.connection else ():
        if not any(plan.pairs(task, [kinds]) for task in plan.targets()):
            yield f"analyses.landscape.connection.pairs: [{', '.join(kinds)}] gives no pair on any task"


def _lines_of_none(plan: Plan) -> Iterator[str]:
    """Pairs of different networks, between whose weights there is no line; mistakes and features are comparable."""
    landscape = plan.study.analyses.landscape
    for kinds in landscape.pairs if landscape else ():
        pairs = [pair for task in plan.targets() for pair in plan.pairs(task, [kinds])]
        other = next((pair for pair in pairs if not pair.same_network), None)
        if other is not None:
            names = " and ".join(run.model.name for run in (other.run_a, other.run_b))
            yield (
                f"analyses.landscape.pairs: [{', '.join(kinds)}] are different networks ({names}), and between them is "
                "no line: remove the pair"
            )


def _faults_of_planes(plan: Plan, landscape: opt.LandscapeOptions) -> Iterator[str]:
    for plane in landscape.planes:
        runs = {run.name: run for run in plan.runs_of(plane.task)}
        where = f"analyses.landscape.planes ({plane.name}).checkpoints"
        yield from twice(where, plane.checkpoints)
        for name in plane.names:
            if name.run not in runs:
                yield unknown(where, name.run, runs)
            else:
                yield from _not_saved(where, name.epoch, runs[name.run])


def _faults_of_criticality(plan: Plan, options: opt.CriticalityOptions) -> Iterator[str]:
    key, names = "analyses.landscape.criticality", {run.name for run in plan.runs.values()}
    yield from all_known(f"{key}.runs", options.runs, names)
    tasks = set(options.tasks or plan.targets())
    runs = [run for run in plan.runs.values() if run.name in options.runs and run.task in tasks]
    for epoch in options.rewind_epochs:
        faults = [fault for run in runs for fault in _not_saved(f"{key}.rewind_epochs", epoch, run)]
        if faults:
            yield faults[0] + (f" ({len(faults) - 1} other runs lack it, too)" if len(faults) > 1 else "")


def _not_saved(key: str, epoch: Epoch, run: RunSpec) -> Iterator[str]:
    """An epoch by number is one that the run will save; which one is the best is not known before."""
    training = run.training
    if not isinstance(epoch, int) or run.checkpoint is not None:
        return
    kept = range(training.epochs) if training.keep_epochs == "all" else training.keep_epochs
    saved = {0, *(other for other in kept if other < training.epochs), training.epochs}
    if epoch not in saved:
        shown = sorted(saved)
        epochs = ", ".join(map(str, shown if len(shown) <= MAX_LISTED else [*shown[:MAX_LISTED], "..."]))
        yield (
            f"{key}: {run.full_name} does not keep epoch {epoch}, only {epochs}, and best; "
            "its training.keep_epochs says which"
        )
