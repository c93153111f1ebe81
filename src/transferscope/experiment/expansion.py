"""Expand a study into its runs: every replica on every task by name, with its training, seeds, fingerprint and role."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any

from pydantic import ValidationError

from transferscope.experiment import options as opt
from transferscope.experiment.fingerprint import data_identity, fingerprint_of
from transferscope.experiment.run import Role, RunSpec
from transferscope.experiment.seeds import initialisation_seed_of, order_seed_of
from transferscope.experiment.study import Study
from transferscope.experiment.validation_messages import explain
from transferscope.system.references import is_reference

FileDigest = Callable[[str], str | None]

Trainings = dict[tuple[str, str], opt.TrainingOptions]
"""The training of each kind of run on each of its tasks."""


def expand(study: Study, trainings: Trainings, file_digest: FileDigest) -> dict[str, RunSpec]:
    """All runs of a study by full name, what others start from first.

    Args:
        study: With the kinds of run and tasks that its short keys stand for (`reuse_variants.expanded`).
        trainings: Of `all_trainings`.
        file_digest: As for `plan.make_plan`.
    """
    runs: dict[str, RunSpec] = {}
    for kind in in_order_of_need(study):
        for task in study.runs[kind].tasks:
            for run in _replicas(study, kind, task, trainings, runs, file_digest):
                runs[run.full_name] = run
    roles = _roles(study, runs)
    return {name: run.model_copy(update={"role": roles[name]}) for name, run in runs.items()}


def all_trainings(study: Study) -> tuple[Trainings, list[str]]:
    """The training of each kind of run on each of its tasks, and what is wrong in their options.

    The study's training is overridden by the task's, the kind's, and the kind's on this task.
    """
    trainings: Trainings = {}
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


def in_order_of_need(study: Study) -> list[str]:
    """Kinds such that what others start from comes first."""

    def rank(kind: str) -> int:
        options = study.runs[kind]
        return 2 if options.split_from is not None else int(options.pretrained is not None)

    return sorted(study.runs, key=rank)


def _replicas(
    study: Study,
    kind: str,
    task: str,
    trainings: Trainings,
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
    others = [None if options.pretrained in earlier else options.pretrained]
    others += [model.name] if is_reference(model.name) else []
    content = {"pretrained": source, "data": data_identity(study, task)}
    chosen: dict[str, Any] = {
        "weights": options.weights,
        "prefix": options.prefix,
        "transfer_until": options.transfer_until,
    }
    chosen |= {"in_series": True if options.checkpoints else None}
    chosen |= {"transfer": None if options.transfer == "weights" else options.transfer}
    for replica in range(1, options.replicas + 1):
        checkpoint = options.checkpoints[replica - 1] if options.checkpoints else options.checkpoint
        digests = [file_digest(file) for file in (checkpoint, *others) if file is not None]
        known = {"files": [digest for digest in digests if digest is not None]}
        values: dict[str, Any] = {
            "task": task,
            "kind": kind,
            "replica": replica,
            "initialisation": options.initialisation,
            "pretrained": options.pretrained,
            "pretrained_epoch": options.pretrained_epoch,
            "checkpoint": checkpoint,
            "init_seed": initialisation_seed_of(study.seed, task, options.shares_initialisation_with or kind, replica),
            "order_seed": order_seed_of(study.seed, task, kind, replica),
            "model": model,
            "training": trainings[kind, task],
        }
        values |= {key: value for key, value in chosen.items() if value is not None}
        fingerprint = fingerprint_of(values | content | (known if known["files"] else {}))
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
            "order_seed": order_seed_of(study.seed, task, kind, replica, epoch),
        }
        fingerprint = fingerprint_of(values | {"split_from": parent.fingerprint})
        yield parent.model_copy(
            update=values | {"name": f"{copies_of(kind, epoch)}_{replica}", "fingerprint": fingerprint}
        )


def copies_of(kind: str, epoch: int) -> str:
    """The name of the copies of a kind that split at an epoch, without the replica: `rit_split_e2`."""
    return f"{kind}_e{epoch}"


def _roles(study: Study, runs: dict[str, RunSpec]) -> dict[str, Role]:
    """The role of every run by full name.

    Replicas of a run that others start from are sources like it. A kind that starts from a part of P is a control,
    unless it is chosen to be compared. A task whose fine-tuned runs all start elsewhere needs its run from scratch as
    the one to compare with, also where other tasks start from that run.
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
            whole = run.transfer == "weights" and run.transfer_until is None
            return "fine_tuned" if whole or study.runs[run.kind].compared else "control"
        if key in sources and (own is None or key in own):
            return "source"
        if run.initialisation == "checkpoint":
            return "file"
        return "from_scratch" if study.runs[run.kind].shares_initialisation_with is None else "shared_init"

    return {name: role(run) for name, run in runs.items()}
