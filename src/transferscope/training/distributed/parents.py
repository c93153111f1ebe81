"""Run a module in a process that ends with those that started it: `python -m ... PROCESS MODULE ARGUMENTS`."""

from __future__ import annotations

import os
import runpy
import sys
import threading
import time

LOOK_SECONDS = 0.2


def end_with(*parents: int) -> None:
    """End this process at once when one of `parents`, or the process that has started this one, has ended.

    Children outlive a parent that is killed, unless they look after it themselves.
    """
    starter = os.getppid()

    def watch() -> None:
        while os.getppid() == starter and all(_is_alive(parent) for parent in parents):
            time.sleep(LOOK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


if __name__ == "__main__":
    # Before anything heavy is imported.
    end_with(int(sys.argv.pop(1)))
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
