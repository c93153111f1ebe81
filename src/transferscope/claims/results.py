"""What one task contributes to the report."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class SavedFigure:
    """A figure on disk; the PDF lies beside the PNG."""

    png: Path

    @property
    def pdf(self) -> Path:
        return self.png.with_suffix(".pdf")


@dataclass(frozen=True)
class TaskResults:
    """Tables and figures of a task by name, and facts about it (classes, sizes, whether its images are generated)."""

    task: str
    facts: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    figures: dict[str, SavedFigure] = field(default_factory=dict)
