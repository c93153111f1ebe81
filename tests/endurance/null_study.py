"""A study of two kinds of run that differ in nothing but name, through the whole pipeline.

Four RI-T are trained on each task of the default study and compared by every analysis. Then two of each task's four are
called P-T, in every labelling that is asked for, and the claims on P-T against RI-T are decided. A verdict other than
*cannot tell* is false, and comes with a chance of 5 %. Claims on the same runs, and labellings of them, go together:
the first labelling is one study, and all of them say how many verdicts such a study decides by chance.

    uv run python tests/endurance/null_study.py --folder data/null_study --labellings 200

The study takes about 6 minutes of two cores, once; a labelling takes a second. `--small` makes a study of a few images
and two epochs, which shows in two minutes of one core that all of it runs; its runs learn nothing, so nothing is decided.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tiny_project import Project, make_project
from transferscope.claims.evidence import Evidence, TaskResults
from transferscope.claims.registry import registered
from transferscope.claims.verdict import decide
from transferscope.experiment.plan import Plan, make_plan

TASKS = ("real", "clipart", "quickdraw", "chest")
NULL = f"""
inherit_study: false
tasks:
  real: {{format: domainnet, root: data/01_raw/generated/domains}}
  clipart: {{format: domainnet, root: data/01_raw/generated/domains}}
  quickdraw: {{format: domainnet, root: data/01_raw/generated/domains}}
  chest:
    format: chexpert
    root: data/01_raw/generated/chest
    num_train: 1000
    num_test: 500
    pictures: {{store_size: 32, style: chest, mean: [0.5], std: [0.25]}}
generated:
  domains: {{draws: domains, tasks: [real, clipart, quickdraw], num_train: 1000, num_test: 500}}
  chest: {{draws: chest, tasks: [chest], num_train: 1000, num_test: 500}}
pictures: {{store_size: 32}}
model: {{name: fixup_resnet_small}}
training: {{epochs: 12, batch_size: 32, warmup_fraction: 0.1, clip_norm: 2.0, channels_last: true, evaluate_every: 3}}
runs:
  rit: {{label: RI-T, tasks: [{", ".join(TASKS)}], replicas: 4, training: {{lr: 0.05}}}}
analyses:
  mistakes: {{pairs: [[rit, rit]]}}
  similarity: {{pairs: [[rit, rit]], features: [pooled], heat_map_pairs: 0}}
  spectrum: {{kinds: [rit]}}
  landscape:
    pairs: [[rit, rit]]
    max_examples: 200
    extrapolation: null
    basin: null
    criticality:
      tasks: [clipart, chest]
      runs: [rit_1, rit_2, rit_3, rit_4]
      max_examples: 64
      paths: [direct]
      pages: false
"""

SMALL = {
    "num_train: 1000": "num_train: 60",
    "num_test: 500": "num_test: 40",
    "store_size: 32": "store_size: 16",
    "{name: fixup_resnet_small}": "{name: fixup_resnet_small, options: {widths: [4, 8, 8]}}",
    "epochs: 12": "epochs: 2",
    "evaluate_every: 3": "evaluate_every: 1",
    "max_examples: 200": "max_examples: 30",
    "extrapolation: null": "extrapolation: null\n    alphas: {points: 3}",
    "max_examples: 64": "max_examples: 16\n      positions: {points: 2}\n      sigmas: [0.0, 0.1]\n      rewind_epochs: [0]",
    "features: [pooled]": "features: [pooled], max_examples: 40, batch_size: 8",
}
"""What makes the study small."""

OF_TWO_KINDS = ("P-T", "RI-T", "P-T & P-T", "P-T & RI-T", "RI-T & RI-T", "classes", "layers")
"""Sides of claims that set one kind against the other."""


def study(*, small: bool) -> str:
    """The parameters of the study."""
    text = NULL
    for long, short in SMALL.items() if small else ():
        assert long in text, long
        text = text.replace(long, short)
    return text


def relabel(plan: Plan, called: dict[str, tuple[int, ...]]) -> Plan:
    """The plan with these replicas of each task in the role of P-T."""
    runs = {
        name: run.model_copy(update={"role": "fine_tuned"}) if run.replica in called[run.task] else run
        for name, run in plan.runs.items()
    }
    return Plan(plan.study, runs)


def load_results(project: Project) -> dict[str, TaskResults]:
    """The gathered results of every task, as the report reads them."""
    return {task: project.load(f"{task}.results") for task in TASKS}


def null_claims() -> list[str]:
    """Claims whose effect is 0 where both kinds are one."""
    return [
        claim.id
        for claim in registered().values()
        if set(claim.sides) <= set(OF_TWO_KINDS) and (len(claim.sides) == 2 or claim.sides[0] in ("classes", "layers"))
    ]


def verdicts_of(plan: Plan, results: dict[str, TaskResults]) -> dict[str, str]:
    """The verdict of each of the claims that has an interval."""
    evidence = Evidence(plan, results)
    decided = {name: decide(list(registered()[name].measure(evidence)), evidence.kinship()) for name in null_claims()}
    return {name: one.verdict for name, one in decided.items() if np.isfinite(one.low)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="of the study's project; made where it is not there")
    parser.add_argument("--labellings", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--small", action="store_true", help="few images and two epochs, to see that it runs")
    options = parser.parse_args()
    if options.folder.exists():
        project = Project(options.folder.resolve())
    else:
        options.folder.mkdir(parents=True)
        project = make_project(options.folder.resolve(), study(small=options.small))
        project.run()
    with project.session() as session:
        plan = make_plan(session.load_context().params["plan"]["study"])
    results, random = load_results(project), np.random.default_rng(options.seed)
    halves = list(combinations(range(1, 5), 2))
    verdicts: dict[str, Counter[str]] = {}
    wrong_in: list[int] = []
    for index in range(options.labellings):
        called = {task: halves[0] if index == 0 else halves[random.integers(len(halves))] for task in TASKS}
        labelled = verdicts_of(relabel(plan, called), results)
        wrong = {name: verdict for name, verdict in labelled.items() if verdict != "cannot tell"}
        wrong_in.append(len(wrong))
        if index == 0:
            print(f"first two replicas against the last two: {len(wrong)} of {len(labelled)} decided {wrong or ''}")
        for name, verdict in labelled.items():
            verdicts.setdefault(name, Counter())[verdict] += 1
    print(f"{options.labellings} labellings:  holds  does not hold  of")
    for name, counts in verdicts.items():
        print(f"{name:24} {counts['holds']:5} {counts['does not hold']:14} {counts.total():4}")
    total = sum(verdicts.values(), Counter())
    if not total:
        print("no claim has an interval: too few runs have learned")
        return
    decided = total["holds"] + total["does not hold"]
    print(f"all {total.total()}: {total['holds']} hold, {total['does not hold']} do not: {decided / total.total():.1%}")
    as_many = np.mean(np.array(wrong_in) >= wrong_in[0])
    print(f"of a labelling {np.mean(wrong_in):.2f} are decided; as many as in the first in {as_many:.0%} of labellings")


if __name__ == "__main__":
    main()
