"""Surroundings of a run by any runner: no leftovers of killed runs, one thread, an orderly end."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Collection
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl

from transferscope.framework.config import present_plan
from transferscope.system.processes import unwind
from transferscope.system.temporaries import remove_dead_work, remove_leftovers

logger = logging.getLogger("transferscope")

THREADS = "OMP_NUM_THREADS"
TERMINATED = 128 + signal.SIGTERM


class Surroundings:
    """Hooks of every `kedro run`, by this project's runners or by Kedro's own."""

    def __init__(self) -> None:
        self._context: KedroContext | None = None
        self._changed = ExitStack()
        self._at_work: set[threading.Thread] = set()

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        self._context = context

    @hook_impl
    def before_pipeline_run(self) -> None:
        """Tidy up behind killed runs, and see to threads and to SIGTERM until this run is over."""
        self.let_go()
        if self._context is not None:
            tidy_up(self._context)
        self._changed.callback(one_thread_an_operation())
        self._changed.callback(end_in_order_when_terminated(self._at_work))

    @hook_impl
    def before_node_run(self) -> None:
        self._at_work.add(threading.current_thread())

    @hook_impl
    def after_node_run(self) -> None:
        self._at_work.discard(threading.current_thread())

    @hook_impl
    def on_node_error(self) -> None:
        self._at_work.discard(threading.current_thread())

    @hook_impl
    def after_pipeline_run(self) -> None:
        self.let_go()

    @hook_impl
    def on_pipeline_error(self) -> None:
        self.let_go()

    def let_go(self) -> None:
        """Take back what was changed for the run."""
        self._changed.close()


def tidy_up(context: KedroContext) -> None:
    """Remove what killed runs have left among this project's results and in the system's temporary folder.

    The folders of the tasks' own images are not looked into: nothing is ever written there.
    """
    project, plan = Path(context.project_path), present_plan()
    roots = [] if plan is None else [task.root for task in plan.study.tasks.values() if task.root]
    sources = [project / root for root in roots]
    places = [project / context.config_loader["globals"].get("data", "data")]
    if plan is not None:
        places.append(project / plan.study.models_folder)
    removed = remove_dead_work()
    for place in places:
        removed += remove_leftovers(place, deep=True, but=sources)
    for parent in {source.parent for source in sources}:
        removed += remove_leftovers(parent)
    removed += remove_leftovers(project / ".viz")
    if removed:
        logger.info("removed %d temporary files and folders that killed runs had left", len(removed))


def one_thread_an_operation() -> Callable[[], None]:
    """Let operations compute in one thread, here and in processes that are started; returns what takes it back.

    Results differ in the last digit with the number of threads, and runners must not. A number that the user has given
    by OMP_NUM_THREADS stays; runners of this project choose their own.
    """
    if THREADS in os.environ:
        return lambda: None
    import torch
    from threadpoolctl import threadpool_limits

    before, limits = torch.get_num_threads(), threadpool_limits(1, "blas")
    os.environ[THREADS] = "1"
    torch.set_num_threads(1)

    def restore() -> None:
        os.environ.pop(THREADS, None)
        torch.set_num_threads(before)
        limits.restore_original_limits()

    return restore


def end_in_order_when_terminated(at_work: Collection[threading.Thread] = ()) -> Callable[[], None]:
    """Treat SIGTERM like Ctrl-C: processes of this one end, files are tidied up; returns what takes it back.

    A scheduler sends it when the time is up, and by itself it would end this process on the spot.

    at_work: threads that carry out nodes when the signal comes.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        return lambda: None

    def end(*_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for child in multiprocessing.active_children():
            child.terminate()
        for thread in list(at_work):
            if thread is not threading.main_thread():  # it would be waited for
                unwind(thread)
        sys.exit(TERMINATED)

    signal.signal(signal.SIGTERM, end)

    def restore() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    return restore
