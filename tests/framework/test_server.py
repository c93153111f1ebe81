"""`kedro server`: pipelines and snapshots over HTTP follow the environment with which the server was started."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tiny_project import SMALL, make_project


def serve(folder: str, environments: list[str], answers: str) -> None:
    """Serve one environment after the other in one process: a snapshot, a run, and a run of what does not exist."""
    import json
    import os
    from pathlib import Path

    from fastapi.testclient import TestClient
    from kedro.server import create_http_server

    os.chdir(folder)
    responses = {}
    for env in environments:
        with TestClient(create_http_server(folder, env=env)) as client:
            responses[env] = {
                "health": client.get("/health").json(),
                "snapshot": client.get("/snapshot").json(),
                "with_params": client.get("/snapshot", params={"params": "runs.rit.replicas=3"}).json(),
                "run": client.post("/run", json={"pipeline_names": ["data_prep"]}).json(),
                "wrong": client.post("/run", json={"pipeline_names": ["data_pre"]}).json(),
                "refused": client.get("/snapshot", params={"params": "runs.rit.replica=3"}).json(),
            }
    Path(answers).write_text(json.dumps(responses))


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """The answers for a study of one run, and after it for one of two."""
    folder = make_project(tmp_path_factory.mktemp("served"), "").folder
    for name, replicas in (("one", 1), ("two", 2)):
        (folder / "conf" / name).mkdir()
        (folder / "conf" / name / "globals.yml").write_text(f"data: data/{name}\n")
        text = SMALL.replace("replicas: 2", f"replicas: {replicas}").replace("pairs: [[rit, rit]]", "pairs: []")
        (folder / "conf" / name / "parameters.yml").write_text(text)
    call = f"serve({str(folder)!r}, ['one', 'two'], {str(folder / 'answers.json')!r})"
    script = f"{inspect.getsource(serve)}\n{call}"  # a server is a process of its own
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder, json.loads((folder / "answers.json").read_text())


@pytest.mark.parametrize(("env", "runs"), [("one", 1), ("two", 2)])
def test_a_snapshot_has_the_pipelines_of_the_environment(answers: tuple[Path, dict], env: str, runs: int) -> None:
    """Nodes, entries and parameters are those of the study; parameters of a request are of that request alone."""
    _, responses = answers
    for answer, expected in (("snapshot", runs), ("with_params", 3)):
        snapshot = responses[env][answer]
        assert snapshot["status"] == "success", snapshot
        training = next(part for part in snapshot["pipelines"] if part["name"] == "training")
        trained = {node["name"] for node in training["nodes"] if ".training.rit_" in node["name"]}
        assert trained == {f"clipart.training.rit_{number}" for number in range(1, expected + 1)}
        assert f"clipart.rit_{expected}.checkpoints" in snapshot["datasets"]
        assert f"clipart.rit_{expected + 1}.checkpoints" not in snapshot["datasets"]
        assert "plan" in snapshot["parameters"]


@pytest.mark.parametrize("env", ["one", "two"])
def test_a_run_is_of_the_environment(answers: tuple[Path, dict], env: str) -> None:
    """Its results lie in the environment's own folder."""
    folder, responses = answers
    assert responses[env]["run"]["status"] == "success", responses[env]["run"]
    assert (folder / "data" / env / "07_model_output" / "clipart" / "class_sizes.csv").is_file()


@pytest.mark.parametrize("env", ["one", "two"])
def test_a_mistake_is_an_answer_of_one_line(answers: tuple[Path, dict], env: str) -> None:
    """The server goes on after it; a wrong key is named."""
    _, responses = answers
    assert responses[env]["wrong"]["status"] == "failure"
    assert "data_pre" in responses[env]["wrong"]["error"]["message"]
    message = responses[env]["refused"]["error"]["message"]
    assert "runs.rit.replica: unknown key" in message
    assert "\n" not in message
