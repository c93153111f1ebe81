"""The plan: what compact parameters mean, and what they may not say."""

from __future__ import annotations

import time
from copy import deepcopy
from typing import Any

import pytest

from transferscope.experiment.options import CrossDomainOptions
from transferscope.experiment.pairs import pair_kind, start_kind
from transferscope.experiment.plan import Plan, make_plan
from transferscope.experiment.seeds import derive_seed
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
        "pt": {
            "label": "P-T",
            "tasks": ["clipart", "real", "real_clipart"],
            "replicas": 2,
            "initialisation": "pretrained",
            "pretrained": "shapes.p_1",
            "training": {"lr": 0.01},
        },
        "p": {"label": "P", "tasks": ["shapes"], "training": {"lr": 0.1}},
        "rit": {"label": "RI-T", "tasks": ["clipart", "real", "chest", "real_clipart"], "replicas": 2},
        "rit_same_init": {"label": "RI-T same init", "tasks": ["clipart"], "shares_initialisation_with": "rit"},
    },
}


COPY = {"label": "RI-T copy", "tasks": ["clipart"], "split_from": "rit", "split_epochs": [1]}


def study(**changes: Any) -> dict[str, Any]:
    """The study with values set at dotted keys."""
    parameters = deepcopy(STUDY)
    for key, value in changes.items():
        *path, last = key.split("__")
        place = parameters
        for step in path:
            place = place.setdefault(step, {})
        place[last] = value
    return parameters


FILES = {"label": "M", "tasks": ["clipart"], "initialisation": "checkpoint", "checkpoints": ["a.pth", "b.pth"]}


def test_a_series_of_files_is_one_kind() -> None:
    """A run for each file with a fingerprint of its own, and with the parent that it names."""
    given = FILES | {"pretrained": "shapes.p_1"}
    plan = make_plan(study(runs__m=given), {"a.pth": "1", "b.pth": "2"}.get)
    first, second = (plan.runs[f"clipart.m_{replica}"] for replica in (1, 2))
    assert [first.checkpoint, second.checkpoint] == ["a.pth", "b.pth"]
    assert first.in_series
    assert first.fingerprint != second.fingerprint
    assert first.role == "file"
    (pair,) = plan.pairs("clipart", [("m", "m")])
    assert (pair.run_a, pair.run_b) == (first, second)
    assert not pair.is_of_parent
    assert all(pair.is_of_parent for pair in plan.pairs("clipart", [("m", "p")]))
    again = make_plan(study(runs__m=given), {"a.pth": "1", "b.pth": "3"}.get)
    assert again.runs["clipart.m_1"] == first
    assert again.runs["clipart.m_2"].fingerprint != second.fingerprint


def test_a_file_alone_and_a_list_of_one_are_the_same_weights() -> None:
    """Fingerprints follow from the content of the file."""
    one = {key: value for key, value in FILES.items() if key != "checkpoints"} | {"checkpoint": "a.pth"}
    made = [
        make_plan(study(runs__m=given), {"a.pth": "1"}.get).runs["clipart.m_1"]
        for given in (one, FILES | {"checkpoints": "a.pth"})
    ]
    assert made[0].checkpoint == made[1].checkpoint == "a.pth"
    assert [run.in_series for run in made] == [False, True]


def test_runs_are_tasks_times_replicas() -> None:
    """Every kind gives a run for each of its tasks and replicas, named task.kind_replica."""
    runs = make_plan(STUDY).runs
    assert "clipart.pt_2" in runs
    assert "chest.rit_1" in runs
    assert "chest.pt_1" not in runs
    assert len(runs) == 6 + 1 + 8 + 1


def test_default_pairs_are_of_the_kinds_that_the_study_has() -> None:
    """Without the kind `rit_same_init` its default pair is none; kinds of other names alone leave nothing, and fail."""
    parameters = study(analyses__similarity={})
    del parameters["analyses"]["similarity"], parameters["runs"]["rit_same_init"]
    plan = make_plan(parameters)
    assert plan.study.analyses.similarity is not None
    pairs = plan.pairs("clipart", plan.study.analyses.similarity.pairs)
    assert {(pair.run_a.kind, pair.run_b.kind) for pair in pairs} == {
        ("pt", "p"),
        ("pt", "pt"),
        ("pt", "rit"),
        ("rit", "rit"),
    }
    parameters["runs"] = {"scratch": parameters["runs"]["rit"]}
    with pytest.raises(UserError, match=r"analyses.similarity.pairs: 'pt' is unknown; allowed: scratch"):
        make_plan(parameters)


def test_copies_of_runs() -> None:
    """A copy for every epoch and replica, with all that decides its parent but the order from the split on.

    Copies are compared with their own parents, those of every epoch, and belong to no kind of replicas.
    """
    plan = make_plan(
        study(runs__copy=COPY | {"split_epochs": [0, 1], "replicas": 2}, training={"epochs": 3, "lr": 0.2})
    )
    parent, other = plan.runs["clipart.rit_2"], plan.runs["clipart.rit_1"]
    copies = [plan.runs[f"clipart.copy_e{epoch}_2"] for epoch in (0, 1)]
    for epoch, copy in enumerate(copies):
        assert (copy.split_from, copy.split_epoch, copy.role) == (parent.full_name, epoch, "split")
        assert (copy.init_seed, copy.model, copy.training) == (parent.init_seed, parent.model, parent.training)
        seeds = [copy.order_seed_in(number) == parent.order_seed for number in (1, 2, 3)]
        assert seeds == [number <= epoch for number in (1, 2, 3)]
    seeds = {run.order_seed for run in plan.runs.values()}
    assert len(seeds) == len({run.fingerprint for run in plan.runs.values()}) == len(plan.runs)
    names = [pair.name for pair in plan.pairs("clipart", [("rit", "copy")])]
    assert sorted(names) == sorted(f"rit_{n}__copy_e{epoch}_{n}" for n in (1, 2) for epoch in (0, 1))
    assert plan.compared("clipart", "from_scratch") == [other, parent]
    changed = make_plan(study(runs__copy=COPY, training={"epochs": 3, "lr": 0.1})).runs["clipart.copy_e1_1"]
    assert changed.fingerprint != plan.runs["clipart.copy_e1_1"].fingerprint
    tuned = make_plan(study(runs__copy=COPY | {"split_from": "pt", "tasks": ["real"]})).runs["real.copy_e1_1"]
    assert (tuned.initialisation, tuned.pretrained) == ("pretrained", "shapes.p_1")


