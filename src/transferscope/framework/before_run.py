"""Everything that is checked, and said, before the first node of a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import pandas as pd
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline

from transferscope.experiment.names import Namespace
from transferscope.experiment.plan import Plan
from transferscope.experiment.run import RunSpec
from transferscope.framework import checks, network_checks
from transferscope.framework.command_line import CommandLineError
from transferscope.framework.config import active_place, active_plan, active_run
from transferscope.framework.expected_time import cost_note
from transferscope.framework.input_checks import input_faults, users_error
from transferscope.framework.staleness import has_entry
from transferscope.pipelines.wiring import ON_A_GPU


class Before:
    """Check all that would fail later before the first node, and estimate what the run takes."""

    def __init__(self, pipeline: Pipeline, catalog: CatalogProtocol, *, only_missing: bool = False) -> None:
        """only_missing: nodes whose results are there will not run."""
        self.pipeline, self.catalog, self.plan = pipeline, catalog, active_plan()
        self.runs = [active_run(run) for run in _trained_in(pipeline)]
        self.packed = _packed_in(pipeline)
        if only_missing:
            self.runs = [run for run in self.runs if not has_entry(catalog, f"{run.full_name}.checkpoints")]
            self.packed = [task for task in self.packed if not has_entry(catalog, f"{task}.test_split")]
        self.measures = any(node.tags & set(ON_A_GPU) for node in pipeline.nodes)
        self.sizes: dict[str, tuple[int, int]] = {}
        """Images in train and test of the tasks whose folders were read."""

    def faults(self) -> Iterator[str]:
        """A line each, of the nodes that will run."""
        yield from input_faults(self.pipeline, self.catalog)
        known: dict[str, tuple[str, ...]] = {}
        drawn = self.pipeline.all_outputs()
        read = [task for task in self.packed if f"{task}.source" not in drawn]
        there = [task for task in read if has_entry(self.catalog, f"{task}.source")]
        dropping = {task for task in there if self.plan.study.tasks[task].on_bad_image == "drop"}
        yield from checks.images_faults(there, partial(_load_source, self.catalog), known, self.sizes, dropping)
        yield from checks.examples_faults(self.plan, self._test_sizes())
        _add_known_classes(known, self.runs, self.packed, self.catalog)
        yield from network_checks.networks_faults(self.plan, self.runs, known)
        yield from network_checks.parts_faults(self.runs)
        yield from network_checks.optimizers_faults(self.runs)
        yield from network_checks.sizes_faults(self.plan, self.runs)
        yield from network_checks.together_faults(self.plan, self.runs)
        yield from network_checks.layers_faults(self.plan, self.plan.runs.values(), _analyses_in(self.pipeline))
        if "mistakes" in _analyses_in(self.pipeline):
            yield from checks.groups_faults(self.plan, self._columns)
        yield from network_checks.paths_faults(self.plan, self.runs, active_place(self.plan.study.models_folder))
        yield from checks.folders_faults(self._written())
        yield from checks.packages_faults(self.plan, self.runs, analyses=self.measures)
        if self.runs or self.measures:
            yield from checks.gpus_faults(self.plan, self.runs, analyses=self.measures)

    def unused_keys(self) -> Iterator[str]:
        """A line for each option that has no effect on the runs of the pipeline."""
        yield from checks.unused_keys(self.plan, self.runs)

    def _test_sizes(self) -> dict[str, int]:
        """Test images of the tasks on which features are compared, where they are read or packed."""
        outputs = self.pipeline.all_outputs()
        sizes = {}
        for task in (task for task in self.plan.study.tasks if f"{task}.cka.table" in outputs):
            if task in self.sizes:
                sizes[task] = self.sizes[task][1]
            elif (split := f"{task}.test_split") not in outputs and has_entry(self.catalog, split):
                sizes[task] = len(self.catalog.load(split))
        return sizes

    def _written(self) -> Iterator[tuple[str, str]]:
        """The folders of the user's own choice that nodes write, each after its key."""
        drawn = self.pipeline.all_outputs()
        for task, options in self.plan.study.tasks.items():
            if f"{task}.source" in drawn:
                yield f"tasks.{task}.root", active_place(str(options.root))
        if self.runs:
            yield "models_folder", active_place(self.plan.study.models_folder)

    def _columns(self, task: str) -> Any:
        """Columns of the test examples of a task, without values of images yet to be drawn; None where not known."""
        from transferscope.generated.patients import COLUMNS
        from transferscope.images.chexpert_table import other_columns
        from transferscope.images.example_columns import join_columns

        union = self.plan.study.tasks[task].union
        if union is not None:
            parts = [(part, self._columns(part)) for part in union]
            return None if any(table is None for _, table in parts) else join_columns(parts)
        if f"{task}.source" in self.pipeline.all_outputs():
            return pd.DataFrame(columns=list(other_columns(COLUMNS)) if self.plan.is_multi_label(task) else [])
        if task in self.packed:
            return _load_source(self.catalog, task).test.texts() if has_entry(self.catalog, f"{task}.source") else None
        split = f"{task}.test_split"
        return self.catalog.load(split).columns if has_entry(self.catalog, split) else None

    def note(self) -> str | None:
        """Warn of a comparison of checkpoint files that takes more than minutes."""
        names = (node.name for node in self.pipeline.nodes)
        return cost_note(self.plan, self.runs, names, self.sizes) if self.measures else None


