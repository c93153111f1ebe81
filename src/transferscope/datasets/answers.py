"""Answers about models or about a study, as a JSON file for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset
from kedro_datasets._typing import JSONPreview

from transferscope.system.stored import is_whole, noted_digest, read_json, write_json


class AnswersDataset(AbstractDataset):
    """An `AnswerCard`, saved atomically; the file begins with its digest and its name."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None):
        self._path = Path(filepath)
        self.metadata = metadata

    def load(self) -> Any:
        from transferscope.answers.answer import AnswerCard

        return AnswerCard.from_json(json.dumps(read_json(self._path)), str(self._path))

    def save(self, data: Any) -> None:
        write_json(self._path, json.loads(data.to_json()))

    def preview(self) -> JSONPreview:
        """The content of the file."""
        return JSONPreview(json.dumps(read_json(self._path)))

    def content_digest(self) -> str:
        """The digest that the file bears; "" where it is not there."""
        return noted_digest(self._path)

    def _exists(self) -> bool:
        return is_whole(self._path)

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._path)}
