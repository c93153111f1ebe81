"""What the options of similarity and mistakes change in the pipelines."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from transferscope.experiment.node_parameters import PairSpec
from transferscope.experiment.options import MistakesOptions, PictureOptions
from transferscope.experiment.plan import Plan, make_plan
from transferscope.pipelines.mistakes import create_pipeline as mistakes
from transferscope.pipelines.mistakes.nodes import compare_pair, draw_gallery
from transferscope.pipelines.similarity import create_pipeline as similarity
from transferscope.system.errors import UserError

STUDY: dict[str, Any] = {
    "tasks": {"clipart": {"format": "domainnet", "root": "somewhere"}},
    "runs": {"pt": {"label": "P-T", "tasks": ["clipart"]}, "rit": {"label": "RI-T", "tasks": ["clipart"]}},
}


def plan(**analyses: Any) -> Plan:
    none = dict.fromkeys(("mistakes", "similarity", "landscape", "spectrum"))
    return make_plan(STUDY | {"analyses": none | analyses})


def outputs(**options: Any) -> set[str]:
    return similarity(plan(similarity={"pairs": [["pt", "rit"]], **options})).all_outputs()


def test_tables_and_figures_follow_the_options():
    """No heat map without pairs for it, no second opinion without exact sums; CKA always."""
    assert {"clipart.cka.table", "clipart.cka_layers.table", "clipart.cka_heat_map.figure"} <= outputs()
    assert "clipart.second_opinion.table" in outputs()
    without = outputs(heat_map_pairs=0)
    assert "clipart.cka_layers.table" not in without
    assert "clipart.cka_heat_map.figure" not in without
    for options in ({"features": ["flattened"]}, {"estimators": ["minibatch"]}):
        assert "clipart.second_opinion.table" not in outputs(**options)
        assert "clipart.cka.table" in outputs(**options)


def test_distances_are_taken_at_every_saved_epoch():
    """A table and a figure of the way, beside Figure 11."""
    assert {"clipart.distance_travelled.table", "clipart.distance_travelled.figure"} <= outputs()


def test_gallery_classes_by_number_by_name_and_by_task():
    """A number or names for all tasks, or for single ones; the other tasks then have 5."""
    assert MistakesOptions().gallery_of("clipart") == 5
    assert MistakesOptions(gallery_classes=("barn",)).gallery_of("clipart") == ("barn",)
    by_task = MistakesOptions(gallery_classes={"clipart": ("barn", "angel"), "chest": 3})
    assert [by_task.gallery_of(task) for task in ("clipart", "chest", "real")] == [("barn", "angel"), 3, 5]
    assert "clipart.uncommon_mistakes.figure" in mistakes(plan(mistakes={"pairs": [["pt", "rit"]]})).all_outputs()
    with pytest.raises(UserError, match=r"gallery_classes: 'photos' is unknown; allowed: clipart"):
        plan(mistakes={"pairs": [["pt", "rit"]], "gallery_classes": {"photos": 5}})


FINDINGS = ("edema", "atelectasis")
PAIR = PairSpec(kind="P-T & RI-T", run_a="chest.pt_1", run_b="chest.rit_1", label_a="P-T", label_b="RI-T")


def chest(labels: list[list[int]]) -> SimpleNamespace:
    """A multi-label split, as far as mistakes need one."""
    images = np.zeros((len(labels), 1, 8, 8), dtype=np.uint8)
    return SimpleNamespace(
        name="chest",
        multi_label=True,
        labels=np.array(labels),
        class_names=FINDINGS,
        gather=lambda rows: torch.from_numpy(images[rows]),
        pictures=PictureOptions(store_size=8, style="chest"),
    )


def predictions(logits: list[list[float]]) -> dict[str, np.ndarray]:
    return {"test": np.array(logits)}


def test_the_gallery_of_a_multi_label_task_has_a_column_for_each_finding():
    """The finding, whether it is present, and what both models say of it; named findings in the order given."""
    split = chest([[1, 0], [1, 1]])
    a, b = predictions([[2, 2], [-1, -2]]), predictions([[-2, 1], [2, 2]])
    figure = draw_gallery(PAIR, a, b, split, MistakesOptions(gallery_classes=("atelectasis", "edema")), None)
    assert [ax.get_title() for ax in figure.axes] == ["", "edema", "atelectasis", "edema"]
    assert "no atelectasis" in figure.axes[2].get_xlabel().splitlines()[0]
    with pytest.raises(UserError, match="no class named barn; there are: edema, atelectasis"):
        draw_gallery(PAIR, a, b, split, MistakesOptions(gallery_classes=("barn",)), None)


def test_every_finding_has_its_row_with_intervals():
    """Counts by hand, kappa and McNemar beside them, and bounds around every ratio."""
    a, b = predictions([[2, 2], [-1, -2]]), predictions([[-2, 1], [2, 2]])
    table = compare_pair(PAIR, a, b, chest([[1, 0], [1, 1]]), MistakesOptions(bootstrap=50)).set_index("class_name")
    assert table["only_a_correct"].to_dict() == {"edema": 1, "atelectasis": 0}
    assert table["only_b_correct"].to_dict() == {"edema": 1, "atelectasis": 1}
    assert table["common_mistakes"].to_dict() == {"edema": 0, "atelectasis": 1}
    assert table["mcnemar_p"].notna().all()
    for name in ("accuracy_a", "uncommon_ratio_a", "kappa", "uncommon_ratio_difference"):
        assert {f"{name}_low", f"{name}_high"} <= set(table.columns)
    with pytest.raises(UserError, match="no example has a label for atelectasis"):
        compare_pair(PAIR, a, b, chest([[1, -1], [1, -1]]), MistakesOptions())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimators": ["exact"]}, r"estimators.0: .*'biased', 'debiased' or 'minibatch'"),
        ({"estimators": []}, "estimators"),
        ({"features": []}, "features"),
        ({"batch_size": 3}, "batch_size"),
        ({"heat_map_pairs": -1}, "heat_map_pairs"),
    ],
)
def test_bad_options_are_named(options, message):
    """The key and what is allowed, before anything runs."""
    with pytest.raises(UserError, match=message):
        plan(similarity={"pairs": [["pt", "rit"]], **options})
