"""The experiment: tasks, runs and pairs, expanded from compact parameters.

Pure and typed; no file is touched and neither torch nor Kedro is imported.
`Study` is what a user writes, `Plan` is what it means, every run by name with its seeds and its fingerprint.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product
from typing import Any

from pydantic import ValidationError

from transferscope.experiment import options as opt
from transferscope.experiment.merges import MergeSpec, faults_of_merging, merges_of
from transferscope.experiment.names import Epoch, RunName
from transferscope.experiment.reuse_variants import Variant, expanded, variants
from transferscope.experiment.reuse_variants import faults as faults_of_reuse
from transferscope.experiment.run import Role, RunSpec
from transferscope.experiment.study import RunKindOptions, Study, explain, listed
from transferscope.system.errors import UserError, one_message
from transferscope.system.references import is_reference

FileDigest = Callable[[str], str | None]

MAX_RUNS = 20_000
"""Runs of a study."""
MAX_PAIRS = 1_000_000
"""Pairs of an analysis, over all tasks."""

NO_TREATMENT = {*opt.NOT_IN_WEIGHTS, "keep_epochs", "evaluate_every"}
"""Options of a training in which runs that are compared as replicas may differ."""


CROSS_DOMAIN_ROLES: tuple[tuple[Role, Role], ...] = (
    ("fine_tuned", "fine_tuned"),
    ("fine_tuned", "from_scratch"),
    ("from_scratch", "from_scratch"),
    ("file", "file"),
)
"""Roles of the two runs of each curve of a cross-domain figure."""


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

    @property
    def split_epoch(self) -> int | None:
        """The epoch after which the two go their own ways, where one is a copy of the other."""
        a, b = self.run_a, self.run_b
        copy = next((one for one, other in ((a, b), (b, a)) if one.split_from == other.full_name), None)
        return None if copy is None else copy.split_epoch


def pair_kind(label_a: str, label_b: str) -> str:
    """The kind of a pair as tables and figures name it: `P-T & RI-T`; a label that holds " & " is put in quotes."""
    left, right = "\N{LEFT DOUBLE QUOTATION MARK}", "\N{RIGHT DOUBLE QUOTATION MARK}"
    return " & ".join(f"{left}{label}{right}" if " & " in label else label for label in (label_a, label_b))


def labels_in(kind: str) -> tuple[str, ...]:
    """The labels in the name of a kind of run or pair, as `pair_kind` puts them together."""
    return tuple(quoted or plain for quoted, plain in re.findall(r"“(.*?)”(?: & |$)|(.+?)(?: & |$)", kind))


@dataclass(frozen=True)
class PairGroup:
    """Pairs of two kinds of run on a task that one node of each analysis measures: one of them, or all."""

    name: str
    """That of the pair, `pt_1__rit_2`, or of the two kinds, `pt__rit`."""
    pairs: tuple[Pair, ...]
    together: bool
    """True if the group stands for all pairs of the two kinds."""

    @property
    def runs(self) -> list[RunSpec]:
        """The runs of the pairs, each once."""
        return list({run.full_name: run for pair in self.pairs for run in (pair.run_a, pair.run_b)}.values())


@dataclass(frozen=True)
class Plan:
    """A validated study with every run spelled out."""

    study: Study
    runs: dict[str, RunSpec]

    @cached_property
    def _runs_by_task(self) -> dict[str, list[RunSpec]]:
        by_task: dict[str, list[RunSpec]] = {}
        for run in self.runs.values():
            by_task.setdefault(run.task, []).append(run)
        return by_task

    def runs_of(self, task: str) -> list[RunSpec]:
        return self._runs_by_task.get(task, [])

    def targets(self) -> list[str]:
        """Tasks that are compared on: all that a run is trained on, less those that only provide pre-training."""
        sources = {self.runs[run.pretrained].task for run in self.runs.values() if run.pretrained in self.runs}
        tasks = dict.fromkeys(run.task for run in self.runs.values())
        return [task for task in tasks if task not in sources and task not in self.views]

    @cached_property
    def variants(self) -> list[Variant]:
        """The kinds of run of feature reuse and source epochs."""
        return variants(self.study)

    @cached_property
    def views(self) -> dict[str, str]:
        """Tasks on which only these kinds are trained, and the task whose images each of them shows."""
        return {variant.view: variant.task for variant in self.variants}

    def in_role(self, task: str, role: Role) -> list[RunSpec]:
        """Runs of a role on `task`, in the order of the study; `source`: those that the task's runs start from."""
        if role == "source":
            starts = {run.pretrained for run in self.runs_of(task)}
            return [run for name, run in self.runs.items() if name in starts]
        return [run for run in self.runs_of(task) if run.role == role]

    def compared(self, task: str, role: Role) -> list[RunSpec]:
        """Runs of a role that are replicas of each other: those with the model, training and start of the first one.

        A kind that is trained otherwise, with another learning rate or from another epoch of P, is a variant and not
        among them. Kinds that start from replicas of one P are.
        """
        runs = self.in_role(task, role)
        return [run for run in runs if _treatment(run) == _treatment(runs[0])]

    @property
    def compares_files(self) -> bool:
        """True of a study that trains nothing: all of its runs are checkpoint files."""
        return bool(self.runs) and all(run.role == "file" for run in self.runs.values())

    def is_multi_label(self, task: str) -> bool:
        """True if an example of the task has several labels."""
        options = self.study.tasks[task]
        if options.layout is not None:
            return options.layout.multi_label
        return any(self.is_multi_label(part) for part in options.union or ())

    def has_images(self, task: str) -> bool:
        """True if the task has images; without them its checkpoint files are compared by their weights alone."""
        return self.study.tasks[task].has_images

    def is_generated(self, task: str) -> bool:
        """True if the images of the task, or of a part of it, are drawn and not photographed."""
        parts = self.study.tasks[task].union or (task,)
        return any(part in drawn.tasks for drawn in self.study.generated.values() for part in parts)

    def pairs(self, task: str, kinds: Iterable[opt.KindPair]) -> list[Pair]:
        """Pairs of runs on `task`; a kind that has no run on it is looked for on the task it pre-trains from."""
        pairs: list[Pair] = []
        for kind_a, kind_b in kinds:
            pairs += self._pairs_of_kind(task, kind_a, kind_b)
        return pairs

    def own_pairs(self, task: str) -> list[Pair]:
        """Pairs of runs of the task that analyses of the user's own measure."""
        analyses = self.study.analyses
        if analyses.own is None:
            return []
        others = [options.pairs for options in (analyses.mistakes, analyses.similarity, analyses.landscape) if options]
        kinds = (
            dict.fromkeys(kinds for pairs in others for kinds in pairs)
            if analyses.own.pairs is None
            else analyses.own.pairs
        )
        return [pair for pair in self.pairs(task, kinds) if pair.run_a.task == pair.run_b.task == task]

    def pair_groups(self, task: str, kinds: Iterable[opt.KindPair]) -> list[PairGroup]:
        """The pairs of `pairs`, in the same order, by the nodes that measure them."""
        groups: list[PairGroup] = []
        for kind_a, kind_b in kinds:
            pairs = self._pairs_of_kind(task, kind_a, kind_b)
            together = self.study.analyses.pairs_in_one_node
            if pairs and (len(pairs) > opt.PAIRS_APART if together is None else together):
                groups.append(PairGroup(f"{kind_a}__{kind_b}", tuple(pairs), together=True))
            else:
                groups += [PairGroup(pair.name, (pair,), together=False) for pair in pairs]
        return groups

    def gallery_pair(self, task: str) -> Pair | None:
        """The first compared pair of two kinds of run with different labels, e.g. a P-T and an RI-T."""
        mistakes = self.study.analyses.mistakes
        for kinds in mistakes.pairs if mistakes else ():
            for pair in self._pairs_of_kind(task, *kinds)[:1]:
                if pair.run_a.label != pair.run_b.label:
                    return pair
        return None

    def connected(self, task: str) -> list[Pair]:
        """Pairs on `task` between which ways other than the straight line are measured: the first of two kinds each."""
        landscape = self.study.analyses.landscape
        options = landscape.connection if landscape else None
        if landscape is None or options is None or task not in (options.tasks or self.targets()):
            return []
        kinds = landscape.pairs if options.pairs is None else options.pairs
        found: list[Pair] = []
        for one in kinds:
            by_split: dict[int | None, list[Pair]] = {}
            for pair in self.pairs(task, [one]):
                by_split.setdefault(pair.split_epoch, []).append(pair)
            found += [pair for pairs in by_split.values() for pair in pairs[: options.pairs_of_each]]
        return found

    def merges(self) -> list[MergeSpec]:
        """Merges of several runs into one, in the order of the study."""
        return merges_of(self.study, self.runs)

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

    @cached_property
    def _pairs(self) -> dict[tuple[str, str, str], list[Pair]]:
        return {}

    def _pairs_of_kind(self, task: str, kind_a: str, kind_b: str) -> list[Pair]:
        key = (task, kind_a, kind_b)
        if key not in self._pairs:
            self._pairs[key] = self._find_pairs(*key)
        return self._pairs[key]

    def _find_pairs(self, task: str, kind_a: str, kind_b: str) -> list[Pair]:
        runs_a, runs_b = self._of_kind(task, kind_a), self._of_kind(task, kind_b)
        if kind_a == kind_b:
            couples = list(combinations(runs_a, 2))
        elif kind_a in self._sharing(kind_b) or kind_b in self._sharing(kind_a):
            couples = [(a, b) for a, b in product(runs_a, runs_b) if a.replica == b.replica]
        elif kind_a in self._copied(kind_b) or kind_b in self._copied(kind_a):
            couples = [(a, b) for a, b in product(runs_a, runs_b) if _pair(a, b).split_epoch is not None]
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
        return {self.study.runs[kind].shares_initialisation_with} if kind in self.study.runs else set()

    def _copied(self, kind: str) -> set[str | None]:
        return {self.study.runs[kind].split_from} if kind in self.study.runs else set()


