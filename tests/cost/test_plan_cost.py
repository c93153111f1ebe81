"""What a plan costs, against arithmetic by hand."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from kedro.framework.startup import bootstrap_project

from markdown_blocks import commands
from tiny_project import ROOT
from transferscope.cli import cli
from transferscope.cost import device_speed, other_work
from transferscope.cost.device_speed import Speed, measure_speed
from transferscope.cost.node_costs import node_costs
from transferscope.cost.passes import criticality_images, task_sizes
from transferscope.cost.plan_cost import figure_costs, plan_costs, run_costs, split_bytes
from transferscope.experiment.options import ModelOptions, TrainingOptions
from transferscope.experiment.plan import Plan, make_plan
from transferscope.system.errors import UserError

STUDY: dict[str, Any] = {
    "tasks": {
        "source": {"format": "image_folder", "root": "source"},
        "clipart": {"format": "domainnet", "root": "domains", "limit": 100},
        "real": {"format": "domainnet", "root": "domains", "limit": 200},
        "both": {"union": ["clipart", "real"]},
    },
    "pictures": {"store_size": 10},
    "training": {"epochs": 5, "evaluate_every": 2, "keep_epochs": [1, 9]},
    "runs": {
        "p": {"label": "P", "tasks": ["source"]},
        "pt": {
            "label": "P-T",
            "tasks": ["clipart", "real"],
            "replicas": 2,
            "initialisation": "pretrained",
            "pretrained": "source.p_1",
        },
        "rit": {"label": "RI-T", "tasks": ["clipart", "real"], "replicas": 2},
    },
    "analyses": {
        "mistakes": {"pairs": [["pt", "rit"]]},
        "similarity": None,
        "spectrum": None,
        "landscape": {
            "pairs": [["pt", "pt"]],
            "max_examples": 150,
            "alphas": {"points": 3},
            "alphas_on": {"real": {"points": 5}},
            "extrapolation": None,
            "criticality": None,
            "cross_domain": [{"figure": "figure_19", "evaluated_on": "clipart", "tasks": ["clipart", "real"]}],
        },
    },
}
SIZES = {"source": (1000, 50)}
SPEED = Speed(train=10.0, forward=100.0)


@pytest.fixture
def plan() -> Plan:
    return make_plan(STUDY)


def test_sizes_come_from_the_user_or_the_plan(plan: Plan) -> None:
    """A union has the images of its parts; a folder tree must be told, and only tasks that exist may be."""
    sizes = task_sizes(plan, SIZES)
    assert sizes == {"source": (1000, 50), "clipart": (100, 100), "real": (200, 200), "both": (300, 300)}
    with pytest.raises(UserError, match="--images source=TRAIN,TEST is missing"):
        task_sizes(plan, {})
    with pytest.raises(UserError, match="--images sauce: no such task; there are: source, clipart"):
        task_sizes(plan, SIZES | {"sauce": (1, 1)})


def test_runs_by_hand(plan: Plan) -> None:
    """5 epochs of 1,000 images at 10/s, evaluations 0, 2, 4, 5 of 1,050 at 100/s; checkpoints 0, 1, best, 5."""
    table = run_costs(plan, task_sizes(plan, SIZES), SPEED, dict.fromkeys(plan.runs, 250)).set_index("run")
    assert table.loc["source.p_1", "images_trained"] == 5000
    assert table.loc["source.p_1", "images_evaluated"] == 4 * 1050
    assert table.loc["source.p_1", "hours"] == pytest.approx((500 + 42) / 3600)
    assert table.loc["source.p_1", "checkpoints"] == 4
    assert table.loc["source.p_1", "gigabytes"] == pytest.approx(4 * 250 * 4 / 1e9)


def test_figures_by_hand(plan: Plan) -> None:
    """A figure needs the runs of its pairs and what they start from, and evaluates pairs x points x images, the points of the task."""
    sizes = task_sizes(plan, SIZES)
    runs = run_costs(plan, sizes, SPEED, dict.fromkeys(plan.runs, 250))
    table = figure_costs(plan, sizes, SPEED, runs, dict.fromkeys(plan.runs, 6)).set_index("figure")
    hours = runs.set_index("run")["hours"]
    assert table.loc["Figures 12 to 17", "runs"] == "1 p, 4 pt"
    assert table.loc["Figures 12 to 17", "training_hours"] == pytest.approx(
        hours["source.p_1"] + 2 * hours["clipart.pt_1"] + 2 * hours["real.pt_1"]
    )
    inside = 3 * (100 + 100) + 5 * (150 + 150)
    assert table.loc["Figures 12 to 17", "evaluation_hours"] == pytest.approx(inside / 100 / 3600)
    # One curve for each of P-T & P-T, P-T & RI-T, RI-T & RI-T.
    assert table.loc["Figure 19", "evaluation_hours"] == pytest.approx(3 * 3 * 100 / 100 / 3600)
    assert table.loc["Tables 3 to 6, Figures 8, 9", "runs"] == "1 p, 4 rit, 4 pt"
    assert "Figure 18" not in table.index


def test_copies_train_all_their_epochs() -> None:
    """A copy costs what its parent does, shared epochs included, and a figure of copies needs their parents and P."""
    copy = {"label": "Copy", "tasks": ["clipart"], "split_from": "pt", "split_epochs": [0, 2]}
    connection = {"pairs": [["pt", "copy"]], "ways": ["straight"]}
    landscape = STUDY["analyses"]["landscape"] | {"pairs": [], "connection": connection, "cross_domain": []}
    changes = {"runs": STUDY["runs"] | {"copy": copy}, "analyses": STUDY["analyses"] | {"landscape": landscape}}
    plan = make_plan(STUDY | changes)
    sizes = task_sizes(plan, {"source": (1000, 100), "clipart": (100, 50), "real": (200, 100)})
    runs = run_costs(plan, sizes, Speed(train=100, forward=1000), dict.fromkeys(plan.runs, 10))
    trained = runs.set_index("run")["images_trained"]
    assert trained["clipart.copy_e2_1"] == trained["clipart.copy_e0_1"] == trained["clipart.pt_1"] == 5 * 100
    costs = figure_costs(plan, sizes, Speed(train=100, forward=1000), runs, dict.fromkeys(plan.runs, 4))
    row = costs.set_index("figure").loc["Ways between models"]
    assert row["runs"] == "1 p, 1 pt, 2 copy"


def test_merges_by_hand() -> None:
    """Two candidates and a union-trained model on two tasks of 100 and 200 images, 40 of each for statistics."""
    merge = {"name": "soup", "candidates": ["clipart.pt_1", "real.pt_1"], "union": "both.pt_1"}
    runs = STUDY["runs"] | {"pt": STUDY["runs"]["pt"] | {"tasks": ["clipart", "real", "both"]}}

    def images(*methods: str) -> float:
        merging = {"statistics": 40, "fisher_examples": 10, "choice": 0.5, "merges": [merge | {"methods": methods}]}
        plan = make_plan(STUDY | {"runs": runs, "analyses": STUDY["analyses"] | {"merging": merging}})
        sizes = task_sizes(plan, SIZES)
        table = figure_costs(
            plan,
            sizes,
            SPEED,
            run_costs(plan, sizes, SPEED, dict.fromkeys(plan.runs, 250)),
            dict.fromkeys(plan.runs, 6),
        )
        assert table.set_index("figure").loc["Merges", "runs"] == "1 p, 3 pt"
        hours = table.set_index("figure").loc["Merges", "evaluation_hours"]
        assert node_costs(plan)["cross_domain.merging.merge_soup"] == pytest.approx(hours * SPEED.forward * 3600)
        return float(hours * SPEED.forward * 3600)

    few, test = 80, 300
    beside, own, trial = 3 * (few + test), 2 * few + test, few + test / 2
    assert images("uniform") == pytest.approx(beside + own)
    assert images("uniform", "greedy") == pytest.approx(beside + 2 * own + trial)
    assert images("ties", "fisher") == pytest.approx(beside + 2 * own + 3 * trial + 3 * 2 * 10)
    assert images("regmean") == pytest.approx(beside + own + 3 * few)


def test_a_union_stores_nothing(plan: Plan) -> None:
    """Three channels of 10 x 10 for each image, once."""
    stored = split_bytes(plan, task_sizes(plan, SIZES))
    assert stored == {"source": 1050 * 300, "clipart": 200 * 300, "real": 400 * 300, "both": 0}


def test_all_tables_of_the_default_network(plan: Plan) -> None:
    """Parameters and modules are counted from the network itself: 175k parameters, four bytes each."""
    tables = plan_costs(plan, SIZES, SPEED)
    assert list(tables) == ["Tables and figures", "Trainings", "Packed splits", "Whole plan"]
    per_checkpoint = tables["Trainings"]["gigabytes"] / tables["Trainings"]["checkpoints"]
    assert per_checkpoint.to_numpy() == pytest.approx(4 * 175e3 / 1e9, rel=0.01)


def test_the_speed_is_measured_on_this_machine() -> None:
    """A forward pass is quicker than a step of training."""
    speed = measure_speed(ModelOptions(options={"widths": [4, 4, 4]}), 16, seconds=0.3)
    assert speed.forward > speed.train > 0
    assert speed.in_analyses > speed.train


def test_time_for_which_other_programs_have_the_core_does_not_count() -> None:
    """A thread that computes for 10 ms and waits for 20, as for its core, does 100 actions a second and not 33."""

    def act() -> None:
        time.sleep(0.02)
        end = time.thread_time() + 0.01
        while time.thread_time() < end:
            pass

    assert device_speed._rate([act, act], torch.device("cpu"), 0.3) == pytest.approx(200, rel=0.2)


def test_each_kind_of_network_is_measured_once_as_the_plan_trains_it(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nine runs of one network and one training are one measurement; another batch size for P makes two."""
    asked: list[tuple[int, str, bool]] = []

    def measured(
        model: ModelOptions, side: int, *, training: TrainingOptions, precision: str, compiled: bool, seconds: float
    ) -> Speed:
        asked.append((training.batch_size, precision, compiled))
        return Speed(train=training.batch_size, forward=2.0)

    monkeypatch.setattr(device_speed, "measure_speed", measured)
    assert device_speed.measure_speeds(plan) == dict.fromkeys(plan.runs, Speed(32, 2.0))
    assert asked == [(32, "float32", False)]
    of_p = STUDY | {"runs": STUDY["runs"] | {"p": STUDY["runs"]["p"] | {"training": {"batch_size": 8}}}}
    other = make_plan(of_p | {"analyses": STUDY["analyses"] | {"precision": "bfloat16", "compile": True}})
    speeds = device_speed.measure_speeds(other)
    assert sorted(asked[1:]) == [(8, "bfloat16", True), (32, "bfloat16", True)]
    assert speeds["source.p_1"].train == 8
    costs = run_costs(other, task_sizes(other, SIZES), speeds, dict.fromkeys(other.runs, 250)).set_index("run")
    assert costs.loc["source.p_1", "hours"] == pytest.approx((5000 / 8 + 4 * 1050 / 2) / 3600)


