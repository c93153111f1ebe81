"""Models on the images of several tasks in one call, as the command takes several folders."""

from __future__ import annotations

import logging
import re

import pandas as pd
import pytest
import torch

import transferscope
from compared_networks import ANALYSES, Trained
from transferscope.analysis.flips import Grouping, flips
from transferscope.system.errors import UserError

FEW = ANALYSES | {"merging": {"methods": ["uniform"]}}


def tasks(trained: Trained) -> dict[str, object]:
    """The images as they are, and upside down in weaker colours, which the networks confuse more often."""
    turned = {part: (0.6 * images.flip(2), labels) for part, (images, labels) in trained.images.items()}
    return {"photos": trained.images, "sketches": turned}


@pytest.fixture(scope="module")
def comparison() -> transferscope.answers.Comparison:
    from compared_networks import trained_networks

    trained = trained_networks()
    names = ("first", "unrelated")
    return transferscope.compare(*(trained.models[name] for name in names), images=tasks(trained), analyses=FEW)


def test_every_sentence_about_images_has_a_part_for_each_task(
    comparison: transferscope.answers.Comparison, trained: Trained
) -> None:
    """Replacement, mistakes, basin and merge name both tasks; negative flips are those of torch alone."""
    assert len(comparison.answers) <= 8
    for id in ("same_function", "basin", "averaging", "shared_mistakes", "replacement"):
        assert {part.task for part in comparison.card[id].parts} == {"photos", "sketches"}, id
    images, labels = tasks(trained)["sketches"]["test"]
    with torch.no_grad():
        right = [(trained.models[name](images).argmax(1) == labels).numpy() for name in ("first", "unrelated")]
    known = flips(*right, Grouping.of_all(len(labels))).iloc[0]
    part = next(part for part in comparison.card["replacement"].parts if part.task == "sketches")
    assert part.value == pytest.approx(known["negative_flip_rate"])
    assert comparison.card["averaging"].answer.count("mean over photos and sketches") == 1


def test_tables_have_the_rows_of_each_task_alone(
    comparison: transferscope.answers.Comparison, trained: Trained
) -> None:
    """The rows of a task are those of a call with this task alone; weights are compared once in the sentences."""
    alone = transferscope.compare(
        *(trained.models[name] for name in ("first", "unrelated")),
        images={"sketches": tasks(trained)["sketches"]}, analyses=FEW,
    )  # fmt: skip
    for name in ("replacement", "barriers", "connection", "identity"):
        rows = comparison.tables[name][comparison.tables[name]["task"] == "sketches"].reset_index(drop=True)
        pd.testing.assert_frame_equal(rows, alone.tables[name])
    merges = comparison.tables["merging"]
    assert list(dict.fromkeys(merges["task"])) == ["photos", "sketches", "all"]
    assert comparison.card["changed_modules"].parts == ()


def test_figures_have_the_name_of_their_task(comparison: transferscope.answers.Comparison) -> None:
    """Each figure that an answer names is drawn from the rows of its task; merges have one of all tasks."""
    names = set(comparison.figures)
    assert {"photos.flips", "sketches.flips", "photos.barrier", "cross_domain.merging"} <= names
    for answer in comparison.answers:
        assert not answer.figure or comparison.figures[answer.figure].axes
    assert comparison.figures["sketches.flips.figure"] is comparison.figures["sketches.flips"]
    shown = comparison.card["replacement"].figure.removesuffix(".figure")
    assert f"figures[&quot;{shown}&quot;]" in comparison.card._repr_html_()


AVERAGED = {"landscape": None, "similarity": None, "mistakes": None, "merging": {"methods": ["uniform"]}}


@pytest.mark.parametrize("order", [("photos", "sketches"), ("sketches", "photos")])
def test_a_merge_is_judged_on_the_tasks_that_have_images(order: tuple[str, str], trained: Trained) -> None:
    """A task without images, first or last, is left out: the rows and the sentence are those of the other one alone."""
    models = [trained.models[name] for name in ("first", "second")]
    known = {"photos": trained.images, "sketches": None}
    comparison = transferscope.compare(*models, images={task: known[task] for task in order}, analyses=AVERAGED)
    alone = transferscope.compare(*models, images={"photos": trained.images}, analyses=AVERAGED)
    pd.testing.assert_frame_equal(comparison.tables["merging"], alone.tables["merging"])
    assert comparison.card["averaging"].answer == alone.card["averaging"].answer
    without = transferscope.compare(*models, images=dict.fromkeys(order), analyses=AVERAGED)
    assert without.merging is None


def test_tasks_of_one_label_and_of_several_judge_no_merge_together(
    trained: Trained, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning names a task of either kind; each has its rows of what is compared otherwise."""
    models = [trained.models[name] for name in ("first", "second")]
    pictures, labels = trained.images["test"]
    images = {"photos": (pictures, labels), "findings": (pictures, torch.eye(4)[labels].long())}
    with caplog.at_level(logging.WARNING):
        comparison = transferscope.compare(*models, images=images, analyses=AVERAGED | {"mistakes": {"bootstrap": 10}})
    assert "nothing is merged: images of photos have one label each and those of findings several" in caplog.text
    assert comparison.merging is None
    assert set(comparison.tables["mistakes"]["task"]) == {"photos", "findings"}


def test_figures_of_one_named_task_have_both_names(trained: Trained) -> None:
    """The name that the card prints, with the task, is a figure, as is the one without."""
    models = [trained.models[name] for name in ("first", "unrelated")]
    few = ANALYSES | {"landscape": None, "merging": None, "similarity": None}
    comparison = transferscope.compare(*models, images={"photos": trained.images}, analyses=few)
    printed = set(re.findall(r"figures\[&quot;(.*?)&quot;\]", comparison._repr_html_()))
    assert "photos.flips" in printed
    for name in printed:
        assert comparison.figures[name] is comparison.figures[name.removeprefix("photos.")]
    assert set(comparison.figures) == {"flips", "mistakes"}
    with pytest.raises(KeyError, match=r"sketches\.flips: there are flips, mistakes"):
        _ = comparison.figures["sketches.flips"]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({}, "the mapping is empty"),
        ({"Photos": "x"}, "task 'Photos': give lower-case letters"),
        ({"all": "x"}, "the name all is taken"),
        ({"train": "x"}, "a mapping has the parts train and test, not train"),
        ({"photos": "missing"}, "missing"),
    ],
)
def test_what_is_no_mapping_of_tasks_is_one_line(images: dict[str, str], message: str, trained: Trained) -> None:
    """Each mistake names the fix."""
    models = [trained.models[name] for name in ("first", "second")]
    with pytest.raises(UserError, match=message):
        transferscope.compare(*models, images=images, analyses=FEW)
