"""A small share of the endurance run; the whole of it is `tests/endurance/kills.py --kills 100`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.xdist_group("kedro_runners")
def test_a_killed_run_ends_as_one_that_was_not() -> None:
    """Killed at a random moment of each part: the same files with the same bytes, no temporary, no process."""
    parts = ["packing", "training", "training in two processes", "landscape"]
    command = [sys.executable, str(Path(__file__).with_name("kills.py")), "--kills", "1", "--part", *parts]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"{part}: killed after " in done.stdout for part in parts)
    assert "no difference, nothing left behind" in done.stdout
