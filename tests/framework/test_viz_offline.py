"""Kedro-Viz asks no other machine for anything, by whichever command it is started."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from kedro_viz import server
from kedro_viz.api import apps
from kedro_viz.api.rest import router
from kedro_viz.integrations import pypi
from kedro_viz.integrations.deployment.base_deployer import BaseDeployer

from forked_kedro import kedro
from tiny_project import ROOT, SMALL, Project, make_project
from transferscope.framework.viz_offline import POLICY, serve

RECORDER = """
import os, sys

def record(event, args):
    if event not in ("socket.connect", "socket.getaddrinfo"):
        return
    host = args[0] if event == "socket.getaddrinfo" else args[1][0] if isinstance(args[1], tuple) else "127.0.0.1"
    if host not in (None, "", "127.0.0.1", "::1", "localhost", b"127.0.0.1", b"localhost"):
        with open(os.environ["ASKED_HOSTS"], "a") as file:
            file.write(f"{host}\\n")
        raise OSError("no network here")

sys.addaudithook(record)
"""
"""Python imports it first in each process; it writes down which hosts are asked, and lets none be reached."""


@dataclass(frozen=True)
class Served:
    """A server of the study: its port, and a file with a line for each question to another machine."""

    port: int
    asked: Path

    def ask(self, path: str) -> str:
        """The answer of the server."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
            return str(answer.read().decode())


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A study of two runs before it was run, and the project's refusal of telemetry."""
    project = make_project(tmp_path_factory.mktemp("drawn"), SMALL)
    shutil.copy(ROOT / ".telemetry", project.folder)
    return project


@pytest.fixture(scope="module")
def served(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The study, served by the command at a port that no other process of the tests has."""
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "sitecustomize.py").write_text(RECORDER)
    asked = folder / "hosts.txt"
    asked.touch()
    variables = {**os.environ, "PYTHONPATH": str(folder), "ASKED_HOSTS": str(asked)}
    variables.pop("DO_NOT_TRACK", None)  # the project alone has to see to it
    log = folder / "output.txt"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with log.open("w") as written:
        started = subprocess.Popen(
            [sys.executable, "-m", "kedro", "viz", "run", "--no-browser", f"--port={port}"],
            cwd=project.folder,
            env=variables,
            stdout=written,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + 120
        while "is running at" not in log.read_text():
            assert started.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.2)
        yield Served(port, asked)
    finally:
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()


def foreign(page: str) -> list[str]:
    """Addresses of other machines in the links, scripts and images of a page."""
    return re.findall(r'<(?:link|script|img)\b[^>]*"((?:https?:)?//[^"]*)"', page)


def test_the_recorder_sees_a_request(tmp_path: Path) -> None:
    """Otherwise that nothing was asked would mean nothing."""
    (tmp_path / "sitecustomize.py").write_text(RECORDER)
    asked = tmp_path / "hosts.txt"
    variables = {**os.environ, "PYTHONPATH": str(tmp_path), "ASKED_HOSTS": str(asked)}
    script = "import urllib.request as u\ntry: u.urlopen('http://fonts.example/a')\nexcept OSError: pass"
    subprocess.run([sys.executable, "-c", script], env=variables, check=True)
    assert asked.read_text() == "fonts.example\n"


def test_the_server_and_its_command_ask_nobody(served: Served) -> None:
    """Neither for a newer version nor for telemetry, while the page and all that it asks at its start are served."""
    for path in ("/", "/api/main", "/api/metadata", "/api/run-status"):
        assert served.ask(path)
    version = json.loads(served.ask("/api/version"))
    assert version["latest"] == version["installed"]
    assert not version["is_outdated"]
    assert served.asked.read_text() == ""


@pytest.mark.parametrize("path", ["/", "/workflow", "/docs"])
def test_a_served_page_names_no_other_machine(served: Served, path: str) -> None:
    """It has no link to one, and a policy by which browsers refuse what a script would load."""
    page = served.ask(path)
    assert POLICY in page
    assert [name for name in foreign(page) if path != "/docs"] == []


def test_a_built_page_names_no_other_machine(project: Project) -> None:
    """Of `kedro viz build`; the file that Kedro-Viz comes with does, so that the test sees one."""
    done = kedro(project.folder, "viz", "build")
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        page = (project.folder / "build" / "index.html").read_text()
        assert POLICY in page
        assert foreign(page) == []
        assert (project.folder / "build" / "api" / "main").is_file()
    finally:
        shutil.rmtree(project.folder / "build", ignore_errors=True)
    assert foreign((apps._HTML_DIR / "index.html").read_text())


def test_answers_from_a_file_are_served_likewise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`kedro viz run --load-file` loads no project in its server; its process is told before it begins."""
    for owner, name in (
        (apps, "_create_base_api_app"),
        (router, "get_version_response"),
        (pypi, "get_latest_version"),
        (BaseDeployer, "_write_heap_injected_index"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # so that it is as before after the test
    pages = []

    def run_server(load_file: str) -> None:
        pages.append(TestClient(apps.create_api_app_from_file(load_file)).get("/").text)

    monkeypatch.setattr(server, "run_server", run_server)
    serve(load_file=str(tmp_path))
    assert POLICY in pages[0]
    assert foreign(pages[0]) == []
    assert pypi.get_latest_version() is None


def test_no_session_reports_to_the_makers_of_kedro(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also without the file that refuses it, as where the installed wheel is run in an empty folder."""
    monkeypatch.delenv("DO_NOT_TRACK", raising=False)
    project = make_project(tmp_path, SMALL)
    with project.session() as session:
        hooks = {type(plugin).__module__ for plugin in session._hook_manager.get_plugins()}
    assert "transferscope.framework.hooks" in hooks
    assert not [name for name in hooks if name.startswith("kedro_telemetry")]
