"""Progress bars: one display for all threads, nothing where there is no terminal."""

from __future__ import annotations

import io
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import rich
from rich.console import Console

from transferscope.system.progress import progress_bar, track


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A console that believes to be a terminal."""
    screen = io.StringIO()
    monkeypatch.setattr(rich, "_console", Console(file=screen, force_terminal=True, width=120))
    return screen


def test_a_bar_says_what_is_done_and_how_much(terminal: io.StringIO) -> None:
    """Description and count are on the screen."""
    with progress_bar("packing", 3) as advance:
        advance(2, note="loss 1.2")
    assert "packing" in terminal.getvalue()


def test_a_long_note_cuts_itself_off(terminal: io.StringIO) -> None:
    """On 120 columns: count and the bar's own estimate, of 2 h, stay whole."""
    with progress_bar("all steps", 4000) as advance:
        advance(319, note="x" * 200, seconds_left=7200.4)
        time.sleep(0.5)  # the screen is drawn ten times a second
    last = terminal.getvalue()
    assert "319/4000" in last
    assert "2:00:00" in last
    assert "…" in last


def test_bars_of_several_threads_live_together(terminal: io.StringIO) -> None:
    """Two displays at once would be an error of the library; threads share one."""

    def work(name: str) -> list[int]:
        return list(track(range(50), name))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, "abcdefgh")) == [list(range(50))] * 8


def test_nothing_is_drawn_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log file stays clean."""
    screen = io.StringIO()
    monkeypatch.setattr(rich, "_console", Console(file=screen, force_terminal=False))
    with progress_bar("packing", 3) as advance:
        advance(3)
    assert screen.getvalue().strip() == ""
