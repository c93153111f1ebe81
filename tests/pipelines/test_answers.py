"""The report of two checkpoint files speaks of these files, and answers as the library does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from compared_networks import ANALYSES, CASES, MODEL, OPTIONS, SIDE, save, trained_networks
from tiny_project import ROOT, Project, make_project
from transferscope.answers.answer import AnswerCard
from transferscope.answers.comparison import DEFAULTS, compare
from transferscope.experiment.options import AnalysesOptions
from transferscope.framework.yaml_files import read_mapping
from transferscope.tables.markdown import escape

pytestmark = pytest.mark.slow

NAMES = CASES["same_basin"]
PICTURES = {"store_size": SIDE, "mean": [0.5], "std": [1 / 6]}


def settings(folder: Path, **tasks: Any) -> dict[str, Any]:
    """Parameters for the shipped environment of two files."""
    root = str(folder / "images")
    files = {kind: {"checkpoint": str(folder / f"{name}.pth")} for kind, name in zip("ab", NAMES, strict=True)}
    return {
        "tasks": {"images": {"root": root, "test_share": None} | tasks},
        "pictures": PICTURES,
        "model": {"name": MODEL, "options": OPTIONS},
        "runs": files,
        "analyses": ANALYSES,
    }


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two fine-tuned networks in files and images in folders, compared by the shipped configuration."""
    folder = tmp_path_factory.mktemp("own")
    project, trained = make_project(folder), trained_networks()
    (folder / "conf/local/parameters.yml").unlink()
    (folder / "conf/own_checkpoints/globals.yml").write_text(f"data: {folder}/data\n")
    for name in NAMES:
        save(trained, name, folder)
    for part, (images, labels) in trained.images.items():
        pixels = ((images + 3) / 6 * 255).clamp(0, 255).byte().numpy().transpose(0, 2, 3, 1)
        for index, (image, label) in enumerate(zip(pixels, labels.tolist(), strict=True)):
            place = folder / "images" / part / f"class_{label}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{index:03d}.png")
    with project.session("own_checkpoints", settings(folder)) as session:
        session.run()
    return project


def read(project: Project, name: str) -> str:
    return (project.folder / "data/08_reporting" / name).read_text()


def test_the_library_gives_the_same_answers(own: Project) -> None:
    """`compare` on the packed images of the study gives the same sentences and numbers; only the merge has no file."""
    from transferscope.images.split import PackedSplit

    card = AnswerCard.from_json(read(own, "answers.json"))
    splits = {part: PackedSplit.open(own.folder / "data/05_model_input/images" / part) for part in ("train", "test")}
    paths = [own.folder / f"{name}.pth" for name in NAMES]
    answered = compare(*paths, images=splits, model=trained_networks().models["first"], analyses=ANALYSES).card
    assert [one.id for one in answered.answers] == [one.id for one in card.answers]
    for ours, theirs in zip(answered.answers, card.answers, strict=True):
        assert re.sub("; the (merged weights|weights of the chosen merge) lie in .*", ".", theirs.answer) == ours.answer
        numbers = [[one.value, one.low, one.high] for one in (ours, theirs)]
        np.testing.assert_allclose(*numbers, rtol=1e-9)
        assert theirs.figure == ours.figure
    assert Path(card["averaging"].file).is_file()


def test_the_file_has_the_layout_that_the_page_describes(own: Project) -> None:
    """Keys and types of answers.json are those of docs/answers.md."""
    content = json.loads(read(own, "answers.json"))
    page = (ROOT / "docs/answers.md").read_text()
    shown = json.loads(re.search(r"```\{code-block\} json\n.*?\n\n(.*?)```", page, re.DOTALL)[1])
    assert content["version"] == 1
    assert [set(model) for model in content["models"]] == [{"label", "file", "architecture"}] * 2
    for answer in content["answers"]:
        assert list(answer) == list(shown)
        for key, value in answer.items():
            kinds = (int, float, type(None)) if key in ("value", "low", "high") else type(shown[key])
            assert isinstance(value, kinds), (key, value)
        assert f"`{answer['id']}`" in page


def test_the_report_opens_with_the_answers_and_speaks_of_these_models(own: Project) -> None:
    """Every answer stands before all else, with a link to its figure; nothing of the paper is there."""
    page, summary = read(own, "report.html"), read(own, "summary.md")
    card = AnswerCard.from_json(read(own, "answers.json"))
    text = re.sub(r"<style>.*?</style>|<script>.*?</script>|src=\"data:[^\"]*\"", "", page, flags=re.DOTALL)
    answers = text[text.index('<ol class="answers">') : text.index("</ol>")]
    assert text.index('id="answers"') < text.index('id="contents"')
    assert 'id="claims"' not in text
    anchors = set(re.findall(r' id="(\w+)"', text))
    links = re.findall(r'<a href="#(\w+)">Figure</a>', answers)
    assert len(links) == len([one for one in card.answers if one.figure])
    assert set(links) <= anchors
    for word in ("paper", "P-T", "RI-T", "CheXpert", "DomainNet", "Table ", "Ours", "not run"):
        assert word not in text.replace("--paper", ""), word
        assert word not in summary, word
    for one in card.answers:
        assert escape(one.answer) in summary
    assert card.note in text
    assert "Models on images" in text
    for word in ("epochs", "still rising", "finished"):
        assert word not in text, word
    assert pd.read_csv(own.folder / "data/08_reporting/claims.csv").empty
    assert pd.read_csv(own.folder / "data/08_reporting/claim_effects.csv").empty


def test_without_images_the_weights_answer(own: Project) -> None:
    """`root: null` gives the card of the weights, and the merge is left out without an error."""
    with own.session("own_checkpoints", settings(own.folder, root=None)) as session:
        session.run()
    card = AnswerCard.from_json(read(own, "answers.json"))
    trained = trained_networks()
    model = trained.models["first"]
    answered = compare(*(trained.state(name) for name in NAMES), model=model, analyses=ANALYSES).card
    assert [one.id for one in card.answers] == ["same_function", "changed_modules", "open"]
    assert card["changed_modules"].answer == answered["changed_modules"].answer
    assert "labelled ones would tell" in card["open"].answer


def test_the_library_has_the_options_of_the_shipped_configuration() -> None:
    """`DEFAULTS` are the analyses of conf/own_checkpoints but for spectra and names of merges."""
    shipped = read_mapping(ROOT / "conf/own_checkpoints/parameters.yml")["analyses"]
    del shipped["spectrum"], shipped["merging"]["merges"]
    ours = AnalysesOptions.model_validate(dict(DEFAULTS) | {"spectrum": None})
    assert AnalysesOptions.model_validate(shipped | {"spectrum": None}) == ours
