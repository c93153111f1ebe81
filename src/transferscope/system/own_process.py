"""A process beside this one that carries out one call after another, and reports meanwhile how far it is."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Send = Callable[[object], None]

HEARING_SECONDS = 0.5
"""Between two moments at which a thread that waits may be interrupted."""
PATIENCE_SECONDS = 10.0
"""For a call that is to end; then its process is killed."""


class ProcessDiedError(RuntimeError):
    """The process ended in the middle of a call; one line that says how."""


@dataclass(frozen=True)
class _Returned:
    value: Any


class OwnProcess:
    """A process with an environment of its own, started for the first call; one call at a time.

    environment: Variables that are set there before the first call, over those of this process.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None

    def call(self, function: Callable[[Item, Send], Result], item: Item, hear: Callable[[Any], None]) -> Result:
        """Return `function(item, send)` of that process. Whatever it sends meanwhile goes to `hear`, in this thread.

        Function, item, result and messages must be picklable, and the function returns its errors. An interrupt of this
        thread (`unwind`) is noticed while it waits, and ends the process; so does an error of `hear`.

        Raises ProcessDiedError where the process has ended; the next call starts another.
        """
        try:
            connection = self._started()
            try:
                connection.send((function, item))
                while not isinstance(message := _received(connection), _Returned):
                    hear(message)
            except (EOFError, BrokenPipeError, ConnectionResetError):
                raise ProcessDiedError(self._how_it_ended()) from None
        except BaseException:
            self.end()
            raise
        value: Result = message.value
        return value

    def end(self) -> None:
        """End the process: what it does is unwound as by an interrupt. Once more does nothing."""
        self.terminate()
        process, connection = self._process, self._connection
        self._process = self._connection = None
        if process is None or connection is None:
            return
        process.join(PATIENCE_SECONDS)
        process.kill()
        process.join()
        connection.close()
        atexit.unregister(self.end)

    def terminate(self) -> None:
        """Ask the process to end, and do not wait for it."""
        if self._process is not None:
            self._process.terminate()

    def _started(self) -> Connection:
        if self._process is None or self._connection is None or not self._process.is_alive():
            self.end()
            # Not by fork, which would copy the locks that other threads hold, and cannot use CUDA.
            context = multiprocessing.get_context("spawn")
            connection, theirs = context.Pipe()
            with theirs:
                # No daemon, which may have no processes of its own, such as the workers of a DataLoader.
                process = context.Process(target=_serve, args=(theirs, self._environment))
                try:
                    process.start()
                except BaseException:
                    connection.close()
                    raise
            self._process, self._connection = process, connection
            atexit.register(self.end)  # before Python waits for processes that are no daemons
        return self._connection

    def _how_it_ended(self) -> str:
        assert self._process is not None
        self._process.join(PATIENCE_SECONDS)
        code = self._process.exitcode
        if code is not None and code < 0:
            return f"its process was killed ({signal.Signals(-code).name}), for want of memory say"
        return f"its process ended in the middle (exit code {code})"


def _received(connection: Connection) -> Any:
    while not connection.poll(HEARING_SECONDS):
        pass
    return connection.recv()


def _serve(connection: Connection, environment: Mapping[str, str]) -> None:
    """Carry out calls until the other side closes the connection, ends this process, or is no more."""
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, _unwind)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    lock = threading.Lock()

    def send(message: object) -> None:
        with lock:
            connection.send(message)

    try:
        while True:
            function, item = connection.recv()
            send(_Returned(function(item, send)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # nobody is there any more


def _unwind(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(128 + signal.SIGTERM)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE_SECONDS)
    os._exit(1)
