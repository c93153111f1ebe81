"""Measurements of the modules of one run: criticality and rewinding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple, cast

import numpy as np
import pandas as pd

from transferscope.analysis.criticality import MEASUREMENTS, module_criticality
from transferscope.analysis.criticality import criticality as shake
from transferscope.analysis.rewinding import rewinding as rewind
from transferscope.analysis.screening import screened_criticality
from transferscope.analysis.states import State, state_digest
from transferscope.experiment.options import CriticalityOptions, ModulesOptions
from transferscope.experiment.plan import derive_seed
from transferscope.measure.bench import Bench, batches, workspace
from transferscope.models.checkpoint import Checkpoint
from transferscope.models.layers import image_channels
from transferscope.models.modules import Modules, find_modules
from transferscope.models.parametrised import analysed_model, analysed_state
from transferscope.models.parts import split_at_modules
from transferscope.models.series import CheckpointSeries, Epoch
from transferscope.system.progress import progress_bar

MODULES_AT_ONCE = 4

Case = tuple[str, float, float]
"""Module, position on its path, and sigma of the noise."""


class Criticality(NamedTuple):
    """Criticality of the modules of one run."""

    noise: pd.DataFrame
    """A row per module, path, end, part, position, sigma and draw: distance, loss, error; num_examples."""
    mu: pd.DataFrame
    """A row per module, path and end: mu, and the epsilon under which it holds; num_examples."""


def modules_of(checkpoint: Checkpoint, options: ModulesOptions | None = None) -> Modules:
    """Find the modules of analysis of a checkpoint's network."""
    chosen = options or ModulesOptions()
    return find_modules(analysed_model(checkpoint), granularity=chosen.granularity, groups=chosen.groups)


def criticality(
    bench: Bench, series: CheckpointSeries, modules: Modules, options: CriticalityOptions | None = None
) -> Criticality:
    """Measure every module of a run, moved towards its initial value and disturbed, on all parts of the bench.

    In bfloat16 what lies near the bound of mu, and the bound itself, are measured in float32. `max_examples` and
    `rewind_epochs` of the options are the caller's.
    """
    chosen = options or CriticalityOptions()
    noise, mu = [], []
    for end in chosen.ends:
        bound = _unperturbed_loss(bench, series.load(end)) + chosen.epsilon
        for path in chosen.paths:
            table = _shake(bench, series, modules, chosen, end, path, bound)
            noise.append(table)
            mu.append(module_criticality(table, [bound]).assign(epsilon=chosen.epsilon))
    tables = pd.concat(noise, ignore_index=True), pd.concat(mu, ignore_index=True)
    sizes = {part: len(split) for part, split in bench.splits.items()}
    return Criticality(
        tables[0].assign(num_examples=tables[0]["split"].map(sizes)), tables[1].assign(num_examples=sizes["train"])
    )


def rewinding(bench: Bench, series: CheckpointSeries, modules: Modules, epochs: Sequence[int] = (0,)) -> pd.DataFrame:
    """Measure the final model on test with one module set back to each of some epochs: the columns of the analysis.

    Beside them: split, num_examples. Epochs that a run which diverged never came to are left out.
    """
    final = series.load("final")
    model = workspace(final)
    earlier = {epoch: analysed_state(series.load(epoch)) for epoch in series.reached(epochs)}
    with progress_bar(f"{series.name}: modules set back", len(modules) * len(earlier)) as advance:
        evaluate = bench.metrics(final, ["test"])
        table = rewind(model, analysed_state(final), earlier, modules, evaluate, progress=advance)
    metric = table["metric"].str.removeprefix("test/")
    return table.assign(split="test", metric=metric, num_examples=len(bench.split("test")))


def _unperturbed_loss(bench: Bench, checkpoint: Checkpoint) -> float:
    exact = Bench(bench.splits, bench.store)
    return float(exact.metrics(checkpoint, ["train"])(workspace(checkpoint))["train/loss"])


def _shake(
    bench: Bench,
    series: CheckpointSeries,
    modules: Modules,
    options: CriticalityOptions,
    end: Epoch,
    path: str,
    bound: float,
) -> pd.DataFrame:
    """Criticality of every module on one path; what the store has is not measured again."""
    final, initial = series.load(end), analysed_state(series.load(0))
    model, final_state = workspace(final), analysed_state(final)
    epochs = [epoch for epoch in series.epochs if epoch <= series.epoch(end)]
    trajectory = {epoch: analysed_state(series.load(epoch)) for epoch in epochs} if path == "optimization" else None
    positions: list[float] = options.positions.values() if trajectory is None else list(epochs)
    seed = derive_seed(series.name, "criticality")
    cases = [(name, at, sigma) for name in modules for at in positions for sigma in options.sigmas]
    places = _places(initial, final_state, positions, trajectory)
    exact = bench.precision == "float32"
    settled = [] if exact else [bound]
    splits = bench.splits
    keys = {
        (name, at, sigma): bench.key(
            final,
            "criticality",
            name,
            *modules[name],
            places[at],
            sigma,
            options.draws,
            seed,
            *settled,
            *splits.values(),
        )
        for name, at, sigma in cases
    }
    rows = {case: bench.store.get(keys[case]) for case in cases}
    examples = {part: batches(split, image_channels(model)) for part, split in splits.items()}
    measure = (
        partial(shake, stages=split_at_modules(model))
        if exact
        else partial(screened_criticality, epsilons=[bound], split=split_at_modules)
    )
    with progress_bar(f"{series.name}: {path} path to {end}", len(modules)) as advance:
        for group in _groups(list(modules)):
            missing = {case for case in cases if case[0] in group and rows[case] is None}
            if missing:
                table = measure(
                    model,
                    initial,
                    final_state,
                    {name: modules[name] for name in group},
                    examples,
                    alphas=positions,
                    sigmas=options.sigmas,
                    num_draws=options.draws,
                    seed=seed,
                    trajectory=trajectory,
                    only=missing,
                )
                for case, measured in _by_case(table).items():
                    rows[case] = bench.store[keys[case]] = measured
            advance(len(group))
    table = pd.concat([pd.DataFrame(rows[case]).assign(module=case[0]) for case in cases], ignore_index=True)
    return table.assign(path=path, end=end)[["module", "path", "end", "split", *MEASUREMENTS]]


def _groups(names: list[str]) -> list[list[str]]:
    """Modules that are measured together: they share what lies in front of them, and a kill loses them together."""
    return [names[start : start + MODULES_AT_ONCE] for start in range(0, len(names), MODULES_AT_ONCE)]


def _by_case(table: pd.DataFrame) -> dict[Case, dict[str, np.ndarray]]:
    """Rows as arrays, by module, position and sigma."""
    found = table.groupby(["module", "position", "sigma"], sort=False)
    return {
        cast(Case, case): {"split": part["split"].to_numpy(dtype=str)}
        | {column: part[column].to_numpy() for column in MEASUREMENTS}
        for case, part in found
    }


def _places(
    initial: State, final: State, positions: list[float], trajectory: Mapping[int, State] | None
) -> dict[float, list[object]]:
    """What the weights of a module at each position follow from, by content."""
    ends = [state_digest(initial), state_digest(final)]
    if trajectory is None:
        return {position: [*ends, position] for position in positions}
    return {position: [*ends, state_digest(trajectory[int(position)])] for position in positions}
