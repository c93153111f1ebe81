"""Answers about models or about a study, as a JSON file for programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset
from kedro_datasets._typing import JSONPreview

from transferscope.system.stored import check, is_whole, stored_file


class AnswersDataset(AbstractDataset):
    """An `AnswerCard`, saved atomically with its digest beside it."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None):
        self._path = Path(filepath)
        self.metadata = metadata

    def load(self) -> Any:
        from transferscope.answers.answer import AnswerCard

        check(self._path, is_sealed=False)
        return AnswerCard.from_json(self._path.read_text(encoding="utf-8"), str(self._path))

    def save(self, data: Any) -> None:
        with stored_file(self._path) as temporary:
            temporary.write_text(data.to_json(), encoding="utf-8")

    def preview(self) -> JSONPreview:
        """The file."""
        check(self._path, is_sealed=False)
        return JSONPreview(self._path.read_text(encoding="utf-8"))

    def _exists(self) -> bool:
        return is_whole(self._path, is_sealed=False)

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._path)}
