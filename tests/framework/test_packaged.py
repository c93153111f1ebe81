"""`kedro package`: the wheel and its configuration make the bytes that the project makes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tiny_project import ROOT, SMALL

pytestmark = pytest.mark.large  # the wheel is built in an environment of its own, for which the package index is needed


def call(folder: Path, *words: str, **variables: str) -> str:
    """Run a Python module in a folder; its output, or a failure of the test."""
    environment = {**os.environ, "DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, "-m", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project whose base is a study of two runs, after `kedro package` and `kedro run`."""
    folder = tmp_path_factory.mktemp("packaged")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)
    for name in ("src", "conf"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "local"))
    (folder / "conf" / "local").mkdir()
    (folder / "conf" / "local" / ".gitkeep").touch()
    (folder / "conf" / "small").mkdir()
    (folder / "conf" / "small" / "parameters.yml").write_text(SMALL)
    (folder / "conf" / "small" / "globals.yml").write_text("data: data\n")
    call(folder, "kedro", "package")
    call(folder, "kedro", "run", "--env", "small")
    return folder


def results(folder: Path) -> dict[str, bytes]:
    """Tables, claims, and weights of a study by their path; times of training differ from run to run."""
    paths = [path for kind in ("csv", "safetensors") for path in (folder / "data").rglob(f"*.{kind}")]
    kept = (path for path in paths if path.stem != "timings" and "landscape_measurements" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in kept}


@pytest.mark.parametrize("unpacked", [False, True])
def test_the_wheel_makes_the_same_bytes_in_an_empty_folder(packaged: Path, tmp_path: Path, unpacked: bool) -> None:
    """With the archive of the configuration, named or unpacked where the command is given, and nothing else."""
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    (wheel,) = (packaged / "dist").glob("*.whl")
    archive = packaged / "dist" / "conf-transferscope.tar.gz"
    zipfile.ZipFile(wheel).extractall(site)
    if unpacked:
        with tarfile.open(archive) as opened:
            opened.extractall(empty, filter="data")
    words = [] if unpacked else [f"--conf-source={archive}"]
    where = "import transferscope; print(transferscope.__file__)"
    run = {**os.environ, "PYTHONPATH": str(site)}
    there = subprocess.run(
        [sys.executable, "-c", where], cwd=empty, env=run, capture_output=True, text=True, check=True
    )
    assert there.stdout.startswith(str(site))
    call(empty, "transferscope", "--env", "small", *words, PYTHONPATH=str(site))
    made, expected = results(empty), results(packaged)
    assert len(expected) > 20
    assert made.keys() == expected.keys()
    assert [name for name in expected if made[name] != expected[name]] == []


def test_without_a_configuration_the_line_says_where_to_get_it(packaged: Path, tmp_path: Path) -> None:
    """An empty folder has none, and a user who installed the wheel has no project to go to."""
    command = [sys.executable, "-m", "transferscope"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "conf, does not exist: unpack conf-transferscope.tar.gz" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
