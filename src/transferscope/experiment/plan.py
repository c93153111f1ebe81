"""The experiment: tasks, runs and pairs, expanded from compact parameters.

Pure and typed; no file is touched and neither torch nor Kedro is imported.
`Study` is what a user writes, `Plan` is what it means, every run by name with its seeds and its fingerprint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any, Literal

from pydantic import ValidationError

from transferscope.experiment import options as opt
from transferscope.experiment.study import Study, explain, listed
from transferscope.system.errors import UserError

ANALYSES = ("mistakes", "similarity", "landscape", "spectrum")

Role = Literal["source", "fine_tuned", "from_scratch", "shared_init", "file"]
"""The part of a run in the comparison. It follows from its initialisation, never from its label:

`fine_tuned` starts from pre-trained weights, `source` gives such weights to others, `from_scratch` starts from random
weights of its own, `shared_init` from those that another run drew, and `file` is a checkpoint file.
"""

NO_TREATMENT = {*opt.NOT_IN_WEIGHTS, "keep_epochs", "evaluate_every"}
"""Options of a training in which runs that are compared as replicas may differ."""


CROSS_DOMAIN_ROLES: tuple[tuple[Role, Role], ...] = (
    ("fine_tuned", "fine_tuned"),
    ("fine_tuned", "from_scratch"),
    ("from_scratch", "from_scratch"),
    ("file", "file"),
)
"""Roles of the two runs of each curve of a cross-domain figure."""


class RunSpec(opt.Options):
    """One training, or one checkpoint file: everything that decides its weights."""

    task: str
    name: str
    kind: str
    label: str
    role: Role
    replica: int
    initialisation: Literal["random", "pretrained", "checkpoint"]
    pretrained: str | None
    pretrained_epoch: str | int
    checkpoint: str | None
    init_seed: int
    order_seed: int
    model: opt.ModelOptions
    training: opt.TrainingOptions
    fingerprint: str

    @property
    def full_name(self) -> str:
        return f"{self.task}.{self.name}"


@dataclass(frozen=True)
class Pair:
    """Two runs that are compared; `kind` is the row of the paper's tables that it belongs to."""

    kind: str
    run_a: RunSpec
    run_b: RunSpec

    @property
    def name(self) -> str:
        a, b = self.run_a, self.run_b
        return f"{a.name}__{b.name}" if a.task == b.task else f"{a.task}_{a.name}__{b.task}_{b.name}"


@dataclass(frozen=True)
class Plan:
    """A validated study with every run spelled out."""

    study: Study
    runs: dict[str, RunSpec]

    def runs_of(self, task: str) -> list[RunSpec]:
        return [run for run in self.runs.values() if run.task == task]

    def targets(self) -> list[str]:
        """Tasks that are compared on: all that a run is trained on, less those that only provide pre-training."""
        sources = {run.pretrained.split(".")[0] for run in self.runs.values() if run.pretrained in self.runs}
        tasks = dict.fromkeys(run.task for run in self.runs.values())
        return [task for task in tasks if task not in sources]

    def in_role(self, task: str, role: Role) -> list[RunSpec]:
        """Runs of a role on `task`, in the order of the study; `source`: those that the task's runs start from."""
        if role == "source":
            starts = {run.pretrained for run in self.runs_of(task)}
            return [run for name, run in self.runs.items() if name in starts]
        return [run for run in self.runs_of(task) if run.role == role]

    def compared(self, task: str, role: Role) -> list[RunSpec]:
        """Runs of a role that are replicas of each other: those with the model and the training of the first one.

        A kind that is trained otherwise, with another learning rate, is a variant and not among them.
        """
        runs = self.in_role(task, role)
        return [run for run in runs if _treatment(run) == _treatment(runs[0])]

    def is_multi_label(self, task: str) -> bool:
        """Whether an example of the task has several labels."""
        options = self.study.tasks[task]
        return any(self.is_multi_label(part) for part in options.union or ()) or options.format == "chexpert"

    def is_generated(self, task: str) -> bool:
        """Whether the images of the task, or of a part of it, are drawn and not photographed."""
        parts = self.study.tasks[task].union or (task,)
        return any(part in drawn.tasks for drawn in self.study.generated.values() for part in parts)

    def pairs(self, task: str, kinds: Iterable[opt.KindPair]) -> list[Pair]:
        """Pairs of runs on `task`; a kind that has no run on it is looked for on the task it pre-trains from."""
        found: list[Pair] = []
        for kind_a, kind_b in kinds:
            found += self._pairs_of_kind(task, kind_a, kind_b)
        return found

    def cross_domain_pairs(self, scenario: opt.CrossDomainOptions) -> dict[str, Pair]:
        """The curves of a cross-domain figure by name: between the first run of each role on both tasks.

        Two fine-tuned runs, a fine-tuned one and one from scratch, two from scratch, and two files.
        """
        first, second = ({run.role: run for run in reversed(self.runs_of(task))} for task in scenario.tasks)
        return {
            f"{scenario.figure}_{first[a].name}__{second[b].name}": _pair(first[a], second[b])
            for a, b in CROSS_DOMAIN_ROLES
            if a in first and b in second
        }

    def _pairs_of_kind(self, task: str, kind_a: str, kind_b: str) -> list[Pair]:
        runs_a, runs_b = self._of_kind(task, kind_a), self._of_kind(task, kind_b)
        if kind_a == kind_b:
            couples = list(combinations(runs_a, 2))
        elif kind_a in self._sharing(kind_b) or kind_b in self._sharing(kind_a):
            couples = [(a, b) for a, b in product(runs_a, runs_b) if a.replica == b.replica]
        else:
            couples = list(product(runs_a, runs_b))
        return [_pair(a, b) for a, b in couples]

    def _of_kind(self, task: str, kind: str) -> list[RunSpec]:
        own = [run for run in self.runs_of(task) if run.kind == kind]
        if own:
            return own
        origins = {run.pretrained for run in self.runs_of(task)}
        return [run for name, run in self.runs.items() if name in origins and run.kind == kind]

    def _sharing(self, kind: str) -> set[str | None]:
        return {self.study.runs[kind].shares_initialisation_with}


