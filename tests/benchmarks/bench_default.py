"""CPU seconds of the default study by kind of node, from one run.

    python tests/benchmarks/bench_default.py [--pipelines data_prep training] [--nodes NAMES] [--folder PROJECT]
        [--study "training: {epochs: 1}"] [--top 25] [--profile criticality]

Runs the study in a new folder, or in a project folder that exists, with the runner of `kedro run`, and prints the CPU
seconds of the thread of each node and of the processes beside it that draw for it, added up by kind; then parts of
trainings, the nodes that take most, the modules that are longest to load, and what the whole process took. With one
thread an operation, as on two cores, a thread's seconds are all that a node takes. `--profile` prints where nodes of
such names spend it. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import cProfile
import logging
import os
import pstats
import re
import resource
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

KINDS = (
    ("images drawn", r"draw_(shapes|domains|chest)$"),
    ("figures", r"draw_"),
    ("trainings", r"\.training\.(?!gather|describe)|feature_reuse\.(blocks|each|controls|source_epochs)_"),
    ("lines", r"interpolate_"),
    ("connections", r"\.connect_"),
    ("planes, basins, curves", r"plane_|basin_"),
    ("criticality, rewinding", r"criticality_|rewind"),
    ("merging", r"\.merging\."),
    ("spectra, margins", r"\.spectrum\."),
    ("CKA, distances", r"\.similarity\."),
    ("mistakes", r"\.mistakes\."),
    ("packing, summaries", r"data_prep|generated"),
    ("report, claims", r"report\."),
)
"""Kind of node, and a pattern of the names of its nodes; the first that fits counts."""

here = threading.local()
spent: Counter[str] = Counter()
parts: Counter[str] = Counter()
imports: Counter[str] = Counter()
profiles: list[cProfile.Profile] = []
_reported = 0.0


def kind_of(node: str) -> str:
    return next((kind for kind, pattern in KINDS if re.search(pattern, node)), "other")


def timed_beside(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """In a process beside the run: the result, and CPU seconds since the last report, its start and imports included."""
    global _reported
    result = function(*arguments)
    now = time.process_time()
    taken, _reported = now - _reported, now
    return result, taken


def watch_nodes(profiled: str | None) -> None:
    """Count the seconds of each node's thread, and of what other processes do for it."""
    from kedro.runner import Task

    from transferscope.system import processes

    call, begun = Task.__call__, processes._begun

    def timed_call(task: Any) -> Any:
        here.node = task.node.name
        begin = time.thread_time()
        profile = cProfile.Profile(time.thread_time) if profiled and re.search(profiled, here.node) else None
        try:
            if profile is None:
                return call(task)
            profiles.append(profile)
            return profile.runcall(call, task)
        finally:
            spent[here.node] += time.thread_time() - begin  # type: ignore[assignment]

    def timed_begun(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
        wait = begun(timed_beside, function, *arguments)

        def result() -> Any:
            value, seconds = wait()
            spent[here.node] += seconds
            return value

        return result

    Task.__call__ = timed_call  # type: ignore[method-assign]
    processes._begun = timed_begun


def watch_imports() -> None:
    """Count what this process spends on loading modules, by the module that was asked for."""
    from importlib import _bootstrap

    load = _bootstrap._find_and_load  # type: ignore[attr-defined]

    def timed_load(name: str, import_: Any) -> Any:
        if getattr(here, "loads", False):  # what a module loads counts as its own
            return load(name, import_)
        here.loads, begin = True, time.thread_time()
        try:
            return load(name, import_)
        finally:
            here.loads = False
            imports[name] += time.thread_time() - begin  # type: ignore[assignment]

    _bootstrap._find_and_load = timed_load  # type: ignore[attr-defined]


def watch_trainings() -> None:
    """Count what trainings spend on evaluation and on files; the rest is steps."""
    from transferscope.training import trainee
    from transferscope.training.record import RunFolder

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            begin = time.thread_time()
            try:
                return function(*arguments, **named)
            finally:
                parts[name] += time.thread_time() - begin  # type: ignore[assignment]

        return call

    trainee.evaluate = counted("evaluation", trainee.evaluate)
    trainee.take_step = counted("optimizer steps", trainee.take_step)
    for name in ("save", "publish", "finish", "result"):
        setattr(RunFolder, name, counted("files", getattr(RunFolder, name)))


def run(folder: Path, options: argparse.Namespace) -> None:
    from kedro.framework.session import KedroSession
    from kedro.framework.startup import bootstrap_project

    from transferscope.framework.runners import GpuRunner

    bootstrap_project(folder)
    watch_nodes(options.profile)
    watch_trainings()
    for pipeline in options.pipelines or ["__default__"]:
        with KedroSession.create(project_path=folder, env=options.env) as session:
            runner = GpuRunner(max_workers=options.workers)
            session.run(pipeline_names=[pipeline], node_names=options.nodes, runner=runner)


def show(options: argparse.Namespace, started: float, first: float) -> None:
    by_kind, counts = Counter[str](), Counter[str]()
    for node, seconds in spent.items():
        by_kind[kind_of(node)] += seconds  # type: ignore[assignment]
        counts[kind_of(node)] += 1
    total = sum(spent.values())
    print(f"\n{len(spent)} nodes, {total:.1f} CPU s")
    for kind, seconds in by_kind.most_common():
        print(f"  {kind:26s}{counts[kind]:5d} nodes {seconds:8.1f} s {seconds / total:7.1%}")
    for part, seconds in parts.most_common():
        print(f"    of trainings: {part:20s} {seconds:8.1f} s")
    for node, seconds in spent.most_common(options.top):
        print(f"  {seconds:8.2f} s  {node}")
    print(f"modules loaded by this process, in nodes or not: {sum(imports.values()):.1f} s")
    for module, seconds in imports.most_common(8):
        print(f"  {seconds:8.2f} s  {module}")
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    whole = own.ru_utime + own.ru_stime
    print(f"this process: {whole:.1f} CPU s, its main thread {time.thread_time():.1f}; before the run {first:.1f}")
    print(f"processes that ended: {children.ru_utime + children.ru_stime:.1f} CPU s")
    print(f"wall clock {time.perf_counter() - started:.1f} s, peak {own.ru_maxrss / 2**20:.2f} GiB")
    if profiles:
        stats = pstats.Stats(*profiles)
        stats.sort_stats("tottime").print_stats(options.top)
        stats.sort_stats("cumulative").print_stats(2 * options.top)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipelines", nargs="+")
    parser.add_argument("--nodes", nargs="+")
    parser.add_argument("--folder", type=Path, help="a project; default: a new one with the default's configuration")
    parser.add_argument("--env")
    parser.add_argument("--study", default="", help="parameters laid over those of the default, as YAML")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--top", type=int, default=25)
    parser.add_argument("--profile", help="pattern of the names of nodes")
    options = parser.parse_args()
    started, before = time.perf_counter(), time.process_time()
    watch_imports()
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder
        if folder is None:
            sys.path.insert(0, str(Path(__file__).parents[1]))
            from tiny_project import make_project

            folder = make_project(Path(name), options.study or "{}").folder
        try:
            run(folder, options)
        finally:  # of a run that failed, what it took so far
            show(options, started, before)


if __name__ == "__main__":
    logging.captureWarnings(True)
    main()
