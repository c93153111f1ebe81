"""What a plan costs, against arithmetic by hand."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner
from kedro.framework.startup import bootstrap_project

from tiny_project import ROOT
from transferscope.cli import cli
from transferscope.cost.device_speed import Speed, measure_speed
from transferscope.cost.node_costs import node_costs
from transferscope.cost.passes import task_sizes
from transferscope.cost.plan_cost import figure_costs, plan_costs, run_costs, split_bytes
from transferscope.experiment.options import ModelOptions
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
    assert list(tables) == ["Tables and figures", "Trainings", "Packed splits"]
    per_checkpoint = tables["Trainings"]["gigabytes"] / tables["Trainings"]["checkpoints"]
    assert per_checkpoint.to_numpy() == pytest.approx(4 * 175e3 / 1e9, rel=0.01)


def test_the_speed_is_measured_on_this_machine() -> None:
    """A forward pass is quicker than a step of training."""
    speed = measure_speed(ModelOptions(options={"widths": [4, 4, 4]}), 16, seconds=0.3)
    assert speed.forward > speed.train > 0


def test_the_table_in_the_docs_is_that_of_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/paper.md shows, cell by cell, what its command prints for conf/paper."""
    monkeypatch.chdir(ROOT)
    bootstrap_project(ROOT)
    page = ROOT / "docs" / "paper.md"
    command = next(line for line in page.read_text().splitlines() if line.startswith("uv run kedro cost"))
    words = command.removeprefix("uv run kedro ").split()
    printed = CliRunner().invoke(cli, [*words, "--markdown"], catch_exceptions=False)
    assert rows_about_figures(page.read_text()) == rows_about_figures(printed.stdout)


def rows_about_figures(text: str) -> list[list[str]]:
    lines = (line for line in text.splitlines() if line.startswith(("| Figure", "| Table")))
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
