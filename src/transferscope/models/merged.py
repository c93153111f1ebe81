"""A merged model in a folder: its weights, and a card with its sources, the method and the scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transferscope.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from transferscope.system.atomic import atomic_folder
from transferscope.system.stored import DamagedError, is_whole, path_in_data, read_json, write_json

WEIGHTS, CARD = "merged.safetensors", "card.json"


@dataclass(frozen=True)
class MergedModel:
    """Weights and card; no weights where a candidate diverged, and the card then gives the reason."""

    card: Mapping[str, Any]
    checkpoint: Checkpoint | None = None

    def save(self, folder: Path) -> None:
        """Write both, so that a reader finds a whole folder or none."""
        with atomic_folder(folder) as temporary:
            if self.checkpoint is not None:
                save_checkpoint(self.checkpoint, temporary / WEIGHTS)
            write_json(temporary / CARD, dict(self.card), path_in_data(folder / CARD))

    @classmethod
    def open(cls, folder: Path) -> MergedModel:
        """Read both. Raises DamagedError where a file is not as it was written."""
        card = read_json(folder / CARD)
        return cls(card, load_checkpoint(folder / WEIGHTS) if (folder / WEIGHTS).exists() else None)

    @staticmethod
    def is_whole(folder: Path) -> bool:
        """True where the card is there as it was written, and the weights if it names any."""
        try:
            card = read_json(folder / CARD)
        except (OSError, DamagedError):
            return False
        return "method" not in card or is_whole(folder / WEIGHTS)
