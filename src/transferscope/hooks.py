"""What happens around a run: checks before it, one line per node during it, where the report lies after it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from transferscope.config import CommandLineError, active_plan
from transferscope.errors import UserError

logger = logging.getLogger("transferscope")


class StudyHooks:
    """Hooks of every `kedro run`."""

    def __init__(self) -> None:
        self._started: dict[str, float] = {}
        self._unsaved: dict[str, set[str]] = {}
        self._done = 0
        self._total = 0
        self._begin = 0.0

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Refuse before any work what would fail later: inputs that do not exist or are stale."""
        self._done, self._total, self._begin = 0, len(pipeline.nodes), time.perf_counter()
        check_inputs(pipeline, catalog)
        check_trainings(pipeline)
        logger.info("%d steps; what is already finished is recognised", self._total)

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        self._started[node.name] = time.perf_counter()
        self._unsaved[node.name] = set(node.outputs)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, node: Node) -> None:
        """A node is done when its last output is saved: large outputs are made while they are written."""
        unsaved = self._unsaved[node.name]
        unsaved.discard(dataset_name)
        if not unsaved:
            self._done += 1
            seconds = time.perf_counter() - self._started.pop(node.name)
            logger.info("[%d/%d] %s %.1f s", self._done, self._total, node.name, seconds)

    @hook_impl
    def after_dataset_loaded(self, dataset_name: str, data: Any) -> None:
        """Refuse, by name, a checkpoint that the present plan would have made differently."""
        if dataset_name.endswith(".checkpoints"):
            check_fingerprint(dataset_name, data.fingerprint)

    @hook_impl
    def on_pipeline_error(self, error: Exception) -> None:
        """A user's mistake is one line, not a traceback."""
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, UserError):
                raise CommandLineError(str(cause)) from error
            cause = cause.__cause__

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        logger.info("done in %.0f s", time.perf_counter() - self._begin)
        if "report" in pipeline.all_outputs():
            logger.info("the report: %s", _place(catalog, "report"))


def check_inputs(pipeline: Pipeline, catalog: CatalogProtocol) -> None:
    """Every free input of the pipeline exists, and its checkpoints belong to the plan."""
    missing = []
    for name in sorted(pipeline.inputs()):
        if name.startswith("params:") or name == "parameters":
            continue
        dataset = catalog.get(name)
        if dataset is None or not dataset.exists():
            missing.append(name)
        elif name.endswith(".checkpoints"):
            check_fingerprint(name, dataset.load().fingerprint)
    if missing:
        first = missing[0]
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise CommandLineError(f"{first}{more}: not there yet; {_how_to_make(first, catalog)}")


def check_trainings(pipeline: Pipeline) -> None:
    """Every architecture that is to be trained exists, with its options, and so do the processes that are asked for."""
    names = {node.name for node in pipeline.nodes}
    plan = active_plan()
    trained = [run for run in plan.runs.values() if f"{run.task}.training.{run.name}" in names]
    if not trained:
        return
    import torch

    from transferscope.models.zoo import build_model
    from transferscope.training.launch import count_processes

    kind = "cuda" if torch.cuda.is_available() else "cpu"
    for model in {run.model.model_dump_json(): run.model for run in trained}.values():
        with _one_line(f"model {model.name}: "):
            build_model(model.name, 2, **model.options)
    for run in trained:
        with _one_line(f"{run.full_name}: "):
            count_processes(run.training.num_processes, kind)


@contextmanager
def _one_line(where: str) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise CommandLineError(f"{where}{error}") from error


def check_fingerprint(name: str, fingerprint: str) -> None:
    """The checkpoints of a run were made as the present plan would make them."""
    run = active_plan().runs.get(name.removesuffix(".checkpoints"))
    if run is not None and fingerprint != run.fingerprint:
        raise CommandLineError(
            f"{name}: made by another plan (fingerprint {fingerprint}, now {run.fingerprint}); "
            f"train again with `kedro run --nodes {run.task}.training.{run.name}`, or undo the change of parameters"
        )


def _how_to_make(name: str, catalog: CatalogProtocol) -> str:
    if name.endswith(".source"):
        return f"the folder {_place(catalog, name)} does not exist: put the images there"
    step = "data_prep" if name.endswith("_split") or ".class_sizes." in name else "training"
    if name.endswith((".table", ".figure")) and step == "training":
        return "run the pipeline that makes it, or all with `kedro run`"
    return f"make it with `kedro run --pipelines {step}`"


def _place(catalog: CatalogProtocol, name: str) -> str:
    """Where an entry lies, relative to the working folder where possible."""
    dataset = catalog.get(name)
    assert dataset is not None
    path = Path(dataset._describe()["filepath"]).resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
