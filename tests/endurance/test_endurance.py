"""A small share of the endurance run; the whole of it is `tests/endurance/kills.py --kills 100`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.xdist_group("kedro_runners")
@pytest.mark.parametrize("part", ["packing", "training", "training in two processes", "landscape"])
def test_a_killed_run_ends_as_one_that_was_not(part: str) -> None:
    """Two kills at random moments: the same files with the same bytes, no temporary, no process."""
    script = Path(__file__).with_name("kills.py")
    done = subprocess.run(
        [sys.executable, str(script), "--kills", "2", "--part", part], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no difference, nothing left behind" in done.stdout