def test_as_many_pairs_are_connected_at_every_split() -> None:
    """`pairs_of_each` counts the pairs of a run and its copy by the epoch of the split."""
    connection = {"pairs": [["rit", "copy"], ["rit", "rit"]], "pairs_of_each": 1, "tasks": ["clipart"]}
    kinds = {"runs__copy": COPY | {"split_epochs": [2, 1], "replicas": 2}}
    plan = make_plan(study(**kinds, analyses__landscape__connection=connection))
    names = ["rit_1__copy_e2_1", "rit_1__copy_e1_1", "rit_1__rit_2"]
    assert [pair.name for pair in plan.connected("clipart")] == names


def test_what_others_start_from_comes_first() -> None:
    """The order of the runs is one in which they can be trained, whatever the order in the file."""
    names = list(make_plan(STUDY).runs)
    assert names.index("shapes.p_1") < names.index("clipart.pt_1")


def test_replicas_differ_in_all_seeds_unless_the_initialisation_is_shared() -> None:
    """Two replicas have other data orders and initial weights; a sharing run has only another order."""
    runs = make_plan(STUDY).runs
    first, second, shared = (runs[f"clipart.{name}"] for name in ("rit_1", "rit_2", "rit_same_init_1"))
    assert first.init_seed != second.init_seed
    assert first.order_seed != second.order_seed
    assert first.init_seed == shared.init_seed
    assert first.order_seed != shared.order_seed


def test_seeds_are_the_same_everywhere() -> None:
    """Derived seeds depend on the names alone: this value holds on any machine."""
    assert derive_seed(2020, "clipart", "rit", 1, "order") == 5376127753931733902


def test_overrides_apply_in_order() -> None:
    """The task overrides the study, the kind overrides the task, and the kind on a task overrides the kind."""
    plan = make_plan(
        study(
            tasks__clipart__training={"lr": 0.5, "epochs": 4},
            runs__rit__training={"lr": 0.2},
            runs__rit__training_on={"chest": {"lr": 0.3}},
        )
    )
    assert plan.runs["clipart.rit_1"].training.lr == 0.2
    assert plan.runs["clipart.rit_1"].training.epochs == 4
    assert plan.runs["chest.rit_1"].training.lr == 0.3
    assert plan.runs["real.rit_1"].training.epochs == 3


def test_pairs_of_one_kind_are_combinations_and_of_two_kinds_products() -> None:
    """Two replicas give one pair within a kind and four between kinds."""
    pairs = make_plan(STUDY).pairs("clipart", [("rit", "rit"), ("pt", "rit")])
    assert [pair.name for pair in pairs] == [
        "rit_1__rit_2",
        "pt_1__rit_1",
        "pt_1__rit_2",
        "pt_2__rit_1",
        "pt_2__rit_2",
    ]
    assert {pair.kind for pair in pairs} == {"RI-T & RI-T", "P-T & RI-T"}


def test_runs_that_share_an_initialisation_pair_by_replica() -> None:
    """rit_same_init_1 is compared with rit_1, whose initial weights it has, and not with rit_2."""
    pairs = make_plan(STUDY).pairs("clipart", [("rit", "rit_same_init")])
    assert [pair.name for pair in pairs] == ["rit_1__rit_same_init_1"]


def test_a_pair_with_p_finds_the_model_that_the_runs_start_from() -> None:
    """P lives on the source task; pairs with it exist on every task that is fine-tuned from it, and on no other."""
    plan = make_plan(STUDY)
    assert [pair.run_b.full_name for pair in plan.pairs("real", [("pt", "p")])] == ["shapes.p_1"] * 2
    assert plan.pairs("chest", [("pt", "p")]) == []


def test_targets_leave_out_tasks_that_only_pretrain() -> None:
    """The source task is no target; a union is."""
    assert make_plan(STUDY).targets() == ["clipart", "real", "chest", "real_clipart"]


def fingerprint(name: str, **changes: Any) -> str:
    return make_plan(study(**changes)).runs[name].fingerprint


@pytest.mark.parametrize(
    "changes",
    [
        {"training__epochs": 4},
        {"seed": 2},
        {"model": {"name": "fixup_resnet18"}},
        {"tasks__clipart__limit": 10},
        {"pictures": {"store_size": 16}},
        {"runs__p__training": {"lr": 0.2}},
        {"tasks__clipart__value_range": (0, 4095)},
        {"runs__pt__transfer": "statistics"},
        {"runs__pt__transfer_until": "layer1.0"},
        {"training__frozen": "features"},
    ],
)
def test_the_fingerprint_changes_with_what_decides_the_weights(changes: dict[str, Any]) -> None:
    """Training, seed, model, data and the pre-training all count."""
    assert fingerprint("clipart.pt_1", **changes) != fingerprint("clipart.pt_1")


@pytest.mark.parametrize(
    "changes",
    [
        {"training__num_processes": 2},
        {"training__num_nodes": 2, "training__rendezvous": "first:29500"},
        {"training__tensorboard": True},
        {"tasks__clipart__root": "elsewhere"},
        {"tasks__clipart__num_workers": 3},
        {"runs__rit__training": {"lr": 0.3}},
        {"runs__pt__transfer": "weights", "runs__pt__transfer_until": None, "training__frozen": ()},
    ],
)
def test_the_fingerprint_ignores_what_does_not(changes: dict[str, Any]) -> None:
    """Not the number of processes, nor where the images lie, nor other runs."""
    assert fingerprint("clipart.pt_1", **changes) == fingerprint("clipart.pt_1")


