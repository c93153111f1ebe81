"""Progress of a run: a bar on a terminal, elsewhere a line per minute."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import rich

from transferscope.framework.runners.node_progress import NodeProgress
from transferscope.system.progress import progress_bar

logger = logging.getLogger("transferscope")

NAMED = 3
LOOK_SECONDS = 0.5
"""Between looks at all nodes: there may be thousands, and they may be short."""

TELLING_SECONDS = 1.0
"""A node of known cost that took less was found finished, as a training is, and says nothing of the speed."""


class Status:
    """Tells which nodes wait, run and are done, and what is left by the costs of the plan."""

    def __init__(self, progress: NodeProgress, costs: Mapping[str, float], line_seconds: float = 60.0) -> None:
        """costs: node name -> images through a network."""
        self._progress = progress
        self._costs = {node: costs[node.name] for node in progress.all if node.name in costs}
        self._line_seconds = line_seconds
        self._begin = self._last_line = time.perf_counter()
        self._last_look = 0.0

    @contextmanager
    def shown(self) -> Iterator[Callable[[], None]]:
        """Yield what brings the display up to date."""
        shown = 0
        with progress_bar("all nodes", len(self._progress.all)) as advance:

            def update() -> None:
                nonlocal shown
                now = time.perf_counter()
                if now - self._last_look < LOOK_SECONDS:
                    return
                self._last_look = now
                done = len(self._progress.seconds)
                advance(done - shown, note=self._note(), seconds_left=self.seconds_left())
                shown = done
                if not rich.get_console().is_terminal and now - self._last_line >= self._line_seconds:
                    self._last_line = now
                    logger.info("%s", self.line())

            yield update

    def seconds_left(self) -> float | None:
        """Seconds that the rest takes with as many nodes at once as until now; None while that is not known.

        A node of known cost is expected to go at the speed of those that are done, any other to take their mean.
        """
        done, running = self._progress.seconds, self._progress.running
        speed, usual = self._speed(), self._usual_seconds()
        left = 0.0
        for node in self._progress.unfinished:
            expected = usual if node not in self._costs else self._costs[node] / speed if speed else None
            if expected is None:
                return None
            left += max(0.0, expected - running.get(node, 0.0))
        worked = sum(done.values()) + sum(running.values())
        return left * (time.perf_counter() - self._begin) / worked if worked else None

    def _speed(self) -> float | None:
        """Images a second of a node, over those that are done and whose cost is known."""
        done = self._progress.seconds.items()
        telling = {node: spent for node, spent in done if node in self._costs and spent >= TELLING_SECONDS}
        return sum(self._costs[node] for node in telling) / sum(telling.values()) if telling else None

    def _usual_seconds(self) -> float | None:
        """Mean of the nodes that are done and of no known cost."""
        others = [spent for node, spent in self._progress.seconds.items() if node not in self._costs]
        return sum(others) / len(others) if others else None

    def line(self) -> str:
        """`12 of 140 done, 126 wait, 2 running (clipart.training.rit_1, ...), about 3 min left`."""
        parts = [f"{len(self._progress.seconds)} of {len(self._progress.all)} done", self._note()]
        left = self.seconds_left()
        parts += [f"about {duration(left)} left"] if left else []
        return ", ".join(filter(None, parts))

    def _note(self) -> str:
        progress, running = self._progress, [node.name for node in self._progress.running]
        names = ", ".join(running[:NAMED]) + (", ..." if len(running) > NAMED else "")
        parts = [f"{progress.num_waiting} wait"] if progress.num_waiting else []
        parts += [f"{len(progress.failed)} failed, {len(progress.skipped)} cannot run"] if progress.failed else []
        parts += [f"{len(running)} running ({names})"] if running else []
        return ", ".join(parts)


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
