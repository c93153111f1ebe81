"""Functions that tests send to other processes, which must be able to import them."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from pathlib import Path

from transferscope.system.errors import UserError
from transferscope.system.own_process import Send
from transferscope.system.progress import progress_bar
from transferscope.system.temporaries import temporary_file


def look(item: str, send: Send) -> tuple[str, int, str]:
    """What is asked for, by whom, and on which GPU; two messages before."""
    send(f"{item} begins")
    send(f"{item} goes on")
    return item, os.getpid(), os.environ["CUDA_VISIBLE_DEVICES"]


def write_for_ever(folder: Path, send: Send) -> None:
    """Hold a temporary file until the process is ended, and a moment longer."""
    with temporary_file(folder / "table.csv") as file:
        file.write_text("half")
        (folder / "begun").write_text(str(os.getpid()))
        while True:
            time.sleep(0.05)


def with_a_child(item: str, send: Send) -> int | None:
    """The exit code of a process of its own, as a DataLoader's worker is one."""
    child = multiprocessing.get_context("fork").Process(target=os.getpid)
    child.start()
    child.join()
    return child.exitcode


def die(number: int, send: Send) -> None:
    os.kill(os.getpid(), number)


def look_together(folder: str, name: str) -> str:
    """The process and its GPUs, once both of two nodes run; a line in the log and a bar before."""
    from transferscope.training.device import choose_device  # takes seconds, in each process

    logging.getLogger("transferscope").info("%s looks", name)
    with progress_bar(name, 3) as advance:
        advance(2, "two thirds")
    (Path(folder) / f"{name}.begun").touch()
    while len(list(Path(folder).glob("*.begun"))) < 2:
        time.sleep(0.02)
    return f"{os.getpid()} {os.environ['CUDA_VISIBLE_DEVICES']} {choose_device(None)}"


def look_again(before: str) -> str:
    """The process of another node, and this one."""
    return f"{before.split()[0]} {os.getpid()}"


def make_a_mistake(_: str) -> str:
    """A user's mistake."""
    raise UserError("images: 3 files cannot be read")


def divide(_: str) -> str:
    """An error of the program."""
    return str(1 / 0)


def be_killed(_: str) -> str:
    """As for want of memory."""
    os.kill(os.getpid(), signal.SIGKILL)
    return ""
