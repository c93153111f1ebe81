"""Measurements remembered by content, one small file each."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from kedro.io import AbstractDataset
from kedro_datasets._typing import TablePreview
from safetensors import safe_open
from safetensors.numpy import save

from transferscope.datasets.previews import table_preview
from transferscope.models.checkpoint import HEADER_KEY
from transferscope.system.stored import UNSEALED, DamagedError, check, write_sealed

log = logging.getLogger(__name__)


class MeasurementFolder:
    """Named arrays by long keys, in a folder.

    A file is written beside its place and renamed, so that a killed process and others that write at the same time
    leave whole files. It holds its key; one that is damaged, or holds another, is reported and counts as missing.
    Nothing is flushed to the disk: what a power cut takes is measured again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str) -> dict[str, Any] | None:
        """The value under `key`, or None."""
        path = self._path(key)
        try:
            check(path)
            with safe_open(path, framework="numpy") as file:
                noted = json.loads(file.metadata()[HEADER_KEY])
                if noted.get("key") != key:
                    raise DamagedError(path, "it holds another measurement")
                words = {name: np.array(entry) for name, entry in noted["words"].items()}
                return {name: words[name] if name in words else file.get_tensor(name) for name in noted["names"]}
        except FileNotFoundError:
            return None
        except DamagedError as error:
            log.warning("%s is damaged (%s): it is measured again", path, error.reason)
            return None

    def __setitem__(self, key: str, value: dict[str, Any]) -> None:
        arrays = {name: np.asarray(entry, order="C") for name, entry in value.items()}
        words = {name: array.tolist() for name, array in arrays.items() if array.dtype.kind == "U"}
        header = json.dumps({"seal": UNSEALED, "key": key, "names": list(arrays), "words": words})
        numbers = {name: array for name, array in arrays.items() if name not in words}
        write_sealed(self._path(key), save(numbers, {HEADER_KEY: header}), flush=False)

    def _path(self, key: str) -> Path:
        digest = hashlib.sha256(key.encode()).hexdigest()
        return self.folder / digest[:2] / f"{digest}.safetensors"


class MeasurementsDataset(AbstractDataset):
    """Loads a `MeasurementFolder`, empty at first; what is put into it is saved at once."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None):
        self._folder = Path(filepath)
        self.metadata = metadata

    def load(self) -> MeasurementFolder:
        return MeasurementFolder(self._folder)

    def save(self, data: MeasurementFolder) -> None:
        """Nothing: every measurement is saved when it is made."""

    def preview(self) -> TablePreview:
        """The number of measurements."""
        count = sum(1 for _ in self._folder.glob("*/*.safetensors"))
        return table_preview(["folder", "measurements"], [[str(self._folder), count]])

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._folder)}
