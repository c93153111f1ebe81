"""No stored file lies: whatever is flipped or cut off is detected, or decides nothing."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from endurance.bit_flips import DECIDES_NOTHING, files_of, is_detected, places, reader
from transferscope.system import stored
from transferscope.system.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(project: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tiny study's data, to be damaged."""
    copy = tmp_path_factory.mktemp("copy") / "data"
    shutil.copytree(project.folder / "data", copy)
    for path in files_of(copy):
        reader(path)()
    return copy


@pytest.mark.parametrize("seed", range(4))
def test_a_flipped_bit_is_detected(data: Path, seed: int) -> None:
    """Anywhere in any file of a finished run: images, packed splits, weights, tables, figures, digests, the report."""
    missed = [place for place in places(files_of(data), 150, seed) if not is_detected(*place)]
    assert all(path.name in DECIDES_NOTHING for path, _, _ in missed), missed


def test_every_kind_of_file_is_among_them(data: Path) -> None:
    """Of each suffix in each layer one file, each bit of a byte in its first, middle and last part."""
    kinds = {(path.relative_to(data).parts[0], path.suffix, path.name.startswith(".")): path for path in files_of(data)}
    assert {suffix for _, suffix, _ in kinds} > {
        ".csv",
        ".parquet",
        ".safetensors",
        ".npy",
        ".json",
        ".png",
        ".pdf",
        ".jpg",
    }
    missed = []
    for path in kinds.values():
        size = path.stat().st_size
        for bit, position in enumerate((0, 1, size // 3, size // 2, 2 * size // 3, size - 2, size - 1)):
            if not is_detected(path, max(position, 0), bit) and path.name not in DECIDES_NOTHING:
                missed.append((path, position, bit))
    assert not missed


def test_a_file_that_is_cut_off_is_detected(data: Path) -> None:
    """At a random place, or to nothing."""
    rng = np.random.default_rng(0)
    for path, position, _ in places(files_of(data), 60, 9):
        content, times = path.read_bytes(), path.stat()
        time.sleep(0.01)
        path.write_bytes(content[: position if rng.random() < 0.7 else 0])
        stored._whole.clear()
        stored._digests.clear()
        if path.name not in DECIDES_NOTHING:
            with pytest.raises((UserError, FileNotFoundError)):
                reader(path)()
        path.write_bytes(content)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
