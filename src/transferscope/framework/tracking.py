"""Records of runs in MLflow, for those who set `MLFLOW_TRACKING_URI`; without it MLflow is not imported."""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
import math
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline

from transferscope.experiment.names import EntryName
from transferscope.experiment.plan import Plan
from transferscope.framework.command_line import CommandLineError
from transferscope.framework.config import active_plan
from transferscope.framework.kedro_private import place_of
from transferscope.system.errors import one_line

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Metric

logger = logging.getLogger("transferscope")

ASKED_BY = "MLFLOW_TRACKING_URI"
EXPERIMENT = "transferscope"
"""The experiment, unless MLFLOW_EXPERIMENT_NAME or MLFLOW_EXPERIMENT_ID names another."""

ARTIFACTS = ("report", "summary", "claims", "claim_effects")
"""Entries whose files are kept with the run."""

METRICS_AT_ONCE, PARAMS_AT_ONCE = 1000, 100
"""In one request, as many as MLflow takes."""

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_ALLOW_FILE_STORE": "true",
}
"""Of MLflow, unless the user has others: it reports nothing to its makers, notices a wrong address in seconds, and
writes to a folder, which costs a third of what a database in a file does."""


class Tracking:
    """Hooks that record a run in MLflow: the study, learning curves, claims and the report.

    All is read from the catalog in the process of the command, so that it makes no difference which runner carried the
    nodes out. A store that cannot be reached is an error before the first node; after the last it is a warning.
    """

    def __init__(self) -> None:
        self._client: MlflowClient | None = None
        self._run_id = ""

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any]) -> None:
        self.let_go()
        if not os.environ.get(ASKED_BY):
            return
        if find_spec("mlflow") is None:
            logger.warning(
                "%s is set, but mlflow is not installed, so nothing is recorded: `uv run --extra mlflow kedro run`, "
                "or without uv: pip install -e '.[mlflow]'",
                ASKED_BY,
            )
            return
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        try:
            client = MlflowClient()
            self._run_id = _begin(client, active_plan(), run_params)
            self._client = client
            atexit.register(self.let_go)
            _record_study(client, self._run_id, active_plan())
        except Exception as error:  # of MLflow, and of the libraries of its stores
            self._end("FAILED")
            raise CommandLineError(f"{ASKED_BY}: MLflow cannot record this run ({_message_of(error)})") from error

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        if self._client is None:
            return
        try:
            _record(self._client, self._run_id, pipeline.all_outputs(), catalog)
        except Exception as error:  # as above; the results themselves are there
            logger.warning("MLflow has not recorded all of this run: %s", _message_of(error))
        self._end("FINISHED")

    @hook_impl
    def on_pipeline_error(self) -> None:
        self._end("FAILED")

    def let_go(self) -> None:
        """End the record of a run that was interrupted."""
        self._end("KILLED")

    def _end(self, status: str) -> None:
        if self._client is None:
            return
        client, self._client = self._client, None
        atexit.unregister(self.let_go)
        try:
            client.set_terminated(self._run_id, status)
        except Exception as error:  # as above
            logger.warning("MLflow has not recorded that the run is %s: %s", status, _message_of(error))


def _message_of(error: Exception) -> str:
    """The error's message in one line, without a password in an address."""
    return re.sub(r"//[^/\s]*@", "//***@", one_line(str(error)))


def _begin(client: MlflowClient, plan: Plan, run_params: Mapping[str, Any]) -> str:
    """Start a run, and give its identity."""
    from transferscope.report.provenance import plan_digest

    digest, env = plan_digest(plan), run_params.get("env") or "default"
    run = client.create_run(
        _experiment(client),
        run_name=f"{env} {digest}",
        tags={
            "plan_digest": digest,
            "kedro.env": env,
            "kedro.pipelines": ",".join(run_params.get("pipeline_names") or ["__default__"]),
            "mlflow.source.name": "kedro run",
            "transferscope.version": version("transferscope"),
        },
    )
    return str(run.info.run_id)


def _record_study(client: MlflowClient, run_id: str, plan: Plan) -> None:
    """The study as parameters, and with all its values as a file."""
    from mlflow.entities import Param

    params = [Param(key, value) for key, value in _flat(plan.study.model_dump(mode="json", exclude_unset=True))]
    for first in range(0, len(params), PARAMS_AT_ONCE):
        client.log_batch(run_id, params=params[first : first + PARAMS_AT_ONCE])
    client.log_dict(run_id, plan.study.model_dump(mode="json"), "study.json")


def _experiment(client: MlflowClient) -> str:
    """The experiment that MLflow's variables name, or else this project's, made where it is missing."""
    given = os.environ.get("MLFLOW_EXPERIMENT_ID")
    if given:
        return given
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    experiment = client.get_experiment_by_name(name)
    return str(experiment.experiment_id if experiment else client.create_experiment(name))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys as `--params` takes them; a list is one value."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield _named(f"{prefix}{key}"), value if isinstance(value, str) else json.dumps(value)


def _named(key: str) -> str:
    """A name that MLflow takes; of another one, as of a class, also a digest, so that no two have the same name."""
    name = re.sub(r"[^\w\-. :]", "_", key)
    return name if name == key else f"{name}_{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def _record(client: MlflowClient, run_id: str, made: Iterable[str], catalog: CatalogProtocol) -> None:
    """Learning curves, claims and files, of those entries that the pipelines make."""
    names = sorted(made)
    metrics = [metric for name in names if EntryName.parse(name).form == "history" for metric in _curves(name, catalog)]
    metrics += _claims(catalog.load("claims")) if "claims" in names else []
    for first in range(0, len(metrics), METRICS_AT_ONCE):
        client.log_batch(run_id, metrics[first : first + METRICS_AT_ONCE])
    for name in ARTIFACTS:
        place = place_of(catalog.get(name)) if name in names else None
        if place is not None:
            client.log_artifact(run_id, str(place))


def _curves(name: str, catalog: CatalogProtocol) -> Iterator[Metric]:
    """Each measured value of a run's history, by epoch: `clipart/pt_1/test_accuracy`."""
    from mlflow.entities import Metric

    entry, now = EntryName.parse(name), _now()
    table = catalog.load(name).set_index("epoch").select_dtypes("number")
    for metric, values in table.items():
        key = f"{entry.task}/{entry.of}/{_named(str(metric))}"
        for epoch, value in values.dropna().items():
            yield Metric(key, float(value), now, int(epoch))


def _claims(claims: pd.DataFrame) -> Iterator[Metric]:
    """Effect and interval of each claim, and whether it holds: 1 or 0, and nothing where that cannot be said."""
    from mlflow.entities import Metric

    from transferscope.claims.verdict import FAILS, HOLDS

    now, verdicts = _now(), {HOLDS: 1.0, FAILS: 0.0}
    for row in claims.to_dict("records"):
        values = {name: row[name] for name in ("effect", "low", "high")} | {"holds": verdicts.get(row["verdict"])}
        for name, value in values.items():
            if value is not None and not math.isnan(value):
                yield Metric(f"claims/{row['id']}/{name}", float(value), now, 0)


def _now() -> int:
    """Milliseconds since 1970, as MLflow counts."""
    return int(time.time() * 1000)