def make_plan(parameters: dict[str, Any]) -> Plan:
    """Validate the parameters and expand them; one `UserError` names the key that is wrong."""
    try:
        study = Study.model_validate(parameters)
    except ValidationError as error:
        raise UserError(explain(error, Study)) from None
    _check_tasks(study)
    _check_kinds(study)
    runs: dict[str, RunSpec] = {}
    for kind in _in_order_of_need(study):
        for task in study.runs[kind].tasks:
            for replica in range(1, study.runs[kind].replicas + 1):
                run = _expand(study, kind, task, replica, runs)
                runs[run.full_name] = run
    roles = _roles(study, runs)
    plan = Plan(study, {name: run.model_copy(update={"role": roles[name]}) for name, run in runs.items()})
    _check_analyses(plan)
    return plan


def _roles(study: Study, runs: dict[str, RunSpec]) -> dict[str, Role]:
    """The role of every run by full name.

    Replicas of a run that others start from are sources like it. A task whose fine-tuned runs all start elsewhere
    needs its run from scratch as the one to compare with, also where other tasks start from that run.
    """
    starts: dict[str, set[tuple[str, str] | None]] = {}
    for run in runs.values():
        if run.pretrained is not None:
            origin = runs.get(run.pretrained)
            starts.setdefault(run.task, set()).add((origin.task, origin.kind) if origin else None)
    sources = set().union(*starts.values())

    def role(run: RunSpec) -> Role:
        key, own = (run.task, run.kind), starts.get(run.task)
        if run.initialisation == "pretrained":
            return "fine_tuned"
        if key in sources and (own is None or key in own):
            return "source"
        if run.initialisation == "checkpoint":
            return "file"
        return "from_scratch" if study.runs[run.kind].shares_initialisation_with is None else "shared_init"

    return {name: role(run) for name, run in runs.items()}