def test_the_whole_plan_by_hand(plan: Plan) -> None:
    """Trainings, evaluations and analyses of the other tables, work of no network on all cores, and the total."""
    tables = plan_costs(plan, SIZES, SPEED, num_figures=10, num_nodes=100)
    runs, figures = tables["Trainings"], tables["Tables and figures"]
    whole = tables["Whole plan"].set_index("work")
    assert whole.loc["optimizer steps", "count"] == runs["images_trained"].sum()
    steps, evaluation = (whole.loc[work, "hours"] for work in ("optimizer steps", "evaluation in training"))
    assert steps + evaluation == pytest.approx(runs["hours"].sum())
    assert whole.loc["analyses", "hours"] == pytest.approx(figures["evaluation_hours"].sum())
    assert whole.loc["figures", "hours"] == pytest.approx(10 * other_work.FIGURE / other_work.cores() / 3600)
    assert whole.loc["total", "gigabytes"] == pytest.approx(
        runs["gigabytes"].sum() + tables["Packed splits"]["gigabytes"].sum()
    )
    parts = whole.drop("total")
    assert whole.loc["total", "hours"] == pytest.approx(parts["hours"].sum())
    assert (parts["hours"] >= 0).all()


def test_planes_basins_and_rewinding_are_counted(plan: Plan) -> None:
    """7 x 7 points and three models on 100 test images; 5 points and 4 rays at 2 + 3 + 1 lengths; 8 modules and none."""
    landscape = STUDY["analyses"]["landscape"] | {
        "planes": [{"name": "one", "task": "clipart", "checkpoints": ["pt_1", "pt_2", "rit_1"], "points": 7}],
        "basin": {"tasks": ["real"], "kinds": ["pt", "p"], "points": 5, "rays": 4, "deltas": [0.5, 1.0]},
        "criticality": {"tasks": ["clipart"], "runs": ["pt_1"], "rewind_epochs": [0, 1], "max_examples": 10},
    }
    full = make_plan(STUDY | {"analyses": STUDY["analyses"] | {"landscape": landscape}})
    sizes, modules = task_sizes(full, SIZES), dict.fromkeys(full.runs, 8)
    costs = run_costs(full, sizes, SPEED, dict.fromkeys(full.runs, 250))
    hours = figure_costs(full, sizes, SPEED, costs, modules).set_index("figure")["evaluation_hours"]
    images = hours * SPEED.forward * 3600
    assert images["Planes"] == pytest.approx((49 + 3) * 100)
    assert images["Basins"] == pytest.approx((5 + 2 * 4 * (2 + 3 + 1)) * 200)
    options = full.study.analyses.landscape.criticality
    noise = criticality_images(full, options, "clipart.pt_1", sizes, modules)
    assert images["Figure 30, Figure 5"] == pytest.approx(noise + (1 + 8 * 2) * 100)
    nodes = node_costs(full)
    assert nodes["clipart.landscape.plane_one"] == (49 + 3) * 100
    assert nodes["real.landscape.basin_pt"] == (5 + 2 * 4 * 6) * 200
    assert "real.landscape.basin_p" not in nodes


