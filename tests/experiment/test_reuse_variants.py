"""Feature reuse and source epochs: what the two short keys stand for, and what they may not say."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from transferscope.experiment.node_parameters import VariedRun
from transferscope.experiment.plan import Plan, make_plan
from transferscope.experiment.study import pictures_of
from transferscope.system.errors import UserError

STUDY: dict[str, Any] = {
    "seed": 1,
    "tasks": {
        "shapes": {"format": "image_folder", "root": "shapes"},
        "clipart": {"format": "domainnet", "root": "domains"},
        "real": {"format": "domainnet", "root": "domains"},
        "chest": {"format": "chexpert", "root": "chest"},
        "real_clipart": {"union": ["real", "clipart"]},
    },
    "training": {"epochs": 3},
    "runs": {
        "p": {"label": "P", "tasks": ["shapes"], "training": {"lr": 0.1}},
        "pt": {
            "label": "P-T",
            "tasks": ["clipart", "real", "real_clipart"],
            "replicas": 2,
            "initialisation": "pretrained",
            "pretrained": "shapes.p_1",
            "training": {"lr": 0.01},
        },
        "rit": {
            "label": "RI-T",
            "tasks": ["clipart", "real", "chest", "real_clipart"],
            "replicas": 2,
            "training": {"lr": 0.05},
        },
        "rit_same_init": {"label": "RI-T same init", "tasks": ["clipart"], "shares_initialisation_with": "rit"},
    },
}
FROM_FILE = STUDY["runs"]["pt"] | {"pretrained": "p.pth"}
FILE = {"label": "P", "tasks": ["shapes"], "initialisation": "checkpoint", "checkpoint": "p.pth"}
REUSE = {
    "tasks": ["clipart", "real"], "block_sizes": [1, 4, "values"], "each_image": [4], "controls": ["statistics", "frozen"],
    "first_modules": ["stem", "layer2.0"], "replicas": 1,
}  # fmt: skip


def plan_of(reuse: Any = None, epochs: Any = None, **more: Any) -> Plan:
    """The plan of the study with these keys; P keeps epochs 1 and 2."""
    parameters = deepcopy(STUDY) | ({"feature_reuse": reuse} if reuse else {})
    parameters |= {"source_epochs": epochs} if epochs else {}
    parameters["runs"]["p"]["training"] = {"lr": 0.1, "keep_epochs": [1, 2]}
    return make_plan(parameters | more)


def test_every_size_and_kind_is_a_run_on_a_view_of_the_images() -> None:
    """No image is stored again, the permutation of a view is that of its size and seed, and kinds keep their training."""
    plan = plan_of(REUSE)
    for task in ("clipart", "real"):
        for size in (1, 4, "values"):
            view = f"{task}__blocks_{size}"
            assert plan.study.tasks[view].union == (task,)
            shuffle = pictures_of(plan.study, view).shuffle
            assert shuffle is not None
            assert (shuffle.block_size, shuffle.seed, shuffle.per_image) == (size, 0, False)
            runs = {run.name: run for run in plan.runs_of(view)}
            assert set(runs) == {"pt_shuffled_1", "rit_shuffled_1"}
            assert runs["pt_shuffled_1"].training.lr == plan.runs[f"{task}.pt_1"].training.lr
            assert runs["pt_shuffled_1"].pretrained == "shapes.p_1"
        each = pictures_of(plan.study, f"{task}__each_4").shuffle
        assert each is not None
        assert each.per_image
    assert len(plan.runs) - len(plan_of().runs) == 2 * (4 * 2 + 4)


def test_controls_take_parts_of_what_the_first_pre_trained_kind_takes() -> None:
    """On whole images: statistics, a frozen rest, and the first modules; none of them counts as fine-tuned P-T."""
    plan = plan_of(REUSE)
    runs = {run.name: run for run in plan.runs_of("clipart__controls")}
    assert pictures_of(plan.study, "clipart__controls").shuffle is None
    assert runs["pt_statistics_1"].transfer == "statistics"
    assert runs["pt_frozen_1"].training.frozen == "features"
    assert runs["pt_stem_1"].transfer_until == "stem"
    assert runs["pt_layer2_0_1"].transfer_until == "layer2.0"
    assert {run.pretrained for run in runs.values()} == {"shapes.p_1"}
    assert {run.role for name, run in runs.items() if name != "pt_frozen_1"} == {"control"}
    assert runs["pt_frozen_1"].training.lr == plan.runs["clipart.pt_1"].training.lr == 0.01
    others = {run.training.lr for name, run in runs.items() if name != "pt_frozen_1"}
    assert others == {plan.runs["clipart.rit_1"].training.lr} == {0.05}


def test_controls_of_a_checkpoint_file_and_without_runs_from_scratch() -> None:
    """Parts of a file as of a run; where no kind starts from random weights, all are trained as the pre-trained one."""
    file = {"runs": STUDY["runs"] | {"pt": FROM_FILE}}
    runs = {run.name: run for run in plan_of(REUSE | {"kinds": ["pt"]}, **deepcopy(file)).runs_of("real__controls")}
    assert {run.pretrained for run in runs.values()} == {"p.pth"}
    assert (runs["pt_statistics_1"].transfer, runs["pt_stem_1"].transfer_until) == ("statistics", "stem")
    assert {run.training.lr for run in runs.values()} == {0.01}


def test_source_epochs_are_runs_from_earlier_epochs() -> None:
    """As many as are asked for, from epochs that P keeps."""
    plan = plan_of(epochs={"tasks": ["real"], "epochs": [0, 2]})
    runs = plan.runs_of("real__source_epochs")
    assert [(run.name, run.pretrained_epoch) for run in runs] == [
        ("pt_from_0_1", 0), ("pt_from_0_2", 0), ("pt_from_2_1", 2), ("pt_from_2_2", 2),
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"source_epochs.epochs: shapes.p_1 does not keep epoch 7, only 0, 1, 2, 3"):
        plan_of(epochs={"tasks": ["real"], "epochs": [7]})


def test_no_other_analysis_sees_them_and_no_other_run_changes() -> None:
    """Targets, pairs and fingerprints of the rest are those of the study without the keys; roles, too."""
    plain, plan = plan_of(), plan_of(REUSE, {"tasks": ["real"], "epochs": [1]})
    assert plan.targets() == plain.targets()
    assert all(plan.runs[name] == run for name, run in plain.runs.items())
    assert set(plan.views.values()) == {"clipart", "real"}


def test_an_expanded_study_stays_as_it_is() -> None:
    """Nodes of the report make the plan again of the study that the parameters hold."""
    plan = plan_of(REUSE, {"tasks": ["real"], "epochs": [1]})
    again = make_plan(plan.study.model_dump(mode="json", exclude_unset=True))
    assert again.runs == plan.runs
    assert again.views == plan.views


def test_all_sizes_are_those_that_divide_the_side() -> None:
    """And all values; the whole image is the task's own, unless its runs see augmented images."""
    views = plan_of({"tasks": ["real"]}).views
    assert list(views) == [f"real__blocks_{size}" for size in (1, 2, 4, 8, 16, "values")]
    augmented = plan_of({"tasks": ["real"]}, training={"epochs": 3, "augmentation": {"flip": True}})
    assert list(augmented.views) == [*views, "real__blocks_32"]
    for name, run in augmented.runs.items():
        assert run.training.augmentation.flip == (run.task not in augmented.views), name