def make_plan(parameters: dict[str, Any] | Study, file_digest: FileDigest = lambda path: None) -> Plan:
    """Validate the parameters and expand them; one `UserError` names every key that is wrong.

    `file_digest` gives the digest of a checkpoint file that a run starts from or consists of, by its path as written,
    or of the file that holds the code of `mypackage.nets:build`, or None where it is not known: the run's fingerprint
    then follows from the name alone.
    """
    try:
        study = Study.model_validate(parameters)
    except ValidationError as error:
        raise UserError(one_message(explain(error, Study))) from None
    _refuse(faults_of_reuse(study))
    study = expanded(study)
    _refuse([*_faults_of_tasks(study), *_faults_of_kinds(study), *_faults_of_analyses(study)])
    trainings, faults = _trainings(study)
    _refuse([*faults, *_faults_of_starts(study)])
    runs: dict[str, RunSpec] = {}
    for kind in _in_order_of_need(study):
        for task in study.runs[kind].tasks:
            for run in _expand(study, kind, task, trainings, runs, file_digest):
                runs[run.full_name] = run
    roles = _roles(study, runs)
    plan = Plan(study, {name: run.model_copy(update={"role": roles[name]}) for name, run in runs.items()})
    _refuse(_faults_of_plan(plan))
    return plan


