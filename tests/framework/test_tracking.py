"""Records of runs in MLflow, in a store of files or a database in one; no server and no network."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from kedro.io import DataCatalog
from kedro.pipeline import Node, Pipeline
from mlflow import MlflowClient

from tiny_project import Project
from transferscope.datasets.table import TableDataset
from transferscope.framework.config import CommandLineError
from transferscope.framework.runners import GpuRunner
from transferscope.framework.tracking import Tracking
from transferscope.report.provenance import plan_digest


def only_run(store: str, experiment: str = "transferscope") -> Any:
    """The one run of an experiment."""
    client = MlflowClient(store)
    logged = client.get_experiment_by_name(experiment)
    assert logged is not None
    (run,) = client.search_runs([logged.experiment_id])
    return run


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store of files, which the variable names; MLflow alone would refuse it."""
    store = (tmp_path / "mlruns").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    return store


def test_a_run_leaves_its_study_curves_claims_and_report(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a database in a file, by this project's runner: every measured value of the tables is there, and no other."""
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.chdir(tmp_path)  # where MLflow keeps artefacts beside a database
    from transferscope.framework.config import active_plan

    project.run(runner=GpuRunner(), pipeline_names=["report"], tags=["report"])
    run, client = only_run(store), MlflowClient(store)
    assert run.info.status == "FINISHED"
    assert run.data.tags["plan_digest"] == plan_digest(active_plan())
    assert run.data.tags["kedro.pipelines"] == "report"
    assert run.data.params["runs.rit.training.lr"] == "0.05"
    assert run.data.params["generated.shapes.num_train"] == "60"
    claims = project.load("claims").set_index("id")
    decided = {"holds": 1.0, "does not hold": 0.0}
    expected = {
        f"claims/{name}/{part}": row[part] for name, row in claims.iterrows() for part in ("effect", "low", "high")
    }
    expected |= {f"claims/{name}/holds": decided.get(row["verdict"]) for name, row in claims.iterrows()}
    assert run.data.metrics == pytest.approx({key: value for key, value in expected.items() if pd.notna(value)})
    artefacts = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert artefacts == {"study.json", "report.html", "summary.md", "claims.csv", "claim_effects.csv"}


def test_learning_curves_are_the_histories(files: str, tmp_path: Path) -> None:
    """A point for each measured value at its epoch, nothing where nothing was measured; odd names of classes stay apart."""
    history = pd.DataFrame(
        {"task": "a", "run": "p_1", "epoch": [0, 1, 2], "test_auc/Don't": [0.5, None, 0.75], "lr": [None, 1.0, 0.5]}
    ).assign(**{"test_auc/Don_t": [0.1, 0.2, 0.3], "test_auc_Don_t": 0.4})
    catalog = DataCatalog({"a.p_1.history": TableDataset(filepath=str(tmp_path / "p_1.csv"))})
    catalog.save("a.p_1.history", history)
    tracking = Tracking()
    tracking.before_pipeline_run({"env": "mine", "pipeline_names": ["training"]})
    tracking.after_pipeline_run(Pipeline([Node(lambda: None, None, "a.p_1.history", name="train")]), catalog)
    run, client = only_run(files), MlflowClient(files)
    assert run.data.tags["kedro.env"] == "mine"
    curves = {
        tuple((point.step, point.value) for point in client.get_metric_history(run.info.run_id, name))
        for name in run.data.metrics
        if name.startswith("a/p_1/test_auc_Don_t")
    }
    assert curves == {
        ((0, 0.5), (2, 0.75)),
        ((0, 0.1), (1, 0.2), (2, 0.3)),
        ((0, 0.4), (1, 0.4), (2, 0.4)),
    }
    assert {"a/p_1/test_auc_Don_t", "a/p_1/lr"} < set(run.data.metrics)
    assert len(run.data.metrics) == 4


@pytest.mark.parametrize(
    ("end", "status"), [(Tracking.on_pipeline_error, "FAILED"), (Tracking.let_go, "KILLED")], ids=["error", "interrupt"]
)
def test_a_run_that_fails_or_is_interrupted_is_recorded_as_such(
    files: str, monkeypatch: pytest.MonkeyPatch, end: Callable[[Tracking], None], status: str
) -> None:
    """In the experiment that the user names."""
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    tracking = Tracking()
    tracking.before_pipeline_run({})
    assert only_run(files, "mine").info.status == "RUNNING"
    end(tracking)
    assert only_run(files, "mine").info.status == status


def test_a_study_that_cannot_be_recorded_leaves_no_run_that_goes_on(
    files: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends as failed in the store, and the command in one line."""

    def refused(*_: object) -> None:
        raise OSError("no space for artefacts")

    monkeypatch.setattr(MlflowClient, "log_dict", refused)
    with pytest.raises(CommandLineError, match=r"cannot record this run \(no space for artefacts\)"):
        Tracking().before_pipeline_run({})
    assert only_run(files).info.status == "FAILED"


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("password", ["secret", "secr@t", "x:y@z"])
def test_a_message_shows_no_password(monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    """Also where it holds the sign that ends it; the rest of the message stays."""

    def refused(*_: object, **__: object) -> None:
        raise OSError(f"no answer from postgresql://me:{password}@host:5432/runs or http://other/a@b")

    monkeypatch.setattr(MlflowClient, "create_run", refused)
    with pytest.raises(CommandLineError) as error:
        Tracking().before_pipeline_run({})
    assert "(no answer from postgresql://***@host:5432/runs or http://other/a@b)" in str(error.value)


def test_a_store_that_cannot_be_reached_is_one_line_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the password in the address."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(CommandLineError, match=r"^MLFLOW_TRACKING_URI: MLflow cannot record this run") as error:
        Tracking().before_pipeline_run({})
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_store_that_is_lost_is_a_warning(files: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """After the last node: the results are there."""
    tracking = Tracking()
    tracking.before_pipeline_run({})
    shutil.rmtree(tmp_path / "mlruns")
    with caplog.at_level(logging.WARNING, logger="transferscope"):
        tracking.after_pipeline_run(Pipeline([Node(lambda: None, None, "report", name="write")]), DataCatalog())
    assert "MLflow has not recorded that the run is FINISHED" in caplog.text


def test_without_the_variable_nothing_is_imported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And with it, but without the package, a warning says how to get it."""
    monkeypatch.setitem(sys.modules, "mlflow", None)  # an import raises
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracking = Tracking()
    tracking.before_pipeline_run({})
    tracking.after_pipeline_run(Pipeline([]), DataCatalog())
    assert not caplog.text
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    tracking.before_pipeline_run({})
    tracking.after_pipeline_run(Pipeline([]), DataCatalog())
    assert "mlflow is not installed, so nothing is recorded" in caplog.text
