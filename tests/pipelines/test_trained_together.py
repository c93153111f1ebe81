"""Runs that are trained as one in a node: the same entries, the same keys, and nothing else changes."""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from kedro.framework.project import pipelines

from tiny_project import SMALL, Project, make_project
from transferscope.cost.node_costs import node_costs
from transferscope.experiment.plan import Plan, make_plan
from transferscope.framework.network_checks import together_faults
from transferscope.framework.staleness import present_keys
from transferscope.models.series import CheckpointSeries, epoch_file
from transferscope.pipelines.training import create_pipeline
from transferscope.system.errors import UserError
from transferscope.system.references import allow
from transferscope.system.stored import DamagedError

pytestmark = pytest.mark.usefixtures("base_again")

RUNS: dict[str, Any] = {
    "p": {"label": "P", "tasks": ["real"]},
    "pt": {
        "label": "P-T", "tasks": ["clipart"], "replicas": 2, "initialisation": "pretrained", "pretrained": "real.p_1",
    },
    "rit": {"label": "RI-T", "tasks": ["clipart"], "replicas": 2},
    "slow": {"label": "slow", "tasks": ["clipart"], "replicas": 2, "training": {"lr": 0.01, "milestones": [3]}},
    "long": {"label": "long", "tasks": ["clipart"], "training": {"epochs": 20}},
    "rit_split": {"label": "copy", "tasks": ["clipart"], "split_from": "rit", "split_epochs": [1, 2]},
}  # fmt: skip


def plan_of(**training: Any) -> Plan:
    tasks = {name: {"format": "domainnet", "root": "somewhere"} for name in ("real", "clipart")}
    return make_plan({"tasks": tasks, "training": {"lr": 0.05, **training}, "runs": RUNS})


def test_groups_are_runs_of_one_task_that_may_start_together() -> None:
    """Not with what they start from, nor with another number of epochs; those of one schedule are neighbours."""
    groups = {str(group.node): [run.name for run in group.runs] for group in plan_of(together=True).run_groups}
    assert groups == {
        "clipart.training.rit_1_and_3_more": ["rit_1", "rit_2", "slow_1", "slow_2"],
        "clipart.training.pt_1_and_3_more": ["pt_1", "pt_2", "rit_split_e1_1", "rit_split_e2_1"],
    }  # fmt: skip
    assert plan_of().run_groups == []


def test_nothing_but_the_nodes_of_training_changes() -> None:
    """Fingerprints, entries, their keys and the images to be computed are those of runs that are trained alone."""
    alone, one = plan_of(), plan_of(together=True)
    assert {name: run.fingerprint for name, run in alone.runs.items()} == {
        name: run.fingerprint for name, run in one.runs.items()
    }
    before, after = create_pipeline(alone), create_pipeline(one)
    assert before.all_outputs() == after.all_outputs()
    assert before.inputs() - after.inputs() == {f"params:plan.runs.{run.full_name}" for run in grouped(one)}
    assert present_keys(before.nodes, str) == present_keys(after.nodes, str)
    costs = node_costs(alone), node_costs(one)
    assert sum(costs[0].values()) == sum(costs[1].values())
    own = ("pt_1", "pt_2", "rit_split_e1_1", "rit_split_e2_1")
    assert costs[1]["clipart.training.pt_1_and_3_more"] == sum(costs[0][f"clipart.training.{name}"] for name in own)


def grouped(plan: Plan) -> list[Any]:
    return [run for group in plan.run_groups for run in group.runs]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"compile": True}, r"runs.p: training.compile: true is for runs that are trained alone"),
        ({"num_processes": "auto"}, "training.num_processes: auto is for runs"),
        ({"precision": "float16"}, "training.precision: float16 is for runs"),
        ({"optimizer": {"name": "Adafactor"}}, "training.optimizer: Adafactor is for runs"),
    ],
)
def test_options_of_runs_alone_are_refused(option: dict[str, Any], message: str) -> None:
    """In one line a kind, when the plan is made; without `together` they are taken."""
    plan_of(**option)
    with pytest.raises(UserError, match=message):
        plan_of(together="gpu", **option)


