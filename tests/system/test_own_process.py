"""A process for one call after another: its environment, its messages, and nothing left of it however it ends."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import SpawnProcess
from pathlib import Path

import psutil
import pytest

from sent_to_processes import die, look, with_a_child, write_for_ever
from transferscope.system.own_process import OwnProcess, ProcessDiedError
from transferscope.system.processes import unwind


@pytest.fixture
def process() -> Iterator[OwnProcess]:
    own = OwnProcess({"CUDA_VISIBLE_DEVICES": "7"})
    yield own
    own.end()


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def begun(folder: Path) -> int:
    mark = folder / "begun"
    wait_for(lambda: mark.exists() and mark.read_text() != "")
    return int(mark.read_text())


def test_one_process_carries_out_all_calls(process: OwnProcess) -> None:
    """It has its own environment, and messages come in order before the result; its end is its end."""
    heard: list[str] = []
    first, second = (process.call(look, item, heard.append) for item in ("a", "b"))
    assert heard == ["a begins", "a goes on", "b begins", "b goes on"]
    assert (first[0], second[0]) == ("a", "b")
    assert first[1:] == second[1:] == (first[1], "7")
    assert first[1] != os.getpid()
    assert os.environ.get("CUDA_VISIBLE_DEVICES") != "7"
    process.end()
    process.end()
    assert not psutil.pid_exists(first[1])


def test_it_may_have_processes_of_its_own(process: OwnProcess) -> None:
    """Python refuses them to a daemon."""
    assert process.call(with_a_child, "a", print) == 0


def test_a_process_that_cannot_be_started_raises_its_error(
    process: OwnProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next call starts another."""
    with monkeypatch.context() as patched:
        patched.setattr(SpawnProcess, "start", _no_memory)
        with pytest.raises(OSError, match="Cannot allocate memory"):
            process.call(look, "a", print)
    assert process.call(look, "a", lambda _: None)[0] == "a"


def _no_memory(_: object) -> None:
    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


def test_a_killed_process_is_one_line_and_the_next_call_has_another(process: OwnProcess) -> None:
    with pytest.raises(ProcessDiedError, match=r"^its process was killed \(SIGKILL\), for want of memory say$"):
        process.call(die, signal.SIGKILL, print)
    assert process.call(look, "a", lambda _: None)[0] == "a"


def test_an_interrupt_of_the_waiting_thread_unwinds_the_call(process: OwnProcess, tmp_path: Path) -> None:
    """As after Ctrl-C: the thread hears it, the process is gone, and what it was writing with it."""
    raised: list[BaseException] = []

    def work() -> None:
        try:
            process.call(write_for_ever, tmp_path, print)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    number = begun(tmp_path)
    unwind(thread)
    thread.join(30)
    assert [type(error) for error in raised] == [KeyboardInterrupt]
    assert not psutil.pid_exists(number)
    assert [path.name for path in tmp_path.iterdir()] == ["begun"]


PARENT = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
from sent_to_processes import write_for_ever
from transferscope.system.own_process import OwnProcess

if __name__ == "__main__":
    OwnProcess({{}}).call(write_for_ever, Path(sys.argv[1]), print)
"""


def test_it_ends_with_its_parent_however_that_ends(tmp_path: Path) -> None:
    """Of a parent that was killed neither the process is left nor a temporary file of it."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(path=sys.path))
    parent = subprocess.Popen([sys.executable, str(script), str(tmp_path)])
    number = begun(tmp_path)
    parent.kill()
    parent.wait()
    wait_for(lambda: not psutil.pid_exists(number))
    assert {path.name for path in tmp_path.iterdir()} == {"begun", "parent.py"}
