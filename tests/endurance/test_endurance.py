"""A small share of the endurance run; the whole of it is `tests/endurance/kills.py --kills 100`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.xdist_group("kedro_runners")
def test_a_killed_run_ends_as_one_that_was_not() -> None:
    """Two kills of each part at random moments: the same files with the same bytes, no temporary, no process."""
    script = Path(__file__).with_name("kills.py")
    command = [sys.executable, str(script), "--each", "2", "--until", "landscape"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for part in ("packing", "training", "training in two processes", "landscape"):
        assert re.search(rf"^{part}: \d of 2 kills hit a run, 0 differences$", done.stdout, re.MULTILINE)
    assert "no difference, nothing left behind" in done.stdout