def _refuse(faults: Iterable[str]) -> None:
    """Raise one UserError that lists all faults, if there are any."""
    messages = list(faults)
    if messages:
        raise UserError(one_message(messages))


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
        if run.split_from is not None:
            return "split"
        if run.initialisation == "pretrained":
            return "fine_tuned" if run.transfer == "weights" and run.transfer_until is None else "control"
        if key in sources and (own is None or key in own):
            return "source"
        if run.initialisation == "checkpoint":
            return "file"
        return "from_scratch" if study.runs[run.kind].shares_initialisation_with is None else "shared_init"

    return {name: role(run) for name, run in runs.items()}


def _treatment(run: RunSpec) -> tuple[object, ...]:
    """Replicas of P give replicas of P-T; a P of another task, or of another epoch, makes a variant."""
    source = RunName.parse(run.pretrained).task if run.pretrained and not _is_file(run.pretrained) else None
    start = (run.initialisation, source, run.pretrained_epoch, run.transfer, run.transfer_until)
    return run.model.model_dump(), run.training.model_dump(exclude=NO_TREATMENT), start


def _pair(a: RunSpec, b: RunSpec) -> Pair:
    return Pair(pair_kind(a.label, b.label), a, b)


def _expand(
    study: Study,
    kind: str,
    task: str,
    trainings: Mapping[tuple[str, str], opt.TrainingOptions],
    earlier: dict[str, RunSpec],
    file_digest: FileDigest,
) -> Iterator[RunSpec]:
    """The replicas of a kind of run on a task."""
    options = study.runs[kind]
    if options.split_from is not None:
        yield from _copies(study, kind, task, earlier)
        return
    source = earlier[options.pretrained].fingerprint if options.pretrained in earlier else options.pretrained
    model = options.model or study.model
    files = [options.checkpoint, None if options.pretrained in earlier else options.pretrained]
    files += [model.name] if is_reference(model.name) else []
    digests = [digest for file in files if file is not None and (digest := file_digest(file)) is not None]
    content = {"pretrained": source, "data": _data_identity(study, task)} | ({"files": digests} if digests else {})
    chosen = {"weights": options.weights, "prefix": options.prefix, "transfer_until": options.transfer_until}
    chosen |= {"transfer": None if options.transfer == "weights" else options.transfer}
    for replica in range(1, options.replicas + 1):
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
            "model": model,
            "training": trainings[kind, task],
        }
        values |= {key: value for key, value in chosen.items() if value is not None}
        fingerprint = _fingerprint(values | content)
        name = f"{kind}_{replica}"
        # Which role a run has is known when all runs are.
        yield RunSpec(name=name, label=options.label, role="from_scratch", fingerprint=fingerprint, **values)


