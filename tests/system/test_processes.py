"""Work in processes beside this one: the same results, the same errors, and nothing left behind."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from kedro.pipeline import Node

from transferscope.framework.runners import beside
from transferscope.framework.runners.beside import drawn_by
from transferscope.generated.draw import generate_chest, generate_domains, generate_source
from transferscope.plots.rendered import render
from transferscope.plots.style import empty_figure
from transferscope.system.errors import UserError
from transferscope.system.processes import elsewhere, side_processes, spread


def contents(root: Path) -> dict[str, bytes]:
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}


def test_without_processes_everything_is_done_here():
    """Outside `side_processes` both are plain calls."""
    assert elsewhere(os.getpid) == os.getpid()
    assert list(spread(abs, [-1, 2])) == [1, 2]


def test_with_processes_it_is_done_elsewhere_and_in_order():
    """Results come back in the order of the items, from other processes; an error is raised here as it was there."""
    with side_processes(2):
        process = elsewhere(os.getpid)
        results = list(spread(abs, range(-5, 5)))
        with pytest.raises(UserError, match="3 generated images are too few"):
            elsewhere(partial(generate_source, "unused", num_train=3))
    assert process != os.getpid()
    assert results == [5, 4, 3, 2, 1, 0, 1, 2, 3, 4]


def test_what_a_killed_process_did_is_done_here():
    """A process that is killed costs its own work and no result."""
    with side_processes(1):
        process = elsewhere(os.getpid)
        results = spread(time.sleep, [1.0, 0.0])
        os.kill(process, signal.SIGKILL)
        assert list(results) == [None, None]
        assert elsewhere(os.getpid) == os.getpid()


def test_figures_and_images_are_the_same_wherever_they_are_drawn(tmp_path):
    """Rendered figures and generated images do not depend on the process, byte for byte."""
    drawing = drawn_by(elsewhere, empty_figure)

    def draw(folder: Path) -> object:
        generate_source(folder / "source", num_train=70, num_test=12, size=16)
        generate_domains(folder / "domains", num_train=20, num_test=10, size=16)
        generate_chest(folder / "chest", num_images=6, size=16)
        return drawing("nothing to see", "note")

    here = draw(tmp_path / "a")
    with side_processes(2):
        there = draw(tmp_path / "b")
    assert here == there
    assert here.png.startswith(b"\x89PNG")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_drawing_shows_itself_as_the_function_that_it_wraps():
    """Kedro and Kedro-Viz name the function and show its source and documentation."""
    drawing = drawn_by(elsewhere, empty_figure)
    assert drawing.__name__ == "empty_figure"
    assert drawing.__doc__ == empty_figure.__doc__
    assert inspect.unwrap(drawing) is empty_figure


def test_few_figures_are_drawn_without_a_process(monkeypatch):
    """Figures go to processes from `MANY` of a run on; nodes that make anything else stay as they are."""
    sent = []
    monkeypatch.setattr(beside, "elsewhere", lambda function, *arguments: sent.append(function) or function(*arguments))
    figures = [Node(empty_figure, ["message", "note"], f"{number}.figure") for number in range(beside.MANY)]
    table = Node(empty_figure, ["message", "note"], "table")
    for number, work in ((beside.MANY - 1, 0), (beside.MANY, 1)):
        carried_out = beside.figures_beside([*figures[:number], table])
        drawn = carried_out(figures[0]).func("nothing to see", "note")
        assert len(sent) == work
        assert drawn == render(empty_figure("nothing to see", "note"))
        assert carried_out(table) is table


def test_processes_end_with_their_parent(tmp_path):
    """A parent that is killed leaves no process behind."""
    script = tmp_path / "parent.py"
    script.write_text(
        "import os\n"
        "from transferscope.system.processes import elsewhere, side_processes\n"
        "if __name__ == '__main__':\n"
        "    with side_processes(1):\n"
        "        print(elsewhere(os.getpid), flush=True)\n"
        "        os.kill(os.getpid(), 9)\n"
    )
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    child = int(ended.stdout)
    deadline = time.monotonic() + 20
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert ended.returncode == -9
    assert not Path(f"/proc/{child}").exists()