def without_images(plan: Plan) -> Iterator[str]:
    """A line for each task without images that says what is left out; none for that of a parent."""
    for task in plan.study.tasks:
        of_parent = plan.compares_files and all(run.role == "source" for run in plan.runs_of(task))
        if not plan.has_images(task) and not of_parent:
            yield (
                f"{task} has no images (tasks.{task}.root): distances and spectra of the weights are measured; left "
                "out is what needs images, such as mistakes, similarity of features, margins and the landscape"
            )


def of_other_networks(plan: Plan) -> Iterator[str]:
    """A line for each pair of different networks whose features are compared, on the distance that it has not."""
    similarity = plan.study.analyses.similarity
    for task in plan.targets() if similarity else ():
        assert similarity is not None
        for pair in plan.pairs(task, similarity.pairs):
            if not pair.same_network:
                a, b = pair.run_a, pair.run_b
                yield (
                    f"{a.full_name} is a {a.model.name} and {b.full_name} a {b.model.name}: features are compared, and "
                    "a distance between weights is not defined"
                )


def _packed_in(pipeline: Pipeline) -> list[str]:
    """Tasks whose images the pipeline packs."""
    outputs = pipeline.all_outputs()
    tasks = active_plan().study.tasks
    return [task for task, options in tasks.items() if f"{task}.test_split" in outputs and options.union is None]


def _analyses_in(pipeline: Pipeline) -> set[str]:
    """Names of the analyses whose nodes the pipeline has."""
    return {Namespace.parse(node.namespace).pipeline for node in pipeline.nodes if node.namespace}


def _load_source(catalog: CatalogProtocol, task: str) -> Any:
    try:
        return catalog.load(f"{task}.source")
    except Exception as error:  # of Kedro, around ours
        raise users_error(error) from error


def _add_known_classes(
    known: dict[str, tuple[str, ...]], runs: Iterable[RunSpec], packed: Iterable[str], catalog: CatalogProtocol
) -> None:
    """The classes of tasks that runs adopt checkpoints for: of packed splits, and of a union those of its parts."""
    tasks = active_plan().study.tasks
    for task in dict.fromkeys(run.task for run in runs if run.checkpoint is not None and tasks[run.task].has_images):
        first = (tasks[task].union or (task,))[0]
        if first not in known and first not in packed and has_entry(catalog, f"{first}.test_split"):
            known[first] = tuple(catalog.load(f"{first}.test_split").class_names)
        if first in known:
            known[task] = known[first]


def trains_on_several_machines(pipeline: Pipeline, catalog: CatalogProtocol) -> bool:
    """True if each of several machines runs this command, for the one training that it holds.

    CommandLineError where it holds more: all machines would do the other nodes too, into the same files, and might
    come to the trainings in different orders.
    """
    waiting = [run for run in _trained_in(pipeline) if run.training.num_nodes > 1 and not _is_done(run, catalog)]
    if waiting and len(pipeline.nodes) > 1:
        run = waiting[0]
        raise CommandLineError(
            f"training.num_nodes is {run.training.num_nodes} for {run.full_name}: run that training alone, by the same "
            f"command on each machine, `--nodes {run.node}`, before it on one machine what it "
            "needs, and after it the rest"
        )
    return bool(waiting)


def _is_done(run: RunSpec, catalog: CatalogProtocol) -> bool:
    series = catalog.get(f"{run.full_name}.checkpoints")
    return series is not None and series.exists() and series.load().fingerprint == run.fingerprint


def _trained_in(pipeline: Pipeline) -> list[RunSpec]:
    names, plan = {node.name for node in pipeline.nodes}, active_plan()
    return [run for run in plan.runs.values() if str(plan.node_of(run)) in names]