def test_the_spectrum_of_a_convolution_is_counted_by_its_frequencies() -> None:
    """Half of the frequencies of a real kernel, a block each; four times the positions take four times the work."""
    small, large = (
        other_work.spectrum_operations("fixup_resnet_small", {"widths": [4, 4, 4]}, side) for side in (16, 32)
    )
    assert 3.5 < large / small < 4


def test_overlays_of_a_run_are_overlays_of_its_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--config` and `--params` change the plan as they change that of `kedro run`, the latter laid over the former."""
    monkeypatch.chdir(ROOT)
    bootstrap_project(ROOT)
    overlay = tmp_path / "small.yml"
    overlay.write_text("run: {params: {training: {epochs: 8}, runs: {p: {training: {epochs: 8}}}}}")
    speeds = ["cost", "--train-speed", "1000", "--forward-speed", "1000", "--markdown", "--config", str(overlay)]

    def epochs(*words: str) -> dict[str, str]:
        printed = CliRunner().invoke(cli, [*speeds, *words], catch_exceptions=False).stdout
        rows = [[cell.strip() for cell in line.split("|")[1:]] for line in printed.splitlines() if "_1 " in line]
        return {row[0]: row[2] for row in rows}

    assert epochs()["clipart.pt_1"] == "8"
    changed = epochs("--params", "runs.p.training.epochs=9")
    assert (changed["shapes.p_1"], changed["clipart.pt_1"]) == ("9", "8")
    refused = CliRunner().invoke(cli, ["cost", "--config", str(tmp_path / "none.yml")])
    assert refused.exit_code != 0


def test_the_table_in_the_docs_is_that_of_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/paper.md shows, cell by cell, what its command prints for conf/paper."""
    monkeypatch.chdir(ROOT)
    bootstrap_project(ROOT)
    page = ROOT / "docs" / "paper.md"
    (command,) = (command for command in commands() if command.startswith("uv run kedro cost --env paper"))
    words = command.removeprefix("uv run kedro ").split()
    printed = CliRunner().invoke(cli, [*words, "--markdown"], catch_exceptions=False)
    assert rows_about_figures(page.read_text()) == rows_about_figures(printed.stdout)


def rows_about_figures(text: str) -> list[list[str]]:
    shown = ("| Figure", "| Table", "| optimizer steps", "| evaluation in training", "| analyses", "| images packed")
    lines = (line for line in text.splitlines() if line.startswith(shown))
    return [[cell.strip() for cell in line.split("|")] for line in lines]


@pytest.mark.parametrize("text", ["imagenet", "imagenet=5", "imagenet=a,b"])
def test_sizes_are_written_in_one_way(text: str) -> None:
    """Anything else is named with an example."""
    result = CliRunner().invoke(cli, ["cost", "--images", text])
    assert result.exit_code == 2
    assert "write TASK=TRAIN,TEST" in result.output


def test_steps_of_tasks_of_unknown_size_have_a_cost(plan: Plan) -> None:
    """`source` as if it had 1,000 images a part: five epochs, three passes an image, and four evaluations of all."""
    costs = node_costs(plan)
    assert costs["source.training.p_1"] == 3 * 5 * 1000 + 4 * 2000
    assert costs["clipart.training.rit_1"] == 3 * 5 * 100 + 4 * 200
    assert not [name for name in costs if ".draw_" in name]


def test_drawing_costs_ten_passes_an_image() -> None:
    drawn = {"pics": {"draws": "domains", "tasks": ["clipart", "real"], "num_train": 10, "num_test": 5}}
    assert node_costs(make_plan(STUDY | {"generated": drawn}))["generated.draw_pics"] == 10 * 2 * 15


def test_a_study_of_checkpoints_trains_nothing() -> None:
    """Its tables have their columns and no trainings."""
    runs = {
        name: {"label": name, "tasks": ["photos"], "initialisation": "checkpoint", "checkpoint": "a.pth"}
        for name in "ab"
    }
    none = dict.fromkeys(("mistakes", "similarity", "landscape", "spectrum"))
    tasks = {"photos": {"format": "image_folder", "root": "photos"}}
    plan = make_plan({"tasks": tasks, "runs": runs, "analyses": none | {"mistakes": {"pairs": [["a", "b"]]}}})
    sizes = task_sizes(plan, {"photos": (500, 500)})
    costs = run_costs(plan, sizes, SPEED, {})
    assert len(costs) == 0
    table = figure_costs(plan, sizes, SPEED, costs, {})
    assert table["training_hours"].tolist() == [0.0] * len(table)
