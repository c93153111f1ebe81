"""Parameters and catalog entries that follow from the plan, for nodes and datasets to refer to by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from transferscope.experiment.node_parameters import PairSpec, VariedRun
from transferscope.experiment.pairs import PairGroup
from transferscope.experiment.plan import Plan
from transferscope.experiment.plan_type import differ_in_rate
from transferscope.experiment.run import RunSpec
from transferscope.experiment.study import pictures_of


class Places(Protocol):
    """The loader, which knows to which folder relative paths belong."""

    def place(self, path: str) -> str:
        """A path of the parameters, absolute."""

    def with_places(self, run: RunSpec) -> RunSpec:
        """The run with absolute paths of the files that it reads."""


def plan_parameters(plan: Plan, places: Places) -> dict[str, Any]:
    """The study as validated, and under `plan` each task, run and scenario that a node takes; with absolute paths.

    `plan.study` is the study as written, from which `make_plan` makes the whole plan again.
    """
    study = plan.study.model_dump(mode="json")
    study["models_folder"] = places.place(plan.study.models_folder)
    trainings: dict[int, Any] = {}
    runs: dict[str, dict[str, Any]] = {}
    for run in plan.runs.values():
        unused = set() if run.split_from else {"split_from", "split_epoch", "shared_order_seed"}
        unused |= set() if run.in_series else {"in_series"}
        values = places.with_places(run).model_dump(mode="json", exclude={"training", *unused})
        key = id(run.training)  # one object for all replicas
        other = set() if run.training.optimizer else {"optimizer"}
        trainings[key] = trainings.get(key) or run.training.model_dump(mode="json", exclude=other)
        runs.setdefault(run.task, {})[run.name] = values | {"training": trainings[key]}
    landscape = plan.study.analyses.landscape
    parts = {name: getattr(landscape, name, None) for name in ("basin", "criticality", "connection")}
    expanded = {
        "study": plan.study.model_dump(mode="json", exclude_unset=True),
        "runs": runs,
        # All runs of a task in one piece, for Kedro validates either a parameter or the parameters inside it.
        "runs_of": {task: list(named.values()) for task, named in runs.items()},
        **{name: options.model_dump(mode="json") for name, options in parts.items() if options is not None},
        "varied": {
            task: [one.model_dump(mode="json") for one in VariedRun.of(plan, task)]
            for task in dict.fromkeys(plan.views.values())
        },
        "tasks": _task_parameters(plan),
        "notes": _notes(plan),
        "labels": label_parameters(plan),
        **_group_parameters(plan, runs),
        "merges": {spec.name: spec.model_dump(mode="json") for spec in plan.merges()},
    }
    return study | {"plan": expanded | _pair_parameters(plan)}


def _group_parameters(plan: Plan, runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The runs of each group that is trained as one, by task and node."""
    groups: dict[str, dict[str, list[Any]]] = {}
    for group in plan.run_groups:
        of_task = groups.setdefault(str(group.node.task), {})
        of_task[group.node.node] = [runs[run.task][run.name] for run in group.runs]
    return {"run_groups": groups} if groups else {}


def label_parameters(plan: Plan) -> dict[str, Any]:
    """For every task, and across them, the role of each label, the label of each run, and labels of other rates.

    Of a role the label of what is compared is first; other rates are labels of kinds that differ from it in that alone.
    """
    scopes = {task: [*plan.runs_of(task), *plan.in_role(task, "source")] for task in plan.study.tasks}
    order = list(plan.study.runs)
    labels: dict[str, Any] = {}
    for scope, runs in {**scopes, "cross_domain": list(plan.runs.values())}.items():
        roles: dict[str, str] = {}
        first: dict[str, RunSpec] = {}
        other_rates: dict[str, str] = {}
        for run in sorted(runs, key=lambda run: (not plan.study.runs[run.kind].compared, order.index(run.kind))):
            base = first.setdefault(run.role, run)
            if run.label not in roles and differ_in_rate(run, base):
                other_rates[run.label] = base.label
            roles.setdefault(run.label, run.role)
        named = {run.full_name: run.label for run in runs}
        labels[scope] = {"roles": roles, "runs": named, "other_rates": other_rates}
    return labels


def _notes(plan: Plan) -> dict[str, str | None]:
    """The note on a task's images that each of its figures carries."""
    generated = {task: plan.is_generated(task) for task in plan.study.tasks}
    generated["cross_domain"] = any(generated.values())
    return {scope: "generated images" if value else None for scope, value in generated.items()}


