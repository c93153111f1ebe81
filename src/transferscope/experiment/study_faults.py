"""Find the faults of a study that no single option shows: unknown names, repetitions, wrong starts, too many runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from transferscope.experiment import options as opt
from transferscope.experiment.expansion import copies_of, in_order_of_need
from transferscope.experiment.names import is_checkpoint_path
from transferscope.experiment.study import RunKindOptions, Study, pictures_of
from transferscope.experiment.validation_messages import listed

MAX_RUNS = 20_000
"""Runs of a study."""
MAX_PAIRS = 1_000_000
"""Pairs of an analysis, over all tasks."""
MAX_LISTED = 20


def faults_of_study(study: Study) -> Iterator[str]:
    """The faults of tasks, kinds of run and analyses; those of starts come when these have none."""
    yield from _faults_of_tasks(study)
    yield from _faults_of_kinds(study)
    yield from _faults_of_analyses(study)


def _faults_of_tasks(study: Study) -> Iterator[str]:
    for name, options in study.tasks.items():
        if not options.has_images:
            yield from _faults_without_images(study, name)
        for part in options.union or ():
            if part not in study.tasks:
                yield unknown(f"tasks.{name}.union", part, study.tasks)
            elif study.tasks[part].union:
                yield f"tasks.{name}.union: '{part}' is a union itself; name the single tasks"
            else:
                yield from _faults_of_part(study, name, part)
        yield from twice(f"tasks.{name}.union", options.union or ())
    for name, drawn in study.generated.items():
        for task in drawn.tasks:
            if task not in study.tasks:
                yield unknown(f"generated.{name}.tasks", task, study.tasks)
            elif study.tasks[task].union:
                yield f"generated.{name}.tasks: '{task}' is a union and has no images of its own"
    drawn_tasks = [task for drawn in study.generated.values() for task in drawn.tasks]
    yield from twice("generated", drawn_tasks)


def _faults_without_images(study: Study, task: str) -> Iterator[str]:
    needing = [f"runs.{kind}" for kind, run in study.runs.items() if task in run.tasks and not run.is_file]
    needing += [f"generated.{name}" for name, drawn in study.generated.items() if task in drawn.tasks]
    needing += [f"tasks.{name}" for name, options in study.tasks.items() if task in (options.union or ())]
    if needing:
        yield f"tasks.{task}.root: null is for checkpoint files alone, but {needing[0]} needs images: give their folder"


def _faults_of_part(study: Study, name: str, part: str) -> Iterator[str]:
    if study.tasks[name].select_best_on != study.tasks[part].select_best_on:
        yield f"tasks.{name}.select_best_on: '{part}' has {study.tasks[part].select_best_on}"
    own, shown = pictures_of(study, part), pictures_of(study, name)
    if (own.store_size, own.style) != (shown.store_size, shown.style):
        yield (
            f"tasks.{name}.pictures: store_size and style must be those of '{part}' "
            f"({own.store_size}, {own.style}): its images are not stored again"
        )


def _faults_of_kinds(study: Study) -> Iterator[str]:
    for kind, options in study.runs.items():
        yield from all_known(f"runs.{kind}.tasks", options.tasks, study.tasks)
        yield from twice(f"runs.{kind}.tasks", options.tasks)
        yield from all_known(f"runs.{kind}.training_on", options.training_on, options.tasks)
        shared = options.shares_initialisation_with
        if shared is not None:
            yield from _faults_of_sharing(study, kind, shared)
        if options.split_from is not None:
            yield from _faults_of_copies(study, kind, options.split_from)
    num_runs = sum(len(options.tasks) * _runs_a_task(options) for options in study.runs.values())
    if num_runs > MAX_RUNS:
        yield f"runs: {num_runs:,} runs in all, replicas on all tasks; at most {MAX_RUNS:,}"


def _faults_of_sharing(study: Study, kind: str, shared: str) -> Iterator[str]:
    key, options, origin = f"runs.{kind}.shares_initialisation_with", study.runs[kind], study.runs.get(shared)
    if origin is None:
        yield unknown(key, shared, study.runs)
        return
    if options.initialisation != "random":
        yield f"{key}: only runs with initialisation: random can share"
    if origin.initialisation != "random" or origin.shares_initialisation_with is not None:
        yield f"{key}: '{shared}' draws no initialisation of its own; name the kind whose weights are drawn"
    if options.replicas > origin.replicas:
        yield f"runs.{kind}.replicas: {options.replicas}, but '{shared}' has {origin.replicas}"


def _faults_of_copies(study: Study, kind: str, parent: str) -> Iterator[str]:
    key, options, origin = f"runs.{kind}.split_from", study.runs[kind], study.runs.get(parent)
    if origin is None:
        yield unknown(key, parent, study.runs)
        return
    if origin.split_from is not None:
        yield f"{key}: '{parent}' is a copy itself; name the kind that it splits from, '{origin.split_from}'"
    elif origin.is_file:
        yield f"{key}: '{parent}' is a checkpoint file: there is no training to split"
    for task in options.tasks:
        if task not in origin.tasks:
            yield f"runs.{kind}.tasks: '{parent}' does not run on {task}; it runs on {listed(origin.tasks)}"
    if options.replicas > origin.replicas:
        yield f"runs.{kind}.replicas: {options.replicas}, but '{parent}' has {origin.replicas}"
    yield from twice(f"runs.{kind}.split_epochs", map(str, options.split_epochs))
    for epoch in dict.fromkeys(options.split_epochs):
        if (name := copies_of(kind, epoch)) in study.runs:
            yield f"runs.{name}: copies of {kind} that split at epoch {epoch} have this name: choose another"


def _runs_a_task(options: RunKindOptions) -> int:
    return options.replicas * max(len(options.split_epochs), 1)


def _faults_of_analyses(study: Study) -> Iterator[str]:
    """Names of kinds and tasks that do not exist, what is there twice, and more pairs than can be compared."""
    analyses, kinds = study.analyses, study.runs
    for name in ("mistakes", "similarity", "landscape", "own"):
        options = getattr(analyses, name)
        pairs = (options.pairs or ()) if options else ()
        if options and "pairs" not in options.model_fields_set:
            # A default pair of kinds that the study does not have is none of its pairs, as long as one is left.
            pairs = tuple(pair for pair in pairs if kinds.keys() >= set(pair)) or pairs
        yield from all_known(f"analyses.{name}.pairs", dict.fromkeys(kind for pair in pairs for kind in pair), kinds)
        yield from twice(f"analyses.{name}.pairs", (f"[{a}, {b}]" for a, b in pairs))
        number = sum(_num_pairs(study, a, b) for a, b in pairs if a in kinds and b in kinds)
        if number > MAX_PAIRS:
            yield f"analyses.{name}.pairs: {number:,} pairs in all; at most {MAX_PAIRS:,}"
    classes = analyses.mistakes.gallery_classes if analyses.mistakes else 0
    if isinstance(classes, dict):
        yield from all_known("analyses.mistakes.gallery_classes", classes, study.tasks)
    replace = analyses.mistakes.replace if analyses.mistakes else None
    if replace is not None and isinstance(replace.groups, dict):
        yield from all_known("analyses.mistakes.replace.groups", replace.groups, study.tasks)
    if analyses.spectrum:
        yield from all_known("analyses.spectrum.kinds", analyses.spectrum.kinds, kinds)
    if analyses.landscape:
        yield from _faults_of_landscape(study, analyses.landscape)


def _num_pairs(study: Study, kind_a: str, kind_b: str) -> int:
    """An upper bound of the pairs of two kinds of run, over all tasks."""
    a, b = study.runs[kind_a], study.runs[kind_b]
    if kind_a == kind_b:
        return len(a.tasks) * _runs_a_task(a) * (_runs_a_task(a) - 1) // 2
    return max(len(a.tasks), len(b.tasks)) * _runs_a_task(a) * _runs_a_task(b)


def _faults_of_landscape(study: Study, landscape: opt.LandscapeOptions) -> Iterator[str]:
    key, tasks = "analyses.landscape", study.tasks
    for scenario in landscape.cross_domain:
        yield from all_known(f"{key}.cross_domain ({scenario.figure})", (scenario.evaluated_on, *scenario.tasks), tasks)
    yield from twice(f"{key}.cross_domain", (scenario.figure for scenario in landscape.cross_domain))
    yield from all_known(f"{key}.alphas_on", landscape.alphas_on, tasks)
    for plane in landscape.planes:
        yield from all_known(f"{key}.planes ({plane.name}).task", (plane.task,), tasks)
    yield from twice(f"{key}.planes", (f"{plane.task}.{plane.name}" for plane in landscape.planes))
    if landscape.basin:
        yield from all_known(f"{key}.basin.kinds", landscape.basin.kinds, study.runs)
        yield from all_known(f"{key}.basin.tasks", landscape.basin.tasks or (), tasks)
    if landscape.connection:
        pairs = landscape.connection.pairs or ()
        yield from all_known(f"{key}.connection.pairs", dict.fromkeys(sum(pairs, ())), study.runs)
        yield from twice(f"{key}.connection.pairs", (f"[{a}, {b}]" for a, b in pairs))
        yield from all_known(f"{key}.connection.tasks", landscape.connection.tasks or (), tasks)
    if landscape.criticality:
        yield from all_known(f"{key}.criticality.tasks", landscape.criticality.tasks or (), tasks)


def faults_of_starts(study: Study) -> Iterator[str]:
    """Pre-trained kinds that start from a run that does not exist, or choose among the weights of one that does."""
    earlier = [
        f"{task}.{kind}_{replica}"
        for kind, options in study.runs.items()
        if options.pretrained is None and options.split_from is None
        for task in options.tasks
        for replica in range(1, options.replicas + 1)
    ]
    later = {
        f"{task}.{kind}_{replica}"
        for kind, options in study.runs.items()
        if options.pretrained is not None
        for task in options.tasks
        for replica in range(1, options.replicas + 1)
    }
    known = set(earlier)
    order = [kind for kind in in_order_of_need(study) if study.runs[kind].pretrained is not None]
    for kind in order:
        options = study.runs[kind]
        start = options.pretrained or ""
        if start not in known and (options.is_file or not is_checkpoint_path(start)):
            why = f"'{start}' is pre-trained itself and comes later" if start in later else f"no run is named '{start}'"
            exist = ", ".join(sorted(known)[:MAX_LISTED]) + (", ..." if len(known) > MAX_LISTED else "")
            yield (
                f"runs.{kind}.pretrained: {why}; runs that exist: {exist or 'none'}"
                f"{'' if options.is_file else '; or give the path of a checkpoint file'}"
            )
        if start in known and not options.is_file:
            yield from (
                f"runs.{kind}.{option} is for files made elsewhere; {start} is a run of this study"
                for option in ("weights", "prefix")
                if getattr(options, option) is not None
            )
        known |= {f"{task}.{kind}_{replica}" for task in options.tasks for replica in range(1, options.replicas + 1)}


def all_known(key: str, names: Iterable[str], known: Iterable[str]) -> Iterator[str]:
    allowed = set(known)
    for name in names:
        if name not in allowed:
            yield unknown(key, name, allowed)


def unknown(key: str, name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return f"{key}: '{name}' is unknown; allowed: {listed(names[:MAX_LISTED])}{more}"


def twice(key: str, names: Iterable[str]) -> Iterator[str]:
    counts = Counter(names)
    for name, count in counts.items():
        if count > 1:
            yield f"{key}: {name} is there {'twice' if count == 2 else f'{count} times'}"
