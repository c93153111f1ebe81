"""How far a run is: a bar on a terminal, elsewhere a line a minute."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import rich

from transferscope.progress import progress_bar
from transferscope.runners.steps import Steps

logger = logging.getLogger("transferscope")

OTHER_COST = 1000.0
"""What a step costs of which no cost is known, in images: one or two seconds of a small network."""

NAMED = 3
LOOK_SECONDS = 0.5
"""Between looks at all steps: there may be thousands, and they may be short."""


class Status:
    """Tells which steps wait, run and are done, and what is left by the costs of the plan."""

    def __init__(self, steps: Steps, costs: Mapping[str, float], line_seconds: float = 60.0) -> None:
        """costs: node name -> images through a network."""
        self._steps = steps
        self._costs = {node: costs.get(node.name, OTHER_COST) for node in steps.all}
        self._total = sum(self._costs.values())
        self._line_seconds = line_seconds
        self._begin = self._last_line = time.perf_counter()
        self._last_look = 0.0

    @contextmanager
    def shown(self) -> Iterator[Callable[[], None]]:
        """Yield what brings the display up to date."""
        shown = 0.0
        with progress_bar("all steps, %", 100) as advance:

            def update() -> None:
                nonlocal shown
                now = time.perf_counter()
                if now - self._last_look < LOOK_SECONDS:
                    return
                self._last_look = now
                advance(100 * self.share - shown, note=self.line())
                shown = 100 * self.share
                if not rich.get_console().is_terminal and now - self._last_line >= self._line_seconds:
                    self._last_line = now
                    logger.info("%s", self.line())

            yield update

    @property
    def share(self) -> float:
        """Part of all costs that needs nothing more: done, failed or skipped."""
        over = (*self._steps.seconds, *self._steps.failed, *self._steps.skipped)
        return sum(self._costs[node] for node in over) / self._total if self._total else 1.0

    def seconds_left(self) -> float | None:
        """As long as until now, times the costs that are left by those that are done; None while nothing is done."""
        share = self.share
        return (time.perf_counter() - self._begin) * (1 - share) / share if share else None

    def line(self) -> str:
        """`12 of 140 done, 2 running (clipart.training.rit_1, ...), 126 wait, about 3 min left`."""
        steps = self._steps
        running = [node.name for node in steps.running]
        names = ", ".join(running[:NAMED]) + (", ..." if len(running) > NAMED else "")
        parts = [f"{len(steps.seconds)} of {len(steps.all)} done"]
        parts += [f"{len(running)} running ({names})"] if running else []
        parts += [f"{steps.num_waiting} wait"] if steps.num_waiting else []
        parts += [f"{len(steps.failed)} failed, {len(steps.skipped)} cannot run"] if steps.failed else []
        left = self.seconds_left()
        parts += [f"about {duration(left)} left"] if left else []
        return ", ".join(parts)


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
