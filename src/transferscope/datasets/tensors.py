"""Named tensors in one safetensors file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset

from transferscope.system.atomic import atomic_file


class TensorsDataset(AbstractDataset):
    """A `dict[str, Tensor]`."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None):
        self._path = Path(filepath)
        self.metadata = metadata

    def load(self) -> Any:
        from safetensors.torch import load_file

        return load_file(self._path)

    def save(self, data: Any) -> None:
        from safetensors.torch import save_file

        with atomic_file(self._path) as temporary:
            save_file({name: tensor.contiguous() for name, tensor in data.items()}, temporary)

    def _exists(self) -> bool:
        return self._path.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._path)}