def _treatment(run: RunSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    return run.model.model_dump(), run.training.model_dump(exclude=NO_TREATMENT)


def _pair(a: RunSpec, b: RunSpec) -> Pair:
    return Pair(f"{a.label} & {b.label}", a, b)


def _expand(study: Study, kind: str, task: str, replica: int, earlier: dict[str, RunSpec]) -> RunSpec:
    options = study.runs[kind]
    name = f"{kind}_{replica}"
    key = f"runs.{kind}"
    if options.pretrained is not None and options.pretrained not in earlier and not _is_file(options.pretrained):
        raise UserError(
            f"{key}.pretrained: no run is named '{options.pretrained}'; "
            f"runs that exist: {listed(earlier)}; or give the path of a .safetensors, .pt, .pth or .pth.tar file"
        )
    if options.pretrained in earlier:
        _check_saved(f"{key}.pretrained_epoch", options.pretrained_epoch, earlier[options.pretrained])
    values: dict[str, Any] = {
        "task": task,
        "kind": kind,
        "replica": replica,
        "initialisation": options.initialisation,
        "pretrained": options.pretrained,
        "pretrained_epoch": options.pretrained_epoch,
        "checkpoint": options.checkpoint,
        "init_seed": derive_seed(
            study.seed, task, options.shares_initialisation_with or kind, replica, "initialisation"
        ),
        "order_seed": derive_seed(study.seed, task, kind, replica, "order"),
        "model": options.model or study.model,
        "training": _training(study, kind, task),
    }
    source = earlier[options.pretrained].fingerprint if options.pretrained in earlier else options.pretrained
    fingerprint = _fingerprint(values | {"pretrained": source, "data": _data_identity(study, task)})
    # Which role a run has is known when all runs are.
    return RunSpec(name=name, label=options.label, role="from_scratch", fingerprint=fingerprint, **values)


def _training(study: Study, kind: str, task: str) -> opt.TrainingOptions:
    """The study's training, overridden by the task's, the kind's, and the kind's on this task."""
    merged: dict[str, Any] = {}
    for where, override in (
        ("training", study.training),
        (f"tasks.{task}.training", study.tasks[task].training),
        (f"runs.{kind}.training", study.runs[kind].training),
        (f"runs.{kind}.training_on.{task}", study.runs[kind].training_on.get(task, {})),
    ):
        merged = merged | override
        try:
            options = opt.TrainingOptions.model_validate(merged)
        except ValidationError as error:
            raise UserError(explain(error, opt.TrainingOptions, where)) from None
    return options


def _data_identity(study: Study, task: str) -> dict[str, Any]:
    """What decides the images of a task, wherever they lie."""
    options = study.tasks[task]
    if options.union:
        parts = [_data_identity(study, part) for part in options.union]
        shown = pictures_of(study, task).model_dump()
        return {"union": parts, "pictures": shown, "select_best_on": options.select_best_on}
    drawn = [item.model_dump() for item in study.generated.values() if task in item.tasks]
    identity = options.model_dump(exclude={"root", "training", "pictures", "num_workers"})
    return identity | {
        "drawn": drawn,
        "seed": study.seed if drawn else None,
        "pictures": pictures_of(study, task).model_dump(),
    }


def pictures_of(study: Study, task: str) -> opt.PictureOptions:
    """How the images of a task are stored and shown; a union without settings of its own shows those of its parts."""
    options = study.tasks[task]
    if options.pictures is None and options.union:
        return pictures_of(study, options.union[0])
    return options.pictures or study.pictures


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from names and numbers; the same on every machine and in every version."""
    digest = hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _fingerprint(values: dict[str, Any]) -> str:
    """Digest of everything that decides the weights; how many processes compute them does not."""
    content = {
        key: value.model_dump(exclude=opt.NOT_IN_WEIGHTS) if isinstance(value, opt.Options) else value
        for key, value in values.items()
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _in_order_of_need(study: Study) -> list[str]:
    """Kinds such that what others start from comes first."""
    random = [kind for kind, options in study.runs.items() if options.initialisation != "pretrained"]
    return random + [kind for kind in study.runs if kind not in random]


def _is_file(text: str) -> bool:
    return text.endswith((".safetensors", ".pt", ".pth", ".pth.tar"))


def _check_tasks(study: Study) -> None:
    for name, options in study.tasks.items():
        for part in options.union or ():
            _check_known(f"tasks.{name}.union", part, study.tasks)
            if study.tasks[part].union:
                raise UserError(f"tasks.{name}.union: '{part}' is a union itself; name the single tasks")
            if options.select_best_on != study.tasks[part].select_best_on:
                raise UserError(f"tasks.{name}.select_best_on: '{part}' has {study.tasks[part].select_best_on}")
            own, shown = pictures_of(study, part), pictures_of(study, name)
            if (own.store_size, own.style) != (shown.store_size, shown.style):
                raise UserError(
                    f"tasks.{name}.pictures: store_size and style must be those of '{part}' "
                    f"({own.store_size}, {own.style}): its images are not stored again"
                )
    for name, drawn in study.generated.items():
        for task in drawn.tasks:
            _check_known(f"generated.{name}.tasks", task, study.tasks)


def _check_kinds(study: Study) -> None:
    for kind, options in study.runs.items():
        for task in options.tasks:
            _check_known(f"runs.{kind}.tasks", task, study.tasks)
        for task in options.training_on:
            _check_known(f"runs.{kind}.training_on", task, options.tasks)
        shared = options.shares_initialisation_with
        if shared is not None:
            _check_known(f"runs.{kind}.shares_initialisation_with", shared, study.runs)
            if options.initialisation != "random":
                raise UserError(
                    f"runs.{kind}.shares_initialisation_with: only runs with initialisation: random can share"
                )
            origin = study.runs[shared]
            if origin.initialisation != "random" or origin.shares_initialisation_with is not None:
                raise UserError(
                    f"runs.{kind}.shares_initialisation_with: '{shared}' draws no initialisation of its own; "
                    "name the kind whose weights are drawn"
                )
            if options.replicas > origin.replicas:
                raise UserError(f"runs.{kind}.replicas: {options.replicas}, but '{shared}' has {origin.replicas}")


def _check_analyses(plan: Plan) -> None:
    analyses, kinds = plan.study.analyses, plan.study.runs
    for name in ("mistakes", "similarity", "landscape"):
        options = getattr(analyses, name)
        for kind in {kind for pair in (options.pairs if options else ()) for kind in pair}:
            _check_known(f"analyses.{name}.pairs", kind, kinds)
    classes = analyses.mistakes.gallery_classes if analyses.mistakes else 0
    for task in classes if isinstance(classes, dict) else ():
        _check_known("analyses.mistakes.gallery_classes", task, plan.study.tasks)
    for kind in analyses.spectrum.kinds if analyses.spectrum else ():
        _check_known("analyses.spectrum.kinds", kind, kinds)
    for task in (analyses.spectrum.layer_pages or ()) if analyses.spectrum else ():
        _check_known("analyses.spectrum.layer_pages", task, plan.targets())
    if analyses.landscape:
        _check_landscape(plan, analyses.landscape)


def _check_landscape(plan: Plan, landscape: opt.LandscapeOptions) -> None:
    key, tasks = "analyses.landscape", plan.study.tasks
    for scenario in landscape.cross_domain:
        for task in (scenario.evaluated_on, *scenario.tasks):
            _check_known(f"{key}.cross_domain ({scenario.figure})", task, tasks)
    for task in landscape.alphas_on:
        _check_known(f"{key}.alphas_on", task, tasks)
    for plane in landscape.planes:
        _check_known(f"{key}.planes ({plane.name}).task", plane.task, tasks)
        runs = {run.name: run for run in plan.runs_of(plane.task)}
        for checkpoint in plane.checkpoints:
            where, (name, _, epoch) = f"{key}.planes ({plane.name}).checkpoints", checkpoint.partition("@")
            _check_known(where, name, runs)
            _check_saved(where, int(epoch) if epoch.isdigit() else epoch, runs[name])
    if landscape.basin:
        for kind in landscape.basin.kinds:
            _check_known(f"{key}.basin.kinds", kind, plan.study.runs)
        for task in landscape.basin.tasks or ():
            _check_known(f"{key}.basin.tasks", task, tasks)
    if landscape.criticality:
        names = {run.name for run in plan.runs.values()}
        for name in landscape.criticality.runs:
            _check_known(f"{key}.criticality.runs", name, names)
        for task in landscape.criticality.tasks or ():
            _check_known(f"{key}.criticality.tasks", task, tasks)
        for run in plan.runs.values():
            if run.name in landscape.criticality.runs and run.task in (landscape.criticality.tasks or plan.targets()):
                for back_to in landscape.criticality.rewind_epochs:
                    _check_saved(f"{key}.criticality.rewind_epochs", back_to, run)


def _check_saved(key: str, epoch: int | str, run: RunSpec) -> None:
    """An epoch by number is one that the run will save; which one is the best is not known before."""
    training = run.training
    if not isinstance(epoch, int) or run.checkpoint is not None:
        return
    kept = range(training.epochs) if training.keep_epochs == "all" else training.keep_epochs
    saved = {0, *(other for other in kept if other < training.epochs), training.epochs}
    if epoch not in saved:
        raise UserError(
            f"{key}: {run.full_name} does not keep epoch {epoch}, only {', '.join(map(str, sorted(saved)))}, and best; "
            "its training.keep_epochs says which"
        )


def _check_known(key: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise UserError(f"{key}: '{name}' is unknown; allowed: {listed(known)}")
