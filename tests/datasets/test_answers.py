"""Answers as a JSON file."""

from __future__ import annotations

from pathlib import Path

import pytest
from kedro.io import DatasetError

from transferscope.answers.answer import Answer, AnswerCard
from transferscope.datasets.answers import AnswersDataset
from transferscope.system import stored

CARD = AnswerCard(
    "A and B",
    ({"label": "A", "file": "a.pth", "architecture": "resnet18"},),
    (Answer("basin", "Do A and B lie in one basin?", "Yes, the barrier is 1.0 points.", "yes", value=0.01),),
)


def test_another_process_reads_what_was_saved_and_notices_damage(tmp_path: Path) -> None:
    """A process that did not write the file knows it by the digest alone, also as any other stored file."""
    path = tmp_path / "answers.json"
    entry = AnswersDataset(filepath=str(path))
    entry.save(CARD)
    stored._whole.clear()
    stored.check(path)
    assert entry.load() == CARD
    path.write_text(path.read_text().replace("1.0 points", "9.0 points"))
    stored._whole.clear()
    with pytest.raises(DatasetError, match=r"answers\.json is damaged"):
        entry.load()