def _copies(study: Study, kind: str, task: str, earlier: Mapping[str, RunSpec]) -> Iterator[RunSpec]:
    """Copies of the replicas of another kind on a task, at each epoch of each."""
    options = study.runs[kind]
    for epoch, replica in product(options.split_epochs, range(1, options.replicas + 1)):
        parent = earlier[f"{task}.{options.split_from}_{replica}"]
        values = {
            "kind": kind,
            "label": options.label,
            "split_from": parent.full_name,
            "split_epoch": epoch,
            "shared_order_seed": parent.order_seed,
            "order_seed": derive_seed(study.seed, task, kind, replica, "order", epoch),
        }
        fingerprint = _fingerprint(values | {"split_from": parent.fingerprint})
        yield parent.model_copy(
            update=values | {"name": f"{copies_of(kind, epoch)}_{replica}", "fingerprint": fingerprint}
        )


def copies_of(kind: str, epoch: int) -> str:
    """The name of the copies of a kind that split at an epoch, without the replica: `rit_split_e2`."""
    return f"{kind}_e{epoch}"


def _trainings(study: Study) -> tuple[dict[tuple[str, str], opt.TrainingOptions], list[str]]:
    """The training of each kind of run on each of its tasks, and what is wrong in their options.

    The study's training is overridden by the task's, the kind's, and the kind's on this task.
    """
    trainings: dict[tuple[str, str], opt.TrainingOptions] = {}
    faults: list[str] = []
    for kind, options in study.runs.items():
        if options.split_from is not None:  # as its parents
            continue
        for task in options.tasks:
            merged: dict[str, Any] = {}
            for where, override in (
                ("training", study.training),
                (f"tasks.{task}.training", study.tasks[task].training),
                (f"runs.{kind}.training", options.training),
                (f"runs.{kind}.training_on.{task}", options.training_on.get(task, {})),
            ):
                merged = merged | override
                try:
                    trainings[kind, task] = opt.TrainingOptions.model_validate(merged)
                except ValidationError as error:
                    faults += explain(error, opt.TrainingOptions, where)
                    break
    return trainings, faults


def _data_identity(study: Study, task: str) -> dict[str, Any]:
    """Options that decide the images of a task, wherever they lie."""
    options = study.tasks[task]
    if options.union:
        parts = [_data_identity(study, part) for part in options.union]
        shown = pictures_of(study, task).model_dump()
        return {"union": parts, "pictures": shown, "select_best_on": options.select_best_on}
    drawn = [item.model_dump() for item in study.generated.values() if task in item.tasks]
    identity = options.model_dump(exclude={"root", "training", "pictures", "num_workers"})
    if options.value_range is None:  # as before there was this key
        del identity["value_range"]
    if not options.has_images:
        identity["images"] = None
    return identity | {
        "drawn": drawn,
        "seed": study.seed if drawn else None,
        "pictures": pictures_of(study, task).model_dump(),
    }


def pictures_of(study: Study, task: str) -> opt.PictureOptions:
    """Settings of the stored and shown images of a task; a union without settings of its own has those of its parts."""
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
    content = {key: _decisive(value) if isinstance(value, opt.Options) else value for key, value in values.items()}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _decisive(options: opt.Options) -> dict[str, Any]:
    """The options that decide weights; those that came later than others count where they are used."""
    values = options.model_dump(exclude=opt.NOT_IN_WEIGHTS)
    if not values.get("frozen", True):
        del values["frozen"]
    return values


def _in_order_of_need(study: Study) -> list[str]:
    """Kinds such that what others start from comes first."""

    def rank(kind: str) -> int:
        options = study.runs[kind]
        return 2 if options.split_from is not None else int(options.initialisation == "pretrained")

    return sorted(study.runs, key=rank)