def test_a_run_that_takes_a_part_of_its_start_is_a_control() -> None:
    """Claims on fine-tuned runs leave it out; what is frozen is a training of its own."""
    pt = STUDY["runs"]["pt"]
    kinds = {
        "statistics": {"transfer": "statistics"},
        "stem": {"transfer_until": "stem"},
        "probe": {"training": {"frozen": "features"}},
    }
    plan = make_plan(
        study(**{f"runs__{name}": pt | {"label": name, "replicas": 1} | more for name, more in kinds.items()})
    )
    roles = {name: plan.runs[f"clipart.{name}_1"].role for name in kinds}
    assert roles == {"statistics": "control", "stem": "control", "probe": "fine_tuned"}
    assert [run.kind for run in plan.compared("clipart", "fine_tuned")] == ["pt", "pt"]


def test_shuffled_images_are_not_moved_before() -> None:
    """Augmentation that moves pixels is refused for runs on a task whose images are shuffled, and only there."""
    view = {"union": ["clipart"], "pictures": {"store_size": 32, "shuffle": {"block_size": 4}}}
    tasks = {"tasks__view": view, "runs__rit__tasks": ["clipart", "view"]}
    moving = {"augmentation": {"flip": True, "shift": 0.1, "mixup": 0.2}}
    with pytest.raises(
        UserError, match=r"runs.rit.training_on.view.augmentation: flip, shift would move pixels before"
    ):
        make_plan(study(**tasks, training__augmentation=moving["augmentation"]))
    still = {"view": {"augmentation": {"mixup": 0.2}}}
    make_plan(study(**tasks, training__augmentation=moving["augmentation"], runs__rit__training_on=still))


def test_a_view_of_a_task_is_other_data() -> None:
    """A task that shows the images of another, shuffled, has its settings and its own fingerprints."""
    shuffled = {"store_size": 32, "shuffle": {"block_size": 4}}
    changes = {"tasks__view": {"union": ["clipart"], "pictures": shuffled}, "runs__pt__tasks": ["clipart", "view"]}
    plan = make_plan(study(**changes))
    assert pictures_of(plan.study, "view").shuffle.block_size == 4
    assert not pictures_of(plan.study, "clipart").shuffle
    changes["tasks__view"] = {"union": ["clipart"]}
    assert make_plan(study(**changes)).runs["view.pt_1"].fingerprint != plan.runs["view.pt_1"].fingerprint


def test_a_union_shows_its_images_as_its_parts_do() -> None:
    """Without settings of its own a union has those of its parts, not the study's."""
    own = {"store_size": 16, "style": "chest"}
    plan = make_plan(study(tasks__chest__pictures=own, tasks__view={"union": ["chest"]}))
    assert pictures_of(plan.study, "view").style == "chest"


