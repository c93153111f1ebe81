"""Kill runs of a small study at random moments: each rerun must end as if nothing had happened, and leave nothing.

    uv run python tests/endurance/kills.py --kills 100

For each part of the study its outputs are removed and it is run undisturbed, which gives the time it takes and what
must come out. Then it is killed (SIGKILL, the process of the run alone) at a random moment of that time, again and
again, and each time run once more. After each rerun all files of the data folder must be there with the same bytes
(times left out), and no others, nothing may lie in the system's temporary folder, and no process may be left.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import pkgutil
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from kedro.framework.project import pipelines

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import transferscope
from tiny_project import SMALL, Project, make_project
from without_times import TIMES, without_times

MARK = "TRANSFERSCOPE_KILLS"
PATIENCE = 60.0
TORCHS_OWN = "torchinductor_"
"""The folder of compiled code that torch makes for all who use it."""


@dataclass(frozen=True)
class Part:
    """A part of the study: the options of `session.run`, and parameters."""

    name: str
    options: dict[str, Any]
    params: dict[str, Any] = field(default_factory=dict)
    also_remove: tuple[str, ...] = ()
    share: float = 0.25
    """Of all kills; less where a run takes longer."""


DRAWING = Part("drawing", {"node_names": ["clipart.data_prep.draw_domains"]})

PARTS = (
    Part("packing", {"node_names": [f"clipart.data_prep.{name}" for name in ("pack_train", "pack_test")]}),
    Part("training", {"node_names": ["clipart.training.rit_1"]}),
    Part(
        "training in two processes",
        {"node_names": ["clipart.training.rit_2"]},
        {"training": {"num_processes": 2}},
        share=0.06,
    ),
    Part(
        "landscape",
        {"node_names": [f"clipart.landscape.{name}" for name in ("interpolate_rit_1__rit_2", "criticality_rit_1")]},
        also_remove=("landscape_measurements",),
        share=0.2,
    ),
    Part("report", {"namespaces": ["clipart.mistakes", "clipart.report", "report"]}, share=0.2),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="in all, shared out among the parts")
    parser.add_argument("--each", type=int, help="the same number of kills for each part, in place of --kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--until", choices=[part.name for part in PARTS], help="leave the parts after this one out")
    arguments = parser.parse_args()
    names = [part.name for part in PARTS]
    parts = PARTS[: names.index(arguments.until or names[-1]) + 1]
    with tempfile.TemporaryDirectory(prefix="kills-") as work:
        project = make_project(_new(Path(work) / "project"), SMALL)
        trial = Trial(project, _new(Path(work) / "tmp"), random.Random(f"{arguments.seed} {arguments.until}"))
        if any(trial.run(part) for part in ([Part("all", {})] if parts == PARTS else [DRAWING, *parts[:-1]])):
            sys.exit(f"the study cannot be run: {trial.log.read_text()[-3000:]}")
        failures = [
            failure
            for part in sorted(parts, key=lambda part: -part.share)
            for failure in trial.test(part, arguments.each or _number(part, parts, arguments.kills))
        ]
    print("\n".join(failures) or "no difference, nothing left behind")
    sys.exit(bool(failures))


def _number(part: Part, parts: tuple[Part, ...], kills: int) -> int:
    """Kills of a part, of all of these parts."""
    return round(kills * part.share / sum(other.share for other in parts))


class Trial:
    """Runs of one project, in forked processes that this one may kill."""

    def __init__(self, project: Project, system: Path, draws: random.Random) -> None:
        self.project, self.system, self.draws = project, system, draws
        self.data = project.folder / "data"
        os.environ |= {MARK: str(system), "TMPDIR": str(system), "DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1"}
        tempfile.tempdir = str(system)
        self.log = project.folder / "runs.log"
        self.places: dict[str, list[Path]] = {}
        # Once, before processes are forked: each would take seconds for it.
        for module in pkgutil.walk_packages(transferscope.__path__, "transferscope."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
        for name in (
            "torch._dynamo",
            "matplotlib.pyplot",
            "kedro_viz.integrations.kedro.hooks",
            "sklearn.metrics",
            "scipy.stats",
        ):
            with suppress(ImportError):
                importlib.import_module(name)

    def test(self, part: Part, kills: int) -> list[str]:
        """Kill a part as often as that; one line for each rerun that ended otherwise."""
        self._remove(part)
        began = time.monotonic()
        if self.run(part):
            return [f"{part.name}: the undisturbed run failed; see {self.log}"]
        took, expected = time.monotonic() - began, self._files()
        print(f"{part.name}: {took:.1f} s undisturbed", flush=True)
        failures, hit = [], 0
        for number in range(kills):
            self._remove(part)
            moment = self.draws.uniform(0, took)
            hit += self.run(part, kill_after=moment) == -signal.SIGKILL
            left = sum(1 for _ in self.data.rglob("*.tmp"))
            began = time.monotonic()
            code = self.run(part)
            took = time.monotonic() - began  # the load of the machine changes
            wrong = [f"exit code {code}, {self._last_words()}"] if code else self._differences(expected)
            failures += [f"{part.name}, killed after {moment:.2f} s (number {number}): {line}" for line in wrong]
            print(
                f"{part.name}: killed after {moment:.2f} s, {left} temporaries; {'; '.join(wrong) or 'same'}",
                flush=True,
            )
        print(f"{part.name}: {hit} of {kills} kills hit a run, {len(failures)} differences", flush=True)
        return failures

    def run(self, part: Part, kill_after: float | None = None) -> int:
        """Run a part in a process of its own; its exit code, negative for the signal that ended it."""
        child = os.fork()
        if child == 0:
            _in_child(self.log, lambda: self._carry_out(part))
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(child, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def _last_words(self) -> str:
        """The last lines of the log, in one."""
        return " | ".join(line.strip() for line in self.log.read_text().splitlines()[-12:])

    def _carry_out(self, part: Part) -> None:
        from transferscope.framework.runners import GpuRunner

        os.chdir(self.project.folder)
        with self.project.session(params=part.params) as session:
            session.run(runner=GpuRunner(max_workers=2), **part.options)

    def _remove(self, part: Part) -> None:
        """Remove what the part makes."""
        if part.name not in self.places:
            self.places[part.name] = self._places(part)
        for path in self.places[part.name]:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def _places(self, part: Part) -> list[Path]:
        """Where it lies; asked for in a process of its own, since a session leaves things behind."""
        answer = self.project.folder / "places.json"

        def ask() -> None:
            with self.project.session(params=part.params) as session:
                catalog = session.load_context().catalog
                chosen = pipelines["__default__"].filter(
                    node_namespaces=part.options.get("namespaces"), node_names=part.options.get("node_names")
                )
                names = (*chosen.all_outputs(), *part.also_remove)
                answer.write_text(json.dumps([catalog.get(name)._describe()["filepath"] for name in names]))

        child = os.fork()
        if child == 0:
            _in_child(self.log, ask)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, self.log.read_text()[-2000:]
        places = [self.project.folder / place for place in json.loads(answer.read_text())]
        return [*places, *(place.with_suffix(".pdf") for place in places if place.suffix == ".png")]

    def _files(self) -> dict[str, str]:
        """Digests by the files of the data folder."""
        digests = {}
        for path in self.data.rglob("*"):
            if path.is_file() or path.is_symlink():
                content = b"" if path.name in TIMES else without_times(path)  # that they are there is checked
                digests[str(path.relative_to(self.data))] = hashlib.sha256(content).hexdigest()
        return digests

    def _differences(self, expected: dict[str, str]) -> list[str]:
        files = self._files()
        wrong = [f"missing {name}" for name in expected.keys() - files.keys()]
        wrong += [f"left behind {name}" for name in files.keys() - expected.keys()]
        wrong += [f"other bytes in {name}" for name in expected.keys() & files.keys() if expected[name] != files[name]]
        deadline = time.monotonic() + PATIENCE
        while (processes := self._processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        wrong += [f"process {process.pid} {' '.join(process.cmdline())[:200]}" for process in processes]
        wrong += [f"left behind {path}" for path in self.system.iterdir() if not path.name.startswith(TORCHS_OWN)]
        return wrong

    def _processes(self) -> list[psutil.Process]:
        processes = []
        for process in psutil.process_iter():
            try:
                if process.pid != os.getpid() and process.environ().get(MARK) == str(self.system):
                    processes.append(process)
            except psutil.Error:
                continue
        return processes


def _in_child(log: Path, work: Callable[[], None]) -> None:
    """Do the work in this forked process, which ends with it; what it prints goes to a file."""
    code = 1
    try:
        with log.open("a") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        work()
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    main()