def _is_file(text: str) -> bool:
    """True if a text is the path of a checkpoint rather than a run's name; a file of another suffix needs a folder."""
    return "/" in text or "\\" in text or text.lower().endswith(CHECKPOINT_SUFFIXES)


CHECKPOINT_SUFFIXES = (".safetensors", ".pt", ".pth", ".tar", ".ckpt", ".bin")


def _faults_of_tasks(study: Study) -> Iterator[str]:
    for name, options in study.tasks.items():
        if not options.has_images:
            yield from _faults_without_images(study, name)
        for part in options.union or ():
            if part not in study.tasks:
                yield _unknown(f"tasks.{name}.union", part, study.tasks)
            elif study.tasks[part].union:
                yield f"tasks.{name}.union: '{part}' is a union itself; name the single tasks"
            else:
                yield from _faults_of_part(study, name, part)
        yield from _twice(f"tasks.{name}.union", options.union or ())
    for name, drawn in study.generated.items():
        for task in drawn.tasks:
            if task not in study.tasks:
                yield _unknown(f"generated.{name}.tasks", task, study.tasks)
            elif study.tasks[task].union:
                yield f"generated.{name}.tasks: '{task}' is a union and has no images of its own"
    drawn_tasks = [task for drawn in study.generated.values() for task in drawn.tasks]
    yield from _twice("generated", drawn_tasks)


def _faults_without_images(study: Study, task: str) -> Iterator[str]:
    needing = [f"runs.{kind}" for kind, run in study.runs.items() if task in run.tasks and run.checkpoint is None]
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
        yield from _all_known(f"runs.{kind}.tasks", options.tasks, study.tasks)
        yield from _twice(f"runs.{kind}.tasks", options.tasks)
        yield from _all_known(f"runs.{kind}.training_on", options.training_on, options.tasks)
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
        yield _unknown(key, shared, study.runs)
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
        yield _unknown(key, parent, study.runs)
        return
    if origin.split_from is not None:
        yield f"{key}: '{parent}' is a copy itself; name the kind that it splits from, '{origin.split_from}'"
    elif origin.checkpoint is not None:
        yield f"{key}: '{parent}' is a checkpoint file: there is no training to split"
    for task in options.tasks:
        if task not in origin.tasks:
            yield f"runs.{kind}.tasks: '{parent}' does not run on {task}; it runs on {listed(origin.tasks)}"
    if options.replicas > origin.replicas:
        yield f"runs.{kind}.replicas: {options.replicas}, but '{parent}' has {origin.replicas}"
    yield from _twice(f"runs.{kind}.split_epochs", map(str, options.split_epochs))
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
        yield from _all_known(f"analyses.{name}.pairs", dict.fromkeys(kind for pair in pairs for kind in pair), kinds)
        yield from _twice(f"analyses.{name}.pairs", (f"[{a}, {b}]" for a, b in pairs))
        number = sum(_num_pairs(study, a, b) for a, b in pairs if a in kinds and b in kinds)
        if number > MAX_PAIRS:
            yield f"analyses.{name}.pairs: {number:,} pairs in all; at most {MAX_PAIRS:,}"
    classes = analyses.mistakes.gallery_classes if analyses.mistakes else 0
    if isinstance(classes, dict):
        yield from _all_known("analyses.mistakes.gallery_classes", classes, study.tasks)
    replace = analyses.mistakes.replace if analyses.mistakes else None
    if replace is not None and isinstance(replace.groups, dict):
        yield from _all_known("analyses.mistakes.replace.groups", replace.groups, study.tasks)
    if analyses.spectrum:
        yield from _all_known("analyses.spectrum.kinds", analyses.spectrum.kinds, kinds)
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
        yield from _all_known(
            f"{key}.cross_domain ({scenario.figure})", (scenario.evaluated_on, *scenario.tasks), tasks
        )
    yield from _twice(f"{key}.cross_domain", (scenario.figure for scenario in landscape.cross_domain))
    yield from _all_known(f"{key}.alphas_on", landscape.alphas_on, tasks)
    for plane in landscape.planes:
        yield from _all_known(f"{key}.planes ({plane.name}).task", (plane.task,), tasks)
    yield from _twice(f"{key}.planes", (f"{plane.task}.{plane.name}" for plane in landscape.planes))
    if landscape.basin:
        yield from _all_known(f"{key}.basin.kinds", landscape.basin.kinds, study.runs)
        yield from _all_known(f"{key}.basin.tasks", landscape.basin.tasks or (), tasks)
    if landscape.connection:
        pairs = landscape.connection.pairs or ()
        yield from _all_known(f"{key}.connection.pairs", dict.fromkeys(sum(pairs, ())), study.runs)
        yield from _twice(f"{key}.connection.pairs", (f"[{a}, {b}]" for a, b in pairs))
        yield from _all_known(f"{key}.connection.tasks", landscape.connection.tasks or (), tasks)
    if landscape.criticality:
        yield from _all_known(f"{key}.criticality.tasks", landscape.criticality.tasks or (), tasks)