BAD = [
    ({"trainig": {}}, "trainig: unknown key; allowed: analyses, feature_reuse, generated, model"),
    ({"training__num_nodes": 2}, r"num_nodes above 1 and rendezvous .* go together"),
    ({"training__lrr": 1}, "training.lrr: unknown key; allowed: .*lr, "),
    ({"tasks__clipart__rot": "x"}, r"tasks.clipart.rot: unknown key; allowed: blank, class_list, domain"),
    (
        {"tasks__clipart__format": "zip"},
        "tasks.clipart.format: no format has this name: known are domainnet, chexpert, image_folder, or .* module:Class",
    ),
    ({"tasks__new": {"format": "domainnet"}}, "tasks.new: root is missing"),
    ({"tasks__new": {}}, "tasks.new: give either format and root, or union"),
    ({"tasks__clipart__num_train": 10}, "tasks.clipart: num_train is only for format chexpert"),
    ({"tasks__new": {"union": ["real", "sketch"]}}, "tasks.new.union: 'sketch' is unknown; allowed: .*clipart"),
    ({"tasks__new": {"union": ["real_clipart"]}}, "'real_clipart' is a union itself"),
    ({"runs__rit__tasks": ["sketch"]}, "runs.rit.tasks: 'sketch' is unknown; allowed: chest, clipart"),
    ({"runs__p__weights": "ema"}, "runs.p: weights is only for runs with a file, given as checkpoint or pretrained"),
    ({"runs__rit__prefix": "net"}, "runs.rit: prefix is only for runs with a file"),
    ({"runs__pt__weights": "ema"}, "runs.pt.weights is for files made elsewhere; shapes.p_1 is a run of this study"),
    ({"runs__pt__pretrained": "shapes.q_1"}, "no run is named 'shapes.q_1'; runs that exist: .*shapes.p_1"),
    ({"runs__m": {**FILES, "checkpoint": "c.pth"}}, "runs.m: give either checkpoint or checkpoints"),
    ({"runs__m": {**FILES, "replicas": 3}}, "runs.m: replicas: follows from checkpoints, of which there are 2"),
    ({"runs__m": {**FILES, "checkpoints": []}}, "runs.m.checkpoints: .*at least 1 item"),
    ({"runs__m": {**FILES, "pretrained": "q.pth"}}, "runs.m.pretrained: no run is named 'q.pth'; runs that exist: "),
    ({"runs__m": {**FILES, "initialisation": "random"}}, "runs.m: initialisation: checkpoint and the key checkpoint"),
    ({"runs__rit__pairing": "all"}, "runs.rit: pairing is only for a kind with checkpoints"),
    (
        {"runs__m": {**FILES, "model": {"name": "resnet18"}}, "analyses__landscape": {"pairs": [["m", "rit"]]}},
        r"analyses.landscape.pairs: \[m, rit\] are different networks \(resnet18 and .*no line: remove the pair",
    ),
    ({"runs__pt__pretrained": None}, "runs.pt: initialisation: pretrained and the key pretrained go together"),
    ({"runs__rit_same_init__shares_initialisation_with": "x"}, "'x' is unknown; allowed: p, pt, rit"),
    ({"runs__rit_same_init__replicas": 3}, "runs.rit_same_init.replicas: 3, but 'rit' has 2"),
    (
        {"runs__again": {"label": "x", "tasks": ["clipart"], "shares_initialisation_with": "rit_same_init"}},
        "runs.again.shares_initialisation_with: 'rit_same_init' draws no initialisation of its own",
    ),
    (
        {"runs__rit_same_init__shares_initialisation_with": "pt"},
        "shares_initialisation_with: 'pt' draws no initialisation of its own",
    ),
    ({"runs__copy": {**COPY, "split_from": "x"}}, "runs.copy.split_from: 'x' is unknown; allowed: copy, p, pt, rit"),
    ({"runs__copy": {**COPY, "split_epochs": []}}, "runs.copy: split_from and split_epochs go together"),
    ({"runs__rit__split_epochs": [1]}, "runs.rit: split_from and split_epochs go together"),
    ({"runs__copy": {**COPY, "split_epochs": [0, 3]}}, r"copy.split_epochs: 3, but clipart.rit_1 ends at epoch 3"),
    ({"runs__copy": {**COPY, "split_epochs": [-1]}}, "runs.copy.split_epochs.0: .* greater than or equal to 0"),
    ({"runs__copy": {**COPY, "split_epochs": [1, 1]}}, "runs.copy.split_epochs: 1 is there twice"),
    ({"runs__copy": {**COPY, "replicas": 3}}, "runs.copy.replicas: 3, but 'rit' has 2"),
    ({"runs__copy": {**COPY, "tasks": ["shapes"]}}, "runs.copy.tasks: 'rit' does not run on shapes; it runs on chest"),
    ({"runs__copy": {**COPY, "training": {"lr": 1}}}, "runs.copy: training of a copy is that of the runs it splits"),
    ({"runs__copy": {**COPY, "split_from": "copy"}}, "runs.copy.split_from: 'copy' is a copy itself"),
    (
        {
            "runs__file": {"label": "F", "tasks": ["clipart"], "initialisation": "checkpoint", "checkpoint": "a"},
            "runs__copy": {**COPY, "split_from": "file"},
        },
        "runs.copy.split_from: 'file' is a checkpoint file: there is no training to split",
    ),
    (
        {"runs__copy": COPY, "runs__copy_e1": {"label": "A", "tasks": ["real"]}},
        "runs.copy_e1: copies of copy that split at epoch 1 have this name",
    ),
    ({"runs__copy": COPY, "runs__pt__pretrained": "clipart.copy_e1_1"}, "no run is named 'clipart.copy_e1_1'"),
    ({"runs__copy": {**COPY, "replicas": 2, "split_epochs": [*range(10_001)]}}, "split_epochs: .* at most 1000"),
    (
        {"runs__pt__pretrained_epoch": 2},
        "runs.pt.pretrained_epoch: shapes.p_1 does not keep epoch 2, only 0, 3, and best",
    ),
    (
        {"analyses__landscape__criticality": {"runs": ["pt_1"], "rewind_epochs": [0, 1]}},
        "criticality.rewind_epochs: clipart.pt_1 does not keep epoch 1, only 0, 3",
    ),
    (
        {
            "analyses__landscape__planes": [
                {"name": "a", "task": "clipart", "checkpoints": ["pt_1@0", "pt_1", "pt_2@9"]}
            ]
        },
        r"planes \(a\).checkpoints: clipart.pt_2 does not keep epoch 9, only 0, 3",
    ),
    ({"analyses__spectrum__epochs": [0, 2]}, "analyses.spectrum.epochs: .* does not keep epoch 2, only 0, 3, and best"),
    ({"runs__rit__transfer": "statistics"}, "runs.rit: transfer is only for runs with initialisation: pretrained"),
    ({"runs__rit__transfer_until": "stem"}, "runs.rit: transfer_until is only for runs with initialisation"),
    ({"runs__rit__training": {"frozen": "all"}}, r"runs.rit.training.frozen: .*'features'"),
    ({"runs__rit__replicas": 0}, r"runs.rit.replicas: .* greater than 0 \(got 0\)"),
    ({"runs__rit__training": {"lr": -1}}, r"runs.rit.training.lr: .* greater than 0 \(got -1\)"),
    ({"runs__rit__training_on": {"shapes": {}}}, "runs.rit.training_on: 'shapes' is unknown; allowed: chest"),
    ({"analyses__mistakes__pairs": [["pt", "x"]]}, "analyses.mistakes.pairs: 'x' is unknown; allowed: p, pt"),
    ({"analyses__spectrum__kinds": ["x"]}, "analyses.spectrum.kinds: 'x' is unknown"),
    ({"analyses__spectrum__layer_pages": ["x"]}, "analyses.spectrum.layer_pages: 'x' is unknown"),
    ({"analyses__landscape__criticality": {"runs": ["pt_9"]}}, "criticality.runs: 'pt_9' is unknown; allowed: p_1"),
    ({"analyses__landscape__alphas": {"point": 3}}, "alphas.point: unknown key; allowed: at, points, start, stop"),
    ({"analyses__landscape__alphas": {"at": []}}, "landscape.alphas.at: .* at least 1 item"),
    ({"analyses__landscape__alphas": {"at": [0, 0.5]}}, "alphas: 0 and 1 must be among the alphas"),
    ({"analyses__landscape__alphas_on": {"sketch": {"points": 5}}}, "alphas_on: 'sketch' is unknown"),
    (
        {"analyses__landscape__planes": [{"name": "a", "task": "clipart", "checkpoints": ["pt_1", "pt_2", "pt_9@0"]}]},
        r"planes \(a\).checkpoints: 'pt_9' is unknown; allowed: pt_1",
    ),
    (
        {"analyses__landscape__planes": [{"name": "a", "task": "clipart", "checkpoints": ["pt_1", "pt_2"]}]},
        "planes.0.checkpoints.2: this key is missing",
    ),
    ({"analyses__landscape__basin": {"kinds": ["x"]}}, "basin.kinds: 'x' is unknown; allowed: p, pt"),
    ({"analyses__landscape__basin": {"deltas": [0]}}, "basin.deltas.0: .* greater than 0"),
    ({"pictures": {"store_size": 32, "crop_size": 64}}, "crop_size 64 is larger than store_size 32"),
    (
        {"pictures": {"store_size": 32, "shuffle": {"block_size": 5}}},
        "block_size 5 does not tile 32 pixels: give one of 1",
    ),
    ({"tasks__clipart__select_best_on": "validation"}, "this layout has no validation part"),
    ({"tasks__chest__select_best_on": "validation"}, "validation and num_validation go together"),
    ({"tasks__chest__num_validation": 10}, "validation and num_validation go together"),
    (
        {"tasks__new": {"union": ["real"], "pictures": {"store_size": 8}}},
        "tasks.new.pictures: store_size and style must",
    ),
    (
        {"tasks__clipart__value_range": [4095, 0]},
        "value_range: give the value of black and then the larger one of white",
    ),
    ({"tasks__clipart__value_range": [0, float("inf")]}, "value_range"),
    ({"tasks__new": {"union": ["real"], "value_range": [0, 1]}}, "value_range belongs to the single tasks of a union"),
    ({"tasks__new": {"union": ["real"], "select_best_on": "validation"}}, "tasks.new.select_best_on: 'real' has test"),
    ({"analyses__mistakes__bootstrap": True}, "analyses.mistakes.bootstrap: true and false .* are no value here"),
    ({"training__epochs": True}, "training.epochs: true and false"),
    ({"training__keep_epochs": [1, True]}, "training.keep_epochs: true and false"),
    ({"analyses__landscape": False}, "analyses.landscape: true and false"),
    ({"analyses__mistakes__pairs": [["p", "p"]]}, r"mistakes.pairs: \[p, p\] gives no pair to compare: it has one run"),
    ({"analyses__similarity__pairs": [["rit_same_init", "rit_same_init"]]}, "gives no pair to compare"),
    ({"tasks__clipart__root": ""}, "tasks.clipart.root: the path is empty"),
    ({"tasks__clipart__root": "a\0b"}, "tasks.clipart.root: a path holds no NUL"),
    ({"runs__pt__pretrained": " "}, "runs.pt.pretrained: the path is empty"),
    ({"pictures__std": [0, 1, 1]}, "pictures: std must be greater than 0"),
    ({"pictures__mean": [0.5, 0.5]}, "pictures: mean: give one number for each"),
    ({"pictures__mean": [123.7, 116.3, 103.5]}, "pictures: mean: is in units of .0, 1.: divide"),
    ({"pictures__std": [58.4, 57.1, 57.4]}, "pictures: std: is in units of .0, 1.: divide"),
    ({"pictures": 64}, "pictures: needs `key: value` lines below it"),
    ({"analyses__mistakes__pairs": ["pt"]}, r"mistakes.pairs.0: needs a list, as \[a, b\] \(got 'pt'\)"),
    ({"model__options": {"num_classes": 3}}, "model.options: num_classes is not taken: it follows from the classes"),
    ({"model__options": {"seed": 3}}, "model.options: seed is not taken"),
    (
        {
            "runs__rit": {
                "label": "A",
                "tasks": ["real"],
                "initialisation": "checkpoint",
                "checkpoint": "a",
                "replicas": 2,
            }
        },
        "runs.rit: replicas: a checkpoint file is a single run",
    ),
    (
        {
            "runs__a": {"label": "A", "tasks": ["real"], "initialisation": "checkpoint", "checkpoint": "a"},
            "analyses__spectrum": {"kinds": ["a"], "epochs": [3]},
        },
        "analyses.spectrum.epochs: real.a_1 is a checkpoint file and has the epoch final alone",
    ),
    (
        {"tasks__photos": {"format": "image_folder", "root": None}, "runs__rit__tasks": ["photos"]},
        "tasks.photos.root: null is for checkpoint files alone, but runs.rit needs images",
    ),
    (
        {"tasks__photos": {"format": "image_folder", "root": None}, "tasks__both": {"union": ["photos"]}},
        "tasks.photos.root: null is for checkpoint files alone, but tasks.both needs images",
    ),
    ({"tasks__photos": {"format": "image_folder"}}, "tasks.photos: root is missing: the folder that holds the images"),
    ({"tasks__photos": {"format": "domainnet", "root": None}}, "tasks.photos: root is missing"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_a_mistake_is_one_line_that_names_the_key(changes: dict[str, Any], message: str) -> None:
    """Every mistake raises a `UserError` of one line with the key and what would be allowed."""
    with pytest.raises(UserError, match=message) as caught:
        make_plan(study(**changes))
    assert "\n" not in str(caught.value)


HUGE = 1_000_000_000
TOO_MANY = [
    ({"runs__rit__replicas": HUGE}, "runs.rit.replicas: .* less than or equal to 10000"),
    ({"runs__rit__replicas": 6000}, "runs: 24,0.. runs in all, replicas on all tasks; at most 20,000"),
    ({"runs__rit__replicas": 900}, r"analyses.mistakes.pairs: 1,6.*,... pairs in all; at most 1,000,000"),
    ({"training__epochs": HUGE}, "training.epochs: .* less than or equal to 100000"),
    ({"training__batch_size": HUGE}, "training.batch_size: .* less than or equal to 1000000"),
    ({"training__keep_epochs": [HUGE]}, "training.keep_epochs"),
    ({"training__num_processes": HUGE}, "training.num_processes: .* less than or equal to 4096"),
    ({"training__lr": float("inf")}, "training.lr: .* finite number"),
    ({"pictures__store_size": HUGE}, "pictures.store_size: .* less than or equal to 8192"),
    ({"generated__x": {"draws": "source", "tasks": ["shapes"], "num_train": 10 * HUGE}}, "num_train: .* 100000000"),
    ({"analyses__mistakes__bootstrap": HUGE}, "bootstrap: .* less than or equal to 100000"),
    ({"analyses__landscape__alphas__points": HUGE}, "alphas.points: .* less than or equal to 10000"),
    ({"analyses__landscape__extrapolation__points": HUGE}, "extrapolation.points: .* less than or equal to 10000"),
    ({"analyses__landscape__resamples": HUGE}, "resamples: .* less than or equal to 100000"),
    ({"analyses__landscape__basin__rays": HUGE}, "basin.rays: .* less than or equal to 100000"),
    ({"analyses__landscape__basin__points": HUGE}, "basin.points: .* less than or equal to 100000"),
    ({"analyses__landscape__criticality__draws": HUGE}, "criticality.draws: .* less than or equal to 100000"),
    (
        {"analyses__landscape__planes": [{"name": "a", "task": "real", "checkpoints": ["pt_1"] * 3, "points": HUGE}]},
        "planes.0.points: .* less than or equal to 1000",
    ),
    ({"tasks": {f"t{n}": {"format": "domainnet", "root": "x"} for n in range(1001)}}, "tasks: .* at most 1000 items"),
    ({"seed": 2**70}, "seed: .* less than 9223372036854775808"),
]


@pytest.mark.parametrize(("changes", "message"), TOO_MANY)
def test_counts_have_limits(changes: dict[str, Any], message: str) -> None:
    """A count without end is refused with its key and the limit, before anything is expanded."""
    started = time.perf_counter()
    with pytest.raises(UserError, match=message):
        make_plan(study(**changes))
    assert time.perf_counter() - started < 3


def test_all_faults_are_listed() -> None:
    """Two unknown keys, a limit and a wrong kind of value are four lines below a count."""
    changes = {"runs__pt__replica": 3, "runs__rit__replicas": HUGE, "analyses__mistakes": {"pair": []}, "seed": "x"}
    with pytest.raises(UserError) as caught:
        make_plan(study(**changes))
    first, *lines = str(caught.value).splitlines()
    assert first == "4 faults"
    assert [line.split(":")[0].strip(" -") for line in lines] == [
        "seed", "runs.pt.replica", "runs.rit.replicas", "analyses.mistakes.pair",
    ]  # fmt: skip


def test_all_names_that_are_unknown_are_listed() -> None:
    """Those of unions, kinds, pairs, planes and criticality, in one error."""
    changes: dict[str, Any] = {
        "tasks__new": {"union": ["sketch"]},
        "runs__rit__tasks": ["clipart", "painting"],
        "analyses__mistakes": {"pairs": [["pt", "x"]]},
        "analyses__landscape": {"basin": {"kinds": ["y"]}, "alphas_on": {"z": {}}},
    }
    with pytest.raises(UserError) as caught:
        make_plan(study(**changes))
    for name in ("sketch", "painting", "x", "y", "z"):
        assert f"'{name}' is unknown" in str(caught.value)


def test_one_value_with_a_choice_is_one_fault() -> None:
    """What none of the alternatives takes is one line, not one for each alternative."""
    with pytest.raises(UserError, match=r"training.num_processes: .*; or: .*'auto'.* \(got 'many'\)") as caught:
        make_plan(study(training={"num_processes": "many"}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["a\nb", "a\r\nb\tc", "\x1b[31mred", "x" * 5000])
def test_any_value_stays_in_one_line(value: str) -> None:
    """Line breaks and escapes in a value are written out, and a long one is shortened."""
    with pytest.raises(UserError) as caught:
        make_plan(study(tasks__clipart__on_bad_image=value))
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 300


LABELS = ("SGD & mixup", "a.b", "@", "<b>", "$x_1$", "🦙 模型", "1", "NA", "x" * 200, "P-T & P-T", "/", " & ", "'\"")


@pytest.mark.parametrize("label", LABELS)
def test_any_text_is_a_label(label: str) -> None:
    """It names runs and pairs, and decides neither seeds nor weights nor names of results."""
    plan, before = make_plan(study(runs__rit__label=label)), make_plan(STUDY)
    assert {run.label for run in plan.runs.values() if run.kind == "rit"} == {label.strip()}
    assert [run.init_seed for run in plan.runs.values()] == [run.init_seed for run in before.runs.values()]
    pairs = [("pt", "rit"), ("rit", "rit")]
    assert [pair.name for pair in plan.pairs("real", pairs)] == [pair.name for pair in before.pairs("real", pairs)]


def test_line_breaks_in_a_label_are_folded() -> None:
    """As is white space at its ends."""
    assert make_plan(study(runs__rit__label=" two\n lines\t")).runs["clipart.rit_1"].label == "two lines"


@pytest.mark.parametrize("label", ["", " \n", "a\0b", "a\x1b[31m", "x" * 201])
def test_labels_that_nobody_can_read_are_refused(label: str) -> None:
    """Those without a letter, with control characters, and those of more than 200 letters."""
    with pytest.raises(UserError, match=r"runs\.rit\.label: "):
        make_plan(study(runs__rit__label=label))


def test_kinds_of_pairs_stay_apart_whatever_the_labels() -> None:
    """A label with the separator in it is put in quotes, so that other labels never make the same kind."""
    assert pair_kind("P-T", "RI-T") == "P-T & RI-T"
    assert pair_kind("a & b", "c") != pair_kind("a", "b & c")
    assert start_kind("P-T") == "P-T to init"
    assert start_kind("a & b") != pair_kind("a", "b to init")
    assert start_kind("a &") != pair_kind("a", "to init")
    assert pair_kind("a &", "b") != pair_kind("a", "& b")


@pytest.mark.parametrize("name", ["claims", "cross_domain", "generated", "report", "a__b", "A", "a.b", "1a", "a-b", ""])
def test_names_that_stand_for_something_else_are_refused(name: str) -> None:
    """Names of tasks become names of files, nodes and results."""
    with pytest.raises(UserError, match=r"tasks\."):
        make_plan(study(tasks={name: {"format": "domainnet", "root": "x"}}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"analyses__mistakes__pairs": [["pt", "rit"], ["pt", "rit"]]}, r"mistakes.pairs: \[pt, rit\] is there twice"),
        ({"runs__rit__tasks": ["real", "real"]}, "runs.rit.tasks: real is there twice"),
        ({"runs__rit__tasks": []}, "runs.rit.tasks: .* at least 1 item"),
        (
            {
                "analyses__landscape__cross_domain": [
                    {"figure": "f", "evaluated_on": "real", "tasks": ["real", "clipart"]}
                ]
                * 2
            },
            "cross_domain: f is there twice",
        ),
        ({"runs__pt__pretrained": "real.pt_1"}, "runs.pt.pretrained: no run is named|is pre-trained itself"),
    ],
)
def test_what_is_there_twice_is_refused(changes: dict[str, Any], message: str) -> None:
    """Two nodes of one name would be an error of Kedro's."""
    with pytest.raises(UserError, match=message):
        make_plan(study(**changes))


def test_many_pairs_share_a_node() -> None:
    """Above 100 pairs of two kinds on a task, or where the study says so; in the same order as one by one."""
    kinds = [("pt", "rit"), ("rit", "rit")]
    few = make_plan(STUDY)
    assert [group.name for group in few.pair_groups("real", kinds)] == [pair.name for pair in few.pairs("real", kinds)]
    asked = make_plan(study(analyses__pairs_in_one_node=True))
    assert [group.name for group in asked.pair_groups("real", kinds)] == ["pt__rit", "rit__rit"]
    assert [pair for group in asked.pair_groups("real", kinds) for pair in group.pairs] == asked.pairs("real", kinds)
    many = make_plan(study(runs__rit__replicas=15))
    names = [group.name for group in many.pair_groups("real", kinds)]
    assert names[-1] == "rit__rit"  # 105
    assert len(names) == 30 + 1
    apart = make_plan(study(runs__rit__replicas=15, analyses__pairs_in_one_node=False))
    assert len(apart.pair_groups("real", kinds)) == 30 + 105


@pytest.mark.parametrize("keep", ["all", [1, 2]])
def test_an_epoch_that_is_kept_may_be_started_from(keep: Any) -> None:
    """As may the last one, by number."""
    for epoch in (0, 2, 3, "best"):
        plan = make_plan(study(runs__p__training={"lr": 0.1, "keep_epochs": keep}, runs__pt__pretrained_epoch=epoch))
        assert plan.runs["clipart.pt_1"].pretrained_epoch == epoch


@pytest.mark.parametrize("path", ["a.PTH", "a.ckpt", "a.bin", "folder/weights", "./a.model"])
def test_pre_trained_weights_may_be_any_file_and_a_part_of_it(path: str) -> None:
    """The options that choose from the file decide the weights, so they are in the fingerprint, but only if given."""

    def run(**changes: Any) -> Any:
        options = {f"runs__pt__{key}": value for key, value in changes.items()}
        return make_plan(study(runs__pt__pretrained=path, **options)).runs["clipart.pt_1"]

    plain, averaged, below = run(), run(weights="model_ema"), run(prefix="net")
    assert (plain.pretrained, averaged.weights, below.prefix) == (path, "model_ema", "net")
    assert len({plain.fingerprint, averaged.fingerprint, below.fingerprint}) == 3
    assert run(weights=None).fingerprint == plain.fingerprint


NONE = dict.fromkeys(("mistakes", "similarity", "landscape", "spectrum"))
"""No analysis, so that kinds may have any names."""


def roles(plan: Plan, task: str) -> dict[str, str]:
    return {run.name: run.role for run in plan.runs_of(task)}


def test_roles_follow_from_the_initialisation() -> None:
    """Whatever the kinds and labels are called."""
    names = ["P-T", "RI-T", "P", "anything", "RI", "init"]
    for first in range(len(names)):
        labels = [*names[first:], *names[:first]]
        changes = {f"runs__{kind}__label": label for kind, label in zip(STUDY["runs"], labels, strict=False)}
        plan = make_plan(study(**changes, runs__old={
            "label": labels[-1], "tasks": ["clipart"], "initialisation": "checkpoint", "checkpoint": "a.pth",
        }))  # fmt: skip
        assert roles(plan, "shapes") == {"p_1": "source"}
        assert roles(plan, "clipart") == {
            "rit_1": "from_scratch",
            "rit_2": "from_scratch",
            "rit_same_init_1": "shared_init",
            "pt_1": "fine_tuned",
            "pt_2": "fine_tuned",
            "old_1": "file",
        }


def test_a_label_stands_for_one_kind_of_run() -> None:
    """Figures draw a line a label: kinds that are no replicas of each other are refused one, replicas are not."""
    for change in ({"runs__rit__label": "P-T"}, {"runs__p__label": "P-T"}, {"runs__rit_same_init__label": "RI-T"}):
        with pytest.raises(UserError, match=r"^runs\.\w+\.label: '.*' is the label of \w+, too"):
            make_plan(study(**change))
    again = {"label": "P-T", "tasks": ["clipart"], "initialisation": "pretrained", "pretrained": "shapes.p_1"}
    again["training"] = {"lr": 0.01}
    make_plan(study(runs__pt_again=again))
    with pytest.raises(UserError, match=r"^runs\.pt_again\.label: 'P-T' is the label of pt, too"):
        make_plan(study(runs__pt_again=again | {"training": {"lr": 0.02}}))
    chosen = {"label": "RI-T", "tasks": ["real_clipart"]}  # a label of several roles, on different tasks
    for replicas in (1, 2):
        make_plan(study(
            runs__rit__tasks=["clipart", "real"], runs__rit__replicas=replicas, runs__union=chosen,
            runs__pt={"label": "P-T", "tasks": ["real"], "initialisation": "pretrained", "pretrained": "clipart.rit_1"},
        ))  # fmt: skip
    make_plan(study(runs__pt_again=again | {"tasks": ["real"], "training": {"lr": 0.02}}, runs__pt__tasks=["clipart"]))


def test_a_file_that_others_start_from_is_a_source_and_so_are_replicas_of_one() -> None:
    """One replica gives its weights, all are sources: they are one treatment."""
    plan = make_plan(
        study(runs__p={"label": "P", "tasks": ["shapes"], "initialisation": "checkpoint", "checkpoint": "p.pth"})
    )
    assert roles(plan, "shapes") == {"p_1": "source"}
    plan = make_plan(study(runs__p__replicas=2))
    assert roles(plan, "shapes") == {"p_1": "source", "p_2": "source"}
    assert [run.full_name for run in plan.in_role("clipart", "source")] == ["shapes.p_1"]


def test_a_run_from_scratch_that_another_task_starts_from_stays_what_its_own_task_needs() -> None:
    """It is a source where its task has no fine-tuned runs; a task that has some compares them with it."""
    there = {"label": "x", "tasks": ["real"], "initialisation": "pretrained", "pretrained": "clipart.rit_1"}
    file = {"label": "y", "tasks": ["clipart"], "initialisation": "pretrained", "pretrained": "imagenet.pth"}
    runs = {"rit": STUDY["runs"]["rit"], "there": there}
    assert roles(make_plan(study(runs=runs, analyses=NONE)), "clipart") == {"rit_1": "source", "rit_2": "source"}
    both = make_plan(study(runs=runs | {"of_a_file": file}, analyses=NONE))
    assert roles(both, "clipart") == {"rit_1": "from_scratch", "rit_2": "from_scratch", "of_a_file_1": "fine_tuned"}
    assert roles(both, "real") == {"rit_1": "from_scratch", "rit_2": "from_scratch", "there_1": "fine_tuned"}


def test_what_is_compared_has_one_treatment() -> None:
    """Kinds trained alike are pooled; another rate, length or architecture is a variant; keeping more epochs is not."""
    kind = {"label": "x", "tasks": ["clipart"], "initialisation": "pretrained", "pretrained": "shapes.p_1"}
    for training, pooled in (
        ({"lr": 0.01}, True),
        ({"lr": 0.01, "keep_epochs": [1], "evaluate_every": 3, "num_processes": 2}, True),
        ({"lr": 0.02}, False),
        ({"lr": 0.01, "epochs": 9}, False),
    ):
        plan = make_plan(study(runs__other=kind | {"training": training}))
        assert [run.name for run in plan.compared("clipart", "fine_tuned")] == ["pt_1", "pt_2", *(["other_1"] * pooled)]
        assert [run.name for run in plan.in_role("clipart", "fine_tuned")] == ["pt_1", "pt_2", "other_1"]
    larger = kind | {"training": {"lr": 0.01}, "model": {"name": "fixup_resnet50"}}
    assert len(make_plan(study(runs__other=larger)).compared("clipart", "fine_tuned")) == 2
    assert make_plan(STUDY).compared("chest", "fine_tuned") == []


def test_a_kind_is_chosen_to_be_compared() -> None:
    """The chosen kind of a role takes the place of the first one, in claims and curves across domains, also one that is
    pre-trained in part; the others are left out, and on tasks without the chosen one nothing changes."""
    kind = {"label": "x", "tasks": ["clipart"], "initialisation": "pretrained", "pretrained": "shapes.p_1"}
    chosen = kind | {"compared": True}
    pairs = [["other", "other"], ["other", "rit"], ["pt", "pt"]]
    analyses = {name: {"pairs": pairs} for name in ("mistakes", "similarity", "landscape")}
    scenario = CrossDomainOptions(figure="figure_19", evaluated_on="clipart", tasks=("clipart", "real"))
    for other in ({"training": {"lr": 0.01, "frozen": ["conv1"]}}, {"transfer_until": "layer1.0"}):
        plan = make_plan(study(runs__other=chosen | {"replicas": 2} | other, analyses=analyses))
        assert [run.name for run in plan.compared("clipart", "fine_tuned")] == ["other_1", "other_2"]
        assert [run.name for run in plan.left_out("clipart", "fine_tuned")] == ["pt_1", "pt_2"]
        assert [run.name for run in plan.compared("real", "fine_tuned")] == ["pt_1", "pt_2"]
        assert "figure_19_other_1__pt_1" in plan.cross_domain_pairs(scenario)
    plain = make_plan(study(runs__other=kind | {"transfer_until": "layer1.0"}))
    assert plain.runs["clipart.other_1"].role == "control"
    same = chosen | {"replicas": 2, "training": {"lr": 0.01}}
    assert len(make_plan(study(runs__other=same, analyses=analyses)).compared("clipart", "fine_tuned")) == 4


def test_a_choice_that_compares_nothing_is_refused() -> None:
    """Sources, two kinds that are trained otherwise, and a kind without pairs where the one in its place has some."""
    kind = {"label": "x", "tasks": ["clipart"], "initialisation": "pretrained", "pretrained": "shapes.p_1"}
    one = kind | {"compared": True}
    for changes, message in (
        ({"runs__p__compared": True}, r"runs\.p\.compared: its runs on shapes are what others start from"),
        (
            {"runs__other": one, "runs__pt__compared": True},
            r"runs\.other\.compared: on clipart pt is compared, which is",
        ),
        (
            {"runs__other": one},
            r"analyses\.mistakes\.pairs: there are pairs of pt, and other, which is compared in its",
        ),
    ):
        with pytest.raises(UserError, match=message):
            make_plan(study(**changes))


def test_curves_across_domains_go_by_role() -> None:
    """The same curves under other labels; two files have one of their own."""
    scenario = CrossDomainOptions(figure="figure_19", evaluated_on="clipart", tasks=("clipart", "real"))
    names = ["figure_19_pt_1__pt_1", "figure_19_pt_1__rit_1", "figure_19_rit_1__rit_1"]
    for label, other in (("P-T", "RI-T"), ("RI-T", "P-T"), ("Fine-tuned", "init")):
        curves = make_plan(study(runs__pt__label=label, runs__rit__label=other)).cross_domain_pairs(scenario)
        assert list(curves) == names
        assert curves[names[0]].kind == f"{label} & {label}"
    files = {"label": "ours", "tasks": ["clipart", "real"], "initialisation": "checkpoint", "checkpoint": "a.pth"}
    plan = make_plan(study(runs={"a": files}, analyses=NONE))
    assert list(plan.cross_domain_pairs(scenario)) == ["figure_19_a_1__a_1"]


@pytest.mark.parametrize("above", ["", "tasks.clipart", "training"])
def test_a_key_that_is_no_text_is_named(above: str) -> None:
    """As it is written, at each depth, and with the fix."""
    values: Any = study()
    inside = values
    for key in above.split(".") if above else ():
        inside = inside[key]
    inside[5] = 1
    with pytest.raises(UserError, match=rf"^{above + '.' if above else ''}5: a key is text: put it in quotation marks"):
        make_plan(values)
