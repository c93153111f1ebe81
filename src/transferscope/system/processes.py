"""Processes beside this one, for work that holds Python's lock.

Networks compute without the lock, but take it between any two operations. Beside a thread that draws with matplotlib
they run at a third of their speed or less (docs/log.md); beside a process that draws, at all of it.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import partial
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

HEARING_SECONDS = 0.5
"""Between looks of a waiting thread for an interrupt."""

_pool: ProcessPoolExecutor | None = None


@contextmanager
def side_processes(count: int) -> Iterator[None]:
    """Inside, `elsewhere` and `spread` have up to `count` processes, each started when it is first needed."""
    global _pool
    # Not by fork, which would copy the locks that other threads hold.
    context = multiprocessing.get_context("spawn")
    _pool = ProcessPoolExecutor(count, context, initializer=_begin)
    try:
        yield
    finally:
        _pool.shutdown(wait=False, cancel_futures=True)
        _pool = None


def elsewhere(function: Callable[..., Result], *arguments: object) -> Result:
    """`function(*arguments)`, in a process beside this one where there are some, else here.

    The function, what it takes and what it returns must be picklable. Its errors are raised here. Where a process was
    killed, for want of memory say, the work is done here.
    """
    return _begun(function, *arguments)()


def spread(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`map(function, items)`, on all processes beside this one where there are some, else here."""
    for result in [_begun(function, item) for item in items]:
        yield result()


class OwnProcess:
    """A process with an environment of its own, started for the first call, that carries out one call at a time."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._lock = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None
        self._number = 0
        """The system's number of the process."""

    def call(self, function: Callable[[Item], Result], item: Item) -> Result:
        """`function(item)` there; function, item and result must be picklable, and an error is raised here.

        Raises BrokenProcessPool where the process was killed; the next call starts another. An interrupt of this
        thread (`unwind`) is heard while it waits.
        """
        pool = self._started()
        try:
            future = pool.submit(function, item)
            while not future.done():
                wait([future], HEARING_SECONDS)
            return future.result()
        except BrokenProcessPool:
            self._pool = None
            raise

    def end(self) -> None:
        """End the process, whatever it does."""
        if self._pool is not None:
            with suppress(ProcessLookupError):
                os.kill(self._number, signal.SIGTERM)
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def _started(self) -> ProcessPoolExecutor:
        with self._lock:
            if self._pool is None:
                context = multiprocessing.get_context("spawn")
                pool = ProcessPoolExecutor(1, context, initializer=_begin_in, initargs=(self._environment,))
                self._number = pool.submit(os.getpid).result()
                self._pool = pool
            return self._pool


def unwind(thread: threading.Thread) -> None:
    """Raise KeyboardInterrupt in a thread, as soon as it is back in Python."""
    stop = ctypes.py_object(KeyboardInterrupt)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), stop)


def _begun(function: Callable[..., Result], *arguments: object) -> Callable[[], Result]:
    """A function that gives the result of a call that begins now, or is carried out here when it is asked for."""
    here = partial(function, *arguments)
    if _pool is None:
        return here
    try:
        future = _pool.submit(function, *arguments)
    except BrokenProcessPool:
        return here

    def result() -> Result:
        try:
            return future.result()
        except BrokenProcessPool:
            return here()

    return result


def _begin() -> None:
    """Ctrl-C is the parent's to handle; and the process ends with its parent, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _begin_in(environment: dict[str, str]) -> None:
    os.environ.update(environment)  # before torch looks for GPUs
    _begin()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
