"""Measurements remembered by content, one small file each."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from kedro.io import AbstractDataset

from transferscope.system.atomic import space_errors
from transferscope.system.temporaries import temporary_file


class MeasurementFolder:
    """Named arrays by long keys, in a folder.

    A file is written beside its place and renamed, so that a killed process and others that write at the same time
    leave whole files; one that cannot be read counts as missing. Nothing is flushed to the disk: what a power cut
    takes is measured again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str) -> dict[str, Any] | None:
        """What was put under `key`, or None."""
        try:
            with np.load(self._path(key)) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None

    def __setitem__(self, key: str, value: dict[str, Any]) -> None:
        path = self._path(key)
        with space_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary_file(path) as temporary:
                with temporary.open("wb") as file:
                    np.savez(file, **value)
                os.replace(temporary, path)

    def _path(self, key: str) -> Path:
        digest = hashlib.sha256(key.encode()).hexdigest()
        return self.folder / digest[:2] / f"{digest}.npz"


class MeasurementsDataset(AbstractDataset):
    """Loads a `MeasurementFolder`, empty at first; what is put into it is saved at once."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None):
        self._folder = Path(filepath)
        self.metadata = metadata

    def load(self) -> MeasurementFolder:
        return MeasurementFolder(self._folder)

    def save(self, data: MeasurementFolder) -> None:
        """Nothing: every measurement is saved when it is made."""

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._folder)}
