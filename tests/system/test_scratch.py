"""Arrays in files without a name."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from transferscope.system.scratch import scratch_array


def test_it_holds_values_and_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeros at first, then whatever is written; no file can be seen, so that a kill leaves none behind."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    one, other = scratch_array((3, 4), np.float64), scratch_array((2,), np.int32)
    assert not one.any()
    one[1] = 7.0
    other[:] = [1, 2]
    assert os.listdir(tmp_path) == []
    np.testing.assert_array_equal(one.sum(axis=1), [0, 28, 0])
    np.testing.assert_array_equal(other, [1, 2])
    assert scratch_array((0, 4), np.float32).shape == (0, 4)


def test_a_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a disk holds is refused at once, and not by a signal at the first write."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(OSError, match=r"(?i)space|large"):
        scratch_array((1 << 60,), np.uint8)
