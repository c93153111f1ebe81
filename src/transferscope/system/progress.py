"""Progress bars with time left, on a terminal only."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import rich
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

Item = TypeVar("Item")


class _TimeLeft(TimeRemainingColumn):
    """The estimate of a bar that has one of its own; else by its pace in the last half minute."""

    def render(self, task: Task) -> Text:
        if "seconds_left" not in task.fields:
            return super().render(task)
        left = task.fields["seconds_left"]
        return Text("-:--:--" if left is None else str(timedelta(seconds=round(left))), style="progress.remaining")


class _Display:
    """The one live display of the process; work in several threads shares it, a bar each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        self._bars = 0

    def join(self) -> Progress:
        with self._lock:
            if self._progress is None:
                # The console of the log's handler, so that lines appear above the bars.
                console = rich.get_console()
                columns = (
                    TextColumn("{task.description}"),
                    BarColumn(),
                    MofNCompleteColumn(),
                    TimeElapsedColumn(),
                    TextColumn("left"),
                    _TimeLeft(),
                    # Takes what the others leave, so that a long note cuts itself off and not the counts.
                    TextColumn("{task.fields[note]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
                )
                hidden = not console.is_terminal
                self._progress = Progress(*columns, console=console, transient=True, expand=True, disable=hidden)
                self._progress.start()
            self._bars += 1
            return self._progress

    def leave(self) -> None:
        with self._lock:
            self._bars -= 1
            if self._bars == 0 and self._progress is not None:
                self._progress.stop()
                self._progress = None


_display = _Display()


@dataclass(frozen=True)
class BarNews:
    """News of a bar of another process: it begins with a description and a total, advances, or ends."""

    bar: int
    begins: tuple[str, int] | None = None
    advances: tuple[Any, ...] = ()
    fields: dict[str, Any] = field(default_factory=dict)
    ends: bool = False


_report: Callable[[BarNews], None] | None = None
_numbers = itertools.count()


def bars_elsewhere(report: Callable[[BarNews], None]) -> None:
    """Draw no bars in this process from now on; news of them go to `report`, and there to `BarsOfOthers`."""
    global _report
    _report = report


class BarsOfOthers:
    """Bars of another process, drawn in this one."""

    def __init__(self) -> None:
        self._drawn: dict[int, tuple[ExitStack, Callable[..., None]]] = {}

    def take(self, news: BarNews) -> None:
        """Draw what has changed."""
        if news.begins is not None:
            bar = ExitStack()
            self._drawn[news.bar] = bar, bar.enter_context(progress_bar(*news.begins))
        elif news.bar not in self._drawn:  # begun in an earlier call
            return
        elif news.ends:
            self._drawn.pop(news.bar)[0].close()
        else:
            self._drawn[news.bar][1](*news.advances, **news.fields)

    def close(self) -> None:
        """Remove those whose end was not heard of."""
        while self._drawn:
            self._drawn.popitem()[1][0].close()


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[Callable[..., None]]:
    """Yield `advance(steps=1, note=None)`; draws nothing where the output is no terminal.

    `advance` also takes `seconds_left`, of a bar whose own estimate is better than its pace (None: not known yet).
    """
    if _report is not None:
        report, number = _report, next(_numbers)
        report(BarNews(number, begins=(description, total)))
        try:
            yield lambda *steps, **fields: report(BarNews(number, advances=steps, fields=fields))
        finally:
            report(BarNews(number, ends=True))
        return
    progress = _display.join()
    task = progress.add_task(description, total=total, note="")

    def advance(steps: int = 1, note: str | None = None, **fields: float | None) -> None:
        notes = {} if note is None else {"note": note}
        progress.update(task, advance=steps, **notes, **fields)  # type: ignore[arg-type]

    try:
        yield advance
    finally:
        progress.remove_task(task)
        _display.leave()


def track(items: Sequence[Item], description: str) -> Iterator[Item]:
    """Iterate over `items` with a bar."""
    with progress_bar(description, len(items)) as advance:
        for item in items:
            yield item
            advance()
