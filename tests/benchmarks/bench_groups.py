"""Count the operations of a plan's optimizer steps, by how its runs are grouped to be trained as one.

    uv run python tests/benchmarks/bench_groups.py [--env ENV]

A group of any size takes `TOGETHER` operations a step and a run alone `ALONE`; on a GPU that a small network does not
fill, time goes by their number. Evaluation is left out.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable
from pathlib import Path

import pandas as pd
from kedro.framework.startup import bootstrap_project

from transferscope.cost.passes import sizes_of
from transferscope.experiment.plan import Plan
from transferscope.experiment.run import RunSpec
from transferscope.experiment.run_groups import OF_THE_RUN
from transferscope.framework.config import load_plan

ALONE, TOGETHER = 185, 279
"""Operations that compute in a step of `fixup_resnet_small` with flips and clipping (docs/log.md)."""
EPOCHS = ("epochs", "evaluate_every")


def steps_of(plan: Plan, run: RunSpec) -> int:
    """Optimizer steps of a run."""
    train, _ = sizes_of(plan, run.task, {})
    return run.training.epochs * -(-train // run.training.batch_size)


def operations(plan: Plan, groups: list[list[RunSpec]]) -> int:
    """Operations of all groups; where the runs of one have unequal numbers of steps, the longer ones go on alone."""
    total = 0
    for group in groups:
        left = sorted((steps_of(plan, run) for run in group), reverse=True)
        last, shared = left[0], left[1] if len(left) > 1 else 0
        total += TOGETHER * shared + ALONE * (last - shared)
    return total


def grouped(runs: list[RunSpec], key: Callable[[RunSpec], Hashable]) -> list[list[RunSpec]]:
    """The runs of each key."""
    groups = defaultdict(list)
    for run in runs:
        groups[key(run)].append(run)
    return list(groups.values())


def longest_chain(plan: Plan, runs: list[RunSpec]) -> list[RunSpec]:
    """The runs of most steps that must wait for each other: no grouping takes fewer."""
    chains: dict[str, list[RunSpec]] = {}
    for run in runs:
        before = [chains[start] for start in (run.pretrained, run.split_from) if start in chains]
        chains[run.full_name] = (
            [*max(before, key=lambda chain: operations(plan, [[one] for one in chain])), run] if before else [run]
        )
    return max(chains.values(), key=lambda chain: operations(plan, [[one] for one in chain]))


def ways(plan: Plan) -> dict[str, list[list[RunSpec]]]:
    """Groups by what their runs must have in common, each way with larger ones than the way before."""
    runs = [run for run in plan.runs.values() if run.checkpoint is None]
    depths = {run.full_name: 0 for run in runs}
    for run in plan.runs.values():
        before = [depths[start] for start in (run.pretrained, run.split_from) if start in depths]
        depths[run.full_name] = 1 + max(before) if before else 0

    def images(run: RunSpec) -> str:
        task = plan.study.tasks[run.task]
        own = task.union[0] if task.union else run.task
        drawn = (name for name, item in plan.study.generated.items() if own in item.tasks)
        return next(drawn, own)

    def start(run: RunSpec) -> tuple[Hashable, ...]:
        return depths[run.full_name], run.model.model_dump_json()

    def options(run: RunSpec, *but: str) -> str:
        return run.training.model_dump_json(exclude=OF_THE_RUN | {*but})

    return {
        "one after the other": [[run] for run in runs],
        "of one task": grouped(runs, lambda run: (run.task, *start(run), options(run))),
        "of one network, classes and steps": grouped(
            runs, lambda run: (images(run), *start(run), options(run), steps_of(plan, run))
        ),
        "of one network and classes": grouped(runs, lambda run: (images(run), *start(run), options(run, *EPOCHS))),
        "of one network": grouped(runs, lambda run: (*start(run), options(run, *EPOCHS))),
        "(one after the other, the longest chain alone)": [[run] for run in longest_chain(plan, runs)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env")
    bootstrap_project(Path.cwd())
    plan = load_plan(parser.parse_args().env)
    found = {way: (groups, operations(plan, groups)) for way, groups in ways(plan).items()}
    (_, before), *_ = found.values()
    sizes = {way: Counter(len(group) for group in groups) for way, (groups, _) in found.items()}
    rows = [
        {
            "groups": way,
            "nodes": len(groups),
            "runs of each": ", ".join(f"{count} x {size}" for size, count in sorted(sizes[way].items())),
            "operations, million": round(count / 1e6, 2),
            "fewer, times": round(before / count, 1),
        }
        for way, (groups, count) in found.items()
    ]
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()
