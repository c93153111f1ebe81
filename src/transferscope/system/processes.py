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
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

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


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
