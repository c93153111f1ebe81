"""A rehearsal of `conf/paper`: all of its nodes, on stand-ins for the data sets and with a narrow ResNet-50."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from kedro.framework.project import pipelines
from kedro.pipeline import Node
from PIL import Image

from tiny_project import make_project
from transferscope.cost.device_speed import measure_speeds
from transferscope.cost.other_work import cores
from transferscope.cost.plan_cost import plan_costs
from transferscope.experiment.plan import Plan
from transferscope.framework.config import active_plan
from transferscope.generated.draw import generate_chest

DOMAINS = ("real", "clipart", "quickdraw")
CLASSES = sorted({*(f"class_{number:03d}" for number in range(341)), "barn", "apple", "backpack", "angel"})
"""As many as DomainNet has, and those that a figure names."""
SYNSETS = [f"n{number:08d}" for number in range(20)]
SIDE = 20

REHEARSAL = """
extends: paper
pictures: {store_size: 20, crop_size: 16}
tasks: {chexpert: {num_train: 60, num_test: 60, pictures: {store_size: 16}}}
model: {options: {widths: [4, 4, 8, 8]}}
training: &two {epochs: 2, milestones: [], keep_epochs: [1], compile: false, evaluate_train_on: 100}
runs:
  p: {training: {epochs: 2, milestones: [], keep_epochs: [1]}}
  pt: {training_on: &x {chexpert: {epochs: 2, keep_epochs: [1], num_processes: 1}}}
  rit: {training_on: *x}
  rit_same_init: {training_on: *x}
  pt_large_lr: {training_on: *x}
  rit_small_lr: {training_on: *x}
analyses:
  compile: false
  mistakes: {bootstrap: 20}
  similarity: {max_examples: 60}
  landscape:
    alphas: {points: 3}
    alphas_on: {chexpert: {points: 3}}
    extrapolation: {points: 4}
    max_examples: 60
    resamples: 20
    planes:
      - {name: p_pt_pt, task: real, checkpoints: [pt_1@0, pt_1, pt_2], points: 3, max_examples: 60}
      - {name: rit_rit_rit, task: real, checkpoints: [rit_1, rit_2, rit_same_init_1], points: 3, max_examples: 60}
    basin: {points: 3, rays: 2, max_examples: 60, deltas: [0.5]}
    criticality: {positions: {points: 2}, sigmas: [0.0, 0.1], draws: 1, max_examples: 16}
"""
"""The paper's study with two epochs a run, few points and few examples; every run, pair, figure and table stays."""


def draw_stand_ins(root: Path) -> None:
    """The data sets as distributed, of noise around a colour for each class; CheXpert is drawn by this package."""
    for index, name in enumerate(SYNSETS):
        for part, number in (("train", 4), ("val", 2)):
            for example in range(number):
                write_image(root / "imagenet" / part / name / f"{name}_{example}.JPEG", index, example)
    for domain in DOMAINS:
        for part, start in (("train", 0), ("test", 1)):
            lines = []
            for index, name in enumerate(CLASSES):
                path = f"{domain}/{name}/{domain}_{start:03d}_{index:06d}.png"
                write_image(root / "domainnet" / path, index, start)
                lines.append(f"{path} {index}")
            (root / "domainnet" / f"{domain}_{part}.txt").write_text("\n".join(lines) + "\n")
    generate_chest(root / "chexpert", num_images=160, size=24)


def write_image(path: Path, label: int, example: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng([label, example])
    colour = np.random.default_rng(label).integers(40, 216, 3)
    pixels = colour + generator.integers(-40, 40, (SIDE, SIDE, 3))
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def kedro(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a Python of its own, whose processor time is then known."""
    command = [sys.executable, "-m", "kedro", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def estimated_seconds(plan: Plan, nodes: list[Node]) -> float:
    """Wall clock that `kedro cost` expects, with the speeds of this machine."""
    domain = len(CLASSES)
    sizes = {"imagenet": (4 * len(SYNSETS), 2 * len(SYNSETS)), **dict.fromkeys(DOMAINS, (domain, domain))}
    figures = sum(name.endswith(".figure") for node in nodes for name in node.outputs)
    tables = plan_costs(plan, sizes, measure_speeds(plan), num_figures=figures, num_nodes=len(nodes))
    whole = tables["Whole plan"].set_index("work")
    print(whole.assign(seconds=3600 * whole["hours"]).round(1).to_string())
    return 3600 * float(whole.loc["total", "hours"])


@pytest.mark.large
def test_every_node_of_the_papers_study_runs(tmp_path: Path) -> None:
    """345 classes, 20 synsets and CheXpert's columns: no node fails, none is left out, every run and figure is there."""
    project = make_project(tmp_path, "")
    draw_stand_ins(tmp_path / "data" / "01_raw")
    overlay = tmp_path / "conf" / "rehearsal"
    overlay.mkdir()
    (overlay / "parameters.yml").write_text(REHEARSAL)
    (overlay / "globals.yml").write_text(f"data: {tmp_path}/data/rehearsal\n")

    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = kedro(tmp_path, "run", "--env", "rehearsal")
    taken, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    print(done.stdout[-4000:], done.stderr[-4000:])
    assert done.returncode == 0
    processor = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    print(f"kedro run: {taken:.0f} s, {processor:.0f} CPU s, peak {after.ru_maxrss / 2**20:.2f} GiB")

    with project.session(env="rehearsal") as session:
        session.load_context()
        nodes = pipelines["__default__"].nodes
        estimated = estimated_seconds(active_plan(), nodes)
    shares = f"{estimated / taken:.2f} of the clock, {cores() * estimated / processor:.2f} of the processor time"
    print(f"kedro cost: {estimated:.0f} s on {cores()} cores, {shares}")
    assert len(nodes) > 500
    assert f"[{len(nodes)}/{len(nodes)}]" in done.stdout + done.stderr
    with project.session(env="paper") as session:
        session.load_context()
        assert {node.name for node in nodes} == {node.name for node in pipelines["__default__"].nodes}
    page = (tmp_path / "data" / "rehearsal" / "08_reporting" / "report.html").read_text()
    assert "Figure 33" in page
