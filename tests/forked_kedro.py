"""`kedro` as a user types it, without the seconds in which a new Python imports torch and Kedro.

Commands run in processes that are forked from one which has imported everything and has done nothing else.
"""

from __future__ import annotations

import multiprocessing
import os
import pkgutil
import subprocess
import sys
from multiprocessing.context import ForkServerContext
from pathlib import Path
from tempfile import TemporaryDirectory

import transferscope

LIBRARIES = (
    "kedro.framework.cli",
    "kedro_viz.launchers.cli.main",
    "matplotlib.pyplot",
    "sklearn.metrics",
    "torch._dynamo",
)
"""What commands import beside this project's modules."""


def kedro(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder; exit code and output are those of `python -m kedro`."""
    with TemporaryDirectory() as written:
        files = [Path(written, name) for name in ("stdout", "stderr")]
        variables = {**os.environ, "DO_NOT_TRACK": "1", **environment}
        process = _context().Process(target=_run, args=(folder, arguments, variables, files))
        process.start()
        process.join()
        code = process.exitcode
        assert code is not None
        return subprocess.CompletedProcess(["kedro", *arguments], code, *(file.read_text() for file in files))


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    own = [module.name for module in pkgutil.walk_packages(transferscope.__path__, "transferscope.")]
    context.set_forkserver_preload([*(name for name in own if not name.endswith("__main__")), *LIBRARIES])
    return context


def _run(folder: Path, arguments: tuple[str, ...], variables: dict[str, str], files: list[Path]) -> None:
    for number, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    sys.argv = ["kedro", *arguments]
    from kedro.framework.cli import main

    main()