def _faults_of_starts(study: Study) -> Iterator[str]:
    """Pre-trained kinds that start from a run that does not exist, or choose among the weights of one that does."""
    earlier = [
        f"{task}.{kind}_{replica}"
        for kind, options in study.runs.items()
        if options.initialisation != "pretrained" and options.split_from is None
        for task in options.tasks
        for replica in range(1, options.replicas + 1)
    ]
    later = {
        f"{task}.{kind}_{replica}"
        for kind, options in study.runs.items()
        if options.initialisation == "pretrained"
        for task in options.tasks
        for replica in range(1, options.replicas + 1)
    }
    known = set(earlier)
    order = [kind for kind in _in_order_of_need(study) if study.runs[kind].initialisation == "pretrained"]
    for kind in order:
        options = study.runs[kind]
        start = options.pretrained or ""
        if start not in known and not _is_file(start):
            why = f"'{start}' is pre-trained itself and comes later" if start in later else f"no run is named '{start}'"
            exist = ", ".join(sorted(known)[:MAX_LISTED]) + (", ..." if len(known) > MAX_LISTED else "")
            yield (
                f"runs.{kind}.pretrained: {why}; runs that exist: {exist or 'none'}; "
                "or give the path of a checkpoint file"
            )
        if start in known:
            yield from (
                f"runs.{kind}.{option} is for files made elsewhere; {start} is a run of this study"
                for option in ("weights", "prefix")
                if getattr(options, option) is not None
            )
        known |= {f"{task}.{kind}_{replica}" for task in options.tasks for replica in range(1, options.replicas + 1)}


MAX_LISTED = 20


def _faults_of_plan(plan: Plan) -> Iterator[str]:
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
    yield from _pairs_of_none(plan)
    yield from _faults_of_shuffles(plan)
    yield from faults_of_merging(plan.study, plan.runs)
    spectrum, landscape = plan.study.analyses.spectrum, plan.study.analyses.landscape
    if spectrum:
        yield from _all_known("analyses.spectrum.layer_pages", spectrum.layer_pages or (), plan.targets())
        yield from _all_known("analyses.spectrum.network_tasks", spectrum.network_tasks or (), plan.study.tasks)
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
    for kinds in (landscape.connection.pairs or ()) if landscape and landscape.connection else ():
        if not any(plan.pairs(task, [kinds]) for task in plan.targets()):
            yield f"analyses.landscape.connection.pairs: [{', '.join(kinds)}] gives no pair on any task"


def _faults_of_planes(plan: Plan, landscape: opt.LandscapeOptions) -> Iterator[str]:
    for plane in landscape.planes:
        runs = {run.name: run for run in plan.runs_of(plane.task)}
        where = f"analyses.landscape.planes ({plane.name}).checkpoints"
        yield from _twice(where, plane.checkpoints)
        for name in plane.names:
            if name.run not in runs:
                yield _unknown(where, name.run, runs)
            else:
                yield from _not_saved(where, name.epoch, runs[name.run])


def _faults_of_criticality(plan: Plan, options: opt.CriticalityOptions) -> Iterator[str]:
    key, names = "analyses.landscape.criticality", {run.name for run in plan.runs.values()}
    yield from _all_known(f"{key}.runs", options.runs, names)
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


def _all_known(key: str, names: Iterable[str], known: Iterable[str]) -> Iterator[str]:
    allowed = set(known)
    for name in names:
        if name not in allowed:
            yield _unknown(key, name, allowed)


def _unknown(key: str, name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return f"{key}: '{name}' is unknown; allowed: {listed(names[:MAX_LISTED])}{more}"


def _twice(key: str, names: Iterable[str]) -> Iterator[str]:
    counts = Counter(names)
    for name, count in counts.items():
        if count > 1:
            yield f"{key}: {name} is there {'twice' if count == 2 else f'{count} times'}"