def test_rows_of_the_table_are_the_varied_runs_and_those_that_they_vary() -> None:
    """Each with what it varies; whole images have the side as size."""
    plan = plan_of(REUSE, {"tasks": ["clipart"], "epochs": [1], "replicas": 1})
    rows = {row.run: row for row in VariedRun.of(plan, "clipart")}
    assert len(rows) == 4 + 4 * 2 + 4 + 1
    whole, blocks = rows["clipart.pt_2"], rows["clipart__blocks_4.rit_shuffled_1"]
    assert (whole.series, whole.size, whole.side, whole.source_epoch) == ("whole", 32, 32, "final")
    assert (blocks.series, blocks.size, blocks.role, blocks.source_epoch) == ("blocks", 4, "from_scratch", None)
    assert rows["clipart__controls.pt_stem_1"].part == "stem"
    assert rows["clipart__source_epochs.pt_from_1_1"].source_epoch == 1
    assert {row.label for row in rows.values()} == {"P-T", "RI-T"}
    assert {row.origin for row in rows.values()} == {"pt", "rit"}
    assert rows["clipart__controls.pt_stem_1"].origin == "pt"


BAD = [
    ({"feature_reuse": REUSE | {"tasks": ["sketch"]}}, "feature_reuse.tasks: 'sketch' is unknown; allowed: chest"),
    ({"feature_reuse": REUSE | {"tasks": ["real_clipart"]}}, "feature_reuse.tasks: 'real_clipart' is a union"),
    ({"feature_reuse": REUSE | {"kinds": ["pt", "x"]}}, "feature_reuse.kinds: 'x' is unknown; allowed: p, pt"),
    ({"feature_reuse": REUSE | {"tasks": ["chest"]}}, "feature_reuse: runs.pt.tasks lacks chest"),
    (
        {"feature_reuse": REUSE | {"block_sizes": [5]}},
        "feature_reuse.block_sizes: 5 does not tile the 32 pixels of clipart: give 1, 2, 4, 8, 16, 32, or values",
    ),
    ({"feature_reuse": REUSE | {"kinds": ["rit"]}}, "feature_reuse.kinds: the controls need a kind with initialis"),
    ({"feature_reuse": REUSE | {"sizes": [1]}}, "feature_reuse.sizes: unknown key; allowed: block_sizes, controls"),
    ({"source_epochs": {"tasks": ["real"], "epochs": [1], "kind": "rit"}}, "source_epochs.kind: 'rit' does not start"),
    (
        {"source_epochs": {"tasks": ["real"], "epochs": [1]}, "runs": STUDY["runs"] | {"pt": FROM_FILE}},
        "source_epochs.kind: 'pt' starts from p.pth, a checkpoint file, which holds one epoch: name a kind",
    ),
    (
        {"source_epochs": {"tasks": ["real"], "epochs": [1]}, "runs": STUDY["runs"] | {"p": FILE}},
        "source_epochs.kind: 'pt' starts from shapes.p_1, a checkpoint file, which holds one epoch: name a kind",
    ),
    ({"source_epochs": {"tasks": ["real"], "epochs": []}}, "source_epochs.epochs: .*at least 1"),
]


@pytest.mark.parametrize(("keys", "message"), BAD)
def test_mistakes_are_named_with_what_is_allowed(keys: dict[str, Any], message: str) -> None:
    """In one line."""
    with pytest.raises(UserError, match=message):
        make_plan(deepcopy(STUDY) | keys)