def _task_parameters(plan: Plan) -> dict[str, Any]:
    """Options that decide the packing of each part of each task."""
    study = plan.study
    return {
        task: {
            part: {
                "task": task,
                "part": part,
                "pictures": pictures_of(study, task).model_dump(mode="json"),
                "on_bad_image": options.on_bad_image,
                "num_workers": options.num_workers,
                **({} if options.value_range is None else {"value_range": list(options.value_range)}),
            }
            for part in options.parts
        }
        for task, options in study.tasks.items()
    }


def _pair_parameters(plan: Plan) -> dict[str, Any]:
    """Every pair of every analysis by task and name, and those that lie across tasks."""
    analyses = plan.study.analyses
    compared = [options for options in (analyses.mistakes, analyses.similarity, analyses.landscape) if options]
    pairs = {task: _pairs(plan, task, *compared) for task in plan.targets()}
    alike = {
        task: [PairSpec.of(pair).as_parameters() for pair in plan.pairs(task, analyses.similarity.pairs)]
        for task in (plan.targets() if analyses.similarity else ())
        if analyses.similarity
    }
    stopping = analyses.mistakes if analyses.mistakes and analyses.mistakes.until_decided else None
    decided = {
        task: [PairSpec.of(pair).as_parameters() for pair in plan.pairs(task, stopping.pairs)]
        for task in (plan.targets() if stopping else ())
        if stopping
    }
    own = {
        task: [PairSpec.of(pair).as_parameters() for pair in plan.own_pairs(task)]
        for task in (plan.targets() if analyses.own else ())
    }
    across = {
        name: PairSpec.of(pair, scenario=scenario.figure, evaluated_on=scenario.evaluated_on).as_parameters()
        for scenario in (analyses.landscape.cross_domain if analyses.landscape else ())
        for name, pair in plan.cross_domain_pairs(scenario).items()
    }
    return {
        "pairs": pairs,
        "gallery_pairs": {
            task: PairSpec.of(pair).as_parameters() for task in plan.targets() if (pair := plan.gallery_pair(task))
        },
        "decided_pairs": decided,
        "similarity_pairs": alike,
        "own_pairs": own,
        "cross_domain_pairs": across,
        "connected": {
            task: {pair.name: PairSpec.of(pair).as_parameters() for pair in plan.connected(task)}
            for task in plan.targets()
        },
        "planes": _plane_parameters(plan),
    }


def _plane_parameters(plan: Plan) -> dict[str, Any]:
    """The planes of every task by name."""
    landscape = plan.study.analyses.landscape
    by_task: dict[str, Any] = {}
    for plane in landscape.planes if landscape else ():
        by_task.setdefault(plane.task, {})[plane.name] = plane.model_dump(mode="json")
    return by_task


def _pairs(plan: Plan, task: str, *analyses: Any) -> dict[str, Any]:
    """Every pair that has a node of its own, and those that share one as a list, which Kedro keeps in one piece."""
    kinds = dict.fromkeys(pair for options in analyses for pair in options.pairs)
    groups = plan.pair_groups(task, kinds)
    return {group.name: _group(group) for group in groups}


def _group(group: PairGroup) -> Any:
    pairs = [PairSpec.of(pair).as_parameters() for pair in group.pairs]
    return pairs if group.together else pairs[0]


def source_entries(plan: Plan, place: Callable[[str], str] = str) -> dict[str, Any]:
    """A catalog entry for the images of each task as distributed.

    place: makes the paths of class lists absolute, as Kedro does with `filepath`.
    """
    entries = {}
    for name, task in plan.study.tasks.items():
        if task.root is not None:
            entries[f"{name}.source"] = {
                "type": "transferscope.datasets.image_source.ImageSourceDataset",
                "filepath": task.root,
                "task": name,
                "options": task.placed(place).source_options(),
                "metadata": {"kedro-viz": {"layer": "raw"}},
            }
    return entries


def pretrained_entries(plan: Plan, patterns: dict[str, Any]) -> dict[str, Any]:
    """Entries of runs that others start from, as model input of the target tasks, like their images.

    As model output it would stand before the splits of the targets and after those of its own task, and Kedro-Viz
    shows no layers where they go in a circle.
    """
    entries = {}
    starts = {run.pretrained for run in plan.runs.values()}
    for run in (run for name, run in plan.runs.items() if name in starts):
        for kind in ("checkpoints", "singular_values"):
            pattern = patterns[f"{{task}}.{{run}}.{kind}"]
            place = pattern["filepath"].replace("{task}", run.task).replace("{run}", run.name)
            layer = {"metadata": {"kedro-viz": {"layer": "model_input"}}}
            entries[f"{run.full_name}.{kind}"] = pattern | {"filepath": place} | layer
    return entries