@pytest.mark.parametrize(
    ("layer", "last", "why"),
    [
        ("nn.BatchNorm2d(8)", "y", None),
        ("nn.Dropout()", "y", "its layers draw random numbers (dropout)"),
        ("nn.ReLU()", "y if y.sum() > 0 else -y", "torch.vmap does not take it"),
        ("nn.ReLU()", "self.fc(self.conv(x).mean((2, 3)).detach())", "conv.weight gets no gradient"),
    ],
)
def test_networks_that_cannot_be_trained_as_one_are_named(
    layer: str, last: str, why: str | None, tmp_path: Path
) -> None:
    """Before anything is trained. BatchNorm is none of them; dropout is, and what branches by its own values."""
    (tmp_path / "own.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self, num_classes):\n"
        f"        super().__init__()\n        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, num_classes)\n"
        f"        self.layer = {layer}\n\n"
        f"    def forward(self, x):\n        y = self.fc(self.layer(self.conv(x)).mean((2, 3)))\n        return {last}\n"
    )
    name = f"{tmp_path}/own.py:Net"
    allow(name)
    runs = {"rit": {"label": "RI-T", "tasks": ["real"], "replicas": 2, "model": {"name": name}}}
    tasks = {"real": {"format": "domainnet", "root": "somewhere"}}
    analyses = dict.fromkeys(("mistakes", "similarity", "landscape", "spectrum"))
    plan = make_plan({"tasks": tasks, "training": {"together": True}, "runs": runs, "analyses": analyses})
    faults = list(together_faults(plan, plan.runs.values()))
    expected = [f"runs.rit: training.together: {name} cannot be trained as one with others, since {why}"] if why else []
    assert [fault[: len(line)] for fault, line in zip(faults, expected, strict=True)] == expected
    assert list(together_faults(plan, ())) == []


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A study of two runs, which are trained as one and then recognised as finished alone."""
    made = make_project(tmp_path_factory.mktemp("together"), SMALL)
    with made.session(params={"training": {"together": True}}) as session:
        session.run(pipeline_names=["data_prep", "training"])
    return made


def test_the_plan_without_the_option_takes_them_as_its_own(together: Project, caplog: pytest.LogCaptureFixture) -> None:
    """Trained once; nothing is stale, and nothing is trained again."""
    places = [together.folder / "data" / "06_models" / "clipart" / f"rit_{replica}" for replica in (1, 2)]
    files = {path: path.read_bytes() for place in places for path in place.iterdir() if path.is_file()}
    with caplog.at_level(logging.INFO, "transferscope"):
        together.run(pipeline_names=["training"])
    assert "made by another plan" not in caplog.text
    assert "Completed node: clipart.training.rit_1" in caplog.text
    assert files == {path: path.read_bytes() for place in places for path in place.iterdir() if path.is_file()}


@pytest.mark.parametrize("option", [True, False])
def test_the_message_of_a_damaged_checkpoint_names_the_node_that_repairs_it(
    option: bool, together: Project, tmp_path: Path
) -> None:
    """That of the group where the run is trained with others, so that the command works as it stands."""
    copy = tmp_path / "rit_1"
    shutil.copytree(together.folder / "data" / "06_models" / "clipart" / "rit_1", copy)
    (copy / epoch_file(4)).unlink()
    with together.session(params={"training": {"together": option}}) as session:
        session.load_context()
        nodes = {node.name for node in pipelines["training"].nodes}
        with pytest.raises(DamagedError) as caught:
            CheckpointSeries.open(copy)
    named = re.search(r"`kedro run --nodes (.+)` repairs it", str(caught.value))
    assert named is not None
    assert named[1] in nodes
    assert named[1] == f"clipart.training.{'rit_1_and_1_more' if option else 'rit_1'}"
