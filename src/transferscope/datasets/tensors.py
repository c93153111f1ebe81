"""Named tensors in one safetensors file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset

from transferscope.system.stored import UNSEALED, check, is_whole, write_sealed


class TensorsDataset(AbstractDataset):
    """A `dict[str, Tensor]`."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None):
        self._path = Path(filepath)
        self.metadata = metadata

    def load(self) -> Any:
        from safetensors.torch import load_file

        check(self._path)
        return load_file(self._path)

    def save(self, data: Any) -> None:
        from safetensors.torch import save

        from transferscope.models.checkpoint import HEADER_KEY

        tensors = {name: tensor.contiguous() for name, tensor in data.items()}
        write_sealed(self._path, save(tensors, {HEADER_KEY: json.dumps({"digest": UNSEALED})}))

    def _exists(self) -> bool:
        return is_whole(self._path)

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._path)}
