"""Named tensors in one safetensors file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset
from kedro_datasets._typing import TablePreview

from transferscope.datasets.previews import table_preview
from transferscope.system.stored import UNSEALED, DamagedError, check, noted_digest, write_sealed


class TensorsDataset(AbstractDataset):
    """A `dict[str, Tensor]`."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None):
        self._path = Path(filepath)
        self.metadata = metadata

    def load(self) -> Any:
        from safetensors.torch import load_file

        self._check()
        return load_file(self._path)

    def _check(self) -> None:
        """Raise DamagedError where the file is not as it was written, or is that of another run."""
        from safetensors import safe_open

        from transferscope.models.checkpoint import HEADER_KEY

        check(self._path)
        with safe_open(self._path, framework="pt") as file:
            written = json.loads((file.metadata() or {}).get(HEADER_KEY, "{}")).get("file")
        if written != self._name():
            raise DamagedError(self._path, f"it was written as {written}")

    def save(self, data: Any) -> None:
        from safetensors.torch import save

        from transferscope.models.checkpoint import HEADER_KEY

        tensors = {name: tensor.contiguous() for name, tensor in data.items()}
        write_sealed(self._path, save(tensors, {HEADER_KEY: json.dumps({"seal": UNSEALED, "file": self._name()})}))

    def preview(self) -> TablePreview:
        """A row per tensor."""
        rows = [[name, str(tuple(tensor.shape)), str(tensor.dtype)] for name, tensor in self.load().items()]
        return table_preview(["name", "shape", "type"], rows)

    def _name(self) -> str:
        """The end of its path, by which a file of another run in its place is noticed."""
        return "/".join(self._path.parts[-3:])

    def content_digest(self) -> str:
        """The digest that the file bears; "" where it is not there."""
        return noted_digest(self._path)

    def _exists(self) -> bool:
        try:
            self._check()
        except (OSError, DamagedError):
            return False
        return True

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._path)}
